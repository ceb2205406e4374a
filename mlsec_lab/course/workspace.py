"""A learner's own copies of the lessons: `my_work/notebooks`. What they wrote is never overwritten."""
import hashlib
import json

from mlsec_lab.course.catalogue import find_lesson
from mlsec_lab.home import COURSE, work_folder, write_whole

COURSE_NOTEBOOKS = COURSE / "notebooks"


def open_lessons():
    """Bring the learner's copies up to date; returns sentences about what they should know.

    A lesson without a copy gets one. A copy that is as it was handed out follows the course. A copy that the learner has worked
    in stays; if the course's lesson has changed since, the new version is put beside it under a name of its own.
    """
    handed_out = _read_record()
    said = []
    for source in sorted(COURSE_NOTEBOOKS.glob("*.ipynb")):
        new = source.read_bytes()
        copy = _folder() / source.name
        given = handed_out.get(source.name)
        there = _hash(copy.read_bytes()) if copy.exists() else None
        if there in (None, given):
            if there != _hash(new):
                write_whole(copy, new)
        elif _hash(new) not in (there, given):
            beside = _free(copy.with_name(f"{copy.stem}_new.ipynb"), new)
            if beside is not None:
                write_whole(beside, new)
                said.append(f"{source.stem} has changed in the course: your work stays in {copy.name}, the new version is {beside.name}")
        handed_out[source.name] = _hash(new)
    write_whole(_folder() / ".handed_out.json", json.dumps(handed_out, indent=1).encode())
    return said


def reset(name):
    """Give the learner a fresh copy of one lesson; what was there is kept under another name.  Returns a sentence.

    Raises ValueError for an unknown lesson, FileNotFoundError for one that is only planned.
    """
    lesson = find_lesson(name)
    source, copy = COURSE_NOTEBOOKS / f"{lesson.name}.ipynb", _folder() / f"{lesson.name}.ipynb"
    if not source.is_file():
        raise FileNotFoundError(f"lesson {lesson.number} is planned, not written yet: `mlsec-lab list` shows the ready ones")
    kept = ""
    if copy.exists() and copy.read_bytes() != source.read_bytes():
        beside = _free(copy.with_name(f"{copy.stem}_mine.ipynb"), copy.read_bytes())
        if beside is not None:
            write_whole(beside, copy.read_bytes())
            kept = f"; what you had is kept in {beside.name}"
    write_whole(copy, source.read_bytes())
    write_whole(_folder() / ".handed_out.json", json.dumps({**_read_record(), source.name: _hash(source.read_bytes())}, indent=1).encode())
    return f"{copy} is fresh{kept}"


def _folder():
    return work_folder() / "notebooks"


def _read_record():
    """{file name: SHA-256 of the version that was handed out}; empty where it is missing or damaged, which only makes us more careful."""
    try:
        record = json.loads((_folder() / ".handed_out.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _free(path, content):
    """`path`, or path with a number, that no file has yet; None where one of them holds this very content already."""
    number, candidate = 1, path
    while candidate.exists():
        if candidate.read_bytes() == content:
            return None
        number += 1
        candidate = path.with_name(f"{path.stem}{number}{path.suffix}")
    return candidate


def _hash(content):
    return hashlib.sha256(content).hexdigest()
