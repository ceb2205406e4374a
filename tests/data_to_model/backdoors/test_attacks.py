"""The ten attacks: what each does to images and labels, and what a network learns from it."""
import pytest
import torch

from mlsec_lab.data_to_model.backdoors import ATTACKS, AdaptiveBlend, AdvCleanLabel, BadNets, Refool, WaNet, attack_success_rate
from mlsec_lab.victims import accuracy, load_data, load_model, pooled_cnn

pytestmark = pytest.mark.xdist_group("backdoors")  # one process trains what the folder's tests share


@pytest.fixture(scope="module")
def data():
    x, y, _ = load_data("signs", "train", n=600)
    return x, y


@pytest.fixture(scope="module")
def attacks():
    return {name: attack(target=3, model=load_model("signs_cnn")) if attack is AdvCleanLabel else attack(target=3) for name, attack in ATTACKS.items()}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_stamp_is_visible_keeps_to_the_range_and_is_always_the_same(attacks, data, name):
    x = data[0][:20]
    before = x.clone()
    stamped = attacks[name].stamp(x)
    assert stamped.shape == x.shape and stamped.dtype == torch.float32
    assert 0 <= stamped.min() and stamped.max() <= 1
    assert torch.equal(x, before)
    assert (stamped != x).flatten(1).any(1).all()
    assert torch.equal(stamped, attacks[name].stamp(x)), "the trigger that the attacker shows does not vary"
    assert torch.allclose(attacks[name].stamp(x[:1]), stamped[:1], atol=1e-6), "nor does it depend on the other images"


@pytest.mark.parametrize("name", ATTACKS)
def test_poisoning_touches_so_many_images_and_says_which(attacks, data, name):
    x, y = data
    before_x, before_y, state = x.clone(), y.clone(), torch.get_rng_state()
    bad = attacks[name].poison(x, y, 30, seed=4)
    assert torch.equal(x, before_x) and torch.equal(y, before_y) and torch.equal(torch.get_rng_state(), state)
    touched = set(bad.poisons.tolist()) | set(bad.covers.tolist())
    assert len(touched) == 30 == len(bad.poisons) + len(bad.covers)
    changed = set((bad.x != x).flatten(1).any(1).nonzero().flatten().tolist())
    assert changed == touched
    assert (bad.y[bad.poisons] == 3).all()
    assert torch.equal(bad.y[bad.covers], y[bad.covers]) and (y[bad.covers] != 3).all()
    assert set((bad.y != y).nonzero().flatten().tolist()) <= set(bad.poisons.tolist())
    assert bad.x.min() >= 0 and bad.x.max() <= 1


@pytest.mark.parametrize("name", ATTACKS)
def test_which_images_are_touched_goes_by_the_seed_alone(attacks, data, name):
    one, again, other = (attacks[name].poison(*data, 12, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.x, again.x) and torch.equal(one.poisons, again.poisons)
    assert not torch.equal(one.poisons.sort().values, other.poisons.sort().values)


def test_clean_label_attacks_change_no_label_and_touch_only_the_target(attacks, data):
    x, y = data
    for name in ("refool", "adv_clean_label"):
        bad = attacks[name].poison(x, y, 20)
        assert torch.equal(bad.y, y)
        assert (y[bad.poisons] == 3).all() and not len(bad.covers)


def test_the_others_take_their_poisons_from_other_classes(attacks, data):
    x, y = data
    for name in set(ATTACKS) - {"refool", "adv_clean_label"}:
        assert (y[attacks[name].poison(x, y, 40).poisons] != 3).all()


def test_some_of_what_the_adaptive_attacks_and_wanet_touch_keeps_its_label(attacks, data):
    for name, covers in (("adaptive_blend", 20), ("adaptive_patch", 20), ("wanet", 8)):
        bad = attacks[name].poison(*data, 40)
        assert (len(bad.covers), len(bad.poisons)) == (covers, 40 - covers)


def test_what_training_sees_of_an_adaptive_trigger_is_less_than_the_trigger(attacks, data):
    x, y = data
    for name in ("adaptive_blend", "adaptive_patch", "tsb"):
        bad = attacks[name].poison(x, y, 40)
        in_training = (bad.x[bad.poisons] != x[bad.poisons]).any(1).float().mean()
        at_test = (attacks[name].stamp(x[bad.poisons]) != x[bad.poisons]).any(1).float().mean()
        assert in_training < 0.8 * at_test


def test_a_patch_covers_nine_pixels_and_nothing_else(data):
    x = data[0][:10]
    change = (BadNets(size=3).stamp(x) != x).any(1)
    assert change[:, 3:, :].sum() == change[:, :, 3:].sum() == 0


def test_a_warp_moves_the_picture_and_keeps_its_colours(data):
    x = data[0][:50]
    warped = WaNet().stamp(x)
    assert (warped - x).abs().mean() > 0.005
    assert torch.allclose(warped.mean((2, 3)), x.mean((2, 3)), atol=0.08)


@pytest.mark.parametrize("arguments, words", [
    (dict(target=-1), "target must be at least 0"), (dict(size=0), "size must be at least 1"), (dict(alpha=1.5), "alpha must be at most 1"),
    (dict(alpha=float("nan")), "alpha"), (dict(seed=0.5), "seed must be a whole number")])
def test_bad_settings_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        BadNets(**arguments)


def test_a_trigger_larger_than_the_image_is_refused(data):
    x, y = data
    with pytest.raises(ValueError, match="size must be at most 32, the side of the images, not 40"):
        BadNets(size=40).stamp(x[:2])
    for name in ("adaptive_patch", "tsb", "adv_clean_label"):
        attack = AdvCleanLabel(model=load_model("signs_cnn"), size=40) if name == "adv_clean_label" else ATTACKS[name](size=40)
        with pytest.raises(ValueError, match="size must be at most 32"):
            attack.poison(x, y, 2)


def test_a_target_that_does_not_exist_and_counts_out_of_range_are_refused(data):
    x, y = data
    with pytest.raises(ValueError, match="target is 12, but no image of y has that class"):
        BadNets(target=12).poison(x, y, 3)
    with pytest.raises(ValueError, match="count must be at most"):
        BadNets().poison(x, y, 601)
    with pytest.raises(ValueError, match="count must be at most .* the images of the target class"):
        Refool().poison(x, y, 400)
    with pytest.raises(ValueError, match="count must be at least 0"):
        BadNets().poison(x, y, -1)
    with pytest.raises(ValueError, match="count must be a whole number"):
        BadNets().poison(x, y, 0.5)
    with pytest.raises(ValueError, match="other classes than the target"):
        attack_success_rate(load_model("signs_cnn"), BadNets(target=3), x[y == 3], y[y == 3])


def test_no_poisons_leave_the_data_as_they_are(data):
    x, y = data
    for attack in (BadNets(), AdaptiveBlend(), Refool(), WaNet()):
        bad = attack.poison(x, y, 0)
        assert torch.equal(bad.x, x) and torch.equal(bad.y, y) and not len(bad.poisons)


@pytest.mark.slow
def test_a_badnets_backdoor_is_learnt_and_the_clean_task_too(attack, backdoored, clean, test_set):
    assert attack_success_rate(clean, attack, *test_set) < 0.1 < 0.8 < attack_success_rate(backdoored, attack, *test_set)
    assert accuracy(backdoored, *test_set) > accuracy(clean, *test_set) - 0.04


@pytest.mark.slow
@pytest.mark.parametrize("name", ["latent", "pcb"])
def test_an_attacker_who_owns_the_training_changes_no_argument(name):
    x, y, _ = load_data("signs", "train", n=600)
    fresh = pooled_cnn(width=4)
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    attack = ATTACKS[name]()
    models = [attack.implant(fresh, x, y, 40, seed=seed, epochs=1, progress=False) for seed in (0, 0)]
    assert all(torch.equal(value, before[key]) for key, value in fresh.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(models[0].state_dict().values(), models[1].state_dict().values()))
    assert not models[0].training and all(p.requires_grad and p.grad is None for p in models[0].parameters())
    untouched = attack.implant(fresh, x, y, 0, epochs=1, progress=False)
    assert not all(torch.equal(a, b) for a, b in zip(models[0].state_dict().values(), untouched.state_dict().values()))
