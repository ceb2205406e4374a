"""Is this machine ready: a line a finding, and what is not well says what to do."""
import pytest

from mlsec_lab.course import doctor
from mlsec_lab.victims import checkpoints


@pytest.fixture(scope="module")
def rows():
    return doctor.examine()


def test_every_part_is_looked_at_and_a_working_machine_is_well(rows):
    assert [what for what, _, _ in rows] == ["course", "Python", "torch", "torchvision", "checkpoints", "real data", "speed", "disk", "your work"]
    assert all(well for what, _, well in rows if what not in ("speed", "disk")), rows
    assert "ten attack steps" in dict((what, finding) for what, finding, _ in rows)["speed"]


def test_the_report_is_a_line_a_finding(rows):
    lines = doctor.report([*rows, ("clock", "is wrong: set it", False)]).splitlines()
    assert len(lines) == len(rows) + 1
    assert lines[-1] == "NO  clock        is wrong: set it" and all(line[:3] in ("ok ", "NO ") for line in lines)


def test_a_missing_and_a_damaged_checkpoint_are_told(tmp_path, monkeypatch):
    for content, words in (('{"signs_cnn": {"network": "small_cnn", "shape": {}, "sha256": "0"}}', "is missing"), ("{", "is damaged")):
        (tmp_path / "manifest.json").write_text(content)
        monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path)
        monkeypatch.setattr(checkpoints.read_manifest, "__defaults__", (tmp_path,))
        finding, well = doctor._checkpoints()
        assert not well and words in finding
    (tmp_path / "manifest.json").unlink()
    finding, well = doctor._checkpoints()
    assert not well and "none in" in finding


def test_a_data_folder_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("MLSEC_DATA", str(tmp_path / "nowhere"))
    finding, well = doctor._data()
    assert not well and "MLSEC_DATA" in finding
    (tmp_path / "nowhere" / "FashionMNIST").mkdir(parents=True)
    finding, well = doctor._data()
    assert well and finding.startswith("fashion_mnist (")


def test_a_folder_that_cannot_be_written_is_told(monkeypatch):
    monkeypatch.setattr(doctor, "_speed", lambda: ("not measured", True))
    monkeypatch.setattr(doctor, "_checkpoints", lambda: ("not read", True))
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    what, finding, well = doctor.examine()[-1]
    assert what == "your work" and not well and "set MLSEC_HOME" in finding


def test_a_torchvision_that_cannot_be_imported_is_told(monkeypatch):
    from mlsec_lab.victims import datasets

    def broken():
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(datasets, "import_torchvision", broken)
    finding, well = doctor._torchvision()
    assert not well and "the drawn signs work without it" in finding
