"""Poisoning (OWASP ML02): a few bad examples in the training set, and three ways to look for them.

Attacks:   flip_labels; the backdoors (BadNets, Blended, AdaptiveBlend, AdvCleanLabel, …) have a module of their own, backdoors
Defences:  fence (what guides recommend: hash, outliers, cross-validation) · spectral_signatures · activation_clustering
Metrics:   removal (recall and precision); accuracy and the backdoors' attack_success_rate

Defences look at the training set, or at the `features` that a network trained on it has of it, and return a verdict: which
images to remove. They train nothing and remove nothing themselves.
"""
import hashlib
from typing import NamedTuple

import torch

from mlsec_lab.victims.inputs import check_images, check_labels, check_number
from mlsec_lab.victims.networks import frozen, penultimate


# ---- attacks on the labels

def flip_labels(y, rate, *, source=None, target=None, classes=None, seed=0):
    """Labels of which a share `rate` is wrong (Biggio et al., 2012, flip them for SVMs; here the choice is random).

    y: int64 [N].  rate: in [0, 1], the share that is changed, rounded down to whole images.
    source: only labels of this class are changed, and `rate` is a share of them; by default of all.
    target: what they become; by default any of the other classes, drawn evenly.
    classes: how many there are; by default as many as y shows.  seed: which labels, and what they become.
    Returns a new y; `(flipped != y).nonzero()` tells where it was changed.
    Raises ValueError for a rate outside [0, 1], a class that does not exist, source equal to target, or no second class to flip to.
    """
    check_labels(y, len(y) if isinstance(y, torch.Tensor) and y.ndim else 0)
    check_number(rate, "rate", least=0, most=1)
    check_number(seed, "seed", whole=True)
    if classes is None:
        classes = int(y.max()) + 1 if len(y) else 2
    check_number(classes, "classes", least=2, whole=True)
    check_labels(y, len(y), classes)
    for value, name in ((source, "source"), (target, "target")):
        if value is not None:
            check_number(value, name, least=0, most=classes - 1, whole=True)
    if source is not None and source == target:
        raise ValueError(f"target must be another class than source, not {target} as well")
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.arange(len(y)) if source is None else (y == source).nonzero().flatten()
    candidates = candidates if target is None else candidates[y[candidates] != target]  # a label that is wanted cannot be flipped to it
    count = int(rate * len(candidates) + 1e-9)
    rows = candidates[torch.randperm(len(candidates), generator=generator)[:count]]
    flipped = y.clone()
    if target is None:
        flipped[rows] = (y[rows] + torch.randint(1, classes, (count,), generator=generator)) % classes
    else:
        flipped[rows] = target
    return flipped


# ---- the fence that guides recommend

class FenceVerdict(NamedTuple):
    """digest: SHA-256 of the data, in hexadecimal.  kept: bool [N], False for what the forest calls an outlier.
    score: mean accuracy of the cross-validation on what was kept.  passed: whether that is near enough to the baseline."""
    digest: str
    kept: torch.Tensor
    score: float
    passed: bool


def fence(x, y, *, baseline, contamination=0.05, folds=5, tolerance=0.05, classifier=None):
    """The three checks of an OWASP guide on a training set: record its hash, drop outliers, cross-validate against a baseline.

    x: [N, C, H, W] in [0, 1].  y: [N].  baseline: the accuracy that the same cross-validation had on data that you trust.
    contamination: the share that the isolation forest (Liu et al., 2008) drops, whatever there is to find.
    folds, tolerance: of the cross-validation; it passes at baseline - tolerance or above.
    classifier: of scikit-learn, untrained; by default the guide's, a RandomForestClassifier.
    Returns FenceVerdict(digest, kept, score, passed).
    Raises ValueError for a baseline or tolerance outside [0, 1], a contamination outside (0, 0.5], folds below 2 or above the size of
    the smallest class, or images and labels of the wrong kind.
    """
    from sklearn.ensemble import IsolationForest, RandomForestClassifier
    from sklearn.model_selection import cross_val_score
    check_images(x)
    check_labels(y, len(x))
    check_number(baseline, "baseline", least=0, most=1)
    check_number(contamination, "contamination", above=0, most=0.5)
    check_number(tolerance, "tolerance", least=0, most=1)
    check_number(folds, "folds", least=2, whole=True)
    table, labels = x.flatten(1).cpu().numpy(), y.cpu().numpy()
    kept = IsolationForest(contamination=contamination, random_state=42).fit_predict(table) == 1  # 42, as the guide has it
    smallest = int(torch.bincount(y[torch.from_numpy(kept)]).clamp_min(1).min()) if len(y) else 0
    if folds > smallest:
        raise ValueError(f"folds must be at most {smallest}, the images that the smallest class has left, not {folds}")
    classifier = RandomForestClassifier(random_state=42) if classifier is None else classifier
    score = float(cross_val_score(classifier, table[kept], labels[kept], cv=folds).mean())
    return FenceVerdict(digest(x, y), torch.from_numpy(kept), score, score >= baseline - tolerance)


def digest(x, y):
    """SHA-256 over the shapes, the pixels and the labels, in hexadecimal: it changes when a single bit of them does.

    What it proves: that this is the data which somebody hashed earlier.  What it does not: that that data was good.
    x: [N, C, H, W] in [0, 1].  y: [N].
    """
    check_images(x)
    check_labels(y, len(x))
    content = hashlib.sha256(repr((tuple(x.shape), "float32", "int64")).encode())  # without the shape, two pictures could change places with one
    for part in (x, y):
        content.update(part.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


# ---- what the network's features tell

def features(model, x, *, batch=256):
    """What the model's last linear layer sees of x: [N, D], without gradients.

    x: [N, C, H, W] in [0, 1].  Raises ValueError for images of the wrong kind, or a model without a linear layer.
    """
    check_images(x)
    check_number(batch, "batch", least=1, whole=True)
    with torch.no_grad(), frozen(model):
        return torch.cat([penultimate(model, part)[0] for part in x.split(batch)])


def spectral_scores(seen, y):
    """How far each image lies from its class along the direction in which that class varies most (Tran et al., 2018).

    seen: features [N, D].  y: [N], the labels as they are in the training set.
    Returns [N], the squared projections on each class's top right singular vector.  Raises ValueError for shapes that disagree.
    """
    _check_features(seen, y)
    scores = torch.zeros(len(y))
    for label in y.unique():
        rows = (y == label).nonzero().flatten()
        centred = seen[rows] - seen[rows].mean(0)
        direction = torch.linalg.svd(centred, full_matrices=False).Vh[0]
        scores[rows] = (centred @ direction).square()
    return scores


def spectral_signatures(seen, y, *, expected, factor=1.5, classes=None):
    """The images to remove: in each class the factor * expected ones with the highest spectral scores (Tran et al., 2018).

    seen: features [N, D] of a network that was trained on the suspect data.  y: [N].
    expected: how many poisons a class may hold; the defender has to guess it.  factor: how many to remove for each of them.
    classes: where to remove; by default everywhere, as in the paper, since nobody says which class is poisoned.
    Returns int64, the rows.  Raises ValueError for expected < 0, factor <= 0, a class that y does not hold, or shapes that disagree.
    """
    check_number(expected, "expected", least=0)
    check_number(factor, "factor", above=0)
    scores = spectral_scores(seen, y)
    present = y.unique().tolist()
    rows = []
    for label in present if classes is None else classes:
        if label not in present:
            raise ValueError(f"classes must be some of those in y, {present}, not {label!r}")
        members = (y == label).nonzero().flatten()
        rows.append(members[scores[members].argsort(descending=True)[:round(factor * expected)]])
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)


def standing_out(scores, y, *, expected):
    """How far out the `expected` highest scores of each class lie, in standard deviations of its ordinary images: [K], NaN for a class without images.

    The paper does not say which class is poisoned. This is the course's own answer: a class with a second, small group of
    images stands out; a large class that merely varies much does not. Medians, so that the group does not move the measure itself.
    scores: [N], of spectral_scores.  y: [N].  Raises ValueError for expected < 1 or shapes that disagree.
    """
    check_number(expected, "expected", least=1)
    check_labels(y, len(scores))
    out = torch.full((int(y.max()) + 1,), torch.nan)
    for label in y.unique():
        distance = scores[y == label].sqrt()
        ordinary = 1.4826 * distance.median().clamp_min(1e-12)  # the standard deviation, were the distances half-normal
        out[label] = distance.sort(descending=True).values[:round(expected)].mean() / ordinary
    return out


class Clusters(NamedTuple):
    """For each of the K classes: size, the share of it that lies in its smaller cluster, and silhouette, how clearly the two are
    apart (-1 to 1; both NaN where a class has fewer than four images, or one picture many times).  small: bool [N], whether an image lies in the smaller cluster of its class."""
    size: torch.Tensor
    silhouette: torch.Tensor
    small: torch.Tensor


def activation_clustering(seen, y, *, dimensions=10, seed=0):
    """Each class in two by k-means on its features; poison is expected in the smaller half (Chen et al., 2018).

    seen: features [N, D] of a network that was trained on the suspect data.  y: [N].
    dimensions: to which the features are reduced first.  The paper takes independent components; principal ones, as here, need no convergence.
    Returns Clusters(size, silhouette, small).  Raises ValueError for dimensions < 1 or shapes that disagree.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score
    _check_features(seen, y)
    check_number(dimensions, "dimensions", least=1, whole=True)
    check_number(seed, "seed", least=0, whole=True)
    size, silhouette = (torch.full((int(y.max()) + 1,), torch.nan) for _ in range(2))
    small = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        rows = (y == label).nonzero().flatten()
        if len(rows) < 4 or (seen[rows] == seen[rows[0]]).all():
            continue
        table = seen[rows].cpu().numpy()
        table = PCA(min(dimensions, *table.shape), random_state=seed, svd_solver="randomized").fit_transform(table)
        cluster = torch.from_numpy(KMeans(2, n_init=10, random_state=seed).fit_predict(table))
        inside = cluster == (cluster.float().mean() < 0.5)
        if inside.any():
            size[label], small[rows] = inside.float().mean(), inside
            silhouette[label] = float(silhouette_score(table, inside.numpy()))
    return Clusters(size, silhouette, small)


# ---- metrics

class Removal(NamedTuple):
    """recall: the share of the poisons that was removed.  precision: the share of what was removed that is poison.  NaN for a share of nothing."""
    recall: float
    precision: float


def removal(rows, poisons):
    """How well `rows` were chosen, against the rows that are `poisons`: Removal(recall, precision).  Both int64, in any order."""
    found = torch.isin(poisons, rows).sum().item()
    return Removal(*(found / len(part) if len(part) else float("nan") for part in (poisons, rows)))


def _check_features(seen, y):
    if not isinstance(seen, torch.Tensor) or seen.ndim != 2 or not seen.is_floating_point():
        raise ValueError(f"seen must be a float tensor of features [N, D], not {getattr(seen, 'shape', type(seen).__name__)}: `features(model, x)` makes it")
    check_labels(y, len(seen))
    if not len(y):
        raise ValueError("seen must hold the features of at least one image")
