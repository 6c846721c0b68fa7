"""Worker main processes and the server stopped with SIGSTOP, and a server that restarts."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tests.support.fleet import eventually
from tests.support.scene import Scene, first_start_after
from tests.support.server import RedisServer

#: Design guarantee G4: seconds beyond the lease TTL within which a frozen worker's tasks start elsewhere.
BEYOND_TTL = 2.0


def test_frozen_worker_is_taken_over_and_starts_nothing_it_was_fenced_from(make_scene: Callable[..., Scene]):
    # Given two workers, one with running and with waiting tasks
    scene = make_scene(ttl=2.0, PROBE_PREFETCH="4")
    frozen, other = scene.top_up(2)
    lease = scene.node(frozen).lease
    keys = scene.publish("order", scene.keys_on(scene.shards(frozen), 8), 0.5)
    scene.wait_started(keys, 2)
    eventually(lambda: scene.waiting(*scene.shards(frozen)) == 0, why="all claimed by one worker")
    # When its main process stops for longer than the TTL
    harm = scene.kill(frozen, signal.SIGSTOP)
    # Then its tasks start elsewhere while it is stopped, within the TTL + 2 s
    took = eventually(first_start_after(scene.ledger, keys, harm.at, elsewhere=frozen.name)) - harm.at
    assert took < scene.ttl + BEYOND_TTL
    done = {run.key for run in scene.ledger.runs() if run.end is not None and run.node == frozen.name}
    eventually(lambda: {run.key for run in scene.ledger.runs() if run.node == other.name} >= set(keys) - done)
    # When it goes on
    thawed = frozen.send(signal.SIGCONT)
    # Then it comes back under a new lease
    eventually(lambda: any(n.name == frozen.name and n.lease != lease for n in scene.nodes()), why="rejoined")
    # And has started nothing under the old one since, and nothing is lost
    scene.settled(keys)
    late = [run for run in scene.ledger.runs() if run.lease == lease and run.start > harm.at + scene.ttl]
    assert late == [], f"started by a fenced lease, thawed at {thawed}"
    # And it works on new tasks
    eventually(lambda: scene.shards(frozen))
    new = scene.publish("order", scene.keys_on(scene.shards(frozen), 6), 0.01)
    scene.settled(new)
    assert {run.node for run in scene.ledger.runs() if run.key in new} == {frozen.name}


def test_time_limit_that_passed_while_its_worker_was_fenced_is_told_to_nobody(make_scene: Callable[..., Scene]):
    # Given a task that outlasts its time limit, the first time
    scene = make_scene(ttl=2.0)
    frozen, _ = scene.top_up(2)
    (key,) = scene.keys_on(scene.shards(frozen), 1)
    lease, limit = scene.node(frozen).lease, 4.0
    scene.probe.fatal.apply_async((key, "hang", 1), time_limit=limit, link_error=scene.probe.told.s())
    scene.wait_started([key])
    # When its worker is frozen, another one runs it to its end, and the limit is over
    harm = scene.kill(frozen, signal.SIGSTOP)
    scene.wait_ended([key])
    eventually(lambda: time.time() > harm.at + limit, why="the time limit")
    frozen.send(signal.SIGCONT)
    # Then the one that wakes does not say that it failed
    eventually(lambda: any(n.name == frozen.name and n.lease != lease for n in scene.nodes()), why="rejoined")
    scene.settled(scene.load(10, 0.02))
    assert [run for run in scene.ledger.path.read_text().splitlines() if run.startswith("told")] == []
    # And a task that takes too long under its new lease fails as ever
    (other,) = scene.keys_on(scene.shards(frozen), 1)
    scene.probe.fatal.apply_async((other, "hang"), time_limit=1, link_error=scene.probe.told.s())
    eventually(lambda: "TimeLimitExceeded" in scene.ledger.path.read_text(), why="told")


def test_freeze_shorter_than_half_the_ttl_fences_nobody(trio: Scene):
    # Given workers under load
    before = {node.lease for node in trio.nodes()}
    keys = trio.load(80, 0.05)
    trio.wait_started(keys, 10)
    for worker in trio.live[:2]:
        # When one stops for a part of its TTL
        worker.send(signal.SIGSTOP)
        time.sleep(trio.ttl * 0.4)
        worker.send(signal.SIGCONT)
    # Then nothing ran twice and every lease lives on
    trio.settled(keys)
    assert {node.lease for node in trio.nodes()} == before
    assert trio.fenced() == set()


def test_frozen_leader_is_deposed_and_judges_nobody_when_it_wakes(make_scene: Callable[..., Scene]):
    # Given three workers, one of them the leader
    scene = make_scene(ttl=2.0)
    scene.top_up(3)
    leader = scene.leader
    others = {node.lease for node in scene.nodes() if node.name != leader.name}
    frozen = scene.node(leader).lease
    # When the leader stops for longer than the TTL
    scene.kill(leader, signal.SIGSTOP)
    # Then another leads
    eventually(lambda: scene.leader not in (None, leader), why="a new leader")
    eventually(lambda: frozen in scene.fenced())
    leader.send(signal.SIGCONT)
    # And the old one fences nobody when it wakes, and works on
    eventually(lambda: len(scene.nodes()) == 3, why="rejoined")
    scene.settled(scene.load(30, 0.02))
    assert scene.fenced() == {frozen}
    assert others <= {node.lease for node in scene.nodes()}


def test_server_that_stands_still_for_twice_the_ttl_fences_nobody(make_scene: Callable[..., Scene], own: RedisServer):
    # Given workers with tasks that run through the stall, and tasks that wait
    scene = make_scene(own, ttl=2.0)
    scene.top_up(3)
    before = {node.lease for node in scene.nodes()}
    keys = scene.publish("work", scene.names("long-", 3), 3 * scene.ttl) + scene.load(30, 0.05)
    scene.wait_started(keys, 8)
    # When the server answers nobody for two TTLs
    own.send(signal.SIGSTOP)
    time.sleep(2 * scene.ttl)
    own.send(signal.SIGCONT)
    # Then every lease lives on, and nothing was lost or ran twice
    scene.settled(keys)
    assert scene.fenced() == set()
    assert scene.history() == []
    assert {node.lease for node in scene.nodes()} == before
    assert len(scene.live) == 3
    # And work goes on
    scene.settled(scene.load(20, 0.02))


def test_server_that_restarts_with_its_memory_loses_nothing(
    make_scene: Callable[..., Scene], start_redis: Callable[..., RedisServer]
):
    # Given workers on a server that keeps its memory, with tasks running and waiting
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    scene = make_scene(server, ttl=3.0)
    scene.top_up(3)
    keys = scene.load(60, 0.3)
    scene.wait_started(keys, 10)
    # When it restarts
    server.stop()
    server.start()
    # Then no worker exits, nothing is fenced, nothing is lost or run twice
    scene.settled(keys)
    assert scene.fenced() == set()
    assert len(scene.live) == 3
    # And work goes on
    scene.settled(scene.load(20, 0.02))


def test_server_that_forgot_everything_kills_no_worker(make_scene: Callable[..., Scene], own: RedisServer):
    # Given workers with tasks that run through the restart
    scene = make_scene(own, ttl=3.0)
    scene.top_up(3)
    keys = scene.publish("work", scene.names("long-", 4), 2.0)
    scene.wait_started(keys)
    # When the server restarts without any memory
    own.stop()
    own.start()
    # Then what runs is finished, once
    scene.wait_ended(keys)
    # And every worker registers again and works on
    eventually(lambda: {node.name for node in scene.nodes()} == {worker.name for worker in scene.live})
    assert len(scene.live) == 3
    new = scene.load(40, 0.02)
    scene.settled(new)
    assert scene.fenced() == set()
    assert scene.ledger.reruns(keys) == set()


@pytest.fixture
def own(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """A server that no other test uses."""
    return start_redis()
