"""``@locked_task``: one call at a time for each key, in the process that runs the body."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Literal, ParamSpec, TypeVar, get_args

from celery.exceptions import Ignore, Reject

from celery_ha.errors import ConfigError, LockBusy, StoreUnavailable
from celery_ha.locks.attempt import Attempt, current_attempt
from celery_ha.locks.key import KeySource, LockKey
from celery_ha.locks.lock import Lock, busy_message
from celery_ha.model import Grant

P = ParamSpec("P")
R = TypeVar("R")

OnBusy = Literal["requeue", "skip", "raise"]

#: Locks that the code running in this context is inside of, outermost first.
_inside: ContextVar[tuple[Lock, ...]] = ContextVar("celery_ha_locks", default=())


class Busy(Reject):
    """The message goes back because a lock is busy.

    A plain worker puts it back at once; the gate of a celery_ha worker a little later.
    """

    def __init__(self, lock: str, why: str = "", doubtful: bool = False) -> None:  # noqa: FBT001, FBT002
        super().__init__(why or f"the lock {lock!r} is busy", requeue=True)
        #: Name of the lock.
        self.lock = lock
        #: The store's answer was lost: it may have granted the lock.
        self.doubtful = doubtful

    def __reduce__(self) -> tuple[type[Busy], tuple[str, str, bool]]:
        return type(self), (self.lock, str(self.reason), self.doubtful)


def locked_task(
    key: KeySource, *, on_busy: OnBusy = "requeue", namespaced: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Run the body only while holding a lock; goes below ``@app.task``.

    Inside a worker the lock belongs to the worker's lease and to this delivery of the task. Anywhere
    else (a plain call, ``apply()``, ``task_always_eager``) there is no lease, and the body runs
    without a lock.

    Args:
        key: template such as ``account:{account_id}``, or a callable that takes what the task takes.
            Locks of the same name exclude each other, whatever task takes them.
        on_busy: ``requeue`` gives the message back, to be tried again a little later; nothing is
            stored, nothing is lost. ``skip`` acknowledges it without a result, as ``Ignore`` does.
            ``raise`` fails the task with :class:`~celery_ha.errors.LockBusy`, which
            ``autoretry_for`` may name.
        namespaced: True: only calls of this very function exclude each other.

    Returns:
        The decorator. When the store does not answer, or does not know yet who holds what, the message
        goes back whatever ``on_busy`` says: that is no reason to skip or to fail.

    Raises:
        ConfigError: ``on_busy`` is none of the three; at run time: ``requeue`` with ``acks_late=False``.

    **Failure:** dying in the body leaves the lock to the same task's next delivery.
    """
    if on_busy not in get_args(OnBusy):
        raise ConfigError(f"locked_task(on_busy={on_busy!r}): write one of {', '.join(get_args(OnBusy))}")

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = LockKey(key, function, namespaced=namespaced)

        @wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            attempt = current_attempt()
            if attempt is None:
                return function(*args, **kwargs)
            lock = Lock(attempt.locks, names.name(args, kwargs), attempt.holder, inherit=attempt.inherit)
            outer = _outer(lock)
            if outer is not None:
                return _inside_of(outer, function, *args, **kwargs)
            _take(lock, attempt, on_busy)
            try:
                return _inside_of(lock, function, *args, **kwargs)
            finally:
                lock.release()

        return locked

    return decorate


def current_lock() -> Lock | None:
    """The innermost lock that the running code is inside of; None where no lock was taken."""
    inside = _inside.get()
    return inside[-1] if inside else None


def _outer(lock: Lock) -> Lock | None:
    """The same lock, taken by this claim further out: the outermost gives it back."""
    for held in _inside.get():
        if (held.name, held.holder) == (lock.name, lock.holder):
            return held
    return None


def _inside_of(lock: Lock, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    before = _inside.set((*_inside.get(), lock))
    try:
        return function(*args, **kwargs)
    finally:
        _inside.reset(before)


def _take(lock: Lock, attempt: Attempt, on_busy: OnBusy) -> None:
    if on_busy == "requeue" and not attempt.acks_late:
        raise ConfigError(
            f"the lock {lock.name!r} cannot give a busy task back: with acks_late=False its message is gone already; "
            'set acks_late=True, or on_busy="raise" or "skip"'
        )
    try:
        grant = lock.acquire()
    except StoreUnavailable as error:
        if not attempt.acks_late:
            raise
        raise Busy(lock.name, f"the lock {lock.name!r} cannot be asked for: {error}", doubtful=True) from error
    if grant.token is None:
        raise _refusal(lock.name, grant, attempt, on_busy)


def _refusal(name: str, grant: Grant, attempt: Attempt, on_busy: OnBusy) -> Exception:
    """What to raise for a busy lock."""
    message = busy_message(name, grant.holder)
    unsettled = grant.holder is None and attempt.acks_late
    refusal: Exception = LockBusy(message)
    if on_busy == "requeue" or unsettled:
        refusal = Busy(name, message)
    elif on_busy == "skip":
        refusal = Ignore(message)
    return refusal
