"""Port to the broker: queues, claims in flight, and the broker's own record of open leases.

From the moment ``publish`` returns until its claim is settled, a message is in exactly one place:
a queue, one lease's in-flight set, or the dead letters. Every move between places is one atomic
step, so dying between two calls loses nothing and repeats nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from celery_ha.model import Batch, Claim, Readable, Settlement


class Door(ABC):
    """Where a lease comes in and goes out."""

    @abstractmethod
    def join(self, lease: str) -> bool:
        """Open the lease on the broker. Joining is broker first, then store (rule 6).

        False: the lease was fenced here; it never opens again. Opening an open lease is harmless.
        """

    @abstractmethod
    def leave(self, lease: str) -> bool:
        """Close the lease if it holds nothing; False: it has luggage and stays (rule 7)."""


class HoldingBroker(Door, ABC):
    """What a node does with the messages in its hands."""

    #: Messages of a higher priority come first; False: in the order they were published in.
    priorities = True
    #: The broker keeps a message with an ETA until it is due; False: the worker it came to does.
    delays = False

    @abstractmethod
    def start(self, lease: str, claim: str, *, settle: Sequence[Settlement] = ()) -> bool:
        """Settle ended claims, then mark the attempt started.

        Returns:
            False: refused, the lease is not open or does not hold the claim.
        """

    @abstractmethod
    def settle(self, lease: str, settle: Sequence[Settlement]) -> bool:
        """End claims; one that the lease does not hold is skipped (a resent ack).

        Returns:
            False: the lease is not open, nothing changed.
        """

    @abstractmethod
    def held(self, lease: str) -> dict[str, bool]:
        """Claim ids the broker has in flight for an open lease, each with its started mark (rule 2)."""


class ClaimBroker(HoldingBroker, ABC):
    """What a consuming node does, on a broker that has its messages claimed."""

    @abstractmethod
    def publish(self, queue: str, payload: bytes, *, priority: int = 0, publish_id: str | None = None) -> bool:
        """Append a message and ring the queue's bell.

        Args:
            publish_id: ``<producer>.<running number>``, the same for every repetition of one publish.

        Returns:
            False: ``publish_id`` was seen, nothing was added (rule 14).
        """

    @abstractmethod
    def claim(
        self, lease: str, queues: Sequence[str], *, limit: int, slots: int, settle: Sequence[Settlement] = ()
    ) -> Batch:
        """Settle ended claims, then move up to ``limit`` messages to the lease's in-flight set.

        Highest priority first. The first ``slots`` of them are for free slots and carry the mark
        "started" at once (rule 1), unless they were interrupted before (rule 15). A lease that is
        not open gets ``Batch(open=False)`` and nothing happens at all.
        """


class RecoveryBroker(ABC):
    """What the leader does for a fenced lease."""

    @abstractmethod
    def fence(self, lease: str) -> None:
        """Refuse every later write of the lease. Harmless to repeat."""

    @abstractmethod
    def in_flight(self, lease: str) -> list[Claim]:
        """The claims of a fenced lease, oldest first. Nothing but :meth:`requeue` changes them any more."""

    @abstractmethod
    def requeue(self, claims: Iterable[tuple[Claim, bytes]]) -> int:
        """Move claims, each with the payload to put back, to the front of their queues in claim order.

        Claims of several leases are merged by number (rule 18). A claim that is no longer in flight
        is skipped, so repeating is harmless. Rings the bells. Returns how many moved.
        """

    @abstractmethod
    def forget(self, lease: str) -> bool:
        """Drop the empty in-flight record of a fenced lease; False if it is not empty."""

    @abstractmethod
    def strangers(self, known: frozenset[str]) -> frozenset[str]:
        """Leases open or holding claims on the broker that are not in ``known`` (rule 6)."""


class Broker(ClaimBroker, RecoveryBroker, ABC):
    """Both halves: what the contract suite and the simulation drive."""


class NodeBroker(HoldingBroker, RecoveryBroker, ABC):
    """What a worker needs of a broker, however its messages come to it."""

    #: The broker itself gives a shard to the next of its consumers, as soon as the connection of the first is closed.
    hands_over = False
    #: Starts can be asked for without waiting.
    asks = False
    #: Whether there is something to read of an answer even if it does not come.
    rings = False

    def ask(self, lease: str, claims: Sequence[str], settle: Sequence[Settlement]) -> Readable | None:
        """What :meth:`start` does, for several claims in one call, without waiting for the answer.

        One call at a time: :meth:`answer` comes before the next.

        Returns:
            What can be read from when the answer is there, or when there will be none: another one after a new
            connection; None: this broker is asked by :meth:`start` only, and nothing was asked.

        Raises:
            StoreUnavailable: not reached; attempts may be marked.
        """
        return None

    def answer(self) -> Mapping[str, bool]:
        """Whether each claim that was asked for may start; waits for the answer.

        Raises:
            StoreUnavailable: there is none; attempts may be marked.
        """
        return {}

    @abstractmethod
    def holds(self, lease: str, claim: str) -> bool:
        """Whether an open lease has this claim in flight."""

    @abstractmethod
    def queue_of(self, source: str) -> str:
        """The queue that a claim's source is a part of."""

    @abstractmethod
    def widest(self, queue: str, shards: int) -> int:
        """The largest number of shards ever used for a queue, this one included (rule 16)."""
