"""Sets the course up and opens it. It needs Python 3.10 or newer and nothing else.

    python3 lab.py                  set up (the first time), then open lesson 00 in JupyterLab
    python3 lab.py test             set up what the tests need, then run all of them

On Windows write `py lab.py`. The packages go to .venv and your copies of the lessons to my_work, both beside this file.
"""
# Nothing newer than Python 3.6 may be written here, so that an older Python still reads the file and says what is missing.
import argparse
import contextlib
import hashlib
import http.client
import importlib.util
import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

HERE = Path(__file__).resolve().parent
FIRST_LESSON = "/lab/tree/notebooks/00_start_here.ipynb"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
WINDOWS = os.name == "nt"
EXTRAS = {"open": "", "test": "[test]"}  # what is done with an installation -> the extra it needs
EXAMPLES = """examples:
  python3 lab.py                          open the course (Windows: py lab.py)
  python3 lab.py --no-browser --port 9000 only print the address
  python3 lab.py test                     check the built lessons, run the tests, run every lesson
  python3 lab.py test -k evasion -x       run pytest alone, with these arguments

environment:
  MLSEC_HOME=folder   keep the learner's lessons there instead of in my_work
  MLSEC_VENV=folder   use this virtual environment as it is and install nothing
"""


class Stop(Exception):
    """Ends the run with one sentence that says what happened and what to do next."""


# ---------------------------------------------------------------------------------------------- is this Python enough?

def check_python(version=sys.version_info, bits=64 if sys.maxsize > 2**32 else 32):
    if tuple(version[:2]) >= (3, 10) and bits == 64:
        return
    newer = [name for name in ("python3.%d" % minor for minor in (13, 12, 11, 10)) if shutil.which(name)
             and subprocess.call([name, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0]
    advice = ("run `%s lab.py`, which is already here" % newer[0] if newer and bits == 64 else
              "install a newer 64-bit one from https://www.python.org/downloads and run the same command with it")
    raise Stop("This course needs 64-bit Python 3.10 or newer and this is %d-bit Python %s: %s."
               % (bits, ".".join(map(str, version[:3])), advice))


# ------------------------------------------------------------------------------------------- what state is .venv in?

def python_of(venv):
    return str(venv / "Scripts" / "python.exe" if WINDOWS else venv / "bin" / "python")


def version_in(venv):
    """The version of the Python in `venv`, as "3.12"; None where it does not run, has no pip or is too old."""
    probe = "import sys, importlib.util as u; print(*sys.version_info[:2], u.find_spec('pip') is not None)"
    try:
        answer = subprocess.run([python_of(venv), "-I", "-c", probe], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                universal_newlines=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    major, minor, pip = (answer.stdout.split() + ["0", "0", "False"])[:3]
    return f"{major}.{minor}" if pip == "True" and (int(major), int(minor)) >= (3, 10) else None


def fingerprint(venv, purpose, version):
    """Changes with everything that makes an earlier installation out of date."""
    parts = [(HERE / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256("\0".join(parts + [purpose, version, str(venv)]).encode()).hexdigest()


def read_stamp(venv):
    try:
        stamp = json.loads((venv / "lab.stamp").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv, purposes):
    """Notes which purposes the finished installation serves; none while pip is at work."""
    version = version_in(venv)
    stamp = dict({purpose: fingerprint(venv, purpose, version) for purpose in purposes}, folder=str(venv))
    unfinished = venv / "lab.stamp.new"
    unfinished.write_text(json.dumps(stamp), encoding="utf-8")
    os.replace(str(unfinished), str(venv / "lab.stamp"))


def state_of(venv, purpose):
    """One of "ready", "unfinished" (pip has to run again), "broken" (to be made anew) and "missing"."""
    if not (venv / "pyvenv.cfg").exists():
        return "missing"
    version, stamp = version_in(venv), read_stamp(venv)
    # A moved folder still starts Python, yet its scripts and the link to the course lead to the old place.
    if version is None or stamp.get("folder", str(venv)) != str(venv):
        return "broken"
    return "ready" if stamp.get(purpose) == fingerprint(venv, purpose, version) else "unfinished"


# --------------------------------------------------------------------------------------------------------- setting up

def set_up(purpose):
    """Makes .venv serve `purpose` and returns its Python; a fraction of a second where it already does."""
    if os.environ.get("MLSEC_VENV"):
        return python_of(Path(os.environ["MLSEC_VENV"]).absolute())
    venv = HERE / ".venv"
    if state_of(venv, purpose) != "ready":
        with one_at_a_time(venv):
            state = state_of(venv, purpose)  # again: the set-up we waited for may have done it
            if state != "ready":
                install(venv, purpose, state)
    return python_of(venv)


@contextlib.contextmanager
def one_at_a_time(venv):
    """Holds .venv/lab.lock. The system frees it when its holder ends, however it ends, so it is never stale."""
    venv.mkdir(parents=True, exist_ok=True)
    with open(str(venv / "lab.lock"), "a+") as lock:
        if not locked(lock):
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            print(f"Another lab.py (process {holder}) is setting up: waiting for it to end.", flush=True)
            while not locked(lock):
                time.sleep(0.5)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def locked(lock):
    try:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(lock.fileno(), 1000, os.SEEK_SET)  # beyond the process id, which others want to read
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system without locks, such as some network drives: go on unguarded
    return True


def install(venv, purpose, state):
    log = venv / "install.log"
    check_room(shutil.disk_usage(str(HERE)).free, 4 if state in ("missing", "broken") else 1)
    print({"missing": "Setting up, once: this takes a few minutes and about 1.5 GB in .venv.",
           "broken": "The set-up in .venv no longer works (a moved folder or another Python): making it anew, in a few minutes.",
           "unfinished": "Completing the set-up in .venv."}[state], flush=True)
    log.write_text("", encoding="utf-8")
    if state in ("missing", "broken"):
        make_venv(venv, log)
    write_stamp(venv, [])
    python, constraints = python_of(venv), HERE / "constraints.txt"
    if cpu_build_is_wanted(python) and answers(CPU_INDEX + "/torch/"):
        # Without dependencies, which that index has in other versions. Should it fail, the next step finds torch elsewhere.
        pins = torch_pins(constraints.read_text(encoding="utf-8"))
        run_pip(python, ["--no-deps", "--index-url", CPU_INDEX] + pins, log)
    code, output = run_pip(python, ["-c", str(constraints), "-e", "." + EXTRAS[purpose]], log)
    if code != 0:
        raise Stop(f"{explain(output)} (The full log is {log}.)")
    quiet_start(venv)
    write_stamp(venv, ["open", purpose])


def quiet_start(venv):
    """JupyterLab's own defaults in .venv: no question about news over the first lesson. Learners' settings come before these."""
    folder = venv / "share" / "jupyter" / "lab" / "settings"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "overrides.json").write_text(json.dumps({
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}), encoding="utf-8")


def check_room(free, needed):
    if free < needed * 1e9:
        raise Stop(f"The set-up needs about {needed} GB and the disk has {free / 1e9:.1f} GB left: "
                   "free some and run the same command again.")


def make_venv(venv, log):
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        raise Stop("This Python cannot make virtual environments: on Debian or Ubuntu run `sudo apt install python%d.%d-venv`, "
                   "elsewhere install Python from https://www.python.org/downloads, then run the same command again."
                   % sys.version_info[:2])
    for old in venv.iterdir():
        if old.name not in ("lab.lock", "install.log"):
            shutil.rmtree(str(old)) if old.is_dir() and not old.is_symlink() else old.unlink()
    creator = getattr(sys, "_base_executable", None) or sys.executable  # not a Python that lives in the folder just emptied
    with open(str(log), "a", encoding="utf-8") as writing:
        code = subprocess.call([creator, "-m", "venv", str(venv)], stdout=writing, stderr=subprocess.STDOUT,
                               env=child_environment())
    if code != 0 or version_in(venv) is None:
        raise Stop(f"{explain(log.read_text(encoding='utf-8', errors='replace'))} (The full log is {log}.)")


def cpu_build_is_wanted(python):
    """On Linux the ordinary torch brings gigabytes that only an NVIDIA card uses. A pip told where to look is obeyed."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return False
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        return False
    settings = subprocess.run([python, "-m", "pip", "config", "list"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, universal_newlines=True, env=child_environment()).stdout
    return re.search(r"\.(index-url|no-index)=", settings) is None


def answers(address, seconds=3):
    """Asks once. In a thread, because looking up a name can take longer than any time-out that urllib knows."""
    heard = []

    def ask():
        with contextlib.suppress(Exception):  # whatever goes wrong, the answer is no
            request = urllib.request.Request(address, method="HEAD")
            heard.append(urllib.request.urlopen(request, timeout=seconds).status)
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return heard == [200]


def torch_pins(constraints):
    return re.findall(r"^(?:torch|torchvision)==[^\s;]+", constraints, re.MULTILINE)


def run_pip(python, arguments, log):
    """Runs `pip install`: what it says goes to the log, what it is at to the screen. Returns its exit code and its words."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--progress-bar", "off"] + arguments
    environment = child_environment(PIP_USER="0", PYTHONIOENCODING="utf-8", PYTHONUNBUFFERED="1")
    live, width = sys.stdout.isatty(), shutil.get_terminal_size().columns - 1
    start, shown, doing, said, running = time.time(), 0, "starting pip", [], True
    with open(str(log), "a", encoding="utf-8") as writing, open(str(log), encoding="utf-8", errors="replace") as reading:
        reading.seek(0, os.SEEK_END)
        process = subprocess.Popen(command, cwd=str(HERE), env=environment, stdin=subprocess.DEVNULL, stdout=writing,
                                   stderr=subprocess.STDOUT)
        try:
            while running:
                running = process.poll() is None
                for line in reading:
                    said.append(line)
                    doing = stage(line) or doing
                if running and time.time() - shown > (0.2 if live else 10):
                    shown = time.time()
                    text = f"  {shown - start:4.0f} s  {doing}"
                    print("\r" + text[:width].ljust(width) if live else text, end="" if live else "\n", flush=True)
                time.sleep(0.1 if running else 0)
        finally:
            if live:
                print("\r" + " " * width + "\r", end="", flush=True)
            end(process)
    return process.returncode, "".join(said)


def stage(line):
    """What a line of pip's output says it is doing, in a few words; None for the others."""
    found = re.match(r"\s*(Collecting|Downloading|Using cached) (?:\S*/)?([^\s=<>!~;\[]+)(.*)", line)
    if found:
        size = re.search(r"\([\d.]+ [kMG]B\)", found.group(3))
        verb = "collecting" if found.group(1) == "Collecting" else "downloading"
        name = re.split(r"-\d", found.group(2))[0]
        return f"{verb} {name}" + (f" {size.group()}" if size and verb == "downloading" else "")
    if line.startswith("Installing collected packages:"):
        return f"installing {line.count(',') + 1} packages (the longest step)"
    return None


# What pip, venv or the system say -> what it means and what to do. The first that is found counts: without a network
# pip also complains that it found no torch.
REASONS = (
    (r"No space left on device|not enough space on the disk|Errno 28\b",
     "The disk is full: free about 4 GB, there and in the folder for temporary files, then run the same command again."),
    (r"Long Path support",
     "The path of this folder is too long for Windows: move it to a short one such as C:\\mlsec, then run the same command again."),
    (r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError",
     "The network's certificate is not trusted: check the date, or set PIP_CERT to your organisation's certificate file, "
     "then run the same command again."),
    (r"NewConnectionError|Failed to establish a new connection|Failed to resolve|Name or service not known|name resolution|"
     r"nodename nor servname|getaddrinfo failed|Network is unreachable|Connection refused|[Cc]onnection ?[Rr]eset|timed out|"
     r"ProxyError", "There is no network: connect and run the same command again; nothing is lost."),
    (r"No matching distribution found for torch",
     "There is no torch for this computer: 64-bit Python 3.10 to 3.13 is needed, on Windows, Linux or a Mac with Apple "
     "silicon, and this is Python {python} on {system}."),
    (r"Permission denied|Access is denied|Operation not permitted|Read-only file system|Errno 13\b|Errno 30\b",
     "Files in {folder} cannot be written: close other programs that use them or copy the course to a folder of your own, "
     "then run the same command again."),
)


def explain(output):
    """One sentence for what went wrong and what to do."""
    system = f"{platform.system()} {platform.machine()}"
    for pattern, sentence in REASONS:
        if re.search(pattern, output):
            return sentence.format(python=platform.python_version(), system=system, folder=HERE)
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no reason given"]
    reason = ([line for line in lines if line.startswith("ERROR:")] or lines)[-1]
    return f"The set-up failed ({reason}): run the same command again; should that not help, delete .venv first."


def child_environment(**settings):
    """Our environment without what would lead the course's Python to packages outside .venv."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    environment.update(settings)
    return environment


def end(process):
    """Ends a child that is still running, politely at first."""
    for ending in (process.terminate, process.kill):
        if process.poll() is None:
            ending()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


# --------------------------------------------------------------------------------------------------- opening the course

def is_free(port):
    with socket.socket() as client:
        client.settimeout(1)
        if client.connect_ex(("127.0.0.1", port)) == 0:
            return False
    with socket.socket() as server:
        if not WINDOWS:  # as JupyterLab does it: a port that was left a moment ago is free
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_port(wanted):
    if wanted is None:
        wanted = next((port for port in range(8888, 8988) if is_free(port)), None)
        if wanted is None:
            raise Stop("The ports 8888 to 8987 are all taken: name a free one with --port.")
    elif not is_free(wanted):
        raise Stop(f"Port {wanted} is taken or not allowed: name another with --port, or leave it out to get a free one.")
    return wanted


def ask_jupyter(address, token, method="GET"):
    request = urllib.request.Request(address, method=method, headers={"Authorization": "token " + token})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy could not reach this computer's own address
    with contextlib.suppress(OSError, http.client.HTTPException), direct.open(request, timeout=5) as answer:
        return answer.status < 300
    return False


def launch(python, port, browser, home, environment):
    command = [python, "-m", "jupyterlab", f"--ServerApp.root_dir={home}", "--ServerApp.ip=127.0.0.1",
               f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
               f"--LabApp.default_url={FIRST_LESSON}", "--LabApp.news_url=None",  # without news JupyterLab asks no question
               "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate"]
    command += [] if browser else ["--no-browser"]
    command += ["--allow-root"] if hasattr(os, "getuid") and os.getuid() == 0 else []
    command += ["--expose-app-in-browser"] if os.environ.get("MLSEC_EXPOSE_APP") == "1" else []
    # Away from our Ctrl-C, which JupyterLab would answer with a question.
    apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if WINDOWS else {"start_new_session": True}
    with open(str(home / ".jupyter.log"), "w", encoding="utf-8") as log:
        return subprocess.Popen(command, cwd=str(home), env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                stderr=subprocess.STDOUT, **apart)


def open_course(wanted_port, browser):
    python, port = set_up("open"), choose_port(wanted_port)
    home = Path(os.environ.get("MLSEC_HOME") or HERE / "my_work").absolute()
    home.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(24)
    # The token travels in the environment: other users of this computer can read command lines.
    environment = child_environment(MLSEC_HOME=str(home), JUPYTER_TOKEN=token, JUPYTER_PREFER_ENV_PATH="1")
    if subprocess.call([python, "-m", "mlsec_lab", "open"], cwd=str(HERE), env=environment) != 0:
        raise Stop(f"The lessons could not be copied to {home}: the lines above say why.")
    server, deadline = launch(python, port, browser, home, environment), time.time() + 120
    try:
        while not ask_jupyter(f"http://127.0.0.1:{port}/api/status", token):
            if server.poll() is not None and wanted_port is None and not is_free(port):
                port = choose_port(None)  # another program was quicker: it has the port that was free a moment ago
                server = launch(python, port, browser, home, environment)
            elif server.poll() is not None or time.time() > deadline:
                raise Stop(f"JupyterLab did not start: see why in {home / '.jupyter.log'}, then run the same command again.")
            time.sleep(0.1)
        print(f"Lesson 00 is open at http://127.0.0.1:{port}{FIRST_LESSON}?token={token}\nStop with Ctrl-C.", flush=True)
        while server.poll() is None:
            time.sleep(0.2)
        print("JupyterLab has ended; the same command opens it again.")
    except KeyboardInterrupt:
        print(f"\nStopped. Your work is in {home}; the same command opens it again.", flush=True)
    finally:
        if server.poll() is None and ask_jupyter(f"http://127.0.0.1:{port}/api/shutdown", token, "POST"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)
        end(server)
    return 0


# ------------------------------------------------------------------------------------------------------------- testing

def test_steps(python, arguments):
    """(name, command) of everything that is tested; with arguments only pytest, which gets them."""
    pytest = [python, "-m", "pytest", "-n", "auto", "--dist"]
    if arguments:
        return [("tests", pytest + ["loadgroup"] + arguments)]
    return [("lessons as built", [python, "-m", "mlsec_lab", "build", "--check"]),
            ("tests", pytest + ["loadgroup", "tests"]),
            ("lessons as run", pytest + ["loadscope", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "120", "solutions"])]


def test_course(arguments):
    steps, summary = test_steps(set_up("test"), arguments), []
    # One thread each: several processes with several threads on the same cores are many times slower.
    environment = child_environment(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    environment.pop("MPLBACKEND", None)  # the lessons draw inline
    with tempfile.TemporaryDirectory(prefix="mlsec_") as home:  # a learner's progress is never touched
        environment["MLSEC_HOME"] = home
        for name, command in steps:
            print(f"\n{name}: {' '.join(command[1:])}", flush=True)
            start = time.time()
            code = subprocess.call(command, cwd=str(HERE), env=environment)
            summary.append((name, "ok" if code == 0 else "failed", time.time() - start))
    print("\nsummary")
    for name, result, seconds in summary:
        print(f"  {name:<18}{result:<8}{seconds:5.0f} s")
    return int(any(result == "failed" for _, result, _ in summary))


# ------------------------------------------------------------------------------------------------------- command line

class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Stop(f"lab.py does not understand this ({message}).\n\n{self.format_help()}")


def port_number(text):
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text}")
    return int(text)


def run(arguments):
    check_python()
    parser = Parser(prog="lab.py", description="Sets the course up and opens it; with `test`, tests it.", epilog=EXAMPLES,
                    usage="python3 lab.py [--no-browser] [--port N]\n       python3 lab.py test [pytest arguments]",
                    formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser, only print the address")
    parser.add_argument("--port", type=port_number, metavar="N", help="the port to use (8888, or the next free one, if left out)")
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        return 0
    if arguments[:1] == ["test"]:
        return test_course(arguments[1:])
    chosen = parser.parse_args(arguments)
    return open_course(chosen.port, not chosen.no_browser)


def main(arguments):
    for name in ("SIGTERM", "SIGHUP"):  # being ended in other ways is Ctrl-C too: no child is left behind
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:  # ignored: under nohup
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        return run(arguments)
    except Stop as stop:
        print(stop, file=sys.stderr)
    except OSError as error:
        print(explain(str(error)), file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped: run the same command again to go on.", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
