"""Is this machine ready for the course?  `mlsec-lab doctor`, and the first cell of lesson 00."""
import os
import platform
import shutil
import sys
import time


def examine():
    """[(what, finding, is it well)]: the rows of the report."""
    import torch

    from mlsec_lab import __version__
    from mlsec_lab.home import COURSE, work_folder
    rows = [("course", f"mlsec-lab {__version__} in {COURSE}", True),
            ("Python", f"{platform.python_version()} on {platform.system()} ({platform.machine()})", sys.version_info >= (3, 10)),
            ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
             + (", a GPU (not needed)" if torch.cuda.is_available() else ""), True),
            ("torchvision", *_torchvision()), ("checkpoints", *_checkpoints()), ("real data", *_data()), ("speed", *_speed())]
    free = shutil.disk_usage(COURSE).free / 2**30
    rows.append(("disk", f"{free:.0f} GB free", free > 1))
    folder = work_folder()
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    rows.append(("your work", f"{folder}" + ("" if os.access(nearest, os.W_OK) else ": cannot be written; set MLSEC_HOME to a folder of yours"),
                 os.access(nearest, os.W_OK)))
    return rows


def report(rows=None):
    """The report as text, a line a finding."""
    return "\n".join(f"{'ok ' if well else 'NO '} {what:12} {finding}" for what, finding, well in rows or examine())


def _torchvision():
    try:
        from mlsec_lab.victims import datasets
        version = datasets.import_torchvision().__version__
    except Exception as error:
        return f"cannot be imported ({error}): the drawn signs work without it, the real data sets do not", False
    return version + (" (works without its compiled part)" if datasets._declared is not None else ""), True


def _checkpoints():
    from mlsec_lab.victims.checkpoints import SHIPPED, load_model, read_manifest
    try:
        names = list(read_manifest())
        for name in names:
            load_model(name)
    except (OSError, ValueError) as error:
        return str(error), False
    return (f"{len(names)} shipped, each as published", True) if names else (f"none in {SHIPPED}: fetch the course again", False)


def _data():
    from mlsec_lab.victims.datasets import data_folder
    try:
        folder = data_folder()
    except FileNotFoundError as error:
        return str(error), False
    marks = {"fashion_mnist": "FashionMNIST", "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "gtsrb": "gtsrb32.npz"}
    there = [name for name, mark in marks.items() if (folder / mark).exists() or (name == "gtsrb" and (folder / "gtsrb").exists())]
    return (", ".join(there) if there else "none yet; the lessons do without") + f" ({folder})", True


def _speed():
    """How long a small attack takes: a lesson's Run All is about two hundred of these."""
    from mlsec_lab.data_to_model.evasion import pgd
    from mlsec_lab.victims import load_data, small_cnn
    x, y, _ = load_data("signs", "test", n=64)
    model = small_cnn()
    pgd(model, x, y, eps=0.03, steps=1)
    began = time.perf_counter()
    pgd(model, x, y, eps=0.03, steps=10, early_stop=False)
    seconds = time.perf_counter() - began
    slow = seconds > 2
    return f"ten attack steps on 64 signs in {seconds * 1000:.0f} ms" + ("; that is slow: close other programs" if slow else ""), not slow
