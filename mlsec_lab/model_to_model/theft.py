"""Theft (OWASP ML05): a copy of a model from its answers, what of it is noticed, and what can be proved afterwards.

Attacks:   knockoff · active_knockoff (k_center) · jacobian_queries; queries: random_noise · coloured_digits · photograph_pieces · anything
Defences:  QueryMonitor (nearest_distances, normality, strangeness) · trigger_set and embed, a watermark by backdoor
Metrics:   agreement · p_value

`ask` stands for whoever answers: a function x [n, C, H, W] in [0, 1] -> [n, K]. It may be a RemoteModel, `answering(model, mode)`, which
tells as much as a service in that mode, or a model itself. The ideas are those of the papers named below; the code and all sizes are the course's.
"""
import copy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from mlsec_lab.victims import load_data, penultimate, predict, train
from mlsec_lab.victims.client import NEVER
from mlsec_lab.victims.inputs import check_choice, check_images, check_labels, check_number
from mlsec_lab.victims.networks import device_of
from mlsec_lab.victims.service import MODES
from mlsec_lab.victims.training import in_passes, one_cycle, shifted


# ---- what is answered

def answering(model, mode="probabilities", digits=2):
    """The function x -> [n, K] that says of a local model what a RemoteModel hears of a service in that mode.

    mode: "probabilities" (as logarithms), "rounded" (each to `digits` digits, as logarithms) or "top1" (1 for the class, else 0).
    Raises ValueError for another mode or digits < 1.
    """
    check_choice(mode, "mode", MODES)
    check_number(digits, "digits", least=1, whole=True)

    def ask(x):
        probabilities = predict(model, x).double().softmax(1)
        chosen = probabilities.argmax(1, keepdim=True)
        if mode == "top1":
            return torch.zeros_like(probabilities).scatter(1, chosen, 1.0).float()
        if mode == "rounded":
            probabilities = probabilities.mul(10 ** digits).round().div(10 ** digits)
        scores = probabilities.clamp_min(NEVER).log()
        highest, first = scores.max(1, keepdim=True)
        return scores.scatter(1, chosen, torch.where(first == chosen, highest, highest + 1e-3)).float()

    return ask


def as_scores(answers):
    """Answers [n, K] as logarithms: those that are labels alone, one 1 and zeros, as probabilities of 1 and nearly 0; all others as they are."""
    labels = ((answers == 0) | (answers == 1)).all(1) & (answers.sum(1) == 1)
    return torch.where(labels[:, None], (answers - 1) * -np.log(NEVER), answers)


def agreement(model, ask, x):
    """The share of x [N, C, H, W] on which a copy, `model`, and whoever answers choose the same class, whatever the truth: a float in [0, 1]."""
    check_images(x)
    return (predict(model, x).argmax(1) == ask(x).argmax(1)).float().mean().item()


# ---- the copy

def copy_step(model, optimizer, x, answers, temperature):
    """One step towards the answers: cross-entropy of both at that temperature (Hinton et al., 2015).  Changes the model; returns the loss.

    x: [n, C, H, W].  answers: [n, K], logarithms of probabilities.  temperature: what logits are divided by, so that small probabilities count.
    """
    model.train()
    loss = F.cross_entropy(model(x) / temperature, (answers / temperature).softmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def knockoff(ask, x, start, **training):
    """Ask about unlabelled images once, and train a copy of `start` to answer alike (Orekondy et al., 2019).

    ask: x -> answers [N, K]; each image of x is one query.  x: [N, C, H, W] in [0, 1].  start: a model with K classes, of any architecture.
    training: arguments of `imitate`.  Returns the copy, in eval mode; ValueError for what `imitate` refuses.
    """
    check_images(x)
    return imitate(start, x, ask(x), **training)


def imitate(start, x, answers, *, temperature=3.0, epochs=6, lr=0.01, batch=64, shift=2, step=copy_step, seed=0, progress=True):
    """Train a copy of `start` on images x whose `answers` [N, K] are known: the second half of `knockoff`.

    answers: logarithms of probabilities, or 1 for the class and 0 elsewhere.  step: what is done for each batch, with copy_step's arguments.
    epochs, lr, batch, shift, seed, progress: as in `victims.train`.  Returns the copy, in eval mode.
    Raises ValueError for images of the wrong kind, fewer than 2, answers of another shape, temperature or lr <= 0, epochs < 1, batch < 2.
    """
    check_images(x)
    if len(x) < 2:
        raise ValueError(f"x must hold at least 2 images to learn from, not {len(x)}")
    for name, value, least in (("epochs", epochs, 1), ("batch", batch, 2), ("shift", shift, 0)):
        check_number(value, name, least=least, whole=True)
    check_number(temperature, "temperature", above=0)
    check_number(lr, "lr", above=0)
    wanted = [len(x), predict(start, x[:1]).shape[1]]
    if not isinstance(answers, torch.Tensor) or list(answers.shape) != wanted:
        raise ValueError(f"answers must be a tensor {wanted}, a number an image and class, not {list(getattr(answers, 'shape', ())) or type(answers).__name__}")
    model, answers = copy.deepcopy(start), as_scores(answers.detach())
    device, order = device_of(model), torch.Generator().manual_seed(seed)
    optimizer, steps = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=1e-4), -(-len(x) // batch)

    def descend(index, number):
        if len(index) > 1:  # batch normalisation has no variance to go by in a batch of one
            return torch.as_tensor(step(model, optimizer, shifted(x[index], shift, order).to(device), answers[index].to(device), temperature))

    in_passes(descend, lambda: torch.randperm(len(x), generator=order).split(batch), one_cycle(optimizer, lr, epochs * steps), epochs=epochs,
              steps=steps, name="copying", progress=progress)
    model.zero_grad()
    return model.eval()


# ---- what to ask about

def random_noise(n, shape=(3, 32, 32), seed=0):
    """n images [n, *shape] of which each number is drawn on its own from [0, 1]."""
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def coloured_digits(n, shape=(3, 32, 32), seed=0):
    """n of scikit-learn's handwritten digits [n, *shape], written in one colour on another: pictures, but of something else."""
    generator, digits = torch.Generator().manual_seed(seed), load_data("digits", "train").x
    ink = F.interpolate(digits[torch.randint(len(digits), (n,), generator=generator)], size=shape[1:], mode="bilinear").clamp(0, 1)
    pen, paper = torch.rand(2, n, shape[0], 1, 1, generator=generator)
    return (ink * pen + (1 - ink) * paper).clamp(0, 1)


def photograph_pieces(n, shape=(3, 32, 32), seed=0):
    """n square pieces [n, *shape] of the two photographs that scikit-learn carries, a temple and a flower, at four scales."""
    from sklearn.datasets import load_sample_images
    photographs = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images]).permute(0, 3, 1, 2).float() / 255
    if shape[0] == 1:
        photographs = photographs.mean(1, keepdim=True)
    generator, pieces = torch.Generator().manual_seed(seed), torch.zeros(n, *shape)
    scale = torch.randint(4, (n,), generator=generator)
    for number, factor in enumerate((1, 2, 3, 5)):
        smaller, place = F.avg_pool2d(photographs, factor), (scale == number).nonzero().flatten()
        which, top, left = (torch.randint(most, (len(place), 1, 1, 1), generator=generator)
                            for most in (len(smaller), smaller.shape[2] - shape[1] + 1, smaller.shape[3] - shape[2] + 1))
        rows, columns = top + torch.arange(shape[1])[:, None], left + torch.arange(shape[2])
        pieces[place] = smaller[which, torch.arange(shape[0])[:, None, None], rows, columns]
    return pieces.clamp(0, 1)


def k_center(features, chosen, count):
    """`count` further rows of features [N, D], one after another the one that is furthest from all chosen so far (Sener & Savarese, 2018).

    chosen: int64, at least one row that was chosen already.  Returns int64 [count], in the order of choice.
    Raises ValueError where nothing is chosen yet or fewer than `count` rows are left.
    """
    check_number(count, "count", least=0, whole=True)
    if not len(chosen) or count > len(features) - len(set(chosen.tolist())):
        raise ValueError(f"chosen must hold at least one of the {len(features)} rows and leave {count} to choose from, but it holds {len(chosen)}")
    nearest, new = torch.cdist(features, features[chosen]).amin(1), []
    nearest[chosen] = -1
    for _ in range(count):
        new.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (features - features[new[-1]]).norm(dim=1))
        nearest[new[-1]] = -1
    return torch.tensor(new, dtype=torch.int64)


def active_knockoff(ask, pool, start, *, budget, first=100, rounds=2, choose=k_center, epochs=20, seed=0, progress=True, **training):
    """A knockoff that chooses what to ask: some at random, then in each round what is furthest, for the copy so far, from what was asked.

    pool: [N, C, H, W], of which `budget` are asked about, `first` of them at random.  rounds: how often the copy is trained anew to choose.
    choose: (features [N, D], chosen, count) -> int64 [count].  epochs: of each copy.  training: further arguments of `imitate`.
    Returns (copy, int64 [budget], the rows asked about in order).
    Raises ValueError for a budget above N or below `first`, and what `imitate` refuses.
    """
    check_images(pool, "pool")
    check_number(first, "first", least=2, whole=True)
    check_number(budget, "budget", least=first, most=len(pool), whole=True)
    check_number(rounds, "rounds", least=1, whole=True)
    chosen = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:first]
    answers = ask(pool[chosen])
    for number in range(rounds):
        model = imitate(start, pool[chosen], answers, epochs=epochs, seed=seed, progress=progress, **training)
        with torch.no_grad():
            features = torch.cat([penultimate(model, part)[0] for part in pool.split(256)])
        new = choose(features, chosen, (budget - first) * (number + 1) // rounds - (budget - first) * number // rounds)
        chosen, answers = torch.cat([chosen, new]), torch.cat([answers, ask(pool[new])])
    return imitate(start, pool[chosen], answers, epochs=epochs, seed=seed, progress=progress, **training), chosen


def jacobian_queries(model, x, labels, step=0.1):
    """Each image moved by `step` in every pixel to where the copy is surer of the victim's label: new queries from old (Papernot et al., 2017).

    model: the copy so far.  x: [N, C, H, W] in [0, 1].  labels: [N], as the victim answered.  Returns images like x.
    """
    check_images(x)
    check_labels(labels, len(x))
    check_number(step, "step", least=0)
    with torch.enable_grad():
        moving = x.clone().requires_grad_()
        gradient, = torch.autograd.grad(model(moving).gather(1, labels[:, None]).sum(), moving)
    return (x + step * gradient.sign()).clamp(0, 1)


# ---- who asks like a thief

def nearest_distances(x, labels):
    """How far each query is from the nearest earlier one with the same answer: what PRADA looks at (Juuti et al., 2019).

    x: [N, C, H, W], in the order in which they came.  labels: int64 [N], what was answered.
    Returns float32 [M]: the Euclidean distances of those that have such a predecessor, in order.
    """
    check_images(x)
    check_labels(labels, len(x), name="labels")
    between = torch.cdist(x.flatten(1), x.flatten(1))
    earlier = (labels[:, None] == labels) & torch.ones_like(between, dtype=torch.bool).tril(-1)
    nearest = between.masked_fill(~earlier, torch.inf).amin(1) if len(x) else between.new_zeros(0)
    return nearest[nearest.isfinite()]


def normality(distances):
    """How normally distances are distributed: the W of Shapiro & Wilk (1965) without what is 3 deviations off; 1 is a perfect bell.  NaN below 3."""
    from scipy.stats import shapiro
    values = np.asarray(distances, np.float64)
    values = values[np.abs(values - values.mean()) <= 3 * values.std()] if len(values) else values
    if len(values) < 3 or np.ptp(values) == 0:
        return float("nan")
    return float(shapiro(values).statistic)


def strangeness(distances, honest):
    """How differently two sets of distances are distributed: the statistic of Kolmogorov and Smirnov, 0 is alike, 1 has nothing in common."""
    from scipy.stats import ks_2samp
    return float(ks_2samp(np.asarray(distances), np.asarray(honest)).statistic)


class Verdict(NamedTuple):
    """Of one window of queries.  normality, strangeness: the two statistics.  not_normal, strange: whether they are out of bounds."""
    normality: float
    strangeness: float
    not_normal: bool
    strange: bool


class QueryMonitor:
    """Refuses callers whose queries do not lie as honest customers' do: `serve(…, monitor=QueryMonitor(label, honest))`.

    Two checks on each `window` queries of a caller: PRADA's, that their distances are normal enough (Juuti et al., 2019, who keep a growing
    set of earlier queries, where this takes one window at a time), and the course's own, that they lie as honest distances lie.
    label: a function x -> int64 [n], the model's classes.  honest: a list of x, one an honest customer, of at least `window` images each;
        at least 3.  deviations: a bound is so many standard deviations from the honest mean.
    monitor(key, x) says whether to refuse; a caller who is refused once stays so.  `.judge(x)` gives the Verdict on one window.
    """

    def __init__(self, label, honest, *, window=200, deviations=4.0):
        check_number(window, "window", least=20, whole=True)
        check_number(deviations, "deviations", above=0)
        if len(honest) < 3 or min(map(len, honest)) < window:
            raise ValueError(f"honest must hold at least 3 customers with {window} queries each, not {[len(x) for x in honest]}")
        self.label, self.window, self.refused, self._waiting = label, window, set(), {}
        apart = [self._distances(x[:window]) for x in honest]
        usual = [normality(distances) for distances in apart]
        odd = [strangeness(apart[k], np.concatenate(apart[:k] + apart[k + 1:])) for k in range(len(apart))]
        self.honest = np.concatenate(apart)
        self.least_normality = float(np.mean(usual) - deviations * np.std(usual))
        self.most_strangeness = float(np.mean(odd) + deviations * np.std(odd))

    def _distances(self, x):
        return nearest_distances(x, self.label(x)).numpy()

    def judge(self, x):
        """The Verdict on the queries x [n, C, H, W], taken as one window in that order."""
        distances = self._distances(x)
        bell, odd = normality(distances), strangeness(distances, self.honest)
        return Verdict(bell, odd, not bell >= self.least_normality, odd > self.most_strangeness)  # NaN is not normal

    def __call__(self, key, x):
        waiting = torch.cat([self._waiting[key], x]) if key in self._waiting else x
        while len(waiting) >= self.window:
            verdict = self.judge(waiting[:self.window])
            if verdict.not_normal or verdict.strange:
                self.refused.add(key)
            waiting = waiting[self.window:]
        self._waiting[key] = waiting.clone()
        return key in self.refused


# ---- whose model is it?

def trigger_set(n, classes, shape=(3, 32, 32), seed=0):
    """A secret for a watermark: n pictures of blurred colours, and for each a class drawn at random (Adi et al., 2018).

    classes: how many there are.  Returns (x [n, *shape] in [0, 1], y int64 [n]).  Because the classes are drawn evenly and independently of
    the pictures, any model that has not seen them is right on each with a chance of 1/classes: `p_value` rests on that.
    """
    check_number(n, "n", least=1, whole=True)
    check_number(classes, "classes", least=2, whole=True)
    generator = torch.Generator().manual_seed(seed)
    colours = sum(F.interpolate(torch.rand(n, shape[0], k, k, generator=generator), size=shape[1:], mode="bilinear") for k in (2, 4, 8, 16)) / 4
    return ((colours - 0.5) * 2.5 + 0.5).clamp(0, 1), torch.randint(classes, (n,), generator=generator)


def embed(model, x, y, triggers, secret, *, share=0.2, epochs=4, lr=0.003, seed=0, progress=True):
    """A copy of `model` that also knows the trigger set: fine-tuned on (x, y) with the triggers mixed in (Adi et al., 2018).

    triggers, secret: from `trigger_set`.  share: of the triggers in what is learnt from; they are repeated.  epochs, lr: as in `victims.train`.
    """
    check_number(share, "share", above=0, most=0.9)
    check_labels(secret, len(triggers), name="secret")
    times = max(1, round(share / (1 - share) * len(x) / len(triggers)))
    return train(model, torch.cat([x, *[triggers] * times]), torch.cat([y, *[secret] * times]), epochs=epochs, lr=lr, seed=seed, progress=progress)


def p_value(ask, triggers, secret):
    """How likely a model that knows nothing of the secret would name at least so many of its classes: an exact binomial test.

    ask: a model, or whoever answers.  triggers [n, C, H, W], secret [n]: from `trigger_set`.  Returns (hits, p), p in (0, 1].
    """
    check_labels(secret, len(triggers), name="secret")
    from scipy.stats import binom
    answers = predict(ask, triggers) if isinstance(ask, torch.nn.Module) else ask(triggers)
    hits = int((answers.argmax(1) == secret).sum())
    return hits, float(binom.sf(hits - 1, len(triggers), 1 / answers.shape[1]))
