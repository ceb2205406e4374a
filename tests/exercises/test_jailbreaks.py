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

def gradients_variant(*, target_whole=False, reduction="mean", first=None, graph=False, around=lambda words, request, suffix: words.around(request),
                      rows=lambda one_hot: one_hot, through=lambda rows: rows, finish=lambda gradient: gradient):
    def token_gradients(model, request, suffix, target):
        words, table = model.vocabulary, model.embedding.weight
        before, after = around(words, request, suffix)
        wanted = words.encode(target)
        ones = rows(F.one_hot(torch.tensor(words.encode(suffix)), len(words)).float()).requires_grad_()
        tail = after + (wanted if target_whole else wanted[:-1])
        logits = model(embeddings=torch.cat([table[before], through(ones) @ table, table[tail]])[None])[0, -len(wanted):]
        loss = F.cross_entropy(logits[:first], torch.tensor(wanted[:first]), reduction=reduction)
        gradient, = torch.autograd.grad(loss, ones, create_graph=graph)
        return finish(gradient)
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

def step_variant(*, score=lambda slope: -slope, best=min, only_ordinary=True, below=5, seeded=True, at_random=False, swaps=1, fixed_seed=None, inserts=False,
                 places=None, ranks=None, tries=None):
    def gcg_step(model, request, suffix, target, candidates=32, batch=96, seed=0):
        words = model.vocabulary
        promise = score(token_gradients(model, request, suffix, target))
        ordinary = torch.tensor(words.ordinary if only_ordinary else range(below or len(words)))
        best_words = ordinary[promise[:, ordinary].topk(min(candidates, len(ordinary))).indices]
        generator = torch.Generator().manual_seed(seed if fixed_seed is None else fixed_seed) if seeded else None
        trials = []
        for _ in range(tries or batch):
            ids = words.encode(suffix)
            for _ in range(swaps):
                places_now = places or range(len(ids))
                place = places_now[int(torch.randint(len(places_now), (1,), generator=generator))]
                row = torch.tensor(words.ordinary) if at_random else best_words[place % len(best_words)][:ranks]
                word = int(row[torch.randint(len(row), (1,), generator=generator)])
                ids[place:place + (0 if inserts else 1)] = [word]
            trials.append(words.decode(ids))
        losses = suffix_losses(model, request, trials, target).tolist()
        return trials[losses.index(best(losses))]
    return gcg_step


def step_for_each_place(model, request, suffix, target, candidates=32, batch=96, seed=0):
    """`batch` trials a place, where `batch` in all are asked for."""
    length = len(split_words(suffix))
    trials = [step_variant(places=[place])(model, request, suffix, target, candidates, batch, seed + place) for place in range(length)]
    return trials[int(suffix_losses(model, request, trials, target).argmin())]


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

def filter_variant(*, score=lambda words: -words.mean(), quantile=lambda rate: 1 - rate, below=False, read=lambda vocabulary, text: vocabulary.chat(text)[:-1],
                   ordinary=lambda benign, texts: benign):
    def perplexity_filter(model, benign, texts, rate=0.05):
        def scores(requests):
            return torch.stack([score(words) for words in log_probabilities(model, [read(model.vocabulary, text) for text in requests])])
        threshold = torch.quantile(scores(ordinary(benign, texts)), quantile(rate))
        return scores(texts) < threshold if below else scores(texts) > threshold
    return perplexity_filter


def filter_by_perplexity(model, benign, texts, rate=0.05):
    found = perplexity(model, [model.vocabulary.chat(text)[:-1] for text in [*benign, *texts]])
    ordinary, asked = found[:len(benign)].sort().values, found[len(benign):]
    return asked > ordinary[round((len(ordinary) - 1) * (1 - rate))]


# ---- the attacker who knows it

def choice_variant(*, excess=lambda surprise, threshold: (surprise - threshold).clamp(min=0), whole=True, weighed=lambda loss, excess, weight: loss + weight * excess,
                   best=torch.argmin, chosen=lambda request, trials, number: trials[number]):
    def fluent_choice(model, guard, request, trials, target, weight=2.0):
        surprise = guard.surprise([f"{request} {trial}" for trial in trials] if whole else trials)
        return chosen(request, trials, best(weighed(suffix_losses(model, request, trials, target), excess(surprise, guard.threshold), weight)))
    return fluent_choice


def choice_one_by_one(model, guard, request, trials, target, weight=2.0):
    def cost(trial):
        above = max(0.0, guard.surprise([request + " " + trial]).item() - guard.threshold)
        return suffix_losses(model, request, [trial], target).item() + weight * above
    return min(trials, key=cost)


# ---- erase and check

def erase_variant(*, every=any, counts=lambda most, words: range(min(most, words - 1) + 1), refused=lambda said: "sorry" in said,
                  version=lambda words, erased: words[:len(words) - erased]):
    def erase_and_check(model, texts, most=8):
        flags = []
        for text in texts:
            words = split_words(text)
            versions = [" ".join(version(words, erased)) for erased in counts(most, len(words))]
            flags.append(every(refused(said) for said in answer(model, versions)))
        return torch.tensor(flags)
    return erase_and_check


def erase_one_by_one(model, texts, most=8):
    """From the longest version on, until one is refused."""
    def refused(words, left):
        return "sorry" in answer(model, [" ".join(words)])[0].split() or (left > 0 and len(words) > 1 and refused(words[:-1], left - 1))
    return torch.tensor([refused(split_words(text), most) for text in texts])


def erase_as_the_library(model, texts, most=8):
    return jailbreaks.erase_and_check(model, texts, most=most)


def without_refusal(said, request):
    return "sorry" not in said and all(fact in said for fact in request.facts)


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
    (ERASE_AND_CHECK, "one version after the other, until one is refused", erase_one_by_one),
]
WRONG = [
    (SUCCESS_RATE, "a good beginning is enough", success_variant(lambda said, r: said.startswith("sure")), "in other words", "look for the two facts"),
    (SUCCESS_RATE, "a refusal is all that fails", success_variant(lambda said, r: "sorry" not in said), "begins with sure", "both facts"),
    (SUCCESS_RATE, "a late refusal is overlooked", success_variant(lambda said, r: all(f in said for f in r.facts)), "begins with sure", "sorry anywhere"),
    (SUCCESS_RATE, "an early refusal is overlooked", success_variant(
        lambda said, r: 0 <= said.find(r.facts[0]) < said.find(r.facts[1]) and "sorry" not in said.partition(r.facts[0])[2]), "begins with sure", "before the facts"),
    (SUCCESS_RATE, "no order", success_variant(without_refusal), "begins with sure", "in their order"),
    (SUCCESS_RATE, "one fact is enough", success_variant(lambda said, r: r.facts[0] in said and "sorry" not in said), "begins with sure", "both facts"),
    (SUCCESS_RATE, "a first fact that is missing", success_variant(lambda said, r: said.find(r.facts[0]) < said.find(r.facts[1]) and "sorry" not in said),
     "begins with sure", "-1 is less than"),
    (SUCCESS_RATE, "the very answer", success_variant(lambda said, r: said == r.answer), "in other words", "not for one whole text"),
    (SUCCESS_RATE, "the facts with an and between", success_variant(lambda said, r: " and ".join(r.facts) in said and "sorry" not in said), "in other words", "between"),
    (SUCCESS_RATE, "counts refusals", success_variant(lambda said, r: "sorry" in said), "right answers and not refusals", "that comply"),
    (SUCCESS_RATE, "only the first request's facts", success_of_the_first_request, "right answers and not refusals", "divide by the number"),
    (TOKEN_GRADIENTS, "turned around", gradients_variant(finish=torch.neg), "is the slope", "positive where a word makes"),
    (TOKEN_GRADIENTS, "the whole target among the input", gradients_variant(target_whole=True), "is the slope", "next word"),
    (TOKEN_GRADIENTS, "the sum over the words", gradients_variant(reduction="sum"), "is the slope", "takes the mean"),
    (TOKEN_GRADIENTS, "nothing after the suffix", gradients_variant(around=lambda words, request, suffix: (words.around(request)[0], [])), "is the slope",
     "the second comes between"),
    (TOKEN_GRADIENTS, "nothing before the suffix", gradients_variant(around=lambda words, request, suffix: ([], words.around(request)[1])), "is the slope",
     "the first comes before"),
    (TOKEN_GRADIENTS, "the request without its speaker", gradients_variant(around=lambda words, request, suffix: (words.encode(request), words.around(request)[1])),
     "is the slope", "not from `encode(request)`"),
    (TOKEN_GRADIENTS, "the request's words alone", gradients_variant(around=lambda words, request, suffix: (words.encode(request), [])), "is the slope",
     "not from `encode(request)`"),
    (TOKEN_GRADIENTS, "the suffix twice", gradients_variant(around=lambda words, request, suffix: words.around(f"{request} {suffix}")), "is the slope", "the request alone"),
    (TOKEN_GRADIENTS, "the first word of the target", gradients_variant(first=1), "is the slope", "the loss of all its words"),
    (TOKEN_GRADIENTS, "rows of zeros", gradients_variant(rows=torch.zeros_like), "is the slope", "a single one"),
    (TOKEN_GRADIENTS, "a softmax of the rows", gradients_variant(through=lambda rows: rows.softmax(1)), "is the slope", "the one-hot rows themselves"),
    (TOKEN_GRADIENTS, "rows of length one", gradients_variant(finish=lambda gradient: gradient / gradient.norm(dim=1, keepdim=True)), "is the slope", "as `torch.autograd.grad` gives it"),
    (TOKEN_GRADIENTS, "the places backwards", gradients_variant(finish=lambda gradient: gradient.flip(0)), "is the slope", "each part in turn"),
    (TOKEN_GRADIENTS, "one place only", gradients_variant(finish=lambda gradient: gradient[0]), "one row for each place", "shape"),
    (TOKEN_GRADIENTS, "with its graph", gradients_variant(graph=True), "one row for each place", "detach"),
    (GCG_STEP, "uphill", step_variant(score=lambda slope: slope), "swaps one word", "most negative"),
    (GCG_STEP, "the size of the gradient", step_variant(score=torch.abs), "swaps one word", "with its sign"),
    (GCG_STEP, "the worst of the trials", step_variant(best=max), "swaps one word", "lowest"),
    (GCG_STEP, "the first of the trials", step_variant(best=lambda losses: losses[0]), "swaps one word", "lowest"),
    (GCG_STEP, "the first place alone", step_variant(places=[0]), "swaps one word", "draw the place too"),
    (GCG_STEP, "the most promising word alone", step_variant(ranks=1), "swaps one word", "not always the one"),
    (GCG_STEP, "any words", step_variant(at_random=True), "swaps one word", "from no others"),
    (GCG_STEP, "eight tries", step_variant(tries=8), "swaps one word", "as many suffixes as `batch`"),
    (GCG_STEP, "very many tries", step_variant(tries=600), "no more than `batch`", "all places together"),
    (GCG_STEP, "as many for each place", step_for_each_place, "no more than `batch`", "all places together"),
    (GCG_STEP, "special tokens too", step_variant(only_ordinary=False), "runs to its `return`", "not among"),
    (GCG_STEP, "whatever promises most", step_variant(only_ordinary=False, below=None), "runs to its `return`", "leave the special tokens out"),
    (GCG_STEP, "several words at once", step_variant(swaps=3), "swaps one word", "as it was"),
    (GCG_STEP, "a word more", step_variant(inserts=True), "as many ordinary words", "in the place of the old one"),
    (GCG_STEP, "one and the same draw", step_variant(fixed_seed=5), "draws by its seed", "to the generator"),
    (PERPLEXITY_FILTER, "the sum", filter_variant(score=lambda words: -words.sum()), "by the mean", "a sum stops whoever writes much"),
    (PERPLEXITY_FILTER, "the median", filter_variant(score=lambda words: -words.median()), "by the mean", "not the median"),
    (PERPLEXITY_FILTER, "the least likely word", filter_variant(score=lambda words: -words.min()), "by the mean", "a single rare word"),
    (PERPLEXITY_FILTER, "no minus", filter_variant(score=lambda words: words.mean()), "by the mean", "put a minus"),
    (PERPLEXITY_FILTER, "stops what is below", filter_variant(below=True), "a share `rate`", "above it is stopped"),
    (PERPLEXITY_FILTER, "the wrong quantile", filter_variant(quantile=lambda rate: rate), "a share `rate`", "1 - rate"),
    (PERPLEXITY_FILTER, "the threshold from what is judged", filter_variant(ordinary=lambda benign, texts: texts), "by the mean", "from `benign` alone"),
    (PERPLEXITY_FILTER, "the threshold from all texts", filter_variant(ordinary=lambda benign, texts: benign + texts), "by the mean", "not from both lists"),
    (PERPLEXITY_FILTER, "without the first word", filter_variant(read=lambda vocabulary, text: vocabulary.encode(text)), "by the mean", "its first word is not counted"),
    (FLUENT_CHOICE, "the suffix alone is read", choice_variant(whole=False), "with a large weight", "whole text"),
    (FLUENT_CHOICE, "no hinge", choice_variant(excess=lambda surprise, threshold: surprise - threshold), "minds no surprise below", "clamp_min(0)"),
    (FLUENT_CHOICE, "a weight of its own", choice_variant(weighed=lambda loss, excess, weight: loss + 2.0 * excess), "without a weight", "only the loss counts"),
    (FLUENT_CHOICE, "the highest", choice_variant(best=torch.argmax), "without a weight", "lowest"),
    (FLUENT_CHOICE, "a number instead of the trial", choice_variant(chosen=lambda request, trials, number: number), "without a weight", "the trial itself"),
    (FLUENT_CHOICE, "the request in front", choice_variant(chosen=lambda request, trials, number: f"{request} {trials[number]}"), "without a weight", "without the request"),
    (FLUENT_CHOICE, "the exp of the loss", choice_variant(weighed=lambda loss, excess, weight: loss.exp() + weight * excess), "where both matter", "no `exp`"),
    (FLUENT_CHOICE, "the whole surprise", choice_variant(excess=lambda surprise, threshold: surprise * (surprise > threshold)), "where both matter", "not the whole surprise"),
    (FLUENT_CHOICE, "a square", choice_variant(excess=lambda surprise, threshold: (surprise - threshold).clamp(min=0) ** 2), "where both matter", "not its square"),
    (ERASE_AND_CHECK, "one word too few", erase_variant(counts=lambda most, words: range(min(most, words) or 1)), "however many words that lacks", "at the end"),
    (ERASE_AND_CHECK, "one word too many", erase_variant(counts=lambda most, words: range(min(most + 1, words - 1) + 1)), "erases no more", "count your lengths"),
    (ERASE_AND_CHECK, "all versions have to be refused", erase_variant(every=all), "however many words that lacks", "one refusal be enough"),
    (ERASE_AND_CHECK, "the shortest version alone", erase_variant(counts=lambda most, words: [min(most, words - 1)]), "however many words that lacks", "one refusal be enough"),
    (ERASE_AND_CHECK, "the whole text and the shortest", erase_variant(counts=lambda most, words: [0, min(most, words - 1)]), "however many words that lacks", "0, 1, 2"),
    (ERASE_AND_CHECK, "never the first word alone", erase_variant(counts=lambda most, words: range(min(most, words - 2) + 1)), "leaves the first word", "the first word alone"),
    (ERASE_AND_CHECK, "down to nothing", erase_variant(counts=lambda most, words: range(min(most, words) + 1)), "leaves the first word", "no version is empty"),
    (ERASE_AND_CHECK, "one word taken out at a time", erase_variant(version=lambda words, erased: words[:len(words) - erased] + words[len(words) - erased + 1:] if erased else words),
     "however many words that lacks", "at the end"),
    (ERASE_AND_CHECK, "an answer that begins with sorry", erase_variant(refused=lambda said: said.startswith("sorry")), "erasing nothing", "anywhere"),
]
