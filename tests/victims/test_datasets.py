"""The data sets: what is promised of each, and one clear sentence where a file is missing, damaged or out of reach."""
import csv
import os
import pickle
import subprocess
import sys
import time
import urllib.error

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlsec_lab.victims import datasets, load_data
from mlsec_lab.victims.datasets import DATA_SETS, GTSRB_CLASSES, data_folder, import_torchvision

MODEST = settings(deadline=None, max_examples=12, derandomize=True)
DIGITS = {"train": 1297, "test": 500}


@pytest.fixture(autouse=True)
def nothing_remembered():
    """What is read of a file is kept between calls; not between these tests."""
    def forget():
        datasets._read.cache_clear()
    forget()
    yield
    forget()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder that MLSEC_DATA names, on a machine without a network."""
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("MLSEC_DATA", str(data))
    import_torchvision()
    from torchvision.datasets import cifar, gtsrb, mnist

    def unreachable(url, *arguments, **named):
        raise urllib.error.URLError("no route to host")

    for module in (cifar, gtsrb, mnist):
        monkeypatch.setattr(module, "download_and_extract_archive", unreachable)
    return data


def refusal(name, split="test"):
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as error:
        load_data(name, split)
    assert time.perf_counter() - start < 5
    message = str(error.value)
    assert "\n" not in message.strip() and len(message) < 600 and "Traceback" not in message
    return message


def rows(x):
    return {image.tobytes() for image in x.numpy()}


# ---- what needs no file

@pytest.mark.parametrize("name, shape, classes", [("signs", (3, 32, 32), 12), ("digits", (1, 8, 8), 10)])
@pytest.mark.parametrize("split", ["train", "test"])
def test_shapes_types_and_ranges_are_as_promised(name, shape, classes, split):
    x, y, names = load_data(name, split, n=300)
    assert x.shape == (300, *shape) and x.dtype == torch.float32 and x.is_contiguous()
    assert y.shape == (300,) and y.dtype == torch.int64
    assert x.min() >= 0 and x.max() <= 1 and x.max() > 0.9
    assert set(y.tolist()) == set(range(classes)) and len(names) == len(set(names)) == classes
    assert all(isinstance(label, str) for label in names) and isinstance(names, tuple)


def test_the_digits_are_complete_and_no_image_is_in_both_splits():
    train, test = load_data("digits", "train"), load_data("digits", "test")
    assert (len(train.x), len(test.x)) == (DIGITS["train"], DIGITS["test"])
    assert not rows(train.x) & rows(test.x)
    assert torch.bincount(test.y).min() >= 35 and torch.bincount(train.y).min() >= 110
    assert torch.equal(train.x * 16, (train.x * 16).round())


def test_no_sign_that_is_drawn_for_training_is_drawn_for_testing():
    drawn = {split: rows(torch.cat([load_data("signs", split, n=60, seed=seed).x for seed in range(6)])) for split in ("train", "test")}
    assert len(drawn["train"]) == len(drawn["test"]) == 360  # nor does one seed repeat another
    assert not drawn["train"] & drawn["test"]


def test_signs_come_in_the_promised_number_without_n(monkeypatch):
    asked = []
    monkeypatch.setattr(datasets.signs, "draw", lambda n, seed: asked.append((n, seed)) or (torch.zeros(1), torch.zeros(1)))
    for split in ("train", "test"):
        for seed in (0, 1):
            load_data("signs", split, seed=seed)
    assert [n for n, _ in asked] == [20_000, 20_000, 2_000, 2_000]
    assert len({seed for _, seed in asked}) == 4


@MODEST
@given(n=st.integers(1, 500), seed=st.integers(0, 10_000))
def test_n_digits_are_drawn_without_replacement_by_the_seed(n, seed):
    x, y, _ = load_data("digits", "test", n=n, seed=seed)
    again, whole = load_data("digits", "test", n=n, seed=seed), load_data("digits", "test")
    assert len(x) == len(y) == n and len(rows(x)) == n
    assert torch.equal(x, again.x) and torch.equal(y, again.y)
    label = {image.tobytes(): int(true) for image, true in zip(whole.x.numpy(), whole.y)}
    assert all(label[image.tobytes()] == true for image, true in zip(x.numpy(), y.tolist()))


@pytest.mark.parametrize("name", ["signs", "digits"])
def test_another_seed_draws_others_and_the_global_random_state_is_left_alone(name):
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    first, second = load_data(name, "test", n=40, seed=1), load_data(name, "test", n=40, seed=2)
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tobytes() == before[1]
    assert not torch.equal(first.x, second.x)


def test_what_is_handed_out_is_the_callers_to_change():
    first = load_data("digits", "test")
    first.x.zero_(), first.y.zero_()
    second = load_data("digits", "test")
    assert second.x.max() == 1 and second.y.max() == 9


@pytest.mark.parametrize("arguments, name, got", [
    (("mnist",), "name", "'mnist'"), ((None,), "name", "None"), (("Digits",), "name", "'Digits'"),
    (("digits", "valid"), "split", "'valid'"), (("digits", True), "split", "True")])
def test_an_unknown_name_or_split_is_refused_by_name(arguments, name, got):
    with pytest.raises(ValueError) as error:
        load_data(*arguments)
    assert str(error.value).startswith(f"{name} must be one of") and got in str(error.value)
    assert (", ".join(map(repr, DATA_SETS)) if name == "name" else "'train', 'test'") in str(error.value)


@pytest.mark.parametrize("data", ["signs", "digits"])
@pytest.mark.parametrize("name, value", [("n", 0), ("n", -3), ("n", 2.5), ("n", "10"), ("n", True), ("seed", -1), ("seed", "a"), ("seed", None)])
def test_a_number_of_images_or_a_seed_that_makes_no_sense_is_refused_by_name(data, name, value):
    with pytest.raises(ValueError) as error:
        load_data(data, "test", **{name: value})
    assert str(error.value).startswith(f"{name} must") and repr(value) in str(error.value)


def test_more_than_there_are_is_refused_with_the_size_of_the_split():
    for split, size in DIGITS.items():
        assert len(load_data("digits", split, n=size).x) == size
        with pytest.raises(ValueError, match=f"^n must be at most {size}, the size of digits's {split} split, not {size + 1}"):
            load_data("digits", split, n=size + 1)


# ---- where there is nothing, or something else

def test_a_data_folder_that_is_none_is_named_in_one_sentence(tmp_path, monkeypatch):
    for nowhere in (tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").touch()
        monkeypatch.setenv("MLSEC_DATA", str(nowhere))
        for name in ("gtsrb", "fashion_mnist", "cifar10", "cifar100"):
            message = refusal(name)
            assert str(nowhere) in message and "MLSEC_DATA" in message and "unset" in message
    assert len(load_data("digits", "test").x) == 500  # these need no folder


def test_without_the_variable_the_courses_own_folder_is_meant(monkeypatch):
    monkeypatch.delenv("MLSEC_DATA", raising=False)
    assert data_folder() == datasets.COURSE / "data" and data_folder().is_dir()
    monkeypatch.setenv("MLSEC_DATA", "")
    assert data_folder() == datasets.COURSE / "data"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["gtsrb", "fashion_mnist", "cifar10", "cifar100"])
def test_an_empty_folder_without_a_network_is_one_sentence_that_says_what_to_do(folder, name, split):
    message = refusal(name, split)
    assert message.startswith(f"{name} is not in {folder}") and "no route to host" in message
    assert "MLSEC_DATA" in message and "'signs'" in message


# ---- gtsrb32.npz

def write_packed(folder, **changes):
    rng = np.random.default_rng(0)
    arrays = {f"{kind}_{split}": value for split, n in (("train", 90), ("test", 50))
              for kind, value in (("x", rng.integers(0, 256, (n, 3, 32, 32), np.uint8)), ("y", rng.integers(0, 43, n)))}
    arrays.update(changes)
    np.savez_compressed(folder / "gtsrb32.npz", **{name: value for name, value in arrays.items() if value is not None})
    return arrays


@pytest.mark.parametrize("split", ["train", "test"])
def test_packed_signs_are_read_as_they_are(folder, split):
    arrays = write_packed(folder)
    x, y, classes = load_data("gtsrb", split)
    assert torch.equal((x * 255).round().to(torch.uint8), torch.from_numpy(arrays[f"x_{split}"])) and x.dtype == torch.float32
    assert y.tolist() == arrays[f"y_{split}"].tolist() and y.dtype == torch.int64
    assert classes == GTSRB_CLASSES and len(set(classes)) == 43
    some = load_data("gtsrb", split, n=20, seed=3)
    assert len(some.x) == 20 and rows(some.x) < rows(x)


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_pack_is_one_sentence_with_the_way_out(folder, kept):
    write_packed(folder)
    path = folder / "gtsrb32.npz"
    content = path.read_bytes()
    path.write_bytes(content[:kept if isinstance(kept, int) else int(kept * len(content))])
    message = refusal("gtsrb")
    assert message.startswith(f"{path} is damaged") and "delete it" in message


def test_a_pack_that_lacks_a_split_or_holds_objects_is_one_sentence(folder):
    for changes in (dict(x_test=None), dict(y_test=None), dict(x_test=np.array([{"run": "me"}], dtype=object))):
        write_packed(folder, **changes)
        assert refusal("gtsrb").startswith(f"{folder / 'gtsrb32.npz'} is damaged")


# ---- torchvision's layouts

def write_gtsrb_tree(folder, size=(40, 48)):
    """What torchvision.datasets.GTSRB expects, with one flat colour a picture: red tells the class, green the number of the picture."""
    train, test = folder / "gtsrb/GTSRB/Training", folder / "gtsrb/GTSRB/Final_Test/Images"
    test.mkdir(parents=True)
    for label in range(43):
        (train / f"{label:05d}").mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", size, (label * 5, number * 100, 7)).save(train / f"{label:05d}" / f"00000_{number:05d}.ppm")
    with open(folder / "gtsrb/GT-final_test.csv", "w", newline="") as file:
        lines = csv.writer(file, delimiter=";")
        lines.writerow(["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"])
        for number, label in enumerate((14, 0, 42, 14)):
            Image.new("RGB", size, (label * 5, number, 9)).save(test / f"{number:05d}.ppm")
            lines.writerow([f"{number:05d}.ppm", *size, 5, 5, 35, 43, label])


def test_gtsrb_is_read_from_torchvisions_layout_and_resized(folder):
    write_gtsrb_tree(folder)
    x, y, classes = load_data("gtsrb", "train")
    assert x.shape == (86, 3, 32, 32) and y.tolist() == [label for label in range(43) for _ in range(2)]
    assert torch.allclose(x[:, 0, 16, 16] * 255, y * 5.0, atol=0.5) and classes[14] == "stop"
    x, y, _ = load_data("gtsrb", "test")
    assert x.shape == (4, 3, 32, 32) and y.tolist() == [14, 0, 42, 14]
    assert torch.allclose(x[:, :, 3, 30] * 255, torch.tensor([[70.0, 0, 9], [0, 1, 9], [210, 2, 9], [70, 3, 9]]), atol=0.5)


def test_the_pack_goes_before_the_tree(folder):
    write_gtsrb_tree(folder)
    write_packed(folder)
    assert len(load_data("gtsrb", "test").x) == 50 and len(load_data("gtsrb", "train").x) == 90


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / "gtsrb/GTSRB/Final_Test/Images/00002.ppm").write_bytes(b"P6 40 48 255\n\0\0\0"),
    lambda folder: (folder / "gtsrb/GTSRB/Final_Test/Images/00002.ppm").unlink(),
    lambda folder: (folder / "gtsrb/GT-final_test.csv").write_text("Filename;Wid"),
    lambda folder: (folder / "gtsrb/GT-final_test.csv").unlink()], ids=["picture cut", "picture gone", "list cut", "list gone"])
def test_a_damaged_tree_of_signs_is_one_sentence_with_the_way_out(folder, damage):
    write_gtsrb_tree(folder)
    damage(folder)
    message = refusal("gtsrb")
    assert str(folder) in message and "gtsrb" in message and "delete" in message


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


def write_fashion(folder):
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng, arrays = np.random.default_rng(0), {}
    for split, prefix, n in (("train", "train", 30), ("test", "t10k", 20)):
        arrays[split] = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n).astype(np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx(arrays[split][0]))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(arrays[split][1]))
    return arrays


@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_is_read_from_torchvisions_layout(folder, split):
    images, labels = write_fashion(folder)[split]
    x, y, classes = load_data("fashion_mnist", split)
    assert np.array_equal((x * 255).round().to(torch.uint8).numpy()[:, 0], images) and x.shape[1:] == (1, 28, 28)
    assert y.tolist() == labels.tolist() and len(classes) == 10 and "sneaker" in classes


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
@pytest.mark.parametrize("kept", [0, 3, 6, 0.5, 0.99])
def test_a_truncated_file_of_fashion_is_one_sentence_with_the_way_out(folder, kind, kept):
    write_fashion(folder)
    path = folder / "FashionMNIST" / "raw" / f"t10k-{kind}-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:kept if isinstance(kept, int) else int(kept * len(content))])
    message = refusal("fashion_mnist")
    assert "fashion_mnist" in message and str(folder) in message and "delete" in message
    assert len(load_data("fashion_mnist", "train").x) == 30  # the other split is whole


@pytest.mark.parametrize("name, files", [("cifar10", ["cifar-10-batches-py/test_batch", "cifar-10-batches-py/batches.meta"]),
                                         ("cifar100", ["cifar-100-python/test", "cifar-100-python/meta"])])
def test_a_cifar_file_that_is_not_the_published_one_is_never_unpickled(folder, name, files):
    class Mine:
        def __reduce__(self):
            return os.mkdir, (str(folder / "was_run"),)

    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(pickle.dumps(Mine()))
    message = refusal(name)
    assert name in message and str(folder) in message and "delete" in message
    assert not (folder / "was_run").exists()


# ---- the faces

def write_olivetti(folder):
    """Forty people of ten shots in the layout of olivettifaces.mat: columns of pixels, each picture column by column."""
    from scipy.io import savemat
    images = np.random.default_rng(0).integers(0, 256, (40, 10, 64, 64), np.uint8)
    images[:, :, :32, :] //= 4  # dark above, light below
    (folder / "olivetti").mkdir()
    savemat(folder / "olivetti" / "olivettifaces.mat", {"faces": images.transpose(0, 1, 3, 2).reshape(400, 4096).T})
    return images


def test_olivetti_faces_stand_upright_and_each_person_is_in_one_set(folder):
    images = write_olivetti(folder)
    shots = {(name, split): load_data(name, split) for name in ("olivetti", "olivetti_public") for split in ("train", "test")}
    assert all(data.x.shape == (100, 1, 32, 32) and torch.bincount(data.y).tolist() == [5] * 20 for data in shots.values())
    first = shots["olivetti", "train"]
    assert first.x[:, :, :16].mean() < 0.4 * first.x[:, :, 16:].mean() and first.classes[0] == "person 1"
    expected = images[0, 2].reshape(32, 2, 32, 2).mean((1, 3)).round()
    assert np.array_equal((first.x[1, 0] * 255).round().numpy(), expected)
    assert not set(first.classes) & set(shots["olivetti_public", "test"].classes)
    assert len(rows(torch.cat([data.x for data in shots.values()]))) == 400


@pytest.mark.parametrize("damage", [None, b"", b"MATLAB 5.0 MAT-file" + bytes(300)], ids=["missing", "empty", "cut"])
def test_a_missing_or_damaged_file_of_faces_is_one_sentence_with_the_way_out(folder, damage):
    if damage is not None:
        (folder / "olivetti").mkdir()
        (folder / "olivetti" / "olivettifaces.mat").write_bytes(damage)
    message = refusal("olivetti")
    assert str(folder) in message and "olivettifaces.mat" in message and "download" in message


# ---- torchvision itself

IN_A_NEW_PROCESS = """
import torch, sys
from mlsec_lab.victims import datasets
calls = []
{patch}
module = datasets.import_torchvision()
assert module is sys.modules["torchvision"] is datasets.import_torchvision()
from torchvision import datasets as sets, transforms
assert transforms.functional.hflip(torch.arange(3.0).reshape(1, 1, 3)).tolist() == [[[2, 1, 0]]]
assert hasattr(sets, "GTSRB")
print("declared" if datasets._declared is not None else "untouched", len(calls) > 0)
"""
BROKEN = """
def load_library(path):
    calls.append(path)
    raise OSError("undefined symbol")
torch.ops.load_library = load_library
"""


@pytest.mark.parametrize("patch", ["", BROKEN], ids=["as it is", "broken"])
def test_torchvision_is_imported_whether_or_not_its_compiled_part_loads(patch):
    other = subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS.format(patch=patch)], capture_output=True, text=True)
    assert other.returncode == 0, other.stderr
    declared, called = other.stdout.split()
    assert declared == "declared" or not patch
    assert called == str(bool(patch))


WITH_A_STAND_IN = """
import torch
def load_library(path):
    print("tried", path.rsplit("_C", 1)[1])
    if {fails}:
        raise OSError("undefined symbol")
torch.ops.load_library = load_library
from mlsec_lab.victims import datasets
print("nms", datasets.import_torchvision().nms_was_there, datasets._declared is not None)
"""


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("suffix", [".so", ".pyd"])
def test_operators_are_declared_only_where_the_compiled_part_does_not_load(tmp_path, fails, suffix):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / f"_C{suffix}").touch()
    (package / "__init__.py").write_text("import torch\nnms_was_there = hasattr(torch.ops.torchvision, 'nms')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(datasets.COURSE)])}
    other = subprocess.run([sys.executable, "-c", WITH_A_STAND_IN.format(fails=fails)], capture_output=True, text=True, env=environment)
    assert other.returncode == 0, other.stderr
    assert other.stdout.split("\n")[:2] == [f"tried {suffix}", f"nms {fails} {fails}"]


# ---- the real thing

@pytest.mark.data
@pytest.mark.parametrize("name, shape, sizes, classes", [
    ("gtsrb", (3, 32, 32), ("26640|39209", "12630"), 43), ("fashion_mnist", (1, 28, 28), ("60000", "10000"), 10), ("cifar10", (3, 32, 32), ("50000", "10000"), 10)])
def test_a_real_data_set_is_complete(name, shape, sizes, classes, real_data):
    for split, size in zip(("train", "test"), sizes):
        x, y, names = load_data(name, split, n=3000)
        assert x.shape == (3000, *shape) and 0 <= x.min() and x.max() <= 1 and 0.2 < x.mean() < 0.6
        assert set(y.tolist()) == set(range(classes)) and len(set(names)) == classes
        with pytest.raises(ValueError, match=f"^n must be at most ({size}),"):  # torchvision serves fewer traffic signs than the original
            load_data(name, split, n=10**6)


@pytest.mark.data
def test_the_real_faces_are_complete(real_data):
    if not os.path.isfile(os.path.join(real_data, "olivetti", "olivettifaces.mat")):
        pytest.skip("MLSEC_DATA has no olivetti/olivettifaces.mat")
    for name in ("olivetti", "olivetti_public"):
        x, y, classes = load_data(name, "train")
        assert x.shape == (100, 1, 32, 32) and 0.3 < x.mean() < 0.7 and len(classes) == 20
        own = torch.cdist(x.flatten(1), x.flatten(1)) + 99 * torch.eye(100)
        assert (y[own.argmin(1)] == y).float().mean() > 0.7  # the nearest other picture is of the same person, as a rule


@pytest.mark.data
@pytest.mark.parametrize("name", ["gtsrb", "fashion_mnist", "cifar10"])
def test_the_splits_of_a_real_data_set_share_no_drawn_image(name, real_data):
    train, test = rows(load_data(name, "train", n=2000).x), rows(load_data(name, "test", n=2000).x)
    assert len(train) > 1950 and len(test) > 1950
    assert len(train & test) <= 2  # photographs of black frames may agree
