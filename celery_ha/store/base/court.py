"""The port to the court: who looks at others, leads, and fences."""

from __future__ import annotations

from abc import ABC, abstractmethod

from celery_ha.model import Look, Recovered, Rings, Verdict


class Court(ABC):
    """What observers, deputies and the leader do about all the others."""

    @abstractmethod
    def look(self) -> Look:
        """See all leases, the leader, the unfinished recoveries and the registered connections that are there."""

    @abstractmethod
    def elect(self, lease: str) -> int | None:
        """Become leader if the office is vacant (no record, or its holder's lease is not open).

        Returns the new term, or None if somebody holds the office or ``lease`` is not open.
        """

    @abstractmethod
    def depose(self, lease: str, verdict: Verdict, *, term: int, rounds: int, fence: bool) -> int | None:
        """Take the office from a leader, in one step, if it still looks as it was judged.

        ``fence``: the leader's lease is judged dead (``verdict``) and fenced in the same step
        (rule 10). Otherwise only its judging stood still (``rounds`` unchanged): it loses the office
        and keeps its lease. Returns the new term or None.
        """

    @abstractmethod
    def finish_round(self, lease: str, term: int) -> bool:
        """Renew leadership: a round of judging is done. False: deposed."""

    @abstractmethod
    def keep_rings(self, term: int, by: str, version: int, rings: Rings) -> bool:
        """Write down who owns which shard, for whoever works out the rings after the next change of members.

        One step, only if ``by`` still leads in ``term`` and the membership is still of that version: rings
        that follow from other members, or from other rings, would divide those who have read them from those
        who have not. Rings nobody's bell, because it changes no ring. False: refused; look again.
        **Failure:** dying before it leaves the rings from before, and the next change is worked out from those:
        it may move more than it must. A store that loses its memory loses them, as it loses the members.
        """

    @abstractmethod
    def fence(self, term: int, by: str, verdict: Verdict) -> bool:
        """Refuse every later write of a lease.

        Only if ``by`` still leads in ``term`` and counter and connections are those judged. The lease
        moves from the open ones to the fenced ones; membership changes and every node's bell rings.
        **Failure:** dying right after leaves the fence in the store; the next leader's look finds it
        and recovers.
        """

    def doubt(self, lease: str) -> bool:
        """Tell all observers, for :data:`~celery_ha.model.DOUBT` seconds, that the broker has given up a connection.

        It kills nobody: see :mod:`celery_ha.detector`. The leader is woken; if it is the one in doubt, everybody.
        A store that knows of no connections takes no notice. Returns whether that is news, of an open lease.
        **Failure:** a doubt that is lost costs time.
        """
        return False

    @abstractmethod
    def refuse(self, term: int, by: str, lease: str) -> bool:
        """Refuse a stranger for good: a lease that the broker knows and that is not open here (rule 6).

        One step, only if ``by`` still leads in ``term``: a lease that opened in time is left alone, one
        that did not finds itself :class:`~celery_ha.errors.Fenced` when it opens. Returns whether it is
        refused from now on, by this call or since an earlier one. The tombstone stands for an hour; a
        store that loses its memory forgets it, as it forgets every fence.
        **Failure:** dying right after leaves a lease that opens no more; what it holds stays on the
        broker, where the next leader finds the stranger again.
        """

    @abstractmethod
    def recovered(self, result: Recovered) -> bool:
        """Recovery of a fenced lease is finished: forget it, keep a bounded history entry with a TTL.

        False if the lease is not fenced, or still has locks that were not settled. For an hour a
        tombstone tells a zombie that it was fenced.
        """
