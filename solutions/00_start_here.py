# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 00 · Start here
#
# {{facts}}
#
# A camera reads a stop sign. Somebody changes its picture so little that you would still read STOP without hesitation, and the
# camera reads *speed limit 80*. In two minutes you will have done that yourself; the rest of the course is about how, about everything else
# that can go wrong between data and models, and about what helps.
#
# **After this lesson** you can say what an attacker wants, knows and may do; measure how large a change is and how often an
# attack succeeds; and find your way around the course. Run a cell with **Shift + Enter**, or all of them with *Run → Run All Cells*.

# %%
from mlsec_lab.course import course_map, exercise
from mlsec_lab.data_to_model.evasion import pgd
from mlsec_lab.display import Slider, curves, explore, pictures, readings, show
from mlsec_lab.victims import load_data, load_model, predict

import torch

x, y, classes = load_data("signs", "test", n=800)
model = load_model("signs_cnn")
STOP, EIGHTY = classes.index("stop"), classes.index("speed limit 80")
stops = x[(y == STOP) & (predict(model, x).argmax(1) == STOP)]
show(
    pictures(stops[:12], columns=12, size=0.8),
    "Twelve stop signs as a camera might see them, all read correctly by the model.",
)

# %% [markdown]
# ## A stop sign that reads 80
#
# The pictures above are drawn by the course itself, with the bad light and the blur of real photographs. The **model** is a small
# neural network that read all of them right. Now we allow ourselves to change each pixel by at most **ε** (epsilon), and ask an
# attack, which lesson 01 takes apart, for a picture that the model reads as *speed limit 80*.

# %%
picture = stops[4:5]


def compute(eps_255):
    """The picture, its attacked version, and what the model makes of both."""
    attacked = pgd(
        model,
        picture,
        torch.tensor([EIGHTY]),
        eps=eps_255 / 255,
        steps=20,
        targeted=True,
        early_stop=False,
    )
    both = torch.cat([picture, attacked])
    return both, predict(model, both).softmax(dim=1), eps_255


# %% picture="stop_reads_80"
def draw(result):
    both, probabilities, eps_255 = result
    read = [classes[k] for k in probabilities.argmax(1)]
    alt = (
        f"With ε = {eps_255}/255 the stop sign that was read as {read[0]} "
        f"is {'still ' * (read[0] == read[1])}read as {read[1]}, "
        f"at {probabilities[1].max():.0%} confidence."
    )
    return (
        readings(
            both,
            probabilities,
            classes,
            ["as it was", f"changed by at most {eps_255}/255"],
        ),
        alt,
    )


show(*draw(compute(eps_255=8)))

# %% [markdown]
# Look from the left picture to the right one. A change of 8/255 is about three hundredths of the way from black to white.
#
# ### Budget explorer
# Below is the same thing with the budget on a slider. Drag it, or click it and use the arrow keys; every picture is computed
# anew. How little is enough?

# %%
explorer = explore(
    compute,
    draw,
    eps_255=Slider("ε, in 1/255", 0, 16, 2, help="how far each pixel may move"),
)
explorer

# %% [markdown]
# One picture may be luck. Here are all the stop signs we have, about sixty, and the share of them that is read as 80.

# %%
budgets = [0, 1, 2, 4, 8, 16]
wanted = torch.full((len(stops),), EIGHTY)
shares = []
for eps_255 in budgets:
    attacked = pgd(model, stops, wanted, eps=eps_255 / 255, steps=20, targeted=True)
    shares.append((predict(model, attacked).argmax(1) == EIGHTY).float().mean().item())
show(
    curves(
        budgets,
        {"read as 80": shares},
        xlabel="ε, in 1/255",
        ylabel="share of stop signs",
    ),
    "The share of stop signs that is read as 80 grows with the budget, "
    f"from {shares[0]:.0%} at 0 to {shares[-1]:.0%} at 16/255.",
)

# %% claim="stop_reads_80"
print("without a change none of these stop signs reads 80:", shares[0] == 0)
print("at 8/255 more than half of them do:", shares[4] > 0.5)
print(
    "a larger budget never helps fewer of them:",
    all(a <= b for a, b in zip(shares, shares[1:])),
)

# %% [markdown]
# Lines like these, that end in *True*, are the lesson's **claims**: what the text says, checked on your own machine each time.
#
# ## The map
#
# Machine learning has two things worth attacking or attacking with: **data** and **models**. What comes from one can be turned
# against the other, in four directions, and what leaks in one direction is what attacks in the next: it is a loop. You have just
# walked one arrow of it, from *data* (a picture) to *model* (its answer). **Click a lesson to open it.**

# %%
course_map()

# %% [markdown]
# The four directions are those of a survey of the field (Wang & Luan, 2026); the OWASP foundation sorts the same threats into ten
# classes, from ML01 to ML10, which every lesson names. Such maps are conventions. The survey's own versions do not agree on where
# *jailbreaks* belong, Data → Model in one and Data → Data in another: what is typed is data, what gives way is a model, and what
# comes out is data again. The course puts them under Data → Model, by what gives way.

# %% [markdown]
# ## Is this computer ready?
#
# Everything runs on an ordinary laptop, without a GPU and without a network. If a line below begins with `NO`, it says what to do.

# %% machine=true
from mlsec_lab.course.doctor import report

print(report())

# %% [markdown]
# ## How exercises work
#
# An exercise is a function with a hole in it: `raise NotImplementedError(...)`. Replace that line with your own, run the cell, and run
# the check below it. There are three outcomes, and none of them stops the lesson:
#
# - **not attempted**: the hole is still there, and the lesson goes on with a reference solution;
# - **not yet**: something does not hold: which property, what was expected, what came, and one next step;
# - **passed**: the lesson goes on with *your* function.
#
# A check looks at behaviour on fresh inputs, not at how you wrote it. In a cell of your own (**B** adds one below), `exercise("start_here.linf_distance").hint()` gives
# a hint, a further one each time, and `.solution()` shows one way to write it. Your notebook is your own copy: nothing overwrites it.
#
# ## Four words
#
# Before asking whether something is secure, say *against whom*. A **threat model** is four answers:
#
# | word | question | a moment ago |
# |---|---|---|
# | **goal** | what does the attacker want? | this stop sign is to read 80 |
# | **knowledge** | what do they know? | everything: the network and its weights |
# | **access** | what can they touch? | the picture, before the model sees it; not the model |
# | **budget** | how much may they change, ask or spend? | each pixel by at most ε |
#
# And one more: **success**, the number that tells whether the goal was reached. The exercises give you the rulers for budget and success.

# %% [markdown]
# {{exercise start_here.linf_distance}}
#
# The budget above limits the change of *every* pixel. The ruler that belongs to it is called **L∞** ("L infinity"): the largest change
# of any pixel, whatever happens to the others. Return it for each picture of a batch. A batch of N pictures with C colour
# channels, H rows and W columns is a tensor of shape `[N, C, H, W]`.

# %% exercise="start_here.linf_distance"

# %% [markdown]
# {{exercise start_here.l2_distance}}
#
# A sticker is another kind of change: a few pixels, by a lot. The ruler for *how much in all* is **L2**, the Euclidean length: square every
# change, add them up for each picture, take the root.

# %% exercise="start_here.l2_distance"

# %% [markdown]
# Two attacks can look the same to one ruler and far apart to the other. We change a grey picture in two ways.

# %%
grey = torch.full((1, 3, 32, 32), 0.5)
everywhere = grey + 8 / 255
sticker = grey.clone()
sticker[:, :, 15:17, 15:17] = 1.0
show(
    pictures(
        torch.cat([grey, everywhere, sticker]),
        ["grey", "everywhere by 8/255", "a sticker"],
        columns=3,
        size=1.6,
    ),
    "A grey picture, the same slightly lighter everywhere, "
    "and the same with a small white square in the middle.",
)
for name, changed in (("everywhere by 8/255", everywhere), ("a sticker", sticker)):
    print(
        f"{name:20} L∞ {linf_distance(grey, changed).item():.2f}",
        f"  L2 {l2_distance(grey, changed).item():.2f}",
    )

# %% claim="two_rulers"
print(
    "in L∞ the sticker is more than ten times as far:",
    bool(linf_distance(grey, sticker) > 10 * linf_distance(grey, everywhere)),
)
print(
    "in L2 both are equally far, to within two in a hundred:",
    bool((l2_distance(grey, sticker) / l2_distance(grey, everywhere) - 1).abs() < 0.02),
)

# %% [markdown]
# Neither ruler is the true one. A budget is part of the threat model: a defence that holds against a change everywhere may fall to a
# sticker. Nor is either of them what an eye sees; they are what can be computed and agreed on.
#
# {{exercise start_here.attack_success_rate}}
#
# Models are wrong now and then without anybody's help. An attacker gets no credit for that, so **attack success rate** counts only
# pictures that were read right before: of these, the share that is read wrong afterwards.

# %% exercise="start_here.attack_success_rate"

# %% [markdown]
# Now all twelve classes at once. Here the attacker is content with *any* wrong answer, and we compare your rate with the naive
# one that counts every wrong answer.

# %%
x200, y200 = x[:200], y[:200]
attacked = pgd(model, x200, y200, eps=2 / 255, steps=20)
before, after = predict(model, x200).argmax(1), predict(model, attacked).argmax(1)
rate, naive = (
    attack_success_rate(y200, before, after),
    (after != y200).float().mean().item(),
)
print(
    f"attack success rate at 2/255: {rate:.1%};",
    f"counting every wrong answer: {naive:.1%}",
)

# %% claim="success_counts"
print(
    "the attack keeps to its budget:",
    bool((linf_distance(x200, attacked) <= 2 / 255 + 1e-6).all()),
)
print("even 2/255 fools the model on some signs that it had read right:", 0.05 < rate)
print(
    "counting mistakes that were there before never makes the number smaller:",
    naive >= rate,
)

# %% [markdown]
# ## What you have seen
#
# **Shown:** a model that reads nearly every sign can be steered by changes that hardly show; how much is a question of
# budget; a rate needs a careful definition before it means anything.
#
# **Not shown:** that this works on the road. This attacker held the model's weights and wrote into the picture itself. Printed
# stickers, other cameras and unknown models are harder, and also possible; lesson 01 measures what an attacker without the weights
# can do, and lesson 12 how to get a copy of them.
#
# **On Monday:** for one model that you are responsible for, write down goal, knowledge, access and budget of the attacker you mean. Then
# ask which number would tell you that they succeeded, and whether you measure it.
#
# ### Check yourself
#
# <details><summary>A colleague reports "our attack reaches 35 %" on a model that is wrong on 30 % of clean inputs. What do you ask?</summary>
#
# Whether inputs that were wrong before were counted. If they were, the attack may have changed the answer of very few.
# </details>
#
# <details><summary>Is a model that withstands L∞ changes of 8/255 safe from stickers?</summary>
#
# Nothing follows. A sticker moves a few pixels far outside that budget; it is another threat model and needs its own measurement.
# </details>
#
# <details><summary>Why does the course draw its own signs?</summary>
#
# So that it runs without a network, gives everybody the same pictures, and can make as many as an experiment needs. Lesson 01
# runs on photographs of real signs by changing one word, where you have them.
# </details>
#
# ### Read on
#
# - Wang and Luan, *AI Security in the Foundation Model Era: A Comprehensive Survey from a Unified Perspective*, 2026 (arXiv 2603.24857).
# - C. Szegedy et al., *Intriguing properties of neural networks*, 2014: where such pictures were first found for deep networks.
# - B. Biggio and F. Roli, *Wild patterns: ten years after the rise of adversarial machine learning*, 2018: the history, and threat models.
# - OWASP Machine Learning Security Top 10: the ten classes that the lessons name.
#
# **Next:** [01 · Evasion](01_evasion.ipynb)
