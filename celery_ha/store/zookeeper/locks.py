"""Locks that belong to a lease, in ZooKeeper."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from functools import partial

from celery_ha.model import Grant, Holder
from celery_ha.store.base import LockStore
from celery_ha.store.persistent import Persistent
from celery_ha.store.zookeeper.asking import ZooKeeperAsking
from celery_ha.store.zookeeper.broom import Broom
from celery_ha.store.zookeeper.clock import Clock
from celery_ha.store.zookeeper.desk import Desk
from celery_ha.store.zookeeper.link import Link, children, exists, sync
from celery_ha.store.zookeeper.ops import Check, Create
from celery_ha.store.zookeeper.records import Waiter
from celery_ha.store.zookeeper.rules import View
from celery_ha.store.zookeeper.znodes import Entry, Paths, lock_key

#: Seconds for which the end of a claim is remembered; longer than any request waits in a socket.
ENDED_TTL = 600.0
#: Locks looked at by one sweep.
SWEEP = 200


class ZooKeeperLocks(LockStore):
    """Locks in ZooKeeper; see :class:`~celery_ha.store.base.LockStore`.

    A token is the number of the transaction that granted the lock (its zxid), after kazoo's and
    ZooKeeper's advice for fencing tokens: it grows with every write to the ensemble. Times are the
    server's, known to a round trip.

    Args:
        link: the session.
        paths: where our znodes are.
        clock: the server's time.
        timeout: seconds for every call; a wait is cut into pieces shorter than that.
    """

    def __init__(self, link: Link, paths: Paths, clock: Clock, timeout: float) -> None:
        self._link = link
        self._paths = paths
        self._clock = clock
        self._desk = Desk(link, paths, clock)
        self._ends = Broom(link, clock, paths.at("ended"), ENDED_TTL)
        self._slice = timeout / 2
        self._persistent = Persistent()

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
        waiter = Waiter(holder, inherit, max_hold, ask=secrets.token_hex(8))
        asking = ZooKeeperAsking(self._link, self._paths, self._desk, name, waiter, limit, wait, self._slice)
        try:
            return asking.decide()
        except BaseException:
            # A time limit, the loss of another lock, a store that does not answer: nobody waits any more, and
            # what is granted would be held for as long as the lease lives.
            self._persistent.run(asking.forget)
            raise

    def release(self, name: str, holder: Holder, token: int) -> bool | None:
        if self._change(lock_key(name), lambda view: view.own(holder, token), holder.lease):
            return True
        return False if self._is_open(holder.lease) else None

    def holds(self, name: str, holder: Holder, token: int) -> bool:
        # Whoever asks must not hear of yesterday: another server may have taken the fence.
        _, lease = self._link.ask(sync(self._paths.root), exists(self._paths.lease(holder.lease)))
        return lease is not None and self._desk.read(name).own(holder, token) is not None

    def ended(self, claims: tuple[str, ...], tasks: tuple[str, ...] = ()) -> int:
        freed = 0
        for claim in claims:
            self._link.persist(partial(self._remember, claim))
            lease = claim.rpartition(".")[0] or claim
            entries = [entry for entry in self._listed(self._paths.hand(lease)) if entry.owner == claim]
            freed += sum(self._free(entry, lease, only_open=True) for entry in entries)
        if tasks:
            entries = [entry for entry in self._listed(self._paths.at("due")) if entry.owner in tasks]
            freed += sum(self._free(entry) for entry in entries)
        self._ends.sweep()
        return freed

    def claims(self, lease: str) -> frozenset[str]:
        return frozenset(entry.owner for entry in self._listed(self._paths.hand(lease)))

    def settle(self, lease: str, restarted: Mapping[str, str]) -> int:
        entries = self._listed(self._paths.hand(lease))
        if self._is_open(lease):
            return 0
        return sum(self._free(entry, lease, heir=restarted.get(entry.owner, "")) for entry in entries)

    def waiting(self, name: str) -> int:
        return len(self._desk.read(name).line)

    def sweep(self) -> int:
        entries = self._listed(self._paths.at("due"))
        keys = sorted({entry.key for entry in random.sample(entries, min(SWEEP, len(entries)))})
        return sum(self._link.persist(partial(self._desk.serve, key)) for key in keys)

    def _remember(self, claim: str) -> None:
        (stat,) = self._link.ask(exists(self._paths.end(claim)))
        if stat is None:
            self._link.commit(Create(self._paths.end(claim)))

    def _listed(self, folder: str) -> list[Entry]:
        # What others wrote over other servers counts.
        _, names = self._link.ask(sync(self._paths.root), children(folder))
        return [Entry.parse(name) for name in names or ()]

    def _free(self, entry: Entry, lease: str = "", heir: str = "", *, only_open: bool = False) -> bool:
        """Free the slot of an index entry, if it still is whose it was.

        Args:
            entry: what the index says.
            lease: under which its claim holds it; empty: it is in trust for a task.
            heir: a task to keep it for, instead.
            only_open: not if the lease was fenced.
        """

        def chosen(view: View) -> int | None:
            held = view.lock.slots.get(entry.slot)
            if held is None or held.holder.lease != lease:
                return None
            return entry.slot if entry.owner == (held.holder.claim if lease else held.holder.task) else None

        return self._change(entry.key, chosen, lease if only_open else "", heir)

    def _change(self, key: str, choose: Callable[[View], int | None], lease: str = "", heir: str = "") -> bool:
        """Free or entrust a slot, if the lease is open where one is named; returns whether it was held until now."""
        conditions = (Check(self._paths.lease(lease)),) if lease else ()

        def attempt() -> bool:
            view = self._desk.read_key(key)
            slot = None if view is None else choose(view)
            if view is None or slot is None or (lease and not self._is_open(lease)):
                return False
            held = view.held(slot)
            keep = heir and held is not None and held.inherit > 0
            self._desk.change(view, view.entrusted(slot, heir) if keep else view.lock.without(slot), *conditions)
            return held is not None

        return self._link.persist(attempt)

    def _is_open(self, lease: str) -> bool:
        (stat,) = self._link.ask(exists(self._paths.lease(lease)))
        return stat is not None
