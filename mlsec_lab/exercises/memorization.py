"""Lesson 10: a measure of memorization, an attack, and three defences, each a few lines."""
import functools
import math
import random
import zlib

import torch

from mlsec_lab.exercises import Exercise, advising, require, require_number, require_tensor
from mlsec_lab.model_to_data.memorization import word_runs
from mlsec_lab.victims import log_probabilities, small_transformer, train_language
from mlsec_lab.victims.corpora import Canary, canaries, diary, diary_words, dull_days


def exposure(model, canary):
    """How far up the true secret stands among all secrets of its form, in bits.

    canary: canary.prefix is a string, canary.secret the true secret, and
    canary.candidates() the list of all secrets of its form, the true one among them.
    Returns log2(number of candidates) - log2(rank), a float; the likeliest has rank 1.
    """
    ### BEGIN SOLUTION
    candidates = canary.candidates()
    texts = [f"{canary.prefix} {candidate}" for candidate in candidates]
    rows = [model.vocabulary.entry(text, whole=False) for text in texts]
    scores = torch.stack([words.sum() for words in log_probabilities(model, rows)])
    rank = (scores >= scores[candidates.index(canary.secret)]).sum().item()
    return math.log2(len(candidates)) - math.log2(rank)
    ### END SOLUTION


EXPOSURE = Exercise("memorization.exposure", reference=exposure, difficulty=2, minutes=12, hints=[
    "One row for each candidate: `model.vocabulary.entry(f\"{canary.prefix} {candidate}\", whole=False)` gives the numbers of its words.",
    "`log_probabilities(model, rows)` returns a tensor for each row, with a number for each word. Their sum is the logarithm of the text's probability; "
    "the words of the prefix are the same everywhere and change no rank.",
    "The rank counts the candidates that are at least as likely as the true one: `(scores >= scores[candidates.index(canary.secret)]).sum()`.",
])


def rank_texts(model, texts, reference=None):
    """The texts in the order of suspicion: first what surprises the model least, in
    comparison with somebody who has not seen the model's data.

    texts: a list of strings.  Surprise is minus the log-probability of the whole text,
    its end included.
    reference: a second model; where it is None, the length of what zlib makes of the
    text, `len(zlib.compress(text.encode()))`, takes the place of its surprise.
    Returns a list of the same strings, by the ratio of the two, the lowest first.
    """
    ### BEGIN SOLUTION
    def surprise(reader):
        rows = [reader.vocabulary.entry(text) for text in texts]
        return [-words.sum().item() for words in log_probabilities(reader, rows)]

    own = surprise(model)
    if reference is None:
        other = [len(zlib.compress(text.encode())) for text in texts]
    else:
        other = surprise(reference)
    ratios = [a / b for a, b in zip(own, other)]
    return [text for _, text in sorted(zip(ratios, texts))]
    ### END SOLUTION


RANK_TEXTS = Exercise("memorization.rank_texts", reference=rank_texts, difficulty=2, minutes=12, hints=[
    "`model.vocabulary.entry(text)` makes the row of a text, `log_probabilities(model, rows)` gives one tensor a row; minus its sum is the surprise.",
    "The same lines serve the model and the reference: put them into a small function of their own.",
    "`sorted(zip(ratios, texts))` sorts pairs by their first part, the lowest first.",
])


def deduplicate(texts, similarity, size=3):
    """The texts without near-copies, in their order.

    texts: a list of strings.  A text is kept unless its Jaccard index with a text that
    was kept before it is `similarity` or more.  The Jaccard index: how many runs of
    `size` words both texts have, over how many at least one of them has.
    Returns a new list of strings.
    """
    ### BEGIN SOLUTION
    kept = []
    for text in texts:
        runs = word_runs(text, size)
        if all(len(runs & r) / len(runs | r) < similarity for _, r in kept):
            kept.append((text, runs))
    return [text for text, _ in kept]
    ### END SOLUTION


DEDUPLICATE = Exercise("memorization.deduplicate", reference=deduplicate, difficulty=2, minutes=10, hints=[
    "`word_runs(text, size)` is given: the set of all runs of `size` words. For sets, `a & b` is what both have and `a | b` what at least one has.",
    "Walk through the texts once, and keep a list of pairs (text, runs) of those that stay. Compare with this list alone, not with what was dropped.",
])


def private_gradient(gradients, clip, noise, batch, seed=0):
    """A step's gradient by DP-SGD: cut each example's gradient, add them, add noise.

    gradients: float32 [N, D], a row an example; N differs from step to step, even 0.
    clip: the L2 length to which a longer row is cut; a shorter one stays as it is.
    noise: the standard deviation of the noise on each of the D numbers of the sum, in
    units of `clip`.  seed: of the noise.
    Returns [D]: the noisy sum divided by `batch`, the number of rows on average.
    """
    ### BEGIN SOLUTION
    lengths = gradients.norm(dim=1, keepdim=True)
    cut = gradients * (clip / lengths.clamp(min=clip))
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(gradients.shape[1], generator=generator)
    return (cut.sum(dim=0) + noise * clip * normal) / batch
    ### END SOLUTION


PRIVATE_GRADIENT = Exercise("memorization.private_gradient", reference=private_gradient, difficulty=3, minutes=12, hints=[
    "The length of each row: `gradients.norm(dim=1, keepdim=True)`, of shape [N, 1].",
    "The factor for each row is `clip / length` where the length is above `clip`, and 1 elsewhere: `clip / lengths.clamp(min=clip)` is both.",
    "One draw of D numbers for the whole step, after the sum: `torch.randn(D, generator=torch.Generator().manual_seed(seed))`, times `noise * clip`.",
])


def allowed_word(logits, row, runs, n):
    """The likeliest next word that completes no protected run of n words.

    logits: float32 [V], one score for each word.  row: the numbers of the words so far,
    a list.  runs: a set of tuples of n numbers each; the last n words of the text, the
    new one included, must not be among them.
    Returns the number of a word, an int; there is always one that is allowed.
    """
    ### BEGIN SOLUTION
    last = tuple(row[len(row) - n + 1 :]) if n > 1 else ()
    for word in logits.argsort(descending=True).tolist():
        if (*last, word) not in runs:
            return word
    ### END SOLUTION


ALLOWED_WORD = Exercise("memorization.allowed_word", reference=allowed_word, difficulty=2, minutes=8, hints=[
    "Go through the words from the likeliest on, `logits.argsort(descending=True).tolist()`, and return the first that is allowed.",
    "A run ends with the new word, so it begins with the last n - 1 words of `row`. With n = 1 there are none: mind that `row[-0:]` is the whole list.",
])


# ---- what the properties look at

@functools.lru_cache(maxsize=16)
def _network(seed):
    """An untrained network whose odds differ from word to word."""
    model = small_transformer(diary_words(), width=16, layers=1, heads=2, context=48, seed=seed)
    with torch.no_grad():
        model.head.weight.mul_(8)
    return model


@functools.lru_cache(maxsize=64)
def _scores(seed, prefix, digits):
    """The network's log-probability of each secret of this form, by one row a secret."""
    model, candidates = _network(seed), Canary(prefix, " ".join("0" * digits)).candidates()
    rows = [model.vocabulary.entry(f"{prefix} {candidate}", whole=False) for candidate in candidates]
    return candidates, torch.stack([words.sum() for words in log_probabilities(model, rows)]).double()


def _canary(seed, digits, place):
    """A canary whose secret stands at `place` of the ranking, counted from 0, with a gap to its neighbours where there is one."""
    prefix = canaries(1, digits=digits, seed=seed)[0].prefix
    candidates, scores = _scores(seed, prefix, digits)
    order = scores.argsort(descending=True)
    while 0 < place < len(order) - 1 and (scores[order[place - 1:place + 2]].diff().abs() < 1e-4).any():
        place += 1
    return Canary(prefix, candidates[order[place]]), place


@EXPOSURE.property("gives the whole log2 of the number of candidates to the likeliest secret, and 0 to the unlikeliest")
def _exposure_ends(answer, seed):
    for digits, place in ((2, 0), (2, 99), (3, 0)):
        canary, _ = _canary(seed, digits, place)
        expected = digits * math.log2(10) if place == 0 else 0.0
        got = answer(_network(seed), canary)
        require_number(got, what="exposure")
        require(abs(float(got) - expected) < 0.02, expected=f"{expected:.2f} for the {'un' * (place > 0)}likeliest of {10 ** digits} secrets", got=f"{float(got):.2f}",
                next_step=_about_exposure(float(got), place, digits))


@EXPOSURE.property("falls by one bit whenever the rank doubles")
def _exposure_ranks(answer, seed):
    draw = random.Random(seed)
    for digits, wanted in ((2, 1), (2, 3), (2, draw.randrange(8, 60)), (3, draw.randrange(100, 900))):
        canary, place = _canary(seed, digits, wanted)
        expected, got = math.log2(10 ** digits / (place + 1)), answer(_network(seed), canary)
        require_number(got, what="exposure")
        require(abs(float(got) - expected) < 0.02, expected=f"{expected:.2f} for rank {place + 1} of {10 ** digits}", got=f"{float(got):.2f}",
                next_step=_about_exposure(float(got), place, digits))


def _about_exposure(got, place, digits):
    n = 10 ** digits
    if place == 0 and got == 0:
        return "the likeliest secret has rank 1, and the logarithm of the rank is taken away from log2 of the number of candidates"
    if abs(got - math.log(n / (place + 1))) < 0.02:
        return "exposure is in bits: take `math.log2`, not `math.log`"
    if abs(got - math.log2(n / (n - place))) < 0.02:
        return "the likeliest secret has rank 1: count those that are at least as likely as the true one"
    if abs(got - math.log2(place + 1)) < 0.02:
        return "that is the logarithm of the rank alone: take it away from log2 of the number of candidates"
    if abs(got + math.log2(n / (place + 1))) < 0.02:
        return "it is log2 of the number of candidates, minus log2 of the rank: take them away from each other the other way round"
    if any(abs(got - math.log2(other / (place + 1))) < 0.02 for other in (100, 1000)):
        return "secrets have two digits here and three there: the number of candidates is `len(canary.candidates())`"
    return ("compare whole secrets: for each a row of `canary.prefix` with the candidate behind it, made with `whole=False` because the text may go on; "
            "then the sum over the row's words, and rank 1 for the likeliest. (`argsort` lists the candidates by rank; you want the place where the true one stands.)")


@EXPOSURE.property("depends on the model that it is given")
def _exposure_models(answer, seed):
    canary, place = _canary(seed, 2, 0)
    other = next(s for s in range(seed + 1, seed + 40) if _rank(s, canary) > 3)
    got, expected = answer(_network(other), canary), math.log2(100 / _rank(other, canary))
    require_number(got, what="exposure")
    require(abs(float(got) - expected) < 0.05, expected=f"{expected:.2f} for another model", got=f"{float(got):.2f}",
            next_step="ask the argument `model`, and its own `.vocabulary`")


def _rank(seed, canary):
    candidates, scores = _scores(seed, canary.prefix, len(canary.secret.split()))
    return (scores >= scores[candidates.index(canary.secret)]).sum().item()


@functools.cache
def _readers():
    """Two models of little learning: one knows the diary and three secrets by heart, the other the diary of somebody else."""
    start = small_transformer(diary_words(), width=32, layers=1, context=48, seed=1)
    rows = [start.vocabulary.entry(text) for text in [*diary(60, seed=5), *dull_days(8, seed=5), *(12 * [canary.text for canary in _known()])]]
    others = [start.vocabulary.entry(text) for text in [*diary(60, seed=6), *dull_days(8, seed=6), *(canary.text for canary in canaries(20, digits=3, seed=6))]]
    return tuple(train_language(start, texts, epochs=6, lr=0.01, batch=8, seed=seed, progress=False) for seed, texts in enumerate((rows, others)))


def _known():
    return canaries(3, digits=3, seed=5)


def _suspects(seed):
    """Texts to be ranked, the known secrets among them, in random order."""
    secrets = [canary.text for canary in [*_known(), *canaries(6, digits=3, seed=seed + 7)]]
    texts = list(dict.fromkeys([*diary(12, seed=seed), *dull_days(6, seed=seed), *secrets]))
    return random.Random(seed).sample(texts, len(texts))


def _surprise(model, texts, whole=True):
    return [-words.sum().item() for words in log_probabilities(model, [model.vocabulary.entry(text, whole=whole) for text in texts])]


def _order(answer, model, texts, reference):
    """What the answer returns, once it is the same texts."""
    found = answer(model, list(texts), reference) if reference is not None else answer(model, list(texts))
    require(isinstance(found, (list, tuple)) and all(isinstance(text, str) for text in found), expected="a list of strings",
            got=f"{type(found).__name__}" + (f" of {type(found[0]).__name__}" if isinstance(found, (list, tuple)) and found else ""),
            next_step="return the texts themselves, not their numbers or ratios: `[text for _, text in sorted(zip(ratios, texts))]`")
    require(sorted(found) == sorted(texts), expected=f"the same {len(texts)} texts, each once", got=f"{len(found)} texts, {len(set(found) & set(texts))} of them the same",
            next_step="keep every text: only the order changes")
    return list(found)


def _judge_order(found, texts, own, other, what, model, reference=None):
    ratio = {text: a / b for text, a, b in zip(texts, own, other)}
    ratios = [ratio[text] for text in found]
    wrong = sum(b < a * (1 - 1e-5) for a, b in zip(ratios, ratios[1:]))
    if not wrong:
        return
    length = {text: len(text.split()) for text in texts}
    open_own, open_other = (_surprise(reader, texts, whole=False) if reader else other for reader in (model, reference))
    unended = dict(zip(texts, (a / b for a, b in zip(open_own, open_other)))).get
    surprise, others = dict(zip(texts, own)), dict(zip(texts, other))
    near = lambda key: sum(b < a - 1e-5 * abs(a) for a, b in zip(map(key, found), map(key, found[1:]))) == 0  # noqa: E731
    step = ("the lowest ratio comes first: what surprises the model least, compared" if near(lambda t: -ratio[t]) else
            "divide the two surprises, do not subtract them" if any(near(lambda t: surprise[t] - unit * others[t]) for unit in (1, 8, math.log(2), 8 * math.log(2))) else
            "the surprise of a text is the sum over its words, not their mean and not the perplexity"
            if near(lambda t: ratio[t] / (length[t] + 1)) or near(lambda t: ratio[t] / length[t]) or near(lambda t: math.exp(surprise[t] / (length[t] + 1)) / others[t]) else
            "the text is complete, and its end counts: `entry(text)` without `whole=False`" if near(unended) else
            f"divide by {what}: the model's own surprise is only half of it" if near(surprise.get) or near(lambda t: surprise[t] / (length[t] + 1)) else
            f"sort by the model's surprise over {what}, from low to high")
    require(False, expected="ratios that grow from text to text", got=f"{wrong} of {len(found) - 1} neighbours the wrong way round", next_step=step)


@RANK_TEXTS.property("returns the same texts in another order")
def _rank_same(answer, seed):
    model, reference = _readers()
    for other in (None, reference):
        _order(answer, model, _suspects(seed), other)


@RANK_TEXTS.property("sorts by the ratio to the bytes that zlib needs, where there is no reference")
def _rank_zlib(answer, seed):
    model, _ = _readers()
    texts = _suspects(seed)
    _judge_order(_order(answer, model, texts, None), texts, _surprise(model, texts), [len(zlib.compress(text.encode())) for text in texts], "what zlib needs", model)


@RANK_TEXTS.property("sorts by the ratio to the reference's surprise, where there is one")
def _rank_reference(answer, seed):
    model, reference = _readers()
    texts = _suspects(seed)
    _judge_order(_order(answer, model, texts, reference), texts, _surprise(model, texts), _surprise(reference, texts), "the reference's surprise", model, reference)


@RANK_TEXTS.property("puts what the model alone knows first")
def _rank_effect(answer, seed):
    model, reference = _readers()
    first = _order(answer, model, _suspects(seed), reference)[:3]
    known = sum(canary.text in first for canary in _known())
    require(known >= 2, expected="at least two of three secrets that the model knows by heart among the first three", got=f"{known}",
            next_step="a secret surprises the reference and not the model: its ratio is low, and low comes first")


@DEDUPLICATE.property("drops exact copies and keeps the order")
def _dedup_exact(answer, seed):
    texts = diary(12, seed=seed)
    draw = random.Random(seed)
    doubled = list(texts)
    for text in draw.sample(texts, 5):
        doubled.insert(draw.randint(doubled.index(text) + 1, len(doubled)), text)
    got = _kept(answer(list(doubled), 1.0))
    require(len(got) == len(texts), expected=f"{len(texts)} of {len(doubled)} texts at similarity 1", got=f"{len(got)}",
            next_step="a text that is like itself has the Jaccard index 1: drop at `similarity` and above, and compare each with those kept before it alone")
    require(got == texts, expected="the texts in the order in which they came", got="the same ones in another order" if sorted(got) == sorted(texts) else "other texts",
            next_step="keep the first of each copy, in a list; a set forgets the order")


def _kept(value):
    require(isinstance(value, list) and all(isinstance(text, str) for text in value), expected="a list of strings",
            got=type(value).__name__ + (f" of {type(value[0]).__name__}" if isinstance(value, list) and value else ""),
            next_step="return the texts that stay, as a list of strings")
    return value


@DEDUPLICATE.property("drops from the similarity on, by the Jaccard index of runs of words")
def _dedup_jaccard(answer, seed):
    draw = random.Random(seed)
    words = draw.sample([word for word in diary_words() if word.isalpha()], 40)
    base = words[:draw.randint(8, 10)]
    for longer, size in ((draw.randint(3, 5), 3), (len(base) - 2, 3), (draw.randint(10, 14), 2), (2, 4)):
        texts = [" ".join(base), " ".join(base + words[20:20 + longer])]
        index = (len(base) - size + 1) / (len(base) + longer - size + 1)
        for similarity, stays in ((index - 0.02, False), *[(index, False)] * (index == 0.5), (index + 0.02, True)):
            got = _kept(answer(list(texts), similarity, size))
            require(texts[0] in got, expected="the first text kept", got="it was dropped", next_step="there is nothing before the first text that it could be a copy of")
            require((texts[1] in got) == stays, expected=f"a text with the Jaccard index {index:.2f} {'kept' if stays else 'dropped'} at similarity {similarity:.2f}",
                    got="it was dropped" if stays else "it was kept",
                    next_step="at `similarity` itself a text goes: keep it where the index is below" if similarity == index
                    else "the Jaccard index is shared runs over all runs, `len(a & b) / len(a | b)`, of `word_runs(text, size)`")


@DEDUPLICATE.property("compares with one text at a time, and divides by the runs that at least one of the two has")
def _dedup_pairs(answer, seed):
    draw = random.Random(seed)
    words = draw.sample([word for word in diary_words() if word.isalpha()], 60)
    ends = draw.randint(12, 16)
    for texts in ((words[:8], words[2:ends]), (words[:ends], words[ends - 6:ends + 2])):  # six words in common, and each has others, not as many
        shared = 4
        index = shared / (sum(len(text) - 2 for text in texts) - shared)
        for similarity, stays in ((index - 0.02, False), (index + 0.02, True)):
            got = _kept(answer([" ".join(text) for text in texts], similarity))
            require((len(got) == 2) == stays, expected=f"a text with the Jaccard index {index:.2f} {'kept' if stays else 'dropped'} at similarity {similarity:.2f}",
                    got="it was dropped" if stays else "it was kept", next_step="divide by the runs that at least one of the two has, `len(a | b)`")
    halves = [" ".join(part) for part in (words[:12], words[20:32], words[6:12] + words[20:26])]
    got = _kept(answer(list(halves), 0.5))
    require(got == halves, expected="a text kept that has half of its runs from one and half from another: it is like neither", got="it was dropped",
            next_step="compare with each kept text by itself, not with the runs of all of them together")


@DEDUPLICATE.property("compares a text with those that were kept, not with those that were dropped")
def _dedup_chain(answer, seed):
    words = random.Random(seed).sample([word for word in diary_words() if word.isalpha()], 16)
    texts = [" ".join(words[start:start + 10]) for start in (0, 3, 6)]  # neighbours share five of eleven runs, the ends two of fourteen
    got = _kept(answer(list(texts), 0.4))
    require(got == [texts[0], texts[2]], expected="the first and the third of a chain: only neighbours are alike", got=f"{len(got)} kept" if len(got) != 2 else "two others",
            next_step="the second is dropped, and what is dropped is no longer compared with; go through the texts from the first to the last")


@PRIVATE_GRADIENT.property("without noise: shortens each longer row to `clip`, leaves the others, and adds them up")
def _private_clips(answer, seed):
    gradients = _gradients(seed)
    lengths = gradients.norm(dim=1)
    for clip in (0.5, 2.0, 50.0):
        got, expected = answer(gradients.clone(), clip, 0.0, 16), (gradients * (clip / lengths.clamp(min=clip))[:, None]).sum(0) / 16
        require_tensor(got, expected.shape, what="the gradient")
        error = (got - expected).norm() / expected.norm()
        require(error < 1e-3, expected=f"a vector of length {expected.norm():.3f} at clip = {clip}", got=f"one of length {got.norm():.3f}, {error:.0%} off",
                next_step=_about_clipping(got, gradients, clip, expected))


def _about_clipping(got, gradients, clip, expected):
    lengths, n = gradients.norm(dim=1, keepdim=True), len(gradients)
    near = lambda other: (got - other).norm() < 1e-3 * max(other.norm(), 1e-6)  # noqa: E731
    if near((gradients / lengths * clip).sum(0) / 16):
        return "a row that is shorter than `clip` stays as it is: do not stretch it"
    if near(gradients.clamp(-clip, clip).sum(0) / 16):
        return "cut the L2 length of each row, not each of its numbers"
    if near(expected * 16 / n):
        return "divide by `batch`, which does not depend on who happened to be drawn; the number of rows does"
    if near(expected * 16):
        return "divide the sum by `batch`"
    total = gradients.sum(0)
    if near(total * min(1, clip / total.norm()) / 16) or near(gradients.mean(0) * min(1, clip / gradients.mean(0).norm())):
        return "shorten each row first and add up afterwards: a bound on the sum is none on what one example does to it"
    return "for each row the factor is `clip / length` where the length is above `clip`, and 1 elsewhere"


def _gradients(seed, n=24, d=40):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) * torch.logspace(-2.5, 1, n)[torch.randperm(n, generator=generator), None]


@PRIVATE_GRADIENT.property("one example moves the result by no more than clip / batch")
def _private_bound(answer, seed):
    gradients = _gradients(seed)
    gradients[3] *= 1e4
    gradients[5] = 0
    whole = answer(gradients.clone(), 1.0, 0.5, 16, seed=seed)
    require_tensor(whole, (40,), what="the gradient")
    for row in (0, 3, 5):
        others = torch.cat([gradients[:row], gradients[row + 1:]])
        moved = (answer(others, 1.0, 0.5, 16, seed=seed) - whole).norm().item()
        require(moved <= 1 / 16 + 1e-4, expected=f"a change of at most {1 / 16:.4f} when one example is left out", got=f"{moved:.4f}",
                next_step="shorten each row before the sum, divide by `batch` and not by the number of rows, and draw one vector of noise from `seed`, whoever is there")


@PRIVATE_GRADIENT.property("adds noise of noise * clip to each number of the sum, whoever is in the batch")
def _private_noise(answer, seed):
    for n, clip, noise, batch in ((24, 0.5, 2.0, 8), (0, 3.0, 0.7, 16)):
        gradients = _gradients(seed, max(n, 1), 2000)[:n]
        got = answer(gradients.clone(), clip, noise, batch, seed=seed) - answer(gradients.clone(), clip, 0.0, batch, seed=seed)
        require_tensor(got, (2000,), what="the gradient")
        wanted, spread = noise * clip / batch, got.std().item()
        require(abs(spread / wanted - 1) < 0.1, expected=f"noise of standard deviation {wanted:.4f} with {n} rows (noise {noise}, clip {clip}, batch {batch})",
                got=f"{spread:.4f}", next_step=_about_noise(spread, n, clip, noise, batch))


def _about_noise(spread, n, clip, noise, batch):
    near = lambda other: abs(spread / max(other, 1e-9) - 1) < 0.1  # noqa: E731
    if spread < 1e-7:
        return "add the noise to the sum of the rows, one number for each of the D, also where there is no row at all"
    if near(noise / batch):
        return "the noise is in units of `clip`: multiply it by `noise * clip`"
    if near(noise * clip):
        return "add the noise before you divide by `batch`: to the sum"
    if n and near(noise * clip * math.sqrt(n) / batch):
        return "one vector of noise for the whole sum, not one for each row"
    return "draw D standard normal numbers, multiply by `noise * clip`, add them to the sum, and divide by `batch` last"


@PRIVATE_GRADIENT.property("draws its noise from the seed")
def _private_seed(answer, seed):
    gradients = _gradients(seed)
    first, again, other = (answer(gradients.clone(), 1.0, 1.0, 16, seed=s) for s in (seed, seed, seed + 1))
    require_tensor(first, (40,), what="the gradient")
    require(torch.equal(first, again), expected="the same result for the same seed", got="two different ones",
            next_step="draw from `torch.Generator().manual_seed(seed)`, not from the global generator")
    require((first - other).norm() > 0.01, expected="different noise for different seeds", got="the same", next_step="give the generator the argument `seed`")


def _filter_case(seed, n, words=30):
    """Logits, a row, and the order of the words by their logits."""
    generator = torch.Generator().manual_seed(seed)
    logits, row = torch.randn(words, generator=generator), torch.randint(words, (9,), generator=generator).tolist()
    return logits, row, logits.argsort(descending=True).tolist()


def _word(value):
    require_number(value, what="the word's number")
    require(float(value) == int(value) >= 0, expected="the number of a word", got=f"{value}", next_step="return the number of the word, not its score")
    return int(value)


def _forbidding(row, n, words):
    return {(*row[len(row) - n + 1:], word) if n > 1 else (word,) for word in words}


@ALLOWED_WORD.property("says the likeliest word where nothing forbids it")
def _allowed_plain(answer, seed):
    for n in (1, 2, 5):
        logits, row, order = _filter_case(seed + n, n)
        others = {tuple(row[-n:]), *_forbidding([(word + 1) % 30 for word in row], n, order[:3])} - _forbidding(row, n, order[:1])
        got = _word(answer(logits.clone(), list(row), others, n))
        require(got == order[0], expected=f"word {order[0]}, the likeliest: no run of {n} words forbids it", got=f"word {got}",
                next_step="look for the exact run: the last n - 1 words and the new one, as a tuple")


@ALLOWED_WORD.property("passes over words that complete a protected run, as many as there are")
def _allowed_next(answer, seed):
    for n, blocked in ((6, 1), (3, 4), (2, 25)):
        logits, row, order = _filter_case(seed + n, n)
        with advising("None", next_step="one word is always allowed: go through *all* words, from the likeliest to the unlikeliest"):
            got = _word(answer(logits.clone(), list(row), _forbidding(row, n, order[:blocked]), n))
        require(got == order[blocked], expected=f"word {order[blocked]}: the {blocked} likelier ones complete a run of {n}", got=f"word {got}",
                next_step="the protected run is the last n - 1 words of `row` and the candidate behind them, a tuple of ints: a tensor is never found in a set" if got == order[0]
                else "go on until a word completes no protected run, from the likeliest to the unlikeliest, through all words")


@ALLOWED_WORD.property("with n = 1 forbids single words, and with fewer than n - 1 words before nothing")
def _allowed_edges(answer, seed):
    logits, row, order = _filter_case(seed, 1)
    got = _word(answer(logits.clone(), list(row), {(order[0],), (order[1],)}, 1))
    require(got == order[2], expected=f"word {order[2]}: the two likelier ones are protected by themselves", got=f"word {got}",
            next_step="with n = 1 the run is the new word alone; `row[-0:]` is the whole row, `row[len(row) - n + 1:]` is not")
    short = row[:2]
    runs = {(7, 7, *short, order[0]), (7, *short, order[0], 7), (7, 7, 7, short[1], order[0])}
    got = _word(answer(logits.clone(), list(short), runs, 5))
    require(got == order[0], expected=f"word {order[0]}: three words make no run of five", got=f"word {got}",
            next_step="only whole runs of n words count: compare whole tuples, not their ends")
