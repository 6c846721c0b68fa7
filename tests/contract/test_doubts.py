"""What a broker's word that it has given up a node's connection does to the looks of others."""

from __future__ import annotations

import pytest

from celery_ha.model import DOUBT

#: ZooKeeper shows sessions, and nobody is judged there before they have timed out: it takes no notice.
pytestmark = pytest.mark.parametrize("backend", ["memory", "redis"], indirect=True)


def heard(member) -> bool:
    """Whether its bell rang since the last time."""
    return member.store.leases.wait(member.lease, 0.05)


def test_a_doubt_is_seen_for_its_time_and_wakes_the_leader_once(backend, member):
    a, b, c = member("a"), member("b"), member("c")
    a.store.court.elect("a")
    for one in (a, b, c):
        while heard(one):
            pass
    version = a.store.court.look().version
    assert b.store.court.doubt("c")
    assert a.store.court.look().doubted == {"c"}
    assert [heard(a), heard(b), heard(c)] == [True, False, False]
    # Told again it is no news; no member has come or gone
    assert not b.store.court.doubt("c")
    assert not heard(a)
    assert a.store.court.look().version == version
    backend.pass_time(DOUBT + 0.1)
    assert a.store.court.look().doubted == frozenset()
    assert b.store.court.doubt("c")


def test_a_doubt_of_the_leader_wakes_everybody(member):
    a, b = member("a"), member("b")
    a.store.court.elect("a")
    for one in (a, b):
        while heard(one):
            pass
    assert b.store.court.doubt("a")
    assert [heard(a), heard(b)] == [True, True]


def test_nobody_doubts_a_lease_that_is_not_open(member):
    a, b = member("a"), member("b")
    assert not a.store.court.doubt("stranger")
    assert a.store.court.doubt("b")
    assert a.fence(b)
    assert a.store.court.look().doubted == frozenset()
    assert not a.store.court.doubt("b")


def test_a_doubt_alone_changes_no_evidence(member):
    a, b = member("a"), member("b")
    before = a.judge(b)
    a.store.court.doubt("b")
    assert a.judge(b) == before
