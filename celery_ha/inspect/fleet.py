"""The fleet at one moment, as people want to see it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from celery_ha.keys import shard_names
from celery_ha.model import Look, Node
from celery_ha.ring import Ring
from celery_ha.rings import ring_of, youngest

#: ``live``; ``connecting``: it starts, or has lost the broker, and others have its shards; ``draining``: it finishes
#: what it runs and takes nothing more; ``cut off``: its lease is open and all its connections are gone; ``fenced``:
#: given up, what it held is on its way to others.
State = Literal["live", "connecting", "draining", "cut off", "fenced"]


@dataclass(frozen=True)
class Standing:
    """One node."""

    name: str
    lease: str
    state: State
    leader: bool
    #: Seconds since its lease was opened, or was fenced; None: unknown.
    age: float | None
    weight: int
    queues: tuple[str, ...]
    #: Shards that it consumes.
    shards: int
    #: Messages that it holds.
    in_flight: int


@dataclass(frozen=True)
class Backlog:
    """One queue, its shards included."""

    queue: str
    #: None: it is not sharded.
    shards: int | None
    #: Messages that nobody has taken.
    waiting: int


def workers(look: Look) -> tuple[Node, ...]:
    """The open leases of workers, oldest first: a process that consumes no queue only takes locks."""
    return tuple(sorted((node for node in look.nodes.values() if node.queues), key=lambda node: node.opened))


def rings(look: Look, shards: Mapping[str, int]) -> Mapping[str, Ring]:
    """Who owns which shard, by sharded queue, as every node works it out."""
    return {queue: ring_of(queue, count, look.nodes.values(), look.rings) for queue, count in shards.items()}


def standings(
    look: Look, owned: Mapping[str, Ring], in_flight: Mapping[str, int], now: float | None
) -> tuple[Standing, ...]:
    """How each node stands.

    Args:
        look: the store.
        owned: see :func:`rings`.
        in_flight: messages by lease.
        now: the store's clock, in seconds; None: unknown.
    """
    newest = {node.lease for node in youngest(look.nodes.values())}

    def standing(node: Node, state: State, since: float) -> Standing:
        own = state != "fenced" and node.lease in newest
        return Standing(
            name=node.name,
            lease=node.lease,
            state=state,
            leader=look.leader is not None and look.leader.lease == node.lease,
            age=None if now is None else max(0.0, now - since),
            weight=node.weight,
            queues=node.queues,
            shards=sum(len(ring.shards_of(node.name)) for ring in owned.values()) if own else 0,
            in_flight=in_flight.get(node.lease, 0),
        )

    there = tuple(standing(node, state_of(node, look.present), node.opened) for node in workers(look))
    return there + tuple(standing(lease.node, "fenced", lease.at) for lease in look.fenced)


def state_of(node: Node, present: frozenset[str] | None) -> State:
    """The state of a node with an open lease.

    Args:
        present: ids of the connections that are there; None: the store cannot say.
    """
    if present is not None and node.connections and not present.intersection(node.connections):
        return "cut off"
    if node.leaving:
        return "draining"
    return "live" if node.weight > 0 else "connecting"


def backlogs(waiting: Mapping[str, int], queues: tuple[str, ...], shards: Mapping[str, int]) -> tuple[Backlog, ...]:
    """Backlog by base queue, from that of the real queues."""
    return tuple(
        Backlog(
            queue,
            shards.get(queue),
            sum(waiting[name] for name in (queue, *shard_names(queue, shards.get(queue, 0)))),
        )
        for queue in queues
    )
