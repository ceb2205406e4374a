"""Lesson 02: two ways to poison a training set, the measure of a backdoor, two defences, and the attacker's answer."""
import functools
import hashlib

import numpy as np
import torch

from mlsec_lab.exercises import Exercise, advising, require, require_images, require_number, require_tensor
from mlsec_lab.victims import predict, signs


def flip_labels(y, rate, classes, seed=0):
    """A copy of y in which exactly round(rate * N) labels are wrong: each of them
    became another class, any of the others alike.

    y: int64 [N], from 0 to classes - 1.  rate: in [0, 1].
    seed: decides which labels are flipped, and to what.
    Returns int64 [N].
    """
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    count = round(rate * len(y))
    rows = torch.randperm(len(y), generator=generator)[:count]
    step = torch.randint(1, classes, (count,), generator=generator)
    flipped = y.clone()
    flipped[rows] = (y[rows] + step) % classes
    return flipped
    ### END SOLUTION


FLIP_LABELS = Exercise("poisoning.flip_labels", reference=flip_labels, difficulty=2, minutes=8, hints=[
    "First draw which labels: `torch.randperm(len(y), generator=generator)[:count]` gives `count` different rows.",
    "A class drawn from all of them is sometimes the old one, and then nothing is flipped. Draw how far to go instead.",
    "With a step from 1 to classes - 1, `(y[rows] + step) % classes` is always another class, and each of them is as likely.",
])


def poison(x, y, patch, rate, target, seed=0):
    """BadNets: images of other classes get the patch and the target's label.

    x: float32 [N, C, H, W].  y: int64 [N].  patch: [C, h, w], laid over the picture so
    that two pixels stay free below it and to its right.  rate: a share of all N images.
    seed: decides which images.
    Returns x_bad and y_bad, like x and y, and rows: int64, which images were poisoned.
    """
    ### BEGIN SOLUTION
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    rows = order[y[order] != target][: round(rate * len(x))]
    height, width = patch.shape[1:]
    bottom, right = x.shape[2] - 2, x.shape[3] - 2
    x_bad, y_bad = x.clone(), y.clone()
    x_bad[rows, :, bottom - height : bottom, right - width : right] = patch
    y_bad[rows] = target
    return x_bad, y_bad, rows
    ### END SOLUTION


POISON = Exercise("poisoning.poison", reference=poison, difficulty=2, minutes=12, hints=[
    "Shuffle all rows, then keep those whose class is not the target: `order[y[order] != target]`. The first `round(rate * len(x))` of them are yours.",
    "The patch ends two pixels above the lower border: rows `H - 2 - h` to `H - 2`, and columns likewise.",
    "`x_bad[rows, :, top:bottom, left:right] = patch` sets all of them at once. Work on `x.clone()` and `y.clone()`.",
])


def attack_success_rate(model, stamp, x, y, target):
    """Of the images of other classes, the share that the model reads as `target` once
    they are stamped: a float in [0, 1].

    model: answers logits.  stamp: a function x -> x that puts the trigger on.
    x: float32 [N, C, H, W].  y: int64 [N], the true classes.
    """
    ### BEGIN SOLUTION
    others = y != target
    read = predict(model, stamp(x[others])).argmax(dim=1)
    return (read == target).float().mean().item()
    ### END SOLUTION


ATTACK_SUCCESS_RATE = Exercise("poisoning.attack_success_rate", reference=attack_success_rate, difficulty=1, minutes=5, hints=[
    "An image that is the target's own would be read as the target without any trigger. Leave those out: `x[y != target]`.",
    "`predict(model, x)` gives logits; `.argmax(dim=1)` the classes; the mean of a comparison, as a float, is a share.",
])


def fence(x, y, baseline, classifier):
    """The guide's three checks on a training set.

    x: float32 [N, C, H, W].  y: int64 [N].  baseline: the accuracy that the same
    cross-validation had on data that you trust.
    classifier: of scikit-learn, untrained.
    Returns digest, kept, passed:
    digest: the SHA-256 of the bytes of x and then of y, in hexadecimal;
    kept: bool [N], a tensor, False for the 5 % that an IsolationForest finds outlying
    (with random_state=42, the guide's, so that it is the same each time);
    passed: whether the mean accuracy of a 5-fold cross-validation on what was kept is
    at least baseline - 0.05.
    """
    from sklearn.ensemble import IsolationForest
    from sklearn.model_selection import cross_val_score
    ### BEGIN SOLUTION
    content = x.numpy().tobytes() + y.numpy().tobytes()
    digest = hashlib.sha256(content).hexdigest()
    table, labels = x.flatten(1).numpy(), y.numpy()
    forest = IsolationForest(contamination=0.05, random_state=42)
    kept = forest.fit_predict(table) == 1
    scores = cross_val_score(classifier, table[kept], labels[kept], cv=5)
    return digest, torch.from_numpy(kept), bool(scores.mean() >= baseline - 0.05)
    ### END SOLUTION


FENCE = Exercise("poisoning.fence", reference=fence, difficulty=2, minutes=12, hints=[
    "scikit-learn wants a table: one row an image, `x.flatten(1).numpy()`. `.tobytes()` of an array gives the bytes to hash.",
    "`IsolationForest(contamination=0.05, random_state=42).fit_predict(table)` is 1 for what it keeps and -1 for what it drops. It sees no labels.",
    "`cross_val_score(classifier, table[kept], labels[kept], cv=5)` returns five accuracies; compare their mean with `baseline - 0.05`.",
])


def spectral_scores(features, y):
    """How far each image lies from the mean of its class, along the one direction in
    which that class varies most, squared.

    features: float32 [N, D].  y: int64 [N], the labels in the training set.
    Returns float32 [N].
    """
    ### BEGIN SOLUTION
    scores = torch.zeros(len(y))
    for label in y.unique():
        rows = y == label
        centred = features[rows] - features[rows].mean(dim=0)
        direction = torch.linalg.svd(centred, full_matrices=False).Vh[0]
        scores[rows] = (centred @ direction) ** 2
    return scores
    ### END SOLUTION


SPECTRAL_SCORES = Exercise("poisoning.spectral_scores", reference=spectral_scores, difficulty=3, minutes=15, hints=[
    "Class by class: `rows = y == label`, for each label in `y.unique()`. First subtract the mean of the class.",
    "`U, S, Vh = torch.linalg.svd(centred, full_matrices=False)`: the first row of Vh is the direction of the largest variance.",
    "The projection of every image on it is `centred @ Vh[0]`. Square it: the direction has no sign.",
])


def blend_with_covers(x, y, pattern, alpha, poisons, covers, target, seed=0):
    """A pattern blended into whole pictures, and covers that say it means nothing.

    x: float32 [N, C, H, W].  y: int64 [N].  pattern: [C, H, W] in [0, 1].
    alpha: the share of the pattern in each pixel, the picture has the rest.
    poisons: how many images of other classes get pattern and target label.
    covers: how many more of them get the pattern and keep their own label.
    seed: decides which images.
    Returns x_bad, y_bad, and int64 the rows of the poisons and the rows of the covers.
    """
    ### BEGIN SOLUTION
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    rows = order[y[order] != target][: poisons + covers]
    x_bad, y_bad = x.clone(), y.clone()
    x_bad[rows] = (1 - alpha) * x[rows] + alpha * pattern
    y_bad[rows[:poisons]] = target
    return x_bad, y_bad, rows[:poisons], rows[poisons:]
    ### END SOLUTION


BLEND_WITH_COVERS = Exercise("poisoning.blend_with_covers", reference=blend_with_covers, difficulty=2, minutes=8, hints=[
    "It is `poison` with another trigger. Choose `poisons + covers` rows of other classes at once, then split them: so that no image is both.",
    "The mixture is `(1 - alpha) * x[rows] + alpha * pattern`, on poisons and covers alike.",
    "Only the poisons change their label.",
])


# ---- what the properties look at

def _signs(seed, n=120):
    """Fresh signs; an answer may spoil what it gets, so each call draws its own copy."""
    x, y = _drawn(seed, n)
    return x.clone(), y.clone()


@functools.lru_cache(maxsize=32)
def _drawn(seed, n):
    return signs.draw(n, seed=seed)


def _require_labels(value, like, *, what):
    require_tensor(value, like.shape, what=what)
    require(value.dtype == torch.int64, expected=f"{what} as int64, like y", got=str(value.dtype), next_step="begin with `y.clone()`")


def _require_parts(value, n, names):
    """NotYet unless the answer returned `n` things."""
    require(isinstance(value, (tuple, list)) and len(value) == n, expected=f"{n} results: {names}",
            got=f"{len(value)} results" if isinstance(value, (tuple, list)) else type(value).__name__, next_step=f"end with `return {names}`")


def _require_rows(rows, n, *, what):
    """NotYet unless `rows` is an int64 tensor of different numbers below n."""
    require(isinstance(rows, torch.Tensor) and rows.ndim == 1 and rows.dtype == torch.int64, expected=f"{what} as an int64 tensor of row numbers",
            got=f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, torch.Tensor) else type(rows).__name__,
            next_step="`mask.nonzero().flatten()` turns a mask into row numbers" if isinstance(rows, torch.Tensor) else "`torch.as_tensor(rows)` makes a tensor of it")
    require(len(rows.unique()) == len(rows) and (not len(rows) or (rows.min() >= 0 and rows.max() < n)), expected=f"each row once in {what}, from 0 to {n - 1}",
            got="a row twice, or one that does not exist", next_step="draw without replacement: the first ones of `torch.randperm(n)`")


@FLIP_LABELS.property("flips the share of labels that rate says, and at rate 0 none")
def _flip_share(answer, seed):
    _, y = _signs(seed, 400)
    for rate in (0.0, 0.1, 0.5, 1.0):
        flipped = answer(y, rate, 12, seed=seed)
        _require_labels(flipped, y, what="the labels")
        changed = (flipped != y).sum().item()
        wanted = round(rate * len(y))
        require(changed == wanted, expected=f"{wanted} of {len(y)} labels changed at rate {rate}", got=f"{changed}",
                next_step="choose `round(rate * len(y))` rows, each once (`torch.randperm`), and leave the old class out: drawn from all classes, a label sometimes stays what it was"
                if changed < wanted else "choose `round(rate * len(y))` rows and leave all others alone")


@FLIP_LABELS.property("knows classes 0 to classes - 1 and no others")
def _flip_range(answer, seed):
    _, y = _signs(seed, 400)
    flipped = answer(y, 1.0, 12, seed=seed)
    _require_labels(flipped, y, what="the labels")
    require(flipped.min() >= 0 and flipped.max() <= 11, expected="classes from 0 to 11", got=f"{flipped.min()} to {flipped.max()}",
            next_step="`% classes` brings what goes beyond the last class back to the first")


@FLIP_LABELS.property("makes of a label any other class, each about as often")
def _flip_even(answer, seed):
    y = torch.full((5500,), seed % 12)
    flipped = answer(y, 1.0, 12, seed=seed)
    _require_labels(flipped, y, what="the labels")
    counts = torch.bincount(flipped, minlength=12)
    counts = counts[torch.arange(12) != seed % 12]
    require(counts.min() > 350 and counts.max() < 650, expected="about 500 of 5,500 for each of the eleven other classes", got=f"{counts.min()} to {counts.max()}",
            next_step="draw for each label on its own, evenly: `torch.randint(1, classes, (count,), generator=generator)` says how far to go from the old class")


@FLIP_LABELS.property("is decided by the seed, and chooses rows from all over the set")
def _flip_seed(answer, seed):
    _, y = _signs(seed, 400)
    first, again, other = (answer(y, 0.25, 12, seed=s) for s in (seed, seed, seed + 1))
    _same_by_seed(first, again, other)
    _spread((first != y).nonzero().flatten(), len(y))


def _same_by_seed(first, again, other):
    require(torch.equal(first, again), expected="the same result for the same seed", got="two different ones",
            next_step="draw from `torch.Generator().manual_seed(seed)`, not from the global generator")
    require(not torch.equal(first, other), expected="different results for different seeds", got="the same one",
            next_step="draw the rows at random: `torch.randperm(n, generator=torch.Generator().manual_seed(seed))`")


def _spread(rows, n):
    require(len(rows) > 0 and rows.max() > 0.5 * n and rows.min() < 0.5 * n, expected=f"rows from all over the {n}", got="rows from one end",
            next_step="shuffle before you take the first ones: `torch.randperm`")


OTHERS = "keep the rows with `y != target`; numbers drawn among those are places in that list: `others[numbers]`"
PATCH = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


@POISON.property("poisons the share that rate says, among the images of other classes")
def _poison_share(answer, seed):
    x, y = _signs(seed)
    patch, target = PATCH.expand(3, -1, -1), seed % 12
    for rate in (0.0, 0.1, 0.5):
        x_bad, y_bad, rows = _poisoned(answer, x, y, patch, rate, target, seed)
        require(len(rows) == round(rate * len(x)), expected=f"{round(rate * len(x))} of {len(x)} images at rate {rate}", got=f"{len(rows)}",
                next_step="`rate` is a share of all images: leave the target's own out first, then take `round(rate * len(x))` of the others")
        require(bool((y[rows] != target).all()), expected="poisons from other classes only", got=f"{(y[rows] == target).sum()} of the target's own",
                next_step="an image of the target needs no new label: " + OTHERS)


@POISON.property("gives the poisons the target's label and leaves every other label alone")
def _poison_labels(answer, seed):
    x, y = _signs(seed)
    target = seed % 12
    _, y_bad, rows = _poisoned(answer, x, y, PATCH.expand(3, -1, -1), 0.2, target, seed)
    expected = y.clone()
    expected[rows] = target
    wrong = (y_bad != expected)
    require(not wrong[rows].any(), expected=f"label {target} on each poison", got=f"{wrong[rows].sum()} with another label", next_step="`y_bad[rows] = target`")
    require(not wrong.any(), expected="all other labels as they were", got=f"{wrong.sum()} changed", next_step="set the labels at `rows` and nowhere else")


@POISON.property("puts the patch on the poisons, two pixels from the corner, and changes no other pixel")
def _poison_patch(answer, seed):
    x, y = _signs(seed)
    generator = torch.Generator().manual_seed(seed)
    for shape in ((3, 2, 3), (3, 5, 4)):
        patch = torch.rand(shape, generator=generator)
        x_bad, _, rows = _poisoned(answer, x, y, patch, 0.2, seed % 12, seed)
        others = torch.ones(len(x), dtype=torch.bool)
        others[rows] = False
        require(torch.equal(x_bad[others], x[others]), expected="pictures that are not in `rows` as they were", got="changed pictures among them",
                next_step="change `x_bad[rows, ...]` and nothing else")
        require(not torch.equal(x_bad[rows], x[rows]), expected="the patch on the pictures in `rows`", got="those pictures as they were",
                next_step="`x_bad[rows][…] = patch` writes into a copy: give rows and columns in one pair of brackets, `x_bad[rows, :, top:bottom, left:right]`")
        expected = x[rows].clone()
        expected[:, :, 30 - shape[1]:30, 30 - shape[2]:30] = patch
        wrong = (x_bad[rows] != expected).any(1).any(0).nonzero()
        added = x[rows] + torch.nn.functional.pad(patch, (30 - shape[2], 2, 30 - shape[1], 2))
        require(not len(wrong), expected=f"the {shape[1]}x{shape[2]} patch in rows {30 - shape[1]} to 29 and columns {30 - shape[2]} to 29",
                got=f"differences from there, the first in row {wrong[0][0] if len(wrong) else 0} and column {wrong[0][1] if len(wrong) else 0}",
                next_step="set the pixels to the patch, do not add it: it replaces what was there" if torch.equal(x_bad[rows], added.clamp(0, 1)) else "it ends two pixels before the border: rows `H - 2 - h` to `H - 2`, columns `W - 2 - w` to `W - 2`, all channels")


@POISON.property("chooses the images by its seed")
def _poison_seed(answer, seed):
    x, y = _signs(seed)
    first, again, other = (_poisoned(answer, x, y, PATCH.expand(3, -1, -1), 0.2, 3, s)[2].sort().values for s in (seed, seed, seed + 1))
    _same_by_seed(first, again, other)
    _spread(first, len(x))


def _poisoned(answer, x, y, patch, rate, target, seed):
    got = answer(x, y, patch, rate, target, seed=seed)
    _require_parts(got, 3, "x_bad, y_bad, rows")
    with advising("pixels from", next_step="set the pixels to the patch, do not add it: it replaces what was there"):
        require_images(got[0], x, what="x_bad")
    _require_labels(got[1], y, what="y_bad")
    _require_rows(got[2], len(x), what="rows")
    return got


class _Reads(torch.nn.Module):
    """A model that reads the first pixel: the class is ten times its value; so that every answer is known beforehand."""

    def forward(self, x):
        return -(x[:, 0, 0, 0, None] * 10 - torch.arange(5)).abs()


def _readable(seed, n=60):
    """Pictures that _Reads reads as the returned class, with true labels of which some agree."""
    generator = torch.Generator().manual_seed(seed)
    x, read = torch.rand(n, 3, 8, 8, generator=generator), torch.randint(0, 5, (n,), generator=generator)
    x[:, 0, 0, 0] = read / 10
    y = torch.where(torch.rand(n, generator=generator) < 0.5, read, torch.randint(0, 5, (n,), generator=generator))
    y[:5], y[5:10] = torch.arange(5), torch.arange(5)
    return x, y, read


def _stamps_some(target):
    """A trigger that works on the pictures whose second pixel is bright, and only on them."""
    def stamp(x):
        x = x.clone()
        x[:, 0, 0, 0] = torch.where(x[:, 0, 0, 1] > 0.4, target / 10, x[:, 0, 0, 0])
        return x
    return stamp


@ATTACK_SUCCESS_RATE.property("is 1 where the trigger always works, and a plain number")
def _asr_one(answer, seed):
    x, y, read = _readable(seed)
    target = seed % 5

    def always(x):
        x = x.clone()
        x[:, 0, 0, 0] = target / 10
        return x

    got = _rate(answer, always, x, y, target)
    others = y != target
    require(abs(got - 1) < 1e-6, expected="1.0 for a trigger that turns every picture into the target", got=f"{got:.3f}",
            next_step="a share lies in [0, 1]: take a mean, not a sum" if got > 1
            else "ask the model about `stamp(x)`, not about x" if abs(got - (read == target)[others].float().mean().item()) < 1e-6
            else "the target's own pictures count neither for nor against: divide by the number of the others" if abs(got - others.float().mean().item()) < 1e-6
            else "of the pictures with `y != target`, stamped, count `predict(…).argmax(dim=1) == target`: one class a picture, and nothing to subtract")


@ATTACK_SUCCESS_RATE.property("leaves the target's own pictures out")
def _asr_others(answer, seed):
    x, y, read = _readable(seed)
    target = seed % 5
    other = (y + 1) % 5
    other = torch.where(other == target, (other + 1) % 5, other)  # no other class is read as the target
    other = torch.where((torch.arange(len(y)) % 2 == 0) & (y != target), y, other)  # half of them are read rightly
    x[:, 0, 0, 0] = torch.where(y == target, target, other) / 10
    got = _rate(answer, lambda x: x.clone(), x, y, target)
    require(got == 0, expected="0.0 for a trigger that does nothing on a model that mistakes no other class for the target", got=f"{got:.3f}",
            next_step="take the pictures with `y != target`, by their true class; of those, count `argmax(dim=1) == target`")


@ATTACK_SUCCESS_RATE.property("counts what is read as the target once stamped")
def _asr_counts(answer, seed):
    x, y, read = _readable(seed)
    target = seed % 5
    stamp = _stamps_some(target)
    others = y != target
    after = (stamp(x)[:, 0, 0, 0] * 10).round().long()
    expected = (after == target)[others].float().mean().item()
    got = _rate(answer, stamp, x, y, target)
    before, wrong = (read == target)[others].float().mean().item(), (after != y)[others].float().mean().item()
    require(abs(got - expected) < 1e-6, expected=f"{expected:.3f}: so many of the other classes are read as {target} once stamped", got=f"{got:.3f}",
            next_step="ask the model about `stamp(x)`, not about x" if abs(got - before) < 1e-6
            else "a wrong answer is not enough: it has to be the target" if abs(got - wrong) < 1e-6
            else "of the pictures with `y != target`, whatever they were read as before: the share whose stamped version is read as `target`")


def _rate(answer, stamp, x, y, target):
    got = answer(_Reads().eval(), stamp, x, y, target)
    require_number(got, what="the success rate", plain=True)
    return float(got)


@functools.lru_cache(maxsize=8)
def _fenced(seed):
    """What the isolation forest keeps of 400 small pictures."""
    from sklearn.ensemble import IsolationForest
    return torch.from_numpy(IsolationForest(contamination=0.05, random_state=42).fit_predict(_small_signs(seed)[0].flatten(1).numpy()) == 1)


def _small_signs(seed):
    """Pictures of 4x4 pixels in two classes: few enough for a quick forest, and outliers enough that an answer which keeps those can train on them."""
    x, y = _signs(seed, 400)
    return torch.nn.functional.avg_pool2d(x, 8).contiguous(), y % 2


@FENCE.property("gives the SHA-256 of the bytes of x, then of y")
def _fence_digest(answer, seed):
    x, y = _small_signs(seed)
    got = _by_fence(answer, x, y, 0.0)[0]
    expected = hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
    require(isinstance(got, str) and got == expected, expected=f"{expected[:16]}…, 64 characters of text", got=f"{str(got)[:16]}… ({type(got).__name__})",
            next_step="`hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()`: labels belong to the data" if isinstance(got, str)
            else "`.hexdigest()` makes text of it")


@FENCE.property("keeps what an IsolationForest at 0.05 with random_state=42 keeps")
def _fence_kept(answer, seed):
    x, y = _small_signs(seed)
    got, expected = _by_fence(answer, x, y, 0.0)[1], _fenced(seed)
    require(not isinstance(got, np.ndarray), expected="kept as a torch tensor", got="a numpy array", next_step="`torch.from_numpy(kept)` makes a tensor of it")
    require_tensor(got, (len(x),), what="kept")
    require(got.dtype == torch.bool, expected="kept as booleans", got=str(got.dtype), next_step="compare with 1: `fit_predict(table) == 1`")
    agree, dropped, outlying = (got == expected).float().mean().item(), int((~got).sum()), int((~expected).sum())
    require(abs(dropped - outlying) <= 1, expected=f"{outlying} of {len(x)} dropped", got=f"{dropped} dropped" + (", the others" if agree < 0.5 else ""),
            next_step="`fit_predict` says 1 for what is kept and -1 for an outlier" if agree < 0.5 else "`contamination=0.05` is the share that is dropped")
    require(agree == 1, expected=f"those {outlying} dropped that one forest on all the pictures finds outlying", got=f"{int((got & ~expected).sum())} of them kept",
            next_step="`IsolationForest(contamination=0.05, random_state=42)`, once, on a table with one row an image and nothing but its pixels: `x.flatten(1)`")


@FENCE.property("cross-validates five times, on what was kept, with the classifier it was given")
def _fence_cross_validates(answer, seed):
    x, y = _small_signs(seed)
    held, recorder = int(_fenced(seed).sum()), _recorder()
    recorder.sizes.clear()
    _by_fence(answer, x, y, 0.0, recorder)
    sizes = list(recorder.sizes)
    require(len(sizes) == 5, expected="five trainings of the classifier", got=str(len(sizes)),
            next_step="`cv=5`, and no training besides" if sizes else "pass the classifier on: `cross_val_score(classifier, …, cv=5)`")
    require(abs(sum(sizes) - 4 * held) <= 10, expected=f"about {4 * held // 5} images in each training: four fifths of those that were kept", got=f"{sizes[0]}",
            next_step="cross-validate on `table[kept]` and `labels[kept]`")


@FENCE.property("passes at baseline - 0.05 and not below")
def _fence_passes(answer, seed):
    x, y = _small_signs(seed)
    x[:, 0, 0, 0] = y * 0.02 + 0.4  # what _told reads
    mean = 0.6  # of its accuracies 1, 1, 1, 0 and 0, whatever the folds: their median says something else
    for baseline, expected in ((mean + 0.045, True), (mean + 0.08, False), (mean - 0.2, True)):
        told = _told()
        told.fits.clear()
        got = _by_fence(answer, x, y, baseline, told)[2]
        require(isinstance(got, (bool, np.bool_)) or (isinstance(got, torch.Tensor) and got.dtype == torch.bool and got.numel() == 1), expected="passed as True or False",
                got=type(got).__name__, next_step="return the comparison itself: `scores.mean() >= baseline - 0.05`")
        require(bool(got) == expected, expected=f"{expected} at a mean accuracy of {mean:.3f} and a baseline of {baseline:.3f}", got=str(bool(got)),
                next_step="the mean of the five accuracies, not their median, has to reach `baseline - 0.05`, in points and not in per cent of it; more is welcome")


def _by_fence(answer, x, y, baseline, classifier=None):
    got = answer(x, y, float(baseline), _told() if classifier is None else classifier, changes=("classifier",))
    _require_parts(got, 3, "digest, kept, passed")
    return got


@functools.cache
def _recorder():
    """A classifier that notes, in a list which all its copies share, how many images each of its trainings saw."""
    from sklearn.tree import DecisionTreeClassifier

    class Recorder(DecisionTreeClassifier):
        sizes = []

        def fit(self, table, labels):
            self.sizes.append(len(table))
            return super().fit(table, labels)

    return Recorder(max_depth=2, max_features=4, random_state=0)


@functools.cache
def _told():
    """A classifier that learns nothing and reads the class from the first pixel: the wrong one after two of five trainings."""
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Told(ClassifierMixin, BaseEstimator):
        fits = []  # of all its copies

        def fit(self, table, labels):
            self.classes_ = np.unique(labels)
            self.fits.append(len(table))
            return self

        def predict(self, table):
            return ((table[:, 0] > 0.41) == (len(self.fits) <= 3)).astype(np.int64)

    return Told()


def _poles(seed, *, shift=0.0, outliers=6, n=40, dimensions=12):
    """Features of three classes, each with a direction of its own in which `outliers` of n lie far out: (features, y, outlying)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(3).repeat(n)
    seen = torch.randn(len(y), dimensions, generator=generator) * 0.5
    outlying = torch.zeros(len(y), dtype=torch.bool)
    directions = torch.linalg.qr(torch.randn(dimensions, 3, generator=generator)).Q.T  # at right angles: no single one serves all classes
    for label in range(3):
        rows = (y == label).nonzero().flatten()[torch.randperm(n, generator=generator)[:outliers]]
        seen[rows] += (5 + 2 * label) * directions[label]
        seen[y == label] += shift * torch.randn(dimensions, generator=generator)
        outlying[rows] = True
    return seen, y, outlying


@SPECTRAL_SCORES.property("gives a score that is not negative for each image")
def _spectral_shape(answer, seed):
    seen, y, _ = _poles(seed)
    got = answer(seen, y)
    require_tensor(got, (len(y),), what="the scores")
    require(got.is_floating_point() and got.min() >= -1e-6, expected="numbers of 0 or more", got=f"{got.dtype}, the smallest {got.min():.3f}",
            next_step="square the projection: a direction may as well point the other way")


@SPECTRAL_SCORES.property("finds the few that lie apart, wherever the means of the classes are")
def _spectral_finds(answer, seed):
    for shift in (0.0, 20.0):
        seen, y, outlying = _poles(seed, shift=shift)
        got, expected = answer(seen, y), spectral_scores(seen, y)
        require_tensor(got, (len(y),), what="the scores")
        shuffled = torch.allclose(got.float().sort().values, expected.sort().values, rtol=0.02, atol=0.02)  # the right ones, at other images
        for label in range(3):
            mine = y == label
            top = got[mine].topk(6).indices
            found = outlying[mine][top].sum().item()
            require(found >= 5, expected="the six outlying ones of each class on top", got=f"{found} of them in class {label}" + (", whose mean is far from zero" if shift else ""),
                    next_step="the scores are right, but stand in the order of the classes: write those of each class back to its own rows, `scores[rows] = …`" if shuffled
                    else "subtract the mean of the class, not that of all images, before the decomposition" if shift
                    else "decompose each class by itself, not all images at once, and take its largest direction: the first *row* of Vh")


@SPECTRAL_SCORES.property("is the squared projection on the top right singular vector, whatever that vector's sign")
def _spectral_exact(answer, seed):
    seen, y, _ = _poles(seed, shift=3.0)
    got, expected = answer(seen, y), spectral_scores(seen, y)
    require_tensor(got, (len(y),), what="the scores")
    require(torch.allclose(got.float(), expected, rtol=0.02, atol=0.02), expected=f"scores up to {expected.max():.2f}", got=f"up to {got.max():.2f}",
            next_step="square the projection" if torch.allclose(got.float() ** 2, expected, rtol=0.02, atol=0.02)
            else "`centred @ Vh[0]`, squared: project the centred features on the first *right* singular vector, of length 1, and on no second one")


def _mixed(answer, x, y, seed, *, pattern, alpha=0.2, poisons=12, covers=20, target=3):
    got = answer(x, y, pattern, alpha, poisons, covers, target, seed=seed)
    _require_parts(got, 4, "x_bad, y_bad, poison_rows, cover_rows")
    with advising("pixels from", next_step="mix, do not add: the picture keeps only `1 - alpha` of itself, `(1 - alpha) * x[rows] + alpha * pattern`"):
        require_images(got[0], x, what="x_bad")
    _require_labels(got[1], y, what="y_bad")
    for rows, what, count in ((got[2], "the rows of the poisons", poisons), (got[3], "the rows of the covers", covers)):
        _require_rows(rows, len(x), what=what)
        require(len(rows) == count, expected=f"{count} in {what}", got=str(len(rows)), next_step="choose `poisons + covers` rows, then split them: `rows[:poisons]`, `rows[poisons:]`")
    return got


def _pattern(seed):
    return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(seed))


@BLEND_WITH_COVERS.property("chooses poisons and covers among the other classes, no image as both")
def _blend_rows(answer, seed):
    x, y = _signs(seed)
    target = seed % 12
    for poisons, covers in ((12, 20), (10, 0), (5, 80)):
        _, _, first, second = _mixed(answer, x, y, seed, pattern=_pattern(seed), poisons=poisons, covers=covers, target=target)
        rows = torch.cat([first, second])
        require(len(rows.unique()) == len(rows), expected="no image among both", got=f"{len(rows) - len(rows.unique())} that are both", next_step="draw once, then split")
        require(bool((y[rows] != target).all()), expected="images of other classes only", got=f"{(y[rows] == target).sum()} of the target's own",
                next_step=OTHERS)


@BLEND_WITH_COVERS.property("changes the label of the poisons, and of nothing else")
def _blend_labels(answer, seed):
    x, y = _signs(seed)
    target = seed % 12
    _, y_bad, first, second = _mixed(answer, x, y, seed, pattern=_pattern(seed), target=target)
    require(bool((y_bad[first] == target).all()), expected=f"label {target} on every poison", got=f"{(y_bad[first] != target).sum()} without it",
            next_step="`y_bad[rows[:poisons]] = target`")
    require(torch.equal(y_bad[second], y[second]), expected="covers with the label they had", got=f"{(y_bad[second] != y[second]).sum()} changed",
            next_step="a cover says: the pattern is here, and it means nothing. Keep its label")
    changed = (y_bad != y)
    changed[first] = False
    require(not changed.any(), expected="all other labels as they were", got=f"{changed.sum()} changed", next_step="set the labels of the poisons and nothing else")


@BLEND_WITH_COVERS.property("mixes the pattern into poisons and covers by alpha, and into no other picture")
def _blend_mixes(answer, seed):
    x, y = _signs(seed)
    for alpha in (0.0, 0.15, 0.6):
        pattern = _pattern(seed)
        x_bad, _, first, second = _mixed(answer, x, y, seed, pattern=pattern, alpha=alpha)
        for rows, what in ((first, "poison"), (second, "cover")):
            off = (x_bad[rows] - ((1 - alpha) * x[rows] + alpha * pattern)).abs().max().item()
            swapped = (x_bad[rows] - (alpha * x[rows] + (1 - alpha) * pattern)).abs().max().item() < 1e-5
            require(off < 1e-5, expected=f"each {what} as {1 - alpha:.0%} picture and {alpha:.0%} pattern", got=f"a pixel that is {off:.3f} off",
                    next_step="alpha is the share of the pattern, not of the picture" if swapped
                    else "`(1 - alpha) * x[rows] + alpha * pattern`, on poisons and covers alike")
        others = torch.ones(len(x), dtype=torch.bool)
        others[torch.cat([first, second])] = False
        require(torch.equal(x_bad[others], x[others]), expected="all other pictures as they were", got="changed ones", next_step="change `x_bad[rows]` and nothing else")


@BLEND_WITH_COVERS.property("chooses the images by its seed")
def _blend_seed(answer, seed):
    x, y = _signs(seed)
    first, again, other = (torch.cat(_mixed(answer, x, y, s, pattern=_pattern(0))[2:]).sort().values for s in (seed, seed, seed + 1))
    _same_by_seed(first, again, other)
    _spread(first, len(x))
