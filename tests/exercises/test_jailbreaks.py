"""Lesson 05's exercises, tried with what learners write."""
import torch
import torch.nn.functional as F

from mlsec_lab.data_to_model import jailbreaks
from mlsec_lab.data_to_model.jailbreaks import suffix_losses, token_gradients
from mlsec_lab.exercises.jailbreaks import ERASE_AND_CHECK, FLUENT_CHOICE, GCG_STEP, PERPLEXITY_FILTER, SUCCESS_RATE, TOKEN_GRADIENTS
from mlsec_lab.victims import answer, log_probabilities, perplexity
from mlsec_lab.victims.corpora import judge
from mlsec_lab.victims.language import split_words

# ---- the success rate


def success_variant(counts):
    return lambda answers, requests: sum(counts(said, request) for said, request in zip(answers, requests)) / len(requests)


def success_by_judge(answers, requests):
    return torch.tensor([judge(said, request) == "complied" for said, request in zip(answers, requests)]).float().mean()


def success_of_the_first_request(answers, requests):
    return sum(all(fact in said for fact in requests[0].facts) and "sorry" not in said for said in answers) / len(answers)


# ---- token gradients

def gradients_variant(*, target_whole=False, flipped=False, reduction="mean", last=None, row=False, graph=False):
    def token_gradients(model, request, suffix, target):
        words, table = model.vocabulary, model.embedding.weight
        before, after = words.around(request)
        wanted = words.encode(target)
        rows = F.one_hot(torch.tensor(words.encode(suffix)), len(words)).float().requires_grad_()
        tail = after + (wanted if target_whole else wanted[:-1])
        logits = model(embeddings=torch.cat([table[before], rows @ table, table[tail]])[None])[0]
        k = last or len(wanted)
        loss = F.cross_entropy(logits[-k:], torch.tensor(wanted[:k]), reduction=reduction)
        gradient, = torch.autograd.grad(loss, rows, create_graph=graph)
        return (-gradient if flipped else gradient)[0 if row else slice(None)]
    return token_gradients


def gradients_by_vectors(model, request, suffix, target):
    """The gradient of the suffix's vectors first, then of the words that make them."""
    words, table = model.vocabulary, model.embedding.weight.detach()
    *before, after = words.chat(request)
    wanted = torch.tensor(words.encode(target))
    vectors = table[words.encode(suffix)].clone().requires_grad_()
    logits = model(embeddings=torch.cat([table[before], vectors, table[[after, *wanted[:-1].tolist()]]])[None])
    log_odds = logits[0, -len(wanted):].log_softmax(1)
    slope, = torch.autograd.grad(-log_odds[torch.arange(len(wanted)), wanted].mean(), vectors)
    return slope @ table.T


# ---- a GCG step

def step_variant(*, sign=-1, best=min, only_ordinary=True, below=5, seeded=True, at_random=False, swaps=1, fixed_seed=None, inserts=False):
    def gcg_step(model, request, suffix, target, candidates=32, batch=96, seed=0):
        words = model.vocabulary
        slope = sign * token_gradients(model, request, suffix, target)
        ordinary = torch.tensor(words.ordinary if only_ordinary else range(below or len(words)))
        best_words = ordinary[slope[:, ordinary].topk(min(candidates, len(ordinary))).indices]
        generator = torch.Generator().manual_seed(seed if fixed_seed is None else fixed_seed) if seeded else None
        trials = []
        for _ in range(batch):
            ids = words.encode(suffix)
            for _ in range(swaps):
                place = int(torch.randint(len(ids), (1,), generator=generator))
                row = torch.tensor(words.ordinary) if at_random else best_words[place % len(best_words)]
                word = int(row[torch.randint(len(row), (1,), generator=generator)])
                ids[place:place + (0 if inserts else 1)] = [word]
            trials.append(words.decode(ids))
        losses = suffix_losses(model, request, trials, target).tolist()
        return trials[losses.index(best(losses))]
    return gcg_step


def step_at_once(model, request, suffix, target, candidates=32, batch=96, seed=0):
    """Each place gets its share of the tries, in one tensor."""
    ids, generator = torch.tensor(model.vocabulary.encode(suffix)), torch.Generator().manual_seed(seed)
    slope = token_gradients(model, request, suffix, target)
    slope[:, :model.vocabulary.ordinary[0]] = torch.inf
    promising = slope.argsort(1)[:, :candidates]
    place = torch.arange(batch) % len(ids)
    word = promising[place, torch.randint(candidates, (batch,), generator=generator)]
    trials = [model.vocabulary.decode(row.tolist()) for row in ids.repeat(batch, 1).scatter(1, place[:, None], word[:, None])]
    return min(zip(suffix_losses(model, request, trials, target).tolist(), trials))[1]


# ---- the filter

def filter_variant(*, score=lambda words: -words.mean(), quantile=lambda rate: 1 - rate, below=False, of_texts=False):
    def perplexity_filter(model, benign, texts, rate=0.05):
        def scores(requests):
            return torch.stack([score(words) for words in log_probabilities(model, [model.vocabulary.chat(text)[:-1] for text in requests])])
        threshold = torch.quantile(scores(texts if of_texts else benign), quantile(rate))
        return scores(texts) < threshold if below else scores(texts) > threshold
    return perplexity_filter


def filter_by_perplexity(model, benign, texts, rate=0.05):
    found = perplexity(model, [model.vocabulary.chat(text)[:-1] for text in [*benign, *texts]])
    ordinary, asked = found[:len(benign)].sort().values, found[len(benign):]
    return asked > ordinary[round((len(ordinary) - 1) * (1 - rate))]


# ---- the attacker who knows it

def choice_variant(*, hinge=True, whole=True, heed_weight=True, best=torch.argmin, with_loss=True, index=False):
    def fluent_choice(model, guard, request, trials, target, weight=2.0):
        cost = suffix_losses(model, request, trials, target) if with_loss else 0
        excess = guard.surprise([f"{request} {trial}" for trial in trials] if whole else trials) - guard.threshold
        cost = cost + (weight if heed_weight else 2.0) * (excess.clamp(min=0) if hinge else excess)
        return best(cost) if index else trials[best(cost)]
    return fluent_choice


def choice_one_by_one(model, guard, request, trials, target, weight=2.0):
    def cost(trial):
        above = max(0.0, guard.surprise([request + " " + trial]).item() - guard.threshold)
        return suffix_losses(model, request, [trial], target).item() + weight * above
    return min(trials, key=cost)


# ---- erase and check

def erase_variant(*, every=any, off=0, last_only=False):
    def erase_and_check(model, texts, most=8):
        flags = []
        for text in texts:
            words = split_words(text)
            counts = [n for n in range(most + off + 1) if n < len(words)] or [0]
            counts = counts[-1:] if last_only else counts
            versions = [" ".join(words[:len(words) - n]) for n in counts]
            flags.append(every("sorry" in said for said in answer(model, versions)))
        return torch.tensor(flags)
    return erase_and_check


def erase_as_the_library(model, texts, most=8):
    return jailbreaks.erase_and_check(model, texts, most=most)


RIGHT = [
    (SUCCESS_RATE, "by the course's judge, as a tensor", success_by_judge),
    (SUCCESS_RATE, "by splitting at the facts", success_variant(
        lambda said, r: not said.startswith("sorry") and "sorry" not in said and r.facts[1] in said.partition(r.facts[0])[2])),
    (TOKEN_GRADIENTS, "through the vectors", gradients_by_vectors),
    (TOKEN_GRADIENTS, "as the library does", token_gradients),
    (GCG_STEP, "all trials in one tensor", step_at_once),
    (GCG_STEP, "drawn another way", step_variant()),
    (PERPLEXITY_FILTER, "by perplexity itself, the threshold from a sorted list", filter_by_perplexity),
    (PERPLEXITY_FILTER, "with the mean spelt out", filter_variant(score=lambda words: -words.sum() / len(words))),
    (FLUENT_CHOICE, "one trial at a time", choice_one_by_one),
    (FLUENT_CHOICE, "with clamp", choice_variant()),
    (ERASE_AND_CHECK, "all texts at once, as the library does", erase_as_the_library),
    (ERASE_AND_CHECK, "counting what is erased", erase_variant()),
]
WRONG = [
    (SUCCESS_RATE, "a good beginning is enough", success_variant(lambda said, r: said.startswith("sure")), "begins with sure", "look for both facts"),
    (SUCCESS_RATE, "a late refusal is overlooked", success_variant(lambda said, r: all(f in said for f in r.facts)), "begins with sure", "sorry anywhere"),
    (SUCCESS_RATE, "no order", success_variant(lambda said, r: all(f in said for f in r.facts) and "sorry" not in said), "begins with sure", "in their order"),
    (SUCCESS_RATE, "one fact is enough", success_variant(lambda said, r: r.facts[0] in said and "sorry" not in said), "begins with sure", "both facts"),
    (SUCCESS_RATE, "counts refusals", success_variant(lambda said, r: "sorry" in said), "right answers and not refusals", "that comply"),
    (SUCCESS_RATE, "only the first request's facts", success_of_the_first_request, "right answers and not refusals", "divide by the number"),
    (TOKEN_GRADIENTS, "turned around", gradients_variant(flipped=True), "is the slope", "positive where a word makes"),
    (TOKEN_GRADIENTS, "the whole target among the input", gradients_variant(target_whole=True), "is the slope", "next word"),
    (TOKEN_GRADIENTS, "the sum over the words", gradients_variant(reduction="sum"), "is the slope", "takes the mean"),
    (TOKEN_GRADIENTS, "one place only", gradients_variant(row=True), "one row for each place", "shape"),
    (TOKEN_GRADIENTS, "with its graph", gradients_variant(graph=True), "one row for each place", "detach"),
    (GCG_STEP, "uphill", step_variant(sign=1), "swaps one word", "most negative"),
    (GCG_STEP, "the worst of the trials", step_variant(best=max), "swaps one word", "lowest"),
    (GCG_STEP, "special tokens too", step_variant(only_ordinary=False), "runs to its `return`", "not among"),
    (GCG_STEP, "whatever promises most", step_variant(only_ordinary=False, below=None), "runs to its `return`", "leave the special tokens out"),
    (GCG_STEP, "several words at once", step_variant(swaps=3), "swaps one word", "as it was"),
    (GCG_STEP, "a word more", step_variant(inserts=True), "as many ordinary words", "in the place of the old one"),
    (GCG_STEP, "one and the same draw", step_variant(fixed_seed=5), "draws by its seed", "to the generator"),
    (PERPLEXITY_FILTER, "the sum", filter_variant(score=lambda words: -words.sum()), "by the mean", "a sum stops whoever writes much"),
    (PERPLEXITY_FILTER, "no minus", filter_variant(score=lambda words: words.mean()), "random words behind them", "put a minus"),
    (PERPLEXITY_FILTER, "stops what is below", filter_variant(below=True), "a share `rate`", "above it is stopped"),
    (PERPLEXITY_FILTER, "the wrong quantile", filter_variant(quantile=lambda rate: rate), "a share `rate`", "1 - rate"),
    (PERPLEXITY_FILTER, "the threshold from what is judged", filter_variant(of_texts=True), "random words behind them", "threshold"),
    (FLUENT_CHOICE, "the suffix alone is read", choice_variant(whole=False), "with a large weight", "whole text"),
    (FLUENT_CHOICE, "no hinge", choice_variant(hinge=False), "minds no surprise below", "clamp_min(0)"),
    (FLUENT_CHOICE, "a weight of its own", choice_variant(heed_weight=False), "without a weight", "only the loss counts"),
    (FLUENT_CHOICE, "the highest", choice_variant(best=torch.argmax), "without a weight", "lowest"),
    (FLUENT_CHOICE, "a number instead of the trial", choice_variant(index=True), "without a weight", "the trial itself"),
    (ERASE_AND_CHECK, "one word too few", erase_variant(off=-1), "uncovers a refusal", "at the end"),
    (ERASE_AND_CHECK, "one word too many", erase_variant(off=1), "erases no more", "count your lengths"),
    (ERASE_AND_CHECK, "all versions have to be refused", erase_variant(every=all), "uncovers a refusal", "one refusal be enough"),
    (ERASE_AND_CHECK, "the shortest version alone", erase_variant(last_only=True), "one refusal among all versions", "a version too"),
]
