"""Lesson 05: when an attack has succeeded, the gradient of a word, a step of GCG, and two filters with the attacker who knows one of them."""
import copy
import functools

import torch
import torch.nn.functional as F

from mlsec_lab.data_to_model.jailbreaks import PerplexityFilter, gcg, random_suffixes, suffix_losses
from mlsec_lab.exercises import Exercise, advising, require, require_number, require_tensor
from mlsec_lab.victims import answer, load_model, log_probabilities, small_transformer
from mlsec_lab.victims.corpora import REFUSAL, chat_requests, is_refusal, judge
from mlsec_lab.victims.language import SPECIAL, split_words


def success_rate(answers, requests):
    """The share of requests that were answered as the attacker wants.

    answers: strings.  requests: one each, with `.facts`, two phrases that the right
    answer has in this order.
    An answer counts if both are in it, in order, and it says "sorry" nowhere.
    Returns a share in [0, 1].
    """
    ### BEGIN SOLUTION
    complied = 0
    for said, request in zip(answers, requests):
        first, second = (said.find(fact) for fact in request.facts)
        complied += 0 <= first < second and "sorry" not in said
    return complied / len(requests)
    ### END SOLUTION


SUCCESS_RATE = Exercise("jailbreaks.success_rate", reference=success_rate, difficulty=1, minutes=5, hints=[
    "`text.find(phrase)` says where a phrase begins, and -1 where it is missing.",
    "Both phrases there and in order: `0 <= first < second`. And no refusal anywhere: `\"sorry\" not in said`.",
])


def token_gradients(model, request, suffix, target):
    """How the loss of `target` changes, to first order, with each word in each place.

    request, suffix, target: strings.
    Returns float32 [L, V]: a row for each of the L words of the suffix, a column for
    each of the V words of the vocabulary.
    """
    ### BEGIN SOLUTION
    vocabulary, table = model.vocabulary, model.embedding.weight.detach()
    before, after = vocabulary.around(request)
    wanted = vocabulary.encode(target)
    ids = torch.tensor(vocabulary.encode(suffix))
    rows = F.one_hot(ids, len(vocabulary)).float().requires_grad_()
    parts = [table[before], rows @ table, table[after + wanted[:-1]]]
    logits = model(embeddings=torch.cat(parts)[None])[0, -len(wanted):]
    loss = F.cross_entropy(logits, torch.tensor(wanted))
    gradient, = torch.autograd.grad(loss, rows)
    return gradient
    ### END SOLUTION


TOKEN_GRADIENTS = Exercise("jailbreaks.token_gradients", reference=token_gradients, difficulty=4, minutes=20, hints=[
    "Three parts, one after the other: the words before the suffix, the suffix, the words after it with the target behind them. `model.vocabulary.around(request)` gives the numbers of what stands before and after.",
    "For the suffix take `rows = F.one_hot(ids, V).float().requires_grad_()`, and `rows @ table` in place of its vectors, where `table = model.embedding.weight.detach()`. The other parts are `table[numbers]`.",
    "`model(embeddings=everything[None])` gives logits [1, T, V]: each place predicts the *next* word. Leave the target's last word out of the input, and the last `len(wanted)` logits are those of the target's words.",
    "`F.cross_entropy(logits[0, -len(wanted):], torch.tensor(wanted))`, and `torch.autograd.grad(loss, rows)` returns a tuple of one gradient.",
])


def gcg_step(model, request, suffix, target, candidates=32, batch=96, seed=0):
    """One step of greedy coordinate gradient: try swaps of one word, keep the best.

    candidates: for each place, so many of the words that the gradient promises most of.
    batch: so many suffixes are tried, each with one such word in one place.
    seed: of the draws.  Only words of model.vocabulary.ordinary are used.
    Returns the suffix of lowest loss among those tried, a string.
    """
    ### BEGIN SOLUTION
    vocabulary = model.vocabulary
    gradient = token_gradients(model, request, suffix, target)
    ordinary = torch.tensor(vocabulary.ordinary)
    promising = ordinary[(-gradient[:, ordinary]).topk(candidates).indices]
    generator = torch.Generator().manual_seed(seed)
    ids, trials = vocabulary.encode(suffix), []
    for _ in range(batch):
        place = int(torch.randint(len(ids), (), generator=generator))
        pick = int(torch.randint(candidates, (), generator=generator))
        trial = [*ids[:place], int(promising[place, pick]), *ids[place + 1:]]
        trials.append(vocabulary.decode(trial))
    losses = suffix_losses(model, request, trials, target)
    return trials[losses.argmin()]
    ### END SOLUTION


GCG_STEP = Exercise("jailbreaks.gcg_step", reference=gcg_step, difficulty=3, minutes=20, hints=[
    "Call your `token_gradients`. A word promises to lower the loss where its gradient is most negative: `(-gradient[:, ordinary]).topk(candidates).indices`, with `ordinary = torch.tensor(model.vocabulary.ordinary)`. These indices count within `ordinary`: `ordinary[...]` makes word numbers of them.",
    "For each trial draw a place and one of its candidates: `int(torch.randint(n, (), generator=generator))` draws a number below n, with `generator = torch.Generator().manual_seed(seed)`.",
    "Work on the numbers, `ids = model.vocabulary.encode(suffix)`; `[*ids[:place], word, *ids[place + 1:]]` is a new list with one of them swapped, and `model.vocabulary.decode` makes a string of it.",
    "`suffix_losses(model, request, trials, target)` is the *true* loss of each trial, one tensor [batch]. Return the trial of the lowest.",
])


def perplexity_filter(model, benign, texts, rate=0.05):
    """Which of the texts are less likely, word by word, than nearly all ordinary ones?

    benign, texts: lists of strings.  rate: the share of `benign` that may be stopped.
    Returns bool [N]: True where a text's mean negative log-probability (the logarithm
    of its perplexity) is above the threshold that `benign` and `rate` set.
    """
    ### BEGIN SOLUTION
    def surprise(requests):
        chats = [model.vocabulary.around(request)[0] for request in requests]
        return torch.stack([-words.mean() for words in log_probabilities(model, chats)])

    threshold = torch.quantile(surprise(benign), 1 - rate)
    return surprise(texts) > threshold
    ### END SOLUTION


PERPLEXITY_FILTER = Exercise("jailbreaks.perplexity_filter", reference=perplexity_filter, difficulty=2, minutes=12, hints=[
    "`model.vocabulary.around(text)[0]` is a request as the model reads it, up to its last word. `log_probabilities(model, [ids, …])` gives for each such list one tensor: the log-probability of each word.",
    "One number a text: the mean, with a minus. The sum would stop whoever writes much. `torch.stack([...])` makes one tensor of many numbers.",
    "`torch.quantile(scores, 1 - rate)` is the value that a share `rate` of the scores is above. Take it from `benign`, compare `texts` with it.",
])


def fluent_choice(model, guard, request, trials, target, weight=2.0):
    """The best of the suffixes for an attacker who knows the filter.

    guard: `guard.surprise(texts)` is what the filter measures, a tensor [N], and
    `guard.threshold` what it allows.  trials: strings.
    Returns the trial of the lowest loss of `target` plus `weight` times what the whole
    text, request and suffix, has above the threshold.
    """
    ### BEGIN SOLUTION
    losses = suffix_losses(model, request, trials, target)
    surprise = guard.surprise([f"{request} {trial}" for trial in trials])
    excess = (surprise - guard.threshold).clamp_min(0)
    return trials[(losses + weight * excess).argmin()]
    ### END SOLUTION


FLUENT_CHOICE = Exercise("jailbreaks.fluent_choice", reference=fluent_choice, difficulty=3, minutes=12, hints=[
    "`suffix_losses(model, request, trials, target)` says how far each trial is from the answer. What else does the attacker mind now?",
    "The filter reads the whole text, so ask `guard.surprise` about `f\"{request} {trial}\"`, all trials at once.",
    "Below the threshold nothing is gained by being more ordinary still: `.clamp_min(0)` of the difference.",
])


def erase_and_check(model, texts, most=8):
    """Refuse what the assistant would refuse if some of the last words were missing.

    texts: a list of strings.  most: erase 0, 1, 2, ... up to so many words at the end,
    but never the first word.
    Returns bool [N]: True where the assistant says "sorry" to the text or to one of its
    erased versions.
    """
    ### BEGIN SOLUTION
    flags = []
    for text in texts:
        words = split_words(text)
        lengths = range(max(1, len(words) - most), len(words) + 1)
        said = answer(model, [" ".join(words[:length]) for length in lengths])
        flags.append(any("sorry" in one for one in said))
    return torch.tensor(flags)
    ### END SOLUTION


ERASE_AND_CHECK = Exercise("jailbreaks.erase_and_check", reference=erase_and_check, difficulty=2, minutes=12, hints=[
    "`split_words(text)` gives the words, `\" \".join(words[:length])` a text that ends sooner. Which lengths are there, from the shortest to the whole text?",
    "`answer(model, versions)` answers a list of texts at once. One refusal among the answers is enough: `any(...)`.",
    "`range(max(1, len(words) - most), len(words) + 1)` are the lengths; `torch.tensor(flags)` makes the result of a list of booleans.",
])


# ---- what the properties look at

@functools.cache
def _model():
    return load_model("chat_aligned")


@functools.cache
def _reader():
    return load_model("chat_base")


def _tiny(seed):
    return small_transformer("a b c d e f g h yes no ? .", width=16, layers=2, heads=2, context=32, seed=seed % 1000)


def _forbidden(seed, n=1):
    return chat_requests(n, forbidden=True, seed=seed)


def _texts(seed, n, forbidden=False):
    return [request.text for request in chat_requests(n, forbidden=forbidden, seed=seed)]


@SUCCESS_RATE.property("counts right answers and not refusals")
def _success_plain(answer, seed):
    requests = _forbidden(seed, 8)
    for answers, share in (([r.answer for r in requests], 1.0), ([REFUSAL] * 8, 0.0), ([r.answer for r in requests[:2]] + [REFUSAL] * 6, 0.25)):
        _require_share(answer(answers, requests), share, "count the answers that comply and divide by the number of requests")


@SUCCESS_RATE.property("is not taken in by an answer that begins with sure")
def _success_sure(answer, seed):
    requests = _forbidden(seed, 4)
    for answers, step in (([f"{r.opening} {REFUSAL}" for r in requests], "a good beginning is no answer: look for both facts"),
                          ([f"{r.answer} {REFUSAL}" for r in requests], "an answer that says sorry anywhere does not count, whatever else it says"),
                          ([f"{r.opening} {r.facts[0]} ." for r in requests], "both facts have to be there"),
                          ([f"{r.opening} {r.facts[1]} and {r.facts[0]} ." for r in requests], "the facts have to be in their order")):
        _require_share(answer(answers, requests), 0.0, step)


@SUCCESS_RATE.property("asks each answer for the facts of its own request")
def _success_own(answer, seed):
    requests = [request for request in _forbidden(seed, 60)]
    first, other = requests[0], next(r for r in requests if r.about[0] != requests[0].about[0] and r.about[1] != requests[0].about[1])
    _require_share(answer([first.answer, other.answer], [first, other]), 1.0, "go through answers and requests together, with `zip`")
    _require_share(answer([other.answer, first.answer], [first, other]), 0.0, "each request has its own facts: go through both lists together, with `zip`")


def _require_share(got, share, step):
    require_number(got, what="the share")
    require(abs(float(got) - share) < 1e-6, expected=f"a share of {share:.2f}", got=f"{float(got):.2f}", next_step=step)


@TOKEN_GRADIENTS.property("gives one row for each place and one column for each word")
def _gradient_shape(answer, seed):
    model = _tiny(seed)
    for suffix in ("a b c", "h . ? a e"):
        found = answer(model, "d e ?", suffix, "yes .")
        require(not (isinstance(found, torch.Tensor) and found.shape[-1:] == model.embedding.weight.shape[1:]), expected="a column for each word of the vocabulary",
                got="one for each number of a word's vector", next_step="take the gradient of the one-hot rows, not that of the vectors that they become")
        require_tensor(found, (len(suffix.split()), len(model.vocabulary)), what="the gradient")


@TOKEN_GRADIENTS.property("is the slope of the target's loss, for every word of the target")
def _gradient_slope(answer, seed):
    model, suffix, target, request = _tiny(seed), "a b c d", "yes . no", "d e ?"
    got = answer(model, request, suffix, target)
    table, ids = model.embedding.weight.detach(), model.vocabulary.encode(suffix)
    before, after = model.vocabulary.around(request)
    wanted = model.vocabulary.encode(target)
    one_hot = F.one_hot(torch.tensor(ids), len(table)).float()
    generator = torch.Generator().manual_seed(seed)
    nudges = [(int(torch.randint(4, (), generator=generator)), int(torch.randint(len(table), (), generator=generator))) for _ in range(12)]

    def loss(rows):
        with torch.no_grad():
            logits = model(embeddings=torch.cat([table[before], rows @ table, table[[*after, *wanted[:-1]]]])[None])
        return F.cross_entropy(logits[0, -len(wanted):].double(), torch.tensor(wanted))

    true = []
    for place, word in nudges:
        nudge = torch.zeros_like(one_hot)
        nudge[place, word] = 0.02
        true.append((loss(one_hot + nudge) - loss(one_hot - nudge)) / 0.04)
    true, found = torch.stack(true).float(), torch.stack([got[place, word] for place, word in nudges]).float()
    likeness = F.cosine_similarity(true, found, 0).item()
    require(likeness > 0, expected="the direction in which the loss grows", got="the opposite direction, or nothing to do with it",
            next_step="return the gradient of the loss as it is: positive where a word makes the target less likely. Check that the words of `model.vocabulary.around(request)` "
            "stand before and behind the suffix, and that the logits of the places before the target's words are those compared with them")
    require(likeness > 0.99, expected="the slope of the loss of the target's words", got=f"numbers that are like it to {likeness:.2f}",
            next_step="each place predicts the next word: the input ends before the target's last word, and the last `len(wanted)` logits belong to the target's words")
    size = (found.norm() / true.norm()).item()
    require(0.97 < size < 1.03, expected="the slope of the mean loss over the target's words", got=f"{size:.2f} times that",
            next_step="`F.cross_entropy` with its default takes the mean over the words")


@TOKEN_GRADIENTS.property("promises words that make the assistant's agreement likelier")
def _gradient_promise(answer, seed):
    better = 0
    for number, request in enumerate(_forbidden(seed, 3)):
        suffix, = random_suffixes(_model(), 1, seed=seed % 10_000 + number)
        gradient = answer(_model(), request.text, suffix, request.opening)
        require_tensor(gradient, (8, len(_model().vocabulary)), what="the gradient")
        words, ordinary = suffix.split(), torch.tensor(_model().vocabulary.ordinary)
        chosen = [ordinary[gradient[2, ordinary].topk(24, largest=largest).indices] for largest in (False, True)]
        losses = [suffix_losses(_model(), request.text, [" ".join([*words[:2], _model().vocabulary.words[i], *words[3:]]) for i in ids], request.opening).mean()
                  for ids in chosen]
        better += losses[0] < losses[1]
    require(better >= 2, expected="lower losses with the words of most negative gradient than with the others", got=f"that for {better} of 3 requests",
            next_step="put the gradient of the loss in the result, place by place, in the order of the suffix's words")


@GCG_STEP.property("gives a suffix of as many ordinary words")
def _step_form(answer, seed):
    request, suffix = _start(seed)
    advice = "leave the special tokens out: look at the columns of `model.vocabulary.ordinary` alone, and turn what `topk` counts back into word numbers"
    with advising("not among", next_step=advice):
        found = answer(_model(), request.text, suffix, request.opening, 8, 24, seed)
    require(isinstance(found, str), expected="a suffix, a string", got=type(found).__name__,
            next_step="`model.vocabulary.decode(ids)` makes a string of word numbers")
    require(not any(special in found for special in SPECIAL), expected="ordinary words", got=f"{found}", next_step=advice)
    require(len(split_words(found)) == 6, expected="a suffix of 6 words, like the one before", got=f"{len(split_words(found))} words: {found}",
            next_step="swap a word: put the new one in the place of the old one")
    with advising("not among", "equally many words", next_step=advice):
        found = answer(_tempting(request, suffix), request.text, suffix, request.opening, 4, 48, seed)
    require(not any(special in found for special in SPECIAL), expected="ordinary words, also where a special token promises most", got=f"{found}", next_step=advice)


def _tempting(request, suffix):
    """The assistant with other numbers for <pad>, which no chat holds: its gradient promises most in most places of the suffix."""
    model = copy.deepcopy(_model())
    slopes = token_gradients(model, request.text, suffix, request.opening) @ torch.linalg.pinv(model.embedding.weight.detach().T)
    with torch.no_grad():
        model.embedding.weight[SPECIAL.index("<pad>")] = -20 * (slopes / slopes.norm(dim=1, keepdim=True)).sum(0)
    return model


@GCG_STEP.property("swaps one word, the best of those it tried")
def _step_best(answer, seed):
    request, suffix = _start(seed)
    by_chance = random_suffixes(_model(), 1, suffix_length=6, seed=1 + seed % 10_000)[0]
    for present in (suffix, by_chance):
        found = answer(_model(), request.text, present, request.opening, 16, 64, seed)
        changed = sum(a != b for a, b in zip(split_words(present), split_words(found)))
        require(changed <= 1, expected="one word swapped", got=f"{changed} words swapped",
                next_step="each trial begins with the suffix as it was: copy the list before you change a word")
        before, after = suffix_losses(_model(), request.text, [present, found], request.opening).tolist()
        require(changed == 1 and after < before, expected=f"a lower loss than the {before:.2f} before", got=f"{after:.2f}",
                next_step="look at the words whose gradient is most negative, and return the trial of the *lowest* true loss")


@GCG_STEP.property("finds more with 32 tries among promising words than 32 random swaps do")
def _step_promising(answer, seed):
    by_gradient = by_chance = 0
    for number, request in enumerate(_forbidden(seed, 5)):
        suffix, = random_suffixes(_model(), 1, suffix_length=6, seed=seed % 10_000 + number)
        found = answer(_model(), request.text, suffix, request.opening, 12, 32, seed + number)
        generator, words = torch.Generator().manual_seed(seed + number), split_words(suffix)
        trials = []
        for _ in range(32):
            place, word = (int(torch.randint(n, (), generator=generator)) for n in (6, len(_model().vocabulary) - len(SPECIAL)))
            trials.append(" ".join([*words[:place], _model().vocabulary.words[len(SPECIAL) + word], *words[place + 1:]]))
        by_gradient += suffix_losses(_model(), request.text, [found], request.opening).item()
        by_chance += suffix_losses(_model(), request.text, trials, request.opening).min().item()
    require(by_gradient < by_chance, expected=f"a mean loss below the {by_chance / 5:.2f} of random swaps", got=f"{by_gradient / 5:.2f}",
            next_step="draw the new words from the `candidates` of each place with the most negative gradient")


@GCG_STEP.property("draws by its seed")
def _step_seed(answer, seed):
    request, suffix = _start(seed)
    found = [answer(_model(), request.text, suffix, request.opening, 48, 3, s) for s in (seed, seed, *range(seed + 1, seed + 7))]
    require(found[0] == found[1], expected="the same suffix for the same seed", got="another one",
            next_step="draw with `generator=torch.Generator().manual_seed(seed)`, made anew in each call")
    require(len(set(found)) > 1, expected="other draws with another seed", got="the same suffix for seven seeds",
            next_step="give the argument `seed` to the generator")


def _start(seed):
    request, = _forbidden(seed)
    return request, random_suffixes(_model(), 1, suffix_length=6, seed=seed % 10_000)[0]


@PERPLEXITY_FILTER.property("gives one verdict for each text")
def _filter_shape(answer, seed):
    texts = _texts(seed, 7)
    found = answer(_reader(), _texts(seed + 1, 40), texts, 0.1)
    require_tensor(found, (7,), what="the verdicts")
    require(found.dtype == torch.bool, expected="booleans", got=str(found.dtype), next_step="compare with the threshold: `scores > threshold`")


@PERPLEXITY_FILTER.property("stops a share `rate` of the ordinary texts")
def _filter_rate(answer, seed):
    benign = _texts(seed, 120)
    for rate in (0.05, 0.25):
        stopped = answer(_reader(), benign, benign, rate).float().mean().item()
        require(abs(stopped - rate) < 0.03, expected=f"about {rate:.0%} of the ordinary texts stopped", got=f"{stopped:.0%}",
                next_step="the threshold is the quantile 1 - rate of what the *benign* texts score, and what lies above it is stopped")


@PERPLEXITY_FILTER.property("stops requests with random words behind them")
def _filter_stops(answer, seed):
    texts = [f"{text} {suffix}" for text, suffix in zip(_texts(seed, 20, True), random_suffixes(_reader(), 20, seed=seed % 10_000))]
    stopped = answer(_reader(), _texts(seed + 1, 120), texts, 0.05).float().mean().item()
    require(stopped > 0.95, expected="all of them stopped", got=f"{stopped:.0%}",
            next_step="unlikely words have very negative log-probabilities: put a minus before the mean, and stop what is *above* the threshold")


@PERPLEXITY_FILTER.property("goes by the mean of a text's words, not by its length")
def _filter_mean(answer, seed):
    benign, requests = _texts(seed, 120), _texts(seed + 1, 100)
    texts = [*requests, *(f"{text} {word}" for text, word in zip(requests, random_suffixes(_reader(), 100, suffix_length=1, seed=seed % 10_000)))]
    surprises = [-words for words in log_probabilities(_reader(), [_reader().vocabulary.around(text)[0] for text in [*benign, *texts]])]
    verdicts = []
    for score in (torch.mean, torch.sum):
        scores = torch.stack([score(words) for words in surprises])
        verdicts.append(scores[120:] > torch.quantile(scores[:120], 0.95))
    telling = (verdicts[0] != verdicts[1]).nonzero().flatten().tolist()  # where mean and sum disagree
    got = answer(_reader(), benign, [texts[i] for i in telling], 0.05)
    require_tensor(got, (len(telling),), what="the verdicts")
    alike = (got.bool() == verdicts[0][telling]).float().mean().item()
    require(alike > 0.8, expected="each text judged by the mean of its words", got=f"that for {alike:.0%} of those where it matters",
            next_step="take the mean over all words of the text: a sum stops whoever writes much, a maximum stops a single rare word")


@FLUENT_CHOICE.property("without a weight takes the trial of lowest loss")
def _fluent_loss(answer, seed):
    for request, trials, losses, _, guard in _trials(seed):
        _require_choice(answer(_model(), guard, request.text, trials, request.opening, 0.0), trials[losses.argmin()], trials,
                        "with weight 0 only the loss counts: `suffix_losses`, and the *lowest* of them")


@FLUENT_CHOICE.property("with a large weight takes what is least above the threshold")
def _fluent_weight(answer, seed):
    for request, trials, _, surprise, guard in _trials(seed):
        guard = _Guard(guard, surprise.min().item() - 0.01)
        _require_choice(answer(_model(), guard, request.text, trials, request.opening, 1e4), trials[surprise.argmin()], trials,
                        "add `weight` times what `guard.surprise` says of the whole text, the request and the trial, and subtract the threshold from it")


@FLUENT_CHOICE.property("minds no surprise below the threshold")
def _fluent_hinge(answer, seed):
    for request, trials, losses, surprise, guard in _trials(seed):
        guard = _Guard(guard, surprise.max().item() + 1)
        _require_choice(answer(_model(), guard, request.text, trials, request.opening, 1e4), trials[losses.argmin()], trials,
                        "a text below the threshold passes, and being more ordinary still buys nothing: `.clamp_min(0)`")


@FLUENT_CHOICE.property("weighs both where both matter")
def _fluent_both(answer, seed):
    for request, trials, losses, surprise, guard in _trials(seed):
        guard = _Guard(guard, surprise.median().item())
        for weight in (0.5, 2.0, 8.0):
            cost = losses + weight * (surprise - guard.threshold).clamp_min(0)
            found = answer(_model(), guard, request.text, trials, request.opening, weight)
            require(found in trials and cost[trials.index(found)] < cost.min() + 1e-3, expected=f"the lowest sum of loss and {weight:g} times the excess",
                    got="another trial", next_step="add the two, the excess times `weight`, and take the lowest sum")


class _Guard:
    """A filter with another threshold."""

    def __init__(self, guard, threshold):
        self.surprise, self.threshold = guard.surprise, threshold


@functools.lru_cache(maxsize=8)
def _trials(seed):
    """Two requests with trials of which the likeliest to work, the most ordinary, and the most ordinary without its request are three."""
    guard, found = PerplexityFilter(_reader(), _texts(seed, 40)), []
    for number, request in enumerate(_forbidden(seed, 40)):
        trials = random_suffixes(_model(), 10, suffix_length=3, seed=seed % 10_000 + number)
        losses = suffix_losses(_model(), request.text, trials, request.opening)
        surprise, alone = guard.surprise([f"{request.text} {trial}" for trial in trials]), guard.surprise(trials)
        if len({losses.argmin().item(), surprise.argmin().item(), alone.argmin().item()}) == 3:
            found.append((request, trials, losses, surprise, guard))
        if len(found) == 2:
            break
    return found


def _require_choice(found, wanted, trials, step):
    require(isinstance(found, str), expected="one of the trials, a string", got=type(found).__name__,
            next_step="return the trial itself: `trials[scores.argmin()]`")
    require(found == wanted, expected=f"the trial {wanted!r}", got=repr(found) if found in trials else f"{found!r}, which is none of the trials", next_step=step)


@ERASE_AND_CHECK.property("gives one verdict for each text")
def _erase_shape(answer, seed):
    found = answer(_model(), _texts(seed, 5), 2)
    require_tensor(found, (5,), what="the verdicts")
    require(found.dtype == torch.bool, expected="booleans", got=str(found.dtype), next_step="`torch.tensor(flags)` of a list of True and False")


@ERASE_AND_CHECK.property("erasing nothing, refuses what the assistant refuses")
def _erase_nothing(answer, seed):
    texts = _texts(seed, 3) + _texts(seed, 3, True)
    expected = torch.tensor([is_refusal(said) for said in _answers(texts)])
    with advising("at least one list", next_step="with most = 0 nothing is erased: ask about the text itself, which is a version too"):
        found = answer(_model(), texts, 0)
    _require_verdicts(found, expected, "with most = 0 there is one version, the text itself: are its last words all there?")


@ERASE_AND_CHECK.property("refuses where erasing `most` words uncovers a refusal")
def _erase_suffix(answer, seed):
    for text, first in _jailbroken(seed):
        _require_verdicts(answer(_model(), [text], first), torch.tensor([True]),
                          "erase 1, 2, … and `most` words at the end, and let one refusal be enough")


@ERASE_AND_CHECK.property("erases no more than `most` words")
def _erase_no_more(answer, seed):
    for text, first in _jailbroken(seed):
        _require_verdicts(answer(_model(), [text], first - 1), torch.tensor([False]),
                          f"with most = {first - 1} no version is shorter by more than {first - 1} words: count your lengths again")


@ERASE_AND_CHECK.property("leaves the first word, and takes one refusal among all versions as enough")
def _erase_all(answer, seed):
    texts = _texts(seed, 1) + _texts(seed, 1, True)
    versions = [[" ".join(split_words(text)[:length]) for length in range(1, len(split_words(text)) + 1)] for text in texts]
    expected = torch.tensor([any(map(is_refusal, _answers(rows))) for rows in versions])
    _require_verdicts(answer(_model(), texts, 99), expected,
                      "the whole text is a version too, the shortest is the first word alone, and one refusal among the answers is enough")


def _answers(texts):
    return answer(_model(), texts)


@functools.lru_cache(maxsize=8)
def _jailbroken(seed):
    """Forbidden requests with a suffix that works: (text, how many of its last words have to go before the assistant refuses)."""
    found = []
    for number, request in enumerate(_forbidden(seed, 6)):
        def enough(suffix):
            return judge(answer(_model(), [f"{request.text} {suffix}"])[0], request) == "complied"
        suffix = gcg(_model(), request.text, request.opening, suffix_length=6, steps=20, restarts=2, stop=enough, seed=seed % 10_000 + number).suffix
        words = split_words(f"{request.text} {suffix}")
        refused = [is_refusal(said) for said in _answers([" ".join(words[:len(words) - erased]) for erased in range(7)])]
        if not refused[0] and any(refused):
            found.append((f"{request.text} {suffix}", refused.index(True)))
        if len(found) == 2:
            break
    return found


def _require_verdicts(found, expected, step):
    require_tensor(found, expected.shape, what="the verdicts")
    require(torch.equal(found.bool(), expected), expected=f"{int(expected.sum())} of {len(expected)} refused, the right ones",
            got=f"{int(found.sum())} refused" if int(found.sum()) != int(expected.sum()) else "others refused", next_step=step)
