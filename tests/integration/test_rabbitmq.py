"""Real workers on RabbitMQ, with their leases and locks in Redis or in ZooKeeper."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import kombu
import pytest
from celery import Celery

from celery_ha import HA
from celery_ha.brokers.amqp_dead import DEAD_HEADER, DEAD_QUEUE
from celery_ha.errors import ConfigError
from celery_ha.store.base import Store
from celery_ha.store.redis import RedisStore
from celery_ha.store.zookeeper import ZooKeeperStore
from tests.support.fleet import Worker, eventually
from tests.support.rabbit import Rabbit
from tests.support.scene import Scene, first_start_after, wait_exit
from tests.support.zookeeper import ensemble

TTL = 3.0


@dataclass
class Stage:
    """Workers on a virtual host of their own, and what their store knows of them."""

    scene: Scene
    store: Store
    url: str
    workers: list[Worker] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        return {node.name for node in self.store.court.look().nodes.values() if node.queues}

    @property
    def leases(self) -> set[str]:
        return set(self.store.court.look().nodes)

    def gathered(self) -> bool:
        look = self.store.court.look()
        leads = look.leader is not None and look.leader.lease in look.nodes
        return leads and not look.fenced and self.names == {worker.name for worker in self.scene.live}

    def gather(self, count: int = 3) -> list[Worker]:
        """So many live workers, all registered, with a leader among them."""
        self.scene.start(count - len(self.scene.live))
        eventually(self.gathered, why="all registered")
        return self.scene.live

    def settled(self, keys: list[str], *, within: float = 60.0) -> None:
        """Nothing lost, and nothing run twice that had not started."""
        self.scene.wait_ended(keys, within=within)
        assert self.scene.ledger.doubled(keys, self.scene.harms) == {}

    def dead_letters(self) -> list[Any]:
        with kombu.Connection(self.url) as connection:
            channel, found = connection.channel(), []
            while message := channel.basic_get(DEAD_QUEUE, no_ack=True):
                found.append(message)
            return found


@pytest.fixture(scope="module", params=["redis", "zookeeper"])
def make_stage(
    make_module_scene: Callable[..., Scene], rabbit: Rabbit, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Stage]]:
    """Set a stage on one kind of store; without Redis, nothing of the workers is there."""
    stores: list[Store] = []

    def make(**settings: object) -> Stage:
        broker, number = rabbit.url(), len(stores)
        if request.param == "redis":
            url = request.getfixturevalue("redis_server").url.removesuffix("0") + str(number + 2)
            store: Store = RedisStore(url)
        else:
            url = f"zookeeper://{request.getfixturevalue('zookeeper_server').host}/rabbit{number}"
            store = ZooKeeperStore(url)
        stores.append(store)
        conf = {"ha_store": url, **settings}
        return Stage(make_module_scene(ttl=TTL, broker=broker, PROBE_CONF=json.dumps(conf)), store, broker)

    yield make
    for store in stores:
        store.close()


@pytest.fixture(scope="module")
def shared(make_stage: Callable[..., Stage]) -> Stage:
    return make_stage()


@pytest.fixture
def stage(shared: Stage) -> Stage:
    """Three live workers, with nothing left of the test before."""
    shared.gather()
    shared.scene.harms.clear()
    return shared


def test_killed_workers_lose_nothing_and_double_nothing_that_had_not_started(stage: Stage):
    scene = stage.scene
    for _ in range(3):
        # Given three workers in the middle of a load, with locked tasks among it
        stage.gather()
        keys = scene.load(60, 0.05)
        keys += scene.publish("charge", scene.names(scene.batch(), 6), "account", 0.05)
        scene.wait_started(keys, 15)
        # When one is killed
        victim = scene.live[0]
        scene.kill(victim)
        # Then everything runs to its end, and only what was running may have run twice
        stage.settled(keys)
        assert scene.ledger.overlaps(scene.harms) == []
        eventually(lambda victim=victim: victim.name not in stage.names, why="given up")


def test_frozen_worker_is_taken_over_and_starts_nothing_it_was_fenced_from(stage: Stage):
    # Given a worker that is frozen in the middle of a load
    scene = stage.scene
    frozen = scene.live[0]
    before = stage.leases
    keys = scene.load(60, 0.1)
    scene.wait_started(keys, 12)
    harm = scene.kill(frozen, signal.SIGSTOP)
    running = {run.key for run in scene.ledger.runs() if run.key in keys and run.node == frozen.name and not run.end}
    # Then what it was running starts elsewhere within its TTL and 2 s
    if running:
        took = eventually(first_start_after(scene.ledger, running, harm.at, elsewhere=frozen.name)) - harm.at
        assert took < TTL + 2
    # When it goes on
    eventually(lambda: len(before & stage.leases) == 2, why="given up")
    frozen.send(signal.SIGCONT)
    # Then it joins again, and only what was running may have run twice
    stage.settled(keys)
    eventually(stage.gathered, why="joined again")


def test_rabbitmq_restarted_under_load_loses_nothing_and_gives_nobody_up(stage: Stage, rabbit: Rabbit):
    # Given workers under load, with tasks that outlast the restart
    scene, before = stage.scene, stage.leases
    long = scene.publish("work", scene.names(scene.batch(), 2), 8.0)
    keys = scene.load(80, 0.05)
    scene.wait_started(long)
    # When RabbitMQ is killed and comes back
    rabbit.stop()
    rabbit.start()
    # Then all that was accepted runs to its end, and what ran all along ran once
    scene.wait_ended([*keys, *long])
    assert stage.leases == before
    assert scene.ledger.doubled(long, []) == {}


def test_draining_worker_gives_back_what_has_not_started_and_finishes_what_runs(stage: Stage):
    # Given a worker with long tasks running
    scene = stage.scene
    leaving = scene.live[0]
    keys = scene.load(60, 0.2)
    scene.wait_started(keys, 12)
    # When it is told to stop
    leaving.send(signal.SIGTERM)
    # Then everything runs once
    scene.wait_ended(keys)
    assert scene.ledger.doubled(keys, []) == {}
    wait_exit([leaving])
    eventually(lambda: leaving.name not in stage.names, why="said goodbye")


def test_task_with_a_countdown_survives_that_its_shard_was_deleted_since_the_last_one(stage: Stage):
    """A producer binds a shard to the delays once; so whoever comes after the deletion has to."""
    # Given a producer that has delayed tasks before, to all shards
    scene = stage.scene
    names = scene.names(scene.batch(), 24)
    scene.wait_ended(scene.publish("order", names, 0.0, countdown=1))
    # When the workers stop, the shards are deleted, and a worker comes
    leaving = scene.live
    for worker in leaving:
        worker.send(signal.SIGTERM)
    wait_exit(leaving)
    with kombu.Connection(stage.url) as connection:
        for number in range(scene.probe.app.ha.config.queues["orders"]):
            connection.default_channel.queue_delete(f"orders.{number}")
    (new,) = stage.gather(1)
    # Then what is delayed now is run
    stage.settled(scene.publish("order", scene.names(scene.batch(), 24), 0.0, countdown=1))
    assert not new.said("Failed to bind")


def test_task_with_a_countdown_is_kept_by_rabbitmq_and_outlives_every_worker(stage: Stage):
    # Given tasks that are due in 3 s, on a shard and on a plain queue
    scene = stage.scene
    now = time.time()
    keys = scene.publish("order", scene.names(scene.batch(), 4), 0.01, countdown=3)
    keys += scene.publish("work", scene.names(scene.batch(), 4), 0.01, countdown=3)
    # When a worker is killed meanwhile
    scene.kill(scene.live[0])
    # Then they run when they are due, not before
    stage.settled(keys)
    starts = [run.start for run in scene.ledger.runs() if run.key in keys]
    assert min(starts) - now >= 2
    assert len(starts) == len(keys)


def test_retry_goes_back_to_its_shard(stage: Stage):
    (key,) = stage.scene.publish("again", stage.scene.names(stage.scene.batch(), 1))
    eventually(lambda: len([run for run in stage.scene.ledger.runs() if run.key == key and run.end]) == 4)
    assert len({run.extra for run in stage.scene.ledger.runs() if run.key == key}) <= 2  # delay bits before it


def test_poison_task_is_dead_lettered_after_its_attempts_are_used_up(make_stage: Callable[..., Stage]):
    # Given a task that takes its pool process with it, every time
    stage = make_stage(ha_max_deliveries=2)
    stage.gather(1)
    stage.scene.probe.crash.apply_async()
    # Then it ends among the dead letters, and says why
    letters: list[Any] = []
    eventually(lambda: letters.extend(_letters_if_any(stage)) or letters, why="dead-lettered")
    why = json.loads(letters[0].headers[DEAD_HEADER])
    assert why["queue"] == "celery"
    assert "was started 2 times" in why["reason"]
    # And the worker goes on
    keys = stage.scene.load(6, 0.01)
    stage.settled(keys)


def _letters_if_any(stage: Stage) -> list[Any]:
    try:
        return stage.dead_letters()
    except Exception:  # noqa: BLE001 - there is no such queue before the first of them
        return []


def test_one_zookeeper_of_three_killed_gives_nobody_up_and_stops_nothing_for_a_session(
    make_module_scene: Callable[..., Scene], rabbit: Rabbit
):
    # Given workers at work whose store is an ensemble, and sessions of 3 s
    session = 3.0
    with ensemble() as servers:
        url = f"zookeeper://{','.join(server.host for server in servers)}/rabbit?session_timeout={session:g}"
        broker, conf = rabbit.url(), json.dumps({"ha_store": url})
        scene = make_module_scene(ttl=10.0, broker=broker, PROBE_CONF=conf)
        stage = Stage(scene, ZooKeeperStore(url), broker)
        stage.gather(2)
        before = stage.leases
        with scene.stream(0.05, 0.01) as keys:
            scene.wait_started(keys, 20)
            # When one of its servers is killed
            servers[0].stop()
            at = time.time()
            eventually(lambda: time.time() - at > 2 * session, why="sessions would be over by now")
        # Then everything runs, once, and it never stopped for as long as a session may be silent
        scene.wait_ended(keys)
        assert scene.ledger.doubled(keys, []) == {}
        starts = sorted(run.start for run in scene.ledger.runs() if run.key in keys)
        assert max(later - one for one, later in pairwise(starts)) < session
        # And nobody was given up
        assert stage.leases == before
        stage.store.close()
        scene.fleet.close()


def test_rabbitmq_without_a_store_is_refused_with_a_sentence():
    app = Celery("shop", broker="amqp://localhost//")
    ha = HA(app)
    with pytest.raises(ConfigError, match="set ha_store to a Redis or ZooKeeper"):
        _ = ha.store


@pytest.mark.parametrize("url", ["memory://", "filesystem://", "sqs://"])
def test_broker_that_keeps_no_promise_is_refused_with_a_sentence(url: str):
    app = Celery("shop", broker=url)
    ha = HA(app)
    with pytest.raises(ConfigError, match=r"cannot use the broker .*write a redis://"):
        _ = ha.store
