"""What a fleet tells of itself: events that any consumer sees, lines in the log, and metrics."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from celery_ha.telling.news import ALWAYS, KINDS
from tests.support.dashboard import dashboard
from tests.support.fleet import Worker, eventually, fleet
from tests.support.scene import PROBE, Scene


class Consumer:
    """Any consumer of Celery's events."""

    def __init__(self, app: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self.ready = threading.Event()
        self._app, self._over = app, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def all(self, kind: str, **fields: object) -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event["type"] == kind and fields.items() <= event.items()]

    def first(self, kind: str, **fields: object) -> dict[str, Any]:
        return eventually(lambda: self.all(kind, **fields), why=f"{kind} {fields}")[0]

    @contextmanager
    def listening(self) -> Iterator[Consumer]:
        self._thread.start()
        assert self.ready.wait(30)
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join(30)

    def _run(self) -> None:
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self.events.append})
            with receiver.consumer_context(wakeup=False) as (events, *_):
                self.ready.set()
                while not self._over.is_set():
                    with suppress(TimeoutError):
                        events.drain_events(timeout=0.2)


@pytest.fixture(scope="module")
def scene(make_module_scene: Callable[..., Scene]) -> Scene:
    """Workers that serve metrics, each on a free port."""
    return make_module_scene(ttl=2.0, PROBE_CONF='{"ha_metrics_port": "127.0.0.1:0"}')


@pytest.fixture
def consumer(scene: Scene) -> Iterator[Consumer]:
    with Consumer(scene.probe.app).listening() as consumer:
        yield consumer


def scraped(worker: Worker) -> dict[str, float]:
    """Every sample a worker serves, by its name and labels."""
    port = re.search(r"Metrics are served on port (\d+)", worker.log.read_text())
    assert port
    with urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def total(scene: Scene, sample: str) -> float:
    return sum(scraped(worker).get(sample, 0) for worker in scene.live)


def test_a_death_is_told_step_by_step_and_counted(scene: Scene, consumer: Consumer):
    # Given a worker that runs tasks and is not the leader
    scene.top_up(3)
    eventually(lambda: consumer.all("worker-heartbeat"), why="events are received")
    victim = next(worker for worker in scene.live if worker is not scene.leader)
    lease = scene.node(victim).lease
    eventually(lambda: total(scene, "celery_ha_lease_renewal_lag_seconds_count") > 10, why="watched for a TTL")
    keys = scene.load(60, 0.1)
    scene.wait_started(keys, 10)
    # When it is killed
    scene.kill(victim)
    # Then each step has its event, of that node, that lease and the leader's term
    told = [
        consumer.first(kind, node=victim.name, lease=lease)
        for kind in ("ha-suspected", "ha-verdict", "ha-fenced", "ha-failover")
    ]
    term = int(scene.hash("leader")[b"term"])
    assert {event["term"] for event in told} == {term}
    assert {event["hostname"] for event in told} == {scene.leader.name}
    assert [event["timestamp"] for event in told] == sorted(event["timestamp"] for event in told)
    assert told[1]["reason"] == told[2]["reason"] == "connections gone"
    # And what moved is told by queue, to the last message
    failover = told[-1]
    (record,) = [entry["recovered"] for entry in scene.history() if entry["recovered"]["lease"] == lease]
    requeued = consumer.all("ha-requeued", lease=lease)
    assert failover["requeued"] == record["requeued"] == sum(event["count"] for event in requeued) > 0
    assert {event["queue"]: event["count"] for event in requeued} == failover["queues"]
    assert set(failover["queues"]) <= {"celery", *(f"orders.{index}" for index in range(12))}
    # And every event has the documented fields and no other
    ours = [event for event in consumer.events if event["type"].startswith("ha-")]
    celerys = {"type", "hostname", "timestamp", "utcoffset", "pid", "clock", "local_received"}
    assert {frozenset(event.keys() - celerys) for event in ours if event["type"] == "ha-fenced"} == {frozenset(ALWAYS)}
    assert [event for event in ours if event.keys() - celerys != {*ALWAYS, *KINDS[event["type"]].fields}] == []
    # And there is one line for each decision
    for kind in ("ha-verdict", "ha-fenced", "ha-failover"):
        lines = [line for worker in scene.fleet.workers for line in lines_of(worker, kind) if lease in line]
        assert len(lines) == 1, lines
        assert f"node={victim.name} lease={lease} term={term} reason=" in lines[0]
    # And it is counted, once in the fleet
    assert total(scene, 'celery_ha_deaths_total{reason="connections gone"}') == 1
    assert total(scene, "celery_ha_recovery_seconds_count") == 1
    moved = [total(scene, f'celery_ha_requeued_total{{started="{started}"}}') for started in ("yes", "no")]
    assert sum(moved) == failover["requeued"]
    scene.settled(keys)

    # And so are the shards that the survivors took over, of which each told
    def gained() -> int:
        return sum(event["gained"] for worker in scene.live for event in consumer.all("ha-shards", node=worker.name))

    assert gained() > 0
    eventually(lambda: total(scene, 'celery_ha_shards_moved_total{direction="gained"}') == gained(), why="all counted")


def lines_of(worker: Worker, kind: str) -> list[str]:
    return [line for line in worker.log.read_text().splitlines() if f"[{kind} " in line]


def test_locks_of_pool_children_are_measured_by_their_main_process(scene: Scene):
    # Given locked tasks that run in children
    scene.top_up(2)
    task, before = f"{PROBE}.contend", total(scene, hold_count("contend"))
    # When they have run
    keys = scene.publish("contend", scene.names(scene.batch(), 4), "same", 0.05)
    scene.settled(keys)
    # Then each hold and each wait is in the metrics of a main process
    eventually(lambda: total(scene, hold_count("contend")) - before == 4, why="holds measured")
    granted = f'celery_ha_lock_wait_seconds_count{{outcome="granted",task="{task}"}}'
    assert total(scene, granted) == 4
    assert total(scene, f'celery_ha_lock_hold_seconds_sum{{task="{task}"}}') >= 4 * 0.05


def test_what_waits_in_line_without_a_slot_is_measured_from_its_parking_to_its_grant(scene: Scene):
    scene.top_up(2)
    # Given a task that holds a lock, and one that is parked behind it
    batch, task = scene.batch(), f"{PROBE}.contend"
    before = {part: total(scene, f'celery_ha_lock_line_seconds_{part}{{task="{task}"}}') for part in ("count", "sum")}
    (first,) = scene.publish("contend", [batch + "first"], batch, 1.5)
    scene.wait_started([first])
    (second,) = scene.publish("contend", [batch + "second"], batch, 0)
    began = eventually(lambda: scene.redis.llen(f"_ha:line:contended:{batch}") and time.time(), why="parked")
    # When it has its turn
    scene.settled([first, second])

    def measured(part: str) -> float:
        return total(scene, f'celery_ha_lock_line_seconds_{part}{{task="{task}"}}') - before[part]

    # Then that is one wait, however many asked and whoever was granted it
    eventually(lambda: measured("count") == 1, why="measured")
    ahead, behind = (next(run for run in scene.ledger.runs() if run.key == key) for key in (first, second))
    assert ahead.end - began <= measured("sum") <= behind.start - ahead.start


def hold_count(task: str) -> str:
    return f'celery_ha_lock_hold_seconds_count{{task="{PROBE}.{task}"}}'


def test_a_lock_that_a_child_lost_is_told_with_its_task(scene: Scene, consumer: Consumer):
    scene.top_up(2)
    # When a task holds its lock for longer than it may
    result = scene.probe.brief.delay("late", "brief", 5)
    # Then that is told by its worker, once
    event = consumer.first("ha-lock-lost", task_id=result.id)
    assert (event["lock"], event["cause"]) == ("brief:brief", "max_hold")
    assert event["claim"].startswith(event["lease"])
    assert event["node"] == event["hostname"]
    eventually(lambda: ["told", "late"] in [line[:2] for line in scene.ledger.lines()])
    scene.wait_idle()
    assert len(consumer.all("ha-lock-lost", task_id=result.id)) == 1
    assert total(scene, 'celery_ha_locks_lost_total{cause="max_hold"}') == 1
    scene.ledger.path.unlink()  # this task's notes are of another form


def test_a_killed_holder_told_of_its_loss_before(scene: Scene, consumer: Consumer):
    scene.top_up(2)
    # When a child is killed because its lock is lost
    result = scene.probe.doomed.delay("doomed", "doomed", 5)
    # Then its last words have arrived
    assert consumer.first("ha-lock-lost", task_id=result.id)["cause"] == "max_hold"
    scene.wait_ended(["doomed"])
    scene.wait_idle()


def test_a_dead_letter_is_told(scene: Scene, consumer: Consumer):
    scene.top_up(1)
    # When a message comes that nobody knows
    result = scene.probe.app.send_task(f"{PROBE}.unheard_of", queue="celery")
    # Then its end is told
    event = consumer.first("ha-dead-letter", task_id=result.id)
    assert (event["task"], event["cause"]) == (f"{PROBE}.unheard_of", "unknown")
    eventually(lambda: total(scene, 'celery_ha_dead_letters_total{cause="unknown"}') >= 1)


def test_a_worker_that_leaves_says_so_before_it_is_gone(scene: Scene, consumer: Consumer):
    scene.top_up(3)
    # When a worker is told to stop
    leaver = next(worker for worker in scene.live if worker is not scene.leader)
    lease = scene.node(leaver).lease
    leaver.send(signal.SIGTERM)
    leaver.process.wait(60)
    # Then it told that it drains, and that it left nothing
    assert consumer.first("ha-draining", lease=lease)["node"] == leaver.name
    assert consumer.first("ha-drained", lease=lease)["clean"] is True
    assert consumer.all("ha-verdict", lease=lease) == []


def test_flower_counts_what_the_fleet_tells(scene: Scene, tmp_path: Path):
    # Given a Flower that has seen everybody
    scene.top_up(3)
    with fleet(tmp_path, **scene.fleet.environment) as programs:
        flower = dashboard(programs)
        eventually(lambda: "flower_worker_online" in flower.get("/metrics")[1], every=0.2, why="Flower receives events")
        assert 'celery_ha_deaths_total{reason="connections gone"} 0.0' in flower.get("/metrics")[1]
        # When a worker is killed
        eventually(lambda: total(scene, "celery_ha_lease_renewal_lag_seconds_count") > 10, why="watched for a TTL")
        scene.kill(next(worker for worker in scene.live if worker is not scene.leader))
        # Then it is among Flower's metrics, recovery and all
        dead = 'celery_ha_deaths_total{reason="connections gone"} 1.0'
        eventually(lambda: dead in flower.get("/metrics")[1], every=0.2, why="counted")
        eventually(
            lambda: "celery_ha_recovery_seconds_count 1.0" in flower.get("/metrics")[1], every=0.2, why="counted"
        )


def test_the_trace_of_a_request_survives_the_death_of_its_worker(scene: Scene):
    # Given a task with a trace context in its headers, as instrumentation puts it there
    (worker,) = scene.top_up(1)[:1]
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    scene.probe.traced.apply_async(("traced",), headers={"traceparent": traceparent, "tracestate": "a=1"})
    scene.wait_started(["traced"])
    # When its worker is killed while it runs
    for worker in scene.live:
        scene.kill(worker)
    scene.start(1)
    # Then the second attempt is part of the same trace
    scene.wait_ended(["traced"])
    seen = [line[-2:] for line in scene.ledger.lines() if line[:2] == ["start", "traced"]]
    assert seen == [[traceparent, "a=1"]] * 2
