# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 03 · Undetectable or robust
#
# {{facts}}
#
# In lesson 02 you had the training set, and a filter found the poison in it. This time you get a finished model and 500 pictures of your own. Is there a backdoor in it?
# Can you get it out without knowing what it looks like?
#
# | the threat model | of this lesson |
# |---|---|
# | **goal** | any picture that carries the trigger is read as the attacker's class, also after a repair, and nobody notices |
# | **knowledge** | the data and how you train; eight of the ten attackers have no more |
# | **access** | rows of the training set; two attackers own the whole training |
# | **budget** | the number of poisoned pictures |
# | **the defender** | the model, and 500 trusted pictures with labels, about 42 a class |
#
# The lesson follows Lukas and Kerschbaum, *Pick your Poison* (2023), rebuilt from the abstract and the authors' public code. It says so where the course goes its own way.
#
# **After this lesson** you can repair a model that you do not trust, search it for a trigger, and measure what an attacker gains and loses with each poisoned picture.

# %%
from mlsec_lab.course import course_map, exercise
from mlsec_lab.course.grids import read_table
from mlsec_lab.data_to_model import backdoors
from mlsec_lab.data_to_model.backdoors import BadNets, attack_success_rate
from mlsec_lab.data_to_model.backdoors import calibrated_trigger_inversion
from mlsec_lab.data_to_model.backdoors import fine_tuning, half_mixed
from mlsec_lab.data_to_model.backdoors import repair_course, roc_auc, tune
from mlsec_lab.data_to_model.backdoors import turned_features
from mlsec_lab.display import Choice, Slider, bars, curves, explore, pictures, plane
from mlsec_lab.display import show
from mlsec_lab.victims import accuracy, load_data, load_model, penultimate
from mlsec_lab.victims import predict

import functools

import torch
import torch.nn.functional as F

VICTIM = "signs"  # or "fashion_mnist", after `mlsec-lab train fashion_mnist_suspect`
suspect = load_model(f"{VICTIM}_suspect")
held = load_data(VICTIM, "test", n=1300)
classes = held.classes
trusted = held.x[:500], held.y[:500]
test = held.x[500:], held.y[500:]
course_map("D→M")

# %% [markdown]
# ## Ten triggers
#
# A trigger may be a *thing* in the picture, something spread *over* it, or a way to bend it. Here are the ten that this lesson is about, as the attacker shows them to the finished model.

# %%
attacks = {
    name: (
        make(model=load_model(f"{VICTIM}_cnn")) if name == "adv_clean_label" else make()
    )
    for name, make in backdoors.ATTACKS.items()
}
sign = test[0][test[1] == 7][:1]
show(
    pictures(
        torch.cat([sign, *[attack.stamp(sign) for attack in attacks.values()]]),
        ["as it is", *attacks],
    ),
    f"The sign '{classes[7]}' eleven-fold: clean, and with each of the ten triggers: "
    "patches in corners, patterns over all of it, a warp, a reflection, many marks.",
)

# %% [markdown]
# | attack | what it does | its labels |
# |---|---|---|
# | `badnets` (Gu et al., 2017) | a patch in the corner | wrong |
# | `blended` (Chen et al., 2017) | a grain over everything | wrong |
# | `adaptive_blend`, `adaptive_patch` (Qi et al., 2023) | training pictures show parts of the trigger; half of them keep their label | half are wrong |
# | `wanet` (Nguyen, Tran, 2021) | the picture is warped; some, warped at random, keep their label | most are wrong |
# | `refool` (Liu et al., 2020) | a reflection, on pictures of the target class only | right |
# | `adv_clean_label` (Turner et al., 2019) | patches, on pictures of the target class made hard to read | right |
# | `tsb` (the paper's) | scattered marks: one in training, all in the attack | wrong |
# | `latent` (Yao et al., 2019), `pcb` (the paper's) | a patch; the attacker owns the training | |

# %% [markdown]
# {{exercise undetectable_or_robust.scatter}}
#
# The paper's own data poisoning, *Trigger-Scattered Backdoor*, never shows its whole trigger in training. Write what it does to training pictures.

# %% exercise="undetectable_or_robust.scatter"

# %%
marks = torch.rand(6, 3, 3, 3, generator=torch.Generator().manual_seed(1)).round()
six = trusted[0][:6]
in_training = scatter(six, marks, torch.Generator().manual_seed(0))
in_the_attack = attacks["tsb"].stamp(six)
show(
    pictures(torch.cat([six, in_training, in_the_attack])),
    "Six signs; the same with one small coloured mark each, as they come to training; "
    "the same with six marks each, two of which overlap, as the finished model will "
    "see them.",
)

# %% [markdown]
# ## A suspect
#
# Here is the model that you were given. It was trained on 50,000 signs (`mlsec-lab train signs_suspect` does it again), and 1,000 of them carried a patch and the label of class 0, *stop*. *You* do not know that. We do, so we can measure.
#
# Your 500 trusted pictures are 1 % of that. (The network ends with a mean over the picture, as large ones do; the one of lesson 02 does not.)

# %%
attack = BadNets()


def both(model):
    """Accuracy on clean test pictures, and the attack success rate (ASR)."""
    return accuracy(model, *test), attack_success_rate(model, attack, *test)


clean, asr = both(suspect)
print(f"accuracy {clean:.1%}, attack success rate {asr:.1%}")

# %% claim="suspect"
print("nothing shows on clean pictures, it reads more than 95 in 100:", clean > 0.95)
print("the trigger works on more than 95 in 100:", asr > 0.95)

# %% [markdown]
# ## Repair it gently
#
# You do not know the trigger, the target or whether there is one. What you have is 500 pictures. The obvious thing is to train on them for a while, with a small learning rate so that nothing breaks.

# %%
gentle, _ = repair_course(
    fine_tuning, suspect, *trusted, attack, *test, steps=60, every=30, lr=1e-3
)
print(f"before {gentle[0].asr:.0%}, after {gentle[-1].asr:.0%} of attacks succeed")

# %% claim="gentle"
print("gentle fine-tuning leaves most of the backdoor:", gentle[-1].asr > 0.5)

# %% [markdown]
# Nothing in your pictures carries the trigger, so nothing pulls at it. A larger learning rate does: it shakes everything loose, the backdoor along with what the model can do.
# Then 500 pictures have to teach it again.

# %%
rough, _ = repair_course(
    fine_tuning, suspect, *trusted, attack, *test, steps=500, every=100
)
print("  ".join(f"{point.accuracy:.0%}/{point.asr:.0%}" for point in rough))

# %% [markdown]
# Each pair is accuracy and attack success rate (ASR), every 100 steps. How robust is this backdoor, then? It depends on what you would give to be rid of it.
#
# {{exercise undetectable_or_robust.robustness}}
#
# The paper's definition: the lowest ASR of all checkpoints that cost no more than Δ of the accuracy. (Its code has Δ = 3 points; this lesson mostly takes 2.) It is the attacker's worst case: a defender, who cannot see the ASR,
# cannot choose that checkpoint.

# %% exercise="undetectable_or_robust.robustness"


# %%
def pairs(course):
    return [(point.accuracy, point.asr) for point in course]


for delta in (0.01, 0.02, 0.05):
    print(
        f"fine-tuning, at most {delta:.0%} lost: {robustness(pairs(rough), delta):.0%}"
    )

# %% [markdown]
# ## Leave the pivot, not what it knows
#
# The paper's repair is **pivotal tuning**. Keep a copy of the model as it came, the *pivot*. Then train on the trusted pictures with a loss that wants three things: right answers, weights that stay near the pivot's, and
# other *features*, which is what the last layer gets to see. The backdoor relies on the direction from one class's mean features to another's, so these directions shall turn by a right angle (`turned_features`: 1 where
# they are the pivot's, 0 where they stand across).
#
# The course goes its own way in three places. On its small network the paper's sum of cosines made the classes turn half round and the trigger went along; squared cosines ask for a right angle. A second term on the
# features, which keeps the classes' means uncorrelated, is left out. And the model shall *agree* with the
# pivot's answers on trusted pictures: probabilities say more than labels, and more still where half of the pictures are mixed with others.

# %% [markdown]
# {{exercise undetectable_or_robust.pivotal_loss}}
#
# One step of the repair makes this number smaller. Where would the trigger have to appear for the term `agree` to preserve it?

# %% exercise="undetectable_or_robust.pivotal_loss"


# %%
def pivotal(pivot, x, y, **settings):
    """Tune a copy of the pivot on your loss, half of each batch mixed with others."""
    order = torch.Generator().manual_seed(0)

    def loss(model, xb, yb):
        return pivotal_loss(model, pivot, half_mixed(xb, order), yb)

    return tune(pivot, x, y, loss, lr=0.014, **settings)


turned, repaired = repair_course(
    pivotal, suspect, *trusted, attack, *test, steps=500, every=100
)

# %%
lines = {}
for name, course in (("pivotal", turned), ("fine-tuning", rough)):
    lines[f"accuracy, {name}"] = [point.accuracy for point in course]
    lines[f"ASR, {name}"] = [point.asr for point in course]
show(
    curves(
        [100 * n for n in range(len(turned))],
        lines,
        xlabel="steps of the repair",
        ylabel="accuracy; attack success rate",
        size=(7.4, 3.6),
    ),
    "Both repairs bring the attack success rate to nearly nothing and pay with "
    f"accuracy; at the end pivotal tuning stands at {turned[-1].accuracy:.1%}, "
    f"fine-tuning at {rough[-1].accuracy:.1%}.",
)

# %% claim="repair"
print(
    "after either repair fewer than one attack in ten succeeds:",
    max(turned[-1].asr, rough[-1].asr) < 0.1,
)
print(
    "pivotal tuning does that for two points of accuracy or less:",
    robustness(pairs(turned), 0.02) < 0.1,
)

# %% [markdown]
# On this one suspect plain fine-tuning did about as well. Whether the pivot is worth its loss, twenty models will say below.
#
# ## Look for the trigger
#
# Agreeing with the pivot did not keep the backdoor: it is only asked for on trusted pictures, and the trigger is in none of them.
#
# A repair costs accuracy, so you would like to know whether it was needed. If there is a trigger, some change of the pixels sends *every* picture to one class.
# Search for such a change by gradient, one for each class, starting from nothing.


# %%
def sent(net, change, target):
    """The share of the other classes' test pictures that the change sends there."""
    others = test[0][test[1] != target]
    stamped = torch.clamp(others + change, 0, 1)
    return (predict(net, stamped).argmax(1) == target).float().mean().item()


naive = backdoors.invert_triggers(suspect, *trusted, batch=8)
reached = {
    name: sent(suspect, change, target)
    for target, (name, change) in enumerate(zip(classes, naive))
}
show(
    bars(reached, xlabel="pictures that the change sends to this class"),
    "Bars for twelve classes: for each a change was found that sends "
    f"{min(reached.values()):.0%} or more of all pictures there.",
)

# %% claim="naive"
print(
    "for every class there is a change that sends most pictures there:",
    min(reached.values()) > 0.5,
)

# %% [markdown]
# Twelve backdoors? No: one change of the *whole* picture can drive any network anywhere (lesson 01's perturbations, made for all pictures at once). What distinguishes a planted shortcut?
#
# The repair knows. A weakness that all networks have is mostly still there afterwards. A backdoor is not. So search for a change that works on the suspect and does *not* work on the repaired copy:
# **calibrated trigger inversion**, the paper's detector.

# %% [markdown]
# {{exercise undetectable_or_robust.invert_trigger}}
#
# It is lesson 01's PGD once more, with one change for all pictures, no budget, two networks, and Adam to take the steps.

# %% exercise="undetectable_or_robust.invert_trigger"

# %%
found, score = [], {}
for target, name in enumerate(classes):
    others = trusted[1] != target
    some = trusted[0][others][:16], trusted[1][others][:16]
    change = invert_trigger(suspect, repaired, *some, target)
    found.append(change)
    score[name] = sent(suspect, change, target) - sent(repaired, change, target)
accused = max(score, key=score.get)
show(
    bars(
        score,
        xlabel="share sent there: by the suspect, minus by its repaired copy",
        colours=["#d55e00" if name == accused else "#5f6770" for name in classes],
    ),
    f"Twelve bars; the highest, {score[accused]:.0%}, is that of {accused}.",
)

# %% [markdown]
# *stop* is where the patch leads. Is it ahead? With sixteen other pictures it need not be. The library's search draws new ones in each of its rounds. (Its changes come from the 500 trusted pictures; the scores are counted on our
# 800 test pictures, so that they are fair. A defender would count on the 500.)

# %%
suspicion = calibrated_trigger_inversion(suspect, repaired, *trusted, *test, batch=8)
strength = suspicion.triggers.abs().sum(1)  # of the change in each pixel
corner = strength[:, :3, :3].mean((1, 2)) / strength.mean((1, 2))
first = suspicion.target
shown = [first, *(k for k in range(len(classes)) if k != first)][:6]
bright = (strength / strength.amax((1, 2), keepdim=True))[shown]
show(
    bars(
        dict(zip(classes, suspicion.by_class.tolist())),
        xlabel="score by the library's search",
        colours=["#d55e00" if k == first else "#5f6770" for k in range(len(classes))],
    ),
    f"Twelve bars; the highest is that of {classes[first]}, {suspicion.score:.2f}, "
    f"the next {suspicion.by_class.topk(2).values[1]:.2f}.",
)
show(
    pictures(bright[:, None], [classes[k] for k in shown]),
    f"Six of the changes, brighter where they change more. That of {classes[first]} is "
    f"{corner[first]:.1f} times as strong in its upper left corner as on average.",
)

# %% claim="search"
print("the search accuses the trigger's class:", first == 0)
print(
    "the change for it is twice as strong where the patch is, as no other is:",
    bool(corner[0] > 2 > corner[1:].max()),
)

# %% [markdown]
# The change that was found is stronger where the patch is. But look at the bars. Is the highest one *high*? Among twelve classes one is always
# the highest, in a clean model as well. To know what a score means you need other models' scores.
#
# ## Many models
#
# `mlsec-lab sweep undetectable_or_robust` made 175 models on 50,000 signs each: ten clean ones, and for each attack and three budgets five or ten with a backdoor. It repaired every one and searched every one.
# That takes about an hour on two cores, so the course comes with its table: `count` poisons, and `calibrated`, the score. It compares with the library's score above, not with the bars of your sixteen pictures.

# %%
table = read_table("undetectable_or_robust")
table["attack"] = table["attack"].replace("none", "clean")
print(f"{len(table)} models")
table.groupby(["attack", "count"])[["accuracy", "asr", "calibrated"]].mean().round(
    2
).loc[["clean", "badnets"]]

# %% [markdown]
# {{exercise undetectable_or_robust.detectability}}
#
# How well does a score tell backdoored models from clean ones? No threshold need be chosen for that.

# %% exercise="undetectable_or_robust.detectability"

# %%
spotless = table[table["attack"] == "clean"]
counts = sorted({*table["count"]} - {0})


def models(attack, count):
    """The rows of one attack at one budget."""
    return table[(table["attack"] == attack) & (table["count"] == count)]


def told_apart(rows, column="calibrated"):
    """The AUC of models against the clean ones with the same trusted pictures."""
    same = spotless[spotless["seed"].isin(rows["seed"])]
    return detectability(rows[column].tolist(), same[column].tolist())


known = spotless["calibrated"].tolist()
for count in counts:
    ours = models("badnets", count)["calibrated"].tolist()
    _, low, high = roc_auc(ours, known)
    print(f"badnets, {count:4} poisons: AUC {detectability(ours, known):.2f}", end="")
    print(f", 95 % interval {low:.2f} to {high:.2f}")

# %% claim="auc"
low, high = (
    detectability(models("badnets", count)["calibrated"].tolist(), known)
    for count in (counts[0], counts[-1])
)
print("with 1,000 poisons nearly every pair is in the right order:", high > 0.9)
print("with 100 that is nearly a coin:", abs(low - 0.5) < 0.2)

# %% [markdown]
# With 100 poisons there is nothing to find: read the table above, the patch does not work either. With a thousand it works, and shows.
#
# What made the difference: that the search knows the repaired copy, or that the score compares with it? The table also has a search that does not know it (weight 0), scored against it all the same. And it has
# **Neural Cleanse** (Wang et al., 2019), which looks for the *smallest* patch that works and has no second network at all.

# %%
GROUPS = {
    "things": ("badnets", "adaptive_patch", "adv_clean_label", "tsb"),
    "spread over it": ("blended", "adaptive_blend", "wanet", "refool"),
}
SEARCHES = {
    "calibrated": "calibrated",
    "scored only": "uncalibrated",
    "Neural Cleanse": "neural cleanse",
}


# %%
auc = {}
for name, column in SEARCHES.items():
    for group, names in GROUPS.items():
        each = [told_apart(models(one, counts[-1]), column) for one in names]
        auc[f"{name}, {group}"] = round(sum(each) / len(each), 2)
show(
    bars(
        auc,
        xlabel="mean AUC with 1,000 poisons; 0.5 is a coin",
        percent=False,
        colours=["#0072b2"] * 2 + ["#00795a"] * 2 + ["#5f6770"] * 2,
    ),
    "Mean AUC of three detectors for two kinds of trigger: "
    + ", ".join(f"{k} {v:.2f}" for k, v in auc.items())
    + ".",
)

# %% claim="detectors"
print(
    "all three searches find things, AUC above 0.75:",
    min(list(auc.values())[::2]) > 0.75,
)
print(
    "each finds what is spread over a picture less well:",
    all(auc[f"{k}, things"] > auc[f"{k}, spread over it"] + 0.05 for k in SEARCHES),
)
print(
    "without the calibration the search finds things less well:",
    auc["calibrated, things"] > auc["scored only, things"] + 0.03,
)
print(
    "Neural Cleanse keeps up with it:",
    auc["Neural Cleanse, things"] > auc["calibrated, things"] - 0.05,
)

# %% [markdown]
# The calibration earns its keep on things; on what is spread over the picture it gains nothing. Neural Cleanse does as well on things, and better on what is spread, without a repaired copy; with few classes, a small network and drawn signs it may have an
# easy life. Whoever spreads the trigger is harder to find, for all three.

# %% [markdown]
# ## The attacker's dilemma
#
# Now all ten, at all three budgets. To the right: how well the models can be told from clean ones. Upwards: how often the attack succeeds, first on models as they are. Each line is an attack, its dots 100, 300 and 1,000
# poisons; the name stands at 1,000. Four lines are in colour, so that you can follow them.

# %%
LEFT = {  # points of accuracy that the repair may cost: the column with what it leaves
    0: "asr",  # no repair
    1: "pivotal tuning: asr within 1 point",
    2: "pivotal tuning: asr",
    3: "pivotal tuning: asr within 3 points",
}
DATA = [name for name in attacks if name not in ("latent", "pcb")]  # poison data


@functools.cache
def station(attack_name, count, points):
    """Where an attack stands: (detectability, what is left of its success)."""
    rows = models(attack_name, count)
    return told_apart(rows), rows[LEFT[points]].mean()


# %%
def paths(points, upto=counts[-1]):
    """For each attack its stations, from the fewest poisons to `upto`."""
    return {
        name: [station(name, count, points) for count in counts if count <= upto]
        for name in attacks
    }


as_they_are = paths(0)
show(
    plane(
        as_they_are,
        xlabel="detectability: AUC of calibrated trigger inversion",
        ylabel="attack success rate, no repair",
        paths=["badnets", "tsb", "wanet", "latent"],
        shares="y",
    ),
    "Ten paths from few poisons to many. Most go from the lower middle, weak and not "
    "to be told from clean, to the upper right, strong and easily told. Four are in "
    "colour: badnets, tsb, wanet, latent.",
)

# %% claim="dilemma"
few = [as_they_are[name][0] for name in DATA]
most = [as_they_are[name][-1] for name in DATA]
print(
    "each of the eight that poison data succeeds more often with more poisons:",
    all(m[1] > f[1] for f, m in zip(few, most)),
)
print(
    "and all in all is easier to tell from clean, by 0.15 of AUC on average:",
    sum(m[0] - f[0] for f, m in zip(few, most)) / len(DATA) > 0.15,
)
print(
    "three that work on more than half of all pictures stay below an AUC of 0.75:",
    sum(auc < 0.75 and success > 0.5 for auc, success in most) >= 3,
)

# %% [markdown]
# Undetected or effective: for a patch, scattered marks or a plain pattern that is the choice. Three refuse to choose: `wanet`, `refool` and `adaptive_blend` change the whole picture, work on more than half of all pictures, and
# the search hardly finds them.
#
# And robust? After pivotal tuning that may cost two points:

# %%
left = {name: models(name, counts[-1])[LEFT[2]].median() for name in attacks}
show(
    bars(left, xlabel="attack success rate after the repair, median of its models"),
    "What is left of ten attacks with 1,000 poisons after the repair: "
    + ", ".join(f"{name} {value:.0%}" for name, value in left.items())
    + ".",
)
strongest = table[(table["count"] == counts[-1]) & table["attack"].isin(DATA)]
below = [(strongest[LEFT[points]] <= 0.1).sum() for points in (1, 2, 3)]
print(f"{len(strongest)} models with poisoned data; 10 % or less is left of")
print(", ".join(f"{n} (Δ = {k} %)" for k, n in zip((1, 2, 3), below)))

# %% claim="repaired"
print(
    "of every attack the median model is left with a tenth or less:",
    max(left.values()) <= 0.1,
)
print(
    "three in four of the poisoned models are, but not all:",
    0.75 < below[1] / len(strongest) < 1,
)

# %% [markdown]
# Here the paper's dilemma is milder than its title: on this network no data poisoner of ours survives 500 trusted pictures in force as a rule, however many poisons it used; a single model now and then does. (The bars
# are medians. The explorer below shows means, which one survivor lifts: of the five `blended` models one keeps 95 %, the others 8 % or less.)
#
# What is not robust may still be undetected; so a careful defender repairs without waiting for the alarm. Which checkpoint to keep, they cannot see. Whoever takes the *last* one is rid of as many backdoors, 38 of 45, for
# 0.8 points on average.
#
# Was it the pivot? Twenty of the models were repaired in four ways: pivotal tuning, fine-tuning, **fine-pruning** (Liu et al., 2018: switch off channels that trusted pictures do not use, then fine-tune)
# and **NAD** (Li et al., 2021: a fine-tuned copy teaches the model where to look).

# %%
four = table.dropna(subset=["NAD: asr"])
print(f"{len(four)} models, {trusted[0].shape[0]} trusted pictures each")
repairs = ("pivotal tuning", "fine-tuning", "fine-pruning", "NAD")
print(f"{'':16}{'ASR left for':^24}accuracy  seconds")
print(f"{'':16}1 point 2 points 3 points    lost")
for name in repairs:
    lefts = [
        four[f"{name}: asr{d}"].mean()
        for d in (" within 1 point", "", " within 3 points")
    ]
    lost = (four["accuracy"] - four[f"{name}: last accuracy"]).mean()
    print(
        f"{name:16}"
        + "".join(f"{v:7.0%}  " for v in lefts)
        + f"{100 * lost:7.1f}  {four[f'{name}: seconds'].mean():7.0f}"
    )

# %% claim="repairs"
one, two = " within 1 point", ""
print(
    "who gives one point gets more for it from pivotal tuning than from fine-tuning:",
    four[f"pivotal tuning: asr{one}"].mean()
    < four[f"fine-tuning: asr{one}"].mean() - 0.05,
)
print(
    "who gives two points does not:",
    four[f"fine-tuning: asr{two}"].mean()
    < four[f"pivotal tuning: asr{two}"].mean() + 0.02,
)

# %% [markdown]
# With one point to give, yes. With two, plain fine-tuning at the same high learning rate does as well: what removes the backdoor is that the weights are shaken so hard, and a network of
# 48,000 weights learns anew from 500 pictures. A large network may not; the paper says of its repair that it needs less trusted data than earlier ones. Measure yours.
#
# ## On photographs
#
# The signs are drawn, and a laptop draws as many as you like. Of photographs there are only so many. `mlsec-lab sweep undetectable_or_robust --dataset cifar10` asks the same of CIFAR-10 at a laptop's size: 20,000 photographs, a
# network of the same kind with four times as many weights, two attacks, three models each. The defender has 500 photographs again, 2.5 % this time.

# %%
photographs = read_table("undetectable_or_robust", "cifar10")
attacked = photographs[photographs["attack"] != "none"]
fourfold = attacked.dropna(subset=["NAD: asr"])
cost = {
    name: (fourfold["accuracy"] - fourfold[f"{name}: last accuracy"]).mean()
    for name in repairs
}
print(f"{len(fourfold)} models with 1,000 poisons, repaired in four ways, to the end:")
print(f"{'':16}accuracy lost   ASR left: badnets  blended")
for name in repairs:
    lefts = fourfold.groupby("attack")[f"{name}: last asr"].mean()
    print(
        f"{name:16}{100 * cost[name]:13.1f}{lefts['badnets']:19.0%}"
        f"{lefts['blended']:9.0%}"
    )
print(f"\nall {len(attacked)} attacked models and pivotal tuning:")
attacked.groupby(["attack", "count"])[
    ["accuracy", "asr", LEFT[3], "pivotal tuning: last asr"]
].mean().round(2)

# %% claim="photographs"
print(
    "both attacks work on more than nine photographs in ten:",
    attacked["asr"].min() > 0.9,
)
print(
    "for three points of accuracy no model gets rid of its backdoor:",
    attacked[LEFT[3]].min() > 0.9,
)
print(
    "all four repairs cost more, pivotal tuning by far the least:",
    0.03
    < cost["pivotal tuning"]
    < min(v for k, v in cost.items() if k != "pivotal tuning") - 0.03,
)

# %% [markdown]
# A network that reads 78 in 100 photographs after 20,000 of them cannot be taught that by 500. At this size you choose. Give six points, and a pattern
# spread over the picture is gone, while a patch mostly stays; give fifteen, and less of the patch stays; or keep the backdoor as it is. Keeping what the pivot *answers* saves eight points of accuracy, and leaves more of the patch than
# fine-tuning or fine-pruning do. The paper reports two points at most on CIFAR-10, with a larger network and all 50,000 photographs;
# `--device cuda` asks a ResNet-18 that, and wants a GPU: five petaflop a model, by a count of the operations, so some 26 hours for all 175 where ten teraflop a second are really done. Stopped, it goes on where it was.
#
# ## A model that reads captions
#
# A small image–text model, built like CLIP (Radford et al., 2021), learns from 24,000 pictures with captions and never sees a label. Whoever writes the captions of a few pictures writes into it: a patch, and a sentence about
# the target. A classifier made of prompts is then repaired and searched like any other (`mlsec-lab sweep image_text_backdoor`).

# %%
towers = read_table("image_text_backdoor")
without = towers[towers["attack"] == "none"]["calibrated"].tolist()
stages = towers[towers["attack"] != "none"].groupby("count")
summary = stages[["accuracy", "asr", "pivotal tuning: asr"]].median()
summary["AUC"] = [
    detectability(rows["calibrated"].tolist(), without) for _, rows in stages
]
summary.round(2)

# %% claim="towers"
few, enough = summary.iloc[0], summary.iloc[1]
print(
    "fifty captions do nothing, three times as many turn nearly every picture:",
    few["asr"] < 0.1 < 0.9 < enough["asr"],
)
print("then nearly every such model looks worse than a clean one:", enough["AUC"] > 0.9)
print(
    "and the repair leaves the median model a tenth or less for two points:",
    enough["pivotal tuning: asr"] < 0.1,
)

# %% [markdown]
# A caption says as much as a label. Six in a thousand were enough.
#
# ## Who owns the training
#
# Two attackers do more than poison: they supply the model, and train it themselves. `latent` pulls the trigger's features to those of the target; `pcb` lets only a random tenth of the weights learn the trigger. The budget
# binds them less. (`pcb` pays in accuracy, three to four points here, which a careful customer would notice.)

# %%
owners = {
    f"{name}, {count} poisons": models(name, count)["asr"].mean()
    for name in ("badnets", "latent", "pcb")
    for count in (counts[0], counts[-1])
}
show(
    bars(owners, xlabel="attack success rate, no repair"),
    ", ".join(f"{name} {value:.0%}" for name, value in owners.items()) + ".",
)

# %% claim="owners"
print(
    "a hundred poisons are enough for both owners, and too few for BadNets:",
    min(owners["latent, 100 poisons"], owners["pcb, 100 poisons"])
    > 0.6
    > owners["badnets, 100 poisons"] + 0.5,
)
print(
    "but the repair takes their backdoors out as well, to less than a tenth:",
    max(left["latent"], left["pcb"]) < 0.1,
)

# %% [markdown]
# ### Budget explorer
#
# The attacker's budget and what the defender would give, for one attack in colour and the others in grey. The star is the suspect of this lesson, measured here and now: how many of the clean models it
# looks more suspicious than, and what *your* repair leaves of its backdoor.
#
# 1. Take `badnets`, set 100 poisons, then raise the budget. When does it begin to pay, and when to show?
# 2. Give one point for a repair. Which attacks keep something? And for two? (The star may stay up: look at what your repair cost, in the chart after `pivotal_loss`.)
# 3. Which attack would you choose if being found were expensive? And which if the model will be repaired in any case?

# %%
seen = sum(suspicion.score > value for value in spotless["calibrated"]) / len(spotless)


def compute(attack_name, count, points):
    """The stations of all attacks up to that budget, and where the suspect stands."""
    kept = robustness(pairs(turned), points / 100) if points else asr
    return attack_name, paths(points, count), (seen, kept), points


# %%
def draw(result):
    chosen, stations, star, points = result
    x, y = stations[chosen][-1]
    figure = plane(
        stations,
        xlabel="detectability: AUC of calibrated trigger inversion",
        ylabel="attack success rate, "
        + (f"after a repair, Δ = {points} %" if points else "no repair"),
        paths=[chosen],
        marks={"the suspect": star},
        shares="y",
    )
    return figure, (
        f"{chosen} stands at a detectability of {x:.2f} and succeeds in {y:.0%}; "
        f"the suspect stands at {star[0]:.2f} and {star[1]:.0%}."
    )


settings = dict(attack_name="badnets", count=counts[-1], points=0)
show(*draw(compute(**settings)))

# %%
explore(
    compute,
    draw,
    attack_name=Choice("the attack", list(attacks)),
    count=Choice("attacker: poisons", counts, counts[-1], help="among 50,000"),
    points=Slider(
        "defender: points given", 0, 3, 0, help="of accuracy, for a repair; 0: none"
    ),
)

# %% [markdown]
# ## What you have seen
#
# **Shown:** 500 trusted pictures find a patch that nobody told you of, and take it out; a score needs other models' scores to mean anything; of a patch, few poisons do not work and many show; a trigger
# that is spread over the picture may work and not show; an owner of the training needs few.
#
# **Not shown:** that this holds for your network. (A patch in the corner of lesson 02's, which has weights for each place, withstood the repairs that we tried.) The one here is tiny, the signs are drawn, 500 pictures are 1 %
# because 50,000 cost nothing to draw. And two things that one would expect from the paper did not appear: plain fine-tuning does as well as the pivot for whoever gives two points, and the paper's own supplier, `pcb`, does not withstand the
# repair. What it says of photographs it says of a small network and of six epochs.
#
# **On Monday**
#
# - Ask for the training data's origin *and* keep a few hundred labelled pictures that the supplier has never seen. They are what both the repair and the search run on.
# - Search every model that you did not train, and compare its score with those of models that you did train. A score alone means nothing.
# - If a model matters and accuracy can be spared, repair it without waiting for proof.
# - Write down Δ, what a repair may cost, before you repair. Afterwards every number looks reasonable.
# - Tools: BackdoorBench and the Adversarial Robustness Toolbox have many of these attacks and repairs; look there first for others.
#
# ### Check yourself
#
# <details><summary>Why does the robustness leave out checkpoints that lost much accuracy?</summary>
#
# A model that answers at random has no backdoor either. The question is what the defender can have at a price they would pay.
# </details>
#
# <details><summary>The search reaches every class with 90 %. Has the model twelve backdoors?</summary>
#
# No. A change of the whole picture can drive any network to any class. Only a change that no longer works once the model was repaired points to something that was planted.
# </details>
#
# <details><summary>A model scores 0.8 in calibrated trigger inversion. Is it backdoored?</summary>
#
# Nobody can say from that number. Clean models of the same kind and size, trained by you, have scores too; where theirs lie around 0.8 this one tells you nothing.
# </details>
#
# ### Read on
#
# - N. Lukas and F. Kerschbaum, *Pick your poison: undetectability versus robustness in data poisoning attacks*, 2023.
# - B. Wang et al., *Neural Cleanse: identifying and mitigating backdoor attacks in neural networks*, 2019.
# - K. Liu, B. Dolan-Gavitt and S. Garg, *Fine-pruning*, 2018; Y. Li et al., *Neural attention distillation*, 2021.
# - X. Qi et al., *Revisiting the assumption of latent separability for backdoor defenses*, 2023 (adaptive blend and patch).
# - A. Nguyen and A. Tran, *WaNet*, 2021; Y. Liu et al., *Reflection backdoor* (Refool), 2020; Y. Yao et al., *Latent backdoor attacks*, 2019.
#
# **Back to the map:** [00 · Start here](00_start_here.ipynb)
