"""The rules that every history of a lock must keep; pure functions from a history to what broke them.

A history is judged by what its processes wrote and by nothing else. Each rule errs towards silence where
the order of two events cannot be known: a grant is written down after it was made, a release before it is
asked for, so two holds that overlap on paper overlapped. After Jepsen's checkers
(https://github.com/jepsen-io/jepsen, ``jepsen.checker``) and Wing and Gong, "Testing and Verifying
Concurrent Objects" (1993): what ended before something else began must come before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from tests.history.event import Event
from tests.history.hold import SLACK, History, Hold, history


@dataclass(frozen=True)
class Violation:
    """A rule and how it was broken."""

    rule: str
    what: str
    lock: str = ""
    #: Wall clock, around which the history is worth reading.
    at: float = 0.0

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


def check(events: Iterable[Event], ttl: float, session: float = inf) -> list[Violation]:
    """Judge a round.

    Args:
        events: in the order they were written.
        ttl: of the leases; seconds.
        session: seconds of silence after which the store may drop a session; inf: it knows none.

    Returns:
        What broke a rule; empty if nothing did.
    """
    made = history(events, ttl, session)
    return [violation for rule in RULES for violation in rule(made)]


def no_old_token_is_accepted(made: History) -> Iterator[Violation]:
    """What is guarded accepts tokens that never become smaller, and refuses nobody who holds the lock."""
    latest: dict[str, int] = defaultdict(int)
    holds = {(hold.pid, hold.number): hold for hold in made.holds}
    for touch in made.events:
        if touch.kind != "touch":
            continue
        hold = holds[touch.pid, touch.hold]
        if touch.yes and touch.token < latest[touch.lock]:
            yield Violation("old token", f"{hold} was accepted after {latest[touch.lock]}", touch.lock, touch.at)
        if not touch.yes and touch.at < made.cause(hold):
            yield Violation("refused holder", f"{hold} held the lock and was refused", touch.lock, touch.at)
        latest[touch.lock] = max(latest[touch.lock], touch.token if touch.yes else 0)


def no_more_holders_than_the_limit(made: History) -> Iterator[Violation]:
    """Of the times at which processes surely had a lock no more overlap than may."""
    for holds in _by_lock(made.granted()).values():
        inside: list[tuple[float, Hold]] = []
        for hold in sorted(holds, key=lambda hold: hold.granted):
            # One that ended without saying when it began to give the lock back says nothing.
            silent = hold.releasing == inf and hold.ended < inf
            until = hold.granted if silent else min(hold.releasing, made.cause(hold))
            inside = [(end, other) for end, other in inside if end > hold.granted]
            if until <= hold.granted:
                continue
            inside.append((until, hold))
            if len(inside) > hold.limit:
                others = "; ".join(str(other) for _, other in inside)
                yield Violation("two holders", f"at once: {others}", hold.lock, hold.granted)


def tokens_grow(made: History) -> Iterator[Violation]:
    """Who asks after a grant gets a larger token; nobody gets one twice."""
    for lock, holds in _by_lock(made.granted()).items():
        for one, other in pairwise(holds):
            if one.token == other.token:
                yield Violation("token twice", f"{one}; {other}", lock, other.granted)
        grants = sorted(holds, key=lambda hold: hold.granted, reverse=True)
        highest: Hold | None = None
        for hold in sorted(holds, key=lambda hold: hold.asked):
            while grants and grants[-1].granted < hold.asked:
                before = grants.pop()
                highest = before if highest is None or before.token > highest.token else highest
            if highest is not None and hold.token <= highest.token:
                yield Violation("token shrank", f"{hold} was asked for after {highest}", lock, hold.granted)


def nothing_is_lost_without_a_cause(made: History) -> Iterator[Violation]:
    """A holder that was not stopped, killed or too slow keeps its lock (G5)."""
    for hold in made.granted():
        if hold.told < inf and hold.told < made.cause(hold):
            yield Violation("false death", f"{hold} lost its lock in good health", hold.lock, hold.told)


def nobody_is_turned_away_early(made: History) -> Iterator[Violation]:
    """Who was not stopped, killed or cut off by a loss of memory waits for as long as it wanted to (G5)."""
    for hold in made.holds:
        if hold.outcome == "busy" and hold.ended < min(hold.asked + hold.wait, made.cause(hold)):
            waited = hold.ended - hold.asked
            yield Violation("turned away", f"{hold} waited {waited:.2f} s of {hold.wait}", hold.lock, hold.ended)


def every_loss_is_told(made: History) -> Iterator[Violation]:
    """A holder whose lock was granted to somebody else hears of it, within a TTL of when it can (G3)."""
    for lock, holds in _by_lock(made.granted()).items():
        for hold, heir in pairwise(holds):
            until = hold.releasing if hold.releasing < inf else hold.ended
            if hold.limit > 1 or heir.served >= until or hold.pid in made.kills:
                continue
            latest = made.runs_again(hold.pid, heir.served) + made.ttl + SLACK
            if hold.told == inf:
                yield Violation("untold loss", f"{hold} never heard of {heir}", lock, heir.served)
            elif hold.told > latest and not made.forgotten(hold):
                late = f"{hold} heard of {heir} {hold.told - heir.served:.2f} s later"
                yield Violation("loss told late", late, lock, hold.told)


def lines_are_served_in_order(made: History) -> Iterator[Violation]:
    """Who was seen in line is granted before whoever stood behind or asked later, unless it stepped out or was struck."""
    calls = {hold.claim: hold for hold in made.holds if hold.claim}
    by_lock = _by_lock(made.granted())
    told: set[tuple[str, str]] = set()
    for seen in made.events:
        standing = [calls[claim] for _, claim in seen.line if claim in calls]
        after = [hold for hold in by_lock[seen.lock] if hold.asked > seen.at]
        for at, first in enumerate(standing):
            for heir in (*standing[at + 1 :], *after):
                if (first.claim, heir.claim) not in told and _was_overtaken(made, first, heir):
                    told.add((first.claim, heir.claim))
                    yield Violation("out of order", f"{first} stood before {heir}", seen.lock, heir.served)


def _was_overtaken(made: History, first: Hold, heir: Hold) -> bool:
    if not heir.was_granted or made.line_forgotten(first):
        return False
    if first.was_granted:
        return first.token > heir.token
    harmed = any(
        span.pid in (0, first.pid) and span.since <= first.ended and first.asked <= span.until
        for span in (*made.stops, *made.cuts, *made.downs)
    )
    # Who gave up at that very moment may have been on the way out.
    return (
        first.outcome != "unavailable"
        and not harmed
        and first.pid not in made.kills
        and (heir.served < first.ended - SLACK / 2)
    )


def all_ends_well(made: History) -> Iterator[Violation]:
    """Nobody hangs or falls over, every lock is free for a newcomer, and nothing is left."""
    for event in made.events:
        if event.kind == "hung":
            yield Violation("hung", f"process {event.pid} never came to an end", event.lock, event.at)
        elif event.kind == "exit" and not event.yes:
            yield Violation("crashed", f"process {event.pid} ended by itself", "", event.at)
        elif event.kind == "left":
            yield Violation("left over", f"{event.lock} is left with nobody there", "", event.at)
    newcomers = {event.pid for event in made.events if event.kind == "newcomer"}
    for hold in made.holds:
        if hold.pid in newcomers and not hold.was_granted:
            yield Violation("not free", f"a newcomer did not get {hold.lock} ({hold.outcome})", hold.lock, hold.asked)


def _by_lock(holds: Iterable[Hold]) -> dict[str, list[Hold]]:
    found: dict[str, list[Hold]] = defaultdict(list)
    for hold in holds:
        found[hold.lock].append(hold)
    return found


RULES: tuple[Callable[[History], Iterator[Violation]], ...] = (
    no_old_token_is_accepted,
    no_more_holders_than_the_limit,
    tokens_grow,
    nothing_is_lost_without_a_cause,
    nobody_is_turned_away_early,
    every_loss_is_told,
    lines_are_served_in_order,
    all_ends_well,
)
