"""Prunes znodes by age: ZooKeeper keeps everything until somebody deletes it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from celery_ha.errors import HAError
from celery_ha.store.zookeeper.clock import Clock
from celery_ha.store.zookeeper.link import Conflict, Link, children, exists, get
from celery_ha.store.zookeeper.ops import Delete

_MILLI = 1000
#: Seconds between two sweeps of a folder by one process.
EVERY = 60.0


class Broom:
    """Sweeps one folder now and then.

    Args:
        link: reads and deletes.
        clock: the server's time.
        folder: its path.
        ttl: seconds since it was written after which what is in it is forgotten.
        limit: how many to keep at most, of znodes whose names grow; None: all.
        spares: whether a znode stays whatever its age, by its data; None: none does.
    """

    def __init__(
        self,
        link: Link,
        clock: Clock,
        folder: str,
        ttl: float,
        limit: int | None = None,
        spares: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._link = link
        self._clock = clock
        self._folder = folder
        self._ttl = ttl
        self._limit = limit
        self._spares = spares
        self._swept = float("-inf")

    def sweep(self) -> None:
        """Delete what is too old, unless that was done a moment ago; what cannot be done now is done later.

        **Failure:** dying within leaves what is too old to the next sweep.
        """
        if monotonic() - self._swept < EVERY:
            return
        self._swept = monotonic()
        with suppress(HAError):
            (names,) = self._link.ask(children(self._folder))
            paths = [f"{self._folder}/{name}" for name in sorted(names or ())]
            oldest = self._clock.read()[0] - self._ttl
            stats = self._link.ask(*(exists(path) for path in paths))
            extra = max(len(paths) - self._limit, 0) if self._limit is not None else 0
            for at, (path, stat) in enumerate(zip(paths, stats, strict=True)):
                if stat is not None and (at < extra or stat.mtime / _MILLI < oldest):
                    self._drop(path)

    def _drop(self, path: str) -> None:
        with suppress(Conflict):  # gone, or no longer as it was read
            if self._spares is None:
                self._link.commit(Delete(path))
                return
            (found,) = self._link.ask(get(path))
            if found is not None and not self._spares(found[0]):
                self._link.commit(Delete(path, found[1].version))
