"""The service: what it tells, whom it lets in, what it counts, what it remembers, and that nothing of it stays behind."""
import base64
import contextlib
import gc
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pandas as pd
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlsec_lab.data_to_model.evasion import decision_based
from mlsec_lab.victims import LabelOnly, accuracy, load_data, load_model, predict, small_cnn
from mlsec_lab.victims.audit_log import key_id
from mlsec_lab.victims.client import RateLimited, RemoteModel, ServiceError
from mlsec_lab.victims.clock import Clock
from mlsec_lab.victims.http_server import HttpServer
from mlsec_lab.victims.rate_limit import MovingWindow
from mlsec_lab.victims.service import serve

CLASSES = ("ant", "bee", "cat")
SHAPE = (1, 8, 8)


def small(seed=0):
    return small_cnn(channels=1, classes=3, size=8, width=2, seed=seed)


def images(n, seed=0):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def serving(model=None, **options):
    return serve(model or small(), CLASSES, shape=SHAPE, **options)


def question(x=None, **changes):
    x = images(1) if x is None else x
    asked = {"shape": list(x.shape), "dtype": "float32", "images": base64.b64encode(x.numpy()).decode(), **changes}
    return json.dumps({name: value for name, value in asked.items() if value is not None}).encode()


def send(service, body=b"", method="POST", path="/predict", headers=None):
    """One request over a connection of its own: (status, headers, what the JSON says)."""
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())
    finally:
        connection.close()


def talk(service, text):
    """Whatever comes back for some bytes, until the service closes the connection."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(text)
        received = b""
        with contextlib.suppress(ConnectionResetError):  # by a service that has not read all of it
            while part := connection.recv(65536):
                received += part
        return received


def together(n, function):
    """function(0), …, function(n - 1), each in a thread of its own; an error in one of them is raised here."""
    errors = []

    def run(number):
        try:
            start.wait(20)
            function(number)
        except BaseException as error:
            errors.append(error)

    start = threading.Barrier(n)
    threads = [threading.Thread(target=run, args=(number,)) for number in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


class Broken(nn.Module):
    """Works when it is looked at first, never after."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, x):
        self.asked += 1
        if self.asked > 1:
            raise ZeroDivisionError("a secret of the inside")
        return torch.zeros(len(x), 3)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No test leaves a thread or an open file behind."""
    def open_files():
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    before, files = set(threading.enumerate()), open_files()
    yield
    until = time.monotonic() + 5
    while time.monotonic() < until and (set(threading.enumerate()) - before or open_files() > files):
        time.sleep(0.05)
        gc.collect()
    assert set(threading.enumerate()) <= before
    assert open_files() <= files


# ---- what is answered

def test_all_probabilities_are_as_good_as_the_model_itself():
    model, x = load_model("signs_cnn"), load_data("signs", "test", n=80)[0]
    with serve(model, load_data("signs", "test", n=1)[2]) as service:
        remote = RemoteModel(service.url)
        scores = remote(x)
    expected = predict(model, x).log_softmax(1)
    assert scores.shape == (80, 12) and scores.dtype == torch.float32 and not scores.requires_grad and not remote.training
    assert torch.allclose(scores, expected, atol=1e-4) and torch.equal(scores.argmax(1), expected.argmax(1))
    assert remote.queries == 80


def test_rounding_leaves_the_digits_that_were_asked_for_and_the_label():
    x = images(40)
    with serving(mode="rounded", digits=1) as service:
        said = send(service, question(x))[2]
        scores = RemoteModel(service.url)(x)
    assert all(round(value, 1) == value for row in said["probabilities"] for value in row)
    exact = predict(small(), x)
    assert said["labels"] == [CLASSES[label] for label in exact.argmax(1).tolist()]
    assert torch.equal(scores.argmax(1), exact.argmax(1)), "where rounding made a tie, the label says which class won"
    assert (scores.exp() - exact.softmax(1)).abs().max() < 0.052 and not torch.allclose(scores.exp(), exact.softmax(1), atol=0.01)


def test_top1_tells_the_label_and_nothing_else():
    x = images(20)
    with serving(mode="top1") as service:
        status, _, said = send(service, question(x))
        scores = RemoteModel(service.url)(x)
    assert status == 200 and set(said) == {"labels"}
    assert torch.equal(scores, LabelOnly(small())(x))


def test_top1_with_confidence_tells_one_probability():
    x = images(20)
    with serving(mode="top1", confidence=True) as service:
        said = send(service, question(x))[2]
        scores = RemoteModel(service.url)(x)
    best, label = predict(small(), x).softmax(1).max(1)
    assert set(said) == {"labels", "confidences"} and torch.allclose(torch.tensor(said["confidences"]), best, atol=1e-6)
    assert torch.allclose(scores.exp().sum(1), torch.ones(20), atol=1e-5) and torch.equal(scores.argmax(1), label)
    assert torch.allclose(scores.exp().gather(1, label[:, None])[:, 0], best, atol=1e-5)
    assert torch.allclose(scores.sort(1).values[:, 0], scores.sort(1).values[:, 1]), "the rest is shared equally"


@pytest.mark.parametrize("mode", ["probabilities", "top1"])
def test_an_attack_that_only_asks_runs_alike_on_either(mode):
    model, (x, _, classes) = load_model("signs_cnn"), load_data("signs", "test", n=3)
    y = predict(model, x).argmax(1)
    with serve(model, classes, mode=mode) as service:
        remote = RemoteModel(service.url)
        there = decision_based(remote, x, y, method="boundary", steps=10, seed=1)
        assert accuracy(remote, x, y) == 1 and accuracy(remote, there, y) == 0
    here = decision_based(model, x, y, method="boundary", steps=10, seed=1)
    assert torch.allclose(there, here, atol=1e-6) and not torch.allclose(here, x)
    assert remote.queries > 3 * 10
    remote.close()  # foolbox holds on to the first model that it is given


def test_large_batches_are_split_and_come_back_in_order():
    x = images(50)
    with serving(batch=16) as service:
        remote, finer = RemoteModel(service.url, batch=1000), RemoteModel(service.url, batch=20 - 13)
        assert torch.allclose(remote(x), predict(small(), x).log_softmax(1), atol=1e-5) and torch.equal(finer(x), finer(x))
        assert [record.images for record in service.log if record.images] == [16, 16, 16, 2] + 2 * (7 * [7] + [1])
        assert remote(x[:0]).shape == (0, 3) and len(service.log) == 2 + 4 + 16 and remote.queries == 50


def test_float32_travels_exactly_and_uint8_in_256_steps():
    seen = []
    with serving(monitor=lambda key, x: seen.append(x.clone())) as service:
        x = images(3)
        RemoteModel(service.url)(x)
        RemoteModel(service.url, dtype="uint8")(x)
    assert torch.equal(seen[0], x)
    assert torch.equal(seen[1], (x * 255).round() / 255) and 0 < (seen[1] - x).abs().max() <= 0.5 / 255 + 1e-6


def test_what_is_served_is_a_copy_that_training_does_not_change():
    model, x = small().train(), images(5)
    before = [parameter.requires_grad for parameter in model.parameters()]
    with serving(model) as service:
        remote = RemoteModel(service.url)
        answer = remote(x)
        with torch.no_grad():
            model[-1].bias += 5 * torch.arange(3)
        assert torch.equal(remote(x), answer)
    assert model.training and before == [parameter.requires_grad for parameter in model.parameters()]


# ---- limits

@pytest.mark.parametrize("batch", [1, 3])
def test_no_image_above_the_limit_is_answered_to_eight_clients_at_once(batch):
    with serving(limit="50/hour", keys=["k"], clock=Clock()) as service:
        statuses = []

        def ask(number):
            statuses.extend(send(service, question(images(batch, seed=number)), headers={"X-API-Key": "k"})[0] for _ in range(10))

        together(8, ask)
        answered = sum(record.images for record in service.log if record.status == 200)
        assert statuses.count(200) == 50 // batch and statuses.count(429) == 80 - 50 // batch
        assert answered == 50 // batch * batch and len(service.log) == 80


def test_the_limit_is_exact_where_the_application_runs_in_many_threads():
    service, statuses = serving(limit="40/minute", clock=Clock()), []

    def ask(number):
        client = service.app.test_client()
        statuses.extend(client.post("/predict", data=question(images(1))).status_code for _ in range(12))

    together(8, ask)
    assert statuses.count(200) == 40 and statuses.count(429) == 8 * 12 - 40


def test_the_window_is_exact_in_many_threads_from_its_first_entry_on():
    for _ in range(30):
        window, passed = MovingWindow(clock=Clock()), []
        together(8, lambda number: passed.extend(window.acquire_entry("a", 7, 60) for _ in range(4)))
        assert passed.count(True) == 7


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), max_size=60))
def test_no_window_wherever_it_begins_holds_more_than_the_limit_and_none_is_refused_for_nothing(asks):
    clock, passed = Clock(), []
    window = MovingWindow(clock=clock)
    for pause, amount in asks:
        clock.advance(seconds=pause)
        recent = sum(count for moment, count in passed if moment > clock.now() - 100)
        wait, left = window.wait("a", 10, 100, amount)
        assert left == 10 - recent and (wait == 0) == (recent + amount <= 10)
        if window.acquire_entry("a", 10, 100, amount):
            passed.append((clock.now(), amount))
            assert recent + amount <= 10
        else:
            assert recent + amount > 10
            assert sum(count for moment, count in passed if moment > clock.now() + wait - 100) + amount <= 10, "it fits after the wait"
            assert sum(count for moment, count in passed if moment > clock.now() + wait - 1 - 100) + amount > 10, "and not before"


def test_each_image_of_a_batch_counts_and_a_refused_request_costs_nothing():
    with serving(limit="10/hour", clock=Clock()) as service:
        assert send(service, question(images(8)))[0] == 200
        status, headers, said = send(service, question(images(3)))
        assert status == 429 and said["remaining"] == 2 and "2 of the 3" in said["error"]
        assert send(service, b"nonsense")[0] == 400
        assert send(service, question(images(2)))[0] == 200
        assert send(service, question(images(1)))[0] == 429
        assert send(service, question(images(11)))[0] == 400, "more than the limit at once could never be answered"


def test_a_refusal_says_when_to_come_back_to_the_second():
    clock = Clock()
    with serving(limit="4/hour", clock=clock) as service:
        assert send(service, question(images(3)))[0] == 200
        clock.advance(minutes=10)
        assert send(service, question(images(1)))[0] == 200
        clock.advance(minutes=5)
        status, headers, said = send(service, question(images(2)))
        assert status == 429 and headers["Retry-After"] == "2700" and said["retry_after"] == 2700 and said["remaining"] == 0
        clock.advance(seconds=2699)
        assert send(service, question(images(1)))[0] == 429
        clock.advance(seconds=1)
        assert send(service, question(images(3)))[0] == 200 and send(service, question(images(1)))[0] == 429


def test_the_limit_also_holds_on_the_time_of_day():
    with serving(limit="2/minute") as service:
        remote = RemoteModel(service.url)
        assert len(remote(images(2))) == 2
        with pytest.raises(RateLimited) as refusal:
            remote(images(1))
        assert 30 < refusal.value.retry_after <= 60 and refusal.value.status == 429
    with serving(limit="2/second") as service:
        began = time.time()
        assert len(RemoteModel(service.url, clock=service.clock)(images(3))) == 3
        assert time.time() - began >= 1


def test_who_runs_into_the_limit_keeps_what_was_answered():
    with serving(limit="100/hour", clock=Clock()) as service:
        remote, x = RemoteModel(service.url), images(130)
        with pytest.raises(RateLimited, match="the limit of 100/hour is used up: more in 3,600 s") as refusal:
            accuracy(remote, x, torch.zeros(130, dtype=torch.int64))
        assert refusal.value.retry_after == 3600 and refusal.value.remaining == 0
        assert torch.allclose(refusal.value.answers, predict(small(), x[:100]).log_softmax(1), atol=1e-5) and remote.queries == 100


def test_a_clock_turns_limits_into_days_without_waiting():
    clock = Clock()
    with serving(limit="100/hour", clock=clock) as service:
        remote = RemoteModel(service.url, clock=clock)
        began = time.perf_counter()
        assert torch.allclose(remote(images(2450)), predict(small(), images(2450)).log_softmax(1), atol=1e-5)
        assert clock.now() == 24 * 3600 and remote.queries == 2450 and time.perf_counter() - began < 20
        assert [record.time for record in service.log] == sorted(record.time for record in service.log)


def test_waiting_on_another_clock_than_the_services_ends():
    with serving(limit="1/hour", clock=Clock()) as service:
        with pytest.raises(RateLimited):
            RemoteModel(service.url, clock=Clock())(images(2))
        assert 100 <= len(service.log) <= 110


def test_those_who_wait_for_the_same_moment_pass_the_time_once():
    clock = Clock()
    keys = [f"key {number}" for number in range(4)]
    with serving(limit="5/hour", keys=keys, clock=clock) as service:
        remotes = [RemoteModel(service.url, key, clock=clock) for key in keys]
        for remote in remotes:
            remote(images(5))
        together(4, lambda number: remotes[number](images(5)))
        assert clock.now() == 3600 and [remote.queries for remote in remotes] == [10] * 4


@pytest.mark.parametrize("step", [{"hours": -1}, {"seconds": float("nan")}, {"days": "1"}])
def test_time_goes_forward_only(step):
    clock = Clock()
    clock.advance(days=1, hours=1, minutes=1, seconds=1)
    with pytest.raises((ValueError, TypeError)):
        clock.advance(**step)
    clock.wait_until(5)
    assert clock.now() == 86400 + 3600 + 60 + 1


# ---- keys

def test_each_key_has_a_limit_of_its_own():
    with serving(limit="5/hour", keys=["one", "two"], clock=Clock()) as service:
        one, two = RemoteModel(service.url, "one"), RemoteModel(service.url, "two")
        one(images(5))
        assert len(two(images(5))) == 5
        with pytest.raises(RateLimited):
            one(images(1))


@pytest.mark.parametrize("key, words", [(None, "must hold your key"), ("", "must hold your key"), ("tow", "no key that is known"), ("on", "known"),
                                        (key_id("one"), "known"), ("one, two", "known")])
def test_nobody_comes_in_without_a_key_and_the_log_says_so(key, words):
    with serving(keys=["one", "two"]) as service:
        for method, path in (("POST", "/predict"), ("GET", "/"), ("GET", "/elsewhere")):
            status, _, said = send(service, question(), method, path, {} if key is None else {"X-API-Key": key})
            assert status == 401 and words in said["error"]
        with pytest.raises(ServiceError, match="401") as refusal:
            RemoteModel(service.url, key)
        assert refusal.value.status == 401
        assert [record[1:5] for record in service.log] == [(None if key is None else key_id(key), 0, 401, ())] * 4


# ---- what is not an honest question

GOOD = images(2)
LONG = base64.b64encode(bytes(10_000_000)).decode()
BAD = {
    "no JSON": (b"\xff\xfe{", 400, "JSON"),
    "empty": (b"", 400, "JSON"),
    "deeply nested": (b"[" * 100_000, 413, "bytes"),
    "nested": (b"[" * 4000, 400, "JSON"),
    "a list": (b"[1, 2]", 400, "object"),
    "no images": (question(GOOD, images=None), 400, "images"),
    "no shape": (question(GOOD, shape=None), 400, "shape"),
    "another shape": (question(GOOD, shape=[2, 1, 4, 16]), 400, "shape must be [n, 1, 8, 8]"),
    "too few dimensions": (question(GOOD, shape=[1, 8, 8]), 400, "shape"),
    "no image": (question(GOOD[:0]), 400, "at least 1"),
    "negative": (question(GOOD, shape=[-2, 1, 8, 8]), 400, "shape"),
    "fractions": (question(GOOD, shape=[2.0, 1, 8, 8]), 400, "shape"),
    "text as shape": (question(GOOD, shape="2188"), 400, "shape"),
    "true as shape": (question(GOOD[:1], shape=[True, 1, 8, 8]), 400, "shape"),
    "too many": (question(images(9)), 400, "8 images at most, not 9"),
    "shorter than it says": (question(GOOD, shape=[3, 1, 8, 8]), 400, "768 bytes for this shape and dtype, not 512"),
    "another dtype": (question(GOOD, dtype="float16"), 400, "dtype must be one of float32, uint8"),
    "no dtype at all": (question(GOOD, dtype=["float32"]), 400, "dtype"),
    "the wrong dtype": (question(GOOD, dtype="uint8"), 400, "128 bytes"),
    "no base64": (question(GOOD, images="*" * 40), 400, "base64"),
    "numbers": (question(GOOD, images=[0.5] * 128), 400, "base64"),
    "not a number": (question(torch.where(GOOD > 0.5, GOOD, float("nan"))), 400, "from 0 to 1"),
    "infinite": (question(GOOD / 0), 400, "from 0 to 1"),
    "above 1": (question(GOOD + 0.01), 400, "from 0 to 1"),
    "below 0": (question(GOOD - 0.6), 400, "from 0 to 1"),
    "10 MB": (question(GOOD, images=LONG), 413, "8 images"),
}


def test_bad_questions_get_one_sentence_and_the_service_goes_on(capfd):
    with serving(batch=8) as service:
        for number, (what, (body, status, words)) in enumerate(BAD.items()):
            got, headers, said = send(service, body)
            assert got == status and words in said["error"], f"{what}: {got} {said}"
            assert headers["Content-Type"] == "application/json" and "\n" not in said["error"] and set(said) == {"error"}
            assert len(service.log) == number + 1 and service.log[-1][2:] == (0, status, (), said["error"]), what
        assert send(service, question(GOOD))[0] == 200 and service.log[-1].status == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method, path, status, words", [
    ("GET", "/predict", 405, "does not take GET"), ("DELETE", "/", 405, "DELETE"), ("POST", "/train", 404, "nothing at /train"),
    ("GET", "/predict/", 404, "/predict/"), ("BREW", "/predict", 405, "BREW")])
def test_unknown_ways_and_methods_are_named(method, path, status, words):
    with serving() as service:
        got, _, said = send(service, question() if method == "POST" else b"", method, path)
        assert got == status and words in said["error"]
        assert [(record.status, record.error) for record in service.log] == [(status, said["error"])]


@pytest.mark.parametrize("text, status", [(b"hello there\r\n\r\n", 400), (b"POST /predict HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400),
                                          (b"POST /predict HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
                                          (b"GET / HTTP/1.1\r\nX: " + b"a" * 300_000 + b"\r\n\r\n", 431)],
                         ids=["no HTTP", "no length", "100 GB", "a long header"])
def test_what_is_no_request_is_answered_and_logged_too(text, status, capfd):
    with serving() as service:
        received = talk(service, text)
        if received or status != 431:
            head, _, body = received.partition(b"\r\n\r\n")
            assert f" {status} ".encode() in head.splitlines()[0] and "cannot be read" in json.loads(body)["error"]
        assert [(record.status, record.images) for record in service.log] == [(status, 0)]
        assert send(service, question())[0] == 200
    assert capfd.readouterr().err == ""


def test_a_slow_client_is_given_up_and_keeps_nobody_waiting():
    with serving(timeout=1) as service:
        answers, slow = [], []

        def dawdle():
            host, port = service.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                connection.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: 500\r\n\r\n")
                try:
                    for _ in range(60):  # one byte at a time is still activity
                        connection.sendall(b"{")
                        connection.settimeout(0.1)
                        try:
                            slow.append(connection.recv(4096))
                            return
                        except TimeoutError:
                            pass
                except OSError:
                    pass

        threads = [threading.Thread(target=dawdle) for _ in range(12)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            began = time.perf_counter()
            assert send(service, question())[0] == 200
            answers.append(time.perf_counter() - began)
            time.sleep(0.02)
        assert len(slow) == 12 and all(b" 408 " in answer and b"within 1 seconds" in answer for answer in slow)
        assert len(answers) > 20 and sorted(answers)[len(answers) // 2] < 0.5
        assert [record.status for record in service.log].count(408) == 12


def test_a_model_that_fails_costs_one_answer_and_tells_nothing_of_the_inside(capfd):
    with serving(Broken()) as service:
        for _ in range(3):
            status, _, said = send(service, question())
            assert status == 500 and "its log says why" in said["error"] and "secret" not in said["error"]
        assert [record[2:] for record in service.log] == [(1, 500, (), "ZeroDivisionError('a secret of the inside')")] * 3
    assert capfd.readouterr() == ("", "")


# ---- the log

def test_the_log_has_every_request_in_memory_and_in_its_file(tmp_path):
    path, clock = tmp_path / "audit.jsonl", Clock()
    with serving(limit="10/hour", keys=["a secret key"], clock=clock, log_file=path) as service:
        remote, x = RemoteModel(service.url, "a secret key"), images(10)
        labels = [CLASSES[label] for label in remote(x).argmax(1).tolist()]
        clock.advance(minutes=3)
        statuses = [send(service, question(), headers={"X-API-Key": key})[0] for key in ("a secret key", "a guess")]
        send(service, b"?", headers={"X-API-Key": "a secret key"})
        assert statuses == [429, 401]
        lines = path.read_text().splitlines()  # while it runs
    assert [(r.time, r.key, r.images, r.status) for r in service.log] == [
        (0, key_id("a secret key"), 0, 200), (0, key_id("a secret key"), 10, 200), (180, key_id("a secret key"), 1, 429),
        (180, key_id("a guess"), 0, 401), (180, key_id("a secret key"), 0, 400)]
    assert list(service.log[1].labels) == labels and all(bool(record.error) == (record.status != 200) for record in service.log)
    assert [tuple(json.loads(line).values()) for line in lines] == [(*record[:4], list(record.labels), record.error) for record in service.log]
    assert "secret key" not in path.read_text() and "guess" not in path.read_text().replace(key_id("a guess"), "")
    table = pd.DataFrame(service.log)
    assert list(table.columns) == ["time", "key", "images", "status", "labels", "error"] and table.images.sum() == 11


def test_a_log_that_cannot_be_written_stops_the_start_and_leaves_nothing(tmp_path):
    service = serving(log_file=tmp_path / "nowhere" / "audit.jsonl")
    with pytest.raises(OSError):
        service.start()
    assert service.url is None


def test_the_log_is_whole_after_eight_clients_at_once(tmp_path):
    path = tmp_path / "audit.jsonl"
    with serving(keys=["a", "b"], log_file=path) as service:
        together(8, lambda number: [RemoteModel(service.url, "ab"[number % 2])(images(number + 1)) for _ in range(5)])
    assert len(service.log) == 80 and sum(record.images for record in service.log) == 5 * sum(range(1, 9))
    assert [json.loads(line)["images"] for line in path.read_text().splitlines()] == [record.images for record in service.log]


# ---- a monitor, and signatures

def test_a_monitor_refuses_what_it_finds_suspicious():
    asked = []

    def noise(key, x):
        asked.append(key)
        return x.std() > 0.25

    with serving(keys=["k"], monitor=noise) as service:
        remote = RemoteModel(service.url, "k")
        assert len(remote(images(3) * 0.1)) == 3
        with pytest.raises(ServiceError, match="look like an attempt") as refusal:
            remote(images(3))
        assert refusal.value.status == 403 and asked == [key_id("k")] * 2
        assert [(record.images, record.status) for record in service.log] == [(0, 200), (3, 200), (3, 403)]


def test_what_is_signed_is_what_went_over_the_wire():
    signed, checked = [], []

    def sign(question, answer):
        signed.append((question, answer))
        return {"X-Signature": f"{len(question)} {len(answer)}"}

    def check(question, headers, answer):
        checked.append((question, answer))
        if headers["X-Signature"] != f"{len(question)} {len(answer)}" or b"bee" in answer:
            raise ValueError("not believed")

    with serving(mode="top1", sign=sign) as service:
        remote = RemoteModel(service.url, check=check)
        labels = predict(small(), images(200)).argmax(1)
        other = images(200)[labels != 1]
        remote(other[:1]), remote(other[:1])
        assert signed[1:] == checked and len(checked) == 2
        assert checked[0][1] == checked[1][1] and json.loads(checked[0][0])["nonce"] != json.loads(checked[1][0])["nonce"]
        bees = images(200)[labels == 1]
        if len(bees):
            with pytest.raises(ValueError, match="not believed"):
                remote(bees[:1])


# ---- beginning and end

def test_it_starts_and_stops_as_often_as_one_likes():
    service = serving(name="mine")
    assert service.url is None and "not running" in repr(service)
    service.stop()
    for round in range(3):
        assert service.start() is service and service.start() is service and service.url in repr(service)
        remote = RemoteModel(service.url)
        remote(images(1))
        url = service.url
        service.stop()
        service.stop()
        assert service.url is None and len(service.log) == 2 * (round + 1)
        with pytest.raises(ConnectionError, match="nothing answers at"):
            RemoteModel(url)
        with pytest.raises(ConnectionError):
            remote(images(1))


def test_a_cell_that_is_run_again_leaves_one_service():
    def running():
        return len([thread for thread in threading.enumerate() if thread.name == "service"])

    others = running()  # a lesson that ran in this process may hold some
    for _ in range(4):
        service = serving().start()  # the name is given to a new one, and nobody holds the one before
        RemoteModel(service.url)
    gc.collect()
    assert running() == others + 1
    service.stop()


def test_a_service_takes_the_place_of_the_one_of_its_name_even_where_that_is_still_held():
    held = [serving(name="badges").start() for _ in range(3)]
    other = serving(name="other").start()
    assert [service.url is None for service in held] == [True, True, False] and other.url is not None
    RemoteModel(held[2].url)(images(1))
    held[2].stop(), other.stop()


def test_a_port_in_use_is_said_in_one_sentence():
    with serving() as service:
        port = int(service.url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match=f"port {port} is taken"):
            serving(port=port).start()
        assert len(RemoteModel(service.url)(images(1))) == 1
    with serving(port=port) as again:
        assert again.url.endswith(f":{port}")
    with pytest.raises(OSError, match="port 70000"):
        serving(port=70000).start()


def test_a_stop_finishes_the_answer_that_is_being_made():
    begun, answers = threading.Event(), []

    def wait(key, x):
        begun.set()
        time.sleep(0.3)

    with serving(monitor=wait) as service:
        thread = threading.Thread(target=lambda: answers.append(send(service, question())[0]))
        thread.start()
        begun.wait(10)
    thread.join(10)
    assert answers == [200] and [record.status for record in service.log] == [200]


def test_a_stop_while_the_server_is_awake_for_another_reason(monkeypatch):
    wake, service = HttpServer.pull_trigger, serving().start()

    def wake_and_wake_again(server):
        wake(server)
        time.sleep(0.3)  # long enough for a thread that is awake to see that it is to end
        wake(server)

    monkeypatch.setattr(HttpServer, "pull_trigger", wake_and_wake_again)
    service.stop()
    assert service.url is None


SCRIPT = """
import mlsec_lab, os, sys, time
from mlsec_lab.victims import small_cnn
from mlsec_lab.victims.client import RemoteModel
from mlsec_lab.victims.service import serve
service = serve(small_cnn(channels=1, classes=3, size=8, width=2), ("a", "b", "c"), shape=(1, 8, 8)).start()
client = RemoteModel(service.url)
print(service.url, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_kill_9_leaves_neither_the_port_taken_nor_a_child():
    process = subprocess.Popen([sys.executable, "-c", SCRIPT + "time.sleep(120)"], stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip()
        assert RemoteModel(url)(images(4)).shape == (4, 3)
        assert psutil.Process(process.pid).children() == [], "the service is in the process itself"
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
        process.stdout.close()
    with pytest.raises(ConnectionError, match="nothing answers"):
        RemoteModel(url)
    with serving(port=int(url.rsplit(":", 1)[1])) as service:
        assert service.url == url and len(RemoteModel(url)(images(1))) == 1


def test_a_process_that_ends_while_it_serves_ends_at_once_and_silently():
    ran = subprocess.run([sys.executable, "-c", SCRIPT + "began = time.time()"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and ran.stderr == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_end_of_a_forked_process_is_not_the_end_of_the_service():
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT + """
child = os.fork()
if child == 0:
    sys.exit(0)
os.waitpid(child, 0)
print(len(RemoteModel(service.url).classes), client.url == service.url)
"""], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and ran.stdout.splitlines()[1:] == ["3 True"], ran.stderr


def test_flask_and_waitress_are_loaded_only_where_something_is_served():
    code = ("import sys; from mlsec_lab.victims import service, client; "
            "print([name for name in ('flask', 'waitress', 'limits', 'werkzeug') if name in sys.modules])")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stderr


# ---- the client's errors

def listener():
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_service_that_does_not_answer_is_given_up_in_time():
    listening, url = listener()
    with listening, pytest.raises(TimeoutError, match="has not answered within 0.2 seconds"):
        RemoteModel(url, timeout=0.2)


@pytest.mark.parametrize("answer, error, words", [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<br/>", ServiceError, "no JSON object"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", ServiceError, "does not say which classes"),
    (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", ServiceError, "status 502"),
    (b"", ConnectionError, "broke off"), (b"SSH-2.0\r\n\r\n", ConnectionError, "broke off")])
def test_who_answers_otherwise_is_no_service(answer, error, words):
    listening, url = listener()

    def reply():
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    thread = threading.Thread(target=reply)
    thread.start()
    with listening, pytest.raises(error, match=words):
        RemoteModel(url)
    thread.join()


@pytest.mark.parametrize("said", [
    {}, {"labels": "bee"}, {"labels": []}, {"labels": ["ant"]}, {"labels": ["ant", "elk"]}, {"labels": ["ant", "bee"], "probabilities": [0.5]},
    {"labels": ["ant", "bee"], "probabilities": [[0.5, 0.5], [0.5, 0.5]]}, {"labels": ["ant", "bee"], "probabilities": [["a"] * 3] * 2},
    {"labels": ["ant", "bee"], "confidences": [0.5]}, {"labels": [["ant"], ["bee"]]}])
def test_answers_that_are_no_predictions_are_named_as_such(said):
    with serving() as service:
        remote = RemoteModel(service.url)
    remote._send = lambda method, path, body: (200, {}, json.dumps(said).encode())
    with pytest.raises(ServiceError, match="are no predictions"):
        remote(images(2))
    assert remote.queries == 0


def test_a_connection_that_was_closed_meanwhile_is_opened_again():
    with serving() as service:
        remote = RemoteModel(service.url)
        first = remote(images(1))
        port = int(service.url.rsplit(":", 1)[1])
    with serving(port=port):
        assert torch.equal(remote(images(1)), first)


@pytest.mark.parametrize("arguments", [("127.0.0.1:80",), ("ftp://here",), ("",), ("http://127.0.0.1:1", None, {"dtype": "int8"}),
                                       ("http://127.0.0.1:1", None, {"batch": 0})])
def test_a_client_refuses_arguments_of_the_wrong_kind(arguments):
    with pytest.raises(ValueError, match="url|dtype|batch"):
        RemoteModel(*arguments[:2], **(arguments[2] if len(arguments) > 2 else {}))


@pytest.mark.parametrize("x", [torch.rand(2, 8, 8), torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8) * 2, torch.zeros(1, 1, 8, 8, dtype=torch.uint8)])
def test_images_of_the_wrong_kind_are_refused_before_anything_is_sent(x):
    with serving() as service:
        remote = RemoteModel(service.url)
        with pytest.raises(ValueError, match="x must"):
            remote(x)
        assert len(service.log) == 1 and remote.queries == 0


@pytest.mark.parametrize("options, words", [
    ({"mode": "all"}, "mode"), ({"digits": 0}, "digits"), ({"batch": 0}, "batch"), ({"port": -1}, "port"), ({"timeout": 0}, "timeout"),
    ({"shape": (3, 32, 32)}, "shape"), ({"shape": (8, 8)}, "shape"),
    ({"limit": "often"}, "limit"), ({"limit": "0/hour"}, "limit"), ({"limit": "5/minute;9/hour"}, "limit"), ({"limit": 100}, "limit"),
    ({"keys": []}, "keys"), ({"keys": "abc"}, "keys"), ({"keys": [""]}, "keys"), ({"keys": [1]}, "keys"), ({"keys": ["naïve"]}, "keys"),
    ({"keys": [" one"]}, "keys"), ({"keys": ["a\nb"]}, "keys")])
def test_serve_refuses_arguments_of_the_wrong_kind(options, words):
    with pytest.raises(ValueError, match=words):
        serve(small(), CLASSES, **{"shape": SHAPE, **options})


@pytest.mark.parametrize("model, classes", [(small(), ("ant", "bee")), (small(), ("ant", "ant", "bee")), (small(), (0, 1, 2)),
                                            (lambda x: x, CLASSES)])
def test_serve_refuses_a_model_that_does_not_fit_its_classes(model, classes):
    with pytest.raises(ValueError, match="classes|model"):
        serve(model, classes, shape=SHAPE)
