"""The answers that every exercise is tried with: its stub as a learner gets it, and its reference as if somebody had typed it."""
import inspect
import itertools
import linecache

import pytest

from mlsec_lab.course.check import judge

SEEDS = (0, 1, 2, 3, 41_230)
_numbers = itertools.count()


def typed(source, exercise):
    """The function that `source` defines, made anew among the names that the lesson has."""
    filename = f"<answer {next(_numbers)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    names = dict(vars(inspect.getmodule(exercise.reference)))
    names.pop(exercise.name)
    exec(compile(source, filename, "exec"), names)
    return names[exercise.name]


@pytest.fixture(scope="session")
def stub():
    """stub(exercise): the function of the student notebook, made by the course's own build."""
    import nbformat

    from mlsec_lab.course import build

    def make(exercise):
        notebook = nbformat.v4.new_notebook(cells=build._exercise_cells(exercise))
        return typed(build.student_notebook(notebook).cells[0].source, exercise)
    return make


@pytest.fixture(scope="session")
def retyped():
    """retyped(exercise): the reference's own source as a function of its own."""
    return lambda exercise: typed(inspect.getsource(exercise.reference), exercise)


@pytest.fixture(scope="session")
def verdicts():
    """verdicts(exercise, answer): what the check says on each of five seeds."""
    return lambda exercise, answer: [judge(exercise, answer, seed=seed) for seed in SEEDS]
