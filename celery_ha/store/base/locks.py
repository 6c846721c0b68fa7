"""The port to locks that belong to leases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from celery_ha.model import Grant, Holder


class LockStore(ABC):
    """Locks that belong to a lease, with tokens that strictly grow."""

    @abstractmethod
    def acquire(
        self,
        name: str,
        holder: Holder,
        *,
        inherit: float,
        limit: int = 1,
        max_hold: float | None = None,
        wait: float = 0.0,
    ) -> Grant:
        """Grant the lock if it is free, ours already, or held in trust for this task.

        Args:
            name: any characters, at most 1 KB as UTF-8.
            holder: who asks.
            inherit: seconds for which it is kept for the holder's task if the holder dies (rule 8).
            limit: how many may hold it at a time; all who ask must say the same.
            max_hold: seconds after which it is free, whatever the holder does; None: never.
            wait: seconds to stand in line for it; those who stand there are served in the order they came.

        Returns:
            The grant; busy after ``wait`` seconds, or as soon as nothing will be granted any more because
            the lease is fenced or the claim over.

        Raises:
            StoreUnavailable: the store did not answer, not within ``wait`` seconds either; the lock may have
                been granted, now or later, until :meth:`ended` is told of the claim.

        Refused (busy) when the holder's lease is not open, and without naming a holder when :meth:`ended`
        was told of its claim: a request may arrive after its claim is over. Same holder: same token. The same task
        under another claim takes over only if the holder's claim has ended (rule 4); a lock in trust
        (rule 8) goes to its own task at once and to anybody after ``inherit`` seconds.
        Token = max(previous + 1, server time in microseconds) (rule 12). After a new server run, or
        when a lease re-asserts itself after a loss of memory, nothing new is granted for a TTL: busy,
        without a holder.

        A free lock that others stand in line for goes to the first of them, also if somebody else asks
        first (rule 9). Whatever frees a lock hands it on in the same step: a caller that waits is
        granted it, a parked message goes to the front of its queue with the lock in trust for its task.
        """

    @abstractmethod
    def release(self, name: str, holder: Holder, token: int) -> bool | None:
        """Free the lock if this holder has it with this token, and hand it on.

        Returns:
            Whether it had it; None: its lease is not open, so somebody else may have had it at any time since.
        """

    @abstractmethod
    def holds(self, name: str, holder: Holder, token: int) -> bool:
        """Whether this holder has the lock with this token and its lease is open."""

    @abstractmethod
    def ended(self, claims: tuple[str, ...], tasks: tuple[str, ...] = ()) -> int:
        """Free the locks of claims that ended (rule 5); returns how many.

        Only claims of an open lease: those of a fenced one are settled. ``tasks``: ids of tasks that
        will not come back (dropped or dead-lettered); what is in trust for them is freed (rule 8).
        Each claim is remembered for ten minutes: a request for a lock that its caller gave up, but that
        the server still reads, must not take a lock that nobody would free.
        **Failure:** dying before leaves the locks to the settlement of the lease; repeating is harmless.
        """

    @abstractmethod
    def settle(self, lease: str, restarted: Mapping[str, str]) -> int:
        """Settle the locks of a fenced lease (rule 8); returns how many there were.

        ``restarted``: claim id -> task id of what was requeued. Their locks are held in trust for the
        task, for the ``inherit`` seconds asked for when they were acquired; all others are freed.
        Nothing happens while the lease is open.
        """

    @abstractmethod
    def waiting(self, name: str) -> int:
        """How many stand in line for a lock."""

    @abstractmethod
    def sweep(self) -> int:
        """Hand on locks that became free with nobody there to do it: ``max_hold`` or a trust was over (rule 9).

        Returns how many; repeating is harmless. A few hundred locks at a time.
        """
