"""Sweeps: one row a cell whatever happens to it, the same wherever it runs, and nothing done twice."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch

from mlsec_lab import cli
from mlsec_lab.course.sweep import sweep, workers
from mlsec_lab.home import COURSE, work_folder

# What the sweeps run stands in a module of its own, because the processes of a pool have to find it by name.
CELLS = '''
import math, os, signal, sys, time
from pathlib import Path

def note(folder, text):
    """Leave a trace of each call: a line in a file, appended in one write."""
    with open(Path(folder) / "calls", "a") as file:
        file.write(text + "\\n")

def measure(rate, seed, trigger="patch"):
    return {"asr": rate * (seed + 1) / 3, "name": f"{trigger} {seed}", "curve": [rate, seed], "undefined": math.nan, "none": None}

def late_first(number, of):
    time.sleep(0.25 * (of - number))
    return number

def fails(seed, folder):
    note(folder, str(seed))
    if seed == 1 and not (Path(folder) / "mended").exists():
        raise TypeError("an odd\\n  seed")
    if seed == 3 and not (Path(folder) / "mended").exists():
        sys.exit("no more")
    return {"double": 2 * seed}

def slow(number, folder, nap):
    time.sleep(0 if (Path(folder) / "hurry").exists() else nap)
    note(folder, f"{number} {os.getpid()}")
    return number

def dies(number, folder):
    note(folder, str(number))
    if number == 2:
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    return number

def dies_once(number, folder):
    if number == 2 and not (Path(folder) / "died").exists():
        (Path(folder) / "died").touch()
        os._exit(1)
    return number

def always_dies(number):
    os._exit(1)

def threads():
    before = "torch" in sys.modules
    import torch
    return {"torch_before": before, "omp": os.environ["OMP_NUM_THREADS"], "threads": torch.get_num_threads()}

def changes_its_argument(curve):
    curve.append(1)
    return len(curve)
'''


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """The module of the functions above, importable by this process and by those that it starts."""
    home = tmp_path / "importable"
    home.mkdir()
    (home / "swept_functions.py").write_text(CELLS)
    monkeypatch.syspath_prepend(home)
    sys.modules.pop("swept_functions", None)
    yield __import__("swept_functions")
    sys.modules.pop("swept_functions", None)


def calls(folder):
    path = folder / "calls"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def told(function, grid, **arguments):
    with pytest.raises(ValueError) as error:
        sweep(function, grid, progress=False, **arguments)
    return str(error.value)


# ---- rows and columns

def test_a_dict_of_lists_is_their_full_product_the_last_argument_fastest(cells):
    frame = sweep(cells.measure, {"rate": [0.25, 0.5], "seed": range(3)}, progress=False)
    assert list(frame.columns) == ["rate", "seed", "asr", "name", "curve", "undefined", "none", "seconds", "error"]
    assert list(zip(frame.rate, frame.seed)) == [(rate, seed) for rate in (0.25, 0.5) for seed in range(3)]
    assert frame.asr.tolist() == [rate * (seed + 1) / 3 for rate in (0.25, 0.5) for seed in range(3)]
    assert frame.curve[4] == [0.5, 1] and frame.name[5] == "patch 2" and frame.undefined.isna().all()
    assert (frame.error == "").all() and (frame.seconds >= 0).all()


def test_a_list_of_dicts_is_the_cells_themselves_in_their_order(cells):
    frame = sweep(cells.measure, [dict(seed=2, rate=1.0), dict(rate=0.5, seed=0, trigger="blend"), dict(seed=2, rate=1.0)], progress=False)
    assert list(frame.columns[:3]) == ["seed", "rate", "trigger"]
    assert frame.name.tolist() == ["patch 2", "blend 0", "patch 2"] and frame.trigger.isna().tolist() == [True, False, True]


def one(number):
    return number


def test_one_number_is_the_column_result_also_a_number_of_numpy_or_torch():
    for make in (int, float, bool, np.float32, np.int64, np.array, lambda value: torch.tensor(value, requires_grad=isinstance(value, float))):
        frame = sweep(lambda number: make(number), {"number": [1.0, 0.0]}, progress=False)
        assert frame.result.tolist() == [1, 0] and (frame.error == "").all(), make
        assert not isinstance(frame.result[0], (np.ndarray, torch.Tensor))
    kept = sweep(lambda: {"loss": np.float32(0.5), "n": torch.tensor(3)}, {}, progress=False)
    assert kept.loss[0] == 0.5 and kept.n[0] == 3


def test_what_was_kept_is_the_same_frame_again_seconds_and_all(cells, tmp_path):
    grid = {"rate": [1 / 3, 1e-17, 0.1 + 0.2], "seed": [0, 10**12]}
    first = sweep(cells.measure, grid, folder=tmp_path / "kept", progress=False)
    again = sweep(cells.measure, grid, folder=str(tmp_path / "kept"), progress=False)
    pandas.testing.assert_frame_equal(first, again, check_exact=True)
    pandas.testing.assert_frame_equal(first.drop(columns="seconds"), sweep(cells.measure, grid, progress=False).drop(columns="seconds"), check_exact=True)


def test_a_cell_may_do_with_its_arguments_what_it_likes(cells, tmp_path):
    curve = [0]
    frame = sweep(cells.changes_its_argument, [{"curve": curve}, {"curve": (5, 6)}], folder=tmp_path / "kept", progress=False)
    assert frame.result.tolist() == [2, 3] and frame.curve.tolist() == [[0], [5, 6]] and curve == [0]


# ---- in a pool

def test_a_pool_gives_the_same_frame_in_the_same_order_whatever_finishes_first(cells, tmp_path):
    grid = {"rate": [0.1, 0.3], "seed": [0, 1, 2]}
    here = sweep(cells.measure, grid, progress=False).drop(columns="seconds")
    with workers(2) as pool:
        there = sweep(cells.measure, grid, executor=pool, folder=tmp_path, progress=False).drop(columns="seconds")
        order = sweep(cells.late_first, {"number": [0, 1, 2], "of": [3]}, executor=pool, progress=False)
        set_up = sweep(cells.threads, {}, executor=pool, progress=False)
    pandas.testing.assert_frame_equal(here, there, check_exact=True)
    pandas.testing.assert_frame_equal(here, sweep(cells.measure, grid, folder=tmp_path, progress=False).drop(columns="seconds"), check_exact=True)
    assert order.number.tolist() == order.result.tolist() == [0, 1, 2]
    assert set_up[["torch_before", "omp", "threads"]].values.tolist() == [[False, "1", 1]], "the thread count is set before torch is loaded"


def test_any_executor_will_do_and_stays_open(cells):
    with ThreadPoolExecutor(3) as pool:
        frame = sweep(cells.late_first, {"number": [0, 1, 2], "of": [3]}, executor=pool, progress=False)
        assert frame.result.tolist() == [0, 1, 2]
        assert sweep(one, {"number": [7]}, executor=pool, progress=False).result.tolist() == [7]
        assert pool.submit(one, 3).result() == 3


def test_a_cell_that_kills_its_process_is_a_row_and_costs_the_others_nothing(cells, tmp_path):
    grid = {"number": list(range(6)), "folder": [str(tmp_path)]}
    with workers(2) as pool:
        frame = sweep(cells.dies, grid, executor=pool, folder=tmp_path / "kept", progress=False)
    assert frame.result.dropna().tolist() == [0, 1, 3, 4, 5]
    assert frame.error[2].startswith("BrokenProcessPool: the process that ran this cell died") and (frame.error.drop(2) == "").all()
    asked = calls(tmp_path)
    assert asked.count("2") == 2 and all(asked.count(number) in (1, 2) for number in "01345")
    assert len(list((tmp_path / "kept").glob("*.json"))) == 5


def test_a_cell_whose_process_died_once_gets_another(cells, tmp_path):
    with workers(1) as pool:
        frame = sweep(cells.dies_once, {"number": [0, 1, 2, 3], "folder": [str(tmp_path)]}, executor=pool, progress=False)
    assert frame.result.tolist() == [0, 1, 2, 3] and (frame.error == "").all()


def test_where_no_process_stays_alive_the_rest_is_not_tried(cells):
    began = time.monotonic()
    with workers(2) as pool:
        frame = sweep(cells.always_dies, {"number": list(range(200))}, executor=pool, progress=False)
    assert time.monotonic() - began < 60
    assert frame.error.str.startswith("BrokenProcessPool").all() and frame.error.str.contains("not tried").sum() >= 190


def test_a_function_that_a_process_does_not_find_is_told_at_once_or_in_its_rows(cells, tmp_path, monkeypatch):
    with workers(1) as pool:
        assert "function must stand at the top of a module" in told(lambda number: number, {"number": [1]}, executor=pool)
        monkeypatch.setattr(cells, "one", one, raising=False)
        monkeypatch.setattr(one, "__module__", "swept_functions")  # the pool's processes find that module, and no `one` in it
        frame = sweep(one, {"number": [1, 2]}, executor=pool, progress=False)
        assert frame.error.str.startswith("AttributeError: ").all()
        assert sweep(cells.measure, {"rate": [1], "seed": [1]}, executor=pool, progress=False).error[0] == ""


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing on Windows")
@pytest.mark.parametrize("moment", [0, 0.05, 0.2])
def test_a_worker_heeds_no_ctrl_c_however_young_and_its_pool_ends_it(moment, capfd):
    with workers(2) as pool:
        future = pool.submit(time.sleep, 0)
        processes = list(pool._processes.values())
        time.sleep(moment)
        for process in processes:
            os.kill(process.pid, signal.SIGINT)
        assert future.result(timeout=60) is None
    with pytest.raises(ZeroDivisionError), workers(1) as pool:
        pool.submit(time.sleep, 60)
        processes += pool._processes.values()
        1 / 0
    until(lambda: not any(process.is_alive() for process in processes), seconds=20)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set()) and capfd.readouterr().err == ""


# ---- failures

@pytest.mark.parametrize("pooled", [False, True])
def test_a_failure_is_a_row_and_is_tried_again_next_time(pooled, cells, tmp_path):
    grid = {"seed": [0, 1, 2, 3], "folder": [str(tmp_path)]}

    def run():
        if not pooled:
            return sweep(cells.fails, grid, folder=tmp_path / "kept", progress=False)
        with workers(2) as pool:
            return sweep(cells.fails, grid, executor=pool, folder=tmp_path / "kept", progress=False)
    frame = run()
    assert frame.error.tolist() == ["", "TypeError: an odd seed", "", "SystemExit: no more"]
    assert frame.double.isna().tolist() == [False, True, False, True] and frame.double[2] == 4
    (tmp_path / "mended").touch()
    frame = run()
    assert frame.error.tolist() == [""] * 4 and frame.double.tolist() == [0, 2, 4, 6]
    assert sorted(calls(tmp_path)) == ["0", "1", "1", "2", "3", "3"]


@pytest.mark.parametrize("returned, words", [
    (None, "None (NoneType), not a number or a dict"), ("word", "'word' (str), not a number or a dict"), ([1], "[1] (list), not a number or a dict"),
    ({"model": torch.nn.Linear(1, 1)}, "Linear"), ({"x": torch.zeros(2)}, "tensor([0., 0.]) (Tensor), which is no number"),
    ({3: 1}, "{3: 1} (dict)"), ({"x": [{1, 2}]}, "{1, 2} (set)"), ({"number": 3}, "'number', which is a column already"),
    ({"seconds": 3}, "'seconds', which is a column already"), ({"error": "no"}, "'error', which is a column already"),
], ids=str)
def test_what_is_no_result_is_an_error_of_its_cell(returned, words):
    frame = sweep(lambda number: returned if number else 0.5, {"number": [0, 1]}, progress=False)
    assert frame.error[0] == "" and frame.result[0] == 0.5
    assert words in frame.error[1] and frame.error[1].split(":")[0] in ("TypeError", "ValueError")


def test_an_argument_that_the_function_does_not_take_is_an_error_of_its_cell(cells):
    frame = sweep(cells.measure, [dict(rate=0.5, seed=1), dict(rate=0.5, sead=1)], progress=False)
    assert frame.error[0] == "" and frame.error[1].startswith("TypeError: ") and "sead" in frame.error[1]


# ---- what is kept

def test_each_cell_is_kept_under_its_function_its_arguments_and_its_version(cells, tmp_path):
    def run(function=cells.fails, seeds=(0, 2), **arguments):
        sweep(function, {"seed": list(seeds), "folder": [str(tmp_path)]}, folder=tmp_path / "kept", progress=False, **arguments)
        return len(calls(tmp_path))
    assert run() == 2 and run() == 2
    assert run(seeds=(2, 0, 4)) == 3, "only the new one"
    assert run(version="2") == 5 and run(version="2") == 5 and run() == 5
    other = dict(vars(cells))
    exec(CELLS.replace("def fails(", "def fails_too("), other)
    assert run(other["fails_too"]) == 7, "another function has files of its own"
    sweep(cells.fails, [{"folder": str(tmp_path), "seed": 0}], folder=tmp_path / "kept", progress=False)
    assert len(calls(tmp_path)) == 7, "the order of the arguments does not matter"
    entry = json.loads(next((tmp_path / "kept").glob("*.json")).read_text())
    assert {"function", "arguments", "version", "returned", "seconds"} <= set(entry) and entry["function"].startswith("swept_functions.fails")


def test_a_damaged_file_is_a_cell_to_be_run_again(cells, tmp_path):
    grid = {"seed": [0, 2], "folder": [str(tmp_path)]}
    whole = sweep(cells.fails, grid, folder=tmp_path / "kept", progress=False)
    first, second = sorted((tmp_path / "kept").glob("*.json"))
    content, runs = first.read_bytes(), 2
    spot = content.index(b'"double": ') + len(b'"double": ')
    other = bytes([content[spot] ^ 1])  # another digit: still JSON, no longer the truth
    for damaged in (b"", content[:len(content) // 2], b"null", b"[]", b"\xff\xfe", b"{}", b"[" * 100_000, second.read_bytes(),
                    content[:spot] + other + content[spot + 1:]):
        first.write_bytes(damaged)
        again = sweep(cells.fails, grid, folder=tmp_path / "kept", progress=False)
        runs += 1
        assert again.double.tolist() == whole.double.tolist() and len(calls(tmp_path)) == runs, damaged[:40]
        assert json.loads(first.read_bytes())["returned"] == json.loads(content)["returned"]
    first.unlink()
    first.mkdir()  # no file at all
    with pytest.raises(OSError):
        sweep(cells.fails, grid, folder=tmp_path / "kept", progress=False)


def start(tmp_path, script, **environment):
    """`script` in a Python of its own that finds the functions, and that Ctrl-C can be sent to without reaching us."""
    path = tmp_path / "script.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "importable"), str(COURSE)]), **environment}
    return subprocess.Popen([sys.executable, str(path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def until(holds, process=None, seconds=60):
    """Wait until holds(), at most as long as `process` runs."""
    end = time.monotonic() + seconds
    while not holds():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing came in time"
        time.sleep(0.02)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("pooled", [False, True])
def test_a_sweep_killed_by_kill_9_resumes_with_what_was_not_finished(pooled, cells, tmp_path, alive):
    grid = {"number": list(range(30)), "folder": [str(tmp_path)], "nap": [0.3]}
    kept = tmp_path / "kept"
    script = (f"from swept_functions import slow\nfrom mlsec_lab.course.sweep import sweep, workers\nif __name__ == '__main__':\n"
              f"    sweep(slow, {grid!r}, folder={str(kept)!r}, executor={'workers(2)' if pooled else None}, progress=False)\n")
    killed = start(tmp_path, script)
    try:
        until(lambda: len(list(kept.glob("*.json"))) >= 3, killed)
    finally:
        killed.kill()
        killed.wait()
    finished = len(list(kept.glob("*.json")))
    assert 3 <= finished < 30
    mine = {int(line.split()[1]) for line in calls(tmp_path)}
    assert (killed.pid in mine) != pooled
    try:
        until(lambda: not any(alive(number) for number in mine), seconds=20)  # nobody told them, and yet they end
    finally:
        for number in filter(alive, mine):
            os.kill(number, signal.SIGKILL)
    before = [line.split()[0] for line in calls(tmp_path)]
    (tmp_path / "hurry").touch()
    frame = sweep(cells.slow, grid, folder=kept, progress=False)
    assert frame.result.tolist() == list(range(30)) and (frame.error == "").all()
    after = [line.split()[0] for line in calls(tmp_path)][len(before):]
    assert len(after) == 30 - finished and len(set(after)) == len(after)
    assert len(set(after) & set(before)) <= 2, "at most those that were under way when it was killed"


# ---- bad input

@pytest.mark.parametrize("grid, words", [
    ([], "at least one cell"), ({"seed": []}, "at least one cell"), ({"seed": 3}, "grid['seed'] must be a list of values, not int"),
    ({"name": "signs"}, "grid['name'] must be a list of values, not str"), ("signs", "a dict of lists or a list of dicts, not str"),
    ([1, 2], "a dict of lists or a list of dicts, not list"), (None, "not NoneType"), ({"seed": np.arange(3)}, "grid['seed'] must be a list of values, not ndarray"),
    ({"x": [torch.zeros(2)]}, "x holds tensor([0., 0.]) (Tensor)"), ({"f": [len]}, "f holds <built-in function len>"), ({"x": [[1, {2}]]}, "x holds {2} (set)"),
    ({"x": [{1: 2}]}, "x holds {1: 2} (dict)"), ({"x": [float("nan")]}, "x holds nan (float)"), ({"x": [float("inf")]}, "x holds inf (float)"),
    ({"x": [np.int64(3)]}, "(int64)"), ([{1: 2}], "not 1"), ({"seconds": [1]}, "not 'seconds'"), ({"error": [1]}, "not 'error'"),
], ids=str)
def test_a_grid_that_cannot_be_swept_is_refused_by_name(grid, words):
    said = told(one, grid)
    assert said.startswith("grid") and words in said and "\n" not in said


def test_a_function_without_a_name_to_keep_its_cells_under_is_refused(tmp_path):
    assert "function must stand at the top of a module, not " in told(lambda number: number, {"number": [1]}, folder=tmp_path)
    assert "function must be a function with a name, not 3" in told(3, {"number": [1]})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_before_the_first_cell(tmp_path, cells):
    (tmp_path / "a_file").write_text("in the way")
    asked = []
    cells.ask = lambda number: asked.append(number) or number
    cells.ask.__qualname__ = "ask"
    with pytest.raises(OSError):
        sweep(cells.ask, {"number": [1]}, folder=tmp_path / "a_file", progress=False)
    assert asked == []


@pytest.mark.parametrize("n", [0, -1, 1.5, "2"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(n):
    with pytest.raises(ValueError, match="n must be"):
        workers(n)


def test_a_bar_shows_what_was_done_before_and_what_failed(capsys, monkeypatch, tmp_path, cells):
    monkeypatch.setattr("tqdm.auto.tqdm", lambda **arguments: Bar(arguments))
    bars = []

    class Bar:
        def __init__(self, arguments):
            self.arguments, self.steps, self.said = arguments, 0, {}
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self):
            self.steps += 1

        def set_postfix(self, refresh, **said):
            self.said = said

    grid = {"seed": [0, 1, 2], "folder": [str(tmp_path)]}
    sweep(cells.fails, grid, folder=tmp_path / "kept")
    sweep(cells.fails, grid, folder=tmp_path / "kept", progress=False)
    first, second = bars
    assert (first.arguments["total"], first.arguments["initial"], first.steps, first.said) == (3, 0, 3, {"failed": 1}) and not first.arguments["disable"]
    assert (second.arguments["total"], second.arguments["initial"], second.steps) == (3, 2, 1) and second.arguments["disable"]


def test_importing_it_loads_neither_pandas_nor_torch():
    code = "import sys, mlsec_lab.course.sweep; print([name for name in ('pandas', 'numpy', 'torch', 'tqdm') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout == "[]\n"


# ---- the command

@pytest.fixture
def grids(cells, tmp_path, monkeypatch):
    """An experiment of four cells, two of which fail until they are mended."""
    def experiment(name, function, count, **arguments):
        return SimpleNamespace(function=function, about=f"the {name} experiment", size=lambda dataset, device: SimpleNamespace(takes="three minutes"),
                               cells=lambda dataset, device: [dict(arguments, **{count: number}) for number in range(4)])
    table = {"doubles": experiment("doubles", cells.fails, "seed", folder=str(tmp_path)),
             "slow": experiment("slow", cells.slow, "number", folder=str(tmp_path), nap=0.3)}
    monkeypatch.setitem(sys.modules, "mlsec_lab.course.grids", SimpleNamespace(
        GRIDS=table, table_path=lambda name, dataset: tmp_path / "tables" / f"{name}_{dataset}.csv", tidy=lambda frame: frame.drop(columns=["folder", "seconds", "error"], errors="ignore")))
    return tmp_path / "tables"


@pytest.mark.parametrize("workers_asked", ["1", "2"])
def test_the_command_writes_its_table_once_every_cell_has_succeeded(workers_asked, grids, tmp_path, capsys):
    assert cli.main(["sweep", "doubles", "--workers", workers_asked]) == 1
    said = capsys.readouterr()
    assert said.out == "doubles on signs: the doubles experiment (4 of 4 cells; all of them take three minutes)\n"
    assert said.err.splitlines()[-1] == ("mlsec-lab: 2 of 4 cells failed, the first with TypeError: an odd seed; no table is written; "
                                         "the others are kept, and running the command again resumes with these")
    assert not grids.exists()
    (tmp_path / "mended").touch()
    assert cli.main(["sweep", "doubles", "--workers", workers_asked]) == 0
    assert capsys.readouterr().out.endswith(f"{grids / 'doubles_signs.csv'}: 4 rows\n")
    assert (grids / "doubles_signs.csv").read_bytes() == b"seed,double\n0,0\n1,2\n2,4\n3,6\n"
    assert sorted(calls(tmp_path)) == ["0", "1", "1", "2", "3", "3"]
    assert len(list((work_folder() / "sweeps" / "doubles-signs").glob("*.json"))) == 4


def test_a_table_that_cannot_be_written_whole_leaves_the_old_one(grids, tmp_path, capsys, monkeypatch):
    (tmp_path / "mended").touch()
    assert cli.main(["sweep", "doubles"]) == 0
    before = (grids / "doubles_signs.csv").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("the disk is full")))
    assert cli.main(["sweep", "doubles"]) == 2
    assert capsys.readouterr().err == "mlsec-lab: the disk is full\n"
    assert (grids / "doubles_signs.csv").read_bytes() == before and len(list(grids.iterdir())) == 1


def test_some_cells_alone_are_kept_for_the_whole_and_a_table_of_them_goes_where_it_is_asked_for(grids, tmp_path, capsys):
    assert cli.main(["sweep", "doubles", "--cells", "2", "0"]) == 0
    assert "(2 of 4 cells" in capsys.readouterr().out and not grids.exists() and sorted(calls(tmp_path)) == ["0", "2"]
    assert cli.main(["sweep", "doubles", "--cells", "2", "--out", str(tmp_path / "some.csv")]) == 0
    assert (tmp_path / "some.csv").read_text() == "seed,double\n2,4\n"
    (tmp_path / "mended").touch()
    assert cli.main(["sweep", "doubles", "--dataset", "digits"]) == 0, "each data set has a folder of its own"
    assert cli.main(["sweep", "doubles"]) == 0
    assert sorted(calls(tmp_path)) == sorted("02" + "0123" + "13")


@pytest.mark.parametrize("arguments, words", [
    (("nothing",), "name must be one of 'doubles', 'slow', not 'nothing'"), (("doubles", "--dataset", "sings"), "dataset must be one of 'signs'"),
    (("doubles", "--workers", "0"), "workers must be at least 1"), (("doubles", "--cells", "4"), "cells must be at most 3, not 4"),
    (("doubles", "--cells", "-1"), "cells must be at least 0"),
], ids=" ".join)
def test_what_the_command_does_not_know_is_one_sentence(arguments, words, grids, capsys):
    assert cli.main(["sweep", *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.startswith("mlsec-lab: ") and said.err.count("\n") == 1 and said.out == ""


def test_without_pandas_the_command_says_what_to_do(grids, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert cli.main(["sweep", "doubles"]) == 2
    assert "sweeping needs pandas, which is not installed here" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing on Windows")
@pytest.mark.parametrize("workers_asked", ["1", "2"])
def test_ctrl_c_ends_the_command_with_one_sentence_and_it_resumes(workers_asked, cells, tmp_path):
    home = tmp_path / "home"
    script = ("import signal, sys\nfrom types import SimpleNamespace\nfrom swept_functions import slow\nfrom mlsec_lab.cli import main\nif __name__ == '__main__':\n"
              "    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, such as these tests may be, heed none\n"
              f"    cells = [dict(number=number, folder={str(tmp_path)!r}, nap=60 * number) for number in range(2)]\n"
              f"    grid = SimpleNamespace(function=slow, cells=lambda *a: cells, about='naps', size=lambda *a: SimpleNamespace(takes='long'))\n"
              f"    from pathlib import Path\n    tables = Path({str(tmp_path)!r})\n"
              "    sys.modules['mlsec_lab.course.grids'] = SimpleNamespace(GRIDS={'naps': grid}, table_path=lambda *a: tables / 'naps_signs.csv', tidy=lambda frame: frame[['number']])\n"
              f"    sys.exit(main(['sweep', 'naps', '--workers', {workers_asked!r}]))\n")
    kept = home / "sweeps" / "naps-signs"
    running = start(tmp_path, script, MLSEC_HOME=str(home))
    until(lambda: len(list(kept.glob("*.json"))) >= 1, running)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to every process of the command, a busy and an idle worker among them
    try:
        out, err = running.communicate(timeout=40)  # and not after a minute, when the second cell is done
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 130
    last = err.replace("\r", "\n").splitlines()[-1].strip()
    assert last == "mlsec-lab: stopped; the finished cells are kept, and running the command again resumes with the others" and "Traceback" not in err
    assert len(list(kept.glob("*.json"))) == 1 and not (tmp_path / "naps_signs.csv").exists()
    (tmp_path / "hurry").touch()
    again = start(tmp_path, script, MLSEC_HOME=str(home))
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0 and (tmp_path / "naps_signs.csv").read_text().split() == ["number", "0", "1"], err
    assert [line.split()[0] for line in calls(tmp_path)] == ["0", "1"]
