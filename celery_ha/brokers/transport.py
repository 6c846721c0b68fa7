"""kombu's Redis transport, with claims instead of pop-then-record.

kombu pops a message and records it as unacknowledged afterwards; a worker that dies in between has
lost it (14 tasks in 25 kills, measured). Here one script pops and records.

A channel becomes a claiming one when it starts to consume with acks inside a worker that has a
lease; every other channel (producers, scripts, Flower, pidbox) is kombu's own, except that publishing
rings the queue's bell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from queue import Empty
from time import monotonic
from typing import Any

from kombu.exceptions import OperationalError
from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import NoScriptError, RedisError, ResponseError

from celery_ha.brokers.intake import Intake
from celery_ha.brokers.poller import ClaimingPoller
from celery_ha.brokers.publishing import RingingChannel
from celery_ha.brokers.qos import ClaimQoS
from celery_ha.brokers.redis import CLAIM, claim_command, read_batch
from celery_ha.brokers.suspects import Suspects
from celery_ha.errors import StoreUnavailable
from celery_ha.forks import minding_forks
from celery_ha.lua import not_now
from celery_ha.model import Batch, Claim, Ending

logger = logging.getLogger(__name__)

#: Queues scanned by one claim while busy; the rest take their turn.
SCAN_WIDTH = 8
#: Messages claimed at once at the most.
BATCH = 100
#: Seconds between looks at all queues: while idle for producers that ring no bell, while busy so
#: that a queue whose bell nobody heard is not starved.
SCAN_IDLE, SCAN_BUSY = 1.0, 0.25
#: Seconds after which the answer to a claim comes late. Less than it takes to fence a lease whose connections are gone.
LATE = 0.25


class ClaimingChannel(RingingChannel):
    """A kombu Redis channel that claims."""

    QoS = ClaimQoS

    #: The node that consumes here; None: an ordinary channel.
    intake: Intake | None = None
    #: What was asked on the polling connection and not answered yet: "claim", "bell" or nothing of ours.
    asked: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hot: dict[str, None] = {}
        self._plain: set[str] = set()
        self._scan_at = 0.0
        #: Ask and send nothing before this time: the broker refused us.
        self._quiet_until = 0.0
        self._claimed_as = ""
        self._asked_for = 0
        self._consumers_of: dict[str, Callable[[Any], Any]] = {}
        self._suspects = Suspects(self._open)

    # -- consuming --------------------------------------------------------------------------

    def basic_consume(
        self,
        queue: str,
        no_ack: bool,  # noqa: FBT001 - kombu's signature
        callback: Callable[[Any], Any],
        consumer_tag: str,
        **kwargs: Any,
    ) -> Any:
        ret = super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)
        if no_ack:
            self._plain.add(queue)
        elif queue not in self._fanout_queues:
            self._plain.discard(queue)
            self._consumers_of[queue] = callback
            self._bind(queue)
        return ret

    def _bind(self, queue: str) -> None:
        """From here on this channel claims, under the lease the node has now."""
        if self.intake is None:
            self.intake = self.connection.client.intake
        if self.intake is None:
            return
        self.qos.ledger = self.intake.ledger
        # First in turn: what was interrupted on a shard taken over waits at its front.
        self._hot = {queue: None, **self._hot}
        if self.asked == "bell":
            # The outstanding wait does not know this queue: end it.
            self._ring(f"@{self.intake.lease}")

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        self._plain.discard(queue or "")
        self._hot.pop(queue or "", None)
        self._consumers_of.pop(queue or "", None)
        return super()._basic_cancel(consumer_tag)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for messages: one command outstanding, its reply read by :meth:`_brpop_read`."""
        self.asked = None
        intake = self.intake
        if intake is None:
            super()._brpop_start(timeout)
            return
        queues = [queue for queue in self.active_queues if queue not in self._plain]
        now = monotonic()
        if self._plain and (not queues or now < self._scan_at):
            self._start_plain(timeout)
            return
        if now < self._quiet_until or intake.stock_due(now):
            return  # the next turn of the loop asks
        self._suspects.open_next(intake)
        if self._suspects:
            intake.reception.serve(queues)  # left alone on purpose
        if not intake.free_slots():
            return  # whatever the prefetch count allows: what waits is better off where others can take it
        self._in_poll, self._brpop_sent_at = self.client.connection, now
        idle = self._limit(intake) == 0 or (not self._hot and now < self._scan_at)
        if idle and not intake.ledger.owes:
            self._ask_bell(intake, queues, timeout)
        else:
            self._ask_claim(intake, queues, now)

    def _limit(self, intake: Intake) -> int:
        return 0 if self._suspects else intake.batch_limit

    def _start_plain(self, timeout: float | None) -> None:
        """Consume a reply queue of kombu's (mingle) the plain way, in turn with claims."""
        keys = [self._q_for_pri(queue, pri) for pri in self.priority_steps for queue in sorted(self._plain)]
        command = ["BRPOP", *keys, timeout or self.brpop_timeout or 0]
        if self.global_keyprefix:
            command = self.client._prefix_args(command)
        self._in_poll, self._brpop_sent_at = self.client.connection, monotonic()
        self.client.connection.send_command(*command)

    def _ask_bell(self, intake: Intake, queues: list[str], timeout: float | None) -> None:
        layout = self.layout
        bells = [layout.bell(f"@{intake.lease}"), *map(layout.bell, queues)]
        self.asked = "bell"
        self.client.connection.send_command("BZPOPMIN", *bells, timeout or self.brpop_timeout or 1)

    def _ask_claim(self, intake: Intake, queues: list[str], now: float) -> None:
        scan_all = now >= self._scan_at
        if scan_all:
            self._hot.update(dict.fromkeys(queues))
            self._scan_at = now + (SCAN_BUSY if self.qos._delivered else SCAN_IDLE)
            names = self._queue_cycle.consume(len(queues)) if not self._plain else queues
        else:
            names = list(self._hot)[:SCAN_WIDTH]
        self._asked_queues = names
        self._paid = intake.ledger.endings()
        self._claimed_as = intake.lease
        self._asked_for = limit = self.qos.free(min(self._limit(intake), intake.free_slots()))
        keys, args = claim_command(self.layout, intake.lease, names, limit, limit, self._paid)
        self.asked = "claim"
        self.client.connection.send_packed_command([CLAIM.packed(keys, args)])

    def _brpop_read(self, **options: Any) -> Any:
        asked, self.asked = self.asked, None
        intake = self.intake
        if asked is None or intake is None:
            return super()._brpop_read(**options)
        try:
            reply = self._reply("BZPOPMIN" if asked == "bell" else "EVALSHA", options)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        return self._heard(reply) if asked == "bell" else self._received(intake, reply)

    def _flush_brpop_reauth(self) -> None:
        """Kombu 5.7 renews credentials between two commands; kombu 5.6 has no such thing."""
        flush = getattr(super(), "_flush_brpop_reauth", None)
        if flush is not None:
            flush()

    def _reply(self, command: str, options: dict[str, Any]) -> Any:
        try:
            return self.client.parse_response(self.client.connection, command, **options)
        except NoScriptError:
            CLAIM.load(self.raw)  # the server restarted; the claim ran nothing and is asked again
            self._scan_at = 0.0
            raise Empty from None
        except ResponseError as exc:
            if not_now(exc):
                self.client.connection.disconnect()
                raise ConnectionError(f"the broker cannot write now: {exc}") from exc
            raise
        except self.connection_errors:
            self.client.connection.disconnect()
            raise

    def _heard(self, reply: Any) -> bool:
        """A bell rang: that queue, and only that one, is scanned next."""
        if not reply:
            raise Empty
        queue = bytes_to_str(reply[0])[len(self.layout.bell("")) :]
        if queue in self._active_queues:
            self._hot[queue] = None
            if not self.qos.can_consume() or not self.intake.free_slots():  # type: ignore[union-attr]
                # We took the bell and cannot come: let an idle node hear it.
                self._ring(queue)
        return True

    def _received(self, intake: Intake, reply: Any) -> bool:
        batch = read_batch(self._claimed_as, reply)
        if not batch.open:
            self._quiet_until = monotonic() + SCAN_BUSY
            intake.refused()
            raise Empty
        ledger = intake.ledger
        ledger.confirmed(self._paid)
        if self._asked_for:
            intake.reception.serve(self._asked_queues)
        self._take_turns(batch)
        claims = batch.claims
        if monotonic() - self._brpop_sent_at >= LATE:
            # We may have been frozen, and fenced meanwhile, before we notice that our connections are gone: ask.
            claims = tuple(replace(claim, started=False) for claim in claims)
        ledger.took(claims)
        for claim in claims:
            self._deliver_claim(intake, claim)
        if not batch.claims:
            raise Empty
        return True

    def _take_turns(self, batch: Batch) -> None:
        """Forget queues that were emptied; those that gave something go to the end of the line."""
        for queue in self._asked_queues:
            if queue not in batch.more:
                self._hot.pop(queue, None)
        for claim in batch.claims:
            queue = self.layout.queue(claim.source)
            if queue in self._hot:
                self._hot[queue] = self._hot.pop(queue)

    def _deliver_claim(self, intake: Intake, claim: Claim) -> None:
        """Open one message, unless it is a suspect; what comes after a suspect stays behind it."""
        if self._suspects.take(intake, claim):
            return
        if self._suspects:
            self._give_back(claim)
        else:
            self._open(claim)

    def _open(self, claim: Claim) -> None:
        """Hand one message to its consumer; a message nobody can read goes to the dead letters."""
        deliver = self._consumers_of.get(self.layout.queue(claim.source))
        if deliver is None:  # cancelled while the claim was under way
            self._give_back(claim)
            return
        try:
            raw = loads(bytes_to_str(claim.payload))
            raw["properties"]["delivery_tag"] = claim.id
            # Whoever publishes these properties again publishes another message.
            raw["properties"].pop("ha_publish_id", None)
            message = self.Message(raw, channel=self)
        except Exception as exc:  # noqa: BLE001 - anything may be in a queue
            self._bury(claim, f"not a task message: {exc!r}")
            return
        self.qos.append(message, claim.id)
        try:
            deliver(message)
        except OSError:
            raise
        except (RedisError, OperationalError):
            logger.exception("Message %s goes back to its queue: a server did not do its part", claim.id)
            self._give_back(claim)
            self.qos.drop(claim.id)
            self._quiet_until = monotonic() + SCAN_IDLE
        except Exception as exc:  # noqa: BLE001 - a message must not kill the worker
            self._bury(claim, f"cannot be handled: {exc!r}")

    def _give_back(self, claim: Claim) -> None:
        """To the front of its queue: the attempt did not start, whatever its mark says."""
        self.qos.ledger.defer(claim.id)
        self.qos.ledger.end(claim.id, Ending.RELEASE)

    def _bury(self, claim: Claim, reason: str) -> None:
        logger.error(
            "Message %s from queue %r goes to the dead letters: %s. It begins: %.200r",
            claim.id,
            claim.source,
            reason,
            claim.payload,
        )
        self.qos.bury(claim.id, reason)

    def pay(self) -> None:
        """Send what is owed, except what a claim that is under way carries."""
        intake = self.intake
        if intake is None or self._closing or monotonic() < self._quiet_until:
            return
        ledger, under_way = intake.ledger, self.asked == "claim"
        try:
            if not under_way:
                intake.between_claims()
            with ledger.telling(deferrals=under_way) as owed:
                open_ = not owed or intake.settle(owed)
                if open_:
                    ledger.confirmed(owed)
        except StoreUnavailable as exc:
            raise ConnectionError(str(exc)) from exc  # what a worker reconnects for
        if not open_:
            self._quiet_until = monotonic() + SCAN_BUSY
            intake.refused()

    def close(self) -> None:
        """Never wait for a reply: under a stall that held the loop while fenced tasks went on.

        A claim whose reply is lost with the connection is found again by rule 2.
        """
        if self.intake is not None:
            self._in_poll = None
        super().close()


class ClaimingTransport(redis.Transport):
    """``redis://``, ``rediss://``, ``redis+socket://``."""

    Channel = ClaimingChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = ClaimingPoller()


class ClaimingSentinelChannel(ClaimingChannel, redis.SentinelChannel):
    """A claiming channel on the master that Sentinel names."""

    connection_class_ssl = minding_forks(redis.SentinelChannel.connection_class_ssl)


class ClaimingSentinelTransport(redis.SentinelTransport):
    """``sentinel://``."""

    Channel = ClaimingSentinelChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = ClaimingPoller()
