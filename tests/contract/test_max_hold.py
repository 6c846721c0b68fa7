"""Until when somebody holds a lock who was granted it while it waited, and heard of that late."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from celery_ha.store.memory import locks as memory
from celery_ha.store.redis.asking import RedisAsking
from celery_ha.store.zookeeper.desk import Desk
from celery_ha.testing.lines import LONG, acquire, callers, holder, release, wait_for

__all__ = ["callers", "wait_for"]

#: Seconds: how long it may be held; how long its new holder stands still before it hears of it.
MAX_HOLD, FROZEN = 20.0, 1.0


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    """Who waits stands still between the grant and the moment it hears of it."""

    def stand_still() -> None:
        time.sleep(FROZEN)
        if hasattr(backend, "clock"):
            backend.clock += FROZEN

    def after(call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def called(*args: Any) -> Any:
            found = call(*args)
            stand_still()
            return found

        return called

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def called(*args: Any) -> Any:
            stand_still()
            return call(*args)

        return called

    monkeypatch.setattr(RedisAsking, "_stand", after(RedisAsking._stand))
    monkeypatch.setattr(Desk, "found", before(Desk.found))
    monkeypatch.setattr(memory, "_granted", before(memory._granted))


def test_max_hold_of_who_waited_counts_from_the_grant(member, wait_for):
    a, b = member("a"), member("b")
    grant = acquire(a)
    waiting = wait_for(b, 2, max_hold=MAX_HOLD)
    released = time.monotonic()
    release(a, grant)

    got = waiting.result(LONG)

    answered = time.monotonic()
    assert got.token > grant.token
    assert released + MAX_HOLD - FROZEN / 2 < got.until < answered + MAX_HOLD - FROZEN / 2


def test_max_hold_that_is_over_when_its_holder_hears_of_the_grant_is_over(member, wait_for):
    a, b = member("a"), member("b")
    grant = acquire(a)
    waiting = wait_for(b, 2, seconds=FROZEN * 3, max_hold=FROZEN / 2)
    release(a, grant)

    got = waiting.result(LONG)

    known_over = got.token is None or got.until <= time.monotonic()
    assert known_over or b.store.locks.holds("x", holder(b, 2, "t2"), got.token)


def test_each_of_two_threads_of_one_claim_knows_its_own_max_hold(member, wait_for):
    a, b = member("a"), member("b")
    grants = [acquire(a, number, f"t{number}", limit=2) for number in (1, 2)]
    short = wait_for(b, 3, limit=2, max_hold=MAX_HOLD)
    long = wait_for(b, 3, limit=2, max_hold=10 * MAX_HOLD, line=2)
    for number in (2, 1):
        release(a, grants[number - 1], number, f"t{number}")

    first, second = short.result(LONG), long.result(LONG)

    assert first.token != second.token
    assert first.until < time.monotonic() + MAX_HOLD < time.monotonic() + 5 * MAX_HOLD < second.until


def test_what_is_left_is_known_although_another_limit_was_meant_before(member, wait_for):
    """While a new limit is rolled out, somebody may be granted a slot that the new one does not have."""
    a, b = member("a"), member("b")
    grants = [acquire(a, number, f"t{number}", limit=3) for number in (1, 2, 3)]
    waiting = wait_for(b, 4, seconds=FROZEN * 4, limit=2, max_hold=MAX_HOLD)
    release(a, grants[2], 3, "t3")
    release(a, grants[1], 2, "t2")

    got = waiting.result(LONG)

    assert got.token is not None
    assert got.until > time.monotonic()
    assert b.store.locks.holds("x", holder(b, 4, "t4"), got.token)
