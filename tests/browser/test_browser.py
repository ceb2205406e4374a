"""The course in a real browser: JupyterLab as `python3 lab.py` opens it, the untouched lessons, the explorers, the map.

One server, one browser and one Run All a lesson serve all tests here. Times are strict where MLSEC_BENCHMARK=1, and generous
elsewhere, because a machine that runs tests has other things to do.
"""
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from lab_session import Lesson, open_browser, processes_with, running_lab, summary, what_is_missing  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LESSONS = ("00_start_here", "01_evasion")
STRICT = os.environ.get("MLSEC_BENCHMARK") == "1"
FIRST_PICTURE = 10 if STRICT else 30  # seconds after Run All
SLIDER = 200 if STRICT else 600  # milliseconds, the median of twenty moves
RIGHT_ANSWER = """def linf_distance(x, x_adv):
    size = torch.abs(x_adv - x)
    return size.reshape(len(x), -1).max(dim=1).values"""


@pytest.fixture(scope="module", autouse=True)
def chromium_is_here():
    missing = what_is_missing()
    if missing and os.environ.get("MLSEC_BROWSER_REQUIRED") == "1":
        pytest.fail(f"MLSEC_BROWSER_REQUIRED is 1, and {missing}")
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="module")
def lab(chromium_is_here, tmp_path_factory):
    with running_lab(tmp_path_factory.mktemp("lab") / "my_work") as lab:
        yield lab


@pytest.fixture(scope="module")
def browser(lab):
    with open_browser() as browser:
        yield browser


class Visited:
    """A lesson after Run All, with what was to be seen then; tests may go on with the lesson."""

    def __init__(self, browser, lab, name):
        self.lesson = Lesson(browser, lab, name).run_all()
        self.cells, self.pictures = self.lesson.cells(), self.lesson.pictures()
        self.popups, self.output_errors = self.lesson.popups(), self.lesson.output_errors()

    def text(self, cell):
        return "".join(str(output) for output in cell["outputs"])


@pytest.fixture(scope="module")
def visited(browser, lab):
    """visited("00_start_here") -> Visited, the same one for all tests."""
    known = {}

    def visit(name):
        if name not in known:
            known[name] = Visited(browser, lab, name)
        return known[name]
    return visit


@pytest.fixture(scope="module")
def solved(visited):
    """Lesson 00 after its first exercise was solved by typing, checked and saved. The tests that use it stand last in this file."""
    lesson = visited("00_start_here").lesson
    lesson.show()
    lesson.write("start_here-linf_distance", RIGHT_ANSWER)
    lesson.run("start_here-linf_distance_check")
    lesson.verdict = str(lesson.code("start_here-linf_distance_check")["outputs"])
    lesson.command("docmanager:save")
    return lesson


# --------------------------------------------------------------------------------------------------- lessons, untouched

@pytest.mark.parametrize("name", LESSONS)
def test_the_untouched_lesson_runs_to_its_end_without_a_traceback(visited, name):
    cells = visited(name).cells
    assert [cell["id"] for cell in cells if not cell["execution_count"]] == []
    assert [cell["id"] for cell in cells for output in cell["outputs"] if output["output_type"] == "error"] == []
    assert [cell["id"] for cell in cells for output in cell["outputs"] if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("name", LESSONS)
def test_unsolved_exercises_say_not_attempted(visited, name):
    checks = {cell["id"]: visited(name).text(cell) for cell in visited(name).cells if cell["id"].endswith("_check")}
    assert checks
    assert [id for id, text in checks.items() if "not attempted" not in text] == []


@pytest.mark.parametrize("name", LESSONS)
def test_every_claim_is_true(visited, name):
    claims = {cell["id"]: visited(name).text(cell) for cell in visited(name).cells if "-claim-" in cell["id"]}
    assert claims
    assert [id for id, text in claims.items() if "True" not in text or "False" in text] == []


@pytest.mark.parametrize("name", LESSONS)
def test_the_page_has_no_errors_and_nothing_pops_up_over_it(visited, name):
    assert visited(name).lesson.errors == []
    assert visited(name).output_errors == []
    assert visited(name).popups == []


@pytest.mark.parametrize("name", LESSONS)
def test_every_picture_has_an_alternative_text(visited, name):
    assert visited(name).pictures
    assert [place for place, text in enumerate(visited(name).pictures, 1) if not text.strip() or text == "Image"] == []


def test_the_first_picture_of_the_first_lesson_comes_soon_after_run_all(visited):
    assert visited("00_start_here").lesson.first_picture <= FIRST_PICTURE


# ----------------------------------------------------------------------------------------------------------- explorers

@pytest.mark.parametrize("name", LESSONS)
def test_moving_the_slider_by_keyboard_changes_the_picture_and_its_caption(visited, name):
    lesson = visited(name).lesson
    lesson.type_number(4)
    before = lesson.shown()
    lesson.focus_slider()
    assert lesson.press(*["ArrowRight"] * 4) is not None
    lesson.settle()
    after = lesson.shown()
    assert after.picture != before.picture and after.caption != before.caption and after.number == "8"


@pytest.mark.parametrize("name", LESSONS)
def test_typing_into_the_number_box_changes_the_picture_and_its_caption(visited, name):
    lesson = visited(name).lesson
    lesson.type_number(0)
    before = lesson.shown()
    lesson.focus_slider()
    lesson.page.keyboard.press("Tab")  # the box is what the keyboard comes to next
    lesson.page.keyboard.press("Control+A")
    assert lesson.press("1", "6", "Enter") is not None
    lesson.settle()
    after = lesson.shown()
    assert after.picture != before.picture and after.caption != before.caption and after.number == "16"


@pytest.mark.parametrize("name", LESSONS)
def test_the_slider_answers_at_once(visited, name):
    lesson = visited(name).lesson
    lesson.type_number(4)
    milliseconds = lesson.move_slider(times=20)
    assert None not in milliseconds
    assert summary(milliseconds)[0] <= SLIDER, [round(value) for value in milliseconds]


# ------------------------------------------------------------------------------------------------------------- the map

def test_clicking_a_lesson_on_the_map_opens_it_beside_the_one_that_is_open(visited):
    lesson, tabs = visited("00_start_here").lesson, len(visited("00_start_here").lesson.page.context.pages)
    lesson.page.get_by_role("link", name="01 Evasion", exact=True).first.click()
    lesson.page.wait_for_function("() => window.jupyterapp.shell.currentWidget?.context?.path === 'notebooks/01_evasion.ipynb'", timeout=20_000)
    lesson.wait_for_kernel()
    assert len(lesson.page.context.pages) == tabs  # in JupyterLab, not in another tab of the browser
    lesson.show()
    assert lesson.path() == "notebooks/00_start_here.ipynb"
    assert lesson.cells()[0]["execution_count"]  # no page was loaded anew: the work is where it was


# ---------------------------------------------------------------------------------------------------- the learner's work

def test_a_right_answer_typed_into_its_cell_passes(solved):
    assert "passed" in solved.verdict and "not attempted" not in solved.verdict


def test_saved_work_is_there_after_the_page_is_loaded_anew(solved):
    solved.page.reload()
    solved.wait_for_kernel()
    solved.show()
    assert solved.code("start_here-linf_distance")["source"] == RIGHT_ANSWER
    assert solved.code("start_here-linf_distance_check")["outputs"]


def test_a_second_start_keeps_the_edited_lesson_and_its_end_leaves_no_process_behind(solved, lab, browser, tmp_path):
    home = tmp_path / "my_work"
    shutil.copytree(lab.home, home)
    with running_lab(home) as second:
        lesson = Lesson(browser, second, "00_start_here")
        assert lesson.code("start_here-linf_distance")["source"] == RIGHT_ANSWER
        assert [path.name for path in (home / "notebooks").glob("00*")] == ["00_start_here.ipynb"]
        assert not Path("/proc/self/environ").exists() or len(processes_with(home)) >= 3  # lab.py, JupyterLab, a kernel
        lesson.page.close()
    assert second.process.returncode == 0
    assert processes_with(home) == []


# ------------------------------------------------------------------------------------------------------- what it leaves

def test_no_request_leaves_this_computer(visited):
    assert [url for name in LESSONS for url in visited(name).lesson.strangers] == []
