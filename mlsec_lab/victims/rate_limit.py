"""Where Flask-Limiter counts: an exact moving window, on a clock that can be moved by hand.

The storage that comes with it reads the time of day, and two requests that come first at once can both be counted as the first.
Imported where a service is made, because it needs the `limits` package that Flask-Limiter stands on.
"""
import collections
import math
import threading

from limits.storage import MemoryStorage

SCHEME = "course"


class MovingWindow(MemoryStorage):
    """Remembers when how much was let through: in no window of the limit's length, wherever it begins, is it more than the limit."""

    STORAGE_SCHEME = [SCHEME]

    def __init__(self, uri=None, clock=None, **options):
        super().__init__(uri, **options)
        self.clock, self.lock = clock, threading.Lock()
        self.passed, self.used = collections.defaultdict(collections.deque), collections.Counter()

    def acquire_entry(self, key, limit, expiry, amount=1):
        """Let `amount` through, or nothing: whether they fit beside those of the last `expiry` seconds."""
        with self.lock:
            now = self._forget(key, expiry)
            if self.used[key] + amount > limit:
                return False
            self.passed[key].append((now, amount))
            self.used[key] += amount
            return True

    def get_moving_window(self, key, limit, expiry):
        """(When the oldest that still counts was let through, how many still count.)"""
        with self.lock:
            now = self._forget(key, expiry)
            return (self.passed[key][0][0] if self.passed[key] else now), self.used[key]

    def wait(self, key, limit, expiry, amount):
        """(Whole seconds until `amount` fit, how many fit now.)"""
        with self.lock:
            now = moment = self._forget(key, expiry)
            over = self.used[key] + amount - limit
            for passed, count in self.passed[key]:
                if over <= 0:
                    break
                over, moment = over - count, passed + expiry
            return math.ceil(moment - now), limit - self.used[key]

    def _forget(self, key, expiry):
        """Drop what is older than the window; returns the time."""
        now, passed = self.clock.now(), self.passed[key]
        while passed and passed[0][0] + expiry <= now:
            self.used[key] -= passed.popleft()[1]
        return now
