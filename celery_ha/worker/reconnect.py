"""What a worker keeps over a reconnect under a living lease: all that its pool has been given.

Celery drops what its pool has not started yet, because the broker will deliver it again. Under a
lease nothing is delivered again: what runs goes on, and so does what is on its way to a child.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker import state

from celery_ha.worker.gate import claim_of

logger = logging.getLogger(__name__)


def drop_waiting(consumer: Any, in_pool: Callable[[str], bool]) -> None:
    """Forget the requests that wait for a slot, an ETA or a rate limit; keep those in the pool.

    Args:
        consumer: Celery's consumer.
        in_pool: whether the claim was let through the gate.
    """
    controller = consumer.controller
    if controller is not None and controller.semaphore is not None:
        # Not clear(): slots of what goes on in the pool stay taken.
        controller.semaphore._waiting.clear()
    for bucket in consumer.task_buckets.values():
        if bucket:
            bucket.clear_pending()
    for request in tuple(state.reserved_requests):
        # What was acked before it ran has no claim any more, and takes its slot all the same.
        if not in_pool(claim_of(request)) and request not in state.active_requests:
            _forget(request)
    for request in tuple(getattr(state, "scheduled_requests", ())):
        entry = getattr(request, "_eta_timer_entry", None)
        if entry is not None:
            consumer.timer.cancel(entry)
        _forget(request)


def _forget(request: Any) -> None:
    state.requests.pop(request.id, None)
    state.reserved_requests.discard(request)
    if hasattr(state, "scheduled_requests"):
        state.scheduled_requests.discard(request)


def watch_again(pool: Any) -> None:
    """Have the next loop notice children that died just before the last one ended.

    Celery stopped to watch such a child before it could be reaped, and has not replaced it. It would register
    the descriptor that it has closed with the next loop, and the worker would exit (``file descriptor is None``).
    """
    asynpool: Any = getattr(pool, "_pool", None)
    for process in tuple(getattr(asynpool, "_pool", None) or ()):
        if getattr(process, "_sentinel_poll", process) is None and process._popen.sentinel is not None:
            del process._sentinel_poll


class Reads:
    """Keeps hold of results that the loop has read in part, over a reset of the loop.

    A prefork child writes a long result (an error with its traceback) in pieces. Celery reads it with a
    generator that only the loop knows; a reset would drop it, the next loop would take the middle of the
    result for the beginning of another, and the worker would end (``UnpicklingError``) and hang.

    Args:
        pool: Celery's pool; of another kind than prefork there is nothing to keep.
    """

    def __init__(self, pool: Any) -> None:
        asynpool: Any = getattr(pool, "_pool", None)
        self._handler: Any = getattr(asynpool, "_result_handler", None)
        self._receive: Any = getattr(self._handler, "_recv_message", None)
        #: By descriptor: the process behind it, and the read that began last.
        self._reading: dict[int, tuple[Any, Any]] = {}
        if self._handler is not None and self._receive is not None:
            self._handler._recv_message = self._track

    def _track(self, add_reader: Any, fd: int, callback: Any) -> Any:
        reading = self._receive(add_reader, fd, callback)
        self._reading[fd] = self._handler.fileno_to_outq.get(fd), reading
        return reading

    def resume(self, hub: Any) -> None:
        """Have a new loop go on where the last one was; what a child that is gone was saying is dropped."""
        for fd, (process, reading) in tuple(self._reading.items()):
            if reading.gi_frame is None or self._handler.fileno_to_outq.get(fd) is not process:
                del self._reading[fd]
            else:
                hub.add_reader(fd, reading)


def finish_writes(pool: Any) -> None:
    """Write out the jobs that are half way to a prefork child: the loop that wrote them is reset.

    A job cut in the middle would garble the next one. Jobs that no child was chosen for stay in the
    pool's buffer and are written by the next loop.
    """
    asynpool: Any = getattr(pool, "_pool", None)
    writers = tuple(getattr(asynpool, "_active_writers", None) or ())
    if not writers:
        return
    owners = {job._writer(): job for job in asynpool._cache.values() if getattr(job, "_writer", None)}
    for writer in writers:
        job = owners.get(writer)
        process = getattr(job, "_write_to", None) or getattr(job, "_scheduled_for", None)
        try:
            if process is not None and process._is_alive():
                asynpool._flush_writer(process, writer)
            else:
                for _ in writer:
                    pass
        except (OSError, EOFError, ValueError):
            logger.exception("A job on its way to a pool child was cut off")
        finally:
            asynpool._active_writers.discard(writer)
