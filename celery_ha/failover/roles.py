"""Which part a node plays in one look: pure, and the same on every node that saw the same."""

from __future__ import annotations

from enum import Enum

from celery_ha.model import Look

#: Nodes besides the leader that observe all the time (rule 10).
DEPUTIES = 2


class Role(Enum):
    """What an observer is expected to do."""

    #: Judges everybody, recovers the dead.
    LEADER = "leader"
    #: Observes everybody all the time, so that an election starts with evidence.
    DEPUTY = "deputy"
    #: Looks now and then whether the leader still judges.
    WATCHER = "watcher"


def role_of(look: Look, lease: str) -> Role:
    """The role of a lease, by what one look showed."""
    if look.leader is not None and look.leader.lease == lease:
        return Role.LEADER
    return Role.DEPUTY if lease in deputies(look) else Role.WATCHER


def deputies(look: Look) -> tuple[str, ...]:
    """The next nodes after the leader in the order in which they opened, around the circle.

    While the office is vacant: the longest-serving ones. A process that consumes no queue only
    takes locks; it observes nothing and is passed over.
    """
    order = [lease for _, lease in sorted((node.opened, node.lease) for node in look.nodes.values() if node.queues)]
    leader = look.leader.lease if look.leader is not None else ""
    at = order.index(leader) if leader in order else -1
    circle = order[at + 1 :] + order[: max(at, 0)]
    return tuple(circle[:DEPUTIES])


def vacant(look: Look) -> bool:
    """Whether anybody may be elected: no leader, or one whose lease is not open."""
    return look.leader is None or look.leader.lease not in look.nodes
