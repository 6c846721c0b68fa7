"""The demo on a fleet without any Redis: RabbitMQ keeps the messages, ZooKeeper the leases and locks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import kombu
import pytest
from kazoo.client import KazooClient

from tests.support.fleet import ROOT, eventually
from tests.support.rabbit import Rabbit
from tests.support.zookeeper import ZooKeeper


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "celery_ha.demo", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)


def test_demo_on_rabbitmq_and_zookeeper_loses_nothing_and_leaves_nothing(rabbit: Rabbit, zookeeper_server: ZooKeeper):
    # Given servers with something of somebody else's on them
    broker = rabbit.url()
    with kombu.Connection(broker) as connection:
        connection.SimpleQueue("theirs").put("a message")
    # When the demo is played
    done = demo("--broker", broker, "--store", f"zookeeper://{zookeeper_server.host}/demo", "--tasks", "80", "--json")
    # Then its verdict is good, from what the tasks themselves wrote down
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert (report["published"], report["finished"]) == (80, 80)
    assert (report["lost"], report["doubled"], report["overlaps"]) == (0, 0, 0)
    (struck,) = report["rounds"]
    assert struck["failover"]["node"] == struck["victim"]
    # None: on a loaded machine it may have nothing left when it is hit
    assert struck["timeline"]["first_start"] is None or struck["timeline"]["first_start"] > 0
    # And nothing of it is left on the servers
    with kombu.Connection(broker) as connection:
        assert connection.SimpleQueue("theirs").get(block=False).payload == "a message"
        for queue in ("_ha.dead", "celery_delayed_0"):
            with pytest.raises(connection.channel_errors, match="no queue"):
                connection.channel().queue_declare(queue, passive=True)
    client = KazooClient(zookeeper_server.host)
    client.start()
    assert client.get_children("/demo") == []
    client.stop()
    client.close()


def test_shop_runs_without_any_redis(rabbit: Rabbit, zookeeper_server: ZooKeeper, tmp_path: Path):
    # Given a worker of the example, as its README starts it
    log = tmp_path / "log"
    servers = {"SHOP_BROKER": rabbit.url(), "SHOP_STORE": f"zookeeper://{zookeeper_server.host}/shop"}
    here = {"cwd": ROOT / "examples" / "shop", "env": {**os.environ, "PYTHONPATH": str(ROOT), **servers}}
    command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "-Q", "orders,celery", "-c", "4", "-l", "INFO"]
    with log.open("wb") as out:
        worker = subprocess.Popen(command, stdout=out, stderr=out, **here)
    try:
        # When orders are placed
        subprocess.run([sys.executable, "order.py", "12"], check=True, timeout=60, **here)

        # Then each is charged, under its account's lock, and the ordinary task runs too
        def charged() -> bool:
            text = log.read_text()
            assert worker.poll() is None, text
            orders = re.findall(r"order (\d+) charged to account \d+ \(token \d+\)", text)
            return sorted(map(int, orders)) == list(range(12)) and "shop.greet" in text

        eventually(charged, every=0.2, why="charged")
    finally:
        worker.terminate()
        worker.wait(30)
