"""Shard → member: worked out from who is alive and the last ring, so every node computes the same and nobody assigns.

How many shards a member owns follows from the members alone: they are the seats of Webster's apportionment
(Sainte-Laguë), given out one after the other. Where a member leaves, everybody else has as many seats or
more; where one joins, as many or fewer (Balinski and Young, *Fair Representation*, 1982: a divisor method is
coherent). Which shards they are, the last ring says: whoever owned a shard keeps it while it has a seat for
it, and what is left over goes to the seats that are free. So a change moves what the leaver owned or what the
joiner gets, and nothing else. ``benchmarks/ring.py`` measures it.

Without the last ring nobody can promise that. A rule that knows the members' names alone is, by Ramsey's
theorem, one that goes by their order for some names; then a shard that stays where it is when the first of them
leaves moves when the last one does, so one of the two moves half of all shards. The ring before this one was
such a rule (a stable matching by hashes): with 8 shards for each of 50 members, one change in 200 moved more
than twice the least.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import heapify, heappop, heappush
from itertools import islice, pairwise
from types import MappingProxyType

from celery_ha.keys import stable_hash

#: No member owns more than this many times its fair share, rounded up.
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
    def of(cls, shards: Sequence[str], members: Iterable[Member], last: Sequence[str] = ()) -> Ring:
        """Assign the shards, see :func:`assign`."""
        members = tuple(members)
        return cls(members, assign(shards, members, last))

    def owner(self, shard: str) -> str | None:
        """The owner of a shard; None if there are no members, or no such shard."""
        return self.owners.get(shard)

    def shards_of(self, name: str) -> tuple[str, ...]:
        """The shards of a member, in the order of the shards."""
        return tuple(shard for shard, owner in self.owners.items() if owner == name)

    def among(self, members: Iterable[Member]) -> Ring:
        """The ring that follows once these are the members."""
        return Ring.of(tuple(self.owners), members, tuple(self.owners.values()))

    def without(self, name: str) -> Ring:
        """The ring once a member is gone: whoever owns its shards there is their heir."""
        return self.among(member for member in self.members if member.name != name)


def assign(shards: Sequence[str], members: Iterable[Member], last: Sequence[str] = ()) -> Mapping[str, str]:
    """Give each shard to one member.

    The order of the members does not matter. Assigning again with the answer as the last ring changes nothing,
    so it does not matter either whether a node has seen that answer written down. More shards at the end
    leave the others where they are. Versions that give different answers must not run in one fleet.

    Args:
        shards: the shards of one queue. The first tells queues apart, so that it is not the same members
            that own most in each.
        members: who is alive.
        last: who owned each shard in the last ring, of fewer shards or of more; empty: there is none.

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
    seats = tuple(islice(_seats(shards[0], ranked), max(len(shards), len(last))))
    owners = (*_settled(last, seats[: len(last)]), *seats[len(last) :])
    return MappingProxyType(dict(zip(shards, owners, strict=False)))


def _seats(queue: str, members: Iterable[Member]) -> Iterator[str]:
    """Whose seat is the next, for ever: the first so many are the seats of so many shards."""
    total = sum(member.weight for member in members)
    # Equal fractions are equal floats on every machine; hashes break the ties.
    queued = [(1 / (2 * each.weight), stable_hash(f"{queue}\0{each.name}"), each, 0) for each in members]
    heapify(queued)
    given = 0
    while True:
        given += 1
        full = []
        while not _has_room(queued[0][2].weight, queued[0][3], given, total):
            full.append(heappop(queued))
        _, tie, member, held = heappop(queued)
        yield member.name
        for each in (*full, ((2 * held + 3) / (2 * member.weight), tie, member, held + 1)):
            heappush(queued, each)


def _has_room(weight: int, held: int, given: int, total: int) -> bool:
    """Whether one more is within the bound, of so many given so far. Somebody always has room.

    With fewer shards than the weights add up to, the bound can make a change move a shard that need not (19 of 900,000
    changes drawn by chance, none with 8 shards a member and more).
    """
    return held * total * SLACK.denominator < given * weight * SLACK.numerator


def _settled(last: Sequence[str], seats: Sequence[str]) -> list[str]:
    """The last ring, with what its owners have no seat for given to those who have one free."""
    free = Counter(seats)
    kept: list[str | None] = []
    for owner in last:
        keeps = free[owner] > 0
        free[owner] -= keeps
        kept.append(owner if keeps else None)
    heirs = free.elements()
    return [next(heirs) if owner is None else owner for owner in kept]
