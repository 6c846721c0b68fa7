"""The suite that is shipped, on every broker; see ``benches.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest

from celery_ha.testing import Bench
from celery_ha.testing.brokers import *  # noqa: F403
from tests.contract.benches import AmqpBench, memory_bench, redis_bench

__all__ = ["bench"]


@pytest.fixture(scope="module")
def shared_host(request: pytest.FixtureRequest) -> Callable[[], str]:
    """A virtual host for all of this module, if it comes to that."""
    return cache(lambda: request.getfixturevalue("rabbit").url())


@pytest.fixture(params=["memory", "redis", "rabbitmq"])
def bench(request: pytest.FixtureRequest, shared_host: Callable[[], str]) -> Iterator[Bench]:
    if request.param == "memory":
        made = memory_bench("")
    elif request.param == "redis":
        made = redis_bench(request.getfixturevalue("redis_server").url)
    else:
        made = AmqpBench(shared_host())
    yield made
    made.close()
