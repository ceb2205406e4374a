"""The contrastive extractor: its views, its loss, its training, and the head that is put on it."""
import pytest
import torch
from torch import nn

from mlsec_lab.victims import accuracy, load_data, load_model, predict
from mlsec_lab.victims.self_supervised import (FEATURES, as_head, fit_images, flat, nt_xent, pretrain, self_supervised_cnn, train_head, two_views,
                                               with_ones)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- the network

def test_the_network_is_small_and_normalised_inside_and_its_parts_fit():
    model = self_supervised_cnn()
    assert sum(p.numel() for p in model.parameters()) < 200_000 and not model.training
    x = torch.rand(3, 3, 32, 32)
    features = model.extractor(x)
    assert features.shape == (3, FEATURES) and model(x).shape == (3, 12)
    assert torch.equal(model(x), model.head(features))
    rebuilt = model.decoder(features)
    assert rebuilt.shape == x.shape and 0 <= rebuilt.min() and rebuilt.max() <= 1
    small = self_supervised_cnn(1, 10, size=8)
    assert small.decoder(small.extractor(torch.rand(2, 1, 8, 8))).shape == (2, 1, 8, 8)


def test_its_first_weights_are_drawn_from_the_seed_and_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    first, again, other = (self_supervised_cnn(seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[k], again[k]) for k in first) and not torch.equal(first["head.weight"], other["head.weight"])


# ---- what it learns from

def test_two_views_are_pictures_that_differ_from_each_other_and_come_from_the_generator_alone():
    x, _, _ = load_data("signs", "test", n=8)
    kept, state = x.clone(), torch.random.get_rng_state()
    first, second = two_views(x, generator(3))
    assert torch.equal(x, kept) and torch.equal(torch.random.get_rng_state(), state)
    for view in (first, second):
        assert view.shape == x.shape and 0 <= view.min() and view.max() <= 1
    assert ((first - second).abs().flatten(1).mean(1) > 0.02).all()
    assert all(torch.equal(a, b) for a, b in zip(two_views(x, generator(3)), (first, second)))


def test_the_contrastive_loss_is_small_for_partners_and_that_of_guessing_for_strangers():
    a = torch.eye(8, 16)
    assert nt_xent(a, 3 * a, 0.05) < 1e-4  # lengths do not matter
    assert nt_xent(a, a.roll(1, 0), 0.05) > 5
    same = torch.ones(8, 16)
    assert nt_xent(same, same) == pytest.approx(torch.tensor(15.0).log().item(), rel=1e-4)


def test_a_short_training_improves_the_features_and_leaves_its_argument_alone():
    x, y, _ = load_data("signs", "train", n=500)
    model = self_supervised_cnn(width=4)
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    trained = pretrain(model, x, y, epochs=5, batch=100, decoder_epochs=1, progress=False)
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items()) and not any(m.training for m in trained.modules())
    assert all(p.requires_grad for p in trained.parameters())
    views = two_views(x[:200], generator(9))
    loss = [nt_xent(*(predict(m.extractor, v) for v in views)).item() for m in (model, trained)]
    assert loss[1] < loss[0] - 0.1


def test_labels_reach_the_head_alone_and_the_seed_decides_everything():
    x, y, _ = load_data("signs", "train", n=120)
    first, others, again, elsewhere = (
        pretrain(self_supervised_cnn(width=2), x, labels, epochs=1, batch=40, decoder_epochs=1, seed=seed, progress=False).state_dict()
        for labels, seed in ((y, 0), ((y + 5) % 12, 0), (y, 0), (y, 1)))
    below = [key for key in first if not key.startswith("head")]
    assert all(torch.equal(first[key], others[key]) for key in below) and not torch.equal(first["head.weight"], others["head.weight"])
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["extractor.1.weight"], elsewhere["extractor.1.weight"])


def test_the_shipped_extractor_is_worth_more_than_an_untrained_one():
    model, untrained = load_model("signs_contrastive"), self_supervised_cnn()
    x, y, _ = load_data("signs", "train", n=500, seed=3)
    x_test, y_test, _ = load_data("signs", "test", n=500, seed=3)
    got = [accuracy(nn.Sequential(e, train_head(predict(e, x), y, 12)), x_test, y_test) for e in (untrained.extractor, model.extractor)]
    assert got[1] > got[0] + 0.2 and got[1] > 0.55
    features = predict(model.extractor, x)
    rebuilt = model.decoder(features).detach()
    assert (rebuilt - x).square().mean() < 0.5 * (x.mean(0) - x).square().mean()


# ---- the head

def test_the_head_is_the_one_minimum_of_the_learners_loss_wherever_it_starts():
    features = torch.randn(90, 5, generator=generator())
    y = torch.arange(90) % 3
    head = train_head(features, y, 3, decay=0.01)
    again = train_head(features, y, 3, decay=0.01, start=as_head(torch.randn(3, 6, generator=generator(1))))
    assert torch.allclose(flat(head), flat(again), atol=1e-3)
    w = flat(head).requires_grad_()
    loss = nn.functional.cross_entropy(with_ones(features) @ w.T, y) + 0.005 * w.square().sum()
    assert torch.autograd.grad(loss, w)[0].abs().max() < 1e-4
    assert torch.allclose(head(features), with_ones(features) @ flat(head).T, atol=1e-6)


def test_pictures_of_another_kind_are_brought_into_the_extractors_format():
    x = torch.rand(2, 1, 8, 8)
    fitted = fit_images(x)
    assert fitted.shape == (2, 3, 32, 32) and torch.equal(fitted[:, 0], fitted[:, 2]) and 0 <= fitted.min() and fitted.max() <= 1
    assert fitted.mean() == pytest.approx(x.mean().item(), abs=0.02)
    colour = torch.rand(2, 3, 32, 32)
    assert torch.equal(fit_images(colour), colour)


X, Y = torch.rand(6, 3, 32, 32), torch.arange(6)


@pytest.mark.parametrize("call, words", [
    (lambda: self_supervised_cnn(size=12), "size must be a multiple of 8"),
    (lambda: nt_xent(torch.rand(3, 2), torch.rand(4, 2)), "a and b must both be"),
    (lambda: nt_xent(torch.rand(3, 2), torch.rand(3, 2), 0), "temperature must be greater than 0"),
    (lambda: pretrain(self_supervised_cnn(), X, Y, epochs=0), "epochs must be at least 1"),
    (lambda: pretrain(self_supervised_cnn(), X, Y, batch=7), "batch must be at most 6"),
    (lambda: pretrain(self_supervised_cnn(), X, Y + 20, batch=3), "y must hold classes from 0 to 11"),
    (lambda: pretrain(self_supervised_cnn(), X * 3, Y, batch=3), "x must lie in"),
    (lambda: train_head(X, Y, 12), "features must be a float32 tensor"),
    (lambda: train_head(torch.rand(6, 4), Y[:3], 12), "y must have the shape"),
    (lambda: train_head(torch.rand(6, 4), Y, 12, decay=0), "decay must be greater than 0"),
    (lambda: fit_images(torch.rand(2, 2, 8, 8)), "x must have 1 or 3 channels"),
])
def test_bad_input_is_refused_with_the_argument_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
