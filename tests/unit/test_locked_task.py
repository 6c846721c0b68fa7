"""The decorator's decisions, with Celery's own tracer and the store in memory."""

from __future__ import annotations

import inspect
import pickle
import threading
import time
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.app.trace import build_tracer

from celery_ha.errors import ConfigError, KeyRefused, LockBusy, LockLost
from celery_ha.locks import Busy, Lock, current_lock, locked_task, watch
from celery_ha.model import Holder, Node
from celery_ha.store.memory import MemoryServer, MemoryStore
from celery_ha.telling.teller import Teller

pytestmark = pytest.mark.unit


class World:
    """An app with celery_ha as far as locks need it, and a node with an open lease."""

    def __init__(self):
        self.clock = 1000.0
        self.server = MemoryServer(lambda: self.clock)
        self.store = MemoryStore(self.server)
        self.store.leases.open(Node("lease", "w@host"))
        self.app = Celery("locks", backend="cache+memory://", set_as_current=False)
        self.app.conf.task_acks_late = True
        self.lost = set()
        self.app.ha = SimpleNamespace(
            locks=self.store.locks,
            config=SimpleNamespace(lock_inherit=60.0),
            has_lost=self.lost.__contains__,
            teller=Teller(),
        )

    def run(self, task, *args, claim="lease.1", task_id="t1", **kwargs):
        """Run a task as a worker's child does; returns (state, result)."""
        tracer = build_tracer(task.name, task, app=self.app)
        request = {"id": task_id, "properties": {"delivery_tag": claim}, "is_eager": False}
        outcome = tracer(task_id, args, kwargs, request)
        info = outcome.info
        if info is None:
            return "SUCCESS", outcome.retval
        return info.state, info.retval

    def hold(self, name, task="other", claim="lease.99"):
        grant = self.store.locks.acquire(name, Holder("lease", claim, task), inherit=60)
        assert grant.token is not None

    @property
    def locked(self):
        return {name for name, _ in self.server.memory.locks}


@pytest.fixture
def world():
    return World()


@pytest.fixture
def charge(world):
    @world.app.task
    @locked_task("account:{account_id}")
    def charge(order_id, account_id=7, *, note=""):
        return sorted(world.locked)

    return charge


def test_the_lock_is_held_while_the_body_runs_and_free_afterwards(world, charge):
    assert world.run(charge, 1, 42) == ("SUCCESS", ["account:42"])
    assert world.locked == set()


@pytest.mark.parametrize(
    ("args", "kwargs"), [((1, 7), {}), ((1,), {"account_id": 7}), ((), {"order_id": 1, "account_id": 7}), ((1,), {})]
)
def test_positional_keyword_and_default_arguments_lock_the_same(world, charge, args, kwargs):
    assert world.run(charge, *args, **kwargs) == ("SUCCESS", ["account:7"])


def test_a_bound_task_is_no_argument(world):
    @world.app.task(bind=True)
    @locked_task("{x}")
    def template(self, x):
        return self.name, sorted(world.locked)

    @world.app.task(bind=True)
    @locked_task(lambda x: f"called:{x}")
    def function(self, x):
        return sorted(world.locked)

    assert world.run(template, 3) == ("SUCCESS", (template.name, ["3"]))
    assert world.run(function, 3) == ("SUCCESS", ["called:3"])


def test_a_callable_takes_what_the_task_takes(world):
    @world.app.task
    @locked_task(lambda a, b=2, **rest: (a, b, rest["c"]))
    def task(a, b=2, **rest):
        return sorted(world.locked)

    one = world.run(task, 1, c=3)
    two = world.run(task, a=1, b=2, c=3)

    assert one == two
    assert one[0] == "SUCCESS"


def test_arguments_collected_by_name_can_be_in_the_key(world):
    @world.app.task
    @locked_task("{c}")
    def task(**rest):
        return sorted(world.locked)

    assert world.run(task, c=3) == ("SUCCESS", ["3"])


def test_a_template_without_braces_is_one_lock_for_all_calls(world):
    @world.app.task
    @locked_task("nightly")
    def task(x):
        return sorted(world.locked)

    assert world.run(task, 1) == world.run(task, 2) == ("SUCCESS", ["nightly"])


def test_a_namespaced_lock_is_the_functions_own(world):
    @world.app.task
    @locked_task("{x}", namespaced=True)
    def task(x):
        return sorted(world.locked)

    _, (name,) = world.run(task, 1)
    assert name.startswith(__name__)
    assert name.endswith("task:1")


def test_the_signature_of_the_body_is_kept(charge):
    assert list(inspect.signature(charge.run).parameters) == ["order_id", "account_id", "note"]


def test_a_key_without_a_stable_form_fails_the_task(world, charge):
    state, error = world.run(charge, 1, object())

    assert state == "FAILURE"
    assert isinstance(error, KeyRefused)
    assert world.locked == set()


@pytest.mark.parametrize("account", [{object()}, (n for n in ()), f"of {object()}", "x" * 1100])
def test_a_key_that_no_other_process_could_find_or_keep_fails_the_task(world, charge, account):
    state, error = world.run(charge, 1, account)

    assert (state, type(error)) == ("FAILURE", KeyRefused)
    assert "'account_id'" in str(error) or "1108 bytes" in str(error)


@pytest.mark.parametrize("bind", [True, False])
def test_an_automatic_retry_changes_neither_the_name_of_the_lock_nor_what_busy_does(world, bind):
    def plain(x, scope="all"):
        return sorted(world.locked)

    def bound(self, x, scope="all"):
        return sorted(world.locked)

    task = world.app.task(name=f"auto{bind}", bind=bind, autoretry_for=(Exception,))(
        locked_task("{x}:{scope}")(bound if bind else plain)
    )

    assert world.run(task, 1) == world.run(task, x=1) == world.run(task, 1, "all") == ("SUCCESS", ["1:all"])
    world.hold("1:all")
    state, busy = world.run(task, 1)
    assert (state, type(busy)) == ("REJECTED", Busy)


def test_a_callable_that_gives_no_key_fails_the_task(world):
    @world.app.task
    @locked_task(lambda: None)
    def task():
        raise AssertionError

    assert isinstance(world.run(task)[1], KeyRefused)


def test_a_failing_body_frees_its_lock(world):
    @world.app.task
    @locked_task("x")
    def task():
        raise ZeroDivisionError

    assert world.run(task)[0] == "FAILURE"
    assert world.locked == set()


def test_a_busy_lock_gives_the_message_back(world, charge):
    world.hold("account:7")

    state, busy = world.run(charge, 1)

    assert state == "REJECTED"
    assert isinstance(busy, Busy)
    assert (busy.requeue, busy.lock) == (True, "account:7")
    assert "held by task other" in busy.reason


def test_a_busy_lock_survives_the_way_from_the_child():
    busy = pickle.loads(pickle.dumps(Busy("x", "why")))

    assert (busy.lock, busy.reason, busy.requeue) == ("x", "why", True)


def test_skip_ignores_a_task_whose_lock_is_busy(world):
    @world.app.task
    @locked_task("x", on_busy="skip")
    def task():
        raise AssertionError

    world.hold("x")

    assert world.run(task)[0] == "IGNORED"


def test_raise_fails_a_task_whose_lock_is_busy(world):
    @world.app.task
    @locked_task("x", on_busy="raise")
    def task():
        raise AssertionError

    world.hold("x")

    assert isinstance(world.run(task)[1], LockBusy)


@pytest.mark.parametrize("on_busy", ["requeue", "skip", "raise"])
def test_nothing_is_skipped_or_failed_while_the_store_is_away(world, on_busy):
    @world.app.task
    @locked_task("x", on_busy=on_busy)
    def task():
        raise AssertionError

    world.server.down = True

    assert world.run(task)[0] == "REJECTED"


@pytest.mark.parametrize("on_busy", ["requeue", "skip", "raise"])
def test_nothing_is_skipped_or_failed_while_nobody_knows_who_holds_what(world, on_busy):
    @world.app.task
    @locked_task("x", on_busy=on_busy)
    def task():
        raise AssertionError

    assert world.run(task, claim="unknown.1")[0] == "REJECTED"


def test_requeue_is_refused_for_a_message_that_is_gone_already(world):
    @world.app.task(acks_late=False)
    @locked_task("x")
    def task():
        raise AssertionError

    state, error = world.run(task)

    assert (state, type(error)) == ("FAILURE", ConfigError)
    assert "acks_late" in str(error)


@pytest.mark.parametrize(
    ("terms", "advice"),
    [
        ({"on_busy": "sometimes"}, "requeue, wait, skip, raise"),
        ({"on_lost": "cry"}, "raise, kill, flag"),
        ({"limit": 0}, "1 or more"),
        ({"limit": True}, "1 or more"),
        ({"max_hold": 0}, "above 0"),
        ({"on_busy": "wait", "timeout": -1}, "above 0"),
        ({"timeout": 5}, "on_busy='wait'"),
    ],
)
def test_terms_that_cannot_be_used_are_refused_where_they_are_written(terms, advice):
    with pytest.raises(ConfigError, match=advice):
        locked_task("x", **terms)


def test_a_lock_without_a_key_is_refused_where_it_is_written():
    with pytest.raises(ConfigError, match="template"):
        locked_task()


def test_several_locks_are_taken_all_or_none(world):
    @world.app.task
    @locked_task("b:{b}", "a:{a}", "a:{b}")
    def task(a, b):
        return sorted(world.locked), current_lock("b:2").name, current_lock().name

    assert world.run(task, 1, 2) == ("SUCCESS", (["a:1", "a:2", "b:2"], "b:2", "b:2"))
    assert world.locked == set()
    world.hold("b:2")
    assert isinstance(world.run(task, 1, 2, claim="lease.2")[1], Busy)
    assert world.locked == {"b:2"}


def test_two_keys_of_one_name_are_one_lock(world):
    @world.app.task
    @locked_task("{a}", "{b}")
    def task(a, b):
        return sorted(world.locked)

    assert world.run(task, 1, 1) == ("SUCCESS", ["1"])


def test_as_many_hold_a_lock_as_the_limit_says(world):
    @world.app.task
    @locked_task("x", limit=2, on_busy="raise")
    def task():
        return len(world.server.memory.locks)

    grants = [world.store.locks.acquire("x", Holder("lease", "lease.90", "other"), inherit=1, limit=2)]
    assert world.run(task) == ("SUCCESS", 2)
    grants.append(world.store.locks.acquire("x", Holder("lease", "lease.91", "more"), inherit=1, limit=2))
    assert all(grant.token for grant in grants)
    assert isinstance(world.run(task, claim="lease.2")[1], LockBusy)


def test_who_waits_too_long_fails(world):
    @world.app.task
    @locked_task("x", on_busy="wait", timeout=0.01)
    def task():
        return "done"

    world.hold("x")
    assert isinstance(world.run(task)[1], LockBusy)
    world.store.locks.ended(("lease.99",))
    assert world.run(task, claim="lease.2") == ("SUCCESS", "done")


def test_a_busy_lock_says_how_many_may_wait_in_its_line(world):
    @world.app.task
    @locked_task("x", limit=3)
    def task():
        pass

    for number in range(3):
        world.store.locks.acquire("x", Holder("lease", f"lease.{90 + number}", "other"), inherit=1, limit=3)

    busy = pickle.loads(pickle.dumps(world.run(task)[1]))

    assert (busy.lock, busy.limit, busy.doubtful) == ("x", 3, False)


@pytest.mark.parametrize("on_lost", ["raise", "kill"])
def test_a_body_whose_lease_is_given_up_is_told(world, on_lost):
    @world.app.task
    @locked_task("x", on_lost=on_lost)
    def task():
        world.lost.add("lease")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.001)

    assert isinstance(world.run(task)[1], LockLost)


def test_a_body_that_only_wants_a_flag_goes_on(world):
    @world.app.task
    @locked_task("x", max_hold=0.001, on_lost="flag")
    def task():
        deadline = time.monotonic() + 60
        while not current_lock().lost and time.monotonic() < deadline:
            time.sleep(0.001)
        return current_lock().lost

    assert world.run(task) == ("SUCCESS", True)


def test_a_body_that_is_over_is_not_told_any_more(world):
    @world.app.task
    @locked_task("x", max_hold=0.05)
    def task():
        return "done"

    assert world.run(task) == ("SUCCESS", "done")
    time.sleep(watch.LOOK_EVERY * 2)


def test_a_key_of_another_kind_is_refused_where_it_is_written():
    with pytest.raises(ConfigError, match="template"):
        locked_task(5)(lambda: None)


def test_a_plain_call_and_an_eager_one_take_no_lock(world, charge):
    world.hold("account:7")

    assert charge(1) == ["account:7"]
    assert charge.apply((1,)).get() == ["account:7"]
    assert current_lock() is None


def test_a_task_called_inside_another_locks_for_the_message_of_the_other(world, charge):
    @world.app.task
    def outer():
        return charge(1, 5), charge.apply((1, 6)).get()

    assert world.run(outer) == ("SUCCESS", (["account:5"], ["account:6"]))
    assert world.locked == set()


def test_the_outermost_of_nested_takers_gives_the_lock_back(world):
    @locked_task("x")
    def helper():
        return current_lock().token

    @world.app.task
    @locked_task("x")
    def task():
        before = current_lock().token
        inner = helper()
        return before == inner, sorted(world.locked)

    assert world.run(task) == ("SUCCESS", (True, ["x"]))
    assert world.locked == set()


def test_another_thread_of_the_same_claim_does_not_give_the_lock_back(world):
    holder = Holder("lease", "lease.1", "t1")
    here = Lock(world.store.locks, "x", holder, inherit=1)
    there = Lock(world.store.locks, "x", holder, inherit=1)
    token = here.acquire().token

    def borrow():
        with there:
            assert there.token == token

    thread = threading.Thread(target=borrow)
    thread.start()
    thread.join()

    here.check()
    assert here.release()


def test_a_holder_that_lost_its_lock_is_told(world, caplog):
    @world.app.task
    @locked_task("x")
    def task():
        current_lock().check()
        del world.server.memory.locks["x", 0]
        with pytest.raises(LockLost, match="stop"):
            current_lock().check()
        return "done"

    assert world.run(task) == ("SUCCESS", "done")
    assert [r for r in caplog.records if "was lost before it was released" in r.message]


def test_a_store_that_is_away_at_the_end_fails_no_finished_task(world, caplog, monkeypatch):
    monkeypatch.setattr("celery_ha.locks.lock.RELEASE_WITHIN", 0.0)
    monkeypatch.setattr("celery_ha.locks.lock.RELEASE_AGAIN", 0.0)

    @world.app.task
    @locked_task("x")
    def task():
        world.server.down = True
        return "done"

    assert world.run(task) == ("SUCCESS", "done")
    assert [r for r in caplog.records if "stays until its lease ends" in r.message]


@pytest.fixture
def held(world):
    lock = Lock(world.store.locks, "x", Holder("lease", "lease.1", "t1"), inherit=0.0)
    assert lock.acquire().token
    return lock


def test_a_release_whose_answer_was_lost_loses_nothing(world, held, monkeypatch):
    monkeypatch.setattr("celery_ha.locks.lock.RELEASE_AGAIN", 0.0)
    world.store.lose_next_reply = True

    assert held.release()
    assert not held.lost
    assert world.locked == set()


def test_a_release_that_arrives_after_the_fence_is_told_of_the_loss(world, held, monkeypatch):
    def fenced_meanwhile(seconds):
        world.server.fence_member("lease", 1, "test")
        world.server.down = False

    monkeypatch.setattr("celery_ha.locks.lock.sleep", fenced_meanwhile)
    world.server.down = True

    assert not held.release()
    assert held.lost


def test_the_next_delivery_takes_the_lock_of_its_dead_predecessor(world, charge):
    dead = MemoryStore(world.server)
    dead.leases.open(Node("dead", "w2@host"))
    old = dead.locks.acquire("account:7", Holder("dead", "dead.1", "t1"), inherit=60)
    dead.leases.close("dead", clean=False)

    assert world.run(charge, 1, task_id="another")[0] == "REJECTED"
    assert world.run(charge, 1, task_id="t1") == ("SUCCESS", ["account:7"])
    assert world.server.memory.token > old.token


def test_a_task_not_claimed_under_a_lease_is_refused_its_lock(world, charge):
    state, error = world.run(charge, 1, claim="17")

    assert (state, type(error)) == ("FAILURE", ConfigError)


def test_an_app_without_celery_ha_is_told_what_to_write(world, charge):
    del world.app.ha

    assert "HA(app)" in str(world.run(charge, 1)[1])


def test_a_lock_that_is_not_held_has_no_token(world):
    lock = Lock(world.store.locks, "x", Holder("lease", "lease.1", "t"), inherit=1)

    with pytest.raises(LockLost):
        lock.token  # noqa: B018
    world.hold("x")
    with pytest.raises(LockBusy, match="held by task other"), lock:
        pass
