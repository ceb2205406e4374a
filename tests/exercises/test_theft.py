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


RIGHT = [
    (AGREEMENT, "counted one by one", by_counting),
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
    (CHOOSE, "the furthest at once", furthest_at_once, "counts each new row", "one, update the distances"),
    (CHOOSE, "furthest from the furthest", furthest_of_any, "nearest chosen one", "`.amin(dim=1)`"),
    (CHOOSE, "the same again and again", never_updated, "none twice", "update the distances"),
    (CHOOSE, "at random", at_random, "nearest chosen one", "largest of the distances"),
    (CHOOSE, "the pair that min returns", pair_of_min, "runs to its", "take its `.values`"),
    (CHOOSE, "subtracts all from all", by_subtraction, "runs to its", "`torch.cdist(features"),
    (CHOOSE, "joins a number to a tensor", joined, "runs to its", "in a list"),
    (CHOOSE, "the old ones, too", old_ones_too, "none twice", "the new rows alone"),
    (CHOOSE, "the nearest", nearest_instead, "nearest chosen one", "where that is largest"),
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
    (P_VALUE, "exactly so many hits", exactly, "1 for no hit", "both included"),
    (P_VALUE, "more than so many", more_than, "1 for no hit", "one too few"),
    (P_VALUE, "one minus nearly one", one_minus, "tiny where every trigger hits", "rounds such numbers to 0"),
    (P_VALUE, "always twelve classes", ten_classes, "number of classes", "logits.shape[1]"),
    (P_VALUE, "no combinations", no_combinations, "1 for no hit", "math.comb"),
    (P_VALUE, "hits as a float", hits_as_float, "runs to its", "whole numbers"),
    (P_VALUE, "always ten classes", too_few_classes, "tiny where every trigger hits", "length of a row"),
]
