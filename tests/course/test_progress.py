"""What a learner has passed: kept, never in the way."""
import json
import threading

from mlsec_lab.course import progress
from mlsec_lab.home import work_folder


def test_a_pass_stays_a_pass_and_checks_are_counted():
    for outcome in ("not yet", "passed", "not yet", "not attempted"):
        progress.record("evasion.fgsm", outcome)
    progress.record("evasion.pgd", "not yet")
    assert progress.passed() == {"evasion.fgsm"}
    entry = json.loads((work_folder() / "progress" / "evasion.fgsm.json").read_text())
    assert entry["checks"] == 4 and entry["outcome"] == "passed" and entry["passed"].count("-") == 2


def test_nothing_is_passed_in_an_empty_folder():
    assert progress.passed() == set()
    assert not work_folder().exists()


def test_damaged_files_are_ignored_and_written_anew():
    folder = work_folder() / "progress"
    folder.mkdir(parents=True)
    for number, content in enumerate([b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"exercise": ["a"], "passed": "2026-01-01", "checks": 1}',
                                      b'{"exercise": "a.b", "passed": "2026-01-01", "checks": "many"}']):
        (folder / f"evasion.damaged{number}.json").write_bytes(content)
        assert progress.passed() == set()
    for number in range(7):
        progress.record(f"evasion.damaged{number}", "passed")
    assert progress.passed() == {f"evasion.damaged{number}" for number in range(7)}


def test_a_folder_that_cannot_be_written_stops_no_lesson(monkeypatch):
    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    progress.record("evasion.fgsm", "passed")
    monkeypatch.setattr(progress, "write_whole", refuse)
    progress.record("evasion.pgd", "passed")
    assert progress.passed() == {"evasion.fgsm"}


def test_a_file_where_the_folder_should_be_stops_no_lesson(tmp_path, monkeypatch):
    (tmp_path / "a_file").write_text("in the way")
    monkeypatch.setenv("MLSEC_HOME", str(tmp_path / "a_file"))
    progress.record("evasion.fgsm", "passed")
    assert progress.passed() == set() and (tmp_path / "a_file").read_text() == "in the way"


def test_two_writers_leave_whole_files_and_lose_no_pass():
    def write(first):
        for number in range(first, first + 30):
            progress.record("evasion.shared", "passed" if number % 3 else "not yet")
            progress.record(f"evasion.own{number}", "passed")

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(progress.passed()) == 61 and "evasion.shared" in progress.passed()
    folder = work_folder() / "progress"
    assert all(json.loads(path.read_text())["exercise"] == path.stem for path in folder.glob("*.json"))
    assert list(folder.glob(".*.part")) == []
