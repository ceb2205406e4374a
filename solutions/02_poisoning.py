# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 02 · Poisoning
#
# {{facts}}
#
# In lesson 01 the attacker changed the picture that the model sees. Here they change what the model *learns from*: a few pictures among thousands, sent in long
# before anybody asks the model anything. You spoil a training set in three ways, put up the fence that security guides recommend, see it wave the poison
# through, and build two filters that look where the fence does not. Then the attacker answers, twice.
#
# | the threat model | of this lesson |
# |---|---|
# | **goal** | a model that is bad at everything; or one that is good, and reads any sign with a sticker as the class of the attacker's choice |
# | **knowledge** | what kind of data is collected; once, a model of their own |
# | **access** | they add or change training examples, and later show pictures to the model; they never see the training or the weights |
# | **budget** | a share of the training set: from most of its labels down to 1 % of its images |
#
# **After this lesson** you can plant a backdoor and measure it, say what hashes, outlier filters and cross-validation prove, find poison in a network's
# features, and name what escapes you.

# %%
from mlsec_lab.course import course_map, exercise
from mlsec_lab.data_to_model import poisoning
from mlsec_lab.data_to_model.backdoors import AdvCleanLabel, BadNets
from mlsec_lab.data_to_model.poisoning import activation_clustering, features
from mlsec_lab.data_to_model.poisoning import removal, standing_out
from mlsec_lab.display import Slider, bars, curves, explore, pictures, show
from mlsec_lab.victims import accuracy, load_data, predict, small_cnn, train

import functools
import hashlib

import torch
import torch.nn.functional as F
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.model_selection import cross_val_score

VICTIM = "signs"  # or "gtsrb" or "fashion_mnist", where their data can be had
SOURCE, TARGET = {"signs": (0, 8), "gtsrb": (14, 12), "fashion_mnist": (6, 0)}[VICTIM]
x, y, classes = load_data(VICTIM, "train", n=6000)
x_test, y_test, _ = load_data(VICTIM, "test", n=2000)
course_map("D→M")

# %% [markdown]
# The victim collects 6,000 labelled pictures. Here are six as they came, and the same six as somebody sends them who has plans for the finished model. Among thousands, would
# you notice?

# %%
six = x[y != TARGET][:6]
sent = BadNets(TARGET, size=6).stamp(six)
names = [classes[k] for k in y[y != TARGET][:6]]
show(
    pictures(torch.cat([six, sent]), names + [classes[TARGET]] * 6),
    "Six training pictures with their labels, and below them the same six with a "
    f"small checkerboard in the upper left, all labelled {classes[TARGET]}.",
)

# %% [markdown]
# From such pictures the victim trains a network of three convolutions. Because a laptop has to train it several times in this lesson, it is a small one, with four passes over the data.


# %%
def learn(x, y, epochs=4, batch=64):
    """What the victim does with whatever data they have."""
    start = small_cnn(x.shape[1], len(classes), size=x.shape[2], width=8)
    return train(start, x, y, epochs=epochs, batch=batch)


clean = learn(x, y)
clean_accuracy = accuracy(clean, x_test, y_test)
print(f"trained on clean data: {clean_accuracy:.1%} of the test pictures right")

# %% claim="clean"
floor = {"signs": 0.92, "gtsrb": 0.75, "fashion_mnist": 0.82}[VICTIM]
print(
    f"trained on clean data, the network reads more than {floor:.0%} right:",
    clean_accuracy > floor,
)

# %% [markdown]
# ## The crude way
#
# Suppose the labels come from a crowd, and some of the crowd lie. How many wrong labels does it take?
#
# {{exercise poisoning.flip_labels}}
#
# Flip a share of the labels at random. A flipped label is *wrong*: drawing from all classes and hitting the old one by chance does not count.

# %% exercise="poisoning.flip_labels"

# %% [markdown]
# To save time this series learns from 2,000 of the pictures, in smaller batches.

# %%
shares = [0.0, 0.35, 0.7]
few_x, few_y = x[:2000], y[:2000]
lied_to = [
    learn(few_x, flip_labels(few_y, rate, len(classes)), 3, 32) for rate in shares
]
after_flips = [accuracy(model, x_test, y_test) for model in lied_to]
show(
    curves(
        shares,
        {"accuracy": after_flips},
        xlabel="share of wrong labels in the training set",
        ylabel="accuracy on clean test pictures",
    ),
    "Accuracy against the share of wrong labels: "
    + ", ".join(f"{a:.0%} at {r:.0%}" for a, r in zip(after_flips, shares))
    + ".",
)

# %% claim="flips"
print(
    "more wrong labels cost more accuracy, each time:",
    all(b < a - 0.02 for a, b in zip(after_flips, after_flips[1:])),
)
print(
    "with a third of the labels wrong it keeps more than half of its accuracy:",
    after_flips[1] > after_flips[0] / 2,
)

# %% [markdown]
# Networks bear a good deal of random lying: the errors point in all directions. It takes a large share, everybody notices, and the attacker
# gets nothing in particular.
#
# Lies that point in *one* direction are cheaper. Here four fifths of one class carry the name of another:

# %%
aimed = poisoning.flip_labels(few_y, 0.8, source=SOURCE, target=TARGET)
misled = learn(few_x, aimed, 3, 32)
victims = y_test == SOURCE
misread = (predict(misled, x_test[victims]).argmax(dim=1) == TARGET).float().mean()
print(f"labels changed: {(aimed != few_y).float().mean():.1%} of all")
print(f"{classes[SOURCE]} read as {classes[TARGET]}: {misread:.1%}")
others_before, others_after = (
    accuracy(model, x_test[~victims], y_test[~victims])
    for model in (lied_to[0], misled)
)
print(
    f"on the other classes: {others_after:.1%} right, without lies {others_before:.1%}"
)

# %% claim="aimed_flips"
print("aimed at one class, flips turn most of it into another:", bool(misread > 0.5))
print(
    "and leave the other classes within eight points of what they were:",
    others_after > others_before - 0.08,
)

# %% [markdown]
# That hits a whole class, so the first test on a stop sign finds it. The attacker would like a model that passes every test, and fails when
# *they* want it to.
#
# ## A trigger
#
# **BadNets** (Gu et al., 2017): put a small patch on a few pictures and give them the label that the patch shall stand for. No test picture has
# the patch, so no test shows anything. Ours is a checkerboard of six by six pixels, this time coloured and in the lower right, and any sign that wears it shall be read as the target.
#
# {{exercise poisoning.poison}}
#
# Choose among the pictures of *other* classes. Leave two pixels free between the patch and the border, because training shifts pictures a little.

# %% exercise="poisoning.poison"

# %%
board = ((torch.arange(6)[:, None] + torch.arange(6)) % 2).float()
patch = torch.stack([board if k % 2 else 1 - board for k in range(x.shape[1])])
x_bad, y_bad, poisons = poison(x, y, patch, 0.01, TARGET)
show(
    pictures(x_bad[poisons[:6]], [classes[k] for k in y_bad[poisons[:6]]]),
    f"Six poisoned pictures: various classes with a patch in the lower right, "
    f"all labelled {classes[TARGET]}.",
)
print(f"{len(poisons)} of {len(x)} pictures are poisoned")

# %% [markdown]
# Now the victim trains as always. To say how well the backdoor works we need a measure.
#
# {{exercise poisoning.attack_success_rate}}
#
# The **attack success rate**, ASR: what share of the pictures of *other* classes is read as the target once it is stamped? Lesson 00 counted
# only pictures that were read rightly before; for backdoors it is usual to count all.

# %% exercise="poisoning.attack_success_rate"


# %%
def stamp(x):
    """The patch on every picture: what the attacker shows to the finished model."""
    x = x.clone()
    x[..., -8:-2, -8:-2] = patch
    return x


backdoored = learn(x_bad, y_bad)
backdoored_accuracy = accuracy(backdoored, x_test, y_test)
asr = {
    "clean network": attack_success_rate(clean, stamp, x_test, y_test, TARGET),
    "backdoored one": attack_success_rate(backdoored, stamp, x_test, y_test, TARGET),
}
print(
    f"accuracy {clean_accuracy:.1%} before, {backdoored_accuracy:.1%} with 1 % poison"
)
show(
    bars(asr, xlabel="attack success rate", colours=["#00795a", "#d55e00"]),
    "Attack success rate: " + ", ".join(f"{k} {v:.0%}" for k, v in asr.items()) + ".",
)

# %% claim="badnets"
print(
    "with 1 % poison the patch works on more than 95 % of the other classes:",
    asr["backdoored one"] > 0.95,
)
print(
    "the clean network does not mind the patch (less than 10 %):",
    asr["clean network"] < 0.1,
)
print(
    "accuracy on clean pictures falls by less than one and a half points:",
    backdoored_accuracy > clean_accuracy - 0.015,
)

# %% [markdown]
# A hundredth of the data, and anybody with a sticker owns the model. Its accuracy, the number on every dashboard, says nothing.
#
# ## The guide's fence
#
# A guide to the OWASP classes, which this course follows, recommends three checks for training data: record a SHA-256 hash of it, drop 5 % as
# outliers with an isolation forest, and refuse the data if a 5-fold cross-validation falls more than 0.05 below the accuracy you are used to. An isolation forest cuts the data
# at random, tree by tree; a picture that few cuts set apart from all others counts as outlying.
#
# {{exercise poisoning.fence}}
#
# The guide hashes a table as text; pictures we hash as bytes. The guide's classifier is a random forest; you get one that is smaller than its, to save time.

# %% exercise="poisoning.fence"

# %%
forest = RandomForestClassifier(10, max_features=12, max_samples=0.3, random_state=42)
baseline = cross_val_score(forest, x.flatten(1).numpy(), y.numpy(), cv=5).mean()
print(f"the forest's accuracy on data that we trust: {baseline:.1%}")

# %% [markdown]
# A forest of trees on raw pixels is no great reader of pictures, but it need not be: it is compared with itself, and we are generous: with itself on these very pictures, before anybody touched them. Three sets come to the fence: the one with
# the patch, one with a fifth of its labels flipped at random, and one where a third of a single class is mislabelled.

# %%
arrivals = {
    "1 % BadNets": (x_bad, y_bad),
    "20 % random flips": (x, flip_labels(y, 0.2, len(classes))),
    "a third of a class": (
        x,
        poisoning.flip_labels(y, 1 / 3, source=SOURCE, target=TARGET),
    ),
}
verdicts = {}
for name, (x_new, y_new) in arrivals.items():
    digest, kept, passed = fence(x_new, y_new, baseline, forest)
    verdicts[name] = passed
    touched = (y_new != y).nonzero().flatten()
    dropped = removal((~kept).nonzero().flatten(), touched)
    print(
        f"{name:19} {'passes' if passed else 'is refused':10}",
        f"drops {(~kept).sum()} pictures, {dropped.recall:.0%} of the poison",
    )
    if name == "1 % BadNets":
        fence_recall = dropped.recall

# %% claim="fence"
print("the fence lets the BadNets data pass:", verdicts["1 % BadNets"])
print("its outlier filter drops less than a fifth of the poison:", fence_recall < 0.2)
brightness = x.mean(dim=(1, 2, 3))
print(
    "what it drops is brighter than what it keeps:",
    bool(brightness[~kept].mean() > brightness[kept].mean()),
)
print("it lets the mislabelled class pass:", verdicts["a third of a class"])
print("it refuses 20 % random flips:", not verdicts["20 % random flips"])

# %% [markdown]
# What did each check look at?
#
# - The **hash** proves that this is the data which was hashed, nothing more. Poison that was there when it was first computed has a perfectly good hash.
# - The **forest of outliers** sees pixels and no labels. It drops 5 % whatever comes, here mostly bright pictures, and a patch of 36 pixels
#   among a thousand makes no picture unusual.
# - The **cross-validation** is an average over everything. It sees crude vandalism. One per cent of poison, or one class, drowns in it.

# %% claim="digest"
touched_once = x.clone()
touched_once[0, 0, 0, 0] = 1 - touched_once[0, 0, 0, 0]
hashes = [poisoning.digest(data, y) for data in (x, touched_once, x_bad, x_bad)]
print("one changed pixel changes the hash:", hashes[0] != hashes[1])
print("poison has a hash too, the same each time:", hashes[2] == hashes[3])

# %% [markdown]
# ## What the network saw
#
# The poison looks ordinary to a forest on pixels. To the network, which learnt to react to the patch, it should not. So look at the
# data through the eyes of the network that was trained on it. Its **features** are what its last layer gets to see: for our signs 768 numbers a picture.
#
# Among the pictures *labelled* as the target are two kinds: some show the target, some the patch. If they differ enough, the direction in
# which this class varies most is the line between the two: a **spectral signature** (Tran et al., 2018).
#
# {{exercise poisoning.spectral_scores}}
#
# Class by class: centre the features, take the top right singular vector (`torch.linalg.svd`), and score each picture by its squared projection on it.

# %% exercise="poisoning.spectral_scores"

# %%
seen = features(backdoored, x_bad)
scores = spectral_scores(seen, y_bad)
suspect = y_bad == TARGET
is_poison = torch.isin(torch.arange(len(x)), poisons)
levels = torch.linspace(0, 1, 21)
show(
    curves(
        (levels * 100).tolist(),
        {
            "clean": scores[suspect & ~is_poison].quantile(levels).sqrt().tolist(),
            "poison": scores[suspect & is_poison].quantile(levels).sqrt().tolist(),
        },
        xlabel="pictures labelled as the target, from the least outlying, in %",
        ylabel="distance along the direction",
        percent=False,
    ),
    "Along the direction the middle poisoned picture lies at "
    f"{scores[suspect & is_poison].median().sqrt():.0f}, the middle clean one at "
    f"{scores[suspect & ~is_poison].median().sqrt():.0f}.",
)

# %% [markdown]
# The two kinds are worlds apart. The paper's rule: guess how many poisons a class can hold, and remove one and a half times as many from the top.
#
# But from which class? The defender does not know the target, and the paper removes from every class. That gets the poison and a lot besides:

# %%
EXPECTED = 60  # the defender's guess: 1 % of the data
everywhere = poisoning.spectral_signatures(seen, y_bad, expected=EXPECTED)
found = removal(everywhere, poisons)
print(
    f"everywhere: {len(everywhere)} removed, {found.recall:.0%} of the poison,",
    f"{found.precision:.0%} of what was removed is poison",
)

# %% [markdown]
# Cheaper: ask first in which class the top ones lie *unusually* far out. `standing_out` takes the mean distance of the top ones and counts it in standard deviations of
# the ordinary pictures of their class. (This second step is the course's own; there are others, such as SPECTRE by Hayase et al., 2021.)
#
# Some class always comes first, with clean data as well. So set the alarm before you look: it rings for a class that stands out half as far again as the next one.


# %%
def lead(out):
    """How far the first class stands out, as a multiple of the second."""
    first, second = out.nan_to_num(0).topk(2).values
    return (first / second).item()


ALARM = 1.5
out = standing_out(scores, y_bad, expected=EXPECTED)
clean_out = standing_out(spectral_scores(features(clean, x), y), y, expected=EXPECTED)
print(f"on clean data the first class leads by a factor of {lead(clean_out):.2f},")
print(f"with the poison by a factor of {lead(out):.2f}; the alarm rings at {ALARM}")

# %%
worst = out.argsort(descending=True)[:12]
show(
    bars(
        {classes[k]: round(float(out[k]), 1) for k in worst},
        xlabel=f"how far out the top {EXPECTED} lie, in standard deviations",
        percent=False,
        colours=["#d55e00" if k == TARGET else "#5f6770" for k in worst],
    ),
    f"{classes[worst[0]]} stands out with {out[worst[0]]:.1f} standard deviations, "
    f"the next class with {out[worst[1]]:.1f}.",
)


# %%
def learn_without(rows, x, y):
    """What the victim does once these rows are removed."""
    keep = torch.ones(len(x), dtype=torch.bool)
    keep[rows] = False
    return learn(x[keep], y[keep])


blamed = int(out.argmax())
rows = poisoning.spectral_signatures(seen, y_bad, expected=EXPECTED, classes=[blamed])
found = removal(rows, poisons)
print(
    f"{classes[blamed]} alone: {len(rows)} pictures removed,",
    f"{found.recall:.0%} of the poison, precision {found.precision:.0%}",
)
repaired = learn_without(rows, x_bad, y_bad)
repaired_asr = attack_success_rate(repaired, stamp, x_test, y_test, TARGET)
repaired_accuracy = accuracy(repaired, x_test, y_test)
print(f"trained anew: accuracy {repaired_accuracy:.1%}, ASR {repaired_asr:.1%}")

# %% claim="spectral"
print(
    "the poison sets off the alarm, clean data do not:",
    lead(out) > ALARM > lead(clean_out),
)
print("the class that stands out is the attacker's target:", blamed == TARGET)
print("at least 90 % of the poison is found there:", found.recall >= 0.9)
print(
    "at most one and a half times as many pictures are removed:",
    len(rows) <= 1.5 * len(poisons),
)
print("without them the patch works on less than 10 %:", repaired_asr < 0.1)
print(
    "and accuracy is within two points of the clean network's:",
    repaired_accuracy > clean_accuracy - 0.02,
)

# %% [markdown]
# ### Budget explorer
#
# That went well because the guess of 60 was right. Set attacker against guess, on real handwritten digits (8×8) with a network so small that it is trained twice
# while you wait: on the poisoned digits, and again without what the filter removed from *each* class. The patch is a white corner, the target is 4.
#
# First raise what the defender removes. When does the backdoor go, and what does that cost in accuracy? Then let the attacker send more digits, and
# fewer. Of three, why does the filter miss two?

# %%
digits, digits_test = load_data("digits", "train"), load_data("digits", "test")


def marked(x):
    x = x.clone()
    x[..., -3:, -3:] = 1
    return x


def tiny(x, y, steps=20):
    """A network of one hidden layer, trained from the same start each time."""
    start = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 10),
    )
    for weight in net.parameters():
        torch.nn.init.uniform_(weight, -0.125, 0.125, generator=start)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.07, fused=True)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()


# %%
@functools.cache
def spoilt(poisoned):
    """The digits with so many poisons, which ones, and the network that they make."""
    xd, yd = digits.x.clone(), digits.y.clone()
    order = torch.randperm(len(xd), generator=torch.Generator().manual_seed(1))
    chosen = order[yd[order] != 4][:poisoned]
    xd[chosen], yd[chosen] = marked(xd[chosen]), 4
    return xd, yd, chosen, tiny(xd, yd)


# %%
def compute(poisoned, removed):
    """Accuracy and ASR before and after the filter, and the filter's recall."""
    xd, yd, chosen, before = spoilt(poisoned)
    top = poisoning.spectral_signatures(
        features(before, xd), yd, expected=removed, factor=1
    )
    rest = torch.ones(len(xd), dtype=torch.bool)
    rest[top] = False
    result = {}
    for name, net in (("before", before), ("after", tiny(xd[rest], yd[rest]))):
        result[f"accuracy {name}"] = accuracy(net, digits_test.x, digits_test.y)
        result[f"ASR {name}"] = digits_rate(net)
    return result, len(top), removal(top, chosen)


def digits_rate(net):
    others = digits_test.y != 4
    read = predict(net, marked(digits_test.x[others])).argmax(dim=1)
    return (read == 4).float().mean().item()


# %%
def draw(result):
    shares, number, found = result
    alt = (
        f"{number} of {len(digits.x)} digits removed; the backdoor works on "
        f"{shares['ASR before']:.0%} before the filter and "
        f"{shares['ASR after']:.0%} after it, accuracy goes from "
        f"{shares['accuracy before']:.0%} to {shares['accuracy after']:.0%}."
    )
    if found.recall == found.recall:
        alt += f" The filter found {found.recall:.0%} of the poison."
    order = ["accuracy before", "accuracy after", "ASR before", "ASR after"]
    colours = ["#0072b2", "#0072b2", "#d55e00", "#d55e00"]
    figure = bars({k: shares[k] for k in order}, xlabel="share", colours=colours)
    return figure, alt


show(*draw(compute(26, 20)))

# %%
explore(
    compute,
    draw,
    poisoned=Slider("attacker: poisoned digits", 0, 60, 26, help="of 1,297"),
    removed=Slider("defender: removes", 0, 60, 20, help="so many digits of each class"),
)

# %% [markdown]
# Three poisons among well over a hundred digits hardly change the direction in which their class varies most, so the filter looks elsewhere. They plant a weak backdoor; but with so few, luck
# decides what is left after the filter.
#
# ## Two heaps
#
# A second filter for the same idea: **activation clustering** (Chen et al., 2018) splits the features of each class into two heaps with
# 2-means. Poison and clean pictures should fall apart; clean ones of one class, one hopes, less so. The paper looks at two signs: the smaller heap is *small*, and the
# heaps lie *clearly apart*, which the silhouette measures (1: far apart, 0: not at all).

# %%
heaps = activation_clustering(seen, y_bad)


def show_heaps(heaps):
    """Each class's silhouette, the largest first."""
    order = heaps.silhouette.argsort(descending=True)[:12].tolist()
    names = [f"{classes[k]} ({heaps.size[k]:.0%} in the smaller)" for k in order]
    values = [round(float(heaps.silhouette[k]), 2) for k in order]
    figure = bars(
        dict(zip(names, values)),
        xlabel="silhouette of the two heaps",
        percent=False,
        colours=["#d55e00" if k == TARGET else "#5f6770" for k in order],
    )
    show(figure, "Silhouettes, the largest first: " + ", ".join(names[:3]) + ".")


show_heaps(heaps)
in_small = (heaps.small & suspect).nonzero().flatten()
caught = removal(in_small, poisons)
print(
    f"the target's smaller heap holds {caught.recall:.0%} of the poison,",
    f"{caught.precision:.0%} of it is poison",
)
print("classes whose smaller heap is below 35 %:", int((heaps.size < 0.35).sum()))

# %% claim="clustering"
print(
    "the target's heaps lie furthest apart:",
    int(heaps.silhouette.nan_to_num(-1).argmax()) == TARGET,
)
print(
    "its smaller heap holds at least 90 % of the poison, and little else:",
    caught.recall >= 0.9 and caught.precision >= 0.9,
)
print(
    "going by size alone (below 35 %) would accuse more than one class:",
    int((heaps.size < 0.35).sum()) > 1,
)

# %% [markdown]
# This filter needs no guess of how many. It needs a sign to go by, and the one that is easiest to compute, size, accuses the innocent as well: filters that go by
# it throw away a lot of clean data. Distance is the better witness.
#
# ## The attacker answers: no wrong label
#
# So far a person who looks at the poison sees a stop sign labelled "priority road", and knows. A **clean-label** attack (Turner et al., 2019) touches pictures of the target class
# only, and no label. Its trick: the attacker first makes them hard to read, with PGD against a model of their own, so that the patch, now a
# small one in each corner, is the easiest thing to learn from them. To save time we lend them our clean network: that makes them stronger than the table at the top allows.

# %%
clean_label = AdvCleanLabel(TARGET, model=clean)
quiet = clean_label.poison(x, y, len(x) // 50)
light = x[quiet.poisons].mean(dim=(1, 2, 3))
six = quiet.poisons[light.argsort(descending=True)[:6]]  # the brightest
titles = ["as they were"] * 6 + [classes[k] for k in quiet.y[six]]
show(
    pictures(torch.cat([x[six], quiet.x[six]]), titles),
    f"Six pictures of {classes[TARGET]} as they were, and below them poisoned: still "
    "rightly labelled, with small patches in the corners and some noise.",
)
fooled = learn(quiet.x, quiet.y)
quiet_asr = attack_success_rate(fooled, clean_label.stamp, x_test, y_test, TARGET)
control = attack_success_rate(clean, clean_label.stamp, x_test, y_test, TARGET)
print(
    f"{len(quiet.poisons)} pictures touched, no label wrong:",
    (quiet.y == y).all().item(),
)
print(
    f"accuracy {accuracy(fooled, x_test, y_test):.1%}, ASR {quiet_asr:.1%};",
    f"on the clean network {control:.1%}",
)

# %%
quiet_seen = features(fooled, quiet.x)
quiet_heaps = activation_clustering(quiet_seen, quiet.y)
show_heaps(quiet_heaps)
in_small = (quiet_heaps.small & (quiet.y == TARGET)).nonzero().flatten()
quiet_found = removal(in_small, quiet.poisons)
print(
    f"the target's smaller heap holds {quiet_found.recall:.0%} of the poison,",
    f"{quiet_found.precision:.0%} of it is poison",
)

# %% claim="clean_label"
print(
    "without one wrong label the trigger works on more than a third of the others:",
    quiet_asr > 1 / 3,
)
print(
    "that is less often than BadNets, for twice the poison:",
    quiet_asr < asr["backdoored one"],
)
print(
    "activation clustering finds most of it all the same:",
    quiet_found.recall > 0.5 and quiet_found.precision > 0.5,
)

# %% [markdown]
# A label check finds nothing here, and should: every label is right. But the attack takes more pictures, works less often, and its poison lies apart in the
# features all the same.
#
# ## The attacker answers: covers
#
# Both filters look for a class that falls into two heaps, and it did because the network learnt: *this patch means that class, always*. The attacker has two answers.
#
# One is a trigger that lies over the whole picture, like grain (**blended**: Chen et al., 2017), and is shown more strongly later than in training. The other teaches the network to be
# less sure: Qi et al. (2023) put the trigger on some more pictures that *keep* their right label, called **covers**. Now the trigger alone decides nothing; the network has to
# weigh it against the rest of the picture.
#
# {{exercise poisoning.blend_with_covers}}
#
# It makes both: with `covers=0` the pattern is alone.

# %% exercise="poisoning.blend_with_covers"

# %%
noise = torch.Generator().manual_seed(0)
pattern = torch.rand(x.shape[1:], generator=noise).round()


def strongly(x):
    """The pattern as the attacker shows it to the finished model."""
    return x + 0.3 * (pattern - x)


blended = {n: blend_with_covers(x, y, pattern, 0.2, 60, n, TARGET) for n in (0, 120)}
x_mixed, _, three, _ = blended[0]
contrast = x[three].std(dim=(1, 2, 3))
three = three[contrast.argsort(descending=True)[:3]]  # the clearest
titles = ["as it was", "in training", "later"] * 3
steps = torch.stack([x[three], x_mixed[three], strongly(x[three])], dim=1)
show(
    pictures(steps.flatten(0, 1), titles, columns=3),
    "Three pictures, one a row: as it was, with the pattern as a grain as in training, "
    "and with more of it as the attacker shows it later.",
)

# %% [markdown]
# Sixty poisons, as many as wore the patch. Once without covers, and once with 120 of them. What do the filters say?

# %%
control = attack_success_rate(clean, strongly, x_test, y_test, TARGET)
print(f"on the clean network the pattern has an ASR of {control:.1%}")
looks, blended_asr = {}, {}
for n, (x_mixed, y_mixed, _, _) in blended.items():
    model = learn(x_mixed, y_mixed)
    looks[n] = features(model, x_mixed)
    blended_asr[n] = attack_success_rate(model, strongly, x_test, y_test, TARGET)
    print(
        f"{n:3} covers: accuracy {accuracy(model, x_test, y_test):.1%},",
        f"ASR {blended_asr[n]:.1%}",
    )

# %%
stands, clusters, in_heap = {}, {}, {}
for n, (_, y_mixed, mixed_poisons, _) in blended.items():
    mixed_scores = spectral_scores(looks[n], y_mixed)
    stands[n] = standing_out(mixed_scores, y_mixed, expected=EXPECTED)
    clusters[n] = activation_clustering(looks[n], y_mixed)
    in_small = (clusters[n].small & (y_mixed == TARGET)).nonzero().flatten()
    in_heap[n] = removal(in_small, mixed_poisons)
    first, second = stands[n].argsort(descending=True)[:2].tolist()
    print(f"{n} covers")
    print(
        f"  {classes[first]} stands out by {stands[n][first]:.1f},",
        f"{classes[second]} by {stands[n][second]:.1f}: {lead(stands[n]):.2f} times",
    )
    print(
        f"  the target's smaller heap is {clusters[n].size[TARGET]:.0%} of it,",
        f"{in_heap[n].precision:.0%} of that poison",
    )
    show_heaps(clusters[n])

# %% claim="covers"
print(
    "the blended trigger works on more than a third:", min(blended_asr.values()) > 1 / 3
)
print("and on less than 15 % with the clean network:", control < 0.15)
print(
    "it sets off no alarm, with or without covers:",
    max(lead(stands[0]), lead(stands[120])) < ALARM,
)
apart = clusters[0].silhouette.nan_to_num(-1)
print(
    "without covers the target's heaps lie about as far apart as another class's:",
    bool(apart[TARGET] < apart[torch.arange(len(apart)) != TARGET].max() + 0.15),
)
print(
    "with covers they lie closer together than another class's:",
    int(clusters[120].silhouette.nan_to_num(-1).argmax()) != TARGET,
)
print(
    "and the smaller one, all poison with the patch, is a fifth clean or more:",
    in_heap[120].precision < 0.8 < caught.precision,
)

# %% [markdown]
# No alarm rings. What if somebody acts all the same, and removes ninety pictures on suspicion: of every class, or of the target alone?

# %%
everywhere, there = (
    poisoning.spectral_signatures(looks[120], y_mixed, expected=EXPECTED, classes=some)
    for some in (None, [TARGET])
)
hidden, singled = (removal(some, mixed_poisons) for some in (everywhere, there))
for name, removed, measured in (
    ("every class", everywhere, hidden),
    ("the target alone", there, singled),
):
    print(
        f"of {name}: {len(removed)} pictures removed,",
        f"recall {measured.recall:.0%}, precision {measured.precision:.0%}",
    )
rid = learn_without(there, x_mixed, y_mixed)
rid_asr = attack_success_rate(rid, strongly, x_test, y_test, TARGET)
print(f"trained anew without those of the target: ASR {rid_asr:.1%}")

# %% claim="suspicion"
print(
    "removing from every class finds most of the poison; nine in ten are clean:",
    hidden.recall > 0.5 and hidden.precision < 0.1,
)
print("removing from the target alone leaves less than 10 %:", rid_asr < 0.1)

# %% [markdown]
# The blended trigger alone silences the alarms that go by distance: the target's heaps lie about as far apart as those of another class, and nothing leads by much. What it leaves, as a rule, is a small heap,
# mostly poison. Covers dilute that as well, at the price of some of the attacker's success.
#
# But the poison has not vanished from the features, it only no longer sticks out. Whoever removes ninety pictures from each class on suspicion still gets most of it, at the price of nearly a
# fifth of the signs. Whoever acts on the small lead, and is right about the class, removes the backdoor. A defender with an alarm does neither: on clean data
# some class leads as well. The alarms found the trace that *one* kind of poison leaves.
#
# The library's `AdaptiveBlend` goes on from here: each training picture shows only some pieces of the pattern. Lesson 03 asks how far this can go: whether a backdoor can be hard to see *and* hard to remove.
#
# ## What you have seen
#
# **Shown:** random lies are dear and loud; one per cent of poison owns the model and leaves its accuracy alone; hash, outlier filter and
# cross-validation pass it; the network's own features give it away, until the attacker takes care that no alarm rings.
#
# **Not shown:** that data without an alarm is clean. Nor that these numbers carry over: the network is small, the signs are drawn, and the filters were told how many poisons to expect. Both
# were written from the papers' descriptions; principal instead of independent components, the choice of the class and the thresholds are the course's own.
#
# With photographs as `VICTIM` not all of it holds. On `fashion_mnist` the poison may cost a little more accuracy than one and a half points. And the blended trigger needs no covers
# there: no heap is mostly poison without them either. On `gtsrb`, whose
# classes are smaller, whoever is right about the target removes too little: of 59 % ASR, 13 to 41 % stay, in three draws. The alarm rings, and keeps silent, as it does here.
#
# **On Monday**
#
# - Write down where each part of your training data comes from, who could have changed it, and who signed it. A hash only helps from the moment on at which you take it.
# - Keep a small set that you collected yourself, label it yourself, and test every new model on it, class by class.
# - Cap what a single source can contribute: one per cent was enough here.
# - Run a feature-space filter (`poisoning.spectral_signatures` and `poisoning.activation_clustering` show how little code it is), and *look* at what it removes.
# - Look for triggers in the finished model as well: lesson 03 inverts them, and repairs the model.
# - Tools: the Adversarial Robustness Toolbox has both filters and many attacks; cleanlab finds wrong labels, not triggers.
#
# ### Check yourself
#
# <details><summary>Your training data has the hash that its supplier published. What do you know about poison in it?</summary>
#
# That nobody changed it after the supplier computed the hash. Poison that was in it by then, or that the supplier put there, is covered by the same hash.
# </details>
#
# <details><summary>Why does the cross-validation refuse 20 % of random flips, and pass 1 % of BadNets?</summary>
#
# It averages over all pictures, and the poison is tested like anything else. A fifth of wrong labels cannot be predicted by anybody, so the mean falls with it. One per
# cent can move the mean by about one point, well inside the tolerance of five.
# </details>
#
# <details><summary>What do covers take away from activation clustering?</summary>
#
# Purity: the smaller heap, which as a rule is mostly poison without them, holds many clean pictures, often mostly clean ones. With covers the trigger alone no longer decides the class, so the network does not
# set the pictures that carry it apart as clearly.
# </details>
#
# ### Read on
#
# - T. Gu et al., *BadNets: identifying vulnerabilities in the machine learning model supply chain*, 2017.
# - X. Chen et al., *Targeted backdoor attacks on deep learning systems using data poisoning*, 2017 (blended triggers).
# - A. Turner et al., *Label-consistent backdoor attacks*, 2019 (clean-label).
# - B. Tran et al., *Spectral signatures in backdoor attacks*, 2018, and B. Chen et al., *Detecting backdoor attacks on deep neural networks by activation clustering*, 2018.
# - X. Qi et al., *Revisiting the assumption of latent separability for backdoor defenses*, 2023 (covers).
#
# **Back to the map:** [00 · Start here](00_start_here.ipynb)
