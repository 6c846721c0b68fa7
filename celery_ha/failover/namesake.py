"""Whether a node's name is taken: two live nodes of one name would both think that they own its shards."""

from __future__ import annotations

from collections.abc import Callable

from celery_ha.errors import DuplicateNode
from celery_ha.model import Look
from celery_ha.store.base import Court

#: Seconds between two looks.
LOOK_EVERY = 0.2


def make_sure_of(name: str, court: Court, *, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    """Return once nobody alive has this name. To be called before a lease is opened under it.

    A predecessor that is dead, or that drains, is no obstacle: what it holds is recovered as anybody's. One
    that cannot be told from the living is watched for its TTL at the most.

    Args:
        name: the Celery node name.
        court: the store.
        clock: seconds, monotonic.
        sleep: waits so many seconds.

    Raises:
        DuplicateNode: a node of this name renews its lease.
        StoreUnavailable: the store was not reached.
    """
    first, began = court.look(), clock()
    look = first
    while (suspect := _suspect(look, name)) is not None:
        if look.counters[suspect] != first.counters.get(suspect, look.counters[suspect]):
            raise DuplicateNode(
                f"another live worker is named {name!r} (lease {suspect}): give this one a name of its own with -n"
            )
        if clock() - began > look.nodes[suspect].ttl:
            return
        sleep(LOOK_EVERY)
        look = court.look()


def _suspect(look: Look, name: str) -> str | None:
    """A lease of this name that may be alive."""
    for lease, node in look.nodes.items():
        gone = look.present is not None and node.connections and look.present.isdisjoint(node.connections)
        if node.name == name and not node.leaving and not gone:
            return lease
    return None
