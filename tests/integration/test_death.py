"""Worker main processes killed with SIGKILL, and what becomes of their work."""

from __future__ import annotations

import psutil

from tests.support.fleet import Worker, eventually
from tests.support.scene import Scene


def test_killed_worker_under_load_loses_nothing_and_runs_nothing_twice_that_had_not_started(trio: Scene):
    # Given three workers in the middle of a load on sharded and plain queues
    keys = trio.load(160, 0.05)
    trio.wait_started(keys, 30)
    victim = trio.live[1]
    # When one is killed
    trio.kill(victim)
    # Then everything runs to its end, and only what was running may have run twice
    trio.settled(keys)
    assert len(trio.ledger.reruns(keys)) <= 2 * 2, "more ran again than the dead worker can have been running"
    eventually(lambda: victim.name not in {node.name for node in trio.nodes()})


def test_survivors_adopt_the_shards_of_a_killed_worker_with_their_backlog(trio: Scene):
    # Given a backlog that waits on the shards of one worker only
    victim = trio.live[0]
    shards = trio.shards(victim)
    assert shards
    own = {worker.name: trio.shards(worker) for worker in trio.live if worker is not victim}
    keys = trio.publish("order", trio.keys_on(shards, 24), 0.3)
    trio.wait_started(keys, 2)
    # When it is killed
    harm = trio.kill(victim)
    # Then the others run what waited there
    trio.settled(keys)
    after = [run for run in trio.ledger.runs() if run.key in keys and run.start > harm.at]
    assert len(after) > len(keys) // 2
    assert {run.node for run in after} <= {worker.name for worker in trio.live}
    assert sorted(shard for worker in trio.live for shard in trio.shards(worker)) == sorted(
        f"orders.{index}" for index in range(12)
    )
    # And keep what was theirs
    assert all(own[worker.name] <= trio.shards(worker) for worker in trio.live)


def test_pool_children_die_with_their_killed_main_process(trio: Scene):
    # Given a worker whose children run tasks that outlast the test
    victim = trio.live[2]
    keys = trio.publish("order", trio.keys_on(trio.shards(victim), 2), 30.0)
    trio.wait_started(keys)
    cut_off = [run for run in trio.ledger.runs() if run.key in keys and run.node == victim.name]
    running = {run.pid for run in cut_off}
    family = [psutil.Process(pid) for pid in victim.children()]
    assert running
    assert running <= {child.pid for child in family}
    # When its main process is killed
    trio.kill(victim)
    # Then none of them runs on
    _, orphans = psutil.wait_procs(family, timeout=10)
    assert orphans == []
    # And the tasks start elsewhere
    eventually(lambda: all(len(trio.ledger.by_key()[run.key]) == 2 for run in cut_off), why="started elsewhere")
    for worker in trio.live:  # nobody waits for these 30 s
        trio.kill(worker)
    trio.redis.flushall()


def test_killed_leader_is_followed_by_another_that_recovers_its_tasks(trio: Scene):
    # Given a leader that runs tasks
    keys = trio.load(100, 0.05)
    trio.wait_started(keys, 20)
    leader = trio.leader
    # When it is killed
    trio.kill(leader)
    # Then another one leads and everything runs to its end
    eventually(lambda: trio.leader not in (None, leader), why="a new leader")
    trio.settled(keys)


def test_leader_and_deputy_killed_together_are_recovered_by_the_third(trio: Scene):
    # Given a leader and its deputies at work
    keys = trio.load(100, 0.05)
    trio.wait_started(keys, 20)
    leader = trio.leader
    deputy = next(worker for worker in trio.live if worker is not leader)
    # When both are killed at once
    trio.kill(leader)
    trio.kill(deputy)
    # Then the third leads and runs all there is
    (survivor,) = trio.live
    eventually(lambda: trio.leader is survivor, why="the survivor leads")
    trio.settled(keys)


def test_workers_started_after_all_were_killed_recover_everything(trio: Scene):
    # Given tasks in flight and waiting everywhere
    keys = trio.load(60, 0.1)
    trio.wait_started(keys, 10)
    # When all workers are killed, and others start later
    for worker in trio.live:
        trio.kill(worker)
    trio.start(2)
    # Then those recover what was in flight and run the rest
    trio.settled(keys)
    assert len(trio.history()) >= 3


def test_killed_worker_whose_name_is_reused_at_once_is_recovered_all_the_same(trio: Scene):
    # Given a worker that runs tasks
    victim = trio.live[0]
    keys = trio.load(60, 0.1)
    trio.wait_started(keys, 10)
    lease = trio.node(victim).lease
    # When it is killed and its name comes back at once
    trio.kill(victim)
    heir = trio.fleet.start(*trio.options, name=victim.name)
    # Then the dead lease is recovered, and the heir has its own
    trio.settled(keys)
    eventually(lambda: lease in trio.fenced(), why="the dead lease was fenced")
    assert trio.node(heir).lease != lease

    # And its shards are its own, once the others have let go of them
    eventually(lambda: runs_of_shards_of(trio, heir) == {heir.name})


def test_shards_taken_over_from_the_dead_are_handed_to_who_comes_after_it(trio: Scene):
    # Given survivors that took over the shards of a dead worker
    victim = trio.live[0]
    shards = trio.shards(victim)
    trio.kill(victim)
    eventually(lambda: not trio.shards(victim) and len(trio.nodes()) == 2, why="fenced")
    taken = trio.publish("order", trio.keys_on(shards, 12), 0.01)
    trio.settled(taken)
    # When a worker of its name comes later
    heir = trio.fleet.start(*trio.options, name=victim.name)
    # Then the survivors let go of what they had taken over
    eventually(lambda: runs_of_shards_of(trio, heir) == {heir.name})


def runs_of_shards_of(scene: Scene, worker: Worker) -> set[str]:
    """Who runs tasks that are published now on a worker's shards."""
    new = scene.publish("order", scene.keys_on(scene.shards(worker), 12), 0.01)
    scene.settled(new)
    return {run.node for run in scene.ledger.runs() if run.key in new}
