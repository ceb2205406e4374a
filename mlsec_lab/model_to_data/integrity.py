"""Answers changed on their way: who can change them, what a signature has to bind, and what each protection is worth.

An **exchange** is what went over the wire: (request, headers, answer), which are bytes, a dict and bytes. An attack is a function of an
exchange that returns the headers and the answer which go on, for the `rewrite` of a Proxy. A check is a function of an exchange that returns
the answer's content or raises, for the `check` of a RemoteModel. OWASP ML09; the guide's HMAC is re-implemented from its published listing,
which shows the client's half only, so the service's half is the course's own counterpart to it.
"""
import hashlib
import hmac
import json
import random

from mlsec_lab.victims.inputs import check_choice, check_number

BOUND = ("question", "nonce", "time")  # what a signature covers besides the answer
SIGNATURE, TIME = "X-Signature", "X-Time"


class IntegrityError(Exception):
    """An answer that must not be used, and why."""


# ---- attacks: (request, headers, answer) -> (headers, answer)

def tamper(answer, classes):
    """The answer with each label replaced by the class that follows it, and its probabilities moved along.  bytes -> bytes.

    Whatever holds no labels, such as what a service says of itself, stays as it is.
    """
    said = json.loads(answer)
    if "labels" not in said:
        return answer
    said["labels"] = [classes[(classes.index(label) + 1) % len(classes)] for label in said["labels"]]
    if "probabilities" in said:
        said["probabilities"] = [row[-1:] + row[:-1] for row in said["probabilities"]]
    return json.dumps(said).encode()


def flip(classes):
    """Change every label."""
    return lambda request, headers, answer: (headers, tamper(answer, classes))


def replay(exchange):
    """Answer every question with the answer, and the headers, of an exchange that was kept."""
    _, kept_headers, kept_answer = exchange
    return lambda request, headers, answer: (kept_headers, kept_answer) if request else (headers, answer)


def strip(classes):
    """Change every label and take the signatures away, as if the service had never signed."""
    return lambda request, headers, answer: ({name: value for name, value in headers.items() if not name.startswith("X-")}, tamper(answer, classes))


def double_labels(classes):
    """Put changed labels before the true ones, under the same name: who takes the first reads one thing, who takes the last another."""
    def rewrite(request, headers, answer):
        changed = json.loads(tamper(answer, classes))
        if "labels" in changed:
            answer = b'{"labels": %s, ' % json.dumps(changed["labels"]).encode() + answer.lstrip()[1:]
        return headers, answer
    return rewrite


def sign_again(classes, *signers):
    """Change every label, and sign as well as the keys at hand allow.  signers: functions (request, answer) -> headers."""
    def rewrite(request, headers, answer):
        changed = tamper(answer, classes)
        return {**headers, **{name: value for sign in signers for name, value in sign(request, changed).items()}}, changed
    return rewrite


def rename(classes):
    """Leave every answer alone, and the description of the service wrong: its classes named one place on."""
    def rewrite(request, headers, answer):
        said = json.loads(answer)
        if "classes" in said:
            answer = json.dumps({**said, "classes": [*classes[1:], classes[0]]}).encode()
        return headers, answer
    return rewrite


def double_question(request, other):
    """A request that asks about `request`'s images where the first is read, and about `other`'s where the last is.  bytes."""
    images = json.dumps(json.loads(request)["images"]).encode()
    return b'{"images": %s, ' % images + other.lstrip()[1:]


# ---- the guide's protection

def guide_signer(secret, header=SIGNATURE):
    """HMAC-SHA256 over str() of the answer's content: the service's half.  A function (request, answer) -> headers."""
    sign, _ = hmac_sha256(secret)
    return lambda request, answer: {header: sign(str(json.loads(answer)).encode())}


def guide_check(secret, classes, header=SIGNATURE):
    """The client's half, as the guide has it: the HMAC, then whether each label is one of `classes`.  A check."""
    sign = guide_signer(secret, header)

    def check(request, headers, answer):
        if not hmac.compare_digest(headers.get(header), sign(request, answer)[header]):
            raise IntegrityError("the signature does not belong to this answer")
        return whitelist(classes)(request, headers, answer)
    return check


def whitelist(classes):
    """A check that takes every answer whose labels are among `classes`."""
    def check(request, headers, answer):
        said = json.loads(answer)
        unknown = [label for label in said["labels"] if label not in classes]
        if unknown:
            raise IntegrityError(f"{unknown[0]!r} is no label that is known here")
        return said
    return check


# ---- a signature over a canonical message that binds the question, a nonce and the time

def read_json(text):
    """The content of JSON text that can be read in one way only.  ValueError for a name twice in an object, for NaN, for what is no JSON."""
    def once(pairs):
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name stands twice in one object")
        return dict(pairs)

    def never(constant):
        raise ValueError(f"{constant} is no number of JSON")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=never)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def canonical(content):
    """The one way of writing `content` as JSON: names in order, no spaces, ASCII.  bytes.  (RFC 8785 also says how to write numbers.)"""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def signed_message(request, answer, time, bind=BOUND):
    """What is signed: the answer, and what it must not be parted from.  bytes.

    request, answer: as they went over the wire.  time: a string, as it stands in the header.  bind: which of "question", "nonce", "time".
    Raises ValueError where request or answer can be read in two ways, or is not a JSON object.
    """
    asked, said = read_json(request), read_json(answer)
    if not isinstance(asked, dict) or not isinstance(said, dict):
        raise ValueError("request and answer must be JSON objects")
    nonce = asked.pop("nonce", "")
    bound = {"question": hashlib.sha256(canonical(asked)).hexdigest(), "nonce": nonce, "time": time}
    return canonical({"answer": said, **{name: bound[name] for name in bind}})


def signer(sign, clock, *, message=signed_message, header=SIGNATURE):
    """For `serve(sign=…)`: a function (request, answer) -> headers.  sign: bytes -> str.  What has no `message` gets no signature."""
    def headers(request, answer):
        time = f"{clock.now():.3f}"
        try:
            return {TIME: time, header: sign(message(request, answer, time))}
        except Exception:
            return {}
    return headers


def check_answer(request, headers, answer, message, verify, now, tolerance, header=SIGNATURE):
    """The answer's content, if its signature covers it for this request and it was signed within `tolerance` seconds of `now`.

    request: as this client has sent it.  message: a function (request, answer, time) -> bytes.  verify: a function (bytes, text) -> bool.
    tolerance: None asks for no time.  Raises IntegrityError for any answer that must not be used.
    """
    if headers.get(header) is None or headers.get(TIME) is None:
        raise IntegrityError("the answer carries no signature or no time: it was never signed, or they were taken away")
    try:
        content = read_json(answer)
        signed = verify(message(request, answer, headers[TIME]), headers[header])
        age = now - float(headers[TIME])
    except ValueError as error:
        raise IntegrityError(f"the answer cannot be read, or not in one way only ({error})") from None
    if not signed:
        raise IntegrityError("the signature does not belong to this answer to this request: it was changed, or it is an answer to another")
    if tolerance is not None and not abs(age) <= tolerance:  # written so that NaN fails too
        when = f"{abs(age):,.0f} s {'ago' if age > 0 else 'ahead of this clock'}"
        raise IntegrityError(f"the answer was signed {when}, and {tolerance:g} s are allowed: it is old, or one of the two clocks is off")
    return content


def checker(verify, clock, tolerance=30, *, message=signed_message, header=SIGNATURE):
    """`check_answer` as a check.  clock: the client's.  tolerance: seconds, or None.  ValueError where the key is missing."""
    if tolerance is not None:
        check_number(tolerance, "tolerance", least=0)
    if not callable(verify):
        raise ValueError(f"verify must be a function (message, signature) -> bool, not {verify!r}: is the key missing?")
    return lambda request, headers, answer: check_answer(request, headers, answer, message, verify, clock.now(), tolerance, header)


# ---- keys

def check_secret(secret):
    """Raise ValueError unless `secret` is at least 16 bytes."""
    if not isinstance(secret, bytes) or len(secret) < 16:
        raise ValueError(f"secret must be at least 16 bytes, not {_what(secret)}: secrets.token_bytes(32) makes one")


def _what(key):
    return f"{len(key)} bytes" if isinstance(key, bytes) else "nothing" if key is None else type(key).__name__


def hmac_sha256(secret):
    """(sign, verify) with a secret that both sides hold: bytes -> hex text, and (bytes, text) -> bool (RFC 2104)."""
    check_secret(secret)

    def sign(message):
        return hmac.new(secret, message, hashlib.sha256).hexdigest()

    # As bytes: of text, compare_digest takes ASCII only, and a header is whatever its sender likes.
    return sign, lambda message, signature: hmac.compare_digest(sign(message).encode(), signature.encode())


def ed25519(private):
    """(sign, public): bytes -> hex text, with a key that one side holds, and 32 bytes that everybody may have (RFC 8032).

    private: 32 random bytes.  ValueError for any other.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    if not isinstance(private, bytes) or len(private) != 32:
        raise ValueError(f"private must be 32 random bytes, not {_what(private)}: secrets.token_bytes(32) makes them")
    key = Ed25519PrivateKey.from_private_bytes(private)
    return lambda message: key.sign(message).hex(), key.public_key().public_bytes_raw()


def ed25519_verifier(public):
    """verify: (bytes, hex text) -> bool, with the public key alone."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    if not isinstance(public, bytes) or len(public) != 32:
        raise ValueError(f"public must be the 32 bytes of a public key, not {_what(public)}: the service hands it out")
    key = Ed25519PublicKey.from_public_bytes(public)

    def verify(message, signature):
        try:
            key.verify(bytes.fromhex(signature), message)
        except (InvalidSignature, ValueError):
            return False
        return True
    return verify


# ---- measuring

def rates(check, genuine, attacked):
    """(share of the genuine exchanges that `check` takes, share of the attacked ones): 1 and 0 is what it is for.

    genuine, attacked: lists of exchanges.  Whatever `check` raises is a refusal.
    """
    if not genuine or not attacked:
        raise ValueError("genuine and attacked must hold at least one exchange each: a share of nothing is no number")
    return tuple(sum(accepts(check, exchange) for exchange in exchanges) / len(exchanges) for exchanges in (genuine, attacked))


def accepts(check, exchange):
    """Whether `check` takes an exchange."""
    try:
        check(*exchange)
    except Exception:
        return False
    return True


MUTATIONS = ("label", "number", "new name", "label twice", "truncated", "other question", "other nonce", "time", "signature", "no signature", "replay")


def mutate(exchange, other, kind, classes, seed=0, header=SIGNATURE):
    """A genuine exchange, changed in one way, so that it means something else.  Returns an exchange.

    other: another genuine exchange, whose headers and answer a "replay" takes.  kind: one of MUTATIONS.
    """
    check_choice(kind, "kind", MUTATIONS)
    (request, headers, answer), chance = exchange, random.Random(seed)
    said, asked, headers = json.loads(answer), json.loads(request), dict(headers)
    if kind == "label":
        answer = tamper(answer, classes)
    elif kind in ("number", "new name"):
        said["confidences" if kind == "number" else f"note {chance.random()}"] = [chance.random()]
        answer = json.dumps(said).encode()
    elif kind == "label twice":
        headers, answer = double_labels(classes)(request, headers, answer)
    elif kind == "truncated":
        answer = answer[:chance.randrange(len(answer))]
    elif kind == "other question":
        request = json.dumps({**asked, "images": json.loads(other[0])["images"]}).encode()
    elif kind == "other nonce":
        request = json.dumps({**asked, "nonce": chance.randbytes(16).hex()}).encode()
    elif kind == "time":
        headers[TIME] = f"{float(headers[TIME]) + chance.choice((-1, 1)) * chance.uniform(1, 1000):.3f}"
    elif kind == "signature":
        bits = bytearray.fromhex(headers[header])
        bits[chance.randrange(len(bits))] ^= 1 << chance.randrange(8)
        headers[header] = bits.hex()
    elif kind == "no signature":
        del headers[header]
    else:
        headers, answer = dict(other[1]), other[2]
    return request, headers, answer
