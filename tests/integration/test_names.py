"""Node names: taken, reused, given back."""

from __future__ import annotations

import signal

from tests.support.fleet import eventually
from tests.support.scene import Scene


def test_worker_with_the_name_of_a_live_one_is_refused_with_advice(trio: Scene):
    # Given a live worker
    first = trio.live[0]
    lease = trio.node(first).lease
    # When another one is started under its name
    second = trio.fleet.start(*trio.options, name=first.name, ready=False)
    # Then it ends, with a sentence and no traceback
    eventually(lambda: not second.alive)
    assert second.process.returncode == 1
    assert second.said(f"another live worker is named '{first.name}'")
    assert second.said("-n")
    assert not second.said("Traceback")
    # And the first one works on
    assert trio.node(first).lease == lease
    trio.settled(trio.load(20, 0.01))


def test_the_name_of_a_frozen_worker_can_be_taken_over(trio: Scene):
    # Given a frozen worker that holds tasks
    frozen = trio.live[0]
    lease = trio.node(frozen).lease
    trio.kill(frozen, signal.SIGSTOP)
    # When another one is started under its name
    heir = trio.fleet.start(*trio.options, name=frozen.name)
    # Then it works, under a lease of its own, and the frozen one is given up
    eventually(lambda: lease in trio.fenced())
    assert trio.node(heir).lease != lease
    trio.wait_ended(trio.load(20, 0.01))
    trio.kill(frozen, signal.SIGKILL)
