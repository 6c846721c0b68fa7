"""What every store promises about leases and the court."""

from __future__ import annotations

import pytest

from celery_ha.errors import Fenced, StoreUnavailable
from celery_ha.model import Leader, LeaseState, Recovered, Verdict


def test_an_open_lease_is_seen_with_its_node(member):
    a = member("a", weight=4, queues=("orders", "celery"))

    look = a.store.court.look()

    node = look.nodes["a"]
    assert (node.name, node.weight, node.queues, node.ttl) == ("a@host", 4, ("orders", "celery"), 10.0)
    assert node.opened > 0
    assert look.started <= look.ended


def test_empty_queues_stay_empty(member):
    a = member("a")

    assert a.store.court.look().nodes["a"].queues == ()


def test_every_renewal_moves_the_counter(member):
    a = member("a")
    before = a.store.court.look().counters["a"]

    assert a.state is LeaseState.OPEN
    assert a.state is LeaseState.OPEN

    assert a.store.court.look().counters["a"] == before + 2


def test_a_lease_nobody_opened_is_unknown(member):
    a, stranger = member("a"), member("stranger", open_it=False)

    assert stranger.state is LeaseState.UNKNOWN
    assert "stranger" not in a.store.court.look().counters


def test_opening_again_replaces_the_node_and_moves_the_counter(member):
    a = member("a")
    before = a.store.court.look().counters["a"]

    assert a.open() == a.epoch

    assert a.store.court.look().counters["a"] > before


def test_a_node_of_the_same_name_is_left_to_the_leader(member):
    old, new = member("old"), member("new")
    look = new.store.court.look()

    assert {"old", "new"} <= look.nodes.keys()
    assert look.nodes["old"].opened <= look.nodes["new"].opened
    assert old.state is LeaseState.OPEN


def test_a_store_that_lost_its_memory_has_fenced_nobody(backend, member):
    a = member("a")

    backend.wipe()

    renewal = a.renew()
    assert renewal.state is LeaseState.UNKNOWN
    assert renewal.epoch != a.epoch
    assert a.store.court.look().fenced == ()
    first = a.epoch
    assert a.open() != first
    assert a.state is LeaseState.OPEN


def test_a_change_of_membership_rings_every_bell_once(member):
    a, b = member("a"), member("b")
    while a.store.leases.wait("a", 0.05):
        pass
    while b.store.leases.wait("b", 0.05):
        pass

    version = a.renew().version
    c = member("c")

    assert a.renew().version > version
    assert a.store.leases.wait("a", 0.05)
    assert b.store.leases.wait("b", 0.05)
    assert not a.store.leases.wait("a", 0.05)
    assert c.state is LeaseState.OPEN


def test_a_renewal_rings_nobody(member):
    a, b = member("a"), member("b")
    while a.store.leases.wait("a", 0.05):
        pass

    b.renew()

    assert not a.store.leases.wait("a", 0.05)


def test_a_change_of_weight_is_told(member):
    a, b = member("a", weight=4, queues=("q",)), member("b")
    b.store.court.look()
    version = b.renew().version

    assert a.store.leases.update("a", weight=0)

    assert b.renew().version > version
    node = b.store.court.look().nodes["a"]
    assert (node.weight, node.queues, node.leaving) == (0, ("q",), False)


def test_that_a_node_leaves_is_told(member):
    a, b = member("a", weight=4), member("b")

    assert a.store.leases.update("a", weight=0, leaving=True)

    node = b.store.court.look().nodes["a"]
    assert (node.weight, node.leaving) == (0, True)


def test_how_many_shards_a_node_knows_of_is_told(member):
    a, b = member("a", queues=("q", "r"), shards=(("q", 12), ("r", 4))), member("b")
    assert a.store.leases.update("a", weight=3)

    node = b.store.court.look().nodes["a"]
    assert (node.weight, node.shards) == (3, (("q", 12), ("r", 4)))


def test_a_change_that_changes_nothing_is_not_told(member):
    a = member("a", weight=4)
    version = a.renew().version

    assert a.store.leases.update("a", weight=4)

    assert a.renew().version == version


def test_a_fenced_lease_offers_nothing(member):
    a, b = member("a"), member("b")
    assert a.fence(b)

    assert not b.store.leases.update("b", weight=9)


def test_a_clean_goodbye_leaves_nothing(member):
    a, b = member("a"), member("b")

    assert b.store.leases.close("b", clean=True)

    look = a.store.court.look()
    assert "b" not in look.nodes
    assert look.fenced == ()
    assert not b.store.leases.close("b", clean=True)


def test_dirty_goodbye_is_a_death(member):
    a, b = member("a"), member("b")

    assert b.store.leases.close("b", clean=False)

    (fenced,) = a.store.court.look().fenced
    assert fenced.node.lease == "b"
    assert fenced.node.name == "b@host"
    assert b.state is LeaseState.FENCED


def test_a_clean_goodbye_with_a_lock_in_hand_is_a_death(member):
    from celery_ha.model import Holder

    a, b = member("a"), member("b")
    b.store.locks.acquire("x", Holder("b", "b.1", "t"), inherit=60)

    assert not b.store.leases.close("b", clean=True)

    assert [f.node.lease for f in a.store.court.look().fenced] == ["b"]
    assert a.store.locks.settle("b", {}) == 1


def test_a_fenced_lease_cannot_reopen(member):
    a, b = member("a"), member("b")
    assert a.fence(b)

    with pytest.raises(Fenced):
        b.open()

    assert b.state is LeaseState.FENCED
    assert "b" not in a.store.court.look().nodes


def test_a_recovered_lease_cannot_reopen(member):
    a, b = member("a"), member("b")
    assert a.fence(b)
    assert a.store.court.recovered(Recovered("b", requeued=3))

    with pytest.raises(Fenced):
        b.open()

    assert b.state is LeaseState.FENCED
    assert a.store.court.look().fenced == ()


def test_recovery_is_finished_once(member):
    a, b = member("a"), member("b")
    assert not a.store.court.recovered(Recovered("b"))
    assert a.fence(b)

    assert a.store.court.recovered(Recovered("b"))
    assert not a.store.court.recovered(Recovered("b"))


def test_recovery_is_not_finished_while_locks_wait_for_settlement(member):
    from celery_ha.model import Holder

    a, b = member("a"), member("b")
    b.store.locks.acquire("x", Holder("b", "b.1", "t"), inherit=60)
    assert a.fence(b)

    assert not a.store.court.recovered(Recovered("b"))

    assert a.store.locks.settle("b", {}) == 1
    assert a.store.court.recovered(Recovered("b"))


def test_a_vacant_office_goes_to_the_first_who_asks(member):
    a, b = member("a"), member("b")

    term = a.store.court.elect("a")

    assert term is not None
    assert b.store.court.elect("b") is None
    assert a.store.court.elect("a") == term, "asking again after a lost reply"
    assert b.renew().leader == Leader("a", term, 0)


def test_a_closed_lease_leads_nobody(member):
    a, stranger = member("a"), member("stranger", open_it=False)

    assert stranger.store.court.elect("stranger") is None
    assert a.store.court.look().leader is None


def test_the_office_of_one_who_said_goodbye_is_vacant(member):
    a, b = member("a"), member("b")
    term = a.store.court.elect("a")

    assert a.store.leases.close("a", clean=True)

    successor = b.store.court.elect("b")
    assert successor is not None
    assert successor > term


def test_finished_rounds_are_counted(member):
    a, b = member("a"), member("b")
    term = a.store.court.elect("a")

    assert a.store.court.finish_round("a", term)
    assert a.store.court.finish_round("a", term)
    assert not b.store.court.finish_round("b", term)
    assert not a.store.court.finish_round("a", term + 1)

    assert b.store.court.look().leader == Leader("a", term, 2)


def test_fence_is_refused_if_the_lease_renewed_meanwhile(member):
    a, b = member("a"), member("b")
    term = a.store.court.elect("a")
    verdict = a.judge(b)

    b.renew()

    assert not a.store.court.fence(term, "a", verdict)
    assert b.state is LeaseState.OPEN


def test_fence_is_refused_if_the_connections_changed_meanwhile(member):
    a, b = member("a"), member("b")
    term = a.store.court.elect("a")
    seen = a.judge(b)

    refused = Verdict("b", seen.reason, seen.counter, ("1", "2"))

    assert not a.store.court.fence(term, "a", refused)
    assert a.store.court.fence(term, "a", seen)


def test_the_fence_keeps_its_evidence(member):
    a, b = member("a"), member("b", queues=("q",))
    term = a.store.court.elect("a")
    verdict = a.judge(b, 'connections "gone"')

    assert a.store.court.fence(term, "a", verdict)
    assert a.store.court.fence(term, "a", verdict), "repeated after a lost reply"

    (fenced,) = a.store.court.look().fenced
    assert (fenced.term, fenced.reason) == (term, 'connections "gone"')
    assert fenced.node.queues == ("q",)
    assert fenced.node.connections == verdict.connections
    assert fenced.at > 0


def test_a_fence_is_told_to_everybody(member):
    a, b, c = member("a"), member("b"), member("c")
    while c.store.leases.wait("c", 0.05):
        pass
    version = c.renew().version

    assert a.fence(b)

    assert c.store.leases.wait("c", 0.05)
    assert c.renew().version > version


def test_nobody_fences_without_the_office(member):
    a, b, c = member("a"), member("b"), member("c")
    term = a.store.court.elect("a")

    assert not c.store.court.fence(term, "c", c.judge(b))
    assert not a.store.court.fence(term + 1, "a", a.judge(b))
    assert b.state is LeaseState.OPEN


def test_a_deposed_leader_fences_nobody(member):
    leader, deputy, victim = member("leader"), member("deputy"), member("victim")
    term = leader.store.court.elect("leader")
    verdict = leader.judge(victim)

    # The deputy found that the leader's rounds stood still.
    assert deputy.store.court.depose("deputy", deputy.judge(leader), term=term, rounds=0, fence=False)

    assert not leader.store.court.fence(term, "leader", verdict)
    assert not leader.store.court.finish_round("leader", term)
    assert victim.state is LeaseState.OPEN
    assert leader.state is LeaseState.OPEN, "it keeps its lease"


def test_a_dead_leader_is_deposed_and_fenced_in_one_step(member):
    leader, deputy = member("leader"), member("deputy")
    term = leader.store.court.elect("leader")

    new = deputy.store.court.depose("deputy", deputy.judge(leader), term=term, rounds=0, fence=True)

    assert new is not None
    assert new > term
    assert leader.state is LeaseState.FENCED
    look = deputy.store.court.look()
    assert look.leader == Leader("deputy", new, 0)
    assert [(f.node.lease, f.term) for f in look.fenced] == [("leader", new)]
    again = deputy.store.court.depose("deputy", Verdict("leader", "", 0, ()), term=term, rounds=0, fence=True)
    assert again == new, "repeated after a lost reply"


def test_a_leader_that_renewed_meanwhile_is_not_deposed_as_dead(member):
    leader, deputy = member("leader"), member("deputy")
    term = leader.store.court.elect("leader")
    verdict = deputy.judge(leader)

    leader.renew()

    assert deputy.store.court.depose("deputy", verdict, term=term, rounds=0, fence=True) is None
    assert leader.state is LeaseState.OPEN


def test_a_leader_that_finished_a_round_meanwhile_is_not_deposed(member):
    leader, deputy = member("leader"), member("deputy")
    term = leader.store.court.elect("leader")
    verdict = deputy.judge(leader)

    leader.store.court.finish_round("leader", term)

    assert deputy.store.court.depose("deputy", verdict, term=term, rounds=0, fence=False) is None


def test_one_deputy_of_two_takes_the_office(member):
    leader, one, two = member("leader"), member("one"), member("two")
    term = leader.store.court.elect("leader")
    verdicts = one.judge(leader), two.judge(leader)

    first = one.store.court.depose("one", verdicts[0], term=term, rounds=0, fence=True)
    second = two.store.court.depose("two", verdicts[1], term=term, rounds=0, fence=True)

    assert first is not None
    assert second is None


def test_a_fenced_deputy_takes_no_office(member):
    leader, deputy = member("leader"), member("deputy")
    term = leader.store.court.elect("leader")
    verdict = deputy.judge(leader)
    assert leader.fence(deputy)

    assert deputy.store.court.depose("deputy", verdict, term=term, rounds=0, fence=True) is None


# Who owns which shard, for whoever works that out after the next change.

_RINGS = {"q": ("a@host", "b@host", "a@host"), "r": ("b@host",)}


def test_rings_that_were_written_down_are_seen_with_the_next_members(member):
    a, b = member("a"), member("b")
    term = a.store.court.elect("a")
    assert b.store.court.look().rings == {}

    assert a.store.court.keep_rings(term, "a", a.store.court.look().version, _RINGS)

    member("c")
    for each in (a, b):
        look = each.store.court.look()
        assert "c" in look.nodes
        assert look.rings == _RINGS


def test_the_last_rings_written_count(member):
    a = member("a")
    term, version = a.store.court.elect("a"), a.store.court.look().version
    assert a.store.court.keep_rings(term, "a", version, _RINGS)

    assert a.store.court.keep_rings(term, "a", version, {"r": ("a@host",)})

    assert member("b").store.court.look().rings == {"r": ("a@host",)}


def test_rings_of_members_that_have_changed_since_are_refused(member):
    a = member("a")
    term, version = a.store.court.elect("a"), a.store.court.look().version
    b = member("b")

    assert not a.store.court.keep_rings(term, "a", version, _RINGS)

    assert b.store.court.look().rings == {}


def test_nobody_writes_rings_without_the_office(member):
    leader, deputy = member("leader"), member("deputy")
    term, version = leader.store.court.elect("leader"), leader.store.court.look().version
    assert not deputy.store.court.keep_rings(term, "deputy", version, _RINGS)

    # The deputy found that the leader's rounds stood still.
    new = deputy.store.court.depose("deputy", deputy.judge(leader), term=term, rounds=0, fence=False)

    assert not leader.store.court.keep_rings(term, "leader", version, _RINGS)
    assert deputy.store.court.keep_rings(new, "deputy", version, _RINGS)


def test_rings_that_are_written_down_ring_nobody(member):
    a, b = member("a"), member("b")
    term, version = a.store.court.elect("a"), a.store.court.look().version
    while b.store.leases.wait("b", 0.05):
        pass

    assert a.store.court.keep_rings(term, "a", version, _RINGS)

    assert not b.store.leases.wait("b", 0.05)
    assert b.renew().version == version


def test_a_store_that_lost_its_memory_has_lost_the_rings(backend, member):
    a = member("a")
    term, version = a.store.court.elect("a"), a.store.court.look().version
    assert a.store.court.keep_rings(term, "a", version, _RINGS)

    backend.wipe()

    a.renew()
    a.open()
    assert a.store.court.look().rings == {}


# Rule 6: a lease that the broker knows and the store does not.


def test_a_refused_stranger_cannot_open(member):
    a, stranger = member("a"), member("stranger", open_it=False)
    term = a.store.court.elect("a")

    assert a.store.court.refuse(term, "a", "stranger")
    assert a.store.court.refuse(term, "a", "stranger"), "repeated after a lost reply"

    with pytest.raises(Fenced):
        stranger.open()
    assert stranger.state is LeaseState.FENCED
    look = a.store.court.look()
    assert set(look.nodes) == {"a"}
    assert look.fenced == (), "it was never known, so its recovery is nobody's unfinished business"


def test_a_lease_that_opened_since_the_last_look_is_not_refused(member):
    a, late = member("a"), member("late", open_it=False)
    term = a.store.court.elect("a")
    assert "late" not in a.store.court.look().nodes

    late.open()

    assert not a.store.court.refuse(term, "a", "late")
    assert not a.store.court.refuse(term, "a", "a"), "nor does the leader refuse itself"
    assert late.open() == late.epoch
    assert late.state is LeaseState.OPEN


def test_nobody_refuses_without_the_office(member):
    a, b, stranger = member("a"), member("b"), member("stranger", open_it=False)
    assert not a.store.court.refuse(1, "a", "stranger"), "the office is vacant"
    term = a.store.court.elect("a")

    assert not b.store.court.refuse(term, "b", "stranger")
    assert not a.store.court.refuse(term + 1, "a", "stranger")

    stranger.open()
    assert stranger.state is LeaseState.OPEN


def test_a_deposed_leader_refuses_nobody(member):
    leader, deputy, stranger = member("leader"), member("deputy"), member("stranger", open_it=False)
    term = leader.store.court.elect("leader")
    assert deputy.store.court.depose("deputy", deputy.judge(leader), term=term, rounds=0, fence=False)

    assert not leader.store.court.refuse(term, "leader", "stranger")

    stranger.open()
    assert stranger.state is LeaseState.OPEN


def test_a_refused_lease_that_is_fenced_still_waits_for_its_recovery(member):
    a, b = member("a"), member("b")
    term = a.store.court.elect("a")
    assert a.fence(b)

    assert a.store.court.refuse(term, "a", "b")

    assert [item.node.lease for item in a.store.court.look().fenced] == ["b"]
    assert a.store.court.recovered(Recovered("b"))


def test_a_refused_stranger_gets_no_lock(member):
    from celery_ha.model import Holder

    a, stranger = member("a"), member("stranger", open_it=False)
    assert a.store.court.refuse(a.store.court.elect("a"), "a", "stranger")

    assert stranger.store.locks.acquire("x", Holder("stranger", "stranger.1", "t"), inherit=60).token is None


def test_connections_that_are_there_are_seen(member):
    a, b = member("a"), member("b")

    look = a.store.court.look()

    assert len(look.nodes["b"].connections) == 2
    assert look.present == {*look.nodes["a"].connections, *look.nodes["b"].connections}
    assert b.state is LeaseState.OPEN


def test_connections_of_a_killed_process_are_missed_at_once(backend, member):
    a, b = member("a"), member("b")
    backend.kill_connections(b.store)

    look = a.store.court.look()

    assert look.nodes["b"].connections
    assert not look.present & set(look.nodes["b"].connections)


def test_a_node_that_reconnected_registers_its_new_connections_with_its_renewal(backend, member):
    a, b = member("a"), member("b")
    before = a.store.court.look().nodes["b"].connections
    backend.kill_connections(b.store)

    b.renew()
    try:
        b.store.court.look()
    except StoreUnavailable:
        b.store.court.look()
    b.renew()

    look = a.store.court.look()
    after = look.nodes["b"].connections
    assert not set(after) & set(before)
    assert set(after) <= look.present


def test_a_reconnect_of_the_observer_changes_its_session(backend, member):
    a = member("a")
    before = a.store.court.look().session
    assert a.store.court.look().session == before

    backend.kill_connections(a.store)
    try:
        look = a.store.court.look()
    except StoreUnavailable:
        look = a.store.court.look()

    assert look.session != before


def test_a_look_before_any_lease_sees_nobody(backend):
    store = backend.client()

    look = store.court.look()

    assert (dict(look.nodes), dict(look.counters), look.leader, look.fenced) == ({}, {}, None, ())
