"""The program of a Proxy: a process of its own that stands between a client and a service, and sees and changes what passes.

proxy.py runs it by its path, with the standard library alone, so that it is there in a moment. It talks with its owner in lines of JSON:
it is given its settings, says where it listens, shows each answer before it goes on, and is told what to make of it. Where its input
ends, because the owner stops it or is no more, it ends at once.
"""
import http.client
import http.server
import itertools
import json
import os
import queue
import re
import signal
import socket
import socketserver
import ssl
import sys
import tempfile
import threading
from urllib.parse import urlsplit

HOP = ("connection", "content-length", "keep-alive", "transfer-encoding")  # headers that speak of one connection alone


def server_context(certificate):
    """An ssl.SSLContext that shows `certificate`: PEM text of a private key and its chain, which OpenSSL takes from a file only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    handle, path = tempfile.mkstemp(suffix=".pem")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(certificate)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)
    return context


def cache_key(path, request):
    """What the cache calls the same question: the same images. It looks for them as a hasty reader does, and takes the first it finds."""
    found = re.search(rb'"images"\s*:\s*"([^"]*)"', request)
    return path, found and found[1]


class Owner:
    """The process that has started this one, by way of standard input and output."""

    def __init__(self):
        self.lock, self.numbers, self.waiting = threading.Lock(), itertools.count(), {}

    def tell(self, message):
        """Send the owner a message and wait for nothing."""
        with self.lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    def ask(self, message):
        """Send the owner a message and wait for the answer."""
        number, reply = next(self.numbers), queue.SimpleQueue()
        self.waiting[number] = reply
        self.tell({"id": number, **message})
        return reply.get()

    def listen(self, settings):
        """Hand the owner's answers to those who wait; end the process with the owner."""
        for line in sys.stdin:
            said = json.loads(line)
            if "set" in said:
                settings.update(said["set"])
                settings["stored"] = {}
                self.tell({"done": True})
            else:
                self.waiting.pop(said["id"]).put(said)
        os._exit(0)  # whatever the other threads are at


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection, TLS where the proxy has a certificate."""
    daemon_threads, request_queue_size, allow_reuse_address = True, 128, os.name == "posix"

    def __init__(self, settings, owner):
        self.settings, self.owner = settings, owner
        address = urlsplit(settings["upstream"])
        self.upstream, self.secret = (address.hostname, address.port), address.scheme == "https"
        self.context = server_context(settings["certificate"]) if settings["certificate"] else None
        super().__init__(("127.0.0.1", settings["port"]), Tunnel if settings["tunnel"] else Box)

    def finish_request(self, connection, address):
        """Shake hands first, in the connection's own thread."""
        try:
            connection.settimeout(60)
            if self.context is None:
                super().finish_request(connection, address)
            else:
                with self.context.wrap_socket(connection, server_side=True) as inside:
                    super().finish_request(inside, address)
        except OSError:
            pass  # the client has gone, or does not believe the certificate: no more to be done for it

    def connect(self):
        """A connection to where the answers come from."""
        if not self.secret:
            return http.client.HTTPConnection(*self.upstream, timeout=60)
        careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # whoever stands in the middle need not care whom they talk to
        careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(*self.upstream, timeout=60, context=careless)


class Box(http.server.BaseHTTPRequestHandler):
    """A proxy that reads what passes: plain HTTP, or TLS that it ends itself."""
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

    def setup(self):
        """Take the connection over."""
        super().setup()
        self.upstream = self.server.connect()

    def finish(self):
        """Give the connection back."""
        super().finish()
        self.upstream.close()

    def do_GET(self):
        """Pass a request on, or answer it from what is kept, and change the answer where the owner asks for that."""
        request, settings = self.rfile.read(int(self.headers.get("Content-Length", 0))), self.server.settings
        place = cache_key(self.path, request) if settings["cache"] and self.command == "POST" else None
        status, headers, answer = settings["stored"].get(place) or self._fetch(request, place)
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        if settings["damage"] == "cut":
            self.wfile.write(answer[:len(answer) // 2])
            self.close_connection = True
        else:
            self.wfile.write(answer)

    do_POST = do_GET

    def _fetch(self, request, place):
        """(status, headers, answer) of the service, as the owner wants it; kept if there is a `place` for it."""
        try:
            asked = {name: value for name, value in self.headers.items() if name.lower() not in HOP + ("host",)}
            self.upstream.request(self.command, self.path, request, asked)
            response = self.upstream.getresponse()
            status, headers, answer = response.status, {n: v for n, v in response.headers.items() if n.lower() not in HOP}, response.read()
        except (OSError, http.client.HTTPException) as error:
            self.upstream.close()
            return _failure(f"behind the proxy: {type(error).__name__}: {error}")
        if status == 200:
            said = self.server.owner.ask({"request": request.decode("latin-1"), "headers": headers, "answer": answer.decode("latin-1")})
            if "error" in said:
                return _failure(said["error"])
            headers, answer = said["headers"], said["answer"].encode("latin-1")
            if place is not None:
                self.server.settings["stored"][place] = status, headers, answer
        return status, headers, answer

    def log_message(self, *_):
        """Say nothing: the owner keeps the log."""
        pass


def _failure(sentence):
    return 502, {"Content-Type": "application/json"}, json.dumps({"error": sentence}).encode()


class Tunnel(socketserver.BaseRequestHandler):
    """A proxy that passes bytes on, as it must where it has no key: it can still damage them."""

    def handle(self):
        """Pass bytes both ways without looking into them."""
        with socket.create_connection(self.server.upstream, timeout=60) as upstream:
            for end in (upstream, self.request):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or each small part waits for the one before to be acknowledged
            threading.Thread(target=self._carry, args=(self.request, upstream, False), daemon=True).start()
            self._carry(upstream, self.request, True)

    def _carry(self, source, target, answers):
        try:
            while part := source.recv(65536):
                damage = self.server.settings["damage"] if answers else None
                if damage == "cut":
                    break
                target.sendall(part[:-1] + bytes([part[-1] ^ 1]) if damage == "garble" else part)
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # one of the two has gone


def main():
    """Read what to do from the owner, listen on a free port, and say which."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupting a notebook's cell reaches its children, too: this one stays
    owner, settings = Owner(), json.loads(sys.stdin.readline())
    try:
        server = Server(settings, owner)
    except (OSError, OverflowError) as error:
        owner.tell({"error": str(error)})
        return
    owner.tell({"port": server.server_address[1]})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    owner.listen(settings)


if __name__ == "__main__":
    main()
