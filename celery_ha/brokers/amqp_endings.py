"""What becomes of a delivery, and how RabbitMQ is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kombu.transport import pyamqp

from celery_ha.brokers.amqp_dead import DeadLetterBox
from celery_ha.brokers.ledger import Ledger
from celery_ha.brokers.unacked import Unacked
from celery_ha.model import Ending, Settlement


class Endings:
    """What Celery's side of a worker does to a delivery besides acking it; kombu's Redis channels have it as theirs.

    Args:
        ledger: of the lease that the channel consumes under.
    """

    def __init__(self, ledger: Callable[[], Ledger | None]) -> None:
        self._ledger = ledger

    def end(self, claim: str, ending: Ending, reason: str = "") -> None:
        if (ledger := self._ledger()) is not None:
            ledger.end(claim, ending, reason=reason)

    def bury(self, claim: str, reason: str) -> None:
        """To the dead letters."""
        self.end(claim, Ending.DEAD, reason)

    def drop(self, claim: str) -> None:
        """RabbitMQ counts by itself what it may still send."""


class Answers:
    """Tells RabbitMQ how deliveries ended; only the loop's own thread does.

    Args:
        unacked: what this process holds.
        dead: takes the copies of what is given up.
    """

    def __init__(self, unacked: Unacked, dead: DeadLetterBox) -> None:
        self._unacked = unacked
        self._dead = dead

    def ack(self, owed: Iterable[Settlement]) -> bool:
        """Tell RabbitMQ of what has simply ended, before the store: the next message comes the sooner.

        It is safe whatever became of the lease: a message that has moved on is not this channel's any more.

        Returns:
            Whether there is nothing else among what is owed.

        **Failure:** dying before the store is told leaves an attempt that seems interrupted, of a message
        that is gone; or, if the ack was lost too, one that runs again.
        """
        plain = True
        for item in owed:
            if item.ending is Ending.ACK:
                self._ack(item.claim)
            else:
                plain = False
        return plain

    def flush(self, *, dead: bool = True) -> None:
        """Tell RabbitMQ what was settled in the store; dead letters only if that may wait for an answer."""
        settled = self._unacked.settled
        if not settled:
            return
        now: list[Settlement] = []
        later: list[Settlement] = []
        while settled:
            item = settled.popleft()
            (now if dead or item.ending is not Ending.DEAD else later).append(item)
        settled.extend(later)
        # The oldest first: what goes back to a quorum queue is delivered again in the order it came back.
        for item in sorted(now, key=lambda item: int(item.claim.rpartition(".")[2])):
            self._answer(item)

    def _ack(self, claim: str) -> None:
        delivery = self._unacked.get(claim)
        if delivery is not None and delivery.alive and not delivery.acked:
            delivery.acked = True
            pyamqp.Channel.basic_ack(delivery.channel, delivery.tag)

    def _answer(self, item: Settlement) -> None:
        if item.ending is Ending.DEFER:
            return
        if item.ending is Ending.ACK:
            self._ack(item.claim)
        delivery = self._unacked.pop(item.claim)
        if delivery is None or not delivery.alive or delivery.acked:
            return
        if item.ending is Ending.RELEASE:
            pyamqp.Channel.basic_reject(delivery.channel, delivery.tag, requeue=True)
            return
        if item.ending is Ending.DEAD:
            self._dead.put(delivery, item.reason)
        pyamqp.Channel.basic_ack(delivery.channel, delivery.tag)
