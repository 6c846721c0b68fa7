"""A server that stands still, forgets its scripts or everything, or has a clock that jumps: nobody dies of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fleet import ROOT, eventually
from tests.support.scene import Scene
from tests.support.server import RedisServer

#: The lease TTL of these scenes: what a stall is measured by.
TTL = 3.0
#: Seconds of the stalls; `HA_STALLS=60` adds one that is too long for every day.
STALLS = [5.0, 14.0, *map(float, os.environ.get("HA_STALLS", "").split())]


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """A server that no other test uses."""
    return start_redis()


def under_load(scene: Scene) -> tuple[set[str], list[str]]:
    """Three workers with tasks that run through what comes, tasks that wait, and locked ones."""
    scene.top_up(3)
    leases = {node.lease for node in scene.nodes()}
    keys = scene.publish("work", scene.names("long-", 2), 2 * TTL) + scene.load(30, 0.05)
    keys += scene.publish("charge", scene.names("charge-", 12), "account", 0.1)
    scene.wait_started(keys, 8)
    return leases, keys


def nobody_died_of_it(scene: Scene, leases: set[str], keys: list[str]) -> None:
    """Nothing lost, nothing twice, nobody fenced, and work goes on."""
    scene.settled(keys)
    assert scene.ledger.reruns(keys) == set()
    assert scene.ledger.overlaps([]) == []
    assert len(scene.live) == 3
    assert scene.fenced() == set()
    assert {node.lease for node in scene.nodes()} == leases
    scene.settled(scene.load(20, 0.02))
    tokens = [run.token for run in scene.ledger.runs() if run.lock]
    assert tokens == sorted(set(tokens)), "a token went backwards"


@pytest.mark.parametrize("seconds", STALLS)
def test_stalled_server_loses_nothing_and_fences_nobody(
    make_scene: Callable[..., Scene], server: RedisServer, seconds: float
):
    scene = make_scene(server, ttl=TTL)
    leases, keys = under_load(scene)
    server.send(signal.SIGSTOP)
    time.sleep(seconds)
    server.send(signal.SIGCONT)
    nobody_died_of_it(scene, leases, keys)


def test_server_that_forgets_its_scripts_is_told_them_again(make_scene: Callable[..., Scene], server: RedisServer):
    scene = make_scene(server, ttl=TTL)
    leases, keys = under_load(scene)
    for _ in range(5):
        scene.redis.script_flush()
        keys += scene.load(4, 0.02)
    nobody_died_of_it(scene, leases, keys)


def test_server_whose_clock_jumps_an_hour_ahead_and_back_fences_nobody(
    make_scene: Callable[..., Scene], start_redis: Callable[..., RedisServer], tmp_path: Path, monkeypatch
):
    # Given a server whose wall clock is in our hands
    mark = tmp_path / "ahead"
    monkeypatch.setenv("LD_PRELOAD", str(preload(tmp_path)))
    monkeypatch.setenv("CLOCK_AHEAD", str(mark))
    server = start_redis()
    monkeypatch.delenv("LD_PRELOAD")
    scene = make_scene(server, ttl=TTL)
    leases, keys = under_load(scene)
    # When it is set an hour ahead, and back while the same workers live
    mark.touch()
    assert scene.redis.time()[0] > time.time() + 3_000
    keys += scene.publish("charge", scene.names("ahead-", 6), "account", 0.05)
    scene.wait_ended(keys)
    mark.unlink()
    keys += scene.publish("charge", scene.names("back-", 6), "account", 0.05)
    # Then tokens and claims go on growing, and nobody is taken for dead
    nobody_died_of_it(scene, leases, keys)


def test_database_that_is_flushed_under_working_workers_kills_none_of_them(
    make_scene: Callable[..., Scene], server: RedisServer
):
    # Given workers with tasks that run, under locks too
    scene = make_scene(server, ttl=TTL)
    scene.top_up(3)
    keys = scene.publish("work", scene.names("long-", 3), 2.0) + scene.publish("charge", ["locked"], "account", 2.0)
    scene.wait_started(keys)
    # When everything on the server is deleted
    scene.redis.flushall()
    # Then what ran came to its end, once
    scene.wait_ended(keys)
    # And every worker registers again and works on, with higher tokens
    eventually(lambda: {node.name for node in scene.nodes()} == {worker.name for worker in scene.live})
    assert len(scene.live) == 3
    new = scene.load(20, 0.02) + scene.publish("charge", scene.names("new-", 6), "account", 0.02)
    scene.settled(new)
    assert scene.ledger.reruns(keys) == set()
    assert scene.fenced() == set()
    tokens = [run.token for run in scene.ledger.runs() if run.lock]
    assert tokens == sorted(set(tokens)), "a token went backwards"


def preload(folder: Path) -> Path:
    """The library that sets a server's clock."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    made = folder / "clock.so"
    source = ROOT / "tests" / "support" / "clock.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"], check=True)
    return made
