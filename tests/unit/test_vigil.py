"""When a consumer is deaf: tables of looks."""

from __future__ import annotations

import pytest

from celery_ha.errors import ConsumerStuck
from celery_ha.vigil import Sight, Vigil, doubtful, interval, stuck, watch
from celery_ha.worker.reception import Reception

AFTER = 8.0  # a look a second

NO_ROOM, NO_ANSWER = "no room", "no answer"


def found(looks, served=None, *, queue="q"):
    """When it is found to be stuck. A look is (when, messages that wait), the service (when heard of, ...)."""
    vigil = Vigil(0.0)
    for at, count in looks:
        heard = {queue: max(t for t in served if t <= at)} if served and min(served) <= at else {}
        waiting = None if count == NO_ANSWER else {queue: 5 if count == NO_ROOM else count}
        vigil = watch(vigil, Sight(count != NO_ROOM, waiting, heard), at, AFTER)
        if stuck(vigil, heard, at, AFTER):
            return at
    return None


def every_second(until, count=5, *, start=0):
    return [(float(at), count) for at in range(start, until + 1)]


@pytest.mark.parametrize(
    ("looks", "served", "at"),
    [
        (every_second(20), None, 8.0),
        (every_second(20), [3.0], 11.0),  # counted from when it was last heard of
        (every_second(20), [float(at) for at in range(21)], None),  # asked and answered, whatever waits elsewhere
        (every_second(20, 0), None, None),  # nothing waits
        (every_second(20, 0) + every_second(30, start=21), None, 25.0),  # idle for long, then deaf: half the time
        ([*every_second(5), (6.0, 0), *every_second(9, start=7)], None, None),  # somebody took it meanwhile
        (every_second(20, NO_ROOM), None, None),  # full, or not trusted
        ([*every_second(5), (6.0, NO_ROOM), *every_second(9, start=7)], None, None),
        ([*every_second(5), (6.0, NO_ANSWER), *every_second(9, start=7)], None, None),  # who does not answer: no proof
        (every_second(7) + every_second(23, start=20), None, None),  # a stall between two looks: observed afresh
        (every_second(7) + every_second(24, start=20), None, 24.0),
    ],
)
def test_a_consumer_is_stuck_when_look_after_look_sees_messages_wait_in_vain(looks, served, at):
    assert found(looks, served) == at


def test_one_deaf_queue_beside_one_that_is_heard_is_found():
    vigil = Vigil(0.0)
    for at in range(9):
        served = {"b": float(at)}
        vigil = watch(vigil, Sight(True, {"a": 1, "b": 1}, served), float(at), AFTER)
    assert stuck(vigil, served, 8.0, AFTER) == ("a",)


def test_only_what_was_not_heard_of_lately_is_asked_about():
    served = {"a": 9.0, "b": 6.0}
    assert doubtful(["a", "b", "c"], served, 0.0, 10.0, AFTER) == ("b", "c")
    assert doubtful(["a", "b", "c"], served, 7.0, 10.0, AFTER) == ("b",)


def test_looks_are_taken_often_enough():
    assert interval(AFTER) == 1.0


def test_stuck_is_said_once_and_counted():
    reception, told = Reception(AFTER), []
    reception.on_stuck = lambda queues, _reason: told.append(queues)
    reception.check()
    reception.stuck(("q",))
    with pytest.raises(ConsumerStuck):
        reception.check()
    reception.check()
    assert (reception.reconnects, told) == (1, [("q",)])


def test_a_new_connection_is_not_stuck_for_what_the_old_one_did_not_hear():
    reception = Reception(AFTER)
    reception.serve(["q"])
    reception.stuck(("q",))
    reception.begin()
    reception.check()
    assert (reception.reconnects, reception.served) == (0, {})


def test_a_loop_that_hangs_is_cut_off_once_and_again_when_it_hangs_again(monkeypatch):
    now, reception, cuts, told = [100.0], Reception(AFTER), [], []
    monkeypatch.setattr("celery_ha.worker.reception.monotonic", lambda: now[0])
    reception.cut = lambda: cuts.append(now[0]) or 3
    reception.on_stuck = lambda queues, _reason: told.append(queues)
    for at, pulse in [(100, 99), (106, 99), (107, 99), (108, 99), (120, 110), (121, None)]:
        now[0] = float(at)
        reception.silent(pulse)
    assert (cuts, reception.reconnects, told) == ([107.0, 120.0], 2, [(), ()])


def test_nothing_is_cut_off_where_it_is_switched_off():
    reception = Reception(0)
    reception.cut = lambda: pytest.fail("cut off")
    reception.silent(-1e9)
