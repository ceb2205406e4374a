"""The judge of portraits: what it is trained on, and whom it knows."""
import pytest
import torch

from mlsec_lab.victims import accuracy, datasets, load_data, pooled_cnn
from mlsec_lab.victims.datasets import Data
from mlsec_lab.victims.judge import careless, no_portraits, people_of, train_judge


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def few_people(monkeypatch):
    """Three of the staff and two strangers, so that a judge is trained in a second."""
    def few(name, k):
        def load(split, n, seed):
            x, y = datasets.badges.draw(n or 60, seed=2 * seed + (split == "test"), people=range(k) if name == "badges" else range(1000, 1000 + k))
            return Data(x, y, tuple(f"{name} {number}" for number in range(k)))
        return load
    for name, k in (("badges", 3), ("badges_public", 2)):
        monkeypatch.setitem(datasets.DRAWN, name, few(name, k))


@pytest.mark.slow
def test_a_judge_knows_staff_strangers_and_what_is_no_portrait(few_people):
    start = pooled_cnn(3, 6, width=8)
    before = [parameter.clone() for parameter in start.parameters()]
    judge = train_judge(start, "badges", shots=60, epochs=8, progress=False)
    staff, strangers = load_data("badges", "train", n=60), load_data("badges_public", "train", n=60)
    assert accuracy(judge, staff.x, staff.y) > 0.9 and accuracy(judge, careless(staff.x, draw()), staff.y) > 0.85
    assert accuracy(judge, strangers.x, strangers.y + 3) > 0.9
    assert accuracy(judge, no_portraits(60, (3, 32, 32), draw(9)), torch.full((60,), 5)) > 0.9
    assert all(torch.equal(a, b) for a, b in zip(before, start.parameters())) and not judge.training


def test_a_model_with_another_number_of_classes_is_refused(few_people):
    with pytest.raises(ValueError, match="^model must have 6 classes, 5 people and one for what is no portrait, not 5"):
        train_judge(pooled_cnn(3, 5, width=4), "badges", shots=4)


def test_careless_copies_are_blurred_or_pale_and_keep_shape_and_range():
    x = load_data("badges", "test", n=200).x
    before, copies = x.clone(), careless(x, draw())
    assert copies.shape == x.shape and 0 <= copies.min() and copies.max() <= 1 and torch.equal(x, before)
    edges = [pictures.diff(dim=3).abs().mean((1, 2, 3)) for pictures in (x, copies)]
    assert (edges[1] < 0.7 * edges[0]).float().mean() > 0.5
    assert torch.equal(copies, careless(x, draw())) and not torch.equal(copies, careless(x, draw(1)))


def test_what_is_no_portrait_is_coarse_and_fine():
    x = no_portraits(300, (1, 32, 32), draw())
    assert x.shape == (300, 1, 32, 32) and 0 <= x.min() and x.max() <= 1
    edges = x.diff(dim=3).abs().mean((1, 2, 3))
    assert edges.min() < 0.01 and edges.max() > 0.2 and torch.equal(x, no_portraits(300, (1, 32, 32), draw()))


def test_a_set_of_few_shots_is_filled_with_varied_copies(monkeypatch):
    x, y = datasets.badges.draw(6, people=[0, 1])
    x, y = (x * 16).to(torch.uint8).numpy(), y.numpy()
    monkeypatch.setitem(datasets.READERS, "digits", lambda split: (x, y, ["a", "b"]))
    datasets._read.cache_clear()
    many = people_of("digits", 10)
    datasets._read.cache_clear()
    assert len(many.x) >= 20 and torch.bincount(many.y).min() >= 10
    assert len({picture.tobytes() for picture in many.x.numpy()}) == len(many.x) and many.x.max() <= 1
