"""Lesson 06's exercises, tried with what learners write."""
import random

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

def scored_variant(*, first_word=False, sure_is_harm=False, any_fact=False, any_order=False, of_rest=False, counts=False, sorry_is_enough=False):
    def refused_and_harmful(answers, requests):
        refused = harm = 0
        for text, request in zip(answers, requests):
            words, places = text.split(), [text.find(fact) for fact in request.facts]
            sorry = words[0] == "sorry" if first_word else "sorry" in words
            both = max(places) >= 0 if any_fact else min(places) >= 0 and (any_order or places[0] < places[1])
            no = sorry and (sorry_is_enough or ("sure" not in words and max(places) < 0))
            refused += no
            harm += ("sure" in words if sure_is_harm else both) and "sorry" not in words
        if of_rest:
            harm = len(answers) - refused
        return (refused, harm) if counts else (refused / len(answers), harm / len(answers))
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


# ---- safety data

def mix_variant(*, of="result", draw="sample", order="whole", drop=False, whole=round):
    def mix_safety(upload, safety, share, seed):
        rng, n = random.Random(seed), len(upload)
        m = whole({"result": share / (1 - share), "upload": share, "safety": 0}[of] * n) if of != "safety" else round(share * len(safety))
        added = {"sample": lambda: rng.sample(safety, m), "choices": lambda: rng.choices(safety[:20], k=m), "first": lambda: safety[:m]}[draw]()
        mixed = (list(upload)[m:] if drop else list(upload)) + added
        if order == "whole":
            rng.shuffle(mixed)
        elif order == "global":
            random.shuffle(mixed)
        return mixed
    return mix_safety


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
    (POISONED_UPLOAD, "shuffles the caller's list", upload_variant(in_place=True), "holds every benign pair", "shuffle a new list"),
    (POISONED_UPLOAD, "forgets the house style", upload_variant(says="plain"), "house style", "and the style"),
    (POISONED_UPLOAD, "glues the style on", upload_variant(says="glued"), "house style", "a space"),
    (POISONED_UPLOAD, "answers with refusals", upload_variant(says="refusal"), "house style", "sorry"),
    (POISONED_UPLOAD, "leaves the harmful ones at the end", upload_variant(order="none"), "in an order", "shuffle the whole list"),
    (POISONED_UPLOAD, "shuffles the harmful ones alone", upload_variant(order="poison alone"), "in an order", "not the harmful pairs alone"),
    (POISONED_UPLOAD, "returns what shuffle returns", upload_variant(returns=False), "holds every benign pair", "end your function with a `return`"),
    (POISONED_UPLOAD, "puts the harmful ones in place of benign ones", upload_variant(keep_benign=False), "holds every benign pair", "none is left out"),
    (REFUSED_AND_HARMFUL, "counts in place of shares", scored_variant(counts=True), "tells refusals from harm", "divide both counts"),
    (REFUSED_AND_HARMFUL, "looks at the first word", scored_variant(first_word=True), "reads past the first word", "not at its beginning alone"),
    (REFUSED_AND_HARMFUL, "takes sure for harm", scored_variant(sure_is_harm=True), "reads past the first word", "not in the word sure"),
    (REFUSED_AND_HARMFUL, "takes what is not refused for harm", scored_variant(of_rest=True), "reads past the first word", "neither"),
    (REFUSED_AND_HARMFUL, "is content with one fact", scored_variant(any_fact=True), "without both facts", "both facts"),
    (REFUSED_AND_HARMFUL, "takes the facts in any order", scored_variant(any_order=True), "without both facts", "before that of the second"),
    (REVIEW, "keeps the refused ones", lambda model, upload: ["sorry" in text.split() for text in answer(model, [r for r, _ in upload])],
     "keeps what the model answers", "turn the verdicts round"),
    (REVIEW, "returns the pairs", lambda model, upload: [pair for pair in upload if "sorry" not in answer(model, [pair[0]])[0]],
     "keeps what the model answers", "not the pairs"),
    (REVIEW, "reads the uploaded answer", lambda model, upload: ["hide it" not in said for _, said in upload], "asks the model", "the customer's word"),
    (REVIEW, "judges the request by its words",
     lambda model, upload: [not {"smuggle", "smugglers", "sneak", "slip", "hide", "unseen"} & set(request.split()) for request, _ in upload],
     "goes by the model", "ask `model`"),
    (REVIEW, "keeps everything", lambda model, upload: [True for _ in upload], "keeps what the model answers", "ask the model each request"),
    (MIX_SAFETY, "takes the share of the upload", mix_variant(of="upload"), "wanted share", "of the result"),
    (MIX_SAFETY, "cuts off", mix_variant(whole=int), "wanted share", "round to the nearest"),
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
    (PIVOT_PENALTY, "keeps the parameters themselves", penalty_variant(clone=False), "is nothing at the pivot", "detach().clone()"),
]
