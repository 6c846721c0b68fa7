"""The port to leases: what a node does about its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf

from celery_ha.model import Node, Renewal


class LeaseStore(ABC):
    """What a node does about its own lease."""

    @property
    def notice(self) -> float:
        """Seconds without a sign of life after which the store itself takes this process for gone.

        Trust must be over by then, however long the lease's TTL is. Infinite where only a closed
        connection tells: a process that is still there keeps its connections.
        """
        return inf

    @abstractmethod
    def open(self, node: Node) -> str:
        """Register a node under its new lease and return the store's epoch.

        The adapter fills in ``connections`` and ``opened``. A predecessor of the same name is left to the
        leader. Opening the same lease again replaces its node (re-assertion
        after a store that lost its memory); a fenced lease is refused with
        :class:`~celery_ha.errors.Fenced`.

        **Failure:** dying right after leaves an open lease that holds nothing; the leader fences it.
        """

    @abstractmethod
    def renew(self, lease: str) -> Renewal:
        """Move the lease's renewal counter on, if it is open.

        If the connection was re-established since the last call, registers the new connection ids
        in the same step, so that the watch never looks for ids that are gone for a good reason.
        """

    @abstractmethod
    def update(self, lease: str, weight: int, *, leaving: bool = False) -> bool:
        """Change what a node offers, if its lease is open; a change is told to every node.

        Args:
            lease: whose.
            weight: the share of shards it takes from now on.
            leaving: it drains.

        Returns:
            Whether the lease is open.
        """

    @abstractmethod
    def close(self, lease: str, *, clean: bool) -> bool:
        """Say goodbye. ``clean``: the lease holds nothing and is deleted.

        Rule 7: otherwise it is fenced by itself and waits for recovery like a death; so is a lease
        that closes cleanly but still holds locks. Returns True if the lease was ended the way that was
        asked for; False if it was not open, or clean was asked for and it had to be fenced.
        """

    @abstractmethod
    def wait(self, lease: str, timeout: float) -> bool:
        """Sleep until a change of membership rings this node's own bell, at most ``timeout`` seconds."""
