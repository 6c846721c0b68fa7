"""A chord's body on RabbitMQ, with a Redis for leases and results, when its last part dies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from celery import chord

from tests.support.fleet import eventually
from tests.support.rabbit import Rabbit
from tests.support.scene import scene
from tests.support.server import RedisServer

HANG = 60


def test_body_that_a_part_had_claimed_when_it_died_is_published_on_rabbitmq(
    start_redis: Callable[..., RedisServer], tmp_path: Path, rabbit: Rabbit
):
    server, strikes = start_redis(), tmp_path / "strikes"
    strikes.mkdir()
    conf = json.dumps({"ha_store": server.url, "task_publish_retry_policy": {"max_retries": 1000}})
    settings = {"PROBE_CONF": conf, "PROBE_STRIKES": str(strikes)}
    with scene(server, tmp_path, ttl=3.0, broker=rabbit.url(), results=True, **settings) as stage:
        stage.start(2)
        for who in ("child", "main"):
            # Given a process that dies when it has claimed the body of a chord
            keys, body = stage.names(f"{who}-", 3), f"{who}-body"
            (strikes / f"extended.{who}").touch()
            result = chord(stage.probe.order.s(key, 0) for key in keys)(stage.probe.total.s(body))
            # Then it is published all the same, once
            assert result.get(timeout=HANG) == sorted(keys)
            eventually(lambda file=strikes / f"extended.{who}": not file.exists(), why="somebody died")
            eventually(lambda: not stage.redis.keys("_ha:attempts:*"), why="all attempts over")
            assert stage.ledger.reruns([body]) == set()
