"""The pure half of the ZooKeeper store: names, records, and who gets a lock."""

from __future__ import annotations

import pytest

from celery_ha.errors import SchemaError, StoreError
from celery_ha.model import Holder
from celery_ha.store.zookeeper.clock import Reading
from celery_ha.store.zookeeper.ops import Check, Create, Delete, Write
from celery_ha.store.zookeeper.records import Held, Lock, Waiter, dump_lock, load_lock, load_node
from celery_ha.store.zookeeper.rules import View, write
from celery_ha.store.zookeeper.znodes import LONGEST, Entry, Paths, lock_key

pytestmark = pytest.mark.unit

PATHS = Paths("/r")
A = Held(Holder("a", "a.1", "t"), inherit=60.0, token=5)
TRUST = Held(Holder("", "", "t"), inherit=60.0, until=100.0, token=5)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "a/b", "\0", "=a:0:b", "ключ", "%sha256-", "x" * 1024, "/" * 1024]
)
def test_any_name_is_one_path_component_and_comes_back_from_an_entry(name):
    key = lock_key(name)

    assert key not in {"", ".", ".."}
    assert "/" not in key
    assert "\0" not in key
    assert len(key) <= LONGEST
    assert Entry.parse(str(Entry(name, 3, key))) == Entry(name, 3, key)


def test_names_of_different_locks_differ():
    names = ["", "=", "x", "%78", "x" * 1024, "x" * 1023, "%sha256-", "a/b", "a%2Fb"]
    assert len({lock_key(name) for name in names}) == len(names)


def test_slot_granted_by_the_last_write_has_its_number_as_token():
    lock = Lock("x", "m", 2, {0: A, 1: Held(Holder("b", "b.1", "u"), 1.0, 9.0)})

    read = load_lock(dump_lock(lock), written=77, date=0)

    assert read.slots[0] == A
    assert read.slots[1].token == 77
    assert load_lock(dump_lock(read), written=99, date=0) == read, "later writes change no token"


def test_max_hold_counts_from_the_write_that_granted_it_however_late_that_was():
    after = view(now=(10.0, 10.5)).granted(0, Waiter(Holder("a", "a.1", "t"), 1.0, max_hold=0.5))

    read = load_lock(dump_lock(after), written=77, date=12_000)

    assert read.slots[0].until == pytest.approx(12.501)
    assert load_lock(dump_lock(read), written=99, date=13_000) == read, "later writes change no end"


@pytest.mark.parametrize(
    "record", [b"", b"[]", b'{"schema":1}', b'{"schema":1,"name":"x","mark":"m","limit":1,"slots":[]}']
)
def test_what_is_no_record_of_ours_is_refused(record):
    with pytest.raises(StoreError):
        load_lock(record, 1, 0)
    with pytest.raises(StoreError):
        load_node("a", record, 1)


def test_record_of_a_later_version_is_refused():
    with pytest.raises(SchemaError, match="upgrade"):
        load_lock(b'{"schema":2}', 1, 0)


def view(*held, now=(10.0, 10.5), line=()):
    return View(Lock("x", "m", 1, dict(enumerate(held))), 3 if held else -1, now, line)


def test_slot_is_held_until_its_end_has_surely_come():
    assert view(TRUST, now=(99.9, 100.4)).held(0) == TRUST
    assert view(TRUST, now=(100.0, 100.5)).held(0) is None


def test_trust_lasts_at_least_as_long_as_was_asked_for():
    assert view(A).entrusted(0, "t").slots[0] == Held(Holder("", "", "t"), 60.0, until=70.5, token=5)


def test_lock_is_due_to_its_task_unless_the_holders_lease_is_open():
    assert view(A).due("t", 1, frozenset({"a"})) is None
    assert view(A).due("t", 1, frozenset()) == 0
    assert view(TRUST).due("t", 1, frozenset()) == 0
    assert view(TRUST).due("other", 1, frozenset()) is None
    assert view(Held(Holder("a", "a.1", ""), 1.0)).due("", 1, frozenset()) is None, "no id, no inheritance"


def test_grant_needs_an_open_lease_and_a_claim_that_has_not_ended():
    free = view()
    ops = write(PATHS, free, free.granted(0, Waiter(A.holder, 60.0)), stays=False)

    assert ops[0] == Create("/r/locks/=x")
    assert isinstance(ops[1], Write)
    assert ops[1].version == 0
    assert ops[2:] == [
        Create("/r/locks/=x/mark-m"),
        Check("/r/leases/=a"),
        Create("/r/ended/=a.1"),
        Delete("/r/ended/=a.1"),
        Create("/r/held/=a/=a.1:0:=x"),
    ]


def test_freeing_the_last_slot_deletes_the_lock_and_its_entries():
    held = view(A)
    assert write(PATHS, held, held.lock.without(0), stays=False) == [
        Delete("/r/locks/=x/mark-m"),
        Delete("/r/locks/=x", 3),
        Delete("/r/held/=a/=a.1:0:=x"),
    ]


def test_taking_a_lock_out_of_trust_moves_its_entries():
    kept = view(TRUST)
    ops = write(PATHS, kept, kept.granted(0, Waiter(Holder("b", "b.1", "t"), 60.0)), stays=False)

    assert Delete("/r/due/=t:0:=x") in ops
    assert Create("/r/held/=b/=b.1:0:=x") in ops
    assert not any(isinstance(op, Create) and op.path.startswith("/r/due/") for op in ops)


def test_servers_time_is_between_its_bounds():
    # The server stamped 1000.000 to 1000.001 somewhere between 5.0 and 5.2 here.
    reading = Reading(sent=5.0, received=5.2, stamp=1000.0)

    assert reading.at_least(6.2) == pytest.approx(1001.0)
    assert reading.at_most(6.2) == pytest.approx(1001.201)


def test_every_change_of_a_lock_names_the_very_znode_it_was_decided_on():
    # The versions of the next znode of this name begin again.
    held = view(A)
    mark = "/r/locks/=x/mark-m"

    assert Check(mark) in write(PATHS, held, held.lock, stays=True)
    assert Check(mark) in write(PATHS, held, held.entrusted(0, "t"), stays=False)
    assert Delete(mark) in write(PATHS, held, held.lock.without(0), stays=False)
