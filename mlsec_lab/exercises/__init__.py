"""The exercises, one file a lesson: for each its reference, its hints and the properties that hold for any right answer.

An exercise is declared beside its reference solution:

    LINF_DISTANCE = Exercise("start_here.linf_distance", reference=linf_distance, difficulty=1, minutes=3, hints=[...])

    @LINF_DISTANCE.property("gives one number for each picture")
    def _(answer, seed):
        require(answer(x, x_adv).shape == (6,), expected=..., got=..., next_step=...)

`answer` is the learner's function behind a guard (course/check.py): it may raise, hang, print or spoil its arguments, and the
property never needs to say so. A property draws its inputs from `seed`, which differs at each check. Properties are about
behaviour: any right way of writing the answer passes.
"""
import contextlib
import importlib
import math
import pkgutil

import torch


class NotYet(Exception):
    """What a property found: what was expected, what came, and one thing to do next."""

    def __init__(self, expected, got, next_step, about=""):
        """about: what was being looked at, where that is not the property that was being checked."""
        super().__init__(f"expected {expected}; got {got}; {next_step}")
        self.expected, self.got, self.next_step, self.about = expected, got, next_step, about


class Exercise:
    """One exercise.

    id: "lesson.name"; `name` is also the name of the learner's function.  reference: a function whose source, from the
    marker BEGIN SOLUTION to END SOLUTION, is the solution: the lesson's cell is made from it.
    difficulty: 1 to 5.  minutes: about how long it takes.  hints: from a nudge to nearly the answer, at least two.
    """

    def __init__(self, id, *, reference, difficulty, minutes, hints):
        self.id, self.reference, self.difficulty, self.minutes, self.hints = id, reference, difficulty, minutes, tuple(hints)
        self.lesson, self.name = id.split(".")
        self.properties = []

    def property(self, sentence):
        """Decorator: `function(answer, seed)` raises NotYet, or returns, for the property that `sentence` states."""
        return lambda function: self.properties.append((sentence, function))


def all_exercises():
    """{id: Exercise} of every lesson, in the order of their files and of their declaration."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        found.update(exercises_of(module.name))
    return found


def exercises_of(lesson):
    """{id: Exercise} of one lesson, by its topic: "evasion".  Raises ModuleNotFoundError where it has none."""
    module = importlib.import_module(f"{__name__}.{lesson}")
    return {value.id: value for value in vars(module).values() if isinstance(value, Exercise)}


def require(condition, *, expected, got, next_step):
    """Raise NotYet unless `condition` holds."""
    if not condition:
        raise NotYet(expected, got, next_step)


@contextlib.contextmanager
def advising(*words, next_step, expected=None):
    """Give this advice where the learner's function, called within, ends in an exception that says one of `words`, or in any if there are none."""
    try:
        yield
    except NotYet as found:
        if words and not any(word in found.got for word in words):
            raise
        raise NotYet(expected or found.expected, found.got, next_step, found.about if expected is None else "") from None


def require_images(value, like, *, what="x_adv"):
    """NotYet unless `value` is a float32 tensor of the shape of `like` [N, C, H, W], free of NaN and within [0, 1]."""
    require_tensor(value, like.shape, what=what)
    require(value.dtype == torch.float32, expected=f"{what} as float32, like x", got=str(value.dtype),
            next_step="keep to float32: `.float()` converts")
    low, high = value.min().item(), value.max().item()
    require(low >= 0 and high <= 1, expected=f"every pixel of {what} in [0, 1]", got=f"pixels from {low:.3f} to {high:.3f}",
            next_step="clip the picture last: `.clamp(0, 1)`")


def require_tensor(value, shape, *, what="the result"):
    """NotYet unless `value` is a tensor of `shape`, free of NaN, that carries no graph."""
    require(isinstance(value, torch.Tensor), expected=f"{what} as a torch tensor", got=type(value).__name__,
            next_step="`.max(dim)` and `.min(dim)` return a pair: take its `.values`, or call `.amax`" if hasattr(value, "indices")
            else "return the tensor itself, not a list, a number or a tuple")
    require(tuple(value.shape) == tuple(shape), expected=f"{what} of shape {list(shape)}", got=f"shape {list(value.shape)}",
            next_step="print the shapes inside your function and look at where they stop being what you want")
    require(not (value.is_floating_point() and value.detach().isnan().any()), expected=f"numbers in {what}", got="NaN",
            next_step="look for a division by zero or a root of zero")
    require(not value.requires_grad, expected=f"{what} without a gradient graph", got="a tensor that still carries its graph",
            next_step="return it with `.detach()`")


def require_number(value, *, what="the result", plain=False):
    """NotYet unless `value` is a finite number: a float, an int or, unless `plain`, a tensor of one element."""
    single = not plain and isinstance(value, torch.Tensor) and value.numel() == 1
    require(single or (isinstance(value, (int, float)) and not isinstance(value, bool)), expected=f"{what} as a float",
            got=f"{type(value).__name__} {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__,
            next_step="return one number: `.item()` takes it out of a tensor")
    number = float(value.detach()) if single else float(value)
    require(math.isfinite(number), expected=f"a finite number for {what}", got="NaN" if number != number else f"{number}",
            next_step="look for the mean of nothing, or a division by zero")
