"""Parked messages, where broker and store are in one memory."""

from __future__ import annotations

from celery_ha.brokers.memory import MemoryBrokerServer
from celery_ha.model import Holder, Parked
from celery_ha.store.base import Parking
from celery_ha.store.memory.locks import end_claims, free_lock, is_due_to, serve_line, stand_in_line
from celery_ha.store.memory.server import Waiter
from celery_ha.store.memory.store import MemoryStore


class MemoryParking(Parking):
    """See :class:`~celery_ha.store.base.Parking`.

    Args:
        client: the store.
        broker: the broker.
    """

    def __init__(self, client: MemoryStore, broker: MemoryBrokerServer) -> None:
        self._client = client
        self._broker = broker

    def park(self, name: str, holder: Holder, *, limit: int, inherit: float) -> Parked:
        broker = self._broker
        with self._client.call() as server, broker.mutex:
            if holder.lease not in broker.open or holder.claim not in broker.flights[holder.lease]:
                return Parked.GONE
            slots = [(name, number) for number in range(limit)]
            locks = server.memory.locks
            own = any(slot in locks and locks[slot].holder.claim == holder.claim for slot in slots)
            if own or any(is_due_to(server, slot, holder.task) for slot in slots):
                return Parked.DUE
            claim = broker.flights[holder.lease].pop(holder.claim)
            waiter = Waiter(
                holder,
                inherit,
                wake=lambda: broker.queue(claim.source).appendleft(claim.payload),
                payload=claim.payload,
                since=server.now(),
            )
            stand_in_line(server, name, limit, waiter)
            end_claims(server, (holder.claim,))
            # All or none: what was kept for it meanwhile is for others while it waits here.
            for slot in [slot for slot, lock in locks.items() if lock.holder == Holder("", "", holder.task)]:
                free_lock(server, slot)
            serve_line(server, name, limit)
            return Parked.PARKED
