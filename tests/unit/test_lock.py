"""One lock in one hand: what its holder is told."""

from __future__ import annotations

import pytest

from celery_ha.errors import LockLost
from celery_ha.locks.lock import Lock
from celery_ha.model import Holder, Node
from celery_ha.store.memory import MemoryServer, MemoryStore
from tests.support.fleet import eventually


@pytest.mark.parametrize(("raised", "lost"), [(LockLost, True), (KeyboardInterrupt, False)])
def test_release_that_the_loss_of_another_lock_cuts_off_says_that_this_one_is_lost_too(
    raised: type[BaseException], lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore(MemoryServer())
    store.leases.open(Node("a", "a@host"))
    lock, release, cut = Lock(store.locks, "x", Holder("a", "a.1", "t"), inherit=0), store.locks.release, [raised]

    def cut_off(*args: object) -> object:
        if cut:
            raise cut.pop()
        return release(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(store.locks, "release", cut_off)
    lock.acquire()
    with pytest.raises(raised):
        lock.release()
    assert lock.lost is lost
    eventually(lambda: store.locks.claims("a") == frozenset(), why="somebody else gave it back")
