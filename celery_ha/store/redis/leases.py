"""What a node does about its own lease, in Redis."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import replace

from celery_ha.errors import Fenced, StoreError
from celery_ha.model import LeaseState, Node, Renewal
from celery_ha.store.base import LeaseStore
from celery_ha.store.redis.link import Link
from celery_ha.store.redis.records import dump_node, load_leader, load_node

log = logging.getLogger(__name__)

_MICRO = 1_000_000
_CLOSED, _LUGGAGE = 1, 2
#: How often a change is tried again when somebody else changed the record in between.
_UPDATE_ATTEMPTS = 5


class RedisLeases(LeaseStore):
    """Leases in Redis; see :class:`~celery_ha.store.base.LeaseStore`.

    Args:
        a: the connection that renews.
        b: the connection that looks and waits; both are registered for the lease.
        prefix: prefix of every key.
        timeout: seconds after which a read fails; a wait is cut into pieces shorter than that.
    """

    def __init__(self, a: Link, b: Link, prefix: str, timeout: float) -> None:
        self._a = a
        self._b = b
        self._prefix = prefix
        self._slice = timeout / 2
        self._opened: set[str] = set()
        self._told = False

    def open(self, node: Node) -> str:
        self._a.identify(f"ha:{node.lease}:a")
        self._b.identify(f"ha:{node.lease}:b")
        seconds, micros = self._a.call(("TIME",))[0]
        record = dump_node(replace(node, opened=int(seconds) + int(micros) / _MICRO))
        again = node.lease in self._opened
        epoch: bytes = self._a.run_script(
            "open",
            node.lease,
            record,
            self._connections(),
            int(node.ttl * _MICRO),
            secrets.token_hex(8),
            self._a.run,
            int(again),
        )
        if not epoch:
            raise Fenced
        self._opened.add(node.lease)
        self._tell_if_unwatched()
        return epoch.decode()

    def renew(self, lease: str) -> Renewal:
        # A connection that was cut is replaced now, not after a call has failed on it: others count the time.
        self._a.drop_if_closed()
        # Connect first: what is registered must be the connection that asks.
        self._a.identify(f"ha:{lease}:a")
        state, epoch, version, *leader = self._a.run_script("renew", lease, self._connections(), self._a.run)
        return Renewal(LeaseState(state.decode()), epoch.decode(), int(version), load_leader(*leader))

    def update(self, lease: str, weight: int, *, leaving: bool = False) -> bool:
        for _ in range(_UPDATE_ATTEMPTS):
            old: bytes | None = self._a.call(("HGET", self._prefix + "nodes", lease))[0]
            if old is None:
                return False
            node = replace(load_node(lease, old), weight=weight, leaving=leaving)
            replaced: int = self._a.run_script("update", lease, old, dump_node(node))
            if replaced >= 0:
                return bool(replaced)
        raise StoreError(f"the record of lease {lease} kept changing while it was updated")

    def close(self, lease: str, *, clean: bool) -> bool:
        ended: int = self._a.run_script("close", lease, int(clean))
        return ended == (_CLOSED if clean else _LUGGAGE)

    def wait(self, lease: str, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        self._b.identify(f"ha:{lease}:b")
        while (left := deadline - time.monotonic()) > 0:
            # BLPOP takes 0 as for ever.
            piece = max(min(left, self._slice), 0.001)
            if self._b.call(("BLPOP", self._prefix + "wake:" + lease, f"{piece:.3f}"))[0] is not None:
                return True
        return False

    def _connections(self) -> str:
        """The ids to register: both or none, because one alone proves nothing (rule 3).

        A lost connection B keeps no id; until it is back only the TTL judges.
        """
        ids = (self._a.id, self._b.id)
        return " ".join(ids) if all(ids) else ""

    def _tell_if_unwatched(self) -> None:
        if not self._told and not self._connections():
            self._told = True
            log.warning(
                "The store does not let this node watch connections (a proxy, or CLIENT is not permitted): "
                "a dead process is noticed after its lease's TTL instead of at once."
            )
