"""How even the ring is, how much a change of members moves, and how long it takes.

A change is measured against the least it can move: what the leaver owned, or what the joiner gets. Each fleet has a
history: members have left and joined before, and at times it shrinks to a quarter and grows again.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from statistics import mean

from benchmarks.machine import machine
from benchmarks.report import Figure, median, summary, table
from celery_ha.keys import shard_names
from celery_ha.ring import SLACK, Member, Ring, assign

EQUAL, MIXED = (1,), (1, 2, 4, 8)
#: Members, shards, weights.
SETTINGS = (
    (2, 16, EQUAL),
    (8, 64, EQUAL),
    (20, 160, EQUAL),
    (50, 400, EQUAL),
    (200, 1600, EQUAL),
    (200, 1720, EQUAL),
    (20, 240, EQUAL),
    (200, 2400, EQUAL),
    (20, 320, EQUAL),
    (200, 3200, EQUAL),
    (8, 256, MIXED),
    (20, 640, MIXED),
    (100, 3200, MIXED),
)
#: A fleet shrinks to this part of its size and grows again.
SHRUNK = 0.25
#: Changes that come before the leader has written the last ring down, for the second table.
UNWRITTEN = (1, 3)


@dataclass(frozen=True)
class Change:
    """One member more or less."""

    kind: str
    #: Shards that changed hands.
    moved: int
    #: What the leaver owned or the joiner got.
    least: int
    #: See the function.
    fullest: float

    @property
    def ratio(self) -> float:
        return self.moved / max(1, self.least)


def fleet(dice: random.Random, size: int, weights: Sequence[int]) -> list[Member]:
    return [Member(f"w{n}@{dice.getrandbits(32):08x}", dice.choice(weights)) for n in range(size)]


def history(
    dice: random.Random, shards: Sequence[str], size: int, weights: Sequence[int], unwritten: int = 0
) -> Iterator[Change]:
    """Members leave and join, by chance; half of the time more leave, until the fleet has shrunk, then more join."""
    ring, shrinks = Ring.of(shards, fleet(dice, size, weights)), False
    for number in count():
        if number % (unwritten + 1) == 0:
            written = ring
        there = len(ring.members)
        if not SHRUNK * size < there < size:
            shrinks = there >= size
        if there > 1 and dice.random() < (0.6 if shrinks else 0.4):
            leaver = dice.choice(ring.members)
            after = written.among(member for member in ring.members if member != leaver)
            yield Change("leave", moved(ring, after), len(ring.shards_of(leaver.name)), fullest(after))
        else:
            (joiner,) = fleet(dice, 1, weights)
            after = written.among([*ring.members, joiner])
            yield Change("join", moved(ring, after), len(after.shards_of(joiner.name)), fullest(after))
        ring = after


def moved(before: Ring, after: Ring) -> int:
    return sum(before.owner(shard) != owner for shard, owner in after.owners.items())


def fullest(ring: Ring) -> float:
    """The largest load by the largest that is allowed."""
    total = sum(member.weight for member in ring.members)
    loads = Counter(ring.owners.values())
    return max(
        loads[member.name] / math.ceil(SLACK * len(ring.owners) * member.weight / total) for member in ring.members
    )


def row(size: int, shards: int, weights: Sequence[int], changes: int, unwritten: int = 0) -> tuple[str, ...]:
    """Measure one setting."""
    dice = random.Random(f"{size} {shards}")
    seen = list(islice(history(dice, shard_names("orders", shards), size, weights, unwritten), changes))
    cells = [
        f"{size}",
        f"{shards}",
        "equal" if weights == EQUAL else "1-8",
        f"{mean(each.fullest for each in seen):.2f}",
        f"{max(each.fullest for each in seen):.2f}",
    ]
    for kind in ("leave", "join"):
        ratios = [each.ratio for each in seen if each.kind == kind]
        cells += [f"{mean(ratios):.3f}", f"{max(ratios):.2f}"]
    return (*cells, f"{sum(each.ratio > 2 for each in seen)}/{len(seen)}")


def duration(number: int, size: int, repeats: int) -> float:
    """Milliseconds to assign so many shards to so many members."""
    shards, members = shard_names("orders", number), fleet(random.Random(1), size, EQUAL)
    last = tuple(assign(shards, [*members[1:], Member("gone")]).values())
    spans = []
    for _ in range(repeats):
        started = time.perf_counter()
        assign(shards, members, last)
        spans.append(1000 * (time.perf_counter() - started))
    return median(spans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=2000, help="leaves and joins a row (default: 2000)")
    options = parser.parse_args()
    print(machine())
    head = ("members", "shards", "weights", "max/cap", "worst", "leave", "worst", "join", "worst", "above 2")
    table(head, (row(*setting, options.changes) for setting in SETTINGS))
    print("max/cap: the largest load, by 1.25 times the member's fair share, rounded up; mean and worst of all")
    print("leave, join: shards moved, by the least possible; mean and worst of all")
    some = [setting for setting in SETTINGS if setting[0] == 20]
    for unwritten in UNWRITTEN:
        print(f"\nWhere the leader writes the last ring down after every {unwritten + 1} changes:")
        table(head, (row(*setting, options.changes, unwritten) for setting in some))
    summary([Figure("1,024 shards over 1,000 members, median", duration(1024, 1000, 15), 100, "ms")])


if __name__ == "__main__":
    main()
