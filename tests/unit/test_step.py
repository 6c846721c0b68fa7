"""What a worker is refused before it has a lease."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency import prefork, thread

from celery_ha.errors import ConfigError
from celery_ha.worker.step import _refuse_to_grow


def worker(pool: type, autoscale: object) -> Any:
    return SimpleNamespace(pool_cls=pool, autoscale=autoscale)


def test_pool_that_is_to_grow_and_cannot_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"thread cannot grow.*-c"):
        _refuse_to_grow(worker(thread.TaskPool, (4, 1)))


@pytest.mark.parametrize(("pool", "autoscale"), [(thread.TaskPool, None), (prefork.TaskPool, (4, 1))])
def test_others_are_not(pool: type, autoscale: object) -> None:
    _refuse_to_grow(worker(pool, autoscale))
