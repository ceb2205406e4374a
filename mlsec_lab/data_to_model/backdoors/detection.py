"""Is there a backdoor in it? Calibrated trigger inversion beside Neural Cleanse, and the AUC that says how well either tells models apart.

Both look for a trigger in a model that nobody told them of, with a few trusted images. Scores grow with suspicion.
"""
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from mlsec_lab.data_to_model.backdoors.repair import check_trusted
from mlsec_lab.victims import frozen, predict
from mlsec_lab.victims.inputs import check_images, check_labels, check_number
from mlsec_lab.victims.networks import device_of


class Suspicion(NamedTuple):
    """score: how suspicious the model is.  target: the class that the backdoor would have.  by_class: [K], the score of each
    class.  triggers: [K, C, H, W], what was found for each, to be looked at."""
    score: float
    target: int
    by_class: torch.Tensor
    triggers: torch.Tensor


def calibrated_trigger_inversion(model, repaired, x, y, x_test, y_test, *, weight=0.5, steps=50, lr=0.01, batch=16, seed=0, progress=True):
    """Calibrated trigger inversion, CTI ("Pick your Poison", 2023): a change that sends every picture to one class in the model,
    and does nothing to a repaired copy of it, is a backdoor; what works on both is only a weakness that all networks have.

    model: the suspect.  repaired: what pivotal tuning made of it.  x, y: trusted images of every class.  x_test, y_test: others, to score on.
    weight: of the calibration, the cross-entropy of the repaired model's right answer; 0 leaves it out.
    A class's score is the share of the other classes' test images that its trigger sends there in `model`, less the share in `repaired`.
    Returns Suspicion.  Raises ValueError for trusted images without some class, steps < 1 or weight < 0.
    """
    check_images(x_test, "x_test")
    check_labels(y_test, len(x_test), name="y_test")
    triggers = invert_triggers(model, x, y, repaired=repaired, weight=weight, steps=steps, lr=lr, batch=batch, seed=seed, progress=progress)
    scores = []
    for target, trigger in enumerate(triggers):
        others = (x_test[y_test != target] + trigger).clamp(0, 1)
        scores.append(sum(sign * (predict(net, others).argmax(1) == target).float().mean() for net, sign in ((model, 1), (repaired, -1))))
    return _suspicion(torch.stack(scores), triggers)


def invert_triggers(model, x, y, *, repaired=None, weight=0.5, steps=50, lr=0.01, batch=16, seed=0, progress=True):
    """For every class at once, the change of the whole picture that sends trusted images of other classes there: [K, C, H, W].

    repaired, weight: the copy that shall go on answering right, and how much that counts; None or 0 leaves it out.
    """
    check_number(weight, "weight", least=0)
    x, y, others, goal, draw = _search(model, x, y, steps, lr, batch, seed)
    classes, device = len(others), x.device
    triggers = torch.zeros(classes, *x.shape[1:], device=device).requires_grad_()
    optimizer = torch.optim.Adam([triggers], lr=lr, betas=(0.5, 0.9))
    with frozen(model), frozen(repaired or model):
        for _ in tqdm(range(steps), desc="inverting triggers", unit="step", delay=1, leave=False, disable=not progress):
            index = draw().flatten()
            stamped = (x[index] + triggers.repeat_interleave(batch, 0)).clamp(0, 1)
            loss = F.cross_entropy(model(stamped), goal)
            if repaired is not None and weight:
                loss = loss + weight * F.cross_entropy(repaired(stamped), y[index])
            optimizer.zero_grad()
            triggers.grad = torch.autograd.grad(loss * classes, triggers)[0]
            optimizer.step()
    return triggers.detach().cpu()


def neural_cleanse(model, x, y, *, cost=1e-2, steps=100, lr=0.1, batch=16, seed=0, progress=True):
    """Neural Cleanse (Wang et al., 2019): for each class the smallest patch that sends trusted images there; a backdoor's is small.

    A patch is a mask [H, W] in [0, 1] and a colour for each pixel.  cost: of the mask's size, its sum, in the loss.
    A class's score is minus the size of its mask in pixels; one that fails on half the images counts as the whole picture.
    Returns Suspicion, with the masked patches as triggers.  Raises ValueError as `invert_triggers` does.
    """
    check_number(cost, "cost", least=0)
    x, y, others, goal, draw = _search(model, x, y, steps, lr, batch, seed)
    classes, device = len(others), x.device
    mask = torch.full((classes, 1, *x.shape[2:]), -2.0, device=device, requires_grad=True)
    paint = torch.zeros(classes, *x.shape[1:], device=device, requires_grad=True)
    optimizer = torch.optim.Adam([mask, paint], lr=lr, betas=(0.5, 0.9))

    with frozen(model):
        for _ in tqdm(range(steps), desc="inverting patches", unit="step", delay=1, leave=False, disable=not progress):
            m, p = mask.sigmoid(), paint.sigmoid()
            stamped = ((1 - m[:, None]) * x[draw()] + m[:, None] * p[:, None]).flatten(0, 1)
            loss = classes * F.cross_entropy(model(stamped), goal) + cost * m.sum()
            optimizer.zero_grad()
            mask.grad, paint.grad = torch.autograd.grad(loss, (mask, paint))
            optimizer.step()
        with torch.no_grad():
            m, p = mask.sigmoid(), paint.sigmoid()
            works = torch.stack([(model((1 - m[k]) * x[rows] + m[k] * p[k]).argmax(1) == k).float().mean() > 0.5 for k, rows in enumerate(others)])
            size = torch.where(works, m.sum((1, 2, 3)), float(x[0, 0].numel()))
    return _suspicion(-size.cpu(), (m * p).cpu())


def _search(model, x, y, steps, lr, batch, seed):
    """What both searches begin with: the trusted images and labels on the model's device, for each class where the others' images
    stand, the class that each drawn image shall become, and a function that draws `batch` of those images a class, [K, batch]."""
    check_trusted(model, x, y)
    check_number(steps, "steps", least=1, whole=True)
    check_number(lr, "lr", above=0)
    check_number(batch, "batch", least=1, whole=True)
    device, order = device_of(model), torch.Generator().manual_seed(seed)
    x, y = x.to(device), y.to(device)
    classes = predict(model, x[:1]).shape[1]
    others = [(y != target).nonzero().flatten() for target in range(classes)]
    goal = torch.arange(classes, device=device).repeat_interleave(batch)
    return x, y, others, goal, lambda: torch.stack([rows[torch.randint(0, len(rows), (batch,), generator=order)] for rows in others])


def roc_auc(backdoored, clean, *, resamples=2000, level=0.95, seed=0):
    """How well a score tells backdoored models from clean ones: (AUC, lowest, highest), the latter two a bootstrap interval.

    backdoored, clean: the models' scores, higher for more suspicion.  The AUC is the chance that a backdoored model's score is above
    a clean one's, a tie counting half: 1 tells all apart, 0.5 none.
    Raises ValueError where either is empty.
    """
    bad, good = (torch.tensor([float(score) for score in scores], dtype=torch.float64) for scores in (backdoored, clean))
    if not len(bad) or not len(good):
        raise ValueError("backdoored and clean must each hold at least one score")
    above = (bad[:, None] > good).double() + 0.5 * (bad[:, None] == good).double()
    order = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randint(0, len(scores), (resamples, len(scores)), generator=order) for scores in (bad, good))
    drawn = above[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    tail = (1 - level) / 2
    return above.mean().item(), drawn.quantile(tail).item(), drawn.quantile(1 - tail).item()


def _suspicion(by_class, triggers):
    return Suspicion(by_class.max().item(), int(by_class.argmax()), by_class, triggers)
