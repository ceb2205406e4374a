"""Repair of a backdoored model with a few trusted images: pivotal tuning beside fine-tuning, fine-pruning and attention distillation.

Every repair takes (model, x, y) with trusted images of every class and returns a repaired copy; `watch(model)`, where it is
given, is called every `every` steps, so that one run shows the whole way and not its end alone (`repair_course`, `lowest_asr`).
"""
import copy
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from mlsec_lab.data_to_model.backdoors.attacks import attack_success_rate
from mlsec_lab.victims import accuracy, penultimate, predict
from mlsec_lab.victims.inputs import check_images, check_labels, check_number
from mlsec_lab.victims.networks import device_of
from mlsec_lab.victims.training import one_cycle, varied


def fine_tuning(model, x, y, *, steps=300, lr=1e-2, decay=1e-3, batch=64, seed=0, watch=None, every=10, progress=True):
    """Train on the trusted images alone, with weight decay: the baseline of every repair.

    x: [N, C, H, W] in [0, 1].  y: [N], every class at least once.  decay: of the weights.
    Returns a copy in eval mode.  Raises ValueError where a class is missing, or for steps < 1.
    """
    return tune(model, x, y, lambda model, xb, yb: F.cross_entropy(model(xb), yb), steps=steps, lr=lr, decay=decay, batch=batch,
                 seed=seed, watch=watch, every=every, progress=progress)


def pivotal_tuning(model, x, y, *, steps=300, lr=1.4e-2, stay=2e-4, turn=1.0, agree=2.0, batch=64, seed=0, watch=None, every=10, progress=True):
    """Pivotal tuning ("Pick your Poison", 2023): leave the poisoned model, the pivot, but not what it knows.

    The loss is the cross-entropy, plus `stay` times the squared distance of the weights from the pivot, plus `turn` times
    `turned_features`, plus `agree` times the divergence from the pivot's answers on the same trusted images.
    The first three are the authors', after their public code. The last one is the course's: a few hundred images say more about
    the clean task with the pivot's probabilities than with a label each, and more still where half of them are mixed with others.
    So are the optimiser, the sizes, and that `turned_features` squares.
    Returns a copy in eval mode.  Raises ValueError as `fine_tuning` does.
    """
    for value, name in ((stay, "stay"), (turn, "turn"), (agree, "agree")):
        check_number(value, name, least=0)
    pivot, order = copy.deepcopy(model).eval(), torch.Generator().manual_seed(seed)
    anchors = [p.detach() for p in pivot.parameters()]

    def loss(model, xb, yb):
        xb = half_mixed(xb, order)
        features, logits = penultimate(model, xb)
        with torch.no_grad():
            before, answers = penultimate(pivot, xb)
        distance = sum((p - a).square().sum() for p, a in zip(model.parameters(), anchors))
        apart = F.kl_div(logits.log_softmax(1), answers.softmax(1), reduction="batchmean")
        return F.cross_entropy(logits, yb) + stay * distance + turn * turned_features(features, before, yb) + agree * apart

    return tune(model, x, y, loss, steps=steps, lr=lr, batch=batch, seed=seed, watch=watch, every=every, progress=progress)


def turned_features(features, before, y):
    """How much the classes still lie in the pivot's directions, from 1 to 0: what pivotal tuning makes small.

    features, before: [N, D], now and in the pivot.  y: [N], two classes or more.
    The mean, over all pairs of classes, of the squared cosine between the difference of their mean features now and the same
    difference in the pivot: 0 where all have turned by a right angle.
    The published loss adds up the cosines themselves, which rewards a half turn, and a term for the covariance of the means. On
    the course's network the classes made that half turn and the trigger went with them: hence the square.
    """
    present = F.one_hot(y).float()
    present = present[:, present.sum(0) > 0]
    now, then = (present.T @ z / present.sum(0)[:, None] for z in (features, before))
    one, other = torch.triu_indices(len(now), len(now), offset=1)
    return F.cosine_similarity(now[one] - now[other], then[one] - then[other]).square().mean() if len(one) else features.sum() * 0


def half_mixed(x, generator):
    """x [N, C, H, W], the first half of the images with up to half of another laid over each: it is still called what it was."""
    half = x[:len(x) // 2]
    share = torch.rand(len(half), 1, 1, 1, generator=generator).to(x.device) / 2
    return torch.cat([(1 - share) * half + share * x.flip(0)[:len(half)], x[len(half):]])


def fine_pruning(model, x, y, *, tolerance=0.04, seed=0, **tuning):
    """Switch off the last convolution's channels that trusted images hardly use, then fine-tune (Liu et al., 2018).

    tolerance: how much accuracy on the trusted images may be pruned away.  tuning: passed on to the fine-tuning.
    Returns a copy in eval mode.  Raises ValueError as `fine_tuning` does, or for a model without batch normalisation.
    """
    check_number(tolerance, "tolerance", least=0, most=1)
    check_trusted(model, x, y)
    seen = []
    with _stages(model)[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.relu().mean((0, 2, 3)))):
        predict(model, x)
    keep = torch.ones_like(seen[0])

    def prune(model):
        last = _stages(model)[-1]
        with torch.no_grad():
            last.weight.mul_(keep)
            last.bias.mul_(keep)
        return model

    floor = accuracy(model, x, y) - tolerance
    for channel in torch.stack(seen).mean(0).argsort():
        keep[channel] = 0
        if accuracy(prune(copy.deepcopy(model)), x, y) < floor or not keep.any():
            keep[channel] = 1
            break
    return tune(prune(copy.deepcopy(model)), x, y, lambda model, xb, yb: F.cross_entropy(model(xb), yb), after_step=prune, seed=seed, **tuning)


def attention_distillation(model, x, y, *, steps=300, weight=1000.0, power=2, seed=0, progress=True, **tuning):
    """Neural attention distillation, NAD (Li et al., 2021): a fine-tuned copy teaches the model where to look.

    The loss is the cross-entropy plus `weight` times the squared distance of the attention maps, the mean of |activation|^power over
    the channels, normalised, at every stage.  tuning: as for `fine_tuning`, which makes the teacher.
    Returns a copy in eval mode.  Raises ValueError as `fine_tuning` does.
    """
    teacher = fine_tuning(model, x, y, steps=steps, seed=seed, progress=progress, **{k: v for k, v in tuning.items() if k not in ("watch", "every")})

    def maps(model, xb):
        seen = []
        hooks = [stage.register_forward_hook(lambda module, inputs, output: seen.append(output)) for stage in _stages(model)]
        try:
            logits = model(xb)
        finally:
            for hook in hooks:
                hook.remove()
        return [F.normalize(z.relu().pow(power).mean(1).flatten(1)) for z in seen], logits

    def loss(model, xb, yb):
        student, logits = maps(model, xb)
        with torch.no_grad():
            goal, _ = maps(teacher, xb)
        return F.cross_entropy(logits, yb) + weight * sum((s - g).square().mean() for s, g in zip(student, goal))

    return tune(model, x, y, loss, steps=steps, seed=seed, progress=progress, **tuning)


REPAIRS = {"pivotal tuning": pivotal_tuning, "fine-tuning": fine_tuning, "fine-pruning": fine_pruning, "NAD": attention_distillation}


# ---- how well a backdoor withstands a repair

class Checkpoint(NamedTuple):
    """Where a repair stood after `step` steps: clean accuracy, attack success rate, and the seconds that it had taken."""
    step: int
    accuracy: float
    asr: float
    seconds: float


def repair_course(repair, model, x, y, backdoor, x_test, y_test, *, every=10, **arguments):
    """Run a repair and measure it on the way: ([Checkpoint, …], the repaired model).  The first checkpoint is the model as it came.

    x, y: trusted.  x_test, y_test: what accuracy and attack success are measured on.  The seconds leave the measuring out.
    """
    course, spent, began = [], 0.0, time.perf_counter()

    def watch(now):
        nonlocal spent
        paused = time.perf_counter()
        course.append(Checkpoint(every * len(course), accuracy(now, x_test, y_test), attack_success_rate(now, backdoor, x_test, y_test),
                                 paused - began - spent))
        spent += time.perf_counter() - paused

    watch(model)
    repaired = repair(model, x, y, watch=watch, every=every, **arguments)
    return course, repaired


def lowest_asr(course, delta=0.02):
    """Robustness: the lowest attack success rate of the checkpoints whose clean accuracy is within `delta` of the best of them.

    course: [Checkpoint, …], or (accuracy, asr) pairs in that order.  Returns a float in [0, 1].
    """
    check_number(delta, "delta", least=0, most=1)
    pairs = [(point.accuracy, point.asr) if isinstance(point, Checkpoint) else tuple(point) for point in course]
    if not pairs:
        raise ValueError("course must hold at least one checkpoint")
    best = max(clean for clean, _ in pairs)
    return min(asr for clean, asr in pairs if clean >= best - delta)


def check_trusted(model, x, y):
    """Raise ValueError unless (x, y) holds images of every class that the model knows."""
    check_images(x)
    check_labels(y, len(x))
    if not len(x):
        raise ValueError("x must hold trusted images of every class, but it is empty")
    classes = predict(model, x[:1]).shape[1]
    check_labels(y, len(x), classes=classes)
    missing = sorted(set(range(classes)) - set(y.tolist()))
    if missing:
        raise ValueError(f"y must hold every class at least once, but the trusted images have none of {missing}: a repair would forget them")


def _stages(model):
    stages = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not stages:
        raise ValueError("model must have batch normalisation: its channels are what is pruned or looked at")
    return stages


def tune(model, x, y, loss, *, steps=300, lr=1e-2, decay=0.0, batch=64, seed=0, watch=None, every=10, progress=True, after_step=None):
    """The loop that the repairs share: Adam and one cycle of the learning rate on `loss(model, xb, yb)`, for batches of trusted
    images that are `varied` anew each time. The statistics of batch normalisation stay as they are.

    Returns a copy in eval mode.  Raises ValueError as `fine_tuning` does.
    """
    check_trusted(model, x, y)
    check_number(steps, "steps", least=1, whole=True)
    check_number(lr, "lr", above=0)
    check_number(batch, "batch", least=1, whole=True)
    check_number(every, "every", least=1, whole=True)
    device, order = device_of(model), torch.Generator().manual_seed(seed)
    model = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
    schedule = one_cycle(optimizer, lr, steps, warm=0.1)
    pending = []
    for step in tqdm(range(1, steps + 1), desc="repairing", unit="step", delay=1, leave=False, disable=not progress):
        if not pending:
            pending = list(torch.randperm(len(x), generator=order).split(batch))
        index = pending.pop()
        value = loss(model, varied(x[index], order).to(device), y[index].to(device))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if after_step:
            after_step(model)
        if watch and step % every == 0:
            watch(model)
    model.zero_grad()
    return model
