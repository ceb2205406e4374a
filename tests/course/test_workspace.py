"""The learner's copies: up to date where untouched, never overwritten where not."""
import json

import pytest

from mlsec_lab.course import workspace
from mlsec_lab.course.workspace import open_lessons, reset
from mlsec_lab.home import work_folder

NAME = "00_start_here.ipynb"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of two lessons, which a test may change."""
    folder = tmp_path / "course" / "notebooks"
    folder.mkdir(parents=True)
    (folder / NAME).write_text("version 1")
    (folder / "01_evasion.ipynb").write_text("evasion 1")
    monkeypatch.setattr(workspace, "COURSE_NOTEBOOKS", folder)
    return folder


def mine():
    return {path.name: path.read_text() for path in sorted((work_folder() / "notebooks").glob("*.ipynb"))}


def test_the_first_time_every_lesson_is_copied(course):
    assert open_lessons() == []
    assert mine() == {NAME: "version 1", "01_evasion.ipynb": "evasion 1"}


def test_an_untouched_copy_follows_the_course(course):
    open_lessons()
    (course / NAME).write_text("version 2")
    assert open_lessons() == []
    assert mine()[NAME] == "version 2" and len(mine()) == 2


def test_changed_work_is_never_overwritten_and_the_new_version_is_put_beside_it_once(course):
    open_lessons()
    (work_folder() / "notebooks" / NAME).write_text("my answers")
    assert open_lessons() == [] and mine()[NAME] == "my answers"
    (course / NAME).write_text("version 2")
    said = open_lessons()
    assert len(said) == 1 and "00_start_here has changed" in said[0] and "00_start_here_new.ipynb" in said[0]
    assert open_lessons() == []
    assert mine() == {NAME: "my answers", "00_start_here_new.ipynb": "version 2", "01_evasion.ipynb": "evasion 1"}
    (work_folder() / "notebooks" / "00_start_here_new.ipynb").write_text("more answers")
    (course / NAME).write_text("version 3")
    assert "00_start_here_new2.ipynb" in open_lessons()[0]
    assert mine()[NAME] == "my answers" and mine()["00_start_here_new.ipynb"] == "more answers" and mine()["00_start_here_new2.ipynb"] == "version 3"


def test_a_deleted_copy_comes_back(course):
    open_lessons()
    (work_folder() / "notebooks" / NAME).unlink()
    assert open_lessons() == [] and mine()[NAME] == "version 1"


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"\xff", b'{"00_start_here.ipynb": 3}'], ids=["empty", "half", "a list", "no text", "nonsense"])
def test_a_damaged_record_makes_it_more_careful_and_says_nothing_untrue(record, course):
    open_lessons()
    (work_folder() / "notebooks" / ".handed_out.json").write_bytes(record)
    assert open_lessons() == [] and len(mine()) == 2  # the copies are the course's own: nothing changed
    (work_folder() / "notebooks" / NAME).write_text("my answers")
    (work_folder() / "notebooks" / ".handed_out.json").write_bytes(record)
    open_lessons()
    assert mine()[NAME] == "my answers" and mine()["00_start_here_new.ipynb"] == "version 1"


def test_reset_hands_out_a_fresh_copy_and_keeps_the_old_one(course):
    open_lessons()
    for number, work in ((1, "my answers"), (2, "other answers")):
        (work_folder() / "notebooks" / NAME).write_text(work)
        kept = "00_start_here_mine.ipynb" if number == 1 else "00_start_here_mine2.ipynb"
        sentence = reset("00")
        assert kept in sentence and "\n" not in sentence
        assert mine()[NAME] == "version 1" and mine()[kept] == work
    assert "kept" not in reset("start_here")
    (course / NAME).write_text("version 2")
    assert open_lessons() == [] and mine()[NAME] == "version 2"  # after a reset the copy is untouched again


def test_reset_works_before_the_lessons_were_ever_opened(course):
    assert "kept" not in reset("00_start_here")
    assert mine() == {NAME: "version 1"}


def test_reset_of_an_unknown_or_a_planned_lesson_is_one_sentence(course):
    with pytest.raises(ValueError, match="there is no lesson 'nothing'"):
        reset("nothing")
    with pytest.raises(FileNotFoundError, match="lesson 02 is planned"):
        reset("02")
    assert not work_folder().exists()


@pytest.mark.parametrize("survived", range(3))
def test_killed_half_way_it_leaves_whole_files_and_finishes_the_next_time(survived, course, monkeypatch):
    open_lessons()
    (work_folder() / "notebooks" / "01_evasion.ipynb").write_text("my evasion")
    (course / NAME).write_text("version 2")
    (course / "01_evasion.ipynb").write_text("evasion 2")
    write, done = workspace.write_whole, []

    def killed(path, content):
        if len(done) == survived:
            raise KeyboardInterrupt
        done.append(path)
        write(path, content)

    monkeypatch.setattr(workspace, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        open_lessons()
    assert mine()[NAME] in ("version 1", "version 2") and mine()["01_evasion.ipynb"] == "my evasion"
    monkeypatch.setattr(workspace, "write_whole", write)
    open_lessons()
    assert mine() == {NAME: "version 2", "01_evasion.ipynb": "my evasion", "01_evasion_new.ipynb": "evasion 2"}
    assert set(json.loads((work_folder() / "notebooks" / ".handed_out.json").read_text())) == {NAME, "01_evasion.ipynb"}


def test_a_write_that_is_killed_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    from mlsec_lab import home
    home.write_whole(tmp_path / "deep" / "file", b"old")

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(home.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        home.write_whole(tmp_path / "deep" / "file", b"new")
    assert (tmp_path / "deep" / "file").read_bytes() == b"old"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]
