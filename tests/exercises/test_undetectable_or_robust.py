"""Lesson 03's exercises, tried with what learners write."""
import torch
import torch.nn.functional as F

from mlsec_lab.data_to_model.backdoors import roc_auc, turned_features
from mlsec_lab.exercises.undetectable_or_robust import DETECTABILITY, INVERT_TRIGGER, PIVOTAL_LOSS, ROBUSTNESS, SCATTER
from mlsec_lab.victims import penultimate


# ---- the scattered trigger

def scatter_variant(*, one_place=False, one_mark=False, drawn_once=False, in_turn=False, all_marks=False, swapped=False, off_by_one=False, square=False, seeded=True, only_one=False):
    def scatter(x, marks, generator, alpha=0.8):
        generator = generator if seeded else None
        x, s = x.clone(), marks.shape[2]
        high, wide = x.shape[2] - s + (not off_by_one), (x.shape[2] if square else x.shape[3]) - s + (not off_by_one)
        draw = lambda n: torch.randint(n, (1,), generator=generator).item()  # noqa: E731
        fixed = draw(high), draw(min(wide, x.shape[3] - s + 1))
        first = draw(len(marks))
        for n, image in enumerate(x):
            if only_one and n:
                break
            row, column = fixed if one_place else (draw(high), draw(wide))
            for mark in (marks if all_marks else [marks[0 if one_mark else first if drawn_once else n % len(marks) if in_turn else draw(len(marks))]]):
                if all_marks:
                    row, column = draw(high), draw(wide)
                here = image[:, row:row + s, column:column + s]
                mark = mark[:, :here.shape[1], :here.shape[2]]
                here.copy_(alpha * here + (1 - alpha) * mark if swapped else (1 - alpha) * here + alpha * mark)
        return x
    return scatter


def scatter_with_masks(x, marks, generator, alpha=0.8):
    n, _, height, width = x.shape
    s = marks.shape[-1]
    which = torch.randint(len(marks), (n,), generator=generator)
    rows = torch.randint(height - s + 1, (n,), generator=generator)
    columns = torch.randint(width - s + 1, (n,), generator=generator)
    return torch.stack([one(image, marks[k], r, c, alpha) for image, k, r, c in zip(x, which, rows, columns)])


def one(image, mark, row, column, alpha):
    layer, mask = torch.zeros_like(image), torch.zeros_like(image)
    layer[:, row:row + mark.shape[1], column:column + mark.shape[2]] = mark
    mask[:, row:row + mark.shape[1], column:column + mark.shape[2]] = alpha
    return image * (1 - mask) + layer * mask


# ---- robustness

def robustness_loop(course, delta):
    best, lowest = 0, 1
    for accuracy, _ in course:
        best = max(best, accuracy)
    for accuracy, asr in course:
        if best - accuracy <= delta:
            lowest = min(lowest, asr)
    return lowest


# ---- pivotal tuning

def loss_variant(*, pivot_grad=False, mean=False, root=False, backwards=False, no_ce=False, swapped=False, item=False, summed=False, squared=True, sign=1):
    def pivotal_loss(model, pivot, x, y, stay=2e-4, turn=1.0, agree=2.0):
        features, logits = penultimate(model, x)
        if pivot_grad:
            before, answers = penultimate(pivot, x)
        else:
            with torch.no_grad():
                before, answers = penultimate(pivot, x)
        differences = [a - (b if pivot_grad else b.detach()) for a, b in zip(model.parameters(), pivot.parameters())]
        distance = sum((d.square().mean() if mean else d.square().sum()) if squared else d.abs().sum() for d in differences)
        distance = distance.sqrt() if root else distance
        turned = turned_features(before, features, y) if swapped else turned_features(features, before, y)
        first, second = (answers, logits) if backwards else (logits, answers)
        apart = F.kl_div(first.log_softmax(1), second.softmax(1), reduction="sum" if summed else "batchmean")
        loss = (0 if no_ce else F.cross_entropy(logits, y)) + stay * distance + sign * turn * turned + agree * apart
        return loss.item() if item else loss
    return pivotal_loss


def loss_by_hand(model, pivot, x, y, stay=2e-4, turn=1.0, agree=2.0):
    z, logits = penultimate(model, x)
    z0, logits0 = [part.detach() for part in penultimate(pivot, x)]
    p, q = logits0.softmax(1), logits.softmax(1)
    flat = [torch.cat([w.flatten() for w in net.parameters()]) for net in (model, pivot)]
    return (-q[torch.arange(len(y)), y].log().mean() + stay * ((flat[0] - flat[1].detach()) ** 2).sum() + turn * turned_features(z, z0, y)
            + agree * (p * (p.log() - q.log())).sum(1).mean())


# ---- the search for a trigger

def invert_variant(*, uphill=False, minus=False, clamp=True, uncalibrated=False, each=False, both=False, rounds=None, start=0.0, own=False, late=0, sgd=False):
    def invert_trigger(model, repaired, x, y, target, weight=0.5, steps=50, lr=0.01):
        change = (torch.zeros_like(x if each else x[0]) + start).requires_grad_()
        optimizer = torch.optim.SGD([change], lr=lr) if sgd else torch.optim.Adam([change], lr=lr, betas=(0.5, 0.9))
        goal = y if own else torch.full_like(y, target)
        for _ in range((rounds or steps) - late):
            stamped = (x + change).clamp(0, 1) if clamp else x + change
            loss, held = F.cross_entropy(model(stamped), goal), F.cross_entropy(repaired(stamped), y)
            loss = weight * (loss + held) if both else loss if uncalibrated else loss - weight * held if minus else loss + weight * held
            change.grad, = torch.autograd.grad(-loss if uphill else loss, change)
            optimizer.step()
        return change.detach()
    return invert_trigger


def invert_with_backward(model, repaired, x, y, target, weight=0.5, steps=50, lr=0.01):
    change = torch.nn.Parameter(torch.zeros(x.shape[1:]))
    optimizer = torch.optim.Adam([change], lr=lr, betas=(0.5, 0.9))
    for _ in range(steps):
        optimizer.zero_grad()
        stamped = torch.clamp(x + change[None], 0, 1)
        logp = model(stamped).log_softmax(1)[:, target]
        (-logp.mean() + weight * F.cross_entropy(repaired(stamped), y)).backward()
        optimizer.step()
    return change.data


def invert_that_piles_up(model, repaired, x, y, target, weight=0.5, steps=50, lr=0.01):
    change = torch.zeros_like(x[0]).requires_grad_()
    optimizer = torch.optim.Adam([change], lr=lr, betas=(0.5, 0.9))
    for _ in range(steps):
        stamped = (x + change).clamp(0, 1)
        (F.cross_entropy(model(stamped), torch.full_like(y, target)) + weight * F.cross_entropy(repaired(stamped), y)).backward()
        optimizer.step()
    return change.detach()


# ---- AUC

def auc_variant(*, tie=0.5, turned=False, differences=False):
    def detectability(backdoored, clean):
        pairs = [(c, b) if turned else (b, c) for b in backdoored for c in clean]
        if differences:
            return sum(b - c for b, c in pairs) / len(pairs)
        return sum(1.0 if b > c else tie if b == c else 0.0 for b, c in pairs) / len(pairs)
    return detectability


def auc_by_scikit_learn(backdoored, clean):
    from sklearn.metrics import roc_auc_score
    return roc_auc_score([1] * len(backdoored) + [0] * len(clean), [*backdoored, *clean])


def paired_only(backdoored, clean):
    return sum(b > c for b, c in zip(backdoored, clean)) / min(len(backdoored), len(clean))


RIGHT = [
    (SCATTER, "masks, and draws for all pictures at once", scatter_with_masks),
    (ROBUSTNESS, "loops", robustness_loop),
    (PIVOTAL_LOSS, "everything by hand", loss_by_hand),
    (PIVOTAL_LOSS, "classes turned either way round", loss_variant(swapped=True)),
    (INVERT_TRIGGER, "a Parameter and backward", invert_with_backward),
    (DETECTABILITY, "scikit-learn", auc_by_scikit_learn),
    (DETECTABILITY, "the library's, without its interval", lambda backdoored, clean: roc_auc(backdoored, clean, resamples=1)[0]),
]

WRONG = [
    (SCATTER, "the same place for all", scatter_variant(one_place=True), "draws mark and place anew", "inside the loop"),
    (SCATTER, "always the first mark", scatter_variant(one_mark=True), "draws mark and place anew", "draw which mark for each picture"),
    (SCATTER, "one mark for all, drawn", scatter_variant(drawn_once=True), "draws mark and place anew", "inside the loop"),
    (SCATTER, "the marks in turn", scatter_variant(in_turn=True), "draws mark and place anew", "draw which mark for each picture"),
    (SCATTER, "all marks", scatter_variant(all_marks=True), "puts one mark, whole", "one mark a picture in training"),
    (SCATTER, "shares swapped", scatter_variant(swapped=True), "blends", "the mark by `alpha`"),
    (SCATTER, "never the last row", scatter_variant(off_by_one=True), "draws mark and place anew", "H - s + 1 rows"),
    (SCATTER, "height for width", scatter_variant(square=True), "puts one mark, whole", "columns 0 to W - s"),
    (SCATTER, "the first picture only", scatter_variant(only_one=True), "puts one mark, whole", "draw for each picture"),
    (SCATTER, "global randomness", scatter_variant(seeded=False), "gives the same pictures", "generator=generator"),
    (ROBUSTNESS, "the lowest of all", lambda course, delta: min(asr for _, asr in course), "takes the lowest asr", "a broken model has no backdoor either"),
    (ROBUSTNESS, "nearer than delta", lambda course, delta: min(asr for a, asr in course if a > max(a for a, _ in course) - delta), "runs to its `return`", "`>=`, not `>`"),
    (ROBUSTNESS, "without the first", lambda course, delta: min(asr for a, asr in course[1:] if a >= max(a for a, _ in course) - delta), "runs to its `return`", "before the repair count too"),
    (ROBUSTNESS, "the last", lambda course, delta: course[-1][1], "takes the lowest asr", "not at the last one alone"),
    (ROBUSTNESS, "from the first checkpoint", lambda course, delta: min(asr for a, asr in course if a >= course[0][0] - delta), "measures from the best", "is the best"),
    (ROBUSTNESS, "the highest", lambda course, delta: max(asr for a, asr in course if a >= max(a for a, _ in course) - delta), "takes the lowest asr", "take the lowest asr of them"),
    (ROBUSTNESS, "a share of the best", lambda course, delta: min(asr for a, asr in course if a >= max(a for a, _ in course) * (1 - delta)),
     "takes the lowest asr", "not a share of the best"),
    (PIVOTAL_LOSS, "a gradient in the pivot", loss_variant(pivot_grad=True), "reaches the model and not the pivot", "inside `torch.no_grad()`"),
    (PIVOTAL_LOSS, "mean squared distance", loss_variant(mean=True), "weighs each of its terms", "no mean, no root"),
    (PIVOTAL_LOSS, "distance, not squared", loss_variant(root=True), "weighs each of its terms", "no mean, no root"),
    (PIVOTAL_LOSS, "the divergence turned round", loss_variant(backwards=True), "weighs each of its terms", "the pivot's probabilities weigh the logarithms"),
    (PIVOTAL_LOSS, "summed over x", loss_variant(summed=True), "weighs each of its terms", "batchmean"),
    (PIVOTAL_LOSS, "no cross-entropy", loss_variant(no_ce=True), "weighs each of its terms", "comes without a weight"),
    (PIVOTAL_LOSS, "rewards what has not turned", loss_variant(sign=-1), "weighs each of its terms", "with a plus"),
    (PIVOTAL_LOSS, "a float", loss_variant(item=True), "reaches the model and not the pivot", "leave out `.item()`"),
    (INVERT_TRIGGER, "plain gradient descent", invert_variant(sgd=True), "returns one change for all pictures", "no other optimizer"),
    (INVERT_TRIGGER, "one round too few", invert_variant(late=1), "returns one change for all pictures", "in `steps` rounds"),
    (INVERT_TRIGGER, "uphill", invert_variant(uphill=True), "sends the pictures to the target", "Adam goes downhill"),
    (INVERT_TRIGGER, "the true labels for both", invert_variant(own=True), "sends the pictures to the target", "the target as every picture's label"),
    (INVERT_TRIGGER, "calibration turned round", invert_variant(minus=True), "leaves the repaired model's answers alone", "plus and not minus"),
    (INVERT_TRIGGER, "no calibration", invert_variant(uncalibrated=True), "leaves the repaired model's answers alone", "weight * F.cross_entropy"),
    (INVERT_TRIGGER, "both terms weighed", invert_variant(both=True), "leaves the repaired model's answers alone", "only the second term"),
    (INVERT_TRIGGER, "gradients that pile up", invert_that_piles_up, "", "a fresh"),
    (INVERT_TRIGGER, "no clamp", invert_variant(clamp=False), "", "clamp"),
    (INVERT_TRIGGER, "a change for each picture", invert_variant(each=True), "returns one change for all pictures", "print the shapes"),
    (INVERT_TRIGGER, "a start elsewhere", invert_variant(start=0.3), "returns one change for all pictures", "torch.zeros_like(x[0])"),
    (INVERT_TRIGGER, "three rounds", invert_variant(rounds=3), "returns one change for all pictures", "in `steps` rounds"),
    (DETECTABILITY, "a tensor", lambda backdoored, clean: torch.tensor(auc_by_scikit_learn(backdoored, clean)), "share of pairs in the right order", ".item()"),
    (DETECTABILITY, "ties for nothing", auc_variant(tie=0.0), "counts a tie as one half", "add one half"),
    (DETECTABILITY, "ties in full", auc_variant(tie=1.0), "counts a tie as one half", "add one half"),
    (DETECTABILITY, "turned round", auc_variant(turned=True), "share of pairs in the right order", "the other way round"),
    (DETECTABILITY, "the mean difference", auc_variant(differences=True), "share of pairs in the right order", "divide by 35"),
    (DETECTABILITY, "one partner each", paired_only, "share of pairs in the right order", "compare each of the 7 with each of the 5"),
]
