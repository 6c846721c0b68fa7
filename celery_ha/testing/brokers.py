"""What every broker promises, whoever keeps the messages: the broker itself, or our records beside it."""

from __future__ import annotations

import time


def names(found):
    return [held.name for held in found]


def test_messages_come_in_the_order_in_which_they_were_published(bench):
    bench.publish("a", "b", "c")

    assert names(bench.worker("L1").claim(3)) == ["a", "b", "c"]


def test_a_claim_belongs_to_its_lease_and_has_not_started(bench):
    bench.publish("a")
    one = bench.worker("L1")

    (held,) = one.claim(1)

    assert held.claim.startswith("L1.")
    assert held.deliveries == 0
    assert one.holding() == {"a": False}


def test_start_marks_an_attempt_and_may_be_repeated(bench):
    bench.publish("a")
    one = bench.worker("L1")
    (held,) = one.claim(1)

    assert one.start(held)
    assert one.start(held)
    assert one.holding() == {"a": True}


def test_no_claim_is_used_twice(bench):
    bench.publish("a", "b", "c", "d")
    one, found = bench.worker("L1"), []
    for _ in range(4):
        (held,) = one.claim(1)
        one.release(held)
        found.append(held.claim)

    assert len(set(found)) == 4


def test_what_was_acked_never_comes_again(bench):
    bench.publish("a", "b")
    one = bench.worker("L1")
    first, _ = one.claim(2)
    one.start(first)

    assert one.ack(first)
    assert one.ack(first), "an ack may be repeated"
    assert one.holding() == {"b": False}

    one.die()
    bench.recover(["L1"])
    two = bench.worker("L2")
    assert names(two.claim(1)) == ["b"]
    assert two.nothing_comes()


def test_an_attempt_that_was_acked_is_not_started(bench):
    bench.publish("a")
    one = bench.worker("L1")
    (held,) = one.claim(1)
    one.ack(held)

    assert not one.start(held)


def test_a_rejected_message_is_a_dead_letter_with_its_reason(bench):
    bench.publish("a")
    one = bench.worker("L1")
    (held,) = one.claim(1)

    assert one.bury(held, "no use")

    assert bench.dead() == {"a": "no use"}
    assert one.holding() == {}
    one.die()
    bench.recover(["L1"])
    assert bench.worker("L2").nothing_comes()


def test_what_goes_back_is_in_front_in_its_old_order_and_not_counted(bench):
    bench.publish("a", "b", "c")
    one = bench.worker("L1")
    first, second = one.claim(2)

    assert one.release(second, first)

    found = one.claim(3)
    assert names(found) == ["a", "b", "c"]
    assert [held.deliveries for held in found] == [0, 0, 0]


def test_a_started_attempt_that_goes_back_counts(bench):
    bench.publish("a")
    one = bench.worker("L1")
    for before in range(3):
        (held,) = one.claim(1)
        assert held.deliveries == before
        assert one.start(held)
        one.release(held)


def test_what_a_dead_worker_held_comes_again_in_its_old_order_before_what_is_new(bench):
    bench.publish("a", "b", "c")
    one = bench.worker("L1")
    one.claim(3)
    one.die()
    bench.publish("d")

    bench.recover(["L1"])

    assert names(bench.worker("L2").claim(4)) == ["a", "b", "c", "d"]


def test_only_attempts_that_had_started_count(bench):
    bench.publish("a", "b")
    one = bench.worker("L1")
    first, _ = one.claim(2)
    one.start(first)
    one.die()

    bench.recover(["L1"])

    assert [(held.name, held.deliveries) for held in bench.worker("L2").claim(2)] == [("a", 1), ("b", 0)]


def test_every_worker_that_died_of_a_task_is_counted(bench):
    bench.publish("a")
    for number in range(3):
        worker = bench.worker(f"L{number}")
        (held,) = worker.claim(1)
        assert held.deliveries == number
        assert worker.start(held)
        worker.die()
        bench.recover([worker.lease])


def test_recovery_twice_moves_once(bench):
    bench.publish("a", "b")
    one = bench.worker("L1")
    first, _ = one.claim(2)
    one.start(first)
    one.die()

    bench.recover(["L1"])
    bench.recover(["L1"])

    two = bench.worker("L2")
    assert [(held.name, held.deliveries) for held in two.claim(2)] == [("a", 1), ("b", 0)]
    assert two.nothing_comes()


def test_what_runs_on_a_worker_that_may_live_comes_to_nobody_else(bench):
    bench.publish("a")
    one = bench.worker("L1")
    (held,) = one.claim(1)
    one.start(held)

    one.die()  # for all that is known: nobody has fenced its lease

    assert bench.worker("L2").nothing_comes()


def test_a_fenced_lease_starts_and_ends_nothing(bench):
    bench.publish("a", "b")
    one = bench.worker("L1")
    first, second = one.claim(2)
    one.start(first)
    one.die()

    bench.recover(["L1"])

    assert not one.start(second)
    assert not one.ack(first)
    assert not one.release(second)
    assert not one.bury(second, "late")
    assert bench.dead() == {}
    assert names(bench.worker("L2").claim(2)) == ["a", "b"]


def test_a_late_ack_changes_nothing_of_what_has_moved_on(bench):
    bench.publish("a")
    one = bench.worker("L1")
    (held,) = one.claim(1)
    one.start(held)
    one.die()
    bench.recover(["L1"])
    two = bench.worker("L2")
    (again,) = two.claim(1)
    assert two.start(again)

    assert not one.ack(held)

    assert two.holding() == {"a": True}
    two.die()
    bench.recover(["L2"])
    assert names(bench.worker("L3").claim(1)) == ["a"]


def test_a_claim_of_another_lease_cannot_be_ended_or_started(bench):
    bench.publish("a")
    one, two = bench.worker("L1"), bench.worker("L2")
    (held,) = one.claim(1)

    two.ack(held)

    assert not two.start(held)
    assert one.holding() == {"a": False}


def test_priorities_or_the_order_of_publishing(bench):
    for name, priority in (("low", 9), ("middle", 3), ("high", 0)):
        bench.publish(name, priority=priority)

    found = names(bench.worker("L1").claim(3))

    assert found == (["high", "middle", "low"] if bench.priorities else ["low", "middle", "high"])


def test_a_message_with_an_eta_is_not_started_by_its_arrival_and_outlives_its_worker(bench):
    published = time.time()
    bench.publish_later("a", 2.0)
    one = bench.worker("L1")

    (held,) = one.claim(1)

    assert time.time() - published > 1.0 or not bench.delays
    assert held.headers["eta"]
    assert one.holding() == {"a": False}
    one.die()
    bench.recover(["L1"])
    (again,) = bench.worker("L2").claim(1)
    assert (again.headers["eta"], again.deliveries) == (held.headers["eta"], 0)


def test_a_message_survives_its_worker_whole(bench):
    written = {"group": "g", "root_id": "r", "expires": "2090-01-01T00:00:00+00:00", "stamps": {}, "empty": []}
    bench.publish("a", headers=written)
    one = bench.worker("L1")
    (held,) = one.claim(1)
    one.start(held)
    one.die()

    bench.recover(["L1"])

    (again,) = bench.worker("L2").claim(1)
    assert held.headers.items() >= written.items()
    assert again.headers.items() >= written.items()


def test_a_publish_that_its_producer_repeats_runs_once(bench):
    bench.publish("a", publish_id="p.1")
    bench.publish("a", publish_id="p.1")
    bench.publish("b", publish_id="p.2")
    one, ran = bench.worker("L1"), []
    while "b" not in ran:
        (held,) = one.claim(1)
        if one.start(held):
            ran.append(held.name)
            one.ack(held)

    assert ran == ["a", "b"]
    assert one.nothing_comes()
