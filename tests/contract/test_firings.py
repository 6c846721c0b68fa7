"""What an entry fired last is changed only by the beat in office, and only as it knows it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from celery_ha.errors import LockLost
from celery_ha.model import Firing, Holder, Term

OFFICE = "office"


def take_office(member) -> Term:
    holder = Holder(member.lease, f"{member.lease}.beat", "")
    return Term(OFFICE, holder, member.store.locks.acquire(OFFICE, holder, inherit=0.0).token)


def firing(number: int = 1, *, entry: str = "report: äöü", sent: bool = False, due: float = 1e9 + 0.1) -> Firing:
    return Firing(entry, number, due + number, sent=sent, term=7, by="b1@host", next=None)


def test_a_firing_is_read_as_it_was_written(member):
    a = member("a")
    term, first = take_office(a), firing()

    assert a.store.firings.read(OFFICE).firings == {}
    assert a.store.firings.replace(term, None, first) == first

    beats = member("b").store.firings.read(OFFICE)
    assert beats.firings == {first.entry: first}
    assert beats.leader == "a"


def test_a_beat_out_of_office_claims_nothing(member):
    a, b = member("a"), member("b")
    term = take_office(a)
    stranger = replace(term, holder=Holder("b", "b.beat", ""))

    for wrong in (stranger, replace(term, token=term.token - 1), replace(term, office="elsewhere")):
        with pytest.raises(LockLost):
            b.store.firings.replace(wrong, None, firing())
        with pytest.raises(LockLost):
            b.store.firings.drop(wrong, ("x",))

    assert b.store.firings.read(OFFICE).firings == {}


def test_a_fenced_beat_claims_nothing(member):
    a, b = member("a"), member("b")
    term = take_office(a)
    assert b.fence(a)

    with pytest.raises(LockLost):
        a.store.firings.replace(term, None, firing())


def test_a_beat_whose_office_went_to_another_claims_nothing(member):
    a, b = member("a"), member("b")
    before = take_office(a)
    assert a.store.locks.release(OFFICE, before.holder, before.token)
    after = take_office(b)

    with pytest.raises(LockLost):
        a.store.firings.replace(before, None, firing())
    assert b.store.firings.replace(after, None, firing(sent=True)) == firing(sent=True)


def test_a_firing_has_one_successor(member):
    a = member("a")
    term, first = take_office(a), firing(sent=True)
    a.store.firings.replace(term, None, first)
    second, rival = firing(2), firing(2, due=2e9)

    assert a.store.firings.replace(term, first, second) == second
    assert a.store.firings.replace(term, first, rival) == second
    assert a.store.firings.replace(term, None, rival) == second
    assert a.store.firings.read(OFFICE).firings[first.entry] == second


def test_a_claim_whose_answer_was_lost_may_be_repeated(member):
    a = member("a")
    term, first = take_office(a), firing()
    a.store.firings.replace(term, None, first)

    assert a.store.firings.replace(term, None, first) == first
    assert [past for _, past in a.store.firings.history()] == [first]


def test_a_store_that_lost_its_memory_takes_the_next_beat_s_word(backend, member):
    a = member("a", ttl=0.3)
    before, first = take_office(a), firing(41, sent=True)
    a.store.firings.replace(before, None, first)
    backend.wipe()
    a.open()
    with pytest.raises(LockLost):
        a.store.firings.replace(before, first, firing(42))
    backend.pass_time(0.4)  # until offices are granted again

    after = take_office(a)

    assert a.store.firings.replace(after, first, firing(42)) == firing(42)


def test_the_history_tells_claims_not_marks(member):
    a = member("a")
    term = take_office(a)
    met, claimed = firing(0, sent=True), firing(1)
    a.store.firings.replace(term, None, met)
    a.store.firings.replace(term, met, claimed)
    a.store.firings.replace(term, claimed, replace(claimed, sent=True))
    skipped = replace(claimed, sent=True, due=3e9)
    a.store.firings.replace(term, replace(claimed, sent=True), skipped)
    a.store.firings.replace(term, skipped, firing(2))

    history = a.store.firings.history()
    assert [past for _, past in history] == [firing(2), claimed]
    assert history[0][0] >= history[1][0]


def test_entries_that_left_the_schedule_are_forgotten(member):
    a = member("a")
    term = take_office(a)
    for entry in ("stays", "goes"):
        a.store.firings.replace(term, None, firing(entry=entry))

    assert a.store.firings.drop(term, ("goes", "never was")) == 1
    assert set(a.store.firings.read(OFFICE).firings) == {"stays"}
