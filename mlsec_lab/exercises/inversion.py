"""Lesson 08: two attacks with and without the weights, one with labels alone, a measure, and a look into the log."""
import functools
import random

import torch
import torch.nn.functional as F
from torch import nn

from mlsec_lab.exercises import Exercise, NotYet, advising, require, require_images, require_number, require_tensor
from mlsec_lab.victims import predict
from mlsec_lab.victims.audit_log import Record


def invert(model, y, shape, steps, lr):
    """The pictures of which the model is surest: downhill on the loss, from grey.

    y: int64 [T], the wanted classes.  shape: of one picture, (C, H, W).
    Each picture begins at 0.5 everywhere. A step goes against the gradient of its
    cross-entropy, by the L2 length `lr`, and then back into [0, 1].
    Returns float32 [T, C, H, W].
    """
    ### BEGIN SOLUTION
    x = torch.full((len(y), *shape), 0.5)
    for _ in range(steps):
        x = x.requires_grad_()
        loss = F.cross_entropy(model(x), y, reduction="sum")
        gradient, = torch.autograd.grad(loss, x)
        length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
        x = (x.detach() - lr * gradient / length[:, None, None, None]).clamp(0, 1)
    return x
    ### END SOLUTION


INVERT = Exercise("inversion.invert", reference=invert, difficulty=2, minutes=12, hints=[
    "It is targeted FGSM from lesson 01 in a loop, without a budget and from grey: `torch.full((len(y), *shape), 0.5)`.",
    "Take `reduction=\"sum\"`, so that a picture's gradient does not depend on how many others there are.",
    "Each picture has its own length: `gradient.flatten(1).norm(dim=1)` is [T]; `[:, None, None, None]` makes it divide pictures. Keep it from being 0 with `.clamp(min=1e-12)`.",
])


def recognition_rate(logits, y, people):
    """How often the judge picks the right person out of a line-up.

    logits: float32 [N, K + 1], the judge's scores for the K people that it knows, and
    in the last column for "no portrait".  y: int64 [N], the right person.
    people: so many stand in the line-up, those of the first columns. The judge takes
    one of them, or says "no portrait"; the others it cannot take.
    Returns a float in [0, 1].
    """
    ### BEGIN SOLUTION
    choices = torch.cat([logits[:, :people], logits[:, -1:]], dim=1)
    return (choices.argmax(dim=1) == y).float().mean().item()
    ### END SOLUTION


RECOGNITION_RATE = Exercise("inversion.recognition_rate", reference=recognition_rate, difficulty=1, minutes=6, hints=[
    "Keep the columns that the judge may choose from: the first `people`, and the last.",
    "`torch.cat([logits[:, :people], logits[:, -1:]], dim=1)`; then `argmax` as always. The last column is then number `people`, which is nobody's.",
])


def search(score, start, generations, population, elite, width, seed=0):
    """An evolution strategy: look around, keep the mean of the best, look closer.

    score: takes float32 [population, k], returns [population], the higher the better.
    start: [k].  In each generation `population` points are drawn around the centre,
    normally, with the standard deviation `width`; the mean of the `elite` best is the
    next centre, and `width` shrinks by a twentieth.  seed: of all that is drawn.
    Returns the last centre, [k].
    """
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    centre = start
    for _ in range(generations):
        noise = torch.randn(population, len(start), generator=generator)
        points = centre + width * noise
        best = score(points).topk(elite).indices
        centre = points[best].mean(dim=0)
        width = 0.95 * width
    return centre
    ### END SOLUTION


SEARCH = Exercise("inversion.search", reference=search, difficulty=3, minutes=15, hints=[
    "One generator before the loop: `torch.Generator().manual_seed(seed)`. Inside, `torch.randn(population, len(start), generator=generator)`.",
    "Ask once a generation, for all points together: every row that you hand to `score` is a query that somebody counts.",
    "`score(points).topk(elite).indices` are the rows of the best. Only their order counts, so the scale of the scores does not matter.",
])


def repel(is_person, centre, radius, sphere, seed=0):
    """One step away from the boundary, with nothing but yes and no.

    is_person: takes faces, float32 [sphere, k], returns bool [sphere].  centre: [k].
    `sphere` faces are asked about, in random directions, all at distance `radius`.
    Returns centre - radius / 2 * the mean direction (of length 1 each) of those that
    are not the person; the centre itself where all of them are.
    """
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(sphere, len(centre), generator=generator)
    u = u / u.norm(dim=1, keepdim=True)
    out = ~is_person(centre + radius * u)
    if not out.any():
        return centre
    return centre - radius / 2 * u[out].mean(dim=0)
    ### END SOLUTION


REPEL = Exercise("inversion.repel", reference=repel, difficulty=3, minutes=12, hints=[
    "A random direction: normal numbers, divided by their length, `u / u.norm(dim=1, keepdim=True)`.",
    "`out = ~is_person(centre + radius * u)` says which rows left the person. Their mean direction, `u[out].mean(dim=0)`, points to the boundary.",
    "The mean of no rows is NaN: return the centre first where `out.any()` is False.",
])


def suspects(records, images, share):
    """The callers who ask about one person again and again, by the service's log.

    records: a list; each has a .key and the .labels that were answered, a tuple of one
    name an image, empty where the request was refused.
    Returns {key: name} of every key that got at least `images` answers, of which at
    least the share `share` is one and the same name.
    """
    ### BEGIN SOLUTION
    answers = {}
    for record in records:
        answers.setdefault(record.key, []).extend(record.labels)
    found = {}
    for key, names in answers.items():
        common = max(set(names), key=names.count, default=None)
        if len(names) >= images and names.count(common) >= share * len(names):
            found[key] = common
    return found
    ### END SOLUTION


SUSPECTS = Exercise("inversion.suspects", reference=suspects, difficulty=2, minutes=10, hints=[
    "First collect: a dict from key to the list of all names that it was answered. `answers.setdefault(record.key, []).extend(record.labels)` does it.",
    "The commonest name of a list: `max(set(names), key=names.count)`; give it `default=None` for a key that was only ever refused. Or take `collections.Counter`.",
])


# ---- what the properties look at

@functools.lru_cache(maxsize=8)
def _network(seed):
    """A small random network, smooth enough for every class to be within reach from grey."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 24), nn.Tanh(), nn.Linear(24, 5)).eval()
    with torch.no_grad():
        for parameter, size in zip(model.parameters(), (0.15, 0.1, 1.0, 0.1)):
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
        model[1].bias.sub_(model[1].weight.sum(1) / 2)  # so that grey is in the middle of each unit's range
    return model


def _wanted(seed, n=4):
    return torch.randint(5, (n,), generator=torch.Generator().manual_seed(seed))


@INVERT.property("gives a picture for each class, within [0, 1], and grey without a step")
def _invert_shape(answer, seed):
    y = _wanted(seed)
    with (advising("NoneType", next_step="only a leaf keeps its `.grad`: begin each round with `x = x.detach().requires_grad_()`, or take `torch.autograd.grad(loss, x)`"),
          advising("does not require grad", next_step="say that the picture wants a gradient, `x.requires_grad_()`, before you ask the model"),
          advising("in-place operation", next_step="make a new picture, `x = x.detach() - ...`, in place of changing the one that gradients were taken at")):
        x = answer(_network(seed % 5), y.clone(), (2, 8, 8), 3, 0.5)
    require_images(x, torch.empty(4, 2, 8, 8), what="x")
    grey = answer(_network(seed % 5), y.clone(), (2, 8, 8), 0, 0.5)
    require_images(grey, torch.empty(4, 2, 8, 8), what="x")
    require((grey == 0.5).all(), expected="0.5 in every pixel after 0 steps", got=f"pixels from {grey.min():.3f} to {grey.max():.3f}",
            next_step="begin with `torch.full((len(y), *shape), 0.5)`: a random start hides what the model puts there")


@INVERT.property("moves each picture by the length `lr` a step, however many there are")
def _invert_length(answer, seed):
    y, model = _wanted(seed), _network(seed % 5)
    for lr in (0.05, 0.4):
        x = answer(model, y.clone(), (2, 8, 8), 1, lr)
        require_images(x, torch.empty(4, 2, 8, 8), what="x")
        moved = (x - 0.5).flatten(1).norm(dim=1)
        require((moved - lr).abs().max() < 0.02 * lr, expected=f"each of the 4 pictures {lr} away from grey after one step", got=", ".join(f"{length:.3f}" for length in moved),
                next_step="divide each picture's gradient by its own L2 length, `gradient.flatten(1).norm(dim=1)`, and multiply by `lr`")
    together = answer(model, y.clone(), (2, 8, 8), 5, 0.2)
    alone = torch.cat([answer(model, y[k:k + 1].clone(), (2, 8, 8), 5, 0.2) for k in range(4)])
    require((together - alone).abs().max() < 1e-3, expected="the same picture, alone or beside others", got=f"a difference of {(together - alone).abs().max():.3f}",
            next_step="sum the loss over the pictures, and take the length of each gradient on its own")


@INVERT.property("makes the model sure of the wanted class")
def _invert_effect(answer, seed):
    y, model = _wanted(seed, 6), _network(seed % 5)
    before = predict(model, torch.full((1, 2, 8, 8), 0.5)).softmax(1)[0, y]
    x = answer(model, y.clone(), (2, 8, 8), 30, 0.3)
    require_images(x, torch.empty(6, 2, 8, 8), what="x")
    after = predict(model, x).softmax(1).gather(1, y[:, None])[:, 0]
    require(after.min() > 0.9, expected="a probability above 90 % of each wanted class after 30 steps", got=f"{after.min():.0%} of one that began at {before[after.argmin()]:.0%}",
            next_step="go against the gradient of the cross-entropy with y: minus, the loss has to fall" if after.mean() < before.mean()
            else "take the gradient anew in each step, at the present picture, and begin each round with `x.detach()`")


@INVERT.property("goes down step by step, each from where the last one ended, within [0, 1]")
def _invert_steps(answer, seed):
    y, model = _wanted(seed), _network(seed % 5)
    for steps in (2, 5):  # long steps: they turn, and they leave [0, 1]
        got, right = (function(model, y.clone(), (2, 8, 8), steps, 4.0) for function in (answer, invert))
        apart = (got - right).flatten(1).norm(dim=1).max().item()
        require(apart < 0.02, expected=f"the reference's pictures after {steps} steps of length 4", got=f"pictures that are {apart:.2f} away from them",
                next_step="in each step: the gradient anew at the present picture, a `.grad` that begins with nothing where you take `.backward()`, and `.clamp(0, 1)`; none of them once for all steps")


def _verdicts(seed, n=40, known=30):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(10, (n,), generator=generator)
    logits = torch.randn(n, known + 1, generator=generator)
    logits[torch.arange(n), y] += 1.5
    return logits, y


@RECOGNITION_RATE.property("counts those whom the judge picks among the people of the line-up")
def _rate_lineup(answer, seed):
    logits, y = _verdicts(seed)
    logits -= 10  # only the order counts, so a 0 is no small score here
    logits[:, -1] -= 9
    for people in (10, 17, 30):
        _require_rate(answer(logits.clone(), y.clone(), people), (logits[:, :people].argmax(1) == y).float().mean().item(), logits, y, people)


@RECOGNITION_RATE.property("counts no picture that the judge calls no portrait")
def _rate_nothing(answer, seed):
    logits, y = _verdicts(seed)
    logits[::2, -1] += 9
    for people in (10, 25):
        kept = torch.cat([logits[:, :people], logits[:, -1:]], 1)
        _require_rate(answer(logits.clone(), y.clone(), people), (kept.argmax(1) == y).float().mean().item(), logits, y, people)


@RECOGNITION_RATE.property("is 0 where the judge sees nobody, and 1 where it sees each person")
def _rate_ends(answer, seed):
    logits, y = _verdicts(seed)
    for place, expected in ((-1, 0.0), (y, 1.0)):
        sure = logits.clone()
        sure[torch.arange(len(y)), place] = 20.0
        _require_rate(answer(sure, y.clone(), 12), expected, sure, y, 12)


def _require_rate(got, expected, logits, y, people):
    require_number(got, what="the rate")
    got, n = float(got), len(y)
    near = lambda other: abs(got - other.float().mean().item()) < 1e-4  # noqa: E731
    step = ("give a share from 0 to 1, not a number of pictures" if abs(got - expected * n) < 1e-3 and expected else
            "only the first `people` columns stand in the line-up: leave the others out" if near(logits.argmax(1) == y) else
            "\"no portrait\", the last column, can always be said: put it beside the line-up" if near(logits[:, :people].argmax(1) == y) else
            "take the first `people` columns and the last one, and compare the largest of them with y; a score of 0 may be the largest, so leave the others out")
    require(abs(got - expected) < 1e-4, expected=f"{expected:.3f} with {people} people in the line-up", got=f"{got:.3f}", next_step=step)


class _Scored:
    """A score that remembers what it was asked: a hill of any scale around a goal."""

    def __init__(self, seed, k=6, bend=lambda value: value):
        self.goal = 2 * F.normalize(torch.randn(k, generator=torch.Generator().manual_seed(seed + 1)), dim=0)
        self.bend, self.asked = bend, []

    def __call__(self, c):
        require(isinstance(c, torch.Tensor) and c.ndim == 2 and c.shape[1] == len(self.goal), expected=f"`score` asked with a tensor [population, {len(self.goal)}]",
                got=f"shape {list(c.shape)}" if isinstance(c, torch.Tensor) else type(c).__name__, next_step="hand all points of a generation to `score` together")
        self.asked.append(c.detach().clone())
        return self.bend(-(c - self.goal).square().sum(1))


def _search(answer, score, generations=12, population=30, elite=8, width=0.5, seed=0):
    k = len(score.goal)
    found = answer(score, torch.zeros(k), generations, population, elite, width, seed=seed)
    require_tensor(found, (k,), what="the centre")
    return found


@SEARCH.property("asks `population` times a generation, around the centre, with the stated width")
def _search_asks(answer, seed):
    score = _Scored(seed, k=40)
    _search(answer, score, 9, 400, 10, 0.7, seed)
    asked = torch.cat(score.asked) if score.asked else torch.empty(0, 40)
    require(len(asked) == 3600, expected="3,600 queries for 9 generations of 400", got=f"{len(asked):,}", next_step="ask about each point once, and about nothing else")
    require(len(score.asked) == 9, expected="one call of `score` a generation", got=f"{len(score.asked)} calls", next_step="hand all points of a generation to `score` together")
    first, second = asked[:400], asked[400:800]
    require(abs(first.std() / 0.7 - 1) < 0.025, expected="the first points around the start, with the standard deviation 0.70", got=f"{first.std():.2f}",
            next_step="a point is `centre + width * torch.randn(...)`, and `width` shrinks after it, not before")
    noise = second - second.mean(0)
    require(abs(noise.std() / (0.7 * 0.95) - 1) < 0.025, expected="the second generation with the standard deviation 0.66 or 0.67", got=f"{noise.std():.2f}",
            next_step="shrink `width` by a twentieth, and no more, after each generation: `width = 0.95 * width`")
    last = asked[-400:] - asked[-400:].mean(0)
    require(abs(last.std() / (0.7 * 0.95 ** 8) - 1) < 0.025, expected="the ninth generation with the standard deviation 0.46 or 0.47", got=f"{last.std():.2f}",
            next_step="shrink by a twentieth of what `width` is by then: `width = 0.95 * width`")
    require(F.cosine_similarity((first - first.mean(0)).flatten(), noise.flatten(), dim=0) < 0.5, expected="other directions in each generation", got="the same ones again",
            next_step="make the generator once, before the loop, and draw inside it: a generator that is made in each round, or noise that is drawn before, gives the same again")
    centre = first[score.bend(-(first - score.goal).square().sum(1)).topk(10).indices].mean(0)
    off = (second.mean(0) - centre).norm() / 40 ** 0.5
    require(off < 0.1, expected="the second generation around the mean of the 10 best of the first", got=f"points {off:.2f} away from it in each direction",
            next_step="draw around the new centre, not around the start" if second.mean(0).norm() < 0.3 * centre.norm() else "the next centre is the mean of the rows `score(points).topk(elite).indices`, all `elite` of them: high scores are good")


@SEARCH.property("returns the plain mean of the `elite` best of its last generation")
def _search_mean(answer, seed):
    for generations, elite in ((1, 4), (2, 3), (7, 5)):
        score = _Scored(seed)
        found = _search(answer, score, generations, 20, elite, 0.5, seed)
        last = score.asked[-1] if score.asked else torch.empty(0, 6)
        require(len(last) >= elite, expected="points that `score` was asked about", got=f"{len(last)}", next_step="hand all points of a generation to `score` together")
        best = last[score.bend(-(last - score.goal).square().sum(1)).topk(elite).indices].mean(0)
        require((found - best).norm() < 1e-4, expected=f"after generation {generations} the mean of its {elite} best points", got=f"a point {(found - best).norm():.2f} away",
                next_step="`points[best].mean(dim=0)` of exactly `elite` points of this generation: no earlier ones, not the best one alone, no weights")


@SEARCH.property("climbs: the score at the centre rises")
def _search_climbs(answer, seed):
    score = _Scored(seed)
    found = _search(answer, score, seed=seed)
    left = (found - score.goal).norm().item()
    require(left < 0.6, expected="a centre within 0.6 of the hill's top after 12 generations, from 2.0", got=f"{left:.2f}",
            next_step="the highest scores are the best: `topk(elite)`" if left > 2 else "go on from the new centre in each generation")


@SEARCH.property("returns the start without a generation, and draws from the seed")
def _search_seed(answer, seed):
    start = _search(answer, _Scored(seed), generations=0)
    require((start == 0).all(), expected="the start after 0 generations", got=f"a centre {start.norm():.2f} away", next_step="set `centre = start` before the loop and return it after")
    first, again, other = (_search(answer, _Scored(seed), seed=s) for s in (seed, seed, seed + 1))
    require(torch.equal(first, again), expected="the same centre for the same seed", got="two different ones", next_step="draw from `torch.Generator().manual_seed(seed)`")
    require(not torch.equal(first, other), expected="another centre for another seed", got="the same", next_step="give the generator the argument `seed`")


@SEARCH.property("goes by the order of the scores alone")
def _search_order(answer, seed):
    plain, bent = _Scored(seed), _Scored(seed, bend=lambda value: 1e3 * value - 7)
    first, second = _search(answer, plain, seed=seed), _search(answer, bent, seed=seed)
    require(torch.allclose(first, second, atol=1e-4), expected="the same centre where every score is 1,000 times as large, less 7", got=f"one {(first - second).norm():.2f} away",
            next_step="do not weight by the scores themselves: the plain mean of the `elite` best")


class _Land:
    """Yes on one side of a flat boundary, at some distance from the origin; remembers what it was asked."""

    def __init__(self, seed, k=12, distance=0.3):
        self.normal = F.normalize(torch.randn(k, generator=torch.Generator().manual_seed(seed + 5)), dim=0)
        self.distance, self.asked = distance, []

    def __call__(self, c):
        require(isinstance(c, torch.Tensor) and c.ndim == 2 and c.shape[1] == len(self.normal), expected=f"`is_person` asked with a tensor [sphere, {len(self.normal)}]",
                got=f"shape {list(c.shape)}" if isinstance(c, torch.Tensor) else type(c).__name__, next_step="hand all faces of the sphere over together")
        self.asked.append(c.detach().clone())
        return c @ self.normal < self.distance


def _repel(answer, land, centre, radius, sphere, seed):
    moved = answer(land, centre.clone(), radius, sphere, seed=seed)
    require_tensor(moved, centre.shape, what="the new centre")
    return moved


@REPEL.property("stays where it is while every face of the sphere is the person")
def _repel_stays(answer, seed):
    centre = torch.randn(12, generator=torch.Generator().manual_seed(seed))
    with advising("Boolean value", next_step="`~` turns a tensor of booleans round; `not` asks a single one"):
        moved = answer(_Land(seed, distance=torch.inf), centre.clone(), 1.0, 20, seed=seed)
    require(isinstance(moved, torch.Tensor) and not moved.isnan().any(), expected="the centre where nothing is out", got="NaN" if isinstance(moved, torch.Tensor) else type(moved).__name__,
            next_step="the mean of no rows is NaN: return `centre` where `out.any()` is False")
    require_tensor(moved, (12,), what="the new centre")
    require(torch.allclose(moved, centre), expected="the centre where nothing is out", got=f"a point {(moved - centre).norm():.2f} away",
            next_step="only those that are *not* the person push")


@REPEL.property("asks about `sphere` faces, all at distance `radius`")
def _repel_asks(answer, seed):
    centre = torch.randn(12, generator=torch.Generator().manual_seed(seed))
    for radius, sphere in ((0.5, 30), (3.0, 7)):
        land = _Land(seed)
        _repel(answer, land, centre, radius, sphere, seed)
        asked = torch.cat(land.asked) if land.asked else torch.empty(0, 12)
        require(len(asked) == sphere, expected=f"{sphere} queries", got=f"{len(asked)}", next_step="ask about each face of the sphere once, and about nothing else")
        require(len(land.asked) == 1, expected="one call of `is_person`", got=f"{len(land.asked)} calls", next_step="hand all faces of the sphere over together")
        away = (asked - centre).norm(dim=1)
        require((away - radius).abs().max() < 0.01 * radius, expected=f"every face {radius} away from the centre", got=f"distances from {away.min():.2f} to {away.max():.2f}",
                next_step="divide each direction by its length, `u.norm(dim=1, keepdim=True)`, then ask about `centre + radius * u`")
    land = _Land(seed)
    _repel(answer, land, centre, 1.0, 200, seed)
    lean = (land.asked[0] - centre).mean(0).norm().item()
    require(lean < 0.3, expected="directions to all sides, which nearly cancel in the mean", got=f"a mean direction of length {lean:.2f}",
            next_step="draw with `torch.randn`, which has both signs; `torch.rand` has one")


@REPEL.property("steps away from the mean direction of those that are out")
def _repel_moves(answer, seed):
    for radius, sphere, distance in ((1.0, 40, 0.3), (2.5, 200, 0.3), (1.0, 30, -torch.inf)):
        land, centre = _Land(seed, distance=distance), torch.zeros(12)
        moved = _repel(answer, land, centre, radius, sphere, seed)
        asked = torch.cat(land.asked)
        u, out = asked / radius, asked @ land.normal >= land.distance
        if not out.any():
            continue
        expected = centre - radius / 2 * u[out].mean(0)
        mean_all = -radius / 2 * (u * out[:, None]).mean(0)
        near = lambda other: (moved - other).norm() < 0.02 * radius  # noqa: E731
        step = ("return the centre only where *no* face is out: `if not out.any()`" if near(centre) else
                "the mean of directions of length 1 is shorter than 1: leave it so" if near(expected / expected.norm() * radius / 2) else
                "away from the boundary: minus the mean direction of those that are out" if near(-expected) or near(-2 * expected) else
                "average over those that are out alone, `u[out].mean(dim=0)`; those inside do not count" if near(mean_all) else
                "push away from those that are not the person: `out = ~is_person(...)`" if near(-radius / 2 * u[~out].mean(0)) or near(radius / 2 * u[~out].mean(0)) else
                "the step is `radius / 2` times the mean of directions of length 1" if F.cosine_similarity(moved, expected, dim=0) > 0.99 else
                "from the centre take away `radius / 2 * u[out].mean(dim=0)`")
        require((moved - expected).norm() < 0.01 * radius, expected=f"a step of length {expected.norm():.3f} away from {int(out.sum())} of {sphere} faces",
                got=f"one of length {moved.norm():.3f}, {(moved - expected).norm():.3f} off", next_step=step)


@REPEL.property("draws its directions from the seed")
def _repel_seed(answer, seed):
    first, again, other = (_repel(answer, _Land(seed), torch.zeros(12), 1.0, 40, s) for s in (seed, seed, seed + 1))
    require(torch.equal(first, again), expected="the same step for the same seed", got="two different ones", next_step="draw from `torch.Generator().manual_seed(seed)`")
    require(not torch.equal(first, other), expected="other directions for another seed", got="the same", next_step="give the generator the argument `seed`")


NAMES = ("Ash", "Brook", "Cliff", "Dale", "Elm", "Field")


def _log(seed):
    """Records of six keys: who searches, nearly searches, uses the door, asks little, asks about one half the time, is refused."""
    draw = random.Random(seed)
    target = draw.choice(NAMES)
    answers = {"search": [target] * 70 + [draw.choice(NAMES) for _ in range(30)], "door": [NAMES[place % 6] for place in range(150)],
               "little": [target] * 20, "close": [target] * 60 + [name for name in NAMES if name != target] * 8 + [NAMES[NAMES.index(target) - 1]], "half": [target] * 60 + [NAMES[(NAMES.index(target) + 1 + place % 5) % 6] for place in range(60)]}
    refusals = {"refused": 200, "search": 60, "little": 200}
    records = [Record(float(draw.randrange(9000)), key, 1, 429, (), "the limit is used up") for key, times in refusals.items() for _ in range(times)]
    for key, names in answers.items():
        draw.shuffle(names)
        while names:
            part = names[:draw.randint(1, 7)]
            names = names[len(part):]
            records.append(Record(float(draw.randrange(9000)), key, len(part), 200, tuple(part), ""))
    return target, sorted(records)


def _found(value):
    require(isinstance(value, dict), expected="a dict {key: name}", got=type(value).__name__, next_step="return a dict from each suspect's key to the name")
    return dict(value)


@SUSPECTS.property("names the key that asks about one person, and the person")
def _suspects_search(answer, seed):
    target, records = _log(seed)
    with (advising("list index", "ZeroDivision", "ValueError", next_step="a key that was only refused has no names: pass it over before you look for the commonest"),
          advising("tuple index", next_step="`.labels` has one name an image, and none where the request was refused: take all of them, `.extend(record.labels)`")):
        got = _found(answer(list(records), 100, 0.6))
    require("search" in got, expected="the key whose 100 answers name one person at least 70 times", got=f"{sorted(got, key=str) or 'nobody'}",
            next_step="the keys of the dict are those of the callers, and the names its values" if target in got
            else "put the labels of all requests of a key together before you count: a request carries a few images, a refused one none; and `images` is about all answers of a key, exactly so many count too")
    require(got["search"] == target, expected=f"the name {target!r}", got=f"{got['search']!r}", next_step="give the commonest name, `max(set(names), key=names.count)`, not its count or share")


@SUSPECTS.property("leaves alone who asks about everybody, who asks little, and who was refused")
def _suspects_others(answer, seed):
    _, records = _log(seed)
    got = _found(answer(list(records), 100, 0.6))
    extra = set(got) - {"search"}
    steps = {"door": "the share has to be reached: compare the count of the commonest name with `share` times all answers of the key",
             "little": "below `images` answers nobody is a suspect", "refused": "a refused request has no labels: count answers, not requests",
             "half": "the share has to be reached: compare the count of the commonest name with `share` times all answers of the key",
             "close": "60 of 101 are less than 0.6 of them: compare with `share * len(names)` as it is, without rounding"}
    for key in sorted(extra, key=lambda key: [*steps, key].index(key)):
        raise NotYet("one suspect, \"search\"", f"also {key!r}", steps.get(key, "the keys are those of the records"))


@SUSPECTS.property("counts from the share and the number on, not above them")
def _suspects_edges(answer, seed):
    target, records = _log(seed)
    for images, share, expected in ((120, 0.5, {"half"}), (121, 0.1, {"door"}), (20, 1.0, {"little"}), (100, 0.5, {"search", "half", "close"})):
        got = set(_found(answer(list(records), images, share)))
        require(got == expected, expected=f"{sorted(expected)} for images = {images} and share = {share}", got=f"{sorted(got, key=str) or 'nobody'}",
                next_step="`at least` on both sides: `>=` for the number and for the share")


@SUSPECTS.property("finds nobody in an empty log")
def _suspects_empty(answer, seed):
    got = _found(answer([], 100, 0.5)) or _found(answer([Record(0.0, "refused", 1, 429, (), "no")], 1, 0.5))
    require(got == {}, expected="{}", got=f"{got}", next_step="a key that was only refused got no answer: keep its empty list from counting")
