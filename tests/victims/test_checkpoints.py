"""Checkpoints: what is loaded is byte for byte what was published, and everything else is refused with the way out."""
import json
import shutil

import pytest
import torch

from mlsec_lab import home
from mlsec_lab.data_to_model.evasion import pgd
from mlsec_lab.victims import accuracy, checkpoints, corpora, load_data, load_model, predict, small_cnn, small_resnet
from mlsec_lab.victims.badges import PUBLIC
from mlsec_lab.victims.checkpoints import SHIPPED, own_folder, read_manifest, save_model
from mlsec_lab.victims.language import SPECIAL

SHAPE = dict(channels=1, classes=3, size=8, width=2)


def save_one(name="mine", folder=None, seed=0, **facts):
    model = small_cnn(**SHAPE, seed=seed)
    return model, save_model(model, name, network="small_cnn", shape=SHAPE, folder=folder, **facts)


def same(model, other):
    state, expected = model.state_dict(), other.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(value, expected[key]) for key, value in state.items())


def refusal(kind, name="mine"):
    with pytest.raises(kind) as error:
        load_model(name)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- a round trip

@pytest.mark.parametrize("network, make, shape", [
    ("small_cnn", small_cnn, SHAPE), ("small_resnet", small_resnet, dict(channels=3, classes=5, width=4, depth=1))])
def test_what_is_saved_is_loaded_in_eval_mode_to_the_last_bit(network, make, shape):
    model = make(**shape, seed=7).train()
    model(torch.rand(4, shape["channels"], 8, 8))  # statistics of the batch normalisation, too
    entry = save_model(model, "mine", network=network, shape=shape, data="digits", accuracy=0.5)
    loaded = load_model("mine")
    assert same(loaded, model) and model.training
    assert not any(module.training for module in loaded.modules()) and all(p.requires_grad for p in loaded.parameters())
    file = own_folder() / "mine.safetensors"
    assert read_manifest(own_folder()) == {"mine": entry} and entry["bytes"] == file.stat().st_size
    assert entry["data"] == "digits" and entry["accuracy"] == 0.5 and entry["shape"] == shape


def test_saving_the_same_weights_writes_the_same_bytes(tmp_path):
    _, first = save_one(folder=tmp_path / "a")
    _, second = save_one(folder=tmp_path / "b")
    assert first == second
    for file in ("mine.safetensors", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_several_checkpoints_share_a_manifest_and_a_new_one_replaces_the_old():
    one, _ = save_one("one", seed=1)
    two, _ = save_one("two", seed=2)
    newer, _ = save_one("one", seed=3)
    assert sorted(read_manifest(own_folder())) == ["one", "two"]
    assert same(load_model("one"), newer) and not same(load_model("one"), one) and same(load_model("two"), two)
    assert sorted(path.name for path in own_folder().iterdir()) == ["manifest.json", "one.safetensors", "two.safetensors"]


def test_loading_gives_a_fresh_model_each_time():
    model, _ = save_one()
    first = load_model("mine")
    with torch.no_grad():
        first[-1].weight.zero_()
    assert same(load_model("mine"), model) and not same(first, model)


# ---- what is refused

@pytest.mark.parametrize("where", [0, 100, -1], ids=["header", "names", "weights"])
def test_one_changed_byte_is_refused_with_the_file_and_the_way_out(where):
    save_one()
    path = own_folder() / "mine.safetensors"
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    message = refusal(ValueError)
    assert "mine.safetensors is not the file that was published" in message
    assert "`mlsec-lab train mine`" in message


@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.999])
def test_a_truncated_file_is_refused_with_the_file_and_the_way_out(kept):
    save_one()
    path = own_folder() / "mine.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:kept if isinstance(kept, int) else int(kept * len(content))])
    message = refusal(ValueError)
    assert "mine.safetensors" in message and "`mlsec-lab train mine`" in message


def test_another_models_file_under_this_name_is_refused():
    save_one("mine", seed=1)
    save_one("other", seed=2)
    shutil.copy(own_folder() / "other.safetensors", own_folder() / "mine.safetensors")
    assert "mine.safetensors is not the file that was published" in refusal(ValueError)
    assert load_model("other") is not None


def test_a_file_that_went_missing_is_named_with_the_way_out():
    save_one()
    (own_folder() / "mine.safetensors").unlink()
    message = refusal(FileNotFoundError)
    assert "mine.safetensors is missing" in message and "`mlsec-lab train mine`" in message


@pytest.mark.parametrize("name", ["gtsrb_resnet", "", "../signs_cnn", "signs_cnn.safetensors"])
def test_an_unknown_name_is_answered_with_those_that_exist_and_a_command(name):
    message = refusal(FileNotFoundError, name)
    assert repr(name) in message and "signs_cnn" in message
    assert f"`mlsec-lab train {name}`" in message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"3", b'{"mine": 3}', b'{"mine": {}}', b"\xff\xfe\x00", b'{"mine": {"network": "small_cnn"}}'])
def test_a_damaged_manifest_is_refused_with_the_file_and_the_way_out(content):
    save_one()
    (own_folder() / "manifest.json").write_bytes(content)
    message = refusal(ValueError)
    assert "manifest.json" in message and "damaged" in message
    assert "`mlsec-lab train manifest`" not in message and "delete" in message  # there is no checkpoint of that name to train
    assert same(load_model("signs_cnn"), load_model("signs_cnn"))  # the shipped ones are not affected


def test_after_deleting_a_damaged_manifest_training_again_works():
    save_one()
    (own_folder() / "manifest.json").write_bytes(b"{")
    with pytest.raises(ValueError, match="damaged"):
        save_one()
    (own_folder() / "manifest.json").unlink()
    model, _ = save_one(seed=4)
    assert same(load_model("mine"), model)


@pytest.mark.parametrize("network", ["Linear", "nn", "__import__", "frozen", "QueryCounter"])
def test_a_manifest_that_names_another_function_is_refused_before_anything_is_called(network):
    save_one()
    manifest = read_manifest(own_folder())
    manifest["mine"]["network"] = network
    (own_folder() / "manifest.json").write_text(json.dumps(manifest))
    message = refusal(ValueError)
    assert repr(network) in message and "small_cnn, small_resnet" in message


def test_a_manifest_with_another_shape_is_refused_with_the_way_out():
    save_one()
    for change in (dict(classes=4), dict(size=16), dict(nonsense=1)):
        manifest = read_manifest(own_folder())
        manifest["mine"]["shape"] = {**SHAPE, **change}
        (own_folder() / "manifest.json").write_text(json.dumps(manifest))
        message = refusal(ValueError)
        assert "mine.safetensors" in message and "`mlsec-lab train mine`" in message


# ---- two folders

def test_a_shipped_name_is_the_shipped_file_even_where_a_learner_trained_one_of_the_same_name():
    mine, _ = save_one("signs_cnn")
    save_one("another")
    assert not same(load_model("signs_cnn"), mine)
    assert load_model("signs_cnn")[-1].out_features == 12 and load_model("another")[-1].out_features == 3


def test_a_damaged_shipped_file_is_restored_from_git_and_not_trained(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "checkpoints"
    save_one("shipped", folder=folder)
    monkeypatch.setattr(checkpoints, "SHIPPED", folder)
    assert load_model("shipped")[-1].out_features == 3
    with open(folder / "shipped.safetensors", "ab") as file:
        file.write(b"\0")
    message = refusal(ValueError, "shipped")
    assert "shipped.safetensors is not" in message and "`git checkout -- data/checkpoints`" in message and "mlsec-lab train" not in message
    (folder / "manifest.json").write_text("{")
    message = refusal(ValueError, "shipped")
    assert "manifest.json is damaged" in message and "`git checkout -- data/checkpoints`" in message


def test_the_learners_checkpoints_lie_in_the_learners_folder_and_never_among_the_shipped():
    before = sorted(path.name for path in SHIPPED.iterdir())
    save_one()
    assert own_folder() == home.work_folder() / "checkpoints" and (own_folder() / "mine.safetensors").is_file()
    assert sorted(path.name for path in SHIPPED.iterdir()) == before
    assert read_manifest(own_folder() / "nowhere") == {}


# ---- killed in between

def kill_at(monkeypatch, which):
    """The process dies at the write number `which` (0: the weights, 1: the manifest), just before the file is put in its place."""
    replace, calls = home.os.replace, []

    def replace_or_die(source, target):
        calls.append(target)
        if len(calls) == which + 1:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(home.os, "replace", replace_or_die)


@pytest.mark.parametrize("which", [0, 1])
def test_a_first_save_that_is_killed_leaves_nothing_that_loads_and_can_be_repeated(monkeypatch, which):
    with monkeypatch.context() as patch:
        kill_at(patch, which)
        with pytest.raises(KeyboardInterrupt):
            save_one()
    assert "`mlsec-lab train mine`" in refusal(FileNotFoundError)
    assert not [path for path in own_folder().iterdir() if path.suffix == ".part"]
    model, _ = save_one()
    assert same(load_model("mine"), model)


@pytest.mark.parametrize("which", [0, 1])
def test_a_second_save_that_is_killed_leaves_the_old_model_or_a_clear_refusal(monkeypatch, which):
    old, _ = save_one(seed=1)
    folder = own_folder()
    with monkeypatch.context() as patch:
        kill_at(patch, which)
        with pytest.raises(KeyboardInterrupt):
            save_one(seed=2)
    if which == 0:
        assert same(load_model("mine"), old)
    else:
        message = refusal(ValueError)
        assert "mine.safetensors is not the file that was published" in message and "`mlsec-lab train mine`" in message
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "mine.safetensors"]
    new, _ = save_one(seed=3)
    assert same(load_model("mine"), new)


# ---- what is shipped

def test_the_manifest_and_the_files_of_the_shipped_folder_name_each_other():
    manifest = read_manifest()
    assert {f"{name}.safetensors" for name in manifest} == {path.name for path in SHIPPED.glob("*.safetensors")}
    assert {"signs_cnn", "signs_cnn_robust", "digits_cnn"} <= manifest.keys()
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 20e6  # a clone stays quick
    for name, entry in manifest.items():
        assert entry["bytes"] == (SHIPPED / f"{name}.safetensors").stat().st_size


def manifest_holds(name):
    entry = read_manifest()[name]
    model = load_model(name)
    x, y, classes = load_data(entry["data"], "test")
    logits = predict(model, x[:4])
    beside = len(PUBLIC["test"]) + 1 if name == "badges_judge" else 0  # strangers, and "no portrait"
    assert logits.shape == (4, len(classes) + beside) and logits.isfinite().all()
    assert accuracy(model, x, y) == pytest.approx(entry["accuracy"], abs=0.01)
    return entry


DRAWN = [name for name, entry in read_manifest().items() if entry["data"] in ("signs", "badges", "digits")]
SPOKEN = [name for name, entry in read_manifest().items() if entry["data"] == "chat"]
PHOTOGRAPHED = sorted(read_manifest().keys() - {*DRAWN, *SPOKEN})


@pytest.mark.parametrize("name", DRAWN)
def test_a_shipped_model_is_as_accurate_as_its_manifest_says(name):
    entry = manifest_holds(name)
    assert entry["accuracy"] >= {"signs_cnn": 0.97, "digits_cnn": 0.97}.get(name, 0.75)


@pytest.mark.parametrize("name", SPOKEN)
def test_a_shipped_assistant_helps_and_refuses_as_its_manifest_says(name):
    entry, model = read_manifest()[name], load_model(name)
    assert model.vocabulary.words == (*SPECIAL, *corpora.chat_words())
    refused, helped = corpora.refused_and_helped(model, 500)
    assert (refused, helped) == (pytest.approx(entry["refused"], abs=0.01), pytest.approx(entry["accuracy"], abs=0.01))
    assert helped >= 0.98 and (refused >= 0.98 if name == "chat_aligned" else refused <= 0.02)


@pytest.mark.data
@pytest.mark.parametrize("name", PHOTOGRAPHED)
def test_a_shipped_model_of_real_photographs_is_as_accurate_as_its_manifest_says(name, real_data):
    entry = manifest_holds(name)
    assert entry["accuracy"] >= (0.6 if "eps" in entry["training"] else 0.85)


def test_the_robust_signs_model_holds_where_the_plain_one_falls():
    assert read_manifest()["signs_cnn_robust"]["training"]["eps"] == 8 / 255 and "eps" not in read_manifest()["signs_cnn"]["training"]
    for seed in range(3):
        x, y, _ = load_data("signs", "test", n=60, seed=seed)
        held = {name: accuracy(model, pgd(model, x, y, eps=4 / 255, steps=10, seed=seed), y)
                for name in ("signs_cnn", "signs_cnn_robust") for model in [load_model(name)]}
        assert held["signs_cnn_robust"] > held["signs_cnn"] + 0.2
        assert held["signs_cnn_robust"] > 0.5
