"""Shard → member: a pure function of who is alive, so every node computes the same and nobody assigns.

Each member ranks all shards in an order of its own, drawn by hash, and bids for them one after the
other, at a pace set by its weight; a shard goes to the earliest bid for it. This is rendezvous hashing
(Thaler and Ravishankar 1998) whose scores are the ranks, which halves the variance of the loads. A
member stops bidding when its room is full. Bids are ranked alike by both sides, so taking them in order
yields the one stable matching of shards and members (Gale and Shapley 1962). Bounding the loads at a
small multiple of the fair share is from Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with
Bounded Loads", 2016; their ring moved more than this at every size (see ``benchmarks/ring.py``).

What moves when a member leaves or joins: its own shards, and those that a full member had turned away
and now has room for, or the other way round. From 16 shards a node on, the whole was never measured
above twice what the member owned, nor 1.2 times on average. At 8 shards a node it is 1.4 times on
average, and from 50 nodes on some changes in a thousand move more than twice as much.
"""

from __future__ import annotations

import heapq
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import shake_128
from types import MappingProxyType

from celery_ha.keys import stable_hash

#: No member owns more than this many times its fair share, rounded up. Less room evens the loads out
#: further and moves more shards at each change.
SLACK = Fraction(5, 4)

_SCORES = 1 << 32  #: A score is 32 bits.
_HASHES = 1 << 64  #: So many values has a stable hash.


@dataclass(frozen=True)
class Member:
    """Somebody who takes shards.

    Raises:
        ValueError: a weight below 1.
    """

    #: Unlike any other's.
    name: str
    #: Its part of the shards, relative to the others': its concurrency.
    weight: int = 1

    def __post_init__(self) -> None:
        if self.weight < 1:
            raise ValueError(f"member {self.name!r} has weight {self.weight}; leave out who takes no shards")


@dataclass(frozen=True)
class Ring:
    """Who owns what among some members."""

    members: tuple[Member, ...]
    #: Member by shard, in the order of the shards.
    owners: Mapping[str, str]

    @classmethod
    def of(cls, shards: Sequence[str], members: Iterable[Member]) -> Ring:
        """Assign the shards (see :func:`assign`)."""
        members = tuple(sorted(members, key=lambda member: member.name))
        return cls(members, assign(shards, members))

    def owner(self, shard: str) -> str | None:
        """The member that owns a shard; None if it is not one of these shards, or nobody is there."""
        return self.owners.get(shard)

    def shards_of(self, name: str) -> tuple[str, ...]:
        """The shards of a member."""
        return tuple(shard for shard, owner in self.owners.items() if owner == name)

    def without(self, name: str) -> Ring:
        """The ring if this member were gone: who owns a shard of its in there is its heir."""
        return Ring.of(tuple(self.owners), (member for member in self.members if member.name != name))


def assign(shards: Sequence[str], members: Iterable[Member]) -> Mapping[str, str]:
    """Give every shard to one member.

    The order of the members does not matter. That of the shards does: one added at the end moves few
    of those before it.

    Args:
        shards: names of the shards of one queue. The first tells queues apart, lest the same members
            be the busy ones in all of them.
        members: who is alive.

    Returns:
        Member by shard, immutable; empty if there are no members. Nobody owns more than
        ``ceil(SLACK * fair share)``.

    Raises:
        ValueError: two members have one name.
    """
    ranked = sorted(members, key=lambda member: member.name)
    for one, other in zip(ranked, ranked[1:]):  # noqa: B905  # the last has no other
        if one.name == other.name:
            raise ValueError(f"two members are named {one.name!r}; count each node once")
    owners: dict[int, str] = {}
    if ranked:
        room = _rooms(shards, ranked)
        for _, name, shard in heapq.merge(*(_bids(shards, member, room) for member in ranked)):
            if shard not in owners:
                owners[shard] = name
                room[name] -= 1
                if len(owners) == len(shards):
                    break
    return MappingProxyType({shards[index]: owners[index] for index in sorted(owners)})


def _rooms(shards: Sequence[str], members: Sequence[Member]) -> dict[str, int]:
    """How many shards each member takes at most.

    Whoever is rounded up is spread by hash. Were all rounded up alike, one member more or less could
    change the room of everybody at once, and each would give away a shard.
    """
    total = sum(member.weight for member in members)
    limits = {member.name: SLACK * len(shards) * member.weight / total for member in members}
    rooms = {name: max(1, math.floor(limit + _draw(shards, name, "room"))) for name, limit in limits.items()}
    if sum(rooms.values()) < len(shards):  # a few members with a few shards
        return {name: math.ceil(limit) for name, limit in limits.items()}
    return rooms


def _bids(shards: Sequence[str], member: Member, room: Mapping[str, int]) -> Iterator[tuple[float, str, int]]:
    """When a member bids for which shard, until its room is full: time, member, index of the shard."""
    start = float(_draw(shards, member.name, "start"))
    for rank, shard in enumerate(_wishes(shards, member.name)):
        if not room[member.name]:
            return
        yield (rank + start) / member.weight, member.name, shard


def _wishes(shards: Sequence[str], name: str) -> Iterator[int]:
    """The indexes of all shards in a member's own order, by score; only as far as it is asked for."""
    count = len(shards)
    scores = struct.unpack(f">{count}I", shake_128(f"{shards[0]}\0{name}".encode()).digest(4 * count))
    low, high = 0, 32 * _SCORES // count
    while low < _SCORES:
        near = [index for index, score in enumerate(scores) if low <= score < high]
        yield from sorted(near, key=scores.__getitem__)
        low, high = high, 4 * high


def _draw(shards: Sequence[str], name: str, what: str) -> Fraction:
    """A number from 0 to 1, 1 excluded, that is always the same for a member of a queue."""
    return Fraction(stable_hash(f"{shards[0]}\0{name}\0{what}"), _HASHES)
