"""What celery_ha cannot keep its promises on is refused when a worker starts, with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from celery_ha import HA
from celery_ha.errors import ConfigError
from tests.support.fleet import eventually, fleet
from tests.support.server import RedisServer, free_port

#: Transports of kombu that can be used.
USABLE = {"redis", "rediss", "sentinel", "amqp", "amqps", "pyamqp"}


@pytest.mark.parametrize("alias", sorted({*TRANSPORT_ALIASES} - USABLE))
def test_every_other_transport_of_kombus_is_refused_with_a_sentence(alias: str):
    app = Celery("shop", broker=f"{alias}://", set_as_current=False)
    app.conf.ha_store = "redis://localhost:6379/1"
    ha = HA(app)
    with pytest.raises(ConfigError, match=rf"(?i)cannot use the broker {alias}.*: write a redis://"):
        ha.make_broker(None, 1.0)


@pytest.fixture
def worker_says(tmp_path: Path) -> Callable[..., str]:
    """Start a worker that does not get far; returns its last words."""

    def start(**environment: str) -> str:
        with fleet(tmp_path, PROBE_LEDGER=str(tmp_path / "ledger"), **environment) as workers:
            worker = workers.start("-Q", "orders", ready=False)
            eventually(lambda: not worker.alive, why="it ends")
            assert worker.process.returncode not in (0, None)
            return worker.log.read_text().strip().splitlines()[-1]

    return start


def test_worker_on_another_transport_ends_with_the_sentence(worker_says):
    assert worker_says(PROBE_BROKER="memory://").startswith("celery_ha: celery_ha cannot use the broker memory://")


def test_worker_on_a_redis_cluster_ends_with_a_sentence(worker_says, start_redis: Callable[..., RedisServer]):
    server = start_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    said = worker_says(PROBE_BROKER=server.url)
    assert "is a Redis Cluster, which cannot be used: take a single server or Sentinel" in said
