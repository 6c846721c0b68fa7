"""One node's part in judging the others: look, detect, act by role.

Every node runs an :class:`Observer`; the roles differ in how often it looks and in what it may do
with what it saw. Any node may depose a leader with evidence; deputies just have it first, because
they look all the time.

There is no thread and no clock here: all times are those that the court notes in its looks, and
whoever drives :meth:`Observer.step` waits for ``again_in`` seconds, or until the node's bell rings,
and calls it again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from celery_ha.brokers.base import RecoveryBroker
from celery_ha.detector import AFRESH, Observation, Patience, observe
from celery_ha.errors import StoreUnavailable
from celery_ha.failover.recovery import recover
from celery_ha.failover.roles import Role, role_of, vacant
from celery_ha.model import Leader, Look, Node, Recovered, Verdict
from celery_ha.rings import following
from celery_ha.store.base import Court, LockStore

#: Part of a TTL that our own counter may stand still for while we judge others.
NUMB = 0.75

#: Seconds between two sweeps of locks that became free by themselves (rule 9).
SWEEP_EVERY = 1.0

STOPPED_JUDGING = "stopped judging"


@dataclass(frozen=True)
class Pace:
    """How often an observer looks, in seconds."""

    #: The leader and its deputies. Shorter: a killed process is noticed sooner, the store is asked more.
    look_every: float = 0.25
    #: The same while anybody is suspected.
    suspicious_every: float = 0.1
    #: The same while somebody is missed by the broker as well.
    doubtful_every: float = 0.05


@dataclass(frozen=True)
class Observed:
    """What one step saw and did."""

    role: Role
    #: Seconds until the next step is due.
    again_in: float
    #: None: the store was not reached.
    look: Look | None = None
    #: The term in which this node became leader in this step.
    elected: int | None = None
    #: Leases this step judged and tried to fence; a verdict is repeated until its fence holds.
    judged: tuple[Verdict, ...] = ()
    #: Leases this step fenced, each with its verdict.
    fenced: tuple[Verdict, ...] = ()
    #: Leases whose recovery this step finished.
    recovered: tuple[Recovered, ...] = ()
    #: Why acting on the look was cut short; it is repeated in the next step.
    failure: Exception | None = None
    #: Leases whose connections are gone for now; None: this look proves nothing.
    missing: frozenset[str] | None = None

    @property
    def members(self) -> tuple[Node, ...]:
        """The open leases."""
        return () if self.look is None else tuple(self.look.nodes.values())


@dataclass(frozen=True)
class _Deeds:
    elected: int | None = None
    judged: tuple[Verdict, ...] = ()
    fenced: tuple[Verdict, ...] = ()
    recovered: tuple[Recovered, ...] = ()


_IDLE = _Deeds()


class Observer:
    """The judging half of one node.

    Args:
        lease: this node's lease; a node with a new lease needs a new observer.
        court: the store.
        broker: where the claims of the dead are in flight.
        locks: where their locks are held.
        ttl: this node's own TTL: how long the leader's rounds may stand still, and how long a
            stranger on the broker may be unknown to the store.
        pace: how often to look.
        patience: what counts as late, and how long an absence must last.
    """

    def __init__(
        self,
        lease: str,
        court: Court,
        broker: RecoveryBroker,
        locks: LockStore,
        *,
        ttl: float,
        pace: Pace | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.lease = lease
        self._court = court
        self._broker = broker
        self._locks = locks
        self._ttl = ttl
        self._pace = pace or Pace()
        self._patience = patience or Patience()
        self._state = AFRESH
        self._interval = 0.0
        self._was_vacant = False
        self._strangers: Mapping[str, float] = {}
        self._asked_broker = self._swept = float("-inf")
        #: Term, and version of the membership, whose rings we have written down; and over which connection, since
        #: a replica that took over without the last changes counts them again.
        self._kept: tuple[int, int, str] | None = None

    def step(self, suspected: Collection[str] = ()) -> Observed:
        """Look once and do what the look calls for.

        Args:
            suspected: nodes silent for too long; only makes this observer look more often.

        Returns:
            What was seen and done. A store or broker that was not reached is no error here: what
            could not be done is done by a later step, by this node or the next leader.

        **Failure:** everything that was decided lives in the store before it is acted on: dying
        after a fence leaves the lease on the list of fenced ones, dying in a recovery leaves it
        there until somebody finishes, dying before the round is finished leaves a leader whose
        rounds stand still.
        """
        try:
            look = self._court.look()
        except StoreUnavailable as failure:
            self._state, self._interval = AFRESH, self._pace.look_every
            return Observed(Role.WATCHER, self._interval, failure=failure)
        self._state, verdicts = observe(self._state, look, interval=self._interval, patience=self._patience)
        if self._numb(look):
            self._state, verdicts = AFRESH, ()
        role = role_of(look, self.lease)
        deeds = _IDLE
        failure_or_none: Exception | None = None
        try:
            deeds = self._act(look, role, verdicts)
        except Exception as failure:  # noqa: BLE001 - whoever drives us tells; what was seen must not be lost over it
            failure_or_none = failure
        self._interval = self._next(look, role, deeds, suspected)
        return Observed(
            role,
            self._interval,
            look,
            deeds.elected,
            deeds.judged,
            deeds.fenced,
            deeds.recovered,
            failure_or_none,
            None if self._state.began is None else frozenset(self._state.missing),
        )

    def _numb(self, look: Look) -> bool:
        """Whether our own renewals stand still: a store that takes none from us may take none from anybody.

        A full server answers looks and refuses renewals; whoever judged by that would fence the healthy.
        """
        own = self._state.counters.get(self.lease)
        return own is not None and look.started - own.since > NUMB * self._ttl

    def _act(self, look: Look, role: Role, verdicts: tuple[Verdict, ...]) -> _Deeds:
        was_vacant, self._was_vacant = self._was_vacant, vacant(look)
        if self.lease not in look.nodes:
            return _IDLE
        if look.leader is None or vacant(look):
            # Deputies first: they have looked all the time and start with evidence.
            stands = role is Role.DEPUTY or was_vacant
            return _Deeds(elected=self._court.elect(self.lease)) if stands else _IDLE
        if role is Role.LEADER:
            return self._judge(look, look.leader, verdicts)
        return self._watch_leader(look, look.leader, verdicts)

    def _judge(self, look: Look, leader: Leader, verdicts: tuple[Verdict, ...]) -> _Deeds:
        """A round of judging: fence the dead, recover the fenced, then say that the round is done.

        A round without evidence (its look was late) is not finished: a leader that is always late
        loses the office.
        """
        judged = tuple(verdict for verdict in verdicts if verdict.lease != self.lease)
        fenced = tuple(verdict for verdict in judged if self._court.fence(leader.term, self.lease, verdict))
        recovered = self._recover(look, leader)
        if self._state.began is not None:
            self._court.finish_round(self.lease, leader.term)
        self._keep_rings(look, leader)
        if look.started - self._swept >= SWEEP_EVERY:
            self._swept = look.started
            self._locks.sweep()
        return _Deeds(judged=judged, fenced=fenced, recovered=tuple(recovered))

    def _keep_rings(self, look: Look, leader: Leader) -> None:
        """Write down who owns which shard by this look, so that the next change moves no more than it must.

        **Failure:** see :meth:`celery_ha.store.base.Court.keep_rings`.
        """
        of = leader.term, look.version, look.session
        if self._kept == of:
            return
        rings = following(look.nodes.values(), look.rings)
        if rings == look.rings or self._court.keep_rings(leader.term, self.lease, look.version, rings):
            self._kept = of

    def _watch_leader(self, look: Look, leader: Leader, verdicts: tuple[Verdict, ...]) -> _Deeds:
        """Take the office from a leader that is dead, or that judged nobody for a TTL (rule 10)."""
        dead = next((verdict for verdict in verdicts if verdict.lease == leader.lease), None)
        if dead is None and self._state.idle(look.started) < self._ttl:
            return _IDLE
        node = look.nodes[leader.lease]
        verdict = dead or Verdict(leader.lease, STOPPED_JUDGING, look.counters[leader.lease], node.connections)
        term = self._court.depose(self.lease, verdict, term=leader.term, rounds=leader.rounds, fence=dead is not None)
        took = dead is not None and term is not None
        return _Deeds(elected=term, judged=(verdict,) if took else (), fenced=(verdict,) if took else ())

    def _recover(self, look: Look, leader: Leader) -> list[Recovered]:
        """Recover what the look showed as fenced, and the strangers that the store refuses from now on.

        The broker's fence cannot ask the store, and we may sleep before it: so the store is told first, in one
        step, that this lease opens no more. One that has opened meanwhile is no stranger.

        **Failure:** dying after the refusal leaves a stranger on the broker; the next leader finds it.
        """
        strangers = [
            lease for lease in self._ripe_strangers(look) if self._court.refuse(leader.term, self.lease, lease)
        ]
        if not (look.fenced or strangers):
            return []
        return recover(look.fenced, self._broker, self._locks, self._court, strangers=strangers)

    def _ripe_strangers(self, look: Look) -> list[str]:
        """Leases on the broker that the store has not known for a whole TTL (rule 6).

        They were never opened there, or the store lost its memory while their process was dead.
        """
        if look.started - self._asked_broker < self._ttl / 4:
            return []
        self._asked_broker = look.started
        known = frozenset(look.nodes) | {item.node.lease for item in look.fenced}
        self._strangers = unknown_since(self._strangers, self._broker.strangers(known), self._state, look.ended)
        longest = max([self._ttl, *(node.ttl for node in look.nodes.values())])
        return [lease for lease, since in self._strangers.items() if look.started - since >= longest]

    def _next(self, look: Look, role: Role, deeds: _Deeds, suspected: Collection[str]) -> float:
        if deeds.elected is not None or deeds.fenced:
            return 0.0
        if role is Role.WATCHER:
            return self._pace.look_every if self._leader_in_doubt(look) else self._ttl / 4
        if not look.doubted.isdisjoint(self._state.missing):
            return self._pace.doubtful_every
        hurry = suspected or self._state.missing
        return self._pace.suspicious_every if hurry else self._pace.look_every

    def _leader_in_doubt(self, look: Look) -> bool:
        if look.leader is None or vacant(look):
            return True
        return look.leader.lease in self._state.missing or self._state.idle(look.ended) >= self._ttl / 2


def unknown_since(
    before: Mapping[str, float], seen: Collection[str], state: Observation, now: float
) -> dict[str, float]:
    """Since when each stranger is seen; what was seen before the present series of looks does not count."""
    began = now if state.began is None else state.began
    return {lease: max(before.get(lease, now), began) for lease in sorted(seen)}
