"""What observers, deputies and the leader do about all the others, in ZooKeeper."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from celery_ha.model import FencedLease, Leader, Look, Node, Recovered, Rings, Verdict
from celery_ha.store.base import Court
from celery_ha.store.zookeeper.broom import Broom
from celery_ha.store.zookeeper.clock import Clock
from celery_ha.store.zookeeper.leases import fence_ops
from celery_ha.store.zookeeper.link import Link, children, exists, get, sync
from celery_ha.store.zookeeper.ops import Check, Create, Delete, Op, Write, absent
from celery_ha.store.zookeeper.records import (
    dump_failover,
    dump_leader,
    dump_rings,
    load_fenced,
    load_leader,
    load_node,
    load_rings,
)
from celery_ha.store.zookeeper.znodes import Paths, lease_of

#: Seconds for which the fence of a recovered lease is told apart from an unknown lease.
TOMBSTONE_TTL = 3600.0
#: Finished recoveries to remember, and for how many seconds.
HISTORY_LIMIT = 200
HISTORY_TTL = 7 * 24 * 3600.0


@dataclass(frozen=True)
class _Office:
    """The leader's record, and as which version it was read; -1: there is none yet."""

    leader: Leader
    version: int


class ZooKeeperCourt(Court):
    """The court in ZooKeeper; see :class:`~celery_ha.store.base.Court`.

    Args:
        a: the session that renews; the office is kept through it too.
        b: the session that looks.
        paths: where our znodes are.
        clock: the server's time.
    """

    def __init__(self, a: Link, b: Link, paths: Paths, clock: Clock) -> None:
        self._a = a
        self._b = b
        self._paths = paths
        self._tombstones = Broom(a, clock, paths.at("gone"), TOMBSTONE_TTL)
        self._history = Broom(a, clock, paths.at("history"), HISTORY_TTL, HISTORY_LIMIT)

    def look(self) -> Look:
        started = time.monotonic()
        paths = self._paths
        self._b.announce()
        session = self._b.session
        # A lease that is fenced meanwhile is seen twice rather than not at all. The version first: what changes
        # meanwhile makes the look one of an old version, and nobody writes rings down by that.
        _, version, rings, leases, fenced, connections, office = self._b.ask(
            sync(paths.root),
            exists(paths.at("version")),
            get(paths.at("rings")),
            children(paths.at("leases")),
            children(paths.at("fenced")),
            children(paths.at("conns")),
            get(paths.at("leader")),
        )
        found = self._each("leases", leases)
        nodes = {lease_of(name): load_node(lease_of(name), data, stat.ctime) for name, (data, stat) in found}
        records = [load_fenced(data, stat.ctime) for _, (data, stat) in self._each("fenced", fenced)]
        for record in records:
            nodes.pop(record.node.lease, None)
        counters = {lease_of(name): stat.version for name, (_, stat) in found if lease_of(name) in nodes}
        registered = {connection for node in nodes.values() for connection in node.connections}
        leader = load_leader(office[0]) if office is not None else None
        return Look(
            started=started,
            ended=time.monotonic(),
            session=session,
            counters=counters,
            nodes=nodes,
            present=frozenset(registered.intersection(connections or ())),
            leader=leader if leader is not None and leader.lease else None,
            fenced=tuple(sorted(records, key=_when)),
            version=version.version if version is not None else 0,
            rings=load_rings(rings[0]) if rings is not None else {},
        )

    def elect(self, lease: str) -> int | None:
        def attempt() -> int | None:
            office = self._office()
            if not self._is_open(lease):
                return None
            if office.leader.lease == lease:
                return office.leader.term
            if office.leader.lease and self._is_open(office.leader.lease):
                return None
            return self._take_office(office, lease)

        return self._a.persist(attempt)

    def depose(self, lease: str, verdict: Verdict, *, term: int, rounds: int, fence: bool) -> int | None:
        def attempt() -> int | None:
            office = self._office()
            leader = office.leader
            if not leader.lease or not self._is_open(lease):
                return None
            if leader.lease == lease:
                return leader.term
            if (leader.lease, leader.term) != (verdict.lease, term):
                return None
            if not fence:
                return self._take_office(office, lease) if leader.rounds == rounds else None
            node = self._as_judged(verdict)
            if node is None:
                return None
            ops = fence_ops(self._paths, node, verdict.counter, leader.term + 1, verdict.reason)
            return self._take_office(office, lease, *ops, Write(self._paths.at("version")))

        return self._a.persist(attempt)

    def finish_round(self, lease: str, term: int) -> bool:
        def attempt() -> bool:
            office = self._office()
            if not self._leads(office, lease, term):
                return False
            done = replace(office.leader, rounds=office.leader.rounds + 1)
            self._a.commit(
                Check(self._paths.lease(lease)), Write(self._paths.at("leader"), dump_leader(done), office.version)
            )
            return True

        return self._a.persist(attempt)

    def keep_rings(self, term: int, by: str, version: int, rings: Rings) -> bool:
        paths = self._paths

        def attempt() -> bool:
            office = self._office()
            (stat,) = self._a.ask(exists(paths.at("version")))
            if not self._leads(office, by, term) or stat is None or stat.version != version:
                return False
            self._a.commit(
                Check(paths.lease(by)),
                Check(paths.at("version"), version),
                Write(paths.at("rings"), dump_rings(rings)),
            )
            return True

        return self._a.persist(attempt)

    def fence(self, term: int, by: str, verdict: Verdict) -> bool:
        paths = self._paths

        def attempt() -> bool:
            office = self._office()
            (fenced,) = self._a.ask(exists(paths.fence(verdict.lease)))
            if not self._leads(office, by, term):
                return False
            if fenced is not None:
                return True
            node = self._as_judged(verdict)
            if node is None:
                return False
            self._a.commit(
                Check(paths.lease(by)),
                Check(paths.at("leader"), office.version),
                *fence_ops(paths, node, verdict.counter, term, verdict.reason),
                Write(paths.at("version")),
            )
            return True

        return self._a.persist(attempt)

    def refuse(self, term: int, by: str, lease: str) -> bool:
        paths = self._paths

        def attempt() -> bool:
            office = self._office()
            if not self._leads(office, by, term) or self._is_open(lease):
                return False
            (tombstone,) = self._a.ask(exists(paths.tombstone(lease)))
            self._a.commit(
                Check(paths.lease(by)),
                Check(paths.at("leader"), office.version),
                *absent(paths.lease(lease)),
                *_renewed(paths.tombstone(lease), there=tombstone is not None),
            )
            return True

        refused = self._a.persist(attempt)
        self._tombstones.sweep()
        return refused

    def recovered(self, result: Recovered) -> bool:
        paths, lease = self._paths, result.lease

        def attempt() -> bool:
            fenced, held, tombstone = self._a.ask(
                get(paths.fence(lease)), children(paths.hand(lease)), exists(paths.tombstone(lease))
            )
            if fenced is None or held:
                return False
            data, stat = fenced
            entry = dump_failover(load_fenced(data, stat.ctime), result)
            self._a.commit(
                *(() if held is None else (Delete(paths.hand(lease)),)),
                Delete(paths.fence(lease)),
                *_renewed(paths.tombstone(lease), there=tombstone is not None),
                Create(paths.at("history") + "/h-", entry, numbered=True),
            )
            return True

        done = self._a.persist(attempt)
        self._tombstones.sweep()
        self._history.sweep()
        return done

    def _each(self, folder: str, names: Iterable[str] | None) -> list[tuple[str, tuple[bytes, Any]]]:
        """What is under a folder, without what has gone since it was listed."""
        listed = sorted(names or ())
        answers = self._b.ask(*(get(f"{self._paths.at(folder)}/{name}") for name in listed))
        return [(name, answer) for name, answer in zip(listed, answers, strict=True) if answer is not None]

    def _office(self) -> _Office:
        (found,) = self._a.ask(get(self._paths.at("leader")))
        if found is None:
            return _Office(Leader("", 0), -1)
        data, stat = found
        return _Office(load_leader(data), stat.version)

    def _is_open(self, lease: str) -> bool:
        (stat,) = self._a.ask(exists(self._paths.lease(lease)))
        return stat is not None

    def _leads(self, office: _Office, lease: str, term: int) -> bool:
        return (office.leader.lease, office.leader.term) == (lease, term) and self._is_open(lease)

    def _as_judged(self, verdict: Verdict) -> Node | None:
        """The node, if its lease still shows the evidence it was judged by."""
        (found,) = self._a.ask(get(self._paths.lease(verdict.lease)))
        if found is None:
            return None
        data, stat = found
        node = load_node(verdict.lease, data, stat.ctime)
        return node if (stat.version, node.connections) == (verdict.counter, verdict.connections) else None

    def _take_office(self, office: _Office, lease: str, *more: Op) -> int:
        path, term = self._paths.at("leader"), office.leader.term + 1
        record = dump_leader(Leader(lease, term))
        write: Op = Create(path, record) if office.version < 0 else Write(path, record, office.version)
        self._a.commit(Check(self._paths.lease(lease)), write, *more)
        return term


def _renewed(path: str, *, there: bool) -> tuple[Op, ...]:
    """Make a znode anew: its age counts from now."""
    return (Delete(path), Create(path)) if there else (Create(path),)


def _when(fenced: FencedLease) -> tuple[float, str]:
    return fenced.at, fenced.node.lease
