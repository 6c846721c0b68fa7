"""The part that a node takes of the sharded queues it consumes.

It takes none before it consumes at all, none while it has lost the broker for long, and none when it leaves:
its shards would wait for it, beside others that could serve them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import monotonic

from celery_ha.keys import shard_names
from celery_ha.model import Node, Rings
from celery_ha.worker.shards import owned_shards, standby_shards, widened


class Share:
    """Of one node, through all its leases. The loop changes it, any thread may ask.

    **Failure:** dying while others have not heard of a change leaves the shards where the store last said, until the
    lease is given up or the node, alive, sees itself listed otherwise and says it again.

    Args:
        name: Celery node name.
        weight: its concurrency.
        shards: configured shards of the queues it consumes.
        widest: of a queue and its configured shards, how many there are.
        patience: seconds without the broker after which the shards go to others, where the store is there.
    """

    def __init__(
        self, name: str, weight: int, shards: Mapping[str, int], widest: Callable[[str, int], int], patience: float
    ) -> None:
        #: Shards by queue, as far as is known.
        self.shards = dict(shards)
        #: It drains, for good.
        self.leaving = False
        self._name = name
        self._full = weight
        self._widest = widest
        self._patience = patience
        self._consumes = False
        #: Since when the broker is lost, on the monotonic clock.
        self._lost: float | None = None
        #: When the store was last found away.
        self._blind = float("-inf")

    @property
    def weight(self) -> int:
        """What it weighs in the rings now."""
        # Where both are one server, it comes back for all: nobody's shards are better off elsewhere.
        lost = self._lost is not None and monotonic() - max(self._lost, self._blind) > self._patience
        return 0 if self.leaving or lost or not self._consumes else self._full

    def begin(self) -> None:
        """A new lease, under which nothing is consumed yet."""
        self._consumes = False
        self.count()

    def consume(self) -> None:
        """It is connected, and its loop turns."""
        self._consumes, self._lost = True, None

    def lose(self) -> None:
        """The connection to the broker is lost."""
        self._lost = monotonic() if self._lost is None else self._lost

    def blind(self) -> None:
        """The store does not answer."""
        self._blind = monotonic()

    def count(self) -> bool:
        """Learn of shards that somebody used who has come and gone unseen (rule 16); returns whether there are more.

        Raises:
            StoreUnavailable: the broker was not reached.
        """
        counted = {queue: self._widest(queue, count) for queue, count in self.shards.items()}
        changed, self.shards = counted != self.shards, counted
        return changed

    def owned(self, fleet: Iterable[Node], last: Rings) -> frozenset[str]:
        """The shards to consume, of these nodes and after these rings."""
        fleet = tuple(fleet)
        # Kept when the node that knows of more of them is gone: what waits there has an owner still (rule 16).
        self.shards = widened(self.shards, fleet)
        return owned_shards(self._name, self.shards, fleet, last)

    def inherited(self, fleet: Iterable[Node], last: Rings) -> dict[str, str]:
        """The shards to consume if their owners were gone, each with its owner."""
        return standby_shards(self._name, self.shards, fleet, last)

    def names(self) -> list[str]:
        """All shards there are, whoever owns them."""
        return [shard for queue, count in self.shards.items() for shard in shard_names(queue, count)]

    def is_shard(self, queue: str) -> bool:
        """Whether a queue is a shard of one of ours."""
        base, _, index = queue.rpartition(".")
        return base in self.shards and index.isdecimal()
