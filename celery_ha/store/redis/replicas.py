"""Waiting for replicas, so that a failover does not forget a fence or a grant (rule 12)."""

from __future__ import annotations

from dataclasses import dataclass

from celery_ha.errors import StoreUnavailable
from celery_ha.store.redis.link import Link


@dataclass(frozen=True)
class Replicas:
    """How many replicas must have a write before it counts."""

    #: 0: a single server, nothing to wait for.
    count: int
    #: Seconds to wait for them.
    timeout: float

    def confirm(self, link: Link) -> None:
        """Wait until the replicas have what was written so far, whoever wrote it.

        ``WAIT`` is about what its own connection has written; a lock may have been granted by another one, and a fence
        before this connection was made. So something is written first.

        Raises:
            StoreUnavailable: too few of them confirmed; the write is there and may be repeated.
        """
        if self.count == 0:
            return
        # Well below the timeout of the socket: the server counts in steps of 100 ms.
        _, confirmed = link.call(
            ("SET", f"{link.prefix}synced", "1", "EX", 60), ("WAIT", self.count, max(1, int(self.timeout * 250)))
        )
        if confirmed < self.count:
            raise StoreUnavailable(
                f"{confirmed} of {self.count} replicas confirmed a write in time; "
                "set store_replicas to 0 if this server has none"
            )
