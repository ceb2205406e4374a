"""A trained model behind a real HTTP service: keys, a rate limit, an audit log, and answers that tell more or less.

    with serve(load_model("signs_cnn"), classes, mode="top1", limit="100/hour", keys=["my-key"]) as service:
        victim = RemoteModel(service.url, key="my-key")       # from mlsec_lab.victims.client; asks like a local model
        labels = victim(x).argmax(1)
    service.log[-1]                                           # who asked when, for how many images, and what was answered

POST /predict takes JSON: {"shape": [n, C, H, W], "dtype": "float32" or "uint8", "images": the raw bytes in base64}; GET / says what
is served. The key goes into the header X-API-Key. Every refusal is JSON, too: {"error": one sentence}.

Flask, Flask-Limiter and waitress do the work, as they would outside; here they listen on this machine alone, in a thread of this
process, and end with it. What is not here is TLS: in front of waitress stands whatever ends it, a proxy as a rule.
"""
import base64
import copy
import json
import math
import os
import socket
import threading
import weakref

import numpy as np
import torch
from torch import nn

from mlsec_lab.victims.audit_log import AuditLog, key_id
from mlsec_lab.victims.clock import WallClock
from mlsec_lab.victims.inputs import check_choice, check_number
from mlsec_lab.victims.networks import device_of

MODES = ("probabilities", "rounded", "top1")
DTYPES = {"float32": "<f4", "uint8": "u1"}


class Service:
    """What `serve` returns: start it and stop it, by a `with` block or by hand.

    url: where it listens, None while it does not.  log: the list of Records so far, the last 100,000 of them; it stays after the end, and
    pandas.DataFrame(service.log) makes a table of it.  clock: the one that limits and log go by.  app: the Flask application.
    """
    _named, _naming = weakref.WeakValueDictionary(), threading.Lock()

    def __init__(self, app, log, *, name=None, port=0, timeout=10):
        self.app, self.clock, self.url, self.name = app, log.clock, None, name
        self._log, self._port, self._timeout, self._end = log, port, timeout, None

    @property
    def log(self):
        """A copy of the audit log, oldest record first."""
        return list(self._log.records)

    def start(self):
        """Listen, in a thread of this process; a service that runs already goes on.  Returns itself.

        Raises OSError where the port is taken or the log's file cannot be written.
        """
        if self.url is not None:
            return self
        from mlsec_lab.victims.http_server import HttpServer
        if self.name is not None:
            with self._naming:
                before, self._named[self.name] = self._named.get(self.name), self
            if before is not None:
                before.stop()  # a cell that is run again replaces the service that it started the first time
        listening = _listen(self._port)
        try:
            self._log.open()
            server = HttpServer(self.app, listening, refused=self._log.write, timeout=self._timeout, name=f"service {self.name or ''}".rstrip())
        except BaseException:
            self._log.close()
            listening.close()
            raise
        # The server knows nothing of this object, so that one which is no longer needed by anybody, as after
        # `service = serve(…).start()` in a cell that is run again, goes, and takes thread and port with it.
        self._end = weakref.finalize(self, _end, server, self._log, os.getpid())
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        return self

    def stop(self):
        """Finish the request that is being answered, close every connection, end the thread.  Stopping twice does nothing."""
        self.url = None
        if self._end is not None:
            self._end()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def __repr__(self):
        name, where = f" {self.name}" if self.name else "", f"at {self.url}" if self.url else "not running"
        return f"<service{name} {where}, {len(self._log.records):,} requests>"


def serve(model, classes, *, shape=(3, 32, 32), mode="probabilities", digits=2, confidence=False, limit=None, keys=None, batch=64,
          monitor=None, sign=None, clock=None, log_file=None, name=None, port=0, timeout=10):
    """A service that answers for a copy of `model`: start it by `with serve(...) as service:` or by .start().  Returns a Service.

    classes: the names of the classes, in the order of the logits.  shape: of the images it takes, (C, H, W), in [0, 1].
    mode: what it answers besides the label: "probabilities" all of them, "rounded" all to `digits` digits, "top1" none, or with
        `confidence` that of the label.
    limit: "100/hour", "50 per 10 minute", …: so many images a key in any hour that one may pick, images and not requests, so that asking
        in batches gains nothing. A request that would exceed it is refused as a whole and costs nothing. None sets none.
    keys: the API keys, each with a limit of its own; None lets in everybody, and counts by address.
    batch: so many images one request may carry, at most; never more than the limit.
    monitor: None, or a function (key_id, x [n, C, H, W]) -> bool; where it says True the request is refused with 403.
    sign: None, or a function (request body, answer body) -> {header: value}; both are bytes, the headers go with the answer.
    clock: the time that limits and log go by, a Clock to move by hand; by default the time of day.
    log_file: where the audit log is also kept, a JSON object a line, appended.
    name: any; starting another service of that name in this process ends the one before.  port: 0 is any free one.
    timeout: seconds that a client may take to send a request.
    Raises ValueError for a model that does not take `shape` or does not give a number for each class, a limit that cannot be read, or
    other arguments of the wrong kind.
    """
    classes = tuple(classes)
    check_choice(mode, "mode", MODES)
    for value, what, least in ((digits, "digits", 1), (batch, "batch", 1), (port, "port", 0)):
        check_number(value, what, least=least, whole=True)
    check_number(timeout, "timeout", above=0)
    if len(set(classes)) != len(classes) or not all(isinstance(label, str) for label in classes):
        raise ValueError(f"classes must be names that differ, not {classes!r:.100}")
    if keys is not None and (isinstance(keys, str) or not (keys := tuple(keys)) or not all(map(_can_be_a_header, keys))):
        raise ValueError(f"keys must be a list of strings of ASCII characters, or None to let in everybody, not {keys!r:.50}")
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch nn.Module, not {type(model).__name__}")
    model = copy.deepcopy(model).eval().requires_grad_(False)  # what is trained on beside it must not change what is served
    ask = _answers(model, classes, mode, digits, confidence)
    try:
        with torch.inference_mode():
            got = list(model(torch.zeros(1, *shape, device=device_of(model))).shape)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"shape must be that of one image which the model takes, (C, H, W), not {shape!r} ({str(error).splitlines()[0]})") from error
    if got != [1, len(classes)]:
        raise ValueError(f"the model must give one number for each of the {len(classes)} classes, not the shape {got}")
    log = AuditLog(clock or WallClock(), log_file)
    batch = batch if limit is None else min(batch, _amount(limit))
    about = {"classes": classes, "shape": list(shape), "mode": mode, "limit": limit, "batch": batch}
    app = _application(ask, about, log, limit=limit, keys=keys, monitor=monitor, sign=sign)
    return Service(app, log, name=name, port=port, timeout=timeout)


def _application(ask, about, log, *, limit, keys, monitor, sign):
    """The Flask application.  ask: x -> (labels, the answer as a dict).  about: what GET / says."""
    from flask import Flask, abort, g, request
    from flask_limiter import Limiter
    from werkzeug.exceptions import HTTPException

    from mlsec_lab.victims import rate_limit  # noqa: F401  (it makes the storage known that is named below)

    app = Flask("mlsec_lab.service", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 4096 + about["batch"] * math.prod(about["shape"]) * 4 * 4 // 3  # float32, and base64 makes four of three
    limiter = Limiter(lambda: g.caller, app=app, strategy="moving-window", storage_uri=f"{rate_limit.SCHEME}://",
                      storage_options={"clock": log.clock})
    known, one_at_a_time = frozenset(keys or ()), threading.Lock()

    @app.before_request
    def admit():
        g.images, g.labels, g.error = 0, (), ""
        key = request.headers.get("X-API-Key")
        g.key = None if keys is None or key is None else key_id(key)
        g.caller = g.key or request.remote_addr
        if keys is not None and key not in known:
            abort(401, "the header X-API-Key holds no key that is known here" if key else "the header X-API-Key must hold your key")
        if request.endpoint == "predict":
            try:
                g.x = _read_images(request.get_data(), about["shape"], about["batch"])
            except ValueError as error:
                abort(400, str(error))
            g.images = len(g.x)

    @app.get("/")
    def describe():
        return json_response(about)

    def predict():
        with one_at_a_time:  # neither torch's threads nor a monitor gain from being asked side by side
            if monitor is not None and monitor(g.key, g.x):
                abort(403, "these questions look like an attempt to copy or to probe the model")
            labels, answer = ask(g.x)
        g.labels = labels
        return json_response(answer)

    app.post("/predict")(limiter.limit(limit, cost=lambda: g.images)(predict) if limit else predict)

    @app.errorhandler(Exception)
    def refuse(error):
        status = error.code if isinstance(error, HTTPException) else 500
        if status == 429:
            item, place = limiter.current_limit.limit, limiter.current_limit.key
            seconds, left = limiter.storage.wait(place, item.amount, item.get_expiry(), g.images)
            used = f"allows {left} of the {g.images} images now, and all" if left else "is used up: more"
            g.error = f"the limit of {limit} {used} in {seconds:,} s"
            return json_response({"error": g.error, "retry_after": seconds, "remaining": left}, 429, {"Retry-After": str(seconds)})
        sentence = {404: f"there is nothing at {request.path}: POST images to /predict, or GET / to see what is served",
                    405: f"{request.path} does not take {request.method}: POST images to /predict, GET / to see what is served",
                    413: f"the body must have no more than {app.config['MAX_CONTENT_LENGTH']:,} bytes, which is {about['batch']} images",
                    500: "the service failed over this request; its log says why"}.get(status) or error.description
        g.error = repr(error) if status == 500 else sentence  # what went wrong inside is nothing for those outside
        return json_response({"error": sentence}, status)

    @app.after_request
    def note(response):
        if sign is not None and response.status_code == 200:
            response.headers.update(sign(request.get_data(), response.get_data()))
        log.write(g.key, g.images, response.status_code, g.labels, g.error)
        return response

    def json_response(content, status=200, headers=None):
        return app.response_class(json.dumps(content), status, headers, mimetype="application/json")

    return app


def _read_images(body, shape, most):
    """x [n, *shape] from the body of a request, or ValueError with the sentence that goes back to its sender."""
    try:
        asked = json.loads(body)
        kind, text, got = asked.get("dtype", "float32"), asked["images"], asked["shape"]
    except (ValueError, RecursionError):
        raise ValueError("the body must be JSON") from None
    except (AttributeError, KeyError, TypeError):
        raise ValueError('the body must be a JSON object with "shape" and "images"') from None
    if kind not in tuple(DTYPES):
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}")
    if not (isinstance(got, list) and len(got) == 4 and all(type(size) is int for size in got) and got[1:] == list(shape) and got[0] >= 1):
        raise ValueError(f"shape must be {['n', *shape]} with n at least 1".replace("'", ""))
    if got[0] > most:
        raise ValueError(f"a request may carry {most} images at most, not {got[0]}: ask in several")
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise ValueError("images must be the raw bytes in base64") from None
    pixels = np.dtype(DTYPES[kind])
    if len(raw) != math.prod(got) * pixels.itemsize:
        raise ValueError(f"images must hold {math.prod(got) * pixels.itemsize} bytes for this shape and dtype, not {len(raw)}")
    x = torch.from_numpy(np.frombuffer(raw, pixels).reshape(got).astype(np.float32))
    if kind == "uint8":
        return x / 255
    if not (x.min() >= 0 and x.max() <= 1):  # written so that NaN fails too
        raise ValueError("every pixel must be a number from 0 to 1")
    return x


def _answers(model, classes, mode, digits, confidence):
    """The function x -> (labels, answer): how much of what the model says gets out."""
    device = device_of(model)

    def ask(x):
        with torch.inference_mode():
            probabilities = model(x.to(device)).double().softmax(1).cpu()
        best, chosen = probabilities.max(1)
        answer = {"labels": [classes[label] for label in chosen.tolist()]}
        if mode == "probabilities":
            answer["probabilities"] = probabilities.tolist()
        elif mode == "rounded":
            answer["probabilities"] = [[round(value, digits) for value in row] for row in probabilities.tolist()]
        elif confidence:
            answer["confidences"] = best.tolist()
        return answer["labels"], answer

    return ask


def _can_be_a_header(key):
    return isinstance(key, str) and key != "" and key.isascii() and key.isprintable() and key == key.strip()


def _amount(limit):
    """How many images a limit such as "100/hour" allows."""
    from limits import parse_many
    try:
        (item,) = parse_many(limit)
        if item.amount < 1:
            raise ValueError("it allows nothing")
    except (ValueError, TypeError) as error:
        raise ValueError(f'limit must be like "100/hour" or "5 per 10 minute", or None, not {limit!r}') from error
    return item.amount


def _listen(port):
    listening = socket.socket()
    try:
        if os.name == "posix":  # elsewhere this flag would let two programs share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        raise OSError(f"port {port} is taken, or not for you ({error}): choose another, or 0 for any that is free") from error
    return listening


def _end(server, log, process):
    if os.getpid() == process:  # a forked copy of this process shares the server's pipe: its end is not the server's
        server.stop()
        log.close()
