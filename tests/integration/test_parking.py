"""Tasks whose lock is busy wait in line on the server: no slot, no retry, in order, through every fault."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from celery_ha.errors import LockBusy
from tests.support.fleet import eventually
from tests.support.scene import Scene
from tests.support.server import RedisServer


@pytest.fixture
def duo(make_scene: Callable[..., Scene], redis_server: RedisServer) -> Scene:
    scene = make_scene(redis_server, ttl=3.0)
    scene.top_up(2)
    return scene


def parked(scene: Scene, lock: str) -> int:
    return scene.redis.llen(f"_ha:line:{lock}")


def test_busy_tasks_wait_on_the_server_and_hold_no_slot(duo: Scene):
    # Given a task that holds a lock, and more tasks for it than there are slots
    account = duo.batch()
    (first,) = duo.publish("charge", [account + "first"], account, 3.0)
    duo.wait_started([first])
    others = duo.publish("charge", duo.names(account, 12), account, 0.0)
    # When they have found it busy
    eventually(lambda: parked(duo, f"account:{account}") == len(others))
    # Then other tasks run, before the lock is free
    free = duo.load(20, 0.01)
    duo.wait_ended(free)
    assert parked(duo, f"account:{account}") == len(others)
    # And those who waited run once each, in the order in which they came to the line
    duo.settled([first, *others])
    assert duo.ledger.overlaps(duo.harms) == []
    assert duo.ledger.reruns([first, *others]) == set()


def test_a_shard_s_waiting_tasks_keep_their_order(duo: Scene):
    account = duo.batch()
    (first,) = duo.publish("charge", [account + "first"], account, 1.0)
    duo.wait_started([first])
    others = []
    for number in range(6):
        others += duo.publish("charge", [f"{account}{number}"], account, 0.0)
        eventually(lambda count=number + 1: parked(duo, f"account:{account}") == count)

    duo.settled([first, *others])

    runs = sorted((run for run in duo.ledger.runs() if run.lock == account), key=lambda run: run.start)
    assert [run.key for run in runs] == [first, *others]


def test_waiting_tasks_survive_the_death_of_the_holder_and_of_who_parked_them(duo: Scene):
    # Given a lock with a line
    account = duo.batch()
    (first,) = duo.publish("charge", [account + "first"], account, 2.0)
    duo.wait_started([first])
    others = duo.publish("charge", duo.names(account, 8), account, 0.01)
    eventually(lambda: parked(duo, f"account:{account}") == len(others))
    # When both workers are killed
    for worker in duo.live:
        duo.kill(worker)
    duo.top_up(2)
    # Then the interrupted task is the first again, and all the others follow
    duo.wait_ended([first, *others])
    duo.wait_idle()
    runs = sorted((run for run in duo.ledger.runs() if run.lock == account), key=lambda run: run.start)
    assert [run.key for run in runs[:2]] == [first, first]
    assert duo.ledger.overlaps(duo.harms) == []
    assert duo.ledger.reruns(others) == set()


def test_an_expired_task_in_line_passes_the_lock_on(duo: Scene):
    account = duo.batch()
    (first,) = duo.publish("charge", [account + "first"], account, 1.5)
    duo.wait_started([first])
    late = duo.publish("charge", [account + "late"], account, 0.0, expires=0.5)
    eventually(lambda: parked(duo, f"account:{account}") == 1)
    others = duo.publish("charge", duo.names(account, 2), account, 0.0)

    duo.settled([first, *others])

    assert not set(late) & set(duo.ledger.by_key())


def test_who_waits_in_its_slot_is_served_in_the_same_line(duo: Scene):
    account = duo.batch()
    (first,) = duo.publish("charge", [account + "first"], account, 1.0)
    duo.wait_started([first])
    keys = duo.publish("patient", duo.names(account + "patient", 2), account, 0.0)
    eventually(lambda: parked(duo, f"account:{account}") == 2)
    keys += duo.publish("charge", duo.names(account + "parked", 2), account, 0.0)

    duo.settled([first, *keys])

    assert duo.ledger.overlaps(duo.harms) == []


def test_a_time_limit_while_it_waits_leaves_no_ghost_in_the_line(duo: Scene):
    # Given a task that waits in its slot for a lock
    account = duo.batch()
    (first,) = duo.publish("charge", [account + "first"], account, 3.0)
    duo.wait_started([first])
    late = duo.publish("impatient", [account + "late"], account)
    eventually(lambda: parked(duo, f"account:{account}") == 1)
    # When its time is over
    eventually(lambda: parked(duo, f"account:{account}") == 0)
    # Then the lock is for others
    others = duo.publish("charge", duo.names(account, 2), account, 0.0)
    duo.settled([first, *others])
    assert not set(late) & set(duo.ledger.by_key())


def test_several_locks_are_taken_all_or_none_and_nobody_starves(duo: Scene):
    a, b, c = (duo.batch() + name for name in "abc")
    pairs = [(a, b), (b, c), (c, a), (b, a), (c, b), (a, c)] * 3
    keys = []
    for number, (payer, payee) in enumerate(pairs):
        keys += duo.publish("transfer", [f"{a}{number}"], payer, payee, 0.01)

    duo.settled(keys)


def test_as_many_run_at_a_time_as_the_limit_says(duo: Scene):
    name = duo.batch()
    keys = duo.publish("pair", duo.names(name, 10), name, 0.1)

    duo.settled(keys)

    edges = sorted(edge for run in duo.ledger.runs() if run.key in keys for edge in ((run.start, 1), (run.end, -1)))
    inside, most = 0, 0
    for _, step in edges:
        inside += step
        most = max(most, inside)
    assert most == 2


def test_a_body_whose_lock_is_lost_is_told(duo: Scene):
    name = duo.batch()
    keys = duo.publish("brief", [name + "slow"], name, 20.0)

    eventually(lambda: any(line[:2] == ["told", keys[0]] for line in duo.ledger.lines()))

    more = duo.publish("brief", [name + "next"], name, 0.0)
    eventually(lambda: any(line[:2] == ["end", more[0]] for line in duo.ledger.lines()))


def test_a_body_whose_lock_is_lost_is_killed_and_delivered_again(duo: Scene):
    name = duo.batch()
    keys = duo.publish("doomed", [name], name, 20.0)

    duo.wait_ended(keys)

    first, second = duo.ledger.by_key()[keys[0]]
    assert first.pid != second.pid
    assert len(duo.live) == 2


def test_a_lock_outside_of_tasks_excludes_tasks_and_is_free_when_its_process_dies(duo: Scene):
    # Given a script that holds a lock
    account = duo.batch()
    script = (
        "import sys, time; from tests.support.probe import app\n"
        f"with app.ha.lock('account:{account}', timeout=5) as lock:\n"
        "    print(lock.token, flush=True); time.sleep(600)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PROBE_BROKER": duo.server.url, "PROBE_LEDGER": str(duo.ledger.path), "PROBE_TTL": "3"},
    )
    assert int(holder.stdout.readline()) > 0
    # Then nobody else gets it
    with pytest.raises(LockBusy), duo.probe.app.ha.lock(f"account:{account}", timeout=0):
        pass
    keys = duo.publish("charge", [account + "task"], account, 0.0)
    eventually(lambda: parked(duo, f"account:{account}") == 1)
    # Until the script is killed
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    duo.settled(keys)
    duo.probe.app.ha.tenant.close()
