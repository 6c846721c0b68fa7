from __future__ import annotations

import pytest

from celery_ha.brokers.memory import MemoryBroker, MemoryBrokerServer
from celery_ha.errors import Fenced, StoreUnavailable
from celery_ha.failover.keeper import Keeper
from celery_ha.model import Node, Verdict
from celery_ha.store.memory import MemoryServer, MemoryStore
from celery_ha.store.memory.leases import MemoryLeases

TTL, MARGIN, WEDGED = 10.0, 1.0, 6.0


class Bench:
    """A keeper, its store and broker, and a clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.server = MemoryServer(lambda: self.now)
        self.store = MemoryStore(self.server)
        self.brokers = MemoryBrokerServer(lambda: self.now)
        self.broker = MemoryBroker(self.brokers)
        self.keeper = Keeper(
            Node("L1", "w1@host", queues=("q",), ttl=TTL),
            self.store.leases, self.broker, clock=lambda: self.now, margin=MARGIN, wedged_after=WEDGED,
        )  # fmt: skip

    def counter(self) -> int:
        return self.server.memory.counters.get("L1", 0)

    def fence(self) -> None:
        """Fence the lease in the store, as a leader does."""
        court = MemoryStore(self.server)
        court.leases.open(Node("judge", "judge@host"))
        term = court.court.elect("judge")
        look = court.court.look()
        assert term is not None
        verdict = Verdict("L1", "renewals stood still", look.counters["L1"], look.nodes["L1"].connections)
        assert court.court.fence(term, "judge", verdict)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nothing_is_trusted_before_the_lease_is_open(bench: Bench) -> None:
    assert not bench.keeper.trusted
    bench.keeper.open()
    assert bench.keeper.trusted


def test_store_that_was_not_reached_opens_nothing(bench: Bench) -> None:
    bench.store.cut = True
    with pytest.raises(StoreUnavailable):
        bench.keeper.open()
    assert not bench.keeper.trusted
    bench.store.cut = False
    bench.keeper.open()
    assert bench.keeper.trusted


def test_broker_is_joined_before_the_store(bench: Bench) -> None:
    bench.store.cut = True
    with pytest.raises(StoreUnavailable):
        bench.keeper.open()
    assert bench.brokers.open == {"L1"}


def test_trust_ends_one_margin_before_the_ttl(bench: Bench) -> None:
    bench.keeper.open()
    bench.now += TTL - MARGIN - 0.1
    assert bench.keeper.trusted
    bench.now += 0.2
    assert not bench.keeper.trusted


def test_trust_counts_from_the_start_of_the_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.keeper.open()
    renew = bench.store.leases.renew

    def slow(lease: str) -> object:
        bench.now += 3.0
        return renew(lease)

    monkeypatch.setattr(bench.store.leases, "renew", slow)
    started = bench.now
    bench.keeper.step()
    assert bench.keeper.trusted_until == started + TTL - MARGIN


def test_lost_reply_ends_trust_until_the_next_success(bench: Bench) -> None:
    bench.keeper.open()
    bench.store.lose_next_reply = True
    kept = bench.keeper.step()
    assert kept.renewal is None
    assert kept.again_in < 1.0
    assert not bench.keeper.trusted
    bench.keeper.step()
    assert bench.keeper.trusted


def test_dropped_connection_ends_trust_at_once(bench: Bench) -> None:
    bench.keeper.open()
    bench.keeper.dropped()
    assert not bench.keeper.trusted


def test_expired_lease_that_nobody_fenced_may_renew(bench: Bench) -> None:
    bench.keeper.open()
    bench.now += 10 * TTL
    bench.keeper.step()
    assert bench.keeper.trusted


def test_fenced_lease_is_over_for_good(bench: Bench) -> None:
    bench.keeper.open()
    bench.fence()
    for _ in range(2):
        with pytest.raises(Fenced):
            bench.keeper.step()
    assert bench.keeper.over
    assert not bench.keeper.trusted


def test_store_that_lost_its_memory_gets_the_same_lease_again(bench: Bench) -> None:
    bench.keeper.open()
    bench.server.wipe()
    kept = bench.keeper.step()
    assert bench.keeper.trusted
    assert bench.counter() == 1
    assert kept.renewal is not None
    bench.keeper.step()
    assert bench.counter() == 2


def test_unknown_lease_in_the_same_memory_was_fenced(bench: Bench) -> None:
    bench.keeper.open()
    bench.store.leases.close("L1", clean=True)
    with pytest.raises(Fenced):
        bench.keeper.step()


def test_store_that_lost_its_memory_brings_no_lease_back_that_the_broker_refuses(bench: Bench) -> None:
    bench.keeper.open()
    bench.broker.fence("L1")
    bench.server.wipe()
    with pytest.raises(Fenced):
        bench.keeper.step()
    assert bench.counter() == 0


def test_wedged_main_loop_stops_renewing_and_goes_on_when_it_turns_again(bench: Bench) -> None:
    bench.keeper.open()
    pulse = bench.now
    bench.now += WEDGED + 0.1
    assert bench.keeper.step(pulse).wedged
    assert bench.counter() == 1
    assert not bench.keeper.step(bench.now).wedged
    assert bench.counter() == 2


def test_lease_that_the_broker_forgot_joins_again(bench: Bench) -> None:
    bench.keeper.open()
    bench.brokers.open.clear()
    bench.keeper.refused()
    assert bench.brokers.open == {"L1"}


def test_lease_that_the_broker_fenced_is_over(bench: Bench) -> None:
    bench.keeper.open()
    bench.broker.fence("L1")
    with pytest.raises(Fenced):
        bench.keeper.refused()
    assert bench.keeper.over


def test_clean_goodbye_leaves_nothing(bench: Bench) -> None:
    bench.keeper.open()
    assert bench.keeper.goodbye()
    assert bench.counter() == 0
    assert not bench.server.memory.fenced
    assert not bench.keeper.trusted


def test_goodbye_with_luggage_is_a_death(bench: Bench) -> None:
    bench.keeper.open()
    bench.broker.publish("q", b"{}")
    bench.broker.claim("L1", ("q",), limit=1, slots=1)
    assert not bench.keeper.goodbye()
    assert list(bench.server.memory.fenced) == ["L1"]


def test_what_a_node_offers_survives_a_store_that_lost_its_memory(bench: Bench) -> None:
    bench.keeper.open()
    assert bench.keeper.offer(0, leaving=True)
    bench.server.wipe()
    bench.keeper.step()
    node = bench.server.memory.nodes["L1"]
    assert (node.weight, node.leaving) == (0, True)


def test_trust_is_over_before_the_store_gives_a_silent_process_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a store that drops sessions after 4 of the 10 seconds
    monkeypatch.setattr(MemoryLeases, "notice", 4.0)
    bench = Bench()
    # When the lease opens
    bench.keeper.open()
    # Then trust, margin and pace shrink alike
    assert bench.keeper.trusted_until == pytest.approx(bench.now + (TTL - MARGIN) * 0.4)
    assert bench.keeper.step().again_in == pytest.approx(TTL / 3 * 0.4)


def test_store_that_gives_nobody_up_sooner_stretches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryLeases, "notice", 60.0)
    bench = Bench()
    bench.keeper.open()
    assert bench.keeper.trusted_until == bench.now + TTL - MARGIN
