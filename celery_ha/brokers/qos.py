"""kombu's bookkeeping of unacknowledged messages, for messages that are claims."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis, virtual

from celery_ha.brokers.ledger import Ledger
from celery_ha.model import Ending


class ClaimQoS(redis.QoS):
    """Ends claims in the ledger; leaves every other message to kombu.

    The ledger is the one of the lease the message was claimed under, also after that lease is gone:
    a late ack then goes nowhere (G2).
    """

    ledger: Ledger | None = None

    def append(self, message: Any, delivery_tag: str) -> None:
        if self._claimed(delivery_tag):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        if self._claimed(delivery_tag):
            self._end(delivery_tag, Ending.ACK)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        if self._claimed(delivery_tag):
            self._end(delivery_tag, Ending.RELEASE if requeue else Ending.DEAD, "rejected")
        else:
            super().reject(delivery_tag, requeue=requeue)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give nothing back on a connection that may be dead: the lease's owner or its heirs do it.

        kombu 5.7 raises AttributeError here when the connection is lost, and the worker exits.
        """
        if self.ledger is None:
            super().restore_unacked_once(stderr)
        else:
            self._on_collect.cancel()

    def bury(self, delivery_tag: str, reason: str) -> None:
        """To the dead letters."""
        self._end(delivery_tag, Ending.DEAD, reason)

    def drop(self, delivery_tag: str) -> None:
        """Stop counting a claim that was ended in the ledger by somebody else."""
        virtual.QoS.ack(self, delivery_tag)

    def free(self, limit: int) -> int:
        """How many more messages the prefetch count allows, at most ``limit``."""
        allowed = self.can_consume_max_estimate()
        return limit if allowed is None else min(allowed, limit)

    def _claimed(self, delivery_tag: str) -> bool:
        ledger = self.ledger
        return ledger is not None and str(delivery_tag).startswith(f"{ledger.lease}.")

    def _end(self, delivery_tag: str, ending: Ending, reason: str = "") -> None:
        if self.ledger is not None:
            self.ledger.end(delivery_tag, ending, reason=reason)
        virtual.QoS.ack(self, delivery_tag)
