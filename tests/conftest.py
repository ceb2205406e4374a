"""One thread a process, a home of its own, and reasons for what is skipped."""
import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: several test processes share the cores
os.environ["MLSEC_HOME"] = tempfile.mkdtemp(prefix="mlsec-tests-")  # never the learner's own progress

import psutil  # noqa: E402
import pytest  # noqa: E402


def pytest_collection_modifyitems(items):
    """A file's tests stay in one process, which shares what is costly to make.

    Tests marked `by_itself` go wherever there is room, those with an `xdist_group` of their own stay together with its others.
    """
    for item in items:
        if not any(item.get_closest_marker(name) for name in ("by_itself", "xdist_group")):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Each test has an empty work folder."""
    monkeypatch.setenv("MLSEC_HOME", str(tmp_path / "my_work"))


@pytest.fixture
def alive():
    """A function: does the process of this number run?  One that has ended and that nobody has asked about yet does not."""
    def alive(number):
        try:
            return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
    return alive


@pytest.fixture
def temporary_files(tmp_path, monkeypatch):
    """The folder for temporary files, empty: another test process may use the machine's own at the same moment."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_data():
    """The folder with real data; the test is skipped where MLSEC_DATA is unset."""
    folder = os.environ.get("MLSEC_DATA")
    if not folder:
        pytest.skip("MLSEC_DATA is unset: this test reads real data sets")
    return folder
