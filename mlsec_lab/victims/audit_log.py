"""What a service remembers of its callers: one record a request, answered or refused."""
import collections
import hashlib
import json
import threading
from typing import NamedTuple

KEPT = 100_000  # records that stay in memory; a file keeps all


class Record(NamedTuple):
    """One request.

    time: seconds, of the service's clock.  key: `key_id` of the key it came with, or None.  images: how many it asked about, 0 where it
    could not be read.  status: of the answer (HTTP), 200 where there is one.  labels: the classes that were answered.  error: else why not;
    for a failure of the service itself (500) more than its caller was told.
    """
    time: float
    key: str
    images: int
    status: int
    labels: tuple
    error: str


def key_id(key):
    """What the log writes in place of a key: the beginning of its SHA-256, which tells callers apart and opens nothing."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


class AuditLog:
    """Records in memory (`.records`, the last 100,000) and, where `path` names a file, as a JSON object a line appended to it."""

    def __init__(self, clock, path=None):
        self.clock, self.path, self.file = clock, path, None
        self.records, self.lock = collections.deque(maxlen=KEPT), threading.Lock()

    def open(self):
        """Open the file, if there is to be one.  OSError where it cannot be written."""
        if self.path is not None:
            self.file = open(self.path, "a", encoding="utf-8", buffering=1)  # a line is in the file before its answer is on its way

    def close(self):
        """Close the file; the records stay."""
        with self.lock:
            if self.file is not None:
                self.file.close()
            self.file = None

    def write(self, key, images, status, labels=(), error=""):
        """Append a record, at the clock's time."""
        with self.lock:
            record = Record(self.clock.now(), key, images, status, tuple(labels), error)
            self.records.append(record)
            if self.file is not None:
                self.file.write(json.dumps(record._asdict()) + "\n")
