"""Port to the record of attempts: what a broker cannot know of the messages it delivers.

RabbitMQ keeps every message until its ack and delivers it again by itself as soon as a connection
closes (rule 17). What it cannot know is whether the attempt before is over. So an attempt is written
down when it starts, under its lease, and a later delivery of the same message asks.

A message is known by its id, which its publisher gives it and every delivery of it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from celery_ha.model import Readable, Settlement

#: Seconds for which it is remembered that a message came to its end: if its ack is on the way to the
#: broker, and if the connection it came by is gone, so that it will be delivered once more.
ACK_SENT, ACK_OWED = 60, 86_400
#: The same for the attempts at a message that waits in its queue.
COUNTED = 7 * 86_400


class Started(Enum):
    """The answer to one who wants to start an attempt."""

    #: It is written down; the body may run.
    YES = "yes"
    #: The lease is not open: nothing was written.
    CLOSED = "closed"
    #: Another attempt at this message runs under an open lease, or has come to its end.
    NOT_NOW = "not now"


@dataclass(frozen=True)
class Attempt:
    """One attempt at a message that started and is not over."""

    claim: str
    message: str
    #: Id of its task; locks are kept in trust for it (rule 8).
    task: str
    queue: str
    #: The id is this message's alone, or it is known to have been delivered before: once one attempt has
    #: come to its end, none is started any more. Without, only a running one is in the way.
    once: bool = True


@dataclass(frozen=True)
class Earlier:
    """What is known of the attempts at a message."""

    #: Attempts that started and did not come to an end.
    count: int = 0
    #: The open lease that one runs under; empty: none runs.
    lease: str = ""
    #: One came to its end: the message must not run again.
    ended: bool = False
    #: The last one was given back by somebody who lived: to open the message kills nobody (rule 15).
    harmless: bool = False

    @property
    def running(self) -> bool:
        """One runs, and is in the way of others."""
        return bool(self.lease)


class Question(ABC):
    """Starts that are asked for in one call, by somebody who does other things until the answer is there.

    One at a time: an answer is read before the next is asked.
    """

    #: Whether there is something to read whatever becomes of it: nobody need look whether it is overdue.
    rings = False

    @abstractmethod
    def ask(self, lease: str, attempts: Sequence[Attempt], settle: Sequence[tuple[Settlement, float]]) -> Readable:
        """What :meth:`Attempts.start` does, for several attempts, one after the other, in one step.

        Returns:
            What can be read from when the answer is there, or when there will be none: another one after a new
            connection.

        Raises:
            StoreUnavailable: the store was not reached; attempts may have been written down.

        **Failure:** dying right after leaves attempts that count although their bodies never ran.
        """

    @abstractmethod
    def answer(self) -> list[Started]:
        """The answers, in the order of the attempts; waits for them.

        Raises:
            StoreUnavailable: there is none; attempts may have been written down.
        """

    @abstractmethod
    def close(self) -> None:
        """Wait for no answer any more."""


class Attempts(ABC):
    """The record.

    Raises:
        StoreUnavailable: no answer; a write may have happened. All of them can be repeated.
    """

    @abstractmethod
    def earlier(self, message: str) -> Earlier:
        """What is known of a message; an attempt under a lease that is not open is over, and counts."""

    @abstractmethod
    def start(self, lease: str, attempt: Attempt, settle: Sequence[tuple[Settlement, float]] = ()) -> Started:
        """End attempts as :meth:`settle` does, then write a new one down (rule 1), all in one step.

        Refused unless the lease is open (rule 6) and nobody else runs the message, or has run it to its
        end. The same attempt again: :attr:`Started.YES`.

        **Failure:** dying right after leaves an attempt that counts although its body never ran.
        """

    def question(self) -> Question | None:
        """A way to ask for starts without waiting; None: this store has none."""
        return None

    @abstractmethod
    def settle(self, lease: str, settle: Sequence[tuple[Settlement, float]]) -> bool:
        """End attempts of an open lease, each with the seconds for which an end is remembered.

        ``ACK``: the message has come to its end. ``RELEASE``: it is delivered again, and the attempt counts if
        there is a payload (its ledger raised the count). ``DEFER``: it did not start after all. An attempt
        that is not the lease's, or not written down, is skipped.

        Returns:
            False: the lease is not open, nothing changed.
        """

    @abstractmethod
    def under(self, lease: str) -> list[Attempt]:
        """The attempts written down under a lease and not over."""

    @abstractmethod
    def holds(self, lease: str, claim: str) -> bool:
        """Whether the lease is open and this attempt written down under it."""

    @abstractmethod
    def interrupted(self, lease: str, claims: Iterable[str]) -> int:
        """Note that attempts of a lease that is not open are over and count; returns how many were not noted yet."""

    @abstractmethod
    def forget(self, lease: str) -> bool:
        """Drop the empty record of a lease; False: it is not empty."""
