"""One lock in the hand of one holder."""

from __future__ import annotations

import logging
import os
from concurrent.futures import TimeoutError  # noqa: A004 - another one before Python 3.11
from contextlib import suppress
from math import inf
from time import monotonic, sleep
from types import TracebackType

from celery_ha.errors import LockBusy, LockLost, StoreUnavailable
from celery_ha.locks.report import Report
from celery_ha.model import Grant, Holder
from celery_ha.store.base import LockStore
from celery_ha.store.persistent import Persistent

log = logging.getLogger(__name__)

#: Seconds a release is repeated for while the store does not answer, and between two tries.
RELEASE_WITHIN, RELEASE_AGAIN = 30.0, 0.5

TAKEN = "it was lost before it was released, and what it guards may have been touched by somebody else meanwhile"


class Lock:
    """A lock under a lease: it needs no renewal, and it is gone when the lease is.

    A lock says who may go on; it does not stop a holder that lost it and has not noticed. Where that
    matters, hand :attr:`token` to what the lock guards and let it refuse a smaller one.

    Args:
        locks: the store.
        name: what is locked.
        holder: who takes it.
        inherit: seconds for which it is kept for the holder's task if the holder dies.
        limit: how many may hold it at a time.
        max_hold: seconds after which it is free whatever its holder does; None: never.
        report: where it is told what becomes of it; None: to the log.
    """

    def __init__(
        self,
        locks: LockStore,
        name: str,
        holder: Holder,
        *,
        inherit: float,
        limit: int = 1,
        max_hold: float | None = None,
        report: Report | None = None,
    ) -> None:
        self.name = name
        self.holder = holder
        self.limit = limit
        #: It is known to be gone although its holder has not given it back.
        self.lost = False
        #: Local monotonic time at which ``max_hold`` is over.
        self.held_until = inf
        self.report = report or Report()
        self._locks = locks
        self._inherit = inherit
        self._max_hold = max_hold
        self._token: int | None = None
        self._borrowed = False
        self._unanswered = False
        self._pid = os.getpid()

    def __repr__(self) -> str:
        state = "not held" if self._token is None else f"token {self._token}"
        return f"<Lock {self.name!r} {state}>"

    @property
    def token(self) -> int:
        """The number of this grant; every later grant of the lock has a larger one.

        Raises:
            LockLost: it is not held.
        """
        if self._token is None:
            raise LockLost(f"the lock {self.name!r} is not held")
        return self._token

    @property
    def settled(self) -> bool:
        """Nothing is held as far as the store told, and no answer of it is missing.

        A call that was interrupted, by an exception raised in this thread from outside or by a store that
        does not answer, leaves one unsettled: only the end of its claim surely frees it.
        """
        return self._token is None and not self._unanswered

    def acquire(self, wait: float = 0.0) -> Grant:
        """Ask for the lock.

        Args:
            wait: seconds to stand in line for it.

        Returns:
            The store's answer; its token is None if the lock is busy.

        Raises:
            StoreUnavailable: the store did not answer; the lock may be held, until the claim ends.

        **Failure:** dying right after leaves the lock to the settlement of the lease.
        """
        self._unanswered = True
        with self.report.asking(self.name) as answer:
            grant = answer(
                self._locks.acquire(
                    self.name, self.holder, inherit=self._inherit, limit=self.limit, max_hold=self._max_hold, wait=wait
                )
            )
        self._token, self.lost = grant.token, False
        self._unanswered, self._pid = False, os.getpid()
        if self._max_hold is not None:
            # Never later than from now on: the store's clock may have been set back meanwhile.
            self.held_until = min(monotonic() + self._max_hold, inf if grant.until is None else grant.until)
        # Somebody else in this claim has it already (another thread, or an answer that was lost).
        # Giving it back would take it from them; the end of the claim does.
        self._borrowed = grant.again
        return grant

    def release(self) -> bool:
        """Give the lock back.

        Returns:
            Whether it was still held; False is logged, for then somebody else may have had it meanwhile.
            A store that does not answer is asked again for a while, then logged: the end of the lease
            frees the lock.

        **Failure:** dying before the answer leaves the lock free, or to the settlement of the lease.
        """
        token = self.token
        self._unanswered = not self._borrowed
        self._token = None
        if self._borrowed or self._pid != os.getpid():  # a forked child leaves the block of its parent
            self._unanswered = False
            return True
        self.report.released()
        try:
            released = self._release(token)
        except StoreUnavailable as error:
            log.error(  # noqa: TRY400 - the cause is in the sentence
                "The lock %r (token %d) stays until its lease ends: %s", self.name, token, error
            )
            return True
        except BaseException as error:
            # Raised in this thread from outside: somebody else has to give it back.
            answer = Persistent().run(lambda: self._ask(token, asked=True))
            if isinstance(error, LockLost):
                # Another lock of this body is lost. Whoever hears of that must hear whether this one is, too.
                self.lost = True
                with suppress(TimeoutError):
                    self.lost = not answer.result(RELEASE_WITHIN)
                if self.lost:
                    self.report.lost(self, token, "taken", TAKEN)
            raise
        self._unanswered = False
        if not released:
            self.lost = True
            self.report.lost(self, token, "taken", TAKEN)
        return released

    def _release(self, token: int) -> bool:
        """Ask as often as it takes within :data:`RELEASE_WITHIN`: releasing twice is harmless."""
        deadline = monotonic() + RELEASE_WITHIN
        asked = False
        while True:
            try:
                return self._ask(token, asked=asked)
            except StoreUnavailable:
                if monotonic() > deadline:
                    raise
            asked = True
            sleep(RELEASE_AGAIN)

    def _ask(self, token: int, *, asked: bool) -> bool:
        """Release it; whether it was held.

        Args:
            asked: a first answer may have been lost: then "not held" is what we wanted, unless somebody else may
                have had it before we asked again.
        """
        held = self._locks.release(self.name, self.holder, token)
        return bool(held) or (asked and held is not None and monotonic() < self.held_until)

    def give_back(self) -> None:
        """Release it if it is held; what leaves a block calls it."""
        if self._token is not None:
            self.release()

    def check(self) -> None:
        """Make sure that the lock is still held; call it before touching what the lock guards.

        Raises:
            LockLost: it is not; stop.
            StoreUnavailable: the store did not answer, so nobody knows.
        """
        token = self.token
        if self.lost or not self._locks.holds(self.name, self.holder, token):
            self.lost = True
            self.report.lost(self, token, "taken", TAKEN)
            raise LockLost(f"the lock {self.name!r} (token {token}) was held and is no longer: stop")

    def __enter__(self) -> Lock:  # noqa: PYI034 - typing.Self needs Python 3.11
        grant = self.acquire()
        if grant.token is None:
            raise LockBusy(busy_message(self.name, grant.holder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()


def busy_message(name: str, holder: Holder | None) -> str:
    """Say who has a lock.

    Args:
        name: the lock.
        holder: who holds it, as far as the store told.
    """
    if holder is None:
        return f"the lock {name!r} is not granted now: this node's lease or the store is not settled"
    if not holder.lease:
        return f"the lock {name!r} is kept for task {holder.task}, which was interrupted"
    return f"the lock {name!r} is held by task {holder.task} under lease {holder.lease}"
