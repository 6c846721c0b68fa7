"""One lock in one hand: what its holder is told."""

from __future__ import annotations

import pytest

from celery_ha.errors import LockLost
from celery_ha.locks import watch
from celery_ha.locks.lock import Lock
from celery_ha.model import Holder, Node
from celery_ha.store.memory import MemoryServer, MemoryStore
from tests.support.fleet import eventually


@pytest.mark.parametrize(
    ("raised", "open_", "lost"),
    [(LockLost, True, False), (LockLost, False, True), (KeyboardInterrupt, True, False)],
    ids=["another lock is lost", "all of them are", "an interrupt"],
)
def test_release_that_is_cut_off_says_whether_this_lock_is_lost(
    raised: type[BaseException], open_: bool, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cuts it off is raised in this thread by another one: by the loss of an outer lock, or by a signal."""
    store = MemoryStore(MemoryServer())
    store.leases.open(Node("a", "a@host"))
    lock, release, cut = Lock(store.locks, "x", Holder("a", "a.1", "t"), inherit=0), store.locks.release, [raised]

    def cut_off(*args: object) -> object:
        if cut:
            raise cut.pop()
        return release(*args) if open_ else None  # type: ignore[arg-type]

    monkeypatch.setattr(store.locks, "release", cut_off)
    lock.acquire()
    with pytest.raises(raised):
        lock.release()
    assert lock.lost is lost
    if open_:
        eventually(lambda: store.locks.claims("a") == frozenset(), why="somebody else gave it back")


def test_a_lock_that_is_lost_while_it_is_released_does_not_end_the_watch_of_others():
    lock = Lock(None, "x", Holder("a", "a.1", "t"), inherit=0)
    lock.lost = True
    watch._tell(watch._Watch([lock], "flag", lambda: True, 0))
