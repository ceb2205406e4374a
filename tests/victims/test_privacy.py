"""DP-SGD: within its budget, whatever the model; what it promises of each example is tested where it is used, in lesson 10's module."""
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlsec_lab.victims.privacy import train_by_dp_sgd

X = torch.rand(600, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, :, :2].sum((1, 2, 3)) > X[:, :, 2:].sum((1, 2, 3))).long()
BUDGET = dict(epsilon=8, delta=1e-3, steps=40, batch=60, lr=0.1, progress=False)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(128, 2))


def losses(learner, index):
    return F.cross_entropy(learner(X[index]), Y[index], reduction="none")


def test_a_model_learns_within_its_budget_without_batch_normalisation():
    model = network()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    private = train_by_dp_sgd(model, losses, 600, **BUDGET)
    assert 7 < private.epsilon <= 8 and private.delta == 1e-3 and private.noise > 0.3
    assert (private.model(X).argmax(1) == Y).float().mean() > 0.8
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in private.model) and not private.model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and torch.equal(torch.random.get_rng_state(), state)
    assert not any(hasattr(p, "grad_sample") or p.grad is not None for p in private.model.parameters())
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in private.model.modules())


def test_one_seed_is_one_model():
    first, again, other = (train_by_dp_sgd(network(), losses, 600, **BUDGET, seed=seed).model[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_half_the_examples_need_more_noise_for_the_same_budget():
    few, many = (train_by_dp_sgd(network(), losses, n, **BUDGET).noise for n in (300, 600))
    assert few > 1.2 * many


@pytest.mark.parametrize("wrong", [dict(epsilon=0), dict(delta=0.5), dict(clip=0), dict(lr=-1), dict(steps=0), dict(batch=0), dict(batch=601), dict(seed=0.5)], ids=str)
def test_numbers_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        train_by_dp_sgd(network(), losses, 600, **{**BUDGET, **wrong})
