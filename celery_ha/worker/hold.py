"""A lock for the length of a block, in a task or in any other process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from celery_ha.errors import LockBusy, StoreUnavailable
from celery_ha.locks.attempt import Attempt, current_attempt
from celery_ha.locks.inside import current_lock, inside
from celery_ha.locks.lock import Lock, busy_message
from celery_ha.locks.terms import Terms
from celery_ha.locks.watch import watched
from celery_ha.worker.tenant import Tenant

#: Seconds in which the keeper may notice that the lease was fenced.
NOTICE = 0.1


@contextmanager
def hold(name: str, terms: Terms, deadline: float, tenant: Tenant, store: str) -> Iterator[Lock]:
    """Hold a lock; see :meth:`celery_ha.install.HA.lock`.

    Args:
        name: what is locked.
        terms: on what terms.
        deadline: local monotonic time until which to wait.
        tenant: whose lease it is outside of tasks.
        store: its name, for errors.
    """
    attempt = current_attempt()
    outer = current_lock(name)
    if attempt is None and outer is not None and outer.holder.lease == tenant.lease:
        yield outer  # this thread has it: the outer block gives it back
        return
    while True:
        who = attempt or tenant.attempt(deadline)
        lock = who.lock(name, terms)
        try:
            if _granted(lock, deadline, who, store):
                with inside([lock]), watched([lock], terms.on_lost, who.lost):
                    yield lock
                return
        finally:
            lock.give_back()
            # The loss of an outer lock, or a time limit, is raised in this thread wherever it happens to be.
            if attempt is None:
                if not lock.settled:
                    tenant.forget(who.holder)
                tenant.done(who.holder)


def _granted(lock: Lock, deadline: float, who: Attempt, store: str) -> bool:
    """Wait for the lock.

    Returns:
        False: the lease was given up while it waited, and there will be another one.
    """
    try:
        grant = lock.acquire(max(0.0, deadline - monotonic()))
    except StoreUnavailable as error:
        raise StoreUnavailable(
            f"the lock {lock.name!r} was not granted: the store ({store}) does not answer: {error}"
        ) from error
    if grant.token is not None:
        return True
    if not who.holder.task and grant.holder is None and monotonic() < deadline:
        sleep(NOTICE)
        return False
    raise LockBusy(busy_message(lock.name, grant.holder))
