"""Starts that are asked for without waiting, and connections of frozen workers, on RabbitMQ with a Redis store."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from celery_ha.brokers.amqp_dead import DEAD_QUEUE
from celery_ha.store.redis import RedisStore
from tests.support.fleet import eventually
from tests.support.rabbit import Rabbit
from tests.support.scene import Scene, first_start_after, scene
from tests.support.server import RedisServer

TTL = 3.0


@pytest.fixture
def make_stage(
    start_redis: Callable[..., RedisServer], tmp_path_factory: pytest.TempPathFactory, rabbit: Rabbit
) -> Iterator[Callable[..., Scene]]:
    with ExitStack() as stack:

        def make(**settings: object) -> Scene:
            server = start_redis()
            conf = json.dumps({"ha_store": server.url, **settings})
            path = tmp_path_factory.mktemp("starts")
            return stack.enter_context(
                scene(server, path, ttl=TTL, broker=rabbit.url(), PROBE_CONF=conf, PROBE_PREFETCH="4")
            )

        yield make


@pytest.mark.parametrize("step", ["asked", "answered"])
def test_worker_that_dies_around_the_answer_to_its_starts_loses_nothing_and_runs_nothing_twice(make_stage, step: str):
    # Given a worker that dies as soon as it has asked to start its first tasks, or has the answer
    stage = make_stage()
    (mortal,) = stage.start(1, PROBE_DIES_AFTER=step)
    keys = stage.load(12, 0.01)
    eventually(lambda: not mortal.alive, why="dead")
    assert stage.ledger.runs() == []
    # When another one comes
    stage.start(1)
    # Then each of its tasks runs once
    stage.wait_ended(keys)
    assert stage.ledger.doubled(keys, []) == {}
    # And only what had a slot may have been counted as started
    eventually(lambda: not stage.redis.keys("_ha:attempts:*"), why="all attempts over")
    assert len(stage.redis.keys("_ha:fenced")) == 0


def test_store_that_restarts_between_a_question_and_its_answer_has_it_asked_again(make_stage):
    # Given workers under load
    stage = make_stage()
    stage.start(1)
    with stage.stream(0.02, 0.02) as keys:
        stage.wait_started(keys, 10)
        # When the store drops every connection, again and again
        for _ in range(5):
            stage.wait_started(keys, len(stage.ledger.by_key()) + 3)
            stage.redis.client_kill_filter(_type="normal", skipme=True)
    # Then everything runs, once
    stage.wait_ended(keys)
    assert stage.ledger.doubled(keys, []) == {}


@pytest.mark.parametrize("way", ["heartbeats", "management"])
def test_what_a_frozen_worker_holds_and_has_not_started_runs_elsewhere_within_its_ttl_and_2_s(
    make_stage, rabbit: Rabbit, way: str
):
    # Given workers that RabbitMQ gives up when their heartbeats are missed, or that the leader has cut off
    by_hand = {"broker_heartbeat": 60, "ha_rabbitmq_management": rabbit.management}
    stage = make_stage(**(by_hand if way == "management" else {}))
    stage.top_up(2)
    store = RedisStore(stage.server.url)
    frozen = next(worker for worker in stage.live if worker is not stage.leader)
    lease = stage.node(frozen).lease
    # When one is frozen with messages waiting in its memory
    keys = stage.publish("order", stage.keys_on(stage.shards(frozen), 20), 0.2)
    stage.wait_started(keys, 2)
    harm = stage.kill(frozen, signal.SIGSTOP)
    started = {run.key for run in stage.ledger.runs() if run.key in keys}
    # Then they start elsewhere in time
    took = eventually(first_start_after(stage.ledger, set(keys) - started, harm.at, elsewhere=frozen.name)) - harm.at
    assert took < TTL + 2
    # And when it goes on it starts nothing under its old lease
    eventually(lambda: lease not in store.court.look().nodes, why="fenced")
    frozen.send(signal.SIGCONT)
    stage.wait_ended(keys)
    assert stage.ledger.doubled(keys, stage.harms) == {}
    store.close()


def test_what_a_killed_worker_ran_does_not_wait_out_the_confirmation(make_stage):
    # Given workers whose connections must stay gone for long, and that know each other for long enough: a leader judges,
    # and the next in line has subscribed
    confirm_after = TTL * 0.9
    stage = make_stage(ha_confirm_after=confirm_after)
    victim = stage.top_up(3)[0]
    eventually(lambda: time.time() - stage.nodes()[-1].opened > 2 * TTL, why="acquainted")
    # When one is killed that runs a task
    (key,) = stage.publish("order", stage.keys_on(stage.shards(victim), 1), 3.0)
    stage.wait_started([key], 1)
    harm = stage.kill(victim)
    # Then RabbitMQ's word, which delivers it again at once, shortens that
    took = eventually(first_start_after(stage.ledger, {key}, harm.at, elsewhere=victim.name)) - harm.at
    assert took < confirm_after
    stage.wait_ended([key])


@pytest.mark.parametrize("how", ["lost", "closed"])
def test_delayed_publish_over_a_connection_that_is_gone_makes_another_as_any_other_does(make_stage, how: str):
    """Its way is made first, over the same connection. Celery drops a task whose retry cannot be published."""
    # Given a producer with a connection, and workers
    stage = make_stage()
    stage.top_up(1)
    stage.wait_ended(stage.publish("order", stage.names("soon-", 2), 0.0))
    # When the connection is gone
    with stage.probe.app.producer_pool.acquire() as producer:
        if how == "lost":
            producer.connection.connection.transport.sock.shutdown(socket.SHUT_RDWR)
        else:
            producer.connection._close()
    # Then what is published next is accepted, and run
    stage.wait_ended(stage.publish("order", stage.names("late-", 24), 0.0, countdown=1))


@pytest.mark.parametrize("pool", ["gevent", "threads", "prefork"])
def test_dead_letters_keep_nothing_from_running(make_stage, pool: str):
    """One is published over the consumer's connection, and who waits for its confirm takes in what comes."""
    # Given a worker that holds more than it can run
    stage = make_stage()
    stage.options = ("-Q", "orders,celery", "-P", pool, "-c", "2", "--without-gossip", "--without-mingle")
    stage.top_up(1)
    # When many of its tasks are rejected
    keys = stage.publish("refusing", stage.names("refusing-", 20), 0.02)
    keys += stage.publish("work", stage.names("work-", 10), 0.02)
    # Then all of them run, and are dead letters
    stage.wait_ended(keys)
    eventually(lambda: ready(stage, DEAD_QUEUE) == 20, why="dead letters")


@pytest.fixture
def impatient() -> Iterator[Rabbit]:
    """Closes the channel by which a delivery has come and is not acknowledged for 2 s; half an hour, if nobody says."""
    server = Rabbit(unacked_for=2.0)
    try:
        server.start()
        yield server
    finally:
        server.close()


def test_task_that_is_longer_than_rabbitmq_waits_for_acks_runs_once_and_ends_no_worker(
    impatient: Rabbit, start_redis: Callable[..., RedisServer], tmp_path_factory: pytest.TempPathFactory
):
    # Given two workers, one of which runs a task for longer than RabbitMQ waits
    server = start_redis()
    conf = json.dumps({"ha_store": server.url})
    path = tmp_path_factory.mktemp("long")
    with scene(server, path, ttl=TTL, broker=impatient.url(), PROBE_CONF=conf) as stage:
        workers = stage.start(2)
        (long,) = stage.publish("work", ["long"], 20.0)
        stage.wait_started([long])
        # When RabbitMQ closes the channel of the one, and then that of the other, which has the redelivery wait
        eventually(lambda: all(worker.said("closed the channel") for worker in workers), why="both were closed")
        keys = stage.load(12, 0.01)
        # Then both live, tasks go on, and the long one runs once, to its end
        stage.wait_ended([long, *keys])
        assert stage.ledger.doubled([long, *keys], []) == {}
        assert stage.live == workers


def ready(stage: Scene, queue: str) -> int:
    """Messages that RabbitMQ has not delivered."""
    with stage.probe.app.connection_for_read() as connection:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)


@pytest.mark.parametrize("pool", ["threads", "gevent", "prefork"])
def test_what_waits_for_a_slot_has_not_started(make_stage, pool: str):
    # Given workers, one of which runs as many tasks as it can, and holds more
    stage = make_stage()
    stage.options = ("-Q", "orders,celery", "-P", pool, "-c", "2", "--without-gossip", "--without-mingle")
    (victim,) = stage.top_up(1)
    keys = stage.publish("work", stage.names("work-", 8), 3.0)
    stage.wait_started(keys, 2)
    eventually(lambda: ready(stage, "celery") == 0, why="all delivered")
    # When it is killed while they run, and another one comes
    stage.kill(victim)
    stage.top_up(1)
    # Then only what ran is counted as an attempt
    (recovered,) = eventually(stage.history)
    assert recovered["recovered"]["restarted"] == 2
    stage.wait_ended(keys)
    assert stage.ledger.doubled(keys, stage.harms) == {}
