"""Traffic signs that the package draws itself: the course's main victim.

Twelve European signs as a car's camera might see them: 32×32 colour images with varied background, light, blur, pose,
occlusion and sensor noise. Nothing is read from disk and no real photograph is involved: each sign is a few polygons
and strokes, drawn once per process, then photographed as often as you like.

A photograph takes numpy's elementwise + - * / and no matrix product, power or cosine, whose last bits differ between
machines, and ends in whole grey levels as a camera's does. So one seed gives one data set on any number of threads.
"""
import functools

import numpy as np
import torch

from mlsec_lab.victims.inputs import check_choice, check_labels, check_number

CLASSES = ("stop", "yield", "no entry", "speed limit 30", "speed limit 50", "speed limit 80", "turn left", "turn right",
           "priority road", "warning", "pedestrian crossing", "roundabout")
SIZE = 32

# Red, green and blue of fresh paint.
PAINT = {"white": (0.90, 0.90, 0.90), "red": (0.72, 0.08, 0.10), "blue": (0.04, 0.24, 0.62),
         "yellow": (0.95, 0.66, 0.08), "black": (0.05, 0.05, 0.06)}
# Real signs have several makers: thickness of strokes, size of the symbol, walker mirrored or not.
MAKERS = ((1.0, 1.0, False), (0.85, 1.06, True), (1.18, 0.96, False), (1.0, 1.12, True))

_TEXELS, _REACH = 48, 1.1  # a template spans [-1.1, 1.1]; every sign ends at ±1, so a transparent margin remains
_CHUNK = 32                # images at a time: the working set stays within a core's cache


# --- Shapes: signed distances, negative inside, in units of half the sign's width; x points right and y down ---

def _arc(centre_x, centre_y, radius_x, radius_y, start, stop):
    """Points along an arc, angles in degrees: 0 is right, 90 is down."""
    angles = np.linspace(np.radians(start), np.radians(stop), 12)
    return [(centre_x + radius_x * np.cos(angle), centre_y + radius_y * np.sin(angle)) for angle in angles]


# Centre lines in a box 0.6 wide and 1 high, after the DIN 1451 lettering of German road signs.
GLYPHS = {
    "0": _arc(0.3, 0.3, 0.27, 0.3, 180, 360) + _arc(0.3, 0.7, 0.27, 0.3, 0, 180) + [(0.03, 0.3)],
    "3": _arc(0.28, 0.25, 0.25, 0.25, 195, 450) + _arc(0.28, 0.73, 0.28, 0.27, 270, 525),
    "5": [(0.52, 0.0), (0.08, 0.0), (0.05, 0.47)] + _arc(0.28, 0.68, 0.29, 0.32, 222, 505),
    "8": _arc(0.3, 0.24, 0.24, 0.24, 90, 450) + _arc(0.3, 0.73, 0.28, 0.27, 270, 630),
    "S": _arc(0.3, 0.26, 0.27, 0.26, 335, 90) + _arc(0.3, 0.75, 0.27, 0.25, 270, 515),
    "T": [(0.0, 0.0), (0.6, 0.0), (0.3, 0.0), (0.3, 1.0)],
    "P": [(0.05, 1.0), (0.05, 0.0)] + _arc(0.28, 0.27, 0.28, 0.27, 270, 450) + [(0.05, 0.54)],
}
GLYPHS["O"] = GLYPHS["0"]


def _segments(x, y, points):
    """Distance to the nearest of the line segments that join the points."""
    nearest = np.full(x.shape, np.inf)
    for (x0, y0), (x1, y1) in zip(points[:-1], points[1:]):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
        nearest = np.minimum(nearest, (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)
    return np.sqrt(nearest)


def _polygon(x, y, points):
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1]):
        if y0 != y1:  # even-odd rule: count the edges to the right
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return np.where(inside, -1, 1) * _segments(x, y, points + points[:1])


def _disc(x, y, radius, centre_x=0.0, centre_y=0.0):
    return np.sqrt((x - centre_x) ** 2 + (y - centre_y) ** 2) - radius


def _text(x, y, text, height, width, gap, stroke):
    """Distance to a centred word whose letters are `width` wide and `gap` apart."""
    left = -(len(text) * width + (len(text) - 1) * gap) / 2
    letters = []
    for place, letter in enumerate(text):
        points = [(left + place * (width + gap) + u / 0.6 * width, (v - 0.5) * height) for u, v in GLYPHS[letter]]
        letters.append(_segments(x, y, points) - stroke)
    return np.minimum.reduce(letters)


def _triangle(x, y):
    """A triangle standing on its base, with rounded corners, ±1 wide and ±0.9 high."""
    return _polygon(x, y, [(0.0, -0.74), (0.87, 0.80), (-0.87, 0.80)]) - 0.1


def _bent_arrow(x, y, stroke):
    """Up from the bottom, then to the right."""
    path = [(-0.24, 0.62), (-0.24, 0.0)] + _arc(0.06, 0.0, 0.3, 0.3, 180, 270) + [(0.25, -0.3)]
    return np.minimum(_segments(x, y, path) - stroke, _polygon(x, y, [(0.2, -0.64), (0.2, 0.04), (0.66, -0.3)]))


def _ring_of_arrows(x, y, stroke):
    """Three arrows that chase each other anticlockwise."""
    parts = []
    for start in (65, 185, 305):
        end = np.radians(start - 66)
        across, along = np.array([np.cos(end), np.sin(end)]), np.array([np.sin(end), -np.cos(end)])
        head = [tuple(out * across + ahead * along) for out, ahead in ((0.50, 0.36), (0.82, 0.02), (0.30, -0.02))]
        parts += [_segments(x, y, _arc(0, 0, 0.56, 0.56, start, start - 66)) - stroke, _polygon(x, y, head)]
    return np.minimum.reduce(parts)


def _walker(x, y, stroke):
    """A person walking to the left: head, trunk, two legs, two arms."""
    limbs = ([(0.02, -0.14), (-0.02, 0.16), (-0.12, 0.32), (-0.24, 0.56)], [(-0.02, 0.14), (0.12, 0.32), (0.20, 0.58)],
             [(0.02, -0.14), (-0.16, 0.0), (-0.20, 0.16)], [(0.02, -0.14), (0.14, 0.04), (0.26, 0.10)])
    trunk = _segments(x, y, [(0.02, -0.12), (-0.02, 0.12)]) - 1.6 * stroke
    return np.minimum.reduce([_disc(x, y, 0.10, 0.03, -0.33), trunk] + [_segments(x, y, limb) - stroke for limb in limbs])


def _shapes(name, x, y, thick, large, mirrored):
    """What to paint, in order: [(paint, signed distance)]; the later covers the earlier."""
    u, v = x / large, y / large  # the symbol grows on a plate that does not
    if name == "stop":
        octagon = np.maximum(np.maximum(np.abs(x), np.abs(y)), (np.abs(x) + np.abs(y)) * np.sqrt(0.5)) - 1
        return [("white", octagon), ("red", octagon + 0.07), ("white", _text(u, v, "STOP", 0.62, 0.27, 0.13, 0.06 * thick))]
    if name == "yield":
        return [("red", _triangle(x, -y)), ("white", _triangle(x, -y) + 0.22 * thick)]
    if name == "priority road":
        diamond = _polygon(x, y, [(0, -0.9), (0.9, 0), (0, 0.9), (-0.9, 0)]) - 0.07
        return [("black", diamond), ("white", diamond + 0.03), ("black", diamond + 0.24 * thick),
                ("yellow", diamond + 0.24 * thick + 0.04)]
    if name in ("warning", "pedestrian crossing"):
        if name == "warning":
            bar = _polygon(u, v, [(-0.10, -0.28), (0.10, -0.28), (0.055, 0.28), (-0.055, 0.28)]) - 0.02 * thick
            symbol = np.minimum(bar, _disc(u, v, 0.095, 0.0, 0.44))
        else:
            symbol = _walker(-u if mirrored else u, v - 0.04, 0.06 * thick)
        return [("red", _triangle(x, y)), ("white", _triangle(x, y) + 0.20 * thick), ("black", symbol)]
    plate = _disc(x, y, 1.0)
    if name == "no entry":
        return [("white", plate), ("red", plate + 0.05), ("white", _segments(u, v, [(-0.58, 0), (0.58, 0)]) - 0.14 * thick)]
    if name.startswith("speed limit"):
        return [("white", plate), ("red", plate + 0.03), ("white", plate + 0.03 + 0.21 * thick),
                ("black", _text(u, v, name[-2:], 0.74, 0.36, 0.17, 0.07 * thick))]
    if name == "roundabout":
        return [("white", plate), ("blue", plate + 0.05), ("white", _ring_of_arrows(u, v, 0.09 * thick))]
    arrow = _bent_arrow(-u if name == "turn left" else u, v, 0.12 * thick)
    return [("white", plate), ("blue", plate + 0.05), ("white", arrow)]


def _layers(label, size, maker=0):
    """Three layers, kept apart so that each can fade in its own way: cover [3, size, size] in [0, 1], paint [3, RGB]."""
    steps = ((np.arange(size) + 0.5) / size * 2 - 1) * _REACH
    x, y = np.meshgrid(steps, steps)
    shapes = _shapes(CLASSES[label], x, y, *MAKERS[maker])
    names = list(dict.fromkeys(paint for paint, _ in shapes))
    layers = np.zeros((3, size, size))
    for paint, distance in shapes:
        cover = np.clip(0.5 - distance * size / (2 * _REACH), 0, 1)  # an edge one pixel wide
        layers *= 1 - cover
        layers[names.index(paint)] += cover
    return layers, np.array([PAINT[name] for name in (names + ["white"])[:3]])


@functools.lru_cache(maxsize=1)
def _atlas():
    """Every template: cover [3, classes * makers * texels²] and paint [12, 3, RGB], float32."""
    covers, paints = zip(*(_layers(label, _TEXELS, maker) for label in range(len(CLASSES)) for maker in range(len(MAKERS))))
    return np.stack(covers, 1).reshape(3, -1).astype(np.float32), np.array(paints[::len(MAKERS)], np.float32)


# --- A photograph: whole chunks of images [n, 3, 32, 32], with one random number an image as [n, 1, 1, 1] ---

_ROW = ((np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1).reshape(1, 1, SIZE, 1)
_COLUMN = _ROW.reshape(1, 1, 1, SIZE)


def _uniform(rng, n, low, high, channels=1):
    return low + (high - low) * rng.random((n, channels, 1, 1), np.float32)


def _seldom(rng, n, most):
    """From 0 to `most`, large values seldom."""
    u = _uniform(rng, n, 0, 1)
    return u * u * u * most


def _happens(rng, n, rate):
    return (rng.random((n, 1, 1, 1), np.float32) < rate).astype(np.float32)


def _resize(images, size):
    """Bilinear, without smoothing first: as a careless resize does."""
    here = images.shape[-1]
    position = np.clip((np.arange(size) + 0.5) * here / size - 0.5, 0, here - 1)
    first = np.minimum(position.astype(np.int64), here - 2)
    weight = (position - first).astype(np.float32)
    images = images[:, :, first] * (1 - weight)[:, None] + images[:, :, first + 1] * weight[:, None]
    return np.take(images, first, 3) * (1 - weight) + np.take(images, first + 1, 3) * weight


def _colour(rng, n, low=0.0, high=1.0, chroma=0.25):
    """Mostly grey, as the world is: a brightness and a smaller deviation per channel."""
    return np.clip(_uniform(rng, n, low, high) + _uniform(rng, n, 0, 1) * _uniform(rng, n, -chroma, chroma, 3), 0, 1)


def _turn(x, y, tangent):
    """Turns coordinates by twice the angle that has this tangent: rational, where a cosine differs between machines."""
    cosine, sine = (1 - tangent * tangent) / (1 + tangent * tangent), 2 * tangent / (1 + tangent * tangent)
    return cosine * x + sine * y, cosine * y - sine * x


def _box(rng, n, tangent, widths, heights, rate):
    """Masks [n, 1, 32, 32] of soft-edged boxes at random places; empty for a share 1 - rate of the images."""
    x, y = _turn(_COLUMN - _uniform(rng, n, -1, 1), _ROW - _uniform(rng, n, -1, 1), _uniform(rng, n, -tangent, tangent))
    distance = np.maximum(np.abs(x) - _uniform(rng, n, *widths), np.abs(y) - _uniform(rng, n, *heights))
    return np.clip(0.5 - distance * _uniform(rng, n, 4, 16), 0, 1) * _happens(rng, n, rate)


def _background(rng, n):
    """Sky over ground, houses, trunks and foliage."""
    horizon = np.clip(0.5 + (_ROW - _uniform(rng, n, -1.5, 1.5)) * _uniform(rng, n, 0.3, 8), 0, 1)
    image = _colour(rng, n, 0.2, 1.2) * (1 - horizon) + _colour(rng, n, 0.0, 0.7) * horizon
    for _ in range(2):
        image = image + _box(rng, n, 0.3, (0.05, 0.8), (0.1, 2.0), 0.6) * (_colour(rng, n) - image)
    for cells in (3, 7, 16):
        grain = rng.random((n, 3, cells, cells), np.float32) - np.float32(0.5)
        image += _resize(0.85 * grain[:, :1] + 0.15 * grain, SIZE) * _seldom(rng, n, 1.5)
    return np.clip(image, 0, 1)


def _place(rng, labels):
    """The layers as the camera sees them, [n, 3, 32, 32]: rotated, scaled, shifted, sheared and in perspective."""
    n, atlas = len(labels), _atlas()[0]
    x, y = _COLUMN - _uniform(rng, n, -0.12, 0.12), _ROW - _uniform(rng, n, -0.12, 0.12)
    depth = 1 + _uniform(rng, n, -0.15, 0.15) * x + _uniform(rng, n, -0.15, 0.15) * y
    # Twice arctan(0.13) is 15 degrees; most poles stand straighter.
    x, y = _turn(x + _uniform(rng, n, -0.1, 0.1) * y, y, _uniform(rng, n, -0.13, 0.13) * _uniform(rng, n, 0.2, 1))
    size = _uniform(rng, n, 0.62, 0.92) * depth
    u, v = x / (size * _uniform(rng, n, 0.9, 1.12)), y / size

    # Bilinear look-up: the whole texel to the upper left, and how far the pixel lies to the right of and below it.
    column = np.clip((u / _REACH + 1) * (_TEXELS / 2) - 0.5, 0, _TEXELS - 1.001)
    row = np.clip((v / _REACH + 1) * (_TEXELS / 2) - 0.5, 0, _TEXELS - 1.001)
    left, top = column.astype(np.int64), row.astype(np.int64)
    right, bottom = column - left.astype(np.float32), row - top.astype(np.float32)
    sign = labels * len(MAKERS) + rng.integers(0, len(MAKERS), n)
    corner = sign.reshape(n, 1, 1, 1) * _TEXELS ** 2 + top * _TEXELS + left
    seen = np.empty((n, 3, SIZE, SIZE), np.float32)
    for slot, plane in enumerate(atlas):
        above = plane.take(corner) * (1 - right) + plane.take(corner + 1) * right
        below = plane.take(corner + _TEXELS) * (1 - right) + plane.take(corner + _TEXELS + 1) * right
        seen[:, slot:slot + 1] = above * (1 - bottom) + below * bottom
    return seen


def _paint(rng, image, seen, labels):
    """Mounts the sign on a pole in front of the background; old paint is paler and dirtier."""
    n = len(image)
    pole = np.clip(0.5 - (np.abs(_COLUMN - _uniform(rng, n, -0.1, 0.1)) - _uniform(rng, n, 0.03, 0.12)) * 16, 0, 1)
    image += pole * (_ROW > 0) * _happens(rng, n, 0.6) * (_colour(rng, n, 0.1, 0.8, 0.05) - image)
    age, paints = _seldom(rng, n, 0.6), _atlas()[1][labels]
    image *= 1 - seen.sum(1, keepdims=True)
    for slot in range(3):
        paint = paints[:, slot].reshape(n, 3, 1, 1) * _uniform(rng, n, 0.75, 1.1) + _uniform(rng, n, -0.06, 0.06, 3)
        paint = paint + age * (_uniform(rng, n, 0.3, 0.8) - paint)
        image += seen[:, slot:slot + 1] * paint
    return image


def _occlude(rng, image):
    """A branch or cable across the sign, a sticker on it."""
    n = len(image)
    image += _box(rng, n, 1.0, (0.03, 0.14), (0.5, 2.0), 0.18) * (_colour(rng, n) - image)
    return image + _box(rng, n, 1.0, (0.08, 0.28), (0.08, 0.28), 0.2) * (_colour(rng, n, chroma=0.5) - image)


def _light(rng, image):
    """Gradient, shadow, haze, exposure, white balance and tone curve."""
    n = len(image)
    image *= 1 + _uniform(rng, n, -0.25, 0.25) * _ROW + _uniform(rng, n, -0.25, 0.25) * _COLUMN
    image *= 1 - _box(rng, n, 1.0, (0.3, 1.0), (1.0, 2.0), 0.35) * _uniform(rng, n, 0.2, 0.7)
    image += _seldom(rng, n, 0.65) * (_colour(rng, n, 0.2, 0.9, 0.1) - image)
    exposure = _uniform(rng, n, 0, 1)
    image *= (0.20 + 1.5 * exposure * exposure) * _uniform(rng, n, 0.88, 1.12, 3)
    image = np.clip(image, 0, 1)
    return image / (image + _uniform(rng, n, 0.4, 1.1) * (1 - image))  # a tone curve that fixes 0 and 1


def _blur(rng, image):
    """Defocus, and motion along an axis: two passes of three taps each way, wide ones for the wide blur."""
    n = len(image)
    focus = _seldom(rng, n, 1)
    for axis in (2, 3):
        motion = _uniform(rng, n, 0.6, 1) + 0.6 * _happens(rng, n, 0.1)
        side = np.minimum(focus * motion, 1) * np.float32(1 / 3)
        for step in (1, 2):
            before, after = (np.clip(np.arange(SIZE) + shift, 0, SIZE - 1) for shift in (-step, step))
            image = image + side * (image.take(before, axis) + image.take(after, axis) - 2 * image)
    return image


def _sensor(rng, image):
    """Few pixels, noise, and whole grey levels: a far sign is photographed small and enlarged afterwards."""
    n = len(image)
    pixels = rng.choice([14, 18, 24, SIZE], n, p=[0.1, 0.15, 0.25, 0.5])
    noise = rng.standard_normal(image.shape, np.float32) * (0.004 + _seldom(rng, n, 0.06))
    for size in (14, 18, 24, SIZE):
        far = pixels == size
        small = _resize(image[far], size) if size < SIZE else image[far]
        small = small + noise[far, :, :size, :size] * (0.2 + small)  # darkness is quieter
        image[far] = _resize(small, SIZE) if size < SIZE else small
    return np.rint(np.clip(image, 0, 1) * 255) / np.float32(255)


def _photograph(rng, labels):
    image = _paint(rng, _background(rng, len(labels)), _place(rng, labels), labels)
    return _sensor(rng, _blur(rng, _light(rng, _occlude(rng, image))))


# --- What others call ---

def _number_of(label, name):
    """The class number of a class name, or of a class number."""
    if isinstance(label, str):
        check_choice(label, name, CLASSES)
        return CLASSES.index(label)
    check_number(label, name, least=0, most=len(CLASSES) - 1, whole=True)
    return label


def draw(n, *, seed=0, classes=None, y=None):
    """n photographs of traffic signs, the same to the last bit for the same arguments.

    n: how many, 0 or more.  seed: any int; the global random state is neither used nor changed.
    classes: the names or numbers (0 to 11) to draw from, all twelve by default; of k classes each comes n // k or
    n // k + 1 times, in shuffled order.  y: int64 [n], the labels to draw instead, in this order.
    Returns (x, y): x float32 [n, 3, 32, 32] in [0, 1], whole multiples of 1/255; y int64 [n], indices into CLASSES.
    Raises ValueError for n < 0, an n or seed that is no int, an unknown class, no classes, both classes and y, or a y
    that is not n labels.
    """
    check_number(n, "n", least=0, whole=True)
    check_number(seed, "seed", whole=True)
    rng = np.random.Generator(np.random.PCG64(seed % 2**64))
    if y is not None:
        check_labels(y, n, len(CLASSES))
        if classes is not None:
            raise ValueError(f"classes must be None where y names the labels, not {classes!r}")
        labels = y.cpu().numpy()
    else:
        if isinstance(classes, (str, int)):
            raise ValueError(f"classes must be a list of names or numbers, not {classes!r}")
        chosen = CLASSES if classes is None else classes
        chosen = sorted({_number_of(label, "classes") for label in chosen})
        if not chosen:
            raise ValueError(f"classes must hold at least one class, not {classes!r}")
        labels = rng.permutation(np.resize(np.array(chosen, np.int64), n))
    x = np.empty((n, 3, SIZE, SIZE), np.float32)
    for start in range(0, n, _CHUNK):
        x[start:start + _CHUNK] = _photograph(rng, labels[start:start + _CHUNK])
    return torch.from_numpy(x), torch.tensor(labels)


def template(label, size=128):
    """The clean front view of a sign on grey, for pictures: float32 [3, size, size] in [0, 1].

    label: a name from CLASSES, or its number.  size: pixels a side, 8 or more.
    Raises ValueError for an unknown label, or a size that is no int of 8 or more.
    """
    check_number(size, "size", least=8, whole=True)
    layers, paints = _layers(_number_of(label, "label"), size)
    image = 0.6 * (1 - layers.sum(0)) + (layers[:, None] * paints[:, :, None, None]).sum(0)
    return torch.from_numpy((np.rint(image * 255) / 255).astype(np.float32))
