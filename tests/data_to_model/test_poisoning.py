"""Label flips, the guide's fence, and the two filters that look at features."""
import functools

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from mlsec_lab.data_to_model import poisoning
from mlsec_lab.data_to_model.backdoors import BadNets
from mlsec_lab.data_to_model.poisoning import (activation_clustering, digest, features, fence, flip_labels, removal, spectral_scores, spectral_signatures,
                                               standing_out)
from mlsec_lab.victims import signs, small_cnn, train

TREE = DecisionTreeClassifier(max_depth=6, max_features=20, random_state=0)
Y = torch.arange(12).repeat(50)


@functools.cache
def drawn(n=600):
    return signs.draw(n, seed=3)


@functools.cache
def backdoored():
    """(the poisoned set, features of a network that was trained on it): 30 of 1,200 signs wear BadNets' patch."""
    x, y = signs.draw(1200, seed=4)
    bad = BadNets(8, size=5).poison(x, y, 30)
    model = train(small_cnn(width=8), bad.x, bad.y, epochs=8, progress=False)
    return bad, features(model, bad.x)


def two_heaps(seed, *, apart=8.0, few=6, n=60, classes=3, dimensions=8):
    """Features and labels; in class 1 the returned rows lie apart."""
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randn(n * classes, dimensions, generator=generator)
    y = torch.arange(classes).repeat(n)
    rows = (y == 1).nonzero().flatten()[torch.randperm(n, generator=generator)[:few]]
    seen[rows, 0] += apart
    return seen + 10 * torch.randn(classes, dimensions, generator=generator)[y], y, rows


# ---- label flips

@pytest.mark.parametrize("rate", [0, 0.1, 0.5, 1])
def test_the_stated_share_of_labels_is_flipped_to_another_class(rate):
    before = Y.clone()
    flipped = flip_labels(Y, rate, seed=1)
    assert (flipped != Y).sum() == round(rate * len(Y))
    assert flipped.dtype == torch.int64 and flipped.min() >= 0 and flipped.max() <= 11
    assert torch.equal(Y, before)


def test_random_flips_lead_to_every_other_class_about_evenly():
    counts = torch.bincount(flip_labels(torch.full((1100,), 4), 1.0, classes=12), minlength=12)
    assert counts[4] == 0
    assert counts[torch.arange(12) != 4].min() > 50


def test_aimed_flips_touch_the_source_alone_and_lead_to_the_target_alone():
    flipped = flip_labels(Y, 0.6, source=0, target=8, seed=2)
    changed = flipped != Y
    assert changed.sum() == 30 and (Y[changed] == 0).all() and (flipped[changed] == 8).all()
    everywhere = flip_labels(Y, 0.5, target=8, seed=2)
    assert (everywhere != Y).sum() == 275  # half of those that are not 8 already
    from_source = flip_labels(Y, 1.0, source=5)
    assert torch.equal(from_source != Y, Y == 5)


def test_flips_are_decided_by_the_seed_and_leave_the_global_state_alone():
    state = torch.random.get_rng_state()
    first, again, other = (flip_labels(Y, 0.3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("arguments, words", [
    (dict(rate=-0.1), "rate must be at least 0"), (dict(rate=1.1), "rate must be at most 1"), (dict(rate=float("nan")), "rate must be a number"),
    (dict(rate=0.1, target=12), "target must be at most 11"), (dict(rate=0.1, source=-1), "source must be at least 0"),
    (dict(rate=0.1, source=3, target=3), "target must be another class than source"), (dict(rate=0.1, classes=5), "classes from 0 to 4"),
    (dict(rate=0.1, classes=1), "classes must be at least 2"), (dict(rate=0.1, seed=0.5), "seed must be a whole number")])
def test_flips_refuse_what_makes_no_sense(arguments, words):
    with pytest.raises(ValueError, match=words):
        flip_labels(Y, **arguments)


@pytest.mark.parametrize("y", [[0, 1], torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), torch.tensor(1)])
def test_flips_refuse_labels_of_the_wrong_kind(y):
    with pytest.raises(ValueError, match="y must"):
        flip_labels(y, 0.1, classes=3)


# ---- the fence

def test_the_fence_drops_its_share_and_passes_what_reaches_the_baseline():
    x, y = drawn()
    verdict = fence(x, y % 3, baseline=0, classifier=TREE)
    assert (~verdict.kept).sum() == 30 and verdict.passed and 0 < verdict.score < 1
    assert fence(x, y % 3, baseline=verdict.score + 0.049, classifier=TREE).passed
    assert not fence(x, y % 3, baseline=verdict.score + 0.051, classifier=TREE).passed


def test_the_fence_sees_crude_flips_and_neither_a_backdoor_nor_a_wrong_label_in_its_outliers():
    x, y = drawn()
    bad = BadNets(8, size=5).poison(x, y, 12)
    clean, patched, flipped = (fence(images, labels, baseline=0, classifier=TREE)
                               for images, labels in ((x, y // 6), (bad.x, bad.y // 6), (x, flip_labels(y // 6, 0.45))))
    assert torch.equal(clean.kept, flipped.kept)  # labels are not looked at
    assert (~patched.kept)[bad.poisons].float().mean() <= 0.2
    assert flipped.score < clean.score - 0.05 < patched.score


def test_the_fences_default_classifier_is_the_guides_random_forest():
    x, y = drawn()
    small = torch.nn.functional.avg_pool2d(x[:150], 8)
    from sklearn.ensemble import RandomForestClassifier
    named = fence(small, y[:150] % 2, baseline=0, folds=2, classifier=RandomForestClassifier(random_state=42))
    default = fence(small, y[:150] % 2, baseline=0, folds=2)
    assert default.score == named.score and default.digest == named.digest


def test_the_digest_changes_with_a_single_pixel_label_or_shape():
    x, y = drawn()
    pixel, label = x.clone(), y.clone()
    pixel[5, 0, 3, 3] = 1 - pixel[5, 0, 3, 3] + 1e-3 * (pixel[5, 0, 3, 3] == 0.5)
    label[7] = (label[7] + 1) % 12
    found = {digest(x, y), digest(pixel.clamp(0, 1), y), digest(x, label), digest(x.transpose(2, 3).contiguous(), y),
             digest(x.reshape(600, 3, 16, 64), y)}
    assert len(found) == 5 and all(len(text) == 64 for text in found)
    assert digest(x.clone(), y.clone()) == digest(x.to(memory_format=torch.channels_last), y) == digest(x, y)


@pytest.mark.parametrize("arguments, words", [
    (dict(baseline=1.5), "baseline must be at most 1"), (dict(baseline=0, contamination=0), "contamination must be greater than 0"),
    (dict(baseline=0, contamination=0.7), "contamination must be at most 0.5"), (dict(baseline=0, folds=1), "folds must be at least 2"),
    (dict(baseline=0, folds=60), "folds must be at most"), (dict(baseline=0, tolerance=-1), "tolerance must be at least 0")])
def test_the_fence_refuses_what_makes_no_sense(arguments, words):
    x, y = drawn()
    with pytest.raises(ValueError, match=words):
        fence(x, y, classifier=TREE, **arguments)


def test_the_fence_refuses_images_out_of_range_and_labels_that_do_not_fit():
    x, y = drawn()
    with pytest.raises(ValueError, match="x must lie in"):
        fence(x * 2, y, baseline=0)
    with pytest.raises(ValueError, match="y must have the shape"):
        digest(x, y[:5])


# ---- features

def test_features_are_what_the_last_layer_sees_and_leave_the_model_alone():
    x, _ = drawn()
    model = small_cnn(width=4).train()
    seen = features(model, x[:40], batch=7)
    assert model.training and all(p.requires_grad for p in model.parameters()) and not seen.requires_grad
    model.eval()
    with torch.no_grad():
        assert torch.allclose(model[-1](seen), model(x[:40]), atol=1e-5)
    assert torch.allclose(seen, features(model, x[:40]), atol=1e-6)


def test_spectral_scores_are_the_squared_projections_on_the_first_principal_axis():
    seen, y, rows = two_heaps(0)
    before = seen.clone()
    scores = spectral_scores(seen, y)
    mine = (seen[y == 1] - seen[y == 1].mean(0)).double()
    values, vectors = torch.linalg.eigh(mine.T @ mine)
    assert torch.allclose(scores[y == 1].double(), (mine @ vectors[:, -1]).square(), rtol=1e-3, atol=1e-3)
    assert torch.equal(seen, before) and scores.min() >= 0
    assert torch.allclose(scores, spectral_scores(seen + 100, y), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("seed", range(5))
def test_the_few_that_lie_apart_are_found_and_their_class_stands_out(seed):
    seen, y, rows = two_heaps(seed)
    found = spectral_signatures(seen, y, expected=len(rows), classes=[1])
    assert len(found) == 9 and removal(found, rows).recall == 1
    everywhere = spectral_signatures(seen, y, expected=len(rows))
    assert len(everywhere) == 27 and set(found.tolist()) <= set(everywhere.tolist())
    assert standing_out(spectral_scores(seen, y), y, expected=len(rows)).argmax() == 1
    clusters = activation_clustering(seen, y, dimensions=5)
    assert clusters.silhouette.argmax() == 1 and removal((clusters.small & (y == 1)).nonzero().flatten(), rows) == (1, 1)
    assert abs(clusters.size[1] - 0.1) < 1e-6


def test_both_filters_find_badnets_poison_in_a_trained_network():
    bad, seen = backdoored()
    assert standing_out(spectral_scores(seen, bad.y), bad.y, expected=30).argmax() == 8
    found = removal(spectral_signatures(seen, bad.y, expected=30, classes=[8]), bad.poisons)
    assert found.recall >= 0.9 and found.precision >= 0.6
    clusters = activation_clustering(seen, bad.y)
    assert clusters.silhouette.argmax() == 8
    assert removal((clusters.small & (bad.y == 8)).nonzero().flatten(), bad.poisons).recall >= 0.9


def test_classes_without_images_have_no_verdict_and_no_part_in_it():
    seen, y, _ = two_heaps(0)
    y = y * 2  # classes 0, 2 and 4
    out, clusters = standing_out(spectral_scores(seen, y), y, expected=5), activation_clustering(seen, y)
    for values in (out, clusters.size, clusters.silhouette):
        assert values.isnan().tolist() == [False, True, False, True, False]
    lonely = activation_clustering(seen[:5], torch.tensor([0, 0, 0, 0, 1]))
    assert lonely.size[1].isnan() and not lonely.small[4]


def test_a_class_whose_features_are_all_the_same_is_no_error():
    seen, y = torch.ones(20, 4), torch.zeros(20, dtype=torch.int64)
    assert spectral_scores(seen, y).abs().max() < 1e-6
    assert not standing_out(spectral_scores(seen, y), y, expected=3).isnan().any()
    assert not activation_clustering(seen, y).small.any()


def test_clustering_is_decided_by_its_seed_and_leaves_the_global_states_alone():
    seen, y, _ = two_heaps(3, apart=1.0)
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first, again = activation_clustering(seen, y, seed=5), activation_clustering(seen, y, seed=5)
    assert torch.equal(first.small, again.small) and torch.equal(first.silhouette, again.silhouette)
    assert torch.equal(state, torch.random.get_rng_state()) and (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("call, words", [
    (lambda seen, y: spectral_signatures(seen, y, expected=-1), "expected must be at least 0"),
    (lambda seen, y: spectral_signatures(seen, y, expected=3, factor=0), "factor must be greater than 0"),
    (lambda seen, y: spectral_signatures(seen, y, expected=3, classes=[7]), "classes must be some of those in y"),
    (lambda seen, y: spectral_scores(seen, y[:4]), "y must have the shape"),
    (lambda seen, y: spectral_scores(seen[:, :, None], y), "seen must be a float tensor"),
    (lambda seen, y: spectral_scores(seen[:0], y[:0]), "at least one image"),
    (lambda seen, y: standing_out(spectral_scores(seen, y), y, expected=0), "expected must be at least 1"),
    (lambda seen, y: activation_clustering(seen, y, dimensions=0), "dimensions must be at least 1"),
    (lambda seen, y: activation_clustering(seen, y.float()), "y must be an int64")])
def test_the_filters_refuse_what_makes_no_sense(call, words):
    seen, y, _ = two_heaps(0)
    with pytest.raises(ValueError, match=words):
        call(seen, y)


def test_expecting_nothing_removes_nothing():
    seen, y, rows = two_heaps(0)
    none = spectral_signatures(seen, y, expected=0)
    assert len(none) == 0 and none.dtype == torch.int64
    assert removal(none, rows).recall == 0 and np.isnan(removal(none, rows).precision)


def test_recall_and_precision_of_a_removal():
    rows, poisons = torch.tensor([5, 1, 9, 7]), torch.tensor([1, 2, 5])
    assert removal(rows, poisons) == pytest.approx((2 / 3, 1 / 2))
    assert np.isnan(removal(rows, torch.tensor([], dtype=torch.int64)).recall)
    assert poisoning.removal(poisons, poisons) == (1, 1)
