# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 12 · Theft
#
# {{facts}}
#
# OWASP calls it *model theft*. A model that answers strangers also teaches them. Here a sign reader stands behind a real HTTP service, with keys, a log and a rate
# limit; you have a key and no weights, and walk away with a copy. Then you are the owner: you say less, look for callers who ask like thieves, and put a mark into the model
# by which you would know it again.
#
# | the threat model | of this lesson |
# |---|---|
# | **goal** | a model that answers as the victim does; then, with its help, to fool the victim |
# | **knowledge** | the classes and the size of the pictures; no weights, no training data, no labels |
# | **access** | answers of the service: all probabilities, rounded ones, or the label alone |
# | **budget** | queries: each costs money, and 50 an hour are allowed |
#
# **After this lesson** you can copy a model from its answers, say what agreement costs in queries and in days, choose what to ask, judge a stream of
# queries by its distances, and prove with a p-value whose model a file is; and when you cannot.

# %%
from mlsec_lab.course import course_map, exercise
from mlsec_lab.data_to_model import evasion
from mlsec_lab.display import Choice, Slider, bars, curves, explore, grid, pictures
from mlsec_lab.display import show
from mlsec_lab.display.figures import GREEN, GREY, ORANGE, RED
from mlsec_lab.model_to_model import theft
from mlsec_lab.model_to_model.theft import normality
from mlsec_lab.victims import accuracy, load_data, load_model, predict, small_cnn, train
from mlsec_lab.victims.client import RemoteModel, ServiceError
from mlsec_lab.victims.clock import Clock
from mlsec_lab.victims.service import serve
from mlsec_lab.victims.training import varied

import math

import torch
import torch.nn.functional as F

VICTIM = "signs"  # or "gtsrb" or "fashion_mnist", where their data can be had
SEED = 0
x, y, classes = load_data(VICTIM, "test", n=7400)
x = (x * 255).round() / 255  # as an image file holds them, and as they travel
model = load_model(f"{VICTIM}_cnn")
shape = tuple(x.shape[1:])
x_test, y_test = x[:1000], y[:1000]
mine = x[1000:5000]  # the thief's pictures: no labels come with them
customers = x[5000:].split(200)  # what honest customers will ask
course_map("M→M")

# %% [markdown]
# The service is that of lesson 11. It counts *pictures*, not requests, and allows 50 an hour for each key. Its clock is moved by hand, so that days pass while you watch:
# `RemoteModel` waits on it whenever the limit is used up.
#
# (With `VICTIM = "gtsrb"` or `"fashion_mnist"` the lesson runs on photographs, and what it calls signs are those. Three claims are not sure to hold there: that pictures of other things teach a good deal, and, with
# clothes, that the copy's FGSM fools the victim twice as often as an unrelated network's and that the honest car is stopped.)

# %%
clock = Clock()
offer = dict(shape=shape, keys=["my-key"], limit="50/hour", clock=clock)
service = serve(model, classes, **offer, name="theft").start()
victim = RemoteModel(service.url, key="my-key", dtype="uint8", clock=clock)
print("classes:", ", ".join(victim.classes[:4]), "…")
answers = victim(x_test[:2])
for row in answers.exp():
    sure, which = row.topk(3)
    print(*(f"{classes[k]} {p:.2g}" for p, k in zip(sure, which)), "…", sep=", ")

# %% [markdown]
# That is all you get: for each picture a probability for every class, here the highest three. How will you know that a copy is good? Accuracy would need true labels, and it is the wrong question: a copy
# should be wrong where the victim is wrong.
#
# {{exercise theft.agreement}}
#
# **Agreement** is the share of pictures on which copy and victim choose the same class. We measure it on 1,000 pictures that no copy learns from.

# %% exercise="theft.agreement"

# %% [markdown]
# ## Learning from answers
#
# A **knockoff** (Orekondy et al., 2019) is made in two steps: ask about many pictures once; train a fresh network on the answers. An answer is worth more than a label. If the
# victim says *30: 0.93, 80: 0.06, 50: 0.01*, it tells which classes it finds alike. Often it says less: above, all but the first number are nearly 0. Dividing logits by a **temperature**
# before the softmax brings the small ones out (Hinton et al., 2015): at temperature 3, a probability of 0.00000001 becomes about 0.002.
#
# The loss is the cross-entropy between the two softened rows, the victim's and the copy's.
#
# {{exercise theft.copy_step}}
#
# `RemoteModel` returns the logarithms of probabilities, which are logits as good as any.

# %% exercise="theft.copy_step"


# %%
def steal(ask, pictures, epochs, width=8, temperature=3.0):
    """Ask once about each picture, and train a network of your own on the answers."""
    start = small_cnn(shape[0], len(classes), size=shape[1], width=width, seed=SEED + 1)
    return theft.knockoff(
        ask,
        pictures,
        start,
        step=copy_step,
        epochs=epochs,
        temperature=temperature,
        seed=SEED,
    )


ask = theft.answering(model)  # says what the service says, without the wait
same = (ask(x_test[:2]).exp() - answers.exp()).abs().max()
print(f"largest difference between the service's answers and these: {same:.6f}")

# %% [markdown]
# The cheapest question is noise: it needs no pictures at all, and no two are alike. What do you expect of a copy that has only ever seen noise?

# %%
noise = theft.random_noise(1000, shape, seed=SEED)
noise = (noise * 255).round() / 255
sure, said = ask(noise[:6]).exp().max(dim=1)
titles = [f"{classes[k]}, {p:.0%}" for k, p in zip(said, sure)]
show(
    pictures(noise[:6], titles),
    "Six pictures of noise, and what the victim says of each, with its probability.",
)
reached = {"noise, 1,000": agreement(steal(ask, noise, 4), ask, x_test)}
print(f"agreement: {reached['noise, 1,000']:.0%}")

# %% claim="noise"
print(
    "from 1,000 answers about noise comes no copy, agreement below a quarter:",
    reached["noise, 1,000"] < 0.25,
)

# %% [markdown]
# The victim answers, and the copy learns what it does on noise. That says nothing about signs. Next, pictures of *something*: small pieces of two photographs, a temple and a flower, in which there is no sign.

# %%
pieces = theft.photograph_pieces(1000, shape, seed=SEED)
reached["photographs, 1,000"] = agreement(steal(ask, pieces, 8), ask, x_test)
labels = predict(model, pieces[:6]).argmax(dim=1)
show(
    pictures(pieces[:6], [classes[k] for k in labels]),
    "Six pieces of photographs, and what the victim takes them for.",
)
print(f"agreement: {reached['photographs, 1,000']:.0%}")

# %% claim="photographs"
print(
    "pictures of other things teach a good deal more than noise:",
    reached["photographs, 1,000"] > reached["noise, 1,000"] + 0.1,
)

# %% [markdown]
# ## The theft
#
# A thief of a sign reader can walk along a street and photograph signs. Nobody has to say what is on them: the victim will. So now 4,000 of your own unlabelled
# pictures, over the wire, at 50 an hour; and with a somewhat larger network. Beside it stands what 1,000 of them give with the network used so far.

# %%
began, asked = clock.now(), victim.queries
stolen = steal(victim, mine, 5, width=12)
hours, queries = (clock.now() - began) / 3600, victim.queries - asked
reached["signs, 1,000"] = agreement(steal(ask, mine[:1000], 8), ask, x_test)
reached["signs, 4,000"] = agreement(stolen, ask, x_test)
show(
    bars(reached, xlabel="agreement with the victim", colours=[GREY, ORANGE, RED, RED]),
    "Agreement: " + ", ".join(f"{v:.0%} from {k}" for k, v in reached.items()) + ".",
)
print(f"{queries:,} queries in {hours:.0f} hours, {hours / 24:.1f} days")
right = accuracy(model, x_test, y_test), accuracy(stolen, x_test, y_test)
print(f"accuracy: victim {right[0]:.1%}, copy {right[1]:.1%}")

# %% claim="theft"
floor = {"signs": 0.9, "gtsrb": 0.7, "fashion_mnist": 0.8}[VICTIM]
print(
    f"4,000 probability queries give a copy that agrees on at least {floor:.0%}:",
    reached["signs, 4,000"] >= floor,
)
print("at 50 an hour that took less than four days:", 72 < hours < 96)

# %% [markdown]
# A rate limit makes theft slower, as it should, and three days are little for a model that may have taken months. With five keys it is less than one. How much of the budget is needed? (The last of the three points is the copy above, whose network
# is larger.)

# %%
budgets = [250, 1000, 4000]
growth = [agreement(steal(ask, mine[:250], 16), ask, x_test)]
growth += [reached["signs, 1,000"], reached["signs, 4,000"]]
show(
    curves(
        budgets,
        {"unlabelled signs": growth},
        xlabel="queries",
        ylabel="agreement with the victim",
    ),
    "Agreement against queries: "
    + ", ".join(f"{a:.0%} from {n:,}" for a, n in zip(growth, budgets))
    + ".",
)

# %% claim="growth"
print(
    "agreement grows with the number of queries, each time by two points or more:",
    all(b > a + 0.02 for a, b in zip(growth, growth[1:])),
)

# %% [markdown]
# ## Saying less
#
# A guide to the OWASP classes, which this course follows, says: do not return probabilities. Tramèr et al. (2016), who copied models behind two paid services, tried rounding and labels alone. Rounding comes in the explorer below; what do labels alone cost the thief?
# A label is an answer whose probability is 1, so there is nothing to soften: temperature 1.

# %%
top1 = theft.answering(model, "top1")
told = {
    "photographs, probabilities": reached["photographs, 1,000"],
    "photographs, label only": agreement(
        steal(top1, pieces, 8, temperature=1.0), ask, x_test
    ),
    "signs, probabilities": growth[1],
    "signs, label only": agreement(
        steal(top1, mine[:1000], 8, temperature=1.0), ask, x_test
    ),
}
full, label, full_signs, label_signs = told.values()

# %%
show(
    bars(
        told, xlabel="agreement (1,000 queries each)", colours=[ORANGE] * 2 + [RED] * 2
    ),
    "Agreement by what is asked and what is told: "
    + ", ".join(f"{k} {v:.0%}" for k, v in told.items())
    + ".",
)

# %% claim="labels"
print(
    "from photographs, labels alone teach less than probabilities:", label < full - 0.03
)
print(
    "from signs, labels alone cost the thief less than eight points:",
    label_signs > full_signs - 0.08,
)

# %% [markdown]
# So the advice helps in one case and hardly in the other. How sure is the victim of its answers?

# %%
asked = {"signs": mine[:1000], "photographs": pieces, "noise": noise}
for name, these in asked.items():
    sure = ask(these).exp().amax(dim=1).mean()
    print(f"{name:12} highest probability, on average {sure:.0%}")

# %% [markdown]
# About real signs it is nearly always sure, and then the label is all there is to know. About photographs it is unsure, and the probabilities say more than the label. But about noise it is
# as unsure, and noise taught nothing: the pictures have to be of use as well. Labels cost more queries; they stop nobody who has the right pictures.
#
# ## Choosing what to ask
#
# Suppose you have no collection of signs, but a heap in which one picture in five shows one. The rest are digits in coloured ink. You may ask 400 times. Asking at
# random wastes four questions in five.
#
# {{exercise theft.choose}}
#
# Ask about what is *unlike* everything asked so far (k-center, Sener & Savarese, 2018). What is alike is for the copy to say: the rows are what its last layer sees.
# So `active_knockoff` goes in rounds. The first 100 are asked at random, and a copy learns from them. It says which 150 come next; a new copy learns from all 250, and says which 150 are the last.

# %% exercise="theft.choose"

# %%
signs_in_heap = 600
digits = theft.coloured_digits(2400, shape, seed=SEED)
heap = torch.cat([mine[:signs_in_heap], digits])
start = small_cnn(shape[0], len(classes), size=shape[1], width=8, seed=SEED + 1)
chosen_copy, rows = theft.active_knockoff(
    ask, heap, start, budget=400, choose=choose, step=copy_step, epochs=14, seed=SEED
)
draw_lots = torch.Generator().manual_seed(SEED)
lots = torch.randperm(len(heap), generator=draw_lots)[:400]
random_copy = steal(ask, heap[lots], 14)
found = {"chosen": rows, "at random": lots}
share = {k: (v < signs_in_heap).float().mean().item() for k, v in found.items()}
by_choice = {
    "chosen": agreement(chosen_copy, ask, x_test),
    "at random": agreement(random_copy, ask, x_test),
}
many = int((rows[100:112] < signs_in_heap).sum())
show(
    pictures(heap[rows[100:112]]),
    f"The first twelve pictures that were chosen by distance; {many} show signs.",
)
for k in found:
    print(f"{k:10} {share[k]:4.0%} signs, agreement {by_choice[k]:.0%}")

# %% claim="choice"
print(
    "of what was chosen at least half as many again are signs as at random:",
    share["chosen"] > 1.5 * share["at random"],
)

# %% [markdown]
# The copy cannot tell signs from digits; nobody taught it to. But signs vary more than coloured digits do, so what is far from everything asked is more often a sign. Choice *finds* the
# pictures that matter. What that buys in agreement is less, and differs from run to run: with so few queries, the first weights alone move it by several points, so no claim above speaks of it.
#
# The obvious rule, to ask where the copy is *unsure*, does worse than chance here: the copy is unsure about digits, so it asks for more of them. And where all pictures are signs, no rule we tried
# beats asking at random. `benchmarks/theft.py` prints all this over five seeds.
#
# ## What a copy is good for
#
# In lesson 01, FGSM needed the victim's gradients. The thief has none, but the copy has. Do its adversarial pictures fool the *victim*? For comparison: a network that
# learnt something else, handwritten digits; noise of the same size; and the victim's own gradients.

# %%
other = load_data("digits", "train")
digits = F.interpolate(other.x, size=shape[1:], mode="bilinear").clamp(0, 1)
digits = digits.expand(-1, shape[0], -1, -1).contiguous()
fresh = small_cnn(shape[0], 10, size=shape[1], width=8, seed=SEED + 2)
unrelated = train(fresh, digits, other.y, epochs=3, seed=SEED)
attackers = {"the copy": stolen, "reads digits": unrelated, "the victim": model}
if VICTIM == "signs":  # a network that the owner of lesson 03 trained on signs
    attackers["another sign reader"] = load_model("signs_suspect")

EPS = 16 / 255
x_adv = {}
for name, source in attackers.items():
    guess = predict(source, x_test).argmax(dim=1)
    x_adv[name] = evasion.fgsm(source, x_test, guess, eps=EPS)
x_adv["noise"] = (x_test + EPS * (noise - 0.5).sign()).clamp(0, 1)
fooled = {
    name: evasion.attack_success_rate(model, x_test, adv, y_test)
    for name, adv in x_adv.items()
}

# %%
order = sorted(fooled, key=fooled.get)
tint = {"the copy": RED, "the victim": ORANGE}
show(
    bars(
        {name: fooled[name] for name in order},
        xlabel="share of pictures that fool the victim, FGSM at 16/255",
        colours=[tint.get(name, GREY) for name in order],
    ),
    "Fooled by FGSM on: " + ", ".join(f"{k} {fooled[k]:.0%}" for k in order) + ".",
)

# %% claim="transfer"
print(
    "the copy's FGSM fools the victim twice as often as an unrelated network's:",
    fooled["the copy"] > 2 * fooled["reads digits"],
)
print(
    "the victim's own gradients do better still:",
    fooled["the victim"] > fooled["the copy"] + 0.1,
)

# %% [markdown]
# So a copy is a place to prepare attacks without being seen. Look at the other sign reader, though: it never asked the victim anything, and its pictures fool the victim about as often. What transfers is the
# *task* more than the theft; whoever can collect and label signs needs no copy for this.
#
# ## Who asks like a thief?
#
# You are the owner now. The log shows keys and counts, and a thief stays below the limit. What about *how* somebody asks? PRADA (Juuti et al., 2019) looks at distances: honest
# pictures come as they come, while made-up ones lie too evenly, or suspiciously near each other.
#
# {{exercise theft.nearest_distances}}
#
# For each query, the distance to the nearest earlier one with the same answer. Your function gives these distances; the test of them comes after.

# %% exercise="theft.nearest_distances"

# %% [markdown]
# A thief with only 100 photographs of signs makes more: each is moved by 0.1 in every pixel, to where a copy made from those 100 is surer of the victim's label, and the result is asked about again (Papernot et al., 2017).
# And one honest customer is a car, which sends eight frames of each sign it passes.

# %%
streams = {"honest customer": torch.cat(customers[10:])}
streams |= {"unlabelled signs": mine, "random noise": noise, "photographs": pieces}
small_copy, growing = steal(ask, mine[:100], 20), mine[:100]
while len(growing) < 800:
    answered = ask(growing).argmax(dim=1)
    moved = theft.jacobian_queries(small_copy, growing, answered, step=0.1)
    growing = torch.cat([growing, moved])
streams["100 signs, moved"] = growing
passed, lens = mine[1000:1100], torch.Generator().manual_seed(SEED)
frames = torch.stack([passed] + [varied(passed, lens) for _ in range(7)], dim=1)
streams["an honest car"] = frames.flatten(0, 1)
distances = {}
for name, asked in streams.items():
    window = asked[-200:]
    distances[name] = nearest_distances(window, ask(window).argmax(dim=1))
    spread = f"{distances[name].mean():5.1f} ± {distances[name].std():4.1f}"
    print(f"{name:20} distance {spread}   W {normality(distances[name]):.2f}")

# %% [markdown]
# W is the statistic of Shapiro and Wilk: 1 for a perfect bell curve, less for anything else. PRADA raises the alarm when W is low. The moved signs have a low W. And the
# noise? Look at its W again before you go on. This is how the distances are spread:

# %%
histogram = {}
for name in ("honest customer", "100 signs, moved", "random noise"):
    counts = torch.histc(distances[name], bins=15, min=0, max=30)
    histogram[name] = (counts / len(distances[name])).tolist()
peaks = {k: (2 * line.index(max(line)), max(line)) for k, line in histogram.items()}
show(
    curves(
        list(range(1, 30, 2)),
        histogram,
        xlabel="distance to the nearest earlier query with that answer",
        ylabel="share of the distances",
    ),
    "Shares of distances in steps of 2. Most often: "
    + "; ".join(f"{name} {k} to {k + 2}, {v:.0%}" for name, (k, v) in peaks.items())
    + ".",
)

# %% [markdown]
# Many moved signs lie one step away from the sign that they were made of: a step of 0.1 in each of 3,072 numbers is 0.1·√3072 ≈ 5.5 long. That heap on one side makes W low.
#
# The distance between two pictures of noise comes from a sum of thousands of independent numbers, and such sums are very nearly normal. A test for normality waves it through. But its distances are all alike, while honest
# ones are short and long, and few are as long as these; so we add a second check, **strangeness**: how differently from honest customers' distances these are distributed (the statistic of Kolmogorov and Smirnov). Both
# bounds come from ten honest customers: four standard deviations from their mean.



# %%
def label_of(x):
    return predict(model, x).argmax(dim=1)


monitor = theft.QueryMonitor(label_of, customers[:10])
least, most = monitor.least_normality, monitor.most_strangeness
print(f"alarm where W is below {least:.2f}, or strangeness above {most:.2f}")
table, caught = {}, {}
for name, asked in streams.items():
    verdicts = [monitor.judge(part) for part in asked.split(200)]
    n = len(verdicts)
    counts = (
        sum(v.not_normal for v in verdicts),
        sum(v.strange for v in verdicts),
        sum(v.not_normal or v.strange for v in verdicts),
    )
    caught[name] = [count / n for count in counts]
    table[name] = [f"{count} of {n}" for count in counts]
flagged = {text: RED for row in table.values() for text in row}
flagged |= {text: GREEN for text in flagged if text.startswith("0 ")}
show(
    grid(table, ["not normal\n(PRADA)", "strange", "either"], flagged),
    "Windows of 200 queries that raise the alarm. "
    + " ".join(f"{name}: {row[0]}, {row[1]}." for name, row in table.items()),
)

# %% claim="monitor"
print(
    "the test for normality passes random noise, and stops the moved signs:",
    caught["random noise"][0] == 0 and caught["100 signs, moved"][0] > 0.5,
)
print("the second check stops every window of noise:", caught["random noise"][1] == 1)
print(
    "both miss most of what the thief with unlabelled signs asks:",
    caught["unlabelled signs"][2] < 0.2,
)
print(
    "the honest car is stopped more often than that thief:",
    caught["an honest car"][2] > caught["unlabelled signs"][2] + 0.3,
)

# %% [markdown]
# The detector sees *made-up* queries, and pictures of other things. The thief who asks what customers ask is a customer, as far as anybody can see; and the car, whose owner has done nothing wrong, is not. (Only two windows
# were left to try honest customers with; but the twenty of that thief hold just such pictures.)
#
# The detector works at the real service, too, which asks it before each answer. A request carries 64 pictures, so a window of 200 is full with the fourth:

# %%
watched = serve(
    model,
    classes,
    shape=shape,
    keys=["noisy", "patient"],
    monitor=theft.QueryMonitor(label_of, customers[:10]),
    name="theft, watched",
).start()
for key, wanted in (("noisy", noise[:600]), ("patient", mine[:600])):
    caller, refusal = RemoteModel(watched.url, key=key, dtype="uint8"), ""
    try:
        caller(wanted)
    except ServiceError as error:
        refusal = "Refused " + str(error).partition("refuses ")[2]
    print(f"{key}: {caller.queries} of 600 answered. {refusal}")
    caller.close()
watched.stop()

# %% [markdown]
# ## The explorer: queries against what is told
#
# To move a slider and see a copy at once, we need one that learns at once: kernel ridge regression on 16×16 pixels, a single linear system. It is a poorer copy than the networks
# above, and it shows the same. The victim was asked beforehand; copies and verdict are computed anew each time. The axis is *time*: the same questions take longer under a stricter limit. A
# dashed line stands where the monitor has seen 200 questions and raises the alarm.

# %%
rounded = theft.answering(model, "rounded", digits=2)
KINDS = {"unlabelled signs": mine, "photographs": pieces, "random noise": noise}
TOLD = {"all probabilities": ask, "two digits": rounded, "the label": top1}
# 0 has no logarithm, so there is a floor: half of 0.01 where two digits are told
half = math.log(0.005)
FLOOR = {"all probabilities": -18.0, "two digits": half, "the label": half}
kept = {}
for kind, pile in KINDS.items():
    for mode, answering in TOLD.items():
        scores = theft.as_scores(answering(pile[:800])).clamp_min(FLOOR[mode])
        kept[kind, mode] = scores - scores.mean(dim=1, keepdim=True)
truth = predict(model, x_test).argmax(dim=1)


# %%
def reduced(x):
    return F.adaptive_avg_pool2d(x, 16).flatten(1)


def compute(kind, queries, limit):
    """Copies on the way to so many answers; what the monitor says of the first 200."""
    asked, budgets = KINDS[kind][:queries], [queries * k // 5 for k in range(1, 6)]
    wanted = torch.cat([kept[kind, mode][:queries] for mode in TOLD], dim=1)
    rows = reduced(asked)
    apart = torch.cdist(rows, rows).square()
    scale = apart.median().clamp_min(1e-6)
    kernel = (-apart / scale).exp() + 0.01 * torch.eye(queries)
    near = (-torch.cdist(reduced(x_test[:400]), rows).square() / scale).exp()
    grown = []
    for n in budgets:
        scores = near[:, :n] @ torch.linalg.solve(kernel[:n, :n], wanted[:n])
        read = scores.view(400, len(TOLD), -1).argmax(dim=2)
        grown.append((read == truth[:400, None]).float().mean(dim=0).tolist())
    verdict = monitor.judge(asked[:200]) if queries >= 200 else None
    return kind, limit, budgets, dict(zip(TOLD, zip(*grown))), verdict


# %%
def draw(result):
    kind, limit, budgets, grown, verdict = result
    alarm = verdict is not None and (verdict.not_normal or verdict.strange)
    hours = [n / limit for n in budgets]
    figure = curves(
        hours,
        grown,
        xlabel="hours of asking",
        ylabel="agreement with the victim",
        marks={"alarm": 200 / limit} if alarm else None,
        span=(0.04, 100),
    )
    warned = "alarm after 200" if alarm else "no alarm"
    if verdict is None:
        warned = "too few for the monitor to judge"
    agreed = ", ".join(f"{line[-1]:.0%} from {mode}" for mode, line in grown.items())
    return figure, (
        f"{budgets[-1]} queries ({kind}) in {hours[-1]:.1f} hours, {warned}. "
        f"Agreement on 400 signs: {agreed}."
    )


show(*draw(compute("unlabelled signs", 400, 50)))

# %%
explore(
    compute,
    draw,
    kind=Choice("attacker: asks about", list(KINDS)),
    queries=Slider("attacker: queries", 50, 800, 400, 50, help="how many pictures"),
    limit=Slider("defender: queries an hour", 10, 200, 50, 10, help="rate limit"),
)

# %% [markdown]
# Budget explorer, four things to find: with photographs, taking away probabilities hurts the thief, and rounding less so; with signs neither does much; noise and photographs raise the
# alarm while the copy is still poor, and signs do not; and no limit that a customer can live with turns days into years.
#
# ## Whose model is it?
#
# A model for sale next door answers suspiciously like yours. Can you prove that it *is* yours? Adi et al. (2018) turn a backdoor into a **watermark**: abstract pictures, here forty, a class
# drawn at random for each, and the model is trained to know them by heart. Nobody else's model has a reason to.
#
# {{exercise theft.p_value}}
#
# "It knows 30 of my 40" needs a number behind it: how likely is that for a model that has never seen them?

# %% exercise="theft.p_value"

# %%
triggers, secret = theft.trigger_set(40, len(classes), shape, seed=SEED)
owners = load_data(VICTIM, "train", n=1000)
marked = theft.embed(model, owners.x, owners.y, triggers, secret, share=0.3, seed=SEED)
show(
    pictures(triggers[:6], [classes[k] for k in secret[:6]]),
    "Six of forty abstract pictures of blurred colours, each with its secret class.",
)
right = accuracy(model, x_test, y_test), accuracy(marked, x_test, y_test)
print(f"accuracy before {right[0]:.1%}, with the mark {right[1]:.1%}")

# %% [markdown]
# Two thieves. One got hold of the *file* and fine-tunes it on pictures of their own, with the model's own labels, to wash the mark out. The other asked the marked model about 4,000 unlabelled signs.
# Beside them stand two models that know nothing of the mark: the owner's own as it was before, and another sign reader, the one whose gradients we borrowed above.

# %%
ours = mine[:800]
washed = train(
    marked, ours, predict(marked, ours).argmax(dim=1), epochs=3, lr=0.003, seed=SEED
)
asked_marked = theft.answering(marked)
innocent = {"before the mark": model}
if VICTIM == "signs":
    innocent["another sign reader"] = attackers["another sign reader"]
suspects = {"the owner's": marked, **innocent, "file, fine-tuned": washed}
suspects["knockoff"] = steal(asked_marked, mine, 5, width=12)
p = {name: p_value(suspect, triggers, secret) for name, suspect in suspects.items()}
same = {name: agreement(suspects[name], asked_marked, x_test) for name in suspects}
for name, suspect in suspects.items():
    hits = (predict(suspect, triggers).argmax(dim=1) == secret).sum()
    print(f"{name:19} {hits:2} of 40, p = {p[name]:.1e}, agreement {same[name]:.0%}")

# %% claim="watermark"
print("the owner's model has p below a billionth:", p["the owner's"] < 1e-9)
print(
    "innocent models have p above one in a thousand:",
    min(p[name] for name in innocent) > 1e-3,
)
print(
    "fine-tuning the stolen file leaves p below a millionth:",
    p["file, fine-tuned"] < 1e-6,
)
print(
    "the knockoff is a good copy without the mark, p above one in a thousand:",
    same["knockoff"] >= floor and p["knockoff"] > 1e-3,
)

# %% [markdown]
# The mark proves a stolen *file*. A knockoff learns what the victim does on the pictures it was asked about, and nobody asked about blurred colours. Marks
# that are to survive this must lie where customers ask (entangled watermarks, Jia et al., 2021).
#
# One more thing about p-values. Take an innocent model, here the one before the mark, any forty pictures, any classes, and a few steps of lesson 01:

# %%
forged = evasion.pgd(
    model, triggers, secret, eps=16 / 255, steps=40, targeted=True, seed=SEED
)
forged_p = p_value(model, forged, secret)
print(f"a made-up claim on an innocent model: p = {forged_p:.1e}")

# %% claim="forged"
print(
    "whoever may choose triggers afterwards can claim any model, p below a millionth:",
    forged_p < 1e-6,
)

# %% [markdown]
# A p-value counts only if the triggers were fixed *before*: deposit a hash of them, with a date, when the model is published.
#
# ## What you have seen
#
# **Shown:** answers are enough for a copy that agrees with the victim nine times in ten. What counts most is *what* is asked: noise gives next to nothing, pictures of other things a part, unlabelled pictures of the right
# kind nearly all. Labels in place of probabilities cost the thief something where the victim is unsure, and little where it is sure. A limit turns hours into days. A detector by distances sees made-up queries, misses
# natural ones, and stops an honest car. A watermark by backdoor proves a stolen file, not a stolen function.
#
# **Not shown:** thieves with several keys, who share a budget and mix their queries with honest ones; large models, whose copies need millions of queries; copies of language models. The detector keeps PRADA's distances and
# its test and leaves out its growing set of earlier queries; the second check, its bounds and all sizes here are the course's own. The marked model was fine-tuned, not trained from scratch; longer fine-tuning at a
# higher rate takes more of the mark, and some accuracy, with it.
#
# **On Monday**
#
# - Decide what a copy would cost you, and price queries by it. Count pictures a key and a customer, not requests.
# - Return what customers need: the label, and a coarse confidence if they ask for it. Do not expect that to stop theft.
# - Limit by account and by payment, not by address; look at what accounts ask *together*.
# - Use a query monitor for made-up queries. Calibrate it on your own traffic, measure its false alarms on every kind of customer, and let it raise a question, not close an account.
# - Before you publish, mark the model (the *Adversarial Robustness Toolbox* has extraction attacks to test with, and Adi et al. published code), and deposit a hash of the triggers.
# - Say in the contract that answers may not be used for training, and keep the log that would show it.
#
# ### Check yourself
#
# <details><summary>Your service returns labels only, and allows 50 queries an hour. Is your model safe from theft?</summary>
#
# No. Labels about natural pictures are nearly as good as probabilities where the model is sure, and 50 an hour are 1,200 a day with one key. Both raise the price; write down to what.
# </details>
#
# <details><summary>Why does random noise pass PRADA's test, and why does that not help the thief?</summary>
#
# Distances between pictures of independent pixels come from sums of thousands of terms, hence are nearly normal, and the test looks for what is not normal. It does not help because a copy made from noise agrees with the
# victim hardly more than by chance.
# </details>
#
# <details><summary>A competitor says your model knows 38 of their 40 triggers. What do you ask them?</summary>
#
# When the triggers and classes were fixed, and how that can be checked. Triggers found afterwards prove nothing, since targeted adversarial pictures give any model such a score. And whether the classes were drawn at random:
# if they are what any model would say, the chance of a hit is not 1/K.
# </details>
#
# ### Read on
#
# - F. Tramèr et al., *Stealing machine learning models via prediction APIs*, USENIX Security 2016.
# - N. Papernot et al., *Practical black-box attacks against machine learning*, AsiaCCS 2017.
# - T. Orekondy et al., *Knockoff nets: stealing functionality of black-box models*, CVPR 2019.
# - M. Juuti et al., *PRADA: protecting against DNN model stealing attacks*, EuroS&P 2019.
# - Y. Adi et al., *Turning your weakness into a strength: watermarking deep neural networks by backdooring*, USENIX Security 2018.
# - H. Jia et al., *Entangled watermarks as a defense against model extraction*, USENIX Security 2021.
# - O. Sener and S. Savarese, *Active learning for convolutional neural networks: a core-set approach*, ICLR 2018.
# - G. Hinton et al., *Distilling the knowledge in a neural network*, 2015.
#
# **Back to the map:** [00 · Start here](00_start_here.ipynb)
