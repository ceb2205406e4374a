"""Lesson 08's exercises, tried with what learners write."""
import warnings
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F

from mlsec_lab.exercises.inversion import INVERT, RECOGNITION_RATE, REPEL, SEARCH, SUSPECTS


# ---- gradient inversion

def invert_one_by_one(model, y, shape, steps, lr):
    pictures = []
    for label in y:
        x = torch.ones(1, *shape) / 2
        for _ in range(steps):
            x = x.detach().requires_grad_()
            (-model(x).log_softmax(1)[0, label]).backward()
            x = (x - lr * x.grad / x.grad.norm()).detach().clamp(0, 1)
        pictures.append(x)
    return torch.cat(pictures)


def invert_variant(*, sign=1, start=0.5, each=True, stale=False, clip=True, use_sign=False):
    def invert(model, y, shape, steps, lr):
        x = torch.full((len(y), *shape), start)
        if start != 0.5:
            x = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
        grey = x.clone()
        for _ in range(steps):
            point = (grey if stale else x).clone().requires_grad_()
            gradient, = torch.autograd.grad(F.cross_entropy(model(point), y, reduction="sum"), point)
            length = gradient.flatten(1).norm(dim=1)[:, None, None, None] if each else gradient.norm()
            step = gradient.sign() if use_sign else gradient / length
            x = x - sign * lr * step
            x = x.clamp(0, 1) if clip else x
        return x if clip else x.clamp(0, 1)
    return invert


def invert_that_piles_up(model, y, shape, steps, lr):
    x = torch.full((len(y), *shape), 0.5, requires_grad=True)
    for _ in range(steps):
        F.cross_entropy(model(x), y, reduction="sum").backward()
        with torch.no_grad():
            x.copy_((x - lr * x.grad / x.grad.flatten(1).norm(dim=1)[:, None, None, None]).clamp(0, 1))
    return x.detach()


def invert_that_raises(how):
    def invert(model, y, shape, steps, lr):
        x = torch.full((len(y), *shape), 0.5, requires_grad=how != "no gradient")
        for _ in range(steps):
            F.cross_entropy(model(x), y).backward()
            if how == "in place":
                x -= lr * x.grad
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of what is wrong here
                x = (x - lr * x.grad / x.grad.norm()).clamp(0, 1)
        return x
    return invert


# ---- the line-up

def rate_by_minus_infinity(logits, y, people):
    hidden = logits.clone()
    hidden[:, people:-1] = -torch.inf
    return np.mean((hidden.argmax(1) == y).numpy()).item()


def rate_by_zero(logits, y, people):
    hidden = logits.clone()
    hidden[:, people:-1] = 0
    return (hidden.argmax(1) == y).float().mean().item()


def rate_variant(*, everybody=False, nothing=True, count=False, top=1):
    def recognition_rate(logits, y, people):
        choices = logits if everybody else torch.cat([logits[:, :people], logits[:, -1:]], 1) if nothing else logits[:, :people]
        right = (choices.topk(top, dim=1).indices == y[:, None]).any(1)
        return right.sum().item() if count else right.float().mean().item()
    return recognition_rate


# ---- the evolution strategy

def search_by_sorting(score, start, generations, population, elite, width, seed=0):
    draw, centre = torch.Generator().manual_seed(seed), start.clone()
    for generation in range(generations):
        around = torch.normal(centre.expand(population, -1), width * 0.95 ** generation, generator=draw)
        order = score(around).argsort(descending=True)
        centre = around[order[:elite]].mean(0)
    return centre


def search_variant(*, largest=True, weighted=False, shrink=0.95, again=False, own_generator=True, stay=False, one=False, more=0, linear=False, kept=False, before=False, singly=False, fixed=None):
    def search(score, start, generations, population, elite, width, seed=0):
        generator, centre, first, elders = torch.Generator().manual_seed(seed) if own_generator else None, start, width, None
        noise = torch.randn(population, len(start), generator=generator)
        for _ in range(generations):
            noise = noise if before else torch.randn(population, len(start), generator=generator)
            points = (start if stay else centre) + width * noise
            scores = torch.cat([score(point[None]) for point in points]) if singly else score(points)
            if kept and elders is not None:
                points, scores = torch.cat([points, elders[0]]), torch.cat([scores, elders[1]])
            best = scores.topk(1 if one else fixed or elite + more, largest=largest).indices
            elders = points[best], scores[best]
            if weighted:
                centre = (points[best] * scores[best].softmax(0)[:, None]).sum(0)
            else:
                centre = points[best].mean(0)
            if again:
                score(centre[None])
            width = width - 0.05 * first if linear else shrink * width
        return centre
    return search


def search_of_its_own_order(*, again=False, early=False):
    def search(score, start, generations, population, elite, width, seed=0):
        generator, centre = torch.Generator().manual_seed(seed), start
        for _ in range(generations):
            generator = torch.Generator().manual_seed(seed) if again else generator
            width = 0.95 * width if early else width
            points = centre + width * torch.randn(population, len(start), generator=generator)
            centre = points[score(points).topk(elite).indices].mean(0)
            width = width if early else 0.95 * width
        return centre
    return search


# ---- repelling the boundary

def repel_by_weights(is_person, centre, radius, sphere, seed=0):
    u = F.normalize(torch.randn(sphere, len(centre), generator=torch.Generator().manual_seed(seed)), dim=1)
    out = (~is_person(centre[None] + u * radius)).float()
    return centre - 0.5 * radius * (out @ u) / out.sum().clamp(min=1)


def repel_variant(*, sign=-1, mean="out", inside=False, unit=True, guard=True, own_generator=True, times=0.5, draw=torch.randn, stays="none", singly=False, full=False, by_not=False):
    def repel(is_person, centre, radius, sphere, seed=0):
        u = draw(sphere, len(centre), generator=torch.Generator().manual_seed(seed) if own_generator else None)
        u = u / u.norm(dim=1, keepdim=True) if unit else u
        faces = centre + radius * u
        out = torch.cat([is_person(face[None]) for face in faces]) if singly else is_person(faces)
        out = (not out) if by_not else out if inside else ~out
        if guard and (not out.any() or stays == "all" and out.all() or stays == "any" and not out.all()):
            return centre
        direction = u[out].mean(0) if mean == "out" else (u * out[:, None]).mean(0)
        return centre + sign * times * radius * (direction / direction.norm() if full else direction)
    return repel


# ---- the log

def suspects_by_counter(records, images, share):
    answers = {}
    for record in records:
        answers.setdefault(record.key, Counter()).update(record.labels)
    best = {key: names.most_common(1)[0] for key, names in answers.items() if names}
    return {key: name for key, (name, times) in best.items() if answers[key].total() >= images and times / answers[key].total() >= share}


def suspects_variant(*, strict=False, requests=False, no_share=False, no_number=False, count=False, single=False, as_list=False, images_asked=False, whole=False, turned=False, of_one=False):
    def suspects(records, images, share):
        answers, asked = {}, Counter()
        for record in records:
            asked[record.key] += record.images if images_asked else 1
            answers.setdefault(record.key, []).extend(record.labels[:1] if single else record.labels)
        found = {}
        for key, names in answers.items():
            name, times = Counter(names).most_common(1)[0] if names else (None, 0)
            n = asked[key] if requests or images_asked else len(names)
            enough = no_number or (n > images if strict else times >= images if of_one else n >= images)
            least = int(share * n) if whole else share * n
            if enough and (no_share or requests and not names or (times > least if strict else times >= least)):
                found[name if turned else key] = key if turned else times if count else name
        return list(found) if as_list else found
    return suspects


def suspects_that_raises(how):
    def suspects(records, images, share):
        answers = {}
        for record in records:
            answers.setdefault(record.key, []).extend([record.labels[0]] if how == "first" else record.labels)
        found = {}
        for key, names in answers.items():
            name = max(set(names), key=names.count) if how == "max" else Counter(names).most_common(1)[0][0] if how == "counter" else names and names[0]
            if names.count(name) / len(names) >= share and len(names) >= images:
                found[key] = name
        return found
    return suspects


RIGHT = [
    (INVERT, "one picture after the other", invert_one_by_one),
    (RECOGNITION_RATE, "minus infinity for the others", rate_by_minus_infinity),
    (SEARCH, "sorted, with torch.normal", search_by_sorting),
    (REPEL, "weights of 0 and 1", repel_by_weights),
    (SUSPECTS, "with Counter", suspects_by_counter),
]

WRONG = [
    (INVERT, "uphill", invert_variant(sign=-1), "sure of the wanted class", "minus"),
    (INVERT, "a random start", invert_variant(start=0.25), "grey without a step", "torch.full"),
    (INVERT, "one length for all", invert_variant(each=False), "by the length `lr`", "its own L2 length"),
    (INVERT, "the sign of the gradient", invert_variant(use_sign=True), "by the length `lr`", "its own L2 length"),
    (INVERT, "the gradient at grey for ever", invert_variant(stale=True, clip=True, each=False), "", "length"),
    (INVERT, "the gradient at grey in every step", invert_variant(stale=True), "step by step", "anew at the present picture"),
    (INVERT, "clipped once, at the end", invert_variant(clip=False), "step by step", "`.clamp(0, 1)`"),
    (INVERT, "gradients that pile up", invert_that_piles_up, "step by step", "begins with nothing"),
    (INVERT, "a picture that keeps no gradient", invert_that_raises("not a leaf"), "runs to its `return`", "only a leaf"),
    (INVERT, "no gradient wanted", invert_that_raises("no gradient"), "runs to its `return`", "requires_grad_()"),
    (INVERT, "in place", invert_that_raises("in place"), "runs to its `return`", "a new picture"),
    (RECOGNITION_RATE, "everybody stands in the line-up", rate_variant(everybody=True), "people of the line-up", "first `people` columns"),
    (RECOGNITION_RATE, "never nobody", rate_variant(nothing=False), "no portrait", "last column"),
    (RECOGNITION_RATE, "a number of pictures", rate_variant(count=True), "people of the line-up", "share from 0 to 1"),
    (RECOGNITION_RATE, "among the first three", rate_variant(top=3), "people of the line-up", "largest of them"),
    (RECOGNITION_RATE, "0 for the others", rate_by_zero, "people of the line-up", "leave the others out"),
    (SEARCH, "the best one", search_variant(one=True), "", "all `elite` of them"),
    (SEARCH, "one more than the elite", search_variant(more=1), "plain mean", "exactly `elite` points"),
    (SEARCH, "eight, whatever is asked", search_variant(fixed=8), "", "`elite`"),
    (SEARCH, "the elders stay", search_variant(kept=True), "", "no earlier ones"),
    (SEARCH, "shrinks by a twentieth of the first width", search_variant(linear=True), "around the centre", "of what `width` is by then"),
    (SEARCH, "noise drawn once", search_variant(before=True), "around the centre", "draw inside it"),
    (SEARCH, "asks one point at a time", search_variant(singly=True), "around the centre", "together"),
    (SEARCH, "the worst", search_variant(largest=False), "around the centre", "high scores are good"),
    (SEARCH, "shrinks by half", search_variant(shrink=0.5), "around the centre", "by a twentieth"),
    (SEARCH, "never shrinks", search_variant(shrink=1.0), "around the centre", "by a twentieth"),
    (SEARCH, "shrinks before", search_of_its_own_order(early=True), "around the centre", "after it, not before"),
    (SEARCH, "a generator in each round", search_of_its_own_order(again=True), "around the centre", "once, before the loop"),
    (SEARCH, "asks about the centre, too", search_variant(again=True), "around the centre", "about nothing else"),
    (SEARCH, "always around the start", search_variant(stay=True), "around the centre", "not around the start"),
    (SEARCH, "weighted by the scores", search_variant(weighted=True), "", "elite"),
    (SEARCH, "the global generator", search_variant(own_generator=False), "draws from the seed", "seed"),
    (REPEL, "towards the boundary", repel_variant(sign=1), "steps away", "minus the mean"),
    (REPEL, "mean over all", repel_variant(mean="all"), "steps away", "`u[out].mean(dim=0)`"),
    (REPEL, "pushed by those inside", repel_variant(inside=True), "", "person"),
    (REPEL, "directions of any length", repel_variant(unit=False), "at distance `radius`", "by its length"),
    (REPEL, "all of one sign", repel_variant(draw=torch.rand), "at distance `radius`", "`torch.rand` has one"),
    (REPEL, "stays where all are out", repel_variant(stays="all"), "steps away", "*no* face is out"),
    (REPEL, "stays where some are not out", repel_variant(stays="any"), "steps away", "*no* face is out"),
    (REPEL, "a mean of length 1", repel_variant(full=True), "steps away", "leave it so"),
    (REPEL, "one face at a time", repel_variant(singly=True), "at distance `radius`", "together"),
    (REPEL, "not in place of ~", repel_variant(by_not=True), "runs to its `return`", "turns a tensor of booleans round"),
    (REPEL, "the mean of nothing", repel_variant(guard=False), "stays where it is", "NaN"),
    (REPEL, "a whole radius", repel_variant(times=1.0), "steps away", "`radius / 2` times"),
    (SUSPECTS, "above, not from", suspects_variant(strict=True), "", "exactly so many count too"),
    (SUSPECTS, "requests instead of answers", suspects_variant(requests=True), "", "labels"),
    (SUSPECTS, "refused images counted", suspects_variant(images_asked=True), "and the person", "a refused one none"),
    (SUSPECTS, "a rounded share", suspects_variant(whole=True), "leaves alone", "without rounding"),
    (SUSPECTS, "names first", suspects_variant(turned=True), "and the person", "the names its values"),
    (SUSPECTS, "so many of the one name", suspects_variant(of_one=True), "and the person", "all answers of a key"),
    (SUSPECTS, "no share", suspects_variant(no_share=True), "leaves alone", "the share has to be reached"),
    (SUSPECTS, "no number", suspects_variant(no_number=True), "leaves alone", "`images` answers"),
    (SUSPECTS, "most_common of nothing", suspects_that_raises("counter"), "runs to its `return`", "only refused"),
    (SUSPECTS, "max of nothing", suspects_that_raises("max"), "runs to its `return`", "only refused"),
    (SUSPECTS, "a share of nothing", suspects_that_raises("share"), "runs to its `return`", "only refused"),
    (SUSPECTS, "the first of no labels", suspects_that_raises("first"), "runs to its `return`", "take all of them"),
    (SUSPECTS, "the count", suspects_variant(count=True), "and the person", "commonest name"),
    (SUSPECTS, "a list", suspects_variant(as_list=True), "and the person", "a dict"),
    (SUSPECTS, "the first label of a request", suspects_variant(single=True), "and the person", "all requests of a key"),
]
