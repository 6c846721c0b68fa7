"""One connection to Redis that knows its own name, id and server run.

redis-py's pools reconnect and retry behind the caller's back. A lease is judged by its connections,
so here a call is sent once, on a connection whose identity is known.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, cast

from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    NoScriptError,
    RedisError,
    ResponseError,
)

from celery_ha.errors import StoreError, StoreUnavailable
from celery_ha.lua import Script, not_now, pack
from celery_ha.model import Readable
from celery_ha.store.redis.url import Dial, Wire

Command = tuple[Any, ...]


class Link:
    """A connection made on first use and after every loss. Safe to use from several threads.

    Args:
        dial: makes the connection.
        prefix: prefix of every key, passed to every script.
    """

    def __init__(self, dial: Dial, prefix: str) -> None:
        self._dial = dial
        #: Of every key.
        self.prefix = prefix
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._connection: Wire | None = None
        self._name = ""
        self._asked: tuple[Script, list[object]]
        #: The server's id of this connection; empty unless it was verified that it can be watched.
        self.id = ""
        #: The server's run id; empty if it does not tell.
        self.run = ""
        #: Differs after every reconnect.
        self.session = ""

    def identify(self, name: str) -> None:
        """Connect under this name, so that the connection can be watched.

        Args:
            name: the name for ``CLIENT SETNAME``.

        Raises:
            StoreUnavailable: no connection.
        """
        with self._held():
            if name != self._name:
                self._drop()
                self._name = name
            if self._connection is None:
                self._connect()

    def call(self, *commands: Command) -> list[Any]:
        """Send commands in one go and return their replies.

        Raises:
            StoreUnavailable: no reply in time; the commands may have run.
            StoreError: a command was refused.

        **Failure:** each command runs wholly or not at all; any number of the last ones may not run.
        """
        with self._held():
            if self._connection is None:
                self._connect()
            replies = self._exchange(commands)
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise self._refusal(reply)
        return replies

    def run_script(self, name: str, *arguments: object, keys: tuple[str, ...] = ()) -> Any:
        """Run ``lua/<name>.lua``, by its text if the server does not know it yet.

        Args:
            name: the script.
            arguments: what it takes.
            keys: keys it takes besides our prefix.

        Raises:
            StoreUnavailable: no reply in time; the script may have run.
            StoreError: the script failed.
        """
        lua, every, args = _script(name), [self.prefix, *keys], list(arguments)
        with self._held():
            try:
                return self.call(lua.command(every, args))[0]
            except StoreError as error:
                if not isinstance(error.__cause__, NoScriptError):
                    raise
            return self.call(lua.whole(every, args))[0]

    def ask_script(self, name: str, *arguments: object) -> Readable:
        """Send a script and do not wait: :meth:`read_script` must be the next call.

        Returns:
            What can be read from when the answer is there; another one after a new connection.

        Raises:
            StoreUnavailable: it was not sent whole; it may have run nevertheless.
        """
        self._asked = _script(name), list(arguments)
        with self._held():
            if self._connection is None:
                self._connect()
            lua, args = self._asked
            connection: Any = self._send([lua.command([self.prefix], args)])
            return cast("Readable", connection._sock)  # noqa: SLF001 - redis-py has no other way to it

    def read_script(self) -> Any:
        """The result of what :meth:`ask_script` sent; waits for it.

        Raises:
            StoreUnavailable: no reply in time; the script may have run.
            StoreError: the script failed.
        """
        with self._held():
            (reply,) = self._receive(1)
            if isinstance(reply, NoScriptError):
                lua, args = self._asked
                return self.call(lua.whole([self.prefix], args))[0]
            if isinstance(reply, ResponseError):
                raise self._refusal(reply)
            return reply

    def drop_if_closed(self) -> None:
        """Notice that the server closed an idle connection, before a call is lost on it."""
        with self._held():
            if self._connection is None:
                return
            try:
                usable = not self._connection.can_read(0)
            except (RedisError, OSError):
                usable = False
            if not usable:
                self._drop()

    def close(self) -> None:
        """Drop the connection; the next call makes a new one."""
        with self._held():
            self._drop()

    def close_inherited(self) -> None:
        """In a forked child: close the copy of the socket, send nothing, and forget whose it was."""
        # The parent's lock may have been held by a thread that does not exist here. redis-py shuts
        # the socket down only in the process that made it.
        connection = self._connection
        self._reset()
        if connection is not None:
            connection.disconnect()

    def _held(self) -> AbstractContextManager[Any]:
        if self._pid != os.getpid():
            self.close_inherited()
        return self._lock

    def _connect(self) -> None:
        connection = self._dial.wire()
        try:
            connection.connect()
            self._connection = connection
            self._introduce()
        except (RedisError, OSError) as error:
            connection.disconnect()
            self._drop()
            raise StoreUnavailable(f"cannot connect to the store: {error}") from error
        except BaseException:
            self._drop()
            raise

    def _introduce(self) -> None:
        """Learn what this connection is; whatever the server does not tell stays empty."""
        commands: list[Command] = [("INFO", "server"), ("CLIENT", "ID")]
        if self._name:
            commands.append(("CLIENT", "SETNAME", self._name))
        info, client_id, *named = self._exchange(commands)
        self.run = _field(info, "run_id")
        self.session = f"{self.run}/{secrets.token_hex(8)}"
        if self._name:
            self.id = self._verified(client_id, named)

    def _verified(self, client_id: object, replies: Sequence[object]) -> str:
        """The id under which others will find this very connection, or '' if they will not."""
        if isinstance(client_id, ResponseError) or any(isinstance(r, ResponseError) for r in replies):
            return ""
        (listed,) = self._exchange([("CLIENT", "LIST", "ID", client_id)])
        if not isinstance(listed, bytes) or f" name={self._name} ".encode() not in listed:
            return ""
        return str(client_id)

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send and read, with nothing in between where an interrupted call would leave its reply to the next."""
        with self._intact() as connection:
            _write(connection, commands)
            return [_read(connection) for _ in commands]

    def _send(self, commands: Sequence[Command]) -> Wire:
        """Send on the connection there is; returns it."""
        with self._intact() as connection:
            _write(connection, commands)
        return connection

    def _receive(self, replies: int) -> list[Any]:
        """Read replies; refusals are among them."""
        with self._intact() as connection:
            return [_read(connection) for _ in range(replies)]

    @contextmanager
    def _intact(self) -> Iterator[Wire]:
        """The connection, which is dropped if it is lost, or left with a reply that must not answer the next call."""
        connection = self._connection
        if connection is None:
            raise StoreUnavailable("the connection to the store was lost")
        try:
            yield connection
        except (RedisError, OSError) as error:
            self._drop()
            raise StoreUnavailable(f"the store did not answer: {error}") from error
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self.id = ""
        if connection is not None:
            connection.disconnect()

    def _refusal(self, error: ResponseError) -> StoreUnavailable | StoreError:
        if not_now(error):
            # A master that was demoted stays one for good: look for the new one.
            self._drop()
            unavailable = StoreUnavailable(f"the store cannot write now: {error}")
            unavailable.__cause__ = error
            return unavailable
        if isinstance(error, (AskError, ClusterCrossSlotError)):
            return StoreError("the store is a Redis Cluster, which cannot be used; take a single server or Sentinel")
        refused = StoreError(f"the store refused a command: {error}")
        refused.__cause__ = error
        return refused


@cache
def _script(name: str) -> Script:
    return Script("celery_ha.store", name)


def _write(connection: Wire, commands: Sequence[Command]) -> None:
    connection.send_packed_command([b"".join(map(pack, commands))], check_health=False)


def _read(connection: Wire) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        # The reply was read; those of the next commands still have to be.
        return error


def _field(info: object, name: str) -> str:
    if not isinstance(info, bytes):
        return ""
    for line in info.decode(errors="replace").splitlines():
        if line.startswith(name + ":"):
            return line.partition(":")[2].strip()
    return ""
