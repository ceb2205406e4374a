"""The checks that every function asks of its arguments: they accept what is right and say in one sentence what is wrong."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlsec_lab.victims.inputs import check_choice, check_images, check_labels, check_number

MODEST = settings(deadline=None, max_examples=60, derandomize=True)
ANY_NUMBER = st.one_of(st.integers(-10, 10), st.floats(-10, 10), st.sampled_from([math.nan, math.inf, -math.inf]))
BOUND = st.one_of(st.none(), st.integers(-5, 5))


def says(check, *arguments, **named):
    with pytest.raises(ValueError) as error:
        check(*arguments, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


@MODEST
@given(shape=st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)), seed=st.integers(0, 1000),
       low=st.floats(-0.5, 1.5), high=st.floats(-0.5, 1.5))
def test_images_are_accepted_exactly_when_they_lie_in_0_to_1(shape, seed, low, high):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * (high - low) + low
    before = x.clone()
    if x.numel() and (x.min() < 0 or x.max() > 1):
        message = says(check_images, x)
        assert message.startswith("x must lie in [0, 1]") and f"{x.max():.3g}" in message
    else:
        assert check_images(x) is None
    assert torch.equal(x, before)


@pytest.mark.parametrize("value, expected, got", [
    ([[0.5]], "torch tensor", "list"), (np.zeros((1, 1, 2, 2), np.float32), "torch tensor", "ndarray"), (None, "torch tensor", "NoneType"),
    (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), "float32", "torch.uint8"), (torch.zeros(1, 1, 2, 2).double(), "float32", "torch.float64"),
    (torch.zeros(1, 1, 2, 2).half(), "float32", "torch.float16"), (torch.zeros(1, 2, 2), "[N, C, H, W]", "[1, 2, 2]"),
    (torch.zeros(2), "[N, C, H, W]", "[2]"), (torch.full((1, 1, 2, 2), torch.nan), "[0, 1]", "nan"),
    (torch.full((1, 1, 2, 2), torch.inf), "[0, 1]", "inf"), (torch.full((1, 1, 2, 2), 255.0), "[0, 1]", "255")])
def test_what_is_no_batch_of_images_is_refused_under_the_name_it_was_given(value, expected, got):
    message = says(check_images, value, "x_adv")
    assert message.startswith("x_adv must") and expected in message and got in message


def test_one_pixel_that_is_no_number_among_thousands_is_enough_to_refuse():
    x = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert check_images(x) is None
    x[31, 2, 5, 5] = torch.nan
    assert says(check_images, x).startswith("x must lie in [0, 1]")


@MODEST
@given(labels=st.lists(st.integers(-2, 12), max_size=5), n=st.integers(0, 5), classes=st.one_of(st.none(), st.integers(1, 12)))
def test_labels_are_accepted_exactly_when_there_is_one_class_an_image(labels, n, classes):
    y = torch.tensor(labels, dtype=torch.int64)
    right = len(labels) == n and all(0 <= label < (classes or math.inf) for label in labels)
    if right:
        assert check_labels(y, n, classes) is None
    else:
        message = says(check_labels, y, n, classes)
        assert message.startswith("y must have the shape" if len(labels) != n else "y must hold classes from 0 to")


@pytest.mark.parametrize("value, expected, got", [
    ([0, 1], "int64", "list"), (np.array([0, 1]), "int64", "ndarray"), (torch.tensor([0.0, 1.0]), "int64", "float32"),
    (torch.tensor([0, 1], dtype=torch.int32), "int64", "int32"), (torch.tensor([True, False]), "int64", "bool"),
    (torch.tensor([[0], [1]]), "[2]", "[2, 1]"), (torch.tensor(0), "[2]", "[]"), (torch.tensor([0, 10]), "0 to 9", "10"),
    (torch.tensor([-1, 3]), "0 to 9", "-1")])
def test_what_is_no_label_is_refused_under_the_name_it_was_given(value, expected, got):
    message = says(check_labels, value, 2, 10, name="wanted")
    assert message.startswith("wanted must") and expected in message and got in message


@settings(MODEST, max_examples=300)
@given(value=ANY_NUMBER, least=BOUND, most=BOUND, above=BOUND, whole=st.booleans())
def test_a_number_is_accepted_exactly_when_it_is_finite_and_within_its_bounds(value, least, most, above, whole):
    right = (math.isfinite(value) and (not whole or isinstance(value, int)) and (least is None or value >= least)
             and (most is None or value <= most) and (above is None or value > above))
    if right:
        assert check_number(value, "eps", least=least, most=most, above=above, whole=whole) is None
    else:
        message = says(check_number, value, "eps", least=least, most=most, above=above, whole=whole)
        assert message.startswith("eps must be") and repr(value) in message


@pytest.mark.parametrize("value", [True, False, None, "3", [3], torch.tensor(3), 3 + 0j, np.bool_(True)])
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_no_number_is_refused_even_where_python_would_count_it_as_one(value, whole):
    message = says(check_number, value, "steps", whole=whole)
    assert message.startswith("steps must be a whole number" if whole else "steps must be a number") and repr(value) in message


def test_numbers_from_numpy_are_numbers():
    assert check_number(np.int64(3), "steps", least=1, whole=True) is None
    assert check_number(np.float32(0.5), "eps", least=0) is None
    assert "at least 1" in says(check_number, np.int64(0), "steps", least=1, whole=True)
    assert "whole number" in says(check_number, np.float64(3), "steps", whole=True)


def test_a_choice_is_one_of_those_named_and_nothing_that_only_looks_like_it():
    assert check_choice("l2", "norm", ("linf", "l2")) is None
    for value in ("L2", "l", "", None, 2, ["l2"]):
        message = says(check_choice, value, "norm", ("linf", "l2"))
        assert message.startswith("norm must be one of 'linf', 'l2'") and repr(value) in message
