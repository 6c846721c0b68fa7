"""How closely the server's time is known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from celery_ha.store.zookeeper import clock


class Line:
    """A connection whose writes take as long as they are told to, each stamped at its end."""

    def __init__(self, *takes: float) -> None:
        self.now = 100.0
        self.takes = list(takes)

    def persist(self, call: Callable[[], Any]) -> Any:
        return call()

    def commit(self, _op: object) -> list[SimpleNamespace]:
        self.now += self.takes.pop(0)
        return [SimpleNamespace(mtime=int(self.now * 1000))]


@pytest.mark.parametrize(("takes", "width"), [([0.01], 0.01), ([3.0, 0.01], 0.01), ([3.0, 2.0, 1.0], 1.0)])
def test_slow_look_at_the_clock_does_not_blur_it_for_a_minute(
    monkeypatch: pytest.MonkeyPatch, takes: list[float], width: float
) -> None:
    line: Any = Line(*takes)
    monkeypatch.setattr(clock, "monotonic", lambda: line.now)

    earliest, latest = clock.Clock(line, "/touch").read()

    assert latest - earliest == pytest.approx(width, abs=0.002)
    assert earliest <= line.now <= latest
