"""Jailbreaks: gradients for words, the greedy coordinate search, and the random words that it has to beat."""
import copy

import pytest
import torch

from mlsec_lab.data_to_model.jailbreaks import gcg, random_suffixes, suffix_losses, token_gradients
from mlsec_lab.victims import answer, load_model, log_probabilities, small_transformer
from mlsec_lab.victims.corpora import chat_requests, judge, judged
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
])
def test_bad_input_is_refused_with_the_argument_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
