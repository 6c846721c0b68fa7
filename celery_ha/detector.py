"""Who is dead: rule 3 of the design, as one pure function of what was seen.

Death is watched, not read off a clock. A node is dead when its renewal counter stood still for a
whole TTL of the observer's own monotonic time, or when all the connections it registered (at least
two) stayed away for ``confirm_after``, and every look in that time succeeded in time. A *doubt* (a
broker of its own has given up the node's connection to it) shortens that absence, and is nothing
without it: who merely connects anew to a broker is alive. An observer
that was itself late suspects itself first: after a late look, a gap between looks, a new session or
a clock that went back it has seen nothing yet, and judges nobody until it has looked on for that
node's whole TTL.

How many nodes seem dead at once plays no part: a dead rack is recovered too.

After hashicorp/memberlist ``suspicion.go`` (one pure function of timing) and ``state.go`` (a slow
observer suspects itself first).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from celery_ha.model import Look, Node, Verdict

STOOD_STILL = "renewals stood still"
CONNECTIONS_GONE = "connections gone"

#: Part of ``confirm_after`` that is enough for a node in doubt: another server has given its connection up as well.
DOUBTED = 0.4
#: With a single registered connection one dropped socket would be a death.
LEAST_CONNECTIONS = 2


@dataclass(frozen=True)
class Patience:
    """How long what must last before it counts, in seconds."""

    #: Absence of all connections that means death. Shorter: a reconnect that takes longer than
    #: this kills a healthy node. Longer: every killed process is noticed that much later.
    confirm_after: float = 0.5
    #: A look that took longer, or came this much after it was due, is late. Shorter: a busy
    #: observer keeps starting afresh and judges nobody. Longer: a stall is taken for silence.
    late_after: float = 1.0


@dataclass(frozen=True)
class Standing:
    """A counter, and since when it was seen to have this value (local monotonic time)."""

    value: int
    since: float


@dataclass(frozen=True)
class Absence:
    """The registered connections of a lease, and since when none of them is there."""

    connections: tuple[str, ...]
    since: float


@dataclass(frozen=True)
class Office:
    """What the leader has finished so far, and since when it finished no more."""

    lease: str
    term: int
    rounds: int
    since: float


def _nothing() -> Mapping[str, Standing]:
    return MappingProxyType({})


def _nobody() -> Mapping[str, Absence]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Observation:
    """All that one unbroken series of looks has shown."""

    session: str = ""
    #: When the series began: the end of its first look. None: no look was good so far.
    began: float | None = None
    #: End of the last look.
    last: float = 0.0
    counters: Mapping[str, Standing] = field(default_factory=_nothing)
    missing: Mapping[str, Absence] = field(default_factory=_nobody)
    office: Office | None = None

    def lasted(self, now: float) -> float:
        """Seconds of unbroken observation; negative if there is none."""
        return -1.0 if self.began is None else now - self.began

    def idle(self, now: float) -> float:
        """Seconds since the leader finished a round, as far as we have seen; 0 without a leader."""
        return now - self.office.since if self.office else 0.0


#: Nothing was seen yet, or nothing that still counts.
AFRESH = Observation()


def observe(
    state: Observation, look: Look, *, interval: float, patience: Patience
) -> tuple[Observation, tuple[Verdict, ...]]:
    """Add a look to what was seen and say who is dead by it.

    Both sides err towards life: a counter counts as standing only from the *end* of the look that
    first showed it, and the time it stood ends with the *start* of the look that shows it still.
    So a verdict is reached later than the trust of its node ends (start of a renewal + TTL - margin).

    Args:
        state: the observation so far; :data:`AFRESH` at first.
        look: what was just seen.
        interval: seconds after the previous look at which this one was due.
        patience: what counts as late, and how long an absence must last.

    Returns:
        The new observation, and a verdict for each dead lease, in the order of ``look.nodes``. A
        lease stays in the verdicts of later looks until it is fenced or shows a sign of life.
    """
    if _late(look, patience.late_after):
        return AFRESH, ()
    if _broken(state, look, interval + patience.late_after):
        state = AFRESH
    state = Observation(
        session=look.session,
        began=look.ended if state.began is None else state.began,
        last=look.ended,
        counters={
            lease: _standing(state.counters.get(lease), value, look.ended) for lease, value in look.counters.items()
        },
        missing=_missing(state.missing, look),
        office=_office(state.office, look),
    )
    return state, tuple(_verdicts(state, look, patience))


def _late(look: Look, late_after: float) -> bool:
    took = look.ended - look.started
    return took < 0 or took > late_after


def _broken(state: Observation, look: Look, longest: float) -> bool:
    gap = look.started - state.last
    return look.session != state.session or gap < 0 or gap > longest


def _standing(before: Standing | None, value: int, seen: float) -> Standing:
    return before if before is not None and before.value == value else Standing(value, seen)


def _missing(before: Mapping[str, Absence], look: Look) -> dict[str, Absence]:
    if look.present is None:
        return {}
    found = {}
    for lease, node in look.nodes.items():
        ids = node.connections
        if not look.present.isdisjoint(ids) or len(set(ids)) < LEAST_CONNECTIONS:
            continue
        old = before.get(lease)
        found[lease] = old if old is not None and old.connections == ids else Absence(ids, look.ended)
    return found


def _office(before: Office | None, look: Look) -> Office | None:
    leader = look.leader
    if leader is None:
        return None
    if before is not None and (before.lease, before.term, before.rounds) == (leader.lease, leader.term, leader.rounds):
        return before
    return Office(leader.lease, leader.term, leader.rounds, look.ended)


def _verdicts(state: Observation, look: Look, patience: Patience) -> list[Verdict]:
    found = []
    lasted = state.lasted(look.started)
    for lease, node in look.nodes.items():
        if lasted < node.ttl:
            continue
        confirm_after = patience.confirm_after * (DOUBTED if lease in look.doubted else 1)
        reason = _reason(state, node, look.started, confirm_after)
        if reason:
            found.append(Verdict(lease, reason, look.counters.get(lease, 0), node.connections))
    return found


def _reason(state: Observation, node: Node, now: float, confirm_after: float) -> str | None:
    standing = state.counters.get(node.lease)
    if standing is not None and now - standing.since >= node.ttl:
        return STOOD_STILL
    absence = state.missing.get(node.lease)
    if absence is not None and now - absence.since >= confirm_after:
        return CONNECTIONS_GONE
    return None
