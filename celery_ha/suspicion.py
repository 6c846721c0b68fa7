"""Suspicion from Celery's heartbeat events: it makes an observer look more often and kills nobody.

Events travel through the broker and get lost, and an interval is the sender's own setting, so all
that silence says is "look now". Times are those of receipt, on the local monotonic clock; the
sender's timestamps are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Intervals of its own a node may be silent for before it is suspected.
SILENT_INTERVALS = 2.5


@dataclass(frozen=True)
class Beat:
    """The last sign of life of a node."""

    #: Seconds between its heartbeats, as it says itself (``freq`` of the event).
    freq: float
    #: When we received it, local monotonic time.
    received: float


def heard(beats: Mapping[str, Beat], node: str, freq: float, now: float) -> dict[str, Beat]:
    """Note a heartbeat or online event of a node."""
    return {**beats, node: Beat(freq, now)}


def left(beats: Mapping[str, Beat], node: str) -> dict[str, Beat]:
    """Note an offline event: who said goodbye is not silent."""
    return {name: beat for name, beat in beats.items() if name != node}


def suspects(beats: Mapping[str, Beat], now: float) -> frozenset[str]:
    """Names of the nodes that are silent for too many of their own intervals.

    A node that does not say how often it beats (``freq`` 0, heartbeats switched off) is never
    suspected here.
    """
    return frozenset(
        name for name, beat in beats.items() if beat.freq > 0 and now - beat.received > SILENT_INTERVALS * beat.freq
    )
