"""How fast a lesson is in the browser: `python benchmarks/browser.py`, with the Python of the course's .venv.

    python benchmarks/browser.py                            both lessons
    python benchmarks/browser.py 00_start_here              one of them
    python benchmarks/browser.py --screenshots pictures     and what they look like after Run All

It needs Chromium (CHROMIUM may name it) and playwright, which `python3 lab.py test` installs.
"""
import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "browser"))
from lab_session import Lesson, open_browser, running_lab, summary, what_is_missing  # noqa: E402

ROWS = ("server ready", "JupyterLab open", "first picture", "Run All", "slider, median", "slider, 90 %", "slider, slowest", "page errors",
        "requests elsewhere", "cells with errors", "load of the machine")


def measure(name, screenshots=None):
    """One lesson from `python3 lab.py` to the twentieth move of its slider: {row: text}."""
    with tempfile.TemporaryDirectory(prefix="mlsec-browser-") as folder, running_lab(Path(folder) / "my_work") as lab, open_browser() as browser:
        lesson = Lesson(browser, lab, name).run_all()
        errors = [cell["id"] for cell in lesson.cells() for output in cell["outputs"] if output["output_type"] == "error"]
        if screenshots:
            lesson.screenshots(screenshots)
        moves = lesson.move_slider(times=20)
        values = [f"{lab.ready:.1f} s", f"{lesson.lab_open:.1f} s", f"{lesson.first_picture:.1f} s", f"{lesson.all_cells:.1f} s"]
        values += [f"{value:.0f} ms" for value in summary(moves)] if None not in moves else ["no picture"] * 3
        values += [len(lesson.errors) + len(lesson.output_errors()), len(lesson.strangers), len(errors), f"{os.getloadavg()[0]:.1f}"]
        return dict(zip(ROWS, map(str, values)))


def main():
    parser = argparse.ArgumentParser(description="How fast a lesson is in the browser.")
    parser.add_argument("lessons", nargs="*", default=["00_start_here", "01_evasion"], help="names of notebooks, without .ipynb")
    parser.add_argument("--screenshots", metavar="FOLDER", help="save there what each lesson looks like after Run All")
    arguments = parser.parse_args()
    missing = what_is_missing()
    if missing:
        sys.exit(f"Nothing can be measured here: {missing}.")
    measured = {name: measure(name, arguments.screenshots) for name in arguments.lessons}
    wide = max(map(len, measured)) + 2
    print(f"{'':22}" + "".join(f"{name:>{wide}}" for name in measured))
    for row in ROWS:
        print(f"{row:22}" + "".join(f"{values[row]:>{wide}}" for values in measured.values()))


if __name__ == "__main__":
    main()
