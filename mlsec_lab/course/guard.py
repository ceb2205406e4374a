"""The guard around a learner's function: whatever it does, the kernel lives, the arguments are as they were, and there is a reason.

`Guard` wraps one call; `contained` wraps a whole check: its randomness, what it prints, its exits, its time.
"""
import contextlib
import dis
import functools
import inspect
import io
import linecache
import random
import signal
import sys
import threading
import traceback

import numpy as np
import torch
from torch import nn

from mlsec_lab.exercises import NotYet

PRINTED, LINES = 400, 8  # characters and lines of what an answer prints that are shown


class NotAttempted(Exception):
    """The answer is still the stub."""


class TimeUp(BaseException):
    """The check ran out of time. Not an Exception, so that an answer's own `except Exception` does not swallow it."""


class Guard:
    """The learner's function, called in safety: what goes wrong inside becomes a NotYet that says where.

    `changes` names the arguments that it is meant to change; all others must come back as they were, models with their
    parameters, buffers, modes and gradient flags. A model that does not is put right, for the checks that come later.
    """

    def __init__(self, answer, exercise):
        self.answer, self.exercise = answer, exercise

    def __call__(self, *args, changes=(), raises=None, **kwargs):
        """Call the answer.  changes: arguments that it may change.  raises: an exception that it is meant to raise here."""
        bound = inspect.signature(self.exercise.reference).bind(*args, **kwargs)
        before = {name: _snapshot(value) for name, value in bound.arguments.items() if name not in changes}
        gradients = torch.is_grad_enabled()
        spoilt = {}
        try:
            result = self.answer(*args, **kwargs)
        except (NotYet, TimeUp, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit too: an answer that calls exit() must not end the kernel
            if raises is not None and isinstance(error, raises):
                return None
            if isinstance(error, NotImplementedError) and self._is_stub(error):
                raise NotAttempted from error
            raise self._explained(error, raises) from None
        finally:
            torch.set_grad_enabled(gradients)
            for name, taken in before.items():
                spoilt[name] = _difference(bound.arguments[name], taken)
                if spoilt[name]:
                    _restore(bound.arguments[name], taken)
        for name, what in spoilt.items():
            if what:
                raise NotYet(f"the argument {name} as it was before the call", what, _keep(name, what))
        if raises is not None:
            raise NotYet(f"a {raises.__name__} for this input", "a result as if nothing were wrong", f"`raise {raises.__name__}(\"…\")` says no")
        if result is None:
            raise NotYet("a result", "None", "end your function with a `return`")
        return result

    def _is_stub(self, error):
        """Whether the answer itself says `raise NotImplementedError`, rather than torch or another exercise's stub inside it."""
        last = error.__traceback__
        while last.tb_next is not None:
            last = last.tb_next
        code = last.tb_frame.f_code
        return code is _code(self.answer) and code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]

    def _explained(self, error, raises):
        """The NotYet for an exception in the answer: what, and in which line of it."""
        code = _code(self.answer)
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if code and frame.filename == code.co_filename]
        line = ""
        if frames:
            text = linecache.getline(frames[-1].filename, frames[-1].lineno).strip()
            line = f", in line {frames[-1].lineno}" + (f": {text}" if text else "")
        message = (str(error).strip().splitlines() or [""])[0][:300]
        step = next((advice for kind, words, advice in COMMON if isinstance(error, kind) and words in str(error)),
                    "read that line with the shapes of its variables in mind; `.hint()` helps")
        if raises is not None:
            step = f"`raise {raises.__name__}(\"…\")` says no"
        elif isinstance(error, TypeError) and not frames:
            step = f"give it the arguments of the stub: {self.exercise.name}{inspect.signature(self.exercise.reference)}"
        elif isinstance(error, SystemExit):
            step = "end your function with a `return`: an exit would end the whole notebook"
        elif isinstance(error, RecursionError):
            step = "your function calls itself without an end: give the inner function another name, or use a loop"
        elif isinstance(error, NotImplementedError):
            step = "if another exercise is still open, run its check: the lesson then goes on with the reference"
        return NotYet(f"a {raises.__name__} for this input" if raises else "a result",
                      type(error).__name__ + (f": {message}" if message else "") + line, step, about="runs to its `return`")


COMMON = (  # exception, words in its message, what helps: the first stumbling blocks of nearly everybody
    (AttributeError, "'NoneType' object has no attribute", "there is no gradient yet: it must be asked of a copy with `.requires_grad_()`, after the loss was computed from that copy"),
    (RuntimeError, "does not require grad", "the loss does not hang together with what is to change: compute it with `model(...)`, not with `predict`, outside of `torch.no_grad()`; "
     "to change a picture, from a copy of it with `.requires_grad_()`"),
    (RuntimeError, "a leaf Variable that requires grad", "a tensor with `.requires_grad_()` must not be changed in place: make a new one"),
    (RuntimeError, "modified by an inplace operation", "something that the gradient needs was changed in place: make a new tensor instead"),
    (RuntimeError, "Boolean value of Tensor", "a tensor of many booleans is no single condition: use `&`, `|` and `torch.where`"),
    (Exception, "torch.return_types", "`.min(dim)`, `.max(dim)` and their like give a pair: take its `.values` or its `.indices`"),
    (RuntimeError, "mean(): could not infer output dtype", "a mean wants numbers with a fraction: `.float().mean()`"),
    (RuntimeError, "stack expects a non-empty", "there is nothing to stack: the list that you fill is still empty"),
    (RuntimeError, "zero-dimensional tensor", "`torch.cat` joins tensors that have a dimension; single numbers are put together by `torch.stack`"),
    (ValueError, "not among the", "print the text: words stand apart by spaces, and only those of the vocabulary count"),
    (NameError, "", "check the spelling, and that the cell which defines this name was run"),
)


def _code(answer):
    """The code object of a function, a method, a partial or an object that can be called; None where it has none."""
    while isinstance(answer, functools.partial):
        answer = answer.func
    answer = inspect.unwrap(answer)
    if not hasattr(answer, "__code__"):
        answer = getattr(type(answer), "__call__", None)
    return getattr(answer, "__code__", None)


def _snapshot(value):
    """Enough of an argument to tell afterwards whether it was changed, and to put a model right again."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone(), value.requires_grad
    if isinstance(value, nn.Module):
        return ({key: item.detach().clone() for key, item in value.state_dict().items()},
                [(module, module.training) for module in value.modules()],
                [(parameter, parameter.requires_grad) for parameter in value.parameters()])
    return list(value) if isinstance(value, list) else None


VALUES, GRAPH, WEIGHTS, MODE, FLAGS, ENTRIES = ("its values changed", "its requires_grad was switched", "its parameters or statistics changed",
                                                "its train/eval mode was switched", "requires_grad of its parameters was switched",
                                                "its entries changed, or their order")


def _difference(value, taken):
    """In words what became of an argument since its snapshot; "" if it is as it was."""
    if isinstance(value, torch.Tensor):
        if value.shape != taken[0].shape or not torch.equal(value.detach(), taken[0]):
            return VALUES
        return "" if value.requires_grad == taken[1] else GRAPH
    if isinstance(value, nn.Module):
        for parameter in value.parameters():
            parameter.grad = None  # an answer that calls .backward() leaves these behind: no fault, but no load either
        now = value.state_dict()
        switched = any(module.training != training for module, training in taken[1])
        if now.keys() != taken[0].keys() or any(not torch.equal(item, taken[0][key]) for key, item in now.items()):
            return MODE if switched else WEIGHTS  # in train mode the statistics change by themselves
        if switched:
            return MODE
        if any(parameter.requires_grad != wanted for parameter, wanted in taken[2]):
            return FLAGS
    if isinstance(value, list) and list(map(id, value)) != list(map(id, taken)):
        return ENTRIES
    return ""


def _restore(value, taken):
    """Put a model, a list, or the gradient flag of a tensor, back to its snapshot."""
    if isinstance(value, list):
        value[:] = taken
    elif isinstance(value, nn.Module):
        value.load_state_dict(taken[0], strict=False)
        for module, training in taken[1]:
            module.training = training
        for parameter, wanted in taken[2]:
            parameter.requires_grad_(wanted)
    elif value.is_leaf:
        value.requires_grad_(taken[1])


def _keep(name, what):
    """What to do so that an argument stays as it was."""
    return {VALUES: f"work on a copy, `{name}.clone()`, not on {name} itself",
            GRAPH: f"work on a copy, `{name}.clone().requires_grad_()`, not on {name} itself",
            WEIGHTS: f"change nothing in {name}: no optimizer step, no new weights",
            MODE: f"leave {name} in the mode in which you found it: in train mode a picture's answer depends on its neighbours in the batch",
            FLAGS: f"leave {name} as you found it: `torch.autograd.grad` gives one gradient without storing any",
            ENTRIES: f"work on a copy, `list({name})` or `sorted({name})`, not on {name} itself"}[what]


@contextlib.contextmanager
def contained(seed, seconds):
    """Run a check: randomness of its own, what it prints kept back, exits that raise, and TimeUp after `seconds`.

    Yields a stream whose `.text()` is the beginning of what was printed.
    """
    printed = _Capped(PRINTED)
    with _own_randomness(seed), _exits_that_raise(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), _time_limit(seconds):
        yield printed


class _Capped(io.TextIOBase):
    """A text stream that keeps its first characters and counts the rest."""

    def __init__(self, limit):
        self.limit, self.kept, self.total = limit, "", 0

    def write(self, text):
        self.kept += text[:max(0, self.limit - len(self.kept))]
        self.total += len(text)
        return len(text)

    def text(self):
        lines = self.kept.rstrip().splitlines()
        more = self.total > self.limit or len(lines) > LINES
        return "\n".join(lines[:LINES]) + (f" … ({self.total:,} characters in all)" if more else "")


@contextlib.contextmanager
def _own_randomness(seed):
    """Seed the global generators for an answer that uses them, and put them back: a check leaves no trace in the lesson."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def _exits_that_raise():
    """In a notebook, exit() returns and ends the kernel a moment later; during a check it raises SystemExit, as it does elsewhere."""
    shell = notebook_shell()
    if shell is None:
        yield
        return

    def ask_exit():
        raise SystemExit

    shell.ask_exit = ask_exit
    try:
        yield
    finally:
        del shell.ask_exit


@contextlib.contextmanager
def _time_limit(seconds):
    """Raise TimeUp in the main thread after `seconds`, again and again until the block is left.

    Again and again, because an answer with a bare `except:` would swallow the first. A signal also wakes `time.sleep`. Where
    signals cannot be had (Windows) a second thread interrupts the main one; outside the main thread there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
    elif hasattr(signal, "setitimer"):
        with _rung_by_signal(seconds):
            yield
    else:
        with _rung_by_thread(seconds):
            yield


@contextlib.contextmanager
def _rung_by_signal(seconds):
    rings, over = 0, False

    def ring(number, frame):
        nonlocal rings
        if over:
            return
        rings += 1
        if rings > 2:  # whoever is still here has swallowed two of them
            _raise_at_next_line(frame)
        raise TimeUp

    tracing = sys.gettrace()
    previous = signal.signal(signal.SIGALRM, ring)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
            yield
        finally:
            over = True
    finally:  # twice, because a ring between `finally:` and the line below it would skip that line
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if previous is None else previous)
        sys.settrace(tracing)


def _raise_at_next_line(frame):
    """Let the next line of the answer raise TimeUp as well: in `while True: try: … except: pass` that line is the `except:`."""
    def trace(frame, event, argument):
        if event == "line":
            raise TimeUp
        return trace

    frames = []
    while frame is not None and frame.f_code is not Guard.__call__.__code__:
        frames.append(frame)
        frame = frame.f_back
    if frame is not None:
        for inner in frames:
            inner.f_trace = trace
        sys.settrace(lambda frame, event, argument: None)


@contextlib.contextmanager
def _rung_by_thread(seconds):
    import _thread
    over, rung, lock = threading.Event(), threading.Event(), threading.Lock()

    def ring():
        wait = seconds
        while not over.wait(wait):
            with lock:  # so that no interrupt is sent once the block is left
                if not over.is_set():
                    rung.set()
                    _thread.interrupt_main()
            wait = 0.2

    threading.Thread(target=ring, daemon=True).start()
    try:
        try:
            yield
        finally:
            with lock:
                over.set()
    except KeyboardInterrupt:
        over.set()
        if rung.is_set():
            raise TimeUp from None
        raise  # the learner's own interrupt


def notebook_shell():
    """IPython's shell, None outside a notebook or IPython."""
    return sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
