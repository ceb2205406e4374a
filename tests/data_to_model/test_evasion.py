"""Evasion: budgets hold, nothing is left behind, bad input is refused by name, and the attacks and defences do what they claim."""
import random

import foolbox
import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlsec_lab.data_to_model import evasion
from mlsec_lab.data_to_model.evasion import (
    REJECTED, SecurePredictor, adaptive_pgd, adversarial_training, attack_success_rate, decide, decision_based, fgsm, l2_distance,
    linf_distance, median_smooth, minimal_norm, multi_targeted, perturb_batch, pgd, project, random_point)
from mlsec_lab.victims import LabelOnly, QueryCounter, accuracy, load_data, load_model, predict, small_cnn, train

MODEST = settings(deadline=None, max_examples=20, derandomize=True)
SEEDS = st.integers(0, 2**31 - 1)
BUDGETS = st.one_of(st.just(0.0), st.floats(1e-4, 0.6), st.just(1.0), st.just(3.0))

# ---- every attack, cheaply: (model, x, y, eps, seed) -> x_adv

LINF = {
    "fgsm": lambda model, x, y, eps, seed: fgsm(model, x, y, eps=eps),
    "fgsm targeted": lambda model, x, y, eps, seed: fgsm(model, x, y, eps=eps, targeted=True),
    "pgd": lambda model, x, y, eps, seed: pgd(model, x, y, eps=eps, steps=4, seed=seed),
    "pgd targeted": lambda model, x, y, eps, seed: pgd(model, x, y, eps=eps, steps=4, seed=seed, targeted=True),
    "pgd to the end": lambda model, x, y, eps, seed: pgd(model, x, y, eps=eps, steps=4, seed=seed, early_stop=False),
    "pgd from x": lambda model, x, y, eps, seed: pgd(model, x, y, eps=eps, steps=4, random_start=False),
    "pgd with huge steps": lambda model, x, y, eps, seed: pgd(model, x, y, eps=eps, steps=3, step_size=5.0, early_stop=False, seed=seed),
    "pgd in batches of two": lambda model, x, y, eps, seed: pgd(model, x, y, eps=eps, steps=3, batch=2, seed=seed),
    "multi_targeted": lambda model, x, y, eps, seed: multi_targeted(model, x, y, eps=eps, steps=3, targets=2, restarts=2, seed=seed),
    "perturb_batch": lambda model, x, y, eps, seed: perturb_batch(model, x, y, eps=eps, steps=3, seed=seed),
    "adaptive_pgd": lambda model, x, y, eps, seed: adaptive_pgd(SecurePredictor(model), x, y, eps=eps, steps=3, seed=seed),
    "adaptive_pgd averaged": lambda model, x, y, eps, seed: adaptive_pgd(
        SecurePredictor(model, jitter=1, seed=seed), x, y, eps=eps, steps=2, samples=2, seed=seed),
}
L2 = {
    "pgd l2": lambda model, x, y, eps, seed: pgd(model, x, y, eps=eps, steps=4, norm="l2", seed=seed),
    "pgd l2 targeted": lambda model, x, y, eps, seed: pgd(model, x, y, eps=eps, steps=4, norm="l2", targeted=True, seed=seed),
    "pgd l2 to the end": lambda model, x, y, eps, seed: pgd(model, x, y, eps=eps, steps=4, norm="l2", early_stop=False, seed=seed),
    "pgd l2 from x": lambda model, x, y, eps, seed: pgd(model, x, y, eps=eps, steps=4, norm="l2", random_start=False),
}
NO_BUDGET = {
    "ddn": lambda model, x, y, eps, seed: minimal_norm(model, x, y, method="ddn", steps=5),
    "deepfool": lambda model, x, y, eps, seed: minimal_norm(model, x, y, method="deepfool", steps=5),
    "cw": lambda model, x, y, eps, seed: minimal_norm(model, x, y, method="cw", steps=5),
    "hopskipjump": lambda model, x, y, eps, seed: decision_based(model, x, y, method="hopskipjump", steps=1, seed=seed),
    "boundary": lambda model, x, y, eps, seed: decision_based(model, x, y, method="boundary", steps=3, seed=seed),
}
BUDGETED = {**LINF, **L2}
ATTACKS = {**BUDGETED, **NO_BUDGET}
SEEDED = sorted(set(ATTACKS) - {"fgsm", "fgsm targeted", "pgd from x", "pgd l2 from x", "ddn", "deepfool", "cw"})


def victim(classes=4):
    """A small network on 8x8 grey images, fresh each time; no class is ahead on average, so that its answers vary."""
    model = small_cnn(1, classes, size=8, width=3, seed=1)
    with torch.no_grad():
        model[-1].bias -= model(torch.rand((200, 1, 8, 8), generator=torch.Generator().manual_seed(0))).mean(0)
        model[-1].weight *= 20
        model[-1].bias *= 20
    return model


def batch_for(model, n, seed, classes=4):
    """n images, a fifth of their pixels at 0 and a fifth at 1, and labels of which about half are what the model answers."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand((n, 1, 8, 8), generator=generator) * 1.7 - 0.35).clamp(0, 1)
    y = torch.randint(0, classes, (n,), generator=generator)
    if n:
        y[::2] = model(x).argmax(1)[::2]
    return x, y


def global_randomness():
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), keys.tobytes(), tuple(rest), random.getstate()


class Table(nn.Module):
    """Logits are ten times the first pixel of each channel: what it answers can be read off the image."""

    def forward(self, x):
        return 10 * x[:, :, 0, 0]


class Stubborn(nn.Module):
    """Answers class 0 whatever it sees, and has gradients all the same."""

    def forward(self, x):
        level = x.mean((1, 2, 3))
        return torch.stack([level + 100, level * 2, level * 3], 1)


def table_images(*rows):
    return torch.tensor(rows, dtype=torch.float32)[:, :, None, None]


# ---- victims that were trained once

@pytest.fixture(scope="module")
def digits():
    return load_data("digits", "train"), load_data("digits", "test")


@pytest.fixture(scope="module")
def plain(digits):
    return train(small_cnn(1, 10, size=8), digits[0].x, digits[0].y, epochs=6, shift=0, progress=False)


@pytest.fixture(scope="module")
def robust(digits):
    return adversarial_training(small_cnn(1, 10, size=8), digits[0].x, digits[0].y, eps=0.1, epochs=6, progress=False)


@pytest.fixture(scope="module")
def signs():
    return load_model("signs_cnn"), load_data("signs", "test", n=256, seed=3)


# ---- the contract of every attack

@pytest.mark.parametrize("name", BUDGETED)
@MODEST
@given(eps=BUDGETS, n=st.integers(0, 5), seed=SEEDS)
def test_the_budget_holds_and_pixels_stay_pixels(name, eps, n, seed):
    model = victim()
    x, y = batch_for(model, n, seed)
    x_adv = BUDGETED[name](model, x, y, eps, seed)
    assert x_adv.shape == x.shape and x_adv.dtype == torch.float32 and x_adv.device == x.device
    assert not x_adv.requires_grad and x_adv.data_ptr() != x.data_ptr() or not n
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    distance = (linf_distance if name in LINF else l2_distance)(x, x_adv)
    assert (distance <= eps + 1e-5).all()
    if eps == 0:
        assert torch.equal(x_adv, x)


@pytest.mark.parametrize("name", NO_BUDGET)
@settings(MODEST, max_examples=8)
@given(n=st.integers(0, 4), seed=SEEDS)
def test_attacks_without_a_budget_stay_within_the_pixels_and_change_only_what_was_right(name, n, seed):
    model = victim()
    x, y = batch_for(model, n, seed)
    x_adv = NO_BUDGET[name](model, x, y, 0, seed)
    assert x_adv.shape == x.shape and x_adv.dtype == torch.float32 and not x_adv.requires_grad
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    if n:
        right = model(x).argmax(1) == y
        changed = (x_adv != x).flatten(1).any(1)
        assert torch.equal(x_adv[~right], x[~right])
        assert (model(x_adv).argmax(1) != y)[changed].all()  # what comes back changed is a success


@pytest.mark.parametrize("name", ATTACKS)
def test_the_model_and_the_batch_are_left_exactly_as_they_were(name):
    model = victim().train()  # handed over in train mode, one layer in eval mode, one parameter without gradient
    model[3].eval()
    model[1].weight.requires_grad_(False)
    x, y = batch_for(victim(), 4, seed=5)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = {key: module.training for key, module in model.named_modules()}
    wants = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    given_x, given_y = x.clone(), y.clone()
    ATTACKS[name](model, x, y, 0.3, 0)
    assert torch.equal(x, given_x) and torch.equal(y, given_y) and not x.requires_grad and x.grad is None
    assert {key: module.training for key, module in model.named_modules()} == modes
    assert {key: parameter.requires_grad for key, parameter in model.named_parameters()} == wants
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ATTACKS)
def test_the_global_random_state_is_neither_used_nor_changed_and_a_seed_repeats(name):
    model = victim()
    x, y = batch_for(model, 4, seed=6)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = global_randomness()
    first = ATTACKS[name](model, x, y, 0.3, 7)
    assert global_randomness() == before
    torch.rand(5), np.random.random(5), random.random()
    assert torch.equal(ATTACKS[name](model, x, y, 0.3, 7), first)
    assert not torch.equal(first, x)


@pytest.mark.parametrize("name", SEEDED)
def test_another_seed_begins_somewhere_else(name):
    model = victim()
    x, y = batch_for(model, 4, seed=8)
    results = [ATTACKS[name](model, x, y, 0.3, seed) for seed in (0, 1, 2)]
    assert not any(torch.equal(results[a], results[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_empty_batch_comes_back_empty(name):
    x, y = torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64)
    x_adv = ATTACKS[name](victim(), x, y, 0.3, 0)
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype


@pytest.mark.parametrize("name", ATTACKS)
def test_an_image_that_carries_a_gradient_is_attacked_like_any_other(name):
    model = victim()
    x, y = batch_for(model, 4, seed=9)
    expected = ATTACKS[name](model, x, y, 0.3, 0)
    wants = x.clone().requires_grad_()
    x_adv = ATTACKS[name](model, wants, y, 0.3, 0)
    assert torch.equal(x_adv, expected) and not x_adv.requires_grad
    assert wants.requires_grad and wants.grad is None


# ---- what is refused, and in which words

CALLS = {
    "fgsm": lambda model, x, y: fgsm(model, x, y, eps=0.1), "pgd": lambda model, x, y: pgd(model, x, y, eps=0.1, steps=2),
    "pgd l2": lambda model, x, y: pgd(model, x, y, eps=0.1, steps=2, norm="l2"),
    "multi_targeted": lambda model, x, y: multi_targeted(model, x, y, eps=0.1, steps=2),
    "minimal_norm": lambda model, x, y: minimal_norm(model, x, y, steps=2),
    "decision_based": lambda model, x, y: decision_based(model, x, y, steps=1),
    "adaptive_pgd": lambda model, x, y: adaptive_pgd(model, x, y, eps=0.1, steps=2),
}
FAULTS = {
    "8-bit pixels": (lambda x: (x * 255).to(torch.uint8), None, "x must be float32", "uint8"),
    "double precision": (lambda x: x.double(), None, "x must be float32", "float64"),
    "pixels to 255": (lambda x: x * 255, None, "x must lie in [0, 1]", "255"),
    "pixels below 0": (lambda x: x - 0.5, None, "x must lie in [0, 1]", "-0.5"),
    "a NaN": (lambda x: torch.where(x == x.max(), torch.nan, x), None, "x must lie in [0, 1]", "nan"),
    "a single image": (lambda x: x[0], None, "x must have the shape [N, C, H, W]", "[1, 8, 8]"),
    "an array": (lambda x: x.numpy(), None, "x must be a torch tensor", "ndarray"),
    "too few labels": (None, lambda y: y[:-1], "y must have the shape [3]", "[2]"),
    "labels in a column": (None, lambda y: y[:, None], "y must have the shape [3]", "[3, 1]"),
    "a label too high": (None, lambda y: torch.where(y >= 0, 4, y), "y must hold classes from 0 to 3", "4"),
    "a negative label": (None, lambda y: y - 9, "y must hold classes from 0 to", "-9"),
    "32-bit labels": (None, lambda y: y.int(), "y must be an int64 tensor", "int32"),
    "labels as floats": (None, lambda y: y.float(), "y must be an int64 tensor", "float32"),
    "a list of labels": (None, lambda y: y.tolist(), "y must be an int64 tensor", "list"),
}


@pytest.mark.parametrize("attack", CALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_images_and_labels_of_the_wrong_kind_are_refused_by_name(attack, fault):
    change_x, change_y, expected, got = FAULTS[fault]
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 0, 1
    y = torch.tensor([0, 1, 0])
    with pytest.raises(ValueError) as error:
        CALLS[attack](victim(), change_x(x) if change_x else x, change_y(y) if change_y else y)
    assert str(error.value).startswith(expected) and got in str(error.value)


@pytest.mark.parametrize("attack", CALLS)
@pytest.mark.parametrize("model", [None, "signs_cnn", lambda x: x], ids=["none", "name", "function"])
def test_a_model_that_is_no_module_is_refused_by_name(attack, model):
    name = "predictor" if attack == "adaptive_pgd" else "model"
    with pytest.raises(ValueError) as error:
        CALLS[attack](model, torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64))
    assert str(error.value).startswith(f"{name} must be a torch nn.Module") and type(model).__name__ in str(error.value)


NOT_A_BUDGET = [-0.01, float("nan"), float("inf"), "8/255", None, True]
NOT_A_COUNT = [0, -1, 2.0, "5", True]


@pytest.mark.parametrize("call, name, values", [
    (fgsm, "eps", NOT_A_BUDGET), (pgd, "eps", NOT_A_BUDGET), (multi_targeted, "eps", NOT_A_BUDGET), (adaptive_pgd, "eps", NOT_A_BUDGET),
    (pgd, "steps", NOT_A_COUNT), (pgd, "batch", NOT_A_COUNT), (pgd, "step_size", [0, -0.1, float("nan"), "0.1"]),
    (pgd, "norm", ["L2", "l1", None, 2]), (pgd, "seed", ["a", None, 0.5]),
    (multi_targeted, "steps", NOT_A_COUNT), (multi_targeted, "targets", NOT_A_COUNT), (multi_targeted, "restarts", NOT_A_COUNT),
    (multi_targeted, "batch", NOT_A_COUNT), (multi_targeted, "seed", ["a", None, 0.5]),
    (minimal_norm, "method", ["pgd", "DDN", None]), (minimal_norm, "steps", NOT_A_COUNT),
    (decision_based, "method", ["ddn", None]), (decision_based, "steps", NOT_A_COUNT), (decision_based, "seed", ["a", None, 0.5]),
    (adaptive_pgd, "steps", NOT_A_COUNT), (adaptive_pgd, "samples", NOT_A_COUNT), (adaptive_pgd, "batch", NOT_A_COUNT),
    (adaptive_pgd, "seed", ["a", None, 0.5]),
    (adversarial_training, "eps", NOT_A_BUDGET), (adversarial_training, "steps", NOT_A_COUNT),
    (adversarial_training, "epochs", NOT_A_COUNT), (adversarial_training, "lr", [0, -1, "fast"]),
], ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""))
def test_a_number_or_choice_out_of_bounds_is_refused_by_name(call, name, values):
    x, y = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 0])
    needed = {} if call in (minimal_norm, decision_based) else dict(eps=0.1)
    for value in values:
        with pytest.raises(ValueError) as error:
            call(victim(), x, y, **{**needed, name: value})
        assert str(error.value).startswith(f"{name} must") and repr(value) in str(error.value)


@pytest.mark.parametrize("metric", [linf_distance, l2_distance])
def test_distances_measure_the_change_of_each_image_and_refuse_a_bad_pair(metric):
    x = torch.zeros(3, 1, 2, 2)
    x_adv = torch.tensor([[0, 0, 0, 0], [0.3, 0.4, 0, 0], [1, 1, 1, 1]]).reshape(3, 1, 2, 2)
    expected = [0, 0.4, 1] if metric is linf_distance else [0, 0.5, 2]
    assert metric(x, x_adv).tolist() == pytest.approx(expected)
    assert metric(x_adv, x).tolist() == pytest.approx(expected)
    assert metric(x[:0], x_adv[:0]).shape == (0,)
    for bad in (x[:2], x.double(), x + 2, x[0]):
        with pytest.raises(ValueError, match="^x_adv must"):
            metric(x, bad)


# ---- geometry

@MODEST
@given(seed=SEEDS, eps=st.floats(0, 1.5), reach=st.floats(0.01, 5))
def test_the_linf_projection_is_the_nearest_allowed_point(seed, eps, reach):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand((3, 1, 4, 4), generator=generator) * 1.4 - 0.2).clamp(0, 1)
    far = x + reach * torch.randn(x.shape, generator=generator)
    near = project(far, x, eps)
    assert ((near - x).abs() <= eps + 1e-6).all() and ((near >= 0) & (near <= 1)).all()
    for other in range(20):  # no other allowed point is nearer, in any pixel
        allowed = (x + eps * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, 1)
        assert ((near - far).abs() <= (allowed - far).abs() + 1e-5).all()
    inside = random_point(x, eps, seed=seed)
    assert torch.allclose(project(inside, x, eps), inside, atol=1e-6)


@MODEST
@given(seed=SEEDS, eps=st.floats(0, 4), reach=st.floats(0.01, 5))
def test_the_l2_projection_is_allowed_and_nearest_in_the_ball_where_no_pixel_is_clipped(seed, eps, reach):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand((3, 1, 4, 4), generator=generator) * 1.4 - 0.2).clamp(0, 1)
    far = x + reach * torch.randn(x.shape, generator=generator)
    near = project(far, x, eps, "l2")
    assert ((near - x).flatten(1).norm(dim=1) <= eps + 1e-5).all() and ((near >= 0) & (near <= 1)).all()
    inside = random_point(x, eps, "l2", seed=seed)
    assert torch.allclose(project(inside, x, eps, "l2"), inside, atol=1e-5)
    middle, small = torch.full_like(x, 0.5), min(eps, 0.4)  # a ball that touches no bound
    far = middle + far - x
    near, direction = project(far, middle, small, "l2"), far - middle
    length = direction.flatten(1).norm(dim=1)
    assert torch.allclose((near - middle).flatten(1).norm(dim=1), length.clamp_max(small), atol=1e-5)
    cosine = ((near - middle) * direction).flatten(1).sum(1)
    assert torch.allclose(cosine, length * length.clamp_max(small), atol=1e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_points_fill_the_ball_evenly(norm):
    x = torch.full((20_000, 1, 1, 2), 0.5)
    delta = (random_point(x, 0.4, norm, seed=4) - x).flatten(1)
    assert delta.mean(0).abs().max() < 0.01
    if norm == "linf":
        assert delta.abs().max() <= 0.4 + 1e-6
        assert (delta.abs() < 0.2).all(1).float().mean() == pytest.approx(0.25, abs=0.02)
    else:
        assert delta.norm(dim=1).max() <= 0.4 + 1e-6
        assert (delta.norm(dim=1) < 0.2).float().mean() == pytest.approx(0.25, abs=0.02)
    assert not torch.equal(random_point(x, 0.4, norm, seed=4), random_point(x, 0.4, norm, seed=5))


# ---- what the gradient attacks achieve

@pytest.mark.parametrize("seed", range(4))
def test_pgd_fools_the_plain_model_more_often_than_fgsm_and_fgsm_more_often_than_noise(plain, digits, seed):
    x, y, _ = load_data("digits", "test", n=250, seed=seed)
    noise = attack_success_rate(plain, x, random_point(x, 0.1, seed=seed), y)
    one_step = attack_success_rate(plain, x, fgsm(plain, x, y, eps=0.1), y)
    iterated = attack_success_rate(plain, x, pgd(plain, x, y, eps=0.1, steps=20, seed=seed), y)
    assert noise < 0.1 and one_step > noise + 0.2
    assert iterated > one_step + 0.1


@pytest.mark.parametrize("seed", range(4))
def test_multi_targeted_fools_the_robust_model_more_often_than_pgd(robust, seed):
    x, y, _ = load_data("digits", "test", n=250, seed=seed)
    plainly = attack_success_rate(robust, x, pgd(robust, x, y, eps=0.1, steps=30, seed=seed), y)
    aimed = attack_success_rate(robust, x, multi_targeted(robust, x, y, eps=0.1, steps=30, seed=seed), y)
    assert aimed > plainly + 0.03
    assert aimed < 1


def test_multi_targeted_spends_its_budget_on_what_still_holds(robust, digits):
    x, y = digits[1].x[:150], digits[1].y[:150]
    wrong = predict(robust, x).argmax(1) != y
    x_adv = multi_targeted(robust, x, y, eps=0.1, steps=15, targets=2)
    assert wrong.sum() >= 5 and torch.equal(x_adv[wrong], x[wrong])
    few = attack_success_rate(robust, x, x_adv, y)
    many = attack_success_rate(robust, x, multi_targeted(robust, x, y, eps=0.1, steps=15, targets=9), y)
    assert many >= few
    again = attack_success_rate(robust, x, multi_targeted(robust, x, y, eps=0.1, steps=15, targets=2, restarts=3), y)
    assert again >= few


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("norm, eps", [("linf", 0.08), ("l2", 0.5)])
def test_stopping_early_hardly_changes_which_images_are_fooled_and_asks_less(plain, seed, norm, eps):
    x, y, _ = load_data("digits", "test", n=250, seed=seed)
    counter = QueryCounter(plain)
    stopped = pgd(counter, x, y, eps=eps, steps=20, norm=norm, seed=seed)
    asked, counter.queries = counter.queries, 0
    complete = pgd(counter, x, y, eps=eps, steps=20, norm=norm, seed=seed, early_stop=False)
    fooled, fooled_too = decide(plain, stopped) != y, decide(plain, complete) != y
    assert 0.2 < fooled.float().mean() < 0.95
    assert (fooled != fooled_too).float().mean() <= 0.02
    assert asked < 0.8 * counter.queries


def test_an_image_that_is_fooled_leaves_the_batch(plain, digits):
    x, y = digits[1].x[:40], digits[1].y[:40].clone()
    y[:20] = (predict(plain, x[:20]).argmax(1) + 1) % 10  # wrong from the start
    counter = QueryCounter(plain)
    x_adv = pgd(counter, x, y, eps=0.2, steps=10, random_start=False)
    assert torch.equal(x_adv[:20], x[:20])
    assert (x_adv[20:] != x[20:]).flatten(1).any(1).float().mean() > 0.9
    assert counter.queries <= 1 + 40 + 20 * 9
    moved = pgd(plain, x, y, eps=0.2, steps=10, random_start=False, early_stop=False)
    assert (moved[:20] != x[:20]).flatten(1).any(1).float().mean() > 0.9


@pytest.mark.parametrize("norm, eps", [("linf", 0.3), ("l2", 2.0)])
@pytest.mark.parametrize("seed", range(3))
def test_a_targeted_attack_reaches_its_target(plain, norm, eps, seed):
    x, y, _ = load_data("digits", "test", n=100, seed=seed)
    wanted = (y + 1 + seed) % 10
    before = (decide(plain, x) == wanted).float().mean()
    after = (decide(plain, pgd(plain, x, wanted, eps=eps, steps=40, norm=norm, targeted=True, seed=seed)) == wanted).float().mean()
    assert before < 0.05 and after > 0.9


def test_a_targeted_step_goes_downhill_where_an_untargeted_one_goes_uphill(plain, digits):
    x, y = digits[1].x[:100], digits[1].y[:100]
    loss = {name: nn.functional.cross_entropy(predict(plain, image), y).item() for name, image in dict(
        clean=x, away=fgsm(plain, x, y, eps=0.05), towards=fgsm(plain, x, y, eps=0.05, targeted=True)).items()}
    assert loss["away"] > 3 * loss["clean"] and loss["towards"] < loss["clean"]
    assert torch.allclose(linf_distance(x, fgsm(plain, x, y, eps=0.05)), torch.tensor(0.05), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_pgd_agrees_with_foolbox_from_the_same_start(signs, seed):
    model, (x, y, _) = signs
    eps, steps = 2 / 255, 10

    class FromOurStart(foolbox.attacks.LinfPGD):
        def get_random_start(self, x0, epsilon):
            return type(x0)(random_point(x0.raw, epsilon, seed=seed))

    theirs, _, _ = FromOurStart(abs_stepsize=2.5 * eps / steps, steps=steps)(
        foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=eps)
    ours = pgd(model, x, y, eps=eps, steps=steps, early_stop=False, seed=seed)
    rates = [attack_success_rate(model, x, image, y) for image in (ours, theirs)]
    assert 0.2 < rates[0] < 0.8  # neither of them had an easy task
    assert abs(rates[0] - rates[1]) <= 0.01
    assert (ours - theirs).abs().mean() < 0.02 * eps


# ---- attacks that other people maintain

@pytest.mark.parametrize("method", ["ddn", "deepfool", "cw"])
def test_a_minimal_change_fools_and_is_smaller_than_what_fgsm_needs(plain, digits, method):
    x, y = digits[1].x[:60], digits[1].y[:60]
    x_adv = minimal_norm(plain, x, y, method=method, steps=60)
    assert attack_success_rate(plain, x, x_adv, y) > 0.95
    step = fgsm(plain, x, y, eps=0.1)
    both = (decide(plain, step) != y) & (decide(plain, x) == y)
    assert both.sum() >= 15
    assert (l2_distance(x, x_adv)[both] < l2_distance(x, step)[both]).float().mean() > 0.9


def test_ddn_finds_smaller_changes_than_deepfool(plain, digits):
    x, y = digits[1].x[:60], digits[1].y[:60]
    ddn, deepfool = (l2_distance(x, minimal_norm(plain, x, y, method=method)) for method in ("ddn", "deepfool"))
    assert ddn.median() < deepfool.median()
    assert ddn.median() > 0.1  # a digit is not next to the boundary


@pytest.mark.parametrize("method, steps", [("hopskipjump", 3), ("boundary", 150)])
@pytest.mark.parametrize("seed", range(3))
def test_labels_alone_are_enough_to_fool_though_not_as_closely_as_gradients(plain, digits, method, steps, seed):
    x, y = digits[1].x[20 * seed:20 * seed + 20], digits[1].y[20 * seed:20 * seed + 20]
    service = QueryCounter(LabelOnly(plain))
    x_adv = decision_based(service, x, y, method=method, steps=steps, seed=seed)
    assert attack_success_rate(plain, x, x_adv, y) > 0.95
    assert service.queries > 50 * 20
    near, noise = l2_distance(x, minimal_norm(plain, x, y)), l2_distance(x, torch.rand(x.shape))
    assert near.median() < l2_distance(x, x_adv).median() < 0.6 * noise.median()


@pytest.mark.parametrize("name", NO_BUDGET)
def test_an_image_that_cannot_be_fooled_comes_back_as_it_was(name):
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x_adv = NO_BUDGET[name](Stubborn(), x, torch.zeros(3, dtype=torch.int64), 0, 0)
    assert torch.equal(x_adv, x) and x_adv.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("method, steps", [("hopskipjump", 1), ("boundary", 3)])
def test_one_image_without_a_starting_point_does_not_spoil_the_others(method, steps):
    class HalfStubborn(nn.Module):  # what noise looks like is always class 0, a black first pixel is class 1
        def forward(self, x):
            first = x[:, 0, 0, 0]
            return torch.stack([torch.full_like(first, 0.5), (first < 1e-3).float(), torch.zeros_like(first)], 1)

    x = torch.full((4, 1, 8, 8), 0.5)
    x[:2, 0, 0, 0] = 0
    y = torch.tensor([1, 1, 0, 0])
    x_adv = decision_based(HalfStubborn(), x, y, method=method, steps=steps)
    assert (HalfStubborn()(x_adv[:2]).argmax(1) == 0).all()
    assert torch.equal(x_adv[2:], x[2:])


# ---- what counts as a success

def test_an_image_that_was_wrong_before_is_no_success():
    x = table_images([1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0])
    y = torch.tensor([0, 1, 2, 0])  # the last one is read wrong
    assert attack_success_rate(Table(), x, x, y) == 0
    x_adv = table_images([0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1])
    assert attack_success_rate(Table(), x, x_adv, y) == pytest.approx(1 / 3)
    assert attack_success_rate(Table(), x[:0], x[:0], y[:0]) != attack_success_rate(Table(), x[:0], x[:0], y[:0])  # NaN
    assert np.isnan(attack_success_rate(Table(), x[3:], x[3:], y[3:]))


def test_an_image_that_is_rejected_is_no_success():
    sure, unsure = [0, 1, 0], [0.5, 0.55, 0]
    x, y = table_images([1, 0, 0], [1, 0, 0], [1, 0, 0], unsure), torch.tensor([0, 0, 0, 1])
    x_adv = table_images(sure, unsure, [1, 0, 0], sure)
    guarded = SecurePredictor(Table(), window=1, threshold=0.9)
    assert guarded.predict(x).tolist() == [0, 0, 0, REJECTED] and guarded.predict(x_adv).tolist() == [1, REJECTED, 0, 1]
    assert attack_success_rate(guarded, x, x_adv, y) == pytest.approx(1 / 3)  # of the three that it accepts and reads right
    assert attack_success_rate(Table(), x, x_adv, y) == pytest.approx(2 / 4)


@pytest.mark.parametrize("fault, name", [
    (lambda x, y: (x, x[:1], y), "x_adv"), (lambda x, y: (x, x + 1, y), "x_adv"), (lambda x, y: (x.double(), x, y), "x"),
    (lambda x, y: (x, x, y[:1]), "y"), (lambda x, y: (x, x, y.float()), "y")])
def test_the_success_rate_refuses_bad_input_by_name(fault, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        attack_success_rate(Table(), *fault(table_images([1, 0, 0], [0, 1, 0]), torch.tensor([0, 1])))


# ---- the guarded model

@MODEST
@given(seed=SEEDS, height=st.integers(1, 9), width=st.integers(1, 9), window=st.sampled_from([1, 3, 5]))
def test_the_median_is_scipys(seed, height, width, window):
    x = torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(seed))
    expected = scipy.ndimage.median_filter(x.numpy(), size=(1, 1, window, window), mode="nearest")
    assert np.array_equal(median_smooth(x, window).numpy(), expected)


def test_gradients_pass_through_the_median():
    x = torch.rand(2, 3, 6, 6, requires_grad=True, generator=torch.Generator().manual_seed(0))
    gradient, = torch.autograd.grad(median_smooth(x).sum(), x)
    assert gradient.sum() == pytest.approx(x.numel()) and (gradient >= 0).all()  # each output pixel hands its 1 to one input pixel
    assert 0.2 < (gradient == 0).float().mean() < 0.8


@MODEST
@given(seed=SEEDS, threshold=st.floats(0, 1))
def test_the_guarded_model_rejects_exactly_what_is_below_its_threshold(seed, threshold):
    x = torch.rand((30, 3, 1, 1), generator=torch.Generator().manual_seed(seed)) * 0.4
    answers = SecurePredictor(Table(), threshold=threshold).predict(x)
    confidence, label = Table()(x).softmax(1).max(1)
    assert torch.equal(answers == REJECTED, confidence < threshold)
    assert torch.equal(answers[answers != REJECTED], label[answers != REJECTED])


@pytest.mark.parametrize("x", [torch.full((1, 3, 4, 4), 1.1), torch.full((1, 3, 4, 4), -0.1), torch.full((1, 3, 4, 4), torch.nan),
                               torch.zeros(3, 4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)])
def test_the_guarded_model_refuses_what_is_no_image(x):
    guarded = SecurePredictor(Table())
    with pytest.raises(ValueError, match="^x must"):
        guarded.predict(x)
    with pytest.raises(ValueError, match="^x must"):
        decide(guarded, x)


@pytest.mark.parametrize("name, values", [
    ("window", [0, 2, 4, -1, 3.0, "3"]), ("threshold", [-0.1, 1.1, float("nan"), "high"]), ("jitter", [-1, 0.5, None])])
def test_a_guard_that_makes_no_sense_is_refused_by_name(name, values):
    for value in values:
        with pytest.raises(ValueError) as error:
            SecurePredictor(Table(), **{name: value})
        assert str(error.value).startswith(f"{name} must") and repr(value) in str(error.value)


def test_jitter_moves_each_image_by_at_most_so_many_pixels_anew_at_every_call():
    class Seen(nn.Module):
        def forward(self, x):
            self.x = x
            return x.flatten(1)

    x = torch.zeros(64, 1, 9, 9)
    x[:, :, 4, 4] = 1
    seen, moves = Seen(), set()
    guarded = SecurePredictor(seen, window=1, jitter=2)
    different = 0
    for call in range(30):
        guarded(x)
        places = seen.x.flatten(1).argmax(1)
        moves |= {(place // 9 - 4, place % 9 - 4) for place in places.tolist()}
        different += len(places.unique()) > 1
    assert moves == {(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}
    assert different > 25  # not one move for the whole batch
    guarded, other = SecurePredictor(seen, window=1, jitter=2, seed=1), SecurePredictor(seen, window=1, jitter=2, seed=1)
    assert torch.equal(guarded(x), other(x)) and not torch.equal(guarded(x), guarded(x))


def test_the_guarded_model_answers_clean_images_and_stops_an_attacker_who_does_not_know_it(signs):
    model, (x, y, _) = signs
    guarded = SecurePredictor(model)
    answers = guarded.predict(x)
    assert (answers == y).float().mean() > 0.9 and (answers == REJECTED).float().mean() < 0.1
    naive = pgd(model, x, y, eps=4 / 255, steps=10)
    assert attack_success_rate(model, x, naive, y) > 0.7
    assert attack_success_rate(guarded, x, naive, y) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_an_attacker_who_knows_the_guard_gets_past_it(signs, seed):
    model, (x, y, _) = signs
    x, y = x[64 * seed:64 * seed + 64], y[64 * seed:64 * seed + 64]
    guarded = SecurePredictor(model)
    through = attack_success_rate(guarded, x, pgd(guarded, x, y, eps=8 / 255, steps=10, seed=seed), y)
    aware = attack_success_rate(guarded, x, adaptive_pgd(guarded, x, y, eps=8 / 255, steps=10, seed=seed), y)
    assert aware > 0.6
    assert aware > through + 0.2


@pytest.mark.parametrize("seed", range(3))
def test_averaging_over_its_moves_gets_past_a_guard_that_moves(plain, seed):
    x, y, _ = load_data("digits", "test", n=150, seed=seed)
    moving = [SecurePredictor(plain, window=1, threshold=0.8, jitter=1, seed=other) for other in (seed, seed + 100)]
    rates = {samples: attack_success_rate(
        moving[1], x, adaptive_pgd(moving[0], x, y, eps=0.15, steps=20, samples=samples, seed=seed), y) for samples in (1, 4)}
    assert rates[4] > rates[1] + 0.08
    assert rates[4] > 0.3


# ---- the repair

def test_adversarial_training_leaves_its_model_alone_and_repeats_in_its_seed(digits):
    x, y = digits[0].x[:300], digits[0].y[:300]
    model = small_cnn(1, 10, size=8, seed=2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = global_randomness()
    first, again, other = (adversarial_training(model, x, y, eps=0.1, steps=2, epochs=1, seed=seed, progress=False) for seed in (0, 0, 1))
    assert global_randomness() == state
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()) and not model.training
    assert torch.equal(predict(first, x), predict(again, x)) and not torch.equal(predict(first, x), predict(other, x))
    assert not first.training and all(p.requires_grad and p.grad is None for p in first.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_adversarial_training_makes_a_model_that_holds_where_the_plain_one_falls(plain, digits, seed):
    (x, y, _), (x_test, y_test, _) = digits
    hardened = adversarial_training(small_cnn(1, 10, size=8, seed=seed), x, y, eps=0.1, epochs=6, seed=seed, progress=False)
    clean = accuracy(hardened, x_test, y_test)
    under_attack = [accuracy(model, multi_targeted(model, x_test, y_test, eps=0.1, steps=15, targets=3), y_test) for model in (plain, hardened)]
    assert clean > 0.8
    assert under_attack[1] > under_attack[0] + 0.12


def test_adversarial_training_without_a_budget_is_plain_training(digits):
    x, y = digits[0].x[:300], digits[0].y[:300]
    model = small_cnn(1, 10, size=8)
    assert torch.equal(predict(adversarial_training(model, x, y, eps=0, epochs=1, progress=False), x),
                       predict(train(model, x, y, epochs=1, progress=False), x))


def test_every_attack_that_the_module_names_is_tested_here():
    named = {line.split(":")[0]: line for line in evasion.__doc__.splitlines() if ":" in line}
    attacks = {name.strip() for name in named["Attacks"].split(":")[1].split("·")}
    assert attacks == {"fgsm", "pgd", "multi_targeted", "minimal_norm", "decision_based", "adaptive_pgd"} == {name.split()[0] for name in CALLS}
