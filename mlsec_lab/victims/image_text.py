"""A small image–text model: two towers that learn from captions which picture goes with which words.

    x, y, classes = load_data("signs", "train", n=6_000)
    towers = train_two_tower(two_tower(classes), x, caption(y, classes))
    model = zero_shot(towers, classes)

`model` never saw a label, only captions; it takes pictures and returns logits like any other victim, so every attack and
defence takes it as it is. Whoever writes the captions of a few pictures writes into the model: a backdoor stamps a trigger on
them and gives them a caption of the target class.

The recipe is CLIP's (Radford et al., 2021): two encoders, unit vectors, a learnt temperature, a contrastive loss both ways,
and classes named by averaged prompts. The towers are our own choice: a CNN as small as the course's, and a weighted sum of word vectors.
"""
import copy
import functools
import math
import re

import torch
import torch.nn.functional as F
from torch import nn

from mlsec_lab.victims import datasets, signs
from mlsec_lab.victims.inputs import check_images, check_labels, check_number
from mlsec_lab.victims.networks import small_cnn
from mlsec_lab.victims.training import in_passes, one_cycle, shifted

DIMENSIONS = 64  # of the space in which pictures and captions meet
ROAD = ("a photo of a {} sign", "the road sign says {}", "a {} sign seen from a car", "a traffic sign that means {}",
        "there is a {} sign at the roadside", "a blurred picture of the {} sign", "{}", "the driver passes a sign for {}")
THINGS = ("a photo of a {}", "this is a {}", "a picture that shows a {}", "there is a {} in the photo",
          "a blurred picture of the {}", "a small photo of one {}", "{}", "somebody took a picture of a {}")


def templates(classes):
    """The sentences in which the course speaks of these classes: of road signs, or of things."""
    return ROAD if set(classes) <= {*signs.CLASSES, *datasets.GTSRB_CLASSES} else THINGS


def caption(y, classes, *, seed=0):
    """A caption for each picture: the name of its class within a sentence that `seed` chooses.

    y: int64 [N], indices into `classes`, a list of names.  Returns a list of N strings.
    Raises ValueError for labels of the wrong kind, or classes that are no names.
    """
    _check_names(classes, "classes")
    check_labels(y, len(y), classes=len(classes))
    check_number(seed, "seed", whole=True)
    sentences = templates(classes)
    chosen = torch.randint(len(sentences), (len(y),), generator=torch.Generator().manual_seed(seed))
    return [sentences[number].format(classes[label]) for number, label in zip(chosen.tolist(), y.tolist())]


class TwoTower(nn.Module):
    """An image tower and a text tower whose outputs are unit vectors of one space, and the temperature of their cosines."""

    def __init__(self, words, image):
        super().__init__()
        self.words = {word: number for number, word in enumerate(words, start=1)}  # 0 is every word that is not among them
        self.image = image
        self.embedding = nn.EmbeddingBag(len(self.words) + 1, DIMENSIONS, mode="sum")
        self.weight = nn.Parameter(torch.zeros(len(self.words) + 1))  # how much a word says; three times as quick to learn as the rest
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self):
        """What cosines are multiplied by, one over the temperature: at most 100."""
        return self.log_scale.exp().clamp(max=100)

    def image_features(self, x):
        """Unit vectors [N, 64] of x [N, C, H, W] in [0, 1]."""
        return F.normalize(self.image(x), dim=1)

    def text_features(self, captions):
        """Unit vectors [N, 64] of a list of N captions.  Raises ValueError for anything but a list of strings that hold a word."""
        _check_names(captions, "captions")
        words = [[self.words.get(word, 0) for word in _words(text)] for text in captions]
        starts = torch.tensor([0] + [len(caption) for caption in words[:-1]]).cumsum(0)
        device = self.log_scale.device
        flat = torch.tensor([number for caption in words for number in caption], device=device)
        return F.normalize(self.embedding(flat, starts.to(device), per_sample_weights=(3 * self.weight).exp()[flat]), dim=1)

    def forward(self, x, captions):
        """The scaled cosine of every picture with every caption: [N, M]."""
        return self.scale * self.image_features(x) @ self.text_features(captions).T


def two_tower(texts, *, channels=3, size=32, width=16, image=None, seed=0):
    """An untrained TwoTower that knows the words of `texts`, and those of the course's caption sentences.

    texts: class names or captions.  channels, size: of the images.  width: of the image tower, a small_cnn whose last layer
    leads to 64 dimensions, normalised over the batch, instead of to classes.  image: a function that builds another network in
    its place, such as pooled_cnn; it is given channels, dimensions, width and seed.  seed: of the first weights.
    Returns it in eval mode.  Raises ValueError for texts that are no strings, or a size below 8.
    """
    _check_names(texts, "texts")
    known = sorted({word for text in (*texts, *ROAD, *THINGS) for word in _words(text)})
    network = image or functools.partial(small_cnn, size=size)
    tower = nn.Sequential(*network(channels, DIMENSIONS, width=width, seed=seed), nn.BatchNorm1d(DIMENSIONS))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return TwoTower(known, tower).eval()


def train_two_tower(model, x, captions, *, epochs=7, lr=0.01, batch=128, shift=2, seed=0, progress=True):
    """Train a copy of a TwoTower on pairs of picture and caption with the symmetric contrastive loss; the argument stays as it is.

    x: [N, C, H, W] in [0, 1].  captions: N strings, the i-th for x[i].
    lr: the highest rate of one cycle.  shift: each picture is moved by up to so many pixels, anew each time.  seed: of order and shifts.
    Two pictures of a batch with the same caption are both right for it (after Yang et al., 2022); another sentence about
    the same class counts as wrong, since nobody tells the model about classes.
    Returns the trained copy, in eval mode.  Raises ValueError for images, captions or settings of the wrong kind.
    """
    check_images(x)
    _check_names(captions, "captions")
    if len(captions) != len(x) or len(x) < 2:
        raise ValueError(f"captions must be one a picture, and at least 2, not {len(captions)} for {len(x)} pictures")
    check_number(epochs, "epochs", least=1, whole=True)
    check_number(batch, "batch", least=2, whole=True)
    check_number(lr, "lr", above=0)
    check_number(shift, "shift", least=0, whole=True)
    check_number(seed, "seed", whole=True)
    model = copy.deepcopy(model).train()
    device = model.log_scale.device
    order, steps = torch.Generator().manual_seed(seed), -(-len(x) // batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    def descend(index, number):
        if len(index) < 2:
            return None
        loss = _contrastive(model, shifted(x[index], shift, order).to(device), [captions[row] for row in index.tolist()])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    in_passes(descend, lambda: torch.randperm(len(x), generator=order).split(batch), one_cycle(optimizer, lr, epochs * steps),
              epochs=epochs, steps=steps, progress=progress)
    model.zero_grad()
    return model.eval()


def _contrastive(model, x, captions):
    """The mean of both cross-entropies: of each picture among the batch's captions, and of each caption among its pictures."""
    texts = {text: number for number, text in enumerate(dict.fromkeys(captions))}
    own = torch.tensor([texts[text] for text in captions], device=x.device)
    logits = model(x, list(texts))
    of_the_caption = logits.log_softmax(0)[torch.arange(len(x), device=x.device), own]
    return (F.cross_entropy(logits, own) - of_the_caption.mean()) / 2


class ZeroShot(nn.Module):
    """A classifier out of an image tower: the scaled cosine of a picture with the prompts of each class."""

    def __init__(self, image, prompts, scale):
        super().__init__()
        self.image = image
        self.register_buffer("prompts", prompts)
        self.register_buffer("scale", scale)

    def forward(self, x):
        return self.scale * F.normalize(self.image(x), dim=1) @ self.prompts.T


@torch.no_grad()
def zero_shot(model, classes):
    """A classifier for `classes`, a list of names, out of a TwoTower: its logits are scaled cosines with each class's averaged prompts.

    Returns an nn.Module in eval mode that takes x [N, C, H, W] in [0, 1] and returns logits [N, K]. Its parameters are those of
    a copy of the image tower; what it knows of the classes is fixed.  Raises ValueError for classes that are no names.
    """
    _check_names(classes, "classes")
    prompts = torch.stack([model.text_features([sentence.format(name) for sentence in templates(classes)]).mean(0) for name in classes])
    return ZeroShot(copy.deepcopy(model.image), F.normalize(prompts, dim=1), model.scale.detach().clone()).eval()


def _words(text):
    return re.findall(r"[^\W_]+", text.lower())


def _check_names(texts, name):
    """Raise ValueError unless `texts` is a list or tuple of strings, at least one, with a word in each."""
    if not isinstance(texts, (list, tuple)) or not texts:
        raise ValueError(f"{name} must be a list of at least one string, not {texts!r:.60}")
    for text in texts:
        if not isinstance(text, str) or not _words(text):
            raise ValueError(f"{name} must hold strings with a word in each, not {text!r:.60}")
