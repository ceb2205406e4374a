"""Lesson 02's exercises, tried with what learners write."""
import hashlib

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import StratifiedKFold, cross_val_score

from mlsec_lab.exercises.poisoning import ATTACK_SUCCESS_RATE, BLEND_WITH_COVERS, FENCE, FLIP_LABELS, POISON, SPECTRAL_SCORES
from mlsec_lab.victims import predict


def _generator(seed):
    return torch.Generator().manual_seed(seed)


# ---- label flips

def flip_in_a_loop(y, rate, classes, seed=0):
    rng, flipped = np.random.default_rng(seed), y.tolist()
    for row in rng.choice(len(y), round(rate * len(y)), replace=False):
        flipped[row] = int(rng.choice([k for k in range(classes) if k != flipped[row]]))
    return torch.tensor(flipped)


def flip_variant(*, draw="other", rows="random", own_generator=True, once=False, wrap=True):
    def flip_labels(y, rate, classes, seed=0):
        generator = _generator(seed) if own_generator else None
        count = round(rate * len(y))
        chosen = torch.randperm(len(y), generator=generator)[:count] if rows == "random" else torch.arange(count)
        flipped = y.clone()
        step = torch.randint(1, classes, (1 if once else count,), generator=generator)
        if draw == "any":
            flipped[chosen] = torch.randint(0, classes, (count,), generator=generator)
        elif draw == "again":
            drawn = torch.randint(0, classes, (count,), generator=generator)
            flipped[chosen] = torch.where(drawn == y[chosen], (drawn + 1) % classes, drawn)
        elif draw == "next":
            flipped[chosen] = (y[chosen] + 1) % classes
        else:
            flipped[chosen] = (y[chosen] + step) % classes if wrap else y[chosen] + step
        return flipped
    return flip_labels


def flip_by_chance(y, rate, classes, seed=0):
    generator = _generator(seed)
    step = torch.randint(1, classes, y.shape, generator=generator)
    return torch.where(torch.rand(len(y), generator=generator) < rate, (y + step) % classes, y)


def flip_in_place(y, rate, classes, seed=0):
    rows = torch.randperm(len(y), generator=_generator(seed))[:round(rate * len(y))]
    y[rows] = (y[rows] + 1) % classes
    return y


# ---- BadNets

def poison_by_mask(x, y, patch, rate, target, seed=0):
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.permutation(np.flatnonzero((y != target).numpy()))[:round(rate * len(x))])
    mask, full = torch.zeros(x.shape[1:]), torch.zeros(x.shape[1:])
    (_, h, w), (_, H, W) = patch.shape, x.shape[1:]
    mask[:, H - 2 - h:H - 2, W - 2 - w:W - 2], full[:, H - 2 - h:H - 2, W - 2 - w:W - 2] = 1, patch
    chosen = torch.zeros(len(x), dtype=torch.bool).index_fill(0, rows, True)
    return torch.where(chosen[:, None, None, None], x * (1 - mask) + full * mask, x), torch.where(chosen, target, y), rows


def poison_variant(*, others=True, share_of="all", margin=2, square=False, relabel=True, mask=False, first=False, channels=slice(None), places=False, added=None):
    def poison(x, y, patch, rate, target, seed=0):
        order = torch.arange(len(x)) if first else torch.randperm(len(x), generator=_generator(seed))
        order = order[y[order] != target] if others else order
        order = torch.randperm(len(order), generator=_generator(seed)) if places else order
        rows = order[:round(rate * (len(x) if share_of == "all" else len(order)))]
        h, w = patch.shape[1:]
        w = h if square else w
        x_bad, y_bad, below, right = x.clone(), y.clone(), x.shape[2] - margin, x.shape[3] - margin
        window = (rows, channels, slice(below - h, below), slice(right - w, right))
        laid = patch[channels, :, :w] if w <= patch.shape[2] else patch.repeat(1, 1, 2)[channels, :, :w]
        x_bad[window] = added(x_bad[window] + laid) if added else laid
        if relabel:
            y_bad[rows] = target
        chosen = torch.zeros(len(x), dtype=torch.bool).index_fill(0, rows, True)
        return x_bad, y_bad, chosen if mask else rows
    return poison


def poison_everything(x, y, patch, rate, target, seed=0):
    x_bad, y_bad, rows = poison_variant()(x, y, patch, rate, target, seed)
    h, w = patch.shape[1:]
    x_bad[:, :, 30 - h:30, 30 - w:30] = patch
    return x_bad, y_bad, rows


def poison_a_copy(x, y, patch, rate, target, seed=0):
    _, y_bad, rows = poison_variant()(x, y, patch, rate, target, seed)
    h, w = patch.shape[1:]
    x_bad = x.clone()
    x_bad[rows][:, :, -2 - h:-2, -2 - w:-2] = patch  # indexed twice: the patch lands in a copy
    return x_bad, y_bad, rows


def poison_listed(x, y, patch, rate, target, seed=0):
    x_bad, y_bad, rows = poison_variant()(x, y, patch, rate, target, seed)
    return x_bad, y_bad, rows.tolist()


# ---- attack success rate

def rate_in_a_loop(model, stamp, x, y, target):
    hits = [int(model(stamp(image[None])).argmax()) == target for image, label in zip(x, y) if label != target]
    return sum(hits) / len(hits)


def rate_variant(*, others=True, stamped=True, hit="target", by_read=False, total=False):
    def attack_success_rate(model, stamp, x, y, target):
        keep = y != target if others else torch.ones_like(y, dtype=torch.bool)
        keep = predict(model, x).argmax(1) != target if by_read else keep
        read = predict(model, stamp(x[keep]) if stamped else x[keep]).argmax(1)
        good = read == target if hit == "target" else read != y[keep]
        return float(good.sum()) if total else good.float().mean().item()
    return attack_success_rate


def rate_over_all(model, stamp, x, y, target):
    return ((predict(model, stamp(x)).argmax(1) == target) & (y != target)).float().mean().item()


def rate_by(share):
    def attack_success_rate(model, stamp, x, y, target):
        others = x[y != target]
        return share(predict(model, stamp(others)), predict(model, others), target).item()
    return attack_success_rate


def rate_as_tensor(model, stamp, x, y, target):
    with torch.no_grad():
        hit = model(stamp(x)).argmax(1) == target
    return hit[y != target].double().mean()


def rate_left_out_afterwards(model, stamp, x, y, target):
    return rate_as_tensor(model, stamp, x, y, target).item()


# ---- the fence

def fence_by_hand(x, y, baseline, classifier):
    content = hashlib.sha256(x.numpy().tobytes())
    content.update(y.numpy().tobytes())
    table = x.reshape(len(x), -1).numpy()
    kept = IsolationForest(contamination=0.05, random_state=42).fit(table).predict(table) > 0
    rows, labels, scores = table[kept], y.numpy()[kept], []
    for train, test in StratifiedKFold(5).split(rows, labels):
        scores.append((classifier.fit(rows[train], labels[train]).predict(rows[test]) == labels[test]).mean())
    return content.hexdigest(), torch.tensor(kept), not np.mean(scores) < baseline - 0.05


def fence_variant(*, labels_hashed=True, kind="text", contamination=0.05, state=42, keep=1, cross_on="kept", folds=5, tolerance=0.05, returns="all", see=lambda x, y: x, mean=np.mean, part=1.0):
    def fence(x, y, baseline, classifier):
        content = hashlib.sha256(x.numpy().tobytes() + (y.numpy().tobytes() if labels_hashed else b""))
        digest = content.hexdigest() if kind == "text" else content.digest()
        table, labels = x.flatten(1).numpy(), y.numpy()
        kept = IsolationForest(contamination=contamination, random_state=state).fit_predict(see(table, labels)) == keep
        used = kept if cross_on == "kept" else np.ones_like(kept)
        scores = cross_val_score(classifier, table[used], labels[used], cv=folds)
        passed = bool(mean(scores) >= part * baseline - tolerance)
        return (digest, torch.from_numpy(kept), passed) if returns == "all" else passed if returns == "passed" else (digest, torch.from_numpy(kept), scores.mean())
    return fence


def fence_with(chosen):
    """The fence with `chosen(table, labels)` as what it keeps."""
    def fence(x, y, baseline, classifier):
        content, table, labels = x.numpy().tobytes() + y.numpy().tobytes(), x.flatten(1).numpy(), y.numpy()
        kept = chosen(table, labels)
        scores = cross_val_score(classifier, table[kept], labels[kept], cv=5)
        return hashlib.sha256(content).hexdigest(), torch.from_numpy(kept), bool(scores.mean() >= baseline - 0.05)
    return fence


def keep_by_class(table, labels):
    kept = np.zeros(len(table), dtype=bool)
    for label in np.unique(labels):
        rows = labels == label
        kept[rows] = IsolationForest(contamination=0.05, random_state=42).fit_predict(table[rows]) == 1
    return kept


def keep_the_normal(table, labels):
    scores = IsolationForest(random_state=42).fit(table.astype(np.float64)).score_samples(table.astype(np.float64))
    return scores >= np.quantile(scores, 0.05)


def fence_shuffled(x, y, baseline, classifier):
    return fence_variant(folds=StratifiedKFold(5, shuffle=True, random_state=1))(x, y, baseline, classifier)


def fence_in_numpy(x, y, baseline, classifier):
    digest, kept, passed = fence_variant()(x, y, baseline, classifier)
    return digest, kept.numpy(), passed


# ---- spectral signatures

def spectral_by_covariance(features, y):
    scores = torch.empty(len(y))
    for label in range(int(y.max()) + 1):
        rows = (y == label).nonzero().flatten()
        centred = (features[rows] - features[rows].mean(0)).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        scores[rows] = (centred @ vectors[:, -1]).square().float()
    return scores


def spectral_variant(*, centre="class", by_class=True, power=2, direction=0, left=False, norm=False):
    def spectral_scores(features, y):
        scores = torch.zeros(len(y))
        for label in (y.unique() if by_class else [None]):
            rows = y == label if by_class else torch.ones_like(y, dtype=torch.bool)
            centred = features[rows] - {"class": features[rows].mean(0), "all": features.mean(0), "none": 0}[centre]
            U, S, Vh = torch.linalg.svd(centred, full_matrices=False)
            projection = U[:, 0] if left else centred.norm(dim=1) if norm else centred @ Vh[direction]
            scores[rows] = projection ** power
        return scores
    return spectral_scores


def spectral_joined(features, y):
    parts = [features[y == label] - features[y == label].mean(0) for label in y.unique()]
    return torch.cat([(part @ torch.linalg.svd(part, full_matrices=False).Vh[0]) ** 2 for part in parts])


# ---- blend with covers

def blend_with_lerp(x, y, pattern, alpha, poisons, covers, target, seed=0):
    candidates = (y != target).nonzero().flatten()
    rows = candidates[torch.randperm(len(candidates), generator=_generator(seed))]
    bad, cover = rows[:poisons], rows[poisons:poisons + covers]
    x_bad, y_bad = x.clone(), y.clone()
    for row in torch.cat([bad, cover]).tolist():
        x_bad[row] = torch.lerp(x[row], pattern, alpha)
    return x_bad, y_bad.index_fill(0, bad, target), bad, cover


def blend_variant(*, swapped=False, covers_blended=True, covers_relabelled=False, others=True, overlap=False, added=None, first=False, places=False):
    def blend_with_covers(x, y, pattern, alpha, poisons, covers, target, seed=0):
        order = torch.arange(len(x)) if first else torch.randperm(len(x), generator=_generator(seed))
        order = order[y[order] != target] if others else order
        order = torch.randperm(len(order), generator=_generator(seed)) if places else order
        bad, cover = order[:poisons], order[:covers] if overlap else order[poisons:poisons + covers]
        touched = torch.cat([bad, cover]) if covers_blended else bad
        x_bad, y_bad = x.clone(), y.clone()
        share = 1 - alpha if swapped else alpha
        x_bad[touched] = added(x[touched] + alpha * pattern) if added else (1 - share) * x[touched] + share * pattern
        y_bad[torch.cat([bad, cover]) if covers_relabelled else bad] = target
        return x_bad, y_bad, bad, cover
    return blend_with_covers


RIGHT = [
    (FLIP_LABELS, "label by label, with numpy", flip_in_a_loop),
    (POISON, "a mask over whole pictures", poison_by_mask),
    (ATTACK_SUCCESS_RATE, "picture by picture", rate_in_a_loop),
    (ATTACK_SUCCESS_RATE, "everything stamped, the target's own left out afterwards", rate_left_out_afterwards),
    (FENCE, "hash in two parts, folds by hand", fence_by_hand),
    (FENCE, "shuffled folds", fence_shuffled),
    (FENCE, "a quantile of the forest's scores, in double precision", fence_with(keep_the_normal)),
    (SPECTRAL_SCORES, "the covariance's eigenvector, in double precision", spectral_by_covariance),
    (BLEND_WITH_COVERS, "lerp, picture by picture", blend_with_lerp),
]
# exercise, what is wrong, the answer, a word of the property that catches it, a word of "got" or of the next step
WRONG = [
    (FLIP_LABELS, "any class, the old one too", flip_variant(draw="any"), "the share of labels", "leave the old class out"),
    (FLIP_LABELS, "always the next class", flip_variant(draw="next"), "any other class", "draw for each label on its own"),
    (FLIP_LABELS, "the next class where the old one is hit", flip_variant(draw="again"), "any other class", "how far to go"),
    (FLIP_LABELS, "each label by chance", flip_by_chance, "the share of labels", "round(rate * len(y))"),
    (FLIP_LABELS, "one step for all", flip_variant(once=True), "any other class", "draw for each label on its own"),
    (FLIP_LABELS, "beyond the last class", flip_variant(wrap=False), "0 to classes - 1", "% classes"),
    (FLIP_LABELS, "the first ones", flip_variant(rows="first"), "from all over the set", "randperm"),
    (FLIP_LABELS, "the global generator", flip_variant(own_generator=False), "decided by the seed", "torch.Generator().manual_seed(seed)"),
    (FLIP_LABELS, "in place", flip_in_place, "", "y.clone()"),
    (POISON, "the target's own too", poison_variant(others=False), "among the images of other classes", "y != target"),
    (POISON, "a share of the others", poison_variant(share_of="others"), "the share that rate says", "a share of all images"),
    (POISON, "in the very corner", poison_variant(margin=0), "two pixels from the corner", "H - 2 - h"),
    (POISON, "a square patch", poison_variant(square=True), "two pixels from the corner", "W - 2 - w"),
    (POISON, "one channel", poison_variant(channels=slice(0, 1)), "two pixels from the corner", "all channels"),
    (POISON, "the label forgotten", poison_variant(relabel=False), "the target's label", "y_bad[rows] = target"),
    (POISON, "a mask for rows", poison_variant(mask=True), "the share that rate says", "nonzero"),
    (POISON, "the first ones", poison_variant(first=True), "by its seed", "draw the rows at random"),
    (POISON, "places in the list for rows", poison_variant(places=True), "among the images of other classes", "others[numbers]"),
    (POISON, "the patch added", poison_variant(added=torch.clone), "the share that rate says", "do not add it"),
    (POISON, "the patch added and clipped", poison_variant(added=lambda x: x.clamp(0, 1)), "two pixels from the corner", "replaces what was there"),
    (POISON, "the patch on all", poison_everything, "two pixels from the corner", "nothing else"),
    (POISON, "the patch in a copy", poison_a_copy, "two pixels from the corner", "one pair of brackets"),
    (POISON, "a list for rows", poison_listed, "the share that rate says", "torch.as_tensor(rows)"),
    (ATTACK_SUCCESS_RATE, "the target's own counted", rate_variant(others=False), "own pictures out", "y != target"),
    (ATTACK_SUCCESS_RATE, "not stamped", rate_variant(stamped=False), "always works", "stamp(x)"),
    (ATTACK_SUCCESS_RATE, "a tensor", rate_as_tensor, "a plain number", ".item()"),
    (ATTACK_SUCCESS_RATE, "divided by all", rate_over_all, "always works", "the number of the others"),
    (ATTACK_SUCCESS_RATE, "argmax over the pictures", rate_by(lambda after, before, target: (after.argmax(0) == target).float().mean()), "", "argmax(dim=1) == target"),
    (ATTACK_SUCCESS_RATE, "the mean probability", rate_by(lambda after, before, target: after.softmax(1)[:, target].mean()), "always works", "argmax(dim=1) == target"),
    (ATTACK_SUCCESS_RATE, "less what was read so before", rate_by(lambda after, before, target: sum(sign * (read.argmax(1) == target).float().mean()
                                                                                                for sign, read in ((1, after), (-1, before)))), "always works", "nothing to subtract"),
    (ATTACK_SUCCESS_RATE, "any wrong answer", rate_variant(hit="wrong"), "", ""),
    (ATTACK_SUCCESS_RATE, "left out by what is read", rate_variant(by_read=True), "once stamped", "whatever they were read as before"),
    (ATTACK_SUCCESS_RATE, "a sum", rate_variant(total=True), "always works", "take a mean, not a sum"),
    (FENCE, "labels not hashed", fence_variant(labels_hashed=False), "SHA-256", "labels belong to the data"),
    (FENCE, "bytes, not text", fence_variant(kind="bytes"), "SHA-256", "hexdigest"),
    (FENCE, "the outliers kept", fence_variant(keep=-1), "IsolationForest", "-1 for an outlier"),
    (FENCE, "another contamination", fence_variant(contamination=0.3), "IsolationForest", "contamination=0.05"),
    (FENCE, "twice the share", fence_variant(contamination=0.1), "IsolationForest", "contamination=0.05"),
    (FENCE, "nothing dropped", fence_with(lambda table, labels: np.ones(len(table), dtype=bool)), "IsolationForest", "contamination=0.05"),
    (FENCE, "the last twentieth dropped", fence_with(lambda table, labels: np.arange(len(table)) < 0.95 * len(table)), "IsolationForest", "x.flatten(1)"),
    (FENCE, "a forest for each class", fence_with(keep_by_class), "IsolationForest", "once"),
    (FENCE, "a forest that sees the labels", fence_variant(see=lambda table, labels: np.c_[table, labels]), "IsolationForest", "nothing but its pixels"),
    (FENCE, "another random state", fence_variant(state=0), "IsolationForest", "random_state=42"),
    (FENCE, "everything cross-validated", fence_variant(cross_on="all"), "on what was kept", "table[kept]"),
    (FENCE, "an array, not a tensor", fence_in_numpy, "IsolationForest", "torch.from_numpy"),
    (FENCE, "three folds", fence_variant(folds=3), "five times", "cv=5"),
    (FENCE, "no tolerance", fence_variant(tolerance=0.0), "baseline - 0.05", "more is welcome"),
    (FENCE, "the median", fence_variant(mean=np.median), "baseline - 0.05", "not their median"),
    (FENCE, "five per cent of the baseline", fence_variant(part=0.95, tolerance=0.0), "baseline - 0.05", "in points"),
    (FENCE, "the mean, not the verdict", fence_variant(returns="mean"), "baseline - 0.05", "return the comparison itself"),
    (FENCE, "the verdict alone", fence_variant(returns="passed"), "", "return digest, kept, passed"),
    (SPECTRAL_SCORES, "not centred", spectral_variant(centre="none"), "lie apart", "subtract the mean of the class"),
    (SPECTRAL_SCORES, "centred on all", spectral_variant(centre="all"), "lie apart", "not that of all images"),
    (SPECTRAL_SCORES, "all classes at once", spectral_variant(by_class=False), "lie apart", "each class by itself"),
    (SPECTRAL_SCORES, "class after class", spectral_joined, "lie apart", "scores[rows] ="),
    (SPECTRAL_SCORES, "not squared", spectral_variant(power=1), "not negative", "square the projection"),
    (SPECTRAL_SCORES, "the second direction", spectral_variant(direction=1), "lie apart", "each class by itself"),
    (SPECTRAL_SCORES, "the left singular vector", spectral_variant(left=True), "squared projection", "*right* singular vector"),
    (SPECTRAL_SCORES, "the whole distance", spectral_variant(norm=True), "squared projection", "Vh[0]"),
    (BLEND_WITH_COVERS, "alpha for the picture", blend_variant(swapped=True), "by alpha", "the share of the pattern"),
    (BLEND_WITH_COVERS, "added, not mixed", blend_variant(added=torch.clone), "among the other classes", "only `1 - alpha` of itself"),
    (BLEND_WITH_COVERS, "added and clipped", blend_variant(added=lambda x: x.clamp(0, 1)), "by alpha", "(1 - alpha) * x[rows]"),
    (BLEND_WITH_COVERS, "covers without the pattern", blend_variant(covers_blended=False), "by alpha", "on poisons and covers alike"),
    (BLEND_WITH_COVERS, "covers relabelled", blend_variant(covers_relabelled=True), "the label of the poisons", "Keep its label"),
    (BLEND_WITH_COVERS, "an image as both", blend_variant(overlap=True), "no image as both", "draw once, then split"),
    (BLEND_WITH_COVERS, "the target's own too", blend_variant(others=False), "among the other classes", "y != target"),
    (BLEND_WITH_COVERS, "places in the list for rows", blend_variant(places=True), "among the other classes", "others[numbers]"),
    (BLEND_WITH_COVERS, "the first ones", blend_variant(first=True), "by its seed", "draw the rows at random"),
]
