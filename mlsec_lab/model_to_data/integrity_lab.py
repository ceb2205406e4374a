"""Every attack on an answer against every protection, over real connections: a service, what stands before it, and those between.

    with Lab(model, x, classes) as lab:
        lab.accepted("on the wire: labels flipped")      # {"nothing": 1000, "TLS": 0, …} of as many answers
"""
import contextlib
import http.client
import json
import random
from collections import Counter
from urllib.parse import urlsplit

import torch
from tqdm.auto import tqdm

from mlsec_lab.model_to_data.integrity import (IntegrityError, accepts, checker, double_question, ed25519, ed25519_verifier, flip, guide_check,
                                               guide_signer, hmac_sha256, replay, sign_again, signer, strip, whitelist)
from mlsec_lab.victims.client import RateLimited, RemoteModel, ServiceError, in_json
from mlsec_lab.victims.clock import Clock
from mlsec_lab.victims.inputs import check_choice, check_images
from mlsec_lab.victims.proxy import Proxy
from mlsec_lab.victims.service import serve
from mlsec_lab.victims.tls import LabCA, client_context, explain

REFUSED = -1  # what `ask` gives in place of a class for an answer that was not taken
PROTECTIONS = ("nothing", "label whitelist", "TLS", "the guide's HMAC", "bound HMAC", "bound Ed25519", "TLS and Ed25519")
ATTACKS = {  # what is done first, and then to each answer, by a function of the Lab
    "nobody attacks": ("", None),
    "on the wire: labels flipped": ("", lambda lab: flip(lab.classes)),
    "on the wire: signature stripped": ("", lambda lab: strip(lab.classes)),
    "on the wire: old answer, new question": ("keep one", lambda lab: replay(lab.kept)),
    "in the cache: labels flipped": ("", lambda lab: flip(lab.classes)),
    "in the cache: planted by a double key": ("plant", None),
    "in the cache: the answer of an hour ago": ("wait", None),
    "in the cache: signed with a client's key": ("", lambda lab: sign_again(lab.classes, *lab.signers[:2])),
}


def ask(url, x, classes, *, check=None, context=None, key=None, progress=True):
    """Ask about each image in a request of its own, as a client that goes on after a refusal.

    x: [N, C, H, W].  classes: the names this client expects of the service, in their order; it takes nothing from one that names others.
    check, context, key: as of RemoteModel.
    Returns (int64 [N], the class that was taken or REFUSED; Counter of why not).
    """
    check_images(x)
    taken, reasons, client = torch.full((len(x),), REFUSED), Counter(), None
    for place, image in enumerate(tqdm(x.split(1), desc="asking", unit="answer", delay=1, leave=False, disable=not progress)):
        try:
            client = client or RemoteModel(url, key, batch=1, dtype="uint8", check=check, context=context)
            if client.classes != tuple(classes):
                raise IntegrityError("the service names other classes, or another order, than are known here")
            taken[place] = client(image).argmax()
        except RateLimited:
            raise
        except (ConnectionError, ServiceError, IntegrityError) as error:
            reasons[explain(error)] += 1
            client = client if isinstance(error, IntegrityError) else None
    return taken, reasons


class Lab:
    """A service that signs in three ways, and the proxies before it.

    x: [N, C, H, W]; the answer about the last one is what gets replayed, N - 1 are asked about.  seed: of all keys.
    .clock: of service and clients, to move by hand.  .service, .front (plain), .tls_front, .forger (TLS with a certificate of its own).
    """

    def __init__(self, model, x, classes, *, seed=0):
        check_images(x)
        if len(x) < 2:
            raise ValueError(f"x must hold at least 2 images, not {len(x)}: one to be replayed, the others to ask about")
        chance = random.Random(seed)
        guide, secret, private = (chance.randbytes(32) for _ in range(3))
        (sign, verify), (sign_alone, public) = hmac_sha256(secret), ed25519(private)
        self.clock, self.classes, self.x, self.authority = Clock(), tuple(classes), x, LabCA()
        self.signers = guide_signer(guide, "X-Guide"), signer(sign, self.clock, header="X-Hmac"), signer(sign_alone, self.clock, header="X-Ed25519")
        alone = checker(ed25519_verifier(public), self.clock, header="X-Ed25519")
        self.checks = {"nothing": lambda *exchange: None, "label whitelist": whitelist(self.classes),
                       "the guide's HMAC": guide_check(guide, self.classes, "X-Guide"), "bound HMAC": checker(verify, self.clock, header="X-Hmac"), "bound Ed25519": alone}
        self.secret_checks = {"TLS": self.checks["nothing"], "TLS and Ed25519": alone}
        self.service = serve(model, self.classes, shape=tuple(x.shape[1:]), mode="top1", confidence=True, clock=self.clock, sign=self._sign)

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.service)
            self.front = stack.enter_context(Proxy(self.service.url))
            self.tls_front = stack.enter_context(Proxy(self.service.url, certificate=self.authority.issue()))
            self.forger = stack.enter_context(Proxy(self.tls_front.url, certificate=LabCA().issue()))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def accepted(self, attack):
        """{protection: how many of the answers it takes} under one of ATTACKS."""
        check_choice(attack, "attack", tuple(ATTACKS))
        context = client_context(self.authority.certificate)
        plain = self._count(attack, self.front, self.front, None, self.checks)
        secret = self._count(attack, self.tls_front, self.forger if attack.startswith("on the wire") else self.tls_front, context, self.secret_checks)
        return {name: {**plain, **secret}[name] for name in PROTECTIONS}

    def table(self, progress=True):
        """{attack: {protection: how many answers it takes}} of all ATTACKS."""
        return {attack: self.accepted(attack) for attack in tqdm(ATTACKS, desc="attacking", unit="row", delay=1, leave=False, disable=not progress)}

    def _sign(self, request, answer):
        return {name: value for sign in self.signers for name, value in sign(request, answer).items()}

    def _count(self, attack, front, box, context, checks):
        """How many answers each of `checks` takes that came through `box`, behind which `front` is the service's own."""
        first, rewrite = ATTACKS[attack]
        front.rewrite = box.rewrite = None
        front.set(cache=attack.startswith("in the cache"))
        if first == "wait":
            self._each(front.url, self.x[:-1], context, {})
            self.clock.advance(hours=1)
        elif first:
            self._each(front.url, self.x[-1:], context, {})
            self.kept = front.seen[-1]
        if first == "plant":
            for image in self.x[:-1].split(1):
                ask_raw(front.url, double_question(question(image), self.kept[0]), context)
        box.rewrite = rewrite and rewrite(self)
        return self._each(box.url, self.x[:-1], context, checks)

    def _each(self, url, x, context, checks):
        taken = Counter(dict.fromkeys(checks, 0))

        def look(*exchange):
            taken.update(name for name, check in checks.items() if accepts(check, exchange))

        ask(url, x, self.classes, check=look, context=context, progress=False)
        return dict(taken)


def question(x):
    """The body of a request about images, without a nonce.  bytes."""
    return json.dumps(in_json(x, "uint8")).encode()


def ask_raw(url, request, context=None):
    """Post a body as it is to a service: (status, headers, answer).  ConnectionError where none answers."""
    address = urlsplit(url)
    secret = {"context": context} if address.scheme == "https" else {}
    kind = http.client.HTTPSConnection if secret else http.client.HTTPConnection
    with contextlib.closing(kind(address.hostname, address.port, timeout=30, **secret)) as connection:
        try:
            connection.request("POST", "/predict", request, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(explain(error)) from error
