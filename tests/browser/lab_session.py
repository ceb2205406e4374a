"""The course as a learner meets it: `python3 lab.py`, a browser, a lesson, Run All, a slider. For the tests and the benchmarks.

    with running_lab(home) as lab, open_browser() as browser:
        lesson = Lesson(browser, lab, "00_start_here")
        lesson.run_all()
        lesson.move_slider(times=20)
"""
import collections
import contextlib
import os
import queue
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--no-first-run", "--disable-dev-shm-usage"]


def what_is_missing():
    """In words what keeps a browser from being driven here; "" where nothing does."""
    if os.name == "nt":
        return "these tests start and stop the server with POSIX signals"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return "" if chromium() else "there is no Chromium: install it, or name it in CHROMIUM"


def chromium():
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


# ----------------------------------------------------------------------------------------------------------- the server

class Lab:
    """A running `lab.py`.  address: what it printed.  ready: seconds until it did.  home: the learner's folder."""

    def __init__(self, process, address, ready, home):
        self.process, self.address, self.ready, self.home = process, address, ready, Path(home)

    def lesson_address(self, name):
        return re.sub(r"/notebooks/[^?]*", f"/notebooks/{name}.ipynb", self.address)


@contextlib.contextmanager
def running_lab(home, *, course=ROOT, venv=sys.prefix, seconds=120, echo=False):
    """`python3 lab.py --no-browser` in the folder `course`, until the end of the block; nothing of it outlives the block.

    home: the folder for the learner's lessons; the server's settings go beside it.  venv: None lets lab.py install its own.
    seconds: how long it may take to print its address.  echo: show what it prints.
    """
    home = Path(home)
    config = home.with_name(home.name + "_jupyter")  # never the settings of whoever runs this
    environment = {**os.environ, "MLSEC_HOME": str(home), "MLSEC_EXPOSE_APP": "1", "PYTHONUNBUFFERED": "1",
                   "JUPYTER_CONFIG_DIR": str(config / "config"), "JUPYTER_DATA_DIR": str(config / "data"),
                   "JUPYTER_RUNTIME_DIR": str(config / "runtime"), "JUPYTERLAB_SETTINGS_DIR": str(config / "settings"),
                   "JUPYTERLAB_WORKSPACES_DIR": str(config / "workspaces"), "IPYTHONDIR": str(config / "ipython")}
    environment.pop("MLSEC_VENV", None)
    environment.pop("MPLBACKEND", None)  # the lessons draw inline
    if venv:
        environment["MLSEC_VENV"] = str(venv)
    start, said = time.perf_counter(), queue.Queue()
    process = subprocess.Popen([sys.executable, "lab.py", "--no-browser"], cwd=str(course), env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    threading.Thread(target=_read, args=(process.stdout, said, echo), daemon=True).start()
    try:
        yield Lab(process, _address(said, start + seconds), time.perf_counter() - start, home)
    finally:
        _stop(process)


def _read(stream, said, echo):
    for line in stream:
        said.put(line)
        if echo:
            print("  " + line, end="", flush=True)
    said.put(None)


def _address(said, deadline):
    """The address among the lines that lab.py prints; RuntimeError with all of them if it ends, or takes too long."""
    lines = []
    while True:
        try:
            line = said.get(timeout=max(deadline - time.perf_counter(), 0))
        except queue.Empty:
            raise RuntimeError("lab.py printed no address in time:\n" + "".join(lines)) from None
        if line is None:
            raise RuntimeError("lab.py ended:\n" + "".join(lines))
        lines.append(line)
        found = re.search(r"http://127\.0\.0\.1:\S+", line)
        if found:
            return found.group()


def _stop(process):
    """Ctrl-C, which lets lab.py shut the server and its kernels down; SIGTERM, which it takes the same way; at last SIGKILL."""
    for ending, seconds in ((signal.SIGINT, 40), (signal.SIGTERM, 20), (signal.SIGKILL, 10)):
        if process.poll() is None:
            process.send_signal(ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)


def processes_with(home):
    """Ids of running processes whose environment names this learner's folder (Linux; [] elsewhere)."""
    found, wanted = [], f"MLSEC_HOME={home}\0".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


# ---------------------------------------------------------------------------------------------------------- the browser

@contextlib.contextmanager
def open_browser(size=(1200, 1000)):
    """A headless Chromium with one profile, until the end of the block."""
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), headless=True, args=FLAGS)
        try:
            yield browser.new_context(viewport={"width": size[0], "height": size[1]})
        finally:
            browser.close()


PANEL = "window.jupyterapp.shell.currentWidget"
IDLE = """() => {
  const panel = window.jupyterapp?.shell?.currentWidget;
  return panel?.content?.widgets?.length > 0 && panel.sessionContext?.session?.kernel?.status === 'idle';
}"""
OUTPUTS = f"() => {PANEL}.content.model.toJSON().cells"
# Seconds from the command to the first picture that can be seen, and to the end of the last cell.
RUN_ALL = """async () => {
  const start = performance.now(), panel = window.jupyterapp.shell.currentWidget.node;
  let picture = null, running = true;
  const watch = (async () => {
    while (running && picture === null) {
      const image = panel.querySelector('.jp-OutputArea-output img');
      if (image) { await image.decode().catch(() => 0); picture = performance.now() - start; }
      await new Promise(again => setTimeout(again, 5));
    }
  })();
  await window.jupyterapp.commands.execute('notebook:run-all-cells');
  const all = performance.now() - start;
  running = false;
  await watch;
  return {first_picture: picture === null ? null : picture / 1000, run_all: all / 1000};
}"""
# Waits for a key press, then for another picture in this explorer: milliseconds between them, null after 15 seconds.
MOVED = """explorer => {
  const image = () => explorer.querySelector('.mlsec-picture img'), before = image()?.src;
  window.mlsecMoved = new Promise(done => document.addEventListener('keydown', async () => {
    const start = performance.now();
    while (!image() || image().src === before) {
      if (performance.now() - start > 15000) return done(null);
      await new Promise(again => setTimeout(again, 1));
    }
    await image().decode().catch(() => 0);
    requestAnimationFrame(() => done(performance.now() - start));
  }, {once: true, capture: true}));
}"""


Shown = collections.namedtuple("Shown", "picture caption number")


class Lesson:
    """A lesson in a browser tab of its own.

    lab_open: seconds until its kernel was idle.  errors: uncaught errors in the page.  strangers: requests to other computers.
    After run_all() also: first_picture and all_cells, in seconds.
    """

    def __init__(self, browser, lab, name):
        self.name, self.page, self.errors, self.strangers = name, browser.new_page(), [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("websocket", lambda socket: self._note(socket.url))
        start = time.perf_counter()
        self.page.goto(lab.lesson_address(name), timeout=60_000)
        self.wait_for_kernel()
        self.lab_open = time.perf_counter() - start

    def _note(self, url):
        address = urllib.parse.urlsplit(url)
        if address.scheme in ("http", "https", "ws", "wss") and address.hostname != "127.0.0.1":
            self.strangers.append(url)

    def wait_for_kernel(self):
        self.page.wait_for_function(IDLE, timeout=60_000)  # before that a Run All is lost

    def command(self, name, **arguments):
        """A JupyterLab command, such as "docmanager:save"; returns when it has ended."""
        return self.page.evaluate("([name, given]) => window.jupyterapp.commands.execute(name, given).then(() => null)", [name, arguments])

    def path(self):
        """The file in front, "notebooks/01_evasion.ipynb"; None while there is none."""
        return self.page.evaluate(f"() => {PANEL}?.context?.path ?? null")

    def show(self):
        """Bring this lesson to the front: the browser slows down what is behind."""
        self.page.bring_to_front()
        self.command("docmanager:open", path=f"notebooks/{self.name}.ipynb")
        self.wait_for_kernel()

    def run_all(self):
        took = self.page.evaluate(RUN_ALL)
        self.first_picture, self.all_cells = took["first_picture"], took["run_all"]
        self.page.wait_for_timeout(500)  # widgets and pictures of the last cells
        return self

    def cells(self):
        """The code cells as they are: [{"id", "source", "execution_count", "outputs"}, …]."""
        return [cell for cell in self.page.evaluate(OUTPUTS) if cell["cell_type"] == "code"]

    def code(self, id):
        """One code cell as it is."""
        return next(cell for cell in self.cells() if cell["id"] == id)

    def pictures(self):
        """The alternative texts of all pictures in outputs."""
        return self.page.evaluate(f"() => [...{PANEL}.node.querySelectorAll('.jp-OutputArea-output img')].map(image => image.alt)")

    def output_errors(self):
        """What JupyterLab itself says in the place of an output that it could not show."""
        return self.page.evaluate(f"() => [...{PANEL}.node.querySelectorAll('.jp-OutputArea-output')].map(output => output.innerText)"
                                  ".filter(text => text.includes('Javascript Error') || text.includes('Error displaying widget'))")

    def popups(self):
        """The texts of dialogues and notifications that lie over the page."""
        return self.page.locator(".jp-Dialog, .Toastify__toast").all_inner_texts()

    def cell(self, id):
        """Its place on the page, in view."""
        number = [cell["id"] for cell in self.page.evaluate(OUTPUTS)].index(id)
        cell = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-viewport > .jp-Cell").nth(number)
        cell.scroll_into_view_if_needed()
        return cell

    def write(self, id, source):
        """Replace what stands in a code cell, by keyboard, and run it with Shift + Enter."""
        before = self.page.evaluate(OUTPUTS)
        self.cell(id).locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)
        self._run(before, id)

    def run(self, id):
        """Run one code cell with Shift + Enter."""
        before = self.page.evaluate(OUTPUTS)
        self.cell(id).locator(".cm-content").click()
        self._run(before, id)

    def _run(self, before, id):
        count = {cell["id"]: cell.get("execution_count") for cell in before}[id]
        self.page.keyboard.press("Shift+Enter")
        self.page.wait_for_function(f"""([id, count]) => {PANEL}.content.model.toJSON().cells
            .some(cell => cell.id === id && cell.execution_count && cell.execution_count !== count)""", arg=[id, count], timeout=60_000)
        self.page.wait_for_function(IDLE, timeout=60_000)

    # ------------------------------------------------------------------------------------------------------- the explorer

    def explorer(self):
        """The first explorer of the lesson, in view."""
        explorer = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-OutputArea-output:has(.mlsec-picture)").first
        explorer.scroll_into_view_if_needed()
        return explorer

    def shown(self):
        """What the explorer shows: its picture, the caption, and the first slider's number."""
        explorer = self.explorer()
        return Shown(explorer.locator(".mlsec-picture img").get_attribute("src"), explorer.locator(".mlsec-picture figcaption").inner_text(),
                     explorer.locator("input[type=number]").first.input_value())

    def settle(self):
        """Wait until the kernel has nothing left to draw."""
        self.page.wait_for_timeout(100)
        self.page.wait_for_function(IDLE, timeout=60_000)
        self.page.wait_for_timeout(100)

    def focus_slider(self):
        self.page.bring_to_front()
        self.explorer().locator(".noUi-handle").first.focus()

    def type_number(self, number):
        """Type a number into the box beside the first slider."""
        self.page.bring_to_front()
        self.explorer().locator("input[type=number]").first.fill(str(number))
        self.page.keyboard.press("Enter")
        self.settle()

    def press(self, *keys):
        """Press keys; milliseconds from the first one to another picture in the explorer, None if there came none."""
        self.explorer().evaluate(MOVED)
        for key in keys:
            self.page.keyboard.press(key)
        return self.page.evaluate("() => window.mlsecMoved")

    def move_slider(self, times=20):
        """Move the explorer's first slider with the arrow keys, a step to and a step fro; milliseconds for each.

        One move more comes first and is not counted: it finds everything cold.
        """
        self.focus_slider()
        return [self.press("ArrowLeft" if move % 2 else "ArrowRight") for move in range(times + 1)][1:]

    # -------------------------------------------------------------------------------------------------------- screenshots

    def screenshots(self, folder):
        """The whole lesson as pictures, one a screenful; returns their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        scroller = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer")
        size = self.page.viewport_size
        saved, top, last = [], 0, 0
        while top <= last:
            # Cells are laid out when they come into view, so the end is found on the way. Below it there is one empty screenful.
            last = scroller.evaluate("""(box, top) => {
                box.scrollTop = top;
                const cells = box.querySelectorAll('.jp-Cell'), end = cells[cells.length - 1].getBoundingClientRect().bottom;
                return end - box.getBoundingClientRect().top + box.scrollTop - box.clientHeight / 4;
            }""", top)
            self.page.wait_for_timeout(400)
            saved.append(folder / f"{self.name}_{len(saved):02}.png")
            self.page.screenshot(path=str(saved[-1]))
            top += size["height"] - 200
        return saved


def summary(milliseconds):
    """(median, 90th percentile, largest)."""
    ordered = sorted(milliseconds)
    return statistics.median(ordered), ordered[int(0.9 * (len(ordered) - 1))], ordered[-1]
