from __future__ import annotations

import pytest

from celery_ha.suspicion import Beat, heard, left, suspects


@pytest.mark.parametrize(
    ("freq", "silent_for", "suspected"),
    [(2.0, 4.9, False), (2.0, 5.1, True), (60.0, 100.0, False), (60.0, 151.0, True), (0.0, 1000.0, False)],
)
def test_silence_is_measured_in_the_nodes_own_intervals(freq: float, silent_for: float, suspected: bool) -> None:
    assert suspects({"w1": Beat(freq, 10.0)}, 10.0 + silent_for) == ({"w1"} if suspected else set())


def test_who_is_heard_again_is_no_longer_suspected() -> None:
    beats = heard({"w1": Beat(2.0, 0.0), "w2": Beat(2.0, 0.0)}, "w1", 2.0, 9.0)
    assert suspects(beats, 10.0) == {"w2"}


def test_who_said_goodbye_is_not_silent() -> None:
    assert suspects(left({"w1": Beat(2.0, 0.0)}, "w1"), 100.0) == frozenset()
