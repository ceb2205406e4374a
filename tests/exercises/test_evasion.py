"""Lesson 01's exercises, tried with what learners write."""
import torch
import torch.nn.functional as F

from mlsec_lab.course.check import judge
from mlsec_lab.data_to_model.evasion import REJECTED, median_smooth
from mlsec_lab.exercises import evasion
from mlsec_lab.exercises.evasion import ADAPTIVE_STEP, ADVERSARIAL_TRAINING_STEP, FGSM, PGD, PROJECT, SECURE_PREDICT, project


def gradient_of_loss(model, x, y):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y), x)[0]


# ---- FGSM

def fgsm_with_backward(model, x, y, eps):
    x_adv = x.detach().clone()
    x_adv.requires_grad = True
    loss = F.nll_loss(model(x_adv).log_softmax(1), y, reduction="sum")
    loss.backward()
    with torch.no_grad():
        return torch.where(x_adv.grad > 0, x_adv + eps, torch.where(x_adv.grad < 0, x_adv - eps, x_adv)).clip(0, 1)


def fgsm_in_place(model, x, y, eps):
    x.requires_grad_()
    gradient, = torch.autograd.grad(F.cross_entropy(model(x), y), x)
    return (x + eps * gradient.sign()).clamp(0, 1).detach()


def fgsm_that_writes_into_x(model, x, y, eps):
    x += eps * gradient_of_loss(model, x, y).sign()
    return x.clamp_(0, 1)


def fgsm_with_its_graph(model, x, y, eps):
    x_adv = x.clone().requires_grad_()
    gradient, = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
    return (x_adv + eps * gradient.sign()).clamp(0, 1)


def fgsm_in_train_mode(model, x, y, eps):
    model.train()
    return (x + eps * gradient_of_loss(model, x, y).sign()).clamp(0, 1)


def fgsm_without_gradients(model, x, y, eps):
    with torch.no_grad():
        x_adv = x.clone().requires_grad_()
        loss = F.cross_entropy(model(x_adv), y)
    loss.backward()
    return (x + eps * x_adv.grad.sign()).clamp(0, 1)


# ---- projection

def project_by_rescaling(x_adv, x, eps):
    delta = x_adv - x
    return (x + delta * (eps / delta.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)).clamp_max(1)).clamp(0, 1)


def project_with_bounds_first(x_adv, x, eps):
    return torch.min(torch.max(x_adv.clamp(0, 1), x - eps), x + eps)


# ---- PGD

def pgd_variant(*, random_start=True, own_generator=True, around_x=True, fresh_gradient=True, heed_target=True, by_sign=True, uphill=1, rounds=None, last_projected=True):
    def pgd(model, x, y, eps, steps, step_size, targeted=False, seed=0):
        generator = torch.Generator().manual_seed(seed) if own_generator else None
        noise = torch.rand(x.shape, generator=generator) * 2 - 1
        x_adv = project(x + eps * noise, x, eps) if random_start else x.clone()
        gradient = None
        for _ in range(rounds or steps):
            if gradient is None or fresh_gradient:
                gradient = gradient_of_loss(model, x_adv, y)
            direction = (gradient.sign() if by_sign else gradient) * uphill * (-1 if targeted and heed_target else 1)
            moved = x_adv + step_size * direction
            x_adv = project(moved, x if around_x else x_adv, eps) if last_projected else moved
        return x_adv
    return pgd


def pgd_that_stops_early(model, x, y, eps, steps, step_size, targeted=False, seed=0):
    generator = torch.Generator()
    generator.manual_seed(seed)
    delta = torch.empty_like(x).uniform_(-eps, eps, generator=generator)
    delta = (x + delta).clamp(0, 1) - x
    for _ in range(steps):
        delta.requires_grad_()
        logits = model(x + delta)
        F.cross_entropy(logits, y, reduction="none").sum().backward()
        going = (logits.argmax(1) == y) != targeted
        step = (-1 if targeted else 1) * step_size * delta.grad.sign() * going[:, None, None, None]
        delta = (delta.detach() + step).clamp(-eps, eps)
        delta = (x + delta).clamp(0, 1) - x
    return (x + delta).clamp(0, 1)


# ---- the secure predictor

def secure_after_the_median(model, x, threshold=0.85):
    smooth = median_smooth(x, 3)
    if smooth.min() < 0 or smooth.max() > 1:
        raise ValueError("x must lie in [0, 1]")
    confidence, label = model(smooth).detach().softmax(1).max(1)
    return torch.where(confidence >= threshold, label, -1)


def pgd_from_above(model, x, y, eps, steps, step_size, targeted=False, seed=0):
    x_adv = (x + eps * torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        gradient, = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
        x_adv = (x + (x_adv.detach() + (-1 if targeted else 1) * step_size * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return x_adv


def secure_variant(*, low=True, high=True, logits=False, smooth=True, swapped=False, threshold_read=True, returns="labels", error=ValueError):
    def secure_predict(model, x, threshold=0.85):
        if (low and x.min() < 0) or (high and x.max() > 1):
            raise error("x must lie in [0, 1]")
        answers = model(median_smooth(x, 3) if smooth else x).detach()
        confidence, label = (answers if logits else answers.softmax(1)).max(1)
        limit = threshold if threshold_read else 0.85
        keep = confidence <= limit if swapped else confidence >= limit
        if returns == "labels":
            return torch.where(keep, label, REJECTED)
        return confidence if returns == "confidence" else (label, confidence)
    return secure_predict


def secure_predict_in_loops(model, x, threshold=0.85):
    if bool(((x < 0) | (x > 1)).any()):
        raise ValueError("pixels out of bounds")
    answers = []
    for picture in x:
        probabilities = torch.exp(F.log_softmax(model(median_smooth(picture[None], 3))[0], dim=0))
        best = int(probabilities.argmax())
        answers.append(-1 if probabilities[best] < threshold else best)
    return torch.tensor(answers)


# ---- the attacker who knows the defence

def adaptive_variant(*, inside=False, samples_heeded=True, projected=True, uphill=1, only_last=False):
    def adaptive_step(predictor, x_adv, x, y, eps, step_size, samples=1):
        x_adv = x_adv.clone().requires_grad_()
        asked = predictor.model if inside else predictor
        answers = torch.stack([asked(x_adv) for _ in range(samples if samples_heeded else 1)])
        logits = answers[-1] if only_last else answers.mean(0)
        wrong = logits.softmax(1) * (1 - F.one_hot(y, logits.shape[1]))
        gradient, = torch.autograd.grad(wrong.max(1).values.log().sum(), x_adv)
        moved = x_adv.detach() + uphill * step_size * gradient.sign()
        return project(moved, x, eps) if projected else moved.clamp(0, 1)
    return adaptive_step


def adaptive_step_by_margin(predictor, x_adv, x, y, eps, step_size, samples=1):
    point = x_adv.detach().requires_grad_()
    logits = 0
    for _ in range(samples):
        logits = logits + predictor(point) / samples
    hit = F.one_hot(y, logits.shape[1]).bool()
    wrong = logits.masked_fill(hit, -1e9)
    score = wrong.amax(1) - logits.logsumexp(1)
    score.sum().backward()
    return (x + (point.detach() + step_size * point.grad.sign() - x).clamp(-eps, eps)).clamp(0, 1)


def adaptive_step_by_loss(predictor, x_adv, x, y, eps, step_size, samples=1):
    point = x_adv.detach().requires_grad_()
    logits = torch.stack([predictor(point) for _ in range(samples)]).mean(0)
    gradient, = torch.autograd.grad(F.cross_entropy(logits, y), point)
    return project(point.detach() + step_size * gradient.sign(), x, eps)


# ---- a step of adversarial training

def training_variant(*, clean=False, rest=True, zero="before", step=True, back=True, times=255 / 255, attacks=1):
    def adversarial_training_step(model, optimizer, x, y, eps, attack):
        if rest:
            model.eval()
        for _ in range(attacks):
            x_adv = attack(model, x, y, eps * times)
        if back:
            model.train()
        loss = F.cross_entropy(model(x if clean or not attacks else x_adv), y)
        if zero == "before":
            optimizer.zero_grad()
        loss.backward()
        if zero == "between":
            optimizer.zero_grad()
        if step:
            optimizer.step()
        return loss.item()
    return adversarial_training_step


def training_that_returns_a_tensor(model, optimizer, x, y, eps, attack):
    optimizer.zero_grad(set_to_none=False)
    x_adv = attack(model.eval(), x, y, eps=eps).detach()
    loss = torch.nn.CrossEntropyLoss()(model.train()(x_adv), y)
    loss.backward()
    optimizer.step()
    return loss


RIGHT = [
    (FGSM, "with backward and where", fgsm_with_backward),
    (PROJECT, "pixels first, ball second", project_with_bounds_first),
    (PROJECT, "with clip and tensors as bounds", lambda x_adv, x, eps: x_adv.clip((x - eps).clamp(min=0), (x + eps).clamp(max=1))),
    (PGD, "a delta that stops once it fools", pgd_that_stops_early),
    (SECURE_PREDICT, "picture by picture", secure_predict_in_loops),
    (ADAPTIVE_STEP, "uphill on the loss of the true class, which does as well here", adaptive_step_by_loss),
    (ADAPTIVE_STEP, "logsumexp written out", adaptive_step_by_margin),
    (ADVERSARIAL_TRAINING_STEP, "gradients cleared first, the loss as a tensor", training_that_returns_a_tensor),
]
# exercise, what is wrong, the answer, a word of the property that catches it, a word of "got" or of the next step
WRONG = [
    (FGSM, "minus", lambda model, x, y, eps: (x - eps * gradient_of_loss(model, x, y).sign()).clamp(0, 1), "misread most", "plus the sign, not minus"),
    (FGSM, "no clamp", lambda model, x, y, eps: x + eps * gradient_of_loss(model, x, y).sign(), "within [0, 1]", "clamp(0, 1)"),
    (FGSM, "no sign", lambda model, x, y, eps: (x + eps * gradient_of_loss(model, x, y)).clamp(0, 1), "", "take the sign"),
    (FGSM, "eps in 255 steps", lambda model, x, y, eps: (x + eps / 255 * gradient_of_loss(model, x, y).sign()).clamp(0, 1), "whole budget", "in the units of x"),
    (FGSM, "a step of its own", lambda model, x, y, eps: (x + 0.1 * gradient_of_loss(model, x, y).sign()).clamp(0, 1), "within eps", "eps times that sign"),
    (FGSM, "switches x", fgsm_in_place, "within eps", "x.clone().requires_grad_()"),
    (FGSM, "writes into x", fgsm_that_writes_into_x, "within eps", "work on a copy"),
    (FGSM, "keeps the graph", fgsm_with_its_graph, "within eps", ".detach()"),
    (FGSM, "train mode", fgsm_in_train_mode, "within eps", "in the mode in which you found it"),
    (FGSM, "no_grad around the loss", fgsm_without_gradients, "runs to its", "RuntimeError: element 0 of tensors does not require grad"),
    (PROJECT, "rescales", project_by_rescaling, "nearest point", "cut each pixel on its own"),
    (PROJECT, "rescales always", lambda x_adv, x, eps: (x + (x_adv - x) * eps / (x_adv - x).abs().max()).clamp(0, 1), "inside already", "do not rescale"),
    (PROJECT, "forgets [0, 1]", lambda x_adv, x, eps: x + (x_adv - x).clamp(-eps, eps), "within [0, 1]", "clamp(0, 1)"),
    (PROJECT, "only upwards", lambda x_adv, x, eps: torch.min(x_adv, x + eps).clamp(0, 1), "within eps", "upwards and downwards"),
    (PROJECT, "clamps the picture, not the change", lambda x_adv, x, eps: x_adv.clamp(-eps, eps).clamp(0, 1), "within eps", "from x, where the attack began"),
    (PROJECT, "all or nothing", lambda x_adv, x, eps: (x + eps * (x_adv - x).sign()).clamp(0, 1), "inside already", "cut the change off"),
    (PGD, "around the last point", pgd_variant(around_x=False), "at each number of steps", "from x, where the attack began"),
    (PGD, "never projected", pgd_variant(last_projected=False), "at each number of steps", "clamp(0, 1)"),
    (PGD, "a start above x only", pgd_from_above, "random point", "eps * (2 * noise - 1)"),
    (PGD, "no random start", pgd_variant(random_start=False), "random point", "noise from [-eps, eps]"),
    (PGD, "the global generator", pgd_variant(own_generator=False), "random point", "torch.Generator().manual_seed(seed)"),
    (PGD, "no sign", pgd_variant(by_sign=False), "moves each pixel by step_size", "the sign of the gradient"),
    (PGD, "one gradient for all rounds", pgd_variant(fresh_gradient=False), "more than FGSM", "each round needs a new gradient"),
    (PGD, "one round", pgd_variant(rounds=1), "more than FGSM", "there are `steps` rounds"),
    (PGD, "downhill", pgd_variant(uphill=-1), "more than FGSM", "plus the sign, not minus"),
    (PGD, "targeted ignored", pgd_variant(heed_target=False), "targeted=True", "the wanted class smaller"),
    (SECURE_PREDICT, "bounds after the median", secure_after_the_median, "raises ValueError", "before you smooth"),
    (SECURE_PREDICT, "no bounds", secure_variant(low=False, high=False), "raises ValueError", "raise ValueError"),
    (SECURE_PREDICT, "only the upper bound", secure_variant(low=False), "raises ValueError", "raise ValueError"),
    (SECURE_PREDICT, "an assertion", secure_variant(error=AssertionError), "raises ValueError", "AssertionError"),
    (SECURE_PREDICT, "no smoothing", secure_variant(smooth=False), "smoothed picture", "median_smooth(x, 3)"),
    (SECURE_PREDICT, "logits", secure_variant(logits=True), "", "softmax probability, not the logit"),
    (SECURE_PREDICT, "the confidence", secure_variant(returns="confidence"), "a class, or -1", "return the class"),
    (SECURE_PREDICT, "both", secure_variant(returns="both"), "a class, or -1", "not a list, a number or a tuple"),
    (SECURE_PREDICT, "the wrong way round", secure_variant(swapped=True), "smoothed picture", "reject where it is below"),
    (SECURE_PREDICT, "a threshold of its own", secure_variant(threshold_read=False), "", "the argument `threshold`"),
    (ADAPTIVE_STEP, "the model inside", adaptive_variant(inside=True), "as often as `samples`", "not the model inside it"),
    (ADAPTIVE_STEP, "one sample", adaptive_variant(samples_heeded=False), "as often as `samples`", "average the logits"),
    (ADAPTIVE_STEP, "the last sample only", adaptive_variant(only_last=True), "averages the logits", "not only of the first or the last"),
    (ADAPTIVE_STEP, "no projection", adaptive_variant(projected=False), "wherever it starts", "cut it off at eps"),
    (ADAPTIVE_STEP, "downhill", adaptive_variant(uphill=-1), "raises the confidence", "plus the sign, not minus"),
    (ADVERSARIAL_TRAINING_STEP, "clean pictures", training_variant(clean=True), "attacked batch", "what the attack returned"),
    (ADVERSARIAL_TRAINING_STEP, "no zero_grad", training_variant(zero="never"), "attacked batch", "gradients add up"),
    (ADVERSARIAL_TRAINING_STEP, "zero_grad in between", training_variant(zero="between"), "the weights change", "in this order"),
    (ADVERSARIAL_TRAINING_STEP, "no step", training_variant(step=False), "the weights change", "optimizer.step()"),
    (ADVERSARIAL_TRAINING_STEP, "attacked in train mode", training_variant(rest=False), "at rest", "`model.eval()` before the attack"),
    (ADVERSARIAL_TRAINING_STEP, "learns in eval mode", training_variant(back=False), "at rest", "`model.train()` before you compute"),
    (ADVERSARIAL_TRAINING_STEP, "another eps", training_variant(times=1 / 255), "true classes and eps", "pass on what you were given"),
    (ADVERSARIAL_TRAINING_STEP, "no attack", training_variant(attacks=0), "at rest", "`attack(model, x, y, eps)` once"),
]


def test_a_wrong_answer_leaves_the_shared_model_as_it_was_for_the_next_check(retyped):
    before = {key: value.clone() for key, value in evasion._model().state_dict().items()}

    def spoils(model, x, y, eps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        return x

    for answer in (fgsm_in_train_mode, spoils):
        assert judge(FGSM, answer, seed=3).outcome == "not yet"
        assert not evasion._model().training
        assert all(torch.equal(value, before[key]) for key, value in evasion._model().state_dict().items())
    assert judge(FGSM, retyped(FGSM), seed=3).outcome == "passed"
