"""What observers, deputies and the leader do about all the others, in Redis."""

from __future__ import annotations

import json
import logging
import time

from celery_ha.errors import StoreError
from celery_ha.model import Look, Recovered, Rings, Verdict
from celery_ha.store.base import Court
from celery_ha.store.redis.link import Link
from celery_ha.store.redis.records import (
    dump_recovered,
    dump_rings,
    lines,
    load_fenced,
    load_leader,
    load_node,
    load_rings,
    pairs,
)
from celery_ha.store.redis.replicas import Replicas
from celery_ha.store.redis.sight import Sight

log = logging.getLogger(__name__)

#: Finished recoveries to remember, and for how many seconds.
HISTORY_LIMIT = 200
HISTORY_TTL = 7 * 24 * 3600


class RedisCourt(Court):
    """The court in Redis; see :class:`~celery_ha.store.base.Court`.

    A look is two round trips: one script, and ``CLIENT LIST ID`` for the connections it named. Node
    records are sent only when the membership changed.

    Args:
        a: the connection that renews; the office is kept through it too.
        b: the connection that looks.
        replicas: how many must confirm a fence.
    """

    def __init__(self, a: Link, b: Link, replicas: Replicas) -> None:
        self._a = a
        self._b = b
        self._replicas = replicas
        self._sight = Sight("", {}, {}, "")
        self._told = False

    def look(self) -> Look:
        started = time.monotonic()
        answer = self._b.run_script("look", self._sight.seen)
        if self._sight.session != self._b.session and not isinstance(answer[-2], list):
            # A replica that took over without the last changes counts them again, and they are others.
            answer = self._b.run_script("look", "")
        epoch, version, counters, connections, fenced, *leader, doubted, nodes, rings = answer
        if isinstance(nodes, list):
            records = {lease: load_node(lease, record) for lease, record in pairs(nodes).items()}
            seen = f"{epoch.decode()}:{version.decode()}"
            self._sight = Sight(seen, records, load_rings(rings), self._b.session)
        sight = self._sight.with_connections(connections)
        present = self._present(sight)
        return Look(
            started=started,
            ended=time.monotonic(),
            session=self._b.session,
            counters={lease: int(counter) for lease, counter in lines(counters).items()},
            nodes=sight.members,
            present=present,
            leader=load_leader(*leader),
            fenced=tuple(load_fenced(lease, record) for lease, record in pairs(fenced).items()),
            version=int(version),
            doubted=frozenset(lease.decode() for lease in doubted),
            rings=sight.rings,
        )

    def elect(self, lease: str) -> int | None:
        term: int = self._a.run_script("elect", lease)
        return term or None

    def depose(self, lease: str, verdict: Verdict, *, term: int, rounds: int, fence: bool) -> int | None:
        new_term: int = self._a.run_script(
            "depose", lease, verdict.lease, term, rounds, int(fence), *_evidence(verdict)
        )
        if new_term and fence:
            self._replicas.confirm(self._a)
        return new_term or None

    def finish_round(self, lease: str, term: int) -> bool:
        return bool(self._a.run_script("finish_round", lease, term))

    def keep_rings(self, term: int, by: str, version: int, rings: Rings) -> bool:
        return bool(self._a.run_script("keep_rings", by, term, version, dump_rings(rings)))

    def fence(self, term: int, by: str, verdict: Verdict) -> bool:
        fenced = bool(self._a.run_script("fence", by, term, verdict.lease, *_evidence(verdict)))
        if fenced:
            self._replicas.confirm(self._a)
        return fenced

    def doubt(self, lease: str) -> bool:
        return bool(self._a.run_script("doubt", lease))

    def refuse(self, term: int, by: str, lease: str) -> bool:
        refused = bool(self._a.run_script("refuse", by, term, lease))
        if refused:
            self._replicas.confirm(self._a)
        return refused

    def recovered(self, result: Recovered) -> bool:
        done = self._a.run_script("recovered", result.lease, dump_recovered(result), HISTORY_LIMIT, HISTORY_TTL)
        return bool(done)

    def _present(self, sight: Sight) -> frozenset[str] | None:
        """Which registered connections are there; None if we may not ask."""
        if not sight.owners:
            return frozenset()
        try:
            (listed,) = self._b.call(("CLIENT", "LIST", "ID", *sight.owners))
        except StoreError as error:
            self._tell(error)
            return None
        return sight.find(listed)

    def _tell(self, error: StoreError) -> None:
        if not self._told:
            self._told = True
            log.warning("This node cannot see which connections are there; it judges by the TTL alone: %s", error)


def _evidence(verdict: Verdict) -> tuple[int, str, str]:
    return verdict.counter, " ".join(verdict.connections), json.dumps(verdict.reason)
