"""Celery, highly available: tasks survive their worker, keys have an owner, locks have one holder.

```python
app = Celery("shop", broker="redis://localhost:6379/0")
HA(app)
```
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes a while to import, and type checkers know the name

if TYPE_CHECKING:
    from celery_ha.config import Config
    from celery_ha.errors import (
        ConfigError,
        DuplicateNode,
        Fenced,
        HAError,
        KeyRefused,
        LeaseLost,
        LockBusy,
        LockError,
        LockLost,
        PoisonTask,
        StaleToken,
        StoreError,
        StoreUnavailable,
    )
    from celery_ha.install import HA
    from celery_ha.locks import Lock, current_lock, locked_task, unique_task

__all__ = [
    "HA",
    "Config",
    "ConfigError",
    "DuplicateNode",
    "Fenced",
    "HAError",
    "KeyRefused",
    "LeaseLost",
    "Lock",
    "LockBusy",
    "LockError",
    "LockLost",
    "PoisonTask",
    "StaleToken",
    "StoreError",
    "StoreUnavailable",
    "current_lock",
    "locked_task",
    "unique_task",
]

_HOMES = {
    "HA": "install",
    "Config": "config",
    "Lock": "locks",
    "current_lock": "locks",
    "locked_task": "locks",
    "unique_task": "locks",
}


def __getattr__(name: str) -> object:
    """Import what is asked for: the probe, which runs every few seconds, has no time for Celery."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - same

    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
