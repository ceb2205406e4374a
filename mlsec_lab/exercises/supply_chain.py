"""Lesson 15: forge a pickle, read one without loading it, slip past a list, score a scanner, and pin a file."""
import functools
import hashlib
import pickle
import pickletools
import random
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load, save

from mlsec_lab.exercises import Exercise, NotYet, advising, require, require_number
from mlsec_lab.model_to_model import supply_chain
from mlsec_lab.model_to_model.quarantine import MARKER, open_in_quarantine
from mlsec_lab.model_to_model.supply_chain import BLOCKED, Call, flip_bit, on_list


def forge(code):
    """A pickle that runs Python code when it is loaded, and nothing before.

    code: one or several lines of Python, as text.
    Returns bytes.
    """
    ### BEGIN SOLUTION
    class Payload:
        def __reduce__(self):
            return exec, (code,)

    return pickle.dumps(Payload())
    ### END SOLUTION


FORGE = Exercise("supply_chain.forge", reference=forge, difficulty=2, minutes=10, hints=[
    "An object says by its method `__reduce__` how it wants to be made again: it returns a function and a tuple of arguments.",
    "The function is *named* in the pickle and *called* by whoever loads it. `exec` runs lines of Python given as text.",
    "Write a small class inside your function, with `def __reduce__(self): return exec, (code,)`, and return `pickle.dumps` of one object of it. The comma makes the tuple.",
])


def names_in(data):
    """What a pickle would ask Python for by name, found without loading it.

    data: the bytes of a pickle, of any protocol from 0 to 5.
    Returns a set of texts, "module.name".
    Raises ValueError where the pickle cannot be read to its end.
    """
    ### BEGIN SOLUTION
    names, strings, memo = set(), [], {}
    pushed = None
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("GLOBAL", "INST"):
            names.add(argument.replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            names.add(f"{strings[-2]}.{strings[-1]}")
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = pushed
        elif opcode.name.endswith("PUT"):
            memo[argument] = pushed
        else:
            kept = opcode.name.endswith("GET")
            pushed = memo.get(argument) if kept else argument
            if isinstance(pushed, str):
                strings.append(pushed)
    return names
    ### END SOLUTION


NAMES_IN = Exercise("supply_chain.names_in", reference=names_in, difficulty=4, minutes=25, hints=[
    "`for opcode, argument, place in pickletools.genops(data)` reads without running. Print `opcode.name` and `argument` for a small pickle of each protocol.",
    "Protocols 0 to 3 name things by `GLOBAL`, whose argument is the text \"module name\". Protocols 4 and 5 push two strings and then say `STACK_GLOBAL`: keep a list of the strings you meet, and take its last two.",
    "A string that comes twice is written once: `MEMOIZE` files what the opcode before it pushed under the next number 0, 1, 2, …, and `BINGET`, whose argument is such a number, pushes it again. (`BINPUT` files it under its argument.)",
    "Keep `pushed`, the argument of the last opcode that pushed something. At `MEMOIZE`: `memo[len(memo)] = pushed`, where a number has to be filed too when what was pushed is no string. At `BINGET`: `pushed = memo.get(argument)`.",
])


def slip_past(blocked, code):
    """A pickle that runs `code` when it is loaded and names nothing on a blocklist.

    blocked: a set of modules, such as {"os", "builtins"}: nothing in them, or in their
    submodules, may be named.  code: lines of Python, as text.
    Returns bytes.
    """
    ### BEGIN SOLUTION
    import cProfile
    import runpy
    import timeit

    ways = {
        "timeit": Call(timeit.timeit, "pass", code),
        "cProfile": Call(cProfile.run, code),
        "runpy": Call(runpy._run_code, code, {}),
    }
    free = next(call for module, call in ways.items() if module not in blocked)
    return pickle.dumps(free)
    ### END SOLUTION


SLIP_PAST = Exercise("supply_chain.slip_past", reference=slip_past, difficulty=3, minutes=15, hints=[
    "`Call(function, argument, …)` is an object that pickles as that call: `pickle.dumps(Call(print, \"hello\"))`. You need functions that run text, and are not in a blocked module.",
    "Three of many: `timeit.timeit(stmt, setup)` runs its setup once, `cProfile.run(statement)` measures a statement by running it, `runpy._run_code(code, {})` runs what it is given.",
    "Have three ways in a dictionary from module to `Call`, and take the first whose module is not in `blocked`.",
])


def score_scanner(scan, harmful, innocent):
    """How good a scanner is.

    scan: a function, the bytes of a file -> whether it would stop the file. Where it
    raises an exception, the file counts as stopped: nobody loads what cannot be read.
    harmful, innocent: lists of the bytes of files.
    Returns (the share of harmful ones missed, the share of innocent ones stopped).
    """
    ### BEGIN SOLUTION
    def stopped(data):
        try:
            return bool(scan(data))
        except Exception:
            return True

    missed = sum(not stopped(data) for data in harmful) / len(harmful)
    return missed, sum(stopped(data) for data in innocent) / len(innocent)
    ### END SOLUTION


SCORE_SCANNER = Exercise("supply_chain.score_scanner", reference=score_scanner, difficulty=2, minutes=10, hints=[
    "Two shares, each over its own list: of the harmful files those that were *not* stopped, of the innocent ones those that were.",
    "Write a small function inside yours that calls `scan` in a `try` and returns True in its `except Exception`.",
    "`sum(condition(data) for data in files) / len(files)` is the share for which a condition holds.",
])


def load_pinned(fetch, revision, sha256):
    """The tensors of exactly the file that was pinned.

    fetch: a function, revision -> the bytes of the safetensors file that the hub has
    there at that moment.  revision: the one to ask for.
    sha256: 64 hexadecimal digits.
    Returns {name: tensor}.  Raises ValueError, before anything is loaded, for any other
    file, and for a `sha256` that does not have all of its 64 digits.
    """
    ### BEGIN SOLUTION
    if len(sha256) != 64:
        raise ValueError(f"a SHA-256 has 64 digits, this one has {len(sha256)}")
    data = fetch(revision)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(f"the hub sent {found}, pinned is {sha256}")
    return load(data)
    ### END SOLUTION


LOAD_PINNED = Exercise("supply_chain.load_pinned", reference=load_pinned, difficulty=2, minutes=10, hints=[
    "`hashlib.sha256(data).hexdigest()` gives the 64 digits; `load(data)` makes the tensors from bytes.",
    "Call `fetch` once and keep the bytes: what you hash and what you load must be the same, and the next call may bring something else.",
    "Compare whole hashes with `!=` and `raise ValueError(\"…\")`, before `load`. `assert` is no check: `python -O` leaves it out.",
])


# ---- what the properties look at

def _writes(text):
    return f"text = {text!r}\nopen({MARKER!r}, 'w').write(text)"


def _require_bytes(data):
    require(isinstance(data, (bytes, bytearray)), expected="the pickle as bytes", got=type(data).__name__, next_step="return what `pickle.dumps` gives you, without loading it")


def _without_running(answer, arguments, place):
    """The answer's result; NotYet if the code that it was given, which does no more than to make the file `place`, ran in this process."""
    try:
        return answer(*arguments)
    finally:
        if place.exists():
            raise NotYet("bytes, while the code waits in them", "the code ran while your function was at work",
                         "name the function and its arguments: `return exec, (code,)` calls nothing, `return exec(code)` does") from None


@FORGE.property("gives the bytes of a pickle, and runs nothing while it is forged")
def _forge_bytes(answer, seed):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ran"
        with advising("must be a tuple", expected="a pickle",
                      next_step="the arguments are a tuple, also where there is one: `return exec, (code,)`, with the comma"):
            data = _without_running(answer, (f"open({str(place)!r}, 'w').close()",), place)
    _require_bytes(data)
    try:
        list(pickletools.genops(data))
    except ValueError as error:
        raise NotYet("a pickle that can be read to its end", str(error), "let `pickle.dumps` write it") from None


@FORGE.property("runs the code it was given when somebody loads it, elsewhere and without your classes")
def _forge_runs(answer, seed):
    outcome, = _opened([answer(_writes(f"note {seed}"))])
    words = outcome.said
    if outcome.result == "refused" and ("Can't get attribute" in words or "No module named" in words):
        step = "the pickle names your class, which nobody else has: with `__reduce__` it names `exec` instead"
    elif "SyntaxError" in words:
        step = "`eval` takes one expression; `exec` takes lines of Python"
    elif not outcome.names:
        step = "the pickle calls nothing: give an object of a class with `__reduce__` to `pickle.dumps`, not text"
    else:
        step = "`return exec, (code,)` in `__reduce__`: a function, and a tuple with the text in it"
    require(outcome.executed, expected="the code to run in the child process that loads the pickle", got=f"{outcome.result}: {words.splitlines()[0][:120] if words else 'nothing ran'}",
            next_step=step)


@FORGE.property("runs that code and no other, several lines of it if need be")
def _forge_that_code(answer, seed):
    still, loop = _opened([answer("waits = 1"), answer(f"for k in range({1 + seed % 3}):\n    open({MARKER!r}, 'w').close()")])
    require(not still.executed, expected="no file from code that writes none", got=f"{MARKER} all the same", next_step="use the argument `code`, not a text of your own")
    require(loop.executed, expected="a loop over two lines to run", got=f"{still.result}, then {loop.result}: {loop.said[:120]}", next_step="`eval` takes one expression; `exec` takes lines of Python")


def _opened(files):
    for data in files:
        _require_bytes(data)
    return open_in_quarantine([("pickle", data) for data in files], seconds=12)


@functools.cache
def _functions():
    import os
    import shutil
    import statistics
    import textwrap
    import time
    return [os.getcwd, os.path.join, shutil.copy, statistics.mean, statistics.median, textwrap.dedent, time.sleep, exec, getattr, random.Random]


def _require_names(found, expected, next_step):
    require(isinstance(found, (set, frozenset)), expected="a set of names", got=type(found).__name__, next_step="start with `names = set()` and return it")
    shown = ", ".join(sorted(map(str, found))) or "nothing"
    odd = [name for name in found if not isinstance(name, str) or " " in name]
    require(not odd, expected="each name as text, \"module.name\"", got=shown, next_step="the argument of GLOBAL has a space between module and name: put a dot there")
    require(found == expected, expected=", ".join(sorted(expected)) or "nothing", got=shown, next_step=next_step)


def _read(answer, data):
    """What the answer finds in `data`; NotYet with more to go by where its own lists let it down."""
    with advising("IndexError", "KeyError", expected="a set of names", next_step="MEMOIZE files what was pushed just before it, string or not: keep "
                  "that in a variable of its own, file it under `len(memo)`, and fetch it by the opcodes whose names end in GET"):
        return answer(data)


def _call(function):
    return Call(function, "a text", 3)


@NAMES_IN.property("looks at the pickle without loading it")
def _names_safe(answer, seed):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ran"
        try:
            _read(answer, pickle.dumps(Call(exec, f"open({str(place)!r}, 'w').close()"), seed % 6))
        finally:
            if place.exists():
                raise NotYet("a look at the file", "the file's code ran", "read it with `pickletools.genops`: never `pickle.loads`") from None


@NAMES_IN.property("finds the function that a pickle of protocols 0 to 3 calls")
def _names_old(answer, seed):
    for protocol in range(4):
        function = _functions()[(seed + 3 * protocol) % 9]
        data = pickle.dumps(["some text", 7, _call(function)], protocol)
        _require_names(_read(answer, data), supply_chain.names_in(data), f"in protocol {protocol} it stands in the argument of GLOBAL")


@NAMES_IN.property("finds it in protocols 4 and 5, where it stands on the stack")
def _names_new(answer, seed):
    for protocol in (4, 5):
        data = pickle.dumps(["some text", _call(_functions()[(seed + protocol) % 9]), "more text"], protocol)
        _require_names(_read(answer, data), supply_chain.names_in(data), "STACK_GLOBAL takes the two strings that were pushed last: the module, then the name")


@NAMES_IN.property("finds names whose strings are written once and used again")
def _names_memo(answer, seed):
    import statistics
    numbers = list(range(seed % 3))
    for protocol in (2, 4):
        data = pickle.dumps([numbers, Call(statistics.mean, [1]), {"a": numbers}, Call(statistics.median, [2]), Call(statistics.mean, [3])], protocol)
        _require_names(_read(answer, data), {"statistics.mean", "statistics.median"},
                       "the second time the module is fetched from the memo: MEMOIZE files what came before it, string or not, BINGET brings it back")


@NAMES_IN.property("is not misled by text that only looks like a name")
def _names_data(answer, seed):
    for protocol in (0, 4):
        data = pickle.dumps({"os system": ["os.system", "builtins exec"], "seed": seed}, protocol)
        _require_names(_read(answer, data), set(), "data are data: a name counts where GLOBAL or STACK_GLOBAL asks for it")


@NAMES_IN.property("refuses what it cannot read to its end")
def _names_broken(answer, seed):
    data = pickle.dumps(Call(exec, "pass"))
    _require_names(_read(answer, data), {"builtins.exec"}, "STACK_GLOBAL takes the two strings that were pushed last")
    answer(data[:-1 - seed % 3], raises=ValueError)


@functools.cache
def _lists():
    return [BLOCKED, (*BLOCKED, "timeit"), (*BLOCKED, "cProfile"), (*BLOCKED, "runpy"), (*BLOCKED, "timeit", "cProfile"), (*BLOCKED, "timeit", "runpy"), (*BLOCKED, "cProfile", "runpy")]


def _slipped(answer, blocked, text):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ran"
        data = _without_running(answer, (set(blocked), f"open({str(place)!r}, 'w').close()\n# {text}"), place)
    _require_bytes(data)
    try:
        found = on_list(supply_chain.names_in(data), blocked)
    except ValueError as error:
        raise NotYet("a pickle that a scanner can read", str(error), "let `pickle.dumps` write it") from None
    require(not found, expected="no name from a blocked module", got=", ".join(sorted(found)), next_step="look for a function elsewhere: `.hint()` names three that run a text")
    return answer(set(blocked), _writes(text))


@SLIP_PAST.property("names nothing on the list, and runs nothing while it is forged")
def _slip_names(answer, seed):
    _slipped(answer, BLOCKED, f"note {seed}")


@SLIP_PAST.property("runs the code when it is loaded")
def _slip_runs(answer, seed):
    outcome, = _opened([_slipped(answer, BLOCKED, f"note {seed}")])
    require(outcome.executed, expected="the code to run in the child process that loads the pickle", got=f"{outcome.result}: {outcome.said[:120] or 'nothing ran'}",
            next_step="look at what the function does with its arguments: `timeit.timeit(\"pass\", code)` runs its *setup*, and has to be given `code` itself")


@SLIP_PAST.property("still gets past when the list has grown by what it used before")
def _slip_again(answer, seed):
    grown = random.Random(seed).sample(_lists()[1:], 3) + [_lists()[4 + seed % 3]]
    files = [_slipped(answer, blocked, f"note {seed}") for blocked in grown]
    for blocked, outcome in zip(grown, _opened(files)):
        require(outcome.executed, expected=f"the code to run although {' and '.join(blocked[len(BLOCKED):])} are on the list too",
                got=f"{outcome.result}: {outcome.said[:120] or 'nothing ran'}", next_step="look at what the function does with its arguments")


def _files(seed, count):
    draw = random.Random(seed)
    return [draw.randbytes(6) for _ in range(count)]


def _require_pair(value, expected, next_step):
    require(isinstance(value, (tuple, list)) and len(value) == 2, expected="two numbers, (missed, stopped)", got=repr(value)[:80], next_step="`return missed, stopped`")
    for number, wanted, what in zip(value, expected, ("the share missed", "the share of innocent files stopped")):
        require_number(number, what=what)
        require(abs(float(number) - wanted) < 1e-6, expected=f"{what}: {wanted:.3f}", got=f"{float(number):.3f}", next_step=next_step)


@SCORE_SCANNER.property("counts the harmful files that pass and the innocent ones that do not")
def _score_counts(answer, seed):
    harmful, innocent = _files(seed, 8), _files(seed + 1, 5)
    known = set(harmful[:6]) | {innocent[0]}
    _require_pair(answer(lambda data: data in known, harmful, innocent), (0.25, 0.2),
                  "missed are harmful files for which `scan` says False, over all harmful ones; stopped are innocent ones for which it says True, over all innocent ones")


@SCORE_SCANNER.property("is right for the two easiest scanners: stop everything, stop nothing")
def _score_extremes(answer, seed):
    harmful, innocent = _files(seed, 3), _files(seed + 1, 7)
    _require_pair(answer(lambda data: True, harmful, innocent), (0, 1), "who stops everything misses nothing")
    _require_pair(answer(lambda data: 0, harmful, innocent), (1, 0), "who stops nothing misses everything")


@SCORE_SCANNER.property("counts a file over which the scanner stumbles as stopped")
def _score_errors(answer, seed):
    harmful, innocent = _files(seed, 4), _files(seed + 1, 4)

    def stumbles(data):
        if data in (harmful[1], innocent[2], innocent[3]):
            raise ValueError("cannot read this")
        return data == harmful[0]

    next_step = "call `scan` in a `try`; in its `except Exception` the file counts as stopped, harmful or not"
    with advising(expected="two numbers, whatever the scanner does", next_step=next_step):
        found = answer(stumbles, harmful, innocent)
    _require_pair(found, (0.5, 0.5), next_step)


def _weights(seed):
    tensors = {"weight": torch.rand(4, 3, generator=torch.Generator().manual_seed(seed)), "bias": torch.zeros(4)}
    data = save(tensors)
    return tensors, data, hashlib.sha256(data).hexdigest()


class _Hub:
    """Sends one file after the other, the last one from then on, and notes what it was asked for."""

    def __init__(self, *files):
        self.files, self.asked = list(files), []

    def __call__(self, revision):
        self.asked.append(revision)
        return self.files.pop(0) if len(self.files) > 1 else self.files[0]


def _require_tensors(found, wanted):
    require(isinstance(found, dict) and set(found) == set(wanted), expected=f"a dictionary with {', '.join(wanted)}", got=f"{type(found).__name__}: {str(found)[:60]}",
            next_step="return what `load(data)` gives")
    require(all(torch.equal(found[name], wanted[name]) for name in wanted), expected="the tensors that were hashed", got="other ones",
            next_step="call `fetch` once: the second time it brought another file")


def _require_refused(answer, sent, sha256):
    """NotYet unless the answer refuses the bytes `sent` with a ValueError of its own."""
    try:
        answer(_Hub(sent), "1", sha256, raises=ValueError)
    except NotYet as found:
        step = "compare the hash before `load`: what was not checked must not be parsed" if "Safetensor" in found.got else \
            "`assert` is no check, `python -O` leaves it out: `raise ValueError(\"…\")`" if "AssertionError" in found.got else \
            "compare whole texts of 64 digits: a beginning can be matched by trying" if len(sha256) != 64 else found.next_step
        raise NotYet(found.expected, found.got, step) from None


@LOAD_PINNED.property("loads the file that was pinned, from the revision that was pinned")
def _pinned_genuine(answer, seed):
    tensors, data, sha256 = _weights(seed)
    hub, revision = _Hub(data), f"{seed:040x}"
    with advising("ValueError", expected="the tensors of the genuine file", next_step="`hashlib.sha256(data).hexdigest()` gives the 64 digits "
                  "to compare with: `.digest()` gives bytes, which equal no text"):
        found = answer(hub, revision, sha256)
    _require_tensors(found, tensors)
    require(set(hub.asked) == {revision}, expected=f"`fetch` to be asked for {revision[-8:]}", got=str(hub.asked)[:80], next_step="hand the argument `revision` on to `fetch`")


@LOAD_PINNED.property("refuses every file in which one bit differs")
def _pinned_bits(answer, seed):
    _, data, sha256 = _weights(seed)
    draw = random.Random(seed)
    for bit in (*(draw.randrange(8 * len(data)) for _ in range(40)), 8 * len(data) - 1):
        _require_refused(answer, flip_bit(data, bit), sha256)
    _require_refused(answer, data[:-1], sha256)


@LOAD_PINNED.property("checks before it loads, and loads what it checked")
def _pinned_order(answer, seed):
    tensors, data, sha256 = _weights(seed)
    _require_refused(answer, b"no safetensors at all", sha256)
    other = save({name: tensor + 1 for name, tensor in tensors.items()})
    _require_tensors(answer(_Hub(data, other), "1", sha256), tensors)


@LOAD_PINNED.property("accepts neither an abbreviated hash nor a longer text")
def _pinned_short(answer, seed):
    _, data, sha256 = _weights(seed)
    for text in ("", sha256[:7], sha256[:63], sha256 + "0"):
        _require_refused(answer, data, text)
