"""What observers, deputies and the leader do about all the others, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_ha.model import DOUBT, Leader, Look, Recovered, Rings, Verdict
from celery_ha.store.base import Court
from celery_ha.store.memory.server import TOMBSTONE_TTL

if TYPE_CHECKING:
    from celery_ha.store.memory.server import MemoryServer
    from celery_ha.store.memory.store import MemoryStore


class MemoryCourt(Court):
    """The court in memory; see :class:`~celery_ha.store.base.Court`."""

    def __init__(self, client: MemoryStore) -> None:
        self._client = client

    def look(self) -> Look:
        started = self._client.now()
        with self._client.call() as server:
            memory = server.memory
            return Look(
                started=started,
                ended=self._client.now(),
                session=self._client.session,
                counters=dict(memory.counters),
                nodes=dict(memory.nodes),
                present=server.present() if server.watchable else None,
                leader=memory.leader,
                fenced=tuple(memory.fenced.values()),
                version=memory.version,
                doubted=frozenset(lease for lease, until in memory.doubts.items() if _counts(until, server.now())),
                rings=dict(memory.rings),
            )

    def elect(self, lease: str) -> int | None:
        with self._client.call() as server:
            leader = server.memory.leader
            if not server.is_open(lease):
                return None
            if leader is not None and leader.lease == lease:
                return leader.term
            if leader is not None and server.is_open(leader.lease):
                return None
            return _take_office(server, lease)

    def depose(self, lease: str, verdict: Verdict, *, term: int, rounds: int, fence: bool) -> int | None:
        with self._client.call() as server:
            leader = server.memory.leader
            if leader is None or not server.is_open(lease):
                return None
            if leader.lease == lease:
                return leader.term
            if (leader.lease, leader.term) != (verdict.lease, term):
                return None
            if fence and not server.as_judged(verdict):
                return None
            if not fence and leader.rounds != rounds:
                return None
            new_term = _take_office(server, lease)
            if fence:
                server.fence_member(verdict.lease, new_term, verdict.reason)
            return new_term

    def finish_round(self, lease: str, term: int) -> bool:
        with self._client.call() as server:
            leader = server.memory.leader
            if leader is None or not _leads(server, lease, term):
                return False
            server.memory.leader = Leader(lease, term, leader.rounds + 1)
            return True

    def keep_rings(self, term: int, by: str, version: int, rings: Rings) -> bool:
        with self._client.call() as server:
            if not _leads(server, by, term) or server.memory.version != version:
                return False
            server.memory.rings = dict(rings)
            return True

    def fence(self, term: int, by: str, verdict: Verdict) -> bool:
        with self._client.call() as server:
            if not _leads(server, by, term):
                return False
            if verdict.lease in server.memory.fenced:
                return True
            if not server.as_judged(verdict):
                return False
            server.fence_member(verdict.lease, term, verdict.reason)
            return True

    def doubt(self, lease: str) -> bool:
        with self._client.call() as server:
            memory, now = server.memory, server.now()
            if not server.is_open(lease):
                return False
            news = not _counts(memory.doubts.get(lease, now), now)
            memory.doubts[lease] = now + DOUBT
            leader = "" if memory.leader is None else memory.leader.lease
            if news:
                memory.bells.update(memory.counters if lease == leader else memory.counters.keys() & {leader})
            return news

    def refuse(self, term: int, by: str, lease: str) -> bool:
        with self._client.call() as server:
            if not _leads(server, by, term) or server.is_open(lease):
                return False
            server.memory.gone[lease] = server.now() + TOMBSTONE_TTL
            return True

    def recovered(self, result: Recovered) -> bool:
        with self._client.call() as server:
            memory = server.memory
            if any(lock.holder.lease == result.lease for lock in memory.locks.values()):
                return False
            fenced = memory.fenced.pop(result.lease, None)
            if fenced is None:
                return False
            memory.gone[result.lease] = server.now() + TOMBSTONE_TTL
            memory.history.append((fenced, result))
            return True


def _counts(until: float, now: float) -> bool:
    """Whether a doubt does; one from before the clock went back does no more than one that is over."""
    return now < until <= now + DOUBT


def _leads(server: MemoryServer, lease: str, term: int) -> bool:
    leader = server.memory.leader
    return leader is not None and (leader.lease, leader.term) == (lease, term) and server.is_open(lease)


def _take_office(server: MemoryServer, lease: str) -> int:
    server.memory.term += 1
    server.memory.leader = Leader(lease=lease, term=server.memory.term)
    return server.memory.term
