"""The body of a chord is published, and once, whatever dies while its last part is counted.

Celery 5.7 has the last part claim the body for as long as publishing may take, minutes with a patient retry policy, so
that two copies of a part do not publish it twice. A part that dies with that claim runs again here within seconds,
finds the body claimed, and leaves it at that: nobody would ever publish it. Here the claim says on whose behalf it is:
``<claim of the part's message>:<run>``. Whoever finds it looks whether that message is still in those hands, and takes
the body over if it is not. The run goes with it, and numbers what is published: the broker adds a body that it has
already only once (rule 14).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

from celery._state import get_current_worker_task
from redis import WatchError

from celery_ha.errors import Fenced
from celery_ha.worker.claimed import ensure_claimed, is_held

log = logging.getLogger(__name__)

#: Seconds for which a body is known to be claimed: as long as the broker knows what it published.
KEPT = 600
#: Celery's scripts, kept by a backend: they count a part, claim the body for the time of publishing, clean up.
_COUNT, _EXTEND, _CLEAN = "_chord_part_return_script", "_chord_claim_extend_script", "_chord_cleanup_script"


@dataclass
class _Part:
    """A part that is being counted."""

    #: Of its message; empty: acknowledged before it ran, or no message of ours.
    claim: str
    #: Names what is published; kept by whoever takes the body over.
    run: str = ""
    #: Whether the body is on its way, and how many messages it has so far.
    publishing: bool = False
    published: int = 0

    @property
    def token(self) -> str:
        return f"{self.claim}:{self.run}" if self.claim else self.run

    def kept(self, seconds: int) -> int:
        return max(int(seconds), KEPT) if self.claim else int(seconds)


#: What this thread is counting.
_counted: ContextVar[_Part | None] = ContextVar("_counted", default=None)


def counts_chords(backend: Any) -> bool:
    """Whether this is a backend whose parts claim their body: Redis, since Celery 5.7."""
    return all(hasattr(type(backend), name) for name in (_COUNT, _EXTEND, _CLEAN))


def seen_through(ha: Any, backend: Any) -> Callable[..., Any]:
    """A Redis backend's ``on_chord_part_return`` whose claim of the body ends with the message it was made for.

    **Failure:** dying at any step has the part delivered again; counting it twice changes nothing, its next attempt
    takes the body over, and a body that was published is not added again. Where the broker is RabbitMQ, dying
    between publishing the body and noting it publishes it twice.
    """
    count, tell = backend.on_chord_part_return, backend.chord_error_from_stack

    @wraps(count)
    def counted(request: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(vars(backend).get(_CLEAN), _Script):  # not before: asking for one makes the client
            _take_scripts(ha, backend)
        part = _counted.set(_Part(_claim_of(ha, request)))
        try:
            return count(request, *args, **kwargs)
        finally:
            _counted.reset(part)

    @wraps(tell)
    def told(*args: Any, **kwargs: Any) -> Any:
        if _counted.get() is not None and _has_moved_on(ha):
            return None  # its other attempt tells what became of the body
        return tell(*args, **kwargs)

    backend.chord_error_from_stack = told
    return counted


def numbered(send: Callable[..., Any]) -> Callable[..., Any]:
    """``send_task_message`` with a publish id, the same for every attempt, for the messages of a chord's body."""

    @wraps(send)
    def sent(*args: Any, **options: Any) -> Any:
        part = _counted.get()
        if part is not None and part.publishing:
            part.published += 1
            options.setdefault("ha_publish_id", f"{part.run}.{part.published}")
        return send(*args, **options)

    return sent


class _Script:
    """One of Celery's scripts, run by this module's rules.

    Args:
        script: Celery's own.
        call: what is done instead; gets it, and what Celery calls it with.
    """

    def __init__(self, script: Any, call: Callable[..., Any]) -> None:
        self._script, self._call = script, call

    def __call__(self, keys: list[Any], args: list[Any], client: Any) -> Any:
        return self._call(self._script, keys, args, client)


class _Rules:
    """What is done instead of running Celery's scripts as they are.

    Args:
        ha: the installed HA.
    """

    def __init__(self, ha: Any) -> None:
        self._ha = ha

    def count(self, script: Any, keys: list[Any], args: list[Any], client: Any) -> Any:
        """Count the part; when all are counted and a dead one has the body, take it over."""
        ensure_claimed(self._ha)
        part = _part()
        part.run = args[-1]
        while True:
            answer = script(keys=keys, args=[*args[:-2], part.kept(args[-2]), part.token], client=client)
            done, difference, size, claimed = answer
            if claimed or not size or done != int(size) + int(difference or 0):
                return answer
            taken = _take_over(self._ha, client, keys[-1], part)
            if taken is not None:
                return [done, difference, size, int(taken)]

    def extend(self, script: Any, keys: list[Any], args: list[Any], client: Any) -> int:
        """Claim the body for as long as publishing may take, unless the part runs elsewhere by now."""
        part = _part()
        if _has_moved_on(self._ha):
            return 0
        part.publishing = bool(script(keys=keys, args=[part.token, part.kept(args[-1])], client=client))
        return int(part.publishing)

    def clean(self, script: Any, keys: list[Any], args: list[Any], client: Any) -> int:
        """Note that the body is published; who was refused, or is going, cleans nothing: another attempt needs it.

        **Failure:** dying before leaves the claim of the body to the part's next attempt, which takes it over with its
        number: the broker does not add again what it has.
        """
        part = _part()
        part.publishing = False
        if _is_going() or _has_moved_on(self._ha):
            return 1
        return int(script(keys=keys, args=[part.token, *args[1:]], client=client))


def _take_scripts(ha: Any, backend: Any) -> None:
    rules = _Rules(ha)
    for name, call in ((_COUNT, rules.count), (_EXTEND, rules.extend), (_CLEAN, rules.clean)):
        script = getattr(backend, name)
        if not isinstance(script, _Script):  # two threads may share a backend
            setattr(backend, name, _Script(script, call))


def _take_over(ha: Any, client: Any, key: str, part: _Part) -> bool | None:
    """Take the body over from a part whose message is not in its hands any more.

    Returns:
        Whether it is ours now; None: the claim has changed meanwhile, look again.
    """
    with client.pipeline() as pipe:
        pipe.watch(key)
        holder = pipe.get(key)
        if holder is None:
            return None
        claim, _, run = (holder.decode() if isinstance(holder, bytes) else str(holder)).rpartition(":")
        if not claim or (claim != part.claim and is_held(ha, claim)):
            return False
        # Of the same claim: a child that ran into its time limit, counted by the main process.
        part.run = run
        pipe.multi()
        pipe.set(key, part.token, ex=KEPT)
        try:
            pipe.execute()
        except WatchError:
            return None
    log.warning("The body of a chord is published by task %s: whoever was about to do it is gone", key)
    return True


def _part() -> _Part:
    part = _counted.get()
    if part is None:  # pragma: no cover - Celery's scripts have one caller
        raise RuntimeError("a chord's script outside of on_chord_part_return")
    return part


def _claim_of(ha: Any, request: Any) -> str:
    """The claim of the message for which a part is counted, if it ends after that."""
    task = get_current_worker_task()
    told = request if task is None else task.request
    task = task or ha.app.tasks.get(getattr(request, "task", None))
    claim = str((getattr(told, "properties", None) or {}).get("delivery_tag", ""))
    return claim if ha.node is not None and task is not None and task.acks_late and "." in claim else ""


def _is_going() -> bool:
    """Whether this process was told to exit: Celery cleans up in a ``finally``, published or not."""
    error = sys.exc_info()[1]
    return error is not None and not isinstance(error, Exception)


def _has_moved_on(ha: Any) -> bool:
    try:
        ensure_claimed(ha)
    except Fenced:
        return True
    return False
