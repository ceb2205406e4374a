# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 01 · Evasion
#
# {{facts}}
#
# OWASP calls it *input manipulation attack*. In lesson 00 a stop sign read 80. Here you take the attack apart and build it again, stronger; put up the fence that security guides
# recommend and walk through it; and train the model that withstands most. On the way it becomes clear why "we tested it against
# an attack" is worth so little.
#
# | the threat model | of this lesson |
# |---|---|
# | **goal** | any wrong answer (untargeted), or one that the attacker chooses (targeted) |
# | **knowledge** | the model and its weights; later the defence as well; once, nothing but answers |
# | **access** | the input, before the model sees it |
# | **budget** | each pixel by at most ε = 8/255 (L∞); where it says so, a length in L2 |
#
# **After this lesson** you can write FGSM and PGD, break a defence that hides its gradient or its confidence, train a robust
# model, and tell a measurement of robustness from wishful thinking.

# %%
from mlsec_lab.course import course_map, exercise
from mlsec_lab.data_to_model import evasion
from mlsec_lab.data_to_model.evasion import REJECTED, SecurePredictor, median_smooth
from mlsec_lab.data_to_model.evasion import l2_distance, linf_distance
from mlsec_lab.display import Choice, Slider, bars, compare, curves, explore
from mlsec_lab.display import pictures, show
from mlsec_lab.victims import LabelOnly, QueryCounter, accuracy, load_data, load_model
from mlsec_lab.victims import predict, small_cnn

import torch
import torch.nn.functional as F

VICTIM = "signs"  # or "gtsrb" or "fashion_mnist", where their data can be had
EPS = 16 / 255 if VICTIM == "fashion_mnist" else 8 / 255
BUDGET = f"{EPS * 255:.0f}/255"
x, y, classes = load_data(VICTIM, "test", n=256)
model = load_model(f"{VICTIM}_cnn")
course_map("D→M")

# %% [markdown]
# The victim is a network of three convolutions. It normalises its input itself, so ε is in the units of the pixels, from 0 (black) to 1 (white).
# The text below speaks of signs at 8/255. (Clothes are photographed in full contrast and without a background, and a network for
# them needs a larger push: with `VICTIM = "fashion_mnist"` the lesson takes 16/255.)

# %%
read = [classes[k] for k in predict(model, x[:12]).argmax(1)]
show(
    pictures(x[:12], read),
    "Twelve test pictures, each with the class that the model answers.",
)
print(f"clean accuracy {accuracy(model, x, y):.1%}")

# %% claim="clean"
floor = 0.95 if VICTIM == "signs" else 0.88
print(
    f"the model reads more than {floor:.0%} of the test pictures right:",
    accuracy(model, x, y) > floor,
)

# %% [markdown]
# ## Is noise enough?
#
# Before anything clever: move every pixel by the whole budget, up or down at random. Would you expect the model to mind?

# %%
noise = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
noisy = (x + EPS * noise).clamp(0, 1)
print(f"accuracy with random noise of {BUDGET}: {accuracy(model, noisy, y):.1%}")

# %% claim="noise"
print(
    "random noise of the full budget costs less than a quarter of the answers:",
    accuracy(model, noisy, y) > 0.75 * accuracy(model, x, y),
)

# %% [markdown]
# Chance alone finds little. There are 3,072 pixel values, and a random direction has next to nothing to do with the few that matter. The model's
# own gradient knows them. You know gradients with respect to *weights*, from training; the same machinery gives the gradient with
# respect to the *picture*: for each pixel, whether more or less of it makes the error grow.

# %%
one = x[2:3].clone().requires_grad_()  # a copy that keeps track of what is done with it
error = F.cross_entropy(model(one), y[2:3])
slope = torch.autograd.grad(error, one)[0]
seen = (slope / slope.abs().max() / 2 + 0.5).clamp(0, 1)
show(
    pictures(torch.cat([x[2:3], seen]), ["the picture", "its gradient"], columns=2),
    "A sign, and the gradient of the error at it: grey where a pixel does not matter.",
)

# %% [markdown]
# Grey means that a pixel does not matter; the coloured ones do, and the sign of each says in which direction. `model(x)` gives the **logits**,
# one score a class before the softmax, and keeps track for gradients; `predict` gives the same scores and keeps none.
#
# {{exercise evasion.fgsm}}
#
# The **fast gradient sign method** (Goodfellow et al., 2015) takes one step from the picture x: every pixel by ε, in the direction in which the
# cross-entropy of the true class grows, `x + ε · sign(gradient)`. You have `torch`, `F` and everything that the first cell imported.

# %% exercise="evasion.fgsm"

# %%
x_adv = fgsm(model, x, y, EPS)
after = [classes[k] for k in predict(model, x_adv[:6]).argmax(1)]
show(
    compare(x[:6], x_adv[:6], read[:6], after, eps=EPS),
    "Six pictures, the changes that FGSM makes to them, magnified sixteen times, "
    "and what the model reads then.",
)
print(f"accuracy after FGSM at {BUDGET}: {accuracy(model, x_adv, y):.1%}")

# %% claim="fgsm"
print(
    "every picture stays within ε:",
    bool((linf_distance(x, x_adv) <= EPS + 1e-6).all()),
)
print(
    "FGSM leaves less than half of the right answers:",
    accuracy(model, x_adv, y) < 0.5 * accuracy(model, x, y),
)

# %% [markdown]
# The same budget as the noise, and most answers are gone. So a larger budget should take the rest. Does it?

# %%
budgets = [round(k * EPS * 255) for k in (0, 1 / 8, 1 / 4, 1 / 2, 1, 1.5, 2, 3)]
some, label = x[:64], y[:64]
one_step = [accuracy(model, fgsm(model, some, label, e / 255), label) for e in budgets]
show(
    curves(
        budgets,
        {"FGSM": one_step},
        xlabel="ε, in 1/255",
        ylabel="accuracy",
        marks={BUDGET: budgets[4]},
    ),
    "Accuracy under FGSM falls quickly at first and slowly later: "
    f"{one_step[4]:.0%} at {BUDGET}, {one_step[-1]:.0%} at three times that.",
)

# %% [markdown]
# The first steps of budget took most of it, the later ones take little: at 24/255, where anybody would notice, some answers still stand. A
# straight line out of the picture is a good direction for a short step and a poor one for a long one: the gradient was right where we
# stood, and we left. Better to take many short steps and look again after each.
#
# Short steps add up, though, and would leave the budget. So we need a way back.
#
# {{exercise evasion.project}}
#
# Return the picture nearest to `x_adv` that keeps both rules: within ε of `x` in every pixel, and within [0, 1].

# %% exercise="evasion.project"

# %% [markdown]
# {{exercise evasion.pgd}}
#
# **Projected gradient descent** (Madry et al., 2018): begin at a random point of the ball (all pictures within ε of x),
# take `steps` FGSM steps of `step_size`, and bring the picture back with your `project` after each. With `targeted=True`, `y` holds the classes that you *want*, and the steps go downhill on their loss.

# %% exercise="evasion.pgd"

# %%
x_pgd = pgd(model, x, y, EPS, steps=20, step_size=EPS / 8)
many_steps = [
    accuracy(model, pgd(model, some, label, e / 255, 20, e / 255 / 8), label)
    for e in budgets
]
show(
    curves(
        budgets,
        {"FGSM": one_step, "PGD, 20 steps": many_steps},
        xlabel="ε, in 1/255",
        ylabel="accuracy",
        marks={BUDGET: budgets[4]},
    ),
    f"PGD lies below FGSM: {many_steps[4]:.0%} against {one_step[4]:.0%} at {BUDGET}, "
    f"and {many_steps[-1]:.0%} against {one_step[-1]:.0%} at three times that.",
)

# %% claim="pgd"
print(
    "every picture stays within ε:",
    bool((linf_distance(x, x_pgd) <= EPS + 1e-6).all()),
)
print(
    "PGD leaves less than half of what FGSM leaves:",
    accuracy(model, x_pgd, y) < 0.5 * accuracy(model, x_adv, y),
)
print("that is fewer than one answer in eight:", accuracy(model, x_pgd, y) < 0.125)
print(
    "without a budget it changes nothing:",
    bool(torch.allclose(pgd(model, x[:8], y[:8], 0.0, 3, 0.01), x[:8], atol=1e-6)),
)

# %% [markdown]
# Now the attacker chooses the answer. Every picture is to be read as the class that follows its own in the list.

# %%
wanted = (y[:64] + 1) % len(classes)
x_target = pgd(
    model, x[:64], wanted, 2 * EPS, steps=20, step_size=EPS / 4, targeted=True
)
reached = accuracy(model, x_target, wanted)
print(f"read as the class that the attacker asked for, at 2 ε: {reached:.1%}")

# %% claim="targeted"
print(
    "at 2 ε the attacker gets the class they ask for more often than not:",
    reached > 0.5,
)

# %% [markdown]
# ### The same loop, faster
#
# `evasion.pgd` of the course's library is your loop with one idea more: a picture that the model misreads stops moving and
# leaves the batch. Most get there within a few steps, so most of the work disappears. We check it against foolbox, a library with many users. (PGD-40
# is short for PGD with 40 steps.)

# %%
import foolbox

with torch.random.fork_rng():
    torch.manual_seed(0)
    attack = foolbox.attacks.LinfPGD(
        steps=40, abs_stepsize=EPS / 16, random_start=False
    )
    _, theirs, _ = attack(
        foolbox.PyTorchModel(model, bounds=(0, 1)), x[:128], y[:128], epsilons=EPS
    )
ours = evasion.pgd(model, x[:128], y[:128], eps=EPS, steps=40, random_start=False)
print(
    f"accuracy left by foolbox's PGD-40 {accuracy(model, theirs, y[:128]):.1%},",
    f"by ours {accuracy(model, ours, y[:128]):.1%}",
)

# %% claim="foolbox"
print(
    "at equal steps both agree to within one picture in a hundred:",
    abs(accuracy(model, theirs, y[:128]) - accuracy(model, ours, y[:128])) <= 0.01,
)

# %% [markdown]
# ## A fence
#
# A guide to the OWASP classes, which this course follows, puts three checks before and behind the model: refuse pixels out of bounds, smooth
# the picture with a 3x3 window, and give no answer below a confidence of 0.85. Each sounds reasonable. Build it.
#
# {{exercise evasion.secure_predict}}
#
# `median_smooth(x, 3)` is given. A rejected picture gets the answer `REJECTED`, which is -1.

# %% exercise="evasion.secure_predict"

# %% [markdown]
# A fence has two costs: what it lets through, and what it wrongly refuses. An attack is **stopped** if the answer is right again or
# refused. Two kinds of PGD meet the fence here, both unaware of it: one halts as soon as it has won, as `evasion.pgd` does, one goes on to its last step.

# %%
right = secure_predict(model, x) == y
x_far = evasion.pgd(model, x, y, eps=EPS, steps=40, early_stop=False)
x_near = evasion.pgd(model, x, y, eps=EPS, steps=40)


def outcome(x_attacked):
    """Of the pictures that the fence reads right when clean: the shares that are read
    right again, and that are refused."""
    was_right = right[: len(x_attacked)]
    answer = secure_predict(model, x_attacked[was_right])
    again = answer == y[: len(was_right)][was_right]
    refused = answer == REJECTED
    return again.float().mean().item(), refused.float().mean().item()


# %%
(near_right, near_refused), (far_right, far_refused) = outcome(x_near), outcome(x_far)
fence = {
    "clean: read right": right.float().mean().item(),
    "PGD that halts: right again": near_right,
    "PGD that halts: refused": near_refused,
    "PGD that goes on: right again": far_right,
    "PGD that goes on: refused": far_refused,
}
show(
    bars(
        fence,
        xlabel="share of the pictures",
        colours=["#00795a"] + ["#0072b2"] * 2 + ["#d55e00"] * 2,
    ),
    "The fence: " + ", ".join(f"{k} {v:.0%}" for k, v in fence.items()) + ".",
)

# %% claim="fence"
print(
    "the fence refuses or misreads some clean pictures that the model reads right:",
    fence["clean: read right"] < accuracy(model, x, y),
)
print(
    "it stops nearly every attack that halts as soon as it has won:",
    near_right + near_refused > 0.9,
)
print("most of those are read right again, not refused:", near_right > near_refused)
print(
    "of those that go on it stops more than one in seven, and fewer than half:",
    1 / 7 < far_right + far_refused < 1 / 2,
)

# %% [markdown]
# Whoever had tested this fence with an attack that halts would have reported near perfection. Such an attack stops one step past the
# **decision boundary**, the place where the model changes its mind, and almost any small change pushes the picture back: here the median brings
# most of them home, and the threshold refuses some of the rest. That says nothing about an attacker who walks further, and this one
# does not even know that there is a fence.
#
# So tell them. The attacker has read the guide too, and differentiates **through** the median.
#
# {{exercise evasion.adaptive_step}}
#
# One step of that attack, with your `project` at its end. `predictor(x)` gives the logits behind the fence. It may be random, which you will meet in a
# moment; so average the logits over `samples` calls before you differentiate. What to climb? The threshold looks at the probability of the
# answer, so the natural choice is the log-probability of the likeliest *wrong* class. (On this fence the loss of the true class does about as
# well, and passes.)

# %% exercise="evasion.adaptive_step"


# %%
def adaptive(predictor, x, y, eps, steps=40, samples=1):
    """The adaptive attack: your step, over and over."""
    x_now = x
    for _ in range(steps):
        x_now = adaptive_step(predictor, x_now, x, y, eps, 2.5 * eps / steps, samples)
    return x_now


fenced = SecurePredictor(model)
x_knows = adaptive(fenced, x[:128], y[:128], EPS)
knowing, unknowing = sum(outcome(x_knows)), sum(outcome(x_far))
print(
    f"of the attackers who know the fence it stops {knowing:.1%};",
    f"without that knowledge {unknowing:.1%}",
)

# %% claim="adaptive"
print(
    "the attacker who knows the fence is stopped less often than the one who does not:",
    knowing < unknowing - 0.05,
)
print("fewer than three in ten of their attacks are stopped:", knowing < 0.3)

# %% [markdown]
# ### Budget explorer
#
# Attacker's budget and defender's threshold, one against the other, on twelve pictures: the six that the fence is least sure of, and six
# others. ✓ is right, ✗ is a wrong answer that went through. First set ε to 0 and raise the threshold: what does it cost those who
# attack nothing? Then raise ε, and see what the same threshold buys.

# %%
COLOURS = {"right": "#00795a", "refused": "#5f6770", "wrong": "#a6002c"}
sure = predict(fenced, x).softmax(dim=1).amax(dim=1)
chosen = torch.cat([sure.argsort()[:6], torch.arange(6)])


def compute(eps_255, threshold, attacker):
    """Twelve attacked pictures, how the fence's answers turned out, and the answers."""
    predictor = SecurePredictor(model, threshold=threshold)
    pick, truth, budget = x[chosen], y[chosen], dict(eps=eps_255 / 255, steps=6)
    if attacker == "knows the fence":
        attack = evasion.adaptive_pgd(predictor, pick, truth, **budget)
    else:
        attack = evasion.pgd(model, pick, truth, early_stop=False, **budget)
    answer = predictor.predict(attack)
    outcomes = ["right" if a == t else "wrong" for a, t in zip(answer, truth)]
    outcomes = ["refused" if a == REJECTED else o for a, o in zip(answer, outcomes)]
    return attack, outcomes, answer


# %%
def draw(result):
    attack, outcomes, answer = result
    marks = {"right": "✓ ", "refused": "", "wrong": "✗ "}
    read = ["refused" if a == REJECTED else classes[a] for a in answer]
    titles = [marks[outcome] + text for outcome, text in zip(outcomes, read)]
    alt = (
        ", ".join(f"{outcomes.count(kind)} {kind}" for kind in COLOURS)
        + " of twelve attacked pictures."
    )
    return pictures(attack, titles, colours=[COLOURS[o] for o in outcomes]), alt


show(*draw(compute(budgets[4], threshold=0.85, attacker="knows the fence")))

# %%
explore(
    compute,
    draw,
    eps_255=Slider(
        "attacker: ε, in 1/255", 0, budgets[6], budgets[4], help="for each pixel"
    ),
    threshold=Slider(
        "defender: threshold",
        0.3,
        0.99,
        0.85,
        0.01,
        help="below this confidence there is no answer",
    ),
    attacker=Choice("the attacker", ["knows the fence", "does not know the fence"]),
)

# %% [markdown]
# ### "Then we make it random"
#
# The defender's next idea: move each picture by up to two pixels at random before it is smoothed. A gradient that was right for one
# position is wrong for the next, so an attacker who asks once at each step loses ground. **Expectation over transformation** (Athalye
# et al., 2018) asks several times and averages: your `samples`.

# %%
jittery = SecurePredictor(model, jitter=2)
aimed = {"made for the fixed fence": adaptive(fenced, some, label, EPS, steps=20)}
for samples, name in ((1, "one sample a step"), (8, "eight samples a step")):
    aimed[name] = adaptive(jittery, some, label, EPS, steps=20, samples=samples)
success = evasion.attack_success_rate
fixed = success(fenced, some, aimed["made for the fixed fence"], label)
rates = {"for comparison: the fixed fence": fixed}
rates |= {name: success(jittery, some, attack, label) for name, attack in aimed.items()}
show(
    bars(rates, xlabel="attack success rate", colours=["#5f6770"] + ["#0072b2"] * 3),
    "Attack success: " + ", ".join(f"{k} {v:.0%}" for k, v in rates.items()) + ".",
)

# %% claim="eot"
print(
    "averaging over eight samples is no worse than one sample:",
    rates["eight samples a step"] >= rates["one sample a step"] - 0.02,
)
print(
    "the random fence falls to it more than four times in ten:",
    rates["eight samples a step"] > 0.4,
)

# %% [markdown]
# Randomness took something from those who attacked the fixed fence, and from those who asked once. It made the attack eight times as dear; it did not
# keep it out.
#
# ## No weights, no gradient
#
# Perhaps the weights are the problem: keep them secret, answer with a label and nothing else. Two questions then. How far away is the
# nearest wrong answer? And can it be found by asking?
#
# For the first, *minimal-norm* attacks look for the smallest change in L2 that works. For the second, HopSkipJump (Chen et al., 2020) walks
# along the decision boundary by its labels alone. Both come from foolbox.

# %%
near = evasion.minimal_norm(model, x[:32], y[:32], method="ddn", steps=50)
asked = QueryCounter(LabelOnly(model))
label_only = evasion.decision_based(asked, x[:6], y[:6], steps=12)
for name, found in (("with gradients", near[:6]), ("with labels alone", label_only)):
    print(
        f"nearest wrong answer found {name:17}: median L2 distance",
        f"{l2_distance(x[:6], found).median():.2f}, largest change of a pixel",
        f"{linf_distance(x[:6], found).median() * 255:.0f}/255",
    )
print(f"questions asked with labels alone: {asked.queries // 6:,} a picture")

# %% claim="label_only"
print(
    "with gradients nearly every picture has a wrong answer near by:",
    accuracy(model, near, y[:32]) < 0.1,
)
print(
    "with labels alone the attack succeeds as well:",
    accuracy(model, label_only, y[:6]) == 0,
)
print(
    "its pictures are further away than the nearest ones:",
    bool(
        l2_distance(x[:6], label_only).median() > l2_distance(x[:6], near[:6]).median()
    ),
)

# %% [markdown]
# For comparison: a change of 8/255 in every pixel is 1.74 in L2. These attacks keep the length small, not the largest change, and may leave the L∞
# budget of this lesson; another budget is another threat model. Labels alone cost questions and some distance. They do not stop
# the attack, and more questions shrink the distance. (A limit on questions is a defence of its own, and lesson 12 counts what it buys.)
#
# ## Train on what hurts
#
# So far every defence left the model as it was. **Adversarial training** (Madry et al., 2018) changes it: attack each batch with the
# model as it is now, and learn from the result.
#
# {{exercise evasion.adversarial_training_step}}
#
# One step of it. `attack(model, x, y, eps)` is given. Put the model in `eval` mode while it is attacked and in `train` mode while it learns. You may
# call your `fgsm` or `pgd` for a try.

# %% exercise="evasion.adversarial_training_step"

# %% [markdown]
# Forty of your steps on a network that knows nothing yet, to see that something is learnt:

# %%
fresh = small_cnn(x.shape[1], len(classes), size=x.shape[2])
optimizer = torch.optim.Adam(fresh.parameters(), lr=0.005)
x_train, y_train, _ = load_data(VICTIM, "train", n=2560)
losses = [
    adversarial_training_step(fresh, optimizer, xb, yb, EPS, fgsm)
    for xb, yb in zip(x_train.split(64), y_train.split(64))
]
print(
    f"loss on attacked batches: {sum(losses[:5]) / 5:.2f} in the first five steps,",
    f"{sum(losses[-5:]) / 5:.2f} in the last five",
)

# %% claim="training_step"
print("the loss on attacked batches falls:", sum(losses[-5:]) < 0.8 * sum(losses[:5]))

# %% [markdown]
# Guessing has a loss of ln 12 = 2.48, so the network has just begun to learn. The whole training is the same step some thousand times, with a three-step PGD: about ten minutes, so its result comes with the course
# (`mlsec-lab train signs_cnn_robust` makes it again). What does it withstand?

# %%
robust = load_model(f"{VICTIM}_cnn_robust")
table = {}
for name, net in (("plain", model), ("robust", robust)):
    table[f"{name}, clean"] = accuracy(net, x, y)
    table[f"{name}, PGD-40"] = accuracy(
        net, evasion.pgd(net, x, y, eps=EPS, steps=40), y
    )
show(
    bars(
        table,
        xlabel=f"accuracy, attacked at {BUDGET}",
        colours=["#0072b2"] * 2 + ["#d55e00"] * 2,
    ),
    "Clean and attacked accuracy: "
    + ", ".join(f"{k} {v:.0%}" for k, v in table.items())
    + ".",
)

# %% claim="robust"
print(
    "at ε the robust model still reads more than four pictures in ten:",
    table["robust, PGD-40"] > 0.4,
)
print(
    "that is more than four times what the plain one reads:",
    table["robust, PGD-40"] > 4 * table["plain, PGD-40"],
)
print(
    "robustness costs clean accuracy:", table["robust, clean"] < table["plain, clean"]
)

# %% [markdown]
# ## How robust is robust?
#
# You have just read a number, accuracy under PGD-40. Is it the model's robustness? It is an upper bound: what *one* attack did not
# find. A stronger one aims at every wrong class in turn and climbs the *difference of two logits*, the margin, which does not flatten where
# the model is confident (Gowal et al., 2019).

# %%
starts = torch.stack(
    [
        predict(robust, evasion.pgd(robust, x, y, eps=EPS, steps=40, seed=seed)).argmax(
            1
        )
        == y
        for seed in range(3)
    ]
)
held = {
    "PGD, 40 steps": table["robust, PGD-40"],
    "the worst of three PGDs": starts.all(0).float().mean().item(),
}
x_strong = evasion.multi_targeted(robust, x, y, eps=EPS, steps=30, targets=5)
held["multi-targeted, margin loss"] = accuracy(robust, x_strong, y)
show(
    bars(held, xlabel=f"accuracy of the robust model at {BUDGET}", colours="#d55e00"),
    f"The robust model's accuracy at {BUDGET} depends on who asks: "
    + ", ".join(f"{k} {v:.0%}" for k, v in held.items())
    + ".",
)

# %% claim="stronger"
print(
    "the stronger attack finds mistakes that PGD-40 misses:",
    held["multi-targeted, margin loss"] < held["PGD, 40 steps"],
)
print(
    "what it finds keeps to the budget:",
    bool((linf_distance(x, x_strong) <= EPS + 1e-6).all()),
)

# %% [markdown]
# ## What you have seen
#
# **Shown:** gradients find in a few steps what chance hardly finds; a fence is as good as the attacker's ignorance of it;
# secrecy raises the price; adversarial training holds, at a price in clean accuracy, and less well than the first attack says.
#
# **Not shown:** that the robust model is robust. It holds against these attacks, in this ball. Another norm, a rotation, a sticker or
# fog are other budgets. Nor did anything here leave the computer: printing and filming a picture is harder, and has been done.
#
# **On Monday**
#
# - Write down the budget you mean to withstand before you pick a defence.
# - Report robust accuracy under a strong *ensemble* (AutoAttack, Croce & Hein, 2020), never under one attack of your own.
# - For every defence, write the attack that knows it. If you cannot break it, ask somebody else to.
# - Keep bounds checks: they cost nothing and catch bugs. Do not count them as robustness.
# - Where it matters, train adversarially (`evasion.adversarial_training` shows how little code it is) and state what it cost.
# - Tools: foolbox and the Adversarial Robustness Toolbox for attacks, RobustBench for what the best models reach.
#
# ### Check yourself
#
# <details><summary>A defence lowers the success of PGD from 95 % to 5 %. What would convince you that it is a defence?</summary>
#
# An attack that was written against it and fails: one that differentiates through it (or around it), averages over its randomness, aims at
# what it measures, and has budget to spare; and success that reaches 100 % when ε is made large, as a sign that the attack itself works.
# </details>
#
# <details><summary>Why did an attack that halts make the fence look good?</summary>
#
# It stops barely past the decision boundary, so almost any change, such as a median, undoes it. An attacker who goes on is not undone.
# </details>
#
# <details><summary>Why is accuracy under an attack an upper bound of robustness?</summary>
#
# The attack shows that some pictures can be misread. Where it fails, a misread picture may exist all the same: it was only not found.
# </details>
#
# ### Read on
#
# - I. Goodfellow et al., *Explaining and harnessing adversarial examples*, 2015 (FGSM).
# - A. Madry et al., *Towards deep learning models resistant to adversarial attacks*, 2018 (PGD and adversarial training).
# - A. Athalye et al., *Synthesizing robust adversarial examples*, 2018 (expectation over transformation).
# - A. Athalye et al., *Obfuscated gradients give a false sense of security*, 2018, and F. Tramèr et al., *On adaptive attacks to adversarial example defenses*, 2020.
# - F. Croce and M. Hein, *Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks*, 2020.
#
# **Back to the map:** [00 · Start here](00_start_here.ipynb)
