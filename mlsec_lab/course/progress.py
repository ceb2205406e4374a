"""What a learner has passed so far: one small file an exercise in their work folder, so that two kernels never collide."""
import datetime
import json

from mlsec_lab.home import work_folder, write_whole


def record(exercise, outcome):
    """Remember a check's outcome for an exercise id. A pass stays a pass; a folder that cannot be written is no reason to stop."""
    known = _read(_path(exercise))
    passed = known.get("passed") or (_today() if outcome == "passed" else None)
    entry = {"exercise": exercise, "outcome": "passed" if passed else outcome, "passed": passed, "checks": known.get("checks", 0) + 1}
    try:
        write_whole(_path(exercise), json.dumps(entry).encode())
    except OSError:
        pass


def passed():
    """The ids of the exercises that this learner has passed: a set."""
    folder = work_folder() / "progress"
    return {entry["exercise"] for entry in map(_read, folder.glob("*.json")) if entry.get("passed")}


def _path(exercise):
    return work_folder() / "progress" / f"{exercise}.json"


def _read(path):
    """An entry, {} where there is none or where it cannot be read: progress is a comfort, never an obstacle."""
    try:
        entry = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    sound = isinstance(entry, dict) and isinstance(entry.get("exercise"), str) and isinstance(entry.get("checks"), int)
    return entry if sound else {}


def _today():
    return datetime.date.today().isoformat()
