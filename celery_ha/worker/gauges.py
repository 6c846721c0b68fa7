"""What a worker is like at the moment of a scrape."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from celery_ha.telling.metrics import Metrics

if TYPE_CHECKING:
    from celery_ha.worker.node import WorkerNode


def follow(metrics: Metrics, node: WorkerNode) -> None:
    """Have the metrics of a process ask its node. Nothing is counted or kept for that."""
    metrics.follow("leader", "1: this worker leads", lambda: float(node.announcer.leads))
    metrics.follow("shards", "Shards that this worker consumes", lambda: float(node.announcer.owned))
    metrics.follow(
        "lease_trust_seconds", "For how long this worker may still trust its lease; 0: not at all", lambda: _trust(node)
    )


def _trust(node: WorkerNode) -> float:
    until = node.trusted_until
    return 0.0 if until is None else max(0.0, until - monotonic())
