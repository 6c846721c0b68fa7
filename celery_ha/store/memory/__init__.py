"""The store in memory: a real implementation, for tests and for the deterministic simulation.

One :class:`MemoryServer` is the store itself; each simulated process has its own
:class:`MemoryStore` on it, with connections of its own that the simulation can cut.
"""

from __future__ import annotations

from celery_ha.store.memory.server import MemoryServer
from celery_ha.store.memory.store import MemoryStore

__all__ = ["MemoryServer", "MemoryStore"]
