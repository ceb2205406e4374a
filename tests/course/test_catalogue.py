"""One table of lessons, and everything that has to agree with it."""
import re

import pytest

from mlsec_lab.course import catalogue
from mlsec_lab.course.catalogue import LESSONS, NAMES, Lesson, course_map, course_table, find_lesson, ready_lessons
from mlsec_lab.home import COURSE

READY = [lesson for lesson in LESSONS if lesson.ready]


def test_lessons_are_numbered_from_00_to_19_and_named_once():
    assert [lesson.number for lesson in LESSONS] == [f"{number:02d}" for number in range(20)]
    assert len({lesson.topic for lesson in LESSONS}) == len({lesson.title for lesson in LESSONS}) == 20
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+", lesson.name) for lesson in LESSONS)


def test_every_class_of_the_owasp_list_has_its_lessons():
    found = {}
    for lesson in LESSONS:
        for owasp in filter(None, lesson.owasp.split(", ")):
            found.setdefault(owasp, []).append(lesson.number)
        assert bool(lesson.owasp) == bool(lesson.severity)
    assert found == {"ML01": ["01"], "ML02": ["02", "03", "04"], "ML03": ["08"], "ML04": ["09"], "ML05": ["12"], "ML06": ["15"], "ML07": ["04", "13", "14"],
                     "ML08": ["07"], "ML09": ["11"], "ML10": ["16"]}


def test_directions_exist_and_what_a_lesson_needs_comes_before_it():
    assert {lesson.direction for lesson in LESSONS} == set(NAMES)
    for lesson in LESSONS:
        assert all(needed < lesson.number and find_lesson(needed) for needed in lesson.needs)
        assert 15 <= lesson.minutes <= 180 and lesson.about


@pytest.mark.parametrize("lesson", READY, ids=lambda lesson: lesson.name)
def test_a_ready_lesson_has_its_source_both_notebooks_exercises_and_tests(lesson):
    from mlsec_lab.exercises import exercises_of
    for path in (f"solutions/{lesson.name}.py", f"solutions/{lesson.name}.ipynb", f"notebooks/{lesson.name}.ipynb", f"tests/exercises/test_{lesson.topic}.py"):
        assert (COURSE / path).is_file(), path
    own = exercises_of(lesson.topic)
    assert 3 <= len(own) <= 6 and all(id == f"{lesson.topic}.{one.name}" for id, one in own.items())


def test_every_exercise_file_belongs_to_a_ready_lesson():
    from mlsec_lab.exercises import all_exercises
    assert {one.lesson for one in all_exercises().values()} == {lesson.topic for lesson in READY}
    assert ready_lessons() == READY and READY


def test_a_lesson_is_found_by_number_topic_and_name_and_nothing_else():
    assert {find_lesson(name).number for name in ("01", "evasion", "01_evasion")} == {"01"}
    for name in ("1", "Evasion", "", "20"):
        with pytest.raises(ValueError, match=f"there is no lesson '{name}'.*01_evasion"):
            find_lesson(name)


def test_a_lessons_facts_are_one_line():
    assert find_lesson("01").facts == "**Data → Model** · OWASP ML01, critical · about 120 minutes · needs lesson 00"
    assert find_lesson("00").facts == "**the loop** · about 30 minutes · needs nothing before it"
    assert "needs lesson 01 and 12" in find_lesson("19").facts


def test_the_table_links_ready_lessons_and_has_a_row_for_each():
    rows = course_table().splitlines()
    assert len(rows) == 22 and len({row.count("|") for row in rows}) == 1
    for lesson, row in zip(LESSONS, rows[2:]):
        assert lesson.title in row and ("(notebooks/" in row) == lesson.ready and ("ready" if lesson.ready else "planned") in row
    linked = re.findall(r"\]\((notebooks/[^)]+)\)", course_table())
    assert linked == [f"notebooks/{lesson.name}.ipynb" for lesson in READY]


def test_the_readme_shows_the_table_as_it_is_now():
    from mlsec_lab.course.build import readme_with_map
    text = (COURSE / "README.md").read_text()
    assert readme_with_map(text) == text
    assert course_table() in text


def test_the_map_has_every_lesson_of_the_catalogue(monkeypatch):
    shown = course_map("D→M")
    assert shown.lit == "D→M" and all(f"{lesson.number} {lesson.title}" in str(shown) for lesson in LESSONS)
    monkeypatch.setattr(catalogue, "LESSONS", (Lesson("00", "only", "Only one", "loop", ready=True),))
    assert re.findall(r"href='([^']+)'", course_map().svg) == ["00_only.ipynb"]
