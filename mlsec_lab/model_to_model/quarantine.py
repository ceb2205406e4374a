"""Open a file where it can do little harm, and see what it did: in a child process, in a folder that is deleted, without a network.

    outcome, = open_in_quarantine([("pickle", data)])
    outcome.executed, outcome.result, outcome.said

The parent starts this very file as a script of its own, so the child knows nothing of the course. A fence, not a prison: the child has
the learner's rights, code that means harm can get around an audit hook, and a process that it starts has none (where the kernel cuts off the
network, it does so for that process too). The course puts nothing into it but payloads that write one file.
"""
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

MARKER = "executed.txt"  # what every payload of the course writes into the folder where it wakes up
MUTE = 8  # so many files in a row that a child did not come back from: it is not the files
LOADERS = ("pickle", "joblib", "torch.load(weights_only=False)", "numpy.load(allow_pickle=True)", "torch.load(weights_only=True)", "safetensors")


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    result: "loaded", "refused" (the loader or pip raised or returned an error) or "died" (the child ended or ran out of time).
    executed: whether the marker file was there afterwards.  said: the type that was loaded, or the error.
    names: the "module.name" that the file asked Python for, in order.  network: how it was kept from the network: "kernel" or "hook".
    """
    result: str
    executed: bool
    said: str = ""
    names: tuple = ()
    network: str = ""


def open_in_quarantine(cases, *, seconds=60, progress=True):
    """One Outcome for each case, all opened by one child, in order.

    cases: pairs (loader, content): one of LOADERS and the bytes of the file; ("pip", arguments) runs pip; ("import", module, folder)
    imports a module from a folder.  seconds: after which a child is ended; another goes on with
    the next file.  progress: show a bar.
    Raises ValueError for a loader that is not in the list, or for content that is not bytes; RuntimeError where no child comes back.
    """
    for loader, content, *_ in cases:
        if loader not in (*LOADERS, "pip", "import"):
            raise ValueError(f"loader must be one of {', '.join(LOADERS)}, not {loader!r}")
        if loader in LOADERS and not isinstance(content, (bytes, bytearray)):
            raise ValueError(f"the content for {loader} must be bytes, the file as it is, not {type(content).__name__}")
    from tqdm.auto import tqdm
    with tempfile.TemporaryDirectory(prefix="mlsec-quarantine-", ignore_cleanup_errors=True) as folder:
        root = Path(folder).resolve()
        job = {"path": [entry for entry in sys.path if entry], "cases": [], "seconds": seconds}
        for number, (loader, content, *more) in enumerate(cases):
            (root / f"{number}").mkdir()
            if loader in LOADERS:
                (root / f"{number}.file").write_bytes(content)
                content = str(root / f"{number}.file")
            job["cases"].append([loader, content, *map(str, more)])
        done = []
        with tqdm(total=len(cases), desc="opening in quarantine", unit="file", delay=1, leave=False, disable=not progress) as bar:
            while len(done) < len(cases):  # a payload may end the child: another one goes on with the next file
                (root / "job.json").write_text(json.dumps({**job, "first": len(done)}))
                _run_child(root, seconds, bar)
                done = _outcomes(root)
                if len(done) < len(cases):
                    done.append(_ended(root, len(done)))
                if len(done) >= MUTE and all(outcome.result == "died" for outcome in done[-MUTE:]):
                    raise RuntimeError(f"the quarantine's child ended {MUTE} times before it could report anything: "
                                       f"`{sys.executable} -I -c 0` should end without an error, and within {seconds} seconds")
        return done


def _run_child(root, seconds, bar):
    """Start the child and wait; whatever it started is ended with it."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    homes = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"), str(root))  # no keys, no settings of the learner's
    session = {"start_new_session": True} if os.name == "posix" else {}
    child = subprocess.Popen([sys.executable, "-I", "-B", __file__, str(root)], cwd=root, env={**kept, **homes, "OMP_NUM_THREADS": "1"},
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **session)
    try:
        for _ in range(5 * (seconds + 5)):  # the child has a clock of its own, for the case that this process is killed
            try:
                child.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                bar.update(_reported(root) - bar.n)
    finally:
        child.kill()
        child.wait()
        if session:
            import signal
            try:
                os.killpg(child.pid, signal.SIGKILL)  # what a payload has left running
            except (ProcessLookupError, PermissionError):
                pass


def _reported(root):
    """How many files the children are done with; a line that is still being written does not count."""
    return (root / "results.jsonl").read_bytes().count(b"\n") if (root / "results.jsonl").exists() else 0


def _outcomes(root):
    """What the children have reported so far; the marker is looked for now, when nothing runs any more."""
    lines = [json.loads(line) for line in (root / "results.jsonl").read_text(encoding="utf-8").splitlines()] if (root / "results.jsonl").exists() else []
    return [Outcome(line["result"], (root / f"{k}" / MARKER).exists(), line["said"], tuple(line["names"]), line["network"]) for k, line in enumerate(lines)]


def _ended(root, number):
    """Note in the children's own report that one of them did not come back from this file."""
    line = {"result": "died", "said": "the child ended, or ran out of time, before it was done with this file", "names": [], "network": ""}
    with open(root / "results.jsonl", "a", encoding="utf-8") as results:
        results.write(json.dumps(line) + "\n")
    return _outcomes(root)[number]


# ---- from here on: what runs in the child

def _child(root):
    job = json.loads((root / "job.json").read_text())
    network = _cut_off_network()
    _limit(job["seconds"])
    sys.path += [entry for entry in job["path"] if entry not in sys.path]
    watch = _Watch(root)
    with open(root / "results.jsonl", "a", encoding="utf-8") as results:
        for number, case in list(enumerate(job["cases"]))[job["first"]:]:
            _prepare(case[0])
            os.chdir(root / f"{number}")
            os.environ["MLSEC_CASE"] = os.getcwd()  # for what pip starts elsewhere
            watch.names = []
            watch.on = True
            try:
                result, said = "loaded", _open(*case)
            except BaseException as error:  # a payload may raise SystemExit
                result, said = "refused", f"{type(error).__name__}: {error}"
            watch.on = False
            results.write(json.dumps({"result": result, "said": said[:4000], "names": watch.names, "network": network}) + "\n")
            results.flush()


def _cut_off_network():
    """Leave this machine's network, where Linux lets us (before any thread is started); the audit hook refuses sockets in any case."""
    try:
        import ctypes
        new_user, new_network = 0x10000000, 0x40000000
        return "kernel" if sys.platform == "linux" and ctypes.CDLL(None).unshare(new_user | new_network) == 0 else "hook"
    except (ImportError, OSError, AttributeError):
        return "hook"


def _limit(seconds):
    """An end of its own, and files of no more than 64 MB."""
    import faulthandler
    faulthandler.dump_traceback_later(seconds, exit=True, file=open(os.devnull, "w"))
    try:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
    except (ImportError, ValueError, OSError):
        pass


class _Watch:
    """The audit hook: notes which names a pickle asks for; while it is on, refuses sockets and any change outside the folder."""

    CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.link", "os.symlink", "shutil.rmtree")

    def __init__(self, root):
        self.root, self.on, self.names = str(root) + os.sep, False, []
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if not self.on:
            return
        if event == "pickle.find_class":
            self.names.append(".".join(arguments))
        elif event.startswith("socket.") and event != "socket.gethostname":
            raise PermissionError("the quarantine has no network")
        elif event == "open" and self._writes(*arguments) or event in self.CHANGES:
            path = arguments[0]
            if isinstance(path, (str, bytes, os.PathLike)) and not self._inside(os.fsdecode(path)):
                raise PermissionError(f"the quarantine lets nobody write to {os.fsdecode(path)}")

    def _inside(self, path):
        return path == os.devnull or os.path.realpath(path).startswith(self.root)

    @staticmethod
    def _writes(path, mode, flags):
        return any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _prepare(loader):
    """Import what the loader needs before the hook looks on: libraries ask for sockets and files as they start."""
    if "torch" in loader:
        import torch  # noqa: F401
    elif "numpy" in loader or loader == "safetensors":
        import numpy  # noqa: F401
    elif loader == "joblib":
        import joblib  # noqa: F401


def _open(loader, target, folder=""):
    """Open one file in the way that `loader` names; the type of what came, as text."""
    if loader == "pip":
        return _pip(target)
    if loader == "import":
        import importlib
        sys.path.insert(0, os.path.realpath(folder))
        try:
            importlib.invalidate_caches()
            sys.modules.pop(target, None)  # several orders of one module may be tried one after the other
            return importlib.import_module(target).__file__
        finally:
            sys.path.pop(0)
    if loader == "pickle":
        import pickle
        with open(target, "rb") as file:
            loaded = pickle.load(file)
    elif loader == "joblib":
        import joblib
        loaded = joblib.load(target)
    elif loader.startswith("torch"):
        import torch
        loaded = torch.load(target, weights_only=loader.endswith("=True)"))
    elif loader.startswith("numpy"):
        import numpy
        loaded = numpy.load(target, allow_pickle=True)
    else:
        import safetensors.numpy
        loaded = safetensors.numpy.load_file(target)
    return type(loaded).__name__


def _pip(arguments):
    """Run pip in this process; what it printed.  Raises RuntimeError, with pip's words, where it gave up."""
    import contextlib
    import io
    from pip._internal.cli.main import main
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = main(arguments)
    if status:
        raise RuntimeError(printed.getvalue().strip())
    return printed.getvalue().strip()


if __name__ == "__main__":
    _child(Path(sys.argv[1]))
