"""The server's clock, as a client can know it: ZooKeeper dates every write and tells the time no other way."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from celery_ha.store.zookeeper.link import Link
from celery_ha.store.zookeeper.ops import Write

_MILLI = 1000
#: Seconds after which it is looked at again.
FRESH = 60.0
#: Seconds that a look may take before another one is tried, and how many are.
QUICK, LOOKS = 0.05, 3


@dataclass(frozen=True)
class Reading:
    """One look at the clock: the server read ``stamp`` between two local monotonic times."""

    sent: float
    received: float
    stamp: float

    @property
    def took(self) -> float:
        """Seconds that the look took."""
        return self.received - self.sent

    def at_least(self, now: float) -> float:
        """The server's time is this or later."""
        return self.stamp + now - self.received

    def at_most(self, now: float) -> float:
        """The server's time is this or earlier; stamps are cut to a millisecond."""
        return self.stamp + 1 / _MILLI + now - self.sent


class Clock:
    """Knows the server's time after one write, and for a minute.

    Args:
        link: writes.
        path: a znode to touch.
    """

    def __init__(self, link: Link, path: str) -> None:
        self._link = link
        self._path = path
        self._reading: Reading | None = None

    def read(self) -> tuple[float, float]:
        """The bounds of the server's time now, in seconds of its wall clock.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        reading = self._reading
        if reading is None or monotonic() - reading.received > FRESH:
            reading = self._reading = self._closest()
        now = monotonic()
        return reading.at_least(now), reading.at_most(now)

    def _closest(self) -> Reading:
        """The bounds are as far apart as the look took, for a minute: so if it took long, the quickest of some."""
        best = self._look()
        for _ in range(LOOKS - 1):
            if best.took <= QUICK:
                break
            best = min(best, self._look(), key=lambda reading: reading.took)
        return best

    def _look(self) -> Reading:
        def touch() -> Reading:
            sent = monotonic()
            (stat,) = self._link.commit(Write(self._path))
            return Reading(sent, monotonic(), stat.mtime / _MILLI)

        return self._link.persist(touch)
