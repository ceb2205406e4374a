"""What can be done to an answer, and which check notices."""
import copy
import json
import random

import pytest

from mlsec_lab.model_to_data import integrity
from mlsec_lab.model_to_data.integrity import IntegrityError
from mlsec_lab.victims.clock import Clock

CLASSES = ("stop", "yield", "no entry", "priority")
SECRET = b"0123456789abcdef0123456789abcdef"


def exchange(seed=0, *, sign=None, label=None):
    """A genuine exchange, signed by `sign` if there is one."""
    chance = random.Random(seed)
    request = json.dumps({"shape": [1, 3, 32, 32], "images": chance.randbytes(30).hex(), "nonce": chance.randbytes(16).hex()}).encode()
    answer = json.dumps({"labels": [label or chance.choice(CLASSES)], "confidences": [chance.random()]}).encode()
    return request, sign(request, answer) if sign else {}, answer


def both(clock=None):
    """(signer, check) by HMAC and by Ed25519."""
    clock = clock or Clock()
    sign, verify = integrity.hmac_sha256(SECRET)
    alone, public = integrity.ed25519(SECRET)
    return [(integrity.signer(sign, clock), integrity.checker(verify, clock)), (integrity.signer(alone, clock), integrity.checker(integrity.ed25519_verifier(public), clock))]


def refusal(check, some):
    with pytest.raises(IntegrityError) as caught:
        check(*some)
    return str(caught.value)


# ---- attacks

def test_tampering_changes_every_label_and_nothing_that_a_client_could_compare():
    said = {"labels": ["stop", "priority"], "probabilities": [[0.7, 0.1, 0.1, 0.1], [0.0, 0.2, 0.2, 0.6]]}
    after = json.loads(integrity.tamper(json.dumps(said).encode(), CLASSES))
    assert after["labels"] == ["yield", "stop"]
    assert [CLASSES[row.index(max(row))] for row in after["probabilities"]] == after["labels"]
    assert sorted(after["probabilities"][0]) == sorted(said["probabilities"][0])
    about = json.dumps({"classes": list(CLASSES)}).encode()
    assert integrity.tamper(about, CLASSES) == about


def test_attacks_leave_the_exchange_that_they_are_given_alone():
    kept = exchange(1, sign=integrity.guide_signer(SECRET))
    for attack in (integrity.flip(CLASSES), integrity.strip(CLASSES), integrity.double_labels(CLASSES), integrity.replay(exchange(2)),
                   integrity.sign_again(CLASSES, integrity.guide_signer(SECRET)), integrity.rename(CLASSES)):
        some = copy.deepcopy(kept)
        attack(*some)
        assert some == kept


def test_a_replay_leaves_the_description_of_the_service_alone():
    rewrite = integrity.replay(exchange(1))
    assert rewrite(b"", {"A": "1"}, b"{}") == ({"A": "1"}, b"{}")
    assert rewrite(b"?", {"A": "1"}, b"{}") == exchange(1)[1:]


def test_a_double_question_is_read_one_way_by_a_cache_and_another_by_the_service():
    from mlsec_lab.victims.proxy_process import cache_key
    victim, attacker = exchange(1)[0], exchange(2)[0]
    request = integrity.double_question(victim, attacker)
    assert cache_key("/predict", request) == cache_key("/predict", victim) != cache_key("/predict", attacker)
    assert json.loads(request)["images"] == json.loads(attacker)["images"]
    with pytest.raises(ValueError, match="a name stands twice"):
        integrity.read_json(request)


# ---- the guide

def test_the_guides_check_takes_genuine_answers_and_notices_a_changed_label():
    sign, check = integrity.guide_signer(SECRET), integrity.guide_check(SECRET, CLASSES)
    for seed in range(5):
        request, headers, answer = exchange(seed, sign=sign)
        assert check(request, headers, answer) == json.loads(answer)
        assert "does not belong" in refusal(check, (request, headers, integrity.tamper(answer, CLASSES)))


def test_the_guides_signature_holds_for_every_question_at_every_time():
    sign, check = integrity.guide_signer(SECRET), integrity.guide_check(SECRET, CLASSES)
    _, headers, answer = exchange(1, sign=sign)
    assert check(exchange(2)[0], headers, answer) == json.loads(answer)


def test_the_guides_check_refuses_a_genuine_answer_whose_names_came_in_another_order():
    request, headers, answer = exchange(1, sign=integrity.guide_signer(SECRET))
    sorted_names = json.dumps(json.loads(answer), sort_keys=True).encode()
    assert json.loads(sorted_names) == json.loads(answer)
    refusal(integrity.guide_check(SECRET, CLASSES), (request, headers, sorted_names))


def test_the_guides_check_takes_an_answer_that_others_read_differently():
    request, headers, answer = exchange(1, sign=integrity.guide_signer(SECRET), label="stop")
    _, double = integrity.double_labels(CLASSES)(request, headers, answer)
    assert integrity.guide_check(SECRET, CLASSES)(request, headers, double)["labels"] == ["stop"]
    first_wins = json.loads(double, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert first_wins["labels"] == ["yield"]


def test_the_guides_check_breaks_where_the_signature_is_missing_or_not_ascii():
    request, headers, answer = exchange(1)
    for headers in ({}, {"X-Signature": "é"}):
        with pytest.raises(TypeError):
            integrity.guide_check(SECRET, CLASSES)(request, headers, answer)


def test_a_label_list_stops_what_is_no_label_and_lets_every_label_through():
    check = integrity.whitelist(CLASSES)
    request, headers, answer = exchange(1)
    assert check(request, headers, integrity.tamper(answer, CLASSES))["labels"] != json.loads(answer)["labels"]
    assert "'hacked' is no label" in refusal(check, (request, headers, b'{"labels": ["hacked"]}'))


# ---- bound signatures

def test_of_genuine_answers_all_are_taken_and_of_changed_and_replayed_ones_none():
    for sign, check in both():
        genuine = [exchange(seed, sign=sign) for seed in range(220)]
        attacked = [integrity.mutate(one, genuine[place - 1], integrity.MUTATIONS[place % len(integrity.MUTATIONS)], CLASSES, seed=place)
                    for place, one in enumerate(genuine)]
        assert all(old != new for old, new in zip(genuine, attacked))
        assert integrity.rates(check, genuine, attacked) == (1, 0)


def test_every_single_bit_of_a_signature_counts():
    for sign, check in both():
        request, headers, answer = exchange(3, sign=sign)
        signature = bytearray.fromhex(headers["X-Signature"])
        for place in range(len(signature)):
            for bit in range(8):
                changed = bytearray(signature)
                changed[place] ^= 1 << bit
                assert not integrity.accepts(check, (request, headers | {"X-Signature": changed.hex()}, answer))


def test_an_answer_that_was_written_anew_on_its_way_is_still_taken():
    for sign, check in both():
        request, headers, answer = exchange(1, sign=sign)
        for written in (json.dumps(json.loads(answer), indent=1), json.dumps(json.loads(answer), sort_keys=True)):
            assert check(request, headers, written.encode()) == json.loads(answer)


def test_the_clocks_may_be_apart_by_the_tolerance_and_the_sentence_says_how_far_they_are():
    there, here = Clock(), Clock()
    there.advance(minutes=10)
    here.advance(minutes=10)
    sign, verify = integrity.hmac_sha256(SECRET)
    some = exchange(1, sign=integrity.signer(sign, there))
    check = integrity.checker(verify, here, tolerance=30)
    assert check(*some)
    here.advance(seconds=30)
    assert check(*some)
    here.advance(seconds=1)
    assert "signed 31 s ago, and 30 s are allowed" in refusal(check, some)
    behind = integrity.checker(verify, Clock(), tolerance=30)
    assert "600 s ahead of this clock" in refusal(behind, some) and "one of the two clocks is off" in refusal(behind, some)
    assert integrity.checker(verify, Clock(), tolerance=None)(*some)


@pytest.mark.parametrize("bind, another_question, another_nonce, an_hour_later", [
    ((), True, True, True), (("question",), False, True, True), (("nonce",), False, False, True), (("time",), True, True, False),
    (("question", "time"), False, True, False), (integrity.BOUND, False, False, False)])
def test_each_part_that_is_bound_stops_its_own_replay(bind, another_question, another_nonce, an_hour_later):
    clock = Clock()
    sign, verify = integrity.hmac_sha256(SECRET)

    def message(request, answer, time):
        return integrity.signed_message(request, answer, time, bind)

    request, headers, answer = exchange(1, sign=integrity.signer(sign, clock, message=message))
    check = integrity.checker(verify, clock, 30 if "time" in bind else None, message=message)
    asked = json.loads(request)
    assert integrity.accepts(check, (request, headers, answer))
    assert integrity.accepts(check, (exchange(2)[0], headers, answer)) == another_question
    assert integrity.accepts(check, (json.dumps(asked | {"nonce": "0"}).encode(), headers, answer)) == another_nonce
    clock.advance(hours=1)
    assert integrity.accepts(check, (request, headers, answer)) == an_hour_later


def test_whoever_verifies_by_hmac_can_forge_and_by_ed25519_cannot():
    clock = Clock()
    (sign, check), (_, alone) = both(clock)
    request, _, answer = exchange(1)
    forged = integrity.sign_again(CLASSES, sign)(request, {}, answer)
    assert check(request, *forged)["labels"] != json.loads(answer)["labels"]
    assert not integrity.accepts(alone, (request, *forged))
    _, public = integrity.ed25519(SECRET)
    by_public, _ = integrity.ed25519(public)  # the public key in place of the private one
    assert not integrity.accepts(alone, (request, *integrity.sign_again(CLASSES, integrity.signer(by_public, clock))(request, {}, answer)))
    by_hmac, _ = integrity.hmac_sha256(public)  # the public key in place of a secret: what a check takes that believes a header about the method
    forged = integrity.sign_again(CLASSES, integrity.signer(by_hmac, clock))(request, {}, answer)
    assert not integrity.accepts(alone, (request, *forged))
    assert integrity.accepts(integrity.checker(integrity.hmac_sha256(public)[1], clock), (request, *forged))


def test_what_is_missing_or_cannot_be_read_is_refused_in_words():
    for sign, check in both():
        request, headers, answer = exchange(1, sign=sign)
        assert "no signature or no time" in refusal(check, (request, {}, answer))
        assert "no signature or no time" in refusal(check, (request, {"X-Signature": headers["X-Signature"]}, answer))
        assert "cannot be read" in refusal(check, (request, headers, answer[:-3]))
        assert "a name stands twice" in refusal(check, (request, headers, b'{"labels": 1, "labels": 2}'))
        assert "cannot be read" in refusal(check, (request, headers | {"X-Time": "soon"}, answer))
        assert "does not belong" in refusal(check, (request, headers | {"X-Signature": "é"}, answer))
        for odd in (b"", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"a": 1e999}'):
            assert not integrity.accepts(check, (request, headers, odd))


def test_what_can_be_read_in_two_ways_is_never_signed():
    for sign, _ in both():
        assert sign(integrity.double_question(exchange(1)[0], exchange(2)[0]), exchange(1)[2]) == {}
        assert sign(b"", b"{}") == {}
        assert set(sign(*exchange(1)[::2])) == {"X-Signature", "X-Time"}


def test_the_canonical_form_is_one_for_each_content():
    assert integrity.canonical({"b": [1.5, True], "a": "é"}) == b'{"a":"\\u00e9","b":[1.5,true]}'
    assert integrity.canonical(integrity.read_json(' {"b":[1.50, true ],\n"a":"\\u00e9"}')) == integrity.canonical({"b": [1.5, True], "a": "é"})
    assert integrity.canonical(1) != integrity.canonical(1.0), "RFC 8785 would write both alike"
    with pytest.raises(ValueError):
        integrity.canonical(float("nan"))


# ---- keys and measures

@pytest.mark.parametrize("call, words", [
    (lambda: integrity.hmac_sha256(None), "secret must be at least 16 bytes, not nothing"), (lambda: integrity.hmac_sha256(b"short"), "not 5 bytes"),
    (lambda: integrity.guide_check("a text of many characters", CLASSES), "not str"), (lambda: integrity.guide_signer(None), "not nothing"),
    (lambda: integrity.ed25519(None), "private must be 32 random bytes, not nothing"), (lambda: integrity.ed25519(b"short"), "private must be 32"),
    (lambda: integrity.ed25519_verifier(None), "public must be the 32 bytes of a public key, not nothing"), (lambda: integrity.checker(None, Clock()), "is the key missing"),
    (lambda: integrity.checker(print, Clock(), -1), "tolerance must be at least 0"), (lambda: integrity.rates(print, [], [1]), "at least one exchange each"),
    (lambda: integrity.mutate(exchange(), exchange(1), "boil", CLASSES), "kind must be one of")])
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_rates_count_what_is_taken_of_either():
    def check(request, headers, answer):
        if b"stop" in answer:
            raise KeyError("no")

    some = [exchange(seed, label=label) for seed, label in enumerate(["stop", "yield", "yield", "yield"])]
    assert integrity.rates(check, some, some[:2]) == (0.75, 0.5)
    assert not integrity.accepts(check, some[0]) and integrity.accepts(check, some[1])
