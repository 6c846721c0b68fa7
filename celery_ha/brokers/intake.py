"""What a channel needs of the node that consumes through it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from celery_ha.brokers.base import NodeBroker
from celery_ha.brokers.ledger import Ledger
from celery_ha.model import Claim, Settlement


class Keeping(Protocol):
    """What may be done with a claim that nobody has opened."""

    #: Attempts that may start before a message is given up.
    max_deliveries: int

    @property
    def asking(self) -> bool:
        """Whether attempts may be marked whose answer is not here yet."""

    def mark(self, claim: str) -> bool:
        """Have the broker mark its attempt started; False: it is not ours (any more)."""

    def condemn(self, claim: Claim) -> None:
        """Give it up: tell everybody, then keep it among the dead letters."""


class Heard(Protocol):
    """Where a channel notes which queues it hears of."""

    def serve(self, queues: Iterable[str]) -> None:
        """These queues gave something, or were asked and had nothing to give."""


class Intake(Protocol):
    """The consuming side of a node, under its current lease."""

    @property
    def lease(self) -> str:
        """Id of the current lease."""

    @property
    def ledger(self) -> Ledger:
        """What the lease holds and owes."""

    @property
    def broker(self) -> NodeBroker:
        """For calls that must be answered before the loop goes on."""

    @property
    def batch_limit(self) -> int:
        """The most messages to claim at once: 1 for a pool that runs tasks inside the read."""

    @property
    def changes(self) -> int:
        """Differs when members have changed: an attempt that was in the way may be over."""

    @property
    def claims(self) -> Keeping:
        """What may be done with a message that is not opened."""

    @property
    def reception(self) -> Heard:
        """Where to note which queues are heard of."""

    def free_slots(self) -> int:
        """Pool slots that would start a task at once."""

    def check(self) -> None:
        """Called on every turn of the loop; raises :class:`~celery_ha.errors.Fenced` if the lease is fenced."""

    def doubt(self, lease: str) -> None:
        """The broker has given up the connection of another node, or of this one's before: what it runs came here."""

    def refused(self) -> None:
        """The broker does not know the lease as open."""

    def settle(self, owed: tuple[Settlement, ...]) -> bool:
        """Send endings now; False: the lease is not open.

        Raises:
            StoreUnavailable: the broker was not reached.
        """

    def stock_due(self, now: float) -> bool:
        """Whether :meth:`between_claims` has something to do, for which no claim may be under way."""

    def between_claims(self) -> None:
        """No claim is under way: the moment to compare what we hold with what the broker has (rule 2).

        Raises:
            StoreUnavailable: the broker was not reached.
        """
