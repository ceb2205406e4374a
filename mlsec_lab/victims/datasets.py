"""The data sets, all behind one call: `x, y, classes = load_data("signs", "test", n=512)`.

`signs`, `badges` and `digits` need no file and no network. The others are real photographs: they are looked for in the data folder
(`data/`, or the folder that the environment variable MLSEC_DATA names) and downloaded into it where there is a network.
"""
import functools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mlsec_lab.home import COURSE
from mlsec_lab.victims import badges, signs
from mlsec_lab.victims.inputs import check_choice, check_number

GTSRB_CLASSES = tuple(
    [f"speed limit {v}" for v in (20, 30, 50, 60, 70, 80)] + ["end of limit 80", "speed limit 100", "speed limit 120"] +
    ["no overtaking", "no overtaking by lorries", "priority at next crossing", "priority road", "yield", "stop", "no vehicles",
     "no lorries", "no entry", "warning", "bend left", "bend right", "double bend", "bumpy road", "slippery road",
     "road narrows", "road works", "traffic signals", "pedestrian crossing", "children", "bicycles", "ice", "wild animals",
     "end of all limits", "turn right", "turn left", "ahead only", "ahead or right", "ahead or left", "keep right",
     "keep left", "roundabout", "end of no overtaking", "end of no overtaking by lorries"])


class Data(NamedTuple):
    """x: float32 [N, C, H, W] in [0, 1].  y: int64 [N].  classes: the names of the K classes."""
    x: torch.Tensor
    y: torch.Tensor
    classes: tuple


def load_data(name, split="test", *, n=None, seed=0):
    """Load `n` images of a data set.

    name: "signs" (drawn, 3x32x32, 12 classes), "digits" (handwritten, 1x8x8, 10 classes, 1,297 + 500 images),
        "fashion_mnist" (1x28x28, 10), "cifar10" (3x32x32, 10), "cifar100" (3x32x32, 100) or "gtsrb" (real traffic signs, 3x32x32, 43);
        "badges" (drawn portraits, 3x32x32, 24 people) or "olivetti" (photographs of faces, 1x32x32, 20 people), and
        "badges_public" or "olivetti_public": other people, those whom nobody has to keep secret.
    split: "train" or "test"; the two never share an image, those of "badges_public" no person either.
    n: how many, drawn without replacement by `seed`; all of them by default (signs: 20,000 to train, 2,000 to test; badges: 6,000 and
        2,000; badges_public: 3,000 and 2,000).
    Returns Data(x, y, classes).
    Raises ValueError for an unknown name or split, or an n below 1 or above what there is; FileNotFoundError, with what
    to do, where the files of a real data set can neither be found nor downloaded.
    """
    check_choice(name, "name", DATA_SETS)
    check_choice(split, "split", ("train", "test"))
    if n is not None:
        check_number(n, "n", least=1, whole=True)
    check_number(seed, "seed", least=0, whole=True)
    if name in DRAWN:
        return DRAWN[name](split, n, seed)
    images, labels, classes = _read(name, split, None if name == "digits" else data_folder())
    if n is not None and n > len(labels):
        raise ValueError(f"n must be at most {len(labels)}, the size of {name}'s {split} split, not {n}")
    chosen = slice(None) if n is None else np.random.default_rng(seed).permutation(len(labels))[:n]
    x = torch.from_numpy(np.ascontiguousarray(images[chosen])).float() / (16 if name == "digits" else 255)
    return Data(x, torch.from_numpy(np.asarray(labels)[chosen].astype(np.int64)), tuple(classes))


def data_folder():
    """The folder of the real data sets: MLSEC_DATA if it is set, else `data/` of the course.

    Raises FileNotFoundError where MLSEC_DATA names no folder.
    """
    named = os.environ.get("MLSEC_DATA")
    if not named:
        return COURSE / "data"
    if not Path(named).is_dir():
        raise FileNotFoundError(f"MLSEC_DATA names {named}, which is no folder: create it, or unset MLSEC_DATA to use {COURSE / 'data'}")
    return Path(named)


def _signs(split, n, seed):
    # Even seeds draw what is trained on and odd seeds what is tested on, so that the two can never meet.
    n = n or (20_000 if split == "train" else 2_000)
    return Data(*signs.draw(n, seed=2 * seed + (split == "test")), signs.CLASSES)


def _badges(split, n, seed):
    n = n or (6_000 if split == "train" else 2_000)
    return Data(*badges.draw(n, seed=2 * seed + (split == "test")), badges.CLASSES)


def _badges_public(split, n, seed):
    people, n = badges.PUBLIC[split], n or (3_000 if split == "train" else 2_000)
    return Data(*badges.draw(n, seed=2 * seed + (split == "test"), people=people), tuple(f"stranger {number}" for number in people))


@functools.lru_cache(maxsize=4)
def _read(name, split, folder):
    """A whole split as uint8 arrays, kept in memory; `folder` is part of the key, so that another MLSEC_DATA is read anew."""
    return READERS[name](split)


def _digits(split):
    from sklearn.datasets import load_digits
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    chosen = order[500:] if split == "train" else order[:500]
    return digits.images[chosen][:, None].astype(np.uint8), digits.target[chosen], [str(d) for d in range(10)]


def _gtsrb(split):
    """The file gtsrb32.npz where there is one (uint8 x_train, y_train, x_test, y_test), else torchvision's layout, resized to 32x32."""
    packed = data_folder() / "gtsrb32.npz"
    if packed.is_file():
        try:
            with np.load(packed, allow_pickle=False) as arrays:
                return arrays[f"x_{split}"], arrays[f"y_{split}"], GTSRB_CLASSES
        except Exception as error:
            raise FileNotFoundError(f"{packed} is damaged ({error}): delete it and unpack or download it again") from error
    real = _torchvision_set("gtsrb", "GTSRB", split=split)
    try:
        images = np.stack([np.asarray(image.convert("RGB").resize((32, 32))) for image, _ in real])
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"{data_folder() / 'gtsrb'} is damaged ({error}): delete it and unpack or download it again") from error
    return images.transpose(0, 3, 1, 2), np.array([label for _, label in real]), GTSRB_CLASSES


def _fashion_mnist(split):
    real = _torchvision_set("fashion_mnist", "FashionMNIST", train=split == "train")
    return real.data.numpy()[:, None], real.targets.numpy(), [name.lower() for name in real.classes]


def _cifar(name, split):
    real = _torchvision_set(name, name.upper(), train=split == "train")
    return real.data.transpose(0, 3, 1, 2), real.targets, real.classes


def _olivetti(people, split):
    """The faces of the AT&T laboratories, 40 people of ten shots each, in the layout of olivettifaces.mat: "faces" uint8 [4096, 400]."""
    path = data_folder() / "olivetti" / "olivettifaces.mat"
    try:
        from scipy.io import loadmat  # numbers only: scikit-learn's own copy of this file would have to be unpickled
        columns = loadmat(path)["faces"]
        images = columns.T.reshape(40, 10, 64, 64).transpose(0, 1, 3, 2).astype(np.float64)  # the file holds columns, not rows
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: download olivettifaces.mat, whose address data/README.md names, and put it there; "
                                "the lessons run on 'badges' without it") from None
    except Exception as error:
        raise FileNotFoundError(f"{path} is damaged ({' '.join(str(error).split())}): delete it and download it again") from error
    small = images.reshape(40, 10, 32, 2, 32, 2).mean((3, 5)).round().astype(np.uint8)
    chosen = small[people][:, ::2] if split == "train" else small[people][:, 1::2]
    return chosen.reshape(-1, 1, 32, 32), np.repeat(np.arange(len(chosen)), 5), [f"person {number + 1}" for number in range(40)[people]]


DRAWN = {"signs": _signs, "badges": _badges, "badges_public": _badges_public}
READERS = {"digits": _digits, "fashion_mnist": _fashion_mnist, "gtsrb": _gtsrb,
           "cifar10": functools.partial(_cifar, "cifar10"), "cifar100": functools.partial(_cifar, "cifar100"),
           "olivetti": functools.partial(_olivetti, slice(20)), "olivetti_public": functools.partial(_olivetti, slice(20, 40))}
DATA_SETS = (*DRAWN, *READERS)


def _torchvision_set(name, constructor, **arguments):
    """A data set from torchvision: from the data folder if it is whole there, else downloaded, else one sentence."""
    make = functools.partial(getattr(import_torchvision().datasets, constructor), root=data_folder(), **arguments)
    try:
        return make(download=False)  # torchvision compares MD5 sums before it unpickles a file
    except Exception:  # missing, or cut short: each data set says so in another way
        print(f"{name} is not in {data_folder()} yet: downloading it", flush=True)
    try:
        return make(download=True)
    except Exception as error:
        raise FileNotFoundError(
            f"{name} is not in {data_folder()}, or not whole, and could not be downloaded ({' '.join(str(error).split())}): delete "
            "what is left of it there and connect to the network, or point MLSEC_DATA at a folder that has it; the lessons run "
            "on 'signs' without either") from error


_declared = None  # a torch Library forgets its operators when it is collected, so it is kept here


def import_torchvision():
    """torchvision, also where its compiled part was built for another torch than the installed one.

    Package indexes that carry a CPU build of torch but a CUDA build of torchvision give a pair whose import ends in
    `operator torchvision::nms does not exist`. The data sets, transforms and models need none of those operators: so
    where the compiled part does not load, the two that the import asks for are declared, and the rest works.
    Returns the module torchvision.
    """
    global _declared
    import importlib.util
    import sys
    if "torchvision" not in sys.modules and _declared is None:
        folder = Path(importlib.util.find_spec("torchvision").submodule_search_locations[0])
        compiled = [*folder.glob("_C*.so"), *folder.glob("_C*.pyd"), *folder.glob("_C*.dylib")]
        try:
            for library in compiled:
                torch.ops.load_library(str(library))
        except OSError:
            _declared = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                _declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
    return torchvision
