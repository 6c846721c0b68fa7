"""Looks at a running fleet from outside: who is a member, what is in flight, what was recovered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery_ha.inspect.desk import Desk
from celery_ha.keys import shard_names
from celery_ha.model import Look
from celery_ha.store.survey import Survey
from celery_ha.worker.shards import owned_shards

#: Recoveries looked at besides those that are known: more than there can be.
MANY = 100


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
    lease: str
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
        app: whose fleet.
        queue: the sharded queue.
        shards: how many shards it has.

    Raises:
        StoreUnavailable: the broker does not answer.
        ConfigError: it is of a kind that cannot be used.
        StoreError: the store cannot tell what was recovered.
    """

    def __init__(self, app: Any, queue: str, shards: int) -> None:
        self._desk = Desk(app)
        self._survey: Survey = self._desk.survey
        self.failovers: list[Failover] = []
        self._queues = {queue: shards}
        self._names = (queue, *shard_names(queue, shards))
        self._ahead: float | None = None

    def see(self) -> Sight:
        """Look once; finished recoveries are noted in :attr:`failovers`."""
        look, census = self._desk.store.court.look(), self._desk.census
        newest = {node.name: node for node in sorted(look.nodes.values(), key=lambda node: (node.opened, node.lease))}
        flights = census.in_flight([node.lease for node in newest.values()])
        leader = look.leader.lease if look.leader else ""
        self._note_failovers()
        members = {
            name: Member(node.lease, self._owned(name, look), flights[node.lease], node.lease == leader)
            for name, node in newest.items()
        }
        return Sight(members, sum(census.waiting(self._names).values()))

    def close(self) -> None:
        """Drop the connections."""
        self._desk.close()

    def _owned(self, name: str, look: Look) -> frozenset[str]:
        return owned_shards(name, self._queues, look.nodes.values(), look.rings)

    def _note_failovers(self) -> None:
        known = {failover.lease for failover in self.failovers}
        for found in reversed(self._survey.failovers(len(known) + MANY)):
            fenced, moved = found.fenced, found.recovered
            if moved.lease in known:
                continue
            self.failovers.append(
                Failover(
                    node=fenced.node.name,
                    lease=moved.lease,
                    reason=fenced.reason,
                    noticed=fenced.at - self._server_ahead(),
                    finished=time.time(),
                    requeued=moved.requeued,
                    restarted=moved.restarted,
                    locks=moved.locks,
                )
            )

    def _server_ahead(self) -> float:
        """Seconds by which the store's clock is ahead of ours."""
        if self._ahead is None:
            before = time.time()
            self._ahead = self._survey.now() - (before + time.time()) / 2
        return self._ahead
