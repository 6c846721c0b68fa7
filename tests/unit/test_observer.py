from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_ha.brokers.memory import MemoryBroker, MemoryBrokerServer
from celery_ha.errors import StoreError
from celery_ha.failover.observer import STOPPED_JUDGING, Observed, Observer, Pace
from celery_ha.failover.roles import Role, deputies, role_of
from celery_ha.model import Leader, Look, Node, Verdict
from celery_ha.store.memory import MemoryServer, MemoryStore

TTL = 4.0
PACE = Pace(look_every=0.25, suspicious_every=0.1)


class Member:
    """A node that renews when told, and its observer."""

    def __init__(self, fleet: Fleet, lease: str) -> None:
        self.fleet, self.lease = fleet, lease
        self.lease_store = MemoryStore(fleet.server)
        self.store = MemoryStore(fleet.server)
        self.broker = MemoryBroker(fleet.brokers)
        self.broker.join(lease)
        self.lease_store.leases.open(Node(lease, f"{lease}@host", queues=("q",), ttl=TTL))
        self.observer = Observer(lease, self.store.court, self.broker, self.store.locks, ttl=TTL, pace=PACE)
        self.renews = self.observes = True

    def die(self) -> None:
        self.lease_store.disconnect()
        self.renews = self.observes = False


class Fleet:
    """Nodes on one fake clock; every member observes every quarter of a second."""

    def __init__(self, *leases: str) -> None:
        self.now = 0.0
        self.server = MemoryServer(self.clock)
        self.brokers = MemoryBrokerServer(self.clock)
        self.members: dict[str, Member] = {}
        for lease in leases:
            self.join(lease)

    def clock(self) -> float:
        return self.now

    def join(self, lease: str) -> Member:
        self.now += 0.01
        self.members[lease] = Member(self, lease)
        return self.members[lease]

    def turn(self) -> Iterator[tuple[str, Observed]]:
        for member in self.members.values():
            if member.renews:
                member.lease_store.leases.renew(member.lease)
        for member in self.members.values():
            if member.observes:
                yield member.lease, member.observer.step()

    def run(self, seconds: float) -> list[tuple[str, Observed]]:
        until, seen = self.now + seconds, []
        while self.now < until:
            seen += list(self.turn())
            self.now += PACE.look_every
        return seen

    @property
    def leader(self) -> Leader | None:
        return self.server.memory.leader


def fenced(seen: list[tuple[str, Observed]]) -> list[tuple[str, str]]:
    return [(by, verdict.lease) for by, done in seen for verdict in done.fenced]


def test_first_to_look_is_elected_and_its_rounds_go_on() -> None:
    fleet = Fleet("A", "B")
    fleet.run(2.0)
    assert fleet.leader is not None
    assert (fleet.leader.lease, fleet.leader.term) == ("A", 1)
    assert fleet.leader.rounds > 5


def test_killed_node_is_fenced_and_recovered_within_a_second() -> None:
    fleet = Fleet("A", "B", "C")
    fleet.run(TTL + 1)
    fleet.members["C"].broker.publish("q", b"x")
    fleet.members["C"].broker.claim("C", ("q",), limit=1, slots=0)
    fleet.members["C"].die()
    seen = fleet.run(1.0)
    assert fenced(seen) == [("A", "C")]
    assert [result.lease for _, done in seen for result in done.recovered] == ["C"]
    assert fleet.brokers.waiting("q") == [b"x"]


def test_killed_leader_is_deposed_and_fenced_by_a_deputy_within_a_second() -> None:
    fleet = Fleet("A", "B", "C")
    fleet.run(TTL + 1)
    fleet.members["A"].die()
    seen = fleet.run(1.0)
    assert fenced(seen) == [("B", "A")]
    assert fleet.leader is not None
    assert (fleet.leader.lease, fleet.leader.term) == ("B", 2)


def test_leader_that_stopped_judging_loses_the_office_and_keeps_its_lease() -> None:
    fleet = Fleet("A", "B", "C")
    fleet.run(TTL + 1)
    fleet.members["A"].observes = False
    fleet.run(TTL + 1)
    assert fleet.leader is not None
    assert fleet.leader.lease == "B"
    assert fleet.server.is_open("A")


def test_leader_that_slept_suspects_itself_first() -> None:
    """It sees everybody's counters as they stood before, and all connections missing."""
    fleet = Fleet("A", "B", "C")
    fleet.run(TTL + 1)
    fleet.members["B"].observes = fleet.members["C"].observes = False
    fleet.members["B"].lease_store.disconnect()
    fleet.members["C"].lease_store.disconnect()
    fleet.members["B"].renews = fleet.members["C"].renews = False
    fleet.now += 3 * TTL
    assert fenced(fleet.run(TTL - 0.5)) == []
    assert {lease for _, lease in fenced(fleet.run(1.5))} == {"B", "C"}


def test_store_that_takes_no_renewals_kills_nobody() -> None:
    """A full server answers every look and refuses every write."""
    fleet = Fleet("A", "B", "C")
    fleet.run(TTL + 1)
    for member in fleet.members.values():
        member.renews = False
    assert fenced(fleet.run(3 * TTL)) == []
    fleet.members["A"].renews = True  # there is room again, and the leader is the first to find out
    assert fenced(fleet.run(TTL / 2)) == []
    for member in fleet.members.values():
        member.renews = True
    assert fenced(fleet.run(2 * TTL)) == []


def test_leader_that_lost_its_term_fences_nobody() -> None:
    fleet = Fleet("A", "B", "C")
    fleet.run(TTL + 1)
    court = fleet.members["A"].store.court
    look = court.look()
    verdict = Verdict("C", "renewals stood still", look.counters["C"], look.nodes["C"].connections)
    old = Verdict("A", STOPPED_JUDGING, look.counters["A"], look.nodes["A"].connections)
    assert look.leader is not None
    assert fleet.members["B"].store.court.depose("B", old, term=1, rounds=look.leader.rounds, fence=False) == 2
    assert not court.fence(1, "A", verdict)
    assert fleet.server.is_open("C")


def sharded(fleet: Fleet, lease: str) -> None:
    """Join with a queue of 24 shards."""
    leases = fleet.join(lease).lease_store.leases
    leases.open(Node(lease, f"{lease}@host", queues=("q",), ttl=TTL, shards=(("q", 24),)))


def kept(fleet: Fleet) -> tuple[str, ...]:
    return fleet.server.memory.rings["q"]


def test_leader_writes_down_the_rings_and_its_successor_goes_on_from_them() -> None:
    fleet = Fleet()
    for lease in "ABC":
        sharded(fleet, lease)
    fleet.run(TTL + 1)
    before = kept(fleet)
    assert set(before) == {"A@host", "B@host", "C@host"}
    # When the leader itself dies
    fleet.members["A"].die()
    fleet.run(1.0)
    # Then what it owned has moved, and nothing else
    after = kept(fleet)
    assert {owner for owner, new in zip(before, after, strict=True) if owner != new} == {"A@host"}
    assert set(after) == {"B@host", "C@host"}


def test_leader_writes_rings_once_for_each_change_of_members() -> None:
    fleet = Fleet()
    for lease in "AB":
        sharded(fleet, lease)
    fleet.run(1.0)
    first = kept(fleet)
    fleet.server.memory.rings = {}
    fleet.run(1.0)
    assert fleet.server.memory.rings == {}, "nothing has changed"
    fleet.server.memory.rings = {"q": first}
    sharded(fleet, "C")
    fleet.run(1.0)
    assert kept(fleet).count("C@host") == 8
    assert sum(one != other for one, other in zip(first, kept(fleet), strict=True)) == 8


def test_leader_writes_rings_again_on_a_server_that_may_have_lost_them() -> None:
    fleet = Fleet()
    for lease in "AB":
        sharded(fleet, lease)
    fleet.run(1.0)
    first, version = kept(fleet), fleet.server.memory.version
    fleet.server.memory.rings = {}
    fleet.server.restart()
    fleet.run(TTL)
    assert fleet.server.memory.version == version
    assert kept(fleet) == first


def test_leader_that_cannot_act_on_what_it_sees_still_sees_who_comes_and_goes() -> None:
    fleet = Fleet()
    sharded(fleet, "A")
    fleet.run(1.0)

    def refuse(*_: object) -> bool:
        raise StoreError("no permission to write the rings")

    fleet.members["A"].store.court.keep_rings = refuse
    sharded(fleet, "B")
    done = fleet.members["A"].observer.step()
    assert isinstance(done.failure, StoreError)
    assert {node.lease for node in done.members} == {"A", "B"}
    assert done.role is Role.LEADER


def test_store_that_was_not_reached_starts_observation_afresh() -> None:
    fleet = Fleet("A", "B")
    fleet.run(TTL + 1)
    fleet.members["B"].renews = False
    fleet.server.down = True
    for _ in range(20):
        assert fleet.members["A"].observer.step().failure is not None
        fleet.now += PACE.look_every
    fleet.server.down = False
    assert fenced(fleet.run(TTL - 0.5)) == []


def test_watcher_leaves_a_vacant_office_to_the_deputies_for_one_look() -> None:
    fleet = Fleet("A", "B", "C")
    watcher = fleet.members["C"].observer
    assert watcher.step().elected is None
    assert watcher.step().elected == 1


def test_watcher_looks_slowly_and_the_others_quickly() -> None:
    fleet = Fleet("A", "B", "C", "D")
    fleet.run(1.0)
    last = dict(fleet.turn())
    assert [last[lease].role for lease in "ABCD"] == [Role.LEADER, Role.DEPUTY, Role.DEPUTY, Role.WATCHER]
    assert [last[lease].again_in for lease in "ABCD"] == [0.25, 0.25, 0.25, TTL / 4]


def test_suspicion_makes_the_leader_look_more_often_and_kills_nobody() -> None:
    fleet = Fleet("A", "B")
    fleet.run(TTL + 1)
    done = fleet.members["A"].observer.step(suspected={"B@host"})
    assert (done.again_in, done.fenced) == (PACE.suspicious_every, ())


def test_doubt_makes_the_leader_look_at_short_intervals_while_somebody_is_missed() -> None:
    fleet = Fleet("A", "B", "C")
    fleet.run(TTL + 1)
    fleet.members["B"].store.court.doubt("C")
    # Its connections are here: it has lost the broker alone
    assert fleet.members["A"].observer.step().again_in == PACE.look_every
    fleet.members["C"].die()
    first = fleet.members["A"].observer.step()
    assert (first.again_in, first.fenced) == (PACE.doubtful_every, ())
    # And a part of the time that others are given is enough
    fleet.now += 0.21
    assert [verdict.lease for verdict in fleet.members["A"].observer.step().fenced] == ["C"]


def test_stranger_on_the_broker_is_recovered_after_a_ttl() -> None:
    fleet = Fleet("A", "B")
    fleet.run(1.0)
    broker = MemoryBroker(fleet.brokers)
    broker.join("stranger")
    broker.publish("q", b"x")
    broker.claim("stranger", ("q",), limit=1, slots=0)
    fleet.run(TTL - 0.5)
    assert broker.held("stranger")
    fleet.run(3.0)
    assert fleet.brokers.waiting("q") == [b"x"]


def look_of(*leases: str, leader: str | None = None, idle: tuple[str, ...] = ()) -> Look:
    nodes = {
        lease: Node(lease, lease, opened=float(at), queues=() if lease in idle else ("q",))
        for at, lease in enumerate(leases)
    }
    return Look(0.0, 0.0, "s", dict.fromkeys(leases, 1), nodes, None, Leader(leader, 1) if leader else None)


@pytest.mark.parametrize(
    ("leader", "expected"),
    [("A", ("B", "C")), ("C", ("D", "A")), ("D", ("A", "B")), (None, ("A", "B")), ("gone", ("A", "B"))],
)
def test_deputies_are_the_next_two_around_the_circle(leader: str | None, expected: tuple[str, ...]) -> None:
    look = look_of("A", "B", "C", "D", leader=leader)
    assert deputies(look) == expected
    assert role_of(look, expected[0]) is Role.DEPUTY


def test_process_that_consumes_nothing_is_no_deputy() -> None:
    assert deputies(look_of("A", "beat", "B", "C", leader="A", idle=("beat",))) == ("B", "C")


def test_lone_leader_has_no_deputies() -> None:
    assert deputies(look_of("A", leader="A")) == ()
