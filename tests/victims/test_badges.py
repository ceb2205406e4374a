"""The drawn portraits: reproducible, balanced, quick, different from person to person and alike from shot to shot."""
import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from mlsec_lab.victims import accuracy, badges, load_data, load_model

DIGEST = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from mlsec_lab.victims import badges
x, y = badges.draw(100, seed=7)
print(hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest())
"""


def digest(n, seed, **options):
    x, y = badges.draw(n, seed=seed, **options)
    return hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()


def test_the_contract_of_shape_type_range_and_grey_levels_holds():
    x, y = badges.draw(250, seed=3)
    assert x.shape == (250, 3, 32, 32) and x.dtype == torch.float32 and x.is_contiguous()
    assert y.shape == (250,) and y.dtype == torch.int64 and set(y.tolist()) == set(range(24))
    assert 0 <= x.min() and x.max() <= 1 and torch.equal(x, (x * 255).round() / 255)
    assert len(badges.CLASSES) == len(set(badges.CLASSES)) == len(badges.STAFF) == 24


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_draws_the_same_bits_on_any_number_of_threads(threads):
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    other = subprocess.run([sys.executable, "-W", "error", "-c", DIGEST, threads], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(100, 7)


def test_the_same_seed_repeats_another_differs_and_the_global_state_is_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    assert digest(70, 5) == digest(70, 5)
    assert len({digest(70, seed) for seed in (0, 1, 2, -1, 2**63)}) == 5
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tobytes() == before[1]


@pytest.mark.parametrize("n", [1, 23, 24, 25, 500])
def test_people_are_balanced_to_within_one_and_shuffled(n):
    _, y = badges.draw(n, seed=n)
    counts = torch.bincount(y, minlength=24)
    assert counts.sum() == n and counts.max() - counts.min() <= 1
    if n == 500:
        assert (y[1:] < y[:-1]).sum() > 150


def test_a_person_is_the_same_whoever_else_is_drawn_and_given_places_are_kept():
    wanted = torch.tensor([1, 1, 0])
    x, y = badges.draw(3, seed=1, people=(1000, 5), y=wanted)
    assert torch.equal(y, wanted) and y is not wanted and not torch.equal(x[0], x[1])
    many, _ = badges.draw(200, seed=1, people=[5])
    among, labels = badges.draw(400, seed=2, people=[3, 5])
    assert (many.mean(0) - among[labels == 1].mean(0)).abs().mean() < 0.03 < (many.mean(0) - among[labels == 0].mean(0)).abs().mean()


def test_shots_of_a_person_are_alike_and_people_differ():
    x, y = badges.draw(24 * 200, seed=4)
    half, other = (torch.stack([x[y == label][rows].mean(0) for label in range(24)]).flatten(1) for rows in (slice(100), slice(100, 200)))
    apart = torch.cdist(half, other)
    assert torch.equal(apart.argmin(1), torch.arange(24))  # nobody could be taken for shots of somebody else
    assert apart.diag().median() < 0.35 * apart.median()
    assert x.std(0).min() > 0.05          # and no pixel tells the shot from the next by nothing


def test_expression_light_and_wall_vary_from_shot_to_shot():
    x, _ = badges.draw(300, seed=6, people=[0])
    assert x.mean((1, 2, 3)).std() > 0.05                        # light
    assert x[:, :, :4, :4].mean((2, 3)).std(0).min() > 0.1       # wall
    assert x[:, :, 18:24, 12:20].std(0).mean() > 0.06            # mouth


def test_two_thousand_portraits_take_no_more_than_a_second():
    badges.draw(64)

    def seconds():
        began = time.process_time()
        badges.draw(1000, seed=1)
        return time.process_time() - began

    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize("arguments, name", [
    (dict(n=-1), "n"), (dict(n=2.0), "n"), (dict(n=2, seed=0.5), "seed"), (dict(n=2, people=[]), "people"), (dict(n=2, people="Ash"), "people"),
    (dict(n=2, people=[-1]), "people"), (dict(n=2, people=[0.5]), "people"), (dict(n=2, y=torch.tensor([0, 24])), "y"), (dict(n=2, y=torch.tensor([0])), "y")])
def test_bad_input_is_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        badges.draw(**arguments)


def test_the_data_set_has_staff_and_strangers_who_never_meet():
    assert load_data("badges", "train", n=24).classes == badges.CLASSES
    train, test = (load_data("badges_public", split, n=50) for split in ("train", "test"))
    assert len(train.classes) == 400 and len(test.classes) == 176 and not set(train.classes) & set(test.classes)
    assert not set(badges.STAFF) & {*badges.PUBLIC["train"], *badges.PUBLIC["test"]}
    drawn = {split: {row.tobytes() for seed in range(3) for row in load_data("badges", split, n=60, seed=seed).x.numpy()} for split in ("train", "test")}
    assert len(drawn["train"]) == len(drawn["test"]) == 180 and not drawn["train"] & drawn["test"]
    assert (len(load_data("badges").x), len(load_data("badges_public").x)) == (2000, 2000)


def test_the_shipped_model_knows_its_staff_on_fresh_shots():
    x, y, _ = load_data("badges", "test", n=480, seed=77)
    assert accuracy(load_model("badges_cnn"), x, y) > 0.97
