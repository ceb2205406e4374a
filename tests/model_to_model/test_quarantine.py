"""The quarantine: what is opened in it, what it refuses, and that nothing is left of it."""
import os
import pickle
import time

import pytest

from mlsec_lab.model_to_model.quarantine import LOADERS, MARKER, open_in_quarantine


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def runs(code):
    return "pickle", pickle.dumps(Call(exec, code))


WRITES = runs(f"open({MARKER!r}, 'w').write('x')")


def test_each_file_wakes_up_in_a_folder_of_its_own_and_its_names_are_noted():
    first, second, third = open_in_quarantine([WRITES, ("pickle", pickle.dumps([1, 2])), runs("import os; assert os.listdir() == []")])
    assert first.executed and first.result == "loaded" and first.names == ("builtins.exec",)
    assert not second.executed and second.result == "loaded" and second.said == "list" and second.names == ()
    assert third.result == "loaded"  # the first one's file lies elsewhere


def test_what_cannot_be_loaded_is_refused_with_the_loaders_words_and_may_have_run_before():
    broken, late = open_in_quarantine([("pickle", b"\x80\x04 junk"), ("pickle", WRITES[1][:-1] + b"0(junk")])
    assert broken.result == "refused" and not broken.executed and "UnpicklingError" in broken.said
    assert late.result == "refused" and late.executed


def test_there_is_no_network_in_it_even_where_only_the_hook_refuses():
    connect = "import socket\nsocket.create_connection(('127.0.0.1', 9), 1)"
    found, looked_up = open_in_quarantine([runs(connect), runs("import socket\nsocket.getaddrinfo('localhost', 80)")])
    assert found.result == looked_up.result == "refused"
    assert "the quarantine has no network" in found.said and "the quarantine has no network" in looked_up.said
    assert found.network in ("kernel", "hook")


def test_nothing_outside_its_folder_can_be_written_removed_or_renamed(tmp_path):
    (tmp_path / "precious").write_text("x")
    place = str(tmp_path / "precious")
    outcomes = open_in_quarantine([runs(f"open({place!r}, 'w')"), runs(f"import os; os.remove({place!r})"), runs(f"import os; os.rename({place!r}, 'mine')"),
                                   runs(f"import os; os.open({place + '2'!r}, os.O_CREAT | os.O_WRONLY)"), runs(f"import shutil; shutil.rmtree({str(tmp_path)!r})")])
    assert [outcome.result for outcome in outcomes] == ["refused"] * 5
    assert all("the quarantine lets nobody write to" in outcome.said for outcome in outcomes)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"] and (tmp_path / "precious").read_text() == "x"


def test_the_learners_environment_and_home_stay_outside(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    outcome, = open_in_quarantine([runs("import os, tempfile\nassert 'SECRET_TOKEN' not in os.environ\n"
                                        "assert 'mlsec-quarantine-' in os.path.expanduser('~') and 'mlsec-quarantine-' in tempfile.gettempdir()")])
    assert outcome.result == "loaded", outcome.said


def test_a_payload_that_ends_or_blocks_the_child_does_not_take_the_other_files_along():
    began = time.perf_counter()
    outcomes = open_in_quarantine([WRITES, runs("import os; os._exit(3)"), WRITES, runs("while True: pass"), WRITES, runs("raise SystemExit")], seconds=2)
    assert [outcome.result for outcome in outcomes] == ["loaded", "died", "loaded", "died", "loaded", "refused"]
    assert [outcome.executed for outcome in outcomes] == [True, False, True, False, True, False]
    assert time.perf_counter() - began < 40


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
def test_no_process_and_no_folder_is_left(temporary_files, alive):
    outcome, = open_in_quarantine([runs(f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
                                        f"open({MARKER!r}, 'w')\nraise ValueError(child.pid)")])
    number = int(outcome.said.split()[-1])
    until = time.monotonic() + 5
    while alive(number) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(number), f"process {number} still runs"
    assert outcome.executed
    assert list(temporary_files.iterdir()) == []


def test_bad_input_is_refused_before_a_child_is_started():
    with pytest.raises(ValueError, match="loader must be one of pickle, joblib.*not 'yaml'"):
        open_in_quarantine([("yaml", b"")])
    with pytest.raises(ValueError, match="the content for pickle must be bytes, the file as it is, not str"):
        open_in_quarantine([("pickle", "text")])
    assert open_in_quarantine([]) == [] and len(LOADERS) == 6
