"""Unique tasks, from a real publisher through a real worker to every end a task can come to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.fleet import ROOT, eventually
from tests.support.scene import Scene

HANG = 60

#: A publisher that is killed when its key is reserved and its message is not out.
KILLED_PUBLISHER = """
import os, signal
from tests.support.probe import app, sole
app.amqp.__dict__["send_task_message"] = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)
sole.delay("phantom", "gap")
"""


@pytest.fixture(scope="module")
def unique_scene(make_module_scene: Callable[..., Scene]) -> Scene:
    return make_module_scene(results=True, PROBE_CONF='{"ha_publish_within": 1.0}')


@pytest.fixture
def single(unique_scene: Scene) -> Scene:
    """One live worker that keeps results."""
    unique_scene.top_up(1)
    unique_scene.wait_idle()
    return unique_scene


def is_free(scene: Scene, name: str) -> bool:
    return not scene.redis.exists(f"_ha:unique:{scene.probe.sole.name}:{name}")


def test_task_that_replaces_itself_keeps_its_key_until_the_replacement_has_ended(single: Scene):
    sole, ledger = single.probe.sole, single.ledger
    first = sole.delay("once", "replaced", 0.0, "replace")
    eventually(lambda: "once" in ledger.ended(), why="its first half has ended")
    (half,) = ledger.by_key()["once"]
    eventually(lambda: not single.redis.hexists(f"_ha:flight:{half.lease}", half.claim), why="and is acknowledged")
    # While the replacement waits for its time, it is the one that is under way
    again = sole.delay("twice", "replaced")
    assert again.id == first.id
    assert first.get(timeout=HANG) == "once"
    eventually(lambda: is_free(single, "replaced"))
    assert "twice" not in ledger.by_key()


def test_duplicate_has_the_result_of_the_first_and_the_next_is_accepted_once_it_is_read(single: Scene):
    sole = single.probe.sole
    first = sole.delay("a", "result", 1.0)
    again = single.probe.app.send_task(sole.name, ("b", "result"))
    assert again.id == first.id
    for key in ("c", "d", "e"):
        assert again.get(timeout=HANG) == first.get(timeout=HANG)
        # Read, so it is over: the next is another one.
        again = first = sole.delay(key, "result")
    assert first.get(timeout=HANG) == "e"
    single.settled(["a", "c", "d", "e"])
    assert "b" not in single.ledger.by_key()


def test_until_started_one_waits_while_another_runs(single: Scene):
    waiting = single.probe.waiting
    first = waiting.delay("one", "started", 3.0)
    single.wait_started(["one"])
    second = waiting.apply_async(("two", "started"), countdown=2.0)
    assert second.id != first.id
    assert waiting.delay("three", "started").id == second.id
    assert second.get(timeout=HANG) == "two"


@pytest.mark.parametrize("fate", ["fail", "ignore", "reject", "crash", "retry"])
def test_key_is_free_however_its_task_ends(single: Scene, fate: str):
    first = single.probe.sole.delay(f"ends-{fate}", fate, 0.4, fate)
    assert single.probe.sole.delay("never", fate).id == first.id
    eventually(lambda: is_free(single, fate), why=fate)
    assert single.probe.sole.delay(f"after-{fate}", fate).get(timeout=HANG) == f"after-{fate}"
    runs = {"crash": 3, "retry": 2}.get(fate, 1)
    assert len(single.ledger.by_key()[f"ends-{fate}"]) == runs
    assert "never" not in single.ledger.by_key()


def test_key_is_free_when_its_task_expires_before_it_starts(single: Scene):
    first = single.probe.sole.apply_async(("expired", "expires"), countdown=1.0, expires=0.5)
    assert single.probe.sole.delay("never", "expires").id == first.id
    eventually(lambda: is_free(single, "expires"))
    assert "expired" not in single.ledger.by_key()


def test_publisher_killed_between_its_reservation_and_its_message_blocks_nobody_for_long(single: Scene):
    # Given a publisher that was killed with its key reserved and its message not out
    publisher = subprocess.run(
        [sys.executable, "-c", KILLED_PUBLISHER], cwd=ROOT, env={**os.environ, **single.fleet.environment}, check=False
    )
    assert publisher.returncode == -signal.SIGKILL
    assert not is_free(single, "gap")
    # When another publishes, then it gets no phantom's result: it waits, and publishes its own
    assert single.probe.sole.delay("real", "gap").get(timeout=HANG) == "real"
    assert "phantom" not in single.ledger.by_key()


def test_key_whose_message_no_worker_knows_is_free(single: Scene):
    app = single.probe.app
    unknown = app.send_task("nobody.knows", (), ha_unique="k")
    eventually(lambda: not single.redis.exists("_ha:unique:nobody.knows:k"))
    assert app.send_task("nobody.knows", (), ha_unique="k").id != unknown.id
    eventually(lambda: not single.redis.exists("_ha:unique:nobody.knows:k"))
