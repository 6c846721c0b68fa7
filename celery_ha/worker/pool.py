"""A worker pool that looks at the trust once more in the process that runs the body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery_ha.worker import child


class GuardedPool:
    """Stands in for the pool where Celery's task strategies are built; everything else is the pool's own."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def apply_async(self, target: Callable[..., Any], args: tuple[Any, ...] = (), **options: Any) -> Any:
        return self._pool.apply_async(child.run, args=(target, *args), **options)
