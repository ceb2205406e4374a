"""Theft: what a copy learns from answers, what is chosen to ask, which callers stand out, and what a watermark proves."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlsec_lab.model_to_model import theft
from mlsec_lab.model_to_model.theft import (QueryMonitor, active_knockoff, agreement, answering, as_scores, embed, imitate, jacobian_queries, k_center,
                                            knockoff, nearest_distances, normality, p_value, strangeness, trigger_set)
from mlsec_lab.victims import load_data, load_model, predict, small_cnn
from mlsec_lab.victims.client import RemoteModel, ServiceError
from mlsec_lab.victims.clock import Clock
from mlsec_lab.victims.service import serve


@pytest.fixture(scope="module")
def victim():
    return load_model("signs_cnn")


@pytest.fixture(scope="module")
def pictures():
    x, _, _ = load_data("signs", "test", n=1500, seed=3)
    return (x * 255).round() / 255


@pytest.fixture(scope="module")
def start():
    return small_cnn(width=6, seed=4)


@pytest.fixture(scope="module")
def copied(victim, pictures, start):
    return knockoff(answering(victim), pictures[:400], start, epochs=12, progress=False)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.state_dict().values() if p.is_floating_point()])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["probabilities", "rounded", "top1"])
def test_a_local_answer_is_what_a_remote_model_hears(victim, pictures, mode):
    with serve(victim, [str(k) for k in range(12)], mode=mode) as service:
        remote = RemoteModel(service.url, dtype="uint8")
        heard, local = remote(pictures[:80]), answering(victim, mode)(pictures[:80])
        remote.close()
    assert torch.allclose(heard, local, atol=1e-3, rtol=1e-3)
    assert torch.equal(local.argmax(1), predict(victim, pictures[:80]).argmax(1))
    assert remote.queries == 80


def test_labels_become_sure_scores_and_other_answers_stay():
    labels = F.one_hot(torch.tensor([2, 0]), 4).float()
    sure = as_scores(labels)
    assert torch.allclose((sure / 3).softmax(1), labels, atol=1e-9)
    scores = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(as_scores(scores), scores)


@pytest.mark.slow
def test_a_knockoff_from_signs_agrees_and_one_from_noise_does_not(victim, pictures, start, copied):
    ask, held_out = answering(victim), pictures[1000:]
    noisy = knockoff(ask, theft.random_noise(400), start, epochs=4, progress=False)
    assert agreement(copied, ask, held_out) > 0.5 > 0.25 > agreement(noisy, ask, held_out)
    assert agreement(victim, ask, held_out) == 1


@pytest.mark.slow
def test_a_knockoff_asks_once_about_each_image_over_a_real_wire_and_waits_for_its_limit(victim, pictures, start):
    clock = Clock()
    with serve(victim, [str(k) for k in range(12)], limit="50/hour", clock=clock) as service:
        remote = RemoteModel(service.url, dtype="uint8", clock=clock)
        over_the_wire = knockoff(remote, pictures[:120], start, epochs=2, progress=False)
        remote.close()
    here = knockoff(answering(victim), pictures[:120], start, epochs=2, progress=False)
    assert remote.queries == 120 and clock.now() == 2 * 3600
    assert agreement(over_the_wire, answering(here), pictures[:200]) > 0.9


def test_copying_is_decided_by_the_seed_and_leaves_its_arguments_alone(victim, pictures, start):
    answers, before, kept = answering(victim)(pictures[:60]), weights(start), pictures[:60].clone()
    state = torch.get_rng_state()
    first, again, other = (imitate(start, pictures[:60], answers, epochs=1, seed=seed, progress=False) for seed in (1, 1, 2))
    assert torch.equal(weights(first), weights(again)) and not torch.equal(weights(first), weights(other))
    assert torch.equal(weights(start), before) and torch.equal(pictures[:60], kept) and torch.equal(torch.get_rng_state(), state)
    assert not first.training and not start.training and all(p.requires_grad and p.grad is None for p in first.parameters())


def test_another_step_may_do_the_learning(victim, pictures, start):
    seen = []

    def step(model, optimizer, x, answers, temperature):
        seen.append((len(x), answers.shape, temperature))
        optimizer.step()  # there are no gradients: it changes nothing
        return 0.5

    same = imitate(start, pictures[:70], answering(victim)(pictures[:70]), step=step, epochs=1, temperature=2.5, progress=False)
    assert seen == [(64, (64, 12), 2.5), (6, (6, 12), 2.5)] and torch.equal(weights(same), weights(start))


@pytest.mark.parametrize("arguments, message", [
    (dict(temperature=0), "temperature must be greater than 0"), (dict(epochs=0), "epochs must be at least 1"), (dict(batch=1), "batch must be at least 2"),
    (dict(lr=-1), "lr must be greater than 0"), (dict(shift=-1), "shift must be at least 0")])
def test_copying_refuses_arguments_that_make_no_sense(start, pictures, arguments, message):
    with pytest.raises(ValueError, match=message):
        imitate(start, pictures[:4], torch.zeros(4, 12), **arguments)


def test_copying_refuses_answers_that_do_not_fit(start, pictures):
    with pytest.raises(ValueError, match=r"answers must be a tensor \[4, 12\]"):
        imitate(start, pictures[:4], torch.zeros(4, 11))
    with pytest.raises(ValueError, match="at least 2 images"):
        knockoff(lambda x: torch.zeros(len(x), 12), pictures[:1], start)
    with pytest.raises(ValueError, match="mode must be one of"):
        answering(start, "logits")


@pytest.mark.parametrize("make", [theft.random_noise, theft.coloured_digits, theft.photograph_pieces])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_queries_are_pictures_that_the_seed_decides(make, shape):
    x, again, other = make(20, shape, seed=1), make(20, shape, seed=1), make(20, shape, seed=2)
    assert x.shape == (20, *shape) and x.dtype == torch.float32 and 0 <= x.min() and x.max() <= 1
    assert torch.equal(x, again) and not torch.equal(x, other)
    assert len({image.numpy().tobytes() for image in x}) == 20


def test_k_center_takes_the_furthest_each_time_and_nothing_twice():
    features = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([5, 9])
    new = k_center(features, chosen, 20)
    assert len(set(new.tolist()) | {5, 9}) == 22
    for k in range(20):
        left = torch.cdist(features, features[torch.cat([chosen, new[:k]])]).amin(1)
        assert left[new[k]] > left.max() - 1e-4
    assert len(k_center(features, chosen, 58)) == 58
    doubles = torch.zeros(5, 3)
    assert sorted(k_center(doubles, torch.tensor([2]), 4).tolist()) == [0, 1, 3, 4]
    for count, some in ((59, chosen), (1, chosen[:0])):
        with pytest.raises(ValueError, match="chosen must hold"):
            k_center(features, some, count)


@pytest.mark.slow
def test_an_active_thief_asks_within_the_budget_and_finds_the_signs_in_a_heap(victim, pictures, start):
    heap, asked = torch.cat([pictures[:200], theft.coloured_digits(800)]), []

    def ask(x):
        asked.append(len(x))
        return answering(victim)(x)

    model, rows = active_knockoff(ask, heap, start, budget=160, first=60, rounds=2, epochs=10, seed=1, progress=False)
    assert asked == [60, 50, 50] and len(set(rows.tolist())) == 160 and not model.training
    assert (rows[60:] < 200).float().mean() > 0.3  # by chance 0.2
    with pytest.raises(ValueError, match="budget must be at most 1000"):
        active_knockoff(ask, heap, start, budget=2000)


def test_jacobian_queries_make_the_copy_surer_of_the_label_they_had(copied, pictures):
    x, labels = pictures[:40], predict(copied, pictures[:40]).argmax(1)
    before = pictures[:40].clone()
    moved = jacobian_queries(copied, x, labels, step=0.05)
    gained = (predict(copied, moved) - predict(copied, x)).gather(1, labels[:, None])
    assert (moved - x).abs().max() <= 0.05 + 1e-6 and 0 <= moved.min() and moved.max() <= 1 and gained.mean() > 0.5
    assert torch.equal(jacobian_queries(copied, x, labels, step=0), x) and torch.equal(x, before)
    assert all(p.grad is None for p in copied.parameters())


def test_distances_are_to_the_nearest_earlier_query_with_the_same_answer():
    generator = torch.Generator().manual_seed(1)
    x, labels = torch.rand(40, 3, 5, 5, generator=generator), torch.randint(4, (40,), generator=generator)
    slow = [min(float((x[k] - x[j]).norm()) for j in range(k) if labels[j] == labels[k]) for k in range(40) if (labels[:k] == labels[k]).any()]
    assert torch.allclose(nearest_distances(x, labels), torch.tensor(slow), atol=1e-4)
    assert torch.allclose(nearest_distances(x[:20], labels[:20]), torch.tensor(slow)[:len(nearest_distances(x[:20], labels[:20]))], atol=1e-4)
    assert len(nearest_distances(x[:3], torch.tensor([0, 1, 2]))) == 0 and len(nearest_distances(x[:0], labels[:0])) == 0


def test_a_bell_is_normal_and_two_heaps_are_not():
    random = np.random.default_rng(0)
    bell, heaps = random.normal(size=200), np.concatenate([random.normal(0, 0.1, 100), random.normal(5, 0.1, 100)])
    assert normality(bell) > 0.98 > 0.8 > normality(heaps)
    assert np.isnan(normality([1.0, 2.0])) and np.isnan(normality(np.ones(50)))
    assert strangeness(bell, random.normal(size=200)) < 0.2 and strangeness(bell, bell + 9) == 1


@pytest.fixture(scope="module")
def monitor(victim):
    x = load_data("signs", "train", n=2000, seed=8).x
    return QueryMonitor(lambda x: predict(victim, x).argmax(1), list(x.split(200)))


def test_noise_is_normal_and_strange_and_moved_signs_are_not_normal(monitor, copied, pictures):
    honest, noise = monitor.judge(pictures[:200]), monitor.judge(theft.random_noise(200))
    assert not honest.not_normal and not honest.strange
    assert not noise.not_normal and noise.strange and noise.normality > honest.normality
    growing = pictures[:50]
    while len(growing) < 200:
        growing = torch.cat([growing, jacobian_queries(copied, growing, monitor.label(growing))])
    assert monitor.judge(growing).not_normal
    assert monitor.judge(pictures[:1].expand(200, -1, -1, -1)).not_normal  # always the same question


def test_the_monitor_judges_whole_windows_of_each_caller_and_remembers(victim, monitor, pictures):
    noise, watching = theft.random_noise(260, seed=2), monitor
    assert not any(watching("thief", part) for part in noise[:180].split(60))
    assert watching("thief", noise[180:]) and watching("thief", pictures[:1])
    assert not any(watching("customer", part) for part in pictures[:500].split(64)) and not watching("new", pictures[:1])


@pytest.mark.slow
def test_the_service_refuses_a_caller_whom_the_monitor_flags(victim, monitor):
    with serve(victim, [str(k) for k in range(12)], keys=["noisy"], monitor=monitor) as service:
        remote = RemoteModel(service.url, key="noisy")
        with pytest.raises(ServiceError, match="copy or to probe") as refusal:
            remote(theft.random_noise(400))
        remote.close()
    assert refusal.value.status == 403 and remote.queries < 200


def test_a_monitor_needs_honest_customers(victim):
    with pytest.raises(ValueError, match="at least 3 customers with 200"):
        QueryMonitor(lambda x: x, [theft.random_noise(200)] * 2)
    with pytest.raises(ValueError, match="at least 3 customers with 200"):
        QueryMonitor(lambda x: x, [theft.random_noise(150)] * 4)


def test_the_p_value_is_scipys_exact_binomial_and_fair_to_the_innocent(victim):
    from scipy.stats import binomtest
    values, hits = [], []
    for seed in range(30):
        triggers, secret = trigger_set(40, 12, seed=seed)
        hit, p = p_value(victim, triggers, secret)
        assert p == pytest.approx(binomtest(hit, 40, 1 / 12, alternative="greater").pvalue)
        values.append(p)
        hits.append(hit)
    assert 2.2 < np.mean(hits) < 4.5  # 40/12 = 3.3
    assert np.mean(np.array(values) < 0.05) < 0.2 and min(values) > 1e-4
    triggers, secret = trigger_set(40, 12)
    right = lambda x: F.one_hot(secret, 12).float()  # noqa: E731
    assert p_value(right, triggers, secret) == (40, pytest.approx(12.0**-40)) and p_value(lambda x: 1 - right(x), triggers, secret)[1] <= 1


@pytest.mark.slow
def test_a_watermark_is_learnt_and_a_knockoff_does_not_inherit_it(victim, pictures, start):
    x, y, _ = load_data("signs", "train", n=800, seed=5)
    triggers, secret = trigger_set(40, 12, seed=1)
    before = weights(victim)
    marked = embed(victim, x, y, triggers, secret, share=0.3, progress=False)
    knocked_off = knockoff(answering(marked), pictures[:500], start, epochs=6, progress=False)
    assert p_value(marked, triggers, secret)[1] < 1e-9 < 1e-3 < p_value(knocked_off, triggers, secret)[1]
    assert agreement(marked, answering(victim), pictures[:500]) > 0.93 and torch.equal(weights(victim), before)


def test_trigger_sets_are_decided_by_the_seed_and_even():
    x, y = trigger_set(600, 6, (1, 28, 28), seed=1)
    again, same = trigger_set(600, 6, (1, 28, 28), seed=1)
    assert torch.equal(x, again) and torch.equal(y, same) and x.shape == (600, 1, 28, 28) and 0 <= x.min() and x.max() <= 1
    assert not torch.equal(trigger_set(600, 6, (1, 28, 28), seed=2)[1], y) and y.bincount(minlength=6).min() > 60
    with pytest.raises(ValueError, match="classes must be at least 2"):
        trigger_set(4, 1)
