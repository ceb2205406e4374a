"""Lesson 12's exercises, tried with what learners write."""
import math

import numpy as np
import torch
import torch.nn.functional as F

from mlsec_lab.exercises import theft as reference
from mlsec_lab.exercises.theft import AGREEMENT, CHOOSE, COPY_STEP, NEAREST_DISTANCES, P_VALUE

# ---- agreement


def by_counting(copy, ask, x):
    with torch.no_grad():
        pairs = zip(copy(x).max(1).indices.tolist(), ask(x).max(1).indices.tolist())
    same = [a == b for a, b in pairs]
    return sum(same) / len(same)


def a_count(copy, ask, x):
    return (copy(x).argmax(1) == ask(x).argmax(1)).sum().item()


def close_answers(copy, ask, x):
    return torch.isclose(copy(x), ask(x)).float().mean().item()


def probabilities_alike(copy, ask, x):
    return 1 - (copy(x).softmax(1) - ask(x).softmax(1)).abs().sum(1).mean().item() / 2


def asked_one_by_one_and_again(copy, ask, x):
    ask(x)
    return reference.agreement(copy, ask, x)


def mean_of_booleans(copy, ask, x):
    return (copy(x).argmax(1) == ask(x).argmax(1)).mean().item()


def picture_by_picture(copy, ask, x):
    same = [copy(x[i:i + 1]).argmax() == ask(x[i:i + 1]).argmax() for i in range(len(x))]
    return torch.stack(same).float().mean().item()


# ---- copy_step

def by_divergence(copy, optimizer, x, answers, temperature):
    copy.train()
    optimizer.zero_grad()
    ours, theirs = (copy(x) / temperature).log_softmax(1), (answers / temperature).log_softmax(1)
    loss = F.kl_div(ours, theirs, log_target=True, reduction="batchmean") * temperature**2
    loss.backward()
    optimizer.step()
    return loss.detach()


def step_with(loss, clear=True, training=True):
    def copy_step(copy, optimizer, x, answers, temperature):
        copy.train(training)
        value = loss(copy(x), answers, temperature)
        if clear:
            optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.item()
    return copy_step


def right_loss(logits, answers, temperature):
    return F.cross_entropy(logits / temperature, (answers / temperature).softmax(1))


from_labels = step_with(lambda logits, answers, temperature: F.cross_entropy(logits / temperature, answers.argmax(1)))
cold = step_with(lambda logits, answers, temperature: F.cross_entropy(logits, answers.softmax(1)))
one_side = step_with(lambda logits, answers, temperature: F.cross_entropy(logits, (answers / temperature).softmax(1)))
uphill = step_with(lambda logits, answers, temperature: -right_loss(logits, answers, temperature))
uncleared = step_with(right_loss, clear=False)
squared_error = step_with(lambda logits, answers, temperature: F.mse_loss(logits / temperature, answers / temperature))
logarithms_as_target = step_with(lambda logits, answers, temperature: F.cross_entropy(logits / temperature, answers / temperature))
without_graph = step_with(lambda logits, answers, temperature: right_loss(logits.detach(), answers, temperature))


softmax_on_both = step_with(lambda logits, answers, temperature: F.cross_entropy((logits / temperature).softmax(1), (answers / temperature).softmax(1)))
probabilities_twice = step_with(lambda logits, answers, temperature: F.cross_entropy(logits / temperature, (answers / temperature).softmax(1).softmax(1)))


def never_trains(copy, optimizer, x, answers, temperature):
    loss = right_loss(copy(x), answers, temperature)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def trains_too_late(copy, optimizer, x, answers, temperature):
    copy.eval()
    logits = copy(x)
    copy.train()
    optimizer.zero_grad()
    loss = right_loss(logits, answers, temperature)
    loss.backward()
    optimizer.step()
    return loss.item()


def two_steps(copy, optimizer, x, answers, temperature):
    reference.copy_step(copy, optimizer, x, answers, temperature)
    return reference.copy_step(copy, optimizer, x, answers, temperature)


def own_optimizer(copy, optimizer, x, answers, temperature):
    return reference.copy_step(copy, torch.optim.Adam(copy.parameters(), lr=0.01), x, answers, temperature)


def no_step(copy, optimizer, x, answers, temperature):
    copy.train()
    loss = right_loss(copy(x), answers, temperature)
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


# ---- choose

def all_distances_each_time(features, chosen, count):
    taken = chosen.tolist()
    for _ in range(count):
        taken.append(torch.cdist(features, features[taken]).amin(1).argmax().item())
    return torch.as_tensor(taken[len(chosen):])


def furthest_at_once(features, chosen, count):
    return torch.cdist(features, features[chosen]).amin(1).topk(count).indices


def furthest_of_any(features, chosen, count):
    furthest, new = torch.cdist(features, features[chosen]).amax(1), []
    furthest[chosen] = 0
    for _ in range(count):
        new.append(int(furthest.argmax()))
        furthest[new[-1]] = 0
    return torch.tensor(new)


def never_updated(features, chosen, count):
    nearest = torch.cdist(features, features[chosen]).amin(1)
    return torch.tensor([int(nearest.argmax()) for _ in range(count)])


def at_random(features, chosen, count):
    others = [k for k in range(len(features)) if k not in set(chosen.tolist())]
    return torch.tensor(others)[torch.randperm(len(others))[:count]]


def pair_of_min(features, chosen, count):
    return torch.cdist(features, features[chosen]).min(dim=1).argmax()[None]


def by_subtraction(features, chosen, count):
    return (features - features[chosen]).norm(dim=1).topk(count).indices


def joined(features, chosen, count):
    for _ in range(count):
        chosen = torch.cat([chosen, torch.cdist(features, features[chosen]).amin(1).argmax()])
    return chosen


def old_ones_too(features, chosen, count):
    return torch.cat([chosen, reference.choose(features, chosen, count)])


def nearest_instead(features, chosen, count):
    nearest, new = torch.cdist(features, features[chosen]).amin(1), []
    nearest[chosen] = torch.inf
    for _ in range(count):
        new.append(int(nearest.argmin()))
        nearest[new[-1]] = torch.inf
    return torch.tensor(new)


def furthest_on_average(features, chosen, count):
    taken = chosen.tolist()
    for _ in range(count):
        away = torch.cdist(features, features[taken]).mean(1)
        away[taken] = -1
        taken.append(int(away.argmax()))
    return torch.tensor(taken[len(chosen):])


def summed(features, chosen, count):
    away, new = torch.cdist(features, features[chosen]).sum(1), []
    for _ in range(count):
        new.append(int(away.argmax()))
        away = torch.minimum(away, (features - features[new[-1]]).norm(dim=1))
    return torch.tensor(new)


def far_from_the_last(features, chosen, count):
    taken = chosen.tolist()
    for _ in range(count):
        away = (features - features[taken[-1]]).norm(dim=1)
        away[taken] = -1
        taken.append(int(away.argmax()))
    return torch.tensor(taken[len(chosen):])


def numbers_of_the_rest(features, chosen, count):
    mask = torch.ones(len(features), dtype=torch.bool)
    mask[chosen] = False
    rest, nearest, new = features[mask], torch.cdist(features[mask], features[chosen]).amin(1), []
    for _ in range(count):
        new.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (rest - rest[new[-1]]).norm(dim=1))
    return torch.tensor(new)


def in_order_of_number(features, chosen, count):
    return reference.choose(features, chosen, count).sort().values


def last_first(features, chosen, count):
    return reference.choose(features, chosen, count).flip(0)


def replaced(features, chosen, count):
    nearest, taken = torch.cdist(features, features[chosen]).amin(1), chosen.tolist()
    for _ in range(count):
        taken.append(int(nearest.argmax()))
        nearest = (features - features[taken[-1]]).norm(dim=1)
        nearest[taken] = 0
    return torch.tensor(taken[len(chosen):])


# ---- nearest_distances

def by_matrix(x, labels):
    between = torch.cdist(x.flatten(1), x.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    allowed = (labels[:, None] == labels) & (torch.arange(len(x))[:, None] > torch.arange(len(x)))
    nearest = torch.where(allowed, between, torch.inf).amin(1)
    return nearest[nearest < torch.inf]


def of_any_answer(x, labels):
    rows, distances = x.flatten(1), []
    for k in range(len(x)):
        if (labels[:k] == labels[k]).any():
            distances.append((rows[:k] - rows[k]).norm(dim=1).amin())
    return torch.stack(distances) if distances else torch.zeros(0)


def with_the_future(x, labels):
    rows, distances = x.flatten(1), []
    for k in range(len(x)):
        if (labels[:k] == labels[k]).any():
            others = (labels == labels[k]) & (torch.arange(len(x)) != k)
            distances.append((rows[others] - rows[k]).norm(dim=1).amin())
    return torch.stack(distances) if distances else torch.zeros(0)


def zeros_for_first(x, labels):
    rows = x.flatten(1)
    return torch.stack([(rows[:k][labels[:k] == labels[k]] - rows[k]).norm(dim=1).amin() if (labels[:k] == labels[k]).any() else torch.tensor(0.0)
                        for k in range(len(x))])


def squared(x, labels):
    return reference.nearest_distances(x, labels) ** 2


def stacks_nothing(x, labels):
    rows = x.flatten(1)
    return torch.stack([(rows[:k][labels[:k] == labels[k]] - rows[k]).norm(dim=1).amin() for k in range(len(x)) if (labels[:k] == labels[k]).any()])


def smallest_of_nothing(x, labels):
    rows = x.flatten(1)
    return torch.stack([(rows[:k][labels[:k] == labels[k]] - rows[k]).norm(dim=1).amin() for k in range(len(x))])


def with_itself(x, labels):
    rows = x.flatten(1)
    return torch.stack([(rows[:k + 1][labels[:k + 1] == labels[k]] - rows[k]).norm(dim=1).amin() for k in range(len(x))])


def not_flattened(x, labels):
    between = torch.cdist(x, x)
    return torch.where(labels[:, None] == labels, between, torch.inf).amin(1)


def of_one_channel(x, labels):
    distances = [(x[:k][labels[:k] == labels[k]] - x[k]).norm(dim=1).amin() for k in range(len(x)) if (labels[:k] == labels[k]).any()]
    return torch.stack(distances) if distances else torch.zeros(0)


def tensors_as_keys(x, labels):
    seen, distances = {}, []
    for picture, label in zip(x, labels):
        if label in seen:
            distances.append(min((picture - other).norm() for other in seen[label]))
        seen.setdefault(label, []).append(picture)
    return torch.stack(distances) if distances else torch.zeros(0)


def each_query(take, before=lambda k: slice(0, k)):
    """nearest_distances, except for what `take` makes of the differences and which rows are `before` number k."""
    def nearest_distances(x, labels):
        rows, distances = x.flatten(1), []
        for k in range(len(x)):
            earlier = rows[before(k)][labels[before(k)] == labels[k]]
            if len(earlier):
                distances.append(take(earlier - rows[k]))
        return torch.stack(distances) if distances else torch.zeros(0)
    return nearest_distances


def nearest_of(differences):
    return differences.norm(dim=1).amin()


one_too_few = each_query(nearest_of, lambda k: slice(0, k - 1))
one_too_few_from_0 = each_query(nearest_of, lambda k: slice(0, max(k - 1, 0)))
only_the_one_before = each_query(nearest_of, lambda k: slice(max(k - 1, 0), k))
only_the_last_alike = each_query(lambda differences: differences[-1].norm())
the_mean = each_query(lambda differences: differences.norm(dim=1).mean())
the_furthest = each_query(lambda differences: differences.norm(dim=1).amax())
no_dimension = each_query(lambda differences: differences.norm())
other_dimension = each_query(lambda differences: differences.norm(dim=0).amin())


def sorted_distances(x, labels):
    return reference.nearest_distances(x, labels).sort().values


# ---- p_value

def by_scipy(model, triggers, secret):
    from scipy.stats import binomtest
    with torch.no_grad():
        said = model(triggers)
    return binomtest(int((said.argmax(1) == secret).sum()), len(secret), 1 / said.shape[1], alternative="greater").pvalue


def counted(model, triggers, secret):
    said = model(triggers)
    return len(secret), int((said.argmax(1) == secret).sum()), 1 / said.shape[1]


def exactly(model, triggers, secret):
    n, hits, chance = counted(model, triggers, secret)
    return math.comb(n, hits) * chance**hits * (1 - chance) ** (n - hits)


def more_than(model, triggers, secret):
    from scipy.stats import binom
    n, hits, chance = counted(model, triggers, secret)
    return float(binom.sf(hits, n, chance))


def one_minus(model, triggers, secret):
    from scipy.stats import binom
    n, hits, chance = counted(model, triggers, secret)
    return float(1 - np.float32(binom.cdf(hits - 1, n, chance)))


def ten_classes(model, triggers, secret):
    n, hits, _ = counted(model, triggers, secret)
    return reference._tail(n, hits, 1 / 12)


def no_combinations(model, triggers, secret):
    n, hits, chance = counted(model, triggers, secret)
    return sum(chance**k * (1 - chance) ** (n - k) for k in range(hits, n + 1))


def hits_as_float(model, triggers, secret):
    said = model(triggers)
    return reference._tail(len(secret), (said.argmax(1) == secret).float().sum().item(), 1 / said.shape[1])


def too_few_classes(model, triggers, secret):
    n, hits, _ = counted(model, triggers, secret)
    return reference._tail(n, hits, 1 / 10)


def chance_of_the_triggers(model, triggers, secret):
    n, hits, _ = counted(model, triggers, secret)
    return reference._tail(n, hits, 1 / n)


def without_the_last_term(model, triggers, secret):
    n, hits, chance = counted(model, triggers, secret)
    return sum(math.comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(hits, n))


RIGHT = [
    (AGREEMENT, "counted one by one", by_counting),
    (AGREEMENT, "picture by picture", picture_by_picture),
    (COPY_STEP, "the divergence, times the square of the temperature", by_divergence),
    (CHOOSE, "all distances anew each time", all_distances_each_time),
    (NEAREST_DISTANCES, "all pairs at once", by_matrix),
    (P_VALUE, "scipy's exact test", by_scipy),
]
WRONG = [
    (AGREEMENT, "a count, not a share", a_count, "the share of pictures", "take the mean"),
    (AGREEMENT, "compares the numbers, not the classes", close_answers, "the share of pictures", "compare the classes"),
    (AGREEMENT, "compares probabilities", probabilities_alike, "the share of pictures", "compare the classes"),
    (AGREEMENT, "asks twice", asked_one_by_one_and_again, "once", "another query"),
    (AGREEMENT, "the mean of booleans", mean_of_booleans, "runs to its", "`.float()` before"),
    (COPY_STEP, "learns from labels", from_labels, "not only towards its labels", "throws away all but the label"),
    (COPY_STEP, "no temperature", cold, "by the temperature", "seems to play no part"),
    (COPY_STEP, "softens one side alone", one_side, "by the temperature", "divide both"),
    (COPY_STEP, "walks uphill", uphill, "towards the victim's probabilities", "no minus sign"),
    (COPY_STEP, "gradients add up", uncleared, "towards the victim's probabilities", "zero_grad"),
    (COPY_STEP, "never steps", no_step, "its weights change", "all three"),
    (COPY_STEP, "squared error", squared_error, "towards the victim's probabilities", "`F.cross_entropy` of the copy's logits"),
    (COPY_STEP, "logarithms as the target", logarithms_as_target, "towards the victim's probabilities", "softmax(dim=1)`, and the loss"),
    (COPY_STEP, "no graph", without_graph, "runs to its", "outside of `torch.no_grad()`"),
    (COPY_STEP, "softmax on the copy's side", softmax_on_both, "towards the victim's probabilities", "no softmax on the copy's side"),
    (COPY_STEP, "softmax twice", probabilities_twice, "towards the victim's probabilities", "once more"),
    (COPY_STEP, "stays in eval mode", never_trains, "in train mode", "begin with `copy.train()`"),
    (COPY_STEP, "asks the copy before it trains", trains_too_late, "towards the victim's probabilities", "before `copy(x)`"),
    (COPY_STEP, "two steps", two_steps, "its weights change", "one step a call"),
    (COPY_STEP, "an optimizer of one's own", own_optimizer, "its weights change", "of the argument `optimizer`"),
    (CHOOSE, "the furthest at once", furthest_at_once, "counts each new row", "one, update the distances"),
    (CHOOSE, "furthest from the furthest", furthest_of_any, "nearest chosen one", "`.amin(dim=1)`"),
    (CHOOSE, "the same again and again", never_updated, "none twice", "update the distances"),
    (CHOOSE, "at random", at_random, "nearest chosen one", "largest"),
    (CHOOSE, "the pair that min returns", pair_of_min, "runs to its", "take its `.values`"),
    (CHOOSE, "subtracts all from all", by_subtraction, "runs to its", "`torch.cdist(features"),
    (CHOOSE, "joins a number to a tensor", joined, "runs to its", "in a list"),
    (CHOOSE, "the old ones, too", old_ones_too, "the numbers of `count` rows", "the new rows alone"),
    (CHOOSE, "the nearest", nearest_instead, "nearest chosen one", "largest of the distances"),
    (CHOOSE, "furthest on average", furthest_on_average, "nearest chosen one", "the mean"),
    (CHOOSE, "the sum of the distances", summed, "nearest chosen one", "`.amin(dim=1)`"),
    (CHOOSE, "far from the last alone", far_from_the_last, "nearest chosen one", "the last of them"),
    (CHOOSE, "numbers of the rest", numbers_of_the_rest, "nearest chosen one", "count in `features`"),
    (CHOOSE, "sorted", in_order_of_number, "takes the next", "in the order of choice"),
    (CHOOSE, "the last first", last_first, "takes the next", "in the order of choice"),
    (CHOOSE, "forgets the older distances", replaced, "takes the next", "the smaller of its old distance"),
    (NEAREST_DISTANCES, "whatever the answer", of_any_answer, "same answer", "`labels[:k] == labels[k]`"),
    (NEAREST_DISTANCES, "looks ahead", with_the_future, "earlier queries alone", "what comes later"),
    (NEAREST_DISTANCES, "zeros for the first ones", zeros_for_first, "leaves out the first", "skip it otherwise"),
    (NEAREST_DISTANCES, "without the root", squared, "earlier queries alone", "root of the sum"),
    (NEAREST_DISTANCES, "stacks nothing", stacks_nothing, "leaves out the first", "`torch.zeros(0)`"),
    (NEAREST_DISTANCES, "the smallest of nothing", smallest_of_nothing, "runs to its", "no smallest of nothing"),
    (NEAREST_DISTANCES, "counts itself", with_itself, "leaves out the first", "not itself"),
    (NEAREST_DISTANCES, "pictures as they are", not_flattened, "runs to its", "`x.flatten(1)`"),
    (NEAREST_DISTANCES, "a norm over the channels", of_one_channel, "earlier queries alone", "root of the sum"),
    (NEAREST_DISTANCES, "tensors as keys", tensors_as_keys, "leaves out the first", "`int(label)`"),
    (NEAREST_DISTANCES, "leaves out the one before", one_too_few, "and no other", "all of `[:k]`"),
    (NEAREST_DISTANCES, "leaves out the one before, from 0", one_too_few_from_0, "and no other", "all of `[:k]`"),
    (NEAREST_DISTANCES, "the one before alone", only_the_one_before, "and no other", "all of `[:k]`"),
    (NEAREST_DISTANCES, "the last one with that answer", only_the_last_alike, "earlier queries alone", "not only to the last"),
    (NEAREST_DISTANCES, "the mean", the_mean, "earlier queries alone", "keep the smallest"),
    (NEAREST_DISTANCES, "the furthest", the_furthest, "earlier queries alone", "keep the smallest"),
    (NEAREST_DISTANCES, "a norm of everything", no_dimension, "earlier queries alone", "one number a pair: the differences"),
    (NEAREST_DISTANCES, "a norm over the pictures", other_dimension, "earlier queries alone", "one number a pair: the differences"),
    (NEAREST_DISTANCES, "sorted", sorted_distances, "earlier queries alone", "in the order of the queries"),
    (P_VALUE, "exactly so many hits", exactly, "at least so many", "*exactly*"),
    (P_VALUE, "more than so many", more_than, "at least so many", "*more*"),
    (P_VALUE, "one minus nearly one", one_minus, "tiny where every trigger hits", "rounds such numbers to 0"),
    (P_VALUE, "always twelve classes", ten_classes, "number of classes", "logits.shape[1]"),
    (P_VALUE, "no combinations", no_combinations, "at least so many", "math.comb"),
    (P_VALUE, "hits as a float", hits_as_float, "runs to its", "whole numbers"),
    (P_VALUE, "always ten classes", too_few_classes, "at least so many", "logits.shape[1]"),
    (P_VALUE, "one over the triggers", chance_of_the_triggers, "at least so many", "not 1/n"),
    (P_VALUE, "without the last term", without_the_last_term, "tiny where every trigger hits", "do not leave it out"),
]
