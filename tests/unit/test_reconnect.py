"""What a worker's pool looks like to the loop after a reconnect."""

from __future__ import annotations

import sys
from select import select

import pytest
from billiard import Process
from celery.concurrency.asynpool import AsynPool
from kombu.asynchronous import Hub

from celery_ha.worker.reconnect import watch_again


@pytest.mark.skipif(sys.platform == "win32", reason="no such pool there")
def test_child_that_died_as_the_loop_ended_is_noticed_by_the_next_loop():
    # Given a child that has ended, and that Celery has stopped to watch
    process = Process(target=int)
    process.start()
    assert select([process._popen.sentinel], [], [], 30)[0]
    process._sentinel_poll = None
    pool = type("Around", (), {"_pool": type("Inner", (), {"_pool": [process]})})()
    hub = Hub()
    # When the next loop begins
    watch_again(pool)
    seen: list[Process] = []
    tracker = type("Tracker", (), {"_event_process_exit": lambda self, hub, process: seen.append(process)})()
    AsynPool._track_child_process(tracker, process, hub)
    # Then it hears of it
    hub.run_once()
    assert seen == [process]
    hub.close()
    process.join()
