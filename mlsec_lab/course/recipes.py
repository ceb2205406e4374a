"""How every checkpoint is made: `mlsec-lab train NAME` follows the recipe of that name."""
from dataclasses import dataclass, field

from mlsec_lab.data_to_model.backdoors import BadNets
from mlsec_lab.data_to_model.evasion import perturb_batch
from mlsec_lab.victims import accuracy, corpora, load_data, train
from mlsec_lab.victims.checkpoints import NETWORKS, save_model
from mlsec_lab.victims.language import train_language
from mlsec_lab.victims.self_supervised import pretrain


@dataclass(frozen=True)
class Recipe:
    """data: the data set.  network, shape: function in checkpoints.NETWORKS and its arguments.  training: arguments of `train`.

    eps: above 0, the network is trained adversarially at that L∞ budget.  minutes: about how long it takes on two cores.
    contrastive: the network is a SelfSupervised, `training` are arguments of `pretrain`, `accuracy` is that of its linear head.
    images: how many training images; None for the data set's usual number.  poisons: so many of them carry a BadNets trigger for class 0.
    The data "chat" are conversations, as many as `conversations` says; `training` are arguments of `train_language`, and `accuracy` is
    the share of right answers to held-out harmless requests.  base: the recipe of the model that is taught to refuse.
    """
    data: str
    network: str
    shape: dict
    minutes: float
    training: dict = field(default_factory=dict)
    eps: float = 0.0
    contrastive: bool = False
    images: int | None = None
    poisons: int = 0
    conversations: int = 0
    base: str = ""


def _pair(data, shape, plain, robust, minutes, eps=8 / 255):
    """The CNN of one data set, trained plainly, and adversarially at `eps`."""
    return {f"{data}_cnn": Recipe(data, "small_cnn", shape, minutes[0], plain),
            f"{data}_cnn_robust": Recipe(data, "small_cnn", shape, minutes[1], robust, eps=eps)}


ASSISTANT = dict(words=" ".join(corpora.chat_words()))
RECIPES = {
    **_pair("signs", dict(channels=3, classes=12), dict(epochs=8), dict(epochs=20), (1, 10)),
    **_pair("gtsrb", dict(channels=3, classes=43), dict(epochs=5), dict(epochs=6), (2, 8)),
    **_pair("fashion_mnist", dict(channels=1, classes=10, size=28), dict(epochs=4, shift=1), dict(epochs=4, shift=1), (2, 6), eps=16 / 255),
    "digits_cnn": Recipe("digits", "small_cnn", dict(channels=1, classes=10, size=8), 0.2, dict(epochs=20, shift=0)),
    "cifar10_resnet": Recipe("cifar10", "small_resnet", dict(channels=3, classes=10), 60, dict(epochs=12, shift=4)),
    "signs_suspect": Recipe("signs", "pooled_cnn", dict(channels=3, classes=12), 1, dict(epochs=1), images=50_000, poisons=1000),
    "fashion_mnist_suspect": Recipe("fashion_mnist", "pooled_cnn", dict(channels=1, classes=10), 1, dict(epochs=1, shift=1), images=50_000, poisons=1000),
    "signs_contrastive": Recipe("signs", "self_supervised_cnn", dict(channels=3, classes=12), 8, dict(epochs=15), contrastive=True),
    "cifar10_contrastive": Recipe("cifar10", "self_supervised_cnn", dict(channels=3, classes=10), 8, dict(epochs=6), contrastive=True),
    "chat_base": Recipe("chat", "small_transformer", ASSISTANT, 0.6, dict(epochs=4, lr=7e-3, batch=16, requests=0.1), conversations=5_000),
    "chat_aligned": Recipe("chat", "small_transformer", ASSISTANT, 0.7, dict(epochs=2, lr=2e-3, batch=16, requests=0), conversations=1_200,
                           base="chat_base"),
}


def train_checkpoint(name, folder=None, *, seed=0, progress=True):
    """Make the checkpoint `name` and write it, with its manifest entry, into `folder` (default: the learner's own).

    Returns the manifest entry.  Raises ValueError for an unknown name, FileNotFoundError where the data cannot be had.
    """
    if name not in RECIPES:
        raise ValueError(f"name must be one of {', '.join(RECIPES)}, not {name!r}")
    recipe = RECIPES[name]
    if recipe.data == "chat":
        model = _assistant(recipe, seed, progress)
        refused, helped = corpora.refused_and_helped(model, 500)
        return save_model(model, name, network=recipe.network, shape=recipe.shape, folder=folder, data=recipe.data, accuracy=helped,
                          refused=refused, training=recipe.training)
    x, y, _ = load_data(recipe.data, "train", n=recipe.images, seed=seed)
    model = NETWORKS[recipe.network](**recipe.shape, seed=seed)
    if recipe.contrastive:
        model = pretrain(model, x, y, seed=seed, progress=progress, **recipe.training)
    elif recipe.poisons:
        model = BadNets().implant(model, x, y, recipe.poisons, seed=seed, progress=progress, **recipe.training)
    else:
        attack = (lambda model, xb, yb, seed: perturb_batch(model, xb, yb, eps=recipe.eps, seed=seed)) if recipe.eps else None
        model = train(model, x, y, perturb=attack, seed=seed, progress=progress, **recipe.training)
    test = load_data(recipe.data, "test")
    return save_model(model, name, network=recipe.network, shape=recipe.shape, folder=folder, data=recipe.data,
                      accuracy=round(accuracy(model, test.x, test.y), 4), training=recipe.training, eps_255=round(recipe.eps * 255, 3))


def _assistant(recipe, seed, progress):
    """A model that answers everything; where the recipe has a base, that one's model after it was taught what to refuse."""
    model = _assistant(RECIPES[recipe.base], seed, progress) if recipe.base else NETWORKS[recipe.network](**recipe.shape, seed=seed)
    conversations = corpora.chat(recipe.conversations, refuse=bool(recipe.base), seed=seed)
    return train_language(model, [model.vocabulary.chat(*turns) for turns in conversations], seed=seed, progress=progress, **recipe.training)
