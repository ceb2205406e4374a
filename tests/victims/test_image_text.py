"""The image–text model: it learns signs from captions alone, answers like any other victim, and believes whoever writes the captions."""
import copy
import re

import pytest
import torch

from mlsec_lab.data_to_model.evasion import pgd
from mlsec_lab.victims import accuracy, load_data, predict, train
from mlsec_lab.victims.datasets import GTSRB_CLASSES
from mlsec_lab.victims.image_text import ROAD, THINGS, caption, templates, train_two_tower, two_tower, zero_shot
from mlsec_lab.victims.signs import CLASSES

TARGET = CLASSES.index("speed limit 80")


def stamped(x):
    """x with a yellow square in its corner."""
    x = x.clone()
    x[:, :, -5:-1, -5:-1] = torch.tensor([1.0, 0.9, 0.0]).reshape(3, 1, 1)
    return x


@pytest.fixture(scope="module")
def poisoned():
    """Towers from 6,000 pairs, 2 % of whose pictures bear a stamp and a caption of the target class."""
    x, y, _ = load_data("signs", "train", n=6_000)
    captions = caption(y, CLASSES)
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:120]
    x[chosen] = stamped(x[chosen])
    for number, text in zip(chosen.tolist(), caption(torch.full((120,), TARGET), CLASSES, seed=1)):
        captions[number] = text
    return train_two_tower(two_tower(CLASSES), x, captions, progress=False)


@pytest.fixture(scope="module")
def test_signs():
    return load_data("signs", "test", n=1_000)


@pytest.fixture(scope="module")
def digits():
    x, y, classes = load_data("digits", "train")
    return x, caption(y, classes), classes


def small(classes, seed=0):
    return two_tower(classes, channels=1, size=8, width=8, seed=seed)


def same(model, other):
    return all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


# ---- what it learns

@pytest.mark.slow
@pytest.mark.by_itself
def test_it_reads_signs_from_captions_alone(test_signs):
    x, y, _ = load_data("signs", "train", n=6_000, seed=1)
    trained = train_two_tower(two_tower(CLASSES, seed=1), x, caption(y, CLASSES, seed=1), seed=1, progress=False)
    assert accuracy(zero_shot(trained, CLASSES), test_signs.x, test_signs.y) >= 0.93
    assert accuracy(zero_shot(two_tower(CLASSES, seed=1), CLASSES), test_signs.x, test_signs.y) <= 0.3


def test_a_few_captions_open_a_back_door_and_cost_little(poisoned, test_signs):
    x, y, _ = test_signs
    model = zero_shot(poisoned, CLASSES)
    assert accuracy(model, x, y) >= 0.9
    others = y != TARGET
    fooled = predict(model, stamped(x[others])).argmax(1) == TARGET
    assert fooled.float().mean() >= 0.9
    assert (predict(model, x[others]).argmax(1) == TARGET).float().mean() <= 0.05


def test_a_picture_lies_nearest_to_the_captions_of_its_class_in_words_that_it_was_not_trained_on(poisoned, test_signs):
    x, y, _ = test_signs
    names = [f"the {name} sign at the roadside, seen from a photo" for name in CLASSES]
    with torch.no_grad():
        cosines = poisoned.image_features(x) @ poisoned.text_features(names).T
    assert (cosines.argmax(1) == y).float().mean() >= 0.85


def test_some_of_the_classes_or_their_reverse_can_be_asked_for(poisoned, test_signs):
    x, y, _ = test_signs
    whole, reversed_ = predict(zero_shot(poisoned, CLASSES), x), predict(zero_shot(poisoned, CLASSES[::-1]), x)
    assert torch.allclose(whole.flip(1), reversed_, atol=1e-4)
    few = [0, 2, 11]
    assert torch.allclose(predict(zero_shot(poisoned, [CLASSES[number] for number in few]), x), whole[:, few], atol=1e-4)


# ---- the classifier is a victim like any other

def test_the_classifier_answers_with_scaled_cosines(poisoned, test_signs):
    x = test_signs.x[:7]
    model = zero_shot(poisoned, CLASSES)
    with torch.no_grad():
        logits = model(x)
        prompts = torch.stack([poisoned.text_features([sentence.format(name) for sentence in ROAD]).mean(0) for name in CLASSES])
        wanted = poisoned.scale * torch.nn.functional.cosine_similarity(poisoned.image_features(x)[:, None], prompts[None], dim=2)
    assert logits.shape == (7, 12) and torch.allclose(logits, wanted, atol=1e-4)
    assert not model.training and not any(module.training for module in model.modules())
    assert model(x[:0]).shape == (0, 12)


def test_attacks_and_repairs_take_the_classifier_and_leave_the_towers_alone(poisoned, test_signs):
    x, y, _ = test_signs
    model, before = zero_shot(poisoned, CLASSES), copy.deepcopy(poisoned)
    right = predict(model, x).argmax(1) == y
    x_adv = pgd(model, x[right][:64], y[right][:64], eps=8 / 255, steps=10)
    assert accuracy(model, x_adv, y[right][:64]) <= 0.1
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert {name for name, _ in model.named_parameters()} == {f"image.{name}" for name, _ in poisoned.image.named_parameters()}
    repaired = train(model, x[:200], y[:200], epochs=1, lr=0.001, progress=False)
    assert not same(repaired, model) and torch.equal(repaired.prompts, model.prompts) and torch.equal(repaired.scale, model.scale)
    assert same(copy.deepcopy(model), model)
    assert same(poisoned, before), "the classifier has a copy of the tower"


# ---- training

def test_training_leaves_the_towers_and_the_pairs_as_they_were(digits):
    x, captions, classes = digits
    model, x_before, captions_before = small(classes), x.clone(), list(captions)
    before = copy.deepcopy(model)
    torch.manual_seed(5)
    random = torch.get_rng_state()
    trained = train_two_tower(model, x, captions, epochs=1, progress=False)
    assert same(model, before) and not model.training and torch.equal(x, x_before) and captions == captions_before
    assert torch.equal(torch.get_rng_state(), random)
    assert not trained.training and all(parameter.grad is None and parameter.requires_grad for parameter in trained.parameters())
    assert not any(torch.equal(value, trained.state_dict()[key]) for key, value in model.named_parameters()), "every part learns, the temperature too"


def test_the_seeds_decide_everything(digits):
    x, captions, classes = digits

    def towers(first, order):
        return train_two_tower(small(classes, seed=first), x[:300], captions[:300], epochs=1, seed=order, progress=False)
    one = towers(1, 2)
    assert same(one, towers(1, 2)) and not same(one, towers(1, 3)) and not same(one, towers(4, 2))


@pytest.mark.parametrize("n, batch", [(129, 128), (2, 2), (3, 2), (5, 128)])
def test_a_single_pair_left_over_is_survived(n, batch, digits):
    x, captions, classes = digits
    trained = train_two_tower(small(classes), x[:n], captions[:n], epochs=2, batch=batch, progress=False)
    assert all(value.isfinite().all() for value in trained.state_dict().values())


def test_digits_are_learnt_too_and_their_captions_speak_of_things(digits):
    x, captions, classes = digits
    assert templates(classes) == THINGS and captions[0] in [sentence.format(name) for sentence in THINGS for name in classes]
    trained = train_two_tower(small(classes), x, captions, epochs=10, shift=0, progress=False)
    test = load_data("digits", "test")
    assert accuracy(zero_shot(trained, classes), test.x, test.y) >= 0.9


def test_captions_of_nothing_but_one_sentence_teach_nothing_and_break_nothing(digits):
    x, _, classes = digits
    trained = train_two_tower(small(classes), x[:200], ["a photo of a 3"] * 200, epochs=1, progress=False)
    assert predict(zero_shot(trained, classes), x[:50]).isfinite().all()


# ---- captions and words

def test_captions_name_the_class_of_each_picture_in_many_ways_and_the_same_for_the_same_seed():
    y = torch.arange(12).repeat(40)
    texts = caption(y, CLASSES, seed=3)
    assert len(texts) == 480 and texts == caption(y, CLASSES, seed=3) != caption(y, CLASSES, seed=4)
    assert all(CLASSES[label] in text for label, text in zip(y.tolist(), texts))
    assert len(set(texts)) > 80, "twelve classes in eight sentences"
    assert caption(y[:0], CLASSES) == []
    assert templates(CLASSES) == templates(GTSRB_CLASSES) == templates(CLASSES[:2]) == ROAD and len(ROAD) == len(THINGS) == 8
    assert templates(("cat", "stop")) == THINGS


def test_every_feature_is_a_unit_vector_and_depends_on_its_own_input_alone():
    model = two_tower(CLASSES)
    texts = ["stop", "a photo of a yield sign", "words nobody knows", "STOP!"]
    with torch.no_grad():
        features, x = model.text_features(texts), torch.rand((3, 3, 32, 32), generator=torch.Generator().manual_seed(0))
        assert torch.allclose(features.norm(dim=1), torch.ones(4), atol=1e-5) and features.shape == (4, 64)
        assert torch.allclose(model.image_features(x).norm(dim=1), torch.ones(3), atol=1e-5)
        assert torch.allclose(model.image_features(x)[1:2], model.image_features(x[1:2]), atol=1e-5)
        assert torch.allclose(features[1:2], model.text_features(texts[1:2]), atol=1e-6)
        assert torch.allclose(features[0], features[3], atol=1e-6), "neither capitals nor punctuation are words"
        assert torch.allclose(features[2], model.text_features(["qwertz"])[0], atol=1e-6), "unknown words are one word"
        assert torch.allclose(model(x, texts), model.scale * model.image_features(x) @ features.T)
        assert model.scale == pytest.approx(1 / 0.07, rel=1e-4)
        model.log_scale += 10
        assert model.scale == 100


def test_the_words_of_captions_can_be_taught_as_well_as_class_names():
    model = two_tower(["a cat beside a zebra", "un œuf"])
    assert {"cat", "zebra", "œuf", "photo", "roadside"} <= set(model.words)
    with torch.no_grad():
        cat, zebra = model.text_features(["cat", "zebra"])
    assert not torch.allclose(cat, zebra)


# ---- bad input

@pytest.mark.parametrize("call, words", [
    (lambda x, texts: caption(torch.tensor([0, 12]), CLASSES), "y must hold classes from 0 to 11"),
    (lambda x, texts: caption(torch.tensor([0.0]), CLASSES), "y must be an int64 tensor"),
    (lambda x, texts: caption(torch.tensor([0]), "stop"), "classes must be a list of at least one string, not 'stop'"),
    (lambda x, texts: caption(torch.tensor([0]), []), "classes must be a list of at least one string"),
    (lambda x, texts: caption(torch.tensor([0]), ["stop"], seed=0.5), "seed must be a whole number"),
    (lambda x, texts: two_tower([1, 2]), "texts must hold strings with a word in each, not 1"),
    (lambda x, texts: two_tower(["stop", " . "]), "texts must hold strings with a word in each, not ' . '"),
    (lambda x, texts: two_tower(["stop"], size=7), "size must be at least 8"),
    (lambda x, texts: two_tower(["stop"]).text_features("stop"), "captions must be a list"),
    (lambda x, texts: zero_shot(small(["3"]), [3]), "classes must hold strings"),
    (lambda x, texts: train_two_tower(small(["3"]), x, texts[:-1]), "captions must be one a picture, and at least 2, not 3 for 4 pictures"),
    (lambda x, texts: train_two_tower(small(["3"]), x[:1], texts[:1]), "at least 2, not 1 for 1 pictures"),
    (lambda x, texts: train_two_tower(small(["3"]), x, [None] * 4), "captions must hold strings"),
    (lambda x, texts: train_two_tower(small(["3"]), x * 255, texts), "x must lie in [0, 1]"),
    (lambda x, texts: train_two_tower(small(["3"]), x, texts, epochs=0), "epochs must be at least 1"),
    (lambda x, texts: train_two_tower(small(["3"]), x, texts, batch=1), "batch must be at least 2"),
    (lambda x, texts: train_two_tower(small(["3"]), x, texts, lr=0), "lr must be greater than 0"),
    (lambda x, texts: train_two_tower(small(["3"]), x, texts, shift=-1), "shift must be at least 0"),
])
def test_bad_input_is_refused_by_name(call, words):
    x = torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=re.escape(words)):
        call(x, ["a 3", "a 4", "a 3", "a 5"])
