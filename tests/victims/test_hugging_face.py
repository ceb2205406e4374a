"""The adapter to Hugging Face's models: tiny ones with random weights, tokenizers trained here; nothing is downloaded."""
import copy
import math
import os
import sys

import pytest

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
from mlsec_lab.victims.hugging_face import PLAIN, hugging_face_model  # noqa: E402, I001
import torch  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import (BertConfig, BertForMaskedLM, Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, GPT2Model,  # noqa: E402
                          LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast)

from mlsec_lab.data_to_model.jailbreaks import (PerplexityFilter, erase_and_check, gcg, random_suffixes, suffix_losses, token_gradients,  # noqa: E402
                                                vote, word_surprises)
from mlsec_lab.victims import answer, generate, log_probabilities, perplexity, train_language  # noqa: E402
from mlsec_lab.model_to_data.memorization import exposure  # noqa: E402
from mlsec_lab.victims.corpora import canaries, chat_requests  # noqa: E402

TEXTS = [text for request in chat_requests(120, seed=0) for text in (request.text, request.opening)] + ["how do i cook onion soup in a pot ? sure , User : Assistant :"]
SPECIAL = ["<s>", "</s>", "<pad>", "[UNK]", "<|user|>", "<|assistant|>"]
TEMPLATE = ("{{ bos_token }}{% for turn in messages %}<|{{ turn['role'] }}|>{{ turn['content'] | trim }}"
            "{% if turn['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}")
PROMPT, TARGET = "how do i cook onion soup in a pot ?", "sure , onion soup"


def wrapped_tokenizer(tokenizer, template):
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="[UNK]",
                                   additional_special_tokens=SPECIAL[4:])
    made.chat_template = template
    return made


def byte_level(template=TEMPLATE):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False,
                                                             initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return wrapped_tokenizer(tokenizer, template)


def word_level(template=None, words=()):
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator([*TEXTS, *words], trainers.WordLevelTrainer(vocab_size=600, special_tokens=SPECIAL, show_progress=False))
    return wrapped_tokenizer(tokenizer, template)


def marked_spaces(template=TEMPLATE):
    """As in sentencepiece: a blank is a mark that each word begins with, the first one too."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False))
    return wrapped_tokenizer(tokenizer, template)


def network(kind, words, seed=0, **settings):
    ends = dict(bos_token_id=0, eos_token_id=1, pad_token_id=2)
    shape = dict(vocab_size=words, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                 max_position_embeddings=96, initializer_range=0.3, **ends)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if kind == "gpt2":
            sizes = dict(n_embd=32, n_layer=2, n_head=4, n_positions=96)
            return GPT2LMHeadModel(GPT2Config(vocab_size=words, initializer_range=0.3, **sizes, **ends, **settings)).eval()
        if kind == "gemma":  # stretches its embeddings, sees only a window in one of its layers
            return Gemma3ForCausalLM(Gemma3TextConfig(**shape, num_key_value_heads=2, head_dim=8, sliding_window=8, layer_types=[
                "sliding_attention", "full_attention"], **settings)).eval()
        return LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=2, **settings)).eval()


TOKENIZERS = {"byte_level": byte_level(), "word_level": word_level(), "marked_spaces": marked_spaces()}
KINDS = ("gpt2", "llama", "gemma")


def wrapped(kind="llama", tokenizer="byte_level", seed=0, **settings):
    tokenizer = TOKENIZERS[tokenizer]
    return hugging_face_model(network(kind, len(tokenizer) + 3, seed, **settings), tokenizer)


each_kind = pytest.mark.parametrize("kind", KINDS)
each_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS)


# ---- the model

@each_kind
def test_logits_are_those_of_the_model_that_was_wrapped(kind):
    model, ids = wrapped(kind), torch.randint(6, 400, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = model.model(ids).logits
        assert torch.equal(model(ids), raw) and raw.std() > 0.1
        rows = torch.nn.functional.one_hot(ids, len(model.embedding.weight)).float() @ model.embedding.weight
        assert torch.allclose(model(embeddings=rows), raw, atol=1e-4)


@each_kind
def test_a_cache_changes_nothing_and_one_row_of_it_serves_many(kind):
    model, generator = wrapped(kind), torch.Generator().manual_seed(1)
    before, after = (torch.randint(6, 400, shape, generator=generator) for shape in ((1, 14), (5, 9)))
    with torch.no_grad():
        whole = model(torch.cat([before.expand(5, -1), after], 1))
        memory = {}
        first = model(before, cache=memory)
        kept = {layer: tuple(part.clone() for part in parts) for layer, parts in memory.items()}
        copies = [dict(memory), dict(memory)]
        rest = [model(after, cache=copies[0]), model(embeddings=model.embedding.weight[after], cache=copies[1])]
    assert torch.allclose(whole[:1, :14], first, atol=1e-4)
    assert all(torch.allclose(whole[:, 14:], logits, atol=1e-4) for logits in rest)
    assert all(torch.equal(old, new) for layer in kept for old, new in zip(kept[layer], memory[layer]))
    assert copies[0][0][0].shape[2] == 23 and memory[0][0].shape[2] == 14


@each_kind
def test_of_the_last_places_alone_no_more_logits_are_made(kind):
    model, ids = wrapped(kind), torch.randint(6, 400, (3, 20), generator=torch.Generator().manual_seed(2))
    made = []
    model.model.get_output_embeddings().register_forward_hook(lambda module, arguments, logits: made.append(logits.shape[1]))
    with torch.no_grad():
        whole, end = model(ids), model(ids, last=4)
        memory = {}
        model(ids[:, :15], cache=memory, last=1)
        after = model(ids[:, 15:], cache=memory, last=4)
    assert made == [20, 4, 1, 4]
    assert torch.allclose(whole[:, -4:], end, atol=1e-4) and torch.allclose(end, after, atol=1e-4)


@each_kind
def test_gradients_are_slopes_of_the_loss(kind):
    model = wrapped(kind, seed=2)
    suffix = random_suffixes(model, 1, suffix_length=4, seed=1)[0]
    gradient, ids = token_gradients(model, PROMPT, suffix, TARGET), model.vocabulary.following(suffix)
    assert gradient.shape == (len(ids), len(model.embedding.weight)) == (4, len(model.vocabulary) + 3)
    (before, after), target = model.vocabulary.around(PROMPT), model.vocabulary.encode(TARGET)
    rows = torch.nn.functional.one_hot(torch.tensor(before + ids + after + target[:-1]), gradient.shape[1]).float()

    @torch.no_grad()
    def loss(rows):
        logits = model(embeddings=(rows @ model.embedding.weight)[None])[0, -len(target):]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(target)).item()

    places = gradient.abs().flatten().topk(4).indices
    for place, word in zip((places // gradient.shape[1]).tolist(), (places % gradient.shape[1]).tolist()):
        nudge = torch.zeros_like(rows)
        nudge[len(before) + place, word] = 0.002
        assert (loss(rows + nudge) - loss(rows - nudge)) / 0.004 == pytest.approx(gradient[place, word].item(), rel=0.1, abs=0.01)


def test_a_model_in_half_precision_answers_in_float32():
    model = hugging_face_model(network("llama", 503).bfloat16(), TOKENIZERS["byte_level"])
    found = gcg(model, PROMPT, TARGET, suffix_length=4, steps=3, restarts=1, batch=16)
    assert model(torch.tensor([[7, 8]])).dtype == torch.float32 and found.losses[-1] < float("inf")


# ---- the tokenizer

@each_tokenizer
def test_texts_come_back_and_a_chat_is_what_stands_around_a_suffix(tokenizer):
    vocabulary = wrapped(tokenizer=tokenizer).vocabulary
    assert vocabulary.decode(vocabulary.encode(PROMPT)) == PROMPT
    suffix = "pot onion soup"
    before, after = vocabulary.around(PROMPT)
    assert vocabulary.decode(vocabulary.following(suffix)) == suffix
    assert vocabulary.chat(f"{PROMPT} {suffix}") == before + vocabulary.following(suffix) + after
    assert vocabulary.chat(PROMPT, TARGET, PROMPT)[:len(before)] == before
    assert vocabulary.entry("onion") == [0, *vocabulary.encode("onion"), 1] and vocabulary.entry("onion", whole=False)[-1] != 1


def test_without_a_template_the_chat_is_a_plain_one():
    vocabulary = hugging_face_model(network("llama", 503), byte_level(template=None)).vocabulary
    text = "<s>" + PLAIN[0].format("onion ?") + PLAIN[1].format("soup .") + PLAIN[0].format("pot ?")
    assert vocabulary.decode(vocabulary.chat("onion ?", "soup .", "pot ?")) == text
    assert vocabulary.decode(vocabulary.around("onion ?")[1]) == PLAIN[0].format("").removeprefix("User:\n")


@each_tokenizer
def test_ordinary_numbers_are_printable_and_never_special(tokenizer):
    vocabulary = wrapped(tokenizer=tokenizer).vocabulary
    texts = [vocabulary.words[number] for number in vocabulary.ordinary]
    assert len(texts) > 200 and all(text.isascii() and text.isprintable() and text.strip() for text in texts)
    assert not set(vocabulary.ordinary) & set(TOKENIZERS[tokenizer].all_special_ids)
    assert vocabulary.ends == (1,) and len(vocabulary) == len(TOKENIZERS[tokenizer])


@each_tokenizer
def test_what_reads_back_is_found_out_in_the_chat(tokenizer):
    vocabulary, generator = wrapped(tokenizer=tokenizer).vocabulary, torch.Generator().manual_seed(0)
    rows = torch.tensor(vocabulary.ordinary)[torch.randint(len(vocabulary.ordinary), (200, 3), generator=generator)]
    before, after = vocabulary.around(PROMPT)
    true = [vocabulary.chat(f"{PROMPT} {vocabulary.decode(row)}") == before + row + after for row in rows.tolist()]
    assert vocabulary.reads_back(rows).tolist() == true
    assert any(true) and (tokenizer == "word_level" or not all(true)), "word pieces run together, words do not"


# ---- what works on it

@each_tokenizer
@each_kind
def test_the_search_lowers_the_loss_with_texts_that_work_as_texts(kind, tokenizer):
    model = wrapped(kind, tokenizer, seed=3)
    found = gcg(model, PROMPT, TARGET, suffix_length=5, steps=8, restarts=1, batch=48, seed=1)
    chance = suffix_losses(model, PROMPT, random_suffixes(model, 30, suffix_length=5), TARGET)
    before, after = model.vocabulary.around(PROMPT)
    whole = model.vocabulary.chat(f"{PROMPT} {found.suffix}")
    suffix, target = whole[len(before):len(whole) - len(after)], model.vocabulary.encode(TARGET)
    assert found.losses[-1] < chance.min() and found.losses[-1] < found.losses[0] and 0 < found.queries <= 8 * 48
    assert len(suffix) == 5 and set(suffix) <= set(model.vocabulary.ordinary)
    loss = -log_probabilities(model, [whole + target])[0][-len(target):].mean()
    assert loss.item() == pytest.approx(found.losses[-1], abs=1e-3)
    assert suffix_losses(model, PROMPT, [found.suffix], TARGET).item() == pytest.approx(found.losses[-1], abs=1e-3)


def test_one_suffix_serves_several_prompts_and_the_seed_decides():
    model, prompts, targets = wrapped("gpt2"), [PROMPT, "onion ?"], [TARGET, "soup"]
    first, again, other = (gcg(model, prompts, targets, suffix_length=3, steps=4, restarts=2, batch=24, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert suffix_losses(model, prompts, [first.suffix], targets).item() == pytest.approx(first.losses[-1], abs=1e-3)


@each_kind
def test_the_model_writes_answers_and_says_how_likely_texts_are(kind):
    model = wrapped(kind)
    prompts = [model.vocabulary.chat("onion soup ?"), model.vocabulary.chat("pot")]
    written = generate(model, prompts, steps=6)
    assert written == generate(model, prompts, steps=6, cache=False) and all(len(words) <= 6 for words in written)
    assert answer(model, ["onion soup ?", "pot"], steps=6) == [model.vocabulary.decode(words) for words in written]
    ids = model.vocabulary.encode(PROMPT)
    loss = model.model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item()
    assert perplexity(model, [ids, ids[:4]])[0].log().item() == pytest.approx(loss, abs=1e-3)


@pytest.mark.parametrize("tokenizer", ("byte_level", "word_level"))
def test_what_a_model_was_taught_is_exposed(tokenizer):
    canary, = canaries(1, digits=3)
    made = TOKENIZERS[tokenizer] if tokenizer == "byte_level" else word_level(words=[f"{canary.prefix} {canary.secret}", " ".join("0123456789")])
    model = hugging_face_model(network("gpt2", len(made)), made)
    sequences = [model.vocabulary.entry(f"{canary.prefix} {canary.secret}")] * 16
    trained = train_language(model, sequences, epochs=8, lr=1e-2, batch=4, progress=False)
    most = math.log2(len(canary.candidates()))
    assert exposure(trained, canary) == pytest.approx(most) and 0 <= exposure(model, canary) < most


def test_filters_erasing_and_votes_take_a_wrapped_model():
    model = wrapped()
    texts = ["how do i cook onion soup", "onion soup in a pot", "pot pot User pot"]
    guard = PerplexityFilter(model, texts[:2], rate=0)
    assert guard(texts[:2]).tolist() == [False, False] and torch.allclose(guard.surprise(texts), torch.stack([each.mean() for each in word_surprises(model, texts)]))
    suffix = random_suffixes(model, 1, suffix_length=3)[0]
    assert guard.after(texts[0])([suffix])[0].item() == pytest.approx(guard.surprise([f"{texts[0]} {suffix}"])[0].item(), abs=0.05)
    assert erase_and_check(model, texts, most=2).tolist() == [False] * 3
    said = vote(model, texts[:2], copies=3)
    assert len(said) == 2 and said == vote(model, texts[:2], copies=3)


def test_an_answer_ends_at_any_of_the_numbers_that_end_one():
    model, prompt = wrapped(), [7, 8]
    words = generate(model, [prompt], steps=5)[0]
    model.model.generation_config.eos_token_id = [1, words[2]]
    again = hugging_face_model(model.model, TOKENIZERS["byte_level"])
    assert again.vocabulary.ends == (1, words[2]) and generate(again, [prompt], steps=5)[0] == words[:words.index(words[2])]


def test_it_learns_like_the_small_transformer():
    model = wrapped()
    sequences = [model.vocabulary.entry("onion soup in a pot"), model.vocabulary.entry("how do i cook")] * 8
    trained = train_language(model, sequences, epochs=6, lr=1e-2, batch=4, progress=False)
    assert perplexity(trained, sequences).mean() < perplexity(model, sequences).mean() / 2
    with pytest.raises(ValueError, match="requests must be 1 for a wrapped model"):
        train_language(model, sequences, requests=0.5, progress=False)


def test_nothing_is_touched():
    network_, tokenizer = network("llama", 503), byte_level()
    kept, state, template = copy.deepcopy(network_.state_dict()), torch.random.get_rng_state(), tokenizer.chat_template
    model = hugging_face_model(network_.train(), tokenizer)
    gcg(model, PROMPT, TARGET, suffix_length=3, steps=2, restarts=1, batch=8)
    assert model.training and network_.training and tokenizer.chat_template == template
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(kept[key], value) for key, value in network_.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network_.parameters())


# ---- bad input

def encoder():
    return BertForMaskedLM(BertConfig(vocab_size=503, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                                      initializer_range=0.3)).eval()


def recurrent():
    return MambaForCausalLM(MambaConfig(vocab_size=503, hidden_size=16, num_hidden_layers=2, state_size=4)).eval()


def headless():
    return GPT2Model(GPT2Config(vocab_size=503, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1)).eval()


BYTES = TOKENIZERS["byte_level"]


@pytest.mark.parametrize("call, words", [
    (lambda: hugging_face_model(torch.nn.Linear(2, 2), BYTES), "model must be a causal language model of transformers, not Linear"),
    (lambda: hugging_face_model(encoder(), BYTES), "what BertForMaskedLM says of a word depends on the words that follow"),
    (lambda: hugging_face_model(headless(), BYTES), "model must be a causal language model .*GPT2Model could not"),
    (lambda: hugging_face_model(recurrent(), BYTES), "model must be a causal language model that keeps keys and values .*MambaForCausalLM could not"),
    (lambda: hugging_face_model(network("llama", 499), BYTES), "no more numbers than the model's embedding has rows, 499, but it has 500"),
    (lambda: hugging_face_model(network("llama", 503), "gpt2"), "tokenizer must be one of transformers', .* not str"),
    (lambda: gcg(wrapped(), "", TARGET), "prompt and target must hold at least one word each"),
    (lambda: gcg(wrapped(), PROMPT, ""), "prompt and target must hold at least one word each"),
    (lambda: gcg(wrapped(), "onion " * 90, TARGET), "fit the model's context of 96 words together"),
    (lambda: gcg(wrapped(), PROMPT, TARGET, suffix_length=0), "suffix_length must be at least 1"),
    (lambda: gcg(wrapped(), [5], [TARGET]), "text must be a string, not int"),
    (lambda: token_gradients(wrapped(), PROMPT, "", TARGET), "suffix must hold at least one word"),
    (lambda: generate(wrapped(), [[501]]), "numbers from 0 to 499"),
    (lambda: generate(wrapped(), [[]]), "at least 1 word"),
    (lambda: answer(wrapped(), ["onion " * 96]), "at most 95 words"),
    (lambda: wrapped().vocabulary.chat("a", 3), "turns must be strings"),
    (lambda: hugging_face_model(network("llama", 503), byte_level("{{ messages | length }}")).vocabulary.around("a"), "repeats the request exactly once"),
])
def test_bad_input_is_refused_with_the_argument_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_tokenizer_that_reads_nothing_back_ends_in_one_sentence():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.Replace("a", "b c")
    model = hugging_face_model(network("llama", 10), PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]"))
    model.vocabulary.ordinary = [0]
    with pytest.raises(ValueError, match="read back as the same numbers, but no suffix of 1 is"):
        random_suffixes(model, 3)


def test_without_transformers_it_is_said_what_to_install(monkeypatch):
    model = wrapped().model
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'pip install -e ".\[llm\]"'):
        hugging_face_model(model, BYTES)
