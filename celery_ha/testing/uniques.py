"""What every store promises about the keys of unique tasks."""

from __future__ import annotations

import pytest

from celery_ha.model import Reservation

SHORT, LONG = 0.05, 60.0


@pytest.fixture
def uniques(backend):
    return backend.client().uniques


def test_a_key_has_one_task(uniques, backend):
    assert uniques.claim_key("x", "t1", LONG) == Reservation("t1")
    assert backend.client().uniques.claim_key("x", "t2", LONG) == Reservation("t1")
    assert uniques.claim_key("y", "t2", LONG) == Reservation("t2")


def test_a_reservation_that_is_claimed_again_is_the_same(uniques):
    uniques.claim_key("x", "t1", LONG)

    assert uniques.claim_key("x", "t1", LONG) == Reservation("t1")


def test_others_learn_that_the_message_is_published(uniques):
    uniques.claim_key("x", "t1", LONG)

    assert uniques.keep_key("x", "t1", LONG)
    assert uniques.claim_key("x", "t2", LONG) == Reservation("t1", published=True)
    assert uniques.claim_key("x", "t1", LONG) == Reservation("t1", published=True)


def test_a_reservation_whose_publisher_died_is_over_soon(uniques, backend):
    uniques.claim_key("x", "t1", SHORT)
    backend.pass_time(SHORT * 2)

    assert not uniques.keep_key("x", "t1", LONG)
    assert uniques.claim_key("x", "t2", LONG) == Reservation("t2")


def test_a_published_key_is_over_after_its_ttl(uniques, backend):
    uniques.claim_key("x", "t1", SHORT)
    uniques.keep_key("x", "t1", SHORT)
    backend.pass_time(SHORT * 2)

    assert uniques.claim_key("x", "t2", LONG) == Reservation("t2")


def test_keeping_a_key_outlasts_its_reservation(uniques, backend):
    uniques.claim_key("x", "t1", SHORT)
    uniques.keep_key("x", "t1", LONG)
    backend.pass_time(SHORT * 2)

    assert uniques.claim_key("x", "t2", LONG).task == "t1"


def test_a_retry_that_claims_its_key_does_not_shorten_it(uniques, backend):
    uniques.claim_key("x", "t1", LONG)
    uniques.claim_key("x", "t1", SHORT)
    backend.pass_time(SHORT * 2)

    assert uniques.claim_key("x", "t2", LONG).task == "t1"


def test_a_key_is_freed_by_its_own_task_only(uniques):
    uniques.claim_key("x", "t1", LONG)

    assert not uniques.free_key("x", "t2")
    assert not uniques.keep_key("x", "t2", LONG)
    assert uniques.claim_key("x", "t2", LONG).task == "t1"
    assert uniques.free_key("x", "t1")
    assert not uniques.free_key("x", "t1")
    assert uniques.claim_key("x", "t2", LONG) == Reservation("t2")


def test_a_key_that_was_freed_before_its_publisher_went_on_stays_free(uniques):
    uniques.claim_key("x", "t1", LONG)
    uniques.free_key("x", "t1")

    assert not uniques.keep_key("x", "t1", LONG)
    assert uniques.claim_key("x", "t2", LONG) == Reservation("t2")


@pytest.mark.parametrize("key", ["", "a b", "{x}:\n", "käse", "x" * 1024])
def test_any_text_is_a_key(uniques, key):
    assert uniques.claim_key(key, "t1", LONG) == Reservation("t1")
    assert uniques.free_key(key, "t1")
