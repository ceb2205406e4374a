"""Time as a service sees it: the time of day, or one that is moved by hand."""
import threading
import time

from mlsec_lab.victims.inputs import check_number


class Clock:
    """A clock that stands still until it is told to go on: with it, days of rate limits pass in no time.  It begins at 0 seconds."""

    def __init__(self):
        self._now, self._lock = 0.0, threading.Lock()

    def now(self):
        """Seconds since the beginning."""
        return self._now

    def advance(self, *, days=0, hours=0, minutes=0, seconds=0):
        """Let so much time pass.  ValueError for less than none."""
        step = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        check_number(step, "the time to advance by", least=0)
        with self._lock:
            self._now += step

    def wait_until(self, moment):
        """Let time pass until `moment`, in seconds; none where that is past.  Several who wait for one moment pass the time once."""
        check_number(moment, "moment")
        with self._lock:
            self._now = max(self._now, moment)


class WallClock:
    """The time of day, in seconds since 1970: what a service goes by unless it is given a Clock."""

    def now(self):
        """Seconds since 1970."""
        return time.time()

    def wait_until(self, moment):
        """Sleep until `moment`."""
        time.sleep(max(0.0, moment - time.time()))
