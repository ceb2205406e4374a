"""Lesson 10's exercises, tried with what learners write."""
import functools
import math
import zlib

import torch

from mlsec_lab.exercises.memorization import ALLOWED_WORD, DEDUPLICATE, EXPOSURE, PRIVATE_GRADIENT, RANK_TEXTS
from mlsec_lab.model_to_data.memorization import candidate_log_probabilities, word_runs
from mlsec_lab.victims import log_probabilities, perplexity


# ---- exposure

def exposure_by_sorting(model, canary):
    candidates = canary.candidates()
    order = candidate_log_probabilities(model, canary.prefix, candidates).argsort(descending=True).tolist()
    return math.log2(len(candidates) / (order.index(candidates.index(canary.secret)) + 1))


def exposure_by_perplexity(model, canary):
    texts = [f"{canary.prefix} {candidate}" for candidate in canary.candidates()]
    found = perplexity(model, [model.vocabulary.entry(text, whole=False) for text in texts])
    return torch.tensor(len(texts)).log2() - (found <= found[canary.candidates().index(canary.secret)]).sum().log2()


def exposure_variant(*, log=math.log2, last_only=False, descending=True, rank_alone=False, first_rank=1, other_model=None, candidates_of=None, turned=False):
    def exposure(model, canary):
        candidates = canary.candidates()
        rows = [model.vocabulary.entry(f"{canary.prefix} {candidate}", whole=False) for candidate in candidates]
        found = log_probabilities(other_model or model, rows)
        scores = torch.stack([words[-1] if last_only else words.sum() for words in found])
        true = scores[candidates.index(canary.secret)]
        rank = ((scores > true) if descending else (scores < true)).sum().item() + first_rank
        bits = log(candidates_of or len(candidates)) - log(rank)
        return log(rank) if rank_alone else -bits if turned else bits
    return exposure


def exposure_of_one_word(model, canary):
    row = model.vocabulary.entry(canary.text, whole=False)
    return log_probabilities(model, [row])[0].sum().item()


# ---- generate and rank

def bits(model, texts, whole=True):
    return [-words.sum().item() / math.log(2) for words in log_probabilities(model, [model.vocabulary.entry(text, whole=whole) for text in texts])]


def rank_by_tensors(model, texts, reference=None):
    ratio = torch.tensor(bits(model, texts)) / torch.tensor([8.0 * len(zlib.compress(text.encode())) for text in texts] if reference is None
                                                             else bits(reference, texts))
    return [texts[place] for place in ratio.argsort().tolist()]


def rank_variant(*, reverse=False, mean=False, difference=False, alone=False, places=False, distinct=False, in_place=False, whole=True):
    def rank_texts(model, texts, reference=None):
        own = [value / (len(text.split()) + 1) for value, text in zip(bits(model, texts), texts)] if mean else bits(model, texts, whole)
        other = [len(zlib.compress(text.encode())) for text in texts] if reference is None else bits(reference, texts, whole)
        key = [a - b if difference else a if alone else a / b for a, b in zip(own, other)]
        if in_place:
            texts.sort(key=dict(zip(texts, key)).get)
            return texts
        order = sorted(range(len(texts)), key=key.__getitem__, reverse=reverse)
        return order if places else [texts[place] for place in order][:len(texts) // 2 if distinct else None]
    return rank_texts


# ---- deduplication

def deduplicate_in_a_while_loop(texts, similarity, size=3):
    rest, kept = [(text, word_runs(text, size)) for text in texts], []
    while rest:
        (text, runs), *rest = rest
        kept.append(text)
        rest = [pair for pair in rest if len(runs & pair[1]) / len(runs | pair[1]) < similarity]
    return kept


def deduplicate_variant(*, strict=False, measure="jaccard", dropped_too=False, as_set=False, own_size=None):
    def deduplicate(texts, similarity, size=3):
        kept, seen = [], []
        for text in texts:
            runs = word_runs(text, own_size or size)
            if measure == "words":
                runs = set(text.split())
            over = dict(containment=lambda r: min(len(runs), len(r)), new=lambda r: len(runs), pool=lambda r: len(runs), longer=lambda r: max(len(runs), len(r)))
            before = [set().union(*seen)] if measure == "pool" else seen
            shared = [len(runs & r) / over.get(measure, lambda r: len(runs | r))(r) for r in before]
            stays = all(value <= similarity if strict else value < similarity for value in shared)
            if stays or dropped_too:
                seen.append(runs)
            if stays:
                kept.append(text)
        return sorted(set(kept)) if as_set else kept
    return deduplicate


# ---- DP-SGD

def private_in_a_loop(gradients, clip, noise, batch, seed=0):
    total = torch.zeros(gradients.shape[1])
    for row in gradients:
        length = row.norm().item()
        total += row if length <= clip else row / length * clip
    return torch.normal(total, noise * clip, generator=torch.Generator().manual_seed(seed)) / batch if noise else total / batch


def private_variant(*, cut="rows", unit="clip", divide="batch", noise_at="sum", own_generator=True):
    def private_gradient(gradients, clip, noise, batch, seed=0):
        n, d = gradients.shape
        lengths = gradients.norm(dim=1, keepdim=True)
        if cut == "rows":
            rows = gradients * (clip / lengths.clamp(min=clip))
        elif cut == "always":
            rows = gradients / lengths.clamp(min=1e-9) * clip
        elif cut == "numbers":
            rows = gradients.clamp(-clip, clip)
        else:
            rows = gradients
        total = rows.sum(0)
        if cut == "sum":
            total = total * min(1, clip / (total.norm().item() + 1e-9))
        size = noise * (clip if unit == "clip" else 1)
        generator = torch.Generator().manual_seed(seed) if own_generator else None
        draw = functools.partial(torch.randn, generator=generator)
        if noise_at == "rows":
            total = total + size * draw(n, d).sum(0)
        elif noise_at == "sum":
            total = total + size * draw(d)
        total = total / (batch if divide == "batch" else max(n, 1))
        return total + size * draw(d) if noise_at == "end" else total
    return private_gradient


# ---- the output filter

def allowed_by_masking(logits, row, runs, n):
    last = list(row)[max(len(row) - n + 1, 0):]
    forbidden = [run[-1] for run in runs if list(run[:-1]) == last and len(run) == n]
    scores = logits.clone()
    scores[forbidden] = -torch.inf
    return scores.argmax()


def allowed_variant(*, back=1, few=None, appends=False, once=False, ascending=False, whole_row=False, score=False):
    def allowed_word(logits, row, runs, n):
        last = tuple(row) if whole_row else tuple(row[len(row) - n + back:]) if n > 1 else ()
        order = logits.argsort(descending=not ascending).tolist()[:few]
        if few:
            return next((word for word in order if (*last, word) not in runs), None)
        if once:
            return order[1] if (*last, order[0]) in runs else order[0]
        word = next(word for word in order if (*last, word) not in runs)
        if appends:
            row.append(word)
        return logits[word].item() if score else word
    return allowed_word


def allowed_by_minus_zero(logits, row, runs, n):
    last = tuple(row[-(n - 1):])
    return next(word for word in logits.argsort(descending=True).tolist() if (*last, word) not in runs)


RIGHT = [
    (EXPOSURE, "place in a sorted list", exposure_by_sorting),
    (EXPOSURE, "by perplexity, as a tensor", exposure_by_perplexity),
    (RANK_TEXTS, "bits, tensors and argsort", rank_by_tensors),
    (DEDUPLICATE, "each kept text throws out what follows", deduplicate_in_a_while_loop),
    (PRIVATE_GRADIENT, "row by row, noise around the sum", private_in_a_loop),
    (ALLOWED_WORD, "minus infinity for what is forbidden", allowed_by_masking),
]

WRONG = [
    (EXPOSURE, "natural logarithm", exposure_variant(log=math.log), "whole log2", "math.log2"),
    (EXPOSURE, "the likeliest has the last rank", exposure_variant(descending=False), "whole log2", "likeliest secret has rank 1"),
    (EXPOSURE, "the last digit alone", exposure_variant(last_only=True), "", "compare whole secrets"),
    (EXPOSURE, "the logarithm of the rank", exposure_variant(rank_alone=True), "whole log2", "taken away from log2"),
    (EXPOSURE, "a thousand candidates", exposure_variant(candidates_of=1000), "whole log2", "len(canary.candidates())"),
    (EXPOSURE, "turned round", exposure_variant(turned=True), "whole log2", "the other way round"),
    (EXPOSURE, "ranks from 0", exposure_variant(first_rank=0), "runs to its `return`", "ValueError"),
    (EXPOSURE, "the secret's own log-probability", exposure_of_one_word, "whole log2", "compare whole secrets"),
    (RANK_TEXTS, "sorted in place", rank_variant(in_place=True), "same texts", "sorted(texts)"),
    (RANK_TEXTS, "without the end", rank_variant(whole=False), "bytes that zlib needs", "without `whole=False`"),
    (RANK_TEXTS, "the highest ratio first", rank_variant(reverse=True), "bytes that zlib needs", "lowest ratio comes first"),
    (RANK_TEXTS, "the mean over the words", rank_variant(mean=True), "bytes that zlib needs", "sum over its words"),
    (RANK_TEXTS, "the difference", rank_variant(difference=True), "bytes that zlib needs", "do not subtract"),
    (RANK_TEXTS, "the model alone", rank_variant(alone=True), "bytes that zlib needs", "only half of it"),
    (RANK_TEXTS, "places instead of texts", rank_variant(places=True), "same texts", "return the texts themselves"),
    (RANK_TEXTS, "only the first half", rank_variant(distinct=True), "same texts", "keep every text"),
    (DEDUPLICATE, "drops above the similarity alone", deduplicate_variant(strict=True), "exact copies", "at `similarity` and above"),
    (DEDUPLICATE, "containment", deduplicate_variant(measure="containment"), "Jaccard index of runs", "shared runs over all runs"),
    (DEDUPLICATE, "over the new text's runs", deduplicate_variant(measure="new"), "one text at a time", "`len(a | b)`"),
    (DEDUPLICATE, "over the longer one's runs", deduplicate_variant(measure="longer"), "one text at a time", "`len(a | b)`"),
    (DEDUPLICATE, "one pool of all runs", deduplicate_variant(measure="pool"), "one text at a time", ""),
    (DEDUPLICATE, "single words", deduplicate_variant(measure="words"), "Jaccard index of runs", "word_runs"),
    (DEDUPLICATE, "compares with what was dropped", deduplicate_variant(dropped_too=True), "compares a text with those that were kept", "no longer compared with"),
    (DEDUPLICATE, "a set", deduplicate_variant(as_set=True), "exact copies", "a set forgets the order"),
    (PRIVATE_GRADIENT, "clips each number", private_variant(cut="numbers"), "shortens each longer row", "not each of its numbers"),
    (PRIVATE_GRADIENT, "stretches short rows", private_variant(cut="always"), "shortens each longer row", "do not stretch"),
    (PRIVATE_GRADIENT, "clips the sum", private_variant(cut="sum"), "shortens each longer row", "each row first"),
    (PRIVATE_GRADIENT, "divides by the rows that came", private_variant(divide="rows"), "shortens each longer row", "divide by `batch`"),
    (PRIVATE_GRADIENT, "noise without clip", private_variant(unit="one"), "adds noise of", "in units of `clip`"),
    (PRIVATE_GRADIENT, "noise on each row", private_variant(noise_at="rows"), "", "one vector of noise"),
    (PRIVATE_GRADIENT, "noise after the division", private_variant(noise_at="end"), "adds noise of", "before you divide"),
    (PRIVATE_GRADIENT, "the global generator", private_variant(own_generator=False), "", "`seed`"),
    (ALLOWED_WORD, "tries the second and no further", allowed_variant(once=True), "as many as there are", "go on until"),
    (ALLOWED_WORD, "only the first five words", allowed_variant(few=5), "as many as there are", "through *all* words"),
    (ALLOWED_WORD, "writes into the row", allowed_variant(appends=True), "nothing forbids it", "list(row)"),
    (ALLOWED_WORD, "the unlikeliest", allowed_variant(ascending=True), "nothing forbids it", "word"),
    (ALLOWED_WORD, "one word too few", allowed_variant(back=2), "as many as there are", "last n - 1 words"),
    (ALLOWED_WORD, "the whole row", allowed_variant(whole_row=True), "as many as there are", "last n - 1 words"),
    (ALLOWED_WORD, "row[-0:]", allowed_by_minus_zero, "with n = 1", "row[-0:]"),
    (ALLOWED_WORD, "the score", allowed_variant(score=True), "nothing forbids it", "not its score"),
]
