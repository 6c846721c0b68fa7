"""Messages that RabbitMQ has delivered to this process and that have not ended.

They stay RabbitMQ's: whatever becomes of this process, they are delivered again when its connection
closes. What is kept here is how to answer for each of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery_ha.attempts.base import Attempt
from celery_ha.model import Settlement

#: What the ids that we give to messages begin with: no two messages have the same.
OWN_ID = "ha:"


@dataclass(eq=False)
class Delivery:
    """One delivery of a message, under the lease it came to."""

    claim: str
    #: As py-amqp has it.
    message: Any
    #: What RabbitMQ calls this delivery, on :attr:`channel`.
    tag: int
    channel: Any
    queue: str
    #: Hands it to Celery.
    deliver: Callable[[Any], Any]
    #: RabbitMQ was told that it has ended.
    acked: bool = False
    #: It waits for the end of an earlier attempt.
    stuck: bool = False
    #: With how many workers it may have died unopened (rule 15); RabbitMQ counts what was given back too.
    unstarted: int = 0

    @property
    def alive(self) -> bool:
        """Whether RabbitMQ still waits for our answer: it forgets a channel with its connection."""
        return bool(self.channel.is_open)

    @property
    def headers(self) -> dict[str, Any]:
        """The message's own headers."""
        found: dict[str, Any] = self.message.properties.setdefault("application_headers", {})
        return found

    @property
    def again(self) -> bool:
        """Whether the message was delivered before, to whomever."""
        return bool(self.message.delivery_info.get("redelivered") or self.headers.get("x-delivery-count"))

    @property
    def returns(self) -> int:
        """How often it came back to its queue, for whatever reason; 0: RabbitMQ does not count there."""
        return int(self.headers.get("x-delivery-count") or 0)

    @property
    def attempt(self) -> Attempt:
        """What to write down of the attempt that this delivery is."""
        properties = self.message.properties
        task = str(self.headers.get("id") or properties.get("correlation_id") or "")
        own = str(properties.get("message_id", ""))
        if own.startswith(OWN_ID):
            return Attempt(self.claim, own, task, self.queue)
        # Of a producer that gives no ids: a retry has the task's id, but another number.
        return Attempt(self.claim, f"{task}/{self.headers.get('retries', 0)}", task, self.queue, once=self.again)


class Unacked:
    """What one process holds. Deliveries are added and answered by the loop; any thread may settle."""

    def __init__(self) -> None:
        self._deliveries: dict[str, Delivery] = {}
        #: Claims whose attempt may not start now, because another is not over: asked about again.
        self.aside: dict[str, None] = {}
        #: Settled in the store; RabbitMQ has still to be told.
        self.settled: deque[Settlement] = deque()

    def add(self, delivery: Delivery) -> None:
        self._deliveries[delivery.claim] = delivery

    def get(self, claim: str) -> Delivery | None:
        return self._deliveries.get(claim)

    def pop(self, claim: str) -> Delivery | None:
        """It has come to its end here."""
        self.aside.pop(claim, None)
        return self._deliveries.pop(claim, None)

    def answerable(self, claim: str) -> bool:
        """Whether RabbitMQ waits for what becomes of it, and will be told in a moment."""
        found = self._deliveries.get(claim)
        return found is not None and found.alive and bool(found.channel.attended)

    def delivered(self) -> frozenset[str]:
        """Claims that were handed to Celery and that RabbitMQ waits for."""
        found = tuple(self._deliveries.values())
        return frozenset(item.claim for item in found if item.alive and not item.acked and item.claim not in self.aside)

    def forget_dead(self) -> None:
        """Their connection is gone: RabbitMQ delivers them again, and what runs ends by its attempt."""
        for delivery in tuple(self._deliveries.values()):
            if not delivery.alive:
                self.pop(delivery.claim)
