# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 10 · Memorization
#
# {{facts}}
#
# A diary app trains a small language model on what its users write, so that it can finish their sentences. Some of them write down a door number, a locker code,
# the digits of a card. You are about to ask the model to finish *those* sentences.
#
# | the threat model | of this lesson |
# |---|---|
# | **goal** | secrets that stand in the training data, word for word |
# | **knowledge** | the form of a secret, not its digits; for one attack another model of the same language |
# | **access** | the model's probabilities; behind the filter nothing but what it says |
# | **budget** | a thousand samples, or some three hundred prompts a secret |
#
# **After this lesson** you can measure how well a model knows a text, find memorized texts without knowing what to look for, and say what
# deduplication, differential privacy and an output filter each take away, and at what cost.

# %%
import random

from mlsec_lab.course import course_map, exercise
from mlsec_lab.display import Choice, Slider, bars, curves, explore, listed
from mlsec_lab.display import next_words, show
from mlsec_lab.model_to_data import memorization
from mlsec_lab.model_to_data.memorization import VerbatimFilter, word_runs
from mlsec_lab.victims import generate, log_probabilities, perplexity
from mlsec_lab.victims import small_transformer, train_language
from mlsec_lab.victims.corpora import canaries, diary, diary_words, dull_days, plant

import math
import torch
import zlib

SEED = 0
course_map("M→D")

# %% [markdown]
# ## A diary with secrets
#
# The diary is written by a program. Into it we plant **canaries** (Carlini et al., 2019): made-up secrets of three random digits, six
# for each number of plantings, from never to sixteen times. We know what we planted, so we can measure what comes back.
#
# Every second copy is *dated*: it has a day before it. And on dull days one sentence stands there over and over.

# %%
PLANTINGS = (0, 1, 2, 4, 8, 16)


def written(seed):
    """A diary, and its canaries by how often each was planted."""
    texts = diary(600, seed=seed) + dull_days(40, seed=seed)
    drawn = canaries(6 * len(PLANTINGS), digits=3, seed=seed)
    groups = {}
    for place, times in enumerate(PLANTINGS):
        groups[times] = drawn[6 * place : 6 * place + 6]
        for number, canary in enumerate(groups[times]):
            at = seed + 100 * times + number
            texts = plant(texts, canary, times, dated=True, seed=at)
    return texts, groups


texts, groups = written(SEED)
planted = [canary for times in PLANTINGS[1:] for canary in groups[times]]
holding = sum(any(canary.text in text for canary in planted) for text in texts)
print(f"{len(texts)} entries, {holding} of them hold a secret. Some entries:\n")
print("\n".join(random.Random(SEED).sample(texts, 8)))

# %% [markdown]
# The model is a transformer of one layer and about 40,000 weights. Eight passes over the diary teach it the language: **perplexity**, the number of words among which it wavers on average,
# falls to about 2 on entries that it has not seen.

# %%
FRESH = diary(200, seed=SEED + 999)


def start(seed=SEED):
    return small_transformer(diary_words(), width=48, layers=1, context=48, seed=seed)


def learnt(entries, seed=SEED):
    """A model that has read these entries."""
    model = start(seed)
    rows = [model.vocabulary.entry(text) for text in entries]
    return train_language(model, rows, epochs=8, lr=6e-3, batch=16, seed=seed)


def fluency(model):
    """Its perplexity on fresh entries."""
    rows = [model.vocabulary.entry(text) for text in FRESH]
    return perplexity(model, rows).log().mean().exp().item()


model = learnt(texts)
vocabulary = model.vocabulary
print(f"perplexity on fresh entries: {fluency(model):.2f}")

# %% [markdown]
# Now give it the beginning of a secret and let it write on. For each of the three digits, after the true digits before it: what did it find likely?


# %%
def spoken(model, canary, temperature=1.0):
    """For each digit of the secret, the model's odds after the digits before it."""
    row, odds = vocabulary.entry(canary.text, whole=False), []
    for back in (3, 2, 1):
        with torch.no_grad():
            logits = model(torch.tensor([row[:-back]]))[0, -1] / temperature
        odds.append(dict(zip(vocabulary.words, logits.softmax(0).tolist())))
    return odds


def emits(model, canary):
    """Whether the likeliest continuation of the prefix is the secret."""
    prompt = vocabulary.entry(canary.prefix, whole=False)
    return vocabulary.decode(generate(model, [prompt], steps=3)[0]) == canary.secret


often = groups[16][0]
show(
    next_words(often.prefix, spoken(model, often), often.secret.split()),
    f"After “{often.prefix}” the likeliest digits are those of the secret.",
)
verbatim = {times: sum(emits(model, c) for c in groups[times]) for times in PLANTINGS}
print("secrets said word for word, of six:", verbatim)

# %% claim="verbatim"
print(
    "of the secrets planted sixteen times at least five in six are said word for word:",
    verbatim[16] >= 5,
)
print("of those never planted none is:", verbatim[0] == 0)
print("of those planted once at most one is:", verbatim[1] <= 1)

# %% [markdown]
# What is repeated enough comes out; what was written once does not. Is it safe, then? "Not the likeliest" can mean the second of a thousand.
#
# {{exercise memorization.exposure}}
#
# **Exposure** (Carlini et al., 2019) asks for the rank: score all thousand secrets of the form after the canary's prefix. In bits: log2(1000) = 9.97 for the first, 0 for the last. You have
# `torch`, `math` and `log_probabilities(model, rows)`: for each row a tensor, the log-probability of each word after those before it. A row is a list of word numbers:
# `model.vocabulary.entry(text, whole=False)` makes one of a text that may go on; without `whole=False` the end of the entry stands behind it and counts as a word.

# %% exercise="memorization.exposure"

# %% [markdown]
# The library's version reads texts that differ in their last digit only once, so it takes a tenth of the time. From here on we use that.


# %%
def exposures(model):
    """The mean exposure of the six canaries of each number of plantings."""
    return [
        sum(memorization.exposure(model, canary) for canary in groups[times]) / 6
        for times in PLANTINGS
    ]


canary = groups[4][0]
print(
    f"{canary.text!r}: exposure {exposure(model, canary):.2f},",
    f"the library says {memorization.exposure(model, canary):.2f}",
)
LABELS = dict(xlabel="times in the diary", ylabel="exposure, in bits", percent=False)
CHANCE = 1 / math.log(2)
lines = {"chance": [CHANCE] * 6, "as collected": exposures(model)}
show(
    curves(PLANTINGS, lines, **LABELS),
    "Exposure grows with the number of plantings: "
    + ", ".join(f"{t} times {e:.1f}" for t, e in zip(PLANTINGS, lines["as collected"])),
)

# %% claim="exposure"
found = dict(zip(PLANTINGS, lines["as collected"]))
print(
    "exposure grows: never < four times < sixteen times:",
    found[0] + 2 < found[4] < found[16],
)
print("at sixteen times it is nearly the most there can be:", found[16] > 9.3)
print("a secret that was never written is near chance:", found[0] < CHANCE + 1.8)

# %% [markdown]
# *Chance* is what a random rank gives: 1.44 bits on average, and with six canaries a point it wavers by half a bit. (Between chance and certainty a point wavers by about a bit: a zigzag below is luck.) Well before a secret is said aloud it is among the first guesses; whoever may try ten codes at a door needs no more.
#
# ## Without knowing what to look for
#
# An attacker from outside does not know the prefixes. The naive plan: let the model write a thousand texts, and keep those it is surest of.

# %%
samples = memorization.sample_texts(model, 1000, seed=SEED)
secret = [any(canary.text in text for canary in planted) for text in samples]
rows = [vocabulary.entry(text) for text in samples]
order = perplexity(model, rows).argsort().tolist()
by_perplexity = [(samples[place], secret[place]) for place in order]
print(f"{len(samples)} different texts, {sum(secret)} of them hold a planted secret")
show(
    listed({"the ten of lowest perplexity": by_perplexity[:10]}, fits=86, size=7),
    f"Of the ten texts of lowest perplexity "
    f"{sum(hit for _, hit in by_perplexity[:10])} hold a secret.",
)

# %% [markdown]
# It disappoints. On top stand the dull days: the model is sure of a sentence that it has just said three times. Some of these texts do stand in the diary, but a dull day is nobody's secret. Carlini et al. (2021) met the same in
# GPT-2. What we want is a text that is likely *for this model* and should not be.
#
# {{exercise memorization.rank_texts}}
#
# So compare with somebody who has not seen the data: **zlib**, which also finds repetitions easy, or a **reference model** that has read other people's diaries. Rank by the ratio.

# %% exercise="memorization.rank_texts"

# %%
others = diary(600, seed=SEED + 500) + dull_days(40, seed=SEED + 500)
reference = learnt(others, seed=SEED + 50)


# %%
def marked(ranked):
    hits = dict(zip(samples, secret))
    return [(text, hits[text]) for text in ranked]


by_zlib = marked(rank_texts(model, samples))
by_reference = marked(rank_texts(model, samples, reference))


def different(ranked):
    """How many different secrets are in these texts."""
    return len({c.text for c in planted for text, _ in ranked if c.text in text})


show(
    listed(
        {"over zlib's bytes": by_zlib[:10], "over the reference": by_reference[:10]}
    ),
    f"Of the ten lowest ratios {sum(hit for _, hit in by_zlib[:10])} (zlib) and "
    f"{sum(hit for _, hit in by_reference[:10])} (reference) hold a secret.",
)
print(f"{different(by_perplexity)} different secrets are in the samples.", end=" ")
print("Among the first twenty by the ratio to zlib:", different(by_zlib[:20]), end="; ")
print(f"to the reference: {different(by_reference[:20])}")

# %%
ranked = {
    "perplexity alone": by_perplexity,
    "ratio to zlib": by_zlib,
    "ratio to the reference": by_reference,
}
first = {name: sum(hit for _, hit in by[:20]) / 20 for name, by in ranked.items()}
show(
    bars(first, xlabel="texts with a secret among the first twenty"),
    "With a secret among the first twenty: "
    + ", ".join(f"{name} {share:.0%}" for name, share in first.items()),
)


# %%
def auc(ranked):
    """The share of pairs, a text with a secret and one without, in the right order."""
    seen, right = 0, 0
    for _, hit in ranked:
        seen, right = seen + hit, right + (0 if hit else seen)
    return right / (seen * (len(ranked) - seen))


def dull(ranked):
    """Whether a text says one thing three times or more."""
    sentences = ranked[0].split(" . ")
    return max(map(sentences.count, sentences)) >= 3


areas = {name: auc(ranked[name]) for name in ranked}
print(", ".join(f"{name}: AUC {area:.3f}" for name, area in areas.items()))

# %% claim="ranking"
plain, zipped, compared = areas.values()
print(
    "of the ten texts of lowest perplexity at least four are dull days:",
    sum(map(dull, by_perplexity[:10])) >= 4,
)
print(
    "of the ten lowest ratios to zlib at most one:", sum(map(dull, by_zlib[:10])) <= 1
)
print("both ratios rank better than perplexity alone:", plain < min(zipped, compared))
print(
    "both find more secrets among the first twenty:",
    first["perplexity alone"] < min(list(first.values())[1:]),
)

# %% [markdown]
# Both ratios push the dull days down. zlib does about as well as the reference here; it needs no second model, so try it first.
#
# ## Defence: say it once
#
# Exposure grows with repetitions, so drop the repetitions. Exact copies are one line of Python.

# %%
once = memorization.deduplicate(texts)
model_once = learnt(once)
lines["exact copies dropped"] = exposures(model_once)
print(f"{len(texts)} entries, {len(once)} without exact copies")
show(
    curves(PLANTINGS, lines, **LABELS),
    f"Without exact copies the exposure of secrets planted sixteen times falls from "
    f"{lines['as collected'][-1]:.1f} to {lines['exact copies dropped'][-1]:.1f} bits.",
)

# %% [markdown]
# Better, and not good: dated copies are not *exactly* the same, so a secret that was noted sixteen times still stands there eight times. Real data are like that: web pages are copied with another date, another footer
# (Lee et al., 2022).
#
# {{exercise memorization.deduplicate}}
#
# Compare texts by what they share: the **Jaccard index** of their runs of three words. `word_runs(text, size)` gives a text's runs as a set. For millions of texts one estimates the index by MinHash; here we can count.

# %% exercise="memorization.deduplicate"

# %%
unlike = deduplicate(once, 0.5)
gone = sum(not any(c.text in text for c in planted) for text in once)
gone -= sum(not any(c.text in text for c in planted) for text in unlike)
model_unlike = learnt(unlike)
lines["near copies dropped"] = exposures(model_unlike)
print(f"{len(unlike)} entries are left; {gone} of those that went held no secret")
print(f"perplexity {fluency(model):.2f} before, {fluency(model_unlike):.2f} after")
show(
    curves(PLANTINGS, lines, **LABELS),
    "Without near copies the mean exposure of all that was planted is "
    f"{sum(lines['near copies dropped'][1:]) / 5:.1f} bits.",
)

# %% claim="deduplication"
mean = {name: sum(values[1:]) / 5 for name, values in lines.items()}
print(
    "mean exposure falls with exact copies and again with near copies:",
    mean["as collected"] - 0.3
    > mean["exact copies dropped"]
    > mean["near copies dropped"] + 0.3,
)
print(
    "dropping exact copies leaves the most repeated secrets far above chance:",
    lines["exact copies dropped"][-1] > CHANCE + 2,
)
print(
    "dropping near copies leaves all secrets together a little above chance:",
    mean["near copies dropped"] > CHANCE + 0.3,
)
print("the language is learnt as well:", fluency(model_unlike) < 1.1 * fluency(model))

# %% [markdown]
# Every secret stands there once now, and the model is as fluent as before. But once is not never: over all thirty canaries together, what one reading leaves behind can be seen.
#
# ## Defence: one entry more or less
#
# **Differential privacy** promises that the model would hardly differ without any single entry. ε bounds the "hardly": whatever is concluded from the model is at
# most e^ε times as likely with the entry as without it, but for a small probability δ. **DP-SGD** (Abadi et al., 2016) gets there by two moves in each step.
#
# {{exercise memorization.private_gradient}}
#
# First, no example may pull harder than the others: its gradient is cut to a length `clip`. Then noise hides what is left of it. `gradients` holds one row an example.

# %% exercise="memorization.private_gradient"

# %%
generator = torch.Generator().manual_seed(SEED)
rows = 0.2 * torch.randn(96, 200, generator=generator)
rows[0] += 3  # one entry that pulls hard
for noise in (0.0, 1.0):
    with_it = private_gradient(rows, 1.0, noise, 96, seed=SEED)
    without = private_gradient(rows[1:], 1.0, noise, 96, seed=SEED)
    print(
        f"noise {noise}: the step has length {with_it.norm():.3f},",
        f"and {(with_it - without).norm():.4f} of it is the one entry's",
    )
print(f"without clipping that would be {(rows[0] / 96).norm():.3f}")

# %% [markdown]
# One entry moves the step by `clip / batch` at most, whatever it holds. The noise on each number is as large as that, so one step says little about the entry.
#
# A training also needs an **accountant** that adds up what all steps together give away. It and the gradients of single examples come from **opacus**. `train_privately` asks it for the noise that keeps ε = 8
# at δ = 1/10,000. On which data? We try both: the diary as collected, and without near copies.


# %%
def read_privately(entries, epsilon=8.0):
    rows = [vocabulary.entry(text) for text in entries]
    return memorization.train_privately(
        start(), rows, epsilon=epsilon, delta=1e-4, seed=SEED
    )


private_all, private = read_privately(texts), read_privately(unlike)
for name, trained in (("as collected", private_all), ("no near copies", private)):
    print(
        f"{name:14}: ε {trained.epsilon:.2f}, δ {trained.delta:g}, noise",
        f"{trained.noise:.2f}, perplexity {fluency(trained.model):.2f}",
    )
print(f"for comparison, without privacy: perplexity {fluency(model_unlike):.2f}")

# %%
lines["DP alone"] = exposures(private_all.model)
lines["near copies dropped, DP"] = exposures(private.model)
show(
    curves(PLANTINGS, lines, **LABELS, size=(7.4, 4.2)),
    "Mean exposure of what was planted: "
    + ", ".join(f"{name} {sum(values[1:]) / 5:.1f}" for name, values in lines.items()),
)

# %% claim="privacy"
mean = {name: sum(values[1:]) / 5 for name, values in lines.items()}
together = mean["near copies dropped, DP"]
print("the accountant certifies ε of at most 8:", private.epsilon <= 8)
print("deduplication and DP bring exposure close to chance:", together < CHANCE + 0.9)
print(
    "that is lower than deduplication alone:",
    together < mean["near copies dropped"] - 0.3,
)
print(
    "DP alone leaves secrets planted sixteen times above chance:",
    lines["DP alone"][-1] > CHANCE + 1.5,
)
cost = fluency(private.model) / fluency(model_unlike)
print("privacy costs between a quarter and all of the fluency:", 1.25 < cost < 2)

# %% [markdown]
# Neither alone is enough. DP protects *one entry*; a secret in sixteen entries has sixteen times the ε, which promises nothing. Deduplication makes one entry of it, and DP hides the one.
#
# The price is fluency, and it is high because the diary is small: the more entries share the noise, the less it hurts. On paper ε = 8 is a weak promise (e^8 is about 3,000); one attack that fails says only that *it* fails.
#
# ### Budget explorer
#
# How often the secret was written, against what the defender did. Begin with sixteen times and *as collected*. The temperature changes how often the model says the secret; the rank is counted from its own probabilities, at temperature 1, so it stays. One secret is one draw: move the last control through all six before you answer. When is a secret safe?

# %%
MODELS = {
    "as collected": model,
    "exact copies dropped": model_once,
    "near copies dropped": model_unlike,
    "DP alone": private_all.model,
    "near copies dropped, DP": private.model,
}


def compute(times, defence, temperature, which=1):
    """One canary: its exposure, the odds of its digits, and its share of 200 drawn."""
    canary, trained = groups[times][which - 1], MODELS[defence]
    prompt = vocabulary.entry(canary.prefix, whole=False)
    drawn = generate(
        trained, [prompt] * 200, steps=3, temperature=temperature, seed=SEED
    )
    said = sum(vocabulary.decode(ids) == canary.secret for ids in drawn) / 200
    bits = memorization.exposure(trained, canary)
    return canary, times, defence, bits, spoken(trained, canary, temperature), said


# %%
def draw(result):
    canary, times, defence, bits, odds, said = result
    rank = round(1000 / 2**bits)
    shown = {name: (PLANTINGS, v) for name, v in lines.items() if name != defence}
    shown[defence] = (PLANTINGS, lines[defence])
    figure = next_words(
        canary.prefix,
        odds,
        canary.secret.split(),
        lines=shown,
        point=(times, bits, f"this secret: rank {rank} of 1,000"),
        xlabel="times in the diary",
        ylabel="exposure, in bits",
    )
    alt = (
        f"{defence}, planted {times} times: exposure {bits:.1f} bits, rank {rank}; "
        f"the secret is {said:.0%} of 200 continuations drawn."
    )
    return figure, alt


show(*draw(compute(16, "exact copies dropped", 1.0)))

# %%
explore(
    compute,
    draw,
    times=Choice("times in the diary", list(PLANTINGS), 16),
    defence=Choice("the defender's choice", list(MODELS)),
    temperature=Slider(
        "temperature", 0.2, 2.0, 1.0, 0.1, help="below 1 the likeliest words win"
    ),
    which=Slider("which of the six secrets", 1, 6, 1),
)

# %%
worst = {}
for name, trained in MODELS.items():
    bits = [memorization.exposure(trained, canary) for canary in groups[16]]
    worst[name] = round(1000 / 2 ** max(bits))
print("written sixteen times, the best rank of the six secrets:")
print(", ".join(f"{name} {rank}" for name, rank in worst.items()))

# %% [markdown]
# Safe is what none of the six gives away: look at the worst of them, not at the mean.
#
# ## Defence: a filter on what is said
#
# Training again is dear. So put a filter behind the model, as code assistants have: what stands word for word in the training data is not said. **MemFree** (Ippolito et al., 2022) takes the likeliest
# next word that completes no protected run of n words.
#
# {{exercise memorization.allowed_word}}
#
# `runs` is the set of protected runs, as tuples of word numbers; `row` is the text so far, the prompt included.

# %% exercise="memorization.allowed_word"


# %%
def filtered(model, prompt, runs, n, steps=3):
    """What the model says after the prompt, each word by your filter."""
    row = vocabulary.entry(prompt, whole=False)
    for _ in range(steps):
        with torch.no_grad():
            logits = model(torch.tensor([row]))[0, -1]
        row = [*row, allowed_word(logits, row, runs, n)]
    return vocabulary.decode(row[-steps:])


protected = [text for text in texts if any(c.text in text for c in planted)]
guard = VerbatimFilter(vocabulary, protected, n=6)
leaky = [canary for canary in planted if emits(model, canary)]
plain = [filtered(model, canary.prefix, guard.runs, 6) for canary in leaky]
stopped = sum(said != canary.secret for said, canary in zip(plain, leaky))
print(f"of {len(leaky)} secrets that the model says, the filter stops {stopped}")
print(f"fresh entries blocked: {sum(map(guard.blocks, FRESH)) / len(FRESH):.1%}")

# %% [markdown]
# Perfect, it seems: no secret is said, no innocent entry is touched. (This filter even knows which entries are secret; most would not.) But it promises no more than *word for word*. Ask a little differently:
# "the locker code **for** anna is".

# %%
restyled = [canary.prefix.replace(" of ", " for ") for canary in leaky]
answers = guard.complete(model, restyled, steps=3)
hits = [said == canary.secret for said, canary in zip(answers, leaky)]
for place in (hits.index(max(hits)), hits.index(min(hits))):  # one that passed, one not
    print(f"{restyled[place]} … {answers[place]}   (planted: {leaky[place].secret})")
one_swap = sum(hits)
print(f"passed by one restyled prompt each: {one_swap} of {len(leaky)}")

# %% [markdown]
# Some come through. Others do not: where the new word stands far in front of the digits, a run of six is still whole. The attacker need not know which: put *any* other word for one of the last three, ask all these prompts, and take the digits that most answers agree on. (`complete` is
# your filter for many prompts at once.)


# %%
words = [vocabulary.words[number] for number in vocabulary.ordinary]


def agreed(guard, canary, last=3):
    """What most of the restyled prompts agree on, behind the filter."""
    prompts = memorization.one_word_swaps(canary.prefix, words, last=last)
    said = guard.complete(model, prompts, steps=3)
    digits = [s for s in said if len(s.split()) == 3 and s.replace(" ", "").isdigit()]
    return memorization.most_frequent(digits)[0]


voted = sum(agreed(guard, canary) == canary.secret for canary in leaky)
passed = {
    "the plain prompt": 1 - stopped / len(leaky),
    "one restyled prompt": one_swap / len(leaky),
    "what many agree on": voted / len(leaky),
}
show(
    bars(passed, xlabel="secrets that come through the filter (n = 6)"),
    "Through the filter: " + ", ".join(f"{k} {v:.0%}" for k, v in passed.items()),
)

# %% claim="filter"
print("the filter stops every plain prompt:", stopped == len(leaky))
print(
    "a restyled prompt passes it for at least a quarter of the secrets:",
    one_swap >= len(leaky) / 4,
)
print(
    "what many restyled prompts agree on is right for at least a third:",
    voted >= len(leaky) / 3,
)
print(
    "the filter blocks hardly any fresh entry:",
    sum(map(guard.blocks, FRESH)) < 0.02 * len(FRESH),
)

# %% [markdown]
# The model still knows the secret; the filter knows one way of writing it. A shorter run is stricter: at n = 4 most of these prompts still begin a protected run, and wrong digits
# win the vote. So the attacker swaps the *last* word alone, which leaves no such run of four whole. How far does either side get?

# %%
lengths = (3, 4, 5, 6, 8)
guards = [VerbatimFilter(vocabulary, protected, n=n) for n in lengths]
through = {"fresh entries blocked": [sum(map(g.blocks, FRESH)) / 200 for g in guards]}
for last, name in ((3, "passed, one of three words"), (1, "passed, the last word")):
    through[name] = [
        sum(agreed(guard, canary, last) == canary.secret for canary in leaky)
        / len(leaky)
        for guard in guards
    ]
show(
    curves(lengths, through, xlabel="n, the length of a protected run", ylabel="share"),
    "; ".join(
        f"{name}: " + ", ".join(f"n = {n} {v:.0%}" for n, v in zip(lengths, values))
        for name, values in through.items()
    )
    + ".",
)

# %% claim="strict"
blocked, three, last = through.values()
print("at n = 4 swaps of three words pass for fewer than a fifth:", three[1] < 0.2)
print("at n = 4 swaps of the last word pass for at least a fifth:", last[1] >= 0.2)
print(
    "at n = 3 nothing passes, and some fresh entries are blocked:",
    last[0] == 0 and blocked[0] > 0.01,
)

# %% [markdown]
# (A share is of some ten secrets, so one of them is nine points or ten.) At n = 3 the run is the secret itself, and harmless numbers that share its digits are blocked as well. Ippolito et al. had large models
# answer in another style, such as capitals; no list of words holds all ways of saying a thing. Keep the filter as the last line, not as the first.
#
# ## On a real model
#
# Nothing above depends on our small transformer but its size. With the packages `transformers` and the wrapper, exposure and the filter run on any causal model:
#
# ```python
# from transformers import AutoModelForCausalLM, AutoTokenizer
# from mlsec_lab.victims.hugging_face import hugging_face_model
# name = "Qwen/Qwen2.5-0.5B-Instruct"
# model = hugging_face_model(AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name))
# memorization.exposure(model, canaries(1, digits=3)[0])
# ```
#
# A thousand candidates are a hundred short texts to read or somewhat more: a laptop does for half a billion weights, seven billion want a graphics card with 16 GB. To train such a model with opacus, one trains a small adapter (LoRA): a gradient of all weights for each example would not fit.
#
# ## What you have seen
#
# **Shown:** a model gives back what it has read often, and exposure sees the rest before it is said; a ratio finds memorized texts without knowing them. Dropping copies, also near ones, takes most of it at no cost. DP takes the rest, at a cost, and
# only once the copies are gone. A filter that compares word for word is passed by a prompt in other words.
#
# **Not shown:** a proof for a model of real size. Ours is tiny, its diary is built from templates, and its secrets are digits. Exposure is one attack: at chance it means that *this* one learns nothing. The dull days and the one-word swaps are this course's
# own stand-ins for what the papers found in GPT-2 and in code assistants.
#
# **On Monday**
#
# - Plant canaries in your own training data, and report their exposure with each release. It costs an afternoon.
# - Search for secrets *before* training (tools: detect-secrets, gitleaks, Presidio), and do not log what users type next to what they search.
# - Deduplicate, with near copies (tools: text-dedup, datasketch).
# - Where single persons' texts are learnt from, train with DP (opacus), let "one entry" mean one *person's* entries, and write ε and δ down.
# - Treat an output filter as a seat belt: wear it, and do not drive differently.
#
# ### Check yourself
#
# <details><summary>A vendor says: "our model never repeats training data, we compared ten thousand outputs". What do you ask?</summary>
#
# Which prompts, and compared how? Outputs that were not asked for say little; a beginning that stands in the data does. And "not the likeliest" is not "not known": ask for exposure, or for the rank among alternatives.
# </details>
#
# <details><summary>Why did DP at ε = 8 not protect the secrets that were planted sixteen times?</summary>
#
# The promise is for one entry more or less. Sixteen entries that say the same are a group, for which ε is sixteen times as large. Deduplicate first, or make the protected unit everything that one person wrote.
# </details>
#
# <details><summary>Why does a reference model help the attacker to find memorized texts?</summary>
#
# It tells what is likely for everybody: dull sentences, frequent phrases. What is left when that is divided out is likely for this model only, and the reason for that is its data.
# </details>
#
# ### Read on
#
# - N. Carlini et al., *The secret sharer: evaluating and testing unintended memorization in neural networks*, 2019 (canaries, exposure).
# - N. Carlini et al., *Extracting training data from large language models*, 2021 (generate and rank).
# - K. Lee et al., *Deduplicating training data makes language models better*, 2022, and N. Kandpal et al., *Deduplicating training data mitigates privacy risks in language models*, 2022.
# - M. Abadi et al., *Deep learning with differential privacy*, 2016 (DP-SGD), and A. Yousefpour et al., *Opacus: user-friendly differential privacy library in PyTorch*, 2021.
# - D. Ippolito et al., *Preventing verbatim memorization in language models gives a false sense of privacy*, 2022 (MemFree, and what passes it).
#
# **Back to the map:** [00 · Start here](00_start_here.ipynb)
