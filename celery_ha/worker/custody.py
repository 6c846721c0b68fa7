"""What a node does with the messages it holds: start them, give them back, bury them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from celery_ha.brokers.base import NodeBroker
from celery_ha.config import Config
from celery_ha.errors import StoreError, StoreUnavailable
from celery_ha.model import Claim, Ending, Holder, Parked, Readable, Settlement
from celery_ha.store.base import Parking
from celery_ha.worker.life import Life
from celery_ha.worker.stock import Stock

logger = logging.getLogger(__name__)


class Custody:
    """The claims of a node's current life.

    Args:
        life: the current one; None: there is no lease, and nothing is held.
        broker: for questions that must be answered before the loop goes on.
        stock: where it is noted that something got lost.
        reaching: around a question: the loop waits for an answer, it is not wedged.
        config: settings.
    """

    def __init__(
        self,
        life: Callable[[], Life | None],
        broker: NodeBroker,
        stock: Stock,
        reaching: Callable[[], AbstractContextManager[None]],
        config: Config,
    ) -> None:
        self._life = life
        self._broker = broker
        #: Notes what got lost.
        self.stock = stock
        self._reaching = reaching
        self._inherit = config.lock_inherit
        self.max_deliveries = config.max_deliveries
        #: Gives up a message that must not be opened.
        self.on_hopeless: Callable[[Claim], None] = lambda _claim: None
        #: Where messages wait for their locks; None: broker and store are not one server.
        self.parking: Parking | None = None
        #: What was asked by :meth:`ask` and is not answered yet: claims, and the endings that went along.
        self._asked: tuple[Life, tuple[str, ...], tuple[Settlement, ...]] | None = None

    def start(self, claim: str) -> bool:
        """The write without which no body runs (rule 1).

        Returns:
            False: the attempt must not start; its message is elsewhere, given back, or found by
            :meth:`take_stock`.
        """
        life = self._life()
        if life is None or not self.holds(claim):
            return False
        ledger = life.ledger
        if not life.keeper.trusted:
            ledger.defer(claim)
            ledger.end(claim, Ending.RELEASE)
            return False
        self.stock.standing_by.discard(claim)
        if ledger.started(claim):
            return ledger.run(claim)
        return self._ask(life, claim) and ledger.run(claim)

    def ask(self, claims: Sequence[str]) -> Readable | None:
        """Ask for the marks of claims that have a slot, without waiting.

        :meth:`start` sees them after :meth:`answered`.

        What may not start any more is not asked for, and :meth:`start` refuses it. Nor is what was marked, waits after
        all, and is still to be unmarked: told again on another connection, that would undo the mark of what runs.
        :meth:`start` tells it and has its answer.

        Returns:
            What can be read from when the answer is there; None: nothing was asked.

        **Failure:** dying before the answer leaves attempts that may be marked and did not run: each counts, as it
        does when :meth:`start` dies before its answer. They had a slot; what waits for one is never asked for.
        """
        life = self._life()
        if life is None or not life.keeper.trusted:
            return None
        ledger = life.ledger
        wanted = [each for each in claims if self.holds(each) and not (ledger.started(each) or ledger.deferred(each))]
        owed = ledger.endings()
        try:
            by = self._broker.ask(ledger.lease, wanted, owed) if wanted else None
        except StoreUnavailable as exc:
            self._unanswered(life, wanted, exc)
            return None
        if by is not None:
            self._asked = life, tuple(wanted), owed
        return by

    @property
    def asking(self) -> bool:
        """Whether an answer to :meth:`ask` is still to come."""
        return self._asked is not None

    def answered(self) -> None:
        """Read the answer to :meth:`ask`, waiting for it if it is not there.

        A claim that was given back meanwhile is given back again: its start may have been written after that.
        """
        if self._asked is None:
            return
        (life, wanted, owed), self._asked = self._asked, None
        ledger = life.ledger
        try:
            granted = self._broker.answer()
        except StoreUnavailable as exc:
            self._unanswered(life, wanted, exc)
            return
        if any(granted.values()):
            ledger.confirmed(owed)
        for claim, yes in granted.items():
            if not yes:
                ledger.forget(claim)
                life.refused()
            elif not ledger.mark(claim):
                ledger.adopt(ledger.strangers((claim,)))

    def _unanswered(self, life: Life, claims: Iterable[str], exc: StoreUnavailable) -> None:
        logger.warning("Could not ask to start claims %s: %s", ", ".join(claims), exc)
        for claim in claims:
            life.ledger.forget(claim)
        self.stock.again(0.0)

    def mark(self, claim: str) -> bool:
        """Count an attempt from here on: whatever it does when it is opened, it did (rule 15).

        Returns:
            False: its message is elsewhere, given back, or found by :meth:`take_stock`.
        """
        life = self._life()
        return life is not None and self.holds(claim) and self._ask(life, claim) and life.ledger.mark(claim)

    def condemn(self, claim: Claim) -> None:
        """Give up a message without opening it."""
        self.on_hopeless(claim)

    def marked(self, claim: str) -> bool:
        """Whether the broker has this attempt marked started already."""
        life = self._life()
        return life is not None and self.holds(claim) and life.ledger.started(claim)

    def holds(self, claim: str) -> bool:
        """Whether the claim is in this node's hands, under its current lease."""
        life = self._life()
        return life is not None and not life.fenced and life.ledger.holds(claim)

    def trusts(self, claim: str) -> bool:
        """Whether the claim is in this node's hands, and its lease may be trusted."""
        life = self._life()
        return life is not None and self.holds(claim) and life.keeper.trusted

    def confirms(self, claim: str) -> bool:
        """Whether it may be told what became of an attempt: its message has not moved on (rule 13).

        The broker is asked if the lease is in doubt, as it is just after a freeze; no answer is none that allows it.
        """
        life = self._life()
        if life is None or not self.holds(claim):
            return False
        if life.keeper.trusted:
            return True
        try:
            with self._reaching():
                return self._broker.holds(life.ledger.lease, claim)
        except StoreUnavailable as exc:
            logger.warning("Could not ask whether claim %s is still here: %s", claim, exc)
            return False

    def _ask(self, life: Life, claim: str) -> bool:
        ledger = life.ledger
        try:
            with ledger.telling() as owed:
                if not self.holds(claim):
                    return False  # given back, while somebody else was telling
                with self._reaching():
                    granted = self._broker.start(ledger.lease, claim, settle=owed)
                if granted:
                    ledger.confirmed(owed)
        except StoreUnavailable as exc:
            self._unanswered(life, (claim,), exc)
            return False
        if not granted:
            ledger.forget(claim)
            life.refused()
        return granted

    def given(self) -> frozenset[str]:
        """Claims that the gate has let through to the pool, and that have not come to an end."""
        life = self._life()
        return frozenset() if life is None else life.ledger.running() - self.stock.standing_by

    def runs(self, claim: str) -> bool:
        """Whether the gate has let this claim through."""
        life = self._life()
        return life is not None and claim in life.ledger.running()

    def interrupted(self, claim: str) -> None:
        """A started attempt was killed: to the front of its queue, counted."""
        if (life := self._life()) is not None:
            life.ledger.end(claim, Ending.RELEASE)

    def defer(self, claim: str) -> None:
        """A started attempt did not run its body after all and waits."""
        if (life := self._life()) is not None:
            life.ledger.defer(claim)
            self.stock.standing_by.add(claim)

    def give_back(self, claim: str) -> None:
        """To the front of its queue, not counted as an attempt."""
        self.stock.standing_by.discard(claim)
        if (life := self._life()) is not None:
            life.ledger.defer(claim)
            life.ledger.end(claim, Ending.RELEASE)

    def give_back_idle(self, queues: frozenset[str] | None = None) -> tuple[str, ...]:
        """Give back every claim that the gate has not let through, of these queues or of all."""
        life, given = self._life(), []
        if life is None:
            return ()
        ledger = life.ledger
        for claim in ledger.idle():
            source = ledger.source(claim) or ""
            if queues is None or self._broker.queue_of(source) in queues:
                self.give_back(claim)
                given.append(claim)
        return tuple(given)

    def park(self, claim: str, task: str, lock: str, limit: int) -> None:
        """Have a message wait in line for a lock; off the loop.

        **Failure:** an answer that is lost has the message given back, which changes nothing if it was moved.
        """
        life = self._life()
        if life is None or self.parking is None:
            return
        try:
            parked = self.parking.park(lock, Holder(life.ledger.lease, claim, task), limit=limit, inherit=self._inherit)
        except (StoreUnavailable, StoreError) as exc:
            logger.warning("Could not have claim %s wait for the lock %r: %s", claim, lock, exc)
            parked = Parked.DUE
        except Exception:  # whatever it was: a message that stands by is looked for by nobody else
            logger.exception("Could not have claim %s wait for the lock %r", claim, lock)
            parked = Parked.DUE
        if parked is Parked.DUE:
            self.give_back(claim)
            return
        self.stock.standing_by.discard(claim)
        life.ledger.forget(claim)
        if parked is Parked.GONE:
            life.refused()

    def ended(self, claim: str) -> None:
        """An attempt came to its end; from any thread."""
        if (life := self._life()) is not None:
            life.ledger.end(claim, Ending.ACK)

    def bury(self, claim: str, reason: str) -> None:
        """To the dead letters; from any thread."""
        if (life := self._life()) is not None:
            life.ledger.end(claim, Ending.DEAD, reason=reason)
