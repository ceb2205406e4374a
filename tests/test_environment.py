"""The three lists of dependencies agree: pyproject.toml (the ranges), constraints.txt (the tested versions), environment.yml (conda)."""
import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
CONDA_NAMES = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def ranges_in(lines):
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in requirements}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def conda():
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def constraint_lines():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def versions_for(lines, python):
    """name -> the pinned version that pip would take on this Python."""
    pinned = {}
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            assert requirement.name not in pinned, f"{requirement.name} is pinned twice for Python {python}"
            pinned[canonicalize_name(requirement.name)] = str(requirement.specifier).replace("==", "", 1)
    return pinned


def direct_dependencies(project):
    """Every package that pyproject.toml names itself, but for the benchmarks, which never belong to an installation."""
    extras = [line for extra, lines in project["optional-dependencies"].items() if extra != "benchmark" for line in lines]
    return ranges_in(line for line in project["dependencies"] + extras if Requirement(line).name != project["name"])


def test_conda_has_the_dependencies_of_the_package_in_the_same_ranges(project, conda):
    by_pip = next(entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    by_conda = ranges_in(entry for entry in conda["dependencies"] if isinstance(entry, str))
    assert str(by_conda.pop("python")) == project["requires-python"]
    by_conda.pop("pip")
    assert by_pip[-1] == "-e .", "the package itself comes last, when its dependencies are there"
    found = {**by_conda, **ranges_in(by_pip[:-1])}
    wanted = {CONDA_NAMES.get(name, name): specifier for name, specifier in ranges_in(project["dependencies"]).items()}
    assert found == wanted
    assert set(ranges_in(by_pip[:-1])) == {"foolbox", "picklescan"}, "only what conda-forge lacks may come from pip"


def test_conda_forge_is_the_only_channel(conda):
    assert conda["channels"] == ["conda-forge"]
    assert not [entry for entry in conda["dependencies"] if isinstance(entry, str) and "::" in entry]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_tested_versions_lie_in_the_ranges(project, constraint_lines, python):
    pinned, direct = versions_for(constraint_lines, python), direct_dependencies(project)
    assert len(direct) > 15
    missing = sorted(set(direct) - set(pinned))
    assert not missing, f"constraints.txt does not name {missing} for Python {python}"
    outside = {name: pinned[name] for name, specifier in direct.items() if not specifier.contains(pinned[name])}
    assert not outside


def test_constraints_are_plain_versions_without_paths_hosts_or_local_builds(constraint_lines):
    odd = [line for line in constraint_lines
           if not re.fullmatch(r'[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.]*(; python_version (>=|<) "3\.\d+")?', line)]
    assert not odd
    assert not re.search(r"[/\\@+]|file:|https?:", "\n".join(constraint_lines))


def test_constraints_leave_out_what_only_a_graphics_card_or_pip_itself_needs(constraint_lines):
    names = {canonicalize_name(Requirement(line).name) for line in constraint_lines}
    assert not [name for name in names if re.match(r"nvidia-|cuda-|triton", name)]
    assert not names & {"pip", "setuptools", "wheel", "mlsec-lab"}
