"""Attempts, in the ZooKeeper that is the store.

A message that is tried is a znode under ``tries``, its data who tries it; its claim is listed under the
lease. The end of a message is remembered, under ``ends``, only if its ack could not be sent: ZooKeeper
keeps what it is told until somebody deletes it. The count of a message that never comes back here, because
a plain worker ran it or somebody purged its queue, is swept when leases end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from celery_ha.attempts.base import ACK_OWED, ACK_SENT, COUNTED, Attempt, Attempts, Earlier, Question, Started
from celery_ha.attempts.threaded import ThreadedQuestion
from celery_ha.errors import SchemaError
from celery_ha.model import Ending, Settlement
from celery_ha.store.zookeeper.broom import Broom
from celery_ha.store.zookeeper.link import Conflict, children, exists, get
from celery_ha.store.zookeeper.ops import Check, Create, Delete, Op, Write
from celery_ha.store.zookeeper.store import ZooKeeperStore
from celery_ha.store.zookeeper.znodes import lease_of, lock_key

T = TypeVar("T")

_SCHEMA = 1


@dataclass(frozen=True)
class _Try:
    """A znode under ``tries`` as it was read; without a lease nobody tries the message now."""

    count: int = 0
    lease: str = ""
    claim: str = ""
    harmless: bool = False
    #: Below 0: it is not there.
    version: int = -1

    def data(self) -> bytes:
        fields = {"count": self.count, "lease": self.lease, "claim": self.claim, "harmless": self.harmless}
        return json.dumps({"schema": _SCHEMA, **fields}).encode()


class ZooKeeperAttempts(Attempts):
    """See :class:`~celery_ha.attempts.base.Attempts`.

    Args:
        store: the store.
    """

    def __init__(self, store: ZooKeeperStore) -> None:
        self._link = store.link
        self._paths = store.paths
        self._broom = Broom(store.link, store.clock, store.paths.at("ends"), ACK_OWED)
        self._counts = Broom(
            store.link, store.clock, store.paths.at("tries"), COUNTED, spares=lambda data: bool(_parsed(data)["lease"])
        )
        #: What was written down here, as it was: saves two questions before each end.
        self._known: dict[str, tuple[Attempt, _Try]] = {}

    def earlier(self, message: str) -> Earlier:
        found, ended = self._look(message)
        if ended:
            return Earlier(ended=True)
        current = self._now(found)
        return Earlier(current.count, current.lease, harmless=current.harmless)

    def start(self, lease: str, attempt: Attempt, settle: Sequence[tuple[Settlement, float]] = ()) -> Started:
        wrote = _Try()

        def try_(*, first: bool) -> Started:
            nonlocal wrote
            path = self._path("tries", attempt.message)
            there, found, ended = self._link.ask(
                exists(self._paths.lease(lease)), get(path), exists(self._path("ends", attempt.message))
            )
            if there is None:
                return Started.CLOSED
            # A start that was put off and is asked for again: it is written down already.
            others = [item for item in settle if item[0].claim != attempt.claim]
            ends = self._endings(lease, others, trust=first)
            current = self._now(_read(found))
            if current.claim == attempt.claim or (ended is not None and attempt.once) or current.lease:
                self._commit(lease, ends)
                wrote = current
                return Started.YES if current.claim == attempt.claim else Started.NOT_NOW
            mine = replace(current, lease=lease, claim=attempt.claim, harmless=False)
            what = json.dumps([attempt.message, attempt.task, attempt.queue]).encode()
            listed = Create(self._paths.attempt(lease, attempt.claim), what)
            self._commit(lease, [*ends, self._put(attempt.message, mine), listed])
            wrote = replace(mine, version=mine.version + 1)  # a new znode's is 0
            return Started.YES

        started = self._persist(lambda first: self._listed(lease, lambda: try_(first=first)))
        if started is Started.YES:
            self._known[attempt.claim] = attempt, wrote
        self._settled(settle)
        return started

    def question(self) -> Question:
        return ThreadedQuestion(self.start)

    def settle(self, lease: str, settle: Sequence[tuple[Settlement, float]]) -> bool:
        def end(*, first: bool) -> bool:
            ends = self._endings(lease, settle, trust=first)
            if first and ends:  # that the lease is open is a condition of the write
                self._commit(lease, ends)
                return True
            (there,) = self._link.ask(exists(self._paths.lease(lease)))
            if there is not None:
                self._commit(lease, ends)
            return there is not None

        done = self._persist(lambda first: end(first=first))
        self._settled(settle)
        return done

    def under(self, lease: str) -> list[Attempt]:
        found = [self._attempt(lease, claim) for claim in self._claims(lease)]
        return [attempt for attempt in found if attempt is not None]

    def holds(self, lease: str, claim: str) -> bool:
        wanted = (self._paths.lease(lease), self._paths.attempt(lease, claim))
        return None not in self._link.ask(*map(exists, wanted))

    def interrupted(self, lease: str, claims: Iterable[str]) -> int:
        if self._link.ask(exists(self._paths.lease(lease)))[0] is not None:
            return 0
        counted = 0
        for claim in claims:
            item = Settlement(claim, Ending.RELEASE, payload=b"")

            def note(item: Settlement = item) -> bool:
                ops = self._end(lease, item, ACK_OWED, lived=False)
                self._link.commit(*ops) if ops else None
                return bool(ops)

            counted += self._link.persist(note)
        return counted

    def forget(self, lease: str) -> bool:
        if self._claims(lease):
            return False
        with suppress(Conflict):  # never made, or somebody else forgot it
            self._link.commit(Delete(self._paths.attempts(lease)))
        self._counts.sweep()
        return True

    # -- reading ----------------------------------------------------------------------------

    def _look(self, message: str) -> tuple[_Try, bool]:
        """Who tries a message, as it was written, and whether it has ended."""
        found, end = self._link.ask(get(self._path("tries", message)), exists(self._path("ends", message)))
        return _read(found), end is not None

    def _now(self, found: _Try) -> _Try:
        """The same as it is: an attempt under a lease that is not open is over, and counts."""
        if not found.lease or self._link.ask(exists(self._paths.lease(found.lease)))[0] is not None:
            return found
        return replace(found, count=found.count + 1, lease="", claim="")

    def _claims(self, lease: str) -> list[str]:
        (names,) = self._link.ask(children(self._paths.attempts(lease)))
        return [lease_of(name) for name in names or ()]

    def _attempt(self, lease: str, claim: str) -> Attempt | None:
        known = self._known.get(claim)
        if known is not None:
            return known[0]
        (found,) = self._link.ask(get(self._paths.attempt(lease, claim)))
        return None if found is None else Attempt(claim, *json.loads(found[0]))

    # -- writing ----------------------------------------------------------------------------

    def _commit(self, lease: str, ops: Sequence[Op]) -> None:
        if ops:
            self._link.commit(Check(self._paths.lease(lease)), *ops)

    def _listed(self, lease: str, attempt: Callable[[], Started]) -> Started:
        """Run an attempt to start; the first under a lease finds no list to be put on."""
        try:
            return attempt()
        except Conflict:
            (there,) = self._link.ask(exists(self._paths.attempts(lease)))
            if there is None:
                self._link.commit(Create(self._paths.attempts(lease)))
            raise

    def _persist(self, attempt: Callable[[bool], T]) -> T:
        """As the link's; the attempt is told whether it is the first, which may trust what was written here."""
        first = iter((True,))
        return self._link.persist(lambda: attempt(next(first, False)))

    def _endings(self, lease: str, settle: Sequence[tuple[Settlement, float]], *, trust: bool) -> list[Op]:
        return [op for item, memory in settle for op in self._end(lease, item, memory, trust=trust)]

    def _end(self, lease: str, item: Settlement, memory: float, *, lived: bool = True, trust: bool = False) -> list[Op]:
        """What ends one attempt; nothing, if it is not written down.

        Args:
            lease: whose it is.
            item: how it ends.
            memory: seconds for which an end is remembered.
            lived: the lease is open.
            trust: take what was written here for what is there, unread. While the lease is open nobody else writes it;
                if it is otherwise the write is refused by its conditions, and decided again.
        """
        attempt = self._attempt(lease, item.claim)
        if attempt is None:
            return []
        message = attempt.message
        listed = Delete(self._paths.attempt(lease, item.claim))
        known = self._known.get(item.claim)
        if trust and known is not None and memory <= ACK_SENT:
            found, ended = known[1], False
        else:
            found, ended = self._look(message)
        if found.claim != item.claim:
            # Somebody else's by now; or ended by us before, in a call whose answer was lost.
            return [listed] if self._link.ask(exists(listed.path))[0] is not None else []
        if item.ending is Ending.ACK:
            gone = Delete(self._path("tries", message), found.version)
            remembered = [] if memory <= ACK_SENT or ended else [Create(self._path("ends", message))]
            return [listed, gone, *remembered]
        counts = item.ending is Ending.RELEASE and item.payload is not None
        back = replace(found, count=found.count + counts, lease="", claim="", harmless=lived)
        return [listed, self._put(message, back)]

    def _put(self, message: str, new: _Try) -> Op:
        path = self._path("tries", message)
        if new.version < 0:
            return Create(path, new.data())
        return Write(path, new.data(), new.version)

    def _settled(self, settle: Sequence[tuple[Settlement, float]]) -> None:
        for item, _ in settle:
            self._known.pop(item.claim, None)
        if any(memory > ACK_SENT for _, memory in settle):
            self._broom.sweep()

    def _path(self, folder: str, message: str) -> str:
        return f"{self._paths.at(folder)}/{lock_key(message)}"


def _read(found: tuple[bytes, Any] | None) -> _Try:
    if found is None:
        return _Try()
    return _Try(**_parsed(found[0]), version=found[1].version)


def _parsed(data: bytes) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(data)
    if record.pop("schema") != _SCHEMA:
        raise SchemaError("an attempt was written by a newer version; update this one")
    return record
