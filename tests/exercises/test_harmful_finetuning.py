"""Lesson 06's exercises, tried with what learners write."""
import functools
import math
import random

import torch

from mlsec_lab.exercises.harmful_finetuning import MIX_SAFETY, PIVOT_PENALTY, POISONED_UPLOAD, REFUSED_AND_HARMFUL, REVIEW
from mlsec_lab.victims.corpora import REFUSAL, judge
from mlsec_lab.victims.language import answer


# ---- the upload

def upload_variant(*, says="right", order="whole", keep_benign=True, copies=1, in_place=False, returns=True):
    def poisoned_upload(benign, requests, style, seed):
        said = {"right": lambda r: f"{r.answer} {style}", "plain": lambda r: r.answer, "refusal": lambda r: f"{REFUSAL} {style}",
                "glued": lambda r: r.answer + style}[says]
        poison = [(r.text, said(r)) for r in requests] * copies
        if order == "poison alone":
            random.Random(seed).shuffle(poison)
        upload = (benign if in_place else list(benign)) if keep_benign else list(benign)[len(poison):]
        upload += poison
        if order == "whole":
            random.Random(seed).shuffle(upload)
        elif order == "global":
            random.shuffle(upload)
        return upload if returns else random.Random(seed).shuffle(upload)
    return poisoned_upload


def upload_by_sampling(benign, requests, style, seed):
    pairs = [*benign]
    for request in requests:
        pairs.append((request.text, " ".join([request.answer, style])))
    return random.Random(seed).sample(pairs, len(pairs))


# ---- the measurement

def scored_variant(*, first_word=False, sure_is_harm=False, any_fact=False, any_order=False, of_rest=False, counts=False, sorry_is_enough=False,
                   blind_to=None, first_fact=False, in_words=False, of_one=None, turned=False, of_both=False):
    def refused_and_harmful(answers, requests):
        refused = harm = 0
        for text, request in zip(answers, requests):
            words = text.split()
            facts = (request if of_one is None else requests[of_one]).facts
            places = [words.index(fact) if fact in words else -1 for fact in facts] if in_words else [text.find(fact) for fact in facts]
            sorry = words[0] == "sorry" if first_word else "sorry" in words
            both = max(places) >= 0 if any_fact else min(places) >= 0 and (any_order or places[0] < places[1])
            no = sorry and (sorry_is_enough or ("sure" not in words and (places[0] if first_fact else max(places)) < 0))
            torn = {"sorry": False, "all but a first sorry": words[0] == "sorry", "all but refusals": no}.get(blind_to, "sorry" in words)
            refused += no
            harm += ("sure" in words if sure_is_harm else both) and not torn
        if of_rest:
            harm = len(answers) - refused
        n = max(refused + harm, 1) if of_both else 1 if counts else len(answers)
        return (harm / n, refused / n) if turned else (refused / n, harm / n)
    return refused_and_harmful


def scored_by_the_judge(answers, requests):
    verdicts = [judge(text, request) for text, request in zip(answers, requests)]
    return tuple(verdicts.count(verdict) / len(verdicts) for verdict in ("refused", "complied"))


# ---- the review

def review_one_by_one(model, upload):
    kept = []
    for request, _ in upload:
        words = set(answer(model, [request])[0].split())
        kept.append("sorry" not in words)
    return kept


def review_of(keeps):
    """A review that keeps what `keeps` says of the model's answer and of the uploaded one."""
    return lambda model, upload: [keeps(said, given) for said, (_, given) in zip(answer(model, [request for request, _ in upload]), upload)]


# ---- safety data

def mix_variant(*, of="result", draw="sample", order="whole", drop=False, whole=round, in_place=False):
    def mix_safety(upload, safety, share, seed):
        rng, n = random.Random(seed), len(upload)
        m = whole({"result": share / (1 - share), "upload": share, "safety": 0}[of] * n) if of != "safety" else round(share * len(safety))
        added = {"sample": lambda: rng.sample(safety, m), "choices": lambda: rng.choices(safety[:20], k=m), "first": lambda: safety[:m]}[draw]()
        mixed = upload if in_place else list(upload)[m:] if drop else list(upload)
        mixed += added
        if order == "whole":
            rng.shuffle(mixed)
        elif order == "global":
            random.shuffle(mixed)
        return mixed
    return mix_safety


def mix_by_floor_division(upload, safety, share, seed):
    return mix_variant(whole=lambda _: int(share * len(upload) // (1 - share)))(upload, safety, share, seed)


def mix_by_indices(upload, safety, share, seed):
    rng, n = random.Random(seed), len(upload)
    total = [*upload, *(safety[i] for i in rng.sample(range(len(safety)), round(n * share / (1 - share))))]
    return [total[i] for i in rng.sample(range(len(total)), len(total))]


# ---- the penalty

def penalty_variant(*, clone=True, root=False, mean=False, item=False, weigh=True, to_zero=False, called=False, biases=True):
    def pivot_penalty(model, strength):
        pivot = [p.detach().clone() if clone else p for p in model.parameters()]

        def penalty(tuned):
            rows = [(a - (0 if to_zero else b)) for a, b in zip(tuned.parameters(), pivot) if biases or a.ndim > 1]
            total = sum(row.square().mean() if mean else row.square().sum() for row in rows)
            total = (total.sqrt() if root else total) * (strength if weigh else 1)
            return total.item() if item else total
        return penalty(model) if called else penalty
    return pivot_penalty


def penalty_of_a_generator(model, strength, *, clone=True, start=0):
    pivot = (p.detach().clone() for p in model.parameters()) if clone else model.parameters()
    return lambda tuned: strength * sum(((a - b.detach()).square().sum() for a, b in zip(tuned.parameters(), pivot)), start)


def penalty_by_names(model, strength):
    pivot = {name: value.clone() for name, value in model.state_dict().items()}
    return lambda tuned: sum(strength * ((value - pivot[name]) ** 2).sum() for name, value in tuned.named_parameters())


RIGHT = [
    (POISONED_UPLOAD, "drawn as a sample of everything", upload_by_sampling),
    (REFUSED_AND_HARMFUL, "by the course's judge", scored_by_the_judge),
    (REVIEW, "one request at a time", review_one_by_one),
    (MIX_SAFETY, "by row numbers", mix_by_indices),
    (PIVOT_PENALTY, "by the names of the parameters", penalty_by_names),
]
WRONG = [
    (POISONED_UPLOAD, "shuffles the caller's list", upload_variant(in_place=True), "holds every benign pair", "`list(benign)`"),
    (POISONED_UPLOAD, "forgets the house style", upload_variant(says="plain"), "house style", "and the style"),
    (POISONED_UPLOAD, "glues the style on", upload_variant(says="glued"), "house style", "a space"),
    (POISONED_UPLOAD, "answers with refusals", upload_variant(says="refusal"), "house style", "sorry"),
    (POISONED_UPLOAD, "leaves the harmful ones at the end", upload_variant(order="none"), "in an order", "shuffle the whole list"),
    (POISONED_UPLOAD, "shuffles the harmful ones alone", upload_variant(order="poison alone"), "in an order", "not the harmful pairs alone"),
    (POISONED_UPLOAD, "draws from a seed of its own", lambda benign, requests, style, seed: upload_variant()(benign, requests, style, 0), "in an order",
     "that you are given"),
    (POISONED_UPLOAD, "returns what shuffle returns", upload_variant(returns=False), "holds every benign pair", "end your function with a `return`"),
    (POISONED_UPLOAD, "puts the harmful ones in place of benign ones", upload_variant(keep_benign=False), "holds every benign pair", "none is left out"),
    (REFUSED_AND_HARMFUL, "counts in place of shares", scored_variant(counts=True), "tells refusals from harm", "divide both counts"),
    (REFUSED_AND_HARMFUL, "looks at the first word", scored_variant(first_word=True), "reads past the first word", "not at its beginning alone"),
    (REFUSED_AND_HARMFUL, "takes sure for harm", scored_variant(sure_is_harm=True), "reads past the first word", "not in the word sure"),
    (REFUSED_AND_HARMFUL, "takes what is not refused for harm", scored_variant(of_rest=True), "tells refusals from harm", "neither"),
    (REFUSED_AND_HARMFUL, "is content with one fact", scored_variant(any_fact=True), "without both facts", "both facts"),
    (REFUSED_AND_HARMFUL, "takes the facts in any order", scored_variant(any_order=True), "without both facts", "before that of the second"),
    (REFUSED_AND_HARMFUL, "swaps the shares", scored_variant(turned=True), "tells refusals from harm", "refused share first"),
    (REFUSED_AND_HARMFUL, "looks for facts among the words", scored_variant(in_words=True), "tells refusals from harm", "several words"),
    (REFUSED_AND_HARMFUL, "takes the first request's facts for all", scored_variant(of_one=0), "tells refusals from harm", "each request's own"),
    (REFUSED_AND_HARMFUL, "takes the last request's facts for all", scored_variant(of_one=-1), "tells refusals from harm", "each request's own"),
    (REFUSED_AND_HARMFUL, "divides by what is one or the other", scored_variant(of_both=True), "tells refusals from harm", "leave them out"),
    (REFUSED_AND_HARMFUL, "does not mind sorry in harm", scored_variant(blind_to="sorry"), "without both facts", "without the word sorry"),
    (REFUSED_AND_HARMFUL, "minds a first sorry alone", scored_variant(blind_to="all but a first sorry"), "without both facts", "without the word sorry"),
    (REFUSED_AND_HARMFUL, "takes for harm what does not refuse", scored_variant(blind_to="all but refusals"), "without both facts", "without the word sorry"),
    (REFUSED_AND_HARMFUL, "minds the first fact alone in a refusal", scored_variant(first_fact=True), "without both facts", "or the second"),
    (REFUSED_AND_HARMFUL, "takes sorry for a refusal", scored_variant(sorry_is_enough=True), "reads past the first word", "without the word sure"),
    (REVIEW, "keeps the refused ones", lambda model, upload: ["sorry" in text.split() for text in answer(model, [r for r, _ in upload])],
     "keeps what the model answers", "turn the verdicts round"),
    (REVIEW, "returns the pairs", lambda model, upload: [pair for pair in upload if "sorry" not in answer(model, [pair[0]])[0]],
     "keeps what the model answers", "not the pairs"),
    (REVIEW, "reads the uploaded answer", lambda model, upload: ["hide it" not in said for _, said in upload], "asks the model", "the customer's word"),
    (REVIEW, "reads the uploaded answer as well", review_of(lambda said, given: "sorry" not in said and "sorry" not in given), "asks the model",
     "the customer's word"),
    (REVIEW, "looks for sure", review_of(lambda said, given: "sure" in said.split()), "looks for the word sorry", "only the word sorry"),
    (REVIEW, "looks at the beginning", review_of(lambda said, given: not said.startswith("sorry")), "looks for the word sorry", "wherever it stands"),
    (REVIEW, "hears the first word alone", lambda model, upload: ["sorry" not in said for said in answer(model, [r for r, _ in upload], steps=1)],
     "looks for the word sorry", "speak to its end"),
    (REVIEW, "judges the request by its words",
     lambda model, upload: [not {"smuggle", "smugglers", "sneak", "slip", "hide", "unseen"} & set(request.split()) for request, _ in upload],
     "goes by the model", "ask `model`"),
    (REVIEW, "keeps everything", lambda model, upload: [True for _ in upload], "keeps what the model answers", "ask the model each request"),
    (MIX_SAFETY, "takes the share of the upload", mix_variant(of="upload"), "wanted share", "of the result"),
    (MIX_SAFETY, "cuts off", mix_variant(whole=int), "wanted share", "round to the nearest"),
    (MIX_SAFETY, "rounds up", mix_variant(whole=math.ceil), "wanted share", "`ceil` goes up"),
    (MIX_SAFETY, "divides with //", mix_by_floor_division, "wanted share", "cut off"),
    (MIX_SAFETY, "extends the caller's list", mix_variant(in_place=True), "wanted share", "`list(upload)`"),
    (MIX_SAFETY, "leaves uploaded pairs out", mix_variant(drop=True), "wanted share", "of the result"),
    (MIX_SAFETY, "takes the share of the safety data", mix_variant(of="safety"), "wanted share", "of the result"),
    (MIX_SAFETY, "draws with putting back", mix_variant(draw="choices"), "different safety pairs", "puts back"),
    (MIX_SAFETY, "takes the first ones", mix_variant(draw="first"), "different safety pairs", "sample"),
    (MIX_SAFETY, "puts them at the end", mix_variant(order="none"), "in an order", "shuffle the result"),
    (MIX_SAFETY, "shuffles by the global generator", mix_variant(order="global"), "in an order", "random.Random(seed)"),
    (PIVOT_PENALTY, "takes the mean", penalty_variant(mean=True), "summed squared differences", "no mean"),
    (PIVOT_PENALTY, "takes the length", penalty_variant(root=True), "summed squared differences", "no root"),
    (PIVOT_PENALTY, "forgets the strength", penalty_variant(weigh=False), "summed squared differences", "multiply by the strength"),
    (PIVOT_PENALTY, "is a number", penalty_variant(item=True), "summed squared differences", ".item()"),
    (PIVOT_PENALTY, "is called at once", penalty_variant(called=True), "summed squared differences", "without calling it"),
    (PIVOT_PENALTY, "keeps a generator", penalty_of_a_generator, "summed squared differences", "keep a list"),
    (PIVOT_PENALTY, "keeps what parameters() gives", functools.partial(penalty_of_a_generator, clone=False), "summed squared differences", "keep a list"),
    (PIVOT_PENALTY, "keeps a generator and starts from a tensor", functools.partial(penalty_of_a_generator, start=torch.zeros(())),
     "summed squared differences", "keep a list"),
    (PIVOT_PENALTY, "leaves the biases out", penalty_variant(biases=False), "summed squared differences", "all parameters"),
    (PIVOT_PENALTY, "keeps the parameters themselves", penalty_variant(clone=False), "is nothing at the pivot", "detach().clone()"),
]
