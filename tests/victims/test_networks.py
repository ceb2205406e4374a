"""The networks and their wrappers: small, reproducible, the right shape, and leaving nothing behind."""
import random
import re

import numpy as np
import pytest
import torch
from torch import nn

from mlsec_lab.victims import LabelOnly, QueryCounter, frozen, penultimate, pooled_cnn, small_cnn, small_resnet
from mlsec_lab.victims.networks import resnet18


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def global_randomness():
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), keys.tobytes(), tuple(rest), random.getstate()


def images(n, channels, size, seed=0):
    return torch.rand((n, channels, size, size), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("make, stated", [(small_cnn, r"([\d,]+) parameters"), (pooled_cnn, r"([\d,]+) parameters"), (small_resnet, r"([\d.]+) million parameters")])
def test_a_network_has_as_many_parameters_as_its_docstring_says(make, stated):
    number = re.search(stated, make.__doc__).group(1).replace(",", "")
    said = float(number) * (1e6 if "million" in stated else 1)
    assert parameters(make()) == pytest.approx(said, rel=0.02)
    if make is not small_resnet:
        assert parameters(make()) <= 100_000
    else:  # "20 layers" counts convolutions and the linear layer, without the short cuts' own
        layers = [name for name, module in make().named_modules() if isinstance(module, (nn.Conv2d, nn.Linear)) and "shortcut" not in name]
        assert len(layers) == 20 and "20 layers" in make.__doc__


@pytest.mark.parametrize("make", [small_cnn, small_resnet])
@pytest.mark.parametrize("channels, classes, size", [(1, 10, 8), (1, 10, 28), (3, 12, 32), (3, 43, 32), (3, 100, 32), (1, 2, 9)])
def test_logits_have_one_row_an_image_and_one_column_a_class(make, channels, classes, size):
    model = make(channels, classes, size=size) if make is small_cnn else make(channels, classes)
    x = images(5, channels, size)
    logits = model(x)
    assert logits.shape == (5, classes) and logits.dtype == torch.float32 and logits.isfinite().all()
    assert model(x[:0]).shape == (0, classes)
    assert torch.allclose(model(x[2:3]), logits[2:3], atol=1e-5)  # in eval mode no image depends on its neighbours
    assert not model.training and all(not module.training for module in model.modules())


@pytest.mark.parametrize("make", [small_cnn, pooled_cnn, small_resnet])
def test_the_seed_decides_the_weights_and_the_global_random_state_is_left_alone(make):
    torch.manual_seed(3)
    before = global_randomness()
    first = make(seed=5).state_dict()
    assert global_randomness() == before
    torch.rand(9)
    second, third = make(seed=5).state_dict(), make(seed=6).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert any(not torch.equal(value, third[key]) for key, value in first.items())


def test_the_networks_normalise_inside_themselves():
    for make in (small_cnn, pooled_cnn, small_resnet):
        seen = []
        model = make()
        model[1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        model(torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 32, 32))
        assert seen[0][0, :, 0, 0].tolist() == [-1, 0, 1]


@pytest.mark.parametrize("size", [16, 28, 32, 40])
def test_the_pooled_network_takes_images_of_any_size(size):
    model = pooled_cnn(1, 10)
    x = images(3, 1, size)
    assert model(x).shape == (3, 10) and not model.training
    assert torch.allclose(model(x[:1]), model(x)[:1], atol=1e-5)
    with pytest.raises(ValueError, match="width must be at least 1"):
        pooled_cnn(width=0)


@pytest.mark.parametrize("make", [small_cnn, pooled_cnn, small_resnet])
def test_penultimate_features_are_what_the_last_linear_layer_makes_the_logits_of(make):
    model, x = make(), images(4, 3, 32).requires_grad_()
    features, logits = penultimate(model, x)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert features.shape == (4, last.in_features)
    assert torch.allclose(last(features), logits, atol=1e-5) and torch.equal(logits, model(x))
    assert torch.autograd.grad(features.sum(), x)[0].abs().sum() > 0
    assert not last._forward_pre_hooks, "nothing stays behind in the model"


def test_a_model_without_a_linear_layer_has_no_penultimate_features():
    with pytest.raises(ValueError, match="model must have a linear layer"):
        penultimate(nn.Conv2d(3, 4, 3), images(1, 3, 8))


def test_width_and_depth_make_a_larger_network():
    assert parameters(small_cnn(width=8)) < parameters(small_cnn()) < parameters(small_cnn(width=24))
    assert parameters(small_resnet(depth=1)) < parameters(small_resnet()) < parameters(small_resnet(width=24))


@pytest.mark.parametrize("size", [0, 7, -8, 8.0, "32"])
def test_a_network_for_images_too_small_to_pool_is_refused_by_name(size):
    with pytest.raises(ValueError) as error:
        small_cnn(size=size)
    assert str(error.value).startswith("size must be") and repr(size) in str(error.value)


def test_resnet18_is_torchvisions_for_small_images():
    model = resnet18(seed=1)
    said = float(re.search(r"([\d.]+) million parameters", resnet18.__doc__).group(1)) * 1e6
    assert parameters(model) == pytest.approx(said, rel=0.02) and not any(module.training for module in model.modules())
    sizes = []
    model[1].layer1.register_forward_hook(lambda module, inputs, output: sizes.append((inputs[0].shape[1:], output.shape[1:])))
    seen = []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    x = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1).expand(2, 3, 32, 32)
    assert model(x).shape == (2, 10) and model(x[:0]).shape == (0, 10)
    assert sizes[0] == ((64, 32, 32), (64, 32, 32)), "the picture keeps its size up to the first blocks"
    assert seen[0][0, :, 0, 0].tolist() == [-1, 0, 1], "it normalises inside itself"
    x = images(3, 1, 8)
    small = resnet18(1, 43)
    assert small(x).shape == (3, 43) and torch.allclose(small(x)[1:2], small(x[1:2]), atol=1e-4)


def test_the_seed_decides_resnet18_too_and_the_global_random_state_is_left_alone():
    resnet18()  # torchvision is imported now, whatever that draws
    torch.manual_seed(3)
    before = global_randomness()
    first = resnet18(seed=5).state_dict()
    assert global_randomness() == before
    torch.rand(9)
    second, third = resnet18(seed=5).state_dict(), resnet18(seed=6).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not torch.equal(first["1.conv1.weight"], third["1.conv1.weight"]) and not torch.equal(first["1.fc.weight"], third["1.fc.weight"])


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_frozen_restores_every_flag_also_after_an_exception(fails, mixed):
    model = small_cnn().train()
    if mixed:
        model[3].eval()
        model[1].weight.requires_grad_(False)
        model[-1].bias.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    inside = []
    try:
        with frozen(model) as same:
            inside = [same is model, any(module.training for module in model.modules()), any(p.requires_grad for p in model.parameters())]
            if fails:
                raise Interrupted
    except Interrupted:
        pass
    assert inside == [True, False, False]
    assert [module.training for module in model.modules()] == modes and any(modes)
    assert [parameter.requires_grad for parameter in model.parameters()] == wants and any(wants)


def test_frozen_lets_the_gradient_of_the_input_through_and_no_other():
    model, x = small_cnn(), images(2, 3, 32).requires_grad_()
    with frozen(model):
        model(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_within_frozen_ends_where_it_began():
    model = small_cnn().train()
    with frozen(model):
        with frozen(model):
            pass
        assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules()) and all(p.requires_grad for p in model.parameters())


def test_the_counter_counts_inputs_and_changes_no_answer():
    model = small_cnn()
    counter = QueryCounter(model)
    for n in (1, 7, 0, 4):
        x = images(n, 3, 32, seed=n)
        assert torch.equal(counter(x), model(x))
    assert counter.queries == 12
    counter.queries = 0
    counter(images(3, 3, 32))
    assert counter.queries == 3


def test_the_counter_passes_gradients_and_keeps_the_mode_of_its_model():
    for training in (False, True):
        model = small_cnn().train(training)
        counter = QueryCounter(model)
        assert counter.training is training and model.training is training
        x = images(2, 3, 32).requires_grad_()
        counter(x).sum().backward()
        assert x.grad.abs().sum() > 0


def test_labels_alone_tell_the_decision_and_neither_probability_nor_gradient():
    model = small_cnn()
    with torch.no_grad():
        model[-1].weight *= 20  # so that answers differ between images
    shy = LabelOnly(model)
    x = images(40, 3, 32).requires_grad_()
    answers = shy(x)
    assert torch.equal(answers.argmax(1), model(x).argmax(1))
    assert torch.equal(answers.sum(1), torch.ones(40)) and set(answers.unique().tolist()) == {0.0, 1.0}
    assert not answers.requires_grad and answers.grad_fn is None
    with pytest.raises(RuntimeError):
        torch.autograd.grad(answers.sum(), x)
    assert x.grad is None and all(parameter.grad is None for parameter in model.parameters())


def test_labels_alone_do_not_change_where_confidence_does():
    class Table(nn.Module):
        def forward(self, x):
            return x[:, :, 0, 0]

    sure, hardly = torch.tensor([9.0, 0, 1])[None, :, None, None], torch.tensor([0.51, 0.5, 0.5])[None, :, None, None]
    shy = LabelOnly(Table())
    assert torch.equal(shy(sure), shy(hardly)) and not torch.equal(Table()(sure), Table()(hardly))
    assert shy(sure).shape == (1, 3) and not torch.equal(shy(sure), shy(sure.flip(1)))
