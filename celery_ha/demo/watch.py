"""Looks at a running fleet from outside: who is a member, what is in flight, what was recovered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from celery_ha import model
from celery_ha.inspect.desk import Desk
from celery_ha.keys import shard_names
from celery_ha.store.survey import Survey
from celery_ha.worker.shards import owned_shards

#: Recoveries looked at: more than there can be.
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
    """Sees what the nodes see, in the app's store and on its broker.

    Args:
        desk: of the demo's app.
        queue: the sharded queue.
        shards: how many shards it has.

    Raises:
        StoreUnavailable: the broker or the store does not answer.
        StoreError: the store cannot tell what was recovered.
    """

    def __init__(self, desk: Desk, queue: str, shards: int) -> None:
        self.failovers: list[Failover] = []
        self._census = desk.census
        self._court = desk.store.court
        self._survey: Survey = desk.survey
        self._queues = {queue: shards}
        self._names = (queue, *shard_names(queue, shards))
        self._ahead: float | None = None

    def see(self) -> Sight:
        """Look once; finished recoveries are noted in :attr:`failovers`."""
        look = self._court.look()
        newest = {node.name: node for node in sorted(look.nodes.values(), key=lambda node: (node.opened, node.lease))}
        flights = self._census.in_flight([node.lease for node in newest.values()])
        waiting = sum(self._census.waiting(self._names).values())
        leader = look.leader.lease if look.leader else ""
        self._note_failovers()
        members = {
            name: Member(node.lease, self._owned(name, newest), flights[node.lease], node.lease == leader)
            for name, node in newest.items()
        }
        return Sight(members, waiting)

    def _owned(self, name: str, members: Mapping[str, model.Node]) -> frozenset[str]:
        return owned_shards(name, self._queues, members.values())

    def _note_failovers(self) -> None:
        found = self._survey.failovers(MANY)
        for entry in reversed(found[: len(found) - len(self.failovers)]):
            fenced, moved = entry.fenced, entry.recovered
            self.failovers.append(
                Failover(
                    node=fenced.node.name,
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
