"""Moves everything a dead lease held: messages to the front of their queues, locks into trust.

The list of fenced leases is in the store until :meth:`~celery_ha.store.base.Court.recovered` takes
a lease off it, and every step before that can be repeated by anybody, at any time, also at the
same time by two who both think they lead: a claim moves only if it is still in flight, a lock is
settled only if it still belongs to the dead lease, and the payload put back depends on nothing but
the claim. So the term is not asked for again after the fence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from celery_ha import envelope
from celery_ha.brokers.base import RecoveryBroker
from celery_ha.model import Claim, FencedLease, Recovered
from celery_ha.store.base import Court, LockStore
from celery_ha.telling.spans import span


def recover(
    fenced: Sequence[FencedLease],
    broker: RecoveryBroker,
    locks: LockStore,
    court: Court,
    *,
    strangers: Sequence[str] = (),
) -> list[Recovered]:
    """Recover leases in one go (rule 18) and take those that the store has fenced off its list.

    Args:
        fenced: the leases, as one look at the store showed them.
        broker: where their claims are in flight.
        locks: where their locks are held.
        court: where they wait for recovery.
        strangers: leases on the broker that the store has not known for a whole TTL and refuses from now
            on (rule 6, :meth:`~celery_ha.store.base.Court.refuse`).

    Returns:
        What was moved, for the leases that this call finished; what somebody else finished is
        announced by somebody else.

    Raises:
        StoreUnavailable: store or broker were not reached; what is not finished stays on the list.

    **Failure:** dying before or within :func:`reclaim`: see there. Dying after it leaves leases
    that hold nothing on the store's list; the next leader moves nothing and takes them off.
    """
    leases = [*(item.node.lease for item in fenced), *strangers]
    with span("celery_ha.recovery", leases=len(leases)) as attributes:
        moved = reclaim(leases, broker, locks)
        done = [result for result in moved if result.lease in strangers or court.recovered(result)]
        attributes["requeued"] = sum(result.requeued for result in done)
        attributes["restarted"] = sum(result.restarted for result in done)
        attributes["locks"] = sum(result.locks for result in done)
    return done


def reclaim(leases: Sequence[str], broker: RecoveryBroker, locks: LockStore) -> list[Recovered]:
    """Fence leases on the broker and move all they held.

    Locks are settled before a message can run again (rule 8): the redelivered task must find its
    lock in trust, and nobody may have taken it in between.

    Args:
        leases: leases that are not open in the store and never will be; nobody takes locks under them any more.
        broker: where their claims are in flight.
        locks: where their locks are held.

    Returns:
        What was moved, for the leases of which nothing is left on the broker.

    Raises:
        StoreUnavailable: store or broker were not reached; repeat all of it.

    **Failure:** dying after

    1. *the fence on the broker*: the lease claims, starts and ends nothing more; all it held is
       where it was.
    2. *the locks*: those of attempts that will run again are in trust for their task, the others
       are free; the messages are still in flight, so those tasks run nowhere yet.
    3. *the requeue*: everything has moved; an empty in-flight record is left, and repeating
       finds no claim and no lock.
    4. *forget*: nothing is left on the broker but the tombstone that refuses the lease.
    """
    for lease in leases:
        broker.fence(lease)
    held = {lease: broker.in_flight(lease) for lease in leases}
    settled = {lease: locks.settle(lease, _restarted(claims)) for lease, claims in held.items()}
    broker.requeue(_mended(claim for claims in held.values() for claim in claims))
    return [_result(lease, claims, settled[lease]) for lease, claims in held.items() if broker.forget(lease)]


def _restarted(claims: Iterable[Claim]) -> dict[str, str]:
    """Task id by claim id, of the attempts that had started and so may hold locks."""
    ids = {claim.id: envelope.task_id(claim.payload) for claim in claims if claim.started}
    return {claim: task for claim, task in ids.items() if task is not None}


def _mended(claims: Iterable[Claim]) -> list[tuple[Claim, bytes]]:
    return [
        (claim, envelope.redelivered(claim.payload, started=claim.started))
        for claim in sorted(claims, key=lambda claim: claim.number)
    ]


def _result(lease: str, claims: Sequence[Claim], locks: int) -> Recovered:
    return Recovered(
        lease,
        requeued=len(claims),
        restarted=sum(claim.started for claim in claims),
        locks=locks,
        queues=dict(Counter(claim.source for claim in claims)),
    )
