"""What a node does about its own lease, in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from celery_ha.errors import Fenced
from celery_ha.model import LeaseState, Node, Renewal
from celery_ha.store.base import LeaseStore

if TYPE_CHECKING:
    from celery_ha.store.memory.server import MemoryServer
    from celery_ha.store.memory.store import MemoryStore


class MemoryLeases(LeaseStore):
    """Leases in memory; see :class:`~celery_ha.store.base.LeaseStore`."""

    def __init__(self, client: MemoryStore) -> None:
        self._client = client
        #: Leases this client opened before: opening one again is a re-assertion.
        self._opened: set[str] = set()

    def open(self, node: Node) -> str:
        with self._client.call() as server:
            memory = server.memory
            if server.is_fenced(node.lease):
                raise Fenced
            memory.epoch = memory.epoch or server.new_epoch()
            memory.longest_ttl = max(memory.longest_ttl, node.ttl)
            if node.lease in self._opened and not server.is_open(node.lease):
                server.begin_quiet_time()
            self._opened.add(node.lease)
            memory.counters[node.lease] = memory.counters.get(node.lease, 0) + 1
            memory.nodes[node.lease] = replace(node, connections=self._client.watched, opened=server.now())
            server.members_changed()
            return memory.epoch

    def renew(self, lease: str) -> Renewal:
        with self._client.call() as server:
            memory = server.memory
            if server.is_open(lease):
                memory.counters[lease] += 1
                server.register_connections(lease, self._client.watched)
            return Renewal(_state(server, lease), memory.epoch, memory.version, memory.leader)

    def update(self, lease: str, weight: int, *, leaving: bool = False) -> bool:
        with self._client.call() as server:
            if not server.is_open(lease):
                return False
            old = server.memory.nodes[lease]
            new = replace(old, weight=weight, leaving=leaving)
            server.memory.nodes[lease] = new
            if new != old:
                server.members_changed()
            return True

    def close(self, lease: str, *, clean: bool) -> bool:
        with self._client.call() as server:
            if not server.is_open(lease):
                return False
            if clean and not any(lock.holder.lease == lease for lock in server.memory.locks.values()):
                server.forget_member(lease)
                server.members_changed()
                if not any(node.runs_tasks for node in server.memory.nodes.values()):
                    server.pour()
                return True
            server.fence_member(lease, 0, "closed with luggage")
            return not clean

    def wait(self, lease: str, timeout: float) -> bool:
        """Answer at once whether the bell was rung: time passes only where the simulation says so."""
        with self._client.call() as server:
            rung = lease in server.memory.bells
            server.memory.bells.discard(lease)
            return rung


def _state(server: MemoryServer, lease: str) -> LeaseState:
    if server.is_open(lease):
        return LeaseState.OPEN
    return LeaseState.FENCED if server.is_fenced(lease) else LeaseState.UNKNOWN
