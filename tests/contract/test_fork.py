"""A pool child must start whatever the threads of its parent were doing at the fork."""

from __future__ import annotations

import os
import threading

import pytest
from billiard import Process

from celery_ha.brokers.connection import Connection

pytestmark = pytest.mark.contract


def test_child_starts_though_a_thread_held_a_connection_pool_at_the_fork(redis_server):
    with Connection(redis_server.url) as connection:
        channel = connection.default_channel
        taken, done = threading.Event(), threading.Event()

        def hold() -> None:
            with channel.pool._lock, channel.async_pool._lock:
                taken.set()
                done.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        taken.wait()
        child = Process(target=os._exit, args=(7,))
        child.start()
        child.join(20)
        done.set()
        holder.join()
        try:
            assert child.exitcode == 7
        finally:
            if child.exitcode is None:
                child.kill()


def test_forked_siblings_are_two_producers(redis_server):
    connection = Connection(redis_server.url)
    first = connection.next_publish_id()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, connection.next_publish_id().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    mine, theirs = connection.next_publish_id(), os.read(read, 100).decode()

    assert mine.rpartition(".")[0] == first.rpartition(".")[0]
    assert theirs.rpartition(".")[0] != mine.rpartition(".")[0]
