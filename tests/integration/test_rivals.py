"""What other libraries' users reported, told again of this one: each test names the report.

celery-once: https://github.com/cameronmaske/celery-once; celery-singleton:
https://github.com/steinitzu/celery-singleton; python-redis-lock: https://github.com/ionelmc/python-redis-lock.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from celery_ha.model import Holder
from celery_ha.store.redis import RedisStore
from tests.support.fleet import ROOT, eventually
from tests.support.scene import Scene

HANG = 60
TTL = 1.5

#: Takes a lock, forks, and has the child hold another for longer than any lease lives without renewals.
FORKING = f"""
import os, time
from tests.support.probe import app, note
with app.ha.lock("parents", timeout=10):
    child = os.fork()
    if not child:
        with app.ha.lock("contended:childs", timeout=10) as lock:
            note("start", "child", "-", "child")
            time.sleep({3 * TTL})
            lock.check()
            note("end", "child", "-", "child")
        os._exit(0)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def rival_scene(make_module_scene: Callable[..., Scene]) -> Scene:
    # A visibility timeout under which kombu's own transport would hand long tasks out again and again.
    conf = '{"broker_transport_options": {"visibility_timeout": 1}}'
    return make_module_scene(results=True, ttl=TTL, PROBE_CONF=conf)


@pytest.fixture
def pair(rival_scene: Scene) -> Scene:
    """Two live workers that keep results."""
    rival_scene.top_up(2)
    rival_scene.wait_idle()
    rival_scene.harms.clear()
    return rival_scene


def accepts_the_next(scene: Scene, name: str) -> bool:
    """Whether a call that is published now is a task of its own and runs."""
    key = f"next-{name}"
    assert scene.probe.sole.delay(key, name).get(timeout=HANG) == key
    return key in scene.ledger.by_key()


def is_free(scene: Scene, name: str) -> bool:
    return not scene.redis.exists(f"_ha:unique:{scene.probe.sole.name}:{name}")


# -- duplicates blocked for ever ----------------------------------------------------------------


def test_lock_of_a_killed_worker_is_not_left_behind(pair: Scene):
    """celery-once #147, #103: a killed worker's lock stays until its timeout; somebody has to clear it by hand."""
    first = pair.probe.sole.delay("killed", "killed", 2.0)
    pair.wait_started(["killed"])
    node = pair.ledger.by_key()["killed"][0].node
    pair.kill(next(worker for worker in pair.live if worker.name == node))
    # While it comes back it is still the one; then it has run, and the next is accepted.
    assert pair.probe.sole.delay("never", "killed").id == first.id
    assert first.get(timeout=HANG) == "killed"
    assert len(pair.ledger.by_key()["killed"]) == 2
    assert accepts_the_next(pair, "killed")
    assert "never" not in pair.ledger.by_key()


def test_task_interrupted_by_a_restart_of_everything_can_be_called_again(pair: Scene):
    """celery-once #110: after a restart in mid-task no call of it was sent any more until an hour had passed."""
    first = pair.probe.sole.delay("restart", "restart", 1.0)
    pair.wait_started(["restart"])
    for worker in pair.live:
        pair.kill(worker)
    pair.top_up(1)
    assert first.get(timeout=HANG) == "restart"
    assert accepts_the_next(pair, "restart")


def test_task_killed_by_its_hard_time_limit_can_be_called_again(pair: Scene):
    """celery-singleton #40, celery-once #130: the limit kills the process that would have freed the lock."""
    pair.probe.sole.apply_async(("limit", "limit", 30.0), time_limit=1)
    pair.wait_started(["limit"])
    eventually(lambda: is_free(pair, "limit"))
    assert accepts_the_next(pair, "limit")


def test_revoked_task_can_be_called_again(pair: Scene):
    """celery-singleton #29: after a revoke every call returned the result that says REVOKED."""
    first = pair.probe.sole.apply_async(("revoked", "revoked"), countdown=1.0)
    first.revoke()
    eventually(lambda: first.state == "REVOKED")
    eventually(lambda: is_free(pair, "revoked"))
    assert accepts_the_next(pair, "revoked")
    assert "revoked" not in pair.ledger.by_key()


def test_retry_is_not_refused_by_its_own_lock(pair: Scene):
    """celery-once #37, celery-singleton #26: the retry's publish met the lock of the attempt that retried."""
    first = pair.probe.sole.delay("retry", "retry", 0.05, "retry")
    assert first.get(timeout=HANG) == "retry"
    assert len(pair.ledger.by_key()["retry"]) == 2
    assert accepts_the_next(pair, "retry")


# -- locks that end too early -------------------------------------------------------------------


def test_lock_of_a_long_task_does_not_expire_under_it(pair: Scene):
    """celery-once #36, celery-singleton #38, python-redis-lock #85 and #91: the lock expires, or the message is
    handed out again, while the task runs; then two run, or the release fails with NotAcquired."""
    account = pair.batch()
    keys = pair.publish("charge", [account + "long"], account, 3 * TTL)
    pair.wait_started(keys)
    keys += pair.publish("charge", pair.names(account, 3), account, 0.02)
    pair.settled(keys)
    assert pair.ledger.overlaps() == []
    assert next(run.key for run in pair.ledger.runs() if run.lock == account) == account + "long"
    assert not any(worker.said("was lost before it was released") for worker in pair.live)


def test_lock_taken_after_a_fork_is_kept_alive(pair: Scene):
    """python-redis-lock #18: a forked process has no threads, so nobody renews what it locks."""
    environment = {**os.environ, **pair.fleet.environment}
    with subprocess.Popen([sys.executable, "-c", FORKING], cwd=ROOT, env=environment) as process:
        pair.wait_started(["child"])
        pair.publish("contend", ["other"], "childs")
        assert process.wait(HANG) == 0
    pair.settled(["other"])
    child, other = (pair.ledger.by_key()[key][0] for key in ("child", "other"))
    assert child.end is not None
    assert child.end < other.start


# -- locks and the wrong hands ------------------------------------------------------------------


def test_redelivery_is_not_refused_by_the_lock_of_its_own_dead_attempt(pair: Scene):
    """unicef/hope #6393, with python-redis-lock: redelivered jobs meet their own stale lock and skip their work."""
    keys = pair.publish("skip", ["skip"], "one", 1.5)
    pair.wait_started(keys)
    node = pair.ledger.by_key()["skip"][0].node
    pair.kill(next(worker for worker in pair.live if worker.name == node))
    # One that skips when its lock is busy would be gone, in silence.
    pair.settled(keys)
    assert len(pair.ledger.by_key()["skip"]) == 2


def test_lock_is_released_by_its_holder_alone(pair: Scene):
    """python-redis-lock #44, redis-py #1031: whoever knows the id, or comes late, releases another's lock."""
    store = RedisStore(pair.server.url)
    lease = pair.nodes()[0].lease
    late, owner = Holder(lease, f"{lease}.900001", "late"), Holder(lease, f"{lease}.900002", "owner")
    try:
        old = store.locks.acquire("release", late, inherit=0).token
        assert store.locks.release("release", late, old)
        token = store.locks.acquire("release", owner, inherit=0).token
        for holder, number in ((late, old), (late, token), (owner, old)):
            assert not store.locks.release("release", holder, number)
        assert store.locks.holds("release", owner, token)
        assert store.locks.release("release", owner, token)
    finally:
        store.close()
