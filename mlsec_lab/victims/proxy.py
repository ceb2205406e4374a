"""A proxy between a client and a service: a process of its own that sees, keeps and changes answers, and may hold a certificate.

    with Proxy(service.url, rewrite=flip) as proxy:          # flip(request, headers, answer) -> (headers, answer)
        RemoteModel(proxy.url)(x)

    front = Proxy(service.url, certificate=ca.issue(), cache=True)     # what stands before most services: it ends TLS, and remembers
    outside = Proxy(front.url, certificate=other.issue())              # somebody in the middle, with a certificate of their own
    blind = Proxy(front.url, tunnel=True)                              # the same without one: it carries bytes that it cannot read

The process lets `rewrite` decide, which runs here, in a thread of this process. It ends with `stop`, with the object, and with this
process, however that ends.
"""
import json
import os
import subprocess
import sys
import threading
import weakref
from collections import deque
from types import SimpleNamespace
from urllib.parse import urlsplit

from mlsec_lab.victims import proxy_process
from mlsec_lab.victims.inputs import check_choice, check_number

DAMAGES = (None, "cut", "garble")
KEPT = 2000  # exchanges that `seen` holds


class Proxy:
    """Start it by a `with` block or by .start().

    upstream: the url that it passes requests on to; behind https it believes any certificate.
    rewrite: None, or a function (request, headers, answer) -> (headers, answer), bytes but for the dict of headers; it is shown every
        answer of status 200 that comes from upstream, also that to GET / (whose request is empty). It may be set anew at any time.
    certificate: PEM text of a key and its chain, as LabCA.issue gives; with one it speaks TLS to its clients.
    cache: whether it keeps answers to POST, after `rewrite`, and answers the same images from there.
    tunnel: pass bytes on unread; there is nothing to rewrite then.
    damage: None, "cut" breaks off in the middle of each answer, "garble" (of a tunnel) flips a bit of all that comes from upstream.
    port: 0 is any free one.

    url: where it listens, None while it does not.
    Raises ValueError for arguments of the wrong kind; starting it OSError where the port is taken.
    """

    def __init__(self, upstream, rewrite=None, *, certificate=None, cache=False, tunnel=False, damage=None, port=0):
        address = urlsplit(upstream) if isinstance(upstream, str) else None
        if address is None or address.scheme not in ("http", "https") or not address.hostname or not address.port:
            raise ValueError(f"upstream must be like http://127.0.0.1:8000, not {upstream!r}: has the service been started?")
        check_choice(damage, "damage", DAMAGES)
        check_number(port, "port", least=0, whole=True)
        if certificate is not None and not (isinstance(certificate, str) and "PRIVATE KEY" in certificate and "CERTIFICATE" in certificate):
            raise ValueError("certificate must be PEM text of a private key and its certificate, such as LabCA().issue() gives")
        if tunnel and (rewrite or cache or certificate):
            raise ValueError("tunnel carries bytes that it cannot read: it takes no rewrite, cache or certificate")
        if damage == "garble" and not tunnel:
            raise ValueError('damage "garble" is for a tunnel: a proxy that reads can rewrite')
        self._settings = {"upstream": upstream, "certificate": certificate, "cache": bool(cache), "tunnel": bool(tunnel), "damage": damage, "port": port,
                          "stored": {}}
        self._shared = SimpleNamespace(rewrite=rewrite, seen=deque(maxlen=KEPT), done=threading.Semaphore(0), lock=threading.Lock())
        self._scheme = address.scheme if tunnel else "https" if certificate else "http"
        self.url, self.pid, self._process, self._end = None, None, None, None

    @property
    def rewrite(self):
        """What changes each answer, or None: (request, headers, body) -> (headers, body)."""
        return self._shared.rewrite

    @rewrite.setter
    def rewrite(self, function):
        """Change it while the proxy runs."""
        self._shared.rewrite = function

    @property
    def seen(self):
        """The last 2,000 exchanges (request, headers, answer), as upstream answered: a copy."""
        return list(self._shared.seen)

    def set(self, *, cache=None, damage=None):
        """Change whether it caches (None: as before) and what it damages, of a running one, too; the cache is empty then."""
        check_choice(damage, "damage", DAMAGES)
        change = {"damage": damage, "cache": self._settings["cache"] if cache is None else bool(cache)}
        self._settings.update(change)
        if self.url is not None:
            _say(self._process, self._shared, {"set": change})
            if not self._shared.done.acquire(timeout=10):
                raise ConnectionError("the proxy does not answer: stop it and start another")

    def start(self):
        """Start the process; one that runs already goes on.  Returns itself.  Raises OSError where the port is taken."""
        if self.url is not None:
            return self
        # -I and -S: neither the learner's files nor installed packages have a say in it.
        process = subprocess.Popen([sys.executable, "-I", "-S", proxy_process.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True, encoding="utf-8")
        end = weakref.finalize(self, _stop, process, os.getpid())
        try:
            _say(process, self._shared, self._settings)
            said = json.loads(process.stdout.readline() or '{"error": "it has ended at once"}')
            if "error" in said:
                raise OSError(f"no proxy on port {self._settings['port']} ({said['error']}): choose another port, or 0 for any that is free")
        except BaseException:
            end()
            process.stdout.close()
            raise
        threading.Thread(target=_decide, args=(process, self._shared), name="proxy", daemon=True).start()
        self._process, self._end, self.pid, self.url = process, end, process.pid, f"{self._scheme}://127.0.0.1:{said['port']}"
        return self

    def stop(self):
        """End the process.  Stopping twice does nothing."""
        self.url = self.pid = None
        if self._end is not None:
            self._end()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def __repr__(self):
        return f"<proxy {'at ' + self.url if self.url else 'not running'}, before {self._settings['upstream']}>"


def _decide(process, shared):
    """The owner's side: keep what is shown, and say what becomes of it.  It knows nothing of the Proxy, so that one which nobody needs goes."""
    with process.stdout:
        for line in process.stdout:
            shown = json.loads(line)
            if "id" not in shown:
                shared.done.release()
                continue
            exchange = shown["request"].encode("latin-1"), shown["headers"], shown["answer"].encode("latin-1")
            shared.seen.append(exchange)
            try:
                headers, answer = (shared.rewrite or _as_it_is)(exchange[0], dict(exchange[1]), exchange[2])
                reply = {"headers": {str(name): str(value) for name, value in headers.items()}, "answer": bytes(answer).decode("latin-1")}
            except Exception as error:
                reply = {"error": f"rewrite failed: {type(error).__name__}: {error}"}
            try:
                _say(process, shared, {"id": shown["id"], **reply})
            except (OSError, ValueError):
                pass  # it is being stopped: its last words are read to their end


def _as_it_is(request, headers, answer):
    return headers, answer


def _say(process, shared, message):
    with shared.lock:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()


def _stop(process, owner):
    if os.getpid() != owner:  # a forked copy of this process: the child is not its own
        return
    try:
        process.stdin.close()  # by which it ends
    except OSError:
        pass  # it has ended before
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
