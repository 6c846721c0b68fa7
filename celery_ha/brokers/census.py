"""What there is on the broker, counted: for people, not for decisions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from redis.exceptions import ResponseError

from celery_ha.brokers.redis import RedisBroker


class Census:
    """Counts on a Redis broker.

    Args:
        broker: where to count.

    Raises:
        StoreUnavailable: the broker could not be reached.
    """

    def __init__(self, broker: RedisBroker) -> None:
        self._broker = broker

    def waiting(self, queues: Collection[str]) -> Mapping[str, int]:
        """Messages in each queue that nobody has taken yet, of all priorities."""
        layout = self._broker.layout
        lists = [(queue, layout.prefix + layout.source(queue, step)) for queue in queues for step in layout.steps]
        counts = dict.fromkeys(queues, 0)
        for (queue, _), count in zip(lists, self._counts("llen", [key for _, key in lists]), strict=True):
            counts[queue] += count
        return counts

    def in_flight(self, leases: Collection[str]) -> Mapping[str, int]:
        """Messages that each lease holds."""
        keys = [self._broker.layout.flight(lease) for lease in leases]
        return dict(zip(leases, self._counts("hlen", keys), strict=True))

    def widest(self) -> Mapping[str, int]:
        """The largest number of shards that workers ever used, by queue (rule 16)."""
        key = f"{self._broker.layout.names}shards"
        found = self._ask(lambda: self._broker.client.zrange(key, 0, -1, withscores=True))
        return {queue.decode(): int(count) for queue, count in found}

    def now(self) -> float:
        """The broker's clock, in seconds since the epoch."""
        seconds, micros = self._ask(self._broker.client.time)
        return float(seconds + micros / 1e6)

    def facts(self) -> Mapping[str, str]:
        """What the server says of itself, as :meth:`celery_ha.store.base.Survey.facts`."""
        found = {field: str(value) for field, value in self._ask(self._broker.client.info).items()}
        try:
            save = self._ask(lambda: self._broker.client.config_get("save"))
        except ResponseError:
            return found  # CONFIG is not permitted: it does not say
        return {**found, **save}

    def _counts(self, command: str, keys: list[str]) -> list[int]:
        pipe = self._broker.client.pipeline(transaction=False)
        for key in keys:
            getattr(pipe, command)(key)
        return [int(count) for count in self._ask(pipe.execute)]

    def _ask(self, call: Callable[[], Any]) -> Any:
        return self._broker._reached(call)
