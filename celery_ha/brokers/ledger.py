"""What one lease holds and what it still owes the broker.

Acks belong to the lease, not to a channel (rule 2): a channel that dies takes nothing with it, the
next one sends what is owed. Ending a claim twice is harmless on the broker, so an ending is dropped
here only after the broker confirmed it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from celery_ha.envelope import redelivered
from celery_ha.model import Claim, Ending, Settlement

#: Endings sent in one request; a script has room for so many arguments.
AT_ONCE = 1_000


class Ledger:
    """The claims of one lease, from delivery to confirmed end. Safe to call from any thread.

    Args:
        lease: the lease that claims.
        on_owed: called after an ending was noted, to wake whoever sends it.
    """

    def __init__(self, lease: str, on_owed: Callable[[], None] = lambda: None) -> None:
        self.lease = lease
        self._on_owed = on_owed
        self._mutex = threading.Lock()
        self._telling = threading.Lock()
        self._held: dict[str, bool] = {}
        self._claims: dict[str, Claim] = {}
        self._running: set[str] = set()
        self._owed: dict[str, Settlement] = {}
        #: Grows with everything that is owed.
        self.changes = 0

    def holds(self, claim: str) -> bool:
        """Whether the claim has not ended here."""
        return claim in self._held

    def took(self, claims: Iterable[Claim]) -> None:
        """Claims arrived."""
        with self._mutex:
            for claim in claims:
                self._held[claim.id] = claim.started
                self._claims[claim.id] = claim

    def started(self, claim: str) -> bool:
        """Whether the broker has the attempt marked started."""
        return self._held.get(claim, False)

    def mark(self, claim: str) -> bool:
        """The broker has the attempt marked started, and the gate has not seen it yet. False: not held any more."""
        with self._mutex:
            return self._mark(claim)

    def run(self, claim: str) -> bool:
        """The gate lets the attempt through: the broker has its mark. False: not held any more."""
        with self._mutex:
            if self._mark(claim):
                self._running.add(claim)
                return True
            return False

    def _mark(self, claim: str) -> bool:
        if claim not in self._held:
            return False
        self._held[claim] = True
        if self.deferred(claim):  # it starts after all
            del self._owed[claim]
        return True

    def running(self) -> frozenset[str]:
        """Held claims that the gate has let through."""
        with self._mutex:
            return frozenset(self._running)

    def idle(self) -> tuple[str, ...]:
        """Held claims that the gate has not let through, newest first."""
        with self._mutex:
            waiting = [claim for claim in self._held if claim not in self._running]
            return tuple(sorted(waiting, key=_number_of, reverse=True))

    def held(self) -> tuple[str, ...]:
        """All claims that have not ended, newest first."""
        with self._mutex:
            return tuple(sorted(self._held, key=_number_of, reverse=True))

    def source(self, claim: str) -> str | None:
        """Where a held claim came from."""
        found = self._claims.get(claim)
        return None if found is None else found.source

    def forget(self, claim: str) -> None:
        """Lose sight of a claim: what the broker did is unknown, rule 2 finds out."""
        with self._mutex:
            self._held.pop(claim, None)
            self._claims.pop(claim, None)
            self._running.discard(claim)

    def end(self, claim: str, ending: Ending, *, reason: str = "") -> bool:
        """Note how a claim ends; the first ending counts. False: not ours, or already ended.

        A started attempt that goes back goes back with its delivery count raised.
        """
        with self._mutex:
            started = self._held.pop(claim, None)
            if started is None:
                return False
            self._running.discard(claim)
            payload = self._claims.pop(claim).payload
            mended = redelivered(payload, started=True) if started and ending is Ending.RELEASE else None
            self._owe(Settlement(claim, ending, reason, mended))
        self._on_owed()
        return True

    def defer(self, claim: str) -> None:
        """A marked attempt waits after all; it will ask again before it runs."""
        with self._mutex:
            if not self._held.get(claim):
                return
            self._held[claim] = False
            self._owe(Settlement(claim, Ending.DEFER))

    def _owe(self, item: Settlement) -> None:
        self._owed.pop(item.claim, None)  # the newest is the last
        self._owed[item.claim] = item
        self.changes += 1

    def since(self, changes: int) -> tuple[tuple[Settlement, ...], int]:
        """What came to be owed after so many changes, and how many there are now; it may be more than that."""
        with self._mutex:
            # Fewer than before: counted by a lease that is over.
            return tuple(islice(reversed(self._owed.values()), max(0, self.changes - changes))), self.changes

    def owed(self) -> tuple[Settlement, ...]:
        """What to send: newest claim first, so that what goes back ends up in its old order."""
        return self._newest_first(lambda _item: True)

    @contextmanager
    def telling(self, *, deferrals: bool = False) -> Iterator[tuple[Settlement, ...]]:
        """What to send in a call that has its answer before this is left, together with a start or not.

        Where several call at once (greenlets; a thread, while the worker leaves), only one at a time tells of
        deferrals: another one could tell the same once more after the attempt has started.

        **Failure:** whatever is raised in here counts as no answer, see :meth:`unanswered`. Dying in here is dying
        before the call or after it: an attempt is marked, and counts, or it is not.

        Args:
            deferrals: only those.
        """
        what = self.deferrals if deferrals else self.owed
        found = what()
        if not any(item.ending is Ending.DEFER for item in found):
            yield found
            return
        with self._telling:
            found = what()
            try:
                yield found
            except BaseException:
                self.unanswered(found)
                raise

    def deferred(self, claim: str) -> bool:
        """Whether its mark is still to be taken back."""
        owed = self._owed.get(claim)
        return owed is not None and owed.ending is Ending.DEFER

    def endings(self) -> tuple[Settlement, ...]:
        """What a command may carry that nobody waits for: an ending changes nothing, however late it arrives."""
        return self._newest_first(lambda item: item.ending is not Ending.DEFER)

    def deferrals(self) -> tuple[Settlement, ...]:
        """What must be answered before anything is started: arriving later, it would unmark an attempt that runs."""
        return self._newest_first(lambda item: item.ending is Ending.DEFER)

    def _newest_first(self, wanted: Callable[[Settlement], bool]) -> tuple[Settlement, ...]:
        with self._mutex:
            return tuple(sorted(filter(wanted, self._owed.values()), key=_number, reverse=True)[:AT_ONCE])

    def confirmed(self, settled: Iterable[Settlement]) -> None:
        """The broker answered: forget what it now knows, unless it changed meanwhile."""
        with self._mutex:
            for item in settled:
                if self._owed.get(item.claim) is item:
                    del self._owed[item.claim]

    def unanswered(self, sent: Iterable[Settlement]) -> None:
        """No answer came: the broker may carry it out now, or when it wakes up, or never.

        For an ending that is all one: it is told again. A deferral that is carried out later unmarks an attempt that
        runs by then, so such a claim never starts: it goes back, and comes under another one.
        """
        with self._mutex:
            for item in sent:
                if item.ending is Ending.DEFER and self._owed.get(item.claim) is item:
                    self._held.pop(item.claim, None)
                    self._claims.pop(item.claim, None)
                    self._running.discard(item.claim)
                    self._owe(Settlement(item.claim, Ending.RELEASE))

    def strangers(self, held: Iterable[str]) -> tuple[str, ...]:
        """Claims the broker holds for us that we do not know: their delivery was lost on the way."""
        with self._mutex:
            return tuple(claim for claim in held if claim not in self._held and claim not in self._owed)

    def adopt(self, claims: Iterable[str]) -> None:
        """Give back claims we never saw."""
        with self._mutex:
            for claim in claims:
                self._owe(Settlement(claim, Ending.RELEASE))

    @property
    def owes(self) -> bool:
        """Whether the broker has still to hear of something."""
        return bool(self._owed)


def _number(item: Settlement) -> int:
    return _number_of(item.claim)


def _number_of(claim: str) -> int:
    return int(claim.rpartition(".")[2])
