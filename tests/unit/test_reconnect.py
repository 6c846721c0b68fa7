"""What a worker's pool looks like to the loop after a reconnect."""

from __future__ import annotations

import os
import pickle
import struct
import sys
from select import select
from types import SimpleNamespace

import pytest
from billiard import Process
from celery.concurrency.asynpool import AsynPool, ResultHandler
from celery.worker import state
from kombu.asynchronous import Hub

from celery_ha.worker.node import WorkerNode
from celery_ha.worker.reconnect import Reads, drop_waiting, watch_again


class Request:
    """As much of one as a reconnect looks at."""

    def __init__(self, claim: str) -> None:
        self.id = self.name = claim
        self.message = SimpleNamespace(delivery_tag=claim)


def test_task_that_was_acked_early_keeps_its_slot_while_it_runs():
    """Else more is claimed as started than can start: bystanders that would count (G7)."""
    # Given one request whose task runs and was acked before, and one that waits
    early, waits = Request("L.1"), Request("L.2")
    for request in (early, waits):
        state.task_reserved(request)
    state.active_requests.add(early)
    consumer = SimpleNamespace(controller=None, task_buckets={}, timer=None)
    try:
        # When the connection is lost under a living lease
        drop_waiting(consumer, lambda _claim: False)
        # Then the one that runs is known on
        assert set(state.reserved_requests) == {early}
        assert state.requests.get("L.1") is early
    finally:
        state.task_ready(early)


def test_slots_in_which_threads_run_on_after_a_fence_are_not_free():
    # Given two threads that run what a zombie could not stop; Celery has dropped its reservations
    running = [Request("old.1"), Request("old.2")]
    state.active_requests.update(running)
    node = SimpleNamespace(concurrency=lambda: 3)
    try:
        # Then nothing is claimed as started for them
        assert WorkerNode.free_slots(node) == 1
        # And what is reserved for the third counts with what runs, once it runs
        state.task_reserved(new := Request("new.1"))
        state.task_accepted(new)
        assert WorkerNode.free_slots(node) == 0
    finally:
        for request in (*running, new):
            state.task_ready(request)


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
