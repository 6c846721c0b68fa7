"""Celery, highly available: tasks survive their worker, keys have an owner, locks have one holder.

```python
app = Celery("shop", broker="redis://localhost:6379/0")
HA(app)
```
"""

from __future__ import annotations

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
