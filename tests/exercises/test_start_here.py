"""Lesson 00's exercises, tried with what learners write."""
import math

import numpy as np
import torch

from mlsec_lab.exercises import start_here
from mlsec_lab.exercises.start_here import ATTACK_SUCCESS_RATE, L2_DISTANCE, LINF_DISTANCE


def one_loop_a_picture(x, x_adv):
    largest = [max(abs(a - b) for a, b in zip(one.flatten().tolist(), other.flatten().tolist())) for one, other in zip(x, x_adv)]
    return torch.tensor(largest)


def share_by_counting(y, before, after):
    right = [(true, now) for true, then, now in zip(y.tolist(), before.tolist(), after.tolist()) if then == true]
    return sum(now != true for true, now in right) / len(right)


RIGHT = [
    (LINF_DISTANCE, "a loop over pictures", one_loop_a_picture),
    (LINF_DISTANCE, "the larger of both signs", lambda x, x_adv: torch.maximum((x - x_adv).amax((1, 2, 3)), (x_adv - x).amax((1, 2, 3)))),
    (L2_DISTANCE, "torch's norm", lambda x, x_adv: (x - x_adv).flatten(1).norm(dim=1)),
    (L2_DISTANCE, "numpy in float64", lambda x, x_adv: torch.from_numpy(np.sqrt(((x_adv - x).numpy().astype(float) ** 2).sum((1, 2, 3))))),
    (L2_DISTANCE, "einsum", lambda x, x_adv: torch.einsum("nchw,nchw->n", x - x_adv, x - x_adv) ** 0.5),
    (ATTACK_SUCCESS_RATE, "a loop that counts", share_by_counting),
    (ATTACK_SUCCESS_RATE, "a quotient of tensors", lambda y, before, after: ((before == y) & (after != y)).sum() / (before == y).sum()),
]
# exercise, what is wrong, the answer, a word of the property that catches it, a word of "got" or of the next step
WRONG = [
    (LINF_DISTANCE, "no abs", lambda x, x_adv: (x_adv - x).flatten(1).amax(1), "both directions", "drop the sign"),
    (LINF_DISTANCE, "one number for the batch", lambda x, x_adv: (x_adv - x).abs().max(), "one number for each", "print the shapes"),
    (LINF_DISTANCE, "one number a channel", lambda x, x_adv: (x_adv - x).abs().amax(dim=(2, 3)), "one number for each", "print the shapes"),
    (LINF_DISTANCE, "the mean change", lambda x, x_adv: (x_adv - x).abs().flatten(1).mean(1), "by hand", "+0.3, -0.4"),
    (LINF_DISTANCE, "values and places", lambda x, x_adv: (x_adv - x).abs().flatten(1).max(1), "one number for each", "take its `.values`"),
    (L2_DISTANCE, "a mean, not a sum", lambda x, x_adv: (x_adv - x).square().flatten(1).mean(1).sqrt(), "by hand", "+0.3, -0.4"),
    (L2_DISTANCE, "no root", lambda x, x_adv: (x_adv - x).square().flatten(1).sum(1), "by hand", "+0.3, -0.4"),
    (L2_DISTANCE, "the wrong dim", lambda x, x_adv: (x_adv - x).square().flatten(1).sum(0).sqrt(), "one number for each", "print the shapes"),
    (L2_DISTANCE, "absolute changes added up", lambda x, x_adv: (x_adv - x).abs().flatten(1).sum(1), "by hand", "+0.3, -0.4"),
    (L2_DISTANCE, "the root of a difference", lambda x, x_adv: (x_adv - x).flatten(1).sum(1).sqrt(), "one number for each", "root of zero"),
    (ATTACK_SUCCESS_RATE, "every wrong answer counts", lambda y, before, after: (after != y).float().mean().item(), "even where the model was wrong", "before == y"),
    (ATTACK_SUCCESS_RATE, "divided by all", lambda y, before, after: ((before == y) & (after != y)).float().mean().item(), "is 1 when", "not all pictures"),
    (ATTACK_SUCCESS_RATE, "every change counts", lambda y, before, after: (after != before).float().mean().item(), "is 1 when", "right before and wrong now"),
    (ATTACK_SUCCESS_RATE, "percent", lambda y, before, after: 100 * start_here.attack_success_rate(y, before, after), "from 0 to 1", "do not multiply by 100"),
    (ATTACK_SUCCESS_RATE, "what is still right", lambda y, before, after: 1 - start_here.attack_success_rate(y, before, after), "changed no answer", "still read right"),
    (ATTACK_SUCCESS_RATE, "one entry a picture", lambda y, before, after: ((before == y) & (after != y)).float(), "from 0 to 1", "one number"),
]


def test_a_rate_of_nothing_is_said_to_be_no_number(verdicts):
    for verdict in verdicts(ATTACK_SUCCESS_RATE, lambda y, before, after: math.nan):
        assert verdict.outcome == "not yet" and verdict.got == "NaN"
        assert "division by zero" in verdict.next_step
    for verdict in verdicts(ATTACK_SUCCESS_RATE, lambda y, before, after: math.inf):
        assert verdict.outcome == "not yet" and verdict.got == "inf"
