"""Shards belong to those who consume: not yet to a worker that starts, no more to one that has lost the broker."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Worker, eventually
from tests.support.proxy import Proxy
from tests.support.scene import Scene, scene
from tests.support.server import RedisServer

#: The first half of a worker's start takes a second longer with it, which is where this looks.
MINGLES = ("-Q", "orders,celery", "-c", "2", "--without-gossip")


def test_shards_stay_where_they_are_served_until_a_new_worker_consumes(make_scene: Callable[..., Scene]):
    # Given one worker, and another that is stopped while it starts
    stage = make_scene(ttl=20.0)
    (old,) = stage.start()
    new = stage.fleet.start(*MINGLES, ready=False)
    eventually(lambda: len(stage.nodes()) == 2, why="registered", every=0.002)
    new.send(signal.SIGSTOP)
    assert not new.said(" ready."), "stopped too late to tell anything"
    # When tasks are published to all shards
    keys = stage.publish("order", [f"key-{number}" for number in range(40)], 0.01)
    # Then nothing waits for the new one
    stage.wait_ended(keys)
    assert {run.node for run in stage.ledger.runs()} == {old.name}
    assert len(stage.nodes()) == 2, "it was given up meanwhile: that tells nothing"
    assert stage.shards(new) == frozenset()
    # And when it consumes, it has its share
    new.send(signal.SIGCONT)
    eventually(lambda: stage.shards(new), why="it has shards")
    keys = stage.publish("order", stage.keys_on(stage.shards(new), 6), 0.01)
    stage.wait_ended(keys)
    assert new.name in {run.node for run in stage.ledger.runs() if run.key in keys}


@pytest.fixture
def broker(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """Another server than the store's."""
    return start_redis()


@pytest.fixture
def apart(broker: RedisServer, redis_server: RedisServer, tmp_path: Path) -> Iterator[Scene]:
    with scene(
        redis_server, tmp_path, broker=broker.url, PROBE_CONF=json.dumps({"ha_store": redis_server.url})
    ) as made:
        yield made


def test_shards_of_a_worker_that_has_lost_the_broker_are_served_by_others(apart: Scene, broker: RedisServer):
    # Given two workers, one of which reaches the broker by a way of its own
    (near,) = apart.start()
    way = Proxy(broker.port)
    (far,) = apart.start(PROBE_BROKER=f"redis://127.0.0.1:{way.port}/0")
    assert apart.shards(far)
    keys = apart.keys_on(apart.shards(far), 6)
    # When that way ends, and only that: the store still hears from it
    way.close()
    published = apart.publish("order", keys, 0.01)
    # Then its shards are the other's, and it is not given up for it
    apart.wait_ended(published)
    assert {run.node for run in apart.ledger.runs()} == {near.name}
    assert apart.history() == []
    # And when it is back, so are they
    again = Proxy(broker.port, at=way.port)
    eventually(lambda: apart.shards(far), why="it has shards again")
    eventually(lambda: runs_its_own(apart, far), why="it serves them")
    again.close()
    assert apart.history() == []


def runs_its_own(stage: Scene, worker: Worker) -> bool:
    """Whether a worker runs what is published to its shards."""
    keys = stage.publish("order", stage.keys_on(stage.shards(worker), 6), 0.01)
    stage.wait_ended(keys)
    return worker.name in {run.node for run in stage.ledger.runs() if run.key in keys}
