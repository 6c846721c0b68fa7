"""One message under way for each key, with Celery's own publisher and tracer and the store in memory."""

from __future__ import annotations

import datetime as dt
import threading
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from uuid import UUID

import pytest
from celery import Celery, _state, chain, chord, group
from celery.app.trace import build_tracer
from celery.beat import ScheduleEntry, Scheduler
from celery.exceptions import Ignore
from celery.schedules import schedule
from kombu.exceptions import OperationalError

from celery_ha import HA, locked_task, unique_task
from celery_ha.errors import ConfigError, KeyRefused, StoreUnavailable
from celery_ha.locks import publish
from celery_ha.locks.unique import HEADER
from celery_ha.model import Holder, Node
from celery_ha.store.memory import MemoryServer, MemoryStore
from celery_ha.worker import outcome

pytestmark = pytest.mark.unit


class Colour(Enum):
    RED = "red"


class World:
    """An app whose messages are noted instead of sent, and whose store is in memory."""

    def __init__(self):
        self.clock = 1000.0
        self.server = MemoryServer(lambda: self.clock)
        self.app = Celery("unique", broker="memory://", backend="cache+memory://", set_as_current=False)
        self.app.conf.ha_publish_within = 30.0
        self.app.conf.task_always_eager = False
        HA(self.app)
        self.app.ha.__dict__["_store"] = MemoryStore(self.server)
        self.sent = []
        self.broken = None
        self.app.amqp.__dict__["send_task_message"] = self._send

    def _send(self, producer, name, message, **options):
        if self.broken is not None:
            raise self.broken
        headers = {**message.headers, **(options.get("headers") or {})}
        args, kwargs, embedded = message.body
        self.sent.append({"args": args, "kwargs": kwargs, **embedded, **headers})

    def run(self, task, message):
        """Run a message as a worker's child does; returns (state, result)."""
        tracer = build_tracer(task.name, task, app=self.app)
        request = {
            **message,
            "properties": {"delivery_tag": "lease.1"},
            "delivery_info": {"routing_key": "celery"},
            "is_eager": False,
        }
        outcome = tracer(message["id"], message["args"], message["kwargs"], request)
        return ("SUCCESS", outcome.retval) if outcome.info is None else (outcome.info.state, outcome.info.retval)

    @property
    def keys(self):
        return {key: held.task for key, held in self.server.memory.uniques.items()}


@pytest.fixture
def world(monkeypatch):
    # Celery offers an app's tasks to every later app of the process: not to the next test's.
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
    return World()


@pytest.fixture
def report(world):
    @world.app.task(name="report")
    @unique_task("{report_id}:{scope}")
    def report(report_id, scope="all"):
        return sorted(world.keys)

    return report


# Publishing.


def test_a_duplicate_returns_the_result_of_the_first_and_publishes_nothing(world, report):
    first = report.delay(1)

    assert report.delay(1).id == first.id
    assert [message["id"] for message in world.sent] == [first.id]
    assert report.delay(2).id != first.id


@pytest.mark.parametrize(
    "again",
    [
        lambda app, task: task.apply_async((1,)),
        lambda app, task: task.apply_async(kwargs={"scope": "all", "report_id": 1}, countdown=10),
        lambda app, task: task.s(1).apply_async(),
        lambda app, task: task.si(1, "all").delay(),
        lambda app, task: app.signature("report", (1,)).delay(),
        lambda app, task: app.send_task("report", (1,)),
        lambda app, task: app.send_task(name="report", kwargs={"report_id": 1}),
        lambda app, task: app.send_task("report", (1,), {}, 5),
        lambda app, task: app.send_task("report", (1,), task_id="mine"),
        lambda app, task: Scheduler(app=app, lazy=True).apply_async(
            ScheduleEntry("e", "report", schedule=schedule(1), args=(1,), app=app), advance=False
        ),
    ],
)
def test_every_way_to_publish_finds_the_first(world, report, again):
    first = report.delay(1)

    assert again(world.app, report).id == first.id
    assert len(world.sent) == 1


def test_a_call_by_name_that_says_its_key_needs_no_task(world):
    first = world.app.send_task("elsewhere", ("anything",), ha_unique="k")

    assert world.app.send_task("elsewhere", ("other",), ha_unique="k").id == first.id
    assert world.sent[0][HEADER] == "elsewhere:k"


def test_a_call_that_says_no_key_is_published_as_ever(world):
    ids = {world.app.send_task("elsewhere", ha_unique=None).id for _ in range(2)}

    assert len(ids) == len(world.sent) == 2
    assert HEADER not in world.sent[0]


@pytest.mark.parametrize("key", [5, ["a"], "x" * 1020])
def test_a_key_that_is_said_and_is_none_is_refused(world, key):
    with pytest.raises(KeyRefused, match=r"elsewhere|as text"):
        world.app.send_task("elsewhere", ha_unique=key)
    assert world.sent == []


def test_keys_of_different_tasks_never_meet(world, report):
    @world.app.task(name="other")
    @unique_task("{report_id}:{scope}")
    def other(report_id, scope="all"): ...

    assert report.delay(1).id != other.delay(1).id


def test_other_tasks_are_published_as_ever(world):
    @world.app.task
    def plain(x): ...

    assert plain.delay(1).id != plain.delay(1).id
    assert HEADER not in world.sent[0]
    assert world.keys == {}


def test_members_of_a_group_a_chain_or_a_chord_are_published_though_another_is_under_way(world, report):
    @world.app.task(name="after")
    def after(*results): ...

    first = report.delay(1)

    group(report.si(1), report.si(1)).delay()
    chain(report.si(1), after.s()).delay()
    chord([report.si(1), report.si(1)], after.s()).delay()

    assert sum(message["task"] == "report" for message in world.sent) == 6
    assert world.keys == {"report:1:all": first.id}


def test_the_last_step_of_a_chain_is_published_though_another_is_under_way(world, report):
    @world.app.task(name="before")
    def before(): ...

    report.delay(1)
    result = chain(before.si(), report.si(1)).delay()
    world.run(before, world.sent[1])

    assert world.sent[-1]["id"] == result.id


def test_a_task_in_a_chain_has_the_key_of_a_direct_call(world, report):
    @world.app.task(name="before")
    def before():
        return 1

    chain(before.s(), report.s(scope="all")).delay()
    world.run(before, world.sent[0])

    assert world.sent[-1][HEADER] == "report:1:all"
    assert report.delay(1).id == world.sent[-1]["id"]


def test_eager_and_plain_calls_take_no_key(world, report):
    assert report(1) == report.apply((1,)).get() == []
    world.app.conf.task_always_eager = True
    assert report.delay(1).get() == []


def test_arguments_that_do_not_fit_are_left_to_the_worker(world, report):
    world.app.send_task("report", (1, 2, 3, 4))

    assert HEADER not in world.sent[0]


# Failing to publish.


def test_a_key_whose_publish_failed_is_free(world, report):
    world.broken = OperationalError("no broker")
    with pytest.raises(OperationalError):
        report.delay(1)

    assert world.keys == {}
    world.broken = None
    assert report.delay(1).id == world.sent[0]["id"]


def test_the_key_of_one_under_way_survives_a_failing_publish_of_the_same_id(world, report):
    first = report.delay(1)
    world.broken = OperationalError("no broker")
    with pytest.raises(OperationalError):
        report.apply_async((1,), task_id=first.id)

    assert world.keys == {"report:1:all": first.id}


def test_a_key_whose_publisher_died_is_waited_for_rather_than_trusted(world, report, monkeypatch):
    # Given a publisher that died between the reservation and its message
    world.app.ha.uniques.claim_key("report:1:all", "phantom", 30.0)
    # When another publishes, and the reservation runs out while it waits
    monkeypatch.setattr(publish, "sleep", lambda seconds: setattr(world, "clock", world.clock + 10))
    second = report.delay(1)
    # Then it has published a message of its own
    assert [message["id"] for message in world.sent] == [second.id]
    assert second.id != "phantom"


def test_a_duplicate_waits_until_the_first_is_published(world, report, monkeypatch):
    world.app.ha.uniques.claim_key("report:1:all", "first", 30.0)
    monkeypatch.setattr(
        publish, "sleep", lambda seconds: world.app.ha.uniques.keep_key("report:1:all", "first", 3600.0)
    )

    assert report.delay(1).id == "first"
    assert world.sent == []


def test_a_call_whose_reservation_was_not_answered_can_be_made_again(world, report, monkeypatch):
    # Given a call that was refused, although its key was reserved
    world.app.ha.store.lose_next_reply = True
    with pytest.raises(StoreUnavailable):
        report.delay(1)
    # When it is made again, then it waits for the reservation to run out, and publishes
    monkeypatch.setattr(publish, "sleep", lambda seconds: setattr(world, "clock", world.clock + 10))
    assert report.delay(1).id == world.sent[0]["id"]


def test_two_that_publish_at_once_publish_once(world, report):
    barrier, ids = threading.Barrier(4), []

    def publish_one():
        barrier.wait()
        ids.append(report.delay(1).id)

    threads = [threading.Thread(target=publish_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(world.sent) == len(set(ids)) == 1


def test_a_key_is_kept_for_its_ttl_once_it_is_published(world):
    @world.app.task
    @unique_task("x", ttl=100.0)
    def task(): ...

    first = task.delay()
    world.clock += 99
    assert task.delay().id == first.id
    world.clock += 2
    assert task.delay().id != first.id


def test_a_store_that_is_down_refuses_the_call(world, report):
    world.server.down = True

    with pytest.raises(StoreUnavailable):
        report.delay(1)
    assert world.sent == []


def test_a_task_that_prefers_a_duplicate_is_published_while_the_store_is_down(world):
    @world.app.task
    @unique_task("x", on_store_down="publish")
    def task(): ...

    world.server.down = True
    task.delay()

    assert world.sent[0][HEADER].endswith(":x")


@pytest.mark.parametrize(
    "arguments",
    [{"key": 5}, {"key": "x", "until": "later"}, {"key": "x", "ttl": 0}, {"key": "x", "on_store_down": "wait"}],
)
def test_what_cannot_be_used_is_refused_where_it_is_written(arguments):
    with pytest.raises(ConfigError, match="unique_task"):
        unique_task(**arguments)(lambda: None)


# The end.


def test_the_key_is_free_once_the_task_has_finished(world, report):
    first = report.delay(1)

    assert world.run(report, world.sent[0]) == ("SUCCESS", ["report:1:all"])
    assert world.keys == {}
    assert report.delay(1).id != first.id


def test_until_started_the_body_may_publish_its_successor(world):
    @world.app.task
    @unique_task("x", until="started")
    def task():
        return dict(world.keys), task.delay().id

    first = task.delay()
    _, (keys, second) = world.run(task, world.sent[0])

    assert keys == {}
    assert second != first.id
    assert list(world.keys.values()) == [second]


def test_until_started_waits_for_the_locks_further_out(world):
    @world.app.task(name="locked")
    @locked_task("account")
    @unique_task("x", until="started")
    def task():
        return dict(world.keys)

    # Given a task whose lock is busy
    store = world.app.ha.store
    store.leases.open(Node("lease", "w@host"))
    other = Holder("lease", "lease.99", "other")
    token = store.locks.acquire("account", other, inherit=0).token
    first = task.delay()
    # When it is given back, then it has not started
    assert world.run(task, world.sent[0])[0] == "REJECTED"
    assert world.keys == {"locked:x": first.id}
    store.locks.release("account", other, token)
    assert world.run(task, world.sent[0]) == ("SUCCESS", {})


def test_a_zombie_frees_no_key_of_its_redelivery_and_tells_no_outcome(world, report):
    @world.app.task
    def plain(): ...

    # Given tasks whose messages run elsewhere by now, under the same ids
    ha = world.app.ha
    ha.node = SimpleNamespace(page=SimpleNamespace(trusts=lambda lease: False))
    ha.confirm = lambda lease, claim: False
    results = report.delay(1), plain.delay()
    # When they wake up and come to their end
    for task, message in zip((report, plain), list(world.sent), strict=True):
        with pytest.warns(RuntimeWarning, match="Fenced"):
            world.run(task, message)
    # Then the key stays, and nobody hears of a failure
    assert world.keys == {"report:1:all": results[0].id}
    assert [result.state for result in results] == ["PENDING", "PENDING"]


def test_a_store_that_is_away_at_the_end_is_asked_again(world, monkeypatch):
    @world.app.task
    @unique_task("x")
    def task():
        world.server.down = True

    monkeypatch.setattr(outcome, "sleep", lambda seconds: setattr(world.server, "down", False))
    task.delay()

    assert world.run(task, world.sent[0])[0] == "SUCCESS"
    assert world.keys == {}


def test_a_store_that_stays_away_fails_no_finished_task(world, monkeypatch, caplog):
    @world.app.task
    @unique_task("x")
    def task():
        world.server.down = True

    monkeypatch.setattr(outcome, "FREE_WITHIN", -1.0)
    task.delay()

    assert world.run(task, world.sent[0])[0] == "SUCCESS"
    assert [record for record in caplog.records if "stays until its ttl" in record.message]


def test_a_task_that_fails_frees_its_key(world):
    @world.app.task
    @unique_task("x")
    def task():
        raise ZeroDivisionError

    task.delay()

    assert world.run(task, world.sent[0])[0] == "FAILURE"
    assert world.keys == {}


def test_the_key_is_free_before_the_outcome_can_be_read(world, report):
    seen = []
    store_result = world.app.backend.store_result
    world.app.backend.store_result = lambda *args, **kwargs: (
        seen.append(dict(world.keys)),
        store_result(*args, **kwargs),
    )

    report.delay(1)
    world.run(report, world.sent[0])

    assert seen == [{}]


def test_a_retry_passes_and_keeps_the_key_until_it_has_come_to_an_end(world):
    @world.app.task(bind=True)
    @unique_task("{x}")
    def task(self, x):
        if not self.request.retries:
            raise self.retry(countdown=1)

    first = task.delay(1)
    assert world.run(task, world.sent[0])[0] == "RETRY"
    assert task.delay(1).id == first.id
    assert [message["id"] for message in world.sent] == [first.id, first.id]
    assert world.run(task, world.sent[1])[0] == "SUCCESS"
    assert world.keys == {}


@pytest.mark.parametrize("bind", [True, False])
def test_an_automatic_retry_keeps_the_key(world, bind):
    def plain(x):
        raise OSError

    def bound(self, x):
        raise OSError

    function = bound if bind else plain
    task = world.app.task(name="auto", bind=bind, autoretry_for=(OSError,), max_retries=1, retry_jitter=False)(
        unique_task("{x}")(function)
    )

    first = task.delay(1)
    assert first.id == task.delay(x=1).id
    assert world.run(task, world.sent[0])[0] == "RETRY"
    assert world.keys == {"auto:1": first.id}
    assert world.run(task, world.sent[1])[0] == "FAILURE"
    assert world.keys == {}


def test_a_retry_that_does_not_throw_keeps_the_key(world):
    @world.app.task(bind=True, name="quiet")
    @unique_task("x")
    def task(self):
        self.retry(throw=False)

    first = task.delay()

    assert world.run(task, world.sent[0])[0] == "SUCCESS"
    assert world.keys == {"quiet:x": first.id}


def test_a_retry_with_other_arguments_moves_to_their_key(world):
    @world.app.task(bind=True, name="moving")
    @unique_task("{x}")
    def task(self, x):
        raise self.retry(args=(x + 1,))

    first = task.delay(1)
    world.run(task, world.sent[0])

    assert world.keys == {"moving:2": first.id}


def test_a_retry_whose_key_somebody_else_has_by_now_passes_and_frees_nothing(world):
    @world.app.task(bind=True, name="late")
    @unique_task("x", ttl=10.0)
    def task(self):
        if not self.request.retries:
            world.clock += 11
            task.delay()
            raise self.retry()

    task.delay()
    world.run(task, world.sent[0])
    _, second, retry = world.sent

    assert retry["id"] == world.sent[0]["id"] != second["id"]
    world.run(task, retry)
    assert world.keys == {"late:x": second["id"]}


def test_a_redelivery_runs_and_frees(world, report):
    report.delay(1)
    world.run(report, world.sent[0])
    world.run(report, world.sent[0])

    assert world.keys == {}


def test_a_task_that_waited_long_takes_its_key_again_when_it_starts(world):
    @world.app.task(name="slow")
    @unique_task("x", ttl=10.0)
    def task():
        world.clock += 9
        return dict(world.keys)

    first = task.delay()
    world.clock += 11

    assert world.run(task, world.sent[0]) == ("SUCCESS", {"slow:x": first.id})


def test_a_store_that_is_down_at_the_start_stops_no_task(world, caplog):
    @world.app.task(name="x")
    @unique_task("x")
    def task():
        world.server.down = False
        return "ran"

    task.delay()
    world.server.down = True

    assert world.run(task, world.sent[0]) == ("SUCCESS", "ran")
    assert [record for record in caplog.records if "its key" in record.message]
    assert world.keys == {}


def test_a_task_that_calls_a_unique_one_like_a_function_leaves_its_key_alone(world, report):
    @world.app.task
    @unique_task("outer")
    def outer():
        return report(1)

    outer.delay()
    report.delay(1)
    state, keys = world.run(outer, world.sent[0])

    assert state == "SUCCESS"
    assert len(keys) == 2
    assert list(world.keys) == ["report:1:all"]


def test_an_ignored_task_tells_no_outcome_and_is_left_to_the_gate(world):
    @world.app.task
    @unique_task("x")
    def task():
        raise Ignore

    task.delay()

    assert world.run(task, world.sent[0])[0] == "IGNORED"
    assert len(world.keys) == 1


# Keys.


@pytest.mark.parametrize(
    "value",
    [
        Decimal("1.50"),
        UUID(int=1),
        dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc),
        dt.date(2026, 1, 2),
        Colour.RED,
        {"b": [1], "a": None},
        (1, 2),
        "käse",
        7,
    ],
)
def test_a_value_has_the_same_key_however_it_is_passed(world, report, value):
    first = report.delay(value)

    assert report.delay(report_id=value).id == first.id
    assert report.delay(value, "all").id == first.id
    assert report.delay(dict(reversed(value.items())) if isinstance(value, dict) else value).id == first.id
    assert len(world.sent) == 1


class Plain:
    pass


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Plain(),
        {Plain()},
        [Plain()],
        {"a": Plain()},
        (n for n in ()),
        print,
        lambda: None,
        b"x",
        repr(Plain()),
        str(Plain().__init__),
        str(n for n in ()),
        str(lambda: None),
    ],
)
def test_a_value_without_a_stable_form_is_refused_when_it_is_published_by_its_name(world, report, value):
    with pytest.raises(KeyRefused, match="argument 'report_id'"):
        report.delay(value)
    assert world.sent == []


@pytest.mark.parametrize("source", [lambda x: f"{x}", lambda x: x, lambda x: None])
def test_a_callable_without_a_stable_answer_is_refused_when_it_is_published(world, source):
    @world.app.task
    @unique_task(source)
    def task(x): ...

    with pytest.raises(KeyRefused, match="unique_task"):
        task.delay(Plain())


def test_a_name_beyond_1_kb_is_refused_and_told_what_to_write(world, report):
    report.delay("ä" * 500)
    with pytest.raises(KeyRefused, match=r"sha256.*hexdigest"):
        report.delay("ä" * 513)
    with pytest.raises(KeyRefused, match="Unicode"):
        report.delay("caf\udce9")
    assert len(world.sent) == 1


def test_a_lock_outside_of_tasks_has_no_longer_name(world):
    with pytest.raises(KeyRefused, match="1025 bytes"), world.app.ha.lock("x" * 1025):
        pass
