"""Three brokers as benches of the contract suite."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import kombu
import redis
from celery import Celery

from celery_ha import HA, envelope
from celery_ha.attempts.memory import AttemptsServer, MemoryAttempts
from celery_ha.brokers.amqp import AmqpBroker
from celery_ha.brokers.amqp_dead import DEAD_QUEUE
from celery_ha.brokers.amqp_letters import AmqpDeadLetters
from celery_ha.brokers.amqp_peek import Peek
from celery_ha.brokers.base import Broker
from celery_ha.brokers.connection import Connection
from celery_ha.brokers.dead import DeadLetters
from celery_ha.brokers.layout import Layout
from celery_ha.brokers.ledger import Ledger
from celery_ha.brokers.memory import MemoryBroker, MemoryBrokerServer
from celery_ha.brokers.redis import RedisBroker
from celery_ha.failover.recovery import reclaim, recover
from celery_ha.model import Claim, Ending, Node, Settlement, Verdict
from celery_ha.store.memory import MemoryServer, MemoryStore
from celery_ha.testing import Held
from celery_ha.worker.reception import Reception
from tests.support.fleet import eventually

QUEUE = "work"


class Keeper:
    """The endings of one worker: noted in its ledger, then told the broker."""

    def __init__(self, lease: str, broker: Any) -> None:
        self.lease, self.broker, self.ledger = lease, broker, Ledger(lease)
        self._names: dict[str, str] = {}

    def took(self, claim: str, name: str) -> None:
        self._names[claim] = name

    def start(self, held: Held) -> bool:
        return self.broker.start(self.lease, held.claim) and self.ledger.run(held.claim)

    def ack(self, *held: Held) -> bool:
        return self._end(Ending.ACK, *held)

    def release(self, *held: Held) -> bool:
        return self._end(Ending.RELEASE, *held)

    def bury(self, held: Held, reason: str) -> bool:
        return self._end(Ending.DEAD, held, reason=reason)

    def holding(self) -> Mapping[str, bool]:
        return {self._names[claim]: started for claim, started in self.broker.held(self.lease).items()}

    def _end(self, ending: Ending, *held: Held, reason: str = "") -> bool:
        ended = [self.ledger.end(each.claim, ending, reason=reason) for each in held]
        # Somebody else's, or ended already: what a resent ack comes down to.
        again = [Settlement(each.claim, ending, reason) for each, done in zip(held, ended, strict=True) if not done]
        owed = (*self.ledger.owed(), *again)
        done = self.broker.settle(self.lease, owed)
        if done:
            self.ledger.confirmed(owed)
        return bool(done)


class ClaimingHands(Keeper):
    """On a broker that has its messages claimed."""

    broker: Broker

    def __init__(self, lease: str, broker: Broker) -> None:
        super().__init__(lease, broker)
        assert broker.join(lease)

    def claim(self, count: int) -> list[Held]:
        claims = self._claim(count)
        assert len(claims) == count
        return [self._held(claim) for claim in claims]

    def nothing_comes(self) -> bool:
        return not self._claim(1)

    def die(self) -> None:
        """The broker has no connection to watch."""

    def _claim(self, count: int) -> Sequence[Claim]:
        claims = self.broker.claim(self.lease, (QUEUE,), limit=count, slots=0).claims
        self.ledger.took(claims)
        return claims

    def _held(self, claim: Claim) -> Held:
        headers = envelope.headers(claim.payload)
        self.took(claim.id, headers["id"])
        return Held(headers["id"], claim.id, headers, envelope.deliveries(claim.payload))


class ClaimingBench:
    """A broker that has its messages claimed; ``make`` gives a client of it."""

    def __init__(self, make: Any, dead: Any) -> None:
        self._make, self._dead = make, dead
        self._broker: Broker = make()
        self.priorities, self.delays = self._broker.priorities, self._broker.delays

    def publish(
        self, *names: str, priority: int = 0, publish_id: str | None = None, headers: Mapping[str, Any] | None = None
    ) -> None:
        for name in names:
            fields = {"id": name, "eta": None, **(headers or {})}
            payload = json.dumps({"body": name, "headers": fields, "properties": {"delivery_info": {}}}).encode()
            self._broker.publish(QUEUE, payload, priority=priority, publish_id=publish_id)

    def publish_later(self, name: str, seconds: float) -> None:
        self.publish(name, headers={"eta": (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()})

    def worker(self, lease: str) -> ClaimingHands:
        return ClaimingHands(lease, self._make())

    def recover(self, leases: Collection[str]) -> None:
        reclaim(sorted(leases), self._make(), MemoryStore(MemoryServer(time.monotonic)).locks)

    def dead(self) -> Mapping[str, str]:
        return self._dead()

    def close(self) -> None:
        """Nothing is open."""


def memory_bench(_url: str) -> ClaimingBench:
    server = MemoryBrokerServer(time.time)

    def dead() -> Mapping[str, str]:
        return {envelope.headers(claim.payload)["id"]: reason for claim, reason in server.dead.values()}

    return ClaimingBench(lambda: MemoryBroker(server), dead)


def redis_bench(url: str) -> ClaimingBench:
    client = redis.Redis.from_url(url)
    client.flushall()
    letters = DeadLetters(RedisBroker(client, Layout()))

    def dead() -> Mapping[str, str]:
        return {envelope.headers(letter.claim.payload)["id"]: letter.reason for letter in letters}

    return ClaimingBench(lambda: RedisBroker(client, Layout()), dead)


class AmqpHands(Keeper):
    """On RabbitMQ: an intake and a connection, without a worker around them."""

    broker: AmqpBroker
    batch_limit = 100

    def __init__(self, lease: str, broker: AmqpBroker, url: str, queue: kombu.Queue) -> None:
        super().__init__(lease, broker)
        self._queue = queue
        self.reception = Reception(0)
        self._got: list[Any] = []
        self.doubted: list[str] = []
        self.changes = 0
        self.connection: Any = Connection(url)
        self.connection.intake = self
        self._channel = self.connection.default_channel

    # -- intake -----------------------------------------------------------------------------

    def check(self) -> None:
        pass

    def doubt(self, lease: str) -> None:
        self.doubted.append(lease)

    def refused(self) -> None:
        pass

    def settle(self, owed: tuple[Settlement, ...]) -> bool:
        return self.broker.settle(self.lease, owed)

    def stock_due(self, now: float) -> bool:
        return False

    @property
    def claims(self) -> AmqpHands:
        return self

    max_deliveries = 3
    asking = False

    def mark(self, claim: str) -> bool:
        return self.broker.start(self.lease, claim) and self.ledger.mark(claim)

    # -- the test's side --------------------------------------------------------------------

    def claim(self, count: int) -> list[Held]:
        self._until(lambda: len(self._got) >= count, count)
        found, self._got = self._got[:count], self._got[count:]
        return [self._held(message) for message in found]

    def nothing_comes(self) -> bool:
        turns = iter(range(8))
        self._until(lambda: self._got or next(turns, None) is None, 1)
        return not self._got

    def die(self) -> None:
        self.connection.connection.transport.sock.close()
        self.connection.collect()

    def _until(self, enough: Any, count: int) -> None:
        """Consume so many, and no more ahead than that."""
        self._channel.basic_qos(0, count, False)
        consumer = kombu.Consumer(self._channel, [self._queue(self._channel)], on_message=self._got.append)
        with consumer:
            eventually(lambda: self._turn() or enough(), within=15.0, why=f"{count} messages for {self.lease}")

    def _turn(self) -> None:
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=0.05)

    def _held(self, message: Any) -> Held:
        self.took(message.delivery_tag, message.headers["id"])
        return Held(
            message.headers["id"], message.delivery_tag, message.headers, message.headers.get("ha_deliveries", 0)
        )

    def _end(self, ending: Ending, *held: Held, reason: str = "") -> bool:
        done = super()._end(ending, *held, reason=reason)
        if self._channel.is_open:
            self._turn()
        return done


class AmqpBench:
    """RabbitMQ, with leases and attempts in memory, and a queue where none was before."""

    priorities, delays = AmqpBroker.priorities, AmqpBroker.delays

    def __init__(self, url: str) -> None:
        self._url = url
        self._app = Celery("bench", broker=url, set_as_current=False)
        self._app.conf.update(ha_store="redis://nobody.asks.it/0", task_ignore_result=True)
        HA(self._app)
        self._queue = self._app.amqp.queues[f"{QUEUE}-{uuid4().hex}"]
        self._server, self._attempts = MemoryServer(time.monotonic), AttemptsServer()
        self._judge = self._store("judge")
        self._term = self._judge.court.elect("judge")
        self._connection = Connection(url)
        self._producer = self._connection.Producer()
        with suppress(self._connection.channel_errors):  # there was none yet
            self._connection.channel().queue_purge(DEAD_QUEUE)
        self._hands: list[AmqpHands] = []

    def publish(
        self, *names: str, priority: int = 0, publish_id: str | None = None, headers: Mapping[str, Any] | None = None
    ) -> None:
        for name in names:
            fields = {"task": "t", "id": name, "eta": None, **(headers or {})}
            own = {} if publish_id is None else {"message_id": f"ha:{publish_id}"}
            where = {"exchange": self._queue.exchange, "routing_key": self._queue.routing_key, "declare": [self._queue]}
            self._producer.publish(name, **where, headers=fields, priority=priority, **own)

    def publish_later(self, name: str, seconds: float) -> None:
        self._app.send_task("t", task_id=name, queue=self._queue.name, countdown=seconds)

    def worker(self, lease: str) -> AmqpHands:
        broker = AmqpBroker(MemoryAttempts(self._store(lease), self._attempts))
        with self._connection.channel() as channel:
            self._queue(channel).declare()
        self._hands.append(AmqpHands(lease, broker, self._url, self._queue))
        return self._hands[-1]

    def recover(self, leases: Collection[str]) -> None:
        look = self._judge.court.look()
        for lease in set(leases) & look.nodes.keys():
            verdict = Verdict(lease, "gone", look.counters[lease], look.nodes[lease].connections)
            assert self._judge.court.fence(self._term, "judge", verdict)
        broker = AmqpBroker(MemoryAttempts(self._judge, self._attempts))
        recover(self._judge.court.look().fenced, broker, self._judge.locks, self._judge.court)

    def dead(self) -> Mapping[str, str]:
        with Connection(self._url) as connection:
            letters = list(AmqpDeadLetters(Peek(connection, self._url), lambda _name: None))
        return {envelope.headers(letter.claim.payload)["id"]: letter.reason for letter in letters}

    def close(self) -> None:
        for hands in self._hands:
            hands.connection.release()
        self._connection.release()
        self._app.close()

    def _store(self, lease: str) -> MemoryStore:
        store = MemoryStore(self._server)
        store.leases.open(Node(lease, f"{lease}@host"))
        return store
