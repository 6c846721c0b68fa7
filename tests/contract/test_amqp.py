"""What a channel on RabbitMQ promises under a lease: claims, ends, redeliveries; with a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import kombu
import pytest
from amqp.exceptions import RecoverableConnectionError

from celery_ha.attempts.memory import AttemptsServer, MemoryAttempts
from celery_ha.brokers.amqp import AmqpBroker
from celery_ha.brokers.amqp_dead import DEAD_HEADER, DEAD_QUEUE
from celery_ha.brokers.connection import Connection
from celery_ha.brokers.ledger import Ledger
from celery_ha.model import Node, Settlement, Verdict
from celery_ha.rabbitmq import make_quorum
from celery_ha.store.memory import MemoryServer, MemoryStore
from celery_ha.worker.reception import Reception
from tests.support.fleet import eventually
from tests.support.proxy import Proxy
from tests.support.rabbit import Rabbit


class Consumer:
    """A worker without its worker: an intake, and a connection that consumes through it."""

    def __init__(self, url: str, queue: kombu.Queue, store: MemoryStore, shared: AttemptsServer, lease: str) -> None:
        store.leases.open(Node(lease, f"{lease}@host"))
        self.lease, self.store = lease, store
        self.ledger = Ledger(lease)
        self.attempts = MemoryAttempts(store, shared)
        self.broker = AmqpBroker(self.attempts)
        self.batch_limit = 100
        self.reception = Reception(0)
        self.got: list[Any] = []
        self.doubted: list[str] = []
        self.changes = 0
        self._url, self._queue = url, queue
        self.connection: Any = None

    # -- intake: what is not here is not asked by a channel on RabbitMQ ---------------------

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

    # -- the test's side --------------------------------------------------------------------

    def consume(self, credit: int = 10) -> Consumer:
        self.connection = Connection(self._url)
        self.connection.intake = self
        channel = self.connection.default_channel
        channel.basic_qos(0, credit, False)
        self.consumer = kombu.Consumer(channel, [self._queue(channel)], on_message=self.got.append)
        self.consumer.consume()
        return self

    def turn(self) -> None:
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=0.05)

    def receive(self, count: int) -> list[Any]:
        """So many deliveries that nobody has looked at yet."""

        def enough() -> bool:
            self.turn()
            return len(self.got) >= count

        eventually(enough, within=15.0, why=f"{count} messages for {self.lease}, not {len(self.got)}")
        found, self.got[:] = self.got[:count], self.got[count:]
        return found

    def gets_nothing(self, turns: int = 8) -> bool:
        for _ in range(turns):
            self.turn()
        return not self.got

    def start(self, message: Any) -> bool:
        return self.broker.start(self.lease, message.delivery_tag) and self.ledger.run(message.delivery_tag)

    def cut(self) -> None:
        """The connection breaks, without a word."""
        self.connection.connection.transport.sock.close()
        self.connection.collect()


@pytest.fixture
def url(rabbit: Rabbit) -> str:
    return rabbit.url()


@pytest.fixture
def queue() -> kombu.Queue:
    made = kombu.Queue("work", kombu.Exchange("work", "topic"), "work")
    make_quorum(made)
    return made


@pytest.fixture
def publish(url: str, queue: kombu.Queue) -> Iterator[Callable[..., None]]:
    with Connection(url) as connection:
        producer = connection.Producer()

        def send(*bodies: object, **options: Any) -> None:
            for body in bodies:
                headers = {"task": "t", "id": f"id-{body}"}
                producer.publish(
                    body, exchange=queue.exchange, routing_key="work", declare=[queue], headers=headers, **options
                )

        yield send


@pytest.fixture
def make_node(url: str, queue: kombu.Queue) -> Iterator[Callable[[str], Consumer]]:
    server, shared = MemoryServer(time.monotonic), AttemptsServer()
    with ExitStack() as stack:

        def make(lease: str) -> Consumer:
            node = Consumer(url, queue, MemoryStore(server), shared, lease)
            stack.callback(lambda: node.connection and node.connection.release())
            return node

        yield make


def test_heartbeats_are_no_messages_to_wait_on_for(url: str):
    """Celery looks for its neighbours for a second when it starts; RabbitMQ may send heartbeats as often."""
    with Connection(url, heartbeat=1) as connection:
        connection.connect()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=2.0)


def test_publish_that_is_never_confirmed_is_repeated_over_another_connection(
    rabbit: Rabbit, url: str, queue: kombu.Queue
):
    # Given a producer whose connection goes through something that swallows what it sends
    way = Proxy(rabbit.port)
    through = url.replace(str(rabbit.port), str(way.port))
    with Connection(through, transport_options={"confirm_timeout": 0.5}) as connection:
        producer = connection.Producer()
        told = {"exchange": queue.exchange, "routing_key": "work", "declare": [queue]}
        producer.publish("first", **told)
        assert way.drop() > 0
        # When it publishes, it hears nothing
        with pytest.raises(RecoverableConnectionError, match="not confirmed"):
            producer.publish("lost", **told)
        # Then it is told so, or tries again where that is wanted
        producer.publish("second", retry=True, retry_policy={"max_retries": 2}, **told)
    way.close()
    with Connection(url) as connection:
        waiting = connection.SimpleQueue(queue)
        assert [waiting.get(timeout=10).payload for _ in range(2)] == ["first", "second"]


def test_publish_on_a_channel_whose_connection_is_gone_is_one_to_be_retried(url: str, queue: kombu.Queue):
    with Connection(url) as connection:
        producer = connection.Producer()
        told = {"exchange": queue.exchange, "routing_key": "work", "declare": [queue]}
        producer.publish("first", **told)
        connection.transport.close_connection(connection.connection)
        with pytest.raises(RecoverableConnectionError):
            producer.publish("refused", exchange=queue.exchange, routing_key="work")
        producer.publish("second", retry=True, retry_policy={"max_retries": 2}, **told)
        waiting = connection.SimpleQueue(queue)
        assert [waiting.get(timeout=10).payload for _ in range(2)] == ["first", "second"]


def bodies(messages: list[Any]) -> list[Any]:
    return [message.decode() for message in messages]


def test_a_delivery_is_a_claim_of_the_lease(publish, make_node):
    publish(1)
    a = make_node("a").consume()
    (message,) = a.receive(1)
    assert message.delivery_tag.startswith("a.")
    assert message.properties["delivery_tag"] == message.delivery_tag
    assert a.broker.held("a") == {message.delivery_tag: False}
    assert a.start(message)
    assert a.broker.held("a") == {message.delivery_tag: True}


def test_what_was_acked_is_gone(publish, make_node):
    publish(1, 2)
    a = make_node("a").consume()
    for message in a.receive(2):
        assert a.start(message)
        message.ack()
    eventually(lambda: a.turn() or a.broker.held("a") == {}, why="settled")
    a.cut()
    assert make_node("b").consume().gets_nothing()


def test_what_was_acked_is_gone_before_the_store_has_heard_of_it(publish, make_node):
    publish(1)
    a = make_node("a").consume()
    (message,) = a.receive(1)
    assert a.start(message)
    message.ack()
    a.turn()
    a.cut()
    assert make_node("b").consume().gets_nothing()


def test_what_goes_back_comes_again_in_its_old_place(publish, make_node):
    publish(1, 2, 3)
    a = make_node("a").consume()
    messages = a.receive(3)
    # When all go back, the newest first, as a ledger has it
    for message in reversed(messages):
        message.requeue()
    assert bodies(a.receive(3)) == [1, 2, 3]


def test_attempts_that_had_started_count_and_others_do_not(publish, make_node):
    publish(1, 2)
    a, b = make_node("a").consume(), make_node("b")
    first, _ = a.receive(2)
    assert a.start(first)
    first.requeue()
    a.turn()
    (again,) = a.receive(1)
    assert again.headers["ha_deliveries"] == 1
    a.cut()
    by_body = {message.decode(): message.headers["ha_deliveries"] for message in b.consume().receive(2)}
    assert by_body == {1: 1, 2: 0}


def test_redelivery_waits_for_the_attempt_before_it_and_is_acked_after_its_end(publish, make_node):
    # Given an attempt that runs on although its connection broke
    publish(1)
    a, b = make_node("a").consume(), make_node("b")
    (message,) = a.receive(1)
    assert a.start(message)
    a.cut()
    # Then the message comes to nobody else
    b.consume()
    assert b.gets_nothing()
    # And that the broker has given up its connection is told once
    assert b.doubted == ["a"]
    # When it comes to its end
    message.ack()
    assert a.settle(a.ledger.owed())
    # Then it runs nowhere, and is gone
    assert b.gets_nothing()
    b.cut()
    assert make_node("c").consume().gets_nothing()


def test_redelivery_that_waits_goes_back_when_its_worker_leaves(publish, make_node):
    publish(1)
    a, b, c = make_node("a").consume(), make_node("b"), make_node("c")
    (message,) = a.receive(1)
    assert a.start(message)
    a.cut()
    # Given a worker that has the redelivery wait, and runs something long
    b.consume()
    assert b.gets_nothing()
    # When it is to end
    b.consumer.cancel()
    b.connection.transport.cycle.rest()
    # Then another one has it as soon as the attempt before it is over
    c.consume()
    eventually(lambda: c.gets_nothing(1) and c.broker.unacked.aside, why="it waits there")
    look = c.store.court.look()
    verdict = Verdict("a", "gone", look.counters["a"], look.nodes["a"].connections)
    assert c.store.court.fence(c.store.court.elect("c"), "c", verdict)
    assert len(c.receive(1)) == 1


def test_channel_that_rabbitmq_closes_is_a_lost_connection(publish, make_node):
    """As it does when a delivery is not acknowledged for half an hour; Celery's worker would end."""
    publish(1, 2)
    a, b = make_node("a").consume(), make_node("b")
    first, second = a.receive(2)
    assert a.start(first)
    channel = a.connection.default_channel
    # When it closes the channel
    channel.basic_ack(999)
    with pytest.raises(RecoverableConnectionError, match="closed the channel"):
        eventually(a.turn, why="it is closed")
    # Then that is not forgotten, even if somebody takes it for an error of his own
    with pytest.raises(RecoverableConnectionError, match="closed the channel"):
        channel.turn()
    # And what it held is RabbitMQ's again: what runs here does not run elsewhere
    assert not any(a.broker.unacked.get(claim).alive for claim in (first.delivery_tag, second.delivery_tag))
    b.consume()
    assert bodies(b.receive(1)) == [2]
    assert b.gets_nothing()


def test_redelivery_runs_as_soon_as_the_lease_of_the_attempt_before_it_is_fenced(publish, make_node):
    publish(1)
    a, b = make_node("a").consume(), make_node("b")
    (message,) = a.receive(1)
    assert a.start(message)
    a.cut()
    b.consume()
    assert b.gets_nothing()
    # When the lease is fenced
    look = b.store.court.look()
    verdict = Verdict("a", "gone", look.counters["a"], look.nodes["a"].connections)
    assert b.store.court.fence(b.store.court.elect("b"), "b", verdict)
    # Then it runs here, and the late ack changes nothing
    (again,) = b.receive(1)
    assert again.headers["ha_deliveries"] == 1
    assert b.start(again)
    message.ack()
    assert not a.settle(a.ledger.owed())
    assert b.broker.held("b") == {again.delivery_tag: True}


def test_messages_that_wait_keep_no_others_from_coming(publish, make_node):
    # Given as many messages that run elsewhere as a consumer may hold
    publish(1, 2)
    a, b = make_node("a").consume(), make_node("b")
    for message in a.receive(2):
        assert a.start(message)
    a.cut()
    b.consume(credit=2)
    assert b.gets_nothing()
    # When others are published, then they come
    publish(3, 4)
    assert bodies(b.receive(2)) == [3, 4]


def test_message_published_twice_by_a_retry_of_its_producer_runs_once(publish, make_node):
    properties: dict[str, Any] = {"message_id": "ha:one"}
    publish(1, 1, **properties)
    a = make_node("a").consume()
    first, second = a.receive(2)
    assert a.start(first)
    assert not a.start(second)
    first.ack()
    assert a.gets_nothing()
    assert a.broker.unacked.delivered() == frozenset()


def test_without_trust_nothing_comes_and_nothing_is_lost(publish, make_node):
    publish(1)
    a = make_node("a")
    a.batch_limit = 0
    a.consume()
    assert a.gets_nothing()
    a.batch_limit = 100
    assert bodies(a.receive(1)) == [1]


def test_dead_letter_is_a_copy_with_its_reason(publish, make_node, url):
    publish(1)
    a = make_node("a").consume()
    (message,) = a.receive(1)
    message.channel.qos.bury(message.delivery_tag, "no use")
    a.turn()
    with kombu.Connection(url) as connection:
        letter = connection.channel().basic_get(DEAD_QUEUE)
    assert letter.body == message.body
    assert letter.headers["id"] == "id-1"
    why = json.loads(letter.headers[DEAD_HEADER])
    assert (why["reason"], why["queue"]) == ("no use", "work")
    a.cut()
    assert make_node("b").consume().gets_nothing()
