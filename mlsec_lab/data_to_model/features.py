"""Poisoned features (OWASP ML02 and ML07): poison added to the data that a linear head on a frozen extractor learns from.

Input-space attacks:       gradient_cancelling_images (GC) · tgda · error_minimising_noise (EMN)
Feature-targeted attacks:  gradpc -> gradient_cancelling -> decoder_inversion or feature_matching
Defences:                  in_range · roughness · screen
Metrics:                   head_accuracy · cancelling_loss · reachability · gradient, hessian of the learner's loss

The learner trains `train_head` (logistic regression) on clean and poisoned rows together; the attacker adds rows, at most
eps_d = poisons / clean rows of them, and wants the test accuracy to fall, whatever the class. `features` are float32 [N, D],
what the frozen extractor makes of x [N, C, H, W]; a head is an nn.Linear(D, K).

Follows Lu, Yang, Kamath & Yu, "Indiscriminate Data Poisoning Attacks on Pre-trained Feature Extractors" (2024), as far as its
abstract and public code by its authors tell; what is the course's own choice says so.
"""
import math

import torch
import torch.nn.functional as F

from mlsec_lab.victims.inputs import check_images, check_labels, check_number
from mlsec_lab.victims.networks import frozen
from mlsec_lab.victims.self_supervised import as_head, check_features, flat, train_head, with_ones
from mlsec_lab.victims.training import predict

DECAY = 1e-3  # of the learner's head, known to the attacker


# ---- metrics

def head_accuracy(head, features, y):
    """The share of features [N, D] that `head` gives the class y [N]: a float in [0, 1], NaN for none.  ValueError for other kinds."""
    _check(head, features, y)
    return (head(features).argmax(1) == y).float().mean().item()


def cancelling_loss(head, features, y, poison, y_poison, *, decay=DECAY):
    """How far `head` is from the end of training on clean and poisoned rows: the squared length of the gradient there.

    features, y: the clean rows [N, D] and classes [N].  poison, y_poison: the added ones, [M, D] and [M].
    The gradient is that of the sum over all rows, divided by N, with the weight decay of the learner.
    At 0 the learner, whose problem is strictly convex, ends exactly at `head` (GC: Lu, Kamath & Yu, 2023).
    Returns a scalar tensor, differentiable in `poison`.  Raises ValueError for shapes that disagree.
    """
    _check(head, features, y)
    _check(head, poison, y_poison, "poison", "y_poison")
    return _residual(flat(head), features, y, poison, y_poison, decay).square().sum()


def reachability(head, features, y, *, decay=DECAY):
    """The least eps_d at which poison can make a learner end at `head`; infinity where none can.

    Cancelling needs <w, clean gradient> = -eps_d <w, poison gradient>, and one row can contribute no more than
    W((K - 1) / e) to the right side (Lambert's W; Lu et al., 2023, for two classes; for K classes and with weight decay: ours).
    Necessary, not sufficient.  Returns a float.  Raises ValueError for shapes that disagree.
    """
    from scipy.special import lambertw
    _check(head, features, y)
    w = flat(head)
    most = lambertw((len(w) - 1) / math.e).real
    pull = (w * gradient(w, features, y)).sum().item()
    weight = decay * w.square().sum().item()
    return max(0.0, pull + weight) / (most - weight) if most > weight else math.inf


def gradient(w, features, y):
    """The gradient of the mean cross-entropy in the parameters w [K, D + 1] of a head, differentiable in the features [N, D]."""
    rows = with_ones(features)
    wrong = (rows @ w.T).softmax(1) - F.one_hot(y, len(w))
    return wrong.T @ rows / max(1, len(rows))


def hessian(w, features, decay=DECAY):
    """The second derivatives of the learner's loss in all parameters w [K, D + 1]: a matrix [K (D + 1), K (D + 1)]."""
    rows = with_ones(features)
    p = (rows @ w.T).softmax(1)
    k, d = w.shape
    blocks = w.new_zeros(k, d, k, d)
    for i in range(k):
        for j in range(i, k):
            weight = p[:, i] * (float(i == j) - p[:, j])
            blocks[i, :, j] = blocks[j, :, i] = (rows * weight[:, None]).T @ rows / len(rows)
    return blocks.view(k * d, k * d) + decay * torch.eye(k * d)


def _residual(w, features, y, poison, y_poison, decay):
    eps_d = len(poison) / len(features)
    return gradient(w, features, y) + eps_d * gradient(w, poison, y_poison) + (1 + eps_d) * decay * w


# ---- stage 1: the head that the attacker wants

def gradpc(head, features, y, *, radius, steps=50, lr=None):
    """A worse head near a trained one: normalised gradient ascent on the training loss, kept in a ball (GradPC).

    head: nn.Linear(D, K), trained on features [N, D] and y [N].  radius: the L2 length by which all its parameters together may change.
    lr: the length of one step, 2.5 * radius / steps by default (the paper's code takes one epoch of steps of length 1).
    Returns a new nn.Linear.  Raises ValueError for radius < 0, steps < 1, a head of the wrong width.
    """
    _check(head, features, y)
    check_number(radius, "radius", least=0)
    check_number(steps, "steps", least=1, whole=True)
    start = flat(head)
    w, size = start, 2.5 * radius / steps if lr is None else lr
    for _ in range(steps):
        slope = gradient(w, features, y)
        w = w + size * slope / slope.norm().clamp_min(1e-12)
        change = w - start
        w = start + change * (radius / change.norm().clamp_min(1e-12)).clamp_max(1)
    return as_head(w)


# ---- stage 2: features that lead there, and the same in input space

def gradient_cancelling(target, features, y, start, y_poison, *, decay=DECAY, steps=300, lr=1.0, limit=None):
    """Poisoned features that make `target` the end of training: descend on `cancelling_loss` (GC, Lu, Kamath & Yu, 2023).

    start: [M, D], where the poisons begin; y_poison: [M], their classes, which stay.  limit: None, or a function
    (poison, y_poison) -> poison that brings them back after each step to where a screening lets them be.
    Returns poison [M, D].  Raises ValueError for steps < 1, lr <= 0, shapes that disagree.
    """
    _check(target, start, y_poison, "start", "y_poison")
    return _cancel(target, features, y, start, y_poison, lambda poison: poison, limit and (lambda p: limit(p, y_poison)), decay, steps, lr)


def gradient_cancelling_images(extractor, target, features, y, start, y_poison, *, clip=True, decay=DECAY, steps=150, lr=None):
    """GC in input space: the same loss, differentiated through the frozen extractor down to the pixels.

    start: [M, C, H, W] in [0, 1].  clip: whether pixels are brought back into [0, 1] after each step.
    lr: 0.03 by default, ten times that where nothing is clipped and there is further to go.
    Returns x_poison, like start, outside [0, 1] only if not `clip`.  Raises ValueError as gradient_cancelling does.
    """
    check_images(start, "start")
    size = lr if lr is not None else 0.03 if clip else 0.3
    with frozen(extractor):
        return _cancel(target, features, y, start, y_poison, extractor, _pixels if clip else None, decay, steps, size)


@torch.enable_grad()
def _cancel(target, features, y, start, y_poison, featurise, limit, decay, steps, lr):
    _check(target, features, y)
    check_labels(y_poison, len(start), classes=target.out_features, name="y_poison")
    check_number(steps, "steps", least=1, whole=True)
    check_number(lr, "lr", above=0)
    w, eps_d = flat(target), len(start) / len(features)
    clean = gradient(w, features, y) + (1 + eps_d) * decay * w  # does not change while the poison does

    def loss(poison):
        return (clean + eps_d * gradient(w, featurise(poison), y_poison)).square().sum()

    return _adam(loss, start, steps, lr, limit)


def _pixels(x):
    return x.clamp(0, 1)


def _adam(loss, start, steps, lr, limit=None):
    """Adam from `start`, the step shrinking along a cosine, `limit` applied after each step."""
    point = start.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([point], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps if len(start) else 0):
        point.grad, = torch.autograd.grad(loss(point), point)
        optimizer.step()
        schedule.step()
        if limit is not None:
            with torch.no_grad():
                point.copy_(limit(point))
    return point.detach()


def tgda(extractor, x, y, start, y_poison, classes, *, clip=True, decay=DECAY, steps=40, lr=0.03, holdout=0.3):
    """Total gradient descent ascent: move the poison uphill on a held-out loss, through the learner's answer to it (Lu et al., 2022).

    x, y: the clean training images and classes.  start, y_poison: as in gradient_cancelling_images.
    holdout: the share of the clean rows whose loss the attacker climbs.
    A head on frozen features lets us do exactly what the paper approximates (ours): the follower is trained to its end at each step,
    and the total gradient solves with the whole Hessian instead of conjugate gradients; the poison is moved itself, by no network.
    Returns x_poison, like start.  Raises ValueError for steps < 1, a holdout outside (0, 1), images or labels of the wrong kind.
    """
    check_images(x)
    check_images(start, "start")
    check_labels(y, len(x), classes=classes)
    check_labels(y_poison, len(start), classes=classes, name="y_poison")
    check_number(holdout, "holdout", above=0, most=0.9)
    check_number(steps, "steps", least=1, whole=True)
    features = predict(extractor, x)
    cut = len(x) - max(1, round(holdout * len(x)))
    follower = None

    def loss(poison):
        nonlocal follower
        poison = extractor(poison)
        rows = torch.cat([features[:cut], poison.detach()])
        follower = train_head(rows, torch.cat([y[:cut], y_poison]), classes, decay=decay, start=follower)
        w = flat(follower)
        uphill = gradient(w, features[cut:], y[cut:]).flatten()
        change = torch.linalg.solve(hessian(w, rows, decay), uphill).view_as(w)
        # The implicit function theorem: dw/dpoison = -H^-1 d(gradient)/dpoison; Adam descends, so the sign turns once more.
        return (change * gradient(w, poison, y_poison)).sum() * len(poison) / len(rows)

    with frozen(extractor), torch.enable_grad():
        return _adam(loss, start, steps, lr, _pixels if clip else None)


def error_minimising_noise(fit, x, y, *, eps=8 / 255, rounds=3, steps=5, class_wise=False):
    """Noise that leaves nothing to learn: make each image easy for the model that is being trained on it (EMN, Huang et al., 2021).

    fit: a function (x, y) -> model that trains what the learner would train; it is called on the noisy images once a round.
    x: [N, C, H, W] in [0, 1].  y: [N].  eps: for each pixel.  steps: of gradient descent on the loss, a round.
    class_wise: whether all images of a class share one noise, the stronger of the paper's two kinds.
    Returns x with noise, within eps of x and within [0, 1].  Raises ValueError for eps < 0, rounds or steps < 1.
    """
    check_images(x)
    check_labels(y, len(x))
    check_number(eps, "eps", least=0)
    for name, value in dict(rounds=rounds, steps=steps).items():
        check_number(value, name, least=1, whole=True)
    delta = torch.zeros_like(x)
    kinds = y.unique(return_inverse=True)[1] if class_wise else torch.arange(len(y))
    for _ in range(rounds):
        model = fit((x + delta).clamp(0, 1), y)
        with frozen(model), torch.enable_grad():
            for _ in range(steps):
                slope = torch.zeros_like(x)  # of one noise: the sum over the images that share it
                for rows in torch.arange(len(x)).split(128):
                    point = (x[rows] + delta[rows]).clamp(0, 1).requires_grad_()
                    slope.index_add_(0, kinds[rows], torch.autograd.grad(F.cross_entropy(model(point), y[rows], reduction="sum"), point)[0])
                delta = (delta - 2.5 * eps / steps * slope[kinds].sign()).clamp(-eps, eps)
    return (x + delta).clamp(0, 1)


# ---- stage 3: back to pictures

def decoder_inversion(decoder, features):
    """Pictures for features [N, D], by a network that learnt to undo the extractor.  Returns [N, C, H, W] in [0, 1]."""
    check_features(features)
    with torch.no_grad(), frozen(decoder):
        return decoder(features).clamp(0, 1)


def feature_matching(extractor, features, x_base, *, beta=0.0, steps=150, lr=0.1):
    """Pictures whose features come near `features` [N, D] while they stay near x_base [N, C, H, W]: one for each row.

    Minimises |f(x) - features|² + beta · |x - x_base|² (both summed over a picture) with every pixel in [0, 1], from x_base.
    beta: the price of a change in pixels; 0 lets the picture go where it likes.
    Returns x, like x_base.  Raises ValueError for beta < 0, steps < 1 or shapes that disagree.
    """
    check_features(features)
    check_images(x_base, "x_base")
    check_number(beta, "beta", least=0)
    check_number(steps, "steps", least=1, whole=True)
    if len(features) != len(x_base):
        raise ValueError(f"x_base must hold one picture for each of the {len(features)} rows of features, not {len(x_base)}")
    if len(x_base):
        check_features(features, predict(extractor, x_base[:1]).shape[1])

    def loss(x):
        return (extractor(x) - features).square().sum() + beta * (x - x_base).square().sum()

    with frozen(extractor), torch.enable_grad():
        return _adam(loss, x_base, steps, lr, _pixels)


# ---- defences

def in_range(x):
    """Which pictures could have come out of a camera: every pixel in [0, 1].  x: [N, C, H, W].  Returns bool [N].  ValueError for other shapes."""
    _check_pictures(x)
    return ((x >= 0) & (x <= 1)).flatten(1).all(1)


def roughness(x):
    """How much neighbouring pixels differ, on average, for each picture [N]: high for noise and for what an attack drew.  ValueError for other shapes."""
    _check_pictures(x)
    down, across = (x[:, :, 1:] - x[:, :, :-1]).abs(), (x[..., 1:] - x[..., :-1]).abs()
    return (down.flatten(1).mean(1) + across.flatten(1).mean(1)) / 2


def screen(features, y, *, share):
    """Which rows to keep: in each class the `share` that lies farthest from the class's median is removed.

    features: [N, D].  y: [N].  share: in [0, 1).  The distance is Euclidean; nothing but the data itself is needed.
    Returns bool [N].  Raises ValueError for a share outside [0, 1), features or labels of the wrong kind.
    """
    check_features(features)
    check_labels(y, len(features))
    check_number(share, "share", least=0, most=0.99)
    far = distances(features, y)
    keep = torch.ones(len(y), dtype=torch.bool)
    for k in y.unique():
        rows = (y == k).nonzero().flatten()
        keep[rows[far[rows].argsort(descending=True)[:round(share * len(rows))]]] = False
    return keep


def distances(features, y):
    """How far each row lies from the middle of its class, the median of each feature over the class: [N]."""
    far = features.new_zeros(len(y))
    for k in y.unique():
        far[y == k] = (features[y == k] - features[y == k].median(0).values).norm(dim=1)
    return far


def stay_close(features, y, *, share):
    """The attacker's answer to `screen`: keep each poison within the distance below which the screening drops nothing.

    features, y: the clean rows, from which the attacker learns the medians and, in each class, the distance that a `share` exceeds.
    Returns a function (poison, y_poison) -> poison, the `limit` of gradient_cancelling.  Raises ValueError as screen does, and
    for a class of the poisons of which there is no clean row.
    """
    check_features(features)
    check_labels(y, len(features))
    check_number(share, "share", least=0, most=0.99)
    far = distances(features, y)
    middle = {k: features[y == k].median(0).values for k in y.unique().tolist()}
    reach = {k: far[y == k].quantile(1 - share) for k in middle}

    def limit(poison, y_poison):
        missing = set(y_poison.tolist()) - set(middle)
        if missing:
            raise ValueError(f"y_poison must hold classes that clean rows have, not {sorted(missing)}")
        middles, reaches = torch.stack([middle[k] for k in y_poison.tolist()]), torch.stack([reach[k] for k in y_poison.tolist()])
        change = poison - middles
        return middles + change * (reaches / change.norm(dim=1).clamp_min(1e-12)).clamp_max(1)[:, None]

    return limit


def poison_rows(n, eps_d, *, seed=0):
    """Which clean rows the poisons start from: round(eps_d * n) of n, drawn by `seed`, none twice up to eps_d = 1.

    Returns int64 [M].  Raises ValueError for eps_d < 0 or n < 1.
    """
    check_number(n, "n", least=1, whole=True)
    check_number(eps_d, "eps_d", least=0)
    generator = torch.Generator().manual_seed(seed)
    many, rounds = round(eps_d * n), math.ceil(eps_d) or 1
    return torch.cat([torch.randperm(n, generator=generator) for _ in range(rounds)])[:many]


def _check_pictures(x):
    if not isinstance(x, torch.Tensor) or x.ndim != 4:
        raise ValueError(f"x must be a tensor of pictures [N, C, H, W], not {list(getattr(x, 'shape', [])) or type(x).__name__}")


def _check(head, features, y, name="features", labels="y"):
    if not isinstance(head, torch.nn.Linear):
        raise ValueError(f"head must be an nn.Linear from features to classes, not {type(head).__name__}")
    check_features(features, head.in_features, name)
    check_labels(y, len(features), classes=head.out_features, name=labels)
