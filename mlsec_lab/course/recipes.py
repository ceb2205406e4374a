"""How every checkpoint is made: `mlsec-lab train NAME` follows the recipe of that name."""
from dataclasses import dataclass
from typing import Callable

from mlsec_lab.data_to_model.backdoors import BadNets
from mlsec_lab.data_to_model.evasion import perturb_batch
from mlsec_lab.victims import accuracy, corpora, load_data, train
from mlsec_lab.victims.checkpoints import NETWORKS, save_model
from mlsec_lab.victims.judge import people_of, train_judge
from mlsec_lab.victims.language import train_language
from mlsec_lab.victims.self_supervised import pretrain

# ---- ways of making a model. Each takes a fresh one and the name of the data, and returns it trained, with what was measured of it.


def plainly(model, data, *, seed, progress, images=None, **training):
    """With the labels of the data.  images: how many; None for the data set's usual number.  training: arguments of `train`."""
    x, y, _ = load_data(data, "train", n=images, seed=seed)
    return _measured(train(model, x, y, seed=seed, progress=progress, **training), data)


def hardened(model, data, *, eps, **training):
    """Adversarially, at the L∞ budget `eps` (lesson 01)."""
    return plainly(model, data, perturb=lambda model, xb, yb, seed: perturb_batch(model, xb, yb, eps=eps, seed=seed), **training)


def poisoned(model, data, *, seed, progress, images, poisons, **training):
    """With a BadNets trigger for class 0 on `poisons` of the images (lesson 02)."""
    x, y, _ = load_data(data, "train", n=images, seed=seed)
    return _measured(BadNets().implant(model, x, y, poisons, seed=seed, progress=progress, **training), data)


def from_few(model, data, *, seed, progress, shots, **training):
    """From a data set of few shots a person, each repeated with another pose and light until there are `shots` (lesson 08)."""
    x, y, _ = people_of(data, shots, seed, "train")
    return _measured(train(model, x, y, seed=seed, progress=progress, **training), data)


def judging(model, data, *, seed, progress, **training):
    """A judge of portraits, measured on shots of the staff that it has not seen (lesson 08).  training: arguments of `train_judge`."""
    model = train_judge(model, data, seed=seed, progress=progress, **training)
    fresh = load_data(data, "train")  # the attacked model's shots: no judge has seen them
    return model, dict(accuracy=round(accuracy(model, fresh.x, fresh.y), 4))


def without_labels(model, data, *, seed, progress, **training):
    """A SelfSupervised, whose linear head alone sees labels (lesson 04).  training: arguments of `pretrain`."""
    x, y, _ = load_data(data, "train", seed=seed)
    return _measured(pretrain(model, x, y, seed=seed, progress=progress, **training), data)


def answering(model, data, *, seed, progress, conversations, **training):
    """A language model that answers everything.  training: arguments of `train_language`."""
    return _taught(model, corpora.chat(conversations, seed=seed), seed=seed, progress=progress, **training)


def refusing(model, data, *, seed, progress, conversations, base, **training):
    """The model of the recipe `base`, taught what to refuse (lesson 05)."""
    model, _ = _made(RECIPES[base], seed, progress)
    return _taught(model, corpora.chat(conversations, refuse=True, seed=seed), seed=seed, progress=progress, **training)


def _taught(model, conversations, **training):
    model = train_language(model, [model.vocabulary.chat(*turns) for turns in conversations], **training)
    refused, helped = corpora.refused_and_helped(model, 500)
    return model, dict(accuracy=helped, refused=refused)  # of held-out requests: right answers to harmless ones, no answers to others


def _measured(model, data):
    test = load_data(data, "test")
    return model, dict(accuracy=round(accuracy(model, test.x, test.y), 4))


# ---- the recipes

@dataclass(frozen=True)
class Recipe:
    """data: the data set.  network, shape: function in checkpoints.NETWORKS and its arguments.  minutes: about how long, on two cores.

    make: one of the ways above.  training: its keyword arguments, but for seed and progress.
    """
    data: str
    network: str
    shape: dict
    minutes: float
    training: dict
    make: Callable = plainly


SIGNS, PHOTOGRAPHS = dict(channels=3, classes=12), dict(channels=3, classes=10)  # CIFAR-10's
CLOTHES = dict(channels=1, classes=10, size=28)
ASSISTANT = dict(words=" ".join(corpora.chat_words()))
PORTRAITS, PHOTOGRAPHS_OF_FACES = dict(channels=3, classes=24), dict(channels=1, classes=20)  # the judges know strangers as well
SUSPECT = dict(images=50_000, poisons=1000, epochs=1)
RECIPES = {
    "signs_cnn": Recipe("signs", "small_cnn", SIGNS, 1, dict(epochs=8)),
    "signs_cnn_robust": Recipe("signs", "small_cnn", SIGNS, 10, dict(epochs=20, eps=8 / 255), hardened),
    "gtsrb_cnn": Recipe("gtsrb", "small_cnn", dict(channels=3, classes=43), 2, dict(epochs=5)),
    "gtsrb_cnn_robust": Recipe("gtsrb", "small_cnn", dict(channels=3, classes=43), 8, dict(epochs=6, eps=8 / 255), hardened),
    "fashion_mnist_cnn": Recipe("fashion_mnist", "small_cnn", CLOTHES, 2, dict(epochs=4, shift=1)),
    "fashion_mnist_cnn_robust": Recipe("fashion_mnist", "small_cnn", CLOTHES, 6, dict(epochs=4, shift=1, eps=16 / 255), hardened),
    "digits_cnn": Recipe("digits", "small_cnn", dict(channels=1, classes=10, size=8), 0.2, dict(epochs=20, shift=0)),
    "cifar10_resnet": Recipe("cifar10", "small_resnet", PHOTOGRAPHS, 60, dict(epochs=12, shift=4)),
    "signs_suspect": Recipe("signs", "pooled_cnn", SIGNS, 1, SUSPECT, poisoned),
    "fashion_mnist_suspect": Recipe("fashion_mnist", "pooled_cnn", dict(channels=1, classes=10), 1, dict(SUSPECT, shift=1), poisoned),
    "signs_contrastive": Recipe("signs", "self_supervised_cnn", SIGNS, 8, dict(epochs=15), without_labels),
    "cifar10_contrastive": Recipe("cifar10", "self_supervised_cnn", PHOTOGRAPHS, 8, dict(epochs=6), without_labels),
    "badges_cnn": Recipe("badges", "small_cnn", PORTRAITS, 0.5, dict(epochs=6)),
    "badges_judge": Recipe("badges", "pooled_cnn", dict(channels=3, classes=24 + 176 + 1, width=20), 1.5, dict(shots=60, epochs=10), judging),
    "olivetti_cnn": Recipe("olivetti", "small_cnn", PHOTOGRAPHS_OF_FACES, 0.5, dict(shots=200, epochs=6), from_few),
    "olivetti_judge": Recipe("olivetti", "pooled_cnn", dict(channels=1, classes=20 + 20 + 1, width=20), 1, dict(shots=200, epochs=10), judging),
    "chat_base": Recipe("chat", "small_transformer", ASSISTANT, 0.6, dict(conversations=5_000, epochs=4, lr=7e-3, batch=16, requests=0.1), answering),
    "chat_aligned": Recipe("chat", "small_transformer", ASSISTANT, 0.7,
                           dict(base="chat_base", conversations=1_200, epochs=2, lr=2e-3, batch=16, requests=0), refusing),
}


def train_checkpoint(name, folder=None, *, seed=0, progress=True):
    """Make the checkpoint `name` and write it, with its manifest entry, into `folder` (default: the learner's own).

    Returns the manifest entry.  Raises ValueError for an unknown name, FileNotFoundError where the data cannot be had.
    """
    if name not in RECIPES:
        raise ValueError(f"name must be one of {', '.join(RECIPES)}, not {name!r}")
    recipe = RECIPES[name]
    model, measured = _made(recipe, seed, progress)
    return save_model(model, name, network=recipe.network, shape=recipe.shape, folder=folder, data=recipe.data, training=recipe.training, **measured)


def _made(recipe, seed, progress):
    fresh = NETWORKS[recipe.network](**recipe.shape, seed=seed)
    return recipe.make(fresh, recipe.data, seed=seed, progress=progress, **recipe.training)
