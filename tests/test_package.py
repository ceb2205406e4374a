"""The package as a whole: light to import, one way of importing, a docstring on everything public."""
import ast
import json
import statistics
import subprocess
import sys

import pytest

from mlsec_lab.home import COURSE

PACKAGE = COURSE / "mlsec_lab"
FILES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
DIRECTIONS = ("data_to_model", "model_to_data", "model_to_model", "data_to_data")
PARTS = {"victims", *DIRECTIONS, "exercises", "course", "display", "cli", "home"}
MAY_IMPORT = {"home": set(), "display": set(), "victims": {"home"}, **{direction: {"victims", "home"} for direction in DIRECTIONS},
              "exercises": {"victims", "home", *DIRECTIONS}, "course": PARTS - {"cli", "course"}, "cli": PARTS - {"cli"}, "__init__": set(), "__main__": {"cli"}}


def part_of(file):
    return file.split("/")[0].removesuffix(".py")


def imports(tree):
    """The full names of the modules of this package that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "mlsec_lab")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package in full"
            if node.module == "mlsec_lab":
                yield from (f"mlsec_lab.{alias.name}" for alias in node.names)
            elif node.module.startswith("mlsec_lab."):
                yield node.module


def fresh(code):
    """What `code` prints as JSON in a Python of its own."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_importing_the_package_takes_no_time_and_no_torch():
    code = ("import sys, time; began = time.perf_counter(); import mlsec_lab; took = time.perf_counter() - began; import json; "
            "print(json.dumps([took, [name for name in ('torch', 'numpy', 'matplotlib') if name in sys.modules]]))")
    seconds, loaded = zip(*(fresh(code) for _ in range(5)))
    assert statistics.median(seconds) <= 0.3
    assert loaded == ([],) * 5


def test_the_exercises_load_nothing_that_they_do_not_need():
    heavy = ("foolbox", "sklearn", "matplotlib", "jupytext", "nbgrader", "torchvision", "ipywidgets")
    code = ("import sys, json; from mlsec_lab.course import exercise, course_map; before = 'torch' in sys.modules; exercise('evasion.fgsm'); "
            f"print(json.dumps([before, [name for name in {heavy!r} if name in sys.modules], 'torch' in sys.modules]))")
    assert fresh(code) == [False, [], True]


@pytest.mark.parametrize("file", FILES)
def test_imports_run_one_way(file):
    part = part_of(file)
    allowed = MAY_IMPORT[part] | {part}
    for name in imports(FILES[file]):
        imported = name.split(".")[1] if "." in name else "__init__"
        if imported in PARTS:
            assert imported in allowed, f"{file} imports {name}"
        else:
            assert part in ("course", "cli") and imported == "__version__", f"{file} imports {name}"


def test_no_direction_imports_another_and_every_part_is_known():
    assert {part_of(file) for file in FILES} <= PARTS | {"__init__", "__main__"}
    for file, tree in FILES.items():
        others = {name.split(".")[1] for name in imports(tree)} & set(DIRECTIONS)
        if part_of(file) in DIRECTIONS:
            assert others <= {part_of(file)}, file


def public(tree):
    """Every function and class that can be used from outside, with its name: those of the module, and their methods.

    Left out are overridden methods of torch and io, which mean what they mean there.
    """
    inherited = {"forward", "write"}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{inner.name}", inner) for inner in node.body
                            if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_") and inner.name not in inherited)


@pytest.mark.parametrize("file", FILES)
def test_everything_public_says_what_it_does(file):
    assert ast.get_docstring(FILES[file]), f"{file} has no docstring"
    without = [name for name, node in public(FILES[file]) if not ast.get_docstring(node)]
    assert without == []


@pytest.mark.parametrize("file", FILES)
def test_files_are_named_and_written_alike_on_every_system(file):
    path = PACKAGE / file
    assert all(character in "abcdefghijklmnopqrstuvwxyz0123456789_./" for character in file)
    text = path.read_bytes()
    assert b"\r" not in text and b"\t" not in text and text.endswith(b"\n")


def test_a_topic_has_one_name_for_its_exercises_and_its_tests():
    topics = [file.removeprefix("exercises/").removesuffix(".py") for file in FILES if file.startswith("exercises/") and "__init__" not in file]
    assert topics
    for topic in topics:
        assert (COURSE / "tests" / "exercises" / f"test_{topic}.py").is_file(), topic
        lesson, = (COURSE / "solutions").glob(f"[0-9][0-9]_{topic}.py")
        assert (COURSE / "notebooks" / f"{lesson.stem}.ipynb").is_file()
