"""The drawn traffic signs: reproducible, balanced, varied, quick, hard enough, and clear about bad input."""
import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from mlsec_lab.victims import signs

DIGEST = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from mlsec_lab.victims import signs
x, y = signs.draw(100, seed=7)
print(hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest())
"""


def digest(n, seed):
    x, y = signs.draw(n, seed=seed)
    return hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()


def test_the_contract_of_shape_type_range_and_grey_levels_holds():
    x, y = signs.draw(250, seed=3)
    assert x.shape == (250, 3, 32, 32) and x.dtype == torch.float32 and x.is_contiguous()
    assert y.shape == (250,) and y.dtype == torch.int64
    assert 0 <= x.min() and x.max() <= 1
    assert torch.equal(x, (x * 255).round() / 255)
    assert len(signs.CLASSES) == len(set(signs.CLASSES)) == 12


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_draws_the_same_bits_on_any_number_of_threads(threads):
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    other = subprocess.run([sys.executable, "-c", DIGEST, threads], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(100, 7)


def test_the_same_seed_repeats_and_another_seed_differs():
    assert digest(70, 5) == digest(70, 5)
    assert len({digest(70, seed) for seed in (0, 1, 2, -1, 2**63)}) == 5
    x, _ = signs.draw(70, seed=5)
    other, _ = signs.draw(70, seed=6)
    assert not {row.tobytes() for row in x.numpy()} & {row.tobytes() for row in other.numpy()}


def test_the_global_random_state_is_neither_used_nor_changed():
    before = torch.get_rng_state(), np.random.get_state()
    first = digest(40, 9)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1][1]) and np.random.get_state()[2:] == before[1][2:]
    torch.rand(3), np.random.random(3)
    assert digest(40, 9) == first


@pytest.mark.parametrize("n", [1, 11, 12, 31, 500])
def test_labels_are_balanced_to_within_one_and_shuffled(n):
    _, y = signs.draw(n, seed=n)
    counts = torch.bincount(y, minlength=12)
    assert counts.sum() == n and counts.max() - counts.min() <= 1
    if n == 500:
        assert (y[1:] < y[:-1]).sum() > 150 and not torch.equal(y, signs.draw(n, seed=n + 1)[1])


def test_classes_may_be_chosen_by_name_or_number_and_stay_balanced():
    _, y = signs.draw(31, seed=1, classes=["stop", 5])
    assert sorted(torch.bincount(y, minlength=12)[[0, 5]].tolist()) == [15, 16]
    assert torch.equal(y, signs.draw(31, seed=1, classes=(0, "speed limit 80"))[1])


def test_given_labels_come_back_in_their_order_and_are_left_alone():
    wanted = torch.tensor([3, 3, 0, 11, 7])
    x, y = signs.draw(5, seed=1, y=wanted)
    y[0] = 9
    assert torch.equal(wanted, torch.tensor([3, 3, 0, 11, 7])) and torch.equal(y[1:], wanted[1:])
    assert not torch.equal(x[0], x[1])


def test_no_images_are_empty_tensors_of_the_right_shape():
    x, y = signs.draw(0)
    assert x.shape == (0, 3, 32, 32) and x.dtype == torch.float32
    assert y.shape == (0,) and y.dtype == torch.int64


@pytest.mark.parametrize("arguments, name, expected, got", [
    (dict(n=-1), "n", "at least 0", "-1"), (dict(n=2.0), "n", "whole number", "2.0"), (dict(n=True), "n", "whole number", "True"),
    (dict(n=2, seed=0.5), "seed", "whole number", "0.5"), (dict(n=2, seed=None), "seed", "whole number", "None"),
    (dict(n=2, classes=[0, 12]), "classes", "at most 11", "12"), (dict(n=2, classes=[-1]), "classes", "at least 0", "-1"),
    (dict(n=2, classes=["halt"]), "classes", "one of 'stop'", "'halt'"), (dict(n=2, classes=[]), "classes", "at least one", "[]"),
    (dict(n=2, y=torch.tensor([0, 12])), "y", "0 to 11", "12"), (dict(n=2, y=torch.tensor([0])), "y", "[2]", "[1]"),
    (dict(n=2, classes="stop"), "classes", "a list", "'stop'"), (dict(n=2, classes=3), "classes", "a list", "3"),
    (dict(n=1, y=[0]), "y", "int64 tensor", "list"), (dict(n=1, y=torch.tensor([0]), classes=[0]), "classes", "None", "[0]"),
])
def test_bad_input_is_named_with_what_was_expected_and_what_came(arguments, name, expected, got):
    with pytest.raises(ValueError) as error:
        signs.draw(**arguments)
    message = str(error.value)
    assert message.startswith(f"{name} must") and expected in message and got in message


@pytest.mark.parametrize("label, size, name", [(12, 64, "label"), (-1, 64, "label"), ("halt", 64, "label"), (0, 7, "size"), (0, 64.0, "size")])
def test_a_template_refuses_an_unknown_label_or_size(label, size, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        signs.template(label, size)


def test_templates_are_clean_views_that_differ_between_all_classes():
    views = torch.stack([signs.template(label, 96) for label in range(12)])
    assert views.shape == (12, 3, 96, 96) and views.dtype == torch.float32 and 0 <= views.min() and views.max() <= 1
    assert torch.equal(views[0], signs.template("stop", 96))
    gaps = (views[:, None] - views[None]).abs().mean((2, 3, 4)) + torch.eye(12)
    assert gaps.min() > 0.01                                       # the nearest pair: speed limits, which share all but a digit
    assert (gaps < 0.03).sum() <= 2 * 5                            # 30, 50, 80 among themselves, and few others
    assert (views[:, :, 0, 0] == views[0, 0, 0, 0]).all()          # the same grey in the corners


@pytest.mark.parametrize("size", [33, 64, 128])
def test_left_and_right_turn_are_mirror_images_and_not_copies(size):
    left, right = signs.template("turn left", size), signs.template("turn right", size)
    assert (left - right.flip(-1)).abs().max() <= 1 / 255
    assert (left - right).abs().mean() > 0.02


def test_each_sign_wears_the_colours_of_the_road():
    def share(name, red, green, blue):
        return ((signs.template(name, 96) - torch.tensor([red, green, blue]).reshape(3, 1, 1)).abs().amax(0) < 0.1).float().mean()
    assert share("stop", 0.72, 0.08, 0.10) > 0.3 and share("no entry", 0.72, 0.08, 0.10) > 0.4
    assert share("roundabout", 0.04, 0.24, 0.62) > 0.3 and share("priority road", 0.95, 0.66, 0.08) > 0.1
    assert share("warning", 0.05, 0.05, 0.06) > 0.01 and share("yield", 0.05, 0.05, 0.06) == 0


def test_photographs_vary_in_light_and_contrast_and_none_repeats():
    x, _ = signs.draw(600, seed=2, classes=["stop"])
    brightness, contrast = x.mean((1, 2, 3)), x.std((1, 2, 3))
    assert brightness.quantile(0.05) < 0.15 and brightness.quantile(0.95) > 0.65
    assert contrast.quantile(0.05) < 0.08 and contrast.quantile(0.95) > 0.2
    assert len({image.tobytes() for image in x.numpy()}) == 600


def test_the_mean_photograph_of_a_class_resembles_its_template_and_no_other_more():
    def standard(images):
        images = images - images.mean((2, 3), keepdim=True)
        return images / (images.std((1, 2, 3), keepdim=True) + 1e-3)
    views = standard(torch.stack([signs.template(label, 32) for label in range(12)]))
    for label in range(12):
        x, _ = signs.draw(300, seed=4, classes=[label])
        match = (standard(standard(x).mean(0, keepdim=True)) * views).mean((1, 2, 3))
        assert match[label] > 0.3
        assert match[label] > match.max() - 0.1  # a mean over many poses tells 30 from 80 by little


@pytest.mark.slow
def test_a_core_draws_a_thousand_signs_a_second_at_the_very_least():
    signs.draw(64)  # the templates are drawn once

    def rate(seed):
        start = time.perf_counter()
        signs.draw(3000, seed=seed)
        return 3000 / (time.perf_counter() - start)

    assert any(rate(seed) >= 1000 for seed in range(10))  # other work on the machine only ever slows it


@pytest.mark.slow
def test_a_small_network_learns_the_signs_well_and_not_perfectly():
    from mlsec_lab.victims import accuracy, small_cnn, train

    model = train(small_cnn(seed=0), *signs.draw(12_000, seed=0), epochs=5, seed=0, progress=False)
    held_out = accuracy(model, *signs.draw(3000, seed=1))
    assert 0.955 <= held_out <= 0.995, held_out
