"""The proxy: what it passes on, what it changes, what it cannot, and that nothing of it stays behind."""
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch

from mlsec_lab.victims import small_cnn
from mlsec_lab.victims.client import RemoteModel, ServiceError
from mlsec_lab.victims.proxy import Proxy
from mlsec_lab.victims.service import serve
from mlsec_lab.victims.tls import LabCA, client_context, explain

CLASSES = ("ant", "bee", "cat")
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def service():
    with serve(small_cnn(channels=1, classes=3, size=8, width=2), CLASSES, shape=(1, 8, 8)) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left():
    def children():
        return {child.pid for child in psutil.Process().children() if "proxy_process" in " ".join(child.cmdline())}

    threads, others = set(threading.enumerate()), children()  # a lesson that ran in this process may hold some
    yield
    gc.collect()
    until = time.monotonic() + 5
    while time.monotonic() < until and (children() - others or set(threading.enumerate()) - threads):
        time.sleep(0.05)
    assert children() <= others and set(threading.enumerate()) <= threads


def images(n=4):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def shout(request, headers, answer):
    said = json.loads(answer)
    if "labels" in said:
        said["labels"] = ["ant"] * len(said["labels"])
    return headers, json.dumps(said).encode()


def test_it_passes_everything_on_as_it_is_and_keeps_it(service):
    x = images()
    with Proxy(service.url) as proxy:
        assert torch.equal(RemoteModel(proxy.url)(x), RemoteModel(service.url)(x))
        (nothing, _, about), (request, headers, answer) = proxy.seen
    assert nothing == b"" and json.loads(about)["classes"] == list(CLASSES)
    assert json.loads(request)["shape"] == [4, 1, 8, 8] and headers["Content-Type"] == "application/json" and len(json.loads(answer)["labels"]) == 4


def test_it_changes_answers_from_the_moment_it_is_told_to(service):
    with Proxy(service.url) as proxy:
        client = RemoteModel(proxy.url)
        true = client(images()).argmax(1)
        assert (true != 0).any()
        proxy.rewrite = shout
        assert client(images()).argmax(1).tolist() == [0] * 4
        assert json.loads(proxy.seen[-1][2])["labels"] == [CLASSES[k] for k in true], "what is kept is what came"
        proxy.rewrite = None
        assert torch.equal(client(images()).argmax(1), true)


def test_it_adds_and_takes_headers(service):
    seen = []
    with Proxy(service.url, lambda request, headers, answer: ({"X-New": "1", "Content-Type": headers["Content-Type"]}, answer)) as proxy:
        RemoteModel(proxy.url, check=lambda request, headers, answer: seen.append(dict(headers)))(images())
    assert seen == [{"X-New": "1", "Content-Type": "application/json", "Content-Length": seen[0]["Content-Length"]}]


def test_with_a_certificate_it_speaks_tls_and_another_one_in_the_middle_is_seen(service):
    ca, rogue = LabCA(), LabCA()
    context = client_context(ca.certificate)
    with Proxy(service.url, certificate=ca.issue()) as front, Proxy(front.url, shout, certificate=rogue.issue()) as middle:
        assert front.url.startswith("https://")
        assert torch.equal(RemoteModel(front.url, context=context)(images()), RemoteModel(service.url)(images()))
        with pytest.raises(ConnectionError) as caught:
            RemoteModel(middle.url, context=context)
        assert "does not know" in explain(caught.value)
        assert RemoteModel(middle.url, context=client_context(rogue.certificate))(images()).argmax(1).tolist() == [0] * 4, "whoever believes it is fooled"


def test_a_tunnel_passes_tls_on_and_whatever_it_damages_is_noticed(service):
    ca = LabCA()
    context = client_context(ca.certificate)
    with Proxy(service.url, certificate=ca.issue()) as front, Proxy(front.url, tunnel=True) as blind:
        client = RemoteModel(blind.url, context=context)
        assert torch.equal(client(images()), RemoteModel(service.url)(images())) and blind.seen == []
        for damage in ("garble", "cut"):
            blind.set(damage=damage)
            with pytest.raises(ConnectionError) as caught:
                client(images())
            assert "nothing of it was used" in explain(caught.value)
        blind.set()
        assert client(images()).shape == (4, 3)


@pytest.mark.parametrize("secret", [False, True])
def test_an_answer_that_breaks_off_is_no_answer(service, secret):
    ca = LabCA()
    with Proxy(service.url, certificate=ca.issue() if secret else None) as proxy:
        client = RemoteModel(proxy.url, context=client_context(ca.certificate) if secret else None)
        proxy.set(damage="cut")
        with pytest.raises(ConnectionError) as caught:
            client(images())
    assert "broke off after" in explain(caught.value) and "nothing of it was used" in explain(caught.value)


def test_a_cache_answers_the_same_images_without_asking_and_other_ones_not(service):
    with Proxy(service.url, cache=True) as proxy:
        client = RemoteModel(proxy.url)
        before = len(service.log)
        first = client(images())
        assert torch.equal(client(images()), first) and len(service.log) == before + 1
        client(images(3))
        assert len(service.log) == before + 2 and len(proxy.seen) == 3  # with the first look at what is served
        proxy.rewrite = shout
        assert torch.equal(client(images()), first), "what is stored is not rewritten any more"
        proxy.set(cache=True)
        assert client(images()).argmax(1).tolist() == [0] * 4 and len(service.log) == before + 3
        proxy.rewrite = None
        assert client(images()).argmax(1).tolist() == [0] * 4, "what was stored changed stays so"
        proxy.set(cache=False)
        assert torch.equal(client(images()), first)


def test_refusals_of_the_service_go_through_and_are_not_kept(service):
    with Proxy(service.url, shout, cache=True) as proxy:
        client = RemoteModel(proxy.url)
        client.shape = (1, 8, 9)
        for _ in range(2):
            with pytest.raises(ServiceError, match="status 400.*shape must be"):
                client(torch.rand(1, 1, 8, 9))
        assert len(proxy.seen) == 1


def test_where_nobody_stands_behind_it_and_where_rewrite_fails_the_client_is_told(service):
    with Proxy(NOWHERE) as proxy, pytest.raises(ServiceError, match="status 502.*behind the proxy: ConnectionRefused"):
        RemoteModel(proxy.url)
    with Proxy(service.url, lambda request, headers, answer: 1 / 0) as proxy, pytest.raises(ServiceError, match="rewrite failed: ZeroDivisionError"):
        RemoteModel(proxy.url)


def test_many_clients_at_once_get_each_their_own_answer(service):
    x, errors = images(24), []
    expected = RemoteModel(service.url)(x)

    def run(number):
        try:
            client = RemoteModel(proxy.url, batch=1)
            assert torch.allclose(client(x[number:number + 3]), expected[number:number + 3], atol=1e-5)
        except BaseException as error:
            errors.append(error)

    with Proxy(service.url, lambda request, headers, answer: (headers, answer)) as proxy:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert errors == []


@pytest.mark.parametrize("arguments, words", [
    (dict(upstream="127.0.0.1:80"), "upstream must be like"), (dict(upstream=None), "has the service been started"), (dict(damage="drop"), "damage must be one of"),
    (dict(port=-1), "port must be at least 0"), (dict(certificate="nothing"), "certificate must be PEM text of a private key"),
    (dict(tunnel=True, cache=True), "tunnel carries bytes"), (dict(damage="garble"), "for a tunnel")])
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Proxy(**{"upstream": NOWHERE, **arguments})


def test_a_port_that_is_taken_is_said_to_be():
    with Proxy(NOWHERE) as proxy:
        port = int(proxy.url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match=f"no proxy on port {port}.*choose another port, or 0"):
            Proxy(NOWHERE, port=port).start()
    with Proxy(NOWHERE, port=port) as again:
        assert again.url.endswith(f":{port}")


def test_starting_and_stopping_twice_does_nothing_and_one_that_nobody_needs_goes():
    proxy = Proxy(NOWHERE).start()
    pid = proxy.pid
    assert proxy.start() is proxy and proxy.pid == pid and psutil.pid_exists(pid)
    proxy.stop()
    proxy.stop()
    assert proxy.url is None and not psutil.pid_exists(pid)
    assert Proxy(NOWHERE).start().pid is not None  # left to itself at once: the fixture looks whether it has gone


@pytest.mark.skipif(os.name != "posix", reason="signals as a notebook's kernel gets them")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_owner_however_that_ends_and_survives_an_interrupt(how):
    code = f"from mlsec_lab.victims.proxy import Proxy; p = Proxy({NOWHERE!r}).start(); print(p.pid, flush=True); import time; time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(owner.stdout.readline()))
    child.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert child.is_running()
    owner.send_signal(how)
    owner.wait(10)
    owner.stdout.close()
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
