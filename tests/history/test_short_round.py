"""One short seeded round of ``python -m tests.history``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.history.__main__ import offending
from tests.history.plan import plan
from tests.history.round import play
from tests.support.server import server_binary


@pytest.mark.timeout(120)
def test_a_short_round_on_zookeeper_breaks_no_rule(start_redis, zookeeper_server, tmp_path: Path):
    outcome = play(plan("4", store="zookeeper", seconds=4.0, blows=3), str(server_binary()), tmp_path)
    assert outcome.held, offending(outcome)
    assert outcome.grants > 10


@pytest.mark.timeout(120)
def test_a_short_round_breaks_no_rule(start_redis, tmp_path: Path):
    outcome = play(plan("4", seconds=4.0, blows=3), str(server_binary()), tmp_path)
    assert outcome.held, offending(outcome)
    assert outcome.grants > 10
