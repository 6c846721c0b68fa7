"""Which queues a worker consumes: its base queues and its share of their shards. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from celery_ha.keys import shard_names
from celery_ha.model import Node
from celery_ha.ring import Member, assign


def owned_shards(me: str, queues: Mapping[str, int], nodes: Iterable[Node]) -> frozenset[str]:
    """The shards that the node named ``me`` consumes.

    Every node computes this from the same members, so nobody assigns anything. Where a name is there
    twice, a dead incarnation not yet fenced and its successor, the younger one counts.

    Args:
        queues: shards by sharded queue, of the queues that ``me`` consumes; where another node knows of more, so
            many (rule 16).
        nodes: the registered nodes; one of weight 0 drains and owns nothing.
    """
    known = tuple(nodes)
    newest = youngest(known)
    mine: set[str] = set()
    for queue, count in widened(queues, known).items():
        owners = assign(shard_names(queue, count), members(queue, newest))
        mine.update(shard for shard, owner in owners.items() if owner == me)
    return frozenset(mine)


def standby_shards(me: str, queues: Mapping[str, int], nodes: Iterable[Node]) -> dict[str, str]:
    """The shards that the node named ``me`` would own if their owner were gone, each with that owner."""
    nodes = tuple(nodes)
    queues, known = widened(queues, nodes), youngest(nodes)
    mine, found = owned_shards(me, queues, known), {}
    for other in {node.name for node in known} - {me}:
        inherited = owned_shards(me, queues, [node for node in known if node.name != other]) - mine
        found.update(dict.fromkeys(inherited & owned_shards(other, queues, known), other))
    return found


def widened(queues: Mapping[str, int], nodes: Iterable[Node]) -> dict[str, int]:
    """Shards by queue, as many as any of these nodes knows of."""
    widest = dict(queues)
    for node in nodes:
        widest.update({queue: max(count, widest[queue]) for queue, count in node.shards if queue in widest})
    return widest


def youngest(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """One node of each name, the youngest."""
    return tuple({node.name: node for node in sorted(nodes, key=lambda node: (node.opened, node.lease))}.values())


def members(queue: str, nodes: Iterable[Node]) -> tuple[Member, ...]:
    """Who takes shards of a queue, of nodes with different names."""
    return tuple(Member(node.name, node.weight) for node in nodes if queue in node.queues and node.weight > 0)
