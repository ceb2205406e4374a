"""Lesson 01: five attacks and defences, each a few lines, and the step that adversarial training repeats."""
import functools

import torch
import torch.nn.functional as F

from mlsec_lab.data_to_model.evasion import REJECTED, SecurePredictor, median_smooth
from mlsec_lab.exercises import Exercise, NotYet, require, require_images, require_number, require_tensor
from mlsec_lab.victims import accuracy, load_model, predict, signs, small_cnn

EPS = 8 / 255


def fgsm(model, x, y, eps):
    """Fast gradient sign method: move every pixel by eps so that the loss grows.

    x: float32 [N, C, H, W] in [0, 1].  y: int64 [N], the true classes.
    Returns x_adv, like x.
    """
    ### BEGIN SOLUTION
    x_adv = x.clone().requires_grad_()
    loss = F.cross_entropy(model(x_adv), y)
    gradient, = torch.autograd.grad(loss, x_adv)
    return (x + eps * gradient.sign()).clamp(0, 1)
    ### END SOLUTION


FGSM = Exercise("evasion.fgsm", reference=fgsm, difficulty=2, minutes=10, hints=[
    "You want the gradient of the loss with respect to the picture, not the weights. Work on `x.clone().requires_grad_()`.",
    "`torch.autograd.grad(loss, x_adv)` returns a tuple of one gradient, and leaves nothing behind in the model.",
    "Uphill is `+ eps * gradient.sign()`. A pixel has to stay a pixel: `.clamp(0, 1)`.",
])


def project(x_adv, x, eps):
    """The picture nearest to x_adv that is within eps of x and within [0, 1].

    x_adv, x: float32 [N, C, H, W].  Returns a tensor like x.
    """
    ### BEGIN SOLUTION
    delta = (x_adv - x).clamp(-eps, eps)
    return (x + delta).clamp(0, 1)
    ### END SOLUTION


PROJECT = Exercise("evasion.project", reference=project, difficulty=1, minutes=5, hints=[
    "Two limits, one after the other: how far from x, then what a pixel can be.",
    "The change is `x_adv - x`; `.clamp(-eps, eps)` cuts it; add it to x again.",
])


def pgd(model, x, y, eps, steps, step_size, targeted=False, seed=0):
    """Projected gradient descent: from a random point of the ball, `steps` steps of
    `step_size`, each brought back into the ball.

    y: the true classes, or with targeted=True the classes that the model shall answer.
    seed: of the random start.
    Returns x_adv, like x, within eps of x and within [0, 1].
    """
    ### BEGIN SOLUTION
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    x_adv = project(x + eps * (2 * noise - 1), x, eps)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        loss = F.cross_entropy(model(x_adv), y)
        gradient, = torch.autograd.grad(loss, x_adv)
        direction = -gradient.sign() if targeted else gradient.sign()
        x_adv = project(x_adv.detach() + step_size * direction, x, eps)
    return x_adv
    ### END SOLUTION


PGD = Exercise("evasion.pgd", reference=pgd, difficulty=3, minutes=20, hints=[
    "It is FGSM in a loop, with `step_size` for eps, and with `project` after each step. Project around x, not around the last point.",
    "The start: `torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))` is in [0, 1]; stretch it to [-eps, eps] and add it.",
    "Aiming at a class means making the loss for that class small: with `targeted`, walk downhill.",
    "Begin each round with `x_adv = x_adv.detach().requires_grad_()`, or the graph of all earlier rounds comes along.",
])


def secure_predict(model, x, threshold=0.85):
    """The guide's three checks: bounds, a 3x3 median, a threshold on the confidence.

    x: float32 [N, C, H, W].
    Returns int64 [N]: the class of the smoothed picture, or REJECTED (-1) where the
    highest probability is below `threshold`.
    Raises ValueError if any pixel is outside [0, 1].
    """
    ### BEGIN SOLUTION
    if x.min() < 0 or x.max() > 1:
        raise ValueError("x must lie in [0, 1]")
    with torch.no_grad():
        probabilities = model(median_smooth(x, 3)).softmax(dim=1)
    confidence, label = probabilities.max(dim=1)
    return torch.where(confidence >= threshold, label, REJECTED)
    ### END SOLUTION


SECURE_PREDICT = Exercise("evasion.secure_predict", reference=secure_predict, difficulty=2, minutes=10, hints=[
    "Three lines for three checks. The model returns logits: `.softmax(dim=1)` makes probabilities of them.",
    "`probabilities.max(dim=1)` returns two things, the highest value and where it stands.",
    "`torch.where(condition, label, REJECTED)` chooses image by image.",
])


def adaptive_step(predictor, x_adv, x, y, eps, step_size, samples=1):
    """One step of the attacker who knows the defence: uphill on the log-probability of
    the likeliest wrong class, seen through the defence.

    predictor: `predictor(x_adv)` gives the logits behind the defence, with gradients.
    It may be random: average the logits of `samples` calls.
    x_adv: where the attack stands.  x: where it began.  y: the true classes.
    Returns the next x_adv, within eps of x and within [0, 1].
    """
    ### BEGIN SOLUTION
    x_adv = x_adv.detach().requires_grad_()
    logits = sum(predictor(x_adv) for _ in range(samples)) / samples
    wrong = logits.log_softmax(dim=1).scatter(1, y[:, None], -torch.inf)
    gradient, = torch.autograd.grad(wrong.amax(dim=1).sum(), x_adv)
    return project(x_adv.detach() + step_size * gradient.sign(), x, eps)
    ### END SOLUTION


ADAPTIVE_STEP = Exercise("evasion.adaptive_step", reference=adaptive_step, difficulty=4, minutes=15, hints=[
    "Call the predictor where you called the model before: the gradient then runs through the median as well.",
    "What the threshold looks at is the log-probability of the likeliest wrong class: climb that. Leave the true class out before you take the maximum.",
    "`scores.scatter(1, y[:, None], -torch.inf)` puts minus infinity in the place of the true class; with `scores = logits.log_softmax(dim=1)`, `.amax(dim=1)` of that is the log-probability to climb, picture by picture.",
    "Average first, then differentiate: `sum(predictor(x_adv) for _ in range(samples)) / samples`.",
])


def adversarial_training_step(model, optimizer, x, y, eps, attack):
    """One step of adversarial training: attack the batch with the model as it is now,
    then learn from what came out.

    attack: a function (model, x, y, eps) -> x_adv.
    Changes the model's weights and leaves it in train mode.
    Returns the loss on the attacked batch, a float.
    """
    ### BEGIN SOLUTION
    model.eval()
    x_adv = attack(model, x, y, eps)
    model.train()
    loss = F.cross_entropy(model(x_adv), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION


ADVERSARIAL_TRAINING_STEP = Exercise("evasion.adversarial_training_step", reference=adversarial_training_step, difficulty=2, minutes=10, hints=[
    "It is an ordinary training step on x_adv in place of x.",
    "The attack wants a model at rest: `model.eval()` before it, `model.train()` after it.",
    "`optimizer.zero_grad()`, `loss.backward()`, `optimizer.step()`, in this order; the attack comes before all three.",
])


# ---- what the properties look at

@functools.cache
def _model():
    return load_model("signs_cnn")


def _signs(seed, n=48):
    """Fresh signs that the model reads right, so that an effect on them is the attack's."""
    x, y = _drawn(seed, n)
    return x.clone(), y.clone()  # an answer may spoil what it gets


@functools.lru_cache(maxsize=32)
def _drawn(seed, n):
    x, y = signs.draw(n, seed=seed)
    right = predict(_model(), x).argmax(1) == y
    return x[right], y[right]


def _misread(x_adv, y):
    return 1 - accuracy(_model(), x_adv, y)


def _within(x_adv, x, eps, name="x_adv", next_step="measure the change from x, where the attack began, and cut it off at eps, upwards and downwards"):
    require_images(x_adv, x, what=name)
    change = (x_adv - x).flatten()
    furthest = change[change.abs().argmax()].item()
    require(abs(furthest) <= eps + 1e-5, expected=f"every pixel within eps = {eps:.4f} of x", got=f"a pixel that moved by {furthest:+.4f}",
            next_step=next_step)


@FGSM.property("keeps every pixel within eps of x and within [0, 1]")
def _fgsm_budget(answer, seed):
    x, y = _signs(seed, 12)
    for eps in (EPS, 2 * EPS):
        _within(answer(_model(), x, y, eps), x, eps, next_step="take the sign of the gradient, and move each pixel by eps times that sign")


@FGSM.property("changes nothing at eps = 0")
def _fgsm_zero(answer, seed):
    x, y = _signs(seed, 12)
    require(torch.equal(answer(_model(), x, y, 0.0), x), expected="x itself at eps = 0", got="another picture",
            next_step="every change has to carry the factor eps")


@FGSM.property("uses the whole budget: every pixel with a gradient and with room moves by eps")
def _fgsm_whole_budget(answer, seed):
    x, y = _signs(seed, 12)
    room = (x > EPS) & (x < 1 - EPS)
    change = (answer(_model(), x, y, EPS) - x).abs()[room]
    moved, usual = (change > EPS - 1e-5).float().mean().item(), change.median().item()
    equally = ((change - usual).abs() < 1e-5).float().mean().item() > 0.9
    require(moved > 0.9, expected=f"nearly every pixel moved by exactly eps = {EPS:.4f}", got=f"{moved:.0%} of them; half moved by {usual:.6f} or less",
            next_step="eps is in the units of x already: multiply the sign by eps itself" if equally and usual > 1e-7
            else "take the sign of the gradient: its size is of no interest here")


@FGSM.property("makes the model misread most signs at 8/255")
def _fgsm_effect(answer, seed):
    x, y = _signs(seed, 64)
    got, by_reference = _misread(answer(_model(), x, y, EPS), y), _reference_misread("fgsm", seed)
    require(got > 0.8 * by_reference, expected=f"about {by_reference:.0%} of {len(x)} signs misread", got=f"{got:.0%}",
            next_step="walk uphill on the loss of the true class: plus the sign, not minus")


@functools.lru_cache(maxsize=32)
def _reference_misread(attack, seed):
    """The share of 64 signs that a reference attack makes the model misread at EPS."""
    x, y = _signs(seed, 64)
    return _misread(fgsm(_model(), x, y, EPS) if attack == "fgsm" else pgd(_model(), x, y, EPS, 8, EPS / 3), y)


@functools.lru_cache(maxsize=32)
def _reference_reached(seed):
    """The share of 24 signs that the reference turns into the next class at twice EPS."""
    x, y = _signs(seed, 24)
    wanted = (y + 1) % 12
    return accuracy(_model(), pgd(_model(), x, wanted, 2 * EPS, 10, EPS / 2, targeted=True), wanted)


@PROJECT.property("ends within eps of x and within [0, 1]")
def _project_budget(answer, seed):
    x, far = _far_away(seed)
    for eps in (0.0, EPS, 0.3):
        _within(answer(far, x, eps), x, eps, "the projection")


@PROJECT.property("leaves a point alone that is inside already")
def _project_inside(answer, seed):
    x, far = _far_away(seed)
    inside = (x + (far - x).clamp(-EPS / 2, EPS / 2)).clamp(0, 1)
    require(torch.allclose(answer(inside, x, EPS), inside, atol=1e-6), expected="the point itself", got="another point",
            next_step="cut the change off at eps; do not rescale it")


@PROJECT.property("gives the nearest point, pixel by pixel")
def _project_nearest(answer, seed):
    x, far = _far_away(seed)
    nearest = torch.minimum(torch.maximum(far, (x - EPS).clamp(0, 1)), (x + EPS).clamp(0, 1))
    worst = (answer(far, x, EPS) - nearest).abs().max().item()
    require(worst < 1e-5, expected="each pixel as near to where it was as the limits allow", got=f"a pixel that is {worst:.4f} off",
            next_step="cut each pixel on its own: how far the others went does not matter in L∞")


def _far_away(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 3, 8, 8, generator=generator)
    return x, x + 0.5 * torch.randn(x.shape, generator=generator)


@PGD.property("keeps every pixel within eps of x and within [0, 1], at each number of steps")
def _pgd_budget(answer, seed):
    x, y = _signs(seed, 12)
    for steps in (1, 5):
        _within(answer(_model(), x, y, EPS, steps, EPS / 2), x, EPS)


@PGD.property("changes nothing at eps = 0")
def _pgd_zero(answer, seed):
    x, y = _signs(seed, 12)
    require(torch.allclose(answer(_model(), x, y, 0.0, 2, 0.01), x, atol=1e-6), expected="x itself at eps = 0", got="another picture",
            next_step="project after each step, the last one too")


@PGD.property("begins at a random point that the seed decides")
def _pgd_random(answer, seed):
    x, y = _signs(seed, 12)
    first, again, other = (answer(_model(), x, y, EPS, 1, EPS / 20, seed=s) for s in (1, 1, 2))
    require(torch.equal(first, again), expected="the same result for the same seed", got="two different ones",
            next_step="draw from `torch.Generator().manual_seed(seed)`, not from the global generator")
    require(not torch.allclose(first, other, atol=EPS / 5), expected="different results for different seeds", got="the same one",
            next_step="begin at x plus noise from [-eps, eps], and take each gradient at x_adv: do not go back to x")
    room = (x > EPS) & (x < 1 - EPS)
    below = (first < x)[room].float().mean().item()
    require(0.3 < below < 0.7, expected="about as many pixels begin below x as above it", got=f"{below:.0%} of them below",
            next_step="stretch the noise from [0, 1] to [-eps, eps]: `eps * (2 * noise - 1)`")


@PGD.property("moves each pixel by step_size, whatever the size of its gradient")
def _pgd_steps(answer, seed):
    x, y = _signs(seed, 12)
    start, after = (answer(_model(), x, y, EPS, 1, size) for size in (0.0, EPS / 20))
    room = ((start - x).abs() < 0.9 * EPS) & (start > EPS) & (start < 1 - EPS)
    moved = ((after - start).abs()[room] > EPS / 40).float().mean().item()
    require(moved > 0.3, expected="pixels that move by step_size", got=f"{1 - moved:.0%} that hardly move" if moved else "none that moves",
            next_step="as in FGSM: `step_size` times the sign of the gradient")


@PGD.property("misreads more than FGSM does at the same eps")
def _pgd_effect(answer, seed):
    x, y = _signs(seed, 64)
    got = _misread(answer(_model(), x, y, EPS, 8, EPS / 3), y)
    by_fgsm, by_reference = _reference_misread("fgsm", seed), _reference_misread("pgd", seed)
    require(got > (by_fgsm + by_reference) / 2, expected=f"more than FGSM's {by_fgsm:.0%}, about {by_reference:.0%}", got=f"{got:.0%}",
            next_step="walk uphill on the loss: plus the sign, not minus" if got < 0.05
            else "each round needs a new gradient, taken where the attack stands now, and there are `steps` rounds")


@PGD.property("with targeted=True leads to the wanted class")
def _pgd_targeted(answer, seed):
    x, y = _signs(seed, 24)
    wanted = (y + 1) % 12
    reached = accuracy(_model(), answer(_model(), x, wanted, 2 * EPS, 10, EPS / 2, targeted=True), wanted)
    by_reference = _reference_reached(seed)
    require(reached > 0.7 * by_reference, expected=f"about {by_reference:.0%} of the signs read as the class asked for", got=f"{reached:.0%}",
            next_step="make the loss of the wanted class smaller: minus the sign of its gradient")


@SECURE_PREDICT.property("raises ValueError for pixels below 0 and for pixels above 1")
def _secure_bounds(answer, seed):
    x, _ = _signs(seed, 12)
    speck = x.clone()
    speck[0, 0, seed % 32, 7] = 7.0  # a median takes it away: whoever looks for it afterwards finds nothing
    for outside, where in ((x + 0.6, ""), (x - 0.6, ""), (speck, ", a single one of them")):
        try:
            answer(_model(), outside, raises=ValueError)
        except NotYet as found:
            raise NotYet(f"a ValueError for pixels from {outside.min():.1f} to {outside.max():.1f}{where}", found.got,
                         "look at the pixels as they came, before you smooth them" if where else found.next_step) from None


@SECURE_PREDICT.property("answers a class, or -1, for each picture")
def _secure_shape(answer, seed):
    x, _ = _signs(seed, 24)
    got = answer(_model(), x)
    require_tensor(got, (len(x),), what="the answers")
    require(not got.is_floating_point() and got.dtype != torch.bool and got.min() >= -1 and got.max() < 12, expected="whole numbers from -1 to 11",
            got=f"{got.dtype} from {got.min()} to {got.max()}", next_step="return the class where it is sure, REJECTED where it is not")


@SECURE_PREDICT.property("looks at the smoothed picture, not at the one that came")
def _secure_smooths(answer, seed):
    x, smoothed = _doubtful(seed)
    first, second = smoothed.topk(2, dim=1).values.T
    clear = first - second > 1e-3
    got = answer(_model(), x, threshold=0.0)
    declined = got == REJECTED
    require(not declined.any(), expected="a class for every picture at threshold 0", got=f"{declined.sum()} of {len(x)} rejected",
            next_step=_about_threshold(declined, smoothed, 0))
    others = (got != smoothed.argmax(1))[clear].sum().item()
    require(others == 0, expected="the class of the smoothed picture at threshold 0", got=f"{others} of {len(x)} other answers",
            next_step="call the model on `median_smooth(x, 3)`")


@SECURE_PREDICT.property("rejects what is below the threshold, by probability")
def _secure_rejects(answer, seed):
    x, smoothed = _doubtful(seed)
    confidence = smoothed.softmax(1).amax(1)
    for threshold in (0.5, 0.85, 0.99):
        clear = (confidence - threshold).abs() > 1e-4
        declined = answer(_model(), x, threshold=threshold) == REJECTED
        wrong = (declined != (confidence < threshold))[clear].sum().item()
        require(wrong == 0, expected=f"REJECTED exactly where the highest probability is below {threshold}", got=f"{wrong} of {len(x)} otherwise",
                next_step=_about_threshold(declined, smoothed, threshold))


def _about_threshold(declined, logits, threshold):
    """What to do about pictures that were declined wrongly."""
    if torch.equal(declined, logits.amax(1) < threshold):
        return "compare the highest softmax probability, not the logit, with `threshold`"
    return "keep the class where the highest softmax probability reaches the argument `threshold`, reject where it is below"


@functools.lru_cache(maxsize=16)
def _doubtful(seed):
    """Pictures that the model is more or less sure of, and its logits for them once they are smoothed.

    Each is a sign with another one shining through, and one pixel in ten black or white, which a median takes away again.
    """
    x, _ = signs.draw(64, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    share = torch.linspace(0.5, 1, len(x))[:, None, None, None]
    speck = torch.rand(x.shape[0], 1, *x.shape[2:], generator=generator)
    x = share * x + (1 - share) * x[torch.randperm(len(x), generator=generator)]
    x = torch.where(speck < 0.05, 0.0, torch.where(speck > 0.95, 1.0, x))
    return x, predict(_model(), median_smooth(x, 3))


@ADAPTIVE_STEP.property("stays within eps of x and within [0, 1], wherever it starts")
def _adaptive_budget(answer, seed):
    x, y = _signs(seed, 12)
    predictor = SecurePredictor(_model())
    _within(answer(predictor, x, x, y, EPS, EPS / 2), x, EPS)
    _within(answer(predictor, (x + EPS).clamp(0, 1), x, y, EPS, EPS / 2), x, EPS)


@ADAPTIVE_STEP.property("asks the predictor as often as `samples` says")
def _adaptive_samples(answer, seed):
    x, y = _signs(seed, 12)
    for samples in (1, 4):
        predictor = _Counting(_model())
        answer(predictor, x, x, y, EPS, EPS / 4, samples=samples)
        require(predictor.calls == samples, expected=f"{samples} call{'s' * (samples > 1)} of the predictor", got=str(predictor.calls),
                next_step="average the logits of `samples` calls on the whole batch" if predictor.calls
                else "call `predictor(x_adv)` itself, not the model inside it: the gradient has to pass through the defence")


@ADAPTIVE_STEP.property("averages the logits of its calls")
def _adaptive_averages(answer, seed):
    x, y = _signs(seed, 12)
    fading, steady = (answer(predictor, x, x, y, EPS, EPS / 4, samples=samples) - x
                      for predictor, samples in ((_Fading(_model()), 3), (_Third(_model()), 1)))
    agree = (fading.sign() == steady.sign()).float().mean().item()
    require(agree > 0.8, expected="the step that the average of the calls asks for", got=f"another direction in {1 - agree:.0%} of the pixels",
            next_step="add up the logits of all calls, not only of the first or the last, before you differentiate")


@ADAPTIVE_STEP.property("raises the confidence of a wrong answer behind the defence")
def _adaptive_effect(answer, seed):
    got, by_reference = _accepted_wrong(answer, seed), _accepted_wrong_by_reference(seed)
    require(got > 0.85 * by_reference, expected=f"after 8 steps about {by_reference:.0%} accepted with a wrong class", got=f"{got:.0%}",
            next_step="walk uphill (plus the sign, not minus), and leave the true class out of the maximum" if got < 0.05
            else "differentiate through predictor(x_adv), and climb the log-probability of the best wrong class")


def _accepted_wrong(step, seed):
    """The share of signs that a SecurePredictor accepts with a wrong class after eight such steps."""
    x, y = _signs(seed, 48)
    predictor, x_adv = SecurePredictor(_model()), x
    for _ in range(8):
        x_adv = step(predictor, x_adv, x, y, EPS, EPS / 4)
    label = predictor.predict(x_adv)
    return ((label != y) & (label != REJECTED)).float().mean().item()


@functools.lru_cache(maxsize=16)
def _accepted_wrong_by_reference(seed):
    return _accepted_wrong(adaptive_step, seed)


class _Counting(SecurePredictor):
    """Counts how often it is asked."""
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class _Fading(_Counting):
    """Of three answers the first and the last say nothing about the picture: their average is _Third's."""

    def forward(self, x):
        logits = super().forward(x)
        return logits if self.calls == 2 else logits * 0


class _Third(SecurePredictor):
    def forward(self, x):
        return super().forward(x) / 3


@ADVERSARIAL_TRAINING_STEP.property("returns the loss and learns: the weights change")
def _training_learns(answer, seed):
    model, optimizer, x, y = _trainee(seed)
    before = [p.detach().clone() for p in model.parameters()]
    loss = answer(model, optimizer, x, y, EPS, fgsm, changes=("model", "optimizer"))
    require_number(loss, what="the loss")
    require(any(not torch.equal(p, b) for p, b in zip(model.parameters(), before)), expected="other weights than before", got="the same ones",
            next_step="`optimizer.zero_grad()`, `loss.backward()`, `optimizer.step()`: all three, in this order")


@ADVERSARIAL_TRAINING_STEP.property("attacks the model as it is, at rest, with the true classes and eps")
def _training_attacks(answer, seed):
    model, optimizer, x, y = _trainee(seed)
    seen = []

    def attack(model, x, y, eps):
        seen.append((model.training, x.clone(), y.clone(), eps))
        return fgsm(model, x, y, eps)

    answer(model, optimizer, x, y, EPS, attack, changes=("model", "optimizer"))
    require(len(seen) == 1, expected="one attack on the batch", got=f"{len(seen)} attacks", next_step="call `attack(model, x, y, eps)` once")
    training, x_seen, y_seen, eps = seen[0]
    require(eps == EPS and torch.equal(x_seen, x) and torch.equal(y_seen, y), expected="an attack on x and y at eps",
            got=f"eps = {eps}" if eps != EPS else "other pictures or classes", next_step="pass on what you were given: `attack(model, x, y, eps)`")
    require(not training, expected="a model in eval mode while it is attacked", got="one in train mode",
            next_step="`model.eval()` before the attack, `model.train()` after it: batch statistics of attacked images are not the model's")
    require(model.training, expected="the model in train mode at the end", got="eval mode", next_step="`model.train()` before you compute the loss")


@ADVERSARIAL_TRAINING_STEP.property("learns from the attacked batch, not from the clean one, and only from this one")
def _training_gradient(answer, seed):
    results = []
    for step in (answer, adversarial_training_step):
        model, optimizer, x, y = _trainee(seed)
        for p in model.parameters():
            p.grad = torch.full_like(p, 3.0)  # left over from an earlier batch: has to be cleared
        extra = dict(changes=("model", "optimizer")) if step is answer else {}
        loss = step(model, optimizer, x, y, EPS, lambda model, x, y, eps: 1 - x, **extra)  # far from x, so that it shows which was learnt from
        results.append((float(torch.as_tensor(loss).detach()), torch.cat([p.detach().flatten() for p in model.parameters()])))
    (got, weights), (expected, by_reference) = results
    require(abs(got - expected) < 1e-3, expected=f"a loss of {expected:.4f} on this attacked batch", got=f"{got:.4f}",
            next_step="compute the loss on what the attack returned, in train mode")
    require(torch.allclose(weights, by_reference, atol=1e-4), expected="the weights of one plain gradient step", got="others",
            next_step="`optimizer.zero_grad()` before `loss.backward()`: gradients add up otherwise")


def _trainee(seed):
    model = small_cnn(seed=seed).train()
    x, y = signs.draw(24, seed=seed)
    return model, torch.optim.SGD(model.parameters(), lr=0.05), x, y
