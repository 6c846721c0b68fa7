"""What the ledger and the server say after a storm."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace

from tests.chaos.mix import ATTEMPTS, Published
from tests.support.ledger import Harm, Ledger, Run

#: Seconds until a task that has ended is acknowledged, by a worker that has little of a busy machine: its result is
#: told first, and counted for its chord.
ACKED = 2.0
#: Seconds after which every worker has found a server again that was away, and acknowledged what it owed.
CAUGHT_UP = 6.0
#: Seconds by which a start is noted later than it was decided, on a busy machine.
LATE = 2.0


@dataclass
class Broken:
    """Every promise, with the keys, locks or workers of which it was broken."""

    #: Never came to an end.
    lost: list[str] = field(default_factory=list)
    #: Ran again although no earlier run was cut off.
    doubled: list[str] = field(default_factory=list)
    #: Two executions had the lock at once, or its tokens went backwards.
    lock_overlaps: list[str] = field(default_factory=list)
    #: The header ended, the body did not.
    hung_chords: list[str] = field(default_factory=list)
    #: A body without all results.
    torn_chords: list[str] = field(default_factory=list)
    started_early: list[str] = field(default_factory=list)
    started_expired: list[str] = field(default_factory=list)
    started_revoked: list[str] = field(default_factory=list)
    #: Poison tasks that started more often than they may, or were not given up, or not told to have failed.
    poison_not_stopped: list[str] = field(default_factory=list)
    #: Good tasks among the dead letters.
    good_given_up: list[str] = field(default_factory=list)
    #: Fenced, though nobody had struck them.
    false_deaths: list[str] = field(default_factory=list)
    #: Ended by themselves, or with a code of failure when they were asked to go.
    exits: list[str] = field(default_factory=list)
    #: Asked to go and still here.
    stayed: list[str] = field(default_factory=list)
    #: Keys of the server that nobody answers for, and messages that are left.
    leaks: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The promises that were broken."""
        return [each.name for each in fields(self) if getattr(self, each.name)]


@dataclass
class Outcome:
    """Figures, and every promise that was broken."""

    seed: int
    blows: dict[str, int] = field(default_factory=dict)
    published: int = 0
    #: Published while the server was away: accepted or not, who knows.
    doubtful: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    executions: int = 0
    seconds: float = 0.0
    #: Tasks that ran again because what ran them was struck: at-least-once, as promised.
    reruns: int = 0
    #: Expiring tasks that did, revoked ones that a worker had confirmed, recoveries that the store remembers.
    expired: int = 0
    revoked: int = 0
    failovers: int = 0
    #: Seconds from a kill to the next start of a task that it cut off.
    takeover_median: float | None = None
    takeover_worst: float | None = None
    broken: Broken = field(default_factory=Broken)

    @property
    def held(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken.names

    def as_json(self) -> str:
        return json.dumps({**asdict(self), "held": self.held})


def judge_ledger(
    outcome: Outcome, told: Ledger, done: Published, harms: Sequence[Harm], longest_stall: float, max_deliveries: int
) -> None:
    """Everything that the ledger alone can say."""
    by_key, broken = told.by_key(), outcome.broken
    ended = {key for key, runs in by_key.items() if any(run.end is not None for run in runs)}
    broken.lost = sorted(set(expected(done)) - ended)
    broken.doubled = sorted(doubled(by_key, done, harms))
    broken.lock_overlaps = [f"{one.first.lock}: {one.first.key}, {one.second.key}" for one in told.overlaps(harms)]
    for chord in done.of("chord"):
        runs = by_key.get(chord.last, [])
        if chord.last not in ended and ended.issuperset(chord.parts):
            broken.hung_chords.append(chord.key)
        if any(run.extra != ("+".join(chord.parts),) for run in runs):
            broken.torn_chords.append(chord.key)
    firsts = {key: runs[0].start for key, runs in by_key.items()}
    broken.started_early = [o.key for o in done.of("eta") if firsts.get(o.key, done.due[o.key]) < done.due[o.key]]
    latest = {o.key: done.due[o.key] + LATE + longest_stall for o in done.of("expiring")}
    broken.started_expired = [key for key, until in latest.items() if firsts.get(key, 0.0) > until]
    broken.started_revoked = sorted(done.revoked & by_key.keys())
    poison = [order.key for order in done.of("poison")]
    broken.poison_not_stopped = [key for key in poison if len(by_key.get(key, [])) > max_deliveries]
    outcome.published, outcome.doubtful = len(done.orders), len(done.doubtful)
    outcome.kinds = {kind: len(done.of(kind)) for kind in sorted({order.kind for order in done.orders})}
    outcome.executions = sum(map(len, by_key.values()))
    outcome.reruns = sum(len(runs) > 1 for key, runs in by_key.items() if not key.startswith("poison"))
    outcome.expired = sum(order.key not in by_key for order in done.of("expiring"))
    outcome.revoked = len(done.revoked)


def unconfirmed(harms: Sequence[Harm], outages: Sequence[tuple[float, float]]) -> list[Harm]:
    """The same harms, each with the time for which nothing could be acknowledged before it: the server was away."""
    found = []
    for harm in harms:
        since = harm.at - ACKED
        for began, over in sorted(outages, reverse=True):
            if began <= harm.at and over + CAUGHT_UP >= since:
                since = min(since, began - ACKED)
        found.append(replace(harm, unacked=harm.at - since))
    return found


def worn_out(by_key: Mapping[str, Sequence[Run]], harms: Sequence[Harm], max_deliveries: int) -> set[str]:
    """Keys that were cut off as often as they may start: given up as a poison task is, and rightly (G7)."""
    struck = {key: sum(run.harmed_by(harms) is not None for run in runs) for key, runs in by_key.items()}
    return {key for key, times in struck.items() if times >= max_deliveries}


def expected(done: Published) -> list[str]:
    """The keys that must come to an end."""
    keys = [key for order in done.orders for key in (*order.parts, order.last)]
    spared = {order.key for order in done.of("poison", "expiring", "revoked")}
    return [key for key in keys if key not in spared]


def doubled(by_key: Mapping[str, Sequence[Run]], done: Published, harms: Sequence[Harm]) -> list[str]:
    """Keys that ran more often than they were published, and cut off.

    An attempt that runs again publishes the next one again; a chord's last part does not, the broker knows its body.
    """
    fed = {key: 1 for order in done.orders for key in (*order.parts, order.last)}
    for order in done.orders:
        for at in range(ATTEMPTS) if order.kind == "retried" else ():
            fed[f"{order.key}/{at}"] = len(by_key.get(f"{order.key}/{at - 1}", ())) if at else 1
    poison = {order.key for order in done.of("poison")}
    found = []
    for key, runs in by_key.items():
        excused = sum(run.harmed_by(harms) is not None for run in runs)
        if key in fed and key not in poison and len(runs) > fed[key] + excused:
            found.append(key)
    return found


def takeovers(told: Ledger, killed: Sequence[Harm]) -> list[float]:
    """For each kill that cut something off, seconds until the first of that started again."""
    first: dict[Harm, float] = {}
    for runs in told.by_key().values():
        for one, again in itertools.pairwise(runs):
            harm = one.harmed_by(killed) if one.end is None else None
            if harm is not None and again.start > harm.at:
                first[harm] = min(first.get(harm, float("inf")), again.start - harm.at)
    return sorted(first.values())
