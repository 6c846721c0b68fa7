"""Celery's consumer, consuming under a lease."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from celery.worker import consumer, state
from kombu.common import ignore_errors
from kombu.utils.imports import symbol_by_name

from celery_ha.brokers.dead import DeadLetters
from celery_ha.brokers.redis import RedisBroker
from celery_ha.errors import Fenced, StoreUnavailable
from celery_ha.locks.unique import HEADER
from celery_ha.rabbitmq import on_priorities, on_rabbitmq
from celery_ha.telling import news
from celery_ha.worker.condemn import condemn_unopened
from celery_ha.worker.cut import cut
from celery_ha.worker.gate import Gate, claim_of, gated
from celery_ha.worker.node import WorkerNode
from celery_ha.worker.pool import GuardedPool
from celery_ha.worker.reconnect import Reads, drop_waiting, finish_writes, watch_again
from celery_ha.worker.revocations import Shared
from celery_ha.worker.slots import slots_of
from celery_ha.worker.standby import Standby
from celery_ha.worker.starts import Starts
from celery_ha.worker.waiting import Waiting

logger = logging.getLogger(__name__)

#: Seconds between two looks for dead pool children.
REAP_EVERY = 1.0
#: Seconds after the loop's start, when it listens to broadcasts: what was revoked since it has connected, it missed.
LISTENS_AFTER = (1.0, 5.0)


class Consumer(consumer.Consumer):
    """Claims under the node's lease; follows its shards; comes back after a fence."""

    node: WorkerNode
    pool: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.node = kwargs["app"].ha.node
        self.gate = Gate(self.node)
        #: Of the connection there is, or was last.
        self._cycle: Any = None
        self._standby = Standby(self)
        self._reads: Reads | None = None
        self._told = False
        super().__init__(*args, **kwargs)
        self.node.concurrency = lambda: slots_of(self.pool)
        self.node.later = self.timer.call_after
        self.node.lend = self._lend
        self.node.claims.on_hopeless = lambda claim: condemn_unopened(self.node, self.app, claim)
        self.node.stock.live = lambda: frozenset(map(claim_of, (*state.reserved_requests, *state.active_requests)))
        self.node.stock.credit = self._give_credit_back
        ttl, broker = self.node.config.dead_letters_ttl, self.node.broker
        if ttl and isinstance(broker, RedisBroker):
            dead = DeadLetters(broker)
            self.node.stock.tidy = lambda: self.node.aside.run(lambda: dead.expire(ttl))
        self.node.on_members = self._members_changed
        self.node.reception.cut = lambda: cut(self)
        self._reaping: Any = None
        self._revoked = Shared(self.node.store.revocations, self.node.insist_for_good)

    # -- connecting -------------------------------------------------------------------------

    def connect(self) -> Any:
        """Open a lease if there is none, connect, and give back what nobody here will run.

        After a reconnect under a living lease what runs goes on and acks by its claim; all else in
        flight goes back to the front before consuming starts, since nobody else would recover it.
        """
        try:
            if self.node.fenced:
                self._become_zombie()
            self.node.ensure_open()
            self._revoked.read()  # a store that is away is found before there is a connection
            connection = super().connect()
            try:
                self._take_up(connection)
            except BaseException:
                ignore_errors(connection, connection.close)  # the loop knows it already, and would keep it
                raise
        except StoreUnavailable as exc:
            raise ConnectionError(str(exc)) from exc  # Celery tries again
        self._tell_of_priorities(connection)
        self._select_shards()
        watch_again(self.pool)
        self._reads = self._reads or Reads(self.pool)
        self.node.signs.show(connected=True)
        return connection

    def _take_up(self, connection: Any) -> None:
        """Consume by it, under the lease there is, knowing what is revoked."""
        connection.intake = self.node
        connection.dead_letters_max = self.node.config.dead_letters_max
        self._cycle = connection.transport.cycle
        self.node.wake = self._cycle.wake
        self.node.reconnected()
        self._declare_shards(connection)
        self._revoked.read()

    def _tell_of_priorities(self, connection: Any) -> None:
        """Once: what RabbitMQ makes of them."""
        if self._told or not on_rabbitmq(self.app.conf):
            return
        self._told = True
        tasks = self.app.tasks.values()
        wanted = any(which.priority is not None for which in tasks) or self.app.conf.task_default_priority is not None
        version = str(connection.connection.server_properties.get("version", ""))
        for sentence in on_priorities(self.app.amqp.queues.consume_from.values(), wanted=wanted, version=version):
            logger.warning("Priorities: %s", sentence)

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        """Whose it is, the broker hears when it is connected."""
        connection = self.app.connection_for_read(heartbeat=heartbeat)
        connection.lease = self.node.lease
        return self.ensure_connected(connection)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        self.node.pulse_stops()
        self.node.share.lose()
        self.node.signs.show(connected=False)
        if isinstance(exc, Fenced):
            self._become_zombie()
        super().on_connection_error_after_connected(exc)

        # Celery kills what it cannot ack any more, if told to; nobody but us delivers it again.
        for request in tuple(state.active_requests):
            if request._already_cancelled:
                self.node.claims.interrupted(claim_of(request))

    def on_close(self) -> None:
        """Celery drops what its pool has not started; under a living lease it goes on."""
        if self.node.fenced:
            super().on_close()
            self._starts("clear")
            return
        drop_waiting(self, self.node.claims.runs)
        for _ in range(self._starts("clear") or 0):
            self.controller._quick_release()
        finish_writes(self.pool)

    def _starts(self, what: str) -> Any:
        """Tell those who wait for their start, where somebody keeps them waiting."""
        starts = getattr(self.controller, "_process_task", None)
        return getattr(starts, what)() if isinstance(starts, (Starts, Waiting)) else None

    def _become_zombie(self) -> None:
        """Stop all that ran under the fenced lease, before anything touches the broker (rule 13).

        Its tasks run elsewhere by now. Children are killed, so that they write no result and no
        RETRY; what threads and solo run cannot be stopped, but its ack goes nowhere.
        """
        logger.error("Fenced: dropping %d running tasks, then rejoining", len(state.active_requests))
        for request in tuple(state.active_requests):
            if not request.task.acks_late:
                continue  # its message is gone: nobody else will run it
            request.acknowledged = True
            try:
                request.cancel(self.pool, signal="KILL", emit_retry=False)
            except NotImplementedError:
                logger.warning("%s runs on here: this kind of pool cannot stop a task", request)
            except Exception:
                logger.exception("Could not stop %s", request)
        for request in tuple(state.reserved_requests):
            request.acknowledged = True

    def register_with_event_loop(self, hub: Any) -> None:
        """Look for dead children more often than Celery does, every 5 s.

        A child's pipe closes a moment before the child can be waited for: the one look that Celery
        takes at that moment may come too early.
        """
        super().register_with_event_loop(hub)
        if self._reads is not None:
            self._reads.resume(hub)
        for seconds in LISTENS_AFTER:
            hub.call_later(seconds, self._revoked.read_again)
        if self._reaping is not None:
            self._reaping.cancel()
        self._reaping = hub.call_repeatedly(REAP_EVERY, self._look_after_pool)

    def on_ready(self) -> None:
        """It consumes: shards come to it from here on."""
        self.node.consume()
        super().on_ready()

    def _look_after_pool(self) -> None:
        self._revoked.learn()
        starts = self.controller._process_task
        if isinstance(starts, Starts) and not self.node.broker.rings:
            starts.look(self.node.config.store_timeout)
        self.pool.maintain_pool()
        active, signs = frozenset(map(claim_of, tuple(state.active_requests))), self.node.signs
        if signs.pool(self.node.claims.given() - active, free=len(active) < slots_of(self.pool)):
            self.node.announcer.tell(news.WEDGED, reason="its pool has a free process and takes no task")

    # -- tasks ------------------------------------------------------------------------------

    def update_strategies(self) -> None:
        """Celery builds each task's strategy from its request class and the pool: give it gated ones."""
        for task in self.app.tasks.values():
            task.Request = gated(symbol_by_name(task.Request), self.gate)
        pool, self.pool = self.pool, GuardedPool(self.pool)
        try:
            super().update_strategies()
        finally:
            self.pool = pool

    def call_soon_ack(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """Acks are only noted, so they need not wait for the loop's next turn.

        Noted before the next task asks to start, they travel with that question.
        """
        return p(*args, **kwargs)

    def call_soon(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """Celery 5.6 has no way of its own for acks; on green pools they would wait up to 2 s."""
        if getattr(p, "__name__", "") in {"ack_log_error", "reject_log_error"}:
            return self.call_soon_ack(p, *args, **kwargs)
        return super().call_soon(p, *args, **kwargs)

    def _lend(self) -> Callable[[], None]:
        """Credit for a message that waits here without wanting a slot, as Celery gives it to ETA tasks.

        Returns:
            Takes it back, from the prefetch count it was given to: a reconnect makes a new one.
        """
        qos = self.qos
        qos.increment_eventually()
        return qos.decrement_eventually  # type: ignore[no-any-return]

    def _give_credit_back(self, claim: str) -> None:
        """Of a message that no request answers for any more; on the loop."""
        if self.task_consumer is not None:
            self.task_consumer.channel.qos.drop(claim)

    def _limit_task(self, request: Any, bucket: Any, tokens: float) -> Any:
        """A rate limit makes it wait: it asks again before it starts."""
        self.node.claims.defer(claim_of(request))
        return super()._limit_task(request, bucket, tokens)

    # -- bad messages -----------------------------------------------------------------------

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._end(message, f"cannot be decoded: {exc!r}", "undecodable")

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._end(message, "not a task message", "invalid")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Celery logs it, tells FAILURE and rejects it; the first ending counts, and says why."""
        self._end(message, f"unknown task: {exc}", "unknown")
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._end(message, f"invalid task message: {exc}", "invalid")

    def _end(self, message: Any, reason: str, cause: str) -> None:
        """To the dead letters; what is locked in trust for it is free (rule 9), and it blocks no other of its kind."""
        claim, headers = str(message.delivery_tag), getattr(message, "headers", None)
        message.channel.qos.bury(claim, reason)
        known = headers if isinstance(headers, dict) else {}
        self.node.announcer.buried(claim, reason, cause, known.get("id"), known.get("task"))
        if not isinstance(headers, dict) or not headers.get("id"):
            return
        self.node.locks_ended(claim, str(headers["id"]))
        if headers.get(HEADER):
            self.node.free_key(headers[HEADER], headers["id"])

    # -- shards -----------------------------------------------------------------------------

    def _members_changed(self) -> None:
        """From the observer's thread."""
        super().call_soon(self._follow_members)
        self.node.wake()

    def _follow_members(self) -> None:
        """Take over new shards with their backlog; let go of others with what has not started."""
        if self.connection is None or self.task_consumer is None:
            return
        wanted, now = self.node.shards(), self._selected_shards()
        leave = now - wanted - self._standby.still(wanted)
        for queue in sorted(leave):
            self.cancel_task_queue(queue)
        if leave:
            self._let_go(frozenset(leave))
        self._subscribe(wanted - now)
        self.node.announcer.moved("membership changed", now, (now - leave) | wanted)
        self._standby.later()

    def _subscribe(self, queues: Iterable[str]) -> None:
        for queue in sorted(queues):
            self._select(queue)
            self.add_task_queue(queue)

    def _let_go(self, queues: frozenset[str]) -> None:
        given = set(self.node.claims.give_back_idle(queues))
        for request in tuple(getattr(state, "scheduled_requests", ())):  # Celery 5.6 keeps no account
            entry = request._eta_timer_entry
            if claim_of(request) in given and entry is not None and request not in state.reserved_requests:
                self.timer.cancel(entry)
                self.qos.decrement_eventually()
                self.gate.leave(request)
        for request in tuple(state.reserved_requests):
            if claim_of(request) in given:
                self.gate.leave(request)
        # What waits for a rate limit is in no set of the worker's, and takes credit.
        for bucket in filter(None, self.task_buckets.values()):
            for waiting in tuple(bucket.contents):
                if claim_of(waiting[0]) in given:
                    bucket.contents.remove(waiting)
                    self.gate.leave(waiting[0])

    def _declare_shards(self, connection: Any) -> None:
        """Celery binds every queue to the end of RabbitMQ's delays next, whoever consumes it: it must be there.

        A producer binds the shards it publishes to, once; if they were deleted since, what it delays would be dropped.
        """
        if self.node.broker.hands_over:
            for shard in self.node.share.names():
                self.app.amqp.queues[shard](connection.default_channel).declare()

    def _select_shards(self) -> None:
        """Before Celery reasserts what it consumes: the shards that are ours now."""
        wanted, before, queues = self.node.shards(), self._selected_shards(), self.app.amqp.queues
        self.node.announcer.moved("connected", before, wanted)
        for queue in before - wanted:
            queues.deselect(queue)
        for queue in sorted(wanted):
            self._select(queue)
        self._standby.clear()
        self._standby.later()

    def _select(self, queue: str) -> None:
        """What is selected is consumed again after a reconnect, and let go of when it moves on.

        Celery 5.6 does not select, in ``add_task_queue``, a queue that it knows already.
        """
        queues = self.app.amqp.queues
        queues.select_add(queues[queue])

    def _selected_shards(self) -> set[str]:
        return {name for name in self.app.amqp.queues.consume_from if self.node.share.is_shard(name)}

    # -- leaving ----------------------------------------------------------------------------

    def stop(self) -> None:
        """A warm shutdown begins: the shards move at once, what has not started goes back."""
        self.node.drain()
        super().stop()
        self._starts("settle")
        self.node.claims.give_back_idle()
        self._say("rest")
        self.node.unpack()

    def shutdown(self) -> None:
        """The pool is gone: say goodbye before the connection goes."""
        self.perform_pending_operations()
        self._revoked.close()
        self.node.close()
        self._say("pay")
        super().shutdown()

    def _say(self, what: str) -> None:
        """Where that is not done by whoever settles: tell the broker what has ended, while there is a connection."""
        if self._cycle is not None:
            ignore_errors(self, getattr(self._cycle, what))
