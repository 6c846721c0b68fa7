"""What every store promises about locks (rules 4, 5, 6, 8 and 12)."""

from __future__ import annotations

import pytest

from celery_ha.model import Grant, Holder, Recovered

INHERIT = 60.0


@pytest.fixture
def judge(member):
    return member("judge")


def holder(member, number=1, task="t"):
    return Holder(member.lease, f"{member.lease}.{number}", task)


def acquire(member, number=1, task="t", name="x", inherit=INHERIT):
    return member.store.locks.acquire(name, holder(member, number, task), inherit=inherit)


def test_a_lock_has_one_holder(member):
    a, b = member("a"), member("b")

    granted = acquire(a)
    refused = acquire(b, task="other")

    assert granted.token is not None
    assert refused == Grant(None, Holder("a", "a.1", "t"))


def test_two_claims_of_one_node_exclude_each_other(member):
    a = member("a")
    acquire(a, 1, "t1")

    assert acquire(a, 2, "t2").token is None


def test_the_same_claim_gets_the_same_token(member):
    a = member("a")
    first = acquire(a)

    assert acquire(a) == Grant(first.token, again=True)


def test_an_owner_is_told_which_of_its_claims_hold_locks(member):
    a, b = member("a"), member("b")
    first, second = acquire(a, 1), acquire(a, 2, name="y")
    acquire(b, 1, name="z")

    assert a.store.locks.claims("a") == {"a.1", "a.2"}
    assert a.store.locks.release("x", holder(a, 1), first.token)
    assert a.store.locks.claims("a") == {"a.2"}
    assert a.store.locks.release("y", holder(a, 2), second.token)
    assert a.store.locks.claims("a") == frozenset()


def test_tokens_strictly_grow(member):
    a = member("a")
    tokens = []
    for number in range(5):
        tokens.append(acquire(a, number, f"t{number}").token)
        assert a.store.locks.release("x", holder(a, number, f"t{number}"), tokens[-1])

    assert tokens == sorted(set(tokens))


def test_tokens_grow_when_the_clock_steps_back():
    from celery_ha.store.memory import MemoryServer, MemoryStore

    clock = [1000.0]
    store = MemoryStore(MemoryServer(lambda: clock[0]))
    from celery_ha.model import Node

    store.leases.open(Node("a", "a@host"))
    one = store.locks.acquire("x", Holder("a", "a.1", "t"), inherit=1).token
    store.locks.release("x", Holder("a", "a.1", "t"), one)
    clock[0] = 10.0

    two = store.locks.acquire("x", Holder("a", "a.2", "u"), inherit=1).token

    assert two == one + 1


def test_a_lease_that_is_not_open_gets_no_lock(member):
    stranger = member("stranger", open_it=False)

    assert acquire(stranger) == Grant(None, None)


def test_a_fenced_lease_gets_no_lock(member, judge):
    a = member("a")
    assert judge.fence(a)

    assert acquire(a).token is None


def test_release_needs_the_holder_and_its_token(member):
    a, b = member("a"), member("b")
    token = acquire(a).token

    assert not a.store.locks.release("x", holder(a), token - 1)
    assert not a.store.locks.release("x", holder(a, 2), token)
    assert not b.store.locks.release("x", holder(b), token)
    assert a.store.locks.holds("x", holder(a), token)
    assert a.store.locks.release("x", holder(a), token)
    assert not a.store.locks.holds("x", holder(a), token)
    assert not a.store.locks.release("x", holder(a), token)


def test_late_release_of_a_fenced_lease_changes_nothing(member, judge):
    a = member("a")
    token = acquire(a).token
    assert judge.fence(a)
    judge.store.locks.settle("a", {"a.1": "t"})
    new = acquire(judge)

    assert not a.store.locks.release("x", holder(a), token)

    assert judge.store.locks.holds("x", holder(judge), new.token)


def test_a_fenced_holder_is_told(member, judge):
    a = member("a")
    token = acquire(a).token

    assert judge.fence(a)

    assert not a.store.locks.holds("x", holder(a), token)


# Rule 4: the same task by another claim.


def test_the_same_task_on_two_healthy_workers_is_busy(member):
    a, b = member("a"), member("b")
    acquire(a, task="chain-step")

    assert acquire(b, task="chain-step") == Grant(None, Holder("a", "a.1", "chain-step"))


def test_the_redelivered_task_takes_over_its_dead_predecessors_lock_at_once(member, judge):
    a, b = member("a"), member("b")
    old = acquire(a)
    assert judge.fence(a)

    new = acquire(b)

    assert new.token > old.token
    assert not new.again


def test_another_task_waits_until_a_dead_holder_is_settled(member, judge):
    a, b = member("a"), member("b")
    acquire(a)
    assert judge.fence(a)

    assert acquire(b, task="other").token is None
    assert judge.store.locks.settle("a", {}) == 1
    assert acquire(b, task="other").token is not None


def test_settlement_leaves_a_lock_alone_that_was_taken_over(member, judge):
    a, b = member("a"), member("b")
    acquire(a)
    assert judge.fence(a)
    token = acquire(b).token

    judge.store.locks.settle("a", {"a.1": "t"})

    assert b.store.locks.holds("x", holder(b), token)


def test_tasks_without_an_id_inherit_nothing(member, judge):
    a, b = member("a"), member("b")
    acquire(a, task="")
    assert judge.fence(a)

    assert acquire(b, task="").token is None
    judge.store.locks.settle("a", {})


# Rule 5: the end of a claim frees its locks.


def test_the_end_of_a_claim_frees_its_locks_and_no_others(member):
    a, b = member("a"), member("b")
    acquire(a, 1, "t1", "x")
    acquire(a, 1, "t1", "y")
    acquire(a, 2, "t2", "z")

    assert a.store.locks.ended(("a.1", "a.7")) == 2
    assert a.store.locks.ended(("a.1",)) == 0

    assert acquire(b, 1, "o", "x").token is not None
    assert acquire(b, 1, "o", "y").token is not None
    assert acquire(b, 1, "o", "z").token is None


def test_a_released_lock_is_not_freed_again_for_its_next_holder(member):
    a, b = member("a"), member("b")
    token = acquire(a).token
    a.store.locks.release("x", holder(a), token)
    new = acquire(b, task="other").token

    assert a.store.locks.ended(("a.1",)) == 0

    assert b.store.locks.holds("x", holder(b, task="other"), new)


def test_a_late_end_of_a_fenced_lease_frees_nothing(member, judge):
    a = member("a")
    acquire(a)
    assert judge.fence(a)

    assert a.store.locks.ended(("a.1",)) == 0

    assert judge.store.locks.settle("a", {}) == 1


def test_a_request_that_arrives_after_the_end_of_its_claim_takes_no_lock(member):
    a, b = member("a"), member("b")
    assert a.store.locks.ended(("a.1", "a.2")) == 0

    assert acquire(a, 1) == Grant(None, None)
    assert acquire(a, 2, name="y") == Grant(None, None)

    assert acquire(b, task="other").token is not None
    assert a.store.leases.close("a", clean=True), "nothing is left in its hands"


def test_the_end_of_a_claim_stops_no_other_claim_of_the_task(member):
    a = member("a")
    old = acquire(a, 1)
    assert a.store.locks.ended(("a.1",)) == 1

    new = acquire(a, 2)

    assert new.token > old.token
    assert acquire(a, 1) == Grant(None, None), "its request was sent twice"
    assert acquire(a, 2) == Grant(new.token, again=True)


def test_an_end_told_to_a_store_without_memory_is_remembered(backend, member):
    a = member("a", ttl=0.2)
    backend.wipe()
    a.renew()
    a.store.locks.ended(("a.1",))
    a.open()
    backend.pass_time(0.3)

    assert acquire(a, 1) == Grant(None, None)
    assert acquire(a, 2).token is not None


def test_ends_are_not_remembered_for_good():
    from celery_ha.model import Node
    from celery_ha.store.memory import MemoryServer, MemoryStore

    clock = [1000.0]
    server = MemoryServer(lambda: clock[0])
    store = MemoryStore(server)
    store.leases.open(Node("a", "a@host"))
    store.locks.ended(("a.1", "a.2"))
    clock[0] += 599.0
    store.locks.ended(("a.2",))

    clock[0] += 2.0
    store.locks.ended(("a.3",))

    assert set(server.memory.ended) == {"a.2", "a.3"}


# Rule 8: the lock of a task that will be run again is held in trust.


def test_nobody_overtakes_an_interrupted_task_on_its_own_lock(member, judge):
    a, b = member("a"), member("b")
    old = acquire(a)
    assert judge.fence(a)
    assert judge.store.locks.settle("a", {"a.1": "t"}) == 1

    assert acquire(b, task="other") == Grant(None, Holder("", "", "t"))

    assert acquire(b, 2, "t").token > old.token


def test_other_locks_of_a_dead_lease_are_freed(member, judge):
    a, b = member("a"), member("b")
    acquire(a, 1, "t1", "x")
    acquire(a, 2, "t2", "y")
    assert judge.fence(a)

    assert judge.store.locks.settle("a", {"a.1": "t1"}) == 2

    assert acquire(b, 1, "o", "x").token is None
    assert acquire(b, 1, "o", "y").token is not None


def test_settling_twice_moves_nothing(member, judge):
    a = member("a")
    acquire(a)
    assert judge.fence(a)

    assert judge.store.locks.settle("a", {"a.1": "t"}) == 1
    assert judge.store.locks.settle("a", {"a.1": "t"}) == 0
    assert judge.store.court.recovered(Recovered("a"))


def test_an_open_lease_is_not_settled(member, judge):
    a = member("a")
    token = acquire(a).token

    assert judge.store.locks.settle("a", {}) == 0

    assert a.store.locks.holds("x", holder(a), token)


def test_trust_ends_with_the_inheritance(backend, member, judge):
    a, b = member("a"), member("b")
    old = acquire(a, inherit=0.2)
    assert judge.fence(a)
    judge.store.locks.settle("a", {"a.1": "t"})
    assert acquire(b, task="other").token is None

    backend.pass_time(0.3)

    assert acquire(b, task="other").token > old.token


def test_trust_ends_when_its_task_is_dead_lettered(member, judge):
    a, b = member("a"), member("b")
    acquire(a)
    assert judge.fence(a)
    judge.store.locks.settle("a", {"a.1": "t"})

    assert judge.store.locks.ended((), ("t", "someone-else")) == 1

    assert acquire(b, task="other").token is not None


def test_a_lock_taken_out_of_trust_does_not_expire(backend, member, judge):
    a, b = member("a"), member("b")
    acquire(a, inherit=0.2)
    assert judge.fence(a)
    judge.store.locks.settle("a", {"a.1": "t"})
    token = acquire(b).token

    backend.pass_time(0.3)

    assert b.store.locks.holds("x", holder(b), token)
    assert judge.store.locks.ended((), ("t",)) == 0, "it is held, not in trust"


def test_a_task_that_dies_twice_keeps_its_lock(member, judge):
    a, b, c = member("a"), member("b"), member("c")
    tokens = [acquire(a).token]
    for dead, heir in ((a, b), (b, c)):
        assert judge.fence(dead)
        judge.store.locks.settle(dead.lease, {f"{dead.lease}.1": "t"})
        assert acquire(judge, task="other").token is None
        tokens.append(acquire(heir).token)

    assert tokens == sorted(set(tokens))


def test_a_released_lease_has_no_luggage(member):
    a = member("a")
    token = acquire(a).token
    a.store.locks.release("x", holder(a), token)

    assert a.store.leases.close("a", clean=True)


# Rule 12: after a loss of memory leases only re-assert themselves for a TTL.


def test_nothing_is_granted_until_leases_had_time_to_say_they_live(backend, member):
    a, b = member("a", ttl=0.3), member("b", ttl=0.3)
    acquire(a)
    backend.wipe()
    a.open()
    b.open()

    assert acquire(b, task="other") == Grant(None, None)
    backend.pass_time(0.4)
    assert acquire(b, task="other").token is not None


def test_a_fresh_store_grants_at_once(backend, member):
    assert acquire(member("a")).token is not None
