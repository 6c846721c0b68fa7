"""What the beats did and will do, for whoever shows it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from celery_ha.beat.seat import OFFICE
from celery_ha.model import Firing
from celery_ha.store.base import Store


@dataclass(frozen=True)
class Entry:
    """One entry of the schedule; times are seconds since the epoch."""

    name: str
    #: How often it fired.
    count: int
    #: When its last firing was due; None: it has not fired yet.
    last: float | None
    #: When the next one is; None: its schedule cannot tell.
    next: float | None
    #: False: the last firing is claimed and not sent yet.
    sent: bool


@dataclass(frozen=True)
class Overview:
    """The beats of an app at one moment."""

    #: Name of the beat in office; None: there is none.
    leader: str | None
    #: Names of all beats.
    beats: tuple[str, ...]
    #: By name.
    entries: tuple[Entry, ...]
    #: Claimed firings, the last one first, each with its time by the store's clock.
    history: tuple[tuple[float, Firing], ...]


def overview(app: Any) -> Overview:
    """Ask the store what all beats share; from any process and thread, on a connection of its own.

    Args:
        app: with HA installed.

    Raises:
        StoreUnavailable: the store did not answer.
    """
    # Of its own: the one of this process may be busy with the lease of a worker.
    with closing(app.ha.make_store()) as store:
        return overview_of(store)


def overview_of(store: Store) -> Overview:
    """The same from a store that nobody else uses now."""
    there, history = store.firings.read(OFFICE), store.firings.history()
    nodes = store.court.look().nodes
    leader = nodes.get(there.leader or "")
    return Overview(
        leader=None if leader is None else leader.name,
        beats=tuple(sorted(node.name for node in nodes.values() if node.queues == (OFFICE,))),
        entries=tuple(_entry(firing) for _, firing in sorted(there.firings.items())),
        history=tuple(history),
    )


def described(found: Overview, limit: int) -> dict[str, Any]:
    """An overview as values that become JSON.

    Args:
        limit: how many firings of the history, the last one first.
    """
    return {
        "leader": found.leader,
        "beats": list(found.beats),
        "entries": [asdict(entry) for entry in found.entries],
        "history": [
            {"at": at, "entry": past.entry, "number": past.number, "due": past.due, "by": past.by}
            for at, past in found.history[:limit]
        ],
    }


def _entry(firing: Firing) -> Entry:
    last = firing.due if firing.number else None
    return Entry(firing.entry, firing.number, last, firing.next, firing.sent)
