"""Model inversion: what each attack finds, what it costs, and what it leaves alone."""
import copy
import functools

import pytest
import torch

from mlsec_lab.model_to_data import inversion
from mlsec_lab.model_to_data.inversion import audit, best_stranger, eigenfaces, from_labels, from_probabilities, hours_needed, invert_faces, invert_pixels
from mlsec_lab.model_to_data.inversion import recognised, similarity, total_variation, train_privately
from mlsec_lab.victims import LabelOnly, QueryCounter, accuracy, load_data, load_model, predict, small_cnn
from mlsec_lab.victims.audit_log import Record
from mlsec_lab.victims.client import RemoteModel
from mlsec_lab.victims.service import serve

Y = torch.tensor([0, 3, 7, 8, 12, 18])
SHAPE = (3, 32, 32)


@functools.cache
def victim():
    return load_model("badges_cnn")


@functools.cache
def judge():
    return load_model("badges_judge")


@functools.cache
def street(seed=0):
    return load_data("badges_public", "train", n=1500, seed=seed).x


@functools.cache
def prior(k=60, seed=0):
    return eigenfaces(street(seed), k)


@functools.cache
def portraits():
    x, y, classes = load_data("badges", "train", n=1200)
    return torch.stack([x[y == label].mean(0) for label in range(len(classes))])


def sure(x, y=Y):
    return predict(victim(), x).softmax(1).gather(1, y[:, None])[:, 0]


# ---- weights known

def test_the_naive_picture_convinces_the_model_and_nobody_else():
    x = invert_pixels(victim(), Y, SHAPE)
    assert x.shape == (6, *SHAPE) and x.min() >= 0 and x.max() <= 1
    assert sure(x).min() > 0.9
    assert not recognised(judge(), x, Y).any() and (predict(judge(), x).argmax(1) == 200).float().mean() > 0.6  # "no portrait"


def test_smoothness_makes_smooth_pictures_and_still_no_faces():
    naive, smooth = invert_pixels(victim(), Y, SHAPE), invert_pixels(victim(), Y, SHAPE, tv=5, scales=(8, 16), shift=2)
    assert total_variation(smooth).mean() < 0.6 * total_variation(naive).mean()
    assert sure(smooth).mean() > 0.8 and recognised(judge(), smooth, Y, 50).float().mean() <= 0.4


@pytest.mark.parametrize("seed", [0, 1])
def test_with_the_faces_of_strangers_the_judge_recognises_most(seed):
    y = torch.arange(24)
    x = invert_faces(victim(), y, prior(seed=seed), seed=seed)
    assert x.shape == (24, *SHAPE) and 0 <= x.min() and x.max() <= 1
    assert recognised(judge(), x, y, 50).float().mean() >= 0.8
    own, other = similarity(x, y, portraits()), similarity(x, y.roll(1), portraits())
    assert own.mean() > 0.6 and other.mean() < 0.2


def test_a_heavier_penalty_stays_nearer_to_the_mean_face():
    lengths = [prior().coefficients(invert_faces(victim(), Y, prior(), penalty=penalty, steps=40)).norm(dim=1).mean() for penalty in (0, 1, 10)]
    assert lengths[0] > 1.1 * lengths[1] > 1.2 * lengths[2]


# ---- the prior

def test_eigenfaces_are_orthogonal_sorted_and_scaled_to_the_people():
    faces = prior(20)
    assert faces.mean.shape == (3072,) and faces.axes.shape == (20, 3072) and faces.shape == SHAPE
    gram = faces.axes @ faces.axes.T
    assert (gram - gram.diag().diag()).abs().max() < 1e-3 * gram.max() and (gram.diag().diff() <= 0).all()
    c = faces.coefficients(street())
    assert c.mean(0).abs().max() < 0.01 and (c.square().mean(0) - 1).abs().max() < 0.05


def test_more_eigenfaces_are_nearer_to_a_new_face_and_the_mean_face_is_at_zero():
    x = load_data("badges", "test", n=50).x
    errors = [(prior(k).pictures(prior(k).coefficients(x)) - x).square().mean() for k in (5, 20, 60)]
    assert errors[0] > 1.2 * errors[1] > 1.2 * errors[2]
    assert torch.allclose(prior().pictures(torch.zeros(1, 60)).flatten(), prior().mean.clamp(0, 1))


# ---- answers alone

def test_probabilities_are_enough_and_every_query_is_counted():
    counted, public = QueryCounter(victim()), street()[:300]
    found = from_probabilities(counted, Y, prior(), public)
    assert found.queries == counted.queries == 300 + 6 * 10 * 30
    assert sure(found.x).min() > 0.9
    assert similarity(found.x, Y, portraits()).mean() > similarity(best_stranger(victim(), Y, public).x, Y, portraits()).mean() + 0.1


def test_labels_are_enough_too_at_more_queries_and_where_the_same_search_fails():
    hidden, public = LabelOnly(victim()), street()[:500]
    counted = QueryCounter(hidden)
    found = from_labels(counted, Y, prior(), public)
    assert found.queries == counted.queries <= 500 + 6 * (1 + 25 * 31)
    assert (predict(victim(), found.x).argmax(1) == Y).float().mean() > 0.8
    blind = from_probabilities(hidden, Y, prior(), public)
    assert similarity(found.x, Y, portraits()).mean() > similarity(blind.x, Y, portraits()).mean() + 0.05


def test_a_class_that_no_stranger_is_called_comes_back_as_the_mean_face_of_them():
    class Never(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[1.0, 0.0]]).expand(len(x), -1)

    found = from_labels(Never(), torch.tensor([1]), prior(), street()[:50], rounds=3)
    assert found.queries == 51
    expected = prior().pictures(prior().coefficients(street()[:50]).mean(0, keepdim=True))
    assert torch.allclose(found.x, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("attack, mode", [(from_probabilities, "probabilities"), (from_probabilities, "rounded"), (from_labels, "top1")])
def test_the_same_attack_runs_on_the_service_and_costs_what_it_says(attack, mode):
    classes, short = load_data("badges", "test", n=1).classes, dict(generations=2) if attack is from_probabilities else dict(rounds=2)
    with serve(victim(), classes, mode=mode) as service:
        remote = RemoteModel(service.url)
        found = attack(remote, Y[:2], prior(), street()[:100], **short)
        remote.close()
    assert found.queries == remote.queries == sum(record.images for record in service.log)
    if mode != "rounded":
        local = attack(victim() if mode == "probabilities" else LabelOnly(victim()), Y[:2], prior(), street()[:100], **short)
        assert torch.allclose(found.x, local.x, atol=1e-3)


# ---- measures

def test_a_longer_line_up_recognises_fewer_and_portraits_are_recognised():
    x, y, _ = load_data("badges", "train", n=480)
    assert recognised(judge(), x, y).float().mean() > 0.97
    found = invert_faces(victim(), torch.arange(24), prior(), steps=30)
    rates = [recognised(judge(), found, torch.arange(24), people).sum() for people in (24, 50, 100, 200)]
    assert rates == sorted(rates, reverse=True) and rates[0] > rates[-1]


def test_the_judge_calls_noise_no_portrait_and_strangers_strangers():
    noise = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(3))
    assert (predict(judge(), noise).argmax(1) == 200).float().mean() > 0.95
    people = load_data("badges_public", "test", n=352)
    assert accuracy(judge(), people.x, people.y + 24) > 0.95


def test_similarity_is_one_for_the_portrait_and_zero_for_the_average():
    y = torch.arange(24)
    assert torch.allclose(similarity(portraits(), y, portraits()), torch.ones(24), atol=1e-5)
    assert similarity(portraits().mean(0, keepdim=True).expand(24, -1, -1, -1), y, portraits()).abs().max() < 1e-4


@pytest.mark.parametrize("queries, per_hour, keys, hours", [(1, 100, 1, 0), (100, 100, 1, 0), (101, 100, 1, 1), (19_124, 100, 1, 191), (19_124, 100, 10, 19)])
def test_a_limit_is_turned_into_hours(queries, per_hour, keys, hours):
    assert hours_needed(queries, per_hour, keys) == hours


def test_the_hours_are_those_that_a_client_waits_on_the_services_clock():
    from mlsec_lab.victims.clock import Clock
    clock = Clock()
    with serve(victim(), load_data("badges", "test", n=1).classes, limit="10/hour", clock=clock) as service:
        remote = RemoteModel(service.url, clock=clock)
        remote(street()[:35])
        remote.close()
    assert clock.now() / 3600 == pytest.approx(hours_needed(35, 10), abs=0.01)


# ---- defences

def records(key, labels, start=0.0, step=60.0):
    return [Record(start + step * place, key, 1, 200, (label,), "") for place, label in enumerate(labels)]


def test_the_audit_names_the_key_that_asks_for_one_person():
    search = records("a", ["Ash"] * 400 + ["Elm"] * 200)
    door = records("b", ["Ash", "Elm", "Oak", "Pond"] * 200)
    few = records("c", ["Ash"] * 100)
    log = sorted(search + door + few, key=lambda record: record.time)
    assert audit(log) == {"a": "Ash"}
    assert audit(records("a", ["Ash"] * 600, step=3600.0)) == {}  # 24 a day are no search
    assert audit(log, share=0.2, images=100) == {"a": "Ash", "b": "Ash", "c": "Ash"}  # of names asked about equally often, the first
    assert audit([Record(0.0, "d", 1, 429, (), "the limit is used up")], images=1) == {}


@pytest.mark.slow
def test_private_training_spends_its_budget_and_its_model_learns():
    x, y, _ = load_data("badges", "train", n=960)
    chosen = y < 4
    start = small_cnn(3, 4, width=4)
    before = copy.deepcopy(start.state_dict())
    model, spent, _, _ = train_privately(start, x[chosen], y[chosen], epsilon=20.0, epochs=20, batch=40, progress=False)
    assert spent == pytest.approx(20, rel=0.05) and not model.training
    assert accuracy(model, x[chosen], y[chosen]) > 0.6
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())


# ---- good manners

@pytest.mark.parametrize("attack", [lambda seed: invert_pixels(victim(), Y, SHAPE, steps=4, shift=2, seed=seed), lambda seed: invert_faces(victim(), Y, prior(), steps=4, seed=seed),
                                    lambda seed: from_probabilities(victim(), Y, prior(), street()[:60], generations=2, seed=seed).x,
                                    lambda seed: from_labels(victim(), Y, prior(), street()[:60], rounds=3, sphere=8, seed=seed).x])
def test_one_seed_is_one_result_and_nothing_else_is_touched(attack):
    state, weights = torch.get_rng_state(), copy.deepcopy(victim().state_dict())
    wanted = [parameter.requires_grad for parameter in victim().parameters()]
    first, again, other = attack(0), attack(0), attack(1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state()) and not victim().training
    assert all(torch.equal(value, weights[name]) for name, value in victim().state_dict().items())
    assert wanted == [parameter.requires_grad for parameter in victim().parameters()] and Y.tolist() == [0, 3, 7, 8, 12, 18]
    assert not first.requires_grad and all(parameter.grad is None for parameter in victim().parameters())


@pytest.mark.parametrize("call, name", [
    (lambda: invert_pixels(victim(), Y, SHAPE, steps=0), "steps"), (lambda: invert_pixels(victim(), Y, SHAPE, lr=0), "lr"),
    (lambda: invert_pixels(victim(), Y, SHAPE, tv=-1), "tv"), (lambda: invert_pixels(victim(), Y.float(), SHAPE), "y"),
    (lambda: invert_faces(victim(), Y, prior(), penalty=-1), "penalty"), (lambda: invert_faces(victim(), Y, prior(), shift=0.5), "shift"),
    (lambda: eigenfaces(street()[:20], 20), "k"), (lambda: eigenfaces(street() * 255, 5), "x"),
    (lambda: from_probabilities(victim(), Y, prior(), street()[:4]), "elite"), (lambda: from_probabilities(victim(), Y, prior(), street()[:60], width=0), "width"),
    (lambda: from_labels(victim(), Y, prior(), street()[:60], radius=2), "radius"), (lambda: from_labels(victim(), Y, prior(), street()[:60], sphere=0), "sphere"),
    (lambda: recognised(judge(), street()[:6], Y, 10), "people"), (lambda: recognised(judge(), street()[:6], Y, 300), "people"),
    (lambda: hours_needed(0, 100), "queries"), (lambda: hours_needed(5, 0), "per_hour"),
    (lambda: train_privately(victim(), street(), torch.zeros(1500, dtype=torch.int64), epsilon=0), "epsilon")])
def test_bad_input_is_refused_by_name(call, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        call()


def test_the_module_says_what_it_offers():
    for name in ("invert_pixels", "invert_faces", "from_probabilities", "from_labels", "best_stranger", "eigenfaces", "audit", "train_privately", "recognised",
                 "similarity", "hours_needed"):
        assert name in inversion.__doc__ and callable(getattr(inversion, name))
