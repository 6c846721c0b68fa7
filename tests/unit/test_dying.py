"""What a child that is killed had locked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from celery_ha.worker.dying import Dying


class Loop:
    """A loop that turns when it is told to."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def later(self, _seconds: float, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as made:
        yield made
        made.kill()


def test_what_a_killed_child_had_locked_is_free_when_it_is_reaped(child: subprocess.Popen[bytes]) -> None:
    loop, freed = Loop(), []
    dying = Dying(loop.later)
    dying.once_gone("L.1", child.pid, lambda: freed.append("L.1"))
    loop.turn()
    assert (freed, dying.claims) == ([], {"L.1"})
    # Killed and not reaped yet: the one who reaps it has still to say that it is gone
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    loop.turn()
    assert freed == []
    child.wait()
    loop.turn()
    assert (freed, dying.claims, loop.calls) == (["L.1"], set(), [])


@pytest.mark.parametrize("pid", [None, os.getpid()], ids=["unknown", "a_pool_without_children"])
def test_without_a_child_nothing_is_waited_for(pid: int | None) -> None:
    freed: list[str] = []
    Dying(Loop().later).once_gone("L.1", pid, lambda: freed.append("L.1"))
    assert freed == ["L.1"]
