"""Lesson 15's exercises, tried with what learners write."""
import hashlib
import pickle
import pickletools

from safetensors.torch import load

from mlsec_lab.exercises.supply_chain import FORGE, LOAD_PINNED, NAMES_IN, SCORE_SCANNER, SLIP_PAST
from mlsec_lab.model_to_model.supply_chain import Call


# ---- forging

def forge_with_opcodes(code):
    return b"cbuiltins\nexec\n(" + b"V" + code.encode("raw_unicode_escape").replace(b"\n", b"\\u000a") + b"\ntR."


def forge_with_eval_of_exec(code):
    class Payload(dict):
        def __reduce_ex__(self, protocol):
            return eval, (f"exec({code!r})",)
    return pickle.dumps({"weights": [Payload()]}, protocol=2)


def forge_by_running(code):
    class Payload:
        def __reduce__(self):
            return exec(code), ()
    return pickle.dumps(Payload())


def forge_text(code):
    return pickle.dumps(code)


class Mine:
    def __init__(self, code):
        self.code = code

    def __setstate__(self, state):
        exec(state["code"])


def forge_own_class(code):
    Mine.__module__, Mine.__qualname__ = "__main__", "Mine"
    import sys
    vars(sys.modules["__main__"])["Mine"] = Mine
    return pickle.dumps(Mine(code))


def forge_without_tuple(code):
    class Payload:
        def __reduce__(self):
            return exec, code
    return pickle.dumps(Payload())


def forge_with_eval(code):
    return pickle.dumps(Call(eval, code))


def forge_own_text(code):
    return pickle.dumps(Call(exec, "open('executed.txt', 'w').close()"))


def forge_as_text(code):
    return str(pickle.dumps(Call(exec, code)))


# ---- names

class Recorder(pickle._Unpickler):
    """Python's own unpickler that hands out dummies: another right way."""

    def __init__(self, file):
        super().__init__(file, fix_imports=False)  # protocols below 3 write Python 2's names
        self.names = set()

    def find_class(self, module, name):
        self.names.add(f"{module}.{name}")
        return lambda *arguments: None


def names_by_unpickler(data):
    import io
    reader = Recorder(io.BytesIO(data))
    try:
        reader.load()
    except (EOFError, pickle.UnpicklingError, IndexError) as error:
        raise ValueError(str(error)) from error
    return reader.names


def names_with_list(data):
    found, stack, memo = [], [], []
    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "GLOBAL":
                found.append(tuple(argument.split(" ")))
            case "STACK_GLOBAL":
                found.append(tuple(text for text in stack if isinstance(text, str))[-2:])
                stack.append(None)
            case "MEMOIZE":
                memo.append(stack[-1])
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo.append(stack[-1] if stack else None)
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[int(argument)])
            case _:
                stack.append(argument)
    return {".".join(pair) for pair in found}


def names_only_global(data):
    return {argument.replace(" ", ".") for opcode, argument, _ in pickletools.genops(data) if opcode.name == "GLOBAL"}


def names_with_space(data):
    return {argument for opcode, argument, _ in pickletools.genops(data) if opcode.name == "GLOBAL"}


def names_without_memo(data):
    names, strings = names_only_global(data), []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "STACK_GLOBAL":
            names.add(".".join(strings[-2:]))
        elif isinstance(argument, str):
            strings.append(argument)
    return names


def names_by_loading(data):
    pickle.loads(data)  # of pickles that the check has made: they write one empty file
    return names_with_list(data)


def names_of_all_text(data):
    import re
    names = names_with_list(data)
    return names | {text for text in re.findall(r"\b(?:os|builtins)[. ]\w+", data.decode("latin-1")) if "." in text}


def names_that_forgives(data):
    try:
        return names_with_list(data)
    except ValueError:
        return set()


# ---- past the list

def slip_with_code(blocked, code):
    import code as module
    return pickle.dumps(Call(module.InteractiveInterpreter.runcode, Call(module.InteractiveInterpreter), code))


def slip_with_trace(blocked, code):
    import bdb
    import trace
    return pickle.dumps(Call(trace.Trace.run, Call(trace.Trace), code) if "trace" not in blocked else Call(bdb.Bdb.run, Call(bdb.Bdb), code), protocol=5)


def slip_with_exec(blocked, code):
    return pickle.dumps(Call(exec, code))


def slip_with_os(blocked, code):
    import os
    return pickle.dumps(Call(os.system, "echo x> executed.txt"))


def slip_once(blocked, code):
    import timeit
    return pickle.dumps(Call(timeit.timeit, "pass", code))


def slip_by_running(blocked, code):
    import cProfile
    import contextlib
    import io
    with contextlib.redirect_stdout(io.StringIO()):
        return pickle.dumps(cProfile.run(code))


def slip_without_code(blocked, code):
    import cProfile
    return pickle.dumps(Call(cProfile.run, "pass"))


# ---- scoring

def score_with_loops(scan, harmful, innocent):
    counts = [0, 0]
    for k, files in enumerate((harmful, innocent)):
        for data in files:
            try:
                flagged = scan(data)
            except ValueError:
                flagged = True
            counts[k] += int(bool(flagged) == bool(k))
    return [counts[0] / len(harmful), counts[1] / len(innocent)]


def score_caught(scan, harmful, innocent):
    return sum(bool(scan(data)) for data in harmful) / len(harmful), sum(bool(scan(data)) for data in innocent) / len(innocent)


def score_over_all(scan, harmful, innocent):
    every = len(harmful) + len(innocent)
    return sum(not scan(data) for data in harmful) / every, sum(bool(scan(data)) for data in innocent) / every


def score_without_try(scan, harmful, innocent):
    return sum(not scan(data) for data in harmful) / len(harmful), sum(bool(scan(data)) for data in innocent) / len(innocent)


def score_errors_as_clean(scan, harmful, innocent):
    def stopped(data):
        try:
            return bool(scan(data))
        except Exception:
            return False
    return sum(not stopped(data) for data in harmful) / len(harmful), sum(map(stopped, innocent)) / len(innocent)


# ---- the pin

def pinned_with_digest(fetch, revision, sha256):
    import hmac
    data = bytes(fetch(revision))
    try:
        wanted = bytes.fromhex(sha256)
    except ValueError:
        wanted = b""
    if not hmac.compare_digest(hashlib.sha256(data).digest(), wanted):
        raise ValueError("this is not the file")
    return load(data)


def pinned_by_assert(fetch, revision, sha256):
    data = fetch(revision)
    assert hashlib.sha256(data).hexdigest() == sha256
    return load(data)


def pinned_too_late(fetch, revision, sha256):
    data = fetch(revision)
    tensors = load(data)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("this is not the file")
    return tensors


def pinned_asking_twice(fetch, revision, sha256):
    if len(sha256) != 64 or hashlib.sha256(fetch(revision)).hexdigest() != sha256:
        raise ValueError("this is not the file")
    return load(fetch(revision))


def pinned_by_beginning(fetch, revision, sha256):
    data = fetch(revision)
    if not hashlib.sha256(data).hexdigest().startswith(sha256):
        raise ValueError("this is not the file")
    return load(data)


def pinned_within(fetch, revision, sha256):
    data = fetch(revision)
    if hashlib.sha256(data).hexdigest() not in sha256:
        raise ValueError("this is not the file")
    return load(data)


def pinned_by_bytes(fetch, revision, sha256):
    data = fetch(revision)
    if hashlib.sha256(data).digest() != sha256:
        raise ValueError("this is not the file")
    return load(data)


def pinned_to_main(fetch, revision, sha256):
    return pinned_with_digest(fetch, "main", sha256)


RIGHT = [
    (FORGE, "opcodes by hand", forge_with_opcodes),
    (FORGE, "__reduce_ex__, eval, deep inside a dictionary", forge_with_eval_of_exec),
    (NAMES_IN, "a stack and match", names_with_list),
    (NAMES_IN, "Python's own unpickler with dummies", names_by_unpickler),
    (SLIP_PAST, "an interactive interpreter", slip_with_code),
    (SLIP_PAST, "trace, or bdb", slip_with_trace),
    (SCORE_SCANNER, "loops and a list", score_with_loops),
    (LOAD_PINNED, "bytes compared in constant time", pinned_with_digest),
]

WRONG = [
    (FORGE, "runs the code while forging", forge_by_running, "runs nothing while it is forged", "calls nothing"),
    (FORGE, "pickles the text", forge_text, "runs the code it was given", "the pickle calls nothing"),
    (FORGE, "a class that only this notebook has", forge_own_class, "runs the code it was given", "names your class"),
    (FORGE, "one argument, no tuple", forge_without_tuple, "gives the bytes of a pickle", "with the comma"),
    (FORGE, "eval", forge_with_eval, "runs the code it was given", "`eval` takes one expression"),
    (FORGE, "a text of its own", forge_own_text, "runs that code and no other", "use the argument `code`"),
    (FORGE, "text in place of bytes", forge_as_text, "gives the bytes of a pickle", "return what `pickle.dumps` gives you"),
    (NAMES_IN, "GLOBAL alone", names_only_global, "protocols 4 and 5", "STACK_GLOBAL takes the two strings"),
    (NAMES_IN, "a space in the name", names_with_space, "protocols 0 to 3", "put a dot there"),
    (NAMES_IN, "no memo", names_without_memo, "written once and used again", "fetched from the memo"),
    (NAMES_IN, "takes text for names", names_of_all_text, "only looks like a name", "data are data"),
    (NAMES_IN, "loads the pickle", names_by_loading, "without loading it", "never `pickle.loads`"),
    (NAMES_IN, "forgives a broken pickle", names_that_forgives, "refuses what it cannot read", "`raise ValueError"),
    (SLIP_PAST, "exec, which is on the list", slip_with_exec, "names nothing on the list", "builtins.exec"),
    (SLIP_PAST, "os.system, which is named after the platform", slip_with_os, "names nothing on the list", ".system"),
    (SLIP_PAST, "a single way", slip_once, "when the list has grown", "timeit.timeit"),
    (SLIP_PAST, "runs the code while forging", slip_by_running, "runs nothing while it is forged", "calls nothing"),
    (SLIP_PAST, "another code", slip_without_code, "runs the code when it is loaded", "has to be given `code` itself"),
    (SCORE_SCANNER, "caught in place of missed", score_caught, "counts the harmful files", "for which `scan` says False"),
    (SCORE_SCANNER, "shares of all files", score_over_all, "counts the harmful files", "over all harmful ones"),
    (SCORE_SCANNER, "stumbles with the scanner", score_without_try, "over which the scanner stumbles", "call `scan` in a `try`"),
    (SCORE_SCANNER, "an error is a clean bill", score_errors_as_clean, "over which the scanner stumbles", "counts as stopped"),
    (LOAD_PINNED, "an assert", pinned_by_assert, "in which one bit differs", "`assert` is no check"),
    (LOAD_PINNED, "the guide's order: load, then check", pinned_too_late, "differs", "before `load`"),
    (LOAD_PINNED, "hashes one download and loads another", pinned_asking_twice, "loads what it checked", "call `fetch` once"),
    (LOAD_PINNED, "compares bytes with text", pinned_by_bytes, "from the revision that was pinned", "hexdigest"),
    (LOAD_PINNED, "compares beginnings", pinned_by_beginning, "abbreviated hash", "whole texts of 64 digits"),
    (LOAD_PINNED, "looks for the hash within the text", pinned_within, "abbreviated hash", "whole texts of 64 digits"),
    (LOAD_PINNED, "asks for main", pinned_to_main, "from the revision that was pinned", "hand the argument `revision` on"),
]
