"""The locks that the running code is inside of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from celery_ha.locks.lock import Lock
from celery_ha.model import Holder

#: Outermost first.
_inside: ContextVar[tuple[Lock, ...]] = ContextVar("celery_ha_locks", default=())


def current_lock(name: str | None = None) -> Lock | None:
    """Find a lock that the running code is inside of.

    Args:
        name: of the lock; None: the innermost.

    Returns:
        None where no such lock was taken.
    """
    return next((lock for lock in reversed(_inside.get()) if name in (None, lock.name)), None)


def is_inside(name: str, holder: Holder) -> bool:
    """Whether this claim took the lock further out: then the outermost gives it back."""
    return any((held.name, held.holder) == (name, holder) for held in _inside.get())


@contextmanager
def inside(locks: Iterable[Lock]) -> Iterator[None]:
    """The block runs inside of these locks."""
    before = _inside.set((*_inside.get(), *locks))
    try:
        yield
    finally:
        with suppress(ValueError):  # left in another context than it was entered in
            _inside.reset(before)
