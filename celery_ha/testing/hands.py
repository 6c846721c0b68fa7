"""What an adapter of a broker gives to be tested: a server, and the hands of its workers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Held:
    """A message in somebody's hands."""

    #: The name it was published under, which is its task's id.
    name: str
    claim: str
    #: The message's own headers and properties, as far as the publisher gave them.
    headers: Mapping[str, Any] = field(default_factory=dict)
    #: How often it was started before.
    deliveries: int = 0


class Hands(Protocol):
    """One worker, under one lease."""

    lease: str

    def claim(self, count: int) -> list[Held]:
        """So many messages, none of them marked started; waits until they are there."""

    def nothing_comes(self) -> bool:
        """Whether there is nothing for this worker now."""

    def start(self, held: Held) -> bool:
        """Mark an attempt started (rule 1)."""

    def ack(self, *held: Held) -> bool:
        """They have come to their end; False: the lease is not open."""

    def release(self, *held: Held) -> bool:
        """Give them back, as a ledger does: the newest first, and counted if they had started."""

    def bury(self, held: Held, reason: str) -> bool:
        """To the dead letters."""

    def holding(self) -> Mapping[str, bool]:
        """The names of what the broker has in these hands, with the mark; of an open lease."""

    def die(self) -> None:
        """The process is gone, and its connections with it."""


class Bench(Protocol):
    """A broker under test, empty, with one queue."""

    #: Messages of a higher priority come first; False: all come in the order they were published in.
    priorities: bool
    #: A message with an ETA comes when it is due; False: at once, and its worker waits.
    delays: bool

    def publish(
        self, *names: str, priority: int = 0, publish_id: str | None = None, headers: Mapping[str, Any] | None = None
    ) -> None:
        """Messages of these names; with an id the same publish, repeated by its producer."""

    def publish_later(self, name: str, seconds: float) -> None:
        """A message that is due then."""

    def worker(self, lease: str) -> Hands:
        """Open a lease and consume."""

    def recover(self, leases: Collection[str]) -> None:
        """Fence leases and move what they held, as a leader does."""

    def dead(self) -> Mapping[str, str]:
        """Reasons by the names of dead letters."""
