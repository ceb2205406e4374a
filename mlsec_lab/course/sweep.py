"""Run one function over a grid of arguments, and keep every cell that is done.

    frame = sweep(measure, {"rate": [0.01, 0.05], "seed": [0, 1, 2]}, folder="sweeps/rates")

A sweep may be killed at any moment: started again, it reads what was finished from its folder and runs the rest.
"""
import contextlib
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from mlsec_lab.home import write_whole

DIED = "BrokenProcessPool: the process that ran this cell died, and so did a second one, perhaps for want of memory"
GIVE_UP = 3  # so many processes die alone before any cell has been run: then no process can start here, and the rest is not tried


def sweep(function, grid, *, folder=None, executor=None, version="", progress=True):
    """Call `function` with every cell of `grid`: a pandas DataFrame with one row a cell, in the grid's order.

    function: takes a cell's arguments by name; returns one number, which becomes the column `result`, or a dict of numbers,
        strings and lists, whose keys become columns.  What is kept goes by its name, so it stands at the top of a module.
    grid: {argument: list of values} for the full product, the last argument fastest, or a list of dicts, the cells.
        Values are what JSON knows: numbers, strings, true and false, None, lists and dicts of those; tuples arrive as lists.
    folder: where each finished cell is kept, one small file each; None keeps nothing.
    executor: any concurrent.futures.Executor, such as workers(4) or Dask's client.get_executor(); None works in this process.
        It stays open. A process that dies costs one cell at most: the cells it may have held are tried once more, each alone.
    version: any string; another one sets what was kept aside, as for a function that has changed.
    Columns: the arguments, what was returned, `seconds`, and `error`: "", or "TypeError: …" for a cell that failed. Such a cell
    has no results, is not kept, and is tried again next time.
    Raises ValueError for a grid without cells, arguments that JSON does not know, or a function that cannot be found by name.
    """
    name = _name_of(function, by_name=folder is not None)
    cells = _cells(grid)
    texts = [_canonical(cell) for cell in cells]
    keys = [hashlib.sha256(json.dumps([name, text, version]).encode()).hexdigest() for text in texts]
    if folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)  # here, not after the first hour
    known = {key: outcome for key in keys if folder and (outcome := _read(folder / f"{key}.json", key))}
    todo = {key: text for key, text in zip(keys, texts) if key not in known}
    running = _here(function, todo) if executor is None else _elsewhere(executor, function, todo)
    failed = 0
    from tqdm.auto import tqdm
    with contextlib.closing(running), tqdm(total=len(known) + len(todo), initial=len(known), desc=function.__name__, unit="cell",
                                           delay=1, leave=False, disable=not progress) as bar:
        for key, outcome in running:
            clash = {*outcome["returned"]} & {*json.loads(todo[key]), "seconds", "error"}
            if clash:
                outcome = _failed(f"ValueError: the function returned {min(clash)!r}, which is a column already", outcome["seconds"])
            known[key] = outcome
            if folder and not outcome["error"]:
                write_whole(folder / f"{key}.json", _file(key, name, version, todo[key], outcome))
            failed += bool(outcome["error"])
            if failed:
                bar.set_postfix(failed=failed, refresh=False)
            bar.update()
    return _frame(texts, cells, [known[key] for key in keys])


class _Workers(ProcessPoolExecutor):
    """A pool of processes that are ended, not waited for, when an exception leaves its `with` block.

    Ctrl-C reaches every process of a terminal; the first one ends the others, which heed none of their own from their first moment on.
    """

    def submit(self, *call, **arguments):
        with _ctrl_c_held_back():  # a process is started when there is a call for it, and begins with what is held back here
            return super().submit(*call, **arguments)

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            for process in list((self._processes or {}).values()):
                process.terminate()
        return super().__exit__(kind, value, traceback)


def workers(n):
    """A ProcessPoolExecutor of `n` new processes with one thread each; use it in a `with` block, whose end ends them.

    A script that sweeps with it needs `if __name__ == "__main__":`, because each process reads the script anew.
    Raises ValueError for n < 1.
    """
    from mlsec_lab.victims.inputs import check_number  # not above: it loads torch, and a worker sets its threads before that
    check_number(n, "n", least=1, whole=True)
    return _Workers(n, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker)


@contextlib.contextmanager
def _ctrl_c_held_back():
    """Ctrl-C comes after the block, not within it.  Windows knows no such thing: there a worker heeds Ctrl-C until it has begun."""
    if os.name == "nt":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker():
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:  # the script that is swept from imports it
        sys.modules["torch"].set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_the_parent():  # a parent killed by -9 cannot say so
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_the_parent, daemon=True).start()


# ---- the cells

def _name_of(function, by_name):
    """module.name of a function.  ValueError for what has none, or none that another process would find."""
    if not callable(function) or not hasattr(function, "__qualname__"):
        raise ValueError(f"function must be a function with a name, not {function!r}")
    if by_name and "<" in function.__qualname__:
        raise ValueError(f"function must stand at the top of a module, not {function.__qualname__}: its name is what its kept cells go by")
    return f"{function.__module__}.{function.__qualname__}"


def _cells(grid):
    """The cells of a grid, a list of dicts."""
    if isinstance(grid, dict):
        for name, values in grid.items():
            if not isinstance(values, (list, tuple, range)):
                raise ValueError(f"grid[{name!r}] must be a list of values, not {type(values).__name__}")
        cells = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    elif isinstance(grid, (list, tuple)) and all(isinstance(cell, dict) for cell in grid):
        cells = list(grid)
    else:
        raise ValueError(f"grid must be a dict of lists or a list of dicts, not {type(grid).__name__} {grid!r:.60}")
    if not cells:
        raise ValueError(f"grid must hold at least one cell, not {grid!r:.60}")
    return cells


def _canonical(cell):
    """The arguments of one cell as JSON, the same text for the same arguments.  ValueError where JSON does not know them."""
    for name, value in cell.items():
        if not isinstance(name, str) or name in ("seconds", "error"):
            raise ValueError(f"grid must name its arguments by strings other than 'seconds' and 'error', which are columns, not {name!r}")
        try:
            _plain(value, finite=True)
        except TypeError as error:
            raise ValueError(f"grid must hold what JSON knows (numbers, strings, lists, dicts); {name} holds {error}") from None
    return json.dumps(cell, sort_keys=True)


def _plain(value, *, finite=False):
    """`value` in JSON's types.  TypeError, which says what it holds, for anything else, and for infinity and NaN where `finite`."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, finite=finite) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, finite=finite) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and (math.isfinite(value) or not finite):
        return float(value)  # numpy's float64 is one as well
    raise TypeError(f"{value!r:.60} ({type(value).__name__})")


# ---- running them

def _run(function, text):
    """One cell, in whatever process: {"returned": …, "seconds": …, "error": …}, never an exception."""
    began = time.perf_counter()
    try:
        if isinstance(function, bytes):
            function = pickle.loads(function)
        returned = function(**json.loads(text))
        if not isinstance(returned, dict):
            if not isinstance(returned, (int, float)) and getattr(returned, "ndim", None) != 0:
                raise TypeError(f"the function returned {returned!r:.60} ({type(returned).__name__}), not a number or a dict")
            returned = {"result": returned}
        returned = {name: value.tolist() if getattr(value, "ndim", None) == 0 else value for name, value in returned.items()}  # numpy's, torch's
        try:
            returned = _plain(returned)
        except TypeError as error:
            raise TypeError(f"the function returned {error}, which is no number, string or list") from None
        return {"returned": returned, "seconds": time.perf_counter() - began, "error": ""}
    except (Exception, SystemExit) as error:
        return _failed(_in_words(error), time.perf_counter() - began)


def _failed(error, seconds=math.nan):
    return {"returned": {}, "seconds": seconds, "error": error}


def _in_words(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _here(function, todo):
    for key, text in todo.items():
        yield key, _run(function, text)


def _elsewhere(pool, function, todo):
    """(key, outcome) of each cell as the executor finishes them.

    When a process of a pool dies, every cell that the pool was given is lost with it. So a pool holds only as many cells as it
    has processes; those are tried once more, each in a process of its own, and a new pool goes on with the rest.
    """
    processes = isinstance(pool, ProcessPoolExecutor)
    if processes:
        try:
            function = pickle.dumps(function)  # unpickled within the cell, where a function that is not found is a row
        except Exception as error:
            raise ValueError(f"function must stand at the top of a module for another process to find it ({error})") from None
    size = pool._max_workers if processes else len(todo)
    waiting, held, done = deque(todo), {}, queue.SimpleQueue()
    ran = died = 0
    with contextlib.ExitStack() as pools:
        pools.callback(lambda: [future.cancel() for future in held])
        while waiting or held:
            try:
                while waiting and len(held) < size:
                    future = pool.submit(_run, function, todo[waiting[0]])
                    held[future] = waiting.popleft()
                    future.add_done_callback(done.put)
                with contextlib.suppress(queue.Empty):  # Windows heeds Ctrl-C only between two waits
                    future = done.get(timeout=1)
                    outcome = _outcome(future)
                    yield held.pop(future), outcome
                    ran += 1
            except BrokenProcessPool:
                wait(held)
                for future, key in held.items():
                    try:
                        outcome = _outcome(future)  # it may have finished just before
                    except BrokenProcessPool:
                        outcome = _alone(function, todo[key])
                    yield key, outcome
                    if outcome["error"] == DIED:
                        died += 1
                    else:
                        ran += 1
                held, done = {}, queue.SimpleQueue()
                if died >= GIVE_UP and not ran:
                    break
                pool = pools.enter_context(workers(size))
        for key in waiting:
            yield key, _failed("BrokenProcessPool: not tried, because no process stays alive here")


def _outcome(future):
    """What a finished cell came to; raises BrokenProcessPool where a process died instead."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:  # the executor's own: a cell that was cancelled or could not be sent
        return _failed(_in_words(error))


def _alone(function, text):
    """One cell in a new process of its own."""
    with workers(1) as pool:
        try:
            return _outcome(pool.submit(_run, function, text))
        except BrokenProcessPool:
            return _failed(DIED)


# ---- what is kept

def _file(key, name, version, text, outcome):
    """A finished cell as the bytes of its file, which ends in a digest of itself."""
    entry = {"key": key, "function": name, "version": version, "arguments": json.loads(text), "seconds": outcome["seconds"], "returned": outcome["returned"]}
    return json.dumps({**entry, "sha256": _digest(entry)}, indent=1).encode() + b"\n"


def _read(path, key):
    """The outcome of a finished cell, None where its file is missing or is not what was written: then the cell is run again."""
    try:
        entry = json.loads(path.read_bytes())
        digest = entry.pop("sha256")
        if digest == _digest(entry) and entry["key"] == key:
            return {"returned": entry["returned"], "seconds": entry["seconds"], "error": ""}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        pass
    return None


def _digest(entry):
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def _frame(texts, cells, outcomes):
    import pandas
    rows = [{**json.loads(text), **outcome["returned"], "seconds": outcome["seconds"], "error": outcome["error"]}
            for text, outcome in zip(texts, outcomes)]
    named = dict.fromkeys(name for cell in cells for name in cell)  # in the order in which the caller named them
    returned = dict.fromkeys(name for outcome in outcomes for name in outcome["returned"])
    return pandas.DataFrame(rows, columns=[*named, *(name for name in returned if name not in named), "seconds", "error"])
