"""A channel to RabbitMQ whose deliveries belong to a lease.

RabbitMQ keeps the messages; what is added is that a delivery is known by a claim under the lease of the
worker it came to, that its end is settled in the store before RabbitMQ is told, and that a message whose
earlier attempt is not over waits here without a slot (rule 17).

A channel does so once it consumes with acks in a worker that has a lease; every other one is kombu's own,
except that tasks are published with an id, and with confirms.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from amqp import spec
from amqp.exceptions import RecoverableConnectionError
from kombu.transport import pyamqp

from celery_ha.brokers.amqp_consumers import Consumers
from celery_ha.brokers.amqp_dead import DeadLetterBox
from celery_ha.brokers.amqp_endings import Answers, Endings
from celery_ha.brokers.amqp_envelope import as_envelope
from celery_ha.brokers.intake import Intake
from celery_ha.brokers.ledger import Ledger
from celery_ha.brokers.suspects import Suspects
from celery_ha.brokers.unacked import OWN_ID, Delivery
from celery_ha.envelope import DELIVERIES, SUSPECT_AFTER, UNSTARTED
from celery_ha.errors import Fenced, StoreUnavailable
from celery_ha.model import Claim, Ending, Settlement

if TYPE_CHECKING:
    from celery_ha.brokers.amqp import AmqpBroker

logger = logging.getLogger(__name__)

#: Seconds before a message that waits for the end of an earlier attempt is asked about again, the same when members
#: have changed, and before a store that did not answer is asked.
ASK_AGAIN, ASK_SOON, STORE_AGAIN = 0.1, 0.02, 1.0
#: Seconds for which the end of an attempt waits for a start to travel with.
LAZY = 0.05
#: Seconds that a publisher waits for a confirm, unless ``broker_transport_options["confirm_timeout"]`` says otherwise.
CONFIRMED_WITHIN = 30.0

#: What nobody waits for an answer to; whoever waits hears of a refusal himself.
UNASKED = {(0, 0), spec.Basic.Ack, spec.Basic.Nack, spec.Basic.Reject}

_numbers = count(1)


class ClaimingChannel(pyamqp.Channel):
    """A channel whose deliveries are claims."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The node that consumes here; None: an ordinary channel.
        self.intake: Intake | None = None
        self._ledger: Ledger | None = None
        self._broker: AmqpBroker
        self._answers: Answers
        self._consumers = Consumers(super().basic_cancel)
        self._suspects = Suspects(self._open_suspect)
        #: Whether what is settled is soon told to RabbitMQ.
        self.attended = True
        #: Ask the store nothing before this time: it did not answer.
        self._quiet_until = self._ask_at = self._asked_at = 0.0
        #: Changes of the membership that were asked after.
        self._changes = 0
        #: When there was last nothing that only RabbitMQ has been told of.
        self._acked_at = 0.0
        #: Changes of the ledger that were looked at, and whether they are more than acks.
        self._seen, self._urgent = 0, False
        #: Why RabbitMQ has closed it.
        self._closed = ""
        self.qos = Endings(lambda: self._ledger)

    # -- publishing -------------------------------------------------------------------------

    def prepare_message(
        self,
        body: Any,
        priority: Any = None,
        content_type: Any = None,
        content_encoding: Any = None,
        headers: Any = None,
        properties: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Kombu calls this again, with the same properties, when it retries a publish (rule 14)."""
        if properties is not None and headers and "task" in headers:
            properties.setdefault("message_id", f"{OWN_ID}{uuid4().hex}")
        return super().prepare_message(body, priority, content_type, content_encoding, headers, properties, **kwargs)

    def basic_publish_confirm(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for RabbitMQ's word, but not for ever: a channel may hang there that was used while a queue came back.

        Raises:
            RecoverableConnectionError: it has not come in time. Whoever retries does so over another connection; if
                RabbitMQ has the message, the second one is dropped (rule 14).
        """
        within = kwargs.get("confirm_timeout") or kwargs.get("timeout")
        if not within and self.connection is not None:  # without one, py-amqp says so
            within = self.connection.client.transport_options.get("confirm_timeout", CONFIRMED_WITHIN)
        try:
            return super().basic_publish_confirm(*args, **{**kwargs, "confirm_timeout": within})
        except TimeoutError:
            raise RecoverableConnectionError(
                f"RabbitMQ has not confirmed a message within {within:g} s; it may have it"
            ) from None

    # -- consuming --------------------------------------------------------------------------

    def basic_qos(self, prefetch_size: int, prefetch_count: int, a_global: bool, **kwargs: Any) -> Any:  # noqa: FBT001
        self._consumers.credit = prefetch_count
        return super().basic_qos(prefetch_size, prefetch_count, a_global, **kwargs)

    def basic_consume(
        self, queue: str = "", consumer_tag: str = "", *, callback: Any = None, no_ack: bool = False, **kwargs: Any
    ) -> Any:
        subscribe = partial(super().basic_consume, queue, **kwargs)
        intake = self.connection.client.intake
        if intake is None or no_ack:
            return subscribe(consumer_tag=consumer_tag, callback=callback, no_ack=no_ack)
        self._bind(intake)

        def arrived(message: Any) -> None:
            self._arrived(queue, message, callback)

        return self._consumers.add(consumer_tag, lambda tag: subscribe(consumer_tag=tag, callback=arrived))

    def basic_cancel(self, consumer_tag: str, **kwargs: Any) -> Any:
        return super().basic_cancel(self._consumers.remove(consumer_tag), **kwargs)

    def _bind(self, intake: Intake) -> None:
        """From here on deliveries come under the lease the node has now."""
        if self.intake is None:
            self.intake, self._ledger = intake, intake.ledger
            self._broker = cast("AmqpBroker", intake.broker)
            self._answers = Answers(self._broker.unacked, DeadLetterBox(self.connection))
            self._broker.unacked.forget_dead()
            self.connection.client.transport.cycle.join(self)

    def _arrived(self, queue: str, message: Any, deliver: Callable[[Any], Any]) -> None:
        claim = f"{self._ledger.lease}.{next(_numbers)}"  # type: ignore[union-attr]
        delivery = Delivery(claim, message, message.delivery_tag, self, queue, deliver)
        # What Celery answers with, and what the task's own process knows the delivery by.
        message.delivery_info["delivery_tag"] = message.properties["delivery_tag"] = claim
        self._broker.unacked.add(delivery)
        self.intake.reception.serve((queue,))  # type: ignore[union-attr]
        self._offer(delivery)

    def _offer(self, delivery: Delivery) -> None:
        """Hand a message to Celery, unless an earlier attempt at it is not over, or there is no trust."""
        unacked = self._broker.unacked
        waited = delivery.claim in unacked.aside
        unacked.aside[delivery.claim] = None
        if not self._may_offer(delivery, waited=waited):
            return
        unacked.aside.pop(delivery.claim, None)
        suspect = delivery.unstarted >= SUSPECT_AFTER
        claim = Claim(delivery.claim, delivery.queue, as_envelope(delivery.message) if suspect else b"")
        self._ledger.took((claim,))  # type: ignore[union-attr]
        if not (suspect and self._suspects.take(self.intake, claim)):  # type: ignore[arg-type]
            self._hand_on(delivery)

    def _open_suspect(self, claim: Claim) -> None:
        if (delivery := self._broker.unacked.get(claim.id)) is not None:
            self._hand_on(delivery)

    def _hand_on(self, delivery: Delivery) -> None:
        """To Celery; a message nobody can read goes to the dead letters."""
        try:
            delivery.deliver(delivery.message)
        except OSError:
            raise
        except Exception as exc:  # a message must not kill the worker
            logger.exception("Message %s from queue %r goes to the dead letters", delivery.claim, delivery.queue)
            self.qos.bury(delivery.claim, f"cannot be handled: {exc!r}")

    def _may_offer(self, delivery: Delivery, *, waited: bool) -> bool:
        if self._suspects or not self.intake.batch_limit:  # type: ignore[union-attr]
            return False  # what comes after a suspect stays behind it
        if not (delivery.again or waited):
            return True
        try:
            earlier = self._broker.earlier(delivery)
        except StoreUnavailable:
            self._quiet_until = time.monotonic() + STORE_AGAIN
            return False
        if earlier.running:
            if not delivery.stuck:
                delivery.stuck = True
                if delivery.again:  # a copy of what runs, published twice, says nothing
                    self.intake.doubt(earlier.lease)  # type: ignore[union-attr]
                self._consumers.wait(delivery.message.delivery_info["consumer_tag"])
            return False
        if earlier.ended and delivery.attempt.once:
            self._broker.unacked.settled.append(Settlement(delivery.claim, Ending.ACK))
            return False
        delivery.headers[DELIVERIES] = earlier.count
        if not earlier.harmless:
            delivery.headers[UNSTARTED] = delivery.unstarted = max(0, delivery.returns - earlier.count)
        return True

    def _on_close(self, reply_code: int, reply_text: str, class_id: int, method_id: int) -> Any:
        """RabbitMQ closes it, say because a delivery has not been acknowledged for half an hour (``consumer_timeout``).

        For py-amqp that is nothing to come back from: it opens the channel again, though not for old deliveries, and
        Celery's worker ends. It is no worse than a lost connection: what runs goes on under its lease. What was refused
        to somebody who asked, a queue that may not be read for one, is an error as ever.

        Raises:
            RecoverableConnectionError: here, and at the next turn, if this one is lost on the way.
        """
        unasked = (class_id, method_id) in UNASKED
        if not unasked or self.intake is None or self.is_closing or self.connection.is_closing:
            return super()._on_close(reply_code, reply_text, class_id, method_id)
        self.send_method(spec.Channel.CloseOk)
        self.is_open = False
        self._closed = f"RabbitMQ closed the channel that is consumed by: {reply_code} {reply_text}"
        raise RecoverableConnectionError(self._closed)

    # -- ending -----------------------------------------------------------------------------

    def basic_ack(self, delivery_tag: Any, multiple: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        if isinstance(delivery_tag, str):
            return self.qos.end(delivery_tag, Ending.ACK)
        return super().basic_ack(delivery_tag, multiple, **kwargs)

    def basic_reject(self, delivery_tag: Any, requeue: bool, **kwargs: Any) -> Any:  # noqa: FBT001
        if isinstance(delivery_tag, str):
            return self.qos.end(delivery_tag, Ending.RELEASE if requeue else Ending.DEAD, "rejected")
        return super().basic_reject(delivery_tag, requeue, **kwargs)

    def turn(self) -> float | None:
        """Settle what has ended, tell RabbitMQ, and ask about what waits.

        Raises:
            Fenced: the lease is fenced.
            RecoverableConnectionError: RabbitMQ has closed the channel.
        """
        if self._closed:
            raise RecoverableConnectionError(self._closed)
        intake = self.intake
        if intake is None or not self.is_open:
            return None
        intake.check()
        now, ledger, unacked = time.monotonic(), intake.ledger, self._broker.unacked
        owes = ledger.owes
        if not owes:
            self._acked_at = now
        # What was looked at before waits for a start to travel with.
        news = owes and (ledger.changes != self._seen or now >= self._acked_at + LAZY)
        if news or unacked.settled or intake.stock_due(now):
            self.pay()
        if self._suspects:
            self._suspects.open_next(intake)
        if not (unacked.aside or self._suspects):
            return LAZY if owes else None
        if self._changes != intake.changes:
            self._changes = intake.changes
            self._ask_at = min(self._ask_at, self._asked_at + ASK_SOON)
        if now >= max(self._quiet_until, self._ask_at):
            self._asked_at, self._ask_at = now, now + ASK_AGAIN
            if self._ask_again():
                self.connection.client.transport.cycle.turn_again()
            self._consumers.renew()
        return ASK_AGAIN

    def pay(self, *, dead: bool = True) -> None:
        """Settle what has ended, and tell RabbitMQ; what the store does not answer for is told later."""
        intake, now = self.intake, time.monotonic()
        if intake is None or not self.is_open:
            return
        if now >= self._quiet_until:
            try:
                self._settle(intake, now)
            except Fenced:
                pass  # nothing is owed any more; what was settled before is said
            except StoreUnavailable as exc:
                logger.warning("What has ended is told later: %s", exc)
                self._quiet_until = now + STORE_AGAIN
        self._answers.flush(dead=dead)

    def rest(self) -> None:
        """No turns any more: RabbitMQ may close the connection before it hears of what ends now.

        What waits for the end of another's attempt waits in its queue, not for the last task of a worker that leaves.
        """
        self.attended = False
        if self.intake is None or not self.is_open:
            return
        unacked = self._broker.unacked
        for claim in tuple(unacked.aside):
            delivery = unacked.get(claim)
            if delivery is not None and delivery.channel is self:
                unacked.settled.append(Settlement(claim, Ending.RELEASE))
        self._answers.flush(dead=False)

    def _settle(self, intake: Intake, now: float) -> None:
        if intake.stock_due(now):
            intake.between_claims()
        ledger = intake.ledger
        if not ledger.owes:
            self._acked_at = now
            return
        latest, self._seen = ledger.since(self._seen)
        self._urgent |= not self._answers.ack(latest)
        if not self._urgent and self.attended and now < self._acked_at + LAZY:
            return  # the next start carries them, or a later turn
        self._acked_at = now
        with ledger.telling() as owed:
            if intake.settle(owed):
                ledger.confirmed(owed)
                self._urgent = False
            else:
                self._quiet_until = now + STORE_AGAIN
                intake.refused()

    def _ask_again(self) -> bool:
        """Returns whether anything came of it."""
        unacked = self._broker.unacked
        before = tuple(unacked.aside)
        for claim in before:
            delivery = unacked.get(claim)
            if delivery is not None and delivery.channel is self:
                self.intake.reception.serve((delivery.queue,))  # it takes credit meanwhile
                self._offer(delivery)
        self._answers.flush()
        return tuple(unacked.aside) != before
