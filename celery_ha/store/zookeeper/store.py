"""The ZooKeeper store of one process."""

from __future__ import annotations

from urllib.parse import quote

from celery_ha.store.base import Store
from celery_ha.store.zookeeper.clock import Clock
from celery_ha.store.zookeeper.connection import make_client
from celery_ha.store.zookeeper.court import ZooKeeperCourt
from celery_ha.store.zookeeper.firings import ZooKeeperFirings
from celery_ha.store.zookeeper.leases import ZooKeeperLeases
from celery_ha.store.zookeeper.link import Link
from celery_ha.store.zookeeper.locks import ZooKeeperLocks
from celery_ha.store.zookeeper.revocations import ZooKeeperRevocations
from celery_ha.store.zookeeper.survey import ZooKeeperSurvey
from celery_ha.store.zookeeper.uniques import ZooKeeperUniques
from celery_ha.store.zookeeper.url import parse
from celery_ha.store.zookeeper.znodes import Paths

DEFAULT_PREFIX = "_ha:"
DEFAULT_TIMEOUT = 2.0
DEFAULT_TTL = 10.0
#: Part of the TTL that is asked for as the timeout of sessions, and seconds that are the least.
SESSION_PART, SHORTEST_SESSION = 0.25, 1.0


class ZooKeeperStore(Store):
    """A client of the store; makes no connection until it is used.

    Session A renews, judges and locks, session B looks and waits: two threads, and two sessions to watch
    the process by. A process that only takes locks has A alone.

    Args:
        url: see :func:`~celery_ha.store.zookeeper.url.parse`.
        prefix: a znode under the URL's path, so that several apps can share it.
        timeout: seconds for every call, connecting included; must be well below the leases' TTL.
        ttl: seconds that leases live: sessions time out after a part of it, or what the servers allow.

    Raises:
        ConfigError: the URL cannot be used.
    """

    def __init__(
        self, url: str, *, prefix: str = DEFAULT_PREFIX, timeout: float = DEFAULT_TIMEOUT, ttl: float = DEFAULT_TTL
    ) -> None:
        address = parse(url)
        seconds = address.session_timeout or max(ttl * SESSION_PART, SHORTEST_SESSION)
        #: Where our znodes are, and the session and the clock for what is kept beside them.
        self.paths = paths = Paths(f"{address.path}/{quote(prefix, safe=':')}")
        self.link = self._a = Link(lambda: make_client(address, seconds), paths, timeout)
        self._b = Link(lambda: make_client(address, seconds), paths, timeout)
        self.clock = clock = Clock(self._a, paths.at("clock"))
        self.leases = ZooKeeperLeases(self._a, self._b, paths, clock, timeout)
        self.court = ZooKeeperCourt(self._a, self._b, paths, clock)
        self.locks = ZooKeeperLocks(self._a, paths, clock, timeout)
        self.uniques = ZooKeeperUniques(self._a, paths, clock)
        self.firings = ZooKeeperFirings(self._a, paths, clock)
        self.revocations = ZooKeeperRevocations(self._a, paths, clock)
        self.survey = ZooKeeperSurvey(self._a, paths, clock, seconds)

    def close(self) -> None:
        """End the sessions of this process."""
        self._a.close()
        self._b.close()

    def close_inherited(self) -> None:
        """In a forked child: drop the copies of the parent's sockets without sending anything.

        Locks still work: the child makes a session of its own.
        """
        self._a.close_inherited()
        self._b.close_inherited()
