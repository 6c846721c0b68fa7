"""Consumers that live and hear nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.support.fleet import Worker, eventually
from tests.support.proxy import Proxy
from tests.support.rabbit import Rabbit
from tests.support.scene import Scene
from tests.support.server import RedisServer

#: Seconds after which a consumer is stuck, in these tests.
AFTER = 3.0
#: kombu's own look at a connection without an answer is off: what heals here is ours.
CONF = {
    "ha_stuck_after": AFTER,
    "imports": ["tests.support.deaf"],
    "broker_transport_options": {"health_check_interval": 0},
}
STUCK, HUNG = "is stuck: messages wait", "is stuck: its main loop"


def tell(scene: Scene, worker: Worker, command: str, **arguments: object) -> dict[str, object]:
    """Have a worker's main process carry something out."""

    def answer() -> dict[str, object] | None:
        replies = scene.probe.app.control.broadcast(
            command, arguments=arguments, destination=[worker.name], reply=True, timeout=2
        )
        return replies[0][worker.name] if replies else None

    return eventually(answer, why=f"{worker.name} answers")


def reconnects(scene: Scene, worker: Worker) -> int:
    """How often it has connected anew; as often as it said so."""
    found = tell(scene, worker, "reception")["reconnects"]
    assert worker.log.read_text().count(STUCK) == found
    return found


def conf(**more: object) -> str:
    return json.dumps({**CONF, **more})


@pytest.fixture(scope="module")
def scene(make_module_scene: Callable[..., Scene]) -> Scene:
    return make_module_scene(PROBE_CONF=conf())


@pytest.fixture
def worker(scene: Scene) -> Worker:
    """One that tests share."""
    return scene.top_up(1)[0]


@pytest.mark.parametrize("how", ["poll", "credit", "queues"])
def test_deaf_consumer_connects_anew_and_what_runs_goes_on(scene: Scene, worker: Worker, how: str):
    # Given a worker with one task running, that becomes deaf
    before = reconnects(scene, worker)
    running = scene.publish("work", [scene.batch() + "long"], 2 * AFTER)
    scene.wait_started(running)
    assert tell(scene, worker, "deafen", how=how) == {"ok": how}
    # When messages wait for it
    keys = scene.load(6, 0.01)
    # Then it finds out and runs them, and what was running is not run again
    scene.settled([*running, *keys])
    assert reconnects(scene, worker) == before + 1


def test_connection_that_a_firewall_has_dropped_is_given_up(
    make_scene: Callable[..., Scene], start_redis: Callable[..., RedisServer]
):
    # Given a worker behind a firewall, its connections idle
    server = start_redis()
    proxy = Proxy(server.port)
    try:
        behind = f"redis://127.0.0.1:{proxy.port}/0"
        scene = make_scene(server, ttl=5.0, PROBE_CONF=conf())
        (worker,) = scene.start(1, PROBE_BROKER=behind)
        scene.wait_ended(scene.load(2, 0))
        # When the firewall forgets them, and lets new ones through
        assert proxy.drop() > 2
        keys = scene.load(6, 0.01)
        # Then the worker runs what waits, under the lease it has
        scene.settled(keys)
        assert HUNG in worker.log.read_text()
        assert scene.fenced() == set()
        worker.process.terminate()
        worker.process.wait()
    finally:
        proxy.close()


def test_worker_that_is_full_or_limited_or_paused_is_not_stuck(scene: Scene, worker: Worker):
    known = reconnects(scene, worker)

    def looked(count: int = 6) -> None:
        """So many looks have been taken since now: more than it takes to be called stuck."""
        before = tell(scene, worker, "reception")["looks"]
        eventually(lambda: tell(scene, worker, "reception")["looks"] >= before + count, every=0.2, why="looks")

    # Full: both slots busy
    long = scene.publish("work", scene.names(scene.batch(), 2), 2 * AFTER)
    scene.wait_started(long)
    keys = scene.publish("work", scene.names(scene.batch(), 4), 0)
    looked()
    scene.wait_ended([*long, *keys])
    # Limited: what it holds may not start yet, and more of it waits
    app = scene.probe.app
    app.control.rate_limit("tests.support.probe.limited", "6/m", destination=[worker.name], reply=True, timeout=5)
    limited = scene.publish("limited", scene.names(scene.batch(), 5))
    scene.wait_started(limited, 1)
    looked()
    assert scene.ledger.missing(limited)
    app.control.rate_limit("tests.support.probe.limited", "100/s", destination=[worker.name], reply=True, timeout=5)
    scene.wait_ended(limited)
    # Paused: told not to consume
    app.control.cancel_consumer("celery", destination=[worker.name], reply=True, timeout=5)
    paused = scene.publish("work", scene.names(scene.batch(), 3), 0)
    looked()
    assert scene.ledger.missing(paused) == set(paused)
    app.control.add_consumer("celery", destination=[worker.name], reply=True, timeout=5)
    scene.settled([*long, *keys, *limited, *paused])
    assert reconnects(scene, worker) == known


def test_worker_of_a_green_pool_is_healed_too(scene: Scene):
    for each in scene.live:
        each.process.terminate()
        each.process.wait()
    (worker,) = scene.start(1, "-Q", "orders,celery", "-c", "2", "-P", "gevent", "--without-gossip", "--without-mingle")
    tell(scene, worker, "deafen", how="credit")
    scene.settled(scene.load(4, 0.01))
    assert STUCK in worker.log.read_text()
    worker.process.terminate()
    worker.process.wait()


@pytest.fixture(scope="module")
def rabbit_scene(make_module_scene: Callable[..., Scene], rabbit: Rabbit, redis_server: RedisServer) -> Iterator[Scene]:
    settings = conf(ha_store=f"{redis_server.url[:-1]}9", broker_transport_options={})
    return make_module_scene(broker=rabbit.url(), PROBE_CONF=settings)


def test_consumer_that_rabbitmq_has_cancelled_subscribes_again(rabbit_scene: Scene):
    # Given a worker that RabbitMQ sends nothing any more, and that was not told so
    scene = rabbit_scene
    (worker,) = scene.start(1)
    scene.wait_ended(scene.publish("work", [scene.batch()], 0))
    running = scene.publish("work", [scene.batch() + "long"], 2 * AFTER)
    scene.wait_started(running)
    tell(scene, worker, "deafen", how="cancel")
    # When messages wait
    keys = scene.load(6, 0.01)
    # Then it finds out, and what was running is not run again
    scene.wait_ended([*running, *keys])
    assert scene.ledger.doubled([*running, *keys]) == {}
    assert worker.log.read_text().count(STUCK) == 1
    worker.process.terminate()
    worker.process.wait()
