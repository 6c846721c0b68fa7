"""Looks at a running fleet from outside: who is a member, what is in flight, what was recovered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery_ha.brokers.backlog import backlog_of
from celery_ha.brokers.connect import access_to
from celery_ha.keys import shard_names
from celery_ha.model import Look, Node
from celery_ha.store.survey import Survey
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
    lease: str
    reason: str
    #: When it was fenced.
    noticed: float
    #: When we saw that everything had moved.
    finished: float
    #: None: the store does not tell.
    requeued: int | None
    restarted: int | None
    locks: int | None


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
    """

    def __init__(self, app: Any, queue: str, shards: int) -> None:
        access = access_to(app)
        access.once(TIMEOUT)
        access.close()
        self.failovers: list[Failover] = []
        self._court = app.ha.store.court
        self._survey: Survey | None = app.ha.store.survey
        self._broker = app.ha.make_broker(app.ha.store, TIMEOUT)
        self._backlog = backlog_of(app, TIMEOUT)
        self._queues = {queue: shards}
        self._names = (queue, *shard_names(queue, shards))
        self._ahead: float | None = None
        #: Names of leases that were open once, and why and since when some of them are given up.
        self._known: dict[str, str] = {}
        self._fenced: dict[str, tuple[str, float]] = {}

    def see(self) -> Sight:
        """Look once; finished recoveries are noted in :attr:`failovers`."""
        look = self._court.look()
        newest = {node.name: node for node in sorted(look.nodes.values(), key=lambda node: (node.opened, node.lease))}
        leader = look.leader.lease if look.leader else ""
        self._note_failovers(look)
        members = {
            name: Member(node.lease, self._owned(name, newest), self._in_flight(node.lease), node.lease == leader)
            for name, node in newest.items()
        }
        return Sight(members, sum(self._backlog.waiting(self._names).values()))

    def close(self) -> None:
        """Drop the connection that counts."""
        self._backlog.close()

    def _owned(self, name: str, members: Mapping[str, Node]) -> frozenset[str]:
        return owned_shards(name, self._queues, members.values())

    def _in_flight(self, lease: str) -> int:
        return len(self._broker.in_flight(lease))

    def _note_failovers(self, look: Look) -> None:
        if self._survey is not None:
            self._read_history(self._survey)
            return
        # The store keeps no history that can be read: a lease that is gone was recovered, for nobody says goodbye.
        now = time.time()
        fenced = {lease.node.lease: lease for lease in look.fenced}
        for lease, found in fenced.items():
            self._fenced.setdefault(lease, (found.reason, now))
        self._known.update({lease: node.name for lease, node in look.nodes.items()})
        for lease in self._known.keys() - look.nodes.keys() - fenced.keys() - {each.lease for each in self.failovers}:
            reason, noticed = self._fenced.get(lease, ("too quick to be seen", now))
            self.failovers.append(Failover(self._known[lease], lease, reason, noticed, now, None, None, None))

    def _read_history(self, survey: Survey) -> None:
        known = {failover.lease for failover in self.failovers}
        for found in reversed(survey.failovers(len(known) + 100)):
            fenced, moved = found.fenced, found.recovered
            if moved.lease in known:
                continue
            self.failovers.append(
                Failover(
                    node=fenced.node.name,
                    lease=moved.lease,
                    reason=fenced.reason,
                    noticed=fenced.at - self._server_ahead(survey),
                    finished=time.time(),
                    requeued=moved.requeued,
                    restarted=moved.restarted,
                    locks=moved.locks,
                )
            )

    def _server_ahead(self, survey: Survey) -> float:
        """Seconds by which the server's clock is ahead of ours."""
        if self._ahead is None:
            before = time.time()
            self._ahead = survey.now() - (before + time.time()) / 2
        return self._ahead
