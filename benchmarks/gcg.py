"""Our greedy coordinate gradient against nanogcg's, in one run: same model of Hugging Face, prompts, targets and first suffixes, one thread.

    python -m venv gcg_venv && gcg_venv/bin/pip install -e . nanogcg && gcg_venv/bin/python benchmarks/gcg.py

nanogcg is needed here alone and asks for transformers below 4.48, older than what `.[llm]` installs: hence the environment of its own.
Two Llamas of two layers over word pieces, one untrained, one trained on the course's chats until it refuses; nothing is downloaded. Each seed
is another request, another first suffix and another search. Losses are compared after equally many suffixes tried, times as ratios
within a seed: the two take turns. nanogcg has Python collect garbage in every step, to empty the graphics card; its time
without that is given too. Every number is a median over the seeds with the quartiles.
"""
import argparse
import gc
import logging
import math
import os
import statistics
import time

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1", HF_HUB_OFFLINE="1")

from mlsec_lab.victims.hugging_face import hugging_face_model  # noqa: E402, I001
import nanogcg.gcg  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from mlsec_lab.data_to_model.jailbreaks import gcg, random_suffixes, suffix_losses  # noqa: E402
from mlsec_lab.victims import train_language  # noqa: E402
from mlsec_lab.victims.corpora import chat, chat_requests  # noqa: E402

TEMPLATE = ("{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}")


def word_pieces(texts, size=1000):
    """A byte-level tokenizer as GPT-2 and Llama 3 have it, with a chat template, trained on the texts."""
    special = ["<s>", "</s>", "<|user|>", "<|assistant|>"]
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    pieces.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False,
                                                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    pieces.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, bos_token="<s>", eos_token="</s>", additional_special_tokens=special[2:])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_llama(tokenizer, width):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, initializer_range=0.1, bos_token_id=0, eos_token_id=1)).eval()


class Tried:
    """How many suffixes each step tries: the rows of the model's calls without gradients."""

    def __init__(self, model):
        self.rows = []
        model.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, model, args, kwargs):
        if not torch.is_grad_enabled():
            words = kwargs.get("inputs_embeds")
            self.rows.append(len(kwargs["input_ids"] if words is None else words))

    def of_steps(self, steps):
        rows, self.rows = self.rows[-steps:], []
        return rows


def loss_after(losses, tried, budget):
    """The lowest loss of the steps that fit into so many tries."""
    spent, lowest = 0, float("inf")
    for loss, rows in zip(losses, tried):
        spent += rows
        if spent > budget:
            return lowest
        lowest = min(lowest, loss)
    return lowest


def timed(function):
    began = time.process_time()
    result = function()
    return time.process_time() - began, result


def both(wrapped, tried, request, seed, steps, length, width, candidates):
    """{name: (CPU seconds a step, losses, tries of each step)} for one request."""
    start, = random_suffixes(wrapped, 1, suffix_length=length, seed=seed)
    assert len(wrapped.vocabulary.following(start)) == length

    def ours():
        return gcg(wrapped, request.text, request.opening, suffix_length=length, steps=steps, restarts=1, candidates=candidates, batch=width, seed=seed)

    def theirs(steps):
        return nanogcg.gcg.GCG(wrapped.model, wrapped.vocabulary.tokenizer, nanogcg.gcg.GCGConfig(
            num_steps=steps, optim_str_init=" " + start, search_width=width, topk=candidates, seed=seed))

    def without_collecting(function):
        collect, gc.collect = gc.collect, lambda: None
        try:
            return function()
        finally:
            gc.collect = collect

    few, many = theirs(-(-steps // 8)), theirs(steps)
    runs = {"ours": ours, "nanogcg": lambda: few.run(request.text, request.opening),
            "nanogcg, no collection": lambda: without_collecting(lambda: many.run(request.text, request.opening))}
    found = {}
    for name in list(runs) if seed % 2 else list(runs)[::-1]:
        seconds, result = timed(runs[name])
        steps_taken = len(result.losses) + (name != "ours")  # nanogcg looks at its first suffix before the first step: counted as one
        found[name] = seconds / steps_taken, result.losses, tried.of_steps(len(result.losses))
    assert all(math.isclose(*losses, abs_tol=1e-4) for losses in zip(found["nanogcg"][1], found["nanogcg, no collection"][1]))
    return found


def spread(values, digits=3):
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main(seeds, steps, length, width, candidates, hidden):
    sequences = [tuple(turns) for turns in chat(600, refuse=True, turns=(1,), seed=0)]
    tokenizer = word_pieces([text for turns in sequences for text in turns])
    untrained = hugging_face_model(tiny_llama(tokenizer, hidden), tokenizer)
    trained = train_language(untrained, [untrained.vocabulary.chat(*turns) for turns in sequences], epochs=10, progress=False)
    requests, budget = chat_requests(seeds, forbidden=True, seed=1), steps * width // 2
    logging.getLogger("transformers").setLevel(logging.ERROR)
    print(f"{seeds} seeds, suffixes of {length} among {len(untrained.vocabulary.ordinary)} word pieces, {steps} steps of {width} tries, "
          f"{candidates} candidates a place; loss after {budget} tries")
    for kind, wrapped in (("untrained", untrained), ("trained", trained)):
        tried, rows = Tried(wrapped.model), []
        for seed, request in enumerate(requests):
            rows.append(both(wrapped, tried, request, seed, steps, length, width, candidates))
        chance = [suffix_losses(wrapped, request.text, random_suffixes(wrapped, 1, suffix_length=length, seed=seed), request.opening).item()
                  for seed, request in enumerate(requests)]
        print(f"\n{kind}: loss of random suffixes {spread(chance)}")
        for name in ("ours", "nanogcg", "nanogcg, no collection"):
            print(f"  {name:24} ms a step {spread([1000 * row[name][0] for row in rows], 1)}   ours takes {spread([row['ours'][0] / row[name][0] for row in rows])} of it")
        losses = {name: [loss_after(*row[name][1:], budget) for row in rows] for name in ("ours", "nanogcg, no collection")}
        for name, values in losses.items():
            read = statistics.mean(sum(row[name][2]) / (steps * width) for row in rows)
            print(f"  {name:24} loss {spread(values)}   {read:.0%} of the suffixes drawn are read back, and tried")
        apart = [ours - theirs for ours, theirs in zip(*losses.values())]
        print(f"  ours - nanogcg's: {spread(apart)}; ours is no worse on {sum(value <= 0 for value in apart)} of {seeds} seeds", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in dict(seeds=12, steps=40, length=8, width=128, candidates=64, hidden=64).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    torch.set_num_threads(1)
    logging.getLogger("nanogcg").setLevel(logging.ERROR)
    main(**vars(parser.parse_args()))
