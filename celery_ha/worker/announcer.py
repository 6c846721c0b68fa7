"""Tells what a node decides, about itself and about others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from time import monotonic

from celery_ha.failover.observer import Observed
from celery_ha.failover.roles import Role
from celery_ha.telling import news
from celery_ha.telling.teller import Teller
from celery_ha.worker.announce import Told, announce

logger = logging.getLogger(__name__)


class Announcer:
    """What a node has to tell.

    Args:
        teller: who tells.
        name: of the node.
        lease: its current one; empty if there is none.
        queue_of: the queue that a claim's source is a part of.
    """

    def __init__(self, teller: Teller, name: str, lease: Callable[[], str], queue_of: Callable[[str], str]) -> None:
        self.teller = teller
        self._name = name
        self._lease = lease
        self._queue_of = queue_of
        self._told = Told()
        #: Whether the node led at the last look.
        self.leads = False
        #: How many shards it consumes.
        self.owned = 0

    def tell(self, kind: news.Kind, **fields: object) -> None:
        """Tell something about this node and its current lease; from any thread."""
        self.teller.tell(kind, **{"node": self._name, "lease": self._lease(), **fields})

    def observed(self, observed: Observed, silent: Collection[str]) -> None:
        """Tell what a step of the observer saw and did; from its thread, which goes on whatever happens here."""
        try:
            self.leads = observed.role is Role.LEADER
            if observed.look is not None and observed.look.leader is not None:
                self.teller.term = observed.look.leader.term
            self._told, found = announce(self._told, observed, self._name, silent, self._queue_of, monotonic())
            for each in found:
                self.teller.tell(each.kind, **each.fields)
        except Exception:
            logger.exception("What was decided cannot be told")

    def buried(self, claim: str, reason: str, cause: str, task_id: object, task: object) -> None:
        """Tell of a message that is on its way to the dead letters; from any thread.

        Args:
            claim: of the message.
            reason: why, for people.
            cause: why, in a word; see :data:`celery_ha.telling.news.DEAD_LETTER`.
            task_id: its task, as far as that can be read.
            task: the name of it, the same.
        """
        who = {"task_id": str(task_id or ""), "task": str(task or "")}
        self.tell(news.DEAD_LETTER, claim=claim, reason=reason, cause=cause, **who)

    def moved(self, reason: str, before: AbstractSet[str], after: AbstractSet[str]) -> None:
        """Tell of shards that were taken over and let go of, if there are any.

        Args:
            reason: why.
            before: what was consumed.
            after: what is consumed from now on.
        """
        self.owned = len(after)
        if before != after:
            counts = {"gained": len(after - before), "lost": len(before - after), "owned": len(after)}
            self.tell(news.SHARDS, reason=reason, **counts)
