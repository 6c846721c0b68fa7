"""``@unique_task``: one message under way for each key."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, wraps
from math import inf
from typing import Any, Literal, ParamSpec, TypeVar, get_args

from celery_ha.errors import ConfigError, KeyRefused, StoreUnavailable
from celery_ha.keys import name_of
from celery_ha.locks.attempt import running
from celery_ha.locks.key import KeySource, LockKey

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

Until = Literal["started", "finished"]
OnStoreDown = Literal["raise", "publish"]

#: The header that carries the key, so that no worker has to compute it again; also the option of a call.
HEADER = "ha_unique"
#: Whether the attempt that runs here has published the next one under its key, which is not free at its end then.
handed_over: ContextVar[bool] = ContextVar("ha_handed_over", default=False)
#: The same, of the error it ends with, where another process hears of that.
HANDED_OVER = "ha_handed_over"
#: Seconds for which the key of a task is kept that this process knows nothing else about.
TTL = 3600.0


@dataclass(frozen=True)
class Unique:
    """In what way a task is unique; see :func:`unique_task`."""

    source: KeySource
    until: Until
    ttl: float
    on_store_down: OnStoreDown

    def __post_init__(self) -> None:
        for name, choice in (("until", Until), ("on_store_down", OnStoreDown)):
            if getattr(self, name) not in get_args(choice):
                raise ConfigError(
                    f"unique_task({name}={getattr(self, name)!r}): write one of {', '.join(get_args(choice))}"
                )
        if isinstance(self.ttl, bool) or not isinstance(self.ttl, (int, float)) or not 0 < self.ttl < inf:
            raise ConfigError(f"unique_task(ttl={self.ttl!r}): write a number of seconds above 0")


def unique_task(
    key: KeySource, *, until: Until = "finished", ttl: float = TTL, on_store_down: OnStoreDown = "raise"
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Publish a call only if none of the same key is under way; goes below ``@app.task``.

    A duplicate publishes nothing and returns the ``AsyncResult`` of the first, whichever way it is called:
    ``delay``, ``apply_async``, a signature, ``send_task``, beat. A retry and a redelivery are no duplicates.
    A plain call, ``apply()`` and ``task_always_eager`` publish nothing and are left alone.

    Members of a group, a chord or a chain are always published: others wait for them by their own id. So are
    calls by name from an app that does not know the task, unless they say the key: ``ha_unique="report.5"``.

    Args:
        key: template such as ``report:{report_id}``, or a callable that takes what the task takes. Keys of
            different tasks never meet.
        until: ``finished``: another is accepted when the task has come to an end, whatever end: its retries
            and redeliveries count as the same. ``started``: when its body starts; below ``@locked_task``, once
            it has its locks.
        ttl: seconds after which the key is free in any case; counted from the publish and again from each start.
            Make it longer than the longest wait in the queue and the longest run.
        on_store_down: what becomes of a call while the store does not answer: ``raise``
            :class:`~celery_ha.errors.StoreUnavailable`, or ``publish`` it, at the risk of a duplicate.

    Raises:
        ConfigError: an argument cannot be used.
        KeyRefused: when it is called: the key has no stable form, or more than 1 KB.

    **Failure:** a publisher that dies before its message is out leaves a reservation for ``ha_publish_within``
    seconds; others wait for its end rather than return the result of a task that may never exist.
    """
    spec = Unique(key, until, ttl, on_store_down)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        LockKey(key, function, namespaced=False, what="unique_task")  # refuses what cannot be a key

        @wraps(function)
        def unique(*args: P.args, **kwargs: P.kwargs) -> R:
            begin(spec)
            return function(*args, **kwargs)

        setattr(unique, HEADER, spec)
        return unique

    return decorate


def unique_of(task: Any) -> Unique | None:
    """In what way a task is unique; None: in none."""
    spec = getattr(getattr(task, "run", None), HEADER, None)
    return spec if isinstance(spec, Unique) else None


def key_of(name: str, spec: Unique, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """The key of one call; None if its arguments do not fit: such a call fails in any worker.

    Raises:
        KeyRefused: it has no stable form, or is too long.
    """
    source = _lock_key(spec.source, task.run)
    try:
        source.bind(args, kwargs)
    except TypeError:
        return None
    return key_in(name, source.name(args, kwargs))


def key_in(name: str, key: object) -> str:
    """A key among those of one task.

    Raises:
        KeyRefused: it is no text, or too long.
    """
    if not isinstance(key, str):
        raise KeyRefused(f"{HEADER}={key!r}: write the key as text")
    try:
        return name_of(f"{name}:{key}")
    except ValueError as error:
        raise KeyRefused(f"{HEADER} of {name}: {error}") from error


@lru_cache(maxsize=1024)
def _lock_key(source: KeySource, run: Callable[..., Any]) -> LockKey:
    return LockKey(source, run, namespaced=False, what="unique_task")


def begin(spec: Unique) -> None:
    """The body starts: its key is free, or it is taken (again) for as long as a run may last.

    A key that somebody else has by now, because the task waited longer than its ttl, stays theirs.

    **Failure:** a store that does not answer stops no task; the key is freed at its end, or by its ttl.
    """
    task, request = next(running(), (None, None))
    if task is None or request is None or request.called_directly or unique_of(task) is not spec:
        return
    key, uniques = request.get(HEADER), task.app.ha.uniques
    if key is None:
        return
    try:
        if spec.until == "started":
            uniques.free_key(key, request.id)
            setattr(request, HEADER, None)
        elif not uniques.keep_key(key, request.id, spec.ttl):
            uniques.claim_key(key, request.id, spec.ttl)
            uniques.keep_key(key, request.id, spec.ttl)
    except StoreUnavailable as error:
        log.warning("Task %s[%s] starts, its key %r unchanged: %s", task.name, request.id, key, error)
