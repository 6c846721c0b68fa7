"""One short seeded round of ``python -m tests.chaos``, with every kind of blow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.ground import Ground
from tests.chaos.mix import SHARES
from tests.chaos.plan import DECK, Plan
from tests.chaos.storm import DURABLE, storm
from tests.support.missing import missing
from tests.support.rabbit import Rabbit, rabbit_is_here
from tests.support.server import RedisServer


@pytest.mark.timeout(300)
def test_every_fault_at_once_breaks_no_promise(start_redis: Callable[..., RedisServer], tmp_path: Path):
    plan = Plan(seed=20, minutes=0.2, workers=3, pause=(0.4, 0.9))
    outcome = storm(plan, Ground(start_redis(*DURABLE), start_redis()), tmp_path, print)
    assert outcome.held, outcome.as_json()
    assert set(outcome.blows) >= set(DECK)
    assert set(outcome.kinds) == set(SHARES)


@pytest.mark.timeout(300)
def test_every_fault_at_once_breaks_no_promise_on_rabbitmq(start_redis: Callable[..., RedisServer], tmp_path: Path):
    if not rabbit_is_here():
        missing("no RabbitMQ here")
    plan = Plan(seed=21, minutes=0.2, workers=3, pause=(0.4, 0.9))
    rabbit = Rabbit()
    try:
        rabbit.start()
        outcome = storm(plan, Ground(start_redis(*DURABLE), start_redis(), rabbit), tmp_path, print)
    finally:
        rabbit.close()
    assert outcome.held, outcome.as_json()
    assert set(outcome.blows) >= set(DECK)
