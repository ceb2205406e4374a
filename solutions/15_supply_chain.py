# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 15 · Supply chain
#
# {{facts}}
#
# OWASP calls it *AI supply chain attack*. You download a model and load it; you install a package and import it. Both are somebody else's
# work, and both can run somebody else's code on your computer, before the model has made a single prediction. In this lesson you forge such
# a file, look into it without opening it, walk past the scanners, and then put up the two or three measures that hold.
#
# | the threat model | of this lesson |
# |---|---|
# | **goal** | to run code on the computer of whoever loads a model or installs a package |
# | **knowledge** | which loader the victim uses; later, which scanner |
# | **access** | one file that the victim will fetch: on a model hub, a mirror, a package index |
# | **budget** | one function that Python can import, and its arguments |
#
# **After this lesson** you can forge a pickle and read one without loading it, measure a scanner by what it misses and what it wrongly stops, pin a
# file so that no bit of it can differ, and lock a package to its hash.

# %%
from mlsec_lab.course import course_map, exercise
from mlsec_lab.display import Choice, Slider, bars, curves, explore, grid, program, show
from mlsec_lab.model_to_model import packages, supply_chain
from mlsec_lab.model_to_model.quarantine import LOADERS, MARKER, open_in_quarantine
from mlsec_lab.model_to_model.supply_chain import BLOCKED, CODE, Call, flip_bit, on_list
from mlsec_lab.victims import accuracy, load_data, load_model, small_cnn

import hashlib
import io
import json
import pickle
import pickletools
import random
import tempfile
from pathlib import Path

import joblib
import torch
from safetensors.torch import load, save

x, y, classes = load_data("signs", "test", n=256)
model = load_model("signs_cnn")
RED, ORANGE, GREEN, BLUE, GREY = "#a6002c", "#d55e00", "#00795a", "#0072b2", "#5f6770"
course_map("M→M")

# %% [markdown]
# **How this lesson keeps its payloads harmless.** Everything is forged here, while you watch, and does one thing: it writes the file
# `executed.txt` into the folder where it wakes up. No pickle is loaded in this notebook. `open_in_quarantine` starts a child process in a temporary
# folder that is deleted afterwards, hides your home and your keys from it, lets it write nowhere else and cuts off its network: by the kernel on Linux
# where that is allowed, elsewhere by a hook inside Python, which code that means harm can get around. It is a fence, not a prison.
# A virus scanner on your computer may object to some files all the same; it would be right to.
#
# ## What is in a model file?
#
# Here is the sign reader of lesson 01, saved as most models are: its weights by `torch.save`. The file is a zip archive, and in it lies a **pickle**,
# Python's own format for objects. What does that look like inside?

# %%
ROLES = {"name": RED, "call": ORANGE, "data": GREY}


def as_lines(data, width=34):
    """The opcodes of a pickle, to be shown: in red what it names, in orange calls."""
    rows = supply_chain.opcodes(data)
    texts = ["" if argument is None else repr(argument) for _, _, argument, _ in rows]
    return [
        (str(place), word, text[:width] + "…" * (len(text) > width), ROLES[role])
        for (place, word, _, role), text in zip(rows, texts)
    ]


weights_file = supply_chain.torch_file(model.state_dict())
(inside,) = supply_chain.pickles_in(weights_file)
show(
    program(as_lines(inside)[:24], most=24),
    "The first steps of the pickle in a weights file: it names OrderedDict and a "
    "function that rebuilds a tensor, pushes data, and calls.",
)
print(
    f"{len(as_lines(inside)):,} steps in all, in a file of {len(weights_file):,} bytes"
)

# %% [markdown]
# This is no table of numbers. It is a **program** for a small machine with a stack: most steps push data (grey), some ask Python for a thing by
# its module and name (red), and `REDUCE` calls what was asked for (orange). That is how a pickle rebuilds a tensor: it names the
# function that does it. So what if it names another one?
#
# {{exercise supply_chain.forge}}
#
# An object decides how it is pickled: its method `__reduce__` returns a function and a tuple of arguments, and "call this with those" is what is written down. Write
# a pickle that runs any Python code on loading. (What your function returns is loaded in the quarantine by the check, never here.)

# %% exercise="supply_chain.forge"

# %%
forged = forge(CODE)
(outcome,) = open_in_quarantine([("pickle", forged)])
show(
    program(as_lines(forged, width=26)),
    "The forged pickle: it names builtins.exec, pushes a line of Python, and calls.",
)
print(f"{len(forged)} bytes; loading it: {outcome.result}, and {outcome.said} came out")
print("it asked Python for", *outcome.names)

# %% claim="forged"
print("the forged pickle runs its code in the process that loads it:", outcome.executed)
print("nothing ran while it was forged:", not Path(MARKER).exists())
print("a kilobyte is more than enough for it:", len(forged) < 1000)

# %% [markdown]
# The loader reports success. There was no warning, no exception, and the object that came out is `None`; a careful attacker
# would return a working model.
#
# ## Which loaders run it?
#
# "I do not use pickle" is a common answer. Models come by `joblib`, by `torch.load`, by `numpy.load`. Forge one file of each kind, add one of
# **safetensors**, a format for tensors and nothing else, and give every file to every loader.

# %%
payload = Call(exec, CODE)
as_joblib = io.BytesIO()
joblib.dump({"model": payload}, as_joblib)
weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
files = {
    "pickle": forged,
    "joblib": as_joblib.getvalue(),
    "torch": supply_chain.torch_file({"weights": payload}),
    "numpy": supply_chain.numpy_file(payload),
    "safetensors": save(weights),
    "weights by\ntorch.save": weights_file,
}
every = [(loader, data) for loader in LOADERS for data in files.values()]
opened = dict(zip([(l, f) for l in LOADERS for f in files], open_in_quarantine(every)))

# %%
WORDS = {"ran the code": RED, "loaded": GREEN, "refused": GREY}


def verdict(outcome):
    return "ran the code" if outcome.executed else outcome.result


table = {l: [verdict(opened[l, f]) for f in files] for l in LOADERS}
ran = {l: table[l].count("ran the code") for l in LOADERS}
show(
    grid(table, list(files), WORDS),
    "Files against loaders. Files whose code ran: "
    + ", ".join(f"{loader} {count}" for loader, count in ran.items())
    + ".",
)

# %% claim="loaders"
for loader, file in zip(LOADERS[:4], files):
    print(f"{loader} runs the code in its own file:", opened[loader, file].executed)
print("weights_only=True runs nothing:", ran["torch.load(weights_only=True)"] == 0)
print("the safetensors loader runs nothing:", ran["safetensors"] == 0)
plain = opened["torch.load(weights_only=True)", "weights by\ntorch.save"]
print("weights_only=True loads plain weights:", plain.result == "loaded")

# %% [markdown]
# Four ways to load a model, four ways to run a stranger's code, and the file's name played no part: joblib, torch and numpy take a plain pickle, too. (numpy opens torch's archive as a bundle of files and reads none of them.)
# `weights_only=True` is a loader with an **allowlist**: a short list of names that weights need, and all else is
# refused. It is torch's default since 2.6. It is still code that obeys a file, and has had holes (CVE-2025-32434, closed in 2.6; CVE-2026-24747, closed in 2.10), so keep torch up to
# date. The safetensors loader has nothing that could be called.
#
# ## Look before you load
#
# Until everybody has changed formats, can one not look whether a pickle is harmless? It can be read without being run: `pickletools.genops` walks over its steps. What
# matters are the red ones.
#
# {{exercise supply_chain.names_in}}
#
# A pickle of protocol 0 to 3 names things by `GLOBAL`, with both words in its argument. Protocols 4 and 5 push module and name as two strings and then say
# `STACK_GLOBAL`. A string that is needed twice is written once, filed in the **memo** by `MEMOIZE` and fetched by `BINGET`. Look at a few before you begin:

# %%
import statistics

twice = [Call(statistics.mean, [1]), Call(statistics.median, [2])]
for protocol in (2, 4):
    print(f"\nprotocol {protocol}:")
    for opcode, argument, _ in pickletools.genops(pickle.dumps(twice, protocol)):
        if opcode.name not in (
            "PROTO",
            "FRAME",
            "MARK",
            "STOP",
            "EMPTY_LIST",
            "APPENDS",
        ):
            print(f"  {opcode.name:18}", "" if argument is None else repr(argument))

# %% exercise="supply_chain.names_in"

# %%
print("the forged pickle names:", *names_in(forged))
print("the weights file names: ", *sorted(names_in(inside)), sep="\n  ")

# %% [markdown]
# Now a scanner is two lines: take the names, compare them with a list of what is dangerous, a **blocklist**. Ours has ten entries, the ones that come to mind first. To measure it
# we need more than one payload. Here are thirty, each a different function that can be made to run text, start a command or at least write a file,
# and all of them came with Python or with this course's libraries.

# %%
harmful = {
    name: supply_chain.torch_file(call)
    for name, call in supply_chain.payloads().items()
}
innocent = {
    name: supply_chain.torch_file(thing)
    for name, thing in supply_chain.innocents(model).items()
}
named = {
    name: set().union(*map(names_in, supply_chain.pickles_in(data)))
    for name, data in {**harmful, **innocent}.items()
}
past = [name for name in harmful if not on_list(named[name], BLOCKED)]
print("on the list:", ", ".join(BLOCKED))
print(
    f"\n{len(harmful) - len(past)} of {len(harmful)} payloads are stopped; these pass:"
)
print("  " + ", ".join(past))

# %% claim="ten_names"
print("there are at least twenty payloads:", len(harmful) >= 20)
print(
    "the list stops exec and os.system:", not {"builtins.exec", "os.system"} & set(past)
)
print(
    "subprocess is on the list, and subprocess.getoutput passes:",
    "subprocess" in BLOCKED and "subprocess.getoutput" in past,
)
print("more than half of the payloads pass it:", len(past) > len(harmful) / 2)

# %% [markdown]
# Even what is on the list gets past it. `subprocess.getoutput` does, because torch writes pickles in protocol 2, which spells that function as Python 2 did: `commands.getoutput`.
# And `os.system` is stopped only because `posix` and `nt` are on the list: a pickle names the module where a function really lives.
#
# {{exercise supply_chain.slip_past}}
#
# You know the list, and it will grow: whatever you use becomes known. Write a pickle that runs the code, names nothing on the list, and has an answer
# when `timeit`, `cProfile` or `runpy`, or two of these three, are on the list too. `Call(function, argument, …)` is the object from the first exercise, ready-made.

# %% exercise="supply_chain.slip_past"

# %%
for blocked in (set(BLOCKED), {*BLOCKED, "timeit"}, {*BLOCKED, "timeit", "cProfile"}):
    slipped = slip_past(blocked, CODE)
    (outcome,) = open_in_quarantine([("pickle", slipped)])
    print(
        f"{len(blocked)} modules on the list: it names {', '.join(names_in(slipped))},",
        end=" ",
    )
    print("and the code runs" if outcome.executed else "and nothing runs")

# %% [markdown]
# ### Budget explorer
#
# Then make the list longer. Below, the defender's budget is the length of the list, module after module in the order in which people came to block them. The attacker's is
# a choice of one file. Red is a name, orange a call. To the right, over all thirty payloads and ten innocent files: how many pass, how many are stopped.
# Can you find a length that stops every payload and no innocent file?

# %%
LIST = [*BLOCKED, "runpy", "code", "timeit", "cProfile", "profile", "bdb", "trace"]
LIST += [
    "commands",
    "doctest",
    "pydoc",
    "_operator",
    "operator",
    "_functools",
    "functools",
]
LIST += ["shutil", "logging", "zipfile", "gzip", "codecs", "sqlite3", "_sqlite3"]
LIST += ["pathlib", "sympy", "numpy", "torch"]


def compute(file, length):
    """One file's program and verdict, and both shares, for a list of that length."""
    blocked = LIST[:length]
    stopped = {name for name in named if on_list(named[name], blocked)}
    shares = {
        "payloads that pass": 1 - len(stopped & set(harmful)) / len(harmful),
        "innocent files stopped": len(stopped & set(innocent)) / len(innocent),
    }
    (data,) = supply_chain.pickles_in({**harmful, **innocent}[file])
    return file, length, as_lines(data, width=26), on_list(named[file], blocked), shares


# %%
def draw(result):
    file, length, lines, found, shares = result
    passed, stopped = shares.values()
    said = f"is stopped for {', '.join(sorted(found))}" if found else "passes"
    alt = (
        f"{file} {said}. A list of {length} modules lets {passed:.0%} of the payloads "
        f"pass and stops {stopped:.0%} of the innocent files."
    )
    colour = GREEN if bool(found) == (file in harmful) else RED
    title = (f"{file} {said.split(' for ')[0]}", colour)
    return program(lines, title=title, beside=shares, most=14), alt


show(*draw(compute("cProfile.run", 10)))

# %%
explore(
    compute,
    draw,
    file=Choice("attacker: the file", [*harmful, *innocent], "cProfile.run"),
    length=Slider(
        "defender: modules on the list", 0, len(LIST), 10, help="in the order of LIST"
    ),
)

# %%
lengths = list(range(0, len(LIST) + 1, 2)) + [len(LIST)] * (len(LIST) % 2)
shares = [compute("cProfile.run", length)[-1] for length in lengths]
lines = {label: [share[label] for share in shares] for label in reversed(shares[0])}
show(
    curves(lengths, lines, xlabel="modules on the list", ylabel="share of the files"),
    "The longer the list, the fewer payloads pass; where none pass, innocent files are "
    "stopped too, in the end nearly all of them.",
)

# %% claim="list"
complete = [
    length
    for length in range(len(LIST) + 1)
    if compute("os.system", length)[-1]["payloads that pass"] == 0
]
print("a long enough list stops all thirty payloads:", bool(complete))
print(
    "at every such length innocent files are stopped too:",
    all(compute("os.system", n)[-1]["innocent files stopped"] > 0 for n in complete),
)

# %% [markdown]
# And these are the thirty that *we* thought of. The attacker needs the thirty-first.
#
# ## The real scanners
#
# **picklescan** is a blocklist of what was found over years; model hubs run such lists on what is uploaded. **fickling** turns the pickle back into Python and finds fault with what it does not know. How good is a scanner?
# Two numbers say it, and one alone says nothing.
#
# {{exercise supply_chain.score_scanner}}
#
# One trap: a file over which a scanner stumbles was not found harmless. (A pickle runs step by step; it may run its payload first and be broken afterwards. A scanner that shrugs at broken files
# has been passed this way.)

# %% exercise="supply_chain.score_scanner"

# %% [markdown]
# Does every payload run, and would torch's allowlist refuse it? That has to be tried, in quarantine. The scanners run here: they read.

# %%
names = [*harmful, *innocent]
everything = [*harmful.values(), *innocent.values()]
cases = [("torch.load(weights_only=False)", data) for data in harmful.values()]
cases += [("torch.load(weights_only=True)", data) for data in everything]
outcomes = open_in_quarantine(cases)
awake = {name: outcome.executed for name, outcome in zip(harmful, outcomes)}
refused = {
    data: outcome.result != "loaded"
    for data, outcome in zip(everything, outcomes[len(harmful) :])
}
scanners = supply_chain.scanners()
scanners["torch weights_only"] = refused.get
scores = {
    name: score_scanner(scan, [*harmful.values()], [*innocent.values()])
    for name, scan in scanners.items()
}

# %%
COLOURS = {"caught": GREEN, "missed": RED, "let pass": GREEN, "stopped": ORANGE}


def row(data, yes, no):
    return [yes if scan(data) else no for scan in scanners.values()]


columns = [name.replace(" ", "\n", 1) for name in scanners]
told = {
    name: f"misses {missed:.0%} of the payloads and stops {wrong:.0%} of the innocent"
    for name, (missed, wrong) in scores.items()
}
rows = {name: row(data, "caught", "missed") for name, data in harmful.items()}
show(
    grid({"thirty payloads": (), **rows}, columns, COLOURS),
    "The scanner table: " + "; ".join(f"{name} {t}" for name, t in told.items()) + ".",
)
rows = {name: row(data, "stopped", "let pass") for name, data in innocent.items()}
show(
    grid({"ten innocent files": (), **rows}, columns, COLOURS),
    "Of the scanners that catch all payloads, those that let anything pass let plain "
    "tensors pass, and nothing else.",
)

# %%
table = {}
for name, (missed, wrong) in scores.items():
    table |= {f"{name}: missed": missed, f"{name}: wrongly stopped": wrong}
show(
    bars(table, xlabel="share of the files", colours=[RED, ORANGE] * len(scores)),
    "Missed and wrongly stopped files of each scanner: no pair of bars is empty.",
)

# %% machine=true
print(f"torch {torch.__version__};", *scanners, sep="  ")
if not any("fickling" in name for name in scanners):
    print("fickling is not installed: `pip install fickling` and run the lesson again")

# %% claim="scanners"
print("all thirty payloads run when they are loaded:", all(awake.values()))
print("none of them ran while it was scanned:", not Path(MARKER).exists())
picklescan = next(name for name in scores if name.startswith("picklescan "))
print("picklescan misses at least one payload:", scores[picklescan][0] > 0)
silent = [name for name, (_, wrong) in scores.items() if wrong == 0]
complete = [name for name, (missed, _) in scores.items() if missed == 0]
print("at least one scanner misses nothing:", len(complete) > 0)
print("each of those stops innocent files:", not set(complete) & set(silent))
print("torch's allowlist misses nothing:", "torch weights_only" in complete)
print("it loads plain weights:", not refused[innocent["state dict"]])
print("it refuses a whole innocent nn.Module:", refused[innocent["a whole nn.Module"]])
strictest = [scan for name, scan in scanners.items() if name.startswith("fickling")]
print(
    "fickling, where it is installed, stops even plain weights:",
    all(scan(innocent["state dict"]) for scan in strictest),
)

# %% [markdown]
# No column is both complete and silent, and that is no accident. A blocklist knows what was bad yesterday: picklescan's has been lengthened after one advisory upon another (CVE-2025-1716 was
# `pip.main`). Whoever trusts nothing unknown catches all thirty and stops honest files with them; fickling stops even plain weights.
# The useful reading is another one: what the complete ones let pass, where they let anything pass, is plain weights. So **ask for plain weights**, and no scanner has to guess.
#
# ## A format that cannot call
#
# A safetensors file is eight bytes for a length, a table in JSON that says where each tensor lies, and the numbers. What does a careful loader say to other things that come under that name?

# %%
whole = files["safetensors"]
length = int.from_bytes(whole[:8], "little")
print(f"a header of {length} bytes, then the numbers: {whole[8:150].decode()} …\n")
for what, data in {
    "cut off": whole[:5000],
    "cut off early": whole[:700],
    "a renamed pickle": forged,
    "a renamed torch file": harmful["os.system"],
    "nothing": b"",
}.items():
    try:
        supply_chain.load_weights(data, name="signs.safetensors")
    except ValueError as error:
        print(f"{what}: {error}")

# %% [markdown]
# The name decides nothing: each of them was called `signs.safetensors`. This loader goes by the content. Then the attacker answers: whose content? A pickle reads from its first byte and stops at its `STOP`;
# safetensors reads a length, a table, and numbers. Can one file please both?

# %%
double = supply_chain.polyglot(weights, supply_chain.forge(exec, CODE, protocol=2))
meant = supply_chain.load_weights(double)
copy = small_cnn(x.shape[1], len(classes), size=x.shape[2])
copy.load_state_dict({name: meant[name] for name in weights})
copy.eval()
reading = open_in_quarantine([(loader, double) for loader in LOADERS])
show(
    grid(
        {l: [verdict(o)] for l, o in zip(LOADERS, reading)},
        ["one file"],
        WORDS,
        cell=1.3,
    ),
    "One file under six loaders: "
    + ", ".join(f"{l} {verdict(o)}" for l, o in zip(LOADERS, reading))
    + ".",
)
print(f"as safetensors: {accuracy(copy, x, y):.1%} of the signs are read right")

# %% claim="polyglot"
print("the file is a whole model to safetensors:", accuracy(copy, x, y) > 0.95)
print("the same file runs its code under pickle:", reading[0].executed)
print("the safetensors loader runs nothing in it:", not reading[-1].executed)

# %% [markdown]
# It can. Its first byte belongs to the length of the header, and is also the pickle's opcode for a long string, which swallows that header. So "we
# only accept safetensors" means: *load* with safetensors, and with nothing else. A script that tries one loader after the other until one works brings the pickle back in.
#
# ## Is it the file you meant?
#
# Nothing can be called now. But whose numbers are these? A hub serves a file by name, and a name like `main` moves: whoever owns the account, or has stolen its key, decides what it points to tomorrow. And a single bit?


# %%
def read_right(data):
    """Accuracy of what safetensors loads from these bytes; None where it refuses."""
    try:
        copy.load_state_dict(supply_chain.load_weights(data))
    except (ValueError, RuntimeError):
        return None
    return accuracy(copy, x[:128], y[:128])


table = json.loads(whole[8 : 8 + length])
start = 8 + length + table["1.weight"]["data_offsets"][0]
chosen = 8 * start + 30  # the top bit of the exponent of the first weight
draws = random.Random(float(x.sum()))
spots = [draws.randrange(8 * len(whole)) for _ in range(60)]
before, aimed = read_right(whole), read_right(flip_bit(whole, chosen))
after = [read_right(flip_bit(whole, spot)) for spot in spots]

# %%
same = sum(a is not None and a > before - 0.01 for a in after)
none = after.count(None)
worse = len(after) - same - none
fates = {"reads as before": same, "reads worse": worse, "refused by the loader": none}
show(
    bars(
        {f"of 60 bits at random: {fate}": n / 60 for fate, n in fates.items()}
        | {"accuracy as published": before, "accuracy, one chosen bit flipped": aimed},
        xlabel="share",
        colours=[GREY, GREY, GREY, BLUE, ORANGE],
    ),
    f"Of 60 files with one random bit flipped, {same} load and read as before, {worse} "
    f"load and read worse and {none} are refused. One chosen bit brings the accuracy "
    f"from {before:.0%} to {aimed:.0%}.",
)

# %% claim="one_bit"
print("safetensors loads most files in which one bit differs:", none < 0.2 * len(after))
print("one chosen bit takes more than half of the right answers:", aimed < before / 2)

# %% [markdown]
# Safetensors keeps code out. It does not know what the numbers should be, and most changes of a bit show nowhere. What knows is the **SHA-256** of the file, written
# down when you examined it: a **pin**. The security guide that lists this threat recommends just that, in this order: load the file, hash the file, `assert` that the hashes agree. Three mistakes; find them before you write yours.
#
# {{exercise supply_chain.load_pinned}}
#
# `fetch(revision)` is the hub: each call is a download, and what comes back is the hub's decision. `load` makes tensors from the bytes of a safetensors file.

# %% exercise="supply_chain.load_pinned"

# %% [markdown]
# The three: the guide loads first, it hashes what has been loaded already, and `python -O` leaves every `assert` out.
#
# A small hub to try it on. Revisions are fixed; the branch `main` is a pointer, and today it is moved.

# %%
published = hashlib.sha256(whole).hexdigest()
evil = flip_bit(whole, chosen)
hub = {"5f2c": whole, "e1b9": evil}
branches = {"main": "5f2c"}


def fetch(revision):
    return hub[branches.get(revision, revision)]


def comes_through(fetch, revision, sha256):
    """Whether load_pinned accepts what the hub sends."""
    try:
        return bool(load_pinned(fetch, revision, sha256))
    except ValueError:
        return False


yesterday = comes_through(fetch, "main", published)
branches["main"] = "e1b9"  # the account was taken over
today = comes_through(fetch, "main", published)
by_revision = comes_through(fetch, "5f2c", published)
print(f"main yesterday: {yesterday}, main today: {today}, the revision: {by_revision}")

# %% [markdown]
# Now in earnest: a thousand files, each with one bit changed somewhere. And the attacker answers: hashes are often abbreviated, as in `revision="a265f77"`. How hard is it to make *another* file whose hash begins alike?

# %%
bits = [draws.randrange(8 * len(whole)) for _ in range(1000)]
accepted = sum(
    comes_through(lambda _: flip_bit(whole, bit), "5f2c", published) for bit in bits
)
print(f"accepted of {len(bits):,} files with one bit changed: {accepted}")
alike = supply_chain.same_beginning(whole, evil, digits=4)
tried = int.from_bytes(alike[len(evil) :], "little") + 1
theirs = hashlib.sha256(alike).hexdigest()
print(f"\nas published:  {published}\nthe attacker's: {theirs}, after {tried:,} tries")

# %% claim="pin"
print("the genuine file comes through the pin:", by_revision)
print("the moved branch does not:", yesterday and not today)
print("of 1,000 one-bit changes the pin accepts none:", accepted == 0)
print("another file shares the first four digits:", theirs[:4] == published[:4])
print("the whole hash tells them apart:", theirs != published)

# %% [markdown]
# Four digits took no more than a second or two; seven take 4,096 times as long, which is hours and not years. A short commit id has the same weakness. Sixty-four digits cannot be tried through. A pin says that the file is the one you examined. It does not say that what you examined was good: lesson 16 begins there.
#
# ## The same for packages
#
# Your project needs a package, `signtools`, that lies on the company's own index. Somebody publishes another `signtools` where pip looks as well, with a higher version number: **dependency
# confusion** (Birsan, 2021). Or under a name that is one slip of the finger away: **typosquatting**. Both are built here, as wheels, which are zip archives of a fixed layout.

# %%
workplace = tempfile.TemporaryDirectory()
home, public = Path(workplace.name) / "home", Path(workplace.name) / "public"
genuine = packages.wheel(home, "signtools", "1.0", "def read():\n    return 'stop'\n")
other, same, source = public / "higher", public / "same", public / "source"
packages.wheel(other, "signtools", "99.0", CODE)
packages.wheel(same, "signtools", "1.0", CODE, build="1")  # same version, higher build
wakes = f"import os\nos.chdir(os.environ['MLSEC_CASE'])\n{CODE}"  # pip builds elsewhere
packages.source_package(source, "signtools", "2.0", wakes)
locked = packages.lock("signtools", "1.0", [genuine])
print(locked)

# %%
orders = {
    "signtools; there is a 99.0 as well": ("signtools", [home, other]),
    "signtools==1.0; there is a 99.0": ("signtools==1.0", [home, other]),
    "signtools==1.0; there is another 1.0": ("signtools==1.0", [home, same]),
    "the lock; there is another 1.0": (locked, [home, same]),
    "the lock; there is only another 1.0": (locked, [same]),
    "the lock; there is nothing else": (locked, [home]),
    "signtools; there is a source 2.0": ("signtools", [home, source]),
    "the same, wheels only": ("--only-binary :all:\nsigntools", [home, source]),
}
done = dict(zip(orders, packages.install([*orders.values()], "signtools")))
workplace.cleanup()

# %%
WORDS = {"ran the look-alike": RED, "installed": GREEN, "imported": GREEN}
WORDS |= {"refused": GREY, "not there": GREY}
rows = {}
for order, (pip, imported) in done.items():
    at_import = "imported" if imported.result == "loaded" else "not there"
    rows[order] = [
        (
            "ran the look-alike"
            if pip.executed
            else pip.result.replace("loaded", "installed")
        ),
        "ran the look-alike" if imported.executed else at_import,
    ]
show(
    grid(
        {"what is asked for, and what there is": (), **rows},
        ["pip install", "import"],
        WORDS,
        cell=1.4,
    ),
    "Eight orders: "
    + "; ".join(f"{order}: {a}, {b}" for order, (a, b) in rows.items())
    + ".",
)
refusal = done["the lock; there is only another 1.0"][0].said
print(next(line for line in refusal.splitlines() if "HASH" in line)[:88])

# %% claim="packages"
woken = {
    order: pip.executed or module.executed for order, (pip, module) in done.items()
}
print(
    "the bare name brings the look-alike in:",
    woken["signtools; there is a 99.0 as well"],
)
print(
    "a version alone does not keep it out:",
    woken["signtools==1.0; there is another 1.0"],
)
print(
    "the locked file never does:",
    not any(ran for order, ran in woken.items() if order.startswith("the lock")),
)
print(
    "the lock lets the genuine one in:",
    rows["the lock; there is nothing else"] == ["installed", "imported"],
)
print(
    "a source package runs code before it is installed:",
    done["signtools; there is a source 2.0"][0].executed,
)
print("wheels only: it does not:", not woken["the same, wheels only"])

# %% [markdown]
# A version number is a wish; a hash is a fact. With both files there, the lock installs neither: pip picks one by its name and hashes it afterwards. (An index that publishes hashes lets pip pick the right one.) Note what the lock cannot do: had you written `sightools` when you made it, it would hold you to that package faithfully.
#
# ## What you have seen
#
# **Shown:** loading a model by pickle, joblib, numpy or an open `torch.load` runs what its author likes; scanners either miss something or stop honest files; a format without calls and an
# allowlist keep code out; a pin refuses every changed bit; a lock does the same for packages.
#
# **Not shown:** that your `names_in` is hard to mislead. It takes the two strings *pushed* last; a pickle can push two harmless ones, take them off again by `POP`, and name what lies beneath. A scanner has to follow the whole stack.
# Nor that any of this is safe against *bad weights*: a backdoored model passes every measure of this lesson (lessons 13 and 16). We did not leave the computer either: hubs and
# registries such as Hugging Face or MLflow serve files and add accounts, signatures and scans of their own, and an MLflow model may well have a pickle inside. The quarantine is a teaching aid, not a sandbox to open found malware in.
#
# **On Monday**
#
# - Ask for safetensors, and load with safetensors. Convert what you have, once, in a container without a network.
# - Where a pickle has to be: `torch.load(…, weights_only=True)` with torch up to date, or skops for scikit-learn.
# - Pin models by full revision *and* SHA-256; check the bytes that you load, before you load them; no `assert`.
# - `pip install --require-hashes --only-binary :all: -r requirements.txt`; `pip-compile --generate-hashes` or `uv` make the file. One index, not two.
# - Run a scanner on what comes in (picklescan, fickling, modelscan). It finds known things; do not count its silence as proof.
# - Load strangers' files where there is nothing to take: no keys, no network, another user.
#
# ### Check yourself
#
# <details><summary>A scanner on the hub has marked a pickle as safe. What do you know?</summary>
#
# That it names nothing that was on the list on the day of the scan. Several of our thirty payloads did not either.
# </details>
#
# <details><summary>Your loader only accepts files that are valid safetensors. Why may code still run?</summary>
#
# Because a file can be valid safetensors and a pickle as well. If the check is made by one program and the loading by another, the second one decides. Load with the loader that checked.
# </details>
#
# <details><summary>Why hash first and load afterwards, and why only one download?</summary>
#
# A pickle has run by the time it is loaded, and a parser may have a hole. And a second download may bring another file: what was hashed must be the very bytes that are loaded.
# </details>
#
# ### Read on
#
# - Python's manual, *pickle: Python object serialization*: the warning at its top, and "restricting globals".
# - A. Birsan, *Dependency confusion*, 2021.
# - Trail of Bits, the documentation of fickling, and the security advisories of picklescan: a history of blocklists, one entry at a time.
# - The safetensors format, in its repository: one page.
# - PEP 458 and sigstore, for signatures on top of hashes; SLSA for how a file came to be.
#
# **Back to the map:** [00 · Start here](00_start_here.ipynb)
