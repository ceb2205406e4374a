"""Lesson 00: two rulers and the number that every attack is judged by."""
import torch

from mlsec_lab.exercises import Exercise, require, require_number, require_tensor


def linf_distance(x, x_adv):
    """The largest change of any pixel, picture by picture.

    x, x_adv: float32 [N, C, H, W] in [0, 1].  Returns float32 [N].
    """
    ### BEGIN SOLUTION
    return (x_adv - x).abs().flatten(start_dim=1).amax(dim=1)
    ### END SOLUTION


LINF_DISTANCE = Exercise("start_here.linf_distance", reference=linf_distance, difficulty=1, minutes=3, hints=[
    "A change can be positive or negative; what counts is its size: `.abs()`.",
    "You need one number a picture, so fold channels, rows and columns into one: `.flatten(start_dim=1)` gives [N, C*H*W].",
    "The largest entry of each row is `.amax(dim=1)`.",
])


def l2_distance(x, x_adv):
    """The Euclidean length of the change, picture by picture.

    x, x_adv: float32 [N, C, H, W] in [0, 1].  Returns float32 [N].
    """
    ### BEGIN SOLUTION
    return (x_adv - x).square().flatten(start_dim=1).sum(dim=1).sqrt()
    ### END SOLUTION


L2_DISTANCE = Exercise("start_here.l2_distance", reference=l2_distance, difficulty=1, minutes=3, hints=[
    "Square, sum, root: in this order, and the sum goes over one picture only.",
    "`.flatten(start_dim=1)` again gives one row a picture; `.sum(dim=1)` adds up each row.",
])


def attack_success_rate(y, before, after):
    """Of the pictures that were read right before, the share that is read wrong after.

    y: int64 [N], the true classes.
    before, after: int64 [N], what the model answers before and after the attack; at
    least one answer was right before.
    Returns a float in [0, 1].
    """
    ### BEGIN SOLUTION
    right = before == y
    return (after[right] != y[right]).float().mean().item()
    ### END SOLUTION


ATTACK_SUCCESS_RATE = Exercise("start_here.attack_success_rate", reference=attack_success_rate, difficulty=2, minutes=5, hints=[
    "A picture that was wrong before is none of the attacker's work: it belongs neither above nor below the fraction line.",
    "`before == y` is a mask of booleans; `after[mask]` keeps the rows where it is True.",
    "The mean of a mask, `.float().mean()`, is a share; `.item()` makes it a float.",
])


def _pictures(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, 8, 8, generator=generator)
    return x, (x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def _one_number_a_picture(answer, seed):
    x, x_adv = _pictures(seed)
    for one, other in ((x, x_adv), (x_adv, x)):
        require_tensor(answer(one, other), (len(x),), what="the distances")


def _same_picture_is_zero(answer, seed):
    x, _ = _pictures(seed)
    got = answer(x, x.clone())
    require(got.abs().max() < 1e-3, expected="0 for a picture and its copy", got=f"{got[got.abs().argmax()]:.4f}",
            next_step="look at what is left of your formula when x_adv equals x")


def _either_way_round(answer, seed):
    x, x_adv = _pictures(seed)
    there, back = answer(x, x_adv), answer(x_adv, x)
    require(torch.allclose(there, back, atol=1e-5), expected="the same distance in both directions", got=f"{there[0]:.4f} and {back[0]:.4f}",
            next_step="a pixel that got darker has changed as well: drop the sign before you compare or add")


def _known(pixels, distance):
    """A property: a picture changed by `pixels` (values put at random places) is `distance` away."""
    def holds(answer, seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.full((2, 3, 8, 8), 0.5)
        x_adv = x.clone()
        places = torch.randperm(3 * 8 * 8, generator=generator)[:len(pixels)]
        x_adv[1].view(-1)[places] += torch.tensor(pixels)
        got = answer(x, x_adv)
        require(abs(got[1].item() - distance) < 1e-3 and got[0].abs() < 1e-3, expected=f"distances [0, {distance:g}]",
                got=f"[{got[0]:.4f}, {got[1]:.4f}]",
                next_step=f"work it out by hand: the second picture changed in {len(pixels)} pixels, by {', '.join(f'{p:+g}' for p in pixels)}")
    return holds


for _exercise, _distance in ((LINF_DISTANCE, 0.4), (L2_DISTANCE, 0.5)):
    _exercise.property("gives one number for each picture")(_one_number_a_picture)
    _exercise.property("a picture is at distance 0 from itself")(_same_picture_is_zero)
    _exercise.property("is the same in both directions")(_either_way_round)
    _exercise.property("is right for a change you can work out by hand")(_known([0.3, -0.4], _distance))


def _decisions(seed, n=200):
    """Labels, answers that are right in about 70 of 100 cases, and answers after an attack that works in about half."""
    generator = torch.Generator().manual_seed(seed)
    y, other = torch.randint(0, 12, (2, n), generator=generator)
    before = torch.where(torch.rand(n, generator=generator) < 0.7, y, other)
    return y, before, torch.where(torch.rand(n, generator=generator) < 0.5, before, (before + 1) % 12)


@ATTACK_SUCCESS_RATE.property("is a number from 0 to 1")
def _is_a_share(answer, seed):
    got = answer(*_decisions(seed))
    require_number(got, what="the rate")
    require(0 <= got <= 1, expected="a share from 0 to 1", got=f"{float(got):.3f}", next_step="divide by how many were right before, do not multiply by 100")


@ATTACK_SUCCESS_RATE.property("is 0 when the attack changed no answer, even where the model was wrong anyway")
def _nothing_changed(answer, seed):
    y, before, _ = _decisions(seed)
    got = float(answer(y, before, before))
    require(got != 1, expected="0", got="1.000", next_step="you count what is still read right; success is what is now read wrong")
    require(got == 0, expected="0", got=f"{got:.3f}", next_step="count only pictures that were right before: `before == y`")


@ATTACK_SUCCESS_RATE.property("is 1 when every picture that was right is now wrong")
def _all_changed(answer, seed):
    y, before, _ = _decisions(seed)
    got = float(answer(y, before, (y + 1) % 12))
    require(abs(got - 1) < 1e-6, expected="1", got=f"{got:.3f}",
            next_step="above the fraction line: right before and wrong now; below it: the number that were right before, not all pictures")


@ATTACK_SUCCESS_RATE.property("does not credit the attacker with a wrong answer that became another wrong one")
def _wrong_to_wrong(answer, seed):
    y = torch.tensor([0, 1, 2, 3])
    got = float(answer(y, torch.tensor([0, 1, 5, 5]), torch.tensor([7, 1, 6, 3])))
    require(abs(got - 0.5) < 1e-6, expected="0.5: two pictures were right before, one of them is wrong now", got=f"{got:.3f}",
            next_step="go through the four pictures by hand: y = 0 1 2 3, before = 0 1 5 5, after = 7 1 6 3")
