"""Evasion (OWASP ML01): small changes to an input that change the model's answer, and what stands against them.

Attacks:   fgsm · pgd · multi_targeted · minimal_norm · decision_based · adaptive_pgd
Defences:  SecurePredictor (bounds, 3x3 median, confidence threshold) · adversarial_training
Metrics:   linf_distance · l2_distance · attack_success_rate

Every attack takes `model` (x [N, C, H, W] in [0, 1] to logits [N, K]), x and y [N], leaves all of them as they were and
returns a new x_adv of x's shape within the budget and within [0, 1]. `eps` is in the units of x: 8/255 is written so.
"""
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mlsec_lab.victims.inputs import check_choice, check_images, check_labels, check_number
from mlsec_lab.victims.networks import frozen
from mlsec_lab.victims.training import shifted, predict, train

REJECTED = -1


# ---- metrics

def linf_distance(x, x_adv):
    """The largest change of any pixel, for each image: [N].  x, x_adv: [N, C, H, W] in [0, 1]; ValueError if shapes differ."""
    _check_pair(x, x_adv)
    return (x_adv - x).abs().flatten(1).amax(1)


def l2_distance(x, x_adv):
    """The Euclidean length of the change, for each image: [N].  x, x_adv: [N, C, H, W] in [0, 1]; ValueError if shapes differ."""
    _check_pair(x, x_adv)
    return (x_adv - x).flatten(1).norm(dim=1)


def attack_success_rate(model, x, x_adv, y):
    """Of the images that the model reads right, the share that it accepts with a wrong class once attacked.

    An image that was wrong before is no success, and neither is one that a SecurePredictor rejects.
    Returns a float in [0, 1], NaN if the model reads no image right.  Raises ValueError for images or labels of the wrong kind.
    """
    _check_pair(x, x_adv)
    check_labels(y, len(x))
    right = decide(model, x) == y
    attacked = decide(model, x_adv[right])
    return ((attacked != y[right]) & (attacked != REJECTED)).float().mean().item()


def decide(model, x):
    """The class [N] that `model` answers for x [N, C, H, W], REJECTED (-1) where a SecurePredictor declines to answer."""
    return model.predict(x) if isinstance(model, SecurePredictor) else predict(model, x).argmax(1)


# ---- gradient attacks

def fgsm(model, x, y, *, eps, targeted=False):
    """Fast gradient sign method: one step of eps in every pixel, uphill on the loss (Goodfellow et al., 2015).

    x: [N, C, H, W] in [0, 1].  y: [N], the true class, or the wanted one if `targeted`.
    Returns x_adv within eps of x in L∞ and within [0, 1].
    Raises ValueError for eps < 0, x outside [0, 1], or shapes and types that disagree.
    """
    _check(model, x, y, eps)
    with frozen(model):
        return _climb(model, x, x, eps=eps, step_size=lambda step: eps, steps=1, loss=_cross_entropy(y, targeted))


def pgd(model, x, y, *, eps, steps=40, step_size=None, norm="linf", targeted=False, random_start=True, early_stop=True,
        seed=0, batch=64):
    """Projected gradient descent in a ball around x: the strongest first-order attacker (Madry et al., 2018).

    x: [N, C, H, W] in [0, 1].  y: [N], the true class, or the wanted one if `targeted`.
    eps, step_size: in units of x, or of the L2 length if norm="l2"; step_size defaults to 2.5 * eps / steps.
    random_start: begin at a random point of the ball, drawn from `seed`.
    early_stop: an image that is fooled stops moving and leaves the batch: several times faster, and just as often right.
    batch: images a step; 64 fit a CPU's cache.
    Returns x_adv, same shape, within eps of x and within [0, 1].
    Raises ValueError for eps < 0, steps < 1, step_size <= 0, an unknown norm, x outside [0, 1] or shapes that disagree.
    """
    _check(model, x, y, eps, seed)
    check_number(steps, "steps", least=1, whole=True)
    check_number(batch, "batch", least=1, whole=True)
    check_choice(norm, "norm", ("linf", "l2"))
    if step_size is not None:
        check_number(step_size, "step_size", above=0)
    size = 2.5 * eps / steps if step_size is None else step_size
    start = random_point(x, eps, norm, seed) if random_start else x
    with frozen(model):
        return _climb(model, x, start, eps=eps, norm=norm, step_size=lambda step: size, steps=steps, batch=batch,
                      loss=_cross_entropy(y, targeted), fooled=_reached(y, targeted) if early_stop else None)


def multi_targeted(model, x, y, *, eps, steps=50, targets=9, restarts=1, seed=0, batch=64):
    """A stronger L∞ attack: aim at each of the likeliest wrong classes in turn, with a margin loss (Gowal et al., 2019).

    Plain PGD climbs the cross-entropy, which goes flat where the model is sure, towards whichever class is nearest. Here
    every image that still holds is pushed towards one wrong class after another, by the difference of two logits, with
    momentum and a step that shrinks from 2 eps to nothing.

    targets: how many wrong classes to try, the likeliest first (at most K - 1).  restarts: rounds of it, each from new
    random points.  The other arguments, the return value and the errors are pgd's.
    """
    _check(model, x, y, eps, seed)
    for name, value in dict(steps=steps, targets=targets, restarts=restarts, batch=batch).items():
        check_number(value, name, least=1, whole=True)
    x_adv = x.detach().clone()
    with frozen(model):
        wrong = predict(model, x).scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1]
        for attempt in range(restarts):
            for rank in range(min(targets, wrong.shape[1])):
                held = (predict(model, x_adv).argmax(1) == y).nonzero().flatten()
                if not len(held):
                    return x_adv
                x_adv[held] = _climb(
                    model, x[held], random_point(x[held], eps, "linf", seed + 1000 * attempt + rank), eps=eps, steps=steps, batch=batch,
                    step_size=lambda step: eps * (1 + np.cos(np.pi * step / steps)), momentum=0.75,
                    loss=_margin(wrong[held, rank], y[held]), fooled=_reached(y[held], targeted=False))
    return x_adv


def perturb_batch(model, x, y, *, eps, steps=3, seed=0):
    """What adversarial training learns from: a few PGD steps that do not stop once they succeed, unchecked, for inner loops."""
    with frozen(model):
        return _climb(model, x, random_point(x, eps, "linf", seed), eps=eps, steps=steps, step_size=lambda step: 2.5 * eps / steps,
                      loss=_cross_entropy(y, targeted=False), batch=len(x))


def project(x_adv, x, eps, norm="linf"):
    """x_adv brought back to within eps of x and within [0, 1]: in L∞ the nearest such point, in L2 the nearest in the ball, then clipped.

    All [N, C, H, W].
    """
    if norm == "linf":
        return torch.minimum(torch.maximum(x_adv, x - eps), x + eps).clamp_(0, 1)
    delta = x_adv - x
    length = delta.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
    return (x + delta * (eps / length).clamp_max(1)).clamp_(0, 1)


def random_point(x, eps, norm="linf", seed=0):
    """A random point of the eps-ball around each x [N, C, H, W], kept within [0, 1]; drawn from `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    if norm == "linf":
        delta = (torch.rand(x.shape, generator=generator) * 2 - 1) * eps
    else:
        delta = torch.randn(x.shape, generator=generator)
        radius = eps * torch.rand(len(x), generator=generator) ** (1 / max(1, x[0].numel() if len(x) else 1))
        delta *= (radius / delta.flatten(1).norm(dim=1))[:, None, None, None]
    return (x + delta.to(x.device)).clamp_(0, 1)


@torch.enable_grad()
def _climb(model, x, start, *, eps, steps, step_size, loss, fooled=None, norm="linf", momentum=0.0, batch=64):
    """The one loop behind every gradient attack: go uphill on `loss`, come back into the ball, drop what is fooled.

    loss(logits, index) -> [n], to be increased; fooled(logits, index) -> bool [n]; `index` says which rows of x are meant.
    """
    x, x_adv, previous = x.detach(), start.detach().clone(), start.detach().clone()
    moving = torch.arange(len(x), device=x.device)
    for step in range(steps):
        still = []
        for index in moving.split(batch):
            point = x_adv[index].requires_grad_()
            logits = model(point)
            if fooled is not None:
                keep = ~fooled(logits, index)
                if not keep.any():
                    continue
            gradient, = torch.autograd.grad(loss(logits, index).sum(), point)
            point = point.detach()
            if fooled is not None and not keep.all():
                index, gradient, point = index[keep], gradient[keep], point[keep]
            if norm == "linf":
                direction = gradient.sign_()
            else:
                direction = gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
            moved = project(point + step_size(step) * direction, x[index], eps, norm)
            if momentum:  # the step of APGD (Croce & Hein, 2020): some of the new move, some of the last one
                blended = point + momentum * (moved - point) + (1 - momentum) * (point - previous[index])
                previous[index] = point
                moved = project(blended, x[index], eps, norm) if step else moved
            x_adv[index] = moved
            still.append(index)
        if not still:
            break
        moving = torch.cat(still)
    return x_adv


def _cross_entropy(y, targeted):
    sign = -1 if targeted else 1
    return lambda logits, index: sign * F.cross_entropy(logits, y[index], reduction="none")


def _margin(target, y):
    return lambda logits, index: (logits.gather(1, target[index, None]) - logits.gather(1, y[index, None])).squeeze(1)


def _reached(y, targeted):
    return lambda logits, index: (logits.argmax(1) == y[index]) == targeted


# ---- attacks that other people maintain

def minimal_norm(model, x, y, *, method="ddn", steps=100):
    """The nearest wrong answer: a change that fools the model with as small an L2 length as the attack can find (foolbox).

    method: "ddn" (Rony et al., 2019), "deepfool" (Moosavi-Dezfooli et al., 2016) or "cw" (Carlini & Wagner, 2017).
    Returns x_adv; an image that could not be fooled comes back as it was.
    Raises ValueError for an unknown method, steps < 1, or images and labels of the wrong kind.
    """
    _check(model, x, y)
    check_choice(method, "method", ("ddn", "deepfool", "cw"))
    check_number(steps, "steps", least=1, whole=True)
    import foolbox
    attack = {"ddn": lambda: foolbox.attacks.DDNAttack(steps=steps),
              "deepfool": lambda: foolbox.attacks.L2DeepFoolAttack(steps=steps),
              "cw": lambda: foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=3, steps=steps, stepsize=0.05, initial_const=1.0)}
    return _foolbox(attack[method](), model, x, y, seed=0)


def decision_based(model, x, y, *, method="hopskipjump", steps=20, seed=0):
    """Attack a model that tells its decision and nothing else, with a small L2 change (foolbox).

    method: "hopskipjump" (Chen et al., 2020: some hundreds of queries a step) or "boundary" (Brendel et al., 2018: a few).
    steps: of the attack.  Wrap `model` in LabelOnly to be sure that no more than labels is used, in QueryCounter to count.
    Returns x_adv; an image for which no starting point was found comes back as it was.
    Raises ValueError for an unknown method, steps < 1, or images and labels of the wrong kind.
    """
    _check(model, x, y, seed=seed)
    check_choice(method, "method", ("hopskipjump", "boundary"))
    check_number(steps, "steps", least=1, whole=True)
    import foolbox
    start = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(directions=100, steps=50)
    attack = {"hopskipjump": lambda: foolbox.attacks.HopSkipJumpAttack(steps=steps, initial_gradient_eval_steps=50, max_gradient_eval_steps=500),
              "boundary": lambda: foolbox.attacks.BoundaryAttack(steps=steps, tensorboard=False)}
    return _foolbox(attack[method](), model, x, y, seed=seed, start=start)


def _foolbox(attack, model, x, y, seed, start=None):
    """Run a foolbox attack with its own randomness and with nothing left behind: it draws from the global generators.

    start: the attack that finds starting points, for one that needs them.
    """
    import foolbox
    x, x_adv, starts = x.detach(), x.detach().clone(), {}
    rows = (predict(model, x).argmax(1) == y).nonzero().flatten()
    state = np.random.get_state()
    try:
        with frozen(model), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*failed to draw sufficient random inputs")
            (torch.manual_seed if x.is_cuda else torch.default_generator.manual_seed)(seed)
            np.random.seed(seed % 2**32)
            fmodel = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
            if start is not None and len(rows):  # foolbox gives up the whole batch where one image finds no start
                points = start.run(fmodel, x[rows], foolbox.Misclassification(y[rows]))
                found = fmodel(points).argmax(1) != y[rows]
                rows, starts = rows[found], {"starting_points": points[found]}
            if len(rows):
                _, found, success = attack(fmodel, x[rows], y[rows], epsilons=None, **starts)
                x_adv[rows] = torch.where(success[:, None, None, None], found.detach(), x[rows])
    finally:
        np.random.set_state(state)
    return x_adv


# ---- defences

class SecurePredictor(nn.Module):
    """The input checks that guides recommend: refuse pixels out of bounds, smooth, and decline to answer when unsure.

    A 3x3 median (Xu et al., 2018, call it feature squeezing) goes before the model and a confidence threshold behind it.
    jitter: each image is first moved by up to so many pixels at random, anew at every call: the defender's last idea.

    `predictor(x)` gives the logits behind the smoothing, with gradients: what an attacker who knows the defence uses.
    `predictor.predict(x)` gives the classes [N], REJECTED (-1) where the confidence is below `threshold`.
    Raises ValueError for a window that is even or below 1, a threshold outside [0, 1] or a jitter below 0.
    """

    def __init__(self, model, *, window=3, threshold=0.85, jitter=0, seed=0):
        super().__init__()
        check_number(window, "window", least=1, whole=True)
        if window % 2 == 0:
            raise ValueError(f"window must be odd, so that it has a middle, not {window}")
        check_number(threshold, "threshold", least=0, most=1)
        check_number(jitter, "jitter", least=0, whole=True)
        self.model, self.window, self.threshold, self.jitter = model, window, threshold, jitter
        self.generator = torch.Generator().manual_seed(seed)
        self.training = model.training

    def forward(self, x):
        if self.jitter:
            x = shifted(x, self.jitter, self.generator)
        return self.model(median_smooth(x, self.window))

    def predict(self, x):
        """Classes [N] for x [N, C, H, W] in [0, 1] (ValueError outside), REJECTED (-1) where the model is not sure enough."""
        confidence, label = predict(self, x).softmax(1).max(1)
        return torch.where(confidence >= self.threshold, label, REJECTED)


def median_smooth(x, window=3):
    """Each pixel becomes the median of the window around it, borders repeated.  x: [N, C, H, W].  Gradients pass through."""
    if window == 1:
        return x
    half = window // 2
    padded = F.pad(x, (half,) * 4, mode="replicate")
    around = [padded[:, :, i:i + x.shape[2], j:j + x.shape[3]] for i in range(window) for j in range(window)]
    return torch.stack(around, dim=-1).median(dim=-1).values


def adaptive_pgd(predictor, x, y, *, eps, steps=40, samples=1, seed=0, batch=64):
    """PGD by an attacker who knows the SecurePredictor: through the smoothing, and on until the answer is accepted.

    The loss is the confidence of the best wrong class, so that the attack crosses the threshold as well as the boundary.
    samples: logits are averaged over so many calls, which is expectation over transformation (Athalye et al., 2018) where the
    predictor is random.  eps, steps, seed, batch, the return value and the errors are pgd's.
    """
    _check(predictor, x, y, eps, seed, name="predictor")
    for name, value in dict(steps=steps, samples=samples, batch=batch).items():
        check_number(value, name, least=1, whole=True)

    def averaged(x):
        return sum(predictor(x) for _ in range(samples)) / samples

    def wrong_confidence(logits, index):
        return logits.log_softmax(1).scatter(1, y[index, None], -torch.inf).amax(1)

    accepted = np.log(max(predictor.threshold, 1e-6)) if isinstance(predictor, SecurePredictor) else -np.inf
    with frozen(predictor):
        return _climb(averaged, x, random_point(x, eps, "linf", seed), eps=eps, steps=steps, step_size=lambda step: 2.5 * eps / steps,
                      batch=batch, loss=wrong_confidence,
                      fooled=None if samples > 1 else lambda logits, index: (logits.argmax(1) != y[index]) & (wrong_confidence(logits, index) > accepted))


def adversarial_training(model, x, y, *, eps, steps=3, epochs=6, lr=0.01, batch=128, shift=2, seed=0, progress=True):
    """Train a copy of `model` on what PGD makes of each batch: the defence that has held so far (Madry et al., 2018).

    x, y: the training data.  eps, steps: of the inner attack.  epochs, lr, batch, shift, seed, progress: as in `train`.
    Returns the trained copy, in eval mode.  Raises ValueError for eps < 0, steps < 1 and what `train` refuses.
    """
    check_number(eps, "eps", least=0)
    check_number(steps, "steps", least=1, whole=True)
    return train(model, x, y, epochs=epochs, lr=lr, batch=batch, shift=shift, seed=seed, progress=progress,
                 perturb=lambda model, xb, yb, seed: perturb_batch(model, xb, yb, eps=eps, steps=steps, seed=seed))


def _check(model, x, y, eps=0, seed=0, name="model"):
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} must be a torch nn.Module, not {type(model).__name__}")
    check_images(x)
    check_labels(y, len(x))
    check_number(eps, "eps", least=0)
    check_number(seed, "seed", whole=True)
    if len(y):
        check_labels(y, len(x), classes=predict(model, x[:1]).shape[1])


def _check_pair(x, x_adv):
    check_images(x)
    check_images(x_adv, "x_adv")
    if x.shape != x_adv.shape:
        raise ValueError(f"x_adv must have x's shape {list(x.shape)}, not {list(x_adv.shape)}")
