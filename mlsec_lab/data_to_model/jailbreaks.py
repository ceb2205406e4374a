"""Jailbreaks: words around a forbidden request that make an aligned assistant answer it.

    model = load_model("chat_aligned")
    request, = chat_requests(1, forbidden=True)
    found = gcg(model, request.text, request.opening)
    answer(model, [f"{request.text} {found.suffix}"])

Whether an attack has succeeded is judged by the whole answer (`corpora.judge`), never by its first word. An attack needs little of
its model: `embedding.weight` [V, D], logits from `model(embeddings=…)` and from `model(ids)`, both with a `cache=` that may be empty at
first and with `last=` places, the `context`, and a `vocabulary` with `encode`, `following`, `decode`, `around`, `reads_back` and
`ordinary`, the numbers a suffix may use. `victims.hugging_face` makes a model that offers these of any causal model of Hugging Face.
"""
import random
from typing import NamedTuple

import torch
import torch.nn.functional as F

from mlsec_lab.victims.corpora import REFUSAL, is_refusal
from mlsec_lab.victims.inputs import check_number
from mlsec_lab.victims.language import answer, log_probabilities, split_words, train_language
from mlsec_lab.victims.networks import frozen


class Found(NamedTuple):
    """suffix: the best one, a string.  losses: the target's loss with the best suffix so far, one a step.  queries: suffixes tried."""
    suffix: str
    losses: tuple
    queries: int


def token_gradients(model, prompt, suffix, target):
    """How much the loss of `target` would rise, to first order, for each word in each place of the suffix: [L, V].

    prompt, target: strings, or equally long lists of them, whose gradients are then averaged.  suffix: a string of L words.
    The gradient is that of the loss with respect to one-hot rows, which the embedding makes into vectors (Ebrahimi et al., 2018).
    Raises ValueError for texts that do not fit together or hold words that the model does not know.
    """
    ids = model.vocabulary.following(suffix)
    places = _places(model, prompt, target, len(ids))
    with frozen(model):
        return _gradients(model, places, torch.tensor(ids))


def suffix_losses(model, prompt, suffixes, target):
    """The mean negative log-probability of `target`'s words after the prompt and each suffix: a tensor [N].

    prompt, target: strings, or equally long lists of them, over which the loss is averaged.  suffixes: strings of equally many words.
    Raises ValueError for texts that do not fit together or hold words that the model does not know.
    """
    ids = [model.vocabulary.following(suffix) for suffix in suffixes]
    if not ids or len({len(row) for row in ids}) > 1:
        raise ValueError("suffixes must be a list of at least one string, all of equally many words")
    places = _places(model, prompt, target, len(ids[0]))
    with torch.no_grad(), frozen(model):
        return _losses(model, places, torch.tensor(ids))


def gcg(model, prompt, target, *, suffix_length=8, steps=60, restarts=4, candidates=32, batch=96, stop=None, penalty=None,
        seed=0):
    """Greedy coordinate gradient: a suffix after which the model begins its answer with `target` (GCG; Zou et al., 2023).

    In each step the gradient names, for each place, the `candidates` words that promise most; `batch` suffixes that differ from
    the present one in one such word are tried, and the best of them is the next one. Suffixes that the vocabulary would read as
    other numbers from their text are left out, as in GCG's public code: what is found is a text, and has to work as a text.
    prompt, target: strings; or equally long lists of them, for one suffix that serves them all: a universal one.
    suffix_length: in words.  restarts: the steps are shared out among so many random first suffixes.
    stop: None, or a function suffix -> bool that is asked after each step: is this one enough?  It ends the search.
    penalty: None, or a function suffixes -> tensor [N] that is added to their losses: what an attacker minds besides the answer.
    seed: of the first suffixes and of the draws.  Special tokens are never used.
    Returns Found, with the suffix that was enough, else the one of lowest loss.
    Raises ValueError for numbers below 1, more restarts than steps, words that the model does not know, lists of different lengths,
    or a chat that is too long.
    """
    for name, value in dict(suffix_length=suffix_length, steps=steps, candidates=candidates, batch=batch).items():
        check_number(value, name, least=1, whole=True)
    check_number(restarts, "restarts", least=1, most=steps, whole=True)
    check_number(seed, "seed", whole=True)
    places, generator = _places(model, prompt, target, suffix_length), torch.Generator().manual_seed(seed)
    usable, lowest, losses, queries = torch.tensor(model.vocabulary.ordinary), float("inf"), [], 0
    with frozen(model):
        for step in range(steps):
            if step % -(-steps // restarts) == 0:
                present = _at_random(model.vocabulary, 1, suffix_length, generator)[0]
            slope = _gradients(model, places, present).cpu()[:, usable]
            promising = usable[slope.topk(min(candidates, len(usable)), largest=False).indices]
            order = torch.rand(promising.shape, generator=generator).argsort(1)
            tries = torch.arange(batch)  # each place gets its share of them, and no word twice while there are others
            place = tries % suffix_length
            word = promising[place, order[place, tries // suffix_length % promising.shape[1]]]
            trials = present.repeat(batch, 1).scatter(1, place[:, None], word[:, None])
            trials = trials[model.vocabulary.reads_back(trials)]
            trials = trials if len(trials) else present[None]
            each = _losses(model, places, trials)
            loss, row = (each if penalty is None else each + penalty([model.vocabulary.decode(trial) for trial in trials.tolist()])).min(0)
            queries += len(trials)
            present = trials[row]
            enough = stop is not None and stop(model.vocabulary.decode(present.tolist()))
            if loss < lowest or enough:
                best, lowest = present, loss.item()
            losses.append(lowest)
            if enough:
                break
    return Found(model.vocabulary.decode(best.tolist()), tuple(losses), queries)


def random_suffixes(model, n, *, suffix_length=8, seed=0):
    """`n` suffixes of random words, drawn by `seed`: a list of strings.  What GCG has to be better than.  ValueError for numbers below 1."""
    check_number(n, "n", least=1, whole=True)
    check_number(suffix_length, "suffix_length", least=1, whole=True)
    check_number(seed, "seed", whole=True)
    rows = _at_random(model.vocabulary, n, suffix_length, torch.Generator().manual_seed(seed))
    return [model.vocabulary.decode(row) for row in rows.tolist()]


def _at_random(vocabulary, n, length, generator):
    """`n` suffixes of random words [n, length]; word pieces that would not be read back as they are are drawn anew."""
    words = torch.tensor(vocabulary.ordinary)
    rows = words[torch.randint(len(words), (n * length,), generator=generator)].view(n, length)
    for place in range(length):
        for _ in range(200):
            lost = ~vocabulary.reads_back(rows[:, :place + 1])
            if not lost.any():
                break
            rows[lost, place] = words[torch.randint(len(words), (int(lost.sum()),), generator=generator)]
        else:
            raise ValueError(f"model must have a vocabulary whose texts are read back as the same numbers, but no suffix of {place + 1} is")
    return rows


# ---- the defender: what is said before the assistant answers

class PerplexityFilter:
    """Stops requests whose words a language model finds too unlikely (Jain et al., 2023; Alon & Kamfonas, 2023).

    model: reads the requests; it need not be the one that answers.  benign: texts of ordinary requests.
    rate: the share of those that may be stopped, in [0, 1]: it sets `threshold`.
    window: None, for the mean of all words; or how many words in a row the mean is of, and the worst of them counts (Jain et al., 2023).
    Raises ValueError for no texts, words that the model does not know, or numbers out of range.
    """

    def __init__(self, model, benign, *, rate=0.05, window=None):
        check_number(rate, "rate", least=0, most=1)
        if window is not None:
            check_number(window, "window", least=1, whole=True)
        self.model, self.window = model, window
        self.threshold = torch.quantile(self.surprise(_texts(benign, "benign")), 1 - rate, interpolation="higher").item()

    def surprise(self, texts):
        """The mean negative log-probability of each text's words, that is the logarithm of its perplexity: a tensor [N]."""
        return torch.stack([self._worst(words) for words in word_surprises(self.model, texts)])

    def after(self, prompt):
        """surprise([f"{prompt} {suffix}", …]) for many suffixes of equal length, sooner: the prompt is read once.  A function of the suffixes."""
        words, cache = torch.tensor([self.model.vocabulary.around(prompt)[0]], device=self.model.embedding.weight.device), {}
        with torch.no_grad(), frozen(self.model):
            last = self.model(words, cache=cache, last=1)
        read, = word_surprises(self.model, [prompt])

        def surprise(suffixes):
            ids = torch.tensor([self.model.vocabulary.following(suffix) for suffix in suffixes], device=last.device)
            with torch.no_grad(), frozen(self.model):
                logits = torch.cat([last.expand(len(ids), -1, -1), self.model(ids, cache=dict(cache))[:, :-1]], 1)
            each = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view(ids.shape).cpu()
            return self._worst(torch.cat([read.expand(len(ids), -1), each], 1))
        return surprise

    def __call__(self, texts):
        """Which of the texts are stopped: a bool tensor [N]."""
        return self.surprise(texts) > self.threshold

    def _worst(self, words):
        if self.window is None or words.shape[-1] <= self.window:
            return words.mean(-1)
        return words.unfold(-1, self.window, 1).mean(-1).amax(-1)


def word_surprises(model, texts):
    """How little the model expected each word of each text, read as a user's request: -log probability, a list of tensors."""
    chats = [model.vocabulary.around(text)[0] for text in _texts(texts, "texts")]
    return [-values[-len(model.vocabulary.encode(text)):] for text, values in zip(texts, log_probabilities(model, chats))]


def erase_and_check(model, texts, *, most=8):
    """Refuse a request if the assistant refuses it, or any beginning of it that lacks at most `most` words: a bool tensor [N].

    A suffix of no more than `most` words is erased whole in one of the versions, so a request that would be refused without
    it is refused with it: no search can change that (Kumar et al., 2023). The paper's filter is a model trained for the purpose;
    that the assistant is its own filter is the course's choice.
    Raises ValueError for most < 0 or texts that are no list of strings.
    """
    check_number(most, "most", least=0, whole=True)
    versions, row = [], []
    for number, text in enumerate(_texts(texts, "texts")):
        words = split_words(text)
        for erased in range(min(most, len(words) - 1) + 1):
            versions.append(" ".join(words[:len(words) - erased]))
            row.append(number)
    refused = torch.tensor([is_refusal(said) for said in answer(model, versions)])
    return torch.zeros(len(texts), dtype=torch.bool).index_put_((torch.tensor(row)[refused],), torch.tensor(True))


def vote(model, texts, *, copies=10, share=0.1, seed=0):
    """What is answered when randomly changed copies of each text are asked, and most of them decide (SmoothLLM; Robey et al., 2023).

    In each of the `copies` a `share` of the words, in (0, 1], at least one, gives way to random ones. If more than half of the
    copies are refused, an answer that refuses is given, else one that does not: the first that agrees with the vote. The paper
    changes letters; words are all that this assistant reads.
    seed: of the changes.  Returns a list of strings, one a text.
    Raises ValueError for numbers out of range or texts that are no list of strings.
    """
    check_number(copies, "copies", least=1, whole=True)
    check_number(share, "share", above=0, most=1)
    check_number(seed, "seed", whole=True)
    rng, changed = random.Random(seed), []
    for text in _texts(texts, "texts"):
        for _ in range(copies):
            words = split_words(text)
            for place in rng.sample(range(len(words)), max(1, round(share * len(words)))):
                words[place] = model.vocabulary.decode([rng.choice(model.vocabulary.ordinary)])
            changed.append(" ".join(words))
    said = answer(model, changed)
    decided = []
    for start in range(0, len(said), copies):
        votes = [is_refusal(words) for words in said[start:start + copies]]
        decided.append(said[start + votes.index(sum(votes) > copies / 2)])
    return decided


def adversarial_training(model, conversations, requests, attack, *, rounds=2, epochs=2, lr=2e-3, seed=0, progress=True):
    """Teach the assistant to refuse what it has just been talked into (the idea of R2D2; Mazeika et al., 2024).

    conversations: of its alignment, as `corpora.chat(…, refuse=True)` makes them; what it should still do.
    requests: the forbidden Requests that are attacked.  attack: a function (model, request, seed) -> the attacked text.
    rounds: attack the model as it is now, add what came out to all that was found before, train; again.
    Returns a trained copy, in eval mode.  Raises ValueError for no requests or numbers out of range.
    """
    check_number(rounds, "rounds", least=1, whole=True)
    check_number(seed, "seed", whole=True)
    if not requests:
        raise ValueError("requests must hold at least one forbidden request to attack")
    found = []
    for turn in range(rounds):
        found += [(attack(model, request, seed + 1000 * turn + number), REFUSAL) for number, request in enumerate(requests)]
        chats = [model.vocabulary.chat(*turns) for turns in [*conversations, *found]]
        model = train_language(model, chats, epochs=epochs, lr=lr, batch=16, requests=0, seed=seed + turn, progress=progress)
    return model


# ---- the attacker answers

def fluent_gcg(model, prompts, target, guard, *, suffix_length=2, wordings=3, steps=30, restarts=2, weight=2.0, stop=None, seed=0, **options):
    """GCG that stays below a PerplexityFilter: the wording that leaves most room, few words, and a penalty for surprise.

    prompts: wordings of one request, of which the `wordings` with most room are tried, one after the other.
    guard: the filter.  weight: of the surprise above its threshold, in the loss.  options: gcg's.
    stop: None, or a function text -> bool, asked only of texts that pass the filter; the first that is enough is returned.
    Returns the attacked text, or None where nothing passed the filter.
    That fluency is a term of the search follows AutoDAN (Zhu et al., 2023); the choice of a wording is the course's own.
    Raises ValueError as gcg does, or for no prompts.
    """
    check_number(wordings, "wordings", least=1, whole=True)
    check_number(weight, "weight", least=0)
    passed, done = None, False
    for prompt in roomiest(guard, prompts)[:wordings]:
        surprise = guard.after(prompt)

        def penalty(suffixes):
            return weight * (surprise(suffixes) - guard.threshold).clamp_min(0)

        def enough(suffix):
            nonlocal passed, done
            text = f"{prompt} {suffix}"
            if not guard([text])[0]:
                passed, done = text, stop is not None and bool(stop(text))
            return done

        gcg(model, prompt, target, suffix_length=suffix_length, steps=steps, restarts=restarts, penalty=penalty, stop=enough, seed=seed, **options)
        if done:
            break
    return passed


def roomiest(guard, texts):
    """The texts in the order of how much surprise could be added before `guard` stops them, most first: a list."""
    room = [(guard.threshold - guard.surprise([text])[0]).item() * len(split_words(text)) for text in _texts(texts, "texts")]
    return [texts[i] for i in sorted(range(len(texts)), key=lambda i: -room[i])]


def _texts(texts, name):
    if isinstance(texts, str) or not texts or not all(isinstance(text, str) and split_words(text) for text in texts):
        raise ValueError(f"{name} must be a list of at least one string, each of at least one word")
    return texts


class _Place(NamedTuple):
    """A chat with a gap: what stands before the suffix, as the model remembers it, what stands after it, and the answer that is wanted."""
    before: dict
    after: torch.Tensor
    target: torch.Tensor


def _places(model, prompt, target, length):
    prompts, targets = ([text] if isinstance(text, str) else list(text) for text in (prompt, target))
    if not prompts or len(prompts) != len(targets):
        raise ValueError(f"target must be one a prompt, not {len(targets)} for {len(prompts)}")
    if length < 1:
        raise ValueError("suffix must hold at least one word")
    places, device = [], model.embedding.weight.device
    for prompt, target in zip(prompts, targets):
        if not model.vocabulary.encode(prompt) or not model.vocabulary.encode(target):
            raise ValueError("prompt and target must hold at least one word each")
        before, after = model.vocabulary.around(prompt)
        wanted = model.vocabulary.encode(target)
        if len(before) + length + len(after) + len(wanted) > model.context:
            raise ValueError(f"prompt, suffix and target must fit the model's context of {model.context} words together, "
                             f"but they have {len(before) + length + len(after) + len(wanted)}")
        cache = {}
        with torch.no_grad(), frozen(model):
            model(torch.tensor([before], device=device), cache=cache, last=1)
        places.append(_Place(cache, torch.tensor(after, device=device), torch.tensor(wanted, device=device)))
    return places


def _gradients(model, places, suffix):
    """The gradient of the mean loss with respect to the suffix's one-hot rows: [L, V]."""
    table = model.embedding.weight.detach()
    rows = F.one_hot(suffix.to(table.device), len(table)).to(table.dtype).requires_grad_()
    loss = 0
    for place in places:
        rest = table[torch.cat([place.after, place.target[:-1]])]
        logits = model(embeddings=torch.cat([rows @ table, rest])[None], cache=dict(place.before), last=len(place.target))
        loss = loss + F.cross_entropy(logits[0], place.target)
    return torch.autograd.grad(loss / len(places), rows)[0]


@torch.no_grad()
def _losses(model, places, suffixes):
    """The mean loss of each suffix [N, L]: [N]."""
    total = torch.zeros(len(suffixes))
    for place in places:
        rest = torch.cat([place.after, place.target[:-1]]).expand(len(suffixes), -1)
        logits = model(torch.cat([suffixes.to(rest.device), rest], 1), cache=dict(place.before), last=len(place.target))
        each = F.cross_entropy(logits.flatten(0, 1), place.target.repeat(len(suffixes)), reduction="none")
        total += each.view(len(suffixes), -1).mean(1).cpu()
    return total / len(places)
