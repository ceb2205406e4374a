"""Both notebooks come from one file; what is stale, leaks or fails is said in a sentence."""
import json
import shutil

import nbformat
import pytest

from mlsec_lab.course import build
from mlsec_lab.course.build import BuildError, student_notebook
from mlsec_lab.course.catalogue import LESSONS, find_lesson
from mlsec_lab.exercises import exercises_of

LESSON = find_lesson("00")
SOURCE = """# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 00 · A small lesson
#
# {{facts}}

# %%
from mlsec_lab.course import exercise
from mlsec_lab.display import Slider, explore
from matplotlib.figure import Figure

import torch

# %% [markdown]
# {{exercise start_here.linf_distance}}
#
# Write it.

# %% exercise="start_here.linf_distance"

# %% exercise="start_here.l2_distance"

# %% exercise="start_here.attack_success_rate"

# %% claim="a_fact"
print("the change is one half:", linf_distance(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)).item() == 0.5)

# %%
explore(lambda eps: eps, lambda eps: (Figure(figsize=(1, 1)), f"nothing but {eps}"), eps=Slider("eps", 0, 4, 1))

# %% picture="a_square"
from mlsec_lab.display import pictures, show

show(pictures(torch.zeros(1, 1, 8, 8)), "a black square")

# %%
import time

print("one,", flush=True)
for number in range(3):
    time.sleep(0.3)  # the kernel sends what it has
    print(number, flush=True)

# %% machine=true
print("a machine")
"""
READY = [lesson for lesson in LESSONS if lesson.ready]


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A course of one small lesson; house(text) writes its source."""
    def point_to(folder):
        monkeypatch.setattr(build, "COURSE", folder)
        monkeypatch.setattr(build, "STUDENT", folder / "notebooks")
        monkeypatch.setattr(build, "SOLVED", folder / "solutions")

    def write(text=SOURCE):
        (tmp_path / "solutions").mkdir(exist_ok=True)
        (tmp_path / "solutions" / "00_start_here.py").write_text(text)
        return tmp_path
    point_to(tmp_path)
    monkeypatch.setattr(build, "LESSONS", (LESSON,))
    monkeypatch.setattr(build, "ready_lessons", lambda: [LESSON])
    return write


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The small lesson, built once with its second notebook executed."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "solutions").mkdir()
    (folder / "solutions" / "00_start_here.py").write_text(SOURCE)
    (folder / "README.md").write_text("before\n{}\n{}\nafter\n".format(*build.README_MARKS))
    patch = pytest.MonkeyPatch()
    for name, value in dict(COURSE=folder, STUDENT=folder / "notebooks", SOLVED=folder / "solutions", LESSONS=(LESSON,), ready_lessons=lambda: [LESSON]).items():
        patch.setattr(build, name, value)
    assert build.main() == 0
    patch.undo()
    return folder


@pytest.fixture
def copied(built, house, tmp_path):
    """A copy of the built lesson that a test may spoil."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path


def by_id(notebook):
    return {cell.id: cell for cell in notebook.cells}


# ---- what is made

def test_the_student_notebook_is_the_same_byte_for_byte_each_time(house):
    folder = house()
    build.build(LESSON, execute=False)
    first = (folder / "notebooks" / "00_start_here.ipynb").read_bytes()
    build.build(LESSON, execute=False)
    assert (folder / "notebooks" / "00_start_here.ipynb").read_bytes() == first
    assert not (folder / "solutions" / "00_start_here.ipynb").exists() and b"\r" not in first


def test_cell_ids_are_unique_and_those_of_exercises_and_claims_survive_a_new_cell(house):
    house()
    before = [cell.id for cell in build.solved_notebook(LESSON).cells]
    house(SOURCE.replace("# %% [markdown]\n# # 00", "# %%\n1\n\n# %% [markdown]\n# # 00"))
    after = [cell.id for cell in build.solved_notebook(LESSON).cells]
    assert len(set(before)) == len(before) and len(set(after)) == len(after) == len(before) + 1
    named = {id for id in before if not id.rsplit("-", 1)[1].isdigit()}
    assert {"start_here-linf_distance", "start_here-linf_distance_check", "start_here-claim-a_fact"} <= named <= set(after)


def test_a_learner_gets_the_stub_and_the_check_and_nothing_hidden(house):
    house()
    solved = build.solved_notebook(LESSON)
    student = by_id(student_notebook(solved))
    for name in ("linf_distance", "l2_distance", "attack_success_rate"):
        answer, check = student[f"start_here-{name}"], student[f"start_here-{name}_check"]
        assert answer.source.startswith(f"def {name}(") and answer.source.endswith(f'    {build.STUB}') and '"""' in answer.source
        assert "".join(check.source.split()) == f'{name}=exercise("start_here.{name}").check({name})'
        assert all(len(line) <= 88 for line in check.source.splitlines())
        assert not answer.metadata.nbgrader.locked and answer.metadata.nbgrader.solution and answer.metadata.get("editable", True)
        assert check.metadata.nbgrader.locked and check.metadata.nbgrader.grade and check.metadata.editable is False and check.metadata.deletable is False
        assert 'outcome == "passed"' in by_id(solved)[f"start_here-{name}_check"].source
        assert "BEGIN SOLUTION" in by_id(solved)[f"start_here-{name}"].source
    text = "\n".join(cell.source for cell in student.values())
    assert "SOLUTION" not in text and "HIDDEN" not in text and "outcome ==" not in text


def test_facts_and_exercise_headings_are_filled_in(house):
    house()
    text = "\n".join(cell.source for cell in build.solved_notebook(LESSON).cells)
    assert LESSON.facts in text and "### Exercise 1 · `linf_distance` (difficulty 1/5, about 3 minutes)" in text
    assert "{{" not in text


def test_the_solved_notebook_keeps_outputs_but_no_widget_state_and_nothing_of_the_machine(built):
    notebook = nbformat.read(built / "solutions" / "00_start_here.ipynb", as_version=4)
    cells = by_id(notebook)
    assert cells["start_here-claim-a_fact"].outputs[0].text == "the change is one half: True\n"
    assert cells["start_here-claim-a_fact"].metadata.tags == ["nbval-check-output"]
    assert "[passed]" in cells["start_here-l2_distance_check"].outputs[0].data["text/plain"]
    machine = next(cell for cell in notebook.cells if "machine" in cell.metadata)
    assert machine.outputs == [] and machine.source == 'print("a machine")'
    printed = [[output.text for output in cell.outputs] for cell in notebook.cells if "one," in cell.source]
    assert printed == [["one,\n0\n1\n2\n"]], "in one piece, however the kernel sent it"
    whole = json.dumps(notebook)
    assert "widget-view" not in whole and "widget-state" not in whole and "widgets" not in notebook.metadata
    assert all("execution" not in cell.metadata for cell in notebook.cells)


def test_a_cell_marked_as_a_picture_also_goes_to_docs(built, house, monkeypatch):
    assert (built / "docs" / "a_square.png").read_bytes().startswith(b"\x89PNG")
    house('# %% picture="nothing"\nprint("no figure")\n')
    monkeypatch.setattr(build, "exercises_of", lambda topic: {})
    with pytest.raises(BuildError, match="docs/nothing.png, and shows no figure"):
        build.build(LESSON)


@pytest.mark.parametrize("lesson", READY, ids=lambda lesson: lesson.name)
def test_a_real_lesson_builds_the_same_twice_leaks_nothing_and_suits_nbgrader(lesson):
    from nbgrader.nbgraderformat import MetadataValidator
    solved, again = build.solved_notebook(lesson), build.solved_notebook(lesson)
    student = student_notebook(solved)
    assert build._text(student) == build._text(student_notebook(again)) and build._text(solved) == build._text(again)
    assert build.leaks(lesson, student) == []
    for notebook in (solved, student):
        nbformat.validate(notebook)
        MetadataValidator().validate_nb(notebook)
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    answers = [cell for cell in student.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert len(answers) == len(exercises_of(lesson.topic)) and all(build.STUB in cell.source for cell in answers)


def test_run_all_on_an_untouched_lesson_ends_without_a_traceback(tmp_path):
    from nbclient import NotebookClient
    notebook = student_notebook(build.solved_notebook(LESSON))
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [output.data["text/plain"] for cell in notebook.cells if cell.id.endswith("_check") for output in cell.outputs]
    assert len(said) == 3 and all(text.startswith("[not attempted]") for text in said)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


# ---- what is stale

def test_a_freshly_built_lesson_is_neither_stale_nor_leaking(copied, capsys):
    assert build.check(LESSON) == []
    assert build.main(check_only=True) == 0
    assert capsys.readouterr().out.endswith("nothing is stale and nothing leaks\n")


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
def test_a_notebook_that_was_edited_or_is_missing_is_stale(folder, copied):
    path = copied / folder / "00_start_here.ipynb"
    path.write_text(path.read_text().replace("A small lesson", "Another lesson"))
    problem, = build.check(LESSON)
    assert problem == f"{folder}/00_start_here.ipynb is stale: run `mlsec-lab build start_here`"
    path.unlink()
    assert build.check(LESSON) == [problem]


def test_both_notebooks_are_stale_when_the_source_changed_and_nothing_is_written_by_checking(copied, house, capsys):
    house(SOURCE.replace("Write it.", "Write it well."))
    before = {path: path.read_bytes() for path in copied.rglob("*.ipynb")}
    assert len(build.check(LESSON)) == 2
    assert build.main(["00"], check_only=True) == 1
    assert capsys.readouterr().out.endswith("2 problems\n")
    assert {path: path.read_bytes() for path in copied.rglob("*.ipynb")} == before


def test_claims_without_outputs_are_told(copied):
    path = copied / "solutions" / "00_start_here.ipynb"
    notebook = nbformat.read(path, as_version=4)
    by_id(notebook)["start_here-claim-a_fact"].outputs = []
    nbformat.write(notebook, path)
    assert ["claims without outputs" in problem for problem in build.check(LESSON)] == [True]


def test_a_stray_notebook_and_a_stale_readme_are_told(copied, capsys):
    shutil.copy(copied / "notebooks" / "00_start_here.ipynb", copied / "notebooks" / "07_old.ipynb")
    (copied / "README.md").write_text("{}\nold\n{}\n".format(*build.README_MARKS))
    assert build.main(check_only=True) == 1
    said = capsys.readouterr().out
    assert "notebooks/07_old.ipynb belongs to no ready lesson" in said and "README.md's course map is stale" in said and "2 problems" in said


# ---- what leaks, and what cannot be built

@pytest.mark.parametrize("cell", ["# %% [markdown]\n# It is this line:\n#\n#     return (x_adv - x).abs().flatten(start_dim=1).amax(dim=1)\n",
                                  "# %% [markdown]\n# Write `return (x_adv - x).abs().flatten(start_dim=1).amax(dim=1)` there.\n",
                                  "# %%\ndef mine(x, x_adv):\n    return (x_adv - x).abs().flatten(start_dim=1).amax(dim=1)\n"], ids=["prose", "inline", "code"])
def test_a_cell_that_repeats_a_solution_line_is_found_and_nothing_is_written(cell, house):
    folder = house(SOURCE + "\n" + cell)
    with pytest.raises(BuildError, match="cell start_here-.* gives away a line of start_here.linf_distance"):
        build.build(LESSON, execute=False)
    assert not (folder / "notebooks").exists()


@pytest.mark.parametrize("old, new, words", [
    ('exercise="start_here.l2_distance"', 'exercise="start_here.l3_distance"', "00_start_here.py names the exercise 'start_here.l3_distance'"),
    ('# %% exercise="start_here.l2_distance"\n', "", "each once, in that order"),
    ('# %% exercise="start_here.l2_distance"\n', '# %% exercise="start_here.l2_distance"\n\n# %% exercise="start_here.l2_distance"\n', "each once, in that order"),
    ("{{facts}}", "{{fact}}", r"\{\{fact\}\} is neither"),
    ("{{exercise start_here.linf_distance}}", "{{exercise evasion.fgsm}}", r"\{\{exercise evasion.fgsm\}\} is neither"),
], ids=["unknown exercise", "missing exercise", "twice", "unknown macro", "another lesson's exercise"])
def test_a_lesson_that_does_not_fit_its_exercises_is_told_in_a_sentence(old, new, words, house):
    house(SOURCE.replace(old, new))
    with pytest.raises(BuildError, match=words):
        build.solved_notebook(LESSON)


def test_a_planned_lesson_cannot_be_built(house, capsys):
    house()
    with pytest.raises(BuildError, match="there is no solutions/02_poisoning.py: lesson 02 is planned"):
        build.build(find_lesson("02"))


SHORT = "# %%\n{}\n"


@pytest.mark.parametrize("code, words", [("1 / 0", "a cell failed:(.|\n)*ZeroDivisionError"), ("import warnings; warnings.warn('old')", "writes to stderr:(.|\n)*UserWarning: old")],
                         ids=["an exception", "a warning"])
def test_a_cell_that_fails_or_warns_stops_the_build(code, words, house, monkeypatch):
    folder = house(SHORT.format(code))
    monkeypatch.setattr(build, "exercises_of", lambda topic: {})
    with pytest.raises(BuildError, match=words):
        build.build(LESSON)
    assert not (folder / "solutions" / "00_start_here.ipynb").exists()


def test_main_goes_on_after_a_lesson_that_fails_and_reports_it(house, capsys):
    folder = house(SOURCE.replace("{{facts}}", "{{nothing}}"))
    (folder / "README.md").write_text("{}\n{}\n".format(*build.README_MARKS))
    assert build.main() == 1
    said = capsys.readouterr().out
    assert "building 00_start_here" in said and "{{nothing}} is neither" in said and said.endswith("1 problem\n")


def test_a_readme_without_its_marks_is_told():
    with pytest.raises(ValueError, match="README.md has lost the marks"):
        build.readme_with_map("# a course")
    text = build.readme_with_map("a\n{}\nold rows\n{}\nz".format(*build.README_MARKS))
    assert text.startswith("a\n") and text.endswith("\nz") and "old rows" not in text and text == build.readme_with_map(text)
