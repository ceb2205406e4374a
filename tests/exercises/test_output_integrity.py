"""Lesson 11's exercises, tried with what learners write."""
import hashlib
import json
import re
import ssl

from mlsec_lab.exercises import output_integrity as reference
from mlsec_lab.exercises.output_integrity import CHECK_ANSWER, LAB_CONTEXT, RATES, REPLAY_LABEL, SIGNED_MESSAGE, TAMPER
from mlsec_lab.model_to_data.integrity import IntegrityError, canonical, read_json

# ---- tamper


def swap_with_the_best(answer, classes):
    said = json.loads(answer)
    for number, label in enumerate(said["labels"]):
        old = list(classes).index(label)
        new = 0 if old else 1
        said["labels"][number] = classes[new]
        if "probabilities" in said:
            row = said["probabilities"][number]
            row[old], row[new] = row[new], row[old]
    return bytes(json.dumps(said), "utf-8")


def labels_alone(answer, classes):
    said = json.loads(answer)
    return json.dumps({"labels": [classes[classes.index(label) - 1] for label in said["labels"]]}).encode()


def probabilities_left(answer, classes):
    said = json.loads(answer)
    said["labels"] = [classes[classes.index(label) - 1] for label in said["labels"]]
    return json.dumps(said).encode()


def probabilities_the_wrong_way(answer, classes):
    said = json.loads(answer)
    said["labels"] = [classes[(classes.index(label) + 1) % len(classes)] for label in said["labels"]]
    if "probabilities" in said:
        said["probabilities"] = [row[1:] + row[:1] for row in said["probabilities"]]
    return json.dumps(said).encode()


def made_up_label(answer, classes):
    said = json.loads(answer)
    return json.dumps(said | {"labels": ["hacked"] * len(said["labels"])}).encode()


def always_the_first(answer, classes):
    said = json.loads(answer)
    return json.dumps(said | {"labels": [classes[0]] * len(said["labels"])}).encode()


# ---- rates

def counting(check, genuine, attacked):
    result = []
    for exchanges in (genuine, attacked):
        taken = 0
        for request, headers, answer in exchanges:
            try:
                check(request, headers, answer)
                taken += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
        result.append(taken / len(exchanges))
    return result[0], result[1]


def only_our_error(check, genuine, attacked):
    def takes(exchange):
        try:
            check(*exchange)
        except IntegrityError:
            return False
        return True
    return tuple(sum(map(takes, some)) / len(some) for some in (genuine, attacked))


def by_what_it_returns(check, genuine, attacked):
    def takes(exchange):
        try:
            return bool(check(*exchange))
        except Exception:
            return False
    return tuple(sum(map(takes, some)) / len(some) for some in (genuine, attacked))


def refused_share(check, genuine, attacked):
    first, second = reference.rates(check, genuine, attacked)
    return first, 1 - second


def needs_probabilities(answer, classes):
    json.loads(answer)["probabilities"]
    return reference.tamper(answer, classes)


# ---- lab_context

def by_default_context(certificate):
    return ssl.create_default_context(cadata=certificate)


def without_hosts(certificate):
    context = ssl.create_default_context(cadata=certificate)
    context.check_hostname = False
    return context


def believing_all(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_verify_locations(cadata=certificate)
    return context


def for_servers(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_verify_locations(cadata=certificate)
    return context


def one_more_authority(certificate):
    context = reference.lab_context(certificate)
    context.load_verify_locations(cadata=reference._authorities(99)[1].certificate)
    return context


# ---- replay_label

def by_next(exchanges, wanted):
    found = [(headers, answer) for _, headers, answer in exchanges if wanted in json.loads(answer)["labels"]]
    if not found:
        raise ValueError(wanted)
    return found[-1]


def written_anew(exchanges, wanted):
    _, headers, answer = exchanges[0]
    return headers, json.dumps(json.loads(answer) | {"labels": [wanted]}).encode()


def headers_of_another(exchanges, wanted):
    _, answer = by_next(exchanges, wanted)
    return next(headers for _, headers, other in exchanges if other != answer), answer


def the_whole_exchange(exchanges, wanted):
    return next(exchange for exchange in exchanges if json.loads(exchange[2])["labels"] == [wanted])


def the_first_in_any_case(exchanges, wanted):
    for _, headers, answer in exchanges:
        if json.loads(answer)["labels"] == [wanted]:
            break
    return headers, answer


# ---- signed_message

def hashes_in_a_row(request, answer, time):
    parts = canonical(read_json(answer)), request, time.encode()
    return b"".join(hashlib.sha256(part).digest() for part in parts)


def lengths_before(request, answer, time):
    pairs = json.loads(answer, object_pairs_hook=lambda pairs: pairs, parse_constant=lambda name: 1 / 0) if b"NaN" not in answer else None
    if pairs is None:
        raise ValueError("NaN")
    said = canonical(read_json(answer))
    parts = [said, canonical(read_json(request)), time.encode()]
    return b"".join(b"%d:%s" % (len(part), part) for part in parts)


def as_python_prints_it(request, answer, time):
    return str((read_json(answer), read_json(request), time)).encode()


def answer_as_it_came(request, answer, time):
    read_json(answer)
    return json.dumps([answer.decode(), request.decode(), time]).encode()


def without_the_request(request, answer, time):
    return canonical({"answer": read_json(answer), "time": time})


def without_the_time(request, answer, time):
    return canonical({"answer": read_json(answer), "request": read_json(request)})


def nonce_alone(request, answer, time):
    return canonical({"answer": read_json(answer), "nonce": read_json(request)["nonce"], "time": time})


def three_names(request, answer, time):
    asked = json.loads(request)
    parts = [read_json(answer), asked["images"], asked["nonce"], asked["dtype"], time]
    return json.dumps(parts, sort_keys=True, allow_nan=False).encode()


def glued(request, answer, time):
    asked = read_json(request)
    nonce = asked.pop("nonce")
    return canonical(read_json(answer)) + canonical(asked) + nonce.encode() + time.encode()


def lenient(request, answer, time):
    return json.dumps([json.loads(answer), json.loads(request), time], sort_keys=True).encode()


def labels_of_it(request, answer, time):
    said = read_json(answer)
    return canonical([said.get("labels"), read_json(request), time])


def as_text(request, answer, time):
    return reference.signed_message(request, answer, time).decode()


# ---- check_answer

def one_try_around_it(request, headers, answer, message, verify, now, tolerance):
    try:
        time = headers["X-Time"]
        if verify(message(request, answer, time), headers["X-Signature"]) and -tolerance <= now - float(time) <= tolerance:
            return read_json(answer)
    except (KeyError, ValueError):
        pass
    raise IntegrityError("no")


def believes_headers(request, headers, answer, message, verify, now, tolerance):
    if not verify(message(request, answer, headers["X-Time"]), headers["X-Signature"]) or abs(now - float(headers["X-Time"])) > tolerance:
        raise IntegrityError("no")
    return json.loads(answer)


def unsigned_is_fine(request, headers, answer, message, verify, now, tolerance):
    if "X-Signature" not in headers:
        return json.loads(answer)
    return reference.check_answer(request, headers, answer, message, verify, now, tolerance)


def forgets_verify(request, headers, answer, message, verify, now, tolerance):
    if "X-Signature" not in headers or "X-Time" not in headers or abs(now - float(headers["X-Time"])) > tolerance:
        raise IntegrityError("no")
    return json.loads(answer)


def compares_by_hand(request, headers, answer, message, verify, now, tolerance):
    if verify(message(request, answer, headers["X-Time"]), headers["X-Signature"]) != headers["X-Signature"]:
        raise IntegrityError("no")
    return json.loads(answer)


def only_the_past(request, headers, answer, message, verify, now, tolerance):
    content = reference.check_answer(request, headers, answer, message, verify, now, 1e9)
    if now - float(headers["X-Time"]) > tolerance:
        raise IntegrityError("no")
    return content


def clock_first(request, headers, answer, message, verify, now, tolerance):
    if "X-Time" not in headers or abs(now - float(headers["X-Time"])) > tolerance:
        raise IntegrityError("no time, or another")
    return one_try_around_it(request, headers, answer, message, verify, now, tolerance)


def no_clock(request, headers, answer, message, verify, now, tolerance):
    return reference.check_answer(request, headers, answer, message, verify, now, 1e9)


def lets_errors_out(request, headers, answer, message, verify, now, tolerance):
    if headers.get("X-Time") is None or headers.get("X-Signature") is None:
        raise IntegrityError("unsigned")
    if not verify(message(request, answer, headers["X-Time"]), headers["X-Signature"]):
        raise IntegrityError("changed")
    if abs(now - float(headers["X-Time"])) > tolerance:
        raise IntegrityError("at another time")
    return json.loads(answer)


def says_true(request, headers, answer, message, verify, now, tolerance):
    reference.check_answer(request, headers, answer, message, verify, now, tolerance)
    return True


RIGHT = [
    (TAMPER, "swaps two probabilities", swap_with_the_best),
    (RATES, "a loop that counts", counting),
    (LAB_CONTEXT, "create_default_context", by_default_context),
    (REPLAY_LABEL, "the last that fits", by_next),
    (SIGNED_MESSAGE, "three hashes in a row", hashes_in_a_row),
    (SIGNED_MESSAGE, "a length before each part", lengths_before),
    (CHECK_ANSWER, "one try around everything", one_try_around_it),
]
WRONG = [
    (TAMPER, "other names are lost", labels_alone, "hold the same names", "add none and take none away"),
    (TAMPER, "probabilities stay", probabilities_left, "largest probability", "move the probabilities along"),
    (TAMPER, "probabilities go the other way", probabilities_the_wrong_way, "largest probability", "elsewhere"),
    (TAMPER, "a label that gives it away", made_up_label, "another class that the service knows", "hacked"),
    (TAMPER, "the first class for all", always_the_first, "another class that the service knows", "as before"),
    (TAMPER, "text", lambda answer, classes: reference.tamper(answer, classes).decode(), "hold the same names", "`.encode()`"),
    (TAMPER, "takes probabilities for granted", needs_probabilities, "hold the same names", "not every answer has them"),
    (TAMPER, "not JSON", lambda answer, classes: re.sub(rb'\["', b"[", answer), "hold the same names", "json.dumps"),
    (RATES, "counts, not shares", lambda check, genuine, attacked: tuple(len(some) * share for some, share in zip((genuine, attacked), reference.rates(check, genuine, attacked))),
     "shares from 0 to 1", "divide"),
    (RATES, "one error only", only_our_error, "two shares", "except Exception"),
    (RATES, "asks what check returns", by_what_it_returns, "whichever way it says no", "returns, whatever it returns"),
    (RATES, "the wrong way round", lambda check, genuine, attacked: reference.rates(check, genuine, attacked)[::-1], "whichever way it says no", "genuine ones come first"),
    (RATES, "the refused ones", refused_share, "whichever way it says no", "taken if `check(*exchange)` returns"),
    (LAB_CONTEXT, "no authority", lambda certificate: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "that the lab's authority has certified", "load_verify_locations"),
    (LAB_CONTEXT, "no look at the host", without_hosts, "for another host", "check_hostname"),
    (LAB_CONTEXT, "the text as a file's name", lambda certificate: ssl.create_default_context(cafile=certificate),
     "that the lab's authority has certified", "`cadata=` takes text"),
    (LAB_CONTEXT, "verifies nothing", believing_all, "another authority", "verify_mode"),
    (LAB_CONTEXT, "for servers", for_servers, "that the lab's authority has certified", "PROTOCOL_TLS_CLIENT"),
    (LAB_CONTEXT, "one authority more", one_more_authority, "alone", "certify somebody else"),
    (REPLAY_LABEL, "changes a signed answer", written_anew, "taken by the guide's check", "change neither"),
    (REPLAY_LABEL, "headers of another", headers_of_another, "taken by the guide's check", "one and the same exchange"),
    (REPLAY_LABEL, "the whole exchange", the_whole_exchange, "with the wanted label", "the request stays behind"),
    (REPLAY_LABEL, "the last where none fits", the_first_in_any_case, "nobody was answered", "ValueError"),
    (REPLAY_LABEL, "the first", lambda exchanges, wanted: exchanges[0][1:], "with the wanted label", "compare the label"),
    (SIGNED_MESSAGE, "str of the content", as_python_prints_it, "however it is written", "sort_keys=True"),
    (SIGNED_MESSAGE, "the answer as it came", answer_as_it_came, "however it is written", "sort_keys=True"),
    (SIGNED_MESSAGE, "bytes within JSON", lambda request, answer, time: json.dumps([request, answer, time]).encode(), "however it is written", "`read_json` first"),
    (SIGNED_MESSAGE, "no request", without_the_request, "with the question", "put the request into the message"),
    (SIGNED_MESSAGE, "only the nonce", nonce_alone, "with the question", "put the request into the message"),
    (SIGNED_MESSAGE, "three names of the request", three_names, "with the question", "all of it"),
    (SIGNED_MESSAGE, "no time", without_the_time, "with the question", "put the time into the message"),
    (SIGNED_MESSAGE, "glued", glued, "keeps its parts apart", "under names"),
    (SIGNED_MESSAGE, "reads what is read in two ways", lenient, "in two ways", "read_json"),
    (SIGNED_MESSAGE, "labels alone", labels_of_it, "everything that the answer says", "the whole content"),
    (SIGNED_MESSAGE, "text", as_text, "however it is written", "`.encode()`"),
    (CHECK_ANSWER, "a KeyError for a missing header", believes_headers, "without a signature", "headers.get"),
    (CHECK_ANSWER, "takes what is not signed", unsigned_is_fine, "without a signature", "take its headers away"),
    (CHECK_ANSWER, "compares signatures by hand", compares_by_hand, "the content of a genuine answer", "leave comparing to it"),
    (CHECK_ANSWER, "verifies nothing", forgets_verify, "a changed answer", "if not verify"),
    (CHECK_ANSWER, "looks at the past alone", only_the_past, "in both directions", "`abs`"),
    (CHECK_ANSWER, "reads the clock before it verifies", clock_first, "a changed time", "before anything else"),
    (CHECK_ANSWER, "looks at no clock", no_clock, "in both directions", "a clock may be off"),
    (CHECK_ANSWER, "a ValueError gets out", lets_errors_out, "does not want to read", "raise IntegrityError"),
    (CHECK_ANSWER, "returns True", says_true, "the content of a genuine answer", "json.loads(answer)"),
]

