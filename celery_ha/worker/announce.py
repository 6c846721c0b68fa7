"""What one step of the observer means to the world: pure, told once however often it is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from celery_ha.failover.observer import Observed
from celery_ha.failover.roles import Role
from celery_ha.model import Look, Node
from celery_ha.telling import news
from celery_ha.telling.news import News

SILENT = "heartbeats missing"
ABSENT = "connections missing"


@dataclass(frozen=True)
class Suspicion:
    """Why a lease is suspected, and since when (local monotonic time)."""

    reason: str
    since: float


@dataclass(frozen=True)
class Told:
    """What was told already."""

    suspected: Mapping[str, Suspicion] = field(default_factory=dict)
    judged: frozenset[str] = frozenset()
    #: Fenced leases that wait for recovery, and since when they are known here.
    fenced: Mapping[str, float] = field(default_factory=dict)


def announce(
    told: Told, observed: Observed, name: str, silent: Collection[str], queue_of: Callable[[str], str], now: float
) -> tuple[Told, list[News]]:
    """Find out what is new.

    Args:
        told: what was told before.
        observed: what a step saw and did.
        name: of this node.
        silent: names of the nodes whose heartbeats are missing.
        queue_of: the queue that a claim's source is a part of.
        now: local monotonic time.

    Returns:
        What is told by now, and what is to be told.

    **Failure:** a step that was cut short between a fence and its report, by a store that went away, has the
    fence told when the next look shows it. Dying before has it told by nobody: the recovery is.
    """
    look = observed.look
    if look is None:
        return told, []
    seen = _Seen(observed, look, name, now)
    leads = observed.role is Role.LEADER
    suspected = seen.suspected(told.suspected, silent) if leads else {}
    found = [
        *seen.election(),
        *(seen.suspicions(told.suspected, suspected) if leads else ()),
        *seen.verdicts(told.judged),
        *seen.fences(told.fenced),
        *seen.recoveries(told.fenced, queue_of),
    ]
    return Told(suspected, frozenset(each.lease for each in observed.judged), seen.fenced(told.fenced)), found


class _Seen:
    """One step of the observer, with a look."""

    def __init__(self, observed: Observed, look: Look, name: str, now: float) -> None:
        self._observed, self._look, self._name, self._now = observed, look, name, now
        self._waiting = {item.node.lease: item for item in look.fenced}
        self._term = observed.elected or (look.leader.term if look.leader else 0)

    def election(self) -> Iterator[News]:
        if self._observed.elected is None:
            return
        before = self._look.leader
        reason = "nobody led" if before is None else f"the leader of term {before.term} is gone or judges nobody"
        lease = next((node.lease for node in self._look.nodes.values() if node.name == self._name), "")
        yield News.of(news.LEADER, node=self._name, lease=lease, term=self._term, reason=reason)

    def suspected(self, before: Mapping[str, Suspicion], silent: Collection[str]) -> dict[str, Suspicion]:
        """Who is suspected after this look; a look that proves nothing clears nobody."""
        missing, found = self._observed.missing, {}
        for lease, node in self._look.nodes.items():
            if missing is None:
                if lease in before:
                    found[lease] = before[lease]
            elif lease in missing or node.name in silent:
                reason = ABSENT if lease in missing else SILENT
                found[lease] = before.get(lease) or Suspicion(reason, self._now)
        return found

    def suspicions(self, before: Mapping[str, Suspicion], after: Mapping[str, Suspicion]) -> Iterator[News]:
        there = self._look.nodes
        for lease in sorted(after.keys() - before.keys()):
            yield self._about(news.SUSPECTED, there[lease], after[lease].reason)
        # Who is judged was suspected with reason; who is not there any more has said goodbye.
        dead = {verdict.lease for verdict in self._observed.judged}
        for lease in sorted((before.keys() - after.keys() - dead) & there.keys()):
            seconds = round(self._now - before[lease].since, 3)
            yield self._about(news.CLEARED, there[lease], before[lease].reason, seconds=seconds)

    def verdicts(self, told: Collection[str]) -> Iterator[News]:
        for verdict in self._observed.judged:
            if verdict.lease not in told:
                yield self._about(news.VERDICT, self._look.nodes[verdict.lease], verdict.reason)

    def fenced(self, told: Mapping[str, float]) -> dict[str, float]:
        """Fenced leases that still wait for recovery, and since when they are known here."""
        done = {result.lease for result in self._observed.recovered}
        known = [*self._waiting, *(verdict.lease for verdict in self._observed.fenced)]
        return {lease: told.get(lease, self._now) for lease in known if lease not in done}

    def fences(self, told: Collection[str]) -> Iterator[News]:
        for verdict in self._observed.fenced:
            if verdict.lease not in told:
                yield self._about(news.FENCED, self._look.nodes[verdict.lease], verdict.reason)
        for lease, item in self._waiting.items():
            # Fenced by us, in a step that was cut short; what another leader fenced, it told itself.
            if self._observed.role is Role.LEADER and item.term == self._term and lease not in told:
                yield self._about(news.FENCED, item.node, item.reason)

    def recoveries(self, told: Mapping[str, float], queue_of: Callable[[str], str]) -> Iterator[News]:
        for result in self._observed.recovered:
            item = self._waiting.get(result.lease)
            node = item.node if item else Node(result.lease, "")
            reason = item.reason if item else "the store does not know it"
            queues: Counter[str] = Counter()
            for source, count in result.queues.items():
                queues[queue_of(source)] += count
            for queue, count in sorted(queues.items()):
                yield self._about(news.REQUEUED, node, reason, queue=queue, count=count)
            yield self._about(
                news.FAILOVER,
                node,
                reason,
                requeued=result.requeued,
                restarted=result.restarted,
                locks=result.locks,
                queues=dict(sorted(queues.items())),
                seconds=round(self._now - told.get(result.lease, self._now), 3),
            )

    def _about(self, kind: news.Kind, node: Node, reason: str, **fields: object) -> News:
        return News.of(kind, node=node.name, lease=node.lease, term=self._term, reason=reason, **fields)
