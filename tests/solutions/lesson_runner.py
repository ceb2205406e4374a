"""Run a lesson's cells in this process, on data of another seed or another victim, and read its claims."""
import contextlib
import functools
import io
import time
from types import SimpleNamespace
from unittest import mock

import mlsec_lab  # noqa: F401
import matplotlib

from mlsec_lab import victims
from mlsec_lab.course.build import solved_notebook
from mlsec_lab.course.catalogue import find_lesson


def run_lesson(topic, *, seed=0, victim=None):
    """Execute the code cells of a solved lesson.

    seed: added, times 1000, to the seed of every data set that the lesson loads, and to the lesson's own SEED.  victim: replaces the word in VICTIM = "signs".
    Returns .claims ({statement: bool}), .names (the lesson's variables), .printed ({cell id: text}), .seconds ({cell id: float}).
    """
    matplotlib.use("Agg")

    @functools.wraps(victims.load_data)
    def other_data(name, split="test", *, n=None, **arguments):
        return victims.datasets.load_data(name, split, n=n, seed=arguments.get("seed", 0) + 1000 * seed)

    names, claims, printed, seconds = {"__name__": "lesson"}, {}, {}, {}
    with mock.patch.object(victims, "load_data", other_data):
        for cell in solved_notebook(find_lesson(topic)).cells:
            if cell.cell_type != "code":
                continue
            source = cell.source.replace("SEED = 0", f"SEED = {1000 * seed}")
            if victim:
                source = source.replace('VICTIM = "signs"', f'VICTIM = "{victim}"')
            out, began = io.StringIO(), time.perf_counter()
            with contextlib.redirect_stdout(out):
                exec(compile(source, f"<{cell.id}>", "exec"), names)
            seconds[cell.id], printed[cell.id] = time.perf_counter() - began, out.getvalue()
            if "claim" in cell.metadata:
                for line in out.getvalue().strip().splitlines():
                    statement, _, value = line.rpartition(": ")
                    claims[statement] = {"True": True, "False": False}[value]
    return SimpleNamespace(claims=claims, names=names, printed=printed, seconds=seconds)
