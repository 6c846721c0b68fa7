"""What is known of a fleet, one function a noun, as values that become JSON.

Times are the server's, in seconds since the epoch; durations are seconds; what is not known is None.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from heapq import nsmallest
from typing import Any

from celery_ha import envelope
from celery_ha.brokers.dead import DeadLetter
from celery_ha.inspect.desk import Desk
from celery_ha.model import Failover, HeldLock, Look, Waiter
from celery_ha.ring import Ring

#: How many in line are told for each lock.
FIRST = 10
#: How many of the locks that are waited for, and of the failovers, a snapshot names.
RECENT = 5


def status(desk: Desk) -> dict[str, Any]:
    """The leader, the nodes, the queues, and how much waits elsewhere."""
    look, nodes = desk.look, desk.standings()
    head = next((node for node in nodes if node.leader), None)
    leader = None
    if look.leader is not None and head is not None:
        leader = {"node": head.name, "lease": head.lease, "term": look.leader.term}
    return {
        "store": desk.app.ha.store_url,
        "leader": leader,
        "nodes": [asdict(node) for node in nodes],
        "queues": [asdict(queue) for queue in desk.backlogs()],
        "in_line": sum(desk.lines.values()) if desk.tells else None,
        "dead_letters": len(desk.dead),
    }


def snapshot(desk: Desk) -> dict[str, Any]:
    """All that changes from one moment to the next: :func:`status`, the locks most waited for, the last failovers.

    It is asked again and again, so nothing in it walks through the store. Where the store cannot tell the time, it is
    this machine's.
    """
    return {
        "at": desk.survey.now() if desk.tells else time.time(),
        **status(desk),
        "locks": contended(desk, RECENT) if desk.tells else None,
        "failovers": failovers(desk, RECENT) if desk.tells else None,
    }


def rings(desk: Desk, queue: str | None = None) -> dict[str, Any]:
    """Who consumes which shard and what waits there, of one sharded queue or of all."""
    return {
        name: {
            "shards": desk.shards[name],
            "nodes": owners(ring),
            "waiting": {shard: desk.waiting[shard] for shard in ring.owners if desk.waiting[shard]},
        }
        for name, ring in desk.rings.items()
        if queue in {None, name}
    }


def owners(ring: Ring) -> list[dict[str, Any]]:
    """The shards of each member, by member."""
    names = sorted(member.name for member in ring.members)
    return [{"node": name, "shards": list(ring.shards_of(name))} for name in names]


def locks(desk: Desk, limit: int | None = None) -> dict[str, Any]:
    """Who holds what and who waits for it.

    Args:
        limit: how many slots and how many lines at most, those first that most wait for; None: all.

    Raises:
        StoreError: the store cannot tell.
    """
    survey, names = desk.survey, names_of(desk.look)
    lines, slots = desk.lines, survey.slots()
    longest = nsmallest(limit or len(lines), lines, key=lambda name: (-lines[name], name))
    chosen = nsmallest(limit or len(slots), slots, key=lambda slot: (-lines.get(slot[0], 0), *slot))
    return {
        "total": len(slots),
        "locks": [_slot(lock, names) for lock in survey.locks(chosen)],
        "lines": {
            name: {"waiting": lines[name], "first": [_waiter(each, names) for each in survey.line(name, FIRST)]}
            for name in longest
        },
    }


def contended(desk: Desk, limit: int) -> list[dict[str, Any]]:
    """The locks that most wait for, with who holds the first slot.

    Raises:
        StoreError: the store cannot tell.
    """
    lines, names = desk.lines, names_of(desk.look)
    longest = nsmallest(limit, lines, key=lambda name: (-lines[name], name))
    held = {lock.name: _slot(lock, names) for lock in desk.survey.locks([(name, 0) for name in longest])}
    return [{"name": name, "waiting": lines[name], "holder": held.get(name)} for name in longest]


def letters(desk: Desk, limit: int) -> dict[str, Any]:
    """The newest dead letters and how many there are."""
    return {"total": len(desk.dead), "letters": [letter(each) for each in desk.dead.newest(limit)]}


def letter(dead: DeadLetter) -> dict[str, Any]:
    """What a list says of a letter."""
    payload = dead.claim.payload
    return {
        "id": dead.claim.id,
        "task_id": envelope.task_id(payload),
        "task": envelope.headers(payload).get("task"),
        "queue": dead.queue,
        "at": dead.at,
        "reason": dead.reason,
        "deliveries": envelope.deliveries(payload),
        "unstarted": envelope.unstarted(payload),
        "lease": dead.claim.lease,
        "bytes": len(payload),
    }


def failovers(desk: Desk, limit: int) -> list[dict[str, Any]]:
    """Finished recoveries, the newest first.

    Raises:
        StoreError: the store cannot tell.
    """
    return [_failover(each) for each in desk.survey.failovers(limit)]


def names_of(look: Look) -> dict[str, str]:
    """Names of nodes and other processes, by lease."""
    fenced = {lease.node.lease: lease.node.name for lease in look.fenced}
    return {**fenced, **{node.lease: node.name for node in look.nodes.values()}}


def node_of(lock: HeldLock, names: Mapping[str, str]) -> str | None:
    """Whose it is; None: it is in trust. A process that is not known has the name of its lease."""
    lease = lock.holder.lease
    return names.get(lease, lease) if lease else None


def _slot(lock: HeldLock, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": lock.name,
        "slot": lock.slot,
        "state": "held" if lock.holder.lease else "in trust",
        "node": node_of(lock, names),
        "lease": lock.holder.lease or None,
        "task": lock.holder.task,
        "token": lock.token,
        "since": lock.since,
        "left": lock.left,
    }


def _waiter(waiter: Waiter, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "task": waiter.task,
        "parked": bool(waiter.queue),
        "node": names.get(waiter.lease, waiter.lease) or None,
        "queue": waiter.queue or None,
    }


def _failover(failover: Failover) -> dict[str, Any]:
    fenced, moved = failover.fenced, failover.recovered
    return {
        "node": fenced.node.name,
        "lease": moved.lease,
        "reason": fenced.reason,
        "term": fenced.term,
        "fenced_at": fenced.at,
        "took": None if failover.done is None else max(0.0, failover.done - fenced.at),
        "requeued": moved.requeued,
        "restarted": moved.restarted,
        "locks": moved.locks,
        "queues": dict(moved.queues),
    }
