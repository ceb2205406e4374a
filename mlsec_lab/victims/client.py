"""Ask a model that is served somewhere as if it were here: what an attack that only needs answers is run against.

    victim = RemoteModel("http://127.0.0.1:41233", key="my-key")
    accuracy(victim, x, y), victim.queries
"""
import base64
import http.client
import json
import secrets
import threading
from urllib.parse import urlsplit

import torch
from torch import nn

from mlsec_lab.victims.inputs import check_choice, check_images, check_number

NEVER = 1e-100  # what a probability of 0 counts as, so that its logarithm is a number
PATIENCE = 100  # waits in vain, as on a clock that is not the service's, before that is a RateLimited after all


class ServiceError(Exception):
    """The service answered, but not with predictions.  status: of its answer (HTTP), such as 401 for a wrong key."""

    def __init__(self, sentence, status):
        super().__init__(sentence)
        self.status = status


class RateLimited(ServiceError):
    """The limit is used up (429).

    retry_after: seconds until what was asked would be answered.  remaining: how many images would be answered now.
    answers: [m, K], what was answered for the first m images of the call before it came to this.
    """

    def __init__(self, sentence, retry_after, remaining):
        super().__init__(sentence, 429)
        self.retry_after, self.remaining, self.answers = retry_after, remaining, None


def in_json(x, dtype):
    """The images [N, C, H, W] as a request carries them: a dict for JSON.  dtype: "float32", or "uint8", which rounds to 1/255."""
    pixels = (x * 255).round().to(torch.uint8) if dtype == "uint8" else x
    return {"shape": list(x.shape), "dtype": dtype, "images": base64.b64encode(pixels.cpu().contiguous().numpy()).decode()}


class RemoteModel(nn.Module):
    """A served model with the signature of a local one: x [N, C, H, W] in [0, 1] -> [N, K], without gradients, in eval mode.

    What comes back depends on what the service tells: the logarithm of its probabilities (those that were rounded to 0 count as 1e-100);
    for a label alone 1 for that class and 0 for the others, as LabelOnly gives; for a label and its probability p the logarithms of p
    and, for the others, of equal shares of 1 - p. The largest is always the class that the service named.

    url: of the service.  key: its API key, if it wants one.
    batch: images a request, at most what the service takes (its own choice by default).
    dtype: how images travel: "float32" as they are, "uint8" rounded to the 256 steps that an image file has, in a quarter of the bytes.
    clock: None, or the service's Clock to wait on when the limit is used up; without one that is a RateLimited.
    check: None, or a function (request body, headers, answer body), all as they went over the wire, that raises where it does not
        believe the answer. Each request then carries a fresh "nonce".
    timeout: seconds to wait for an answer.  context: an ssl.SSLContext, for an https address.
    It has one connection and asks one thing at a time: give each thread a RemoteModel of its own.

    queries: how many images it got answers for.  classes, shape: what the service says of itself.
    Raises ValueError for images of the wrong kind, RateLimited and ServiceError for what the service refuses, ConnectionError where none
    answers, TimeoutError where it takes too long.
    """

    def __init__(self, url, key=None, *, batch=None, dtype="float32", clock=None, check=None, timeout=30, context=None):
        super().__init__()
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"url must be like http://127.0.0.1:8000, not {url!r}")
        check_choice(dtype, "dtype", ("float32", "uint8"))
        if batch is not None:
            check_number(batch, "batch", least=1, whole=True)
        self.url, self.dtype, self.clock, self.check, self.queries, self.training = url, dtype, clock, check, 0, False
        self._headers = {"Content-Type": "application/json", **({} if key is None else {"X-API-Key": key})}
        self._lock = threading.Lock()
        if address.scheme == "https":
            self._connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=timeout, context=context)
        else:
            self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
        about = self._exchange("GET", "/")
        try:
            self.classes, self.shape = tuple(about["classes"]), tuple(about["shape"])
            self.batch = about["batch"] if batch is None else min(batch, about["batch"])
        except (KeyError, TypeError):
            raise ServiceError(f"{url} does not say which classes it knows and which images it takes: is it a service of this course?", 200) from None
        self._places = {label: place for place, label in enumerate(self.classes)}

    @torch.no_grad()
    def forward(self, x):
        check_images(x)
        if x.shape[1:] != self.shape:
            raise ValueError(f"x must hold images of the shape {list(self.shape)}, which the service takes, not {list(x.shape[1:])}")
        answers, size, done, waits = torch.zeros(len(x), len(self.classes)), self.batch, 0, 0
        while done < len(x):
            part, asked_at = x[done:done + size], self.clock and self.clock.now()
            try:
                answers[done:done + len(part)] = self._ask(part)
            except RateLimited as refusal:
                if 0 < refusal.remaining < len(part):
                    size = refusal.remaining  # what is left of the limit is used, too
                elif self.clock is not None and waits < PATIENCE:
                    self.clock.wait_until(asked_at + refusal.retry_after)
                    size, waits = self.batch, waits + 1
                else:
                    refusal.answers = answers[:done].to(x.device)
                    raise
            else:
                done, waits = done + len(part), 0
                self.queries += len(part)
        return answers.to(x.device)

    def _ask(self, x):
        question = in_json(x, self.dtype)
        if self.check is not None:
            question["nonce"] = secrets.token_hex(16)
        said = self._exchange("POST", "/predict", json.dumps(question).encode())
        try:
            chosen = torch.tensor([[self._places[label]] for label in said["labels"]])
            if len(chosen) != len(x):
                raise ValueError("not one label an image")
            if "probabilities" in said:
                scores = torch.tensor(said["probabilities"], dtype=torch.float64).clamp_min(NEVER).log()
            elif "confidences" in said:
                sure = torch.tensor(said["confidences"], dtype=torch.float64)[:, None]
                others = (1 - sure) / max(1, len(self.classes) - 1)
                scores = others.expand(-1, len(self.classes)).scatter(1, chosen, sure).clamp_min(NEVER).log()
            else:
                scores = torch.zeros(len(x), len(self.classes)).scatter_(1, chosen, 1.0)
            if scores.shape != (len(x), len(self.classes)):
                raise ValueError("not one number a class")
            highest, first = scores.max(1, keepdim=True)
            ahead = torch.where(first == chosen, highest, highest + 1e-3)  # rounded probabilities can be equal: the label says which won
            return scores.scatter(1, chosen, ahead).float()
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise ServiceError(f"what {self.url} answers are no predictions ({type(error).__name__}: {error})", 200) from error

    def _exchange(self, method, path, body=None):
        """Send one request; returns the answer's JSON, or raises what the service's refusal means."""
        with self._lock:
            status, headers, answer = self._send(method, path, body)
        try:
            said = json.loads(answer)
            if not isinstance(said, dict):
                raise ValueError
        except ValueError:
            raise ServiceError(f"{self.url} answers with status {status} and no JSON object: is it a service of this course?", status) from None
        if status == 429:
            raise RateLimited(f"{self.url} refuses: {said.get('error')}", float(said.get("retry_after", 0)), int(said.get("remaining", 0)))
        if status != 200:
            raise ServiceError(f"{self.url} refuses with status {status}: {said.get('error')}", status)
        if self.check is not None and body is not None:
            self.check(body, headers, answer)
        return said

    def _send(self, method, path, body):
        connection = self._connection
        for attempt in range(2):
            reused = connection.sock is not None
            try:
                connection.request(method, path, body, self._headers)
                response = connection.getresponse()
                return response.status, response.headers, response.read()
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                if isinstance(error, TimeoutError):
                    raise TimeoutError(f"{self.url} has not answered within {connection.timeout:g} seconds") from None
                if isinstance(error, ConnectionRefusedError):
                    raise ConnectionError(f"nothing answers at {self.url}: has the service been started, and is this its url?") from None
                if not reused:
                    raise ConnectionError(f"the exchange with {self.url} broke off ({type(error).__name__}: {error})") from error
                # a connection that had been idle was closed by the other side: once more, over a new one

    def close(self):
        """Close the connection; asking again opens another."""
        self._connection.close()

    def __del__(self):
        if "_connection" in self.__dict__:
            self.close()
