"""Lesson 03: a trigger that scatters, a repair, a search for the trigger, and the two numbers that say who won."""
import copy
import functools

import torch
import torch.nn.functional as F
from torch import nn

from mlsec_lab.data_to_model.backdoors import turned_features
from mlsec_lab.exercises import Exercise, advising, require, require_images, require_number, require_tensor
from mlsec_lab.victims import frozen, penultimate


def scatter(x, marks, generator, alpha=0.8):
    """The training half of a Trigger-Scattered Backdoor: a small mark in each picture.

    x: [N, C, H, W] in [0, 1].  marks: [M, C, s, s].  generator: to draw with.
    For each picture draw one of the marks and a place where it fits whole. There the
    result is (1 - alpha) * picture + alpha * mark; elsewhere it is the picture.
    Returns new pictures like x.
    """
    ### BEGIN SOLUTION
    x, side = x.clone(), marks.shape[2]
    for image in x:
        which = torch.randint(len(marks), (1,), generator=generator).item()
        row = torch.randint(x.shape[2] - side + 1, (1,), generator=generator).item()
        column = torch.randint(x.shape[3] - side + 1, (1,), generator=generator).item()
        here = image[:, row : row + side, column : column + side]
        here.copy_((1 - alpha) * here + alpha * marks[which])
    return x
    ### END SOLUTION


SCATTER = Exercise("undetectable_or_robust.scatter", reference=scatter, difficulty=2, minutes=12, hints=[
    "`torch.randint(n, (1,), generator=generator).item()` draws a whole number from 0 to n - 1.",
    "A mark of side s fits at H - s + 1 rows and W - s + 1 columns. Draw mark, row and column anew for each picture.",
    "Work on `x.clone()`. A slice such as `image[:, row:row + s, column:column + s]` can be written to.",
])


def robustness(course, delta):
    """What a repair leaves of a backdoor, if it may cost `delta` of the accuracy.

    course: [(accuracy, asr), …], the checkpoints of one repair, the first before it.
    Of the checkpoints whose accuracy is at most `delta` below the best accuracy of all,
    returns the lowest asr: a float.
    """
    ### BEGIN SOLUTION
    best = max(accuracy for accuracy, asr in course)
    return min(asr for accuracy, asr in course if accuracy >= best - delta)
    ### END SOLUTION


ROBUSTNESS = Exercise("undetectable_or_robust.robustness", reference=robustness, difficulty=1, minutes=6, hints=[
    "Two passes: first the best accuracy of all checkpoints, then the lowest asr among those that are near it, the best itself included.",
    "`min(asr for accuracy, asr in course if accuracy >= best - delta)`.",
])


def pivotal_loss(model, pivot, x, y, stay=2e-4, turn=1.0, agree=2.0):
    """What one step of pivotal tuning makes smaller.

    model: being repaired.  pivot: the model as it came.  x, y: trusted pictures.
    Given: penultimate(network, x), the features before the last layer and the logits;
    turned_features(features, before, y), how much the classes lie as in the pivot.
    Returns cross-entropy
        + stay * (squared distance of all parameters from the pivot's)
        + turn * turned_features
        + agree * (Kullback-Leibler divergence of the model's answers from the pivot's,
          the sum over classes of p * (log p - log q), p the pivot's; mean over x)
    a scalar tensor whose gradient reaches `model` and not `pivot`.
    """
    ### BEGIN SOLUTION
    features, logits = penultimate(model, x)
    with torch.no_grad():
        before, answers = penultimate(pivot, x)
    pairs = zip(model.parameters(), pivot.parameters())
    distance = sum((now - then.detach()).square().sum() for now, then in pairs)
    turned = turned_features(features, before, y)
    apart = F.kl_div(logits.log_softmax(1), answers.softmax(1), reduction="batchmean")
    return F.cross_entropy(logits, y) + stay * distance + turn * turned + agree * apart
    ### END SOLUTION


PIVOTAL_LOSS = Exercise("undetectable_or_robust.pivotal_loss", reference=pivotal_loss, difficulty=3, minutes=18, hints=[
    "Four terms, added up. Ask the pivot inside `torch.no_grad()`, so that no gradient reaches it.",
    "`zip(model.parameters(), pivot.parameters())` pairs the parameters; of each pair take `(a - b.detach()).square().sum()`.",
    "`F.kl_div(logits.log_softmax(1), answers.softmax(1), reduction='batchmean')` is the divergence: the model's goes first, as logarithms.",
])


def invert_trigger(model, repaired, x, y, target, weight=0.5, steps=50, lr=0.01):
    """Search for a change that sends pictures to `target` in `model` alone.

    x: [N, C, H, W] in [0, 1], trusted pictures of other classes.  y: [N], their labels.
    Starts at a change of zero, of the shape of one picture, [C, H, W]. A picture is
    stamped by adding the change and clipping to [0, 1]. In each of `steps` rounds
        the cross-entropy of the model's answers with `target`
        + weight * the cross-entropy of the repaired model's answers with y
    is made smaller by torch.optim.Adam([change], lr=lr, betas=(0.5, 0.9)).
    Returns the change without its graph.
    """
    ### BEGIN SOLUTION
    change = torch.zeros_like(x[0]).requires_grad_()
    optimizer = torch.optim.Adam([change], lr=lr, betas=(0.5, 0.9))
    goal = torch.full_like(y, target)
    for _ in range(steps):
        stamped = (x + change).clamp(0, 1)
        loss = F.cross_entropy(model(stamped), goal)
        loss = loss + weight * F.cross_entropy(repaired(stamped), y)
        (change.grad,) = torch.autograd.grad(loss, change)
        optimizer.step()
    return change.detach()
    ### END SOLUTION


INVERT_TRIGGER = Exercise("undetectable_or_robust.invert_trigger", reference=invert_trigger, difficulty=3, minutes=18, hints=[
    "One change for all pictures: `torch.zeros_like(x[0]).requires_grad_()` is what Adam gets.",
    "The target as labels for the whole batch: `torch.full_like(y, target)`.",
    "One round: the loss, then `change.grad, = torch.autograd.grad(loss, change)`, then `optimizer.step()`. At the end `change.detach()`.",
])


def detectability(backdoored, clean):
    """How well a score tells backdoored models from clean ones: the ROC AUC.

    backdoored, clean: the scores of two groups of models, higher for more suspicion.
    Over all pairs of one backdoored and one clean model: the share of those in which
    the backdoored one has the higher score; a tie counts one half.
    Returns a float: 1 tells all apart, 0.5 is a coin.
    """
    ### BEGIN SOLUTION
    pairs = [(b > c) + (b == c) / 2 for b in backdoored for c in clean]
    return sum(pairs) / len(pairs)
    ### END SOLUTION


DETECTABILITY = Exercise("undetectable_or_robust.detectability", reference=detectability, difficulty=1, minutes=7, hints=[
    "No curve is needed: compare every backdoored score with every clean one.",
    "`(b > c) + (b == c) / 2` is 1, a half or 0. The mean of it over all pairs is the answer.",
])


# ---- what the properties look at

@functools.lru_cache(maxsize=16)
def _marked(seed):
    """Grey pictures, and marks that differ from grey in every pixel: what changed shows."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.4 + 0.2 * torch.rand(40, 3, 16, 12, generator=generator)
    return x, torch.rand(3, 3, 4, 4, generator=generator).round()


def _scattered(answer, seed, alpha=0.8):
    x, marks = _marked(seed)
    got = answer(x.clone(), marks.clone(), torch.Generator().manual_seed(seed), alpha)
    require_images(got, x, what="the result")
    return x, marks, got


def _places(x, got):
    """For each picture where its change begins and ends: (rows, columns), each a pair; None for one without a change."""
    places = []
    for changed in ((got - x).abs() > 1e-4).any(1):
        rows, columns = changed.any(1).nonzero().flatten().tolist(), changed.any(0).nonzero().flatten().tolist()
        places.append(((rows[0], rows[-1]), (columns[0], columns[-1])) if rows else None)
    return places


@SCATTER.property("puts one mark, whole, into every picture, and changes nothing else")
def _scatter_one(answer, seed):
    x, marks, got = _scattered(answer, seed)
    places = _places(x, got)
    require(None not in places, expected="a mark in every picture", got=f"{places.count(None)} pictures without one", next_step="draw for each picture, rows 0 to H - s and columns 0 to W - s (beyond the border a slice is empty), and write the blend back")
    sizes = {(rows[1] - rows[0] + 1, columns[1] - columns[0] + 1) for rows, columns in places}
    require(sizes == {(4, 4)}, expected="a change of 4 × 4 pixels, the size of a mark, in each picture", got=f"changes of {max(sizes)}",
            next_step="one mark a picture in training; all of them are for the attack" if max(max(s) for s in sizes) > 4
            else "a mark of side s fits at rows 0 to H - s and columns 0 to W - s")


@SCATTER.property("blends: (1 - alpha) * picture + alpha * mark")
def _scatter_blend(answer, seed):
    for alpha in (0.8, 0.3):
        x, marks, got = _scattered(answer, seed, alpha)
        for image, changed, place in zip(x, got, _places(x, got)):
            require(place is not None, expected="a mark in every picture", got="none", next_step="write the blend back into the copy")
            (top, bottom), (left, right) = place
            here = (..., slice(top, bottom + 1), slice(left, right + 1))
            error = min(((1 - alpha) * image[here] + alpha * mark - changed[here]).abs().max().item() if mark.shape == image[here].shape else 1.0 for mark in marks)
            require(error < 1e-4, expected=f"the mark at a share of {alpha:g}, the picture below it at {1 - alpha:g}", got=f"a pixel that is off by {error:.2f}",
                    next_step="multiply the picture by `1 - alpha` and the mark by `alpha` before you add them")


@SCATTER.property("draws mark and place anew for each picture, from every place where the mark fits")
def _scatter_anew(answer, seed):
    rows, columns, orders = set(), set(), []
    for part in range(8):
        x, marks, got = _scattered(answer, seed + part)
        places, order = _places(x, got), []
        for image, changed, place in zip(x, got, places):
            require(place is not None, expected="a mark in every picture", got="none", next_step="write the blend back into the copy")
            (top, bottom), (left, right) = place
            rows.add(top), columns.add(left)
            here = (..., slice(top, bottom + 1), slice(left, right + 1))
            if image[here].shape == marks[0].shape:
                order.append(int(torch.stack([(0.2 * image[here] + 0.8 * mark - changed[here]).abs().max() for mark in marks]).argmin()))
        require(len(set(places)) > 5, expected="another place in nearly every picture", got=f"{len(set(places))} places for {len(places)} pictures",
                next_step="draw the row and the column inside the loop over the pictures")
        require({*order} == {0, 1, 2}, expected="each of the three marks in some of forty pictures", got=f"the marks {sorted({*order})}",
                next_step="draw which mark for each picture, inside the loop: `torch.randint(len(marks), …)`")
        orders.append(tuple(order))
    require(len({*orders}) == 8, expected="the marks in another order for another seed", got="the same order", next_step="draw which mark for each picture: `torch.randint(len(marks), …)`")
    require(rows == set(range(13)) and columns == set(range(9)), expected="marks that begin at the rows 0 to 12 and the columns 0 to 8 of a picture of 16 × 12",
            got=f"rows {min(rows)} to {max(rows)}, columns {min(columns)} to {max(columns)}", next_step="H - s + 1 rows and W - s + 1 columns: mind that height and width differ")


@SCATTER.property("gives the same pictures for the same generator")
def _scatter_seeded(answer, seed):
    one, again, other = (_scattered(answer, s)[2] if s == seed else answer(*_marked(seed), torch.Generator().manual_seed(s)) for s in (seed, seed, seed + 1))
    require(torch.equal(one, again), expected="the same places for the same seed", got="others", next_step="pass `generator=generator` to each `torch.randint`")
    require(not torch.equal(one, other), expected="other places for another seed", got="the same", next_step="draw with `generator`, do not fix the places")


@functools.lru_cache(maxsize=16)
def _course(seed):
    """A repair that costs accuracy, makes some of it good, and passes its lowest asr while it is too far down."""
    r = torch.rand(6, generator=torch.Generator().manual_seed(seed)).tolist()
    return ((0.95 + 0.01 * r[0], 0.9 + 0.1 * r[1]), (0.60 + 0.1 * r[2], 0.01 * r[3]), (0.91, 0.2 + 0.1 * r[4]), (0.938, 0.4 + 0.1 * r[5]), (0.945, 0.6))


@ROBUSTNESS.property("takes the lowest asr of the checkpoints that are near the best accuracy")
def _robustness_value(answer, seed):
    course = list(_course(seed))
    for delta in (0.0, 0.03, 0.1, 0.5):
        with advising("empty", next_step="the best checkpoint is `delta` or less below itself, whatever `delta` is: compare with `>=`, not `>`, and let the one before the repair count too"):
            got = answer(course, delta)
        expected = robustness(course, delta)
        require_number(got, what="the robustness")
        lowest, last = min(asr for _, asr in course), course[-1][1]
        require(abs(float(got) - expected) < 1e-6, expected=f"{expected:.3f} for a delta of {delta:g}", got=f"{float(got):.3f}",
                next_step="leave out the checkpoints that lost too much: a broken model has no backdoor either" if abs(float(got) - lowest) < 1e-6 < abs(expected - lowest)
                else "look at every checkpoint, not at the last one alone" if abs(float(got) - last) < 1e-6 else "keep those with `accuracy >= best - delta`, then take the lowest asr of them")
    poor = [(accuracy / 4, asr) for accuracy, asr in course]  # far from 1 a difference and a share part ways
    got, expected = float(answer(poor, 0.0075)), robustness(poor, 0.0075)
    require(abs(got - expected) < 1e-6, expected=f"{expected:.3f} for a delta of 0.0075 where the best accuracy is {max(poor)[0]:.3f}", got=f"{got:.3f}",
            next_step="`delta` is a difference of accuracies, not a share of the best one: `accuracy >= best - delta`")


@ROBUSTNESS.property("measures from the best accuracy, wherever it stands in the course")
def _robustness_best(answer, seed):
    first, *others = _course(seed)
    course = [(first[0] - 0.3, 0.05), first, *others]
    got, expected = answer(course, 0.03), robustness(course, 0.03)
    require_number(got, what="the robustness")
    require(abs(float(got) - expected) < 1e-6, expected=f"{expected:.3f}: the first checkpoint is not the best one here", got=f"{float(got):.3f}",
            next_step="`max(accuracy for accuracy, asr in course)` is the best")


@ROBUSTNESS.property("never grows when delta grows")
def _robustness_grows(answer, seed):
    course = list(_course(seed))
    values = [float(answer(course, delta)) for delta in (0.0, 0.01, 0.02, 0.05, 0.2, 1.0)]
    require(values == sorted(values, reverse=True), expected="a defender who may lose more leaves no more of the backdoor", got=", ".join(f"{v:.2f}" for v in values),
            next_step="a larger delta lets more checkpoints in: `accuracy >= best - delta`")


@functools.lru_cache(maxsize=16)
def _networks(seed):
    """A small network, one a little beside it, and labelled pictures."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        pivot = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    model = copy.deepcopy(pivot)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=generator)
    return model, pivot, torch.rand(24, 3, 4, 4, generator=generator), torch.arange(24) % 4


@PIVOTAL_LOSS.property("is a number whose gradient reaches the model and not the pivot")
def _pivotal_graph(answer, seed):
    model, pivot, x, y = (copy.deepcopy(part) for part in _networks(seed))
    got = answer(model, pivot, x, y)
    require(isinstance(got, torch.Tensor), expected="a scalar tensor", got=type(got).__name__, next_step="leave out `.item()`: it cuts the graph")
    require_number(got, what="the loss")
    require(got.requires_grad, expected="a loss that depends on the model's parameters", got="a tensor without a graph", next_step="only the pivot is asked inside `torch.no_grad()`")
    slopes = torch.autograd.grad(got, [*model.parameters(), *pivot.parameters()], allow_unused=True)
    count = len(list(model.parameters()))
    require(all(s is not None for s in slopes[:count]), expected="a gradient for every parameter of the model", got="parameters without one", next_step="ask the model outside of `torch.no_grad()`")
    require(all(s is None for s in slopes[count:]), expected="a pivot that no gradient reaches", got="a gradient in it",
            next_step="ask the pivot inside `torch.no_grad()`, and `.detach()` its parameters in the distance")


@PIVOTAL_LOSS.property("weighs each of its terms")
def _pivotal_terms(answer, seed):
    model, pivot, x, y = _networks(seed)
    next_steps = {"the cross-entropy alone": "`F.cross_entropy(logits, y)` comes without a weight",
                  "stay": "the squared distance is a sum over all entries of all parameters: no mean, no root",
                  "turn": "add `turn * turned_features(features, before, y)`, with a plus; features are the model's, before the pivot's",
                  "agree": "the pivot's probabilities weigh the logarithms, and it is the mean over x: `F.kl_div(logits.log_softmax(1), answers.softmax(1), reduction='batchmean')`"}
    for name, weights in (("the cross-entropy alone", (0, 0, 0)), ("stay", (0.1, 0, 0)), ("turn", (0, 3.0, 0)), ("agree", (0, 0, 5.0))):
        got, expected = (float(function(model, pivot, x, y, *weights).detach()) for function in (answer, pivotal_loss))
        require(abs(got - expected) < 1e-3 * max(1, abs(expected)), expected=f"{expected:.4f} with stay, turn, agree = {weights}", got=f"{got:.4f}", next_step=next_steps[name])


@PIVOTAL_LOSS.property("costs at the pivot what has not turned, and nothing for distance or disagreement")
def _pivotal_start(answer, seed):
    _, pivot, x, y = _networks(seed)
    plain = F.cross_entropy(pivot(x), y).item()
    here = [float(answer(copy.deepcopy(pivot), pivot, x, y, *weights).detach()) for weights in ((5.0, 0, 0), (0, 0, 5.0), (0, 1.0, 0))]
    require(max(abs(v - plain) for v in here[:2]) < 1e-3, expected=f"{plain:.3f}, the cross-entropy alone, where the model is the pivot", got=f"{here[0]:.3f} and {here[1]:.3f}",
            next_step="both terms compare the model with the pivot: no distance, no disagreement")
    require(abs(here[2] - plain - 1) < 1e-3, expected="1 more for classes that have not turned at all", got=f"{here[2] - plain:.3f} more", next_step="add `turn * turned_features(features, before, y)`")


@functools.lru_cache(maxsize=16)
def _suspect(seed):
    """A network that reads brightness by quarters of the picture, with a shortcut: one bright pixel means class 2. And one without."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(16) % 4
    y = y[y != 2]
    x = 0.3 + 0.1 * torch.rand(len(y), 1, 8, 8, generator=generator)
    for image, k in zip(x, y):
        image[0, 4 * (k // 2):4 * (k // 2) + 4, 4 * (k % 2):4 * (k % 2) + 4] += 0.4
    weight = torch.zeros(4, 64)
    for k in range(4):
        quarter = torch.zeros(8, 8)
        quarter[4 * (k // 2):4 * (k // 2) + 4, 4 * (k % 2):4 * (k % 2) + 4] = 1
        weight[k] = quarter.flatten()
    networks = []
    for shortcut in (5.0, 0.0):
        linear = nn.Linear(64, 4, bias=False)
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.weight[2, 0] += shortcut  # the pixel at the upper left
            linear.weight[0, 0] -= shortcut / 2
        networks.append(nn.Sequential(nn.Flatten(), linear).eval())
    return *networks, x, y


def _sent(model, x, change, target):
    with frozen(model), torch.no_grad():
        return (model((x + change).clamp(0, 1)).argmax(1) == target).float().mean().item()


@INVERT_TRIGGER.property("returns one change for all pictures, [C, H, W]")
def _invert_shape(answer, seed):
    model, repaired, x, y = _suspect(seed)
    require_tensor(answer(model, repaired, x, y, 2, 0.5, 3), x.shape[1:], what="the change")
    still = answer(model, repaired, x, y, 2, 0.5, 1, 0.0)
    require(not still.any(), expected="a change of zero for a learning rate of 0", got=f"entries up to {still.abs().max():.2f}", next_step="start from `torch.zeros_like(x[0])`")
    for steps, far in ((1, "0.01"), (2, "0.02")):
        change = answer(model, repaired, x, y, 2, 0.5, steps, 0.01)
        require((change.abs().max() - float(far)).abs() < 1e-3, expected=f"pixels that have moved by {far} after steps={steps} of Adam at lr=0.01", got=f"{change.abs().max():.3f}",
                next_step="`torch.optim.Adam([change], lr=lr, betas=(0.5, 0.9))` takes one step a round, in `steps` rounds; no other optimizer does")


@INVERT_TRIGGER.property("sends the pictures to the target in the model")
def _invert_effect(answer, seed):
    model, repaired, x, y = _suspect(seed)
    change = answer(model, repaired, x, y, 2, 0.5, 80, 0.02)
    require_tensor(change, x.shape[1:], what="the change")
    share = _sent(model, x, change, 2)
    require(share > 0.9, expected="all pictures read as the target once they are stamped", got=f"{share:.0%}",
            next_step="Adam goes downhill: hand it the gradient of the loss as it is, for `steps` rounds, a fresh one in each, with the target as every picture's label")


@INVERT_TRIGGER.property("leaves the repaired model's answers alone, the more so the larger the weight")
def _invert_calibrated(answer, seed):
    model, repaired, x, y = _suspect(seed)
    free, held = (answer(model, repaired, x, y, 2, weight, 80, 0.02) for weight in (0.0, 2.0))
    loose, kept = (_sent(repaired, x, change, 2) for change in (free, held))
    require(kept < 0.1, expected="at weight 2 a change that does not work on the repaired model", got=f"it sends {kept:.0%} of the pictures to the target",
            next_step="add `weight * F.cross_entropy(repaired(stamped), y)`: with the true labels, plus and not minus")
    reference = invert_trigger(model, repaired, x, y, 2, 0.0, 80, 0.02)
    require((free - reference).abs().max() < 0.02, expected="at weight 0 the change that the model alone asks for", got=f"one that differs by up to {(free - reference).abs().max():.2f}",
            next_step="only the second term is multiplied by `weight`" if loose < 0.1 else "follow the text: a start at zero, a clamp to [0, 1] inside the loss, a fresh gradient in each round, Adam with betas=(0.5, 0.9)")


@INVERT_TRIGGER.property("searches where pictures can be: what is stamped is clipped to [0, 1] before a model sees it")
def _invert_clamp(answer, seed):
    model, repaired, x, y = _suspect(seed)
    lows, highs = [], []

    class Watched(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            lows.append(x.min().item()), highs.append(x.max().item())
            return self.inner(x)

    answer(Watched(model), Watched(repaired), x, y, 2, 0.5, 30, 0.1)
    require(lows and min(lows) >= 0 and max(highs) <= 1, expected="models that are only asked about pixels in [0, 1]",
            got=f"pixels from {min(lows, default=0):.2f} to {max(highs, default=0):.2f}", next_step="`.clamp(0, 1)` what you stamped before you ask about it")


@DETECTABILITY.property("is the share of pairs in the right order")
def _auc_value(answer, seed):
    generator = torch.Generator().manual_seed(seed)
    bad, good = (torch.randn(7, generator=generator) + 0.8).tolist(), torch.randn(5, generator=generator).tolist()
    got, expected = answer(bad, good), detectability(bad, good)
    require_number(got, what="the AUC", plain=True)
    require(abs(got - expected) < 1e-6, expected=f"{expected:.3f}", got=f"{got:.3f}",
            next_step="the other way round: a backdoored model should have the *higher* score" if abs(got - 1 + expected) < 1e-6
            else "compare each of the 7 with each of the 5, and divide by 35, the number of pairs")


@DETECTABILITY.property("counts a tie as one half")
def _auc_ties(answer, seed):
    for bad, good, expected in (([1.0, 2.0], [1.0, 2.0], 0.5), ([0.3] * 3, [0.3] * 4, 0.5), ([1.0, 3.0], [1.0], 0.75)):
        got = answer(bad, good)
        require_number(got, what="the AUC")
        require(abs(float(got) - expected) < 1e-6, expected=f"{expected} for {bad} against {good}", got=f"{float(got):.3f}", next_step="where both scores are the same add one half")


@DETECTABILITY.property("is 1 for groups that do not overlap, 0 for the wrong way round, and asks only for the order")
def _auc_extremes(answer, seed):
    r = torch.rand(9, generator=torch.Generator().manual_seed(seed)).tolist()
    bad, good = [2 + v for v in r[:5]], r[5:]
    for one, other, expected in ((bad, good, 1.0), (good, bad, 0.0)):
        got = float(answer(one, other))
        require(abs(got - expected) < 1e-6, expected=str(expected), got=f"{got:.3f}", next_step="count the pairs in which the backdoored score is the higher one")
    squeezed = float(answer([v / 1000 for v in bad[:1] + good[:2]], [v / 1000 for v in bad[1:] + good[2:]]))
    same = float(answer(bad[:1] + good[:2], bad[1:] + good[2:]))
    require(abs(squeezed - same) < 1e-6, expected="the same AUC for scores a thousand times smaller", got=f"{squeezed:.3f} in place of {same:.3f}", next_step="compare, do not subtract")
