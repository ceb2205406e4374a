"""Jailbreaks: words around a forbidden request that make an aligned assistant answer it.

    model = load_model("chat_aligned")
    request, = chat_requests(1, forbidden=True)
    found = gcg(model, request.text, request.opening)
    answer(model, [f"{request.text} {found.suffix}"])

Whether an attack has succeeded is judged by the whole answer (`corpora.judge`), never by its first word. An attack needs little of
its model: `embedding.weight` [V, D], logits from `model(embeddings=…)` and from `model(ids)`, both with a `cache=` that may be empty at
first, the `context`, and a `vocabulary` with `encode`, `decode`, `chat` and `ordinary`, the numbers a suffix may use. Whatever
offers these can stand in for the course's own transformer.
"""
from typing import NamedTuple

import torch
import torch.nn.functional as F

from mlsec_lab.victims.inputs import check_number
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
    places = _places(model, prompt, target, len(model.vocabulary.encode(suffix)))
    with frozen(model):
        return _gradients(model, places, torch.tensor(model.vocabulary.encode(suffix)))


def suffix_losses(model, prompt, suffixes, target):
    """The mean negative log-probability of `target`'s words after the prompt and each suffix: a tensor [N].

    prompt, target: strings, or equally long lists of them, over which the loss is averaged.  suffixes: strings of equally many words.
    Raises ValueError for texts that do not fit together or hold words that the model does not know.
    """
    ids = [model.vocabulary.encode(suffix) for suffix in suffixes]
    if not ids or len({len(row) for row in ids}) > 1:
        raise ValueError("suffixes must be a list of at least one string, all of equally many words")
    places = _places(model, prompt, target, len(ids[0]))
    with torch.no_grad(), frozen(model):
        return _losses(model, places, torch.tensor(ids))


def gcg(model, prompt, target, *, suffix_length=8, steps=60, restarts=4, candidates=32, batch=96, stop=None, seed=0):
    """Greedy coordinate gradient: a suffix after which the model begins its answer with `target` (GCG; Zou et al., 2023).

    In each step the gradient names, for each place, the `candidates` words that promise most; `batch` suffixes that differ from
    the present one in one such word are tried, and the best of them is the next one.
    prompt, target: strings; or equally long lists of them, for one suffix that serves them all: a universal one.
    suffix_length: in words.  restarts: the steps are shared out among so many random first suffixes.
    stop: None, or a function suffix -> bool that is asked after each step: is this one enough?  It ends the search.
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
    usable, lowest, losses = torch.tensor(model.vocabulary.ordinary), float("inf"), []
    with frozen(model):
        for step in range(steps):
            if step % -(-steps // restarts) == 0:
                present = _at_random(usable, suffix_length, generator)
            slope = _gradients(model, places, present).cpu()[:, usable]
            promising = usable[slope.topk(min(candidates, len(usable)), largest=False).indices]
            place = torch.arange(batch) * suffix_length // batch  # each place gets its share of the tries
            word = promising[place, torch.randint(promising.shape[1], (batch,), generator=generator)]
            trials = present.repeat(batch, 1).scatter(1, place[:, None], word[:, None])
            loss, row = _losses(model, places, trials).min(0)
            present = trials[row]
            enough = stop is not None and stop(model.vocabulary.decode(present.tolist()))
            if loss < lowest or enough:
                best, lowest = present, loss.item()
            losses.append(lowest)
            if enough:
                break
    return Found(model.vocabulary.decode(best.tolist()), tuple(losses), len(losses) * batch)


def random_suffixes(model, n, *, suffix_length=8, seed=0):
    """`n` suffixes of random words, drawn by `seed`: a list of strings.  What GCG has to be better than.  ValueError for numbers below 1."""
    check_number(n, "n", least=1, whole=True)
    check_number(suffix_length, "suffix_length", least=1, whole=True)
    check_number(seed, "seed", whole=True)
    rows = _at_random(torch.tensor(model.vocabulary.ordinary), n * suffix_length, torch.Generator().manual_seed(seed))
    return [model.vocabulary.decode(row.tolist()) for row in rows.view(n, suffix_length)]


def _at_random(words, n, generator):
    return words[torch.randint(len(words), (n,), generator=generator)]


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
        *before, after = model.vocabulary.chat(prompt)
        wanted = model.vocabulary.encode(target)
        if len(before) + length + 1 + len(wanted) > model.context:
            raise ValueError(f"prompt, suffix and target must fit the model's context of {model.context} words together, "
                             f"but they have {len(before) + length + 1 + len(wanted)}")
        cache = {}
        with torch.no_grad(), frozen(model):
            model(torch.tensor([before], device=device), cache=cache)
        places.append(_Place(cache, torch.tensor([after], device=device), torch.tensor(wanted, device=device)))
    return places


def _gradients(model, places, suffix):
    """The gradient of the mean loss with respect to the suffix's one-hot rows: [L, V]."""
    table = model.embedding.weight.detach()
    rows = F.one_hot(suffix.to(table.device), len(table)).to(table.dtype).requires_grad_()
    loss = 0
    for place in places:
        rest = table[torch.cat([place.after, place.target[:-1]])]
        logits = model(embeddings=torch.cat([rows @ table, rest])[None], cache=dict(place.before))
        loss = loss + F.cross_entropy(logits[0, -len(place.target):], place.target)
    return torch.autograd.grad(loss / len(places), rows)[0]


@torch.no_grad()
def _losses(model, places, suffixes):
    """The mean loss of each suffix [N, L]: [N]."""
    total = torch.zeros(len(suffixes))
    for place in places:
        rest = torch.cat([place.after, place.target[:-1]]).expand(len(suffixes), -1)
        logits = model(torch.cat([suffixes.to(rest.device), rest], 1), cache=dict(place.before))[:, -len(place.target):]
        total += F.cross_entropy(logits.transpose(1, 2), place.target.expand(len(suffixes), -1), reduction="none").mean(1).cpu()
    return total / len(places)
