"""Every attack against every protection, over real connections, on a few answers."""
import psutil
import pytest
import torch

from mlsec_lab.model_to_data import integrity
from mlsec_lab.model_to_data.integrity_lab import ATTACKS, PROTECTIONS, REFUSED, Lab, ask, ask_raw, question
from mlsec_lab.victims import predict, small_cnn
from mlsec_lab.victims.tls import client_context

CLASSES = ("ant", "bee", "cat")
N = 5


def images(n, seed=0):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def model():
    return small_cnn(channels=1, classes=3, size=8, width=2)


@pytest.fixture(scope="module")
def lab():
    with Lab(model(), images(N + 1), CLASSES, seed=3) as running:
        yield running
    assert not [child for child in psutil.Process().children() if "proxy_process" in " ".join(child.cmdline())]


# What gets through, in the order of PROTECTIONS.
TAKEN = {
    "nobody attacks": "1111111",
    "on the wire: labels flipped": "1100000",
    "on the wire: signature stripped": "1100000",
    "on the wire: old answer, new question": "1101000",
    "in the cache: labels flipped": "1110000",
    "in the cache: planted by a double key": "1111000",
    "in the cache: the answer of an hour ago": "1111000",
    "in the cache: signed with a client's key": "1111100",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_protection_stops_what_it_is_made_for_and_nothing_else(lab, attack):
    expected = {name: N * int(taken) for name, taken in zip(PROTECTIONS, TAKEN[attack])}
    assert lab.accepted(attack) == expected
    assert lab.accepted(attack) == expected, "one row leaves nothing behind for the next"


def test_a_client_that_goes_on_after_refusals_says_why_of_each(lab):
    x, context = images(3), client_context(lab.authority.certificate)
    lab.front.set(cache=False)
    lab.front.rewrite = lab.tls_front.rewrite = None
    lab.tls_front.set(cache=False)
    true = predict(model(), (x * 255).round() / 255).argmax(1)
    for url, secret in ((lab.front.url, None), (lab.tls_front.url, context)):
        taken, reasons = ask(url, x, CLASSES, context=secret)
        assert torch.equal(taken, true) and not reasons
    taken, reasons = ask(lab.forger.url, x, CLASSES, context=context)
    assert taken.tolist() == [REFUSED] * 3 and list(reasons.values()) == [3] and "does not know" in next(iter(reasons))
    lab.front.rewrite = integrity.flip(CLASSES)
    assert torch.equal(ask(lab.front.url, x, CLASSES)[0], (true + 1) % 3)
    taken, reasons = ask(lab.front.url, x, CLASSES, check=lab.checks["bound HMAC"])
    assert taken.tolist() == [REFUSED] * 3 and "does not belong" in next(iter(reasons))


def test_a_service_that_names_other_classes_is_not_believed(lab):
    lab.front.set(cache=False)
    lab.front.rewrite = integrity.rename(CLASSES)
    try:
        taken, reasons = ask(lab.front.url, images(2), CLASSES, check=lab.checks["bound Ed25519"])
    finally:
        lab.front.rewrite = None
    assert taken.tolist() == [REFUSED] * 2 and "names other classes" in next(iter(reasons))


def test_a_body_can_be_posted_as_it_is(lab):
    lab.front.set(cache=False)
    lab.front.rewrite = None
    status, headers, answer = ask_raw(lab.front.url, question(images(1)))
    assert status == 200 and "X-Guide" in headers and b"labels" in answer
    assert ask_raw(lab.front.url, b"{}")[0] == 400
    with pytest.raises(ConnectionError):
        ask_raw(lab.tls_front.url, b"{}", client_context(integrity_authority()))


def integrity_authority():
    from mlsec_lab.victims.tls import LabCA
    return LabCA().certificate


@pytest.mark.parametrize("call, words", [(lambda: Lab(model(), images(1), CLASSES), "at least 2 images"), (lambda: Lab(model(), images(3)[0], CLASSES), "shape")])
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_an_attack_that_nobody_knows_is_named(lab):
    with pytest.raises(ValueError, match="attack must be one of"):
        lab.accepted("by magic")


def test_the_table_holds_every_attack_against_every_protection():
    with Lab(model(), images(2), CLASSES) as lab:
        table = lab.table(progress=False)
    assert list(table) == list(ATTACKS) and all(tuple(row) == PROTECTIONS for row in table.values())
    assert {attack: [row[name] for name in PROTECTIONS] for attack, row in table.items()} == {attack: [int(taken) for taken in row] for attack, row in TAKEN.items()}
