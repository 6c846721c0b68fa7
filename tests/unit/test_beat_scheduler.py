"""What a beat in office does with the entries of its schedule; the store is in memory, the office is given."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from celery_ha import HA
from celery_ha.beat import scheduler
from celery_ha.beat.outbox import ids
from celery_ha.model import Firing, Holder, Node, Term
from celery_ha.store.memory import MemoryServer, MemoryStore

LEASE = "a"


class GivenSeat:
    """A seat whose office a test gives and takes."""

    name = "beat-1@host"
    closed = False

    def __init__(self, app):
        self.store = MemoryStore(MemoryServer())
        self.store.leases.open(Node(LEASE, self.name, ttl=10.0))
        self.holder = Holder(LEASE, f"{LEASE}.beat", "")
        self.take()

    def take(self):
        token = self.store.locks.acquire(scheduler.OFFICE, self.holder, inherit=0.0).token
        self.term = Term(scheduler.OFFICE, self.holder, token)

    def trusts(self, term):
        return True

    def pulse(self, seconds):
        pass

    def lost(self, term):
        self.term = None

    def resign(self, term):
        self.store.locks.release(term.office, term.holder, term.token)
        self.term = None

    def close(self):
        self.closed = True


class Sent(list):
    """Stands for the broker: what was sent, or why it could not be."""

    error: Exception | None = None

    def __call__(self, name, args, kwargs, **options):
        if self.error is not None:
            raise self.error
        self.append(options["task_id"])


@pytest.fixture
def app():
    made = Celery("beats", broker="redis://localhost:1/0", set_as_current=False)
    made.conf.result_expires = None
    made.conf.beat_schedule = {"tick": {"task": "elsewhere", "schedule": timedelta(hours=1)}}
    HA(made)
    return made


@pytest.fixture
def beat(app, monkeypatch):
    monkeypatch.setattr(scheduler, "Seat", GivenSeat)
    made = scheduler.Scheduler(app)
    made.sent = made.inner.send_task = Sent()
    made.inner.__dict__["producer"] = None
    return made


def stored(beat) -> Firing:
    return beat._seat.store.firings.read(scheduler.OFFICE).firings.get("tick")


def put_back(beat, seconds: float) -> None:
    """The last firing was so long ago."""
    there = stored(beat)
    old = Firing("tick", there.number, time.time() - seconds, sent=True, term=there.term)
    beat._seat.store.firings.replace(beat._seat.term, there, old)
    beat._known["tick"] = old
    beat._looked.clear()
    beat._idle_until = 0.0


def test_a_beat_told_to_go_in_the_middle_of_a_publish_goes(beat):
    """redis-py and Celery make an error of what the signal's handler raised there."""

    class Interrupted(Sent):
        def __call__(self, *args, **options):
            beat.close()
            raise ValueError("I/O operation on closed file")

    beat.tick()
    put_back(beat, 3601)
    beat.inner.send_task = Interrupted()
    beat.tick()
    with pytest.raises(SystemExit):
        beat.tick()


def test_a_new_entry_is_shared_before_it_is_due(beat):
    beat.tick()

    assert (stored(beat).number, stored(beat).sent) == (0, True)
    assert stored(beat).next == pytest.approx(stored(beat).due + 3600.0)
    assert beat.sent == []


def test_a_due_entry_is_claimed_sent_and_marked(beat):
    beat.tick()
    put_back(beat, 3601.0)

    assert beat.tick() == 0.0

    assert beat.sent == [ids("_ha:", stored(beat))[0]]
    assert (stored(beat).number, stored(beat).sent) == (1, True)
    assert beat.tick() > 0.0
    assert len(beat.sent) == 1


def test_a_broker_that_is_away_costs_the_office_and_not_the_firing(beat):
    beat.tick()
    put_back(beat, 3601.0)
    beat.sent.error = OperationalError("away")

    beat.tick()
    assert beat._seat.term is None
    assert not stored(beat).sent
    beat._seat.take()
    beat.sent.error = None
    beat.tick()

    assert beat.sent == [ids("_ha:", stored(beat))[0]]
    assert (stored(beat).number, stored(beat).sent) == (1, True)


@pytest.mark.parametrize("error", [TypeError("no text form"), FileNotFoundError("of an argument made at firing")])
def test_an_entry_that_cannot_be_sent_does_not_hold_up_its_next_firing(beat, error):
    beat.tick()
    put_back(beat, 3601.0)
    beat.sent.error = error

    beat.tick()

    assert (stored(beat).number, stored(beat).sent) == (1, True)
    assert beat._seat.term is not None


def test_a_beat_that_lost_its_office_is_demoted_and_sends_nothing(beat):
    beat.tick()
    put_back(beat, 3601.0)
    seat = beat._seat
    seat.store.locks.release(scheduler.OFFICE, seat.holder, seat.term.token)

    beat.tick()

    assert seat.term is None
    assert beat.sent == []
    assert beat.tick() == scheduler.IDLE


def test_a_store_that_is_away_stops_the_firing_and_not_the_beat(beat, caplog):
    beat.tick()
    put_back(beat, 3601.0)
    beat._seat.store.cut = True

    assert [beat.tick() for _ in range(3)] == [scheduler.IDLE] * 3
    assert beat.sent == []
    assert caplog.text.count("until the store answers") == 1

    beat._seat.store.cut = False
    beat.tick()
    assert len(beat.sent) == 1


def test_a_claim_whose_answer_was_lost_is_sent_once(beat):
    beat.tick()
    put_back(beat, 3601.0)
    beat._seat.store.lose_next_reply = True

    beat.tick()
    assert beat.sent == []
    beat.tick()
    beat.tick()

    assert len(beat.sent) == 1
    assert stored(beat).number == 1


def test_an_entry_that_comes_back_to_the_schedule_has_missed_nothing(beat):
    beat.tick()
    put_back(beat, 36_000.0)
    entry = beat.inner.schedule.pop("tick")
    beat.tick()
    assert stored(beat) is None

    entry.last_run_at = entry.default_now()
    beat.inner.schedule["tick"] = entry
    beat._idle_until = 0.0
    beat.tick()

    assert beat.sent == []
    assert stored(beat).number == 0


def test_an_entry_that_cannot_tell_when_it_is_due_holds_up_no_other(beat, caplog):
    beat.inner.add(name="broken", task="elsewhere", schedule=timedelta(seconds=1))
    beat.inner.schedule["broken"].is_due = lambda: 1 / 0
    beat.tick()
    put_back(beat, 3601.0)

    beat.tick()

    assert len(beat.sent) == 1
    assert "'broken'" in caplog.text
