"""Supply chain: what loading a file or installing a package can do, what scanners see of it, and what refuses it (OWASP ML06).

A pickle is a program for a small machine, and that machine may call any function that Python can import (Python's manual warns of it). Here are
thirty such programs, each of which does no more than to write one file where it wakes up; the scanners that look for such things; a format
that holds numbers and no program; and the pin. Nothing in this module loads a pickle: `quarantine.py` does that, in a child process. `packages.py` has the
same threat where packages come from. Payloads follow the published advisories on scanners' blind spots (picklescan's CVE-2025-1716 and those
after it) and the standard library's own manual; the file that is two things at once is the course's own.
"""
import hashlib
import io
import json
import logging
import operator
import pickle
import pickletools
import zipfile
from dataclasses import dataclass

from mlsec_lab.model_to_model.quarantine import MARKER
from mlsec_lab.victims.inputs import check_choice

CODE = f"open({MARKER!r}, 'w').write('a file was loaded')"  # all that any payload does
COMMAND = f"echo a file was loaded> {MARKER}"


class Call:
    """An object that pickles as "call this function with these arguments": the two lines on which every payload stands."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments

    def __call__(self):
        """Never called: pickle only asks that a function can be."""


def forge(function, *arguments, protocol=4):
    """A pickle that calls `function(*arguments)` when it is loaded, and does nothing until then.

    arguments: anything that can be pickled, `Call`s too.  protocol: 0 to 5.  Returns bytes.
    """
    return pickle.dumps(Call(function, *arguments), protocol)


def payloads():
    """{name: Call}: thirty ways to write one file while being loaded. Each is a function that Python or a course library brings along."""
    import bdb
    import cProfile
    import code
    import codecs
    import doctest
    import functools
    import gzip
    import importlib
    import os
    import pathlib
    import profile
    import pydoc
    import runpy
    import shutil
    import sqlite3
    import subprocess
    import timeit
    import trace

    import numpy.testing._private.utils as numpy_testing
    import numpy
    import sympy
    import torch
    import torch.utils.collect_env as collect_env
    interpreter = Call(code.InteractiveInterpreter)
    return {
        "builtins.exec": Call(exec, CODE), "builtins.eval": Call(eval, CODE), "functools.reduce": Call(functools.reduce, exec, [CODE, {}]),
        "map": Call(list, Call(map, exec, [CODE])), "os.system": Call(os.system, COMMAND), "subprocess.getoutput": Call(subprocess.getoutput, COMMAND),
        "importlib, attrgetter": Call(Call(Call(operator.attrgetter, "system"), Call(importlib.import_module, "os")), COMMAND),
        "a pickle in a pickle": Call(pickle.loads, forge(exec, CODE)), "runpy._run_code": Call(runpy._run_code, CODE, {}),
        "timeit.timeit": Call(timeit.timeit, "pass", CODE, timeit.default_timer, 1), "cProfile.run": Call(cProfile.run, CODE),
        "profile.run": Call(profile.run, CODE), "bdb.Bdb.run": Call(bdb.Bdb.run, Call(bdb.Bdb), CODE), "trace.Trace.run": Call(trace.Trace.run, Call(trace.Trace), CODE),
        "code … runcode": Call(code.InteractiveInterpreter.runcode, interpreter, CODE),
        "code … runsource": Call(code.InteractiveInterpreter.runsource, interpreter, CODE),
        "doctest": Call(doctest.run_docstring_examples, f">>> {CODE}", {}), "pydoc.pipepager": Call(pydoc.pipepager, "", COMMAND),
        "numpy runstring": Call(numpy_testing.runstring, CODE, {}), "sympy.sympify": Call(sympy.sympify, CODE),
        "torch collect_env.run": Call(collect_env.run, COMMAND), "torch.save": Call(torch.save, 0, MARKER), "numpy.savetxt": Call(numpy.savetxt, MARKER, [0]),
        "Path.write_text": Call(pathlib.Path.write_text, pathlib.Path(MARKER), "a file was loaded"),
        "logging.FileHandler": Call(logging.FileHandler, MARKER), "zipfile.ZipFile": Call(zipfile.ZipFile, MARKER, "w"),
        "gzip.open": Call(gzip.open, MARKER, "w"), "codecs.open": Call(codecs.open, MARKER, "w"), "sqlite3.connect": Call(sqlite3.connect, MARKER),
        "shutil.copyfile": Call(shutil.copyfile, pickle.__file__, MARKER),
    }


def innocents(model):
    """{name: object}: what people really keep in model files, none of which calls anything that it should not.  model: an nn.Module."""
    import argparse
    import functools
    import pathlib

    import numpy as np
    import torch
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    x, y = load_digits(return_X_y=True)
    fitted = LogisticRegression(max_iter=10, tol=10.0).fit(x[:100], y[:100]), RandomForestClassifier(3, random_state=0).fit(x[:100], y[:100])
    weights = model.state_dict()
    return {
        "state dict": weights, "weights, epoch, optimizer": {"model": weights, "optimizer": torch.optim.Adam(model.parameters()).state_dict(), "epoch": 3},
        "one tensor": torch.zeros(3), "a whole nn.Module": model, "numpy arrays": {"mean": np.zeros(3), "std": np.ones(3)},
        "accuracy, a numpy number": {"model": weights, "accuracy": np.float64(0.97)}, "options of the training": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("signs")),
        "an activation, partial()": {"activation": functools.partial(torch.nn.functional.leaky_relu, negative_slope=0.1)},
        "logistic regression": fitted[0], "random forest": fitted[1],
    }


def torch_file(thing):
    """The bytes of the file that `torch.save(thing)` writes: a zip archive with a pickle in it.

    In torch's own protocol 2, or in 4 where `thing` names a method, which 2 can only spell with getattr.
    """
    import torch
    for protocol in (2, 4):
        file = io.BytesIO()
        torch.save(thing, file, pickle_protocol=protocol)
        if "getattr" not in "".join(names_in(pickles_in(file.getvalue())[0])):
            break
    return file.getvalue()


def numpy_file(thing):
    """The bytes of an .npy file that holds `thing`, whatever it is, as an array of one object."""
    import numpy as np
    array, file = np.empty(1, dtype=object), io.BytesIO()
    array[0] = thing
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


# ---- looking without loading

def kind_of(data):
    """What a file is by its content, whatever its name says: "safetensors", "zip", "numpy", "pickle" or "unknown".

    The first that fits: a file can be made to fit two (see `polyglot`).
    """
    length = int.from_bytes(data[:8], "little")
    if 8 + length <= len(data) and data[8:9] == b"{":
        try:
            json.loads(data[8:8 + length])
            return "safetensors"
        except ValueError:
            pass
    if data[:4] == b"PK\x03\x04":
        return "zip"
    if data[:6] == b"\x93NUMPY":
        return "numpy"
    try:
        return "pickle" if data[:1] == b"\x80" or list(pickletools.genops(data)) else "unknown"
    except ValueError:
        return "unknown"


def pickles_in(data):
    """The pickles of a file, as bytes: those in a torch archive, the objects of an .npy file, nothing for safetensors, else the file itself."""
    kind = kind_of(data)
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
    if kind == "numpy":
        import numpy as np
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return [file.read()] if read(file)[2].hasobject else []
    return [] if kind == "safetensors" else [data]


def opcodes(data):
    """[(position, opcode, argument, role)] of a pickle, which is read and not run.

    role: "name" where it asks Python for something by name, "call" where it calls what it got, "data" for all else.
    """
    roles = {"GLOBAL": "name", "STACK_GLOBAL": "name", "INST": "name", "REDUCE": "call", "NEWOBJ": "call", "NEWOBJ_EX": "call", "OBJ": "call", "BUILD": "call"}
    return [(place, opcode.name, argument, roles.get(opcode.name, "data")) for opcode, argument, place in pickletools.genops(data)]


def names_in(data):
    """The names, "module.name", that a pickle asks Python for: a set.  Raises ValueError where it cannot be read to its end.

    Reads the names that `pickle.dumps` writes. Whoever writes opcodes by hand can hide them from so short a reader, behind others that
    are taken off the stack again, or where it sees no name: "?" stands for those.
    """
    names, strings, memo = set(), [], {}
    pushed = None  # the string that the last opcode put on the stack
    for opcode, argument, _ in pickletools.genops(data):
        kind = opcode.name
        if kind in ("GLOBAL", "INST"):
            names.add(argument.replace(" ", "."))
        elif kind == "STACK_GLOBAL":
            names.add(".".join(map(str, strings[-2:])) if len(strings) > 1 and None not in strings[-2:] else "?")
        elif kind in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if kind == "MEMOIZE" else int(argument)] = pushed
            continue
        pushed = memo.get(int(argument)) if kind in ("GET", "BINGET", "LONG_BINGET") else argument if isinstance(argument, str) and "UNICODE" in kind else None
        strings.append(pushed)
    return names


def on_list(names, modules):
    """Those of `names` ("os.path.join") whose module or a parent of it is among `modules` ({"os"}): a set."""
    return {name for name in names if any(name.startswith(f"{module}.") for module in modules)}


BLOCKED = ("os", "posix", "nt", "subprocess", "sys", "builtins", "__builtin__", "importlib", "pickle", "_pickle")  # what one thinks of first
ALLOWED = ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.FloatStorage", "torch.LongStorage")  # weights


# ---- scanners: each says of a file's bytes whether it would stop it. None of them loads anything, but for torch's, which is a loader.

def blocklist_flags(data):
    """Whether the file names anything from BLOCKED."""
    return any(on_list(names_in(part), BLOCKED) for part in pickles_in(data))


def allowlist_flags(data):
    """Whether the file names anything that is not in ALLOWED."""
    return any(names_in(part) - set(ALLOWED) for part in pickles_in(data))


def picklescan_flags(data, *, strict=False):
    """Whether picklescan reports an issue; with strict, whether it knows any name in the file not to be harmless (`--strict`)."""
    from picklescan import scanner
    log = logging.getLogger("picklescan")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it warns on the console as well
    try:
        found = scanner.scan_bytes(io.BytesIO(data), "file", ".pt" if kind_of(data) == "zip" else None)
    finally:
        log.setLevel(level)
    return found.scan_err or any(name.safety is not scanner.SafetyLevel.Innocuous for name in found.globals) if strict else found.issues_count > 0


def fickling_flags(data):
    """Whether fickling finds anything to say about the file; anything is enough for `fickling.load` to refuse it."""
    from fickling.analysis import Severity, check_safety
    from fickling.fickle import Pickled
    return any(check_safety(Pickled.load(io.BytesIO(part))).severity != Severity.LIKELY_SAFE for part in pickles_in(data))


def scanners():
    """{name with version: function(bytes) -> bool}; fickling only where it is installed (`pip install fickling`)."""
    from importlib.metadata import PackageNotFoundError, version
    found = {"ten names": blocklist_flags, f"picklescan {version('picklescan')}": picklescan_flags,
             "picklescan --strict": lambda data: picklescan_flags(data, strict=True)}
    try:
        found[f"fickling {version('fickling')}"] = fickling_flags
    except PackageNotFoundError:
        pass
    return found


# ---- formats that hold numbers and nothing to call

def load_weights(data, name="the file"):
    """The tensors of a safetensors file: {name: tensor}.  data: its bytes.  name: what to call it in an error.

    Raises ValueError, with a sentence that says what the file is instead, for anything else, by its content and not by its extension.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError(f"data must be the bytes of a file, not {type(data).__name__}: pathlib.Path(…).read_bytes() reads them")
    kind, promised = kind_of(data), int.from_bytes(data[:8], "little")
    named = {"zip": "a zip archive with a pickle inside, as torch.save writes it", "numpy": "a numpy file", "pickle": "a pickle"}
    if kind in named:
        raise ValueError(f"{name} is {named[kind]}, not safetensors: ask its owner for a safetensors file")
    if kind != "safetensors":
        cut = f": its header should have {promised:,} bytes, and {max(len(data) - 8, 0):,} are there" if 8 <= len(data) < 8 + promised < 10**8 else ""
        raise ValueError(f"{name} is {'empty' if not data else 'no whole safetensors file' + cut}: fetch it again, or ask its owner what it is")
    try:
        return load(bytes(data))
    except SafetensorError as error:
        raise ValueError(f"{name} begins like safetensors but is cut off or damaged ({error}): fetch it again") from None


def polyglot(weights, pickled):
    """A file that is two things at once: safetensors to one loader, a pickle that runs to another.

    weights: {name: tensor}.  pickled: the bytes of a pickle.  Its first byte is both part of the header's length and the opcode of a string
    that swallows the header's beginning; a second string, opened inside a remark, swallows the rest; what follows is a tensor of bytes, or code.
    """
    from safetensors.torch import save
    whole = save({name: tensor.contiguous() for name, tensor in weights.items()})
    pickled += bytes(-len(pickled) % 8)  # what stands after its end, nobody reads
    length, size = int.from_bytes(whole[:8], "little"), len(pickled)
    entries, tensors = json.loads(whole[8:8 + length]), pickled + whole[8 + length:]
    for entry in entries.values():
        entry["data_offsets"] = [place + size for place in entry["data_offsets"]]
    entries = {"bytes": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}, **entries}
    rest = "V\"}," + json.dumps(entries, separators=(",", ":"))[1:]  # V: a string up to the end of the line
    start = '{"__metadata__":{"remark":"'
    swallowed = max(len(start) + 3, (len(rest) + len(start)) // 256 + 1)  # what the first string holds: three zeros of the length, and the beginning
    header = start.ljust(swallowed - 3, ".") + rest
    length = ord("X") + 256 * swallowed  # X: a string whose length comes next
    return length.to_bytes(8, "little") + header.ljust(length - 1).encode() + b"\n" + tensors


# ---- the pin

@dataclass(frozen=True)
class Pin:
    """Which file is meant: the revision to ask for and the SHA-256 that it must have, 64 hexadecimal digits."""
    revision: str
    sha256: str


def pin(data, revision):
    """The Pin of a file, from its bytes."""
    return Pin(revision, hashlib.sha256(data).hexdigest())


def load_pinned(fetch, wanted):
    """The tensors of exactly the file that was pinned.  fetch: a function, revision -> bytes.  wanted: a Pin.

    Asks once, and checks the very bytes that it loads, before it loads them.  Raises ValueError for any other file, or for an abbreviated hash.
    """
    if len(wanted.sha256) != 64:
        raise ValueError(f"sha256 must have all 64 hexadecimal digits, not {len(wanted.sha256)}: a shorter one can be matched by trying")
    data = fetch(wanted.revision)
    got = hashlib.sha256(data).hexdigest()
    if got != wanted.sha256.lower():
        raise ValueError(f"the file has the SHA-256 {got[:12]}…, not {wanted.sha256[:12]}… as pinned: do not load it, and ask why it changed")
    return load_weights(data)


def flip_bit(data, bit):
    """`data` with one bit changed.  bit: from 0 to 8 * len(data) - 1.  ValueError outside of that."""
    if not 0 <= bit < 8 * len(data):
        raise ValueError(f"bit must be from 0 to {8 * len(data) - 1}, not {bit}")
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def same_beginning(data, other, digits):
    """`other` with some bytes appended so that its SHA-256 begins with the same hexadecimal digits as that of `data`.

    Tries one number after the other, 16 ** digits of them on average.  digits: 1 to 5, so that it ends within seconds.
    """
    check_choice(digits, "digits", (1, 2, 3, 4, 5))
    wanted, start = hashlib.sha256(data).hexdigest()[:digits], hashlib.sha256(other)
    for number in range(100 * 16 ** digits):
        tried = start.copy()
        tried.update(number.to_bytes(8, "little"))
        if tried.hexdigest().startswith(wanted):
            return other + number.to_bytes(8, "little")
    raise ValueError(f"no number gave a SHA-256 that begins with {wanted}: try fewer digits")
