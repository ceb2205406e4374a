"""Build both notebooks of a lesson from its one hand-written file, and say where a committed notebook is stale.

solutions/NN_topic.py is py:percent with a few short keys:
    # %% exercise="evasion.fgsm"      an empty cell, which becomes the reference's source and, below it, the check
    # %% claim="pgd_beats_fgsm"       a cell whose printed statements nbval compares
    # %% machine=true                 a cell that speaks of the machine it runs on: its output is not kept
    # %% picture="stop_reads_80"      a cell whose figure also goes to docs/, for the README
    # %% [markdown]                   where {{facts}} and {{exercise evasion.fgsm}} are filled in from catalogue and exercise
"""
import base64
import inspect
import json
import os
import re
import tempfile

import jupytext
import nbformat
from nbclient import NotebookClient

from mlsec_lab.course.catalogue import LESSONS, course_table, find_lesson, ready_lessons
from mlsec_lab.display.figures import tagged_png
from mlsec_lab.exercises import exercises_of
from mlsec_lab.home import COURSE, write_whole

STUDENT, SOLVED = COURSE / "notebooks", COURSE / "solutions"
STUB = 'raise NotImplementedError("write your answer here, then delete this line")'
CELL_SECONDS = 120
MEANINGFUL = 24  # characters: a shorter solution line, such as `for _ in range(steps):`, gives nothing away
README_MARKS = ("<!-- course map: made by mlsec-lab build -->", "<!-- end of the course map -->")


class BuildError(ValueError):
    """A lesson that cannot be built as it stands: the sentence says where and what to do."""


def build(lesson, *, execute=True):
    """Write notebooks/NN_topic.ipynb and solutions/NN_topic.ipynb of one Lesson.  execute=False leaves the second one alone.

    Raises BuildError where a cell fails, warns, or gives a solution away.
    """
    solved = solved_notebook(lesson)
    student = student_notebook(solved)
    problems = leaks(lesson, student)
    if problems:
        raise BuildError("; ".join(problems))
    write_whole(STUDENT / f"{lesson.name}.ipynb", _text(student).encode())
    if execute:
        done = executed(lesson, solved)
        write_whole(SOLVED / f"{lesson.name}.ipynb", _text(done).encode())
        for cell in done.cells:
            if "picture" in cell.metadata:
                shown = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
                if not shown:
                    raise BuildError(f"{lesson.name}, cell {cell.id} is to give docs/{cell.metadata['picture']}.png, and shows no figure")
                write_whole(COURSE / "docs" / f"{cell.metadata['picture']}.png", base64.b64decode(shown[0]))


def check(lesson):
    """The problems of one lesson's committed notebooks: a list of sentences, empty where all is well."""
    solved = solved_notebook(lesson)
    student = student_notebook(solved)
    again = f"run `mlsec-lab build {lesson.topic}`"
    problems = leaks(lesson, student)
    path = STUDENT / f"{lesson.name}.ipynb"
    if not path.is_file() or path.read_text() != _text(student):
        problems.append(f"{path.relative_to(COURSE)} is stale: {again}")
    path = SOLVED / f"{lesson.name}.ipynb"
    committed = nbformat.read(path, as_version=4).cells if path.is_file() else []
    if [_bare(cell) for cell in committed] != [_bare(cell) for cell in solved.cells]:
        problems.append(f"{path.relative_to(COURSE)} is stale: {again}")
    elif any("claim" in cell.metadata and not cell.outputs for cell in committed):
        problems.append(f"{path.relative_to(COURSE)} has claims without outputs: {again}")
    return problems


def solved_notebook(lesson):
    """The lesson with its solutions, not yet executed."""
    path = SOLVED / f"{lesson.name}.py"
    if not path.is_file():
        raise BuildError(f"there is no {path.relative_to(COURSE)}: lesson {lesson.number} is planned, not written")
    exercises = exercises_of(lesson.topic)
    cells, placed = [], []
    for cell in jupytext.reads(path.read_text(), fmt="py:percent").cells:
        if cell.cell_type == "markdown":
            cells.append(nbformat.v4.new_markdown_cell(_filled(cell.source, lesson, exercises)))
        elif "exercise" in cell.metadata:
            id = cell.metadata["exercise"]
            if id not in exercises:
                raise BuildError(f"{path.name} names the exercise {id!r}; mlsec_lab/exercises/{lesson.topic}.py has {', '.join(exercises)}")
            placed.append(id)
            cells += _exercise_cells(exercises[id])
        else:
            new = nbformat.v4.new_code_cell(cell.source)
            if "claim" in cell.metadata:
                new.metadata.update(claim=cell.metadata["claim"], tags=["nbval-check-output"])
            new.metadata.update({key: cell.metadata[key] for key in ("machine", "picture") if key in cell.metadata})
            cells.append(new)
    if placed != list(exercises):
        raise BuildError(f"{path.name} places the exercises {placed}, its exercise file declares {list(exercises)}: each once, in that order")
    for number, cell in enumerate(cells):
        name = cell.metadata.get("nbgrader", {}).get("grade_id") or (f"claim-{cell.metadata['claim']}" if "claim" in cell.metadata else f"{number:02d}")
        cell.id = f"{lesson.topic}-{name}"[:64]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.update(kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"}, language_info={"name": "python"})
    return notebook


def student_notebook(solved):
    """What a learner opens: nbgrader's own preprocessors clear solutions, outputs and hidden tests, and lock what is not to be edited."""
    from nbgrader import preprocessors as nbgrader
    notebook = nbformat.from_dict(json.loads(json.dumps(solved)))
    resources = {}
    steps = ["LockCells", "ClearSolutions", "ClearOutput", "CheckCellMetadata", "ComputeChecksums", "ClearHiddenTests", "ClearMarkScheme",
             "ComputeChecksums", "CheckCellMetadata"]
    for name in steps:
        step = getattr(nbgrader, name)()
        if name == "ClearSolutions":
            step.code_stub = {"python": STUB}
        notebook, resources = step.preprocess(notebook, resources)
    return notebook


def executed(lesson, solved):
    """The solved notebook with its outputs, without what a reader cannot use: widget states, execution times, versions.

    Raises BuildError where a cell raises, runs too long or writes to stderr: a lesson prints no warnings.
    """
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor
    notebook = nbformat.from_dict(json.loads(json.dumps(solved)))
    with tempfile.TemporaryDirectory() as home:
        client = NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False,
                                resources={"metadata": {"path": str(SOLVED)}})
        try:
            client.execute(env={**os.environ, "MLSEC_HOME": home, "MPLBACKEND": "module://matplotlib_inline.backend_inline"})
        except Exception as error:
            raise BuildError(f"{lesson.name}: a cell failed:\n{error}") from error
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            said = "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stderr")
            if said:
                raise BuildError(f"{lesson.name}, cell {cell.id} writes to stderr:\n{said}")
            for output in cell.outputs:
                _keep_as_png(output)
            cell.outputs = [] if "machine" in cell.metadata else [o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})]
    return CoalesceStreamsPreprocessor().preprocess(notebook, {})[0]  # how a kernel cuts up what is printed is chance, and would differ from build to build


def leaks(lesson, student):
    """Sentences for each line of a reference solution that stands in the student notebook."""
    hidden = {}
    for exercise in exercises_of(lesson.topic).values():
        for line in solution_lines(exercise.reference):
            if len(line) >= MEANINGFUL:
                hidden[line] = exercise.id
    return [f"notebooks/{lesson.name}.ipynb, cell {cell.id} gives away a line of {id}: {line}"
            for cell in student.cells for line, id in hidden.items() if line in cell.source]


def solution_lines(reference):
    """The lines between the markers of a reference's source, stripped."""
    inside = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", inspect.getsource(reference), re.S)
    return [line.strip() for part in inside for line in part.splitlines() if line.strip()]


def readme_with_map(text):
    """The README with its course map made anew from the catalogue.  BuildError where its two marks are missing."""
    begin, end = README_MARKS
    if begin not in text or end not in text:
        raise BuildError(f"README.md has lost the marks {begin} and {end}: put them back around the course map")
    return text[:text.index(begin)] + f"{begin}\n{course_table()}\n" + text[text.index(end):]


def main(names=(), *, check_only=False):
    """`mlsec-lab build [--check] [LESSON …]`: returns the exit status."""
    lessons = [find_lesson(name) for name in names] or ready_lessons()
    problems = []
    readme = COURSE / "README.md"
    made = readme_with_map(readme.read_text())
    if made != readme.read_text():
        if check_only:
            problems.append("README.md's course map is stale: run `mlsec-lab build`")
        else:
            write_whole(readme, made.encode())
    if check_only:
        known = {lesson.name for lesson in LESSONS if lesson.ready}
        problems += [f"{path.relative_to(COURSE)} belongs to no ready lesson of the catalogue: delete it or add the lesson"
                     for folder in (STUDENT, SOLVED) for path in sorted(folder.glob("*.ipynb")) if path.stem not in known]
    for lesson in lessons:
        print(f"{'checking' if check_only else 'building'} {lesson.name} …", flush=True)
        try:
            problems += check(lesson) if check_only else build(lesson) or []
        except BuildError as error:
            problems.append(str(error))
    for problem in problems:
        print(f"  {problem}")
    print("nothing is stale and nothing leaks" if check_only and not problems else f"{len(problems)} problem{'s' * (len(problems) != 1)}" if problems else "built")
    return 1 if problems else 0


def _exercise_cells(exercise):
    """The cell with the solution between its markers, and the cell that checks it."""
    grader = dict(schema_version=3, task=False)
    answer = nbformat.v4.new_code_cell(inspect.getsource(exercise.reference).rstrip())
    answer.metadata["nbgrader"] = dict(grade=False, grade_id=exercise.name, locked=False, solution=True, **grader)
    call = f'{exercise.name} = exercise("{exercise.id}").check({exercise.name})'
    if len(call) > 88:  # what would be cut off on a laptop's screen
        call = call.replace(f"({exercise.name})", f"(\n    {exercise.name}\n)")
    check = nbformat.v4.new_code_cell(
        f'{call}\n'
        f'### BEGIN HIDDEN TESTS\nassert exercise("{exercise.id}").outcome == "passed"\n### END HIDDEN TESTS')
    check.metadata["nbgrader"] = dict(grade=True, grade_id=f"{exercise.name}_check", locked=True, points=exercise.difficulty, solution=False, **grader)
    return [answer, check]


def _filled(text, lesson, exercises):
    """Markdown with its {{…}} filled in."""
    def fill(match):
        word, _, name = match[1].partition(" ")
        if word == "facts":
            return lesson.facts
        if word == "exercise" and name in exercises:
            found = exercises[name]
            return (f"### Exercise {list(exercises).index(name) + 1} · `{found.name}` "
                    f"(difficulty {found.difficulty}/5, about {found.minutes} minutes)")
        raise BuildError(f"solutions/{lesson.name}.py: {match[0]} is neither {{{{facts}}}} nor an exercise of this lesson")
    return re.sub(r"\{\{(.+?)\}\}", fill, text)


def _bare(cell):
    """What of a cell must agree between a committed notebook and a freshly built one."""
    return cell.cell_type, cell.id, cell.source, json.dumps(cell.metadata, sort_keys=True)


def _keep_as_png(output):
    """A figure that was shown as an <img> is kept as image/png with its alternative text: web viewers and exports show and read that."""
    shown = tagged_png(output.get("data", {}).get("text/html", ""))
    if shown:
        del output.data["text/html"]
        output.data["image/png"] = shown
        output.metadata = {"image/png": {"alt": output.data["text/plain"]}}


def _text(notebook):
    return nbformat.writes(notebook, indent=1) + "\n"
