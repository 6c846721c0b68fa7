"""The contract of the broker port: one suite, every adapter.

An adapter is added by one more entry in ``BENCHES``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from celery_ha.brokers.base import Broker
from celery_ha.brokers.layout import Layout
from celery_ha.brokers.memory import MemoryBroker, MemoryBrokerServer
from celery_ha.envelope import redelivered
from celery_ha.model import Claim, Ending, Settlement


class Bench(Protocol):
    """A broker server under test: a client of it, and eyes for what the port does not show."""

    broker: Broker

    def another(self) -> Broker: ...

    def wipe(self) -> None: ...

    def waiting(self, queue: str) -> list[bytes]: ...

    def dead(self) -> dict[str, str]: ...


class MemoryBench:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.server = MemoryBrokerServer(time.time)
        self.broker = MemoryBroker(self.server)

    def wipe(self) -> None:
        vars(self.server).update(vars(MemoryBrokerServer(time.time)))

    def another(self) -> Broker:
        return MemoryBroker(self.server)

    def waiting(self, queue: str) -> list[bytes]:
        return self.server.waiting(queue)

    def dead(self) -> dict[str, str]:
        return {claim: reason for claim, (_, reason) in self.server.dead.items()}


class RedisBench:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.url = request.getfixturevalue("redis_server").url
        self.layout = Layout()
        self.broker = self.another()
        self.client = self.broker.client
        self.wipe()

    def wipe(self) -> None:
        self.client.flushall()

    def another(self) -> Any:
        import redis

        from celery_ha.brokers.redis import RedisBroker

        return RedisBroker(redis.Redis.from_url(self.url), self.layout)

    def waiting(self, queue: str) -> list[bytes]:
        sources = [self.layout.source(queue, step) for step in self.layout.steps]
        return [payload for source in sources for payload in reversed(self.client.lrange(source, 0, -1))]

    def dead(self) -> dict[str, str]:
        return {claim.decode(): why.decode() for claim, why in self.client.hgetall(f"{self.layout.dead}:why").items()}


BENCHES: dict[str, Callable[[pytest.FixtureRequest], Bench]] = {
    "memory": MemoryBench,
    "redis": RedisBench,
}


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest) -> Bench:
    return BENCHES[request.param](request)


@pytest.fixture
def broker(bench: Bench) -> Broker:
    return bench.broker


def message(name: str, *, eta: str | None = None) -> bytes:
    return json.dumps({"body": name, "headers": {"id": name, "eta": eta}, "properties": {"delivery_info": {}}}).encode()


def names(payloads: list[bytes]) -> list[str]:
    return [json.loads(payload)["body"] for payload in payloads]


def bodies(claims: tuple[Claim, ...] | list[Claim]) -> list[str]:
    return names([claim.payload for claim in claims])


def fill(broker: Broker, text: str, *, queue: str = "q", priority: int = 0) -> None:
    for name in text:
        assert broker.publish(queue, message(name), priority=priority)


def take(
    broker: Broker, lease: str, limit: int, *, slots: int = 0, queues: tuple[str, ...] = ("q",)
) -> tuple[Claim, ...]:
    return broker.claim(lease, queues, limit=limit, slots=slots).claims


def ack(claim: Claim) -> Settlement:
    return Settlement(claim.id, Ending.ACK)


def test_messages_are_claimed_in_the_order_in_which_they_were_published(broker: Broker) -> None:
    broker.join("L1")
    fill(broker, "abc")
    claims = take(broker, "L1", 10)
    assert bodies(claims) == ["a", "b", "c"]
    assert [claim.number for claim in claims] == sorted(claim.number for claim in claims)
    assert {claim.lease for claim in claims} == {"L1"}


def test_message_that_was_interrupted_is_not_marked_started_by_its_claim(broker: Broker) -> None:
    broker.join("L1")
    broker.publish("q", redelivered(message("again"), started=False))
    broker.publish("q", message("new"))
    assert [claim.started for claim in take(broker, "L1", 2, slots=2)] == [False, True]


def test_highest_priority_comes_first_and_steps_are_kombus(broker: Broker) -> None:
    broker.join("L1")
    for priority, name in ((9, "i"), (4, "d"), (0, "a"), (3, "c"), (2, "b")):
        broker.publish("q", message(name), priority=priority)
    assert bodies(take(broker, "L1", 10)) == ["a", "b", "d", "c", "i"]


def test_priority_counts_before_the_order_of_queues(broker: Broker) -> None:
    broker.join("L1")
    fill(broker, "x", queue="one", priority=3)
    fill(broker, "y", queue="two")
    assert bodies(take(broker, "L1", 10, queues=("one", "two"))) == ["y", "x"]


def test_no_more_than_the_limit_is_claimed_and_the_rest_is_announced(broker: Broker) -> None:
    broker.join("L1")
    fill(broker, "abc")
    batch = broker.claim("L1", ("q", "empty"), limit=2, slots=0)
    assert bodies(batch.claims) == ["a", "b"]
    assert "q" in batch.more
    assert bodies(take(broker, "L1", 2)) == ["c"]


def test_only_claims_for_free_slots_carry_the_mark(bench: Bench) -> None:
    bench.broker.join("L1")
    fill(bench.broker, "abc")
    claims = take(bench.broker, "L1", 3, slots=2)
    assert [claim.started for claim in claims] == [True, True, False]
    assert bench.broker.held("L1") == {claim.id: claim.started for claim in claims}


def test_message_that_waits_for_its_eta_is_not_marked(broker: Broker) -> None:
    broker.join("L1")
    broker.publish("q", message("later", eta="2030-01-01T00:00:00+00:00"))
    assert [claim.started for claim in take(broker, "L1", 1, slots=1)] == [False]


def test_start_marks_a_claim_and_may_be_repeated(broker: Broker) -> None:
    broker.join("L1")
    fill(broker, "a")
    (claim,) = take(broker, "L1", 1)
    assert broker.start("L1", claim.id)
    assert broker.start("L1", claim.id)
    assert broker.held("L1") == {claim.id: True}


def test_start_ends_the_task_before_it_in_the_same_call(broker: Broker) -> None:
    broker.join("L1")
    fill(broker, "ab")
    first, second = take(broker, "L1", 2, slots=1)
    assert broker.start("L1", second.id, settle=[ack(first)])
    assert broker.held("L1") == {second.id: True}


def test_start_of_a_claim_that_ended_is_refused(broker: Broker) -> None:
    broker.join("L1")
    fill(broker, "a")
    (claim,) = take(broker, "L1", 1)
    assert not broker.start("L1", claim.id, settle=[ack(claim)])


def test_deferred_attempt_is_held_and_not_started(broker: Broker) -> None:
    broker.join("L1")
    fill(broker, "a")
    (claim,) = take(broker, "L1", 1, slots=1)
    assert broker.settle("L1", [Settlement(claim.id, Ending.DEFER)])
    assert broker.held("L1") == {claim.id: False}


def test_ack_may_be_repeated(bench: Bench) -> None:
    broker = bench.broker
    broker.join("L1")
    fill(broker, "ab")
    first, second = take(broker, "L1", 2)
    assert broker.settle("L1", [ack(first)])
    assert broker.settle("L1", [ack(first)])
    assert list(broker.held("L1")) == [second.id]
    assert bench.waiting("q") == []


def test_late_ack_of_a_fenced_lease_changes_nothing(bench: Bench) -> None:
    broker = bench.broker
    broker.join("L1")
    fill(broker, "a")
    (claim,) = take(broker, "L1", 1, slots=1)
    broker.fence("L1")
    assert not broker.settle("L1", [ack(claim)])
    assert bodies(broker.in_flight("L1")) == ["a"]
    broker.requeue([(claim, claim.payload)])
    assert not broker.settle("L1", [ack(claim)])
    assert names(bench.waiting("q")) == ["a"]


def test_what_is_released_newest_first_is_in_front_in_its_old_order(bench: Bench) -> None:
    broker = bench.broker
    broker.join("L1")
    fill(broker, "abc")
    first, second = take(broker, "L1", 2)
    assert broker.settle("L1", [Settlement(claim.id, Ending.RELEASE) for claim in (second, first)])
    assert names(bench.waiting("q")) == ["a", "b", "c"]


def test_release_goes_back_to_its_own_priority(bench: Bench) -> None:
    broker = bench.broker
    broker.join("L1")
    fill(broker, "ab", priority=6)
    (claim,) = take(broker, "L1", 1)
    fill(broker, "z")
    broker.settle("L1", [Settlement(claim.id, Ending.RELEASE)])
    assert names(bench.waiting("q")) == ["z", "a", "b"]


def test_release_may_put_back_another_payload(bench: Bench) -> None:
    broker = bench.broker
    broker.join("L1")
    fill(broker, "a")
    (claim,) = take(broker, "L1", 1)
    broker.settle("L1", [Settlement(claim.id, Ending.RELEASE, payload=message("again"))])
    assert names(bench.waiting("q")) == ["again"]


def test_released_message_gets_a_new_claim(broker: Broker) -> None:
    broker.join("L1")
    fill(broker, "a")
    (old,) = take(broker, "L1", 1)
    (new,) = broker.claim("L1", ("q",), limit=1, slots=0, settle=[Settlement(old.id, Ending.RELEASE)]).claims
    assert new.number > old.number
    broker.settle("L1", [ack(old)])
    assert list(broker.held("L1")) == [new.id]


def test_dead_letter_leaves_the_flight_and_says_why(bench: Bench) -> None:
    broker = bench.broker
    broker.join("L1")
    fill(broker, "a")
    (claim,) = take(broker, "L1", 1)
    assert broker.settle("L1", [Settlement(claim.id, Ending.DEAD, reason="started 4 times")])
    assert bench.dead() == {claim.id: "started 4 times"}
    assert broker.held("L1") == {}
    assert bench.waiting("q") == []


def test_absent_lease_is_refused(bench: Bench) -> None:
    broker = bench.broker
    fill(broker, "a")
    assert not broker.claim("nobody", ("q",), limit=1, slots=1).open
    assert not broker.start("nobody", "nobody.1")
    assert not broker.settle("nobody", [Settlement("nobody.1", Ending.ACK)])
    assert names(bench.waiting("q")) == ["a"]


def test_fenced_lease_claims_starts_and_settles_nothing(bench: Bench) -> None:
    broker = bench.broker
    broker.join("L1")
    fill(broker, "abc")
    first, second = take(broker, "L1", 2)
    broker.fence("L1")
    batch = broker.claim("L1", ("q",), limit=1, slots=1, settle=[ack(first)])
    assert (batch.open, batch.claims) == (False, ())
    assert not broker.start("L1", second.id, settle=[ack(first)])
    assert not broker.settle("L1", [Settlement(first.id, Ending.RELEASE), Settlement(second.id, Ending.DEAD)])
    assert [(claim.id, claim.started) for claim in broker.in_flight("L1")] == [(first.id, False), (second.id, False)]
    assert names(bench.waiting("q")) == ["c"]
    assert bench.dead() == {}


def test_claim_of_another_lease_cannot_be_ended(broker: Broker) -> None:
    broker.join("L1")
    broker.join("L2")
    fill(broker, "a")
    (claim,) = take(broker, "L1", 1)
    assert broker.settle("L2", [ack(claim)])
    assert not broker.start("L2", claim.id)
    assert list(broker.held("L1")) == [claim.id]


def test_fenced_lease_never_opens_again(broker: Broker) -> None:
    assert broker.join("L1")
    assert broker.join("L1")
    broker.fence("L1")
    broker.fence("L1")
    assert not broker.join("L1")
    assert broker.forget("L1")
    assert not broker.join("L1")


def test_lease_that_was_fenced_before_it_joined_is_refused(broker: Broker) -> None:
    broker.fence("L1")
    assert not broker.join("L1")


def test_leave_with_luggage_is_refused(broker: Broker) -> None:
    broker.join("L1")
    fill(broker, "a")
    (claim,) = take(broker, "L1", 1)
    assert not broker.leave("L1")
    assert broker.settle("L1", [ack(claim)])
    assert broker.leave("L1")
    assert not broker.settle("L1", [])


def test_in_flight_is_whole_and_oldest_first(broker: Broker) -> None:
    broker.join("L1")
    fill(broker, "b", priority=9)
    fill(broker, "a")
    claims = take(broker, "L1", 2, slots=1)
    broker.fence("L1")
    assert broker.in_flight("L1") == list(claims)


def test_requeue_of_several_leases_is_merged_by_claim_number(bench: Bench) -> None:
    broker = bench.broker
    fill(broker, "abcde")
    for lease in ("L1", "L2"):
        broker.join(lease)
    claims = [*take(broker, "L1", 1), *take(broker, "L2", 2), *take(broker, "L1", 1)]
    for lease in ("L1", "L2"):
        broker.fence(lease)
    found = [*broker.in_flight("L2"), *broker.in_flight("L1")]
    assert broker.requeue([(claim, claim.payload) for claim in found]) == len(claims)
    assert names(bench.waiting("q")) == ["a", "b", "c", "d", "e"]


def test_requeue_twice_moves_once(bench: Bench) -> None:
    broker = bench.broker
    broker.join("L1")
    fill(broker, "ab")
    claims = take(broker, "L1", 2)
    broker.fence("L1")
    back = [(claim, message(name.upper())) for claim, name in zip(claims, "ab", strict=True)]
    assert broker.requeue(back[:1]) == 1
    assert broker.requeue(back) == 1
    assert bench.another().requeue(back) == 0
    assert sorted(names(bench.waiting("q"))) == ["A", "B"]
    assert broker.in_flight("L1") == []


def test_requeue_takes_nothing_from_an_open_lease(bench: Bench) -> None:
    broker = bench.broker
    broker.join("L1")
    fill(broker, "a")
    (claim,) = take(broker, "L1", 1)
    assert broker.requeue([(claim, claim.payload)]) == 0
    assert list(broker.held("L1")) == [claim.id]


def test_requeue_goes_in_front_of_what_waits_and_to_its_own_queue(bench: Bench) -> None:
    broker = bench.broker
    broker.join("L1")
    fill(broker, "a", queue="one")
    fill(broker, "b", queue="two", priority=3)
    claims = take(broker, "L1", 2, queues=("one", "two"))
    fill(broker, "y", queue="one")
    fill(broker, "z", queue="two", priority=3)
    broker.fence("L1")
    broker.requeue([(claim, claim.payload) for claim in claims])
    assert (names(bench.waiting("one")), names(bench.waiting("two"))) == (["a", "y"], ["b", "z"])


def test_lease_that_still_holds_claims_is_not_forgotten(broker: Broker) -> None:
    broker.join("L1")
    fill(broker, "a")
    (claim,) = take(broker, "L1", 1)
    broker.fence("L1")
    assert not broker.forget("L1")
    broker.requeue([(claim, claim.payload)])
    assert broker.forget("L1")
    assert broker.forget("L1")


def test_strangers_are_those_that_the_store_does_not_know(broker: Broker) -> None:
    for lease in ("open", "luggage", "gone", "left"):
        broker.join(lease)
    fill(broker, "a")
    take(broker, "luggage", 1)
    for lease in ("luggage", "gone"):
        broker.fence(lease)
    assert broker.forget("gone")
    assert broker.leave("left")
    assert broker.strangers(frozenset()) == {"open", "luggage"}
    assert broker.strangers(frozenset({"open", "unheard-of"})) == {"luggage"}


def test_repeated_publish_is_dropped(bench: Bench) -> None:
    broker = bench.broker
    assert broker.publish("q", message("a"), publish_id="p.1")
    assert not broker.publish("q", message("a"), publish_id="p.1")
    assert broker.publish("q", message("b"), publish_id="p.2")
    assert broker.publish("q", message("c"), publish_id="other.1")
    assert names(bench.waiting("q")) == ["a", "b", "c"]


def test_publish_that_arrives_after_its_repetition_and_a_later_one_is_dropped(bench: Bench) -> None:
    """A request that was given up may still be on the wire while its producer goes on."""
    broker = bench.broker
    for name, number in (("a", 9), ("b", 10)):
        assert broker.publish("q", message(name), publish_id=f"p.{number}")
    assert not broker.publish("q", message("a"), publish_id="p.9")
    assert names(bench.waiting("q")) == ["a", "b"]


def test_publish_that_was_overtaken_by_a_later_one_is_not_lost(bench: Bench) -> None:
    broker = bench.broker
    for name, number in (("b", 10), ("a", 9)):
        assert broker.publish("q", message(name), publish_id=f"p.{number}")
    assert names(bench.waiting("q")) == ["b", "a"]


def test_claim_number_is_never_used_twice(broker: Broker) -> None:
    fill(broker, "abcd")
    seen = []
    for lease in ("L1", "L2"):
        broker.join(lease)
        seen += [claim.number for claim in take(broker, lease, 2)]
    assert len(set(seen)) == 4


def test_server_that_lost_its_memory_names_no_claim_twice(bench: Bench) -> None:
    # Given a claim whose ack is late
    broker = bench.broker
    broker.join("L1")
    fill(broker, "ab")
    old = take(broker, "L1", 2)
    # When the server restarts empty and the same lease claims again
    bench.wipe()
    broker.join("L1")
    fill(broker, "cd")
    new = take(broker, "L1", 2)
    # Then the late ack ends none of the new claims
    assert broker.settle("L1", [ack(claim) for claim in old])
    assert set(broker.held("L1")) == {claim.id for claim in new}
    assert [claim.number for claim in new] == sorted({claim.number for claim in (*old, *new)})[2:]
