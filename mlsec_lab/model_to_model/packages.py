"""Supply chain, the part of packages: look-alikes under a name that pip is asked for, and the lock that refuses them (OWASP ML06).

Dependency confusion (Birsan, 2021): of two indexes pip takes the higher version, whoever published it. Everything is built here, in folders of the
caller's, and installed in quarantine, without any index; the look-alikes run no more than the code that they are given.
"""
import base64
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from mlsec_lab.model_to_model.quarantine import open_in_quarantine


# ---- packages

def wheel(folder, name, version, source, *, build=""):
    """Write a wheel, a zip archive of a fixed layout, whose only module holds `source`.  build: a build tag; of two wheels of one version
    pip takes the higher one.  Returns its path."""
    facts = f"{name}-{version}.dist-info"
    files = {f"{name}.py": source, f"{facts}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
             f"{facts}/WHEEL": "Wheel-Version: 1.0\nGenerator: mlsec-lab\nRoot-Is-Purelib: true\n" + (f"Build: {build}\n" if build else "") + "Tag: py3-none-any\n"}
    rows = [f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text.encode())}" for path, text in files.items()]
    files[f"{facts}/RECORD"] = "\n".join([*rows, f"{facts}/RECORD,,"]) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{build + '-' if build else ''}py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(zipfile.ZipInfo(inside), text)  # without the time of day: the same content, the same hash
    return path


def source_package(folder, name, version, code):
    """Write a source package that is its own build system, so that pip runs `code` before anything is installed.  Returns its path."""
    backend = f"{code}\n\ndef build_wheel(folder, settings=None, metadata=None):\n    raise SystemExit('there is nothing to build')\n"
    files = {"pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n', "backend.py": backend,
             "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for inside, text in files.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{inside}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def lock(name, version, paths):
    """One line of a hash-locked requirements file: this version, and these files of it and no others."""
    return f"{name}=={version} " + " ".join(f"--hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths)


def install(orders, module):
    """Install each order in quarantine with pip, then import `module`: [(Outcome of pip, Outcome of the import)].

    orders: pairs (a line of requirements, [folders to look in]). pip asks no network (`--no-index`), installs into a folder that is deleted and,
    where a line has a hash, takes nothing without one (`--require-hashes`).
    """
    with TemporaryDirectory() as folder:
        cases = []
        for number, (line, indexes) in enumerate(orders):
            requirements = Path(folder) / f"{number}.txt"
            requirements.write_text(line + "\n")
            links = [argument for index in indexes for argument in ("--find-links", str(index))]
            hashed = ["--require-hashes"] if "--hash=" in line else []
            cases.append(("pip", ["install", "--isolated", "--disable-pip-version-check", "--no-index", "--no-cache-dir", "--no-deps", "--no-compile",
                                  "--target", "installed", *links, *hashed, "-r", str(requirements)]))
            cases.append(("import", module, f"../{2 * number}/installed"))
        outcomes = open_in_quarantine(cases)
    return list(zip(outcomes[::2], outcomes[1::2]))
