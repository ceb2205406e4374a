"""What every attack, defence and metric asks of its arguments: one place that says no, in one sentence."""
import math

import numpy as np
import torch


def check_images(x, name="x"):
    """Raise ValueError unless `x` is a float32 tensor [N, C, H, W] with every value in [0, 1]."""
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"{name} must be a torch tensor of images [N, C, H, W], not {type(x).__name__}: torch.as_tensor({name}) makes one")
    if x.dtype != torch.float32:
        raise ValueError(f"{name} must be float32 in [0, 1], not {x.dtype}: for 8-bit pixels use {name}.float() / 255")
    if x.ndim != 4:
        raise ValueError(f"{name} must have the shape [N, C, H, W], not {list(x.shape)}: a single image needs {name}[None]")
    if x.numel() and not (x.min() >= 0 and x.max() <= 1):  # written so that NaN fails too
        raise ValueError(f"{name} must lie in [0, 1], but it spans {x.min():.3g} to {x.max():.3g}: "
                         "pass pixels, the model normalises them itself")


def check_labels(y, n, classes=None, name="y"):
    """Raise ValueError unless `y` is an int64 tensor [n] of class numbers below `classes`."""
    if not isinstance(y, torch.Tensor) or y.dtype != torch.int64:
        got = y.dtype if isinstance(y, torch.Tensor) else type(y).__name__
        raise ValueError(f"{name} must be an int64 tensor of class numbers, not {got}")
    if y.shape != (n,):
        raise ValueError(f"{name} must have the shape [{n}], one label an image, not {list(y.shape)}")
    if n and (y.min() < 0 or (classes is not None and y.max() >= classes)):
        raise ValueError(f"{name} must hold classes from 0 to {'K - 1' if classes is None else classes - 1}, "
                         f"but it holds {y.min()} to {y.max()}")


def check_number(value, name, *, least=None, most=None, above=None, whole=False):
    """Raise ValueError unless `value` is a finite number (an int if `whole`) within the stated bounds."""
    kind = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        raise ValueError(f"{name} must be {'a whole number' if whole else 'a number'}, not {value!r}")
    if above is not None and value <= above:
        raise ValueError(f"{name} must be greater than {above}, not {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, not {value!r}")


def check_choice(value, name, choices):
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
