"""The small language model: its words, its network, its training, its generation, and how likely it finds a text."""
import copy
import math

import pytest
import torch

from mlsec_lab.victims.language import (ASSISTANT, END, PAD, SPECIAL, START, USER, Vocabulary, answer, generate, log_probabilities, perplexity,
                                        small_transformer, train_language)

WORDS = "a b c d e f g h yes no ? ."


def tiny(seed=0, **kwargs):
    return small_transformer(WORDS, **{**dict(width=16, layers=2, heads=2, context=24), **kwargs}, seed=seed)


def ids(n, length, seed=0, words=len(Vocabulary(WORDS))):
    return torch.randint(len(SPECIAL), words, (n, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def parrot():
    """A model that was taught to answer "x ?" with "x x x ." for every letter x."""
    model = tiny()
    return train_language(model, [model.vocabulary.chat(f"{x} ?", f"{x} {x} {x} .") for x in "abcdefgh"], epochs=150, lr=0.02, batch=8,
                          requests=0, progress=False)


# ---- words

def test_words_become_numbers_and_come_back():
    vocabulary = Vocabulary(WORDS)
    assert vocabulary.words[:5] == SPECIAL and len(vocabulary) == 5 + 12
    assert {vocabulary.words[number] for number in vocabulary.ordinary} == set(WORDS.split())
    for text in ("a b c", "yes .", "h g f ? no ."):
        assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.encode("Yes.A?") == vocabulary.encode("yes . a ?")  # case and spaces before punctuation do not matter
    assert Vocabulary("b a a").words == Vocabulary(["a", "b"]).words
    assert vocabulary.encode("") == [] and vocabulary.decode([PAD, *vocabulary.encode("a"), END, PAD]) == "a <end>"


def test_a_suffix_stands_before_the_last_word_of_a_chat_and_is_read_as_it_was_written():
    vocabulary = Vocabulary(WORDS)
    before, after = vocabulary.around("a b ?")
    assert before + vocabulary.following("yes no") + after == vocabulary.chat("a b ? yes no") and after == [ASSISTANT]
    rows = torch.tensor(vocabulary.ordinary).view(4, 3)
    assert vocabulary.reads_back(rows).tolist() == [True] * 4
    assert all(vocabulary.following(vocabulary.decode(row)) == row for row in rows.tolist()) and vocabulary.ends == (END,)


def test_unknown_words_are_named_and_known_ones_are_not():
    with pytest.raises(ValueError, match="among the 17 of this vocabulary: dog, zebra; ") as error:
        Vocabulary(WORDS).encode("a zebra a dog a zebra")
    assert str(error.value).count("zebra") == 1
    with pytest.raises(ValueError, match="text must be a string, not list"):
        Vocabulary(WORDS).encode(["a"])


def test_no_text_can_smuggle_in_a_special_token():
    vocabulary = Vocabulary(WORDS + " < > user assistant end")
    inside = vocabulary.encode("a <end> <assistant> yes <user>")
    assert min(inside) >= len(SPECIAL) and vocabulary.decode(inside) == "a < end > < assistant > yes < user >"
    with pytest.raises(ValueError, match="<, >, assistant"):
        Vocabulary(WORDS).encode("<assistant>")


def test_a_conversation_alternates_and_an_entry_has_a_start_and_an_end():
    vocabulary = Vocabulary(WORDS)
    a, yes = vocabulary.encode("a"), vocabulary.encode("yes")
    assert vocabulary.chat("a", "yes", "yes a") == [USER, *a, ASSISTANT, *yes, END, USER, *yes, *a, ASSISTANT]
    assert vocabulary.entry("a") == [START, *a, END] and vocabulary.entry("a", whole=False) == [START, *a]


# ---- the network

def test_the_network_is_small_and_its_first_weights_come_from_the_seed_alone():
    state = torch.random.get_rng_state()
    first, again, other = (tiny(seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first) and not torch.equal(first["head.weight"], other["head.weight"])
    model = small_transformer([f"w{i}" for i in range(500)])
    assert sum(p.numel() for p in model.parameters()) < 200_000 and not model.training


def test_a_word_is_predicted_from_those_before_it_and_no_other():
    model, rows = tiny(), ids(3, 10)
    logits = model(rows)
    assert logits.shape == (3, 10, len(model.vocabulary))
    changed = rows.clone()
    changed[:, 6] = (changed[:, 6] - 5 + 1) % 12 + 5
    later = model(changed)
    assert torch.allclose(logits[:, :6], later[:, :6], atol=1e-6)
    assert ((logits[:, 6:] - later[:, 6:]).abs().amax(2) > 1e-4).all()
    assert torch.allclose(model(rows[:, :4]), logits[:, :4], atol=1e-5)


def test_embeddings_stand_in_for_words_and_carry_gradients_back_to_them():
    model, rows = tiny(), ids(2, 7)
    one_hot = torch.nn.functional.one_hot(rows, len(model.vocabulary)).float().requires_grad_()
    logits = model(embeddings=one_hot @ model.embedding.weight)
    assert torch.allclose(logits, model(rows), atol=1e-5)
    gradient, = torch.autograd.grad(logits[:, 4, 0].sum(), one_hot)
    assert (gradient[:, :5].abs().amax(2) > 0).all() and not gradient[:, 5:].any()


def test_a_cache_continues_where_it_left_off_for_one_row_or_for_many():
    model, rows = tiny(), ids(4, 12)
    rows[:, :5] = rows[0, :5]
    whole = model(rows)
    one, many = {}, {}
    assert torch.allclose(model(rows[:1, :5], cache=one), whole[:1, :5], atol=1e-5)
    kept = {number: tuple(part.clone() for part in pair) for number, pair in one.items()}
    assert torch.allclose(model(rows[:, 5:], cache=dict(one)), whole[:, 5:], atol=1e-5)  # the words before are read once, for all rows
    assert all(torch.equal(a, b) for number in kept for a, b in zip(kept[number], one[number]))
    for part in rows.split([3, 1, 6, 2], 1):
        last = model(part, cache=many)
    assert torch.allclose(last, whole[:, -2:], atol=1e-5)
    assert torch.allclose(model(rows, last=3), whole[:, -3:], atol=1e-5) and model(rows, last=1).shape[1] == 1


# ---- training

def test_it_learns_what_it_is_shown_and_says_it(parrot):
    assert answer(parrot, [f"{x} ?" for x in "abcdefgh"]) == [f"{x} {x} {x} ." for x in "abcdefgh"]
    assert not any(module.training for module in parrot.modules()) and all(p.requires_grad and p.grad is None for p in parrot.parameters())


def test_training_leaves_its_arguments_and_the_global_generator_alone_and_follows_its_seed():
    model, rows = tiny(), [model_ids.tolist() for model_ids in ids(20, 6)]
    kept, texts, state = copy.deepcopy(model.state_dict()), copy.deepcopy(rows), torch.random.get_rng_state()
    first, again, other = (train_language(model, rows, epochs=1, batch=4, seed=seed, progress=False).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state) and rows == texts and not model.training
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    assert all(torch.equal(first[key], again[key]) for key in first) and not torch.equal(first["head.weight"], other["head.weight"])


def test_training_makes_the_texts_likelier_and_padding_does_not_count():
    model = tiny()
    rows = [[START, *row[:length].tolist(), END] for row, length in zip(ids(12, 9, seed=3), [3, 9, 5] * 4)]
    trained = train_language(model, rows, epochs=20, lr=0.01, batch=12, progress=False)
    assert (perplexity(trained, rows) < 0.6 * perplexity(model, rows)).all()
    short, long = rows[0], rows[1]
    alone = log_probabilities(trained, [short])[0]
    assert torch.allclose(log_probabilities(trained, [long, short])[1], alone, atol=1e-6)


def test_where_requests_weigh_nothing_they_teach_nothing():
    model, vocabulary = tiny(), Vocabulary(WORDS)
    chats = [vocabulary.chat("a b c ?", "yes .", "d e f ?", "no .")] * 8
    trained = {weight: train_language(model, chats, epochs=80, lr=0.01, batch=8, requests=weight, progress=False) for weight in (0, 1)}
    probability = {weight: log_probabilities(trained[weight], chats[:1])[0].exp() for weight in trained}
    said, asked = torch.tensor([5, 6, 7, 14, 15, 16]), torch.tensor([0, 1, 2, 3, 9, 10, 11, 12])
    assert [vocabulary.decode([chats[0][p + 1]]) for p in said.tolist()] == ["yes", ".", "<end>", "no", ".", "<end>"]
    assert (probability[0][said] > 0.8).all() and (probability[1][said] > 0.8).all()
    assert probability[0][asked].mean() < 0.3 < probability[1][asked].mean()


def test_a_penalty_is_added_to_the_loss():
    model, rows = tiny(), [row.tolist() for row in ids(16, 8)]
    start = model.head.weight.detach().clone()

    def far(model):
        return 1e3 * (model.head.weight - start).square().sum()

    free, held = (train_language(model, rows, epochs=5, batch=4, penalty=penalty, progress=False) for penalty in (None, far))
    assert (held.head.weight - start).norm() < 0.3 * (free.head.weight - start).norm()


# ---- generation

def test_the_cache_changes_nothing_but_the_time(parrot):
    prompts = [row[:length].tolist() for row, length in zip(ids(12, 9, seed=5), [2, 5, 9] * 4)]
    for model in (parrot, tiny(seed=4)):
        for temperature in (0.0, 1.3):
            with_cache, without = (generate(model, prompts, steps=12, temperature=temperature, cache=cache, seed=3) for cache in (True, False))
            assert with_cache == without
            assert len({tuple(words) for words in with_cache}) > 1


def test_a_batch_writes_what_each_of_its_prompts_would_write_alone(parrot):
    prompts = [parrot.vocabulary.chat(text) for text in ("a ?", "b c ?", "h ?", "c")]
    assert generate(parrot, prompts) == [generate(parrot, [prompt])[0] for prompt in prompts]
    same = torch.tensor([prompts[0], prompts[2]])
    assert generate(parrot, same) == [generate(parrot, prompts)[0], generate(parrot, prompts)[2]]


def test_greedy_text_is_the_likeliest_word_each_time():
    model, prompt = tiny(seed=2), ids(1, 4)
    words = generate(model, prompt, steps=6)[0]
    rows = prompt
    for word in words:
        assert model(rows)[0, -1].argmax() == word
        rows = torch.cat([rows, torch.tensor([[word]])], 1)
    assert len(words) == 6 or model(rows)[0, -1].argmax() == END


def test_drawn_text_follows_the_models_odds_and_the_seed():
    model, prompt = tiny(seed=2), [[START]]
    assert generate(model, prompt, temperature=1.0, seed=7) == generate(model, prompt, temperature=1.0, seed=7)
    drawn = [words[0] if words else END for words in generate(model, prompt * 4000, steps=1, temperature=0.7)]
    odds = (model(torch.tensor(prompt))[0, -1] / 0.7).softmax(0)
    seen = torch.bincount(torch.tensor(drawn), minlength=len(odds)) / len(drawn)
    assert (seen - odds).abs().max() < 0.03
    assert generate(model, prompt * 5, steps=8, temperature=1e-4) == generate(model, prompt * 5, steps=8)


def test_writing_stops_at_the_end_at_the_steps_and_where_the_context_is_full(parrot):
    prompt = parrot.vocabulary.chat("a ?")
    assert generate(parrot, [prompt])[0] == parrot.vocabulary.encode("a a a .")  # <end> is left out
    assert generate(parrot, [prompt], steps=2)[0] == parrot.vocabulary.encode("a a")
    model = tiny(seed=4)
    with torch.no_grad():
        model.head.weight[END] = 0  # it never ends
        model.normalise.bias.fill_(1)
        model.head.weight[7] = 1
    assert len(generate(model, ids(2, 20), steps=40)[0]) == 4


def test_generation_leaves_the_model_and_the_global_generator_as_they_were(parrot):
    model, state = copy.deepcopy(parrot).train(), torch.random.get_rng_state()
    prompts = [model.vocabulary.chat("a ?")]
    kept = copy.deepcopy(prompts)
    generate(model, prompts, temperature=1.0)
    log_probabilities(model, prompts)
    assert model.training and all(p.requires_grad for p in model.parameters()) and prompts == kept
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_conversation_is_answered_at_its_end(parrot):
    spoken = answer(parrot, [["a ?"], "a ?", ("a ?", "a a a .", "b ?")], steps=3)
    assert spoken[0] == spoken[1] == "a a a" and len(spoken[2].split()) <= 3


# ---- how likely a text is

def test_log_probabilities_are_those_of_each_word_after_those_before_it():
    model, rows = tiny(seed=3), [[START, 6, 7, 8, END], [START, 9], [USER, 5, 6, ASSISTANT, 7, 8, END]]
    found = log_probabilities(model, rows, batch=2)
    assert [len(values) for values in found] == [4, 1, 6]
    for ids_of, values in zip(rows, found):
        by_hand = [model(torch.tensor([ids_of[:place]]))[0, -1].log_softmax(0)[ids_of[place]].item() for place in range(1, len(ids_of))]
        assert values.tolist() == pytest.approx(by_hand, abs=1e-5)
    assert perplexity(model, rows)[1].item() == pytest.approx(math.exp(-found[1].item()), rel=1e-5)


def test_a_model_without_an_opinion_has_the_perplexity_of_its_vocabulary():
    model = tiny()
    with torch.no_grad():
        model.head.weight.zero_()
    assert perplexity(model, [[START, 6, 7], [USER, 5]]).tolist() == pytest.approx([len(model.vocabulary)] * 2, rel=1e-5)


def test_perplexity_tells_what_was_learnt_from_noise(parrot):
    learnt, noise = parrot.vocabulary.chat("a ?", "a a a ."), parrot.vocabulary.chat("a ?", "c . b a")
    assert perplexity(parrot, [noise])[0] > 2 * perplexity(parrot, [learnt])[0] and perplexity(parrot, [learnt])[0] > 1


# ---- what is refused

MODEL = tiny()


@pytest.mark.parametrize("call, words", [
    (lambda: small_transformer(""), "words must hold at least one word"),
    (lambda: small_transformer("a", width=10, heads=4), "width must be a multiple of heads, 4, not 10"),
    (lambda: small_transformer("a", layers=0), "layers must be at least 1"),
    (lambda: generate(MODEL, [[]]), "prompts must hold lists of at least 1 word, but one has 0"),
    (lambda: generate(MODEL, []), "prompts must be a list of at least one list"),
    (lambda: generate(MODEL, [5, 6]), "prompts must hold lists of word numbers, not 5"),
    (lambda: generate(MODEL, ["a"]), "prompts must hold lists of word numbers, not 'a': model.vocabulary.encode"),
    (lambda: generate(MODEL, [[6] * 24]), "at most 23 words, the model's context less one to write in, but one has 24"),
    (lambda: generate(MODEL, [[6, 17]]), "numbers from 0 to 16, the vocabulary's, not 6 to 17"),
    (lambda: generate(MODEL, [[-1]]), "numbers from 0 to 16"),
    (lambda: generate(MODEL, [[6]], steps=0), "steps must be at least 1"),
    (lambda: generate(MODEL, [[6]], temperature=-1), "temperature must be at least 0"),
    (lambda: generate(torch.nn.Linear(2, 2), [[6]]), "model must be a Transformer"),
    (lambda: answer(MODEL, "a ?"), r"write \[request\]"),
    (lambda: answer(MODEL, [["a ?", "yes ."]]), "requests must end with the user's turn"),
    (lambda: answer(MODEL, ["a zebra ?"]), "not among the 17 of this vocabulary: zebra"),
    (lambda: answer(MODEL, ["a " * 30]), "prompts must hold lists of at most 23 words"),
    (lambda: train_language(MODEL, []), "sequences must be a list of at least one"),
    (lambda: train_language(MODEL, [[6]]), "at least 2 words, but one has 1"),
    (lambda: train_language(MODEL, [[6] * 25]), "at most 24 words, the model's context, but one has 25"),
    (lambda: train_language(MODEL, [[6, 99]]), "numbers from 0 to 16"),
    (lambda: train_language(MODEL, [[6, 7]], requests=0), "sequences must hold at least one answer"),
    (lambda: train_language(MODEL, [[6, 7]], requests=2), "requests must be at most 1"),
    (lambda: train_language(MODEL, [[6, 7]], epochs=0), "epochs must be at least 1"),
    (lambda: train_language(MODEL, [[6, 7]], lr=0), "lr must be greater than 0"),
    (lambda: log_probabilities(MODEL, [[6]]), "at least 2 words"),
    (lambda: perplexity(MODEL, [[6, 7]], batch=0), "batch must be at least 1"),
])
def test_bad_input_is_refused_with_the_argument_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
