"""One call for a lock, which may wait in line, lose answers, and be given up."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from time import monotonic

from celery_ha.model import Grant
from celery_ha.store import asking
from celery_ha.store.zookeeper.desk import Desk
from celery_ha.store.zookeeper.link import Conflict, Link, exists, get, sync
from celery_ha.store.zookeeper.ops import Check, Delete
from celery_ha.store.zookeeper.records import Waiter
from celery_ha.store.zookeeper.rules import View
from celery_ha.store.zookeeper.znodes import Paths, lock_key


@dataclass(frozen=True)
class _Answer:
    grant: Grant
    #: Where the caller stands in line; empty: it does not.
    place: str = ""
    #: Nothing will be granted any more: the lease is fenced, or the claim over.
    over: bool = False


class ZooKeeperAsking(asking.Asking):
    """A caller's question for a lock until it is decided.

    It has an id, the same in every repetition: a lock that was granted to it is known for its own, and its place
    in line outlives a lost connection. The place goes with the session, as all of an ensemble's ephemeral nodes do.

    Args:
        link: the session.
        paths: where our znodes are.
        desk: reads and changes locks.
        name: the lock.
        waiter: who asks; its ``ask`` is like no other's.
        limit: how many may hold it.
        wait: seconds to stand in line.
        piece: seconds after which a waiter looks whether it still stands there.
    """

    def __init__(
        self, link: Link, paths: Paths, desk: Desk, name: str, waiter: Waiter, limit: int, wait: float, piece: float
    ) -> None:
        super().__init__(wait)
        self._link = link
        self._paths = paths
        self._desk = desk
        self._name = name
        self._waiter = waiter
        self._limit = limit
        self._piece = piece

    def forget(self) -> None:
        """Leave the line and give back what was granted.

        A request of this session that is still on its way is done before this, or never.

        Raises:
            StoreUnavailable: no answer; ask again.
        """
        self._link.persist(self._leave)

    def _leave(self) -> None:
        self._catch_up()
        view = self._desk.read(self._name)
        if place := self._place(view):
            self._link.commit(Delete(place))
            view = self._desk.read(self._name)
        lease = self._paths.lease(self._waiter.holder.lease)
        (is_open,) = self._link.ask(exists(lease))
        slot = view.own(self._waiter.holder)
        if is_open is not None and slot is not None and view.lock.slots[slot].ask == self._waiter.ask:
            self._desk.change(view, view.lock.without(slot), Check(lease))

    def _once(self, *, lost: bool) -> Grant | None:
        """Ask, and stand in line until it is decided; None: ask again."""
        if lost:
            self._catch_up()
        answer = self._link.persist(self._ask)
        if answer.place:
            return self._stand(answer)
        if answer.grant.token is not None or answer.over or not self._left():
            return answer.grant
        return None  # nobody is granted anything now, so there is no line to stand in

    def _catch_up(self) -> None:
        """See what an earlier request did whose answer was lost: another server may have carried it on."""
        self._link.ask(sync(self._paths.root))

    def _ask(self) -> _Answer:
        """Take the best slot: our own, one that is due to us, a free one; those in line have the free ones first."""
        name, waiter, limit = self._name, self._waiter, self._limit
        holder = waiter.holder
        lease, end, fenced, gone, quiet = self._link.ask(
            exists(self._paths.lease(holder.lease)),
            exists(self._paths.end(holder.claim)),
            exists(self._paths.fence(holder.lease)),
            exists(self._paths.tombstone(holder.lease)),
            get(self._paths.at("quiet")),
        )
        if lease is None or end is not None:
            return _Answer(Grant(None), over=any(stat is not None for stat in (end, fenced, gone)))
        view = self._desk.read(name)
        if (found := self._desk.found(view, waiter)) is not None:
            return _Answer(found)
        if place := self._place(view):
            return _Answer(Grant(None, view.other(limit)), place)
        slot = view.due(holder.task, limit, self._desk.open_leases(view, holder.task))
        if slot is None and (free := view.free(limit)):
            if view.line:
                self._desk.serve(lock_key(name))
                view = self._desk.read(name)
                free = view.free(limit)
            slot = free[0] if free else None
        if slot is None:
            busy = Grant(None, view.other(limit))
            return _Answer(busy, self._desk.join(view, waiter, limit) if self._waits else "")
        if quiet is not None and view.now[0] < json.loads(quiet[0]):
            return _Answer(Grant(None))
        until = None if waiter.max_hold is None else monotonic() + waiter.max_hold
        return _Answer(Grant(self._desk.grant(view, slot, waiter, limit), until=until))

    def _stand(self, answer: _Answer) -> Grant | None:
        """Wait until our place in line is gone, at most until the deadline; what comes at the last moment counts.

        A line passes over those whose lease is not open any more, so they need not wait.

        Returns:
            None: the place is gone and we hold nothing, so somebody who has time left must ask anew. It went
            with its session, or was served while this process stood still for longer than its ``max_hold``.
        """
        bell = threading.Event()
        lease_path = self._paths.lease(self._waiter.holder.lease)
        with self._link.ringing(bell):
            while True:
                bell.clear()
                place, lease = self._link.ask(exists(answer.place, lambda _event: bell.set()), exists(lease_path))
                left = self._left()
                if place is None or lease is None or not left:
                    break
                bell.wait(min(left, self._piece))
        if place is not None:
            try:
                self._link.commit(Delete(answer.place))
            except Conflict:
                place = None  # it was served at the last moment
        found = self._desk.found(self._desk.read(self._name), self._waiter)
        if found is not None:
            return found
        return None if place is None and lease is not None and self._left() else answer.grant

    def _place(self, view: View) -> str:
        """Where this very call stands in line; empty: it does not."""
        begins = self._desk.place_of(self._waiter)
        name = next((name for name in view.line if name.startswith(begins)), "")
        return name and f"{self._paths.lock(lock_key(self._name))}/{name}"
