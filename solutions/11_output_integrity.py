# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 11 · Output integrity
#
# {{facts}}
#
# OWASP calls it *output integrity attack*. The model is sound, its test accuracy is what it was, nothing in its log looks odd; and the car that asked it is told *yield* in place of *stop*,
# because somebody changed the answer after it had left the model. Here you are that somebody, with a real proxy between a real client and a real service. Then you
# build what keeps answers whole, one layer at a time, and after each layer the attacker moves to where it does not reach.
#
# | the threat model | of this lesson |
# |---|---|
# | **goal** | the client acts on an answer that the service did not give to this question, now |
# | **knowledge** | the protocol, the guide, every public key; no weights |
# | **access** | the wire between client and service; later the cache in front of the service; at the end the account of another client |
# | **budget** | any change, any number of answers, as long as the client notices nothing |
#
# **After this lesson** you can give a client a context that tells its service from everybody else, say what TLS does not cover, write a signature
# that binds an answer to its question, its time and its reader, and measure a check on both sides: what it stops, and what it refuses wrongly.

# %%
import hashlib
import hmac
import json
import secrets
import ssl
from functools import partial

from mlsec_lab.course import course_map, exercise
from mlsec_lab.display import Choice, Slider, bars, explore, grid, pictures
from mlsec_lab.display import sequence, show
from mlsec_lab.display.figures import BLUE, GREEN, GREY, ORANGE, RED
from mlsec_lab.model_to_data import integrity
from mlsec_lab.model_to_data.integrity import IntegrityError, read_json
from mlsec_lab.model_to_data.integrity_lab import ATTACKS, Lab
from mlsec_lab.model_to_data.integrity_lab import ask, ask_raw, question
from mlsec_lab.victims import load_data, load_model, predict
from mlsec_lab.victims.client import RemoteModel
from mlsec_lab.victims.clock import Clock
from mlsec_lab.victims.proxy import Proxy
from mlsec_lab.victims.service import serve
from mlsec_lab.victims.tls import LabCA, explain, handshake

VICTIM = "signs"  # or "gtsrb" or "fashion_mnist", where their data can be had
x, y, classes = load_data(VICTIM, "test", n=1000)
x = (x * 255).round() / 255  # as an image file holds them, and as they travel
model = load_model(f"{VICTIM}_cnn")
course_map("M→D")

# %% [markdown]
# The model of lesson 01 answers behind HTTP: Flask makes the answers, waitress serves them, on this machine alone. Each answer holds a label and, under `confidences`, its probability. `signers` is empty for now; what you put into it
# later goes along with every answer. The clock stands still until you move it.
#
# Whatever this notebook starts, servers and processes, ends with its kernel. If you run this cell again, run those below again, too.

# %%
clock, signers = Clock(), []


def headers_for(request, answer):
    """What the service puts beside an answer: what each of the `signers` says."""
    return {name: value for s in signers for name, value in s(request, answer).items()}


service = serve(
    model,
    classes,
    shape=tuple(x.shape[1:]),
    mode="top1",
    confidence=True,
    clock=clock,
    sign=headers_for,
).start()
truth = predict(model, x).argmax(1)
some = x[:60]
taken, _ = ask(service.url, some, classes)
print(f"{(taken == truth[:60]).sum()} of 60 answers are what the model says")

# %% claim="direct"
print(
    "asked directly, the service answers what its model says:", taken.equal(truth[:60])
)

# %% [markdown]
# ## Somebody in the middle
#
# On a network an answer passes through boxes that belong to others: access points, company proxies, providers. One of them is now yours. A `Proxy` is a process of its own; it passes
# on whatever comes, and shows each answer to a function that may change it.
#
# {{exercise output_integrity.tamper}}
#
# Write that function. The client must find nothing odd: the answer stays JSON with the same names, every label is one that the service knows, and if there are
# probabilities, the largest is that of the label.

# %% exercise="output_integrity.tamper"


# %%
def in_the_middle(request, headers, answer):
    """Change what holds labels; the service's description of itself has no request."""
    return headers, (tamper(answer, classes) if request else answer)


proxy = Proxy(service.url, in_the_middle).start()
asked_before = len(service.log)
taken, reasons = ask(proxy.url, some, classes)
said = [record.labels[0] for record in service.log[asked_before:] if record.images]
read = [f"{was} → {classes[now]}" for was, now in zip(said, taken)]
show(
    pictures(some[:6], read[:6], columns=3, colours=[RED] * 6, size=1.9),
    "Six signs. Above each: what the service said and what the client was told.",
)

# %% [markdown]
# One of these exchanges, from top to bottom:

# %%
first, told = said[0], classes[taken[0]]
show(
    sequence(
        ["client", "your proxy", "service"],
        [
            ("client", "your proxy", "which sign is this?", GREY),
            ("your proxy", "service", "which sign is this?", GREY),
            ("service", "your proxy", first, BLUE),
            ("your proxy", "client", told, RED),
            ("client", "client", f"acts on {told}", ORANGE),
        ],
    ),
    f"The service says {first}, the proxy makes {told} of it, the client acts on that.",
)

# %% claim="http"
print(
    "over plain HTTP the client takes all 60 answers, and all are changed:",
    int((taken != truth[:60]).sum()) == 60 and not reasons,
)
print(
    "the service's own log holds the true labels, so monitoring there sees nothing:",
    said == [classes[k] for k in truth[:60]],
)

# %% [markdown]
# ## Does a list of labels help?
#
# A guide to the OWASP classes, which this course follows, gives three measures against this: TLS, an HMAC on the answer, and a list of valid labels.
# The list is the cheapest. Before you try it, decide how to measure it. A check that refuses everything stops every attack, and no one can
# use it; so a check needs two numbers.
#
# {{exercise output_integrity.rates}}
#
# An **exchange** is what went over the wire: the request, the answer's headers and the answer. The proxy has kept sixty, as they came from the service, in `proxy.seen`.

# %% exercise="output_integrity.rates"

# %%
genuine = [exchange for exchange in proxy.seen if exchange[0]]
changed = [(r, h, tamper(a, classes)) for r, h, a in genuine]
nonsense = [
    (r, h, json.dumps({**json.loads(a), "labels": ["hacked"]}).encode())
    for r, h, a in genuine
]
label_list = integrity.whitelist(classes)
let_in, other_label = rates(label_list, genuine, changed)
_, no_label = rates(label_list, genuine, nonsense)
show(
    bars(
        {"genuine": let_in, "another label": other_label, "no label": no_label},
        xlabel="share of the answers that the label list takes",
        colours=[GREEN, RED, RED],
    ),
    f"The label list takes {let_in:.0%} of genuine answers, {other_label:.0%} of those "
    f"with another label, {no_label:.0%} of those with nonsense.",
)

# %% claim="label_list"
print("the list stops what is no label:", no_label == 0)
print(
    "it takes every genuine answer, and every one changed to another label:",
    let_in == other_label == 1,
)

# %% [markdown]
# A list of labels is a check of *form*. It keeps nonsense from crashing what comes next, and is worth having for that. An attacker who stays
# within the form passes it every time.
#
# ## TLS
#
# TLS encrypts what is on the wire and notices every change of it. But encrypted *to whom*? The client has to know who is at the other end, or it
# shares a key with the attacker. A **certificate** says "this public key belongs to this host", signed by an authority; the client believes the authorities it was given.
# Our lab has its own.
#
# {{exercise output_integrity.lab_context}}
#
# An `ssl.SSLContext` is the client's half. It must look at three things: who signed, for which host, and for which time.

# %% exercise="output_integrity.lab_context"

# %% [markdown]
# What does your context make of five servers? `handshake` runs both sides of TLS in this process; `explain` turns OpenSSL's reasons into a sentence.

# %%
ca, stranger = LabCA(), LabCA()
context = lab_context(ca.certificate)
servers = {
    "the lab's certificate": ca.issue(),
    "of another authority": stranger.issue(),
    "for another host": ca.issue("127.0.0.2"),
    "ran out yesterday": ca.issue(begins=-9, ends=-1),
    "begins tomorrow": ca.issue(begins=1, ends=9),
}
refused = {}
for name, certificate in servers.items():
    try:
        print(f"{name:22} taken, {handshake(context, certificate)}")
    except ssl.SSLError as error:
        refused[name] = explain(error)
        print(f"{name:22} refused: {refused[name].split(':')[0]}")

# %% claim="certificates"
print(
    "one of five certificates is taken, and each refusal has a reason of its own:",
    len(refused) == len(set(refused.values())) == 4,
)

# %% [markdown]
# The last two lines are about *time*, and time is the client's own clock: one that is a day behind refuses a good certificate that is new, one that is years
# ahead takes none at all. waitress speaks no TLS. As in many real services, a **front** ends it: a process that holds the certificate and passes requests on to the service.
#
# The attacker in the middle now has two ways: carry on the encrypted bytes and damage them, or end TLS with a certificate of their own.

# %%
front = Proxy(service.url, certificate=ca.issue()).start()
own = Proxy(front.url, in_the_middle, certificate=stranger.issue()).start()
blind = Proxy(front.url, tunnel=True).start()
careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # found in many a forum
careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE

wire = {
    "nobody in between": ask(front.url, some, classes, context=context),
    "bytes carried on": ask(blind.url, some, classes, context=context),
    "own certificate": ask(own.url, some, classes, context=context),
    "own certificate, careless client": ask(own.url, some, classes, context=careless),
}
blind.set(damage="garble")
wire["bytes damaged"] = ask(blind.url, some[:20], classes, context=context)

# %%
fooled, served = {}, {}
for name, (taken, reasons) in wire.items():
    right = taken == truth[: len(taken)]
    served[name] = right.float().mean().item()
    fooled[name] = ((taken >= 0) & ~right).float().mean().item()
    why = next(iter(reasons), "").partition(" (")[0].partition(":")[0]
    print(f"{name:34} right {served[name]:4.0%}  changed {fooled[name]:4.0%}  {why}")
show(
    bars(fooled, xlabel="share of the answers that are changed and taken", colours=RED),
    "Over TLS only the client that believes every certificate takes changed answers.",
)

# %% claim="tls"
print(
    "over TLS neither a certificate of their own nor damage gets an answer taken:",
    fooled["own certificate"] == fooled["bytes damaged"] == 0,
)
print(
    "with nobody in between, or bytes carried on, all answers arrive:",
    served["nobody in between"] == served["bytes carried on"] == 1,
)
print(
    "a client that believes every certificate takes changed answers only:",
    fooled["own certificate, careless client"] == 1,
)

# %% [markdown]
# From all changed to none. It also costs nothing in wrong refusals as long as certificates are renewed in time. So are we done?
#
# ## Behind the lock
#
# TLS guards the wire, from the client to the front. The front itself sees answers in the clear; most fronts keep some, to save work. That **cache** is where the
# attacker goes now. First an intruder there rewrites what is stored.

# %%
front.set(cache=True)
front.rewrite = in_the_middle
poisoned, reasons = ask(front.url, some, classes, context=context)
front.rewrite = None  # the intruder has gone ...
later, _ = ask(front.url, some, classes, context=context)  # ... the cache remembers
print(f"changed: {(poisoned != truth[:60]).float().mean():.0%}", *reasons)
print(f"after the intruder has left: {(later != truth[:60]).float().mean():.0%}")

# %% [markdown]
# Breaking in is hard. Now poison the cache *as a customer*. The body of a request is JSON, and JSON does not say what a name that stands twice means. This front
# looks for `"images"` as a hasty reader does, and takes the first it finds; the service's parser takes the last.

# %%
mine = x[60:61]
front.set(cache=True)  # an empty one
for image in some.split(1):
    body = integrity.double_question(question(image), question(mine))
    ask_raw(front.url, body, context)  # nothing but an odd question, over TLS
names = json.loads(body, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
print("the names in such a question:", *names)
planted, _ = ask(front.url, some, classes, context=context)
print(
    f"answers that are those to my picture: {(planted == truth[60]).float().mean():.0%}"
)

# %%
here, there = classes[truth[0]], classes[truth[60]]
show(
    sequence(
        ["a client", "you", "front with cache", "service"],
        [
            ("you", "front with cache", f"images: {here} … images: {there}", RED),
            ("front with cache", "service", "passed on as it came", GREY),
            ("service", "front with cache", f"{there} (the last one)", BLUE),
            ("front with cache", "front with cache", f"kept for {here}", ORANGE),
            ("a client", "front with cache", f"images: {here}", GREY),
            (
                "front with cache",
                "a client",
                f"{classes[planted[0]]}, from the cache",
                RED,
            ),
        ],
    ),
    f"Your double question makes the cache keep {there} as the answer to {here}.",
)

# %% claim="cache"
print(
    "TLS does not help against what was changed before it was encrypted:",
    bool((poisoned != truth[:60]).all()) and poisoned.equal(later),
)
print(
    "a customer who asks double questions plants an answer for every sign:",
    bool((planted == truth[60]).all()),
)

# %% [markdown]
# Every connection was encrypted, every certificate right. What is needed is a proof that goes along *with the answer*, from the service to the client, through
# every box between: a signature.
#
# ## The guide's signature
#
# In the guide, client and service share a secret. The client reads the JSON into a dict `result`, computes an HMAC-SHA256 of `str(result)`, and compares it with the header
# `X-Signature` by `compare_digest`, which gives nothing away by its timing. (It shows the client only. Our service does the same on its side.)

# %%
SECRET = secrets.token_bytes(32)
signers[:] = [integrity.guide_signer(SECRET)]
guide_check = integrity.guide_check(SECRET, classes)

front.set(cache=True)
front.rewrite = in_the_middle
stopped, reasons = ask(front.url, some, classes, check=guide_check, context=context)
front.rewrite = None
front.set(cache=False)
fine, _ = ask(front.url, some, classes, check=guide_check, context=context)
print(f"from the poisoned cache: {(stopped < 0).float().mean():.0%} refused", *reasons)
print(f"genuine: {(fine == truth[:60]).float().mean():.0%} taken")

# %% claim="guide_works"
print("the guide's HMAC refuses what the intruder changed:", bool((stopped < 0).all()))
print("it takes every genuine answer:", fine.equal(truth[:60]))

# %% [markdown]
# It works, on the attack it was made for. What does this signature say, exactly? "The service has given this answer." To which question? When? To whom?
#
# {{exercise output_integrity.replay_label}}
#
# You have no key. You have a recording: exchanges of your own account, say. Make the client believe a label of your choice.

# %% exercise="output_integrity.replay_label"

# %%
recording = [exchange for exchange in front.seen if exchange[0] and exchange[1]][-60:]
wanted = json.loads(recording[0][2])["labels"][0]


def play_back(request, headers, answer):
    """Whatever is asked, play back a recorded answer with the wanted label."""
    return replay_label(recording, wanted) if request else (headers, answer)


front.rewrite = play_back
others = x[truth != classes.index(wanted)][-60:]
replayed, reasons = ask(front.url, others, classes, check=guide_check, context=context)
front.rewrite = None
told = [f"read as {classes[k]}" for k in replayed[:6]]
show(
    pictures(others[:6], told, columns=3, colours=[RED] * 6, size=1.9),
    f"Six signs of other classes, and each is read as {wanted}.",
)

# %% claim="replay"
print(
    "every question is answered with the attacker's label, over TLS, and signed:",
    bool((replayed == classes.index(wanted)).all()) and not reasons,
)

# %% [markdown]
# Not one bit of the cryptography was broken. And there is more. `str(result)` is how Python happens to *print* a dict:
#
# - a gateway that writes the JSON anew, with names in alphabetical order, changes nothing, and every answer is refused;
# - a label that stands twice is read one way by Python, another way by whoever takes the first, such as the next program down the line;
# - take the signature away, and the check does not refuse: it *crashes*, with a TypeError that the caller may well handle as "no signature service today".

# %%
request, headers, answer = recording[1]
sorted_names = json.dumps(json.loads(answer), sort_keys=True).encode()
_, twice = integrity.double_labels(classes)(request, headers, answer)
cases = {
    "as it came": (request, headers, answer),
    "names sorted": (request, headers, sorted_names),
    "label twice": (request, headers, twice),
    "no signature": (request, {}, answer),
}
outcome = {}
for name, case in cases.items():
    try:
        outcome[name] = f"taken as {guide_check(*case)['labels'][0]}"
    except Exception as error:
        outcome[name] = type(error).__name__
    print(f"{name:14} {outcome[name]:28} {case[2][:58].decode()}…")

# %% claim="str_of_dict"
print(
    "the same content in another order is refused:",
    outcome["names sorted"] == "IntegrityError",
)
print(
    "a body that two readers read differently is taken:",
    outcome["label twice"] == outcome["as it came"] and twice != answer,
)
print("a missing signature ends in a crash:", outcome["no signature"] == "TypeError")

# %% [markdown]
# ## What must be signed
#
# Two things, then. The bytes that are signed must be **canonical**: one way of writing each content, and none for what can be read in two. And they must
# **bind** the answer to what it belongs to: the question, a **nonce** (a random number that the client puts into the request and never uses again) and the time.
#
# {{exercise output_integrity.signed_message}}
#
# `read_json` is given: it is `json.loads` that refuses a name that stands twice, and NaN. The nonce is in the request already.

# %% exercise="output_integrity.signed_message"

# %% [markdown]
# The client's half. Nobody needs to send back the question or the nonce: the client builds the message from the request that *it* sent, and an answer to any other does not fit.
#
# {{exercise output_integrity.check_answer}}
#
# Return the *content* of the answer, so that nobody goes on with bytes that were not verified.

# %% exercise="output_integrity.check_answer"

# %% [markdown]
# Now put them into service, first with HMAC-SHA256. It is two lines.


# %%
KEY = secrets.token_bytes(32)


def sign_hmac(message):
    return hmac.new(KEY, message, hashlib.sha256).hexdigest()


def verify_hmac(message, signature):
    return hmac.compare_digest(sign_hmac(message).encode(), signature.encode())


signers[:] = [integrity.signer(sign_hmac, clock, message=signed_message)]


def bound_check(request, headers, answer):
    """Your check, with this client's clock and 30 seconds of tolerance."""
    now = clock.now()
    return check_answer(request, headers, answer, signed_message, verify_hmac, now, 30)


# %%
genuine = []


def keep(request, headers, answer):
    """Your check, and a record of what it saw."""
    genuine.append((request, dict(headers), answer))
    return bound_check(request, headers, answer)


thousand, reasons = ask(service.url, x, classes, check=keep)
print(f"{(thousand == truth).sum():,} of 1,000 genuine answers taken", *reasons)

recording = genuine  # the attack that beat the guide, with answers signed like this
front.rewrite = play_back
replayed, reasons = ask(front.url, some, classes, check=bound_check, context=context)
front.rewrite = None
print(f"{(replayed >= 0).sum()} of 60 replays taken:", *reasons)

# %% [markdown]
# Does it hold against more than the attack we thought of? Take the thousand genuine exchanges that have just gone over the wire, and change each in one of
# eleven ways. The guide's check sees the same changes, on answers that carry its own signature; where it crashes, that counts as a refusal.

# %%
ways = integrity.MUTATIONS
kinds = [ways[k % len(ways)] for k in range(len(genuine))]


def attacked_in_all_ways(exchanges):
    """Each exchange, changed in its way; a replay takes the answer to its neighbour."""
    return [
        integrity.mutate(exchanges[k], exchanges[k - 1], kinds[k], classes, seed=k)
        for k in range(len(exchanges))
    ]


guide_sign = integrity.guide_signer(SECRET)
by_guide = [(r, {**h, **guide_sign(r, a)}, a) for r, h, a in genuine]
bad_by_guide, bad = attacked_in_all_ways(by_guide), attacked_in_all_ways(genuine)
guide_good, guide_bad = rates(guide_check, by_guide, bad_by_guide)
bound_good, bound_bad = rates(bound_check, genuine, bad)
print(f"the guide's HMAC takes {guide_good:.0%} genuine, {guide_bad:.0%} attacked")
print(f"the bound HMAC takes {bound_good:.0%} genuine, {bound_bad:.0%} attacked")

# %% claim="thousand"
print(
    "of 1,000 genuine answers 1,000 are taken:",
    thousand.equal(truth) and bound_good == 1,
)
print("of 1,000 changed or replayed ones none is:", bound_bad == 0 and len(bad) == 1000)
print("the guide's HMAC takes more than a third of them:", guide_bad > 1 / 3)

# %%
taken_of = {kind: [[], []] for kind in ways}
for kind, one, other in zip(kinds, bad_by_guide, bad):
    taken_of[kind][0].append(integrity.accepts(guide_check, one))
    taken_of[kind][1].append(integrity.accepts(bound_check, other))
rows = {
    kind: [f"{sum(column)} of {len(column)}" for column in columns]
    for kind, columns in taken_of.items()
}
colours = {text: RED for texts in rows.values() for text in texts}
colours |= {text: GREEN for text in colours if text.startswith("0 ")}
show(
    grid(rows, ["the guide's\nHMAC", "bound\nHMAC"], colours),
    "How many changed answers each check takes: the guide's all of "
    + ", ".join(kind for kind, texts in rows.items() if texts[0][0] != "0")
    + "; the bound one none.",
)

# %% [markdown]
# Both notice whatever changes what Python reads in the answer. What the guide's check lets through lies *around* the answer: another question, another nonce, another time, a replay. And the label that stands twice.
#
# ### Budget explorer
#
# Which part of the binding stops which attack, and what does it cost those who attack nothing? Here the attacker's budget is the age of a recorded answer; the defender chooses what is
# bound, and how far the clocks may be apart. Every setting is asked anew, over HTTP, through a proxy. Begin with an honest exchange and set the client's clock wrong. Then try the two replays.

# %%
BINDINGS = {
    "nothing (the guide)": (),
    "question": ("question",),
    "question, time": ("question", "time"),
    "question, time, nonce": ("question", "time", "nonce"),
}
for bind in list(BINDINGS.values())[1:]:
    message = partial(integrity.signed_message, bind=bind)
    header = "X-" + "-".join(bind)
    signers.append(integrity.signer(sign_hmac, clock, message=message, header=header))
signers.append(integrity.guide_signer(SECRET, "X-Guide"))
bench = Proxy(service.url).start()


# %%
def check_with(bind, now, tolerance):
    """The check of a client that binds so much, at its own time `now`."""
    if not bind:
        return integrity.guide_check(SECRET, classes, "X-Guide")
    return lambda request, headers, answer: integrity.check_answer(
        request,
        headers,
        answer,
        partial(integrity.signed_message, bind=bind),
        verify_hmac,
        now,
        tolerance if "time" in bind else None,
        header="X-" + "-".join(bind),
    )


# %%
def compute(attack, bound, age, clock_off, tolerance):
    """One exchange: what was kept, what the service said, what arrived, the verdict."""
    image, other = x[:1], x[1 + int((truth[1:] != truth[0]).int().argmax()) :][:1]
    bench.rewrite, kept = None, None
    if "recorded" in attack:
        ask(bench.url, other if "other" in attack else image, classes, check=anything)
        kept = bench.seen[-1]
        clock.advance(seconds=age)
        bench.rewrite = integrity.replay(kept)
    elif attack != "nobody":
        bench.rewrite = integrity.flip(classes)
    check = check_with(BINDINGS[bound], clock.now() + clock_off, tolerance)
    arrived = []

    def look(*exchange):
        arrived.append(json.loads(exchange[2])["labels"][0])
        return check(*exchange)

    _, reasons = ask(bench.url, image, classes, check=look)
    said = json.loads(bench.seen[-1][2])["labels"][0]
    return attack, age, said, arrived[-1], next(iter(reasons), "")


def anything(*exchange):
    """A check that takes everything: with one, a request carries a nonce."""


# %%
def draw(result):
    attack, age, said, arrived, refusal = result
    recorded, harm = "recorded" in attack, attack != "nobody"
    between, steps, when = "in between", [], "now"
    if recorded:
        which, when = attack.partition(", ")[2], f"{age:g} s ago"
        steps = [(between, between, f"recorded: {arrived}, for the {which}", GREY)]
    steps += [
        ("client", between, "which sign? + nonce", GREY),
        (between, "service", "which sign? + nonce", GREY),
        ("service", between, f"{said}, signed now", BLUE),
        (between, "client", f"{arrived}, signed {when}", RED if harm else BLUE),
    ]
    verdict = "refused: " + refusal.split(":")[0] if refusal else "taken"
    good = bool(refusal) == harm
    if not good:
        verdict += ", and it is genuine" if refusal else ", and it must not be"
    steps.append(("client", "client", verdict, GREEN if good else ORANGE))
    alt = f"{attack}: the service says {said}, {arrived} arrives; it is {verdict}."
    return sequence(["client", between, "service"], steps), alt


show(*draw(compute("recorded, other sign", "question, time", 120, 0, 30)))

# %%
explore(
    compute,
    draw,
    attack=Choice(
        "in between",
        ["nobody", "changes the label", "recorded, other sign", "recorded, same sign"],
        "recorded, same sign",
    ),
    bound=Choice("the signature binds", list(BINDINGS), "question, time"),
    age=Slider("attacker: age of the record, in s", 0, 120, 20, help="how old"),
    clock_off=Slider("the client's clock is off by, in s", -90, 90, 0),
    tolerance=Slider(
        "defender: tolerance, in s", 0, 120, 30, help="how far clocks may be apart"
    ),
)

# %% [markdown]
# Three things to find there. With the question alone, a record of the *same* sign is good for ever, and does harm once the service would answer otherwise, with a mended model, say. With the time, it is good for as long as the tolerance, and a
# clock that is off by more refuses honest answers: a tolerance is a price, paid either way. With the nonce no record is good at all, however young, and the time is left
# for those who keep answers and look at them later. The nonce has its own price: an honest cache can no longer help, since no answer fits a second request.

# %%
settings = {
    "same sign, question": ("recorded, same sign", "question", 100, 0, 30),
    "same sign, in time": ("recorded, same sign", "question, time", 20, 0, 30),
    "same sign, too old": ("recorded, same sign", "question, time", 40, 0, 30),
    "same sign, nonce": ("recorded, same sign", "question, time, nonce", 0, 0, 30),
    "honest, clock off": ("nobody", "question, time, nonce", 0, 45, 30),
    "honest, more tolerance": ("nobody", "question, time, nonce", 0, 45, 60),
}
verdicts = {name: not compute(*setting)[-1] for name, setting in settings.items()}
for name, is_taken in verdicts.items():
    print(f"{name:24} {'taken' if is_taken else 'refused'}")

front.set(cache=True)  # an honest one
once, _ = ask(front.url, some[:9], classes, check=bound_check, context=context)
again, _ = ask(front.url, some[:9], classes, check=bound_check, context=context)
front.set(cache=False)
print(f"honest cache: {(once >= 0).sum()} of 9 taken, then {(again >= 0).sum()} of 9")

# %% claim="binding"
print(
    "bound to the question alone, an old answer to the same question is taken:",
    verdicts["same sign, question"],
)
print(
    "bound to the time, it is taken while the tolerance lasts, and not after:",
    verdicts["same sign, in time"] and not verdicts["same sign, too old"],
)
print("bound to the nonce, it is never taken:", not verdicts["same sign, nonce"])
print(
    "a clock that is off by more than the tolerance refuses an honest answer:",
    not verdicts["honest, clock off"] and verdicts["honest, more tolerance"],
)
print(
    "what an honest cache has kept is refused as well:",
    bool((once >= 0).all() and (again < 0).all()),
)

# %% [markdown]
# ## Who can forge?
#
# Whoever verifies an HMAC holds the key that makes it. A service with a hundred customers and one secret has a hundred who can sign in its name. One of them
# now sits in the cache, changes labels and signs again.
#
# **Ed25519** (Bernstein et al., 2011) splits the key: the private half signs and stays with the service, the public half verifies and may be printed on posters. The message and your
# `check_answer` stay as they are.

# %%
sign_alone, public = integrity.ed25519(secrets.token_bytes(32))
verify_alone = integrity.ed25519_verifier(public)


def public_check(request, headers, answer):
    now = clock.now()
    return check_answer(request, headers, answer, signed_message, verify_alone, now, 30)


def forge(with_key):
    """What somebody makes of the genuine exchanges, who signs with a key they have."""
    signing = integrity.signer(with_key, clock, message=signed_message)
    rewrite = integrity.sign_again(classes, signing)
    return [(r, *rewrite(r, h, a)) for r, h, a in genuine[:200]]


served = integrity.signer(sign_alone, clock, message=signed_message)
by_service = [(r, {**h, **served(r, a)}, a) for r, h, a in genuine[:200]]

# %% [markdown]
# The forger has everything that a customer has: the HMAC key in one world, the public key in the other. With the public key they try it as a private one, too, and as the secret of an HMAC. That last
# one is an old trick against checks that let the *answer* say how it was signed (`"alg": "HS256"` in a JSON Web Token): the public key is no secret, and the check uses it as one.

# %%
as_private, _ = integrity.ed25519(public)
as_secret, verify_confused = integrity.hmac_sha256(public)


def trusting_check(request, headers, answer):
    """Believes the answer about how it was signed: 64 hex digits must be an HMAC."""
    is_hmac = len(headers.get("X-Signature", "")) == 64
    verify, now = verify_confused if is_hmac else verify_alone, clock.now()
    return check_answer(request, headers, answer, signed_message, verify, now, 30)


# %%
by_shared_key = [(r, {**h, **signers[0](r, a)}, a) for r, h, a in genuine[:200]]
forgeries = {
    "HMAC, forged with the shared key": rates(
        bound_check, by_shared_key, forge(sign_hmac)
    ),
    "Ed25519, public key as private": rates(
        public_check, by_service, forge(as_private)
    ),
    "Ed25519, public key as secret": rates(public_check, by_service, forge(as_secret)),
    "method named by the answer": rates(trusting_check, by_service, forge(as_secret)),
}
show(
    bars(
        {name: bad for name, (_, bad) in forgeries.items()},
        xlabel="share of forged answers that are taken",
        colours=RED,
    ),
    "Forged answers taken: "
    + ", ".join(f"{name} {bad:.0%}" for name, (_, bad) in forgeries.items()),
)

# %% claim="forge"
print(
    "all four checks take every genuine answer:",
    {g for g, _ in forgeries.values()} == {1},
)
print(
    "whoever can verify an HMAC can forge it, every time:",
    forgeries["HMAC, forged with the shared key"][1] == 1,
)
print(
    "neither way of forging with the public key of Ed25519 is taken:",
    forgeries["Ed25519, public key as private"][1]
    == forgeries["Ed25519, public key as secret"][1]
    == 0,
)
print(
    "a client that lets the answer say how it was signed takes every forgery:",
    forgeries["method named by the answer"][1] == 1,
)

# %% [markdown]
# The client decides which method it expects, once, in its own settings; never the message.
#
# One door is left, and it is easy to overlook. A client learns the *names and order* of the classes from the service's description of itself, and nothing signs that. Shift the list by one place,
# touch no answer, and every signature holds, while class number 3 now means something else.

# %%
bench.rewrite = integrity.rename(classes)
checking = partial(RemoteModel, bench.url, dtype="uint8", check=bound_check)
misled = checking()(some).argmax(1)
knowing, reasons = ask(bench.url, some[:5], classes, check=bound_check)
bench.rewrite = None
wrong = (misled != truth[:60]).float().mean()
print(f"wrong class numbers, with every signature right: {wrong:.0%}")
print("a client that knows the list beforehand:", *reasons)

# %% claim="description"
print(
    "the description is not signed: all signatures hold, all numbers are wrong:",
    bool((misled != truth[:60]).all()),
)
print("a client that knows the labels beforehand refuses:", bool((knowing < 0).all()))

# %% [markdown]
# So the label list has its place after all: not as a filter, but as something the client knew before.
#
# ## Everything against everything
#
# A fresh laboratory: the same service signs in three ways at once, behind a front with TLS and one without, and a proxy with a forged certificate. Each row is an attack, each column a client with one protection. All of it goes over
# real connections, thirty answers a cell. (`benchmarks/output_integrity.py` runs the same with a thousand.)

# %%
rows, n = {}, 30
with Lab(model, x[: n + 1], classes, seed=secrets.randbelow(2**31)) as lab:
    counts = lab.table()
for attack, row in counts.items():
    mark = "✓ " if attack == "nobody attacks" else ""
    rows[attack] = [f"{mark}{count} of {n}" for count in row.values()]
columns = ["nothing", "label\nlist", "TLS", "the guide's\nHMAC", "bound\nHMAC"]
columns += ["bound\nEd25519", "TLS and\nEd25519"]
colours = {f"✓ {n} of {n}": GREEN, f"0 of {n}": GREEN, f"{n} of {n}": RED}
show(
    grid(rows, columns, colours, cell=0.85),
    "Answers taken, attack by protection. "
    + " ".join(f"{attack}: {', '.join(row)}." for attack, row in rows.items()),
)

# %% claim="table"
attacks = [attack for attack in ATTACKS if attack != "nobody attacks"]
print(
    "every client takes every genuine answer:",
    set(counts["nobody attacks"].values()) == {n},
)
print(
    "TLS stops all on the wire and none in the cache:",
    all(counts[a]["TLS"] == (0 if "wire" in a else n) for a in attacks),
)
print(
    "the bound HMAC stops all but the client who has its key:",
    [a for a in attacks if counts[a]["bound HMAC"]] == attacks[-1:],
)
print(
    "the bound Ed25519 signature stops all:",
    sum(counts[a]["bound Ed25519"] for a in attacks) == 0,
)

# %% [markdown]
# ## What you have seen
#
# **Shown:** an answer can be changed wherever somebody can touch it, and the model's own monitoring sees nothing of that. TLS closes the wire, not what stands behind it. A signature closes both,
# if it is over bytes that can be read in one way only, and binds the question, the nonce and the time; and only if verifying does not mean being able to sign.
#
# **Not shown:** whether the answer is *right*. A signature says who said it; a poisoned model signs its nonsense like any other. Nor does it help against silence: whoever can change an answer can drop it, or answer
# *429, come back later*, and the refusals of this service are not signed. Whoever has the private key is the service. And no timing was measured: the guide's `compare_digest` is right, and stays.
# The cache and its hasty reader are the course's own, small, and made to show one kind of mistake.
#
# **On Monday**
#
# - TLS everywhere, also inside, between front and service. Never turn verification off: give the client the authority's certificate (`ssl.create_default_context(cafile=…)`; trustme or step-ca for a lab).
# - Watch when certificates run out, and let clients set their clocks by NTP.
# - Where answers are acted upon, sign them: Ed25519 of *cryptography*, over the bytes as they go out, or over a canonical form (RFC 8785) if boxes rewrite them. HTTP Message Signatures (RFC 9421) is a standard for it.
# - Bind the request, a nonce and the time. Write down the tolerance and what it costs. If you need a cache, bind question and time, and let the tolerance be the cache's lifetime.
# - Fix the method and the keys in the client. Refuse what is unsigned, missing or read in two ways, with one exception that nobody swallows.
# - Know labels and their order beforehand; sign the description, too.
# - Test a check with two numbers: what it lets through, and what it refuses wrongly.
#
# ### Check yourself
#
# <details><summary>All your traffic runs over TLS with valid certificates. Name two places where an answer can still be changed.</summary>
#
# In every box that ends TLS: a front, a cache, a company's inspecting proxy. And in the client, if it was made to believe one more authority. TLS protects a connection; an answer lives longer than one.
# </details>
#
# <details><summary>Why does a nonce in the request make the time unnecessary for the client that asked, and for whom is it still needed?</summary>
#
# The client has drawn the nonce just now, so an answer that covers it cannot be older than the question. Somebody who reads a stored answer later, such as an auditor or a cache, has
# drawn no nonce, and the signed time is all there is to go by.
# </details>
#
# <details><summary>A partner wants to check your signatures. Do you send the HMAC key?</summary>
#
# No: with it they could sign in your name, and a judge could not tell who did. Sign with Ed25519 and send the public key; or give each partner a secret of their own.
# </details>
#
# ### Read on
#
# - H. Krawczyk et al., *HMAC: keyed-hashing for message authentication*, RFC 2104, 1997.
# - D. Bernstein et al., *High-speed high-security signatures*, 2011 (Ed25519), and RFC 8032, 2017.
# - E. Rescorla, *The Transport Layer Security protocol version 1.3*, RFC 8446, 2018.
# - A. Rundgren et al., *JSON canonicalization scheme*, RFC 8785, 2020.
# - A. Backman et al., *HTTP message signatures*, RFC 9421, 2024.
# - J. Kettle, *Practical web cache poisoning*, 2018.
# - T. McLean, *Critical vulnerabilities in JSON Web Token libraries*, 2015.
#
# **Back to the map:** [00 · Start here](00_start_here.ipynb)
