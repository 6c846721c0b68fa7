"""What a broker's word that it has given up a node's connection does to the looks of others."""

from __future__ import annotations

import pytest

#: ZooKeeper shows sessions, and nobody is judged there before they have timed out: it takes no notice.
pytestmark = pytest.mark.parametrize("backend", ["memory", "redis"], indirect=True)


def heard(member) -> bool:
    """Whether its bell rang since the last time."""
    return member.store.leases.wait(member.lease, 0.05)


def test_a_doubt_is_seen_for_its_time_and_wakes_everybody_once(backend, member):
    a, b = member("a"), member("b")
    while heard(a):
        pass
    version = a.store.court.look().version
    assert b.store.court.doubt("a", 1.0)
    assert a.store.court.look().doubted == {"a"}
    assert heard(a)
    # Told again it is no news; no member has come or gone
    assert not b.store.court.doubt("a", 1.0)
    assert not heard(a)
    assert a.store.court.look().version == version
    backend.pass_time(1.1)
    assert a.store.court.look().doubted == frozenset()
    assert b.store.court.doubt("a", 1.0)


def test_nobody_doubts_a_lease_that_is_not_open(member):
    a, b = member("a"), member("b")
    assert not a.store.court.doubt("stranger", 10.0)
    assert a.store.court.doubt("b", 10.0)
    assert a.fence(b)
    assert a.store.court.look().doubted == frozenset()
    assert not a.store.court.doubt("b", 10.0)


def test_a_doubt_alone_fences_nobody_and_changes_no_evidence(member):
    a, b = member("a"), member("b")
    before = a.judge(b)
    a.store.court.doubt("b", 10.0)
    assert a.judge(b) == before
