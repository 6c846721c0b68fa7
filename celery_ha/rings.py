"""The rings of all queues of a fleet, from its nodes and the last rings. Pure.

The leader writes the rings of a fleet down as soon as it has seen a change of members, as the last rings for the
change after it (``Court.keep_rings``), and only if the members are still those it saw. So the version of the membership
alone decides what the rings are, whether a node has read the last ones before they were written down or after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from celery_ha.keys import shard_names
from celery_ha.model import Node, Rings
from celery_ha.ring import Member, Ring


def ring_of(queue: str, count: int, nodes: Iterable[Node], last: Rings) -> Ring:
    """Who owns which shard of a queue.

    Args:
        queue: a sharded queue.
        count: how many shards it has, as far as the caller knows.
        nodes: the registered nodes. Where a name is there twice, a dead incarnation not yet fenced and its
            successor, the younger one counts.
        last: the last rings.
    """
    nodes = tuple(nodes)
    before = last.get(queue, ())[: widest(nodes).get(queue, count)]
    return Ring.of(shard_names(queue, count), members(queue, youngest(nodes)), before)


def following(nodes: Iterable[Node], last: Rings) -> Rings:
    """The rings of every queue that a node shards; what nobody can take stays as it was."""
    nodes, found = tuple(nodes), {}
    for queue, count in widest(nodes).items():
        owners = tuple(ring_of(queue, count, nodes, last).owners.values())
        if owners or queue in last:
            found[queue] = owners or last[queue]
    return found


def widest(nodes: Iterable[Node]) -> dict[str, int]:
    """Shards by queue, as many as any of these nodes knows of."""
    found: dict[str, int] = {}
    for node in nodes:
        found.update({queue: max(count, found.get(queue, 0)) for queue, count in node.shards})
    return found


def youngest(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """One node of each name, the youngest."""
    return tuple({node.name: node for node in sorted(nodes, key=lambda node: (node.opened, node.lease))}.values())


def members(queue: str, nodes: Iterable[Node]) -> tuple[Member, ...]:
    """Who takes shards of a queue, of nodes with different names.

    A worker that consumes the queue and does not know it as sharded takes none.
    """
    return tuple(Member(node.name, node.weight) for node in nodes if node.weight > 0 and queue in dict(node.shards))


def pack(rings: Rings) -> dict[str, Any]:
    """Rings as a record has them: each name once, because a znode has room for a megabyte."""
    names = sorted({name for owners in rings.values() for name in owners})
    places = {name: place for place, name in enumerate(names)}
    return {"nodes": names, "rings": {queue: [places[name] for name in owners] for queue, owners in rings.items()}}


def unpack(fields: Mapping[str, Any]) -> Rings:
    """Rings from a record.

    Raises:
        KeyError, TypeError, IndexError, AttributeError: it is none.
    """
    names = [str(name) for name in fields["nodes"]]
    return {str(queue): tuple(names[place] for place in places) for queue, places in fields["rings"].items()}
