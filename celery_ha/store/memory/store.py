"""One simulated process's client of a :class:`~celery_ha.store.memory.MemoryServer`."""

from __future__ import annotations

from collections.abc import Callable

from celery_ha.errors import StoreUnavailable
from celery_ha.store.base import Store
from celery_ha.store.memory.court import MemoryCourt
from celery_ha.store.memory.firings import MemoryFirings
from celery_ha.store.memory.leases import MemoryLeases
from celery_ha.store.memory.locks import MemoryLocks
from celery_ha.store.memory.revocations import MemoryRevocations
from celery_ha.store.memory.server import MemoryServer
from celery_ha.store.memory.uniques import MemoryUniques


class MemoryStore(Store):
    """A client with two connections, as a real one has.

    Args:
        server: the memory shared by all clients.
        now: this process's monotonic clock; the server's unless told otherwise.
    """

    def __init__(self, server: MemoryServer, now: Callable[[], float] | None = None) -> None:
        self.server = server
        self.now = now or server.now
        #: True: this client alone cannot reach the store; its connections stay.
        self.cut = False
        #: True: the next call happens, but its answer never arrives. Falls back to False.
        self.lose_next_reply = False
        self.connections: tuple[str, ...] = ()
        self.leases = MemoryLeases(self)
        self.court = MemoryCourt(self)
        self.locks = MemoryLocks(self)
        self.uniques = MemoryUniques(self)
        self.revocations = MemoryRevocations(self)
        self.firings = MemoryFirings(self)
        self._call = _Call(self)

    @property
    def session(self) -> str:
        """Identity of the server run and of the connections this client looks through."""
        return "/".join((self.server.run, *self.connections))

    @property
    def watched(self) -> tuple[str, ...]:
        """The connections to register; none where the store cannot watch them."""
        return self.connections if self.server.watchable else ()

    def call(self) -> _Call:
        """One atomic call: (re)connect, run, answer.

        Raises:
            StoreUnavailable: the server is down, this client is cut off, or the answer was lost.
        """
        return self._call

    def disconnect(self) -> None:
        """Drop both connections, as the kernel does for a dead process; the next call makes new ones."""
        with self.server.lock:
            self.server.connected.difference_update(self.connections)
            self.connections = ()

    def close(self) -> None:
        """Drop the connections."""
        self.disconnect()

    def connect(self) -> None:
        """Make new connections if those of before are gone, or if there were none."""
        if not self.server.connected.issuperset(self.connections):
            self.disconnect()
        if not self.connections:
            self.connections = (self.server.connect(), self.server.connect())


class _Call:
    """What a client does around each of its calls; a context, and no generator, for it is entered all the time."""

    def __init__(self, client: MemoryStore) -> None:
        self._client = client

    def __enter__(self) -> MemoryServer:
        client, server = self._client, self._client.server
        server.lock.acquire()
        if server.down or client.cut:
            server.lock.release()
            raise StoreUnavailable
        client.connect()
        return server

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        client = self._client
        client.server.lock.release()
        if client.lose_next_reply and kind is None:
            client.lose_next_reply = False
            raise StoreUnavailable
