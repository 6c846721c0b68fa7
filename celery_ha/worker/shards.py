"""Which queues a worker consumes: its base queues and its share of their shards. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from celery_ha.model import Node, Rings
from celery_ha.rings import ring_of, widest

#: Nothing was written down yet.
NO_RINGS: Rings = MappingProxyType({})


def owned_shards(me: str, queues: Mapping[str, int], nodes: Iterable[Node], last: Rings = NO_RINGS) -> frozenset[str]:
    """The shards that the node named ``me`` consumes.

    Every node computes this from the same members and the same last rings, so nobody assigns anything.

    Args:
        me: whose.
        queues: shards by sharded queue, of the queues that ``me`` consumes; where another node knows of more, so
            many (rule 16).
        nodes: the registered nodes; one of weight 0 owns nothing.
        last: the last rings, as they were read together with the nodes.
    """
    nodes = tuple(nodes)
    return frozenset().union(
        *(ring_of(queue, count, nodes, last).shards_of(me) for queue, count in widened(queues, nodes).items())
    )


def standby_shards(me: str, queues: Mapping[str, int], nodes: Iterable[Node], last: Rings = NO_RINGS) -> dict[str, str]:
    """The shards that the node named ``me`` would own if their owner were gone, each with that owner."""
    nodes, found = tuple(nodes), {}
    for queue, count in widened(queues, nodes).items():
        ring = ring_of(queue, count, nodes, last)
        for other in {member.name for member in ring.members} - {me}:
            inherited = ring.without(other).shards_of(me)
            found.update({shard: other for shard in inherited if ring.owner(shard) == other})
    return found


def widened(queues: Mapping[str, int], nodes: Iterable[Node]) -> dict[str, int]:
    """Shards by queue, as many as any of these nodes knows of."""
    known = widest(nodes)
    return {queue: max(count, known.get(queue, 0)) for queue, count in queues.items()}
