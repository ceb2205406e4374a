"""An adapter for Hugging Face's causal language models: what works on the course's own transformer works on them.

    from mlsec_lab.victims.hugging_face import hugging_face_model  # first: it makes torchvision fit for what follows
    from transformers import AutoModelForCausalLM, AutoTokenizer
    name = "Qwen/Qwen2.5-0.5B-Instruct"
    model = hugging_face_model(AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name))
    found = gcg(model, request, "Sure, here is", suffix_length=20, candidates=256, batch=512, steps=250, restarts=1)
    answer(model, [f"{request} {found.suffix}"])

It needs `pip install -e ".[llm]"`. The wrapped model has the course's contract (`victims.language.Transformer`): logits from ids or
from embeddings, a cache that is a plain dict, `embedding`, `context`, and a `vocabulary` whose texts are those of the tokenizer.
"""
import inspect
from functools import cached_property

import torch
from torch import nn

from mlsec_lab.victims.datasets import import_torchvision
from mlsec_lab.victims.networks import frozen

import_torchvision()  # transformers imports it too, and would fail where its compiled part does not fit the installed torch

GAP = "\ue000"  # stands for the suffix while a chat is laid out; a code point for private use, in nobody's request
PLAIN = ("User:\n{}\n\nAssistant:\n", "{}\n\n")  # the chat of a tokenizer that has no template: a request, an answer


def hugging_face_model(model, tokenizer):
    """Wrap a causal language model and its tokenizer, both from transformers, without copying or changing them.

    model: as `AutoModelForCausalLM.from_pretrained` returns it, on any device, in any floating type; logits come back as float32
    at least.  tokenizer: the model's own.
    The result is an nn.Module with `forward(ids, *, embeddings, cache)`, `embedding`, `context` and `vocabulary`, for `gcg`,
    `answer`, `generate`, `perplexity` and whatever else asks for no more than these.
    Raises ImportError without transformers; ValueError for a model that is not causal, that keeps no keys and values to go on from,
    or that has fewer rows in its embedding than the tokenizer has numbers.
    """
    try:
        from transformers import DynamicCache, PreTrainedTokenizerBase
    except ImportError as error:
        raise ImportError('hugging_face_model needs the package transformers: pip install -e ".[llm]" installs it') from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ValueError(f"tokenizer must be one of transformers', as AutoTokenizer.from_pretrained returns it, not {type(tokenizer).__name__}")
    if not isinstance(model, nn.Module) or not (hasattr(model, "get_input_embeddings") and hasattr(model, "config")):
        raise ValueError(f"model must be a causal language model of transformers, not {type(model).__name__}")
    settings = model.config.get_text_config()
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = {*(ends if isinstance(ends, (list, tuple)) else [ends]), tokenizer.eos_token_id} - {None}
    vocabulary = TokenizerVocabulary(tokenizer, tuple(sorted(ends)))
    rows = len(model.get_input_embeddings().weight)
    if len(vocabulary) > rows:
        raise ValueError(f"tokenizer must have no more numbers than the model's embedding has rows, {rows}, but it has {len(vocabulary)}: "
                         "is it the model's own?")
    context = min(getattr(settings, "max_position_embeddings", None) or tokenizer.model_max_length, tokenizer.model_max_length)
    wrapped = HuggingFaceModel(model, vocabulary, context, DynamicCache)
    _check_causal(wrapped)
    return wrapped


class HuggingFaceModel(nn.Module):
    """ids [N, T] -> logits [N, T, V], with the arguments of `victims.language.Transformer`; `model` is the one that was wrapped."""

    def __init__(self, model, vocabulary, context, cache_type):
        super().__init__()
        self.model, self.vocabulary, self.context, self._cache_type = model, vocabulary, context, cache_type
        self.training = model.training
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def embedding(self):
        """The table of word vectors: an nn.Embedding."""
        return self.model.get_input_embeddings()

    def forward(self, ids=None, *, embeddings=None, cache=None, last=None):
        n = len(embeddings if ids is None else ids)
        # Some models stretch what they look up (Gemma); rows made from `embedding.weight` have to be stretched alike.
        words = dict(inputs_embeds=embeddings * getattr(self.embedding, "embed_scale", 1)) if ids is None else dict(input_ids=ids)
        if last is not None and self._keeps:
            words["logits_to_keep"] = last
        if cache is None:
            logits = self.model(**words, use_cache=False).logits
        else:
            past = self._cache_type()  # a new one each time: the library's caches change in place, the tensors in ours never do
            for layer, kept in sorted(cache.items()):
                past.update(*(part.expand(n, -1, -1, -1) for part in kept), layer)
            seen = self.model(**words, past_key_values=past, use_cache=True)
            cache.update(enumerate(tuple(layer[:2]) for layer in seen.past_key_values))
            logits = seen.logits
        logits = logits if last is None else logits[:, -last:]
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _check_causal(model):
    """Raise ValueError unless later words leave earlier logits alone and a cache changes nothing, on four words."""
    ids = torch.tensor([[0, 1], [0, 2 % len(model.vocabulary)]], device=model.embedding.weight.device)
    name, memory = type(model.model).__name__, {}
    try:
        with torch.no_grad(), frozen(model):
            whole = model(ids)
            bound = 32 * torch.finfo(model.embedding.weight.dtype).eps * whole.abs().max()
            causal = (whole[0, 0] - whole[1, 0]).abs().max() <= bound
            if causal:
                model(ids[:1, :1], cache=memory)
                after = model(ids[:, 1:], cache=dict(memory))
    except Exception as error:  # each kind of model that predicts no next word fails in its own way
        raise ValueError(f"model must be a causal language model that keeps keys and values to go on from; {name} "
                         f"could not do that ({' '.join(str(error).split())[:200]})") from error
    if not causal:
        raise ValueError(f"model must be a causal language model, but what {name} says of a word depends on the words that follow")
    if not (whole[:, 1:] - after).abs().max() <= bound:
        raise ValueError(f"model must say the same with a cache as without, but {name} does not")


class TokenizerVocabulary:
    """A tokenizer with the methods of `victims.language.Vocabulary`.  `ends`: the numbers that end an answer."""

    def __init__(self, tokenizer, ends):
        self.tokenizer, self.ends = tokenizer, ends
        self._size = max(tokenizer.get_vocab().values()) + 1

    def __len__(self):
        return self._size

    @cached_property
    def words(self):
        """The text of each number."""
        return tuple(self.tokenizer.batch_decode([[number] for number in range(len(self))], clean_up_tokenization_spaces=False))

    @cached_property
    def ordinary(self):
        """The numbers that a suffix may use: no special token, and text that any keyboard types (printable ASCII, no blank at its end)."""
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        return [number for number, text in enumerate(self.words)
                if number not in special and text.isascii() and text.isprintable() and text.strip() and text == text.rstrip()]

    def encode(self, text):
        """The numbers of a text at the beginning of a turn; no special tokens are added."""
        return self._numbers([text])[0]

    def following(self, text):
        """The numbers of a text that follows a word and a blank, as a suffix does: many tokenizers write another number for ` the` than for `the`."""
        alone, both = self._numbers(["a", f"a {text}"])
        return both[len(alone):] if text else []

    def decode(self, ids):
        """The text of a sequence of numbers, without the blank that word pieces begin with."""
        return self._texts([ids])[0]

    def chat(self, *turns):
        """The numbers of a conversation: request, answer, request, answer, …; after a last request it is the assistant's turn.

        By the tokenizer's chat template, or `PLAIN` where it has none.
        """
        return self._numbers([self._laid_out(turns)])[0]

    def around(self, request):
        """The numbers of a chat before and after a suffix to the request: two lists."""
        return tuple(self._numbers(self._halves(request)))

    def reads_back(self, rows):
        """For each suffix [N, L]: does the tokenizer make the same numbers of its text again, in a chat? A bool tensor [N]."""
        (before, after), rows = self._short_chat, rows.tolist()
        first, last, *found = self._numbers([before, after, *(f"{before} {text}{after}" for text in self._texts(rows))])
        return torch.tensor([ids == [*first, *row, *last] for ids, row in zip(found, rows)])

    @cached_property
    def _short_chat(self):
        return self._halves("a")  # a suffix begins with a blank, and tokenizers part words there: any word before it will do

    def entry(self, text, *, whole=True):
        """The numbers of a text of its own; without its end if it is not `whole`, to be gone on with."""
        first, last = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return [first] * (first is not None) + self.encode(text) + [last] * (whole and last is not None)

    def _numbers(self, texts):
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"text must be a string, not {type(texts[-1]).__name__}")
        return [list(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]

    def _texts(self, rows):
        return [text.removeprefix(" ") for text in self.tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False)]

    def _laid_out(self, turns):
        if not all(isinstance(text, str) for text in turns):
            raise ValueError("turns must be strings: request, answer, request, …")
        if not self.tokenizer.chat_template:
            return (self.tokenizer.bos_token or "") + "".join(PLAIN[number % 2].format(text) for number, text in enumerate(turns))
        messages = [dict(role=("user", "assistant")[number % 2], content=text) for number, text in enumerate(turns)]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=len(turns) % 2 == 1)

    def _halves(self, request):
        if not isinstance(request, str):
            raise ValueError(f"text must be a string, not {type(request).__name__}")
        halves = self._laid_out([request + GAP]).split(GAP)
        if len(halves) != 2:
            raise ValueError("tokenizer must have a chat template that repeats the request exactly once")
        return halves
