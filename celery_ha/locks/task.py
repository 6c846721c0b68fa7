"""``@locked_task``: so many calls at a time for each key, in the process that runs the body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import wraps
from math import inf
from typing import ParamSpec, TypeVar

from celery_ha.errors import ConfigError, StoreUnavailable
from celery_ha.locks.attempt import Attempt, current_attempt
from celery_ha.locks.busy import Busy, refusal
from celery_ha.locks.inside import inside, is_inside
from celery_ha.locks.key import KeySource, LockKey
from celery_ha.locks.lock import Lock
from celery_ha.locks.terms import OnBusy, OnLost, Terms
from celery_ha.locks.watch import watched

P = ParamSpec("P")
R = TypeVar("R")


def locked_task(
    *keys: KeySource,
    on_busy: OnBusy = "requeue",
    timeout: float | None = None,
    limit: int = 1,
    max_hold: float | None = None,
    on_lost: OnLost = "raise",
    namespaced: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Run the body only while holding a lock; goes below ``@app.task``.

    Inside a worker the lock belongs to the worker's lease and to this delivery of the task. Anywhere
    else (a plain call, ``apply()``, ``task_always_eager``) there is no lease, and the body runs
    without a lock.

    Args:
        keys: template such as ``account:{account_id}``, or a callable that takes what the task takes.
            Locks of the same name exclude each other, whatever task takes them. Several keys are
            several locks: taken in the order of their names, all or none.
        on_busy: ``requeue`` has the message wait in line for the lock, without a pool slot and without
            spending a retry (where broker and store are not one Redis: gives it back to be tried again a
            little later). ``wait`` waits in its pool slot, in the same line. ``skip`` acknowledges it without
            a result, as ``Ignore`` does. ``raise`` fails the task with :class:`~celery_ha.errors.LockBusy`,
            which ``autoretry_for`` may name.
        timeout: seconds to ``wait`` before :class:`~celery_ha.errors.LockBusy`; None: as long as it takes.
        limit: how many may hold the lock at a time; the same wherever the lock is used.
        max_hold: seconds after which the lock is free whatever its holder does; None: it is held until the body
            or the lease ends.
        on_lost: what becomes of a body whose lock is gone (its lease was fenced, ``max_hold`` is over): ``raise``
            :class:`~celery_ha.errors.LockLost` in it, at the next Python instruction; ``kill`` its prefork child, so
            that the task is delivered again; ``flag`` only sets :attr:`Lock.lost <celery_ha.locks.Lock.lost>`.
        namespaced: True: only calls of this very function exclude each other.

    Returns:
        The decorator. When the store does not answer, or does not know yet who holds what, the message
        goes back whatever ``on_busy`` says: that is no reason to skip or to fail.

    Raises:
        ConfigError: an argument cannot be used; at run time: ``requeue`` with ``acks_late=False``.

    **Failure:** dying in the body leaves the lock to the same task's next delivery.
    """
    terms = Terms(on_busy, timeout, limit, max_hold, on_lost)
    if not keys:
        raise ConfigError("locked_task() needs a key: write a template such as 'account:{id}', or a callable")

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        sources = [LockKey(key, function, namespaced=namespaced) for key in keys]

        @wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            attempt = current_attempt()
            if attempt is None:
                return function(*args, **kwargs)
            names = sorted({source.name(args, kwargs) for source in sources})
            with ExitStack() as stack:
                locks = _take(names, attempt, terms, stack)
                stack.enter_context(inside(locks))
                stack.enter_context(watched(locks, terms.on_lost, attempt.lost))
                return function(*args, **kwargs)

        return locked

    return decorate


def _take(names: Sequence[str], attempt: Attempt, terms: Terms, stack: ExitStack) -> list[Lock]:
    """Take all locks that were not taken further out; what was taken is given back with the stack."""
    taken: list[Lock] = []
    for name in names:
        if is_inside(name, attempt.holder):
            continue
        lock = attempt.lock(name, terms)
        stack.callback(lock.give_back)  # before it is held: a time limit may strike between the two
        _acquire(lock, attempt, terms)
        taken.append(lock)
    return taken


def _acquire(lock: Lock, attempt: Attempt, terms: Terms) -> None:
    if terms.on_busy == "requeue" and not attempt.acks_late:
        raise ConfigError(
            f"the lock {lock.name!r} cannot give a busy task back: with acks_late=False its message is gone already; "
            'set acks_late=True, or on_busy="raise" or "skip"'
        )
    wait = 0.0 if terms.on_busy != "wait" else inf if terms.timeout is None else terms.timeout
    try:
        grant = lock.acquire(wait)
    except StoreUnavailable as error:
        if not attempt.acks_late:
            raise
        raise Busy(lock.name, f"the lock {lock.name!r} cannot be asked for: {error}", doubtful=True) from error
    if grant.token is None:
        raise refusal(lock, grant, on_busy=terms.on_busy, acks_late=attempt.acks_late)
