"""What Celery can do besides running a task, on celery_ha's queues."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from celery import chain, chord, group

from tests.support.fleet import eventually
from tests.support.scene import Scene

HANG = 60


@pytest.fixture(scope="module")
def pair_scene(make_module_scene: Callable[..., Scene]) -> Scene:
    return make_module_scene(results=True, PROBE_PREFETCH="4")


@pytest.fixture
def pair(pair_scene: Scene) -> Scene:
    """Two live workers that keep results."""
    pair_scene.top_up(2)
    pair_scene.wait_idle()
    pair_scene.harms.clear()
    return pair_scene


@pytest.fixture(scope="module")
def single_scene(make_module_scene: Callable[..., Scene]) -> Scene:
    return make_module_scene(options=("-Q", "orders,celery", "-c", "1"))


@pytest.fixture
def single(single_scene: Scene) -> Scene:
    """One worker with one slot, with gossip and mingle."""
    single_scene.top_up(1)
    single_scene.wait_idle()
    return single_scene


# -- canvas and results -------------------------------------------------------------------------


def test_chain_and_group_across_shards_give_their_results(pair: Scene):
    probe, batch = pair.probe, pair.batch()
    # Given a chain whose steps are on the sharded and on the plain queue, and a group on the shards
    steps = chain(probe.order.s(batch + "a", 0), probe.work.si(batch + "b", 0), probe.order.si(batch + "c", 0))
    many = group(probe.order.s(f"{batch}{at}", 0) for at in range(12))
    # When they are sent, then they end as they should
    assert steps.apply_async().get(timeout=HANG) == batch + "c"
    assert many.apply_async().get(timeout=HANG) == [f"{batch}{at}" for at in range(12)]


def test_chord_whose_worker_is_killed_runs_its_body_once_with_all_results(pair: Scene):
    probe, batch = pair.probe, pair.batch()
    keys = pair.names(batch, 24)
    # Given a chord with its header in the middle of running
    result = chord(probe.order.s(key, 0.1) for key in keys)(probe.total.s(batch + "body"))
    pair.wait_started(keys, 6)
    # When a worker is killed
    pair.kill(pair.live[0])
    # Then the body gets every result, once
    assert result.get(timeout=HANG) == sorted(keys)
    pair.settled([*keys, batch + "body"])
    assert pair.ledger.reruns([batch + "body"]) == set()


def test_chain_whose_worker_is_killed_in_the_middle_goes_on(pair: Scene):
    probe, (first, middle, last) = pair.probe, pair.names(pair.batch(), 3)
    # Given a chain across shards, of which one step runs
    result = chain(probe.order.si(first, 0), probe.order.si(middle, 2.0), probe.order.si(last, 0))()
    pair.wait_started([middle])
    eventually(lambda: pair.in_flight() == 1, why="the first step is acknowledged")
    # When its worker is killed
    node = pair.ledger.by_key()[middle][0].node
    pair.kill(next(worker for worker in pair.live if worker.name == node))
    # Then that step runs again, and the next one once
    assert result.get(timeout=HANG) == last
    pair.settled([first, middle, last])
    assert pair.ledger.reruns([first, middle, last]) == {middle}


def test_expired_task_of_a_killed_worker_is_not_run_by_another(pair: Scene):
    # Given tasks that one worker has claimed and keeps for later, and that expire before
    victim = pair.live[0]
    keys = pair.keys_on(pair.shards(victim), 10)
    pair.publish("order", keys, 0, countdown=4.0, expires=2.0)
    eventually(lambda: not pair.waiting(*pair.shards(victim)), why="claimed by the one worker")
    # When it is killed
    pair.kill(victim)
    # Then nobody runs them, and nothing is left of them
    pair.top_up(2)
    pair.wait_idle()
    pair.settled(pair.load(10, 0))
    assert not set(keys) & set(pair.ledger.by_key())
    assert not pair.waiting(*(f"orders.{at}" for at in range(12)))


# -- waiting on a worker ------------------------------------------------------------------------


def test_eta_tasks_of_a_killed_worker_run_once_elsewhere_and_not_too_early(pair: Scene):
    # Given tasks with an ETA that one worker has claimed and keeps in memory
    victim, countdown = pair.live[0], 10.0
    keys, due = pair.keys_on(pair.shards(victim), 1_000), time.time() + countdown
    pair.publish("order", keys, 0, countdown=countdown)
    eventually(lambda: not pair.waiting(*pair.shards(victim)), why="claimed by the one worker")
    assert not set(pair.ledger.by_key()) & set(keys)
    # When it is killed
    pair.kill(victim)
    # Then each of them runs once, not before its time
    pair.settled(keys)
    assert pair.ledger.reruns(keys) == set()
    assert min(run.start for run in pair.ledger.runs() if run.key in keys) >= due


def test_eta_tasks_in_memory_keep_no_ready_task_from_a_free_slot(pair: Scene):
    # Given many more tasks with a far ETA than the prefetch count, on one worker's shards
    owner = pair.live[0]
    shards = pair.shards(owner)
    far = pair.publish("order", pair.keys_on(shards, 40), 0, countdown=6.0)
    # When others come that could start at once, then those run first
    ready = pair.publish("order", pair.keys_on(shards, 20), 0)
    pair.wait_ended(ready)
    assert not set(pair.ledger.by_key()) & set(far)
    pair.settled(far)
    assert pair.ledger.reruns(far) == set()


def test_rate_limited_tasks_keep_their_rate_and_survive_their_worker(pair: Scene):
    # Given more of them than may run in a second
    keys = pair.publish("limited", pair.names(pair.batch(), 12))
    pair.wait_started(keys, 2)
    # When a worker in whose buckets they wait is killed
    pair.kill(pair.live[0])
    # Then all of them run, each once, and on one worker not faster than allowed
    pair.settled(keys)
    for worker in {run.node for run in pair.ledger.runs() if run.key in keys}:
        starts = sorted(run.start for run in pair.ledger.runs() if run.key in keys and run.node == worker)
        # One of them may have been late: its child was busy elsewhere.
        assert starts[-1] - starts[0] >= 0.8 * (len(starts) - 2) / 4


def test_early_acknowledged_task_of_a_killed_worker_is_not_repeated(pair: Scene):
    # Given a running task with acks_late=False
    keys = pair.publish("early", [pair.batch() + "early"], 30)
    pair.wait_started(keys)
    node = pair.ledger.by_key()[keys[0]][0].node
    victim = next(worker for worker in pair.live if worker.name == node)
    lease = pair.node(victim).lease
    # When its worker is killed and all it held was recovered
    pair.kill(victim)
    eventually(lambda: lease in pair.fenced())
    pair.settled(pair.load(20, 0))
    # Then it did not run again: that is what it asked for
    assert len(pair.ledger.by_key()[keys[0]]) == 1


def test_retries_stay_on_the_shard_of_their_key(pair: Scene):
    keys = pair.publish("again", pair.names(pair.batch(), 10))
    eventually(lambda: all(len(pair.ledger.by_key().get(key, ())) == 4 for key in keys), why="four attempts each")
    pair.wait_idle()
    for key in keys:
        assert len({run.extra for run in pair.ledger.by_key()[key]}) == 1, "a retry left its shard"


# -- order and discarding, where there is one slot ----------------------------------------------


def test_waiting_tasks_start_in_the_order_of_their_priority(single: Scene):
    # Given tasks of four priorities that wait behind a running one, the least urgent published first
    blocker = single.publish("work", [single.batch()], 1.5)
    single.wait_started(blocker)
    batch = single.batch()
    keys = [
        key
        for priority in (9, 6, 3, 0)
        for key in single.publish("work", single.names(f"{batch}{priority}-", 4), 0, priority=priority)
    ]
    single.settled(keys)
    # Then the most urgent run first, each kind in its own order
    ran = [run.key for run in single.ledger.runs(batch)]
    ours = ran[1:] if ran[0].startswith(f"{batch}9-") else ran  # one may have been claimed before the others came
    assert ours == [key for p in (0, 3, 6, 9) for key in single.names(f"{batch}{p}-", 4) if key in ours]


def test_revoked_task_never_starts_and_leaves_nothing_behind(single: Scene):
    # Given a task that waits
    blocker = single.publish("work", [single.batch()], 2.0)
    single.wait_started(blocker)
    revoked = single.batch() + "revoked"
    result = single.probe.order.apply_async((revoked,))
    # When it is revoked
    single.probe.app.control.revoke(result.id)
    # Then it does not run when its turn comes
    single.settled(blocker + single.load(4, 0))
    assert revoked not in single.ledger.by_key()
    assert single.live[0].said(f"[{result.id}]"), "the worker has seen it"


def test_task_that_was_revoked_just_before_a_worker_began_to_listen_does_not_run_there(
    make_scene: Callable[..., Scene],
):
    # Given a worker that has connected, and a revocation whose broadcast it has missed
    scene = make_scene()
    scene.start(1)
    result = scene.probe.work.apply_async(("revoked",), countdown=8.0)
    scene.probe.app.ha.store.revocations.remember([result.id], 60.0)
    other = scene.probe.work.apply_async(("other",), countdown=8.0)
    # When both are due
    scene.wait_ended(["other"])
    scene.wait_idle()
    # Then the one that was revoked has not run
    assert "revoked" not in scene.ledger.by_key()
    assert other.id != result.id


def test_task_that_was_revoked_stays_revoked_for_workers_that_come_when_all_who_knew_are_dead(
    make_scene: Callable[..., Scene],
):
    # Given a waiting task that is revoked
    scene = make_scene()
    (worker,) = scene.top_up(1)
    blocker = scene.publish("early", scene.names("blocker", 2), 60.0)
    scene.wait_started(blocker)
    result = scene.probe.work.apply_async(("revoked",))
    scene.probe.app.control.revoke(result.id)
    eventually(lambda: scene.redis.zscore("_ha:revoked", result.id))
    # When every worker that knows it is killed, and others come
    scene.kill(worker)
    scene.top_up(1)
    # Then they do not run it
    scene.wait_ended(scene.load(10, 0))
    assert "revoked" not in scene.ledger.by_key()


def test_running_task_that_is_terminated_is_not_repeated(single: Scene):
    key = single.batch() + "terminated"
    result = single.probe.order.apply_async((key, 60))
    single.wait_started([key])
    single.probe.app.control.revoke(result.id, terminate=True, signal="SIGKILL")
    single.settled(single.load(4, 0))
    assert len(single.ledger.by_key()[key]) == 1
    assert key not in single.ledger.ended()


def test_expired_task_never_starts_and_leaves_nothing_behind(single: Scene):
    blocker = single.publish("work", [single.batch()], 1.0)
    single.wait_started(blocker)
    expired = single.publish("order", [single.batch() + "expired"], 0, expires=0.3)
    single.settled(blocker + single.load(4, 0))
    assert not set(expired) & set(single.ledger.by_key())


def test_killed_pool_child_costs_its_task_one_attempt_and_nobody_else_anything(single: Scene):
    import os
    import signal

    # Given a running task
    key = single.batch() + "child"
    single.publish("order", [key], 1.0)
    single.wait_started([key])
    # When the process that runs it is killed
    os.kill(single.ledger.by_key()[key][0].pid, signal.SIGKILL)
    # Then it runs again, to its end, and the worker lives
    single.wait_ended([key])
    single.wait_idle()
    assert len(single.ledger.by_key()[key]) == 2
    assert single.live


def test_all_keys_carry_the_global_key_prefix(make_scene: Callable[..., Scene]):
    # Given workers whose broker has a key prefix
    scene = make_scene(PROBE_KEYPREFIX="shop:")
    victim, _ = scene.top_up(2)
    keys = scene.load(60, 0.05)
    scene.wait_started(keys, 15)
    # When one is killed
    scene.kill(victim)
    # Then all goes well under that prefix, and nothing was written outside of it
    scene.settled(keys)
    assert [key for key in scene.redis.keys("*") if not key.startswith(b"shop:")] == []


def test_task_that_rejects_itself_to_run_again_does_so_as_often_as_it_likes(single: Scene):
    """It came to its end each time: no poison task, which stops after 3 attempts that did not."""
    key = single.batch() + "returning"
    single.probe.returning.delay(key, 5)
    runs = lambda: single.ledger.by_key().get(key, [])  # noqa: E731
    eventually(lambda: len([run for run in runs() if run.end is not None]) == 6, why="six runs")
    single.wait_idle()
    assert len(runs()) == 6
    assert single.redis.llen("_ha:dead") == 0
