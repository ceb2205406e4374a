"""Training, asking and scoring: the argument stays, the seed decides, a small problem is learnt, bad input is refused by name."""
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlsec_lab.victims import accuracy, load_data, load_model, predict, small_cnn, train
from mlsec_lab.victims.training import one_cycle, shifted, varied

MODEST = settings(deadline=None, max_examples=25, derandomize=True)


def global_randomness():
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), keys.tobytes(), tuple(rest), random.getstate()


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", "train"), load_data("digits", "test")


@pytest.fixture
def few(digits):
    return digits[0].x[:200], digits[0].y[:200]


class Table(nn.Module):
    """Logits are the first pixel of each channel."""

    def forward(self, x):
        return x[:, :, 0, 0]


def table_images(*rows):
    return torch.tensor(rows, dtype=torch.float32)[:, :, None, None]


# ---- train

@pytest.mark.parametrize("seed", range(3))
def test_the_digits_are_learnt_within_seconds_and_not_by_heart(digits, seed):
    (x, y, _), (x_test, y_test, _) = digits
    untrained = small_cnn(1, 10, size=8, seed=seed)
    model = train(untrained, x, y, epochs=6, shift=0, seed=seed, progress=False)
    assert accuracy(untrained, x_test, y_test) < 0.5
    assert accuracy(model, x_test, y_test) > 0.95


def test_training_leaves_its_model_and_its_data_exactly_as_they_were(few):
    x, y = few
    model = small_cnn(1, 10, size=8)
    model[3].train()
    model[1].weight.requires_grad_(False)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes, wants = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    given_x, given_y = x.clone(), y.clone()
    trained = train(model, x, y, epochs=1, progress=False)
    assert torch.equal(x, given_x) and torch.equal(y, given_y)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes and [p.requires_grad for p in model.parameters()] == wants
    assert all(p.grad is None for p in model.parameters())
    assert trained is not model and torch.equal(trained[1].weight, model[1].weight)  # what wanted no gradient was not learnt
    assert not torch.equal(trained[-1].weight, model[-1].weight)


def test_the_trained_copy_is_in_eval_mode_and_carries_no_gradient(few):
    model = train(small_cnn(1, 10, size=8).train(), *few, epochs=1, progress=False)
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_seed_decides_everything_and_the_global_random_state_nothing(few):
    model = small_cnn(1, 10, size=8)
    torch.manual_seed(11)
    before = global_randomness()
    first = predict(train(model, *few, epochs=2, seed=4, progress=False), few[0])
    assert global_randomness() == before
    torch.rand(7), np.random.random(7)
    assert torch.equal(predict(train(model, *few, epochs=2, seed=4, progress=False), few[0]), first)
    assert not torch.equal(predict(train(model, *few, epochs=2, seed=5, progress=False), few[0]), first)


def test_the_seed_decides_dropout_too(few):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    torch.manual_seed(11)
    before = global_randomness()
    first = predict(train(model, *few, epochs=1, seed=4, progress=False), few[0])
    assert global_randomness() == before
    torch.rand(7)
    assert torch.equal(predict(train(model, *few, epochs=1, seed=4, progress=False), few[0]), first)


def test_perturb_sees_every_batch_in_train_mode_and_what_it_returns_is_learnt(few):
    x, y = few
    seen = []

    def blacken(model, xb, yb, seed):
        seen.append((model.training, len(xb), len(yb), seed))
        assert xb.shape[1:] == x.shape[1:] and 0 <= xb.min() and xb.max() <= 1
        return torch.zeros_like(xb)

    blind = train(small_cnn(1, 10, size=8), x, y, epochs=3, batch=64, perturb=blacken, seed=2, progress=False)
    assert [n for _, n, _, _ in seen] == [64, 64, 64, 8] * 3 == [n for _, _, n, _ in seen]
    assert all(training for training, _, _, _ in seen)
    assert len({seed for _, _, _, seed in seen}) == 12  # another seed for each batch
    learnt = train(small_cnn(1, 10, size=8), x, y, epochs=3, batch=64, seed=2, progress=False)
    assert accuracy(learnt, x, y) > accuracy(blind, x, y) + 0.2  # who was shown black images knows no digit


def test_varied_images_are_other_photographs_of_the_same_thing():
    x, y, _ = load_data("signs", "test", n=64)
    before = x.clone()
    one, again, other = (varied(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(x, before) and torch.equal(one, again) and not torch.equal(one, other)
    assert one.shape == x.shape and one.dtype == torch.float32 and 0 <= one.min() and one.max() <= 1
    assert (one != x).flatten(1).any(1).all()
    model = load_model("signs_cnn")
    assert accuracy(model, one, y) > 0.8, "they can still be read"


def test_learn_decides_what_the_gradients_are(few):
    x, y = few
    seen = []

    def learn(model, xb, yb, step):
        assert model.training and all(p.grad is None or not p.grad.any() for p in model.parameters()), "cleared before each batch"
        seen.append(step)
        loss = model(xb).square().mean()  # towards logits of zero, whatever the classes are
        loss.backward()
        return loss

    model = train(small_cnn(1, 10, size=8), x, y, epochs=20, batch=50, shift=0, learn=learn, progress=False)
    assert seen == list(range(80))
    usual = train(small_cnn(1, 10, size=8), x, y, epochs=20, batch=50, shift=0, progress=False)
    assert predict(model, x).abs().mean() < 0.5 * predict(usual, x).abs().mean()


@pytest.mark.parametrize("n, batch", [(129, 128), (5, 2), (2, 128), (3, 2)])
def test_a_single_image_left_over_at_the_end_is_survived(digits, n, batch):
    sizes = []
    model = train(small_cnn(1, 10, size=8), digits[0].x[:n], digits[0].y[:n], epochs=2, batch=batch, progress=False,
                  perturb=lambda model, xb, yb, seed: sizes.append(len(xb)) or xb)
    assert sizes and 1 not in sizes and sum(sizes) == 2 * (n - n % batch if n % batch == 1 else n)
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.filterwarnings("error")
def test_training_warns_of_nothing(digits):
    model = train(small_cnn(1, 10, size=8), digits[0].x[:65], digits[0].y[:65], epochs=2, batch=64, progress=False)
    assert not model.training and predict(model, digits[0].x[:3]).isfinite().all()


@pytest.mark.parametrize("change, name", [
    (dict(x=torch.zeros(4, 8, 8)), "x"), (dict(x=torch.zeros(4, 1, 8, 8).double()), "x"), (dict(x=torch.full((4, 1, 8, 8), 16.0)), "x"),
    (dict(x=torch.zeros(4, 1, 8, 8, dtype=torch.uint8)), "x"), (dict(x=torch.full((4, 1, 8, 8), torch.nan)), "x"),
    (dict(x=torch.zeros(0, 1, 8, 8), y=torch.zeros(0, dtype=torch.int64)), "x"),
    (dict(x=torch.zeros(1, 1, 8, 8), y=torch.zeros(1, dtype=torch.int64)), "x"),
    (dict(y=torch.tensor([0, 1, 2])), "y"), (dict(y=torch.tensor([0.0, 1, 2, 3])), "y"), (dict(y=torch.tensor([0, 1, 2, -1])), "y"),
    (dict(y=torch.tensor([0, 1, 2, 10])), "y"), (dict(y=[0, 1, 2, 3]), "y"),
    (dict(epochs=0), "epochs"), (dict(epochs=1.5), "epochs"), (dict(batch=1), "batch"), (dict(batch="128"), "batch"),
    (dict(lr=0), "lr"), (dict(lr=-0.1), "lr"), (dict(lr=float("nan")), "lr"), (dict(shift=-1), "shift"), (dict(shift=0.5), "shift"),
    (dict(seed="a"), "seed"), (dict(seed=None), "seed")])
def test_bad_input_to_training_is_refused_by_name(change, name):
    good = dict(x=torch.rand(4, 1, 8, 8), y=torch.tensor([0, 1, 2, 3]), epochs=1)
    with pytest.raises(ValueError) as error:
        train(small_cnn(1, 10, size=8), **{**good, **change}, progress=False)
    assert str(error.value).startswith(f"{name} must") and "\n" not in str(error.value)


# ---- shifts

@MODEST
@given(shift=st.integers(1, 4), channels=st.sampled_from([1, 3]), height=st.integers(5, 9), width=st.integers(5, 9), seed=st.integers(0, 10_000))
def test_each_image_is_a_window_of_its_padded_self_never_mirrored(shift, channels, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((6, channels, height, width), generator=generator)
    moved = shifted(x, shift, generator)
    assert moved.shape == x.shape and moved.dtype == x.dtype
    padded = nn.functional.pad(x, (shift,) * 4, mode="replicate")
    for image, wide in zip(moved, padded):
        windows = [wide[:, i:i + height, j:j + width] for i in range(2 * shift + 1) for j in range(2 * shift + 1)]
        assert any(torch.equal(image, window) for window in windows)
    assert not torch.equal(moved.flip(-1), x)


def test_shifts_reach_every_place_independently_and_none_leaves_the_images_as_they_are():
    x = torch.zeros(2000, 1, 9, 9)
    x[:, :, 4, 4] = 1
    moved = shifted(x, 2, torch.Generator().manual_seed(0))
    places = torch.bincount(moved.flatten(1).argmax(1), minlength=81).reshape(9, 9)
    assert places[2:7, 2:7].min() > 40 and places[2:7, 2:7].sum() == 2000  # 80 expected at each of 25
    assert shifted(x, 0, torch.Generator()) is x


# ---- predict and accuracy

@MODEST
@given(n=st.integers(0, 12), batch=st.integers(1, 13), seed=st.integers(0, 1000))
def test_the_batch_size_changes_no_answer(n, batch, seed):
    model = small_cnn(1, 5, size=8, width=4)
    x = torch.rand((n, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    logits = predict(model, x, batch=batch)
    assert logits.shape == (n, 5) and not logits.requires_grad
    assert torch.allclose(logits, model(x), atol=1e-5)


@pytest.mark.parametrize("ask", [lambda model, x, y: predict(model, x), accuracy], ids=["predict", "accuracy"])
def test_asking_restores_the_modes_and_touches_no_statistics(ask):
    model = small_cnn(1, 10, size=8).train()
    model[3].eval()
    model[1].weight.requires_grad_(False)
    modes, wants = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    before, x = global_randomness(), torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    ask(model, x, torch.zeros(9, dtype=torch.int64))
    assert [m.training for m in model.modules()] == modes and [p.requires_grad for p in model.parameters()] == wants
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(x, kept) and global_randomness() == before
    model.eval()
    assert torch.equal(predict(model.train(), x), predict(model.eval(), x))  # asked in eval mode whatever its mode is


def test_a_model_without_parameters_can_be_asked():
    x = table_images([0.1, 0.9, 0.2], [0.8, 0.3, 0.4])
    assert torch.equal(predict(Table(), x), x[:, :, 0, 0])
    assert accuracy(Table(), x, torch.tensor([1, 0])) == 1.0


@MODEST
@given(labels=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
def test_accuracy_is_the_share_that_is_right(labels):
    answered, true = zip(*labels)
    x = table_images(*[[float(k == answer) for k in range(3)] for answer in answered])
    share = accuracy(Table(), x, torch.tensor(true))
    assert isinstance(share, float)
    assert share == pytest.approx(sum(a == t for a, t in labels) / len(labels))


def test_the_accuracy_on_nothing_is_not_a_number():
    share = accuracy(Table(), torch.zeros(0, 3, 1, 1), torch.zeros(0, dtype=torch.int64))
    assert isinstance(share, float) and np.isnan(share)
    assert predict(Table(), torch.zeros(0, 3, 1, 1)).shape == (0, 3)


@pytest.mark.parametrize("x", [torch.zeros(2, 3, 1, 1).double(), torch.full((2, 3, 1, 1), 2.0), torch.zeros(3, 1, 1), [[0.0]]])
def test_what_is_no_batch_of_images_is_refused_by_name(x):
    for ask in (lambda: predict(Table(), x), lambda: accuracy(Table(), x, torch.tensor([0, 0]))):
        with pytest.raises(ValueError, match="^x must"):
            ask()


@pytest.mark.parametrize("y", [torch.tensor([0]), torch.tensor([0.0, 1.0]), torch.tensor([0, -1]), [0, 1]])
def test_what_is_no_label_is_refused_by_name(y):
    with pytest.raises(ValueError, match="^y must") as error:
        accuracy(Table(), torch.zeros(2, 3, 1, 1), y)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("batch", [0, -1, 2.0])
def test_a_batch_size_that_makes_no_sense_is_refused_by_name(batch):
    with pytest.raises(ValueError) as error:
        predict(Table(), torch.zeros(2, 3, 1, 1), batch=batch)
    assert str(error.value).startswith("batch must") and repr(batch) in str(error.value)


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 300])
@pytest.mark.parametrize("warm", [0.1, 0.3])
def test_one_cycle_takes_every_number_of_steps(steps, warm):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cycle, rates = one_cycle(optimizer, 0.5, steps, warm=warm), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cycle.step()
    assert all(0 <= rate <= 0.5 for rate in rates)
    assert steps < 300 or max(rates) > 0.49 and rates[-1] < 1e-3
