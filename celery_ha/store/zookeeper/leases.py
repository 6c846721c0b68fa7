"""What a node does about its own lease, in ZooKeeper."""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import replace
from time import monotonic
from typing import Any

from celery_ha.errors import Fenced, StoreUnavailable
from celery_ha.model import Leader, LeaseState, Node, Renewal
from celery_ha.store.base import LeaseStore
from celery_ha.store.zookeeper.clock import Clock
from celery_ha.store.zookeeper.link import Conflict, Link, children, exists, get
from celery_ha.store.zookeeper.ops import Check, Create, Delete, Op, Write, absent
from celery_ha.store.zookeeper.records import dump_fenced, dump_leader, dump_node, load_leader, load_node
from celery_ha.store.zookeeper.znodes import Paths


class ZooKeeperLeases(LeaseStore):
    """Leases in ZooKeeper; see :class:`~celery_ha.store.base.LeaseStore`.

    Args:
        a: the session that renews.
        b: the session that looks and waits; both are registered for the lease.
        paths: where our znodes are.
        clock: the server's time.
        timeout: seconds for every call; a wait is cut into pieces shorter than that.
    """

    def __init__(self, a: Link, b: Link, paths: Paths, clock: Clock, timeout: float) -> None:
        self._a = a
        self._b = b
        self._paths = paths
        self._clock = clock
        self._slice = timeout / 2
        self._opened: set[str] = set()
        #: What this process last wrote about its leases, and as which version.
        self._known: dict[str, tuple[Node, int]] = {}
        #: The membership that each lease was told of.
        self._heard: dict[str, tuple[int, int]] = {}
        self._bell = threading.Event()

    @property
    def notice(self) -> float:
        """The timeout of the session that renews: it outlives the last renewal by that much, and keeps the lease."""
        return self._a.granted

    def open(self, node: Node) -> str:
        self._a.announce()
        self._b.announce()
        epoch = self._a.persist(lambda: self._open(node))
        self._opened.add(node.lease)
        return epoch

    def renew(self, lease: str) -> Renewal:
        self._a.announce()
        is_open = self._a.persist(lambda: self._renewed(lease))
        paths = self._paths
        fence, tombstone, epoch, version, leader = self._a.ask(
            exists(paths.fence(lease)),
            exists(paths.tombstone(lease)),
            get(paths.at("epoch")),
            exists(paths.at("version")),
            get(paths.at("leader")),
        )
        state = LeaseState.OPEN if is_open else LeaseState.FENCED if fence or tombstone else LeaseState.UNKNOWN
        in_office = load_leader(leader[0]) if leader is not None else None
        return Renewal(
            state,
            epoch[0].decode() if epoch is not None else "",
            version.version if version is not None else 0,
            in_office if in_office is not None and in_office.lease else None,
        )

    def update(self, lease: str, weight: int, *, leaving: bool = False) -> bool:
        def attempt() -> bool:
            found = self._read(lease)
            if found is None:
                return False
            old, version = found
            new = replace(old, weight=weight, leaving=leaving)
            if new != old:
                self._write(new, version, Write(self._paths.at("version")))
            return True

        return self._a.persist(attempt)

    def close(self, lease: str, *, clean: bool) -> bool:
        paths = self._paths

        def attempt() -> bool:
            found = self._read(lease)
            if found is None:
                return False
            node, version = found
            (held,) = self._a.ask(children(paths.hand(lease)))
            leave = vacate(self._a, paths, lease)
            changed = Write(paths.at("version"))
            if clean and not held:
                # The list of what it holds is deleted first: it may not be, if there is anything in it.
                hand = () if held is None else (Delete(paths.hand(lease)),)
                self._a.commit(*hand, Delete(paths.lease(lease), version), *leave, changed)
                return True
            self._a.commit(*fence_ops(paths, node, version, 0, "closed with luggage"), *leave, changed)
            return not clean

        self._known.pop(lease, None)
        self._heard.pop(lease, None)
        return self._a.persist(attempt)

    def wait(self, lease: str, timeout: float) -> bool:
        deadline = monotonic() + timeout
        with self._b.ringing(self._bell):
            session = None
            while True:
                self._bell.clear()
                (stat,) = self._b.ask(exists(self._paths.at("version"), self._ring))
                now = (0, 0) if stat is None else (stat.czxid, stat.version)
                if self._heard.get(lease) != now:
                    self._heard[lease] = now
                    return True
                # Whoever lost the connection has missed what happened meanwhile, and trusts nothing.
                if session not in {None, self._b.session}:
                    raise StoreUnavailable("the connection to the store was lost")
                session = self._b.session
                left = deadline - monotonic()
                if left <= 0:
                    return False
                self._bell.wait(min(left, self._slice))

    def _open(self, node: Node) -> str:
        paths, lease = self._paths, node.lease
        old, fence, tombstone, hand, epoch, quiet = self._a.ask(
            exists(paths.lease(lease)),
            exists(paths.fence(lease)),
            exists(paths.tombstone(lease)),
            exists(paths.hand(lease)),
            get(paths.at("epoch")),
            get(paths.at("quiet")),
        )
        if fence is not None or tombstone is not None:
            raise Fenced
        name = epoch[0] if epoch is not None else secrets.token_hex(8).encode()
        ops: list[Op] = [*absent(paths.fence(lease)), *absent(paths.tombstone(lease))]
        if epoch is None:
            ops.append(Create(paths.at("epoch"), name))
        if hand is None:
            ops.append(Create(paths.hand(lease)))
        if old is None and lease in self._opened:
            ops.append(self._hush(quiet, node.ttl))
        ops.append(Write(paths.at("version")))
        node = replace(node, connections=self._connections())
        if old is None:
            self._commit(node, *ops, Create(paths.lease(lease), dump_node(node)))
        else:
            self._write(node, old.version, *ops)
        return name.decode()

    def _hush(self, quiet: tuple[bytes, object] | None, ttl: float) -> Op:
        """Grant no lock for a TTL: the store lost its memory, and who holds what is not known yet (rule 12)."""
        until = self._clock.read()[1] + ttl
        if quiet is None:
            return Create(self._paths.at("quiet"), json.dumps(until).encode())
        return Write(self._paths.at("quiet"), json.dumps(max(until, json.loads(quiet[0]))).encode())

    def _renewed(self, lease: str) -> bool:
        found = self._known.get(lease) or self._read(lease)
        if found is None:
            return False
        node, version = found
        self._write(replace(node, connections=self._connections()), version)
        return True

    def _read(self, lease: str) -> tuple[Node, int] | None:
        (found,) = self._a.ask(get(self._paths.lease(lease)))
        if found is None:
            return None
        data, stat = found
        return load_node(lease, data, stat.ctime), stat.version

    def _write(self, node: Node, version: int, *more: Op) -> None:
        """Replace the record of a node: its version is the counter of its renewals."""
        self._known.pop(node.lease, None)
        stat = self._commit(node, *more, Write(self._paths.lease(node.lease), dump_node(node), version))
        self._known[node.lease] = node, stat.version

    def _commit(self, node: Node, *ops: Op) -> Any:
        """Write, if the connections that are registered are there; returns what the last operation answered."""
        try:
            checks = [Check(self._paths.connection(connection)) for connection in node.connections]
            return self._a.commit(*checks, *ops)[-1]
        except Conflict as conflict:
            for link in (self._a, self._b):
                if conflict.op == Check(self._paths.connection(link.connection)):
                    link.not_announced()
            self._a.announce()
            raise

    def _connections(self) -> tuple[str, ...]:
        """The sessions to register: both or none, because one alone proves nothing (rule 3)."""
        ids = (self._a.connection, self._b.connection)
        return ids if all(ids) else ()

    def _ring(self, _event: object) -> None:
        self._bell.set()


def fence_ops(paths: Paths, node: Node, version: int, term: int, reason: str) -> tuple[Op, Op]:
    """Move a lease from the open ones to the fenced ones, if it is still at this version."""
    return (
        Delete(paths.lease(node.lease), version),
        Create(paths.fence(node.lease), dump_fenced(node, term, reason)),
    )


def vacate(link: Link, paths: Paths, lease: str) -> tuple[Op, ...]:
    """Leave the office, if it is this lease's; the term stays, so that the next one is larger."""
    (found,) = link.ask(get(paths.at("leader")))
    if found is None:
        return ()
    data, stat = found
    leader = load_leader(data)
    if leader.lease != lease:
        return ()
    return (Write(paths.at("leader"), dump_leader(Leader("", leader.term)), stat.version),)
