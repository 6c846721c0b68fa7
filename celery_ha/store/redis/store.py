"""The Redis store of one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from redis import Redis

from celery_ha.store.base import Store
from celery_ha.store.redis.court import RedisCourt
from celery_ha.store.redis.firings import RedisFirings
from celery_ha.store.redis.leases import RedisLeases
from celery_ha.store.redis.link import Link
from celery_ha.store.redis.locks import RedisLocks
from celery_ha.store.redis.pool import LinkPool
from celery_ha.store.redis.replicas import Replicas
from celery_ha.store.redis.revocations import RedisRevocations
from celery_ha.store.redis.survey import RedisSurvey
from celery_ha.store.redis.uniques import RedisUniques
from celery_ha.store.redis.url import dial_client, dial_url

#: Keys, after the prefix, that stay for good; each is small or bounded by the number of nodes or entries.
PERMANENT = (
    "leases",
    "nodes",
    "conns",
    "fenced",
    "leader",
    "term",
    "token",
    "epoch",
    "version",
    "rings",
    "run",
    "beat",
)
#: Beginnings of the keys that go when their lease ends.
OWNED_BY_A_LEASE = ("lock:", "held:", "claims:", "attempts:", "try:")
#: Messages that wait for a lock, and the locks that are waited for: as permanent as a queue.
WAITING = ("line:", "lines")

DEFAULT_PREFIX = "_ha:"
DEFAULT_TIMEOUT = 2.0


class RedisStore(Store):
    """A client of the store; makes no connection until it is used.

    Connection A renews (and judges), connection B looks and waits: two threads, and two connections to
    watch the process by. Locks use connections of their own.

    Args:
        source: a URL (see :func:`~celery_ha.store.redis.url.dial_url`), or a function that makes a
            redis-py client whose connection settings are copied.
        prefix: prefix of every key.
        timeout: seconds for connecting and for every answer; must be well below the leases' TTL.
        master_name: for Sentinel, the name of the master.
        sentinel_kwargs: for Sentinel, how to talk to the sentinels themselves.
        replicas: how many replicas must confirm a fence or a grant; 1 with Sentinel unless told otherwise.

    Raises:
        ConfigError: the URL cannot be used.
    """

    def __init__(
        self,
        source: str | Callable[[], Redis],
        *,
        prefix: str = DEFAULT_PREFIX,
        timeout: float = DEFAULT_TIMEOUT,
        master_name: str | None = None,
        sentinel_kwargs: Mapping[str, Any] | None = None,
        replicas: int | None = None,
    ) -> None:
        if isinstance(source, str):
            dial = dial_url(source, timeout=timeout, master_name=master_name, sentinel_kwargs=sentinel_kwargs)
        else:
            dial = dial_client(source, timeout=timeout)
        confirm = Replicas(int(dial.sentinel) if replicas is None else replicas, timeout)
        self._a = Link(dial, prefix)
        self._b = Link(dial, prefix)
        #: Connections for whatever thread or child asks.
        self.pool = LinkPool(lambda: Link(dial, prefix))
        self.leases = RedisLeases(self._a, self._b, prefix, timeout)
        self.court = RedisCourt(self._a, self._b, confirm)
        self.locks = RedisLocks(self.pool, confirm, prefix, timeout)
        self.uniques = RedisUniques(self.pool)
        self.revocations = RedisRevocations(self.pool)
        self.firings = RedisFirings(self.pool, confirm, prefix)
        self.survey = RedisSurvey(self.pool, prefix)

    def close(self) -> None:
        """Drop the connections of this process."""
        self._a.close()
        self._b.close()
        self.pool.close()

    def close_inherited(self) -> None:
        """In a forked child: close the copies of the parent's sockets without sending anything.

        The store sees a dead process's connection close only when every copy of it is closed. Locks
        still work: the child makes connections of its own.
        """
        self._a.close_inherited()
        self._b.close_inherited()
        self.pool.close_inherited()
