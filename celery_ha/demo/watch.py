"""Looks at a running fleet from outside: who is a member, what is in flight, what was recovered."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery_ha.brokers.connect import redis_access
from celery_ha.keys import shard_names
from celery_ha.model import Node
from celery_ha.worker.shards import owned_shards

TIMEOUT = 2.0


@dataclass(frozen=True)
class Member:
    """A worker with an open lease."""

    lease: str
    shards: frozenset[str]
    in_flight: int
    leads: bool


@dataclass(frozen=True)
class Failover:
    """A finished recovery. Times are ours, wall clock."""

    node: str
    reason: str
    #: When it was fenced.
    noticed: float
    #: When we saw that everything had moved.
    finished: float
    requeued: int
    restarted: int
    locks: int


@dataclass(frozen=True)
class Sight:
    """One look."""

    #: By node name.
    members: Mapping[str, Member]
    #: Messages in the queues.
    waiting: int

    @property
    def idle(self) -> bool:
        return self.waiting == 0 and not any(member.in_flight for member in self.members.values())

    @property
    def led(self) -> bool:
        return any(member.leads for member in self.members.values())


class Watch:
    """Sees what the nodes see, through the app's own store and broker.

    Args:
        app: the demo's app.
        queue: the sharded queue.
        shards: how many shards it has.

    Raises:
        OperationalError: the broker does not answer.
    """

    def __init__(self, app: Any, queue: str, shards: int) -> None:
        access = redis_access(app)
        broker = access.broker(timeout=TIMEOUT, dead_limit=app.ha.config.dead_letters_max)
        #: A client on the broker's server.
        self.client = broker.client
        self.failovers: list[Failover] = []
        self._layout = broker.layout
        self._court = app.ha.store.court
        self._history = f"{access.key_prefix}{app.ha.config.prefix}history"
        self._queues = {queue: shards}
        self._ahead: float | None = None

    def see(self) -> Sight:
        """Look once; finished recoveries are noted in :attr:`failovers`."""
        look = self._court.look()
        newest = {node.name: node for node in sorted(look.nodes.values(), key=lambda node: (node.opened, node.lease))}
        flights, waiting = self._count([node.lease for node in newest.values()])
        leader = look.leader.lease if look.leader else ""
        self._note_failovers()
        members = {
            name: Member(node.lease, self._owned(name, newest), flights[node.lease], node.lease == leader)
            for name, node in newest.items()
        }
        return Sight(members, waiting)

    def _owned(self, name: str, members: Mapping[str, Node]) -> frozenset[str]:
        return owned_shards(name, self._queues, members.values())

    def _count(self, leases: list[str]) -> tuple[dict[str, int], int]:
        pipeline = self.client.pipeline(transaction=False)
        for lease in leases:
            pipeline.hlen(self._layout.flight(lease))
        for queue, shards in self._queues.items():
            for name in (queue, *shard_names(queue, shards)):
                pipeline.llen(self._layout.prefix + name)
        counts = pipeline.execute()
        return dict(zip(leases, counts, strict=False)), sum(counts[len(leases) :])

    def _note_failovers(self) -> None:
        for record in reversed(self.client.lrange(self._history, 0, -1 - len(self.failovers))):
            entry = json.loads(record)
            fenced, moved = entry["fenced"], entry["recovered"]
            self.failovers.append(
                Failover(
                    node=(fenced["node"] or {}).get("name", "?"),
                    reason=fenced["reason"],
                    noticed=fenced["at"] - self._server_ahead(),
                    finished=time.time(),
                    requeued=moved["requeued"],
                    restarted=moved["restarted"],
                    locks=moved["locks"],
                )
            )

    def _server_ahead(self) -> float:
        """Seconds by which the server's clock is ahead of ours."""
        if self._ahead is None:
            before = time.time()
            seconds, micros = self.client.time()
            self._ahead = seconds + micros / 1e6 - (before + time.time()) / 2
        return self._ahead
