"""Several real beats are one: every tick fires once, whoever of them dies, and wherever."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from celery import Celery

from celery_ha import HA
from celery_ha.beat import Scheduler
from celery_ha.errors import ConfigError
from celery_ha.store.redis.records import dump_firing
from tests.beat.storm import storm
from tests.support.beats import SCHEDULER, TASK, Beats, every
from tests.support.command import ask_ha, run_ha
from tests.support.fleet import eventually
from tests.support.scene import Scene
from tests.support.server import RedisServer

CRASHING = "tests.support.crashing:Scheduler"
PLAIN = ("-Q", "celery", "-c", "1", "--without-gossip", "--without-mingle")
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
HOUR = 3600.0


@pytest.fixture
def stage(make_scene: Callable[..., Scene]) -> Iterator[Callable[..., Beats]]:
    """A scene with one worker; its beats leave before it is searched for leaks."""
    made: list[Beats] = []

    def make(seconds: float = 1.0, *, workers: int = 1, ttl: float = 2.0, server=None, **conf: object) -> Beats:
        scene = make_scene(server, ttl=ttl, options=PLAIN, **every(seconds, **conf))
        if workers:
            scene.start(workers)
        made.append(Beats(scene))
        return made[-1]

    yield make
    for troupe in made:
        for beat in troupe.beats:
            if beat.alive:
                beat.send(signal.SIGTERM)
                beat.process.wait(30)


def test_no_tick_is_lost_or_doubled_when_beats_are_killed_and_frozen(redis_server: RedisServer, tmp_path: Path):
    outcome = storm(4, 20, redis_server, tmp_path, ttl=2.0)

    assert outcome.held, outcome
    assert max(outcome.after_kill) < 3.0


def test_no_tick_is_lost_or_doubled_when_the_store_restarts(start_redis: Callable[..., RedisServer], stage):
    server = start_redis(*DURABLE)
    troupe = stage(server=server)
    troupe.start(2)
    troupe.wait_fired(2)

    server.stop()
    server.start()

    troupe.wait_fired(3)
    assert troupe.faults(1.0) == []
    assert all(beat.alive for beat in troupe.beats)


@pytest.mark.parametrize("point", ["claimed", "sent"])
def test_a_beat_that_dies_at_a_firing_leaves_it_to_the_next(stage, point: str):
    # Given a beat that dies at its first firing, and one that waits
    troupe = stage()
    (dying,) = troupe.start(1, CRASHING, CRASH_AT=point)
    assert troupe.leader() is dying
    troupe.start()
    # When it has died
    dying.process.wait(30)
    troupe.wait_fired(2)
    # Then its firing runs once, and is the first of an unbroken row
    assert troupe.firings()[0].by == dying.name
    assert troupe.faults(1.0) == []
    assert troupe.runs()[troupe.task_id(troupe.firings()[0])] == 1


def test_a_beat_that_is_told_to_stop_hands_its_office_on_at_once(stage):
    troupe = stage()
    troupe.start(2)
    troupe.wait_in_line()
    first = troupe.leader()
    troupe.wait_fired(2)

    first.send(signal.SIGTERM)
    first.process.wait(30)

    assert troupe.leader() is not first
    troupe.wait_fired(2)
    assert troupe.faults(1.0) == []
    assert troupe.scene.history() == [], "nobody had to be given up"


def test_beats_with_wrong_clocks_neither_repeat_nor_skip(stage):
    troupe = stage()
    for skew in ("1.7", "-1.2", "0.4"):
        troupe.start(1, "tests.support.skewed:Scheduler", SKEW=skew)
        troupe.wait_in_line()  # so that their order in the line is this one
    for _ in range(2):
        victim = troupe.leader()
        troupe.wait_fired(2, by=victim.name)
        victim.send(signal.SIGKILL)
        victim.process.wait(30)
    troupe.wait_fired(2, by=troupe.leader().name)

    assert troupe.faults(1.0) == []


@pytest.mark.parametrize(("catch_up", "count"), [("one", 1), ("all", 6), ("none", 0)])
def test_what_was_missed_while_no_beat_ran_is_caught_up_as_told(stage, catch_up: str, count: int):
    # Given an entry that fires every ten minutes, and no beat for an hour
    troupe = stage(600.0, ha_beat_catch_up=catch_up)
    (beat,) = troupe.start()
    met = eventually(lambda: troupe.scene.hash("beat").get(b"tick"), why="the entry is known")
    beat.send(signal.SIGTERM)
    beat.process.wait(30)
    record = json.loads(met)
    record["due"] -= HOUR + 30
    record["next"] = record["due"] + 600.0
    troupe.scene.redis.hset("_ha:beat", "tick", json.dumps(record, separators=(",", ":")))
    # When there is one again
    troupe.start()
    eventually(lambda: troupe.entry("tick").next > time.time(), why="it goes on")
    entry = troupe.entry("tick")
    # Then what it missed came as often as told, and the next is to come
    assert entry.count == count
    assert entry.next - time.time() <= 600.0
    eventually(lambda: sum(troupe.runs().values()) == count)
    assert len(troupe.firings()) == count


def test_a_broker_that_is_away_costs_no_tick(start_redis: Callable[..., RedisServer], stage):
    # Given a store of its own, which stays
    broker, store = start_redis(*DURABLE), start_redis()
    troupe = stage(server=broker, ha_store=store.url)
    troupe.start(2)
    troupe.wait_fired(2)

    broker.stop()
    troupe.wait_fired(1)  # claimed, but where could it be sent
    broker.start()

    troupe.wait_fired(3)
    assert troupe.faults(1.0) == []


def test_embedded_beats_of_two_workers_are_one(stage):
    troupe = stage(workers=0)
    workers = troupe.scene.start(2, *PLAIN, "-B")
    eventually(lambda: len(troupe.look().beats) == 2, why="two embedded beats")
    troupe.wait_fired(2)

    leader = eventually(lambda: troupe.look().leader)
    embedded = psutil.Process(int(leader.partition("@")[0].rpartition("-")[2]))
    (worker,) = [worker for worker in workers if worker.pid == embedded.ppid()]
    worker.send(signal.SIGKILL)
    worker.process.wait(30)

    eventually(lambda: not embedded.is_running(), why="the beat ends with its worker")
    eventually(lambda: troupe.look().leader not in {None, leader}, why="the other one is in office")
    troupe.wait_fired(3)
    assert troupe.faults(1.0) == []

    (last,) = troupe.scene.live
    last.send(signal.SIGTERM)
    eventually(lambda: troupe.scene.nodes() == [], why="worker and beat close their leases")


def test_a_schedule_of_another_class_keeps_its_own_memory(stage, tmp_path: Path):
    troupe = stage(1.0, ha_beat_scheduler="celery.beat:PersistentScheduler")
    file = tmp_path / "schedule"
    beat = troupe.scene.fleet.launch("beat", "beat", "-S", SCHEDULER, "-s", str(file))
    troupe.beats.append(beat)

    troupe.wait_fired(3)

    assert troupe.faults(1.0) == []
    beat.send(signal.SIGTERM)
    beat.process.wait(30)
    assert list(tmp_path.glob("schedule*"))


def test_the_overview_tells_entries_leader_and_history(stage):
    troupe = stage()
    troupe.start(2)
    troupe.wait_in_line()
    troupe.wait_fired(2)

    found = troupe.look()

    assert found.leader == troupe.leader().name
    assert set(found.beats) == {beat.name for beat in troupe.beats}
    entry = troupe.entry("tick")
    assert entry.next - entry.last == pytest.approx(1.0)
    assert [past.number for _, past in found.history] == list(range(len(found.history), 0, -1))
    assert dump_firing(found.history[0][1])


def test_the_command_shows_what_the_overview_tells(stage):
    troupe = stage()
    app = troupe.scene.probe.app
    assert ask_ha(app, "beat") == {"leader": None, "beats": [], "entries": [], "history": []}
    troupe.start(2)
    troupe.wait_in_line()
    troupe.wait_fired(2)

    found = ask_ha(app, "beat")

    assert found["leader"] == troupe.leader().name
    assert set(found["beats"]) == {beat.name for beat in troupe.beats}
    entry = next(entry for entry in found["entries"] if entry["name"] == "tick")
    assert entry["next"] - entry["last"] == pytest.approx(1.0)
    numbers = [past["number"] for past in found["history"]]
    assert numbers == list(range(len(numbers), 0, -1))
    assert {(past["entry"], past["by"]) for past in found["history"]} == {("tick", found["leader"])}
    assert len(ask_ha(app, "beat", "--limit", "1")["history"]) == 1
    said = run_ha(app, "beat").stdout
    assert "@beat" not in {queue["queue"] for queue in ask_ha(app, "status")["queues"]}
    assert f"in office: {found['leader']}" in said
    assert "tick" in said
    assert run_ha(app, "beat", "--limit", "none").exit_code == 2


def test_entries_that_left_the_schedule_are_forgotten(stage):
    troupe = stage()
    (beat,) = troupe.start()
    troupe.wait_fired(1)
    beat.send(signal.SIGTERM)
    beat.process.wait(30)

    troupe.start(PROBE_CONF=json.dumps({"beat_schedule": {"other": {"task": TASK, "schedule": 1.0}}}))

    eventually(lambda: troupe.entry("other"))
    assert troupe.entry("tick") is None


def test_an_app_without_ha_is_told_what_to_write():
    with pytest.raises(ConfigError, match="needs HA"):
        Scheduler(Celery("bare", set_as_current=False))


def test_a_scheduler_that_cannot_be_imported_is_named():
    app = Celery("odd", broker="redis://localhost:1/0", set_as_current=False)
    app.conf.ha_beat_scheduler = "no.such:Class"
    HA(app)
    with pytest.raises(ConfigError, match=r"no\.such:Class"):
        Scheduler(app, lazy=True)
