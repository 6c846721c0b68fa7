"""Workers that are asked to leave: SIGTERM, SIGQUIT, and rolling restarts."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest

from celery_ha.store.redis import RedisStore
from tests.support.fleet import Worker, eventually
from tests.support.scene import Scene, wait_exit

#: Seconds after which whoever told a worker to go tells it again.
PATIENCE = 15.0


@pytest.fixture(scope="module")
def crew_scene(make_module_scene: Callable[..., Scene]) -> Scene:
    return make_module_scene(PROBE_PREFETCH="4")


@pytest.fixture
def crew(crew_scene: Scene) -> Scene:
    """Three live workers that each claim four times what they run."""
    crew_scene.top_up(3)
    crew_scene.wait_idle()
    crew_scene.harms.clear()
    return crew_scene


def test_warm_shutdown_under_load_loses_nothing_and_runs_nothing_twice(crew: Scene):
    # Given a worker with running and with waiting tasks
    keys = crew.load(120, 0.1)
    crew.wait_started(keys, 20)
    leaver = crew.live[0]
    lease = crew.node(leaver).lease
    # When it is asked to leave
    leaver.send(signal.SIGTERM)
    wait_exit([leaver])
    # Then each task runs exactly once
    crew.settled(keys)
    assert crew.ledger.reruns(keys) == set()
    # And it was a goodbye, not a death
    assert leaver.process.returncode == 0
    assert crew.history() == []
    assert lease not in crew.fenced()
    assert lease not in {node.lease for node in crew.nodes()}


def test_leaving_worker_says_again_that_it_leaves_when_the_store_has_lost_it(crew: Scene):
    # Given a worker that leaves, and runs a long task before it goes
    leaver = crew.live[0]
    keys = crew.publish("order", crew.keys_on(crew.shards(leaver), 1), 6.0)
    crew.wait_started(keys)
    leaver.send(signal.SIGTERM)
    eventually(lambda: crew.node(leaver).weight == 0)
    # When the store forgets its last word, as a replica does that takes over without it
    store = RedisStore(crew.server.url)
    assert store.leases.update(crew.node(leaver).lease, weight=2)
    # Then its shards are the others' again, before it has gone
    eventually(lambda: crew.node(leaver).weight == 0)
    assert leaver.alive
    store.close()
    wait_exit([leaver])
    crew.settled(keys)


def test_leaving_worker_gives_its_shards_and_what_waits_away_while_its_last_tasks_run(crew: Scene):
    # Given a worker that runs two long tasks, with more waiting behind them
    leaver = crew.live[1]
    shards = crew.shards(leaver)
    long = crew.publish("order", crew.keys_on(shards, 2), 4.0)
    crew.wait_started(long)
    short = crew.publish("order", crew.keys_on(shards, 12), 0.05)
    # When it is asked to leave
    leaver.send(signal.SIGTERM)
    # Then the others run what waited, before its own tasks are done
    crew.wait_ended(short)
    assert not crew.ledger.ended() & set(long), "the shards moved only after the last task"
    assert leaver.alive
    assert leaver.name not in {run.node for run in crew.ledger.runs() if run.key in short}
    # And those are finished where they are
    crew.settled(long)
    wait_exit([leaver])
    assert crew.ledger.reruns(long + short) == set()
    assert crew.history() == []


def test_cold_shutdown_loses_nothing_and_repeats_only_what_was_cut_off(crew: Scene):
    # Given a worker with running and with waiting tasks
    keys = crew.load(100, 0.1)
    crew.wait_started(keys, 20)
    leaver = crew.live[2]
    # When it is told to go at once
    crew.kill(leaver, signal.SIGQUIT)
    wait_exit([leaver])
    # Then the others run all that is left
    crew.settled(keys)
    eventually(lambda: leaver.name not in {node.name for node in crew.nodes()})


def test_rolling_restarts_under_load_lose_nothing_and_run_nothing_twice(crew: Scene):
    # Given a steady stream of tasks
    crew.top_up(4)
    with crew.stream(every=0.02, seconds=0.05) as keys:
        crew.wait_started(keys, 5)
        # When all four workers are replaced, twice
        for _ in range(8):
            oldest = crew.live[0]
            oldest.send(signal.SIGTERM)
            crew.start(1)
            wait_exit([oldest])
    # Then each task runs exactly once
    crew.settled(keys)
    assert crew.ledger.reruns(keys) == set()
    assert crew.history() == []


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGQUIT), (signal.SIGINT, signal.SIGINT)],
)
def test_second_signal_loses_nothing_either(crew: Scene, first: int, second: int):
    # Given a worker that is leaving, with tasks that still run and tasks it has claimed
    leaver = crew.live[0]
    long = crew.publish("order", crew.keys_on(crew.shards(leaver), 2), 2.0)
    crew.wait_started(long)
    short = crew.publish("order", crew.keys_on(crew.shards(leaver), 8), 0.05)
    leaver.send(first)
    eventually(lambda: crew.node(leaver).weight == 0, why="it drains")
    # When it is told again, until it goes
    tell(crew, leaver, second)
    # Then all tasks come to their end, and only what was cut off runs again
    crew.settled(long + short)
    eventually(lambda: leaver.name not in {node.name for node in crew.nodes()})
    assert crew.ledger.reruns(short) == set()


def tell(crew: Scene, leaver: Worker, signum: int) -> None:
    """Celery stops its pool in the handler of the second SIGINT, where it may stop it already, and then stands still."""

    def gone() -> bool:
        with suppress(AssertionError):
            eventually(lambda: not leaver.alive, within=PATIENCE)
        if leaver.alive:
            crew.kill(leaver, signum)
        return not leaver.alive

    crew.kill(leaver, signum)
    eventually(gone, within=90, why=f"{leaver.name} exits")


def test_soft_shutdown_finishes_what_ends_in_its_time_and_gives_back_the_rest(make_scene: Callable[..., Scene]):
    # Given a worker with a short and with a long task, more behind them, and a few seconds to leave in
    scene = make_scene(PROBE_PREFETCH="4", PROBE_CONF=json.dumps({"worker_soft_shutdown_timeout": 3.0}))
    leaver, other = scene.top_up(2)
    (brief,) = scene.publish("order", scene.keys_on(scene.shards(leaver), 1), 1.0)
    (long,) = scene.publish("order", scene.keys_on(scene.shards(leaver), 1), 6.0)
    scene.wait_started([brief, long])
    behind = scene.publish("order", scene.keys_on(scene.shards(leaver), 6), 6.0)
    # When it is told to go
    scene.kill(leaver, signal.SIGQUIT)
    wait_exit([leaver])
    # Then the short one was finished there and nowhere else
    scene.wait_ended([brief])
    assert len(scene.ledger.by_key()[brief]) == 1
    # And the other starts what was cut off and what had not started
    eventually(lambda: {run.key for run in scene.ledger.runs() if run.node == other.name} & {long, *behind})
    eventually(lambda: leaver.name not in {node.name for node in scene.nodes()})
    for worker in scene.live:  # nobody waits for the long ones
        scene.kill(worker)
    scene.redis.flushall()


def test_worker_told_by_remote_control_to_shut_down_says_goodbye(crew: Scene):
    # Given a worker with running and with waiting tasks
    keys = crew.load(60, 0.1)
    crew.wait_started(keys, 10)
    leaver = crew.live[0]
    lease = crew.node(leaver).lease
    # When `celery control shutdown` reaches it
    crew.probe.app.control.shutdown(destination=[leaver.name])
    wait_exit([leaver])
    # Then each task runs exactly once, and it was no death
    crew.settled(keys)
    assert crew.ledger.reruns(keys) == set()
    assert lease not in crew.fenced()
