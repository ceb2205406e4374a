"""Model inversion (OWASP ML03): what a person looks like, out of a model that only says who somebody is.

Attacks:   invert_pixels · invert_faces (weights known) · from_probabilities · from_labels (answers alone) · best_stranger (no reconstruction)
Prior:     eigenfaces, of people who are not in the model
Defences:  audit (what a log shows of a search) · train_privately; answers are cut and limited where they are served (victims/service.py)
Metrics:   recognised · similarity · hours_needed

Whoever has a model's weights follows gradients. Whoever has only its answers needs a function `ask`: x [N, C, H, W] in [0, 1] -> [N, K],
whose softmax is the answer: a local model or a RemoteModel alike. y [T] are the classes to be inverted, each for itself. What all share
is Fredrikson, Jha & Ristenpart's idea (2015): look for the picture of which the model is surest. The prior of faces of other people is Zhang
et al.'s (2020), who train a GAN for it where we take eigenfaces; repelling the boundary is Kahla et al.'s (2022), in eigenfaces as well.
"""
import math
from collections import Counter
from typing import NamedTuple

import torch
import torch.nn.functional as F

from mlsec_lab.victims.inputs import check_images, check_labels, check_number
from mlsec_lab.victims.networks import device_of, frozen
from mlsec_lab.victims.privacy import train_by_dp_sgd
from mlsec_lab.victims.training import predict, shifted


# ---- the weights are known

@torch.enable_grad()
def invert_pixels(model, y, shape, *, steps=100, lr=0.3, tv=0.0, scales=(), shift=0, noise=0.0, seed=0):
    """Descend on the loss of class y in the pixels of a grey picture (MI-FACE; Fredrikson et al., 2015), with smoothness as the only prior.

    y: [T].  shape: of one picture, (C, H, W).  lr: each step moves a picture by this L2 length times its root of C.
    tv: the weight of total variation.  scales: begin with a picture of so many pixels a side, then the next, then the full size.
    shift, noise: before each step the picture is moved by up to so many pixels, and gets noise of this deviation.
    Returns x [T, C, H, W] in [0, 1].  Raises ValueError for numbers out of range.
    """
    _check_search(y, steps=steps, shift=shift, noise=noise, seed=seed)
    check_number(lr, "lr", above=0)
    check_number(tv, "tv", least=0)
    draw, device, sizes = torch.Generator().manual_seed(seed), device_of(model), [*scales, shape[1]]
    z = torch.full((len(y), shape[0], sizes[0], sizes[0] * shape[2] // shape[1]), 0.5, device=device)
    with frozen(model):
        for stage, size in enumerate(sizes):
            z = F.interpolate(z, size=(size, size * shape[2] // shape[1]), mode="bilinear")
            for _ in range(len(range(stage, steps, len(sizes)))):
                z = z.detach().requires_grad_()
                x = F.interpolate(z, size=shape[1:], mode="bilinear")
                logits = model(_seen(x, shift, noise, draw))
                loss = F.cross_entropy(logits, y.to(device), reduction="sum") + tv * total_variation(x).sum()
                gradient, = torch.autograd.grad(loss, z)
                length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
                z = (z.detach() - lr * shape[0] ** 0.5 * gradient / length).clamp(0, 1)
    return F.interpolate(z.detach(), size=shape[1:], mode="bilinear").cpu()


def total_variation(x):
    """The mean absolute difference between neighbouring pixels, down plus across (Rudin et al., 1992): [N] for x [N, C, H, W]."""
    return x.diff(dim=2).abs().mean((1, 2, 3)) + x.diff(dim=3).abs().mean((1, 2, 3))


class Faces(NamedTuple):
    """Eigenfaces: a picture is `mean` plus so much of each of the `axes`.  For the people they were made of each coefficient has mean 0 and variance 1.

    mean: [D].  axes: [k, D].  shape: of a picture, (C, H, W).
    """
    mean: torch.Tensor
    axes: torch.Tensor
    shape: tuple

    def pictures(self, c):
        """x [N, C, H, W] in [0, 1] of the coefficients c [N, k]."""
        return (self.mean + c @ self.axes).view(-1, *self.shape).clamp(0, 1)

    def coefficients(self, x):
        """c [N, k] of the pictures nearest to x [N, C, H, W]."""
        return (x.flatten(1) - self.mean) @ (self.axes / self.axes.square().sum(1, keepdim=True)).T


def eigenfaces(x, k=60, *, seed=0):
    """What pictures of faces have in common, and the k directions in which they differ most (Sirovich & Kirby, 1987; Turk & Pentland, 1991).

    x: [N, C, H, W], of people whom the attacker may look at: those in the model are not among them.  k: at most N - 1.
    seed: of the start of the subspace iteration.
    Returns Faces.  Raises ValueError for images of the wrong kind, or a k out of range.
    """
    check_images(x)
    check_number(k, "k", least=1, most=min(len(x) - 1, x[0].numel()), whole=True)
    mean = x.flatten(1).mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        _, lengths, axes = torch.svd_lowrank(x.flatten(1) - mean, q=min(k + 10, *x.flatten(1).shape), niter=3)
    return Faces(mean, (lengths[:k] / len(x) ** 0.5)[:, None] * axes.T[:k], tuple(x.shape[1:]))


@torch.enable_grad()
def invert_faces(model, y, faces, *, steps=100, lr=0.2, penalty=0.3, shift=2, noise=0.05, seed=0):
    """The face of which the model is surest, among those that are likely: maximum a posteriori in eigenfaces, by Adam.

    The score is log p / (1 - p) of class y, which goes on rising where p is nearly 1, minus penalty * |c|² / 2 for coefficients c.
    y: [T].  faces: as `eigenfaces` makes them.  shift, noise: as in invert_pixels; the score then holds for a face and not for a pixel.
    Returns x [T, C, H, W] in [0, 1].  Raises ValueError for numbers out of range.
    """
    _check_search(y, steps=steps, shift=shift, noise=noise, seed=seed, penalty=penalty)
    check_number(lr, "lr", above=0)
    draw, device = torch.Generator().manual_seed(seed), device_of(model)
    faces, y = faces._replace(mean=faces.mean.to(device), axes=faces.axes.to(device)), y.to(device)
    c = (0.1 * torch.randn(len(y), len(faces.axes), generator=draw)).to(device).requires_grad_()
    adam = torch.optim.Adam([c], lr=lr)
    with frozen(model):
        for _ in range(steps):
            logits = model(_seen(faces.pictures(c), shift, noise, draw))
            others = logits.scatter(1, y[:, None], -torch.inf).logsumexp(1)
            loss = (others - logits.gather(1, y[:, None])[:, 0] + penalty * c.square().sum(1) / 2).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return faces.pictures(c.detach()).cpu()


def _seen(x, shift, noise, draw):
    x = shifted(x, shift, draw)
    return x + noise * torch.randn(x.shape, generator=draw).to(x.device) if noise else x


# ---- nothing but answers

class Inverted(NamedTuple):
    """x: [T, C, H, W] in [0, 1].  queries: how many pictures were asked about, for all T together."""
    x: torch.Tensor
    queries: int


def best_stranger(ask, y, public):
    """No reconstruction at all: of the people in the street, the one whom the model takes most for class y.  What any attack has to beat.

    public: [N, C, H, W], each asked about once, for all of y together.  Where the answer is a label alone, any of those who get it.
    Returns Inverted.
    """
    check_labels(y, len(y))
    return Inverted(public[predict(ask, public)[:, y].argmax(0)], len(public))


def from_probabilities(ask, y, faces, public, *, generations=10, population=30, elite=8, penalty=0.1, width=0.5, seed=0):
    """Search the eigenfaces by an evolution strategy for the face with the highest probability (after Rechenberg, 1973): no gradient needed.

    Each generation asks about `population` faces around the present one; the next is a weighted mean of the `elite` best. The width
    shrinks by a twentieth each time. The score is that of invert_faces, from what is answered. The search begins at those of the
    strangers `public` [N, C, H, W] whom the model finds likest: N queries, which serve for all of y.
    Returns Inverted, of N + T * generations * population queries.  Raises ValueError for numbers out of range.
    """
    _check_search(y, steps=generations, penalty=penalty, seed=seed)
    check_number(width, "width", above=0)
    check_number(elite, "elite", least=1, most=min(population, len(public)), whole=True)
    draw, k = torch.Generator().manual_seed(seed), len(faces.axes)
    weights = math.log(elite + 0.5) - torch.arange(1, elite + 1).log()
    weights /= weights.sum()
    strangers = faces.coefficients(public)
    scores = _log_odds(predict(ask, public))[:, y] - penalty * strangers.square().sum(1, keepdim=True) / 2
    centre = 0.7 * strangers[scores.topk(elite, dim=0).indices].mean(0)  # [T, k]; a mean of faces is nearer to all faces than each of them
    for _ in range(generations):
        c = centre[:, None] + width * torch.randn(len(y), population, k, generator=draw)
        odds = _log_odds(predict(ask, faces.pictures(c.flatten(0, 1)))).view(len(y), population, -1)
        scores = odds.gather(2, y[:, None, None].expand(-1, population, 1))[:, :, 0] - penalty * c.square().sum(2) / 2
        best = scores.topk(elite, dim=1).indices[:, :, None].expand(-1, -1, k)
        centre, width = (c.gather(1, best) * weights[:, None]).sum(1), 0.95 * width
    return Inverted(faces.pictures(centre), len(public) + len(y) * generations * population)


def _log_odds(logits):
    """log p / (1 - p) of every class; probabilities that were rounded to 0 or 1 count as if rounded from near it."""
    p = logits.double().softmax(1).clamp(1e-12, 1 - 1e-12)
    return (p.log() - (1 - p).log()).float()


def from_labels(ask, y, faces, public, *, rounds=25, sphere=30, radius=0.5, reach=0.6, seed=0):
    """Go where the boundary is far, with labels alone: boundary-repelling inversion (after Kahla et al., 2022).

    Around the present face `sphere` others are asked about, all at the same distance. Those that are no longer called y say where the
    boundary is, and the face steps away from their mean direction, if it is still called y there; where next to none is, the sphere
    grows by 30 %. Each search begins at the mean of the strangers `public` [N, C, H, W] who are called y, or at one of them.
    radius, reach: of the first sphere, and how far the face may go from the mean one; in units of a usual face's distance from it.
    The largest sphere is 1. A class that no stranger is called comes back as the mean face.
    Returns Inverted, of at most N + T * (1 + rounds * (sphere + 1)) queries.  Raises ValueError for numbers out of range.
    """
    _check_search(y, steps=rounds, seed=seed)
    check_number(sphere, "sphere", least=1, whole=True)
    check_number(radius, "radius", above=0, most=1)
    check_number(reach, "reach", above=0)
    draw, k = torch.Generator().manual_seed(seed), len(faces.axes)
    usual, strangers = k ** 0.5, faces.coefficients(public)
    called = predict(ask, public).argmax(1)
    hits = [strangers[called == label] for label in y]
    centre = torch.stack([rows.mean(0) if len(rows) else strangers.mean(0) for rows in hits])
    queries = len(public) + len(y)
    inside = predict(ask, faces.pictures(centre)).argmax(1) == y
    for row in (~inside).nonzero()[:, 0].tolist():
        centre[row] = hits[row][0] if len(hits[row]) else centre[row]
    live = torch.tensor([len(rows) > 0 for rows in hits]).nonzero()[:, 0]  # who can be searched at all
    radii = torch.full((len(y), 1), float(radius))
    for _ in range(rounds if len(live) else 0):
        u = F.normalize(torch.randn(len(live), sphere, k, generator=draw), dim=2)
        c = centre[live, None] + radii[live, None] * usual * u
        out = predict(ask, faces.pictures(c.flatten(0, 1))).argmax(1).view(len(live), sphere) != y[live, None]
        away = -(u * out[:, :, None]).sum(1) / out.sum(1, keepdim=True).clamp_min(1)
        moved = centre[live] + 0.5 * radii[live] * usual * away
        moved *= (reach * usual / moved.norm(dim=1, keepdim=True)).clamp_max(1)
        holds = predict(ask, faces.pictures(moved)).argmax(1) == y[live]
        grows = out.float().mean(1) < 1 / 30
        radii[live[grows]] = (1.3 * radii[live[grows]]).clamp_max(1)
        centre[live[holds & ~grows]] = moved[holds & ~grows]
        queries += len(live) * (sphere + 1)
    return Inverted(faces.pictures(centre), queries)


def _check_search(y, *, steps, shift=0, noise=0.0, penalty=0.0, seed=0):
    check_labels(y, len(y))
    check_number(steps, "steps, generations or rounds", least=1, whole=True)
    check_number(shift, "shift", least=0, whole=True)
    check_number(noise, "noise", least=0)
    check_number(penalty, "penalty", least=0)
    check_number(seed, "seed", whole=True)


# ---- how much was found

def recognised(judge, x, y, people=None):
    """Whether the judge picks the right person out of a line-up, for each picture: bool [N].

    judge: x -> logits for all the people it knows, and last for "no portrait".  x: [N, C, H, W].  y: [N].
    people: how many stand in the line-up, the first ones that the judge knows; all by default. "No portrait" can always be said.
    """
    logits = predict(judge, x)
    people = logits.shape[1] - 1 if people is None else people
    check_number(people, "people", least=int(y.max()) + 1, most=logits.shape[1] - 1, whole=True)
    return torch.cat([logits[:, :people], logits[:, -1:]], 1).argmax(1) == y


def similarity(x, y, portraits):
    """How far each picture differs from the average face in the same way as the person does: the cosine of the two, [N], from -1 to 1.

    x: [N, C, H, W].  y: [N].  portraits: [K, C, H, W], the mean picture of each person.  About 0 for the average face of all.
    """
    middle = portraits.mean(0)
    return F.cosine_similarity((x - middle).flatten(1), (portraits - middle)[y].flatten(1))


def hours_needed(queries, per_hour, keys=1):
    """How long a rate limit makes somebody wait who has so many API keys: the hours after which the last query is answered."""
    for value, name in ((queries, "queries"), (per_hour, "per_hour"), (keys, "keys")):
        check_number(value, name, least=1, whole=True)
    return math.ceil(queries / (per_hour * keys)) - 1  # the first hour's share is answered at once


# ---- defences

def audit(records, *, window=24, images=500, share=0.5):
    """The keys that search rather than use, by a service's log: so many images in some `window` of hours, most of them of one label.

    records: audit_log.Records.  images, share: a key is reported once it has had `images` answers within the window and a `share` of
    them names the same class.  Returns {key id: the class it asks about}; a search over many classes at once stays below the share.
    """
    found, asked = {}, {}
    for record in records:
        kept = asked.setdefault(record.key, [])
        kept.extend((record.time, label) for label in record.labels)
        while kept and kept[0][0] <= record.time - 3600 * window:
            kept.pop(0)
        (common, times), *_ = Counter(label for _, label in kept).most_common(1) or [(None, 0)]
        if len(kept) >= images and times >= share * len(kept):
            found.setdefault(record.key, common)
    return found


def train_privately(model, x, y, *, epsilon=8.0, delta=1e-5, epochs=6, batch=256, clip=1.0, lr=0.01, seed=0, progress=True):
    """Train a copy of `model` by DP-SGD (victims/privacy.py): no single *picture* matters much, a person of many does.

    x [N, C, H, W] in [0, 1], y [N]: what is learnt.  epochs: passes over them, on average.
    The other arguments, and Private, which it returns, are those of `privacy.train_by_dp_sgd`.
    Raises ValueError for a budget, images or labels of the wrong kind, and ImportError without opacus.
    """
    check_images(x)
    check_labels(y, len(x))
    check_number(epochs, "epochs", least=1, whole=True)
    check_number(batch, "batch", least=1, most=len(x), whole=True)
    x, y = x.to(device_of(model)), y.to(device_of(model))
    return train_by_dp_sgd(model, lambda learner, index: F.cross_entropy(learner(x[index]), y[index], reduction="none"), len(x), epsilon=epsilon,
                           delta=delta, steps=epochs * -(-len(x) // batch), batch=batch, clip=clip, lr=lr, seed=seed, progress=progress)
