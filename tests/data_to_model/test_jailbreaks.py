"""Jailbreaks: gradients for words, the greedy coordinate search, and the random words that it has to beat."""
import copy

import pytest
import torch

from mlsec_lab.data_to_model.jailbreaks import (PerplexityFilter, adversarial_training, erase_and_check, fluent_gcg, gcg,
                                                random_suffixes, roomiest, suffix_losses, token_gradients, vote, word_surprises)
from mlsec_lab.victims import answer, load_model, log_probabilities, perplexity, small_transformer
from mlsec_lab.victims.corpora import REFUSAL, chat, chat_requests, is_refusal, judge, judged
from mlsec_lab.victims.language import SPECIAL


@pytest.fixture(scope="module")
def model():
    return load_model("chat_aligned")


def tiny(seed=0):
    return small_transformer("a b c d e f g h yes no ? .", width=16, layers=2, heads=2, context=24, seed=seed)


# ---- losses and gradients

def test_the_loss_of_a_suffix_is_that_of_the_target_in_the_whole_chat(model):
    request = chat_requests(1, forbidden=True, seed=1)[0]
    suffixes, opening = random_suffixes(model, 5, seed=2), model.vocabulary.encode(request.opening)
    found, words = suffix_losses(model, request.text, suffixes, request.opening), len(opening)
    for suffix, loss in zip(suffixes, found):
        whole = model.vocabulary.chat(f"{request.text} {suffix}") + opening
        assert loss.item() == pytest.approx(-log_probabilities(model, [whole])[0][-words:].mean().item(), abs=1e-4)
    assert found.std() > 0.01


def test_several_prompts_are_averaged():
    model, suffixes = tiny(), ["a b", "h g", "yes no"]
    one, other = suffix_losses(model, "a ?", suffixes, "yes"), suffix_losses(model, "b c ?", suffixes, "no .")
    assert torch.allclose(suffix_losses(model, ["a ?", "b c ?"], suffixes, ["yes", "no ."]), (one + other) / 2, atol=1e-6)
    gradients = [token_gradients(model, prompt, "a b", target) for prompt, target in (("a ?", "yes"), ("b c ?", "no ."))]
    assert torch.allclose(token_gradients(model, ["a ?", "b c ?"], "a b", ["yes", "no ."]), sum(gradients) / 2, atol=1e-6)


def test_a_token_gradient_is_the_slope_of_the_loss_towards_that_word():
    model = tiny(seed=3)
    suffix, target = "a b c", "yes ."
    gradient = token_gradients(model, "d ?", suffix, target)
    assert gradient.shape == (3, len(model.vocabulary))
    ids, table = model.vocabulary.encode(suffix), model.embedding.weight.detach()
    before, wanted = model.vocabulary.chat("d ?")[:-1], model.vocabulary.encode(target)
    rest = [model.vocabulary.chat("d ?")[-1], *wanted[:-1]]

    def loss(rows):
        embeddings = torch.cat([table[before], rows @ table, table[rest]])[None]
        return torch.nn.functional.cross_entropy(model(embeddings=embeddings)[0, -len(wanted):], torch.tensor(wanted)).item()

    rows = torch.nn.functional.one_hot(torch.tensor(ids), len(table)).float()
    for place, word in ((0, 7), (1, 12), (2, 5)):
        nudge = torch.zeros_like(rows)
        nudge[place, word] = 0.05
        assert (loss(rows + nudge) - loss(rows - nudge)) / 0.1 == pytest.approx(gradient[place, word].item(), abs=2e-3)


def test_the_words_that_gradients_promise_are_better_than_words_at_random(model):
    better = 0
    for seed, request in enumerate(chat_requests(6, forbidden=True, seed=3)):
        suffix, = random_suffixes(model, 1, seed=seed)
        gradient = token_gradients(model, request.text, suffix, request.opening)[:, len(SPECIAL):]
        words, generator = suffix.split(), torch.Generator().manual_seed(seed)
        chosen = {"promised": gradient[2].topk(32, largest=False).indices, "random": torch.randperm(gradient.shape[1], generator=generator)[:32]}
        losses = {}
        for name, ids in chosen.items():
            swapped = [" ".join([*words[:2], model.vocabulary.words[len(SPECIAL) + i], *words[3:]]) for i in ids.tolist()]
            losses[name] = suffix_losses(model, request.text, swapped, request.opening).mean()
        better += losses["promised"] < losses["random"]
    assert better >= 5


# ---- the search

def test_the_search_finds_what_makes_the_assistant_comply_where_random_words_do_not(model):
    requests = chat_requests(10, forbidden=True, seed=11)
    plain = judged(answer(model, [request.text for request in requests]), requests)
    complied = 0
    for seed, request in enumerate(requests):
        def enough(suffix):
            return judge(answer(model, [f"{request.text} {suffix}"])[0], request) == "complied"
        complied += enough(gcg(model, request.text, request.opening, stop=enough, seed=seed).suffix)
    many = [request for request in requests for _ in range(20)]
    cluttered = [f"{request.text} {suffix}" for request, suffix in zip(many, random_suffixes(model, len(many), seed=5))]
    by_chance = judged(answer(model, cluttered), many)
    assert plain["refused"] >= 0.9 and by_chance["complied"] <= 0.05
    assert complied >= 9


def test_what_comes_back_is_the_best_suffix_and_how_it_was_found(model):
    request = chat_requests(1, forbidden=True, seed=2)[0]
    found = gcg(model, request.text, request.opening, suffix_length=5, steps=8, restarts=2, batch=40, seed=1)
    assert len(model.vocabulary.encode(found.suffix)) == 5 and len(found.losses) == 8 and found.queries == 8 * 40
    assert all(later <= earlier for earlier, later in zip(found.losses, found.losses[1:])) and found.losses[-1] < found.losses[0]
    assert suffix_losses(model, request.text, [found.suffix], request.opening).item() == pytest.approx(found.losses[-1], abs=1e-4)
    assert min(model.vocabulary.encode(found.suffix)) >= len(SPECIAL)


def test_one_suffix_can_serve_several_prompts(model):
    texts, openings = zip(*((request.text, request.opening) for request in chat_requests(3, forbidden=True, seed=6)))
    found = gcg(model, texts, openings, steps=8, restarts=1, seed=0)
    chance = suffix_losses(model, texts, random_suffixes(model, 20), openings)
    assert found.losses[-1] < chance.min()
    assert suffix_losses(model, texts, [found.suffix], openings).item() == pytest.approx(found.losses[-1], abs=1e-4)


def test_a_search_ends_when_it_is_told_to():
    asked = []
    found = gcg(tiny(), "a ?", "yes", steps=20, batch=16, suffix_length=4, stop=lambda suffix: asked.append(suffix) or len(asked) == 3)
    assert len(found.losses) == 3 and found.suffix == asked[-1] and found.queries == 48
    assert all(len(suffix.split()) == 4 for suffix in asked)


def test_a_penalty_counts_in_the_search(model):
    request = chat_requests(1, forbidden=True, seed=4)[0]

    def roses(suffixes):
        return 100.0 * torch.tensor([6 - suffix.split().count("roses") for suffix in suffixes]).float()

    found = gcg(model, request.text, request.opening, suffix_length=6, steps=12, restarts=1, candidates=len(model.vocabulary.ordinary), batch=6 * 508,
                penalty=roses)
    assert found.suffix.split() == ["roses"] * 6
    assert suffix_losses(model, request.text, [found.suffix], request.opening).item() == pytest.approx(found.losses[-1], abs=1e-3)


# ---- the perplexity filter, and who knows it

@pytest.fixture(scope="module")
def reader():
    return load_model("chat_base")


def ordinary_texts(n, seed):
    return [request.text for request in chat_requests(n, forbidden=False, seed=seed)]


def test_the_filter_measures_the_logarithm_of_perplexity(reader):
    texts = ordinary_texts(8, 1)
    guard = PerplexityFilter(reader, texts, rate=0.25)
    right = perplexity(reader, [reader.vocabulary.chat(text)[:-1] for text in texts]).log()
    assert torch.allclose(guard.surprise(texts), right, atol=1e-4)
    assert torch.allclose(guard.surprise(texts), torch.stack([words.mean() for words in word_surprises(reader, texts)]))
    assert guard(texts).sum() <= 2 and [len(words) for words in word_surprises(reader, texts)] == [len(reader.vocabulary.encode(text)) for text in texts]


@pytest.mark.parametrize("window", [None, 5])
def test_the_filter_keeps_to_its_false_alarms_and_stops_words_at_random(reader, window):
    guard = PerplexityFilter(reader, ordinary_texts(300, 1), rate=0.05, window=window)
    cluttered = [f"{text} {suffix}" for text, suffix in zip(ordinary_texts(60, 2), random_suffixes(reader, 60, seed=3))]
    assert guard(ordinary_texts(200, 2)).float().mean() < 0.12
    assert guard(cluttered).all()
    assert PerplexityFilter(reader, ordinary_texts(60, 1), rate=0.5, window=window).threshold < PerplexityFilter(reader, ordinary_texts(60, 1), window=window).threshold


def test_a_window_counts_its_worst_words_wherever_they_stand(reader):
    text = ordinary_texts(1, 5)[0]
    texts = [text, f"{text} roses", f"{text} roses piano"]
    whole, window = PerplexityFilter(reader, [text]), PerplexityFilter(reader, [text], window=2)
    words = word_surprises(reader, texts)
    assert torch.allclose(window.surprise(texts), torch.stack([row.unfold(0, 2, 1).mean(1).max() for row in words]))
    assert (window.surprise(texts) >= whole.surprise(texts) - 1e-6).all()
    assert torch.allclose(PerplexityFilter(reader, [text], window=99).surprise(texts), whole.surprise(texts))


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("length", [1, 3])
def test_reading_a_prompt_once_changes_no_surprise(reader, window, length):
    prompt, guard = ordinary_texts(1, 6)[0], PerplexityFilter(reader, ordinary_texts(5, 1), window=window)
    suffixes = random_suffixes(reader, 12, suffix_length=length, seed=1)
    assert torch.allclose(guard.after(prompt)(suffixes), guard.surprise([f"{prompt} {suffix}" for suffix in suffixes]), atol=1e-4)


def test_the_wording_with_most_room_can_bear_most_surprise(reader):
    texts, guard = ordinary_texts(12, 7), PerplexityFilter(reader, ordinary_texts(200, 1))
    ordered = roomiest(guard, texts)
    room = [(guard.threshold * len(words) - words.sum()).item() for words in word_surprises(reader, ordered)]
    assert sorted(texts) == sorted(ordered) and room == sorted(room, reverse=True)


def test_who_knows_the_filter_passes_it_where_plain_gcg_does_not(model, reader):
    guard = PerplexityFilter(reader, ordinary_texts(300, 1))
    pool = chat_requests(400, forbidden=True, seed=8)
    passed = stopped = 0
    for seed, request in enumerate(chat_requests(4, forbidden=True, seed=9)):
        def enough(text):
            return judge(answer(model, [text])[0], request) == "complied"
        plain = gcg(model, request.text, request.opening, stop=lambda suffix: enough(f"{request.text} {suffix}"), steps=20, seed=seed)
        stopped += bool(guard([f"{request.text} {plain.suffix}"])[0])
        wordings = sorted({other.text for other in pool if other.about == request.about})
        text = fluent_gcg(model, wordings, request.opening, guard, steps=16, wordings=4, stop=enough, seed=seed)
        assert text is None or (not guard([text])[0] and any(text.startswith(wording) for wording in wordings))
        passed += text is not None and enough(text)
    assert stopped == 4 and passed >= 1


# ---- erase and check

def test_erasing_uncovers_what_a_suffix_hides_and_no_more_is_erased_than_asked(model):
    requests = chat_requests(4, forbidden=True, seed=12)
    texts = []
    for seed, request in enumerate(requests):
        def enough(suffix):
            return judge(answer(model, [f"{request.text} {suffix}"])[0], request) == "complied"
        texts.append(f"{request.text} {gcg(model, request.text, request.opening, stop=enough, seed=seed).suffix}")
    assert judged(answer(model, texts), requests)["complied"] >= 0.75
    assert erase_and_check(model, texts, most=8).all()
    plain = torch.tensor([is_refusal(said) for said in answer(model, texts)])
    assert torch.equal(erase_and_check(model, texts, most=0), plain)
    assert erase_and_check(model, ordinary_texts(20, 3), most=8).float().mean() <= 0.1
    counts = [erase_and_check(model, texts, most=most).sum() for most in (0, 2, 4, 8)]
    assert counts == sorted(counts)


def test_the_first_word_is_never_erased(model):
    assert erase_and_check(model, ["roses"], most=5).shape == (1,)
    assert is_refusal(REFUSAL) and is_refusal("sure : sorry") and not is_refusal("sure , onion soup in a pot")


# ---- the vote

class Parrot:
    """What `vote` needs of a model, and an answer that is decided by the words themselves."""

    def __init__(self, monkeypatch, said):
        self.vocabulary, self.asked = MODEL.vocabulary, []

        def answer(model, texts):
            self.asked += texts
            return [said(text) for text in texts]
        monkeypatch.setattr("mlsec_lab.data_to_model.jailbreaks.answer", answer)


def test_most_of_the_changed_copies_decide_and_the_answer_is_one_of_those_that_agree(monkeypatch):
    for refusing, wanted in ((4, "sure : 4"), (5, "sure : 5"), (6, "sorry")):
        count = iter(range(10))
        Parrot(monkeypatch, lambda text: "sorry" if (number := next(count)) < refusing else f"sure : {number}")
        assert vote(MODEL, ["a b c d"], copies=10) == [wanted]


def test_the_asked_share_of_words_changes_at_least_one_and_the_seed_decides_which(monkeypatch):
    text = "a b c d e f g h a b c d e f g h a b c d"
    for share, least in ((0.01, 1), (0.25, 4), (1.0, 15)):
        parrot = Parrot(monkeypatch, str)
        vote(MODEL, [text], copies=8, share=share, seed=1)
        changed = [sum(old != new for old, new in zip(text.split(), copy.split())) for copy in parrot.asked]
        assert len(changed) == 8 and max(changed) <= max(1, round(share * 20)) and sum(changed) / 8 >= 0.6 * least
        assert all(len(copy.split()) == 20 for copy in parrot.asked)
    first, again, other = ([*vote(MODEL, [text] * 2, seed=seed)] for seed in (1, 1, 2))
    assert first == again != other


# ---- adversarial training

def test_the_assistant_learns_to_refuse_what_it_was_talked_into(model):
    requests = chat_requests(6, "train", forbidden=True, seed=3)
    asked, kept = [], copy.deepcopy(model.state_dict())

    def attack(model, request, seed):
        asked.append(seed)
        return f"{request.text} {gcg(model, request.text, request.opening, steps=6, restarts=1, seed=seed).suffix}"

    before = [attack(model, request, number) for number, request in enumerate(requests)]
    asked.clear()
    hardened = adversarial_training(model, chat(60, refuse=True), requests, attack, rounds=1, epochs=4, progress=False)
    assert asked == list(range(6)) and not hardened.training
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    assert judged(answer(hardened, before), requests)["refused"] > max(0.7, judged(answer(model, before), requests)["refused"] + 0.3)


def test_the_seed_decides_and_nothing_else_is_touched():
    model = tiny().train()
    kept, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    first, again, other = (gcg(model, "a ?", "yes .", steps=4, batch=16, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert random_suffixes(model, 9, seed=1) == random_suffixes(model, 9, seed=1) != random_suffixes(model, 9, seed=2)
    assert torch.equal(torch.random.get_rng_state(), state) and model.training
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_random_suffixes_are_ordinary_words_of_the_length_asked():
    model = tiny()
    suffixes = random_suffixes(model, 200, suffix_length=6)
    assert all(len(model.vocabulary.encode(suffix)) == 6 for suffix in suffixes) and len(set(suffixes)) > 190
    assert {word for suffix in suffixes for word in suffix.split()} == set(model.vocabulary.words[len(SPECIAL):])


MODEL = tiny()


@pytest.mark.parametrize("call, words", [
    (lambda: gcg(MODEL, "a zebra", "yes"), "not among the 17 of this vocabulary: zebra"),
    (lambda: gcg(MODEL, "a", "yes", steps=0), "steps must be at least 1"),
    (lambda: gcg(MODEL, "a", "yes", steps=3, restarts=4), "restarts must be at most 3"),
    (lambda: gcg(MODEL, "a", "yes", suffix_length=0), "suffix_length must be at least 1"),
    (lambda: gcg(MODEL, "a", "yes", batch=0), "batch must be at least 1"),
    (lambda: gcg(MODEL, "a", "yes", candidates=0), "candidates must be at least 1"),
    (lambda: gcg(MODEL, ["a", "b"], ["yes"]), "target must be one a prompt, not 1 for 2"),
    (lambda: gcg(MODEL, [], []), "target must be one a prompt, not 0 for 0"),
    (lambda: gcg(MODEL, "", "yes"), "prompt and target must hold at least one word each"),
    (lambda: gcg(MODEL, "a", ""), "prompt and target must hold at least one word each"),
    (lambda: gcg(MODEL, "a " * 15, "yes"), "fit the model's context of 24 words together, but they have 26"),
    (lambda: token_gradients(MODEL, "a", "", "yes"), "suffix must hold at least one word"),
    (lambda: suffix_losses(MODEL, "a", ["a b", "a"], "yes"), "suffixes must be a list of at least one string, all of equally many words"),
    (lambda: suffix_losses(MODEL, "a", [], "yes"), "suffixes must be a list of at least one"),
    (lambda: random_suffixes(MODEL, 0), "n must be at least 1"),
    (lambda: PerplexityFilter(MODEL, []), "benign must be a list of at least one string"),
    (lambda: PerplexityFilter(MODEL, "a b"), "benign must be a list"),
    (lambda: PerplexityFilter(MODEL, ["a b"], rate=2), "rate must be at most 1"),
    (lambda: PerplexityFilter(MODEL, ["a b"], window=0), "window must be at least 1"),
    (lambda: PerplexityFilter(MODEL, ["a b"])([""]), "texts must be a list of at least one string, each of at least one word"),
    (lambda: fluent_gcg(MODEL, [], "yes", PerplexityFilter(MODEL, ["a b"])), "texts must be a list of at least one"),
    (lambda: fluent_gcg(MODEL, ["a"], "yes", PerplexityFilter(MODEL, ["a b"]), wordings=0), "wordings must be at least 1"),
    (lambda: fluent_gcg(MODEL, ["a"], "yes", PerplexityFilter(MODEL, ["a b"]), weight=-1), "weight must be at least 0"),
    (lambda: erase_and_check(MODEL, ["a"], most=-1), "most must be at least 0"),
    (lambda: erase_and_check(MODEL, "a"), "texts must be a list"),
    (lambda: vote(MODEL, ["a"], copies=0), "copies must be at least 1"),
    (lambda: vote(MODEL, ["a"], share=0), "share must be greater than 0"),
    (lambda: vote(MODEL, "a"), "texts must be a list"),
    (lambda: adversarial_training(MODEL, [], [], None), "requests must hold at least one"),
    (lambda: adversarial_training(MODEL, [], [1], None, rounds=0), "rounds must be at least 1"),
])
def test_bad_input_is_refused_with_the_argument_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
