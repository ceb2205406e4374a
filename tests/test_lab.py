"""What lab.py decides, without a network and without installing; and one real start of the server."""
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """lab.py as a module, for a course folder of its own; whatever would install is refused."""
    spec = importlib.util.spec_from_file_location("lab_under_test", ROOT / "lab.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("MLSEC_VENV", raising=False)
    monkeypatch.setattr(module, "HERE", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    return module


@pytest.fixture
def venv(lab, tmp_path, monkeypatch):
    """A .venv that looks healthy. What its Python would answer is in `lab.found`, None where it would not run."""
    folder = tmp_path / ".venv"
    folder.mkdir()
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    lab.found = "3.12"
    monkeypatch.setattr(lab, "version_in", lambda _: lab.found)
    return folder


# ------------------------------------------------------------------------------------------------------------ stamps

def test_a_complete_install_is_ready_and_pip_is_not_called(lab, venv, monkeypatch):
    lab.write_stamp(venv, ["open"])
    monkeypatch.setattr(lab, "install", lambda *_: pytest.fail("installed again"))
    assert lab.state_of(venv, "open") == "ready"
    assert lab.set_up("open") == lab.python_of(venv)


def test_no_venv_is_missing_and_one_without_a_stamp_is_a_half_done_install(lab, venv):
    assert lab.state_of(venv, "open") == "unfinished"
    (venv / "pyvenv.cfg").unlink()
    assert lab.state_of(venv, "open") == "missing"


def test_an_install_that_pip_did_not_finish_is_noticed(lab, venv, monkeypatch):
    lab.write_stamp(venv, ["open"])
    (lab.HERE / "constraints.txt").write_text("torch==2.14.0\n")
    monkeypatch.setattr(lab, "check_room", lambda *_: None)
    monkeypatch.setattr(lab, "cpu_build_is_wanted", lambda _: False)

    def interrupted(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(lab, "run_pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.set_up("open")
    (lab.HERE / "constraints.txt").write_text("torch==2.13.0\n")  # back to what was complete before pip began to change it
    assert lab.state_of(venv, "open") == "unfinished"
    monkeypatch.setattr(lab, "run_pip", lambda *_: (0, ""))
    lab.set_up("open")
    assert lab.state_of(venv, "open") == "ready"


@pytest.mark.parametrize("change", ["pyproject.toml", "constraints.txt", "python"])
def test_a_stamp_is_stale_when_what_it_stands_for_changes(lab, venv, change):
    lab.write_stamp(venv, ["open"])
    if change == "python":
        lab.found = "3.13"
    else:
        (lab.HERE / change).write_text("something else\n")
    assert lab.state_of(venv, "open") == "unfinished"


def test_the_tests_need_more_than_the_lessons_and_the_lessons_less_than_the_tests(lab, venv):
    lab.write_stamp(venv, ["open"])
    assert (lab.state_of(venv, "open"), lab.state_of(venv, "test")) == ("ready", "unfinished")
    lab.write_stamp(venv, ["open", "test"])
    assert (lab.state_of(venv, "open"), lab.state_of(venv, "test")) == ("ready", "ready")


def test_a_moved_folder_and_a_python_that_is_gone_are_broken(lab, venv):
    lab.write_stamp(venv, ["open"])
    stamp = venv / "lab.stamp"
    stamp.write_text(stamp.read_text().replace(json.dumps(str(venv)), '"/somewhere/else/.venv"'))
    assert lab.state_of(venv, "open") == "broken"
    lab.write_stamp(venv, ["open"])
    assert lab.state_of(venv, "open") == "ready"
    lab.found = None
    assert lab.state_of(venv, "open") == "broken"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"open": 1}'])
def test_a_damaged_stamp_counts_as_none(lab, venv, content):
    (venv / "lab.stamp").write_text(content)
    assert lab.state_of(venv, "open") == "unfinished"


def test_the_python_in_a_venv_is_really_asked(lab, tmp_path):
    assert lab.version_in(tmp_path / "nowhere") is None
    assert lab.version_in(Path(sys.prefix)) == "%d.%d" % sys.version_info[:2]


def test_a_failed_install_leaves_no_stamp_and_names_the_log(lab, venv, monkeypatch):
    monkeypatch.setattr(lab, "check_room", lambda *_: None)
    monkeypatch.setattr(lab, "cpu_build_is_wanted", lambda _: False)
    monkeypatch.setattr(lab, "run_pip", lambda *_: (1, "ERROR: [Errno 28] No space left on device"))
    with pytest.raises(lab.Stop, match="disk is full.*install.log"):
        lab.set_up("open")
    assert lab.state_of(venv, "open") == "unfinished"


def test_making_a_broken_venv_anew_keeps_the_lock_that_is_held(lab, venv, monkeypatch):
    (venv / "lib").mkdir()
    (venv / "lib" / "old").write_text("")
    monkeypatch.setattr(lab.subprocess, "call", lambda *_, **__: 0)
    with lab.one_at_a_time(venv):
        lab.make_venv(venv, venv / "install.log")
        assert {path.name for path in venv.iterdir()} == {"lab.lock", "install.log"}


# -------------------------------------------------------------------------------------------------------------- lock

def test_a_second_set_up_waits_and_says_for_whom(lab, venv):
    second = ("import importlib.util as u, sys, pathlib; s = u.spec_from_file_location('lab', sys.argv[1]);"
              "lab = u.module_from_spec(s); s.loader.exec_module(lab)\n"
              "with lab.one_at_a_time(pathlib.Path(sys.argv[2])): print('has it', flush=True)")
    with lab.one_at_a_time(venv):
        waiting = subprocess.Popen([sys.executable, "-c", second, str(ROOT / "lab.py"), str(venv)], stdout=subprocess.PIPE, text=True)
        assert f"process {os.getpid()}) is setting up" in waiting.stdout.readline()
        assert waiting.poll() is None
    assert waiting.communicate(timeout=30)[0] == "has it\n"


def test_a_lock_left_by_a_killed_set_up_holds_nobody_up(lab, venv, capsys):
    (venv / "lab.lock").write_text("999999")
    with lab.one_at_a_time(venv):
        assert (venv / "lab.lock").read_text() == str(os.getpid())
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------------------------- what is not enough

@pytest.mark.parametrize("version", [(3, 6, 15), (3, 9, 18), (2, 7, 18)])
def test_an_old_python_is_told_in_one_sentence_what_is_needed(lab, version, monkeypatch):
    monkeypatch.setattr(lab.shutil, "which", lambda _: None)
    with pytest.raises(lab.Stop) as stop:
        lab.check_python(version, 64)
    said = str(stop.value)
    assert "3.10" in said and ".".join(map(str, version)) in said and "python.org" in said
    assert "\n" not in said


def test_a_newer_python_beside_the_old_one_is_named(lab, monkeypatch):
    monkeypatch.setattr(lab.shutil, "which", lambda name: name if name == "python3.12" else None)
    monkeypatch.setattr(lab.subprocess, "call", lambda *_, **__: 0)
    with pytest.raises(lab.Stop, match="run `python3.12 lab.py`"):
        lab.check_python((3, 8, 1), 64)


def test_a_32_bit_python_is_refused_and_a_new_64_bit_one_is_not(lab):
    with pytest.raises(lab.Stop, match="this is 32-bit Python 3.12.1"):
        lab.check_python((3, 12, 1), 32)
    for minor in (10, 11, 12, 13):
        assert lab.check_python((3, minor, 0), 64) is None


def test_nothing_in_lab_py_is_newer_than_python_3_6_can_read():
    import ast
    source = (ROOT / "lab.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 6))
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imported += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in imported} <= set(sys.stdlib_module_names), "the standard library only"
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr)]


def test_a_missing_ensurepip_names_the_package_to_install(lab, venv, monkeypatch):
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object())
    (venv / "keep").write_text("")
    with pytest.raises(lab.Stop, match=r"apt install python%d\.%d-venv" % sys.version_info[:2]):
        lab.make_venv(venv, venv / "install.log")
    assert (venv / "keep").exists(), "nothing is deleted before it can be replaced"


def test_too_little_room_is_said_before_anything_is_downloaded(lab):
    with pytest.raises(lab.Stop, match="about 4 GB and the disk has 1.5 GB left"):
        lab.check_room(1.5e9, 4)
    assert lab.check_room(4.1e9, 4) is None


RETRYING = ("WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<HTTPSConnection>: Failed to establish a "
            "new connection: [Errno -2] Name or service not known')': /simple/torch/\n")
NO_TORCH = ("ERROR: Could not find a version that satisfies the requirement torch>=2.4 (from versions: none)\n"
            "ERROR: No matching distribution found for torch>=2.4\n")


@pytest.mark.parametrize("log, sentence", [
    (RETRYING + NO_TORCH, "no network: connect and run the same command again; nothing is lost"),
    ("OSError: [Errno 101] Network is unreachable", "no network"),
    ("WARNING: Retrying after connection broken by 'ReadTimeoutError(\"Read timed out. (read timeout=15)\")'", "no network"),
    ("socket.gaierror: [Errno 11001] getaddrinfo failed", "no network"),
    ("Could not fetch URL: SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))", "PIP_CERT"),
    (NO_TORCH, "64-bit Python 3.10 to 3.13 is needed"),
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "free about 4 GB"),
    ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/opt/course/.venv/lib'", "folder of your own"),
    ("PermissionError: [WinError 5] Access is denied: 'C:\\\\course'", "folder of your own"),
    ("HINT: This error might have occurred since this system does not have Windows Long Path support enabled.", "too long for Windows"),
    ("Collecting x\n  ERROR: Failed building wheel for x\nnote: something", "Failed building wheel for x"),
    ("", "delete .venv"),
])
def test_pips_complaints_become_one_sentence_that_says_what_to_do(lab, log, sentence):
    said = lab.explain(log)
    assert sentence in said
    assert "\n" not in said and "{" not in said


def test_a_folder_that_cannot_be_written_ends_in_a_sentence(lab, monkeypatch, capsys):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "/opt/course/.venv")
    monkeypatch.setattr(lab.Path, "mkdir", refuse)
    monkeypatch.setattr(lab.signal, "signal", lambda *_: None)
    assert lab.main([]) == 1
    said = capsys.readouterr().err
    assert "folder of your own" in said and "Traceback" not in said


def test_ctrl_c_during_the_set_up_says_how_to_go_on(lab, monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt
    monkeypatch.setattr(lab, "set_up", interrupted)
    monkeypatch.setattr(lab.signal, "signal", lambda *_: None)
    assert lab.main([]) == 130
    assert capsys.readouterr().err.strip() == "Stopped: run the same command again to go on."


# -------------------------------------------------------------------------------------------------------------- torch

def test_torch_is_taken_from_the_cpu_index_in_the_tested_versions(lab):
    pins = lab.torch_pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert [pin.split("==")[0] for pin in pins] == ["torch", "torchvision"]
    assert lab.torch_pins('torch==2.13.0; python_version >= "3.11"\ntorchmetrics==1\n') == ["torch==2.13.0"]


@pytest.mark.parametrize("settings, wanted", [
    ("", True),
    ("global.extra-index-url='https://example.org/simple'\n:env:.find-links='wheels'", True),
    ("global.index-url='https://example.org/simple'", False),
    (":env:.no-index='1'", False),
])
def test_a_pip_that_is_told_where_to_look_is_obeyed(lab, monkeypatch, settings, wanted):
    monkeypatch.setattr(lab.sys, "platform", "linux")
    monkeypatch.setattr(lab.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(lab.Path, "exists", lambda _: False)
    monkeypatch.setattr(lab.shutil, "which", lambda _: None)
    monkeypatch.setattr(lab.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=settings))
    assert lab.cpu_build_is_wanted("python") is wanted
    monkeypatch.setattr(lab.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert lab.cpu_build_is_wanted("python") is False


def test_an_index_that_does_not_answer_costs_no_more_than_the_time_allowed(lab):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.time()
        assert lab.answers(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.5) is False
        assert time.time() - start < 8
    assert lab.answers("no address at all") is False


@pytest.mark.parametrize("line, said", [
    ("Collecting torch>=2.4 (from mlsec-lab==0.1.0)", "collecting torch"),
    ("  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (180.1 MB)", "downloading torch (180.1 MB)"),
    ("  Downloading https://example.org/a/scikit_learn-1.9.1-cp311-win_amd64.whl (9.1 MB)", "downloading scikit_learn (9.1 MB)"),
    ("Installing collected packages: a, b, c", "installing 3 packages (the longest step)"),
    ("Requirement already satisfied: pip", None),
])
def test_pips_progress_is_told_in_a_few_words(lab, line, said):
    assert lab.stage(line) == said


def test_the_childs_python_looks_nowhere_outside_the_venv(lab, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    environment = lab.child_environment(MLSEC_HOME="here")
    assert "PYTHONPATH" not in environment
    assert environment["MLSEC_HOME"] == "here" and environment["PATH"] == os.environ["PATH"]


# ----------------------------------------------------------------------------------------------------- ports and words

def test_a_taken_port_is_passed_over_unless_the_learner_asked_for_it(lab):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert not lab.is_free(taken)
        with pytest.raises(lab.Stop, match=f"Port {taken} is taken"):
            lab.choose_port(taken)
    assert lab.choose_port(taken) == taken
    assert lab.choose_port(None) in range(8888, 8988)


def test_the_next_free_port_is_taken_and_none_at_all_is_a_sentence(lab, monkeypatch):
    monkeypatch.setattr(lab, "is_free", lambda port: port >= 8890)
    assert lab.choose_port(None) == 8890
    monkeypatch.setattr(lab, "is_free", lambda port: False)
    with pytest.raises(lab.Stop, match="--port"):
        lab.choose_port(None)


@pytest.mark.parametrize("arguments", [["--bogus"], ["tset"], ["--port", "0"], ["--port", "many"], ["--no"]])
def test_unknown_arguments_get_a_sentence_and_the_help(lab, arguments, monkeypatch, capsys):
    monkeypatch.setattr(lab, "set_up", lambda _: pytest.fail("set up"))
    monkeypatch.setattr(lab.signal, "signal", lambda *_: None)
    assert lab.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("lab.py does not understand") and arguments[-1].lstrip("-") in said
    assert "examples:" in said


@pytest.mark.parametrize("arguments", [["--help"], ["test", "-h"]])
def test_help_shows_both_commands_and_sets_nothing_up(lab, arguments, monkeypatch, capsys):
    monkeypatch.setattr(lab, "set_up", lambda _: pytest.fail("set up"))
    assert lab.run(arguments) == 0
    said = capsys.readouterr().out
    assert "--no-browser" in said and "lab.py test" in said and "MLSEC_VENV" in said


# ------------------------------------------------------------------------------------------------------------- testing

def test_all_steps_of_the_tests_run_although_the_first_fails(lab, monkeypatch, capsys):
    seen = []

    def call(command, cwd, env):
        seen.append((command, env))
        return 1 if "build" in command else 0
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("MLSEC_HOME", "the learner's own")
    monkeypatch.setattr(lab, "set_up", lambda purpose: {"test": "python"}[purpose])
    monkeypatch.setattr(lab.subprocess, "call", call)
    assert lab.run(["test"]) == 1
    assert [command[2] for command, _ in seen] == ["mlsec_lab", "pytest", "pytest"]
    assert "--nbval-lax" in seen[2][0] and "loadscope" in seen[2][0]
    for _, env in seen:
        assert env["OMP_NUM_THREADS"] == env["MKL_NUM_THREADS"] == "1"
        assert env["MLSEC_HOME"] != "the learner's own" and "MPLBACKEND" not in env
    summary = capsys.readouterr().out.split("summary\n")[1].splitlines()
    assert [line.split()[-3] for line in summary] == ["failed", "ok", "ok"]


def test_arguments_for_pytest_run_pytest_alone(lab, monkeypatch):
    seen = []
    monkeypatch.setattr(lab, "set_up", lambda _: "python")
    monkeypatch.setattr(lab.subprocess, "call", lambda command, **_: seen.append(command) or 0)
    assert lab.run(["test", "-k", "evasion", "-x"]) == 0
    assert len(seen) == 1
    assert seen[0][1:3] == ["-m", "pytest"] and seen[0][-3:] == ["-k", "evasion", "-x"]


def test_a_given_venv_is_used_as_it_is(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("MLSEC_VENV", str(tmp_path / "other"))
    monkeypatch.setattr(lab, "state_of", lambda *_: pytest.fail("looked at .venv"))
    assert all(lab.set_up(purpose) == lab.python_of(tmp_path / "other") for purpose in ("open", "test"))
    assert not (tmp_path / ".venv").exists()


# ---------------------------------------------------------------------------------------------------- the whole thing

@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process on Windows")
def test_the_course_opens_at_lesson_00_and_ctrl_c_ends_it_cleanly(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    environment = dict(os.environ, MLSEC_VENV=sys.prefix, MLSEC_HOME=str(tmp_path / "my_work"))
    process = subprocess.Popen([sys.executable, "lab.py", "--no-browser", "--port", str(port)], cwd=ROOT, env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a background job ignores it
    try:
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            said += line
        address = re.search(r"http://\S+", said).group()
        assert f"127.0.0.1:{port}/lab/tree/notebooks/00_start_here.ipynb?token=" in address
        base, token = address.split("/lab/")[0], address.split("token=")[1]
        with urllib.request.urlopen(f"{base}/api/status?token={token}", timeout=10) as answer:
            assert answer.status == 200 and json.load(answer)["kernels"] == 0
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{base}/api/contents", timeout=10)  # without the token nothing is shown
        with urllib.request.urlopen(f"{base}/api/contents/notebooks/00_start_here.ipynb?content=0&token={token}", timeout=10) as answer:
            assert json.load(answer)["type"] == "notebook", "the learner's copy is there"
        start = time.time()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
        assert process.returncode == 0 and time.time() - start < 15
        assert "Stopped" in rest and errors == ""
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) != 0, "the server is gone"
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(20)


def test_no_question_about_news_lies_over_the_first_lesson(lab, tmp_path):
    lab.quiet_start(tmp_path)
    settings = json.loads((tmp_path / "share" / "jupyter" / "lab" / "settings" / "overrides.json").read_text())
    assert settings["@jupyterlab/apputils-extension:notification"] == {"fetchNews": "false", "checkForUpdates": False}
