"""Plain Celery beside and after celery_ha, and another number of shards, on RabbitMQ with ZooKeeper as the store."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from celery_ha.rabbitmq import NEVER_DROP
from tests.support.command import ask_ha
from tests.support.fleet import eventually
from tests.support.rabbit import Rabbit
from tests.support.scene import Scene, load_probe
from tests.support.zookeeper import ZooKeeper

PLAIN = {"PROBE_PLAIN": "1"}
#: As both kinds of Celery must declare what they share.
ARGUMENTS = {"x-queue-type": "quorum", "x-delivery-limit": NEVER_DROP}
QUEUES = {
    name: {"exchange": name, "exchange_type": "topic", "routing_key": name, "queue_arguments": ARGUMENTS}
    for name in ("celery", "orders")
}


@pytest.fixture
def make(make_module_scene: Callable[..., Scene], rabbit: Rabbit, zookeeper_server: ZooKeeper) -> Callable[..., Scene]:
    def scene(**settings: object) -> Scene:
        broker = rabbit.url()
        path = broker.rpartition("/")[2]
        conf = {"ha_store": f"zookeeper://{zookeeper_server.host}/rollout-{path}", "task_queues": QUEUES, **settings}
        return make_module_scene(ttl=3.0, broker=broker, PROBE_CONF=json.dumps(conf))

    return scene


def test_plain_workers_and_producers_beside_ours_lose_nothing(make: Callable[..., Scene]):
    # Given a plain worker and a plain producer beside two of ours
    scene = make()
    ours = scene.start(2)
    (plain,) = scene.start(1, **PLAIN)
    producer = load_probe({**scene.fleet.environment, **PLAIN})
    keys = scene.load(60, 0.05)
    for key in scene.names("plain-", 40):
        (producer.order if len(keys) % 2 else producer.work).delay(key, 0.05)
        keys.append(key)
    keys += scene.publish("work", scene.names("held-", 8), 1.0)
    eventually(lambda: {run.node for run in scene.ledger.runs()} == {worker.name for worker in (*ours, plain)})
    # When one of each kind is killed
    scene.kill(ours[0])
    eventually(lambda: any(run.node == plain.name and run.end is None for run in scene.ledger.runs()))
    scene.kill(plain)
    # Then everything comes to its end
    scene.wait_ended(keys)
    assert scene.ledger.doubled(keys, scene.harms) == {}
    producer.app.close()


def test_shards_beyond_a_smaller_number_are_consumed_and_merged(make: Callable[..., Scene]):
    # Given orders on shards that a smaller number does not have, of which no worker is left
    scene = make()
    (before,) = scene.start(1)
    scene.kill(before)
    keys = scene.publish("order", scene.keys_on({"orders.9", "orders.11"}, 6), 0.01)
    # When a worker comes that knows fewer
    (after,) = scene.start(1, PROBE_SHARDS="4")
    # Then it runs them
    scene.wait_ended(keys)
    # And who knows fewer sees and merges them all
    scene.kill(after)
    keys = scene.publish("order", scene.keys_on({"orders.1", "orders.10"}, 6), 0.01)
    fewer = load_probe({**scene.fleet.environment, "PROBE_SHARDS": "4"})
    assert ask_ha(fewer.app, "ring")["orders"]["shards"] == 12
    assert ask_ha(fewer.app, "uninstall", "--gone", "--yes")["merged"] == 6
    fewer.app.close()
    # And plain workers run them
    scene.start(1, **PLAIN)
    scene.wait_ended(keys)
