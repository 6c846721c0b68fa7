"""Real workers whose leases and locks live in ZooKeeper, while their messages are in Redis."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator

import pytest

from celery_ha.store.zookeeper import ZooKeeperStore
from tests.support.fleet import Worker, eventually
from tests.support.scene import Scene
from tests.support.zookeeper import ZooKeeper


class Watch:
    """What the store knows, by the names of the workers."""

    def __init__(self, url: str) -> None:
        self.store = ZooKeeperStore(url)

    @property
    def names(self) -> set[str]:
        return {node.name for node in self.store.court.look().nodes.values() if node.queues}

    def leads(self) -> bool:
        look = self.store.court.look()
        return look.leader is not None and look.leader.lease in look.nodes

    def settled(self) -> bool:
        return not self.store.court.look().fenced


@pytest.fixture
def stage(
    make_module_scene: Callable[..., Scene], zookeeper_server: ZooKeeper, request: pytest.FixtureRequest
) -> Iterator[tuple[Scene, Watch, list[Worker]]]:
    """Three workers with a leader among them, under a path of their own."""
    url = f"zookeeper://{zookeeper_server.host}/{request.node.name}"
    watch = Watch(url)
    scene = make_module_scene(ttl=3.0, PROBE_CONF=json.dumps({"ha_store": url}))
    workers = scene.start(3)
    eventually(lambda: watch.names == {worker.name for worker in workers} and watch.leads(), why="all registered")
    yield scene, watch, workers
    watch.store.close()


def test_tasks_of_a_killed_worker_move_to_the_survivors(stage):
    # Given three workers in the middle of a load, with locked tasks among it
    scene, watch, workers = stage
    keys = scene.load(60, 0.1)
    locked = scene.publish("charge", scene.names("charge", 8), "account", 0.05)
    scene.wait_started(keys, 10)
    # When one is killed
    scene.kill(workers[0])
    # Then everything runs to its end, and only what was running may have run twice
    scene.wait_ended([*keys, *locked])
    eventually(lambda: workers[0].name not in watch.names and watch.settled(), why="recovered")
    assert scene.ledger.doubled([*keys, *locked], scene.harms) == {}
    assert scene.ledger.overlaps(scene.harms) == []
    # And nobody else was given up
    assert watch.names == {worker.name for worker in workers[1:]}


def test_locked_task_excludes_and_those_that_wait_are_served(stage):
    scene, _, _ = stage
    # When many tasks on all workers want the same two locks, in their slot and in their queue
    keys = scene.publish("patient", scene.names("patient", 6), "alice", 0.05)
    keys += scene.publish("charge", scene.names("charge", 6), "bob", 0.05)
    # Then each runs once, alone, with tokens that grow
    scene.wait_ended(keys)
    assert scene.ledger.overlaps() == []
    runs = [run for run in scene.ledger.runs() if run.lock == "alice"]
    tokens = [run.token for run in sorted(runs, key=lambda run: run.start)]
    assert len(runs) == 6
    assert tokens == sorted(set(tokens))


def test_frozen_worker_starts_nothing_after_its_sessions_ended(stage):
    # Given a worker that is frozen until its sessions are gone and its work has moved, long before its TTL
    scene, watch, workers = stage
    frozen = workers[0]
    keys = scene.load(40, 0.1)
    scene.wait_started(keys, 6)
    scene.kill(frozen, signal.SIGSTOP)
    eventually(lambda: frozen.name not in watch.names, why="given up")
    # When it goes on
    frozen.send(signal.SIGCONT)
    # Then it joins again, and only what was running may have run twice
    scene.wait_ended(keys)
    eventually(lambda: frozen.name in watch.names and watch.settled(), why="joined again")
    assert scene.ledger.doubled(keys, scene.harms) == {}
