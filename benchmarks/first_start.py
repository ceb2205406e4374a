"""How long a newcomer waits: a fresh clone, `python3 lab.py`, lesson 00 run to its end; then the same without the installation.

    python benchmarks/first_start.py                    the HEAD of this repository
    python benchmarks/first_start.py /path/or/address   another one

The course is installed anew from the package index that pip is set up for, into a temporary folder that needs 2 GB.
It needs Chromium and playwright in the Python that runs it, such as the one in the course's .venv.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))
from lab_session import Lesson, open_browser, running_lab, what_is_missing  # noqa: E402

FIRST = "00_start_here"


def start(course, home):
    """`python3 lab.py` in the folder `course`, then lesson 00 to its end: {what: seconds}."""
    began = time.perf_counter()
    with running_lab(home, course=course, venv=None, seconds=1800, echo=True) as lab, open_browser() as browser:
        lesson = Lesson(browser, lab, FIRST)
        opened = time.perf_counter()
        lesson.run_all()
        run = time.perf_counter()
        errors = [cell["id"] for cell in lesson.cells() if not cell["execution_count"]
                  or any(output["output_type"] == "error" for output in cell["outputs"])]
    if errors:
        raise SystemExit(f"lesson {FIRST} did not run to its end: {', '.join(errors)}")
    return {"address printed": lab.ready, "lesson open": opened - began, "first picture": opened - began + (lesson.first_picture or 0),
            "lesson run": run - began}


def main():
    parser = argparse.ArgumentParser(description="How long a newcomer waits.")
    parser.add_argument("repository", nargs="?", default=str(ROOT), help="what to clone (this repository)")
    arguments = parser.parse_args()
    missing = what_is_missing()
    if missing:
        sys.exit(f"Nothing can be measured here: {missing}.")
    with tempfile.TemporaryDirectory(prefix="mlsec-first-") as folder:
        course, home = Path(folder) / "course", Path(folder) / "my_work"
        began = time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", "--no-local", arguments.repository, str(course)], check=True)
        cloned = time.perf_counter() - began
        first = {"cloned": cloned, **{what: cloned + seconds for what, seconds in start(course, home).items()}}
        second = start(course, home)
    print(f"\n{'seconds until':18}{'first start':>14}{'second start':>14}")
    for what, seconds in first.items():
        print(f"{what:18}{seconds:>14.1f}" + (f"{second[what]:>14.1f}" if what in second else ""))
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
