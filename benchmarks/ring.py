"""How even the ring is, how much a change of members moves, and how long it takes.

A change is measured against the least it can move: what the leaver owned, or what the joiner gets.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from benchmarks.machine import machine
from benchmarks.report import Figure, median, summary, table
from celery_ha.keys import shard_names
from celery_ha.ring import Member, assign

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
#: Changes measured in one fleet, before the next is made.
BATCH = 20


@dataclass(frozen=True)
class Change:
    """One member more or less."""

    kind: str
    #: Shards that changed hands.
    moved: int
    #: What the leaver owned or the joiner got.
    least: int

    @property
    def ratio(self) -> float:
        return self.moved / max(1, self.least)


def fleet(dice: random.Random, size: int, weights: Sequence[int]) -> list[Member]:
    return [Member(f"w{n}@{dice.getrandbits(32):08x}", dice.choice(weights)) for n in range(size)]


def changes(
    dice: random.Random, shards: Sequence[str], members: Sequence[Member], weights: Sequence[int]
) -> Iterator[Change]:
    before = assign(shards, members)
    for leaver in dice.sample(members, min(BATCH, len(members))):
        after = assign(shards, [member for member in members if member != leaver])
        yield change("leave", before, after, list(before.values()).count(leaver.name))
        (joiner,) = fleet(dice, 1, weights)
        after = assign(shards, [*members, joiner])
        yield change("join", before, after, list(after.values()).count(joiner.name))


def change(kind: str, before: Mapping[str, str], after: Mapping[str, str], least: int) -> Change:
    return Change(kind, sum(before[shard] != after[shard] for shard in before), least)


def fullest(shards: Sequence[str], members: Sequence[Member]) -> float:
    """The largest load by fair share."""
    total = sum(member.weight for member in members)
    loads = Counter(assign(shards, members).values())
    return max(loads[member.name] * total / (len(shards) * member.weight) for member in members)


def row(size: int, count: int, weights: Sequence[int], least: int) -> tuple[str, ...]:
    """Measure one setting with at least so many leaves and as many joins."""
    dice = random.Random(f"{size} {count}")
    shards = shard_names("orders", count)
    seen: list[Change] = []
    evenness = []
    while len(seen) < 2 * least:
        members = fleet(dice, size, weights)
        evenness.append(fullest(shards, members))
        seen.extend(changes(dice, shards, members, weights))
    cells = [
        f"{size}",
        f"{count}",
        "equal" if weights == EQUAL else "1-8",
        f"{mean(evenness):.2f}",
        f"{max(evenness):.2f}",
    ]
    for kind in ("leave", "join"):
        ratios = [each.ratio for each in seen if each.kind == kind]
        cells += [f"{mean(ratios):.3f}", f"{max(ratios):.2f}"]
    return (*cells, f"{sum(each.ratio > 2 for each in seen)}/{len(seen)}")


def duration(count: int, size: int, repeats: int) -> float:
    """Milliseconds to assign so many shards to so many members."""
    shards, members = shard_names("orders", count), fleet(random.Random(1), size, EQUAL)
    spans = []
    for _ in range(repeats):
        started = time.perf_counter()
        assign(shards, members)
        spans.append(1000 * (time.perf_counter() - started))
    return median(spans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=200, help="leaves, and as many joins, a row (default: 200)")
    options = parser.parse_args()
    print(machine())
    head = ("members", "shards", "weights", "max/fair", "worst", "leave", "worst", "join", "worst", "above 2")
    table(head, (row(*setting, options.changes) for setting in SETTINGS))
    print("leave, join: shards moved, by the least possible; mean and worst of all")
    summary([Figure("1,024 shards over 1,000 members, median", duration(1024, 1000, 15), 100, "ms")])


if __name__ == "__main__":
    main()
