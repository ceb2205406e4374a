"""What the service adds to waitress: an end by hand, a time limit for slow clients, and refusals as JSON that the log knows of.

Imported where a service is started, because it needs waitress.
"""
import json
import threading
from collections import deque

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask

READ_ANYWAY = 64 << 20  # bytes of a body that is too long: its sender is told so, where a closed connection would tell nothing


class _Refusal(ErrorTask):
    """The answer to what never reaches the application, such as a request that is not HTTP."""

    def execute(self):
        error = self.request.error
        body = self.channel.server.refuse(error.code, f"the request cannot be read: {error.body}")
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    error_task_class = _Refusal


class HttpServer(TcpWSGIServer):
    """Serves a WSGI application on a socket that listens already, from its making until `stop`.

    refused: called as refused(key, images, status, error=sentence) for each request that never reaches the application.
    timeout: seconds that a client may take over sending one request.
    """
    channel_class = _Channel

    def __init__(self, application, listening, *, refused, timeout, name):
        self.refused, self.timeout, self.waiting, self.ending, self.closing = refused, timeout, deque(), False, threading.Lock()
        settings = Adjustments(max_request_body_size=READ_ANYWAY, cleanup_interval=1, asyncore_use_poll=True, connection_limit=500)
        super().__init__(application, {}, True, listening, dispatcher=self, adj=settings, bind_socket=False,
                         sockinfo=(listening.family, listening.type, listening.proto, listening.getsockname()))
        self.thread = threading.Thread(target=self.run, name=name, daemon=True)
        self.thread.start()

    def run(self):
        """One thread reads and writes for all clients side by side, and answers those whose request is whole, in turn.

        A thread of its own for the answers, which waitress has as a rule, takes Python's lock from the other and back at each request.
        """
        while self._map:
            wasyncore.loop(self.adj.asyncore_loop_timeout, self.adj.asyncore_use_poll, self._map, count=1)
            while self.waiting:
                self.waiting.popleft().service()
            if self.ending:
                self._close_everything()

    def add_task(self, task):
        """Called by a channel whose request is whole."""
        self.waiting.append(task)

    def refuse(self, status, sentence):
        """Log a refusal; returns the body of the answer."""
        self.refused(None, 0, status, error=sentence)
        return json.dumps({"error": sentence}).encode()

    def maintenance(self, now):
        """Called about every second by the server's thread: refuse those who are still sending a request after `timeout` seconds."""
        for channel in list(self.active_channels.values()):
            begun = channel.request  # the one that is not yet whole, if any
            if begun is not None and not channel.close_when_flushed:
                begun.since = getattr(begun, "since", now)
                if now - begun.since > self.timeout:
                    body = self.refuse(408, f"the request was not sent within {self.timeout:g} seconds")
                    channel.write_soon(b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
                                       b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
                    channel.close_when_flushed = True
        super().maintenance(now)

    def stop(self):
        """Finish what is being answered, close every connection, and wait for the thread to end."""
        with self.closing:  # the thread may be awake for another reason, and may not close what is about to wake it
            self.ending = True
            if self._map:
                self.pull_trigger()
        if threading.current_thread() is not self.thread:  # Python collects garbage in whatever thread; none can wait for itself
            self.thread.join()

    def _close_everything(self):
        for channel in list(self.active_channels.values()):
            channel.handle_close()
        with self.closing:
            wasyncore.close_all(self._map)  # the loop of the server's thread ends with the last of them
