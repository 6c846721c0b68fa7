from __future__ import annotations

import json
from typing import Any

import pytest

from celery_ha.brokers.memory import MemoryBroker, MemoryBrokerServer
from celery_ha.envelope import deliveries
from celery_ha.failover.recovery import recover
from celery_ha.model import FencedLease, Holder, Node, Recovered, Verdict
from celery_ha.store.memory import MemoryServer, MemoryStore

#: Port calls in the recovery of two leases.
STEPS = 11


class Died(Exception):
    """The recovering process is gone."""


class Mortal:
    """A port whose caller dies after so many more calls, all ports together."""

    def __init__(self, target: Any, life: list[float]) -> None:
        self._target, self._life = target, life

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            done = method(*args, **kwargs)
            self._life[0] -= 1
            if self._life[0] < 0:
                raise Died
            return done

        return call


class Scene:
    """Two dead nodes with two claims and a lock each, fenced by a third, and whatever waits behind."""

    def __init__(self) -> None:
        self.now = 0.0
        self.server = MemoryServer(lambda: self.now)
        self.brokers = MemoryBrokerServer(lambda: self.now)
        self.broker = MemoryBroker(self.brokers)
        self.store = MemoryStore(self.server)
        for name in "abcde":
            self.broker.publish("q", self.message(name))
        for lease in ("judge", "L1", "L2", "other"):
            MemoryStore(self.server).leases.open(Node(lease, f"{lease}@host"))
            self.broker.join(lease)
        #: a, c are L1's; b, d are L2's; a and b have started.
        self.claims = {
            name: self.broker.claim(lease, ("q",), limit=1, slots=name in "ab").claims[0]
            for name, lease in zip("abcd", ("L1", "L2") * 2, strict=True)
        }
        for name in "ab":
            claim = self.claims[name]
            assert self.store.locks.acquire(f"lock-{name}", Holder(claim.lease, claim.id, name), inherit=60).token
        self.term = self.store.court.elect("judge")
        for lease in ("L1", "L2"):
            look = self.store.court.look()
            verdict = Verdict(lease, "renewals stood still", look.counters[lease], look.nodes[lease].connections)
            assert self.store.court.fence(self.term, "judge", verdict)

    @staticmethod
    def message(name: str) -> bytes:
        return json.dumps({"headers": {"id": name, "eta": None}, "properties": {"delivery_info": {}}}).encode()

    @property
    def fenced(self) -> tuple[FencedLease, ...]:
        return self.store.court.look().fenced

    def recover(self, life: float = float("inf")) -> list[Recovered]:
        left = [life]
        ports = [Mortal(port, left) for port in (self.broker, self.store.locks, self.store.court)]
        return recover(self.fenced, *ports)  # type: ignore[arg-type]

    def waiting(self) -> list[str]:
        return [json.loads(payload)["headers"]["id"] for payload in self.brokers.waiting("q")]

    def run_again(self, name: str) -> int | None:
        """A redelivered task asks for its lock."""
        claim = self.broker.claim("other", ("q",), limit=1, slots=1).claims[0]
        assert json.loads(claim.payload)["headers"]["id"] == name
        return self.store.locks.acquire(f"lock-{name}", Holder("other", claim.id, name), inherit=60).token


def test_everything_moves_in_its_old_order_and_only_started_attempts_count() -> None:
    scene = Scene()
    results = scene.recover()
    assert scene.waiting() == ["a", "b", "c", "d", "e"]
    assert [deliveries(payload) for payload in scene.brokers.waiting("q")] == [1, 1, 0, 0, 0]
    assert [(r.lease, r.requeued, r.restarted, r.locks) for r in results] == [("L1", 2, 1, 1), ("L2", 2, 1, 1)]
    assert scene.fenced == ()
    assert set(scene.brokers.flights) == {"judge", "other"}


@pytest.mark.parametrize("life", range(STEPS))
def test_recovery_that_dies_after_any_step_is_finished_by_the_next(life: int) -> None:
    scene = Scene()
    with pytest.raises(Died):
        scene.recover(life)
    scene.recover()
    assert scene.waiting() == ["a", "b", "c", "d", "e"]
    assert [deliveries(payload) for payload in scene.brokers.waiting("q")] == [1, 1, 0, 0, 0]
    assert scene.fenced == ()
    assert scene.run_again("a") is not None
    assert scene.run_again("b") is not None


@pytest.mark.parametrize("life", range(STEPS + 1))
def test_nobody_takes_an_interrupted_tasks_lock_at_any_step(life: int) -> None:
    scene = Scene()
    if life < STEPS:
        with pytest.raises(Died):
            scene.recover(life)
    else:
        scene.recover()
    assert scene.store.locks.acquire("lock-a", Holder("other", "other.99", "somebody"), inherit=60).token is None


def test_second_leader_that_recovers_the_same_moves_nothing_twice() -> None:
    scene = Scene()
    fenced = scene.fenced
    scene.recover()
    assert scene.run_again("a") is not None
    late = recover(fenced, scene.broker, scene.store.locks, scene.store.court)
    assert late == []
    assert scene.waiting() == ["b", "c", "d", "e"]
    assert len(scene.broker.held("other")) == 1


def test_redelivered_task_gets_a_higher_token() -> None:
    scene = Scene()
    before = scene.server.memory.token
    scene.recover()
    token = scene.run_again("a")
    assert token is not None
    assert token > before


def test_stranger_is_fenced_and_moved_although_the_store_never_knew_it() -> None:
    scene = Scene()
    scene.broker.join("stranger")
    scene.broker.claim("stranger", ("q",), limit=1, slots=0)
    results = recover(scene.fenced, scene.broker, scene.store.locks, scene.store.court, strangers=["stranger"])
    assert [result.lease for result in results] == ["L1", "L2", "stranger"]
    assert scene.waiting() == ["a", "b", "c", "d", "e"]
    assert not scene.broker.join("stranger")
