"""Drills on a user's own app, called as a user calls them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from kazoo.client import KazooClient
from kombu import Connection

from tests.support.fleet import ROOT, Worker, eventually, fleet
from tests.support.form import check_form
from tests.support.rabbit import Rabbit
from tests.support.server import RedisServer, free_port
from tests.support.zookeeper import ZooKeeper

APP = "tests.support.tiny"
#: ``celery-ha``, without its being installed.
COMMAND = (sys.executable, "-c", "from celery_ha.cli.main import main; main()", "drill", "--app", APP)
#: The same as one of Celery's own commands.
CELERY = (sys.executable, "-m", "celery", "-A", APP, "ha", "drill")
OURS = "celery-ha-drill-"
#: A drill in a place that is given.
IN_A_PLACE = """
import sys
from pathlib import Path
from celery_ha.drill.drill import perform
from celery_ha.drill.place import Place
from celery_ha.trial.scene import Plan
from celery_ha.trial.view import LineView
from tests.support.tiny import app
plan = Plan(tasks=10, workers=2, seed=1, lease_ttl=2)
perform(app, "tests.support.tiny", Place(sys.argv[1]), plan, Path("."), LineView(), concurrency=1, pool=None)
"""


class Drill:
    """A drill in a process of its own."""

    def __init__(
        self,
        broker: str,
        *options: str,
        conf: dict[str, object] | None = None,
        command: tuple[str, ...] = COMMAND,
        **environment: str,
    ) -> None:
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            env={**os.environ, "TINY_BROKER": broker, "TINY_CONF": json.dumps(conf or {}), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []

    def hears(self, text: str) -> None:
        """Read on until it says so."""
        for line in self.process.stderr:
            self.said.append(line)
            if text in line:
                return
        pytest.fail(f"it never said {text!r}: {self.said}")

    def ends(self) -> tuple[int, str, str]:
        """Exit code, what it wrote, what it said."""
        out, rest = self.process.communicate(timeout=150)
        return self.process.returncode, out, "".join(self.said) + rest

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    yield client
    client.close()


def remains(client: redis.Redis) -> list[bytes]:
    return [key for key in client.scan_iter("*", count=1000) if OURS.encode() in key]


@pytest.fixture
def foreign(redis_server: RedisServer, client: redis.Redis, tmp_path: Path) -> Iterator[Worker]:
    """A worker of the same app, as it serves its users."""
    with fleet(tmp_path, TINY_BROKER=redis_server.url, TINY_CONF="{}") as workers:
        workers.app = APP
        yield workers.start("-Q", "users", "-c", "1", name="busy@users")


def test_kills_lose_nothing_and_the_workers_that_serve_users_do_not_notice(
    redis_server: RedisServer, client: redis.Redis, foreign: Worker
):
    # Given a worker of the same app on the same broker, and a task that nobody takes
    leases = client.hgetall("tiny:_ha:leases").keys()
    client.lpush("tiny:everything", b"somebody's")
    # When two rounds are played
    code, out, said = Drill(redis_server.url, "--rounds", "2", "--tasks", "60", "--json", "--seed", "5").ends()
    # Then all is well, and said in the documented form
    assert code == 0, said
    report = json.loads(out)
    check_form("drill", report)
    assert (report["lost"], report["doubled"], report["overlaps"]) == (0, 0, 0)
    assert (report["published"], report["finished"], len(report["rounds"])) == (120, 120, 2)
    for each in report["rounds"]:
        assert each["failover"]["reason"] == "connections gone"
        assert each["timeline"]["noticed"] < each["timeline"]["requeued"]
        assert each["victim"] in {"w1@drill", "w2@drill", "w3@drill"}
    # And nothing is left, nor anybody else touched
    assert remains(client) == []
    assert client.lrange("tiny:everything", 0, -1) == [b"somebody's"]
    assert client.hgetall("tiny:_ha:leases").keys() == leases
    assert foreign.alive
    assert "drill" not in foreign.log.read_text()


def test_frozen_worker_is_given_up_and_comes_back(redis_server: RedisServer, client: redis.Redis):
    drill = Drill(redis_server.url, "--freeze", "--workers", "2", "--tasks", "60", command=CELERY)
    code, out, said = drill.ends()
    assert code == 0, said
    assert "renewals stood still" in out
    assert "back under a new lease" in out
    assert "PASSED" in out
    assert "SIGSTOP for" in said
    assert remains(client) == []


def test_app_that_loses_tasks_is_found_out(redis_server: RedisServer, client: redis.Redis):
    # Given an app whose tasks are acknowledged before they run
    conf = {"CELERY_TASK_ACKS_LATE": False, "CELERY_WORKER_PREFETCH_MULTIPLIER": 4}
    drill = Drill(redis_server.url, "--json", "--tasks", "60", "--rounds", "3", "--patience", "3", conf=conf)
    code, out, said = drill.ends()
    # Then what was running is lost, and one such round is enough
    report = json.loads(out)
    check_form("drill", report)
    assert code == 1, said
    assert report["lost"] > 0
    assert not report["good"]
    assert remains(client) == []


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"TINY_PLAIN": "1"}, "has no HA"),
        ({"TINY_STUBBORN": "1"}, "changes global_keyprefix"),
        ({"TINY_CONF": '{"CELERY_BROKER_URL": "sqs://"}'}, "cannot use the broker"),
    ],
)
def test_drill_that_would_prove_nothing_or_touch_others_does_not_begin(
    redis_server: RedisServer, client: redis.Redis, environment: dict[str, str], why: str
):
    code, out, said = Drill(redis_server.url, **environment).ends()
    assert (code, out) == (2, "")
    assert why in said
    assert "Starting" not in said
    assert list(client.scan_iter("*")) == []


def test_broker_that_is_down_is_said_so():
    code, out, said = Drill(f"redis://127.0.0.1:{free_port()}/0").ends()
    assert (code, out) == (2, "")
    assert "could not be reached" in said


def test_server_that_goes_away_in_the_middle_leaves_no_process(start_redis: Callable[..., RedisServer]):
    server = start_redis()
    drill = Drill(server.url, "--tasks", "2000", "--workers", "2")
    drill.hears("Publishing")
    workers = drill.workers()
    server.send(signal.SIGKILL)
    code, out, said = drill.ends()
    # Then it says what it could not finish, and what it could not clean
    assert (code, out) == (1, "")
    assert "a server went away in the middle" in said
    assert f"left of {OURS}" in said
    eventually(lambda: not any(_runs(worker) for worker in workers), why="its workers end")


def test_stranger_in_its_place_is_not_touched(redis_server: RedisServer, client: redis.Redis, tmp_path: Path):
    # Given somebody else's worker where the drill is about to be
    name = f"{OURS}shared"
    place = {"CELERY_HA_DRILL_APP": APP, "CELERY_HA_DRILL_NAME": name, "CELERY_HA_TRIAL_LEDGER": str(tmp_path)}
    with fleet(tmp_path, TINY_BROKER=redis_server.url, TINY_CONF="{}", **place) as workers:
        workers.app = "celery_ha.drill.app"
        stranger = workers.start("-Q", name, "-c", "1", name="stranger@elsewhere")
        # Then the drill refuses, before it starts anybody
        found = subprocess.run(
            [sys.executable, "-c", IN_A_PLACE, name],
            cwd=ROOT,
            env={**os.environ, "TINY_BROKER": redis_server.url},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "NotOurs: stranger@elsewhere would take part" in found.stderr
        assert "Starting" not in found.stderr
        assert stranger.alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_drill_leaves_no_process_and_no_key(
    redis_server: RedisServer, client: redis.Redis, number: signal.Signals
):
    # Given a drill in the middle of its tasks
    drill = Drill(redis_server.url, "--tasks", "2000")
    drill.hears("Publishing")
    eventually(lambda: remains(client), why="keys")
    workers = drill.workers()
    assert len(workers) >= 3
    # When it is interrupted
    drill.process.send_signal(number)
    code, out, said = drill.ends()
    # Then it says so, and has taken its workers and its keys with it; if it could not, the workers go by themselves
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert (code, out) == (130, "")
        assert "nothing is left on the servers" in said
        assert remains(client) == []
    eventually(lambda: not any(_runs(worker) for worker in workers), why="its workers end")


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_drill_on_rabbitmq_leaves_no_queue(rabbit: Rabbit, zookeeper_server: ZooKeeper):
    # Given RabbitMQ for messages and ZooKeeper for leases
    broker, host = rabbit.url(), zookeeper_server.host
    conf = {"CELERY_HA_STORE": f"zookeeper://{host}/drilled", "CELERY_BROKER_TRANSPORT_OPTIONS": {}}
    code, out, said = Drill(broker, "--json", "--tasks", "60", conf=conf).ends()
    # Then the drill is the same
    assert code == 0, said
    report = json.loads(out)
    check_form("drill", report)
    assert (report["lost"], report["overlaps"], report["finished"]) == (0, 0, 60)
    # And neither queues nor znodes are left
    name = re.search(f"{OURS}\\w+", said).group()
    with Connection(broker) as connection:
        for queue in (name, f"{name}.0"):
            with pytest.raises(connection.channel_errors):
                connection.channel().queue_declare(queue, passive=True)
        for exchange in (name, f"{name}.shards", f"{name}.events"):
            with pytest.raises(connection.channel_errors):
                connection.channel().exchange_declare(exchange, "direct", passive=True)
    client = KazooClient(host)
    client.start()
    try:
        assert not [child for child in client.get_children("/drilled") if OURS in child]
    finally:
        client.stop()
        client.close()
