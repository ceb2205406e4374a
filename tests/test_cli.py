"""The command line: what each command does, and its errors, one sentence each."""
import dataclasses
import subprocess
import sys

import pytest

from mlsec_lab import cli
from mlsec_lab.course import catalogue, progress, recipes, workspace
from mlsec_lab.course.catalogue import LESSONS
from mlsec_lab.home import work_folder


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course folder with one notebook."""
    folder = tmp_path / "course" / "notebooks"
    folder.mkdir(parents=True)
    (folder / "00_start_here.ipynb").write_text("version 1")
    monkeypatch.setattr(workspace, "COURSE_NOTEBOOKS", folder)
    return folder


def told(capsys, *arguments):
    """The one sentence on stderr of a command that fails."""
    assert cli.main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.err.startswith("mlsec-lab: ") and said.err.count("\n") == 1 and "Traceback" not in said.err
    return said.err


def test_a_planned_lesson_is_listed_as_such_and_cannot_be_reset(course, capsys, monkeypatch):
    monkeypatch.setattr(catalogue, "LESSONS", (LESSONS[0], dataclasses.replace(LESSONS[1], ready=False), *LESSONS[2:]))  # as if 01 were not written
    assert "lesson 01 is planned, not written yet" in told(capsys, "reset", "01")
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("exercises passed") and lines[1].endswith("planned")


def test_list_shows_every_lesson_with_what_was_passed_and_every_checkpoint(capsys):
    progress.record("start_here.linf_distance", "passed")
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:20]] == [lesson.name for lesson in LESSONS]
    assert lines[0].endswith("1 of 3 exercises passed") and lines[1].endswith("0 of 6 exercises passed")
    assert [line.endswith("planned") for line in lines[:20]] == [not lesson.ready for lesson in LESSONS]
    rows = {line.split()[0]: line for line in lines[21:]}
    assert set(recipes.RECIPES) <= set(rows)
    assert "shipped" in rows["signs_cnn"] and "accuracy 9" in rows["signs_cnn"] and "not trained, about 60 min" in rows["cifar10_resnet"]


def test_a_checkpoint_of_ones_own_is_listed_as_such(capsys, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny", recipes.Recipe("digits", "small_cnn", dict(channels=1, classes=10, size=8, width=2), 0.1, dict(epochs=1, shift=0)))
    assert cli.main(["train", "tiny", "--seed", "4"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("tiny: accuracy ") and said.rstrip().endswith(f"written to {work_folder() / 'checkpoints'}")
    assert (work_folder() / "checkpoints" / "tiny.safetensors").is_file()
    cli.main(["list"])
    row, = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tiny ")]
    assert "yours" in row and "accuracy" in row


def test_open_copies_quietly_and_says_what_a_learner_has_to_know(course, capsys):
    assert cli.main(["open"]) == 0 and capsys.readouterr().out == ""
    (work_folder() / "notebooks" / "00_start_here.ipynb").write_text("my work")
    (course / "00_start_here.ipynb").write_text("version 2")
    assert cli.main(["open"]) == 0
    assert "your work stays in 00_start_here.ipynb" in capsys.readouterr().out
    assert (work_folder() / "notebooks" / "00_start_here.ipynb").read_text() == "my work"


def test_reset_says_where_the_old_copy_is(course, capsys):
    cli.main(["open"])
    (work_folder() / "notebooks" / "00_start_here.ipynb").write_text("my work")
    assert cli.main(["reset", "start_here"]) == 0
    assert "is fresh; what you had is kept in 00_start_here_mine.ipynb" in capsys.readouterr().out


def test_doctor_reports_and_its_status_says_whether_all_is_well(capsys, monkeypatch):
    from mlsec_lab.course import doctor
    monkeypatch.setattr(doctor, "examine", lambda: [("torch", "2.13", True)])
    assert cli.main(["doctor"]) == 0 and capsys.readouterr().out == "ok  torch        2.13\n"
    monkeypatch.setattr(doctor, "examine", lambda: [("torch", "2.13", True), ("disk", "0 GB free", False)])
    assert cli.main(["doctor"]) == 1 and "NO  disk" in capsys.readouterr().out


def test_build_passes_on_what_it_was_asked_for(monkeypatch):
    from mlsec_lab.course import build
    asked = []
    monkeypatch.setattr(build, "main", lambda names, check_only: asked.append((names, check_only)) or 1)
    assert cli.main(["build", "--check", "01", "start_here"]) == 1
    assert cli.main(["build"]) == 1
    assert asked == [(["01", "start_here"], True), ([], False)]


def test_build_without_its_packages_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jupytext", None)
    monkeypatch.delitem(sys.modules, "mlsec_lab.course.build", raising=False)
    import mlsec_lab.course
    monkeypatch.delattr(mlsec_lab.course, "build", raising=False)
    assert 'jupytext, which learners do not: pip install -e ".[instructor]"' in told(capsys, "build")


def test_a_readme_that_lost_its_marks_is_a_sentence(capsys, monkeypatch, tmp_path):
    from mlsec_lab.course import build
    (tmp_path / "README.md").write_text("# a course")
    monkeypatch.setattr(build, "COURSE", tmp_path)
    assert "README.md has lost the marks" in told(capsys, "build")


@pytest.mark.parametrize("arguments, words", [
    (("reset", "nothing"), "there is no lesson 'nothing'"),
    (("build", "--check", "nothing"), "there is no lesson 'nothing'"),
    (("train", "nothing"), "name must be one of signs_cnn"),
    (("train", "digits_cnn", "--seed", "-1"), "seed must be at least 0"),
], ids=" ".join)
def test_an_error_is_one_sentence_and_status_two(arguments, words, course, capsys):
    assert words in told(capsys, *arguments)


def test_a_folder_that_cannot_be_written_is_one_sentence(course, capsys, tmp_path, monkeypatch):
    (tmp_path / "a_file").write_text("in the way")
    monkeypatch.setenv("MLSEC_HOME", str(tmp_path / "a_file"))
    assert "a_file" in told(capsys, "open")


def test_stopping_a_command_is_no_traceback(capsys, monkeypatch):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt
    monkeypatch.setattr(recipes, "train_checkpoint", stopped)
    assert cli.main(["train", "signs_cnn"]) == 130
    assert capsys.readouterr().err == "mlsec-lab: stopped; nothing half-written is left\n"


@pytest.mark.parametrize("arguments", [[], ["dance"], ["train"], ["train", "signs_cnn", "--seed", "one"]], ids=" ".join)
def test_a_wrong_command_line_is_refused_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("usage: mlsec-lab")


def test_python_m_mlsec_lab_is_the_same_command(tmp_path):
    ran = subprocess.run([sys.executable, "-m", "mlsec_lab", "list"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert ran.returncode == 0 and ran.stderr == "" and ran.stdout.startswith("00_start_here")
    ran = subprocess.run([sys.executable, "-m", "mlsec_lab", "reset", "nothing"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1 and "there is no lesson 'nothing'" in ran.stderr


@pytest.mark.parametrize("command", ["open", "reset nothing"])
def test_copying_lessons_needs_no_torch_and_so_no_wait(command):
    code = f"import sys; from mlsec_lab.cli import main; main({command.split()!r}); print([name for name in ('torch', 'numpy', 'jupytext', 'IPython') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "[]", ran.stderr
