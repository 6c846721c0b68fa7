"""The broker port on RabbitMQ, which keeps the messages itself and delivers them again itself (rule 17).

What the other brokers have as claims in flight is here the record of attempts, in the store: a
delivery that has not started is nobody's business but RabbitMQ's, and needs no recovery.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from celery_ha.attempts.base import ACK_OWED, ACK_SENT, Attempts, Earlier, Started
from celery_ha.brokers.base import NodeBroker
from celery_ha.brokers.unacked import Delivery, Unacked
from celery_ha.errors import StoreUnavailable
from celery_ha.model import Claim, Ending, Readable, Settlement


class AmqpBroker(NodeBroker):
    """A worker's broker, on RabbitMQ.

    There is no record of open leases besides the store's own: a lease joins and is fenced there alone.

    Args:
        attempts: in the store.
        cut_off: closes the connection of a fenced lease.
        unacked: what this process holds.
        widest: of a queue and its configured shards, how many there are; None: nobody looks.

    Raises:
        StoreUnavailable: the store could not be reached in time; the call may have happened.
    """

    hands_over = True
    priorities = False
    delays = True

    def __init__(
        self,
        attempts: Attempts,
        unacked: Unacked | None = None,
        *,
        cut_off: Callable[[str], None] | None = None,
        widest: Callable[[str, int], int] | None = None,
    ) -> None:
        self._widest = widest
        self._cut_off = cut_off
        self._attempts = attempts
        self._question = attempts.question()
        self.asks = self._question is not None
        self.rings = self._question is not None and self._question.rings
        #: Claims that starts are asked for, those of them that are here, and the endings that went along.
        self._asked: tuple[tuple[str, ...], tuple[str, ...], tuple[Settlement, ...]] = (), (), ()
        self.unacked = unacked or Unacked()

    # -- holding ----------------------------------------------------------------------------

    def join(self, lease: str) -> bool:
        return True

    def leave(self, lease: str) -> bool:
        return self._attempts.forget(lease)

    def start(self, lease: str, claim: str, *, settle: Sequence[Settlement] = ()) -> bool:
        """As the port says; a message whose earlier attempt is not over is set aside and asked about again."""
        delivery = self.unacked.get(claim)
        if delivery is None:
            return False
        answer = self._attempts.start(lease, delivery.attempt, self._remembered(settle))
        if answer is not Started.CLOSED:
            self.unacked.settled.extend(settle)
        if answer is Started.NOT_NOW:
            self.unacked.aside[claim] = None
        return answer is Started.YES

    def ask(self, lease: str, claims: Sequence[str], settle: Sequence[Settlement]) -> Readable | None:
        found = [delivery for claim in claims if (delivery := self.unacked.get(claim)) is not None]
        if self._question is None or not found:
            return None
        self._asked = tuple(claims), tuple(delivery.claim for delivery in found), tuple(settle)
        return self._question.ask(lease, [delivery.attempt for delivery in found], self._remembered(settle))

    def answer(self) -> Mapping[str, bool]:
        claims, found, settle = self._asked
        self._asked = (), (), ()
        if self._question is None:
            return {}
        try:
            answers = dict(zip(found, self._question.answer(), strict=True))
        except StoreUnavailable:
            self._question.close()
            raise
        if Started.CLOSED not in answers.values():
            self.unacked.settled.extend(settle)
        self.unacked.aside.update(dict.fromkeys(claim for claim, got in answers.items() if got is Started.NOT_NOW))
        return {claim: answers.get(claim) is Started.YES for claim in claims}

    def earlier(self, delivery: Delivery) -> Earlier:
        """What is known of earlier attempts at a message."""
        return self._attempts.earlier(delivery.attempt.message)

    def settle(self, lease: str, settle: Sequence[Settlement]) -> bool:
        """First in the store, then, by the loop, on RabbitMQ.

        **Failure:** dying in between has the message delivered again; whoever gets it finds that it
        has ended.
        """
        done = self._attempts.settle(lease, self._remembered(settle))
        if done:
            self.unacked.settled.extend(settle)
        return done

    def held(self, lease: str) -> dict[str, bool]:
        """What is written down as started, and what was delivered here and has not ended."""
        started = {attempt.claim: True for attempt in self._attempts.under(lease)}
        return {**dict.fromkeys(self.unacked.delivered(), False), **started}

    def holds(self, lease: str, claim: str) -> bool:
        return self._attempts.holds(lease, claim)

    def _remembered(self, settle: Sequence[Settlement]) -> list[tuple[Settlement, float]]:
        """Each ending, with the seconds for which a message that has ended may still be delivered again."""
        return [
            (_for_the_record(item), ACK_SENT if self.unacked.answerable(item.claim) else ACK_OWED) for item in settle
        ]

    # -- recovery ---------------------------------------------------------------------------

    def fence(self, lease: str) -> None:
        """Done by the store; a frozen process loses its connection now, or by RabbitMQ's own heartbeat.

        **Failure:** what it had not started waits for the heartbeat then; what it runs is fenced already.
        """
        if self._cut_off is not None:
            self._cut_off(lease)

    def in_flight(self, lease: str) -> list[Claim]:
        """The attempts that had started; of their payload only as much as their locks need."""
        return [
            Claim(found.claim, found.queue, _stub(found.task), started=True) for found in self._attempts.under(lease)
        ]

    def requeue(self, claims: Iterable[tuple[Claim, bytes]]) -> int:
        """Note that attempts are over and count. RabbitMQ requeues their messages itself, only once."""
        by_lease: dict[str, list[str]] = {}
        for claim, _ in claims:
            by_lease.setdefault(claim.lease, []).append(claim.id)
        return sum(self._attempts.interrupted(lease, ids) for lease, ids in by_lease.items())

    def forget(self, lease: str) -> bool:
        return self._attempts.forget(lease)

    def strangers(self, known: frozenset[str]) -> frozenset[str]:
        return frozenset()

    # -- queues -----------------------------------------------------------------------------

    def queue_of(self, source: str) -> str:
        return source

    def widest(self, queue: str, shards: int) -> int:
        """As many as there are on RabbitMQ: whoever used a larger count declared them, and they stay."""
        return shards if self._widest is None else self._widest(queue, shards)


def _for_the_record(item: Settlement) -> Settlement:
    """A dead letter has come to its end when its copy is confirmed: until then it must be delivered again."""
    return Settlement(item.claim, Ending.RELEASE) if item.ending is Ending.DEAD else item


def _stub(task: str) -> bytes:
    return json.dumps({"headers": {"id": task}, "properties": {}}).encode()
