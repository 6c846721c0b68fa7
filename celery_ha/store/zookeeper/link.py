"""One session with ZooKeeper that knows its own name."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Any, TypeVar

from kazoo.exceptions import (
    AuthFailedError,
    BadArgumentsError,
    BadVersionError,
    InvalidACLError,
    KazooException,
    MarshallingError,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import KazooTimeoutError

from celery_ha.errors import StoreError, StoreUnavailable
from celery_ha.store.zookeeper.connection import description, disown, end, granted, is_over
from celery_ha.store.zookeeper.ops import Create, Op
from celery_ha.store.zookeeper.znodes import FOLDERS, MARKS, Paths

T = TypeVar("T")

#: Sends one request and returns its future.
Request = Callable[[Any], Any]

#: Errors by which a transaction says that it was decided on what is no longer so.
_CONDITIONS = (BadVersionError, NoNodeError, NodeExistsError, NotEmptyError)
_REFUSALS = (NoAuthError, InvalidACLError, BadArgumentsError, MarshallingError)
#: What the operations around the one that failed answer.
_BYSTANDERS = (RolledBackError, RuntimeInconsistency)
#: Seconds before a transaction that somebody crossed is decided again: at first, and at most.
PAUSE, LONGEST_PAUSE = 0.002, 0.05


class Conflict(Exception):
    """A condition of a transaction did not hold; nothing of it happened."""

    def __init__(self, op: Op, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {op}")
        self.op = op
        self.cause = cause


class Link:
    """A session made on first use and after every loss; from several threads at a time.

    kazoo would keep what is asked while it is not connected, and send it whenever it is; here a call
    waits for the connection first, so that what was given up is not done much later.

    Args:
        make: makes a client.
        paths: where our znodes are.
        timeout: seconds for every call, connecting included.
    """

    def __init__(self, make: Callable[[], Any], paths: Paths, timeout: float) -> None:
        self._make = make
        self._paths = paths
        self._timeout = timeout
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._client: Any = None
        self._live: Any = None
        self._connects = 0
        self._announced: int | None = None
        self._bells: set[threading.Event] = set()

    @property
    def session(self) -> str:
        """Identity of the session and of the connection it runs over now; it changes with every reconnect."""
        return f"{self._session or 0:x}/{self._connects}"

    @property
    def connection(self) -> str:
        """The id by which others see whether we are there; empty unless it was announced in this session."""
        session = self._session
        return f"{session:x}" if session is not None and session == self._announced else ""

    @property
    def granted(self) -> float:
        """Seconds without a sign of life after which the servers drop the session; infinite if not known yet."""
        client = self._client
        return (granted(client) if client is not None else 0.0) or float("inf")

    def ask(self, *requests: Request) -> list[Any]:
        """Send requests in one go and return their answers, None for a znode that is not there.

        Raises:
            StoreUnavailable: not connected in time, or no answer in time; they may have been done.
            StoreError: one was refused.
        """
        deadline = monotonic() + self._timeout
        client = self._connected(deadline)
        with _translated():
            return [_answer(future, deadline) for future in [request(client) for request in requests]]

    def describe(self) -> dict[str, str]:
        """What the server says of itself and of this session; raises as :meth:`ask`."""
        client = self._connected(monotonic() + self._timeout)
        return {**description(client), "session_timeout": f"{granted(client):g}"}

    def commit(self, *ops: Op) -> list[Any]:
        """Do all of these, or none.

        Returns:
            The answers: the path made, the stat of what was written, or True.

        Raises:
            Conflict: a condition did not hold.
            StoreUnavailable: no answer in time; it may have happened.
            StoreError: it was refused.
        """

        def send(client: Any) -> Any:
            transaction = client.transaction()
            for op in ops:
                op.add_to(transaction)
            return transaction.commit_async()

        (answers,) = self.ask(send)
        for op, answer in zip(ops, answers, strict=True):
            if isinstance(answer, _CONDITIONS):
                if isinstance(answer, NoNodeError):
                    self._lay_out()
                raise Conflict(op, answer)
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, _BYSTANDERS):
                raise StoreError(f"the store refused a transaction: {answer!r}") from answer
        return list(answers)

    def persist(self, attempt: Callable[[], T]) -> T:
        """Read, decide and write, as often as somebody else was faster.

        Raises:
            StoreUnavailable: for :attr:`timeout` seconds somebody always was, or as :meth:`commit` does.
        """
        deadline, pause = monotonic() + self._timeout, PAUSE
        while True:
            try:
                return attempt()
            except Conflict as conflict:
                if monotonic() > deadline:
                    raise StoreUnavailable(f"the store kept changing: {conflict}") from conflict
            sleep(random.uniform(0, pause))
            pause = min(pause * 2, LONGEST_PAUSE)

    def announce(self) -> None:
        """Let others see that this session is there, unless it was done before."""
        self.ask()
        session = self._session
        if session is None or session == self._announced:
            return

        def announce() -> None:
            try:
                self.commit(Create(self._paths.connection(f"{session:x}"), ephemeral=True))
            except Conflict as conflict:
                if not isinstance(conflict.cause, NodeExistsError):
                    raise

        self.persist(announce)
        self._announced = session

    def not_announced(self) -> None:
        """The store lost it: it is announced again by the next :meth:`announce`."""
        self._announced = None

    @contextmanager
    def ringing(self, bell: threading.Event) -> Iterator[None]:
        """Have an event set whenever the connection is lost or made."""
        self._bells.add(bell)
        try:
            yield
        finally:
            self._bells.discard(bell)

    def close(self) -> None:
        """End the session; the next call makes a new one."""
        if self._pid != os.getpid():
            self.close_inherited()
        with self._mutex:
            client, self._client = self._client, None
        if client is not None:
            end(client)

    def close_inherited(self) -> None:
        """In a forked child: close the copies of the sockets, send nothing, and forget whose they were."""
        client = self._client
        self._reset()
        if client is not None:
            disown(client)

    @property
    def _session(self) -> int | None:
        client = self._client
        known = client.client_id if client is not None else None
        return known[0] if known else None

    def _connected(self, deadline: float) -> Any:
        if self._pid != os.getpid():
            self.close_inherited()
        with self._mutex:
            if self._client is not None and is_over(self._client):
                end(self._client)
                self._client = None
            if self._client is None:
                self._client = self._make()
                self._client.add_listener(self._note)
                self._live = self._client.start_async()
            client, live = self._client, self._live
        if not live.wait(max(deadline - monotonic(), 0.0)):
            hosts = ",".join(f"{host}:{port}" for host, port in client.hosts)
            raise StoreUnavailable(f"cannot connect to the store in time: ZooKeeper at {hosts}")
        return client

    def _note(self, _state: str) -> None:
        self._connects += 1
        for bell in tuple(self._bells):
            bell.set()

    def _lay_out(self) -> None:
        """Make the znodes that everything else is under."""
        parts = self._paths.root.split("/")[1:]
        above = ["/" + "/".join(parts[: at + 1]) for at in range(len(parts))]
        wanted = [*above, *(self._paths.at(name) for name in (*FOLDERS, *MARKS))]

        # Looked for first: somebody who may not make the parents may still use what is under them.
        there = self.ask(*(exists(path) for path in wanted))
        for path, stat in zip(wanted, there, strict=True):
            if stat is None:
                with suppress(_Exists):
                    self.ask(_make(path))


class _Exists(StoreError):
    """It is there already."""


def _make(path: str) -> Request:
    return lambda client: client.create_async(path)


def get(path: str, watch: Callable[[Any], None] | None = None) -> Request:
    """Ask for data and stat."""
    return lambda client: client.get_async(path, watch)


def exists(path: str, watch: Callable[[Any], None] | None = None) -> Request:
    """Ask for the stat."""
    return lambda client: client.exists_async(path, watch)


def children(path: str) -> Request:
    """Ask for the names of what is under a znode."""
    return lambda client: client.get_children_async(path)


def sync(path: str) -> Request:
    """Have what follows see everything that was written anywhere before."""
    return lambda client: client.sync_async(path)


def _answer(future: Any, deadline: float) -> Any:
    try:
        return future.get(timeout=max(deadline - monotonic(), 0.001))
    except NoNodeError:
        return None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except NodeExistsError as error:
        raise _Exists from error
    except _REFUSALS as error:
        raise StoreError(f"the store refused a request: {error!r}") from error
    except AuthFailedError as error:
        raise StoreUnavailable("the store refused our login; look at the user and password in its URL") from error
    except (KazooException, KazooTimeoutError) as error:
        raise StoreUnavailable(f"the store did not answer: {error!r}") from error
