"""The map: every lesson on its arrow, links that lead somewhere, words for those who cannot look."""
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict

import pytest

from mlsec_lab.course.catalogue import LESSONS
from mlsec_lab.display import loop_map
from mlsec_lab.display.loop_map import ARROWS, COLOURS, NAMES
from mlsec_lab.home import COURSE

ROWS = [asdict(lesson) for lesson in LESSONS]


def row(number, direction, *, title="A title", ready=True):
    return dict(number=number, topic="topic", title=title, direction=direction, ready=ready)


@pytest.mark.parametrize("lit", [None, *NAMES])
def test_the_map_is_a_sound_picture_with_every_lesson_in_it(lit):
    picture = ElementTree.fromstring(loop_map(ROWS, lit).svg)
    texts = " ".join("".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text"))
    assert all(f"{lesson.number} {lesson.title}" in texts for lesson in LESSONS) and all(name in texts for name in NAMES.values())
    assert texts.count("(planned)") == sum(not lesson.ready for lesson in LESSONS)
    width, height = map(float, picture.get("viewBox").split()[2:])
    for text in picture.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(text.get("x")) < width and 0 < float(text.get("y")) <= height


def test_links_lead_to_the_notebooks_of_the_ready_lessons_and_only_to_them():
    shown = loop_map(ROWS)
    ready = [f"{lesson.name}.ipynb" for lesson in LESSONS if lesson.ready]
    for page in (shown.svg, shown._repr_html_()):
        assert sorted(re.findall(r"href='([^']+)'", page)) == sorted(ready)
    assert all((COURSE / "notebooks" / name).is_file() for name in ready)


def test_the_map_in_words_names_every_lesson_under_its_direction():
    text = str(loop_map(ROWS))
    parts = dict(part.split(": ", 1) for part in text.split("; "))
    for lesson in LESSONS:
        assert f"{lesson.number} {lesson.title}" in parts[NAMES[lesson.direction]]
    assert ElementTree.fromstring(loop_map(ROWS).svg).get("aria-label") == text


def test_one_direction_is_lit_and_the_others_go_grey():
    svg = loop_map([row("01", "D→M"), row("08", "M→D")], "D→M").svg
    assert COLOURS["D→M"] in svg and COLOURS["M→D"] not in svg and "#a9b0b7" in svg
    assert all(colour in loop_map(ROWS).svg for colour in COLOURS.values())
    assert set(COLOURS) == set(NAMES) == set(ARROWS)


def test_titles_are_escaped():
    shown = loop_map([row("01", "D→M", title="<b>'&'")])
    for page in (shown.svg, shown._repr_html_()):
        assert "<b>" not in page and "&lt;b&gt;" in page
    ElementTree.fromstring(shown.svg)


@pytest.mark.parametrize("lit", ["D->M", "", "evasion", 3])
def test_a_direction_that_does_not_exist_is_refused(lit):
    with pytest.raises(ValueError, match="lit must be one of D→M, M→D, M→M, D→D, loop, not"):
        loop_map(ROWS, lit)
