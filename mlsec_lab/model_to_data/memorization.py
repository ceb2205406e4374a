"""Memorization: what a language model gives back of the texts it was trained on, and what helps against it.

    exposure(model, canary)                                       # in bits: 0 for the unlikeliest secret, log2 of their number for the likeliest
    texts = sample_texts(model, 500)
    suspicious = surprise_ratios(model, texts, reference).argsort()                     # the most memorized first
    private = train_privately(model, sequences, epsilon=8)        # DP-SGD, by opacus: private.model, private.epsilon

`exposure` and `VerbatimFilter` ask little of a model: logits [N, T, V] from `model(ids)`, `embedding` (for its device), the `context`,
and a `vocabulary` with `encode`, `entry`, `decode` and `ends`; `sample_texts` and `surprise_ratios` need what `generate` and
`log_probabilities` of victims/language.py need. `train_privately` is for models whose layers opacus knows, such as the course's own
transformer. Re-implemented from the papers; sizes, the diary and the one-word swaps are the course's own choice.
"""
import math
import zlib
from collections import Counter

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from mlsec_lab.victims.inputs import check_number
from mlsec_lab.victims.language import generate, log_probabilities, split_words
from mlsec_lab.victims.networks import frozen
from mlsec_lab.victims.privacy import train_by_dp_sgd


# ---- how well a secret is known

def exposure(model, canary, *, batch=128):
    """How far up the true secret stands among all secrets of its form, by the model's odds, in bits (Carlini et al., 2019).

    canary: has a `prefix` and a `secret`, both strings, and `candidates()`, every secret of the form (as corpora.canaries makes them).
    batch: how many texts the model reads at once.
    Returns log2(number of candidates) - log2(rank): a float from 0 to log2 of their number; 1 / ln 2 = 1.44 on average for a
    model that has never seen the secret.  Candidates that are exactly as likely rank before it.
    Raises ValueError where the secret is no candidate, a word is unknown, or a text does not fit the context.
    """
    candidates = canary.candidates()
    if canary.secret not in candidates:
        raise ValueError(f"canary must have its secret, {canary.secret!r}, among its candidates")
    scores = candidate_log_probabilities(model, canary.prefix, candidates, batch=batch)
    rank = (scores >= scores[candidates.index(canary.secret)]).sum().item()
    return math.log2(len(candidates)) - math.log2(rank)


def candidate_log_probabilities(model, prefix, candidates, *, batch=128):
    """The natural logarithm of the probability of `prefix` with each candidate after it, from the second word on: a tensor [N].

    prefix: a string.  candidates: a list of strings.  Texts that differ in their last word alone are read once: of a thousand
    secrets of three digits a hundred.  Raises ValueError for no candidates, unknown words, or texts longer than the context.
    """
    check_number(batch, "batch", least=1, whole=True)
    rows = [model.vocabulary.entry(f"{prefix} {candidate}", whole=False) for candidate in candidates]
    if not rows or min(map(len, rows)) < 2:
        raise ValueError("candidates must be a list of at least one string, and each text must have two words")
    if max(map(len, rows)) > model.context:
        raise ValueError(f"candidates must fit the model's context of {model.context} words, but one text has {max(map(len, rows))}")
    stems, scores = {}, torch.empty(len(rows))
    for number, row in enumerate(rows):
        stems.setdefault(len(row), {}).setdefault(tuple(row[:-1]), []).append(number)
    with torch.no_grad(), frozen(model):
        for by_stem in (list(found.items()) for found in stems.values()):  # texts of one length are one batch: nothing is padded
            for group in (by_stem[start:start + batch] for start in range(0, len(by_stem), batch)):
                ids = torch.tensor([stem for stem, _ in group], device=model.embedding.weight.device)
                odds = model(ids).log_softmax(2)
                so_far = odds[:, :-1].gather(2, ids[:, 1:, None]).sum((1, 2))
                for place, (_, numbers) in enumerate(group):
                    last = torch.tensor([rows[number][-1] for number in numbers], device=ids.device)
                    scores[numbers] = (so_far[place] + odds[place, -1, last]).cpu()
    return scores


# ---- generate and rank

def sample_texts(model, n, *, temperature=1.0, steps=40, seed=0):
    """Up to `n` texts that the model writes from nothing: a list of different strings, in the order in which they came.

    temperature, steps, seed and errors: generate's, but for `temperature`, which must be above 0.  Texts of fewer than four words
    and texts with special tokens inside are left out.
    """
    check_number(n, "n", least=1, whole=True)
    check_number(temperature, "temperature", above=0)
    vocabulary, start = model.vocabulary, model.vocabulary.entry("", whole=False)
    if not start:
        raise ValueError("model must have a token that texts begin with: give its vocabulary one")
    ordinary = frozenset(vocabulary.ordinary)
    rows = generate(model, [start] * n, steps=steps, temperature=temperature, seed=seed)
    texts = (vocabulary.decode(ids) for ids in rows if ordinary.issuperset(ids))
    return [text for text in dict.fromkeys(texts) if len(split_words(text)) >= 4]


def surprise_ratios(model, texts, reference=None):
    """How surprising each text is to the model, over how surprising it is to somebody who has not seen its data: a tensor [N].

    Low is suspicious.  Surprise is the negative log-probability of the whole text, in bits (Carlini et al., 2021).
    texts: a list of strings.  reference: a model that was trained on other data, with the same words; None takes the bits that
    zlib needs for the text.
    Raises ValueError for no texts, or texts that a model cannot read.
    """
    surprise = _bits(model, texts)
    return surprise / (torch.tensor([8.0 * len(zlib.compress(text.encode())) for text in texts]) if reference is None else _bits(reference, texts))


def _bits(model, texts):
    rows = log_probabilities(model, [model.vocabulary.entry(text) for text in texts])
    return torch.stack([-values.sum() for values in rows]) / math.log(2)


# ---- deduplication

def deduplicate(texts, *, similarity=1.0, size=3):
    """The texts without their repetitions, in their order: each is kept unless it is too similar to one that was kept before.

    similarity: two texts are too similar from this Jaccard index of their runs of `size` words on, in (0, 1]; 1 drops exact copies
    alone (near-duplicates as in Lee et al., 2022, who estimate the index by MinHash; here it is counted).
    Returns a new list of strings.  Raises ValueError for numbers out of range, or what is no list of strings.
    """
    check_number(similarity, "similarity", above=0, most=1)
    check_number(size, "size", least=1, whole=True)
    if isinstance(texts, str):
        raise ValueError("texts must be a list of strings, not a single one")
    if similarity == 1:
        return list(dict.fromkeys(texts))
    kept, sizes, having = [], [], {}
    for text in dict.fromkeys(texts):
        runs = word_runs(text, size)
        shared = Counter(number for run in runs for number in having.get(run, ()))
        if all(count < similarity * (len(runs) + sizes[number] - count) for number, count in shared.items()):
            for run in runs:
                having.setdefault(run, []).append(len(kept))
            kept.append(text)
            sizes.append(len(runs))
    return kept


def word_runs(text, size):
    """Every run of `size` words in a row of a text, as a set of tuples; a shorter text is a single run of its own."""
    words = split_words(text)
    return {tuple(words[start:start + size]) for start in range(max(1, len(words) - size + 1))}


# ---- differential privacy

def train_privately(model, sequences, *, epsilon=8.0, delta=1e-4, steps=80, batch=96, clip=1.0, lr=3e-2, seed=0, progress=True):
    """Train a copy of `model` by DP-SGD (victims/privacy.py): no single sequence matters much.

    sequences: a list of lists of word numbers, at least 2 each: what privacy is about is one of these lists, not one secret.
    The other arguments are those of `privacy.train_by_dp_sgd`.
    Returns Private.  Raises ValueError for numbers out of range or sequences that the model cannot read, and ImportError without opacus.
    """
    log_probabilities(model, sequences[:1])  # says what is wrong with a model, or with no sequences at all
    for ids in sequences:
        if not 2 <= len(ids) <= model.context or not 0 <= min(ids) <= max(ids) < len(model.vocabulary):
            raise ValueError(f"sequences must hold 2 to {model.context} numbers of the vocabulary each, not {ids!r:.60}")
    device = model.embedding.weight.device
    ids = pad_sequence([torch.tensor(row) for row in sequences], batch_first=True).to(device)
    counts = pad_sequence([torch.ones(len(row) - 1) for row in sequences], batch_first=True).to(device)

    def losses(learner, index):
        words, count = ids[index], counts[index]
        each = F.cross_entropy(learner(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten(), reduction="none").view(count.shape)
        return (each * count).sum(1) / count.sum(1)  # each sequence's own mean: none sees another's length

    return train_by_dp_sgd(model, losses, len(sequences), epsilon=epsilon, delta=delta, steps=steps, batch=batch, clip=clip, lr=lr,
                           warm=0.1, seed=seed, progress=progress)


# ---- the output filter, and a way around it

class VerbatimFilter:
    """Knows every run of `n` words of the protected texts and lets none of them be said (MemFree; Ippolito et al., 2022).

    vocabulary: of the model whose words are filtered.  texts: a list of strings.
    Raises ValueError for n < 1 or no texts.
    """

    def __init__(self, vocabulary, texts, *, n=6):
        check_number(n, "n", least=1, whole=True)
        if isinstance(texts, str) or not texts:
            raise ValueError("texts must be a list of at least one string")
        self.vocabulary, self.n = vocabulary, n
        self.runs = {run for text in texts for run in self._runs(vocabulary.encode(text))}

    def blocks(self, text):
        """Whether a protected run of words stands in the text, word for word: a bool."""
        return not self.runs.isdisjoint(self._runs(self.vocabulary.encode(text)))

    def _runs(self, ids):
        return [tuple(ids[start:start + self.n]) for start in range(len(ids) - self.n + 1)]

    @torch.no_grad()
    def complete(self, model, prompts, *, steps=8):
        """What the model says after each prompt, always the likeliest word that completes no protected run: a list of strings.

        prompts: a list of strings, which the filter reads as well.  steps: at most so many words.
        Raises ValueError for prompts that fill the context, unknown words, or steps < 1.
        """
        check_number(steps, "steps", least=1, whole=True)
        rows = [model.vocabulary.entry(prompt, whole=False) for prompt in prompts]
        if not rows or max(map(len, rows)) >= model.context:
            raise ValueError(f"prompts must be a list of at least one string of at most {model.context - 2} words")
        before, device, open_rows = [len(row) for row in rows], model.embedding.weight.device, list(range(len(rows)))
        with frozen(model):
            for _ in range(steps):
                for length in {len(rows[number]) for number in open_rows}:
                    these = [number for number in open_rows if len(rows[number]) == length]
                    order = model(torch.tensor([rows[number] for number in these], device=device))[:, -1].argsort(1, descending=True)
                    for number, words in zip(these, order.cpu()):
                        rows[number] = [*rows[number], self._allowed(rows[number], words)]
                open_rows = [number for number in open_rows if rows[number][-1] not in model.vocabulary.ends and len(rows[number]) < model.context]
        return [model.vocabulary.decode(row[start:-1] if row[-1] in model.vocabulary.ends else row[start:]) for row, start in zip(rows, before)]

    def _allowed(self, row, words):
        """The first of `words` that completes no protected run; the end where each of them does."""
        last = tuple(row[len(row) - self.n + 1:]) if self.n > 1 else ()
        return next((word for word in words.tolist() if (*last, word) not in self.runs), self.vocabulary.ends[0])


def one_word_swaps(prompt, words, *, last=3):
    """The prompt with one of its `last` words replaced by another of `words`: every way to do so, a list of strings.

    The meaning stays near enough for a model; a filter that compares word for word sees another text.
    Raises ValueError for last < 1 or more than the prompt has.
    """
    said = split_words(prompt)
    check_number(last, "last", least=1, most=len(said), whole=True)
    return [" ".join([*said[:place], word, *said[place + 1:]])
            for place in range(len(said) - last, len(said)) for word in words if word != said[place]]


def most_frequent(answers, of=None):
    """The answer that comes most often, and its share: (string, float); what restyled prompts agree on.

    answers: a list of strings.  of: None, or a function answer -> bool: which ones count.  ("", 0.0) where none does.
    """
    counted = Counter(answer for answer in answers if of is None or of(answer))
    answer, times = counted.most_common(1)[0] if counted else ("", 0)
    return answer, times / max(len(answers), 1)
