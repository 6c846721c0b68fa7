"""What every store promises about those who wait for a lock (rule 9), and about limit and max_hold."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from celery_ha.model import Grant, Holder

INHERIT = 60.0
LONG = 30.0


@pytest.fixture
def judge(member):
    return member("judge")


@pytest.fixture
def callers():
    """Threads to wait in."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


def holder(member, number=1, task="t"):
    return Holder(member.lease, f"{member.lease}.{number}", task)


def acquire(member, number=1, task="t", name="x", **terms):
    return member.store.locks.acquire(name, holder(member, number, task), inherit=INHERIT, **terms)


def release(member, grant, number=1, task="t", name="x"):
    return member.store.locks.release(name, holder(member, number, task), grant.token)


@pytest.fixture
def wait_for(callers):
    """Have a member wait in a thread; returns once it stands in line."""

    def start(member, number, *, seconds=LONG, line=1, **terms) -> Future[Grant]:
        waiting = callers.submit(acquire, member, number, f"t{number}", wait=seconds, **terms)
        deadline = time.monotonic() + LONG
        while in_line(member) < line and not waiting.done():
            assert time.monotonic() < deadline, "it never stood in line"
            time.sleep(0.002)
        return waiting

    def in_line(member) -> int:
        return member.store.locks.waiting("x")

    return start


def test_who_waits_gets_the_lock_when_it_is_released(member, wait_for):
    a, b = member("a"), member("b")
    first = acquire(a)
    waiting = wait_for(b, 2)

    assert release(a, first)

    granted = waiting.result(LONG)
    assert granted.token > first.token
    assert b.store.locks.holds("x", holder(b, 2, "t2"), granted.token)


def test_who_waits_too_long_gets_nothing_and_leaves_the_line(member):
    a, b = member("a"), member("b")
    first = acquire(a)

    assert acquire(b, 2, "t2", wait=0.05).token is None

    assert release(a, first)
    assert acquire(a, 3, "t3").token is not None


def test_those_who_wait_are_served_in_the_order_they_came(member, wait_for):
    a, b, c = member("a"), member("b"), member("c")
    holding = acquire(a)
    members = [(b, 1), (c, 2), (b, 3), (c, 4), (a, 5)]
    waiting = [wait_for(who, number, line=place) for place, (who, number) in enumerate(members, 1)]

    served = []
    release(a, holding)
    for (who, number), grant in zip(members, waiting, strict=True):
        got = grant.result(LONG)
        served.append(got.token)
        assert sum(other.done() for other in waiting) == len(served)
        assert release(who, got, number, f"t{number}")

    assert served == sorted(served)


def test_nobody_overtakes_those_who_wait(member, wait_for):
    a, b, c = member("a"), member("b"), member("c")
    holding = acquire(a)
    waiting = wait_for(b, 2)
    release(a, holding)

    assert acquire(c, 3, "t3").token is None

    assert waiting.result(LONG).token is not None


def test_a_dead_waiter_is_passed_over(member, judge, wait_for):
    a, b, c = member("a"), member("b"), member("c")
    holding = acquire(a)
    dead = wait_for(b, 2, seconds=10.0)
    living = wait_for(c, 3, line=2)
    assert judge.fence(b)

    release(a, holding)

    assert living.result(LONG).token is not None
    assert dead.result(LONG).token is None


def test_a_waiter_whose_claim_ended_is_passed_over(member, wait_for):
    a, b, c = member("a"), member("b"), member("c")
    holding = acquire(a)
    gone = wait_for(b, 2, seconds=1.0)
    living = wait_for(c, 3, line=2)
    b.store.locks.ended(("b.2",))

    release(a, holding)

    assert living.result(LONG).token is not None
    assert gone.result(LONG).token is None


def test_a_fenced_holder_is_not_told_that_it_had_the_lock_to_the_end(member, judge):
    a = member("a")
    grant = acquire(a)
    assert judge.fence(a)

    assert release(a, grant) is None


def test_a_caller_that_was_given_up_before_it_asked_does_not_wait(member, judge, callers):
    b = member("b")
    assert judge.fence(b)

    assert callers.submit(acquire, b, wait=LONG).result(LONG / 2).token is None


def test_a_caller_whose_claim_ended_before_it_asked_does_not_wait(member, callers):
    b = member("b")
    b.store.locks.ended(("b.1",))

    assert callers.submit(acquire, b, wait=LONG).result(LONG / 2).token is None


def test_a_dead_holders_lock_goes_to_the_first_who_waits(member, judge, wait_for):
    a, b = member("a"), member("b")
    acquire(a)
    waiting = wait_for(b, 2)
    assert judge.fence(a)

    judge.store.locks.settle("a", {})

    assert waiting.result(LONG).token is not None


def test_the_end_of_a_claim_hands_its_lock_on(member, wait_for):
    a, b = member("a"), member("b")
    acquire(a)
    waiting = wait_for(b, 2)

    a.store.locks.ended(("a.1",))

    assert waiting.result(LONG).token is not None


def test_as_many_as_the_limit_hold_a_lock(member):
    a, b = member("a"), member("b")
    grants = [acquire(a, number, f"t{number}", limit=3) for number in range(3)]

    refused = acquire(b, 9, "t9", limit=3)

    assert len({grant.token for grant in grants}) == 3
    assert refused.token is None
    assert refused.holder is not None
    assert acquire(a, 1, "t1", limit=3) == Grant(grants[1].token, again=True)
    assert release(a, grants[1], 1, "t1")
    assert acquire(b, 9, "t9", limit=3).token > max(grant.token for grant in grants)


def test_each_slot_of_a_limit_is_handed_on(member, wait_for):
    a, b = member("a"), member("b")
    grants = [acquire(a, number, f"t{number}", limit=2) for number in range(2)]
    waiting = [wait_for(b, 10 + place, line=place, limit=2) for place in (1, 2)]

    assert release(a, grants[1], 1, "t1")
    assert waiting[0].result(LONG).token is not None
    assert release(a, grants[0], 0, "t0")
    assert waiting[1].result(LONG).token is not None


def test_max_hold_frees_a_lock_whatever_its_holder_does(member, backend):
    a, b = member("a"), member("b")
    old = acquire(a, max_hold=1.0)
    assert acquire(b, 2, "t2").token is None

    backend.pass_time(1.1)

    new = acquire(b, 2, "t2")
    assert new.token > old.token
    assert not a.store.locks.holds("x", holder(a), old.token)
    assert release(a, old) is False
    assert b.store.locks.holds("x", holder(b, 2, "t2"), new.token)


def test_the_sweep_serves_those_who_wait_when_max_hold_is_over(member, backend, wait_for):
    a, b = member("a"), member("b")
    acquire(a, max_hold=0.2)
    waiting = wait_for(b, 2)

    backend.pass_time(0.3)
    b.store.locks.sweep()

    assert waiting.result(LONG).token is not None


def test_a_name_may_have_any_characters_and_be_long(member):
    a, b = member("a"), member("b")
    names = ["0:x", "1:x", "x", "x:1", "a b\n\t\0", "ключ/锁?*[]{}%", "/", ".", "..", "x" * 1024]

    grants = [acquire(a, number, f"t{number}", name=name) for number, name in enumerate(names)]

    assert all(grant.token for grant in grants)
    for number, name in enumerate(names):
        assert acquire(b, 99, "t99", name=name).holder == holder(a, number, f"t{number}")
        assert release(a, grants[number], number, f"t{number}", name=name)


def test_many_callers_and_one_lock_never_two_holders(member, callers):
    members = [member(name) for name in "abcd"]
    inside, seen = threading.Lock(), []

    def work(number: int) -> None:
        who = members[number % len(members)]
        grant = acquire(who, number, f"t{number}", wait=LONG)
        assert inside.acquire(blocking=False), "two holders"
        seen.append(grant.token)
        inside.release()
        assert release(who, grant, number, f"t{number}")

    list(callers.map(work, range(40)))

    assert seen == sorted(set(seen))
    assert len(seen) == 40
