"""Shard → member: a pure function of who is alive, so every node computes the same and nobody assigns.

Each member has an order of its own of all shards, drawn by hash, and bids for them one after the other
at a pace set by its weight. A shard goes to the earliest bid for it. A member whose room is full bids no
more. This is the stable matching (Gale and Shapley, 1962) of members and shards by rendezvous scores
(Thaler and Ravishankar, 1998), where the score is the rank in the member's order: half the variance of
independent scores. The bound on each load is from "Consistent Hashing with Bounded Loads" (Mirrokni,
Thorup and Zadimoghaddam, 2016); on their ring, where a full node hands on to the next, each change moved
more shards in every setting tried.

When a member leaves, its own shards move, and those that a full member had turned away and now has room
for; a join is the same backwards. ``benchmarks/ring.py`` measures it: from 16 shards a member on, 1.2
times what the member owned on average, and never more than twice that was seen. With 8 to 10 shards for
each of 50 members and more it is 1.4 times, and one change in a hundred moves more than twice as much.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import shake_128
from itertools import pairwise
from types import MappingProxyType

from celery_ha.keys import stable_hash

#: No member owns more than this many times its fair share, rounded up. With less, loads are more even and
#: each change moves more.
SLACK = Fraction(5, 4)


@dataclass(frozen=True)
class Member:
    """Somebody who takes shards.

    Raises:
        ValueError: a weight below 1.
    """

    #: Unlike any other's.
    name: str
    #: Its part relative to the others': its concurrency.
    weight: int = 1

    def __post_init__(self) -> None:
        if self.weight < 1:
            raise ValueError(f"member {self.name!r} has weight {self.weight}; leave out who takes no shards")


@dataclass(frozen=True)
class Ring:
    """Who owns what."""

    members: tuple[Member, ...]
    #: Member by shard, in the order of the shards.
    owners: Mapping[str, str]

    @classmethod
    def of(cls, shards: Sequence[str], members: Iterable[Member]) -> Ring:
        """Assign the shards, see :func:`assign`."""
        members = tuple(members)
        return cls(members, assign(shards, members))

    def owner(self, shard: str) -> str | None:
        """The owner of a shard; None if there are no members, or no such shard."""
        return self.owners.get(shard)

    def shards_of(self, name: str) -> tuple[str, ...]:
        """The shards of a member, in the order of the shards."""
        return tuple(shard for shard, owner in self.owners.items() if owner == name)

    def without(self, name: str) -> Ring:
        """The ring once a member is gone: whoever owns its shards there is their heir."""
        members = tuple(member for member in self.members if member.name != name)
        return Ring(members, assign(tuple(self.owners), members))


def assign(shards: Sequence[str], members: Iterable[Member]) -> Mapping[str, str]:
    """Give each shard to one member.

    The order of the members does not matter. That of the shards does, but few owners change when more
    are added at the end. Versions that give different answers must not run in one fleet.

    Args:
        shards: the shards of one queue. The first tells queues apart, so that it is not the same members
            that own most in each.
        members: who is alive.

    Returns:
        Member by shard, immutable; empty without members.

    Raises:
        ValueError: two members have one name.
    """
    ranked = sorted(members, key=lambda member: member.name)
    for one, next_one in pairwise(ranked):
        if one.name == next_one.name:
            raise ValueError(f"two members are named {one.name!r}; count each node once")
    if not ranked or not shards:
        return MappingProxyType({})
    owners = _auction(shards, ranked)
    return MappingProxyType({shard: owners[index] for index, shard in enumerate(shards)})


def _auction(shards: Sequence[str], members: Sequence[Member]) -> dict[int, str]:
    room = _rooms(shards, members)
    owners: dict[int, str] = {}
    for _, name, index in heapq.merge(*(_bids(shards, member, room) for member in members)):
        if index not in owners:
            owners[index] = name
            room[name] -= 1
            if len(owners) == len(shards):
                break
    return owners


def _rooms(shards: Sequence[str], members: Sequence[Member]) -> dict[str, int]:
    """How many shards each member takes at most.

    Hashes decide who is rounded up. Were everybody rounded alike, one member more or less would at times
    change everybody's room at once. More are rounded up than the fraction says: where there is more
    room, a change moves less.
    """
    total = sum(member.weight for member in members)
    limits = {member.name: SLACK * len(shards) * member.weight / total for member in members}
    rooms = {name: max(1, _rounded(limit, _draw(shards, name, "room"))) for name, limit in limits.items()}
    if sum(rooms.values()) < len(shards):  # only with fewer than 4 shards a member
        return {name: math.ceil(limit) for name, limit in limits.items()}
    return rooms


def _rounded(limit: Fraction, draw: Fraction) -> int:
    whole, part = divmod(limit, 1)
    return whole + (draw < part * (4 - part) / 3)


def _bids(shards: Sequence[str], member: Member, room: Mapping[str, int]) -> Iterator[tuple[float, str, int]]:
    """When a member bids for what, until it has no room left: time, member, place of the shard."""
    start = float(_draw(shards, member.name, "start"))
    for rank, index in enumerate(_wishes(shards, member.name)):
        if room[member.name] == 0:
            return
        yield (rank + start) / member.weight, member.name, index


def _wishes(shards: Sequence[str], name: str) -> Iterator[int]:
    """All shards in a member's own order, which is not worked out further than it is read.

    They are ordered by a byte of hash each; those with the same byte in turn, from a place of the member's.
    """
    scores = shake_128(f"{shards[0]}\0{name}".encode()).digest(len(shards))
    first = math.floor(_draw(shards, name, "first") * len(shards))
    turned = scores[first:] + scores[:first]
    for score in range(256):
        place = turned.find(score)
        while place >= 0:
            yield (first + place) % len(shards)
            place = turned.find(score, place + 1)


def _draw(shards: Sequence[str], name: str, what: str) -> Fraction:
    """A number in [0, 1) that is always the same for a member of a queue."""
    return Fraction(stable_hash(f"{shards[0]}\0{name}\0{what}"), 1 << 64)
