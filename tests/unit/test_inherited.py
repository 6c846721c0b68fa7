"""What a child inherits from threads it does not have."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest
from kombu.utils.objects import cached_property

from celery_ha.worker.inherited import InheritedLocks


class Slow:
    """Its value takes until it is let go."""

    entered, released = threading.Event(), threading.Event()

    @cached_property
    def value(self) -> int:
        self.entered.set()
        assert self.released.wait(60)
        return 1


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_forked_while_a_thread_makes_a_value_can_make_its_own():
    # Given a thread that is making a cached value
    locks = InheritedLocks()
    thread = threading.Thread(target=lambda: Slow().value)
    thread.start()
    assert Slow.entered.wait(30)
    # When a child is forked
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        locks.renew()
        Slow.released.set()
        os._exit(Slow().value + 10)
    # Then it gets a value of its own
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11
    Slow.released.set()
    thread.join()
