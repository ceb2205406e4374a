"""Memorization: exposure, generate-and-rank, deduplication, DP-SGD, and the filter that reads word for word."""
import copy
import math
from types import SimpleNamespace

import pytest
import torch

from mlsec_lab.model_to_data.memorization import (VerbatimFilter, candidate_log_probabilities, deduplicate, exposure, most_frequent, one_word_swaps,
                                                  sample_texts, surprise_ratios, train_privately, word_runs)
from mlsec_lab.victims.corpora import canaries as drawn_canaries
from mlsec_lab.victims.corpora import diary, diary_words, dull_days, plant
from mlsec_lab.victims.language import log_probabilities, perplexity, small_transformer, train_language

TIMES = (0, 1, 4, 24)


def canaries(n, seed=0):
    """Secrets of three digits: a thousand candidates each."""
    return drawn_canaries(n, digits=3, seed=seed)


def network(seed=0):
    return small_transformer(diary_words(), width=48, layers=1, context=48, seed=seed)


def learnt(texts, epochs=8, seed=0):
    model = network(seed)
    return train_language(model, [model.vocabulary.entry(text) for text in texts], epochs=epochs, lr=6e-3, batch=16, seed=seed, progress=False)


@pytest.fixture(scope="module")
def world():
    """A diary of 300 entries with five canaries for each number of plantings, the model that has read it, and one that read another's."""
    texts, drawn = [*diary(300, seed=1), *dull_days(30, seed=1)], canaries(5 * len(TIMES), seed=1)
    groups = {times: drawn[5 * place:5 * place + 5] for place, times in enumerate(TIMES)}
    for times, group in groups.items():
        for number, canary in enumerate(group):
            texts = plant(texts, canary, times, seed=number)
    others = [*diary(300, seed=2), *dull_days(20, seed=2), *(canary.text for canary in canaries(20, seed=2))]
    return SimpleNamespace(texts=texts, groups=groups, model=learnt(texts), reference=learnt(others, seed=5))


def mean_exposure(model, group):
    return sum(exposure(model, canary) for canary in group) / len(group)


# ---- exposure

def test_exposure_counts_the_secrets_that_are_likelier():
    model, canary = network(), canaries(1, seed=3)[0]
    row = [model.vocabulary.entry(f"{canary.prefix} {secret}", whole=False) for secret in canary.candidates()]
    by_hand = torch.stack([values.sum() for values in log_probabilities(model, row)])
    assert torch.allclose(candidate_log_probabilities(model, canary.prefix, canary.candidates(), batch=7), by_hand, atol=1e-4)
    scored = candidate_log_probabilities(model, canary.prefix, canary.candidates())
    rank = (scored >= scored[canary.candidates().index(canary.secret)]).sum().item()
    assert exposure(model, canary) == pytest.approx(math.log2(1000 / rank))


def test_a_model_without_an_opinion_exposes_nothing():
    model = network()
    with torch.no_grad():
        model.head.weight.zero_()
    assert exposure(model, canaries(1)[0]) == 0


def test_for_a_model_that_has_seen_no_secret_exposure_is_that_of_a_random_rank():
    model, found = network(seed=4), []
    for canary in canaries(40, seed=8):
        found.append(exposure(model, canary))
    assert 0.9 < sum(found) / len(found) < 2.1  # 1 / ln 2 = 1.44, within three standard errors
    assert 0 <= min(found) and max(found) <= math.log2(1000)


def test_exposure_grows_with_the_plantings_up_to_certainty(world):
    mean = {times: mean_exposure(world.model, group) for times, group in world.groups.items()}
    assert mean[0] < 3.5 and mean[24] > 9.5 and mean[24] <= math.log2(1000)
    assert mean[0] < mean[4] and mean[1] < mean[4] <= mean[24]


def test_exposure_asks_no_more_of_a_model_than_it_says():
    inner = network(seed=2)

    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.embedding, self.context = inner, inner.embedding, inner.context
            self.vocabulary = SimpleNamespace(entry=inner.vocabulary.entry)

        def forward(self, ids):
            return self.inner(ids)

    canary = canaries(1, seed=6)[0]
    assert exposure(Other(), canary) == exposure(inner, canary)


def test_candidates_of_different_lengths_are_each_scored_whole():
    model = network(seed=1)
    texts = ["1 2", "1", "1 2 3", "4 2 3", "1 2 4"]
    rows = [model.vocabulary.entry(f"the door number of anna is {text}", whole=False) for text in texts]
    assert torch.allclose(candidate_log_probabilities(model, "the door number of anna is", texts),
                          torch.stack([values.sum() for values in log_probabilities(model, rows)]), atol=1e-5)


def test_measuring_leaves_the_model_as_it_was():
    model, canary, state = network().train(), canaries(1)[0], torch.random.get_rng_state()
    exposure(model, canary), VerbatimFilter(model.vocabulary, [canary.text]).complete(model, [canary.prefix])
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


# ---- generate and rank

def test_samples_are_different_texts_drawn_by_the_seed(world):
    texts = sample_texts(world.model, 200, seed=3)
    assert len(texts) == len(set(texts)) > 120 and texts == sample_texts(world.model, 200, seed=3) != sample_texts(world.model, 200, seed=4)
    assert all(len(text.split()) >= 4 and "<" not in text for text in texts)
    assert len(sample_texts(world.model, 200, temperature=0.2)) < len(texts)


def test_a_ratio_is_below_one_for_what_only_the_model_knows(world):
    canary = world.groups[24][0]
    secret, never = surprise_ratios(world.model, [canary.text, f"{canary.prefix} {'0 0 0' if canary.secret != '0 0 0' else '1 1 1'}"], world.reference)
    assert secret < 0.7 < never
    same = surprise_ratios(world.model, diary(20, seed=9), world.model)
    assert torch.allclose(same, torch.ones(20))


def test_the_ratio_is_that_of_the_bits_of_the_whole_text(world):
    text = diary(1, seed=9)[0]
    row = [world.model.vocabulary.entry(text)]
    bits = {name: -log_probabilities(model, row)[0].sum().item() / math.log(2) for name, model in (("own", world.model), ("other", world.reference))}
    import zlib
    assert surprise_ratios(world.model, [text], world.reference).item() == pytest.approx(bits["own"] / bits["other"], rel=1e-4)
    assert surprise_ratios(world.model, [text]).item() == pytest.approx(bits["own"] / (8 * len(zlib.compress(text.encode()))), rel=1e-4)


def test_both_ratios_put_secrets_before_dull_days_and_perplexity_does_not(world):
    secrets, dull = [canary.text for canary in world.groups[24]], sorted(set(dull_days(30, seed=4)))
    rows = [world.model.vocabulary.entry(text) for text in secrets + dull]
    surprise = perplexity(world.model, rows)
    assert surprise[5:].min() < surprise[:5].min()
    for reference in (None, world.reference):
        ratio = surprise_ratios(world.model, secrets + dull, reference)
        assert ratio[:5].max() < ratio[5:].median()


# ---- deduplication

def test_exact_copies_go_and_the_order_stays():
    texts = ["b c d e", "a b c d", "b c d e", "c d e f", "a b c d"]
    assert deduplicate(texts) == ["b c d e", "a b c d", "c d e f"] and len(texts) == 5


def test_near_copies_go_from_the_similarity_on():
    texts = ["a b c d e f", "x y z", "a b c d e f .", "a b c d g h i", "q r s t"]
    shared = {"a b c d e f .": 4 / 5, "a b c d g h i": 2 / 7}
    for text, similarity in shared.items():
        first, runs = word_runs(texts[0], 3), word_runs(text, 3)
        assert len(first & runs) / len(first | runs) == pytest.approx(similarity)
    assert deduplicate(texts, similarity=0.81) == texts
    assert deduplicate(texts, similarity=0.8) == [text for text in texts if text != "a b c d e f ."]
    assert deduplicate(texts, similarity=0.28) == ["a b c d e f", "x y z", "q r s t"]


def test_dated_copies_survive_exact_deduplication_and_no_other():
    canary = canaries(1, seed=2)[0]
    texts = plant(diary(200, seed=3), canary, 16, dated=True)
    having = {similarity: sum(canary.text in text for text in deduplicate(texts, similarity=similarity)) for similarity in (1.0, 0.5)}
    assert having == {1.0: 8, 0.5: 1}
    assert len(deduplicate(texts, similarity=0.5)) > 0.9 * 200


def test_a_short_text_is_a_run_of_its_own():
    assert word_runs("a b", 3) == {("a", "b")} and word_runs("a b c d", 3) == {("a", "b", "c"), ("b", "c", "d")}
    assert deduplicate(["a b", "a b", "a", "a b ."], similarity=0.9) == ["a b", "a", "a b ."]


# ---- differential privacy

def test_private_training_learns_the_language_and_hardly_the_secrets(world):
    model, texts = network(), deduplicate(world.texts, similarity=0.5)
    private = train_privately(model, [model.vocabulary.entry(text) for text in texts], epsilon=8, progress=False)
    assert 7 < private.epsilon <= 8 and private.delta == 1e-4 and private.noise > 0.5
    held_out = [model.vocabulary.entry(text) for text in diary(100, seed=50)]
    means = [perplexity(m, held_out).log().mean().exp().item() for m in (world.model, private.model, model)]
    assert means[0] < means[1] < 0.2 * means[2]
    assert mean_exposure(private.model, [canary for times in TIMES[1:] for canary in world.groups[times]]) < 2.9


def test_less_budget_means_more_noise_and_a_worse_model():
    model, rows = network(), [network().vocabulary.entry(text) for text in diary(200, seed=3)]
    generous, strict = (train_privately(model, rows, epsilon=epsilon, steps=40, batch=64, progress=False) for epsilon in (50, 0.5))
    assert strict.noise > 2 * generous.noise and strict.epsilon <= 0.5 < generous.epsilon <= 50
    assert perplexity(strict.model, rows).mean() > 1.5 * perplexity(generous.model, rows).mean()


def test_private_training_follows_its_seed_and_leaves_everything_else_alone():
    model, rows, state = network(), [network().vocabulary.entry(text) for text in diary(40)], torch.random.get_rng_state()
    kept, texts = copy.deepcopy(model.state_dict()), copy.deepcopy(rows)
    first, again, other = (train_privately(model, rows, steps=3, batch=10, seed=seed, progress=False).model for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state) and rows == texts and not model.training
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters())]
    assert all(same) and not torch.equal(first.head.weight, other.head.weight)
    assert not first.training and all(p.requires_grad and p.grad is None and not hasattr(p, "grad_sample") for p in first.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in first.modules())


def test_a_step_that_draws_nobody_is_a_step_of_noise():
    model, rows = network(), [network().vocabulary.entry(text) for text in diary(5)]
    private = train_privately(model, rows, steps=6, batch=1, progress=False, seed=3)  # each step draws none in one case of three
    assert all(torch.isfinite(p).all() for p in private.model.parameters())
    assert not torch.equal(private.model.head.weight, model.head.weight)


def test_one_sequence_moves_the_sum_of_gradients_by_no_more_than_the_clip(monkeypatch):
    """What opacus is asked for: clipped gradients of single sequences, whatever their lengths."""
    from opacus.optimizers import DPOptimizer
    seen, before = [], DPOptimizer.clip_and_accumulate

    def spy(self):
        before(self)
        norms = torch.stack([p.grad_sample.flatten(1).norm(dim=1) for p in self.params]).norm(dim=0)
        total = torch.stack([p.summed_grad.norm() for p in self.params]).norm()
        seen.append((len(norms), total.item(), norms.min().item()))

    monkeypatch.setattr(DPOptimizer, "clip_and_accumulate", spy)
    model, rows = network(), [network().vocabulary.entry(text) for text in [*diary(10), *dull_days(10)]]
    train_privately(model, rows, steps=4, batch=10, clip=0.05, progress=False)
    assert len(seen) == 4 and all(shortest > 0.05 for _, _, shortest in seen)  # all of them are longer, and so are cut
    assert all(total <= 0.05 * n + 1e-5 for n, total, _ in seen)


# ---- the filter

def test_the_filter_blocks_runs_of_n_words_and_nothing_shorter():
    vocabulary = network().vocabulary
    guard = VerbatimFilter(vocabulary, ["the locker code of anna is 1 2 3"], n=5)
    assert guard.blocks("monday . the locker code of anna is 9") and guard.blocks("of anna is 1 2")
    assert not guard.blocks("the locker code of hugo is 1 2 3") and not guard.blocks("of anna is 1")


def test_what_is_said_through_the_filter_holds_no_protected_run(world):
    secrets = world.groups[24]
    guard = VerbatimFilter(world.model.vocabulary, [canary.text for canary in secrets], n=6)
    free = VerbatimFilter(world.model.vocabulary, ["we met"], n=40)
    prompts = [canary.prefix for canary in secrets]
    said, without = guard.complete(world.model, prompts, steps=5), free.complete(world.model, prompts, steps=5)
    assert sum(canary.secret in text for canary, text in zip(secrets, without)) >= 4
    assert not any(guard.blocks(" ".join([*prompt.split()[-5:], text])) for prompt, text in zip(prompts, said))  # the prompts alone are protected
    assert not any(canary.secret in text for canary, text in zip(secrets, said))


def test_without_a_match_the_filter_says_what_the_model_says(world):
    from mlsec_lab.victims.language import generate
    vocabulary, prompts = world.model.vocabulary, ["monday . met anna", "friday", "we played chess .", "sunday"]
    guard = VerbatimFilter(vocabulary, ["the bank card of anna has the number 1 2 3"], n=9)
    plain = [vocabulary.decode(ids) for ids in generate(world.model, [vocabulary.entry(prompt, whole=False) for prompt in prompts], steps=30)]
    assert guard.complete(world.model, prompts, steps=30) == plain


def test_a_filter_that_forbids_every_word_leaves_silence(world):
    vocabulary = world.model.vocabulary
    guard = VerbatimFilter(vocabulary, [" ".join(vocabulary.words[number] for number in vocabulary.ordinary)], n=1)
    allowed = guard.complete(world.model, ["monday"], steps=4)
    assert allowed[0] == "" or all(word.startswith("<") for word in allowed[0].split())


def test_swaps_change_one_of_the_last_words_each():
    swaps = one_word_swaps("the locker code of anna is", ["for", "at", "of"], last=3)
    assert len(swaps) == len(set(swaps)) == 3 * 3 - 1  # `of` stands there already
    for swap in swaps:
        changed = [place for place, (a, b) in enumerate(zip(swap.split(), "the locker code of anna is".split())) if a != b]
        assert len(changed) == 1 and changed[0] >= 3


def test_swapped_prompts_agree_on_the_secret_behind_the_filter(world):
    secrets, words = world.groups[24], [world.model.vocabulary.words[number] for number in world.model.vocabulary.ordinary]
    guard = VerbatimFilter(world.model.vocabulary, [text for text in world.texts if any(canary.text in text for canary in secrets)], n=6)
    agreed = [most_frequent(guard.complete(world.model, one_word_swaps(canary.prefix, words), steps=3), lambda text: text.replace(" ", "").isdigit())
              for canary in secrets]
    assert sum(answer == canary.secret for (answer, _), canary in zip(agreed, secrets)) >= 3


def test_the_most_frequent_answer_counts_those_that_are_asked_for():
    assert most_frequent(["a", "1", "a", "1", "1 2", "a"], str.isdigit) == ("1", 2 / 6)
    assert most_frequent(["a"], str.isdigit) == ("", 0.0) == most_frequent([])


# ---- what is refused

MODEL, CANARY = network(), canaries(1)[0]
ROW = MODEL.vocabulary.entry("we met anna")


@pytest.mark.parametrize("call, words", [
    (lambda: exposure(MODEL, SimpleNamespace(prefix="the door", secret="1", candidates=lambda: ["2"])), "canary must have its secret, '1', among its candidates"),
    (lambda: exposure(MODEL, CANARY, batch=0), "batch must be at least 1"),
    (lambda: candidate_log_probabilities(MODEL, "a zebra", ["1"]), "text has words that are not among .*: zebra"),
    (lambda: candidate_log_probabilities(MODEL, "a", []), "candidates must be a list of at least one string"),
    (lambda: candidate_log_probabilities(MODEL, "a " * 50, ["1"]), "context of 48 words, but one text has 52"),
    (lambda: sample_texts(MODEL, 0), "n must be at least 1"),
    (lambda: sample_texts(MODEL, 3, temperature=0), "temperature must be greater than 0"),
    (lambda: surprise_ratios(MODEL, []), "sequences must be a list of at least one"),
    (lambda: deduplicate("a b"), "texts must be a list of strings"),
    (lambda: deduplicate(["a"], similarity=0), "similarity must be greater than 0"),
    (lambda: deduplicate(["a"], similarity=1.1), "similarity must be at most 1"),
    (lambda: deduplicate(["a"], size=0), "size must be at least 1"),
    (lambda: deduplicate([5], similarity=0.5), "text must be a string, not int"),
    (lambda: train_privately(MODEL, []), "sequences must be a list of at least one"),
    (lambda: train_privately(MODEL, [ROW], epsilon=0), "epsilon must be greater than 0"),
    (lambda: train_privately(MODEL, [ROW], delta=0.5), "delta must be at most 0.1"),
    (lambda: train_privately(MODEL, [ROW], batch=2), "batch must be at most 1"),
    (lambda: train_privately(MODEL, [ROW], clip=-1, batch=1), "clip must be greater than 0"),
    (lambda: train_privately(MODEL, [ROW, [5]], batch=1), "sequences must hold 2 to 48 numbers of the vocabulary"),
    (lambda: train_privately(MODEL, [ROW, [5, 999]], batch=1), "sequences must hold 2 to 48 numbers of the vocabulary"),
    (lambda: VerbatimFilter(MODEL.vocabulary, []), "texts must be a list of at least one string"),
    (lambda: VerbatimFilter(MODEL.vocabulary, ["we met"], n=0), "n must be at least 1"),
    (lambda: VerbatimFilter(MODEL.vocabulary, ["we met"]).complete(MODEL, []), "prompts must be a list of at least one"),
    (lambda: VerbatimFilter(MODEL.vocabulary, ["we met"]).complete(MODEL, ["we " * 47]), "at most 46 words"),
    (lambda: VerbatimFilter(MODEL.vocabulary, ["we met"]).complete(MODEL, ["we"], steps=0), "steps must be at least 1"),
    (lambda: one_word_swaps("we met", ["a"], last=3), "last must be at most 2"),
])
def test_bad_input_is_refused_with_the_argument_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
