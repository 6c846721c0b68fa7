"""The gate: the last step in the main process before a task goes to the pool.

``Request.revoked`` is the one method that every way to the pool calls; Celery's strategy redefines
the others without ``super()``.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from functools import cache, wraps
from inspect import signature
from types import NoneType
from typing import TYPE_CHECKING, Any

from billiard.exceptions import Terminated, WorkerLostError
from celery.exceptions import Ignore, InvalidTaskError, Reject
from celery.worker import state
from celery.worker.request import Request

from celery_ha.envelope import attempts
from celery_ha.locks.busy import Busy
from celery_ha.locks.unique import HANDED_OVER, HEADER
from celery_ha.worker.child import NotStarted
from celery_ha.worker.condemn import condemn
from celery_ha.worker.recount import count_late

if TYPE_CHECKING:
    from celery_ha.worker.node import WorkerNode

logger = logging.getLogger(__name__)

#: Seconds before a task whose lock is busy is given back, doubled each time it comes again here.
BUSY_FIRST, BUSY_MOST = 0.05, 1.0


def claim_of(request: Any) -> str:
    """The claim a request came with."""
    return str(request.message.delivery_tag)


def refuse_malformed(request: Any) -> None:
    """Celery unpacks three parts of a body and lets them fail in the pool, whatever they are.

    Raises:
        InvalidTaskError: they are not a list, a mapping and a mapping.
    """
    args, kwargs, embedded = request._payload
    fits = isinstance(args, (list, tuple)) and isinstance(kwargs, Mapping)
    if not fits or not isinstance(embedded, (Mapping, NoneType)):
        raise InvalidTaskError("the body is not [arguments, keyword arguments, embedded options]")


def misfit(request: Any) -> str:
    """Why the task can never be called with these arguments; empty if it can, or wants no check."""
    if request.task.typing:
        try:
            signature(request.task.run, follow_wrapped=False).bind(*request.args, **request.kwargs)
        except (TypeError, ValueError) as exc:
            return str(exc)
    return ""


def _then(call: Callable[..., Any], do: Callable[[], None]) -> Callable[..., Any]:
    @wraps(call)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        finally:
            do()

    return called


@cache
def gated(base: type[Request], gate: Gate) -> type[Request]:
    """The request class of a task, a user's own included, with the gate in front."""
    base = getattr(base, "ungated", base)

    class GatedRequest(base):
        __doc__ = base.__doc__
        ungated = base

        #: Somebody else runs it by now: nothing is told of its end here.
        disowned = False

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            refuse_malformed(self)

        def revoked(self) -> bool:
            if gate.lost(self):
                return True
            if super().revoked():
                gate.dropped(self)
                return True
            # Celery also asks on arrival, for revoked and expired tasks: nothing starts then.
            return self in state.reserved_requests and not gate.passes(self)

        def __init_subclass__(cls, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            if "on_success" in vars(cls):  # the class of Celery's strategy, which calls no super()
                cls.on_success = _then(cls.on_success, gate.slot_freed)

        def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                told = kwargs.get("return_ok", False)
                return gate.ours(self, exc_info, told=told) or super().on_failure(exc_info, *args, **kwargs)
            finally:
                gate.slot_freed()

        def on_timeout(self, soft: bool, timeout: float) -> None:  # noqa: FBT001 - Celery's signature
            if gate.owns_timeout(self, soft=soft):
                super().on_timeout(soft, timeout)
            gate.timed_out(self, soft=soft)
            gate.slot_freed()

    return GatedRequest


class Gate:
    """Decides with the node whether a request may start, and what becomes of one that may not.

    Args:
        node: the node, through all its leases.
    """

    def __init__(self, node: WorkerNode) -> None:
        self._node = node

    def lost(self, request: Any) -> bool:
        """Whether the message was given back while it waited for a slot, or may be somebody else's for another reason.

        Not even that it was revoked or has expired is told then.
        """
        if self._node.claims.trusts(claim_of(request)):
            return False
        self.give_back(request)
        return True

    def disowns(self, request: Any) -> bool:
        """Whether somebody else runs by now what came to an end here, or may: nothing may be told of it (rule 13).

        What the main process tells is meant: of a child it has lost or killed, of a rejection. A process that runs a
        body asks for itself.

        **Failure:** a broker that does not answer has the message given back, as that of an attempt that was
        interrupted.
        """
        claims, claim = self._node.claims, claim_of(request)
        if not request.task.acks_late or request._already_revoked or claims.confirms(claim):
            return False
        if not request._already_cancelled:  # by ourselves, as a zombie
            logger.warning("%s ended here after its message had moved on, as far as is known: nothing is told", request)
        claims.interrupted(claim)
        self.leave(request)
        request.disowned = True
        return True

    def passes(self, request: Any) -> bool:
        """Ask for the start (rule 1); what may not start is no longer this worker's business."""
        if attempts(request.request_dict) >= self._node.config.max_deliveries:
            self.leave(request)
            condemn(self._node, request)
            return False
        if self._node.claims.start(claim_of(request)):
            return True
        self.leave(request)
        return False

    def leave(self, request: Any) -> None:
        """Forget a request here; its message is elsewhere, or its owner will find it."""
        request.acknowledged = True
        state.task_ready(request)
        qos = getattr(request.message.channel, "qos", None)
        if qos is not None:
            qos.drop(claim_of(request))

    def slot_freed(self) -> None:
        """The loop may ask for more: a pool of threads ends its tasks elsewhere, and early acks wake nobody."""
        self._node.wake()
        self._node.on_slot_freed()

    def give_back(self, request: Any) -> None:
        """To the front of its queue, as an attempt that did not start."""
        self._node.claims.give_back(claim_of(request))
        self.leave(request)

    def dropped(self, request: Any) -> None:
        """It will not come back: what is locked in trust for it is free (rule 9)."""
        self._node.locks_ended(claim_of(request), request.id)

    def child_gone(self, request: Any) -> None:
        """Its child was killed and released nothing (rule 5)."""
        self._node.locks_ended(claim_of(request))

    def ended_untold(self, request: Any) -> None:
        """It came to an end that nobody is told of: the key of a unique task is free."""
        if key := request.request_dict.get(HEADER):
            self._node.free_key(key, request.id)

    def owns_timeout(self, request: Any, *, soft: bool) -> bool:
        """Whether it may be told that a time limit is over; a prefork pool has come by ``on_failure`` before."""
        return soft or (not request.disowned and (request.acknowledged or not self.disowns(request)))

    def timed_out(self, request: Any, *, soft: bool) -> None:
        """A hard limit kills its child, right after this."""
        if not soft:
            self._node.dying.once_gone(claim_of(request), request.worker_pid, lambda: self.child_gone(request))

    def ours(self, request: Any, exc_info: Any, *, told: bool) -> bool:
        """Whether a failure was of our own making, or nobody's business any more, and is dealt with.

        Args:
            request: what failed.
            exc_info: why.
            told: the process that ran it has told, if that is called for; else this one will.
        """
        exc = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(exc, NotStarted):
            self.give_back(request)
            return True
        if isinstance(exc, Busy):
            self.stand_in_line(request, exc)
            return True
        if isinstance(exc, (WorkerLostError, Terminated, SystemExit)):
            self.child_gone(request)
        if (not told or isinstance(exc, (Ignore, Reject))) and self.disowns(request):
            return True
        if isinstance(exc, Ignore) or (isinstance(exc, Reject) and not exc.requeue):
            if not getattr(exc, HANDED_OVER, False):
                self.ended_untold(request)
        elif isinstance(exc, Reject):  # it wants to run again: no attempt that never came to its end
            self._node.claims.give_back(claim_of(request))
        elif isinstance(exc, (WorkerLostError, SystemExit)):
            return count_late(self._node, request, leave=self.leave)
        elif isinstance(exc, TypeError) and (reason := misfit(request)):
            # Celery tells FAILURE; the first ending counts, so its ack does not drop the message.
            why = f"wrong arguments: {reason}"
            self._node.claims.bury(claim_of(request), why)
            self._node.announcer.buried(claim_of(request), why, "arguments", request.id, request.task.name)
            self.dropped(request)
        return False

    def stand_in_line(self, request: Any, busy: Busy) -> None:
        """The lock is busy: the message waits for it on the server, without a slot, without a retry."""
        claims = self._node.claims
        if not busy.limit or claims.parking is None:
            self.stand_by(request, busy)
            return
        claim, task = claim_of(request), str(request.id)
        claims.stock.standing_by.add(claim)
        self.leave(request)
        self._node.aside.run(lambda: claims.park(claim, task, busy.lock, busy.limit))

    def stand_by(self, request: Any, busy: Busy) -> None:
        """There is no line to stand in: give the message back a little later."""
        node = self._node
        state.task_ready(request)
        node.claims.defer(claim_of(request))
        if busy.doubtful:  # a grant whose answer was lost must not outlive the attempt that asked for it
            node.locks_ended(claim_of(request))
        take_back = node.lend()

        def stand_down() -> None:
            take_back()
            self.give_back(request)

        delay = min(BUSY_MOST, BUSY_FIRST * 2 ** node.busy.again(request.id)) * random.uniform(0.5, 1)
        node.later(delay, stand_down)
