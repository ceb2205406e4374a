"""Poisoned features: the learner's problem, the attacks on it, and the screening, on small data of their own."""
import math

import pytest
import torch
from torch import nn

from mlsec_lab.data_to_model import features as attacks
from mlsec_lab.victims import load_data, load_model, predict
from mlsec_lab.victims.self_supervised import as_head, flat, train_head

D, K = 10, 3


def cloud(n=150, seed=0, spread=1.0):
    """Three overlapping classes in ten dimensions."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % K
    return 1.5 * torch.eye(K, D)[y] + spread * torch.randn(n, D, generator=generator), y


@pytest.fixture(scope="module")
def trained():
    features, y = cloud()
    return features, y, train_head(features, y, K)


@pytest.fixture(scope="module")
def signs():
    x, y, _ = load_data("signs", "train", n=240)
    extractor = load_model("signs_contrastive").extractor
    features = predict(extractor, x)
    head = train_head(features, y, 12)
    target = as_head(0.05 * flat(attacks.gradpc(head, features, y, radius=0.2 * flat(head).norm().item())))
    rows = attacks.poison_rows(len(y), 0.05)
    return extractor, x, y, features, target, rows


def loss_of(w, features, y, decay):
    return nn.functional.cross_entropy(features @ w[:, :-1].T + w[:, -1], y) + decay / 2 * w.square().sum()


# ---- the learner's problem

def test_gradient_and_hessian_are_the_derivatives_of_the_learners_loss(trained):
    features, y, head = trained
    w = flat(head) + 0.1
    by_torch = torch.autograd.functional.jacobian(lambda w: loss_of(w, features, y, 0.0), w)
    assert torch.allclose(attacks.gradient(w, features, y), by_torch, atol=1e-5)
    second = torch.autograd.functional.hessian(lambda w: loss_of(w, features, y, 0.01), w).view(K * (D + 1), -1)
    assert torch.allclose(attacks.hessian(w, features, 0.01), second, atol=1e-4)


def test_the_cancelling_loss_is_zero_exactly_where_training_on_both_ends(trained):
    features, y, head = trained
    poison, y_poison = cloud(15, seed=3, spread=3.0)
    ended = train_head(torch.cat([features, poison]), torch.cat([y, y_poison]), K)
    assert attacks.cancelling_loss(ended, features, y, poison, y_poison) < 1e-6
    assert attacks.cancelling_loss(head, features, y, poison, y_poison) > 1e-4
    assert attacks.cancelling_loss(head, features, y, poison[:0], y_poison[:0]) < 1e-6


def test_head_accuracy_counts_the_right_answers(trained):
    features, y, head = trained
    right = head(features).argmax(1) == y
    assert attacks.head_accuracy(head, features, y) == pytest.approx(right.float().mean().item())
    assert attacks.head_accuracy(head, features[right], y[right]) == 1 and math.isnan(attacks.head_accuracy(head, features[:0], y[:0]))


# ---- the target

def test_gradpc_stays_in_its_ball_and_loses_more_the_larger_it_is(trained):
    features, y, head = trained
    losses = []
    for radius in (0.0, 0.5, 2.0):
        target = attacks.gradpc(head, features, y, radius=radius)
        assert (flat(target) - flat(head)).norm() <= radius * 1.001 + 1e-6
        losses.append(loss_of(flat(target), features, y, 0.0))
    assert losses[0] < losses[1] < losses[2] and torch.equal(flat(attacks.gradpc(head, features, y, radius=0)), flat(head))


def test_an_unsure_target_has_a_lower_threshold_and_the_trained_head_has_none(trained):
    features, y, head = trained
    target = attacks.gradpc(head, features, y, radius=3.0)
    confident, unsure = (attacks.reachability(as_head(s * flat(target)), features, y) for s in (1.0, 0.02))
    assert confident > 0.1 and unsure == 0
    assert attacks.reachability(head, features, y) == pytest.approx(0, abs=1e-4)
    assert attacks.reachability(as_head(100 * flat(target)), features, y) == math.inf


def test_no_row_pulls_harder_than_the_threshold_allows(trained):
    from scipy.special import lambertw
    features, y, head = trained
    w = flat(attacks.gradpc(head, features, y, radius=3.0))
    generator = torch.Generator().manual_seed(0)
    for scale in (0.3, 1, 3, 10, 100):
        point, label = scale * torch.randn(1, D, generator=generator), torch.tensor([int(scale) % K])
        assert (w * attacks.gradient(w, point, label)).sum() > -lambertw((K - 1) / math.e).real - 1e-4


# ---- poison in feature space

def test_cancelling_brings_the_learner_to_a_target_that_is_in_reach(trained):
    features, y, head = trained
    target = as_head(0.05 * flat(attacks.gradpc(head, features, y, radius=3.0)))
    rows = attacks.poison_rows(len(y), 0.1)
    kept = features.clone()
    poison = attacks.gradient_cancelling(target, features, y, features[rows], y[rows])
    assert torch.equal(features, kept) and torch.equal(poison, attacks.gradient_cancelling(target, features, y, features[rows], y[rows]))
    before, after = (attacks.cancelling_loss(target, features, y, p, y[rows]) for p in (features[rows], poison))
    assert after < 0.01 * before
    ended = train_head(torch.cat([features, poison]), torch.cat([y, y[rows]]), K)
    assert (flat(ended) - flat(target)).norm() < 0.2 * (flat(head) - flat(target)).norm()


def test_no_poison_changes_nothing(trained):
    features, y, head = trained
    rows = attacks.poison_rows(len(y), 0)
    assert len(rows) == 0
    assert attacks.gradient_cancelling(head, features, y, features[rows], y[rows]).shape == (0, D)


def test_poison_rows_are_as_many_as_the_budget_says_and_none_twice():
    rows = attacks.poison_rows(1000, 0.03, seed=4)
    assert len(rows) == 30 == len(set(rows.tolist())) and rows.max() < 1000
    assert torch.equal(rows, attacks.poison_rows(1000, 0.03, seed=4)) and not torch.equal(rows, attacks.poison_rows(1000, 0.03, seed=5))
    assert len(attacks.poison_rows(10, 2.5)) == 25


# ---- poison in pictures

def test_clipped_gc_gives_pictures_and_unclipped_gc_does_more(signs):
    extractor, x, y, features, target, rows = signs
    free, held = (attacks.gradient_cancelling_images(extractor, target, features, y, x[rows], y[rows], clip=clip, steps=60) for clip in (False, True))
    assert attacks.in_range(held).all() and not attacks.in_range(free).any()
    loss = {name: attacks.cancelling_loss(target, features, y, extractor(p).detach(), y[rows]).item()
            for name, p in dict(clean=x[rows], held=held, free=free).items()}
    assert loss["free"] < loss["held"] < loss["clean"]
    assert all(p.requires_grad for p in extractor.parameters()) and not extractor.training


def test_feature_matching_comes_nearer_in_features_and_beta_keeps_it_near_in_pixels(signs):
    extractor, x, y, features, _, rows = signs
    wanted, base = features[rows].flip(0), x[rows]
    kept = base.clone()
    near, held = (attacks.feature_matching(extractor, wanted, base, beta=beta, steps=40) for beta in (0.0, 100.0))
    error = [(predict(extractor, p) - wanted).square().sum().item() for p in (near, held, base)]
    assert error[0] < error[1] < error[2] and error[0] < 0.2 * error[2]
    assert (held - base).norm() < 0.5 * (near - base).norm() and torch.equal(base, kept)
    assert attacks.in_range(near).all() and attacks.in_range(held).all()


def test_decoder_inversion_gives_pictures_that_resemble_what_was_encoded(signs):
    _, x, _, features, _, rows = signs
    model = load_model("signs_contrastive")
    decoded = attacks.decoder_inversion(model.decoder, features[rows])
    assert decoded.shape == x[rows].shape and attacks.in_range(decoded).all()
    assert (decoded - x[rows]).square().mean() < 0.5 * (decoded - x[rows].flip(0)).square().mean()


def test_tgdas_total_gradient_is_that_of_retraining(trained):
    features, y, _ = trained
    identity = nn.Flatten()  # pictures [N, 1, 1, D] whose features are their pixels
    x, start, y_poison = features.sigmoid().view(-1, 1, 1, D), torch.full((2, 1, 1, D), 0.5), torch.tensor([0, 1])
    cut = len(x) - round(0.3 * len(x))

    def held_out(poison):
        rows = torch.cat([x[:cut].flatten(1), poison.flatten(1)])
        w = flat(train_head(rows, torch.cat([y[:cut], y_poison]), K, decay=0.01))
        return loss_of(w, x[cut:].flatten(1), y[cut:], 0.0).item()

    moved = attacks.tgda(identity, x, y, start, y_poison, K, steps=1, lr=0.2, decay=0.01)  # Adam's first step: the sign of the gradient
    assert (moved - start).abs().max() == pytest.approx(0.2, abs=1e-3)
    slope = torch.zeros(2, D)
    for i in range(2):
        for j in range(D):
            up, down = start.clone(), start.clone()
            up[i, 0, 0, j] += 0.3
            down[i, 0, 0, j] -= 0.3
            slope[i, j] = held_out(up) - held_out(down)
    clear = slope.abs() > slope.abs().median()
    assert ((moved - start).flatten(1).sign() == slope.sign())[clear].float().mean() > 0.9


@pytest.mark.parametrize("class_wise", [False, True])
def test_error_minimising_noise_keeps_its_budget_and_makes_the_loss_smaller(signs, class_wise):
    extractor, x, y, _, _, _ = signs
    x, y = x[:60], y[:60]

    def fit(x, y):
        return nn.Sequential(extractor, train_head(predict(extractor, x), y, 12))

    noisy = attacks.error_minimising_noise(fit, x, y, eps=8 / 255, rounds=2, steps=3, class_wise=class_wise)
    assert (noisy - x).abs().max() <= 8 / 255 + 1e-6 and attacks.in_range(noisy).all()
    model = fit(x, y)
    assert nn.functional.cross_entropy(predict(model, noisy), y) < nn.functional.cross_entropy(predict(model, x), y)
    assert torch.equal(attacks.error_minimising_noise(fit, x, y, eps=0.0, rounds=1, steps=1), x)
    if class_wise:
        inside = ((x > 8 / 255) & (x < 1 - 8 / 255))
        first, second = (y == y[0]).nonzero().flatten()[:2]
        both = inside[first] & inside[second]
        assert torch.allclose((noisy - x)[first][both], (noisy - x)[second][both], atol=1e-6)


# ---- the defender

def test_range_and_roughness_tell_noise_from_pictures(signs):
    _, x, _, _, _, _ = signs
    assert attacks.in_range(x).all() and not attacks.in_range(x + 1.5).any() and not attacks.in_range(torch.full_like(x, float("nan"))).any()
    assert attacks.roughness(torch.rand_like(x)).min() > attacks.roughness(x).max()
    assert attacks.roughness(torch.full_like(x, 0.3)).max() < 1e-6


def test_the_screening_finds_rows_far_from_their_class_and_costs_its_share(trained):
    features, y, _ = trained
    poison, y_poison = 20 * torch.ones(6, D), torch.arange(6) % K
    rows, labels = torch.cat([features, poison]), torch.cat([y, y_poison])
    keep = attacks.screen(rows, labels, share=0.1)
    assert not keep[-6:].any() and keep.dtype == torch.bool
    assert (~keep).sum() == sum(round(0.1 * (labels == k).sum().item()) for k in range(K))
    assert attacks.screen(rows, labels, share=0).all()
    assert attacks.distances(rows, labels)[-6:].min() > attacks.distances(features, y).max()


def test_poison_that_stays_close_is_not_found(trained):
    features, y, head = trained
    target = as_head(0.2 * flat(attacks.gradpc(head, features, y, radius=3.0)))
    rows = attacks.poison_rows(len(y), 0.05)
    limit = attacks.stay_close(features, y, share=0.2)
    caught = []
    for where in (None, limit):
        poison = attacks.gradient_cancelling(target, features, y, features[rows], y[rows], limit=where)
        keep = attacks.screen(torch.cat([features, poison]), torch.cat([y, y[rows]]), share=0.1)
        caught.append((~keep[len(y):]).float().mean().item())
    assert caught[0] > 0.7 and caught[1] < 0.2
    assert attacks.cancelling_loss(target, features, y, poison, y[rows]) < attacks.cancelling_loss(target, features, y, features[rows], y[rows])


# ---- bad input

FEATURES, LABELS = cloud(12)
HEAD, NARROW, FEW = nn.Linear(D, K), nn.Linear(D - 1, K), nn.Linear(D, 2)
PICTURES = torch.rand(4, 1, 2, 5)


@pytest.mark.parametrize("call, words", [
    (lambda: attacks.poison_rows(10, -0.1), "eps_d must be at least 0"),
    (lambda: attacks.poison_rows(0, 0.1), "n must be at least 1"),
    (lambda: attacks.head_accuracy("head", FEATURES, LABELS), "head must be an nn.Linear"),
    (lambda: attacks.gradpc(NARROW, FEATURES, LABELS, radius=1), "features must have 9 columns"),
    (lambda: attacks.gradpc(FEW, FEATURES, LABELS, radius=1), "y must hold classes from 0 to 1"),
    (lambda: attacks.gradpc(HEAD, FEATURES, LABELS, radius=-1), "radius must be at least 0"),
    (lambda: attacks.gradpc(HEAD, FEATURES, LABELS, radius=1, steps=0), "steps must be at least 1"),
    (lambda: attacks.cancelling_loss(HEAD, FEATURES, LABELS, FEATURES[:, :5], LABELS), "poison must have 10 columns"),
    (lambda: attacks.cancelling_loss(HEAD, FEATURES, LABELS, FEATURES, LABELS[:3]), "y_poison must have the shape"),
    (lambda: attacks.reachability(HEAD, FEATURES.double(), LABELS), "features must be a float32 tensor"),
    (lambda: attacks.reachability(HEAD, FEATURES * float("nan"), LABELS), "features must be finite"),
    (lambda: attacks.gradient_cancelling(HEAD, FEATURES, LABELS, FEATURES[:3, :4], LABELS[:3]), "start must have 10 columns"),
    (lambda: attacks.gradient_cancelling(HEAD, FEATURES, LABELS, FEATURES[:3], LABELS[:3], steps=0), "steps must be at least 1"),
    (lambda: attacks.gradient_cancelling(HEAD, FEATURES, LABELS, FEATURES[:3], LABELS[:3], lr=0), "lr must be greater than 0"),
    (lambda: attacks.gradient_cancelling_images(nn.Flatten(), HEAD, FEATURES, LABELS, PICTURES + 2, LABELS[:4]), "start must lie in"),
    (lambda: attacks.feature_matching(nn.Flatten(), FEATURES[:4], PICTURES, beta=-1), "beta must be at least 0"),
    (lambda: attacks.feature_matching(nn.Flatten(), FEATURES[:3], PICTURES), "x_base must hold one picture for each of the 3"),
    (lambda: attacks.feature_matching(nn.Flatten(), FEATURES[:4, :7], PICTURES), "features must have 10 columns"),
    (lambda: attacks.decoder_inversion(nn.Identity(), FEATURES.long()), "features must be a float32 tensor"),
    (lambda: attacks.tgda(nn.Flatten(), PICTURES, LABELS[:4], PICTURES, LABELS[:4], K, holdout=0), "holdout must be greater than 0"),
    (lambda: attacks.tgda(nn.Flatten(), PICTURES, LABELS[:4], PICTURES, LABELS[:3], K), "y_poison must have the shape"),
    (lambda: attacks.error_minimising_noise(None, PICTURES, LABELS[:4], eps=-1), "eps must be at least 0"),
    (lambda: attacks.error_minimising_noise(None, PICTURES, LABELS[:4], rounds=0), "rounds must be at least 1"),
    (lambda: attacks.screen(FEATURES, LABELS, share=1.0), "share must be at most 0.99"),
    (lambda: attacks.screen(FEATURES, LABELS[:5], share=0.1), "y must have the shape"),
    (lambda: attacks.stay_close(FEATURES, LABELS, share=-0.1), "share must be at least 0"),
    (lambda: attacks.stay_close(FEATURES, LABELS, share=0.1)(FEATURES[:1], torch.tensor([7])), "y_poison must hold classes"),
    (lambda: attacks.in_range(FEATURES), "x must be a tensor of pictures"),
    (lambda: attacks.roughness([1, 2]), "x must be a tensor of pictures"),
])
def test_bad_input_is_refused_with_the_argument_named(call, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        call()
