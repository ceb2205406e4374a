"""A small language model: a decoder-only transformer over words, its training, its generation, its perplexity.

    model = load_model("chat_aligned")
    answer(model, ["how do i cook onion soup in a pot ?"])

The model carries its `vocabulary`. It is a GPT in miniature (Radford et al., 2018; pre-normalised as in 2019), made of layers for
which opacus has per-sample gradients; size and whole words instead of word pieces are the course's own choice.
"""
import copy
import re

import torch
import torch.nn.functional as F
from torch import nn

from mlsec_lab.victims.inputs import check_number
from mlsec_lab.victims.networks import frozen
from mlsec_lab.victims.training import in_passes, one_cycle

SPECIAL = ("<pad>", "<start>", "<user>", "<assistant>", "<end>")
PAD, START, USER, ASSISTANT, END = range(len(SPECIAL))


class Vocabulary:
    """Words <-> numbers: `encode` and `decode`; the first five numbers are special tokens that no text can contain.

    words: those it knows, as one string or as a list, in any order.
    `words`: the tuple that a number indexes; `len(vocabulary)` counts it.  `ordinary`: the range of numbers that a text can have.
    `ends`: the numbers that end an answer.
    """
    ends = (END,)

    def __init__(self, words):
        self.words = SPECIAL + tuple(sorted(set(split_words(words if isinstance(words, str) else " ".join(words)))))
        self.ordinary = range(len(SPECIAL), len(self.words))
        self._numbers = {word: number for number, word in enumerate(self.words)}

    def __len__(self):
        return len(self.words)

    def encode(self, text):
        """The numbers of a text's words, lower-cased, punctuation apart.  ValueError that names the words it does not know."""
        words = split_words(text)
        unknown = sorted({word for word in words if word not in self._numbers})
        if unknown:
            raise ValueError(f"text has words that are not among the {len(self)} of this vocabulary: {', '.join(unknown)}; its `.words` are")
        return [self._numbers[word] for word in words]

    def decode(self, ids):
        """The text of a sequence of numbers, special tokens in angle brackets, padding left out."""
        return " ".join(self.words[number] for number in ids if number != PAD)

    def chat(self, *turns):
        """The numbers of a conversation: request, answer, request, answer, …; after a last request it is the assistant's turn."""
        ids = []
        for number, text in enumerate(turns):
            ids += [*self.encode(text), END] if number % 2 else [USER, *self.encode(text), ASSISTANT]
        return ids

    def around(self, request):
        """The numbers of a chat before and after a suffix to the request: two lists."""
        *before, after = self.chat(request)
        return before, [after]

    def following(self, text):
        """The numbers of a text that follows another: the same as anywhere, which is not so where word pieces are numbered."""
        return self.encode(text)

    def reads_back(self, rows):
        """For each suffix [N, L]: is its text read as the same numbers again?  Whole words always are: a bool tensor [N]."""
        return torch.ones(len(rows), dtype=torch.bool)

    def entry(self, text, *, whole=True):
        """The numbers of a text of its own, such as a diary entry; without its end if it is not `whole`, to be gone on with."""
        return [START, *self.encode(text)] + [END] * whole


def split_words(text):
    """The words of a text in lower case, each punctuation mark a word of its own: a list of strings.  ValueError for no string."""
    if not isinstance(text, str):
        raise ValueError(f"text must be a string, not {type(text).__name__}")
    return re.findall(r"[^\W_]+|[^\w\s]", text.lower())


# ---- the network

class Block(nn.Module):
    """Attention to what came before, then two linear layers, each added to what flows by (Vaswani et al., 2017)."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_linear = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.attended = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.linear = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x, past=None):
        n, length, width = x.shape
        parts = self.query_key_value(self.before_attention(x)).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = torch.cat([past[0].expand(n, -1, -1, -1), key], 2), torch.cat([past[1].expand(n, -1, -1, -1), value], 2)
        earlier = torch.ones(length, key.shape[2], dtype=torch.bool, device=x.device).tril(key.shape[2] - length)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=earlier)
        x = x + self.attended(mixed.transpose(1, 2).reshape(n, length, width))
        return x + self.linear(self.before_linear(x)), (key, value)


class Transformer(nn.Module):
    """ids [N, T] -> logits [N, T, V] of the word that follows each; `vocabulary` names the V words, `context` bounds T.

    embeddings: [N, T, D], to be used in place of ids: one-hot rows @ `embedding.weight` are where gradients for words come from.
    cache: a dict that is empty at first; the call reads from it what earlier calls saw, adds what this one sees, and takes the
    ids as their continuation. A cache of one row serves a batch of many.
    last: None, or of how many places at the end the logits are wanted: with many words, the others take most of the memory.
    """

    def __init__(self, vocabulary, width, layers, heads, context):
        super().__init__()
        self.vocabulary, self.context = vocabulary, context
        self.embedding, self.position = nn.Embedding(len(vocabulary), width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.normalise, self.head = nn.LayerNorm(width), nn.Linear(width, len(vocabulary), bias=False)

    def forward(self, ids=None, *, embeddings=None, cache=None, last=None):
        x = self.embedding(ids) if embeddings is None else embeddings
        seen = cache[0][0].shape[2] if cache else 0
        places = torch.arange(seen, seen + x.shape[1], device=x.device)
        x = x + self.position(places.expand(len(x), -1))  # one row a sequence, for whoever wants gradients of each
        for number, block in enumerate(self.blocks):
            x, now = block(x, cache.get(number) if cache else None)
            if cache is not None:
                cache[number] = now
        return self.head(self.normalise(x if last is None else x[:, -last:]))


def small_transformer(words, *, width=64, layers=2, heads=4, context=256, seed=0):
    """An untrained Transformer over a vocabulary of `words`: under 200,000 parameters at its defaults with 500 words.

    words: a list, or one string.  width: of a word's vector, a multiple of `heads`.  context: the longest sequence.  seed: of the weights.
    Returns it in eval mode.  Raises ValueError for no words, or numbers out of range.
    """
    for name, value in dict(width=width, layers=layers, heads=heads, context=context).items():
        check_number(value, name, least=1, whole=True)
    check_number(seed, "seed", whole=True)
    if width % heads:
        raise ValueError(f"width must be a multiple of heads, {heads}, not {width}")
    vocabulary = Vocabulary(words)
    if len(vocabulary) == len(SPECIAL):
        raise ValueError("words must hold at least one word")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = Transformer(vocabulary, width, layers, heads, context)
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.05)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
    return model.eval()


# ---- training

def train_language(model, sequences, *, epochs=4, lr=3e-3, batch=32, requests=1.0, penalty=None, seed=0, progress=True):
    """Train a copy of `model` to predict each next word, with Adam and one cycle of the learning rate; the argument stays as it is.

    sequences: a list of lists of word numbers, at least 2 each, as `vocabulary.chat` and `vocabulary.entry` make them.
    lr: the highest of the cycle.  requests: the weight in the loss of what no assistant says, in [0, 1]; 0 learns the answers alone.
    penalty: None, or a function model -> tensor that is added to the loss of each batch.  seed: of the order.
    Returns the trained copy, in eval mode, on the model's device.
    Raises ValueError for sequences too short, too long, out of the vocabulary, or without an answer where requests is 0, and for
    numbers out of range.
    """
    _check(model, sequences, "sequences", least=2)
    check_number(epochs, "epochs", least=1, whole=True)
    check_number(batch, "batch", least=1, whole=True)
    check_number(lr, "lr", above=0)
    check_number(seed, "seed", whole=True)
    check_number(requests, "requests", least=0, most=1)
    if requests < 1 and not isinstance(model, Transformer):
        raise ValueError("requests must be 1 for a wrapped model, whose chats do not say in one word who speaks")
    counts = [_weights(ids, requests) for ids in sequences]
    if not any(map(any, counts)):
        raise ValueError("sequences must hold at least one answer where requests is 0: vocabulary.chat(request, answer) makes such a sequence")
    device = model.embedding.weight.device
    model = copy.deepcopy(model).train()
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    steps = -(-len(sequences) // batch)

    def descend(index, number):
        ids, weight = _padded([sequences[i] for i in index]).to(device), _padded([counts[i] for i in index]).to(device)
        losses = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weight[:, 1:].flatten()).sum() / weight[:, 1:].sum().clamp_min(1e-6)
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty(model)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    in_passes(descend, lambda: _batches(sequences, batch, order), one_cycle(optimizer, lr, epochs * steps, warm=0.1),
              epochs=epochs, steps=steps, progress=progress)
    model.zero_grad()
    return model.eval()


def _batches(sequences, batch, order):
    """Batches of indices in random order, each of sequences about equally long: little of it is padding."""
    shuffled = torch.randperm(len(sequences), generator=order).split(16 * batch)
    parts = [part for rows in shuffled for part in torch.tensor(sorted(rows.tolist(), key=lambda i: len(sequences[i]))).split(batch)]
    return [parts[i].tolist() for i in torch.randperm(len(parts), generator=order)]


def _weights(ids, requests):
    """1.0 for each word from after an <assistant> to its <end>, `requests` for the others."""
    weights, speaking = [], False
    for number in ids:
        weights.append(1.0 if speaking else float(requests))
        speaking = number == ASSISTANT or (speaking and number != END)
    return weights


# ---- generation

def answer(model, requests, *, steps=40, temperature=0.0, seed=0):
    """What the assistant says to each request: a list of strings.

    requests: a list of strings, or of conversations [request, answer, request, …] that end with a request.
    steps, temperature, seed and errors: generate's.
    """
    if isinstance(requests, str) or not all(isinstance(turns, (str, list, tuple)) for turns in requests):
        raise ValueError("requests must be a list of strings, or of conversations: for a single one write [request]")
    conversations = [[turns] if isinstance(turns, str) else turns for turns in requests]
    if any(len(turns) % 2 == 0 for turns in conversations):
        raise ValueError("requests must end with the user's turn: an odd number of texts each")
    prompts = [model.vocabulary.chat(*turns) for turns in conversations]
    return [model.vocabulary.decode(ids) for ids in generate(model, prompts, steps=steps, temperature=temperature, seed=seed)]


@torch.no_grad()
def generate(model, prompts, *, steps=40, temperature=0.0, cache=True, seed=0):
    """How the model goes on after each prompt: a list of lists of word numbers, up to <end>, which is left out.

    prompts: a list of lists of word numbers, or a tensor [N, T].  steps: at most so many words; fewer where the context is full.
    temperature: 0 takes the likeliest word each time; above 0 words are drawn by `seed`, from sharper to flatter odds.
    cache: keep keys and values of what was read; the same text, in less time.
    Raises ValueError for an empty prompt, one that fills the context, numbers out of the vocabulary, steps < 1 or temperature < 0.
    """
    prompts = prompts.tolist() if isinstance(prompts, torch.Tensor) else prompts
    _check(model, prompts, "prompts", room=1)
    check_number(steps, "steps", least=1, whole=True)
    check_number(temperature, "temperature", least=0)
    check_number(seed, "seed", whole=True)
    generator, written = torch.Generator().manual_seed(seed), [[] for _ in prompts]
    with frozen(model):
        for length in sorted({len(prompt) for prompt in prompts}):  # prompts of one length are one batch: nothing is padded
            rows = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
            ids = _continued(model, torch.tensor([prompts[row] for row in rows]), steps, temperature, cache, generator)
            for row, words in zip(rows, ids[:, length:].tolist()):
                ended = [place for place, word in enumerate(words) if word in model.vocabulary.ends]
                written[row] = words[:ended[0]] if ended else words
    return written


def _continued(model, ids, steps, temperature, cache, generator):
    """ids [N, T] with up to `steps` words more; a row that has ended is carried along until all have."""
    memory, device, length, ends = {} if cache else None, model.embedding.weight.device, ids.shape[1], torch.tensor(model.vocabulary.ends)
    while ids.shape[1] < min(length + steps, model.context) and not torch.isin(ids[:, length:], ends).any(1).all():
        unread = ids[:, -1:] if memory else ids
        logits = model(unread.to(device), cache=memory, last=1)[:, -1].cpu()
        chosen = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator) if temperature else logits.argmax(1, keepdim=True)
        ids = torch.cat([ids, chosen], 1)
    return ids


# ---- how likely a text is

@torch.no_grad()
def log_probabilities(model, sequences, *, batch=256):
    """The natural logarithm of each word's probability after those before it: a list of tensors [T - 1], from the second word on.

    sequences: a list of lists of word numbers, at least 2 each.  Raises ValueError as train_language does, or for batch < 1.
    """
    _check(model, sequences, "sequences", least=2)
    check_number(batch, "batch", least=1, whole=True)
    found, device = [None] * len(sequences), model.embedding.weight.device
    with frozen(model):
        for rows in torch.tensor(sorted(range(len(sequences)), key=lambda i: len(sequences[i]))).split(batch):
            ids = _padded([sequences[row] for row in rows.tolist()]).to(device)
            each = model(ids[:, :-1]).log_softmax(2).gather(2, ids[:, 1:, None])[:, :, 0].cpu()
            for row, values in zip(rows.tolist(), each):
                found[row] = values[:len(sequences[row]) - 1].clone()
    return found


def perplexity(model, sequences, *, batch=256):
    """exp of the mean negative log-probability of each sequence's words from the second on: a tensor [N], 1 for a certain text."""
    return torch.stack([(-values.mean()).exp() for values in log_probabilities(model, sequences, batch=batch)])


def _padded(rows):
    return torch.tensor([[*row, *[0] * (max(map(len, rows)) - len(row))] for row in rows])


def _check(model, sequences, name, *, least=1, room=0):
    """Raise ValueError unless `sequences` are lists of the model's word numbers that fit its context with `room` left."""
    if not hasattr(model, "vocabulary"):  # a wrapped model of Hugging Face has one too
        raise ValueError(f"model must be a Transformer, as small_transformer and load_model make them, not {type(model).__name__}")
    if not isinstance(sequences, (list, tuple)) or not sequences:
        raise ValueError(f"{name} must be a list of at least one list of word numbers, not {sequences!r:.60}")
    for ids in sequences:
        if not isinstance(ids, (list, tuple)) or not all(type(number) is int for number in ids):
            raise ValueError(f"{name} must hold lists of word numbers, not {ids!r:.60}: model.vocabulary.encode(text) makes one")
        if len(ids) < least:
            raise ValueError(f"{name} must hold lists of at least {least} word{'s' * (least > 1)}, but one has {len(ids)}")
        if len(ids) + room > model.context:
            bound = f"{model.context - room} words, the model's context{' less one to write in' * bool(room)}"
            raise ValueError(f"{name} must hold lists of at most {bound}, but one has {len(ids)}")
        if min(ids) < 0 or max(ids) >= len(model.vocabulary):
            raise ValueError(f"{name} must hold numbers from 0 to {len(model.vocabulary) - 1}, the vocabulary's, not {min(ids)} to {max(ids)}")
