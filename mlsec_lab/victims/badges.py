"""Staff badges: portraits of people who do not exist, drawn by the package itself.

A person is a number. Number and nothing else decides face, skin, hair, glasses, beard and clothes; what differs from shot to shot is what
differs at a badge counter: expression, gaze, pose, light, wall, camera. The 24 of STAFF have names and badges; every other number is
somebody in the street, for whoever needs faces of people that a model has never seen.

Elementwise + - * / and roots only, and whole grey levels at the end, as for the signs: one seed gives one data set on any machine.
"""
import functools

import numpy as np
import torch

from mlsec_lab.victims.inputs import check_labels, check_number
from mlsec_lab.victims.signs import _colour, _happens, _resize, _turn, _uniform

SIZE = 32
CLASSES = ("Ash", "Brook", "Cliff", "Dale", "Elm", "Field", "Glen", "Heath", "Isle", "Jay", "Knoll", "Lake",
           "Marsh", "North", "Oak", "Pond", "Quill", "Reed", "Stone", "Thorn", "Umber", "Vale", "Wood", "York")
STAFF = tuple(range(len(CLASSES)))
PUBLIC = {"train": tuple(range(1000, 1400)), "test": tuple(range(2000, 2176))}  # people in the street, other ones for each purpose

SKIN = ((0.96, 0.82, 0.74), (0.91, 0.72, 0.60), (0.82, 0.62, 0.47), (0.68, 0.48, 0.34), (0.50, 0.33, 0.23), (0.34, 0.22, 0.16))
HAIR = ((0.07, 0.06, 0.06), (0.22, 0.13, 0.08), (0.42, 0.24, 0.12), (0.60, 0.22, 0.08), (0.86, 0.70, 0.36), (0.60, 0.60, 0.62), (0.92, 0.91, 0.90))
CLOTH = ((0.75, 0.12, 0.14), (0.10, 0.25, 0.60), (0.10, 0.45, 0.25), (0.90, 0.70, 0.15), (0.92, 0.92, 0.92), (0.12, 0.12, 0.14),
         (0.45, 0.20, 0.55), (0.90, 0.50, 0.60), (0.20, 0.62, 0.68), (0.85, 0.42, 0.12))
# How hair can lie: how far it stands off the head, how far down it hangs (1 is the shoulders), where it begins on the forehead, how it is parted.
STYLES = ((-0.30, -0.6, -1.20, 0.0),   # none
          (0.03, -0.1, -0.62, 0.10),   # cropped
          (0.10, 0.05, -0.50, 0.45),   # short, parted
          (0.12, 0.05, -0.50, -0.45),  # short, parted on the other side
          (0.09, 0.85, -0.52, 0.05),   # long
          (0.14, 0.42, -0.28, 0.0),    # a bob with a fringe
          (0.28, 0.25, -0.52, 0.0),    # curls all round
          (0.06, 0.10, -0.74, 0.0))    # receding
_CHUNK = 32


@functools.lru_cache(maxsize=4096)
def _person(number):
    """What number decides about a person: 31 numbers, each with a fixed place."""
    rng = np.random.Generator(np.random.PCG64([number, 86]))
    pick = lambda table: np.array(table[rng.integers(len(table))], np.float64)  # noqa: E731
    near = lambda spread: rng.uniform(-spread, spread)  # noqa: E731
    style = pick(STYLES)
    hair = pick(HAIR) + near(0.03)
    bearded = rng.random() < 0.35 and style[1] < 0.3
    cloth = pick(CLOTH)
    shape = [0.50 + near(0.08), 0.64 + near(0.07), rng.uniform(0, 1)]                        # width, height, how square the jaw is
    eyes = [0.21 + near(0.035), -0.10 + near(0.05), 0.058 + near(0.014), rng.uniform(0.1, 1)]  # apart, up, size, how thick the brows are
    mouth = [0.36 + near(0.04), 0.17 + near(0.04), rng.uniform(0, 1), 0.17 + near(0.05)]       # down, width, how red, nose
    glasses = [float(rng.random() < 0.35), rng.uniform(0.10, 0.15), rng.uniform(0, 0.35)]      # any, radius, how light the frame is
    beard = [float(bearded) * rng.uniform(0.5, 1), float(bearded or rng.random() < 0.12)]      # how far up the cheeks, moustache
    collar = [float(rng.integers(3)), rng.uniform(0.7, 1.0)]                                   # round, V, open shirt; its white
    return np.array([*(pick(SKIN) + near(0.03)), *hair, *cloth, *style, *shape, *eyes, *mouth, *glasses, *beard, *collar], np.float32)


_ROW = ((np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1).reshape(1, 1, SIZE, 1)
_COLUMN = _ROW.reshape(1, 1, 1, SIZE)


def _inside(distance, edge):
    """Cover in [0, 1] from a signed distance: an edge about a pixel wide."""
    return np.clip(0.5 - distance * edge, 0, 1)


def _oval(x, y, a, b, edge):
    """Cover of an ellipse with the half axes a and b."""
    u, v = x / a, y / b
    return _inside((np.sqrt(u * u + v * v) - 1) * np.minimum(a, b), edge)


def _lay(image, cover, paint, rows=slice(None)):
    """Paint over image, in those rows, where cover says so."""
    part = image[:, :, rows]
    part += cover * (paint - part)


def _photograph(rng, people):
    """Portraits [n, 3, 32, 32] of the people with the parameters [n, 31], each shot different."""
    n = len(people)
    p = people[:, :, None, None, None]  # [n, 31, 1, 1, 1]: one number a picture, three a colour
    skin, hair, cloth = (people[:, k:k + 3].reshape(n, 3, 1, 1) for k in (0, 3, 6))
    volume, length, line, part, wide, high, square = (p[:, k] for k in range(9, 16))
    apart, up, eye, brow, down, lips, red, nose = (p[:, k] for k in range(16, 24))
    glasses, lens, frame, beard, moustache, collar, white = (p[:, k] for k in range(24, 31))

    image = _wall(rng, n)
    scale = _uniform(rng, n, 0.92, 1.08)
    x, y = (_COLUMN - _uniform(rng, n, -0.10, 0.10)) / scale, (_ROW - _uniform(rng, n, -0.08, 0.08)) / scale
    edge = SIZE / 2 * scale
    sx, sy = x, y  # shoulders stay upright
    x, y = _turn(x, y + 0.12, _uniform(rng, n, -0.07, 0.07))
    turn, smile, open_, lid = _uniform(rng, n, -0.10, 0.10), _uniform(rng, n, -0.5, 1), _uniform(rng, n, 0, 1), _uniform(rng, n, 0.45, 1)
    fx = x - turn  # what sits on the front of the head moves more than the head

    # Behind the head: hair that hangs down.
    fall = np.maximum(np.abs(x) - (wide + 0.6 * volume + 0.02), np.maximum(y - length, -y - 0.2))
    _lay(image, _inside(fall, edge) * (length > 0), hair * 0.85)
    # Clothes, neck, collar.
    low = slice(20, SIZE)
    torso = _oval(sx, sy[:, :, low] - 1.18, 0.86, 0.58, edge)
    _lay(image, torso, cloth, low)
    neck = _inside(np.maximum(np.abs(sx) - 0.20, np.maximum(sy[:, :, low] - 0.66, 0.2 - sy[:, :, low])), edge)
    vee = _inside((np.abs(sx) * 1.6 + sy[:, :, low] - 0.98), edge) * torso
    _lay(image, vee * (collar > 1.5), white, low)
    _lay(image, np.maximum(neck, vee * (np.abs(collar - 1) < 0.5)), skin * 0.82, low)
    # The head: an oval below which the jaw may be square, and ears.
    ears = _oval(np.abs(x) - wide, y - 0.02, 0.07, 0.13, edge)
    _lay(image, ears, skin * 0.9)
    u, v = x / wide, y / high
    u, v = u * u, v * v
    bow = np.where(y > 0, square * 0.55, 0) * u * v
    radius = np.sqrt(np.maximum(u + v - bow, 0))
    head = _inside((radius - 1) * wide, edge)
    _lay(image, head, skin)
    _lay(image, head * np.clip(fx * 1.2, 0, 0.25), skin * 0.6)
    # Beard and moustache, then mouth and nose.
    low = slice(12, 29)
    fy, mx, my = y[:, :, low], fx[:, :, low], y[:, :, low] - down
    chin = _inside(np.maximum(0.30 - 0.28 * beard - fy - np.abs(fx[:, :, low]) * beard * 0.45, 0.11 - np.sqrt(mx * mx + my * my)), edge) * head[:, :, low]
    _lay(image, chin * (beard > 0) * 0.9, hair * 0.9, low)
    _lay(image, _oval(mx, my + 0.085, lips * 1.25, 0.05, edge) * moustache * 0.95, hair * 0.85, low)
    curve = my + smile * 0.06 * (mx * mx / (lips * lips) - 0.6) * 1.6
    _lay(image, _oval(mx, curve, lips * (1 + 0.15 * smile), 0.035 + 0.03 * open_, edge) * 0.9, skin * (1 - red * 0.1) * np.float32([0.72, 0.45, 0.45]).reshape(1, 3, 1, 1)
         + red * np.float32([0.15, 0, 0]).reshape(1, 3, 1, 1), low)
    _lay(image, _oval(mx, my + 0.21, 0.05, nose * 0.55, edge) * 0.45, skin * 0.62, low)
    # Eyes, brows, glasses.
    mid = slice(5, 21)
    ex, ey = np.abs(fx[:, :, mid]) - apart, y[:, :, mid] - up
    _lay(image, _oval(ex, ey, eye * 1.5, eye * lid, edge) * 0.85, np.float32(0.93), mid)
    gaze = np.where(fx[:, :, mid] > 0, 1, -1) * turn * 0.35
    _lay(image, _oval(ex - gaze, ey, eye * 0.75, eye * lid, edge), np.float32(0.12), mid)
    _lay(image, _inside(np.maximum(np.abs(ex) - 0.12, np.abs(ey + 0.13 + 0.03 * smile) - 0.012 - 0.028 * brow), edge), hair * 0.6 + 0.02, mid)
    ring = np.abs(np.sqrt(ex * ex + ey * ey) - lens) - 0.022
    bridge = np.maximum(np.abs(ey) - 0.02, np.maximum(lens - np.abs(ex), np.abs(x[:, :, mid]) - wide))
    _lay(image, np.maximum(_inside(ring, edge), _inside(bridge, edge)) * glasses, frame, mid)
    # Hair on top: a cap around the head, above the hair line.
    cap = _inside(np.maximum((np.sqrt(u + v) - 1) * wide - volume, y / high - line - part * x - 0.5 * u), edge) * (volume > -0.1)
    _lay(image, cap, hair)
    return _camera(rng, image)


def _wall(rng, n):
    """What stands behind a person: a wall with a gradient, an edge, and some unevenness."""
    image = _colour(rng, n, 0.25, 0.95, 0.2) * (1 + _uniform(rng, n, -0.25, 0.25) * _ROW + _uniform(rng, n, -0.25, 0.25) * _COLUMN)
    edge = np.clip(0.5 + (_COLUMN - _uniform(rng, n, -1.2, 1.2)) * _uniform(rng, n, -8, 8), 0, 1) * _happens(rng, n, 0.4)
    image = image + edge * (_colour(rng, n, 0.2, 0.95) - image)
    grain = rng.random((n, 1, 5, 5), np.float32) - np.float32(0.5)
    return image + _resize(grain, SIZE) * _uniform(rng, n, 0, 0.3)


def _camera(rng, image):
    """Light from one side, exposure, white balance, a little blur, noise, and whole grey levels."""
    n = len(image)
    image *= 1 + _uniform(rng, n, -0.2, 0.2) * _ROW + _uniform(rng, n, -0.3, 0.3) * _COLUMN
    image *= _uniform(rng, n, 0.7, 1.15) * _uniform(rng, n, 0.93, 1.07, 3)
    soft = _uniform(rng, n, 0, 0.28)
    for axis in (2, 3):
        before, after = (np.clip(np.arange(SIZE) + shift, 0, SIZE - 1) for shift in (-1, 1))
        image = image + soft * (image.take(before, axis) + image.take(after, axis) - 2 * image)
    image += rng.standard_normal(image.shape, np.float32) * _uniform(rng, n, 0.005, 0.05)
    return np.rint(np.clip(image, 0, 1) * 255) / np.float32(255)


def draw(n, *, seed=0, people=STAFF, y=None):
    """n portraits, the same to the last bit for the same arguments.

    n: how many, 0 or more.  seed: any int; the global random state is neither used nor changed.
    people: numbers of the people, 0 or more each; 0 to 23 are the STAFF, whose names are CLASSES. Of k people each comes n // k or
    n // k + 1 times, in shuffled order.  y: int64 [n], places in `people`, to draw those instead, in this order.
    Returns (x, y): x float32 [n, 3, 32, 32] in [0, 1], whole multiples of 1/255; y int64 [n], places in `people`.
    Raises ValueError for n < 0, an n, seed or person that is no int of that kind, no people, or a y that is not n places.
    """
    check_number(n, "n", least=0, whole=True)
    check_number(seed, "seed", whole=True)
    people = tuple(people) if not isinstance(people, (str, int)) else ()
    if not people:
        raise ValueError("people must be a list of at least one number of a person")
    for number in people:
        check_number(number, "people", least=0, whole=True)
    rng = np.random.Generator(np.random.PCG64(seed % 2**64))
    if y is not None:
        check_labels(y, n, len(people))
        places = y.cpu().numpy()
    else:
        places = rng.permutation(np.resize(np.arange(len(people)), n))
    known = np.stack([_person(int(number)) for number in people])
    x = np.empty((n, 3, SIZE, SIZE), np.float32)
    for start in range(0, n, _CHUNK):
        x[start:start + _CHUNK] = _photograph(rng, known[places[start:start + _CHUNK]])
    return torch.from_numpy(x), torch.tensor(places)
