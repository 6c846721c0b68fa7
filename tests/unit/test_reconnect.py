"""What a worker's pool looks like to the loop after a reconnect."""

from __future__ import annotations

import os
import pickle
import struct
import sys
from select import select

import pytest
from billiard import Process
from celery.concurrency.asynpool import AsynPool, ResultHandler
from kombu.asynchronous import Hub

from celery_ha.worker.reconnect import Reads, watch_again


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


@pytest.mark.skipif(sys.platform == "win32", reason="no such pool there")
def test_result_that_one_loop_has_read_in_part_is_read_to_its_end_by_the_next():
    # Given a child's pipe, and a loop that has read the first half of a long result from it
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    handler, seen = ResultHandler.__new__(ResultHandler), []
    handler.fileno_to_outq, handler.on_state_change = {reader: "a child"}, seen.append
    reads = Reads(_around(handler))
    hub = Hub()
    handler.register_with_event_loop(hub)
    hub.add_reader(reader, handler.handle_event, reader)
    first, second = (_framed({"result": text}) for text in ("x" * 9_000, "y"))
    os.write(writer, first[:5_000])
    hub.run_once()
    assert seen == []
    # When the loop is reset, and the next one goes on
    hub.reset()
    handler.register_with_event_loop(hub)
    hub.add_reader(reader, handler.handle_event, reader)
    reads.resume(hub)
    os.write(writer, first[5_000:] + second)
    for _ in range(4):
        hub.run_once()
    # Then it has that result whole, and the one after it
    assert [message["result"][:1] for message in seen] == ["x", "y"]
    hub.close()


def test_half_a_result_of_a_child_that_is_gone_is_not_taken_for_the_next_childs():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    handler = ResultHandler.__new__(ResultHandler)
    handler.fileno_to_outq, handler.on_state_change = {reader: "a child"}, print
    reads = Reads(_around(handler))
    hub = Hub()
    handler.register_with_event_loop(hub)
    hub.add_reader(reader, handler.handle_event, reader)
    os.write(writer, _framed("x" * 9_000)[:5_000])
    hub.run_once()
    # Given another child behind the same descriptor
    hub.reset()
    handler.fileno_to_outq = {reader: "another child"}
    # Then nothing of the first is left
    reads.resume(hub)
    assert hub.readers == {}
    hub.close()


def _around(handler: ResultHandler) -> object:
    return type("Around", (), {"_pool": type("Inner", (), {"_result_handler": handler})})()


def _framed(message: object) -> bytes:
    """As billiard writes it."""
    body = pickle.dumps(message)
    return struct.pack("!i", len(body)) + body
