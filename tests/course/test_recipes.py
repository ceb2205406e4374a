"""Every checkpoint has a recipe that can be followed."""
import pytest
import torch

from mlsec_lab.course import recipes
from mlsec_lab.course.recipes import RECIPES, Recipe, train_checkpoint
from mlsec_lab.home import work_folder
from mlsec_lab.victims import corpora, load_data, load_model
from mlsec_lab.victims.checkpoints import NETWORKS, read_manifest
from mlsec_lab.victims.datasets import DATA_SETS


PICTURES = [name for name, recipe in RECIPES.items() if recipe.data != "chat"]


@pytest.mark.parametrize("name", PICTURES)
def test_a_recipe_names_a_data_set_and_a_network_that_takes_it(name):
    recipe = RECIPES[name]
    assert recipe.data in DATA_SETS and recipe.minutes > 0
    size = recipe.shape.get("size", 32)
    logits = NETWORKS[recipe.network](**recipe.shape)(torch.rand(2, recipe.shape["channels"], size, size))
    assert logits.shape == (2, recipe.shape["classes"])
    assert name.endswith("_robust") == (recipe.make is recipes.hardened)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.data in ("signs", "digits")])
def test_a_recipe_fits_the_data_it_names(name):
    recipe = RECIPES[name]
    x, y, classes = load_data(recipe.data, "train", n=20)
    assert (x.shape[1], x.shape[-1], len(classes)) == (recipe.shape["channels"], recipe.shape.get("size", 32), recipe.shape["classes"])
    assert y.max() < recipe.shape["classes"]


def test_the_assistants_share_their_words_and_the_aligned_one_starts_from_the_other():
    base, aligned = RECIPES["chat_base"], RECIPES["chat_aligned"]
    assert base.shape == aligned.shape and base.network == aligned.network == "small_transformer"
    assert aligned.training["base"] == "chat_base" and base.training["conversations"] >= aligned.training["conversations"] > 0
    vocabulary = NETWORKS[base.network](**base.shape).vocabulary
    for turns in corpora.chat(200, domains=(*corpora.BENIGN, *corpora.CUSTOMER)):
        assert max(vocabulary.chat(*turns)) < len(vocabulary)


def test_every_shipped_checkpoint_has_the_recipe_it_was_made_by():
    for name, entry in read_manifest().items():
        recipe = RECIPES[name]
        assert (entry["network"], entry["shape"], entry["data"]) == (recipe.network, recipe.shape, recipe.data)
        assert entry["training"] == recipe.training and entry["accuracy"] > 0.5


def test_a_recipe_is_followed_into_the_learners_own_folder(monkeypatch):
    shape = dict(channels=1, classes=10, size=8, width=4)
    monkeypatch.setitem(RECIPES, "plain", Recipe("digits", "small_cnn", shape, 0.1, dict(epochs=2, shift=0)))
    monkeypatch.setitem(RECIPES, "hardened", Recipe("digits", "small_cnn", shape, 0.1, dict(epochs=2, shift=0, eps=0.1), recipes.hardened))
    attacked = []
    perturb = recipes.perturb_batch
    monkeypatch.setattr(recipes, "perturb_batch", lambda *args, **kwargs: attacked.append(kwargs["eps"]) or perturb(*args, **kwargs))
    entry = train_checkpoint("plain", progress=False)
    assert not attacked and entry["accuracy"] > 0.6
    train_checkpoint("hardened", seed=3, progress=False)
    assert set(attacked) == {0.1}
    assert set(read_manifest(work_folder() / "checkpoints")) == {"plain", "hardened"} and "plain" not in read_manifest()
    model = load_model("plain")
    assert not model.training and model(load_data("digits", "test", n=4).x).shape == (4, 10)


def test_an_assistant_is_made_as_its_recipe_says(monkeypatch):
    small = dict(**recipes.ASSISTANT, width=32)
    monkeypatch.setitem(RECIPES, "talker", Recipe("chat", "small_transformer", small, 0.1, dict(conversations=200, epochs=1, lr=0.01), recipes.answering))
    monkeypatch.setitem(RECIPES, "refuser", Recipe("chat", "small_transformer", small, 0.1,
                                                   dict(base="talker", conversations=500, epochs=4, lr=0.01, batch=16, requests=0), recipes.refusing))
    entries = {name: train_checkpoint(name, progress=False) for name in ("talker", "refuser")}
    assert entries["talker"]["refused"] == 0 and entries["refuser"]["refused"] > 0.5
    model = load_model("refuser")
    assert corpora.refused_and_helped(model, 500) == (entries["refuser"]["refused"], entries["refuser"]["accuracy"])
    again, other = (train_checkpoint("talker", seed=seed, progress=False)["sha256"] for seed in (0, 1))
    assert again == entries["talker"]["sha256"] != other


def test_the_same_seed_makes_the_same_checkpoint(monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny", Recipe("digits", "small_cnn", dict(channels=1, classes=10, size=8, width=2), 0.1, dict(epochs=1, shift=0)))
    first, again, other = (train_checkpoint("tiny", seed=seed, progress=False)["sha256"] for seed in (5, 5, 6))
    assert first == again != other


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="name must be one of signs_cnn, .*, not 'resnet'"):
        train_checkpoint("resnet")
