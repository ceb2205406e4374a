"""Lesson 04: a target, the poison that leads there, the picture that carries it, the screening that looks for it."""
import functools

import torch

from mlsec_lab.data_to_model.features import gradient
from mlsec_lab.exercises import Exercise, advising, require, require_images, require_number, require_tensor
from mlsec_lab.victims import load_model, predict, signs
from mlsec_lab.victims.self_supervised import as_head, flat, train_head

DECAY = 1e-3


def gradpc(head, features, y, radius, steps=40):
    """Stage 1: a worse head near a trained one, by ascent on the training loss.

    head: nn.Linear.  features: [N, D].  y: [N].  radius: how far the parameters may go.
    Given: flat(head) is the matrix w [K, D + 1] of weights and biases, as_head(w) the
    way back, gradient(w, features, y) the gradient of the mean cross-entropy at w.
    Each step goes 2.5 * radius / steps uphill, whatever the gradient's length, and ends
    within `radius` (L2, all parameters together) of where the first one began.
    Returns a new nn.Linear.
    """
    ### BEGIN SOLUTION
    start = w = flat(head)
    for _ in range(steps):
        uphill = gradient(w, features, y)
        w = w + 2.5 * radius / steps * uphill / uphill.norm()
        change = w - start
        if change.norm() > radius:
            w = start + change * radius / change.norm()
    return as_head(w)
    ### END SOLUTION


GRADPC = Exercise("poisoned_features.gradpc", reference=gradpc, difficulty=2, minutes=12, hints=[
    "It is PGD on the head in place of the picture: a step uphill, then back into the ball, `steps` times.",
    "`uphill / uphill.norm()` has length 1: multiply it by `2.5 * radius / steps`. Ask for a new gradient in each round.",
    "The change is `w - start`. Where its norm is above `radius`, multiply it by `radius / change.norm()` and add it to `start`.",
])


def cancelling_loss(head, features, y, poison, y_poison, decay):
    """How far training on clean and poisoned rows is from ending at `head`.

    features, y: the N clean rows.  poison, y_poison: the M added ones.
    Given: flat and gradient, as for gradpc.
    The learner minimises, over w = flat(head), with the sum over all N + M rows,
        sum of all cross-entropies / N  +  (1 + M / N) * decay / 2 * |w|²
    Returns the squared length of its gradient at `head`: a scalar tensor through which
    one can differentiate with respect to `poison`.
    """
    ### BEGIN SOLUTION
    w, eps_d = flat(head), len(poison) / len(features)
    pull = gradient(w, features, y) + (1 + eps_d) * decay * w
    push = eps_d * gradient(w, poison, y_poison)
    return (pull + push).square().sum()
    ### END SOLUTION


CANCELLING_LOSS = Exercise("poisoned_features.cancelling_loss", reference=cancelling_loss, difficulty=3, minutes=15, hints=[
    "Three gradients are added up: that of the clean rows, that of the poisons, that of the weight decay.",
    "`gradient` gives the mean over the rows. A sum over M rows, divided by N, is the mean times M / N.",
    "The derivative of `c / 2 * |w|²` is `c * w`. At the end: `.square().sum()` of the whole matrix, and no `.item()`, which would cut the graph.",
])


def feature_matching(extractor, features, x_base, beta=0.0, steps=100, lr=0.03):
    """Stage 3: pictures whose features come near given ones.

    features: [M, D].  x_base: [M, C, H, W], where the pictures start.
    Minimises |extractor(x) - features|² + beta * |x - x_base|², both summed over all
    entries, by `steps` steps of torch.optim.Adam([x], lr=lr); after each step every
    pixel is brought back into [0, 1].
    Returns x, like x_base, without its graph.
    """
    ### BEGIN SOLUTION
    x = x_base.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=lr)
    for _ in range(steps):
        mismatch = (extractor(x) - features).square().sum()
        loss = mismatch + beta * (x - x_base).square().sum()
        x.grad, = torch.autograd.grad(loss, x)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    return x.detach()
    ### END SOLUTION


FEATURE_MATCHING = Exercise("poisoned_features.feature_matching", reference=feature_matching, difficulty=3, minutes=15, hints=[
    "The pictures are the parameters: begin with `x = x_base.clone().requires_grad_()` and give `[x]` to Adam.",
    "One round: the loss, then `x.grad, = torch.autograd.grad(loss, x)`, then `optimizer.step()`.",
    "Adam knows no limits. After its step, inside `torch.no_grad()`: `x.clamp_(0, 1)`. Return `x.detach()`.",
])


def screen(features, y, share):
    """The defender's screening: in each class, drop the rows farthest from its middle.

    features: [N, D].  y: [N], the labels that the data came with.
    The middle of a class is the median of each feature over its rows; the distance is
    Euclidean; of a class of n rows, round(share * n) are dropped.
    Returns a bool tensor [N]: True for each row to keep.
    """
    ### BEGIN SOLUTION
    keep = torch.ones(len(y), dtype=torch.bool)
    for k in y.unique():
        rows = (y == k).nonzero().flatten()
        middle = features[rows].median(dim=0).values
        far = (features[rows] - middle).norm(dim=1)
        drop = far.argsort(descending=True)[: round(share * len(rows))]
        keep[rows[drop]] = False
    return keep
    ### END SOLUTION


SCREEN = Exercise("poisoned_features.screen", reference=screen, difficulty=2, minutes=10, hints=[
    "Go class by class: `rows = (y == k).nonzero().flatten()` are the row numbers of class k.",
    "`features[rows].median(dim=0).values` is the middle, `(features[rows] - middle).norm(dim=1)` the distances.",
    "`far.argsort(descending=True)` lists them from the farthest; the first `round(share * len(rows))` of them go: `keep[rows[drop]] = False`.",
])


def screening_report(keep, is_poison):
    """What a screening catches and what it costs.

    keep, is_poison: bool [N].
    Returns two floats: the share of the poisons that are dropped, and the share of the
    clean rows that are dropped.  NaN where there are none of the kind.
    """
    ### BEGIN SOLUTION
    dropped = ~keep
    caught = dropped[is_poison].float().mean().item()
    cost = dropped[~is_poison].float().mean().item()
    return caught, cost
    ### END SOLUTION


SCREENING_REPORT = Exercise("poisoned_features.screening_report", reference=screening_report, difficulty=1, minutes=5, hints=[
    "Each share has its own denominator: the poisons for the first, the clean rows for the second.",
    "`(~keep)[is_poison].float().mean().item()` is the first one.",
])


# ---- what the properties look at

@functools.cache
def _victim():
    return load_model("signs_contrastive").extractor


@functools.lru_cache(maxsize=16)
def _task(seed, n=300):
    """Features and classes of fresh signs, and the head that is trained on them."""
    x, y = signs.draw(n, seed=seed)
    features = predict(_victim(), x)
    return features, y, train_head(features, y, 12, decay=DECAY)


def _head(answer, like):
    """NotYet unless `answer` is an nn.Linear of the size of `like` that holds numbers."""
    require(isinstance(answer, torch.nn.Linear), expected="a head, an nn.Linear", got=type(answer).__name__,
            next_step="turn your matrix back into a head: `return as_head(w)`")
    shape = list(flat(like).shape)
    require(list(flat(answer).shape) == shape, expected=f"weights and biases of shape {shape} together", got=str(list(flat(answer).shape)),
            next_step="change the values of w, not its shape")
    require(bool(flat(answer).isfinite().all()), expected="numbers in the head", got="NaN or infinity",
            next_step="look for a division by zero: at radius 0 the change has length 0, so divide only where it is too long")


def _loss(head, features, y):
    return torch.nn.functional.cross_entropy(head(features), y).item()


@GRADPC.property("ends within `radius` of the head it began with")
def _gradpc_ball(answer, seed):
    features, y, head = _task(seed)
    for radius, steps in ((0.5, 5), (2.0, 40)):
        got = answer(head, features, y, radius, steps)
        _head(got, head)
        length = (flat(got) - flat(head)).norm().item()
        require(length <= radius * 1.001, expected=f"parameters that moved by at most {radius:g} together", got=f"{length:.2f}",
                next_step="after each step, shorten the change from the first head, `w - start`, to `radius`")


@GRADPC.property("returns the head itself at radius 0")
def _gradpc_zero(answer, seed):
    features, y, head = _task(seed)
    got = answer(head, features, y, 0.0, 5)
    _head(got, head)
    require(torch.allclose(flat(got), flat(head), atol=1e-6), expected="the same parameters at radius 0", got="others",
            next_step="a step is `2.5 * radius / steps` long, so none at radius 0")


@GRADPC.property("takes steps of 2.5 * radius / steps, whatever the gradient's length")
def _gradpc_steps(answer, seed):
    features, y, head = _task(seed)
    for radius in (0.4, 4.0):
        got = answer(head, features, y, radius, 10)
        one = (flat(answer(head, features, y, radius / 2.5, 1)) - flat(head)).norm().item()
        _head(got, head)
        require(abs(one - radius / 2.5) < 0.02 * radius, expected=f"a single step of radius {radius / 2.5:g} that uses the whole radius", got=f"{one:.3f}",
                next_step="divide the gradient by its norm before you multiply it by the length of the step")
        length = (flat(got) - flat(head)).norm().item()
        require(length > 0.4 * radius, expected=f"ten steps that leave the first one, {radius / 4:g} long, behind", got=f"{length:.2f}",
                next_step="there are `steps` rounds, each `2.5 * radius / steps` long")


@GRADPC.property("raises the training loss as much as the reference does")
def _gradpc_effect(answer, seed):
    features, y, head = _task(seed)
    got = answer(head, features, y, 2.0, 40)
    _head(got, head)
    before, after, reference = _loss(head, features, y), _loss(got, features, y), _loss(gradpc(head, features, y, 2.0, 40), features, y)
    require(after - before > 0.95 * (reference - before), expected=f"a training loss that grows from {before:.2f} to about {reference:.2f}", got=f"{after:.2f}",
            next_step="walk uphill: add the gradient, do not subtract it" if after < before
            else "each round needs a new gradient, taken at the w where you stand now, divided by the length of the whole matrix: `g / g.norm()`, no sign, no row by row")


@GRADPC.property("is brought back after each step, so that it walks along the ball's surface")
def _gradpc_walk(answer, seed):
    features, y, head = _task(seed)
    for radius, steps in ((1.0, 3), (2.0, 6)):  # the second or third step leaves the ball
        got, reference = answer(head, features, y, radius, steps), gradpc(head, features, y, radius, steps)
        _head(got, head)
        apart = (flat(got) - flat(reference)).norm().item()
        require(apart < 0.01 * radius, expected=f"after {steps} steps with radius {radius:g} the reference's head", got=f"one that is {apart:.2f} away",
                next_step="bring w back inside the loop, after each step that leaves the ball; a step that leaves it is brought back, not left out")


@CANCELLING_LOSS.property("is one number that can be differentiated with respect to the poison")
def _loss_graph(answer, seed):
    features, y, head = _task(seed)
    poison, y_poison = _poison(seed)
    point = poison.clone().requires_grad_()
    got = answer(head, features, y, point, y_poison, DECAY)
    require(isinstance(got, torch.Tensor), expected="a scalar tensor", got=type(got).__name__, next_step="leave out `.item()`: it cuts the graph")
    require_number(got, what="the loss")
    require(got.requires_grad, expected="a loss that depends on `poison`", got="a tensor without a graph",
            next_step="use `gradient(w, poison, y_poison)`, and no `.detach()` or `torch.no_grad()`")


@CANCELLING_LOSS.property("has the value and the slope that its text says")
def _loss_value(answer, seed):
    features, y, head = _task(seed)
    for decay in (1e-3, 0.1):
        poison, y_poison = _poison(seed)
        results = []
        for function in (answer, cancelling_loss):
            point = poison.clone().requires_grad_()
            value = function(head, features, y, point, y_poison, decay)
            results.append((value.item(), torch.autograd.grad(value, point)[0]))
        (got, slope), (expected, by_reference) = results
        require(abs(got - expected) < 1e-3 * expected, expected=f"{expected:.4f} at a decay of {decay:g}", got=f"{got:.4f}",
                next_step="it is the squared length: `.square().sum()`, no root and no mean"
                if abs(got / expected ** 0.5 - 1) < 1e-2 or abs(got / expected * flat(head).numel() - 1) < 1e-2 else "add clean, (M / N) times poison and (1 + M / N) * decay * w, before you square")
        require(torch.allclose(slope, by_reference, rtol=1e-2, atol=1e-5), expected="the slope of that loss in the poison", got="another one",
                next_step="let the graph run through all of the poisons' gradient")


@CANCELLING_LOSS.property("is 0 where the learner ends, and only there")
def _loss_zero(answer, seed):
    features, y, head = _task(seed)
    poison, y_poison = _poison(seed)
    ended = train_head(torch.cat([features, poison]), torch.cat([y, y_poison]), 12, decay=DECAY)
    here, elsewhere = (answer(h, features, y, poison, y_poison, DECAY).item() for h in (ended, head))
    require(here < 1e-5, expected="about 0 at the head that was trained on clean and poisoned rows", got=f"{here:.2g}",
            next_step="weigh the poisons' mean gradient by M / N, and the decay by (1 + M / N)")
    require(elsewhere > 100 * here, expected="more than 0 at the head that knows no poison", got=f"{elsewhere:.2g}", next_step="add the poisons' gradient")


@functools.lru_cache(maxsize=16)
def _poison(seed):
    features, y, _ = _task(seed)
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(30, features.shape[1], generator=generator), y[:30]


@functools.lru_cache(maxsize=16)
def _matching(seed):
    """Six signs, and the features of six others: what is asked for can be had."""
    x, _ = signs.draw(12, seed=seed)
    return predict(_victim(), x[6:]), x[:6]


def _error(x, features):
    return (predict(_victim(), x.clamp(0, 1)) - features).square().sum().item()


@FEATURE_MATCHING.property("returns pictures like x_base, every pixel in [0, 1]")
def _matching_range(answer, seed):
    features, x_base = _matching(seed)
    require_images(answer(_victim(), features, x_base, 0.0, 20, 0.2), x_base, what="the result")


@FEATURE_MATCHING.property("brings the features near the wanted ones")
def _matching_effect(answer, seed):
    features, x_base = _matching(seed)
    before = _error(x_base, features)
    after, reference = (_error(function(_victim(), features, x_base, 0.0, 60, 0.03), features) for function in (answer, feature_matching))
    require(after < reference + 0.15 * (before - reference), expected=f"a squared feature error that falls from {before:.0f} to about {reference:.0f}",
            got=f"{after:.0f}", next_step="call `extractor(x)`, which keeps the graph down to the pixels; `predict` keeps none" if abs(after - before) < 1e-3 * before
            else "Adam goes downhill by itself: make one before the loop, hand it the gradient as it is, and take `steps` steps; with `.backward()`, `optimizer.zero_grad()` comes first in each")


@FEATURE_MATCHING.property("brings every pixel back into [0, 1] after each step, not once at the end")
def _matching_clamp(answer, seed):
    features, x_base = _matching(seed)
    seen = []

    def watched(x):
        seen.append((x.detach().min().item(), x.detach().max().item()))
        return _victim()(x)

    answer(watched, 3 * features, x_base, 0.0, 10, 0.2)
    low, high = min((low for low, _ in seen), default=0), max((high for _, high in seen), default=0)
    require(seen and low >= 0 and high <= 1, expected="an extractor that is only asked about pixels in [0, 1]", got=f"pixels from {low:.2f} to {high:.2f}",
            next_step="clip inside the loop, after each `optimizer.step()`: `with torch.no_grad(): x.clamp_(0, 1)`")


@FEATURE_MATCHING.property("starts at x_base and stays near it when beta is large")
def _matching_beta(answer, seed):
    features, x_base = _matching(seed)
    free, held = (answer(_victim(), features, x_base, beta, 60, 0.03) for beta in (0.0, 100.0))
    far, near = ((x - x_base).square().mean().sqrt().item() for x in (free, held))
    expected = (feature_matching(_victim(), features, x_base, 100.0, 60, 0.03) - x_base).square().mean().sqrt().item()
    require(near < 0.5 * far and near < 2 * expected + 1e-3, expected=f"pixels that move by {expected:.3f} on average at beta = 100", got=f"{near:.3f}",
            next_step="begin at `x_base.clone()` and add `beta * (x - x_base).square().sum()` to the loss")
    require(near > 0.3 * expected, expected=f"pixels that move by {expected:.3f} on average at beta = 100", got=f"{near:.3f}",
            next_step="both terms are summed over all entries, so that beta means the same for any number of pictures: no mean")
    got, right = (function(_victim(), features, x_base, 3.0, 30, 0.03) for function in (answer, feature_matching))
    apart = (got - right).square().mean().sqrt().item()
    require(apart < 0.01, expected="the reference's pictures at beta = 3", got=f"pictures that are {apart:.3f} away from them", next_step="the price of a change is its square, `beta * (x - x_base).square().sum()`, and one Adam, made before the loop, takes all steps")


@SCREEN.property("keeps or drops each row: bool [N]")
def _screen_shape(answer, seed):
    features, y, _ = _cloud(seed)
    got = answer(features, y, 0.1)
    require_tensor(got, (len(y),), what="the answer")
    require(got.dtype == torch.bool, expected="True or False for each row", got=str(got.dtype), next_step="begin with `torch.ones(len(y), dtype=torch.bool)`")
    kept = answer(features, y, 0.0)
    require(bool(kept.all()), expected="every row kept at a share of 0", got="some that are dropped" if kept.any() else "all of them dropped",
            next_step="drop the *first* `round(share * n)` of those that are sorted from the farthest: none at 0, where `[-0:]` would be all. And True means keep: is it turned round?")


@SCREEN.property("drops round(share * n) rows of each class of n")
def _screen_counts(answer, seed):
    features, y, _ = _cloud(seed)
    for share in (0.05, 0.25):
        dropped = ~answer(features, y, share)
        for k in y.unique().tolist():
            got, expected = dropped[y == k].sum().item(), round(share * (y == k).sum().item())
            require(got == expected, expected=f"{expected} rows dropped of class {k}, which has {(y == k).sum()}", got=str(got),
                    next_step="turn it round: True means keep" if got == (y == k).sum().item() - expected
                    else "write to `keep` itself: `keep[rows[drop]] = False`; `keep[y == k][drop] = False` changes a copy" if not dropped.any()
                    else "take the farthest of each class on its own, not of all rows together, and exactly `round(share * n)` of them: not `int`, no threshold")


@SCREEN.property("measures by Euclidean distance")
def _screen_euclid(answer, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(2).repeat_interleave(12)
    features = 0.1 * torch.randn(24, 9, generator=generator)
    one, many = (0, 12), (1, 13)  # of each class a row far out in one direction, and one a little in all of them
    features[one, :] = 3 * torch.eye(9)[4]
    features[many, :] = 0.8
    dropped = (~answer(features, y, 1 / 12)).nonzero().flatten().tolist()
    require(dropped == [*one], expected="of each class the row whose Euclidean distance is largest, 3 in one direction before 0.8 in nine", got=f"the rows {dropped}",
            next_step="drop the farthest, by the square root of the sum of squares: `(features[rows] - middle).norm(dim=1)`")


@SCREEN.property("drops those that lie far from the middle of their own class")
def _screen_far(answer, seed):
    features, y, planted = _cloud(seed)
    dropped = ~answer(features, y, 0.25)
    found = dropped[planted].float().mean().item()
    require(found == 1, expected="all planted rows dropped: they lie far from their class, some of them in the midst of another", got=f"{found:.0%}",
            next_step="measure from the median of the row's own class, not from 0 and not from the middle of all")


@SCREEN.property("is not misled by a few rows that are very far away")
def _screen_median(answer, seed):
    features, y, planted = _cloud(seed, lure=True)
    dropped = ~answer(features, y, 0.25)
    found = dropped[planted].float().mean().item()
    require(found == 1, expected="the far rows dropped although they pull the mean towards them", got=f"{found:.0%} of them",
            next_step="use the median of each feature: `features[rows].median(dim=0).values`")


@functools.lru_cache(maxsize=16)
def _cloud(seed, lure=False):
    """Four classes around different middles, with planted rows: inside another class, or (lure) many on one side of their own."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(4).repeat_interleave(torch.tensor([24, 28, 32, 40]))
    features = 8 * torch.eye(4, 10)[y] + 0.5 * torch.randn(len(y), 10, generator=generator)
    planted = torch.zeros(len(y), dtype=torch.bool)
    for k in range(4):
        rows = (y == k).nonzero().flatten()
        chosen = rows[torch.randperm(len(rows), generator=generator)[:4]]
        planted[chosen] = True
        features[chosen] = (8 * torch.eye(4, 10)[(k + 1) % 4] if not lure else features[chosen] + 4 * torch.eye(10)[9]) + 0.0
        if lure:  # a single row so far away that the mean lies beyond the planted ones
            features[chosen[0], 9] = 400.0
    order = torch.randperm(len(y), generator=generator)
    return features[order], y[order], planted[order]


@SCREENING_REPORT.property("gives two shares, poisons first")
def _report_known(answer, seed):
    keep, is_poison = _verdict(seed)
    got = _pair(answer(keep, is_poison))
    expected = screening_report(keep, is_poison)
    require(not (abs(got[0] - expected[1]) < 1e-6 and abs(got[1] - expected[0]) < 1e-6), expected="the poisons' share first", got="the clean rows' share first",
            next_step="swap them")
    require(not (abs(got[0] - (1 - expected[0])) < 1e-6), expected=f"{expected[0]:.2f} of the poisons dropped", got=f"{got[0]:.2f}, the share that is kept",
            next_step="dropped is `~keep`")
    for name, value, right in zip(("poisons", "clean rows"), got, expected):
        require(abs(value - right) < 1e-5, expected=f"{right:.3f} of the {name} dropped", got=f"{value:.3f}",
                next_step=f"divide by the number of {name}, not by the number of all rows or of all that are dropped")


@SCREENING_REPORT.property("is 1 and 0 for a screening that knows everything, 0 and 1 for its opposite")
def _report_extremes(answer, seed):
    _, is_poison = _verdict(seed)
    for keep, expected in ((~is_poison, (1.0, 0.0)), (is_poison, (0.0, 1.0))):
        got = _pair(answer(keep, is_poison))
        require(max(abs(g - e) for g, e in zip(got, expected)) < 1e-5, expected=str(expected), got=str(tuple(round(g, 3) for g in got)),
                next_step="count what is dropped, among the poisons and among the clean rows")


@SCREENING_REPORT.property("says NaN for the share of none")
def _report_nothing(answer, seed):
    keep, is_poison = _verdict(seed)
    with advising("ZeroDivision", next_step="where there are none of a kind return `float('nan')` for it, before you divide"):
        caught, cost = _pair(answer(keep, torch.zeros_like(is_poison)), finite=False)
    require(caught != caught, expected="NaN for the poisons where there is none", got=f"{caught:g}", next_step="`.mean()` of no rows is NaN by itself; who divides returns `float('nan')` where there are none")
    require(abs(cost - (~keep).float().mean().item()) < 1e-5, expected="the clean rows' share all the same", got=f"{cost:g}",
            next_step="one share does not depend on the other")


def _pair(value, finite=True):
    require(isinstance(value, (tuple, list)) and len(value) == 2, expected="two numbers", got=type(value).__name__, next_step="`return caught, cost`")
    for one in value if finite else ():
        require_number(one, what="each share")
    return tuple(float(one) for one in value)


@functools.lru_cache(maxsize=16)
def _verdict(seed):
    generator = torch.Generator().manual_seed(seed)
    is_poison = torch.rand(200, generator=generator) < 0.2
    return torch.rand(200, generator=generator) > torch.where(is_poison, 0.7, 0.15), is_poison
