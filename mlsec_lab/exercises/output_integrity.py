"""Lesson 11: change an answer, replay one, and the three things that keep answers whole: a context, a message, a check."""
import functools
import json
import random
import ssl

from mlsec_lab.exercises import Exercise, NotYet, advising, require
from mlsec_lab.model_to_data import integrity
from mlsec_lab.model_to_data.integrity import IntegrityError, read_json
from mlsec_lab.victims.tls import LabCA, explain, handshake

CLASSES = ("stop", "yield", "no entry", "priority", "crossing")


def tamper(answer, classes):
    """Change an answer so that nobody can see it: every label becomes another class.

    answer: bytes, JSON with "labels", a list of names, and perhaps "probabilities", for
    each label a list of numbers in the order of `classes`.
    Returns the new answer, bytes: whole JSON, whose labels are the likeliest classes.
    """
    ### BEGIN SOLUTION
    said = json.loads(answer)
    places = [classes.index(label) for label in said["labels"]]
    said["labels"] = [classes[(place + 1) % len(classes)] for place in places]
    if "probabilities" in said:
        said["probabilities"] = [row[-1:] + row[:-1] for row in said["probabilities"]]
    return json.dumps(said).encode()
    ### END SOLUTION


TAMPER = Exercise("output_integrity.tamper", reference=tamper, difficulty=2, minutes=10, hints=[
    "`said = json.loads(answer)` makes a dict of the bytes, `json.dumps(said).encode()` bytes of the dict. Change only what you must in between.",
    "A label that is no class would give you away: take the next one of `classes`, by `classes.index(label) + 1`, and begin anew after the last.",
    "Where there are probabilities, the new label must have the largest. Moving each row one place on, `row[-1:] + row[:-1]`, does that.",
])


def rates(check, genuine, attacked):
    """How good a check is, in two numbers.

    check: a function (request, headers, answer) that returns if it takes the answer and
    raises, whatever exception, if it does not.
    genuine, attacked: lists of exchanges (request, headers, answer).
    Returns (share of the genuine ones that it takes, share of the attacked ones).
    """
    ### BEGIN SOLUTION
    def takes(exchange):
        try:
            check(*exchange)
        except Exception:
            return False
        return True

    shares = [sum(map(takes, some)) / len(some) for some in (genuine, attacked)]
    return tuple(shares)
    ### END SOLUTION


RATES = Exercise("output_integrity.rates", reference=rates, difficulty=1, minutes=5, hints=[
    "`check(*exchange)` hands over the three parts. What it returns does not matter: only whether it raises.",
    "`try:` to call it; `except Exception:` means that it was refused. Count, and divide by how many there were.",
])


def lab_context(certificate):
    """What a client brings along to tell its service from everybody else.

    certificate: of the lab's authority, PEM text.
    Returns an ssl.SSLContext that accepts a server only if this authority and no other
    has certified it, for the host that was asked for, and at this time.
    """
    ### BEGIN SOLUTION
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=certificate)
    return context
    ### END SOLUTION


LAB_CONTEXT = Exercise("output_integrity.lab_context", reference=lab_context, difficulty=2, minutes=10, hints=[
    "Two calls: make a context for clients, and tell it whom to believe. What must be checked is checked unless you turn it off.",
    "`ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)` checks chain, time and host, and believes nobody yet.",
    "`context.load_verify_locations(cadata=…)` takes the text of a certificate; `cafile=` would want a file.",
])


def replay_label(exchanges, wanted):
    """Forge an answer without a key: find one that was signed before.

    exchanges: a list of (request, headers, answer), recorded, of one image each.
    wanted: the label that the client is to believe.
    Returns (headers, answer) of a recorded exchange whose label is `wanted`.
    Raises ValueError if there is none.
    """
    ### BEGIN SOLUTION
    for request, headers, answer in exchanges:
        if json.loads(answer)["labels"] == [wanted]:
            return headers, answer
    raise ValueError(f"nobody has ever been answered {wanted!r}")
    ### END SOLUTION


REPLAY_LABEL = Exercise("output_integrity.replay_label", reference=replay_label, difficulty=1, minutes=5, hints=[
    "Go through the exchanges and look at each answer: `json.loads(answer)[\"labels\"]` is a list of one label.",
    "Return the headers and the answer as they were recorded, byte by byte: the signature in the headers belongs to this answer.",
])


def signed_message(request, answer, time):
    """The bytes that get signed: the answer, and what request and time it belongs to.

    request: bytes, JSON; among its names is "nonce", a number that is used once.
    answer: bytes, JSON.  time: text.
    Returns bytes: the same for the same answer however it is written (spaces, order of
    names), others as soon as anything in answer, request or time means something else.
    Raises ValueError for an answer in which a name stands twice, or with NaN in it.
    """
    ### BEGIN SOLUTION
    parts = {"answer": read_json(answer), "request": read_json(request), "time": time}
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()
    ### END SOLUTION


SIGNED_MESSAGE = Exercise("output_integrity.signed_message", reference=signed_message, difficulty=3, minutes=15, hints=[
    "You need one way of writing whatever the JSON says. `json.dumps` has one: `sort_keys=True` and fixed separators.",
    "Do not glue texts together: \"1\" + \"23\" is \"12\" + \"3\". Put the three parts into one dict, under names, and write that.",
    "`read_json(text)`, which is given, is `json.loads` that raises ValueError for a name that stands twice and for NaN.",
    "The nonce stands in the request: whoever puts the whole request into the dict has bound it, too.",
])


def check_answer(request, headers, answer, message, verify, now, tolerance):
    """The client's check: the answer's content, or IntegrityError if there is a fault.

    request: bytes, as this client sent it.  headers: a dict; "X-Time" and "X-Signature"
    are text, if they are there.  answer: bytes.
    message: a function (request, answer, time) -> bytes, such as your `signed_message`;
    it raises ValueError for an answer that it does not want to read.
    verify: a function (bytes, signature) -> bool.
    now, tolerance: seconds; `float(time)` may be so far from now, before or after.
    Returns the content of the answer, a dict.
    Raises IntegrityError, and nothing else, for every answer that must not be used.
    """
    ### BEGIN SOLUTION
    time, signature = headers.get("X-Time"), headers.get("X-Signature")
    if time is None or signature is None:
        raise IntegrityError("there is no signature")
    try:
        genuine = verify(message(request, answer, time), signature)
    except ValueError as error:
        raise IntegrityError(f"it cannot be read in one way only: {error}") from None
    if not genuine:
        raise IntegrityError("the signature belongs to something else")
    if abs(now - float(time)) > tolerance:
        raise IntegrityError("it was signed at another time")
    return json.loads(answer)
    ### END SOLUTION


CHECK_ANSWER = Exercise("output_integrity.check_answer", reference=check_answer, difficulty=3, minutes=15, hints=[
    "Four questions, in this order: is there a signature and a time? Can the answer be read? Does the signature belong to it? Is it recent?",
    "`headers.get(name)` is None where a header is missing; `headers[name]` would raise a KeyError instead of your IntegrityError.",
    "You need not compare questions or nonces: build the message from the request that YOU sent, and an answer to any other does not fit.",
    "A clock may be off in both directions: `abs(now - float(time)) > tolerance`.",
])


# ---- what the properties look at

def _answer(chance, n=3, probabilities=True):
    """An answer as the service gives it, about n images: its content."""
    rows = [[chance.random() for _ in CLASSES] for _ in range(n)]
    rows = [[value / sum(row) for value in row] for row in rows]
    said = {"labels": [CLASSES[row.index(max(row))] for row in rows]}
    return said | ({"probabilities": rows} if probabilities else {"confidences": [max(row) for row in rows]})


def _request(chance):
    return {"shape": [1, 3, 32, 32], "dtype": "uint8", "images": chance.randbytes(24).hex(), "nonce": chance.randbytes(16).hex()}


def _bytes(content, **style):
    return json.dumps(content, **style).encode()


def _require_bytes(value, what):
    require(isinstance(value, (bytes, bytearray)), expected=f"{what} as bytes", got=type(value).__name__, next_step="`.encode()` makes bytes of text")
    return bytes(value)


def _tampered(answer, seed, **options):
    """(content before, content after) of an answer that was tampered with."""
    said = _answer(random.Random(seed), **options)
    with advising("KeyError: 'probabilities'", expected="an answer without probabilities changed, too",
                  next_step="not every answer has them: `if \"probabilities\" in said:`"):
        got = _require_bytes(answer(_bytes(said), CLASSES), "the new answer")
    try:
        after = json.loads(got)
        if not isinstance(after, dict):
            raise ValueError
    except ValueError:
        raise NotYet("an answer that is a JSON object, as before", f"{got[:60]!r}", "change the content and write it with `json.dumps`: "
                     "text that is replaced inside the bytes breaks easily") from None
    require(after.keys() == said.keys(), expected=f"the names {', '.join(said)}, as before", got=", ".join(map(str, after)) or "none",
            next_step="change what is under the names, add none and take none away: a client may look")
    return said, after


@TAMPER.property("gives bytes that hold the same names")
def _tamper_names(answer, seed):
    _tampered(answer, seed)
    _tampered(answer, seed, probabilities=False)


@TAMPER.property("replaces every label by another class that the service knows")
def _tamper_labels(answer, seed):
    for n in (1, 12):
        said, after = _tampered(answer, seed, n=n, probabilities=False)
        labels = after["labels"]
        require(isinstance(labels, list) and len(labels) == n, expected=f"a list of {n} labels", got=f"{labels!r:.60}",
                next_step="one label an image, as before")
        strange = [label for label in labels if label not in CLASSES]
        require(not strange, expected="labels out of `classes`", got=f"{strange[:1]!r:.60}", next_step="take a name out of `classes`: "
                "after the last one begin anew with `% len(classes)`")
        same = sum(old == new for old, new in zip(said["labels"], labels))
        require(same == 0, expected="another class for every image", got=f"{same} of {n} as before", next_step="the next of `classes` is never the same one")


@TAMPER.property("gives the new label the largest probability, and leaves probabilities that add up to 1")
def _tamper_probabilities(answer, seed):
    _, after = _tampered(answer, seed, n=12)
    rows = after["probabilities"]
    require([len(row) for row in rows] == [len(CLASSES)] * 12, expected="one probability a class for each image", got=f"{[len(row) for row in rows]}",
            next_step="keep each row as long as it was")
    fits = sum(CLASSES[row.index(max(row))] == label for row, label in zip(rows, after["labels"]))
    require(fits == 12, expected="a largest probability at the new label", got=f"{12 - fits} of 12 elsewhere", next_step="move the probabilities along with "
            "the label: whoever compares the two would notice")
    worst = max((sum(row) for row in rows), key=lambda total: abs(total - 1))
    require(abs(worst - 1) < 1e-6, expected="rows that add up to 1", got=f"{worst:.3f}", next_step="move or swap the numbers, make up no new ones")


def _checks(chance):
    """A check that takes about half of a list of exchanges, and says no in several ways; the list, and how many it takes."""
    exchanges = [(b"question", {"X": str(number)}, b"answer %d" % number) for number in range(20)]
    taken = {number for number in range(20) if chance.random() < 0.5} | {3}
    taken.discard(4)
    errors = [IntegrityError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError]

    def check(request, headers, answer):
        if request != b"question" or not isinstance(headers, dict) or not isinstance(answer, bytes):
            raise AssertionError("the three parts in another order")
        number = int(answer.split()[1])
        if number not in taken:
            raise errors[number % len(errors)]("no")
        return None if number % 2 else {}

    return check, exchanges, taken


@RATES.property("gives two shares from 0 to 1")
def _rates_shares(answer, seed):
    check, exchanges, _ = _checks(random.Random(seed))
    _rates_of(answer, check, exchanges, exchanges[:5])


def _rates_of(answer, *arguments):
    try:
        got = answer(*arguments)
    except NotYet as found:
        if "no" == found.got.partition(": ")[2].partition(",")[0]:  # what the check raised has come through
            raise NotYet("two shares, whatever the check raises", found.got, "a check may say no with any exception: `except Exception:`") from None
        raise
    require(isinstance(got, (tuple, list)) and len(got) == 2 and all(isinstance(value, (int, float)) for value in got), expected="two numbers",
            got=f"{got!r:.60}", next_step="`return genuine_share, attacked_share`")
    require(all(0 <= value <= 1 for value in got), expected="shares from 0 to 1", got=f"{got[0]:.3g} and {got[1]:.3g}",
            next_step="divide by how many exchanges there are")
    return tuple(got)


@RATES.property("counts what a check takes, whichever way it says no")
def _rates_counts(answer, seed):
    check, exchanges, taken = _checks(random.Random(seed))
    genuine, attacked = exchanges[:10], exchanges[3:]
    expected = tuple(sum(int(each[2].split()[1]) in taken for each in some) / len(some) for some in (genuine, attacked))
    got = _rates_of(answer, check, genuine, attacked)
    swapped = got[::-1] == expected and got != expected
    require(max(abs(a - b) for a, b in zip(got, expected)) < 1e-9, expected=f"{expected[0]:.3f} of the first list and {expected[1]:.3f} of the second",
            got=f"{got[0]:.3f} and {got[1]:.3f}", next_step="the genuine ones come first" if swapped else
            "an exchange is taken if `check(*exchange)` returns, whatever it returns, and refused if it raises")


@RATES.property("calls a check useless that takes all or nothing")
def _rates_extremes(answer, seed):
    _, exchanges, _ = _checks(random.Random(seed))

    def refuse(*exchange):
        raise IntegrityError("no")

    for check, expected in ((lambda *exchange: {}, (1, 1)), (refuse, (0, 0))):
        got = _rates_of(answer, check, exchanges[:7], exchanges[7:])
        require(got == expected, expected=f"{expected[0]} and {expected[1]}", got=f"{got[0]:.3f} and {got[1]:.3f}",
                next_step="both numbers are shares of what is TAKEN, also of the attacked ones")


@functools.lru_cache(maxsize=8)
def _authorities(seed):
    return LabCA(), LabCA()


def _context(answer, seed):
    ours, other = _authorities(seed)
    with advising("FileNotFoundError", "OSError", expected="a context made of the certificate's text",
                  next_step="`cafile=` wants the name of a file: `cadata=` takes text"):
        context = answer(ours.certificate)
    require(isinstance(context, ssl.SSLContext), expected="an ssl.SSLContext", got=type(context).__name__, next_step="return the context itself")
    require(context.protocol != ssl.PROTOCOL_TLS_SERVER, expected="a context for clients", got="one for servers",
            next_step="make it with `ssl.PROTOCOL_TLS_CLIENT`")
    return context, ours, other


def _refused(context, certificate, what, next_step):
    try:
        handshake(context, certificate)
    except ssl.SSLError:
        return
    raise NotYet(f"no connection to a server with {what}", "a connection", next_step)


@LAB_CONTEXT.property("connects to a server that the lab's authority has certified")
def _context_connects(answer, seed):
    context, ours, _ = _context(answer, seed)
    try:
        handshake(context, ours.issue())
    except ssl.SSLError as error:
        raise NotYet("a connection", f"a refusal: {explain(error)}", "load the certificate that you were given: `load_verify_locations(cadata=…)`") from None


@LAB_CONTEXT.property("refuses a certificate of another authority")
def _context_authority(answer, seed):
    context, _, other = _context(answer, seed)
    _refused(context, other.issue(), "a certificate that anybody could make", "make the context with "
             "`ssl.PROTOCOL_TLS_CLIENT`, which verifies by itself, and leave `verify_mode` alone")


@LAB_CONTEXT.property("refuses a certificate for another host")
def _context_host(answer, seed):
    context, ours, _ = _context(answer, seed)
    _refused(context, ours.issue("127.0.0.2"), "a certificate for 127.0.0.2", "leave `check_hostname` alone: everybody who has any certificate of this "
             "authority could be your service")


@LAB_CONTEXT.property("refuses a certificate before and after its time")
def _context_time(answer, seed):
    context, ours, _ = _context(answer, seed)
    for begins, ends in ((-9, -1), (1, 9)):
        _refused(context, ours.issue(begins=begins, ends=ends), f"a certificate from day {begins} to day {ends}", "leave `verify_mode` alone")


@LAB_CONTEXT.property("believes the lab's authority alone, and speaks nothing older than TLS 1.2")
def _context_alone(answer, seed):
    context, _, _ = _context(answer, seed)
    believed = len(context.get_ca_certs())
    require(believed == 1, expected="one authority", got=f"{believed}", next_step="load none but the lab's: each authority more is one more that can "
            "certify somebody else as your service")
    require(context.minimum_version >= ssl.TLSVersion.TLSv1_2, expected="TLS 1.2 or later", got=context.minimum_version.name,
            next_step="`context.minimum_version = ssl.TLSVersion.TLSv1_2`")


def _recorded(chance, n=20):
    """Signed exchanges, as the guide signs, with every class among them."""
    secret = chance.randbytes(32)
    sign, exchanges = integrity.guide_signer(secret), []
    for number in range(n):
        said = _bytes({"labels": [CLASSES[number % len(CLASSES)]], "confidences": [chance.random()]})
        request = _bytes(_request(chance))
        exchanges.append((request, sign(request, said), said))
    chance.shuffle(exchanges)
    return secret, exchanges


@REPLAY_LABEL.property("returns headers and an answer with the wanted label")
def _replay_wanted(answer, seed):
    chance = random.Random(seed)
    _, exchanges = _recorded(chance)
    for wanted in CLASSES:
        _, said = _pair(answer(list(exchanges), wanted))
        got = json.loads(said)["labels"]
        require(got == [wanted], expected=f"an answer that says {wanted!r}", got=f"{got!r:.60}",
                next_step="compare the label in each recorded answer with `wanted`")


def _pair(got):
    size = f" of {len(got)}" if isinstance(got, (tuple, list)) else ""
    require(isinstance(got, tuple) and len(got) == 2, expected="a pair (headers, answer)", got=type(got).__name__ + size,
            next_step="`return headers, answer`: the request stays behind")
    headers, said = got
    require(isinstance(headers, dict), expected="headers as a dict, and then the answer", got=type(headers).__name__, next_step="headers come first")
    return headers, _require_bytes(said, "the answer")


@REPLAY_LABEL.property("is taken by the guide's check, for a question that was never asked before")
def _replay_taken(answer, seed):
    chance = random.Random(seed)
    secret, exchanges = _recorded(chance)
    check = integrity.guide_check(secret, CLASSES)
    for wanted in CLASSES:
        headers, said = _pair(answer(list(exchanges), wanted))
        try:
            check(_bytes(_request(chance)), headers, said)
        except Exception as error:
            raise NotYet("an answer that the guide's check takes", f"{type(error).__name__}: {error}",
                         "take headers and answer of one and the same exchange, and change neither") from None


@REPLAY_LABEL.property("raises ValueError for a label that nobody was answered")
def _replay_none(answer, seed):
    _, exchanges = _recorded(random.Random(seed))
    answer([exchange for exchange in exchanges if b"stop" not in exchange[2]], "stop", raises=ValueError)


def _message(answer, request, said, time="100.000"):
    request, said = (part if isinstance(part, bytes) else _bytes(part) for part in (request, said))
    with advising("bytes is not JSON serializable", expected="a message made of what the JSON says",
                  next_step="`json.dumps` takes no bytes: read them with `read_json` first"):
        return _require_bytes(answer(request, said, time), "the message")


@SIGNED_MESSAGE.property("gives the same bytes for the same answer, however it is written")
def _message_canonical(answer, seed):
    chance = random.Random(seed)
    request, said = _request(chance), _answer(chance) | {"note": "façade"}
    first = _message(answer, request, said)
    turned = dict(reversed(said.items()))
    for other, how in ((said, "unchanged"), (_bytes(said, indent=2), "with other spaces"), (turned, "with its names in another order"),
                       (_bytes(said, ensure_ascii=False), "with ç written as itself")):
        require(_message(answer, request, other) == first, expected=f"the same bytes for an answer {how}", got="others",
                next_step="read the answer and write it anew, always in the same way: `sort_keys=True` and fixed separators")


@SIGNED_MESSAGE.property("changes with everything that the answer says")
def _message_answer(answer, seed):
    chance = random.Random(seed)
    request, said = _request(chance), _answer(chance) | {"sure": True}
    first = _message(answer, request, said)
    rows = said["probabilities"]
    for change, what in (({"labels": said["labels"][::-1] + ["stop"]}, "another label"), ({"probabilities": [rows[0][::-1]] + rows[1:]}, "another number"),
                         ({"sure": "True"}, "the text \"True\" in place of true"), ({"more": None}, "one more name"),
                         ({"sure": False}, "false in place of true")):
        require(_message(answer, request, said | change) != first, expected=f"other bytes for an answer with {what}", got="the same",
                next_step="the whole content of the answer has to go into the message")


@SIGNED_MESSAGE.property("changes with the question, with the nonce and with the time")
def _message_bound(answer, seed):
    chance = random.Random(seed)
    request, said = _request(chance), _answer(chance)
    first = _message(answer, request, said)
    for change, what in (({"images": chance.randbytes(24).hex()}, "other images"), ({"nonce": chance.randbytes(16).hex()}, "another nonce"),
                         ({"dtype": "float32"}, "another dtype"), ({"shape": [1, 3, 24, 24]}, "another shape"), ({"temperature": 2}, "one more name")):
        require(_message(answer, request | change, said) != first, expected=f"other bytes for a request with {what}", got="the same",
                next_step="put the request into the message, too, all of it: an answer belongs to one question")
    require(_message(answer, request, said, "100.001") != first, expected="other bytes for another time", got="the same",
            next_step="put the time into the message: a header that is not signed is whatever somebody writes into it")


@SIGNED_MESSAGE.property("keeps its parts apart")
def _message_apart(answer, seed):
    chance = random.Random(seed)
    request, said = _request(chance), _answer(chance)
    digits = str(chance.randrange(10**9, 10**10))
    pairs = [(request | {"nonce": request["nonce"] + digits[:cut]}, digits[cut:]) for cut in range(1, 9)]
    messages = {_message(answer, asked, said, time) for asked, time in pairs}
    whole = _bytes(request, sort_keys=True, separators=(",", ":"))
    glued = {_message(answer, whole, said, " 1"), _message(answer, whole + b" ", said, "1")}  # the same request, and two different times
    require(len(messages) == len(pairs) and len(glued) == 2, expected="other bytes where a digit moves from the end of the nonce to the begin of the time",
            got="the same", next_step="put the parts into a dict under names, and write that: glued texts run into each other")


@SIGNED_MESSAGE.property("raises ValueError for an answer that can be read in two ways")
def _message_strict(answer, seed):
    chance = random.Random(seed)
    request, said = _bytes(_request(chance)), _bytes(_answer(chance))
    for bad, what in ((b'{"labels": ["yield"], ' + said[1:], "with labels twice"), (b'{"a": {"b": 1, "b": 2}}', "with a name twice, further in"),
                      (b'{"labels": ["stop"], "confidences": [NaN]}', "with NaN")):
        with advising(expected=f"a ValueError for an answer {what}", next_step="read it with `read_json`, which is as strict as it should be"):
            answer(request, bad, "100.000", raises=ValueError)


def _signed(seed, *, key="hmac", time="100.000"):
    """A genuine exchange and the function that verifies it."""
    chance = random.Random(seed)
    request, said = _bytes(_request(chance)), _bytes(_answer(chance))
    if key == "hmac":
        sign, verify = integrity.hmac_sha256(chance.randbytes(32))
    else:
        sign, public = integrity.ed25519(chance.randbytes(32))
        verify = integrity.ed25519_verifier(public)
    signature = sign(signed_message(request, said, time))
    return (request, {"Content-Type": "application/json", "X-Time": time, "X-Signature": signature}, said), verify


def _refuses(answer, exchange, verify, what, next_step, now=100.0, tolerance=30):
    with advising(expected=f"an IntegrityError for {what}", next_step=next_step):
        answer(*exchange, signed_message, verify, now, tolerance, raises=IntegrityError)


@CHECK_ANSWER.property("returns the content of a genuine answer")
def _check_genuine(answer, seed):
    for key in ("hmac", "ed25519"):
        exchange, verify = _signed(seed, key=key)
        with advising("IntegrityError", expected="a genuine answer taken", next_step="`verify(message(request, answer, time), signature)` is True "
                      "for a genuine answer: leave comparing to it, and raise only where it is False"):
            got = answer(*exchange, signed_message, verify, 101.0, 30)
        require(got == json.loads(exchange[2]), expected="the content of the answer, a dict", got=f"{type(got).__name__} {got!r:.50}",
                next_step="`return json.loads(answer)` at the end: use what was verified, and nothing else")


@CHECK_ANSWER.property("refuses a changed answer, a changed time and a changed signature")
def _check_changed(answer, seed):
    (request, headers, said), verify = _signed(seed)
    wrong = headers["X-Signature"][::-1]
    for exchange, what in (((request, headers, tamper(said, CLASSES)), "an answer that was changed"),
                           ((request, headers | {"X-Time": "99.000"}, said), "a time that was changed"),
                           ((request, headers | {"X-Time": "soon"}, said), "a time that is no number"),
                           ((request, headers | {"X-Signature": wrong}, said), "a signature that was changed")):
        _refuses(answer, exchange, verify, what, "`if not verify(message(request, answer, time), signature):` and raise, before anything else is made of what was sent")


@CHECK_ANSWER.property("refuses the answer to another question, and to the same one with another nonce")
def _check_replayed(answer, seed):
    (request, headers, said), verify = _signed(seed)
    asked, other = json.loads(request), _request(random.Random(seed + 1))
    for change, what in (({"nonce": other["nonce"]}, "another nonce"), ({"images": other["images"]}, "other images")):
        _refuses(answer, (_bytes(asked | change), headers, said), verify, f"a genuine answer to a request with {what}",
                 "build the message from `request`, which is what this client has sent")


@CHECK_ANSWER.property("refuses an answer without a signature or without a time")
def _check_stripped(answer, seed):
    (request, headers, said), verify = _signed(seed)
    for name in ("X-Signature", "X-Time"):
        fewer = {key: value for key, value in headers.items() if key != name}
        _refuses(answer, (request, fewer, said), verify, f"an answer without {name}", "look at `headers.get(…)` first: whoever can change an answer can "
                 "also take its headers away")


@CHECK_ANSWER.property("refuses an answer that the message does not want to read")
def _check_unreadable(answer, seed):
    (request, headers, said), verify = _signed(seed)
    for bad, what in ((said[:len(said) // 2], "half an answer"), (b'{"labels": ["yield"], ' + said[1:], "an answer with labels twice")):
        _refuses(answer, (request, headers, bad), verify, what, "`message(…)` raises ValueError for it: catch that and raise IntegrityError")


@CHECK_ANSWER.property("allows the two clocks `tolerance` seconds, in both directions")
def _check_clock(answer, seed):
    exchange, verify = _signed(seed)
    tolerance = random.Random(seed).randrange(5, 90)
    for off in (tolerance - 1, 1 - tolerance):
        with advising(expected=f"a genuine answer taken with clocks that are {abs(off)} s apart, of {tolerance} allowed",
                      next_step="the time in the header is seconds as text: compare `float(time)` with `now`"):
            answer(*exchange, signed_message, verify, 100.0 + off, tolerance)
    for off in (tolerance + 1, -1 - tolerance):
        _refuses(answer, exchange, verify, f"an answer that was signed {abs(off)} s {'ago' if off > 0 else 'ahead'}, where {tolerance} are allowed",
                 "a clock may be off in both directions: use `abs`", 100.0 + off, tolerance)
