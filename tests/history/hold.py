"""From events to holds: who asked for what, had it from when to when, and what was done to him."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from tests.history.event import Event

#: Part of the TTL for which a process may be stopped without anybody having a reason to give it up.
SHORT = 0.6
#: Seconds within which a blow to its connections makes a short stop a reason, and for which a machine may be busy.
SLACK = 1.0


@dataclass
class Hold:
    """One call for a lock and what became of it. Times are inf if they never came."""

    pid: int
    number: int
    lock: str
    asked: float
    limit: int = 1
    max_hold: float = 0.0
    #: Seconds it was ready to wait.
    wait: float = 0.0
    granted: float = inf
    token: int = 0
    claim: str = ""
    releasing: float = inf
    ended: float = inf
    #: ``released``, ``busy``, ``unavailable``; '' if it never came to an end.
    outcome: str = ""
    #: When the server granted it.
    served: float = inf
    #: When the holder heard that it had lost the lock.
    told: float = inf

    @property
    def was_granted(self) -> bool:
        return self.token > 0

    def __str__(self) -> str:
        return f"{self.lock}: token {self.token} of process {self.pid} (hold {self.number})"


@dataclass(frozen=True)
class Span:
    """From when to when; who: 0 is the server. ``kept``: the server's memory survived."""

    pid: int
    since: float
    until: float = inf
    kept: bool = True


@dataclass
class History:
    """All that is known of one round."""

    ttl: float
    #: Seconds of silence after which the store may drop a session, and with it a place in line.
    session: float
    events: Sequence[Event]
    holds: list[Hold] = field(default_factory=list)
    kills: dict[int, float] = field(default_factory=dict)
    stops: list[Span] = field(default_factory=list)
    cuts: list[Span] = field(default_factory=list)
    downs: list[Span] = field(default_factory=list)
    stalls: list[Span] = field(default_factory=list)

    def granted(self) -> list[Hold]:
        """Every hold that was granted, in the order of the tokens."""
        return sorted((hold for hold in self.holds if hold.was_granted), key=lambda hold: hold.token)

    def cause(self, hold: Hold) -> float:
        """From when on the lock, or a place in line for it, may rightly be gone although nobody gave it back."""
        return min(self._causes(hold), default=inf)

    def _causes(self, hold: Hold) -> Iterator[float]:
        if hold.max_hold:
            # Who did not wait counts from the question: rather too early than too late.
            yield (hold.served if hold.wait else hold.asked) + hold.max_hold
        if hold.pid in self.kills:
            yield self.kills[hold.pid]
        for stop in self.stops:
            if stop.pid == hold.pid and hold.asked <= stop.until + SLACK and self._is_reason(stop):
                yield stop.since
        for down in self.downs:
            if not down.kept and (hold.served if hold.was_granted else hold.asked) <= down.until:
                yield down.since

    def _is_reason(self, stop: Span) -> bool:
        if stop.until - stop.since >= SHORT * min(self.ttl, self.session):
            return True
        blows = [cut for cut in self.cuts if cut.pid == stop.pid] + self.downs
        return any(blow.since <= stop.until and stop.since - SLACK <= blow.until for blow in blows)

    def runs_again(self, pid: int, at: float) -> float:
        """The end of whatever kept a process from hearing something at a moment; the moment itself if nothing did."""
        for span in sorted([*self.stops, *self.downs, *self.stalls], key=lambda span: span.since):
            if span.pid in (0, pid) and span.since <= at + SLACK and at < span.until:
                at = span.until
        return at

    def line_forgotten(self, hold: Hold) -> bool:
        """Whether the server lost its memory, its session or its turn, while it stood in line: it had to begin anew."""
        until = hold.served if hold.was_granted else hold.ended
        lost = [down for down in self.downs if not down.kept]
        # A server that was away gives sessions their time again; who is not back by then, on a busy machine, has lost it.
        lost += self.downs if self.session < inf else []
        # Time passes for a server that stalls: the sessions of all may be over when it goes on.
        silent = [span for span in (*self.stops, *self.stalls) if span.pid in (0, hold.pid)]
        # Its turn may have come and, by ``max_hold``, passed before it could hear of it.
        patience = min(SHORT * self.session, hold.max_hold or inf)
        lost += [span for span in silent if span.until - span.since >= patience]
        # Who says nothing for so long is passed over.
        lost += [stop for stop in self.stops if stop.pid == hold.pid and stop.until - stop.since >= self.ttl]
        return any(span.since <= until and hold.asked <= span.until for span in lost)

    def forgotten(self, hold: Hold) -> bool:
        """Whether the server lost its memory while it was held."""
        return any(not down.kept and hold.served <= down.until and down.since <= hold.ended for down in self.downs)


def history(events: Iterable[Event], ttl: float, session: float = inf) -> History:
    """Put events together.

    Args:
        events: in the order they were written.
        ttl: of the leases; seconds.
        session: of the store's sessions, likewise; inf: it knows none.
    """
    made = History(ttl, session, tuple(events))
    dates = {event.token: event.served for event in made.events if event.kind == "dated"}
    open_: dict[tuple[int, int], Hold] = {}
    for event in made.events:
        if event.kind == "ask":
            wait = inf if event.wait < 0 else event.wait
            hold = Hold(event.pid, event.hold, event.lock, event.at, event.limit, event.max_hold, wait)
            open_[event.pid, event.hold] = hold
            made.holds.append(hold)
        elif event.hold:
            _add(open_[event.pid, event.hold], event, dates)
    made.kills = {event.pid: event.at for event in made.events if event.kind == "kill"}
    made.cuts = [Span(event.pid, event.at, event.at) for event in made.events if event.kind == "cut"]
    made.stops = _spans(made.events, "stop", "cont")
    made.downs = _spans(made.events, "down", "up")
    made.stalls = _spans(made.events, "stall", "unstall")
    return made


def _add(hold: Hold, event: Event, dates: Mapping[int, float]) -> None:
    if event.kind == "claim":
        hold.claim = event.claim
    elif event.kind == "granted":
        hold.granted, hold.token, hold.claim = event.at, event.token, event.claim
        # A token of Redis is the server's time in microseconds (rule 12).
        hold.served = dates.get(event.token, event.token / 1_000_000)
    elif event.kind == "releasing":
        hold.releasing = event.at
    elif event.kind in ("released", "busy", "unavailable"):
        hold.ended, hold.outcome = event.at, event.kind
        if not event.yes:
            hold.told = event.at


def _spans(events: Sequence[Event], first: str, last: str) -> list[Span]:
    found: list[Span] = []
    for at, event in enumerate(events):
        if event.kind == first:
            ends = (later.at for later in events[at:] if later.kind == last and later.pid == event.pid)
            found.append(Span(event.pid, event.at, next(ends, inf), event.yes))
    return found
