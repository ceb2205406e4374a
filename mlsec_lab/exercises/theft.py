"""Lesson 12: measure a copy, make one, choose what to ask; see who asks like a thief, and prove whose model it is."""
import functools
import math

import torch
import torch.nn.functional as F

from mlsec_lab.exercises import Exercise, advising, require, require_number, require_tensor
from mlsec_lab.victims import signs, small_cnn


def agreement(copy, ask, x):
    """How often a copy and its victim choose the same class.

    copy: a model, x -> logits [N, K].  ask: the victim, x -> answers [N, K].
    x: float32 [N, C, H, W] in [0, 1].
    Returns a float in [0, 1].
    """
    ### BEGIN SOLUTION
    with torch.no_grad():
        own = copy(x).argmax(dim=1)
    return (own == ask(x).argmax(dim=1)).float().mean().item()
    ### END SOLUTION


AGREEMENT = Exercise("theft.agreement", reference=agreement, difficulty=1, minutes=5, hints=[
    "Both give a row of numbers for each picture; the class is where the largest stands. The true class plays no part.",
    "`(a == b).float().mean().item()` is the share of places in which two tensors are equal.",
])


def copy_step(copy, optimizer, x, answers, temperature):
    """One step in which the copy learns to answer as the victim did.

    x: float32 [n, C, H, W].  answers: float32 [n, K], the logarithms of the victim's
    probabilities.  temperature: divide the answers by it, and the copy's logits.
    Changes the copy's weights and leaves it in train mode.
    Returns the loss, a float.
    """
    ### BEGIN SOLUTION
    copy.train()
    wanted = (answers / temperature).softmax(dim=1)
    loss = F.cross_entropy(copy(x) / temperature, wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION


COPY_STEP = Exercise("theft.copy_step", reference=copy_step, difficulty=3, minutes=15, hints=[
    "It is an ordinary training step whose target is a row of probabilities in place of a label. `F.cross_entropy(logits, probabilities)` takes such rows as they are.",
    "The logarithms of probabilities are logits: `(answers / temperature).softmax(dim=1)` are the victim's probabilities again, softened.",
    "The copy's side is `copy(x) / temperature`, without softmax: `F.cross_entropy` does that itself. Then `zero_grad`, `backward`, `step`.",
])


def choose(features, chosen, count):
    """Which pictures to ask about next: each time the one furthest from all chosen so
    far, the new ones among them.

    features: float32 [N, D], one row a picture.
    chosen: int64, the rows asked about already, at least one.
    Returns int64 [count], the new rows in the order in which they were chosen.
    """
    ### BEGIN SOLUTION
    nearest = torch.cdist(features, features[chosen]).amin(dim=1)
    new = []
    for _ in range(count):
        new.append(int(nearest.argmax()))
        reach = (features - features[new[-1]]).norm(dim=1)
        nearest = torch.minimum(nearest, reach)
    return torch.tensor(new)
    ### END SOLUTION


CHOOSE = Exercise("theft.choose", reference=choose, difficulty=3, minutes=15, hints=[
    "Keep one number for each picture: how far it is from the nearest chosen one. `torch.cdist(features, features[chosen])` has all distances, `.amin(dim=1)` the nearest.",
    "The next picture is where that number is largest: `.argmax()`.",
    "After each choice the numbers change: `torch.minimum(nearest, distance to the new one)`. What was chosen is then at distance 0 and is not taken again.",
])


def nearest_distances(x, labels):
    """How far each query is from the nearest *earlier* one that got the same answer.

    x: float32 [N, C, H, W], in the order in which they came.  labels: int64 [N].
    Returns float32 [M]: Euclidean distances between pictures, in that order; a query
    without such a predecessor has none.
    """
    ### BEGIN SOLUTION
    rows, distances = x.flatten(1), []
    for k in range(len(x)):
        earlier = rows[:k][labels[:k] == labels[k]]
        if len(earlier):
            distances.append((earlier - rows[k]).norm(dim=1).amin())
    return torch.stack(distances) if distances else torch.zeros(0)
    ### END SOLUTION


NEAREST_DISTANCES = Exercise("theft.nearest_distances", reference=nearest_distances, difficulty=2, minutes=10, hints=[
    "A picture is a row of numbers: `x.flatten(1)`. The length of a difference is `(a - b).norm(dim=1)`.",
    "Go through the queries in order. Those before number k are `[:k]`, and those among them with its answer are `labels[:k] == labels[k]`.",
    "Where there is none, go on without a number; else keep the smallest distance, `.amin()`, and `torch.stack` what you have kept.",
])


def p_value(model, triggers, secret):
    """How likely a model that knows nothing of the secret would name at least as many
    of its classes as `model` does.

    triggers: float32 [n, C, H, W].  secret: int64 [n], drawn evenly from the K classes.
    Returns a float in (0, 1].
    """
    ### BEGIN SOLUTION
    with torch.no_grad():
        logits = model(triggers)
    n, chance = len(secret), 1 / logits.shape[1]
    hits = int((logits.argmax(dim=1) == secret).sum())
    return sum(
        math.comb(n, k) * chance**k * (1 - chance) ** (n - k)
        for k in range(hits, n + 1)
    )
    ### END SOLUTION


P_VALUE = Exercise("theft.p_value", reference=p_value, difficulty=2, minutes=10, hints=[
    "Count the hits first. A model that guesses hits each trigger with a chance of 1/K, whatever the others do: the number of hits is binomial.",
    "*At least* so many: add up the probabilities of hits, hits + 1, …, n. Exactly k hits have `math.comb(n, k) * chance**k * (1 - chance)**(n - k)`.",
    "`scipy.stats.binom.sf(k, n, chance)` is the chance of *more than* k, so it wants hits - 1.",
])


# ---- what the properties look at

class _Table(torch.nn.Module):
    """A model whose answers are written down: the picture's first pixel says which row."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.training = rows, False

    def forward(self, x):
        return self.rows[(x[:, 0, 0, 0] * len(self.rows)).long()]


def _numbered(n):
    """Pictures that a _Table of n rows tells apart."""
    x = torch.full((n, 1, 2, 2), 0.5)
    x[:, 0, 0, 0] = (torch.arange(n) + 0.5) / n
    return x


def _rows(labels, classes, generator):
    """Logits whose largest is at `labels`."""
    return torch.rand(len(labels), classes, generator=generator).scatter(1, labels[:, None], 1.0 + torch.rand(len(labels), 1, generator=generator))


@AGREEMENT.property("is the share of pictures with the same class on both sides")
def _agreement_share(answer, seed):
    generator = torch.Generator().manual_seed(seed)
    for n, same in ((20, 13), (8, 8), (10, 0)):
        own = torch.randint(5, (n,), generator=generator)
        other = torch.where(torch.arange(n) < same, own, (own + 1) % 5)
        victim = _Table(_rows(other, 5, generator))
        with advising("Got: Bool", next_step="booleans have no mean: `.float()` before `.mean()`"):
            got = answer(_Table(_rows(own, 5, generator)), lambda x, victim=victim: victim(x), _numbered(n))
        require_number(got, what="the agreement")
        require(abs(float(got) - same / n) < 1e-6, expected=f"{same / n:g} where {same} of {n} classes are equal", got=f"{float(got):g}",
                next_step="compare the classes, `.argmax(dim=1)` of both, and take the mean over the pictures")


@AGREEMENT.property("takes labels for answers as well")
def _agreement_labels(answer, seed):
    generator = torch.Generator().manual_seed(seed)
    own = torch.randint(4, (12,), generator=generator)
    other = torch.where(torch.rand(12, generator=generator) < 0.5, own, (own + 1) % 4)
    victim = _Table(F.one_hot(other, 4).float())
    got = float(answer(_Table(_rows(own, 4, generator)), lambda x: victim(x), _numbered(12)))
    expected = (own == other).float().mean().item()
    require(abs(got - expected) < 1e-6, expected=f"{expected:g}, whatever else the numbers are", got=f"{got:g}",
            next_step="look only at where the largest number of a row stands, not at how large it is")


@AGREEMENT.property("asks the victim about each picture once")
def _agreement_queries(answer, seed):
    generator, asked = torch.Generator().manual_seed(seed), []
    rows = _rows(torch.randint(4, (10,), generator=generator), 4, generator)

    def ask(x):
        asked.append(len(x))
        return _Table(rows)(x)

    answer(_Table(rows), ask, _numbered(10))
    require(sum(asked) == 10, expected="10 queries for 10 pictures", got=f"{sum(asked)}",
            next_step="keep what `ask(x)` returned: each further question costs the attacker another query")


def _copying(step, seed, temperature, answers=None):
    """What one call makes of a fresh copy, in eval mode as it comes: (loss, the change of all weights, the copy, how many steps the optimizer took)."""
    x, given = _asked(seed)
    model, steps = small_cnn(classes=12, width=4, seed=seed), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    for p in model.parameters():
        p.grad = torch.full_like(p, 2.0)  # from an earlier batch: has to be cleared
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    loss = step(model, optimizer, x, given if answers is None else answers, temperature)
    return loss, torch.cat([p.detach().flatten() for p in model.parameters()]) - before, model, len(steps)


@functools.lru_cache(maxsize=8)
def _asked(seed):
    """Some pictures, and the logarithms of what somebody answered: sure of some, unsure of others."""
    x, _ = signs.draw(24, seed=seed)
    logits = 4 * torch.randn(24, 12, generator=torch.Generator().manual_seed(seed))
    return x, logits.log_softmax(1)


def _as_guarded(answer):
    return functools.partial(answer, changes=("copy", "optimizer"))


@COPY_STEP.property("returns the loss, and the copy learns: its weights change, in train mode")
def _copy_learns(answer, seed):
    with advising("does not require grad", next_step="call `copy(x)` itself, outside of `torch.no_grad()` and without `predict`: the loss must know which weights it came from"):
        loss, change, model, steps = _copying(_as_guarded(answer), seed, 2.0)
    require_number(loss, what="the loss")
    require(change.abs().max() > 0, expected="other weights than before", got="the same ones",
            next_step="`optimizer.zero_grad()`, `loss.backward()`, `optimizer.step()`: all three, in this order")
    require(steps == 1, expected="one step of the optimizer that was given", got=f"{steps} steps of it",
            next_step="call `optimizer.step()` of the argument `optimizer`; do not make one of your own" if not steps
            else "one step a call: the lesson calls your function for each batch")
    require(model.training, expected="the copy in train mode", got="eval mode", next_step="begin with `copy.train()`")


@COPY_STEP.property("moves the weights towards the victim's probabilities, not only towards its labels")
def _copy_direction(answer, seed):
    _, answers = _asked(seed)
    by_label = F.one_hot(answers.argmax(1), 12).float().clamp_min(1e-30).log()
    _, change, *_ = _copying(_as_guarded(answer), seed, 1.0)

    def close(step, answers=None):
        return _cosine(change, _copying(step, seed, 1.0, answers)[1])

    right = close(copy_step)
    nearest = max((right, ""), (close(copy_step, by_label), "use the whole row of probabilities as the target; `argmax` throws away all but the label"),
                  (close(copy_step, answers.exp()), "softmax of the logarithms gives the probabilities; do not take `exp` or softmax of it once more"),
                  (close(_other_step(softmax=True)), "no softmax on the copy's side: `F.cross_entropy` takes that of the copy's logits itself"),
                  (close(_other_step(clear=False)), "`optimizer.zero_grad()` before `loss.backward()`: gradients add up otherwise"),
                  (close(_other_step(training=False)), "`copy.train()` comes first, before `copy(x)`: in eval mode the copy gives other logits"),
                  (-right, "make the loss smaller, not larger: no minus sign before it"))
    require(right > 0.995, expected="the step of the cross-entropy with the victim's probabilities", got="a step in another direction",
            next_step=nearest[1] if nearest[0] > 0.9 and nearest[1] else "the target is `(answers / temperature).softmax(dim=1)`, and the loss `F.cross_entropy` of the copy's logits with it")


def _other_step(*, softmax=False, clear=True, training=True):
    """What learners write in place of copy_step, to tell it when we see it."""
    def step(model, optimizer, x, answers, temperature):
        model.train(training)
        logits = model(x) / temperature
        if clear:
            optimizer.zero_grad()
        F.cross_entropy(logits.softmax(1) if softmax else logits, (answers / temperature).softmax(1)).backward()
        optimizer.step()
    return step


def _cosine(a, b):
    return F.cosine_similarity(a, b, dim=0).item()


@COPY_STEP.property("softens both sides by the temperature")
def _copy_temperature(answer, seed):
    for temperature in (2.0, 5.0):
        _, change, *_ = _copying(_as_guarded(answer), seed, temperature)
        _, right, *_ = _copying(copy_step, seed, temperature)
        _, cold, *_ = _copying(copy_step, seed, 1.0)
        close = _cosine(change, right)
        require(close > 0.995, expected=f"the step that both sides at temperature {temperature:g} give", got="a step in another direction",
                next_step="divide by `temperature` before the softmax, the answers and the copy's logits alike: here it seems to play no part"
                if _cosine(change, cold) > 0.995 else "divide both by `temperature`: the answers before their softmax, and the copy's logits")


def _features(seed, n=40, dimensions=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dimensions, generator=generator), torch.randperm(n, generator=generator)[:3]


@CHOOSE.property("returns the numbers of `count` rows")
def _choose_rows(answer, seed):
    features, chosen = _features(seed)
    for count in (1, 6):
        with (advising("return_types", next_step="`.min(dim=1)` returns a pair: take its `.values`, or call `.amin(dim=1)`"),
              advising("must match the size", next_step="`torch.cdist(features, features[chosen])` has the distance of each row from each chosen one"),
              advising("cannot be concatenated", "no attribute 'append'", next_step="collect the new rows in a list, `new.append(int(...))`, and return `torch.tensor(new)`")):
            got = answer(features, chosen, count)
        require(not isinstance(got, torch.Tensor) or got.shape != (len(chosen) + count,), expected=f"{count} new rows", got=f"{len(chosen) + count} rows",
                next_step="return the new rows alone, without those of `chosen`")
        require_tensor(got, (count,), what="the new rows")
        require(not got.is_floating_point() and got.dtype != torch.bool, expected="row numbers, int64", got=str(got.dtype), next_step="collect the row numbers as whole numbers")


@CHOOSE.property("begins with the row that is furthest from the nearest chosen one")
def _choose_first(answer, seed):
    features, _ = _features(seed)
    along, across = F.one_hot(torch.tensor([0, 1]), 5)
    # The first five are chosen. The last row is near one of them and far from four, the one before it far from all; five more keep its number apart.
    special = torch.cat([torch.arange(8, 13)[:, None] * across, torch.stack([20 * across, 40 * along])])
    features, chosen = torch.cat([features[:3], torch.stack([30 * along, -30 * along]), features[3:], special]), torch.arange(5)
    got, best = int(answer(features, chosen, 1)[0]), torch.cdist(features, features[chosen]).amin(1)
    last = len(features) - 1
    says = {last: "a row is as far as the *nearest* of all chosen ones, `.amin(dim=1)`: not the furthest, the mean or the last of them; take the row where that is largest",
            last - 1 - len(chosen): "row numbers count in `features`, not in what is left of it without the chosen rows"}
    require(got == last - 1, expected=f"row {last - 1}, at distance {best.max():.2f} from what was chosen", got=f"row {got}, at distance {best[got]:.2f}",
            next_step=says.get(got) or "take the largest of the distances to the nearest chosen row: `.argmax()`")


@CHOOSE.property("takes none twice, and counts each new row as chosen before it takes the next")
def _choose_greedy(answer, seed):
    features, chosen = _features(seed)
    got = answer(features, chosen, 20)
    require_tensor(got, (20,), what="the new rows")
    again = len(set(got.tolist()) & set(chosen.tolist()))
    require(not again and len(set(got.tolist())) == 20, expected="20 different rows, none of them asked about before",
            got=f"{again} old ones and {20 - len(set(got.tolist()))} repeated",
            next_step="after each choice update the distances: `torch.minimum(nearest, distance to the new row)` makes its own distance 0")
    at_once = torch.cdist(features, features[chosen]).amin(1).topk(20).indices
    same_rows = lambda rows: set(got.tolist()) == set(rows.tolist())  # noqa: E731
    for k in range(20):
        left = torch.cdist(features, features[torch.cat([chosen, got[:k]])]).amin(1)
        require(left[got[k]] > left.max() - 1e-3, expected=f"as number {k + 1} a row at distance {left.max():.2f}", got=f"one at distance {left[got[k]]:.2f}",
                next_step="these are the right rows; return them in the order of choice" if same_rows(choose(features, chosen, 20))
                else "do not take the `count` furthest rows at once: choose one, update the distances, choose the next" if same_rows(at_once)
                else "each row keeps the smaller of its old distance and that to the row chosen last: `torch.minimum(nearest, (features - features[new[-1]]).norm(dim=1))`")


def _stream(seed, n=30):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 6, 6, generator=generator), torch.randint(4, (n,), generator=generator)


def _compare_distances(got, x, labels):
    rows, number = x.flatten(1), torch.arange(len(x))
    between = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    earlier = {k: number[:k][labels[:k] == labels[k]] for k in range(len(x)) if (labels[:k] == labels[k]).any()}

    def each(take):
        return torch.stack([take(k, between[k, before]) for k, before in earlier.items()])

    expected = each(lambda k, away: away.amin())
    smallest, pair = "of the distances to the earlier ones keep the smallest: `.amin()`", "one number a pair: the differences of flattened pictures, and of each its length, `.norm(dim=1)`"
    ordered = "keep the distances in the order of the queries"
    slips = [(each(lambda k, away: between[k, (labels == labels[k]) & (number != k)].amin()), "for query k look at `[:k]` alone: what comes later is not known yet"),
             (each(lambda k, away: between[k, :k].amin()), "keep to queries with the same answer: `labels[:k] == labels[k]`"),
             (each(lambda k, away: away[-1]), "measure the distance to every earlier picture with that answer, not only to the last of them"),
             (each(lambda k, away: away.mean()), smallest), (each(lambda k, away: away.sum()), smallest), (each(lambda k, away: away.amax()), smallest),
             (each(lambda k, away: away.square().sum().sqrt()), pair), (each(lambda k, away: (rows[earlier[k]] - rows[k]).norm(dim=0).amin()), pair),
             (expected.sort().values, ordered), (expected.flip(0), ordered)]
    require_tensor(got, expected.shape, what="the distances")
    off = (got - expected).abs().max()
    require(off < 1e-2, expected="the distances of a slow loop over all pairs", got=f"numbers up to {off:.2f} off",
            next_step=next((advice for wrong, advice in slips if (got - wrong).abs().max() < 1e-2), "")
            or "one number a pair: the root of the sum of squares over all pixels, `.norm(dim=1)` of flattened pictures; then the smallest of `[:k]`")


@NEAREST_DISTANCES.property("leaves out the first query of each answer, and no other")
def _distances_first(answer, seed):
    x, labels = _stream(seed)
    labels[:4] = torch.tensor([0, 0, 1, 1])  # so the nearest earlier one may be the one just before
    wanted = len(x) - len(labels.unique())
    with (advising("Expected reduction dim", next_step="there is no smallest of nothing: where no earlier query got the same answer, go on without a distance"),
          advising("at non-singleton dimension 3", next_step="make each picture a row of numbers first: `x.flatten(1)`")):
        got = answer(x, labels)
    require_tensor(got, got.shape if isinstance(got, torch.Tensor) and got.ndim == 1 else (wanted,), what="the distances")
    require(len(got) == wanted, expected=f"{wanted} distances for {len(x)} queries with {len(labels.unique())} different answers", got=f"{len(got)}",
            next_step="no query finds an earlier one: a dictionary looks for a tensor itself, not for its number, so use `int(label)`" if not len(got)
            else "the earlier queries are all of `[:k]`, from the first to the one just before: some were left out" if len(got) < wanted
            else "a query has a distance only if an earlier one, not itself, got the same answer: skip it otherwise")
    with advising("non-empty", expected="an empty tensor where no answer came twice", next_step="return `torch.zeros(0)` where there is nothing to stack"):
        alone = answer(x[:3], torch.tensor([0, 1, 2]))
    require(isinstance(alone, torch.Tensor) and len(alone) == 0, expected="an empty tensor where no answer came twice", got=str(alone)[:60],
            next_step="return `torch.zeros(0)` where there is nothing to stack")


@NEAREST_DISTANCES.property("looks at earlier queries alone, and keeps the distance to the nearest")
def _distances_earlier(answer, seed):
    x, labels = _stream(seed)
    labels = labels * 0
    x[-1] = x[0]  # whoever looks ahead finds the double already at the beginning
    _compare_distances(answer(x, labels), x, labels)


@NEAREST_DISTANCES.property("is the Euclidean distance to the nearest with the same answer, in order")
def _distances_exact(answer, seed):
    x, labels = _stream(seed)
    _compare_distances(answer(x, labels), x, labels)


def _marked(seed, n, hits, classes):
    generator = torch.Generator().manual_seed(seed)
    secret = torch.randint(classes, (n,), generator=generator)
    said = torch.where(torch.randperm(n, generator=generator) < hits, secret, (secret + 1) % classes)
    return _Table(_rows(said, classes, generator)), _numbered(n), secret


def _tail(n, hits, chance):
    return sum(math.comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(hits, n + 1))


@P_VALUE.property("is the chance of at least so many hits")
def _p_exact(answer, seed):
    for n, hits in ((20, 1), (20, 4), (15, 7)):
        with advising("interpreted as an integer", next_step="count the hits in whole numbers: `int(...)`"):
            got = answer(*_marked(seed, n, hits, 12))
        require_number(got, what="the p-value")
        got, expected = float(got), _tail(n, hits, 1 / 12)
        exactly = expected - _tail(n, hits + 1, 1 / 12)
        about = {exactly: "that is the chance of *exactly* so many hits: add those of more hits", expected - exactly: "that is the chance of *more* hits: begin with `hits` itself",
                 1 - expected: "that is the chance of fewer hits: take the upper tail", hits / n: "that is the share of hits: what is asked is how likely so many are by chance",
                 _tail(n, hits, 1 / n): "the chance of a hit is 1/K, not 1/n: K, the number of classes, is the length of a row of logits"}
        closest = min(about, key=lambda value: abs(value - got))
        require(abs(got - expected) < 1e-6 + 1e-4 * expected, expected=f"{expected:.4g} for {hits} hits of {n} among 12 classes", got=f"{got:.4g}",
                next_step=about[closest] if abs(closest - got) < 1e-6
                else "sum `math.comb(n, k) * chance**k * (1 - chance)**(n - k)` from `hits` to n, both included, with `chance = 1 / logits.shape[1]`")


@P_VALUE.property("is 1 for no hit, and tiny where every trigger hits")
def _p_extremes(answer, seed):
    got = float(answer(*_marked(seed, 20, 0, 12)))
    require(abs(got - 1) < 1e-6, expected="1: at least 0 hits are certain", got=f"{got:.4g}", next_step="the sum begins with `hits` itself, also where that is 0")
    got = float(answer(*_marked(seed, 20, 20, 12)))
    require(abs(math.log(max(got, 1e-300)) + 20 * math.log(12)) < 0.1, expected=f"1/12 to the power of 20, {12.0**-20:.2g}", got=f"{got:.2g}",
            next_step="the last term, n hits of n, is `chance**n`: do not leave it out, and do not subtract the sum from 1, which rounds such numbers to 0")


@P_VALUE.property("takes the chance of a hit from the number of classes")
def _p_classes(answer, seed):
    for classes in (2, 5, 43):
        got, expected = float(answer(*_marked(seed, 12, 4, classes))), _tail(12, 4, 1 / classes)
        require(abs(got - expected) < 1e-6 + 1e-4 * expected, expected=f"{expected:.4g} for 4 hits of 12 among {classes} classes", got=f"{got:.4g}",
                next_step="the chance is 1/K, and K is the length of a row of logits: `logits.shape[1]`")
