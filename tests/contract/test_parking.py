"""What every parking promises: a message whose lock is busy waits in one place, and its turn comes (rule 9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from celery_ha.brokers.layout import Layout
from celery_ha.brokers.memory import MemoryBroker, MemoryBrokerServer
from celery_ha.brokers.redis import RedisBroker
from celery_ha.model import BEAT_QUEUE, Ending, Holder, Node, Parked, Settlement, Verdict
from celery_ha.parking.memory import MemoryParking
from celery_ha.parking.redis import RedisParking
from celery_ha.store.memory import MemoryServer, MemoryStore
from celery_ha.store.redis import RedisStore

INHERIT = 60.0


class Yard:
    """Store, broker and parking on one server, with one lease open."""

    def __init__(self, store: Any, broker: Any, parking: Any, pass_time: Any) -> None:
        self.store, self.broker, self.parking, self.pass_time = store, broker, parking, pass_time
        self.locks = store.locks
        self.open("L")

    def open(self, lease: str) -> None:
        self.broker.join(lease)
        self.store.leases.open(Node(lease, f"{lease}@host", ttl=10.0))

    def claim(self, task: str, *, queue: str = "q", lease: str = "L") -> Holder:
        """Publish a message and claim it."""
        self.broker.publish(queue, task.encode())
        (claim,) = self.broker.claim(lease, (queue,), limit=1, slots=1).claims
        return Holder(lease, claim.id, task)

    def hold(self, task: str, name: str = "x", **terms: Any) -> tuple[Holder, int]:
        holder = self.claim(task)
        token = self.locks.acquire(name, holder, inherit=INHERIT, **terms).token
        assert token is not None
        return holder, token

    def park(self, holder: Holder, name: str = "x", *, limit: int = 1, inherit: float = INHERIT) -> Parked:
        return self.parking.park(name, holder, limit=limit, inherit=inherit)

    def fence(self, lease: str) -> None:
        term, look = self.store.court.elect("L"), self.store.court.look()
        self.store.court.fence(term, "L", Verdict(lease, "dead", look.counters[lease], look.nodes[lease].connections))

    def next(self, queue: str = "q") -> Holder | None:
        """Claim what is first in the queue."""
        claims = self.broker.claim("L", (queue,), limit=1, slots=1).claims
        return Holder("L", claims[0].id, claims[0].payload.decode()) if claims else None

    def acquire(self, holder: Holder, name: str = "x", **terms: Any) -> int | None:
        return self.locks.acquire(name, holder, inherit=INHERIT, **terms).token


@pytest.fixture(params=["memory", "redis"])
def yard(request: pytest.FixtureRequest) -> Iterator[Yard]:
    if request.param == "memory":
        clock = [1000.0]
        brokers = MemoryBrokerServer(lambda: clock[0])
        store = MemoryStore(MemoryServer(lambda: clock[0]))

        def pass_time(seconds: float) -> None:
            clock[0] += seconds

        yield Yard(store, MemoryBroker(brokers), MemoryParking(store, brokers), pass_time)
        return
    import time

    client = redis.Redis.from_url(request.getfixturevalue("redis_server").url)
    client.flushall()
    real = RedisStore(request.getfixturevalue("redis_server").url)
    broker = RedisBroker(client, Layout())
    yield Yard(real, broker, RedisParking(real, broker.layout), time.sleep)
    real.close()
    client.close()


def test_a_parked_message_is_in_nobodys_hands(yard: Yard) -> None:
    yard.hold("first")
    second = yard.claim("second")

    assert yard.park(second) is Parked.PARKED

    assert second.claim not in yard.broker.held("L")
    assert yard.next() is None
    assert yard.locks.waiting("x") == 1


def test_release_puts_the_next_message_at_the_front_with_the_lock_in_trust(yard: Yard) -> None:
    first, token = yard.hold("first")
    yard.park(yard.claim("second"))
    yard.broker.publish("q", b"other")

    assert yard.locks.release("x", first, token)

    second = yard.next()
    assert second is not None
    assert second.task == "second"
    assert yard.acquire(yard.claim("third")) is None, "nobody overtakes"
    assert yard.acquire(second) > token


def test_the_grant_says_how_long_the_message_stood_in_line(yard: Yard) -> None:
    # Given a task that waits in line
    first, token = yard.hold("first")
    yard.park(yard.claim("second"))
    yard.pass_time(0.2)
    # When it has its turn, and asks before and after its worker has died
    yard.locks.release("x", first, token)
    yard.pass_time(0.2)
    second = yard.next()
    granted = yard.locks.acquire("x", second, inherit=INHERIT)
    # Then its wait is told once, up to the grant
    assert 0.4 <= granted.in_line < 30
    assert yard.locks.acquire("x", second, inherit=INHERIT).in_line is None


def test_a_lock_that_was_kept_for_an_interrupted_task_was_not_waited_for(yard: Yard) -> None:
    # Given a task that waited, had its turn, and lost its worker
    first, token = yard.hold("first")
    yard.park(yard.claim("second"))
    yard.locks.release("x", first, token)
    yard.open("M")
    (claim,) = yard.broker.claim("M", ("q",), limit=1, slots=1).claims
    assert yard.acquire(Holder("M", claim.id, "second")) is not None
    yard.fence("M")
    yard.locks.settle("M", {claim.id: "second"})
    # Then its next attempt is granted it at once
    again = yard.locks.acquire("x", yard.claim("second"), inherit=INHERIT)
    assert (again.token is not None, again.in_line) == (True, None)


def test_an_entry_of_the_first_version_is_handed_on(redis_server: Any, request: pytest.FixtureRequest) -> None:
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    store = RedisStore(redis_server.url)
    yard = Yard(store, RedisBroker(client, Layout()), None, None)
    request.addfinalizer(client.close)
    request.addfinalizer(store.close)
    first, token = yard.hold("first")
    # Given what a worker of the first version parked: its entry does not say since when
    fields = ("task", "q", "_ha:bell:q", "second", str(int(INHERIT * 1e6)), "second")
    client.rpush("_ha:line:x", "".join(f"{len(field)}:{field}" for field in fields))
    client.hset("_ha:lines", "x", 1)
    # When its turn comes
    yard.locks.release("x", first, token)
    # Then it is granted the lock, and nobody knows how long it waited
    second = yard.next()
    granted = yard.locks.acquire("x", second, inherit=INHERIT)
    assert (second.task, granted.token > token, granted.in_line) == ("second", True, None)


def test_who_is_granted_a_lock_in_another_lease_waited_in_line_no_less(yard: Yard) -> None:
    first, token = yard.hold("first")
    yard.park(yard.claim("second"))
    yard.locks.release("x", first, token)
    yard.open("M")
    (claim,) = yard.broker.claim("M", ("q",), limit=1, slots=1).claims
    assert yard.locks.acquire("x", Holder("M", claim.id, "second"), inherit=INHERIT).in_line is not None


def test_parked_messages_are_served_in_order(yard: Yard) -> None:
    holding, token = yard.hold("0")
    for number in range(1, 6):
        yard.park(yard.claim(str(number)))

    served = []
    for _ in range(5):
        yard.locks.release("x", holding, token)
        holding = yard.next()
        assert holding is not None
        token = yard.acquire(holding)
        served.append(holding.task)

    assert served == ["1", "2", "3", "4", "5"]


def test_a_message_parked_for_a_lock_that_became_free_has_its_turn_at_once(yard: Yard) -> None:
    first, token = yard.hold("first")
    second = yard.claim("second")
    yard.locks.release("x", first, token)

    assert yard.park(second) is Parked.PARKED

    again = yard.next()
    assert again.task == "second"
    assert yard.acquire(again) is not None


def test_a_message_does_not_wait_for_a_lock_that_is_kept_for_it(yard: Yard) -> None:
    first, token = yard.hold("first")
    yard.park(yard.claim("second"))
    yard.locks.release("x", first, token)
    second = yard.next()

    assert yard.park(second) is Parked.DUE

    assert second.claim in yard.broker.held("L")


def test_a_claim_of_a_fenced_lease_is_not_parked(yard: Yard) -> None:
    yard.hold("first")
    yard.open("M")
    second = yard.claim("second", lease="M")
    yard.broker.fence("M")

    assert yard.park(second) is Parked.GONE

    assert [claim.id for claim in yard.broker.in_flight("M")] == [second.claim]


def test_parking_twice_keeps_one_message(yard: Yard) -> None:
    yard.hold("first")
    second = yard.claim("second")
    yard.park(second)

    assert yard.park(second) is Parked.GONE

    assert yard.locks.waiting("x") == 1


def test_a_woken_task_that_is_dropped_passes_the_lock_on(yard: Yard) -> None:
    first, token = yard.hold("first")
    yard.park(yard.claim("expired"))
    yard.park(yard.claim("next"))
    yard.locks.release("x", first, token)
    dropped = yard.next()

    yard.locks.ended((dropped.claim,), (dropped.task,))

    woken = yard.next()
    assert woken.task == "next"
    assert yard.acquire(woken) is not None


def test_a_woken_task_that_never_comes_loses_its_turn(yard: Yard) -> None:
    first, token = yard.hold("first")
    yard.park(yard.claim("lost"), inherit=0.05)
    yard.park(yard.claim("next"))
    yard.locks.release("x", first, token)
    yard.next()

    yard.pass_time(0.1)
    yard.locks.sweep()

    assert yard.next().task == "next"


def test_the_locks_of_a_parked_claim_are_free(yard: Yard) -> None:
    yard.hold("first")
    both = yard.claim("both")
    assert yard.acquire(both, "y") is not None

    yard.park(both)

    assert yard.acquire(yard.claim("other"), "y") is not None
    assert yard.acquire(both, "y") is None, "the claim is over"


def test_payload_priority_and_shard_come_back_as_they_were(yard: Yard) -> None:
    first, token = yard.hold("first")
    payload = bytes(range(256)) + "ключ".encode()
    yard.broker.publish("orders.3", payload, priority=6)
    (claim,) = yard.broker.claim("L", ("orders.3",), limit=1, slots=1).claims
    yard.park(Holder("L", claim.id, "second"))

    yard.locks.release("x", first, token)

    (again,) = yard.broker.claim("L", ("orders.3",), limit=1, slots=1).claims
    assert (again.payload, again.source) == (payload, claim.source)


def test_a_dead_holder_hands_on_to_the_parked(yard: Yard) -> None:
    yard.open("M")
    dying = yard.claim("dying", lease="M")
    assert yard.acquire(dying) is not None
    yard.park(yard.claim("second"))
    yard.fence("M")

    yard.locks.settle("M", {dying.claim: "dying"})
    assert yard.next() is None, "the interrupted task has its lock in trust"
    yard.locks.ended((), ("dying",))

    assert yard.next().task == "second"


def test_when_the_last_worker_has_said_goodbye_what_waits_is_back_in_its_queues(yard: Yard) -> None:
    yard.store.leases.update("L", 1)
    first, token = yard.hold("first")
    for name in ("second", "third"):
        yard.park(yard.claim(name))
    yard.broker.publish("q", b"other")
    yard.locks.release("x", first, token)
    woken = yard.next()
    yard.broker.settle("L", [Settlement(first.claim, Ending.ACK), Settlement(woken.claim, Ending.RELEASE)])

    assert yard.broker.leave("L")
    assert yard.store.leases.close("L", clean=True)

    yard.open("M")
    names = [claim.payload for claim in yard.broker.claim("M", ("q",), limit=9, slots=0).claims]
    assert names == [b"third", b"second", b"other"]
    assert yard.locks.waiting("x") == 0


def test_beat_that_lives_on_is_no_worker_that_would_run_what_waits(yard: Yard) -> None:
    """Plain workers may come after ours, and a beat would hand them one message in each ``ha_lock_inherit`` (G8)."""
    # Given a beat, and a worker of which messages wait in line
    yard.store.leases.open(Node("B", "beat@host", queues=(BEAT_QUEUE,), ttl=10.0))
    holder, token = yard.hold("first")
    for task in ("second", "third"):
        assert yard.park(yard.claim(task)) is Parked.PARKED
    # When the worker says goodbye
    yard.locks.release("x", holder, token)
    assert yard.broker.settle("L", [Settlement(holder.claim, Ending.ACK)])
    assert yard.broker.leave("L")
    assert yard.store.leases.close("L", clean=True)
    # Then nothing waits any more
    assert yard.locks.waiting("x") == 0


def test_a_task_that_is_parked_for_one_lock_leaves_another_to_others(yard: Yard) -> None:
    # Given a task whose turn for one lock has come
    a, token = yard.hold("a", "x")
    both = yard.claim("both")
    yard.park(both, "x")
    yard.park(yard.claim("next"), "x")
    yard.hold("b", "y")
    yard.locks.release("x", a, token)
    both = yard.next()
    # When it waits for another one
    assert yard.park(both, "y") is Parked.PARKED
    # Then the first goes to the next who waits for it
    assert yard.next().task == "next"
