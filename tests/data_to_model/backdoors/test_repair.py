"""The repairs: what they leave of a backdoor and of the clean task, and what is refused."""
import pytest
import torch
from torch import nn

from mlsec_lab.data_to_model.backdoors import (
    REPAIRS, Checkpoint, attack_success_rate, check_trusted, fine_pruning, fine_tuning, half_mixed, lowest_asr, pivotal_tuning,
    repair_course, tune, turned_features)
from mlsec_lab.victims import accuracy, pooled_cnn

pytestmark = pytest.mark.xdist_group("backdoors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pivotal tuning", "fine-tuning", "fine-pruning"])
def test_a_repair_takes_the_backdoor_out_and_leaves_most_of_the_rest(name, backdoored, attack, trusted, test_set):
    before = attack_success_rate(backdoored, attack, *test_set)
    repaired = REPAIRS[name](backdoored, *trusted, progress=False)
    assert before > 0.9
    assert attack_success_rate(repaired, attack, *test_set) < 0.4
    assert accuracy(repaired, *test_set) > accuracy(backdoored, *test_set) - 0.12


@pytest.mark.parametrize("name", REPAIRS)
def test_a_repair_is_a_copy_decided_by_its_seed(name, trusted):
    model = pooled_cnn(width=4)
    model[1].weight.requires_grad_(True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    one, again, other = (REPAIRS[name](model, *trusted, steps=3, seed=seed, progress=False).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, again[key]) for key, value in one.items())
    assert not all(torch.equal(value, other[key]) for key, value in one.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training and all(p.grad is None and p.requires_grad for p in model.parameters())


def test_watch_sees_the_model_on_its_way(trusted):
    seen = []
    fine_tuning(pooled_cnn(width=4), *trusted, steps=9, every=3, watch=lambda model: seen.append(model[1].weight.detach().clone()), progress=False)
    assert len(seen) == 3 and not torch.equal(seen[0], seen[1])


def test_one_step_is_enough_to_ask_for(trusted):
    assert fine_tuning(pooled_cnn(width=4), *trusted, steps=1, progress=False) is not None


def test_staying_near_the_pivot_keeps_the_weights_there(trusted):
    model = pooled_cnn(width=4)

    def moved(**arguments):
        tuned = pivotal_tuning(model, *trusted, steps=40, progress=False, **arguments)
        return sum((a - b).square().sum() for a, b in zip(tuned.parameters(), model.parameters())).item()

    assert moved(stay=10.0) < 0.5 * moved(stay=0.0)


def test_turning_away_lowers_what_it_says_it_lowers(trusted):
    model = pooled_cnn(width=4)
    x, y = trusted
    features = lambda net: net[:-1](x).detach()  # noqa: E731
    turned, straight = (pivotal_tuning(model, x, y, steps=60, turn=turn, agree=0.0, progress=False) for turn in (5.0, 0.0))
    assert turned_features(features(turned), features(model), y) < 0.7 * turned_features(features(straight), features(model), y)


def test_features_count_one_where_they_have_not_turned_and_nothing_where_they_turned_by_a_right_angle():
    y = torch.arange(4).repeat(5)
    z = torch.cat([torch.eye(4), torch.zeros(4, 4)], 1)[y]
    assert turned_features(z, z, y) == pytest.approx(1, abs=1e-5)
    assert turned_features(-3 * z + 1, z, y) == pytest.approx(1, abs=1e-5), "a half turn is none: the trigger would go along"
    assert turned_features(z.roll(4, 1), z, y) == pytest.approx(0, abs=1e-5)
    assert turned_features(z[:1], z[:1], y[:1]) == 0, "a single class has no direction"


def test_half_of_a_batch_is_mixed_and_keeps_more_of_itself_than_of_the_other(trusted):
    x = torch.arange(6.0)[:, None, None, None].expand(6, 3, 4, 4) / 5
    mixed = half_mixed(x, torch.Generator().manual_seed(0))
    assert torch.equal(mixed[3:], x[3:]) and not torch.equal(mixed[:3], x[:3])
    assert ((mixed[:3] - x[:3]).abs() <= (mixed[:3] - x.flip(0)[:3]).abs() + 1e-6).all()
    assert half_mixed(x[:1], torch.Generator()).shape == (1, 3, 4, 4)


def test_the_loop_takes_any_loss(trusted):
    model = pooled_cnn(width=4)
    shrunk = tune(model, *trusted, lambda net, x, y: sum(w.square().sum() for w in net.parameters()), steps=30, lr=0.05, progress=False)
    assert shrunk[1].weight.norm() < 0.5 * model[1].weight.norm()


@pytest.mark.slow
def test_fine_pruning_switches_channels_off_for_good(backdoored, trusted):
    pruned = fine_pruning(backdoored, *trusted, steps=5, progress=False)
    last = [module for module in pruned.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    original = [module for module in backdoored.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    assert (last.weight == 0).sum() >= 1 and torch.equal(last.weight == 0, last.bias == 0)
    assert (original.weight != 0).all()


def test_the_course_of_a_repair_begins_with_the_model_as_it_came(backdoored, attack, trusted, test_set):
    course, repaired = repair_course(fine_tuning, backdoored, *trusted, attack, *test_set, steps=4, every=2, progress=False)
    assert [point.step for point in course] == [0, 2, 4]
    assert course[0].accuracy == accuracy(backdoored, *test_set) and course[0].asr == attack_success_rate(backdoored, attack, *test_set)
    assert course[-1].accuracy == accuracy(repaired, *test_set)
    assert 0 <= course[0].seconds <= course[1].seconds <= course[2].seconds


def test_the_lowest_asr_counts_only_checkpoints_that_kept_the_accuracy():
    course = [(0.97, 1.0), (0.96, 0.4), (0.94, 0.0), (0.90, 0.0)]
    assert lowest_asr(course, 0.02) == 0.4
    assert lowest_asr(course, 0.04) == 0.0
    assert lowest_asr(course, 0.0) == 1.0
    assert lowest_asr([Checkpoint(0, 0.9, 0.7, 0.0)]) == 0.7
    with pytest.raises(ValueError, match="at least one checkpoint"):
        lowest_asr([])
    with pytest.raises(ValueError, match="delta must be at least 0"):
        lowest_asr(course, -0.1)


def test_trusted_images_that_lack_a_class_are_refused(trusted):
    x, y = trusted
    model = pooled_cnn(width=4)
    for repair in REPAIRS.values():
        with pytest.raises(ValueError, match=r"none of \[3, 7\]"):
            repair(model, x[(y != 3) & (y != 7)], y[(y != 3) & (y != 7)], steps=1, progress=False)
    with pytest.raises(ValueError, match="empty"):
        check_trusted(model, x[:0], y[:0])
    with pytest.raises(ValueError, match="y must hold classes from 0 to 11"):
        check_trusted(model, x, y + 1)


@pytest.mark.parametrize("arguments, words", [(dict(steps=0), "steps must be at least 1"), (dict(lr=0), "lr must be greater than 0"),
                                              (dict(batch=0), "batch must be at least 1"), (dict(stay=-1), "stay must be at least 0"),
                                              (dict(agree=-1), "agree must be at least 0")])
def test_bad_settings_are_refused(trusted, arguments, words):
    with pytest.raises(ValueError, match=words):
        pivotal_tuning(pooled_cnn(width=4), *trusted, progress=False, **arguments)


def test_a_model_without_batch_normalisation_cannot_be_pruned(trusted):
    bare = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 12)).eval()
    with pytest.raises(ValueError, match="model must have batch normalisation"):
        fine_pruning(bare, *trusted, steps=1, progress=False)
