"""Counts the news of the fleet for Flower's ``/metrics``, which serves the registry of its process."""

from __future__ import annotations

from functools import wraps
from typing import Any

from celery_ha.telling.metrics import Metrics


def count_events(state: type) -> None:
    """Have Flower's state of events count ours.

    What workers measure of themselves (locks, renewals) is no event: their own ports serve that.

    Args:
        state: ``flower.events.EventsState``; its instances take every event, on Flower's loop.
    """
    metrics, take = Metrics.of_process(), state.event  # type: ignore[attr-defined]

    @wraps(take)
    def event(self: Any, event: dict[str, Any]) -> Any:
        metrics.put_event(event)
        return take(self, event)

    state.event = event  # type: ignore[attr-defined]
