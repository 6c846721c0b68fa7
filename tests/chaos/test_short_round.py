"""One short seeded round of ``python -m tests.chaos``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.storm import Plan, storm
from tests.support.server import RedisServer


@pytest.mark.timeout(300)
def test_eight_kills_and_a_freeze_break_no_promise(start_redis: Callable[..., RedisServer], tmp_path: Path):
    outcome = storm(Plan(kills=8, freezes=1, seed=20, workers=3), start_redis(), tmp_path, print)
    assert outcome.held, outcome.as_json()
    assert (outcome.kills, outcome.freezes) == (8, 1)
    assert outcome.published > 100
