"""A server, workers on it, their ledger, and the probe app to publish with."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import redis
from celery import Celery, _state
from celery.exceptions import CDeprecationWarning

from celery_ha.keys import shard_name, shard_of
from celery_ha.model import Node
from celery_ha.store.redis.records import load_node, load_rings
from celery_ha.worker.shards import owned_shards
from tests.support.fleet import Fleet, Worker, eventually, fleet
from tests.support.ledger import Harm, Ledger
from tests.support.server import RedisServer

PROBE = "tests.support.probe"
#: Options of every worker unless a test wants others: both kinds of queue, two slots.
BOTH = ("-Q", "orders,celery", "-c", "2", "--without-gossip", "--without-mingle")
#: Seconds until a signal has arrived and pool children have followed their main process, on a busy machine.
DYING = 0.25


@contextmanager
def _as_module(name: str, module: ModuleType) -> Iterator[None]:
    """Under this name for the length of a block; what the block imports stays, unlike with ``mock.patch.dict``."""
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def load_probe(environment: dict[str, str]) -> ModuleType:
    """The probe app as its workers see it, made anew with this environment, to publish with."""
    spec = importlib.util.find_spec(PROBE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with (
        mock.patch.dict(os.environ, environment),
        _as_module(PROBE, module),
        # Celery offers an app's tasks to every later app of the process: not to the next probe.
        mock.patch.object(_state, "_on_app_finalizers", set(_state._on_app_finalizers)),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", CDeprecationWarning)  # of a task's own queue
        spec.loader.exec_module(module)
        module.app.finalize()
    return module


@dataclass
class Scene:
    """What a test of real workers needs."""

    server: RedisServer
    fleet: Fleet
    ledger: Ledger
    probe: ModuleType
    redis: redis.Redis
    ttl: float
    options: tuple[str, ...] = BOTH
    prefix: str = ""
    #: Signals that stopped a worker in its tracks.
    harms: list[Harm] = field(default_factory=list)
    _batches: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # -- workers ----------------------------------------------------------------------------

    def start(self, count: int = 1, *options: str, **environment: str) -> list[Worker]:
        return self.fleet.start_many(count, *(options or self.options), **environment)

    def top_up(self, count: int) -> list[Worker]:
        """As many live workers as this, all registered, with a leader among them."""
        live = self.live
        live += self.start(count - len(live))
        eventually(lambda: {node.name for node in self.nodes()} == {worker.name for worker in live}, why="registered")
        eventually(lambda: self.leader is not None, why="a leader")
        return live

    @property
    def live(self) -> list[Worker]:
        return [worker for worker in self.fleet.workers if worker.alive]

    def kill(self, worker: Worker, signum: int = signal.SIGKILL) -> Harm:
        """Send a signal that cuts off what the worker runs; one that was killed is gone when this returns."""
        lasting = self.ttl if signum == signal.SIGSTOP else DYING
        harm = Harm(worker.name, worker.send(signum), lasting)
        self.harms.append(harm)
        if signum == signal.SIGKILL:
            worker.process.wait()
        return harm

    # -- what the store knows ---------------------------------------------------------------

    def nodes(self) -> list[Node]:
        """The open leases, in the order they opened."""
        found = [load_node(lease.decode(), record) for lease, record in self.hash("nodes").items()]
        return sorted(found, key=lambda node: node.opened)

    def node(self, worker: Worker) -> Node:
        return next(node for node in reversed(self.nodes()) if node.name == worker.name)

    def hash(self, name: str) -> dict[bytes, bytes]:
        return self.redis.hgetall(f"{self.prefix}_ha:{name}")

    @property
    def leader(self) -> Worker | None:
        lease = self.redis.hget(f"{self.prefix}_ha:leader", "lease")
        names = {node.lease: node.name for node in self.nodes()}
        name = names.get(lease.decode()) if lease else None
        return next((worker for worker in self.live if worker.name == name), None)

    def shards(self, worker: Worker) -> frozenset[str]:
        """The shards a worker consumes, by the members of this moment."""
        kept = self.redis.get(f"{self.prefix}_ha:rings")
        return owned_shards(worker.name, self.probe.app.ha.config.queues, self.nodes(), load_rings(kept or b""))

    def history(self) -> list[dict[str, Any]]:
        """Finished recoveries, the last one first."""
        return [json.loads(entry) for entry in self.redis.lrange(f"{self.prefix}_ha:history", 0, -1)]

    def fenced(self) -> set[str]:
        """Every lease that was ever fenced, in the store or on the broker, and is not yet forgotten."""
        patterns = [f"{self.prefix}_ha:{name}:*" for name in ("gone", "tombstone")]
        keys = [key.decode() for pattern in patterns for key in self.redis.scan_iter(pattern)]
        return {key.rpartition(":")[2] for key in keys} | {lease.decode() for lease in self.hash("fenced")}

    def waiting(self, *queues: str) -> int:
        return sum(self.redis.llen(f"{self.prefix}{queue}") for queue in queues)

    def in_flight(self) -> int:
        """Messages in the hands of all workers, alive or not."""
        return sum(self.redis.hlen(key) for key in self.redis.scan_iter(f"{self.prefix}_ha:flight:*"))

    # -- publishing -------------------------------------------------------------------------

    def batch(self) -> str:
        """A beginning for the keys of one story."""
        return f"b{next(self._batches)}-"

    def publish(self, task: str, keys: Iterable[str], *args: Any, **options: Any) -> list[str]:
        """One task a key; returns the keys."""
        signature = getattr(self.probe, task)
        published = []
        for key in keys:
            signature.apply_async((key, *args), **options)
            published.append(key)
        return published

    def load(self, count: int, seconds: float = 0.05) -> list[str]:
        """Tasks on the sharded and on the plain queue in equal parts."""
        batch = self.batch()
        half = count // 2
        orders, works = self.names(batch + "order-", half), self.names(batch + "work-", count - half)
        published = []
        for pair in itertools.zip_longest(orders, works):
            for task, key in zip(("order", "work"), pair, strict=True):
                published += self.publish(task, [key] if key else [], seconds)
        return published

    def keys_on(self, shards: Collection[str], count: int) -> list[str]:
        """Keys of orders that all hash to one of these shards."""
        batch, number = self.batch(), self.probe.app.ha.config.queues["orders"]
        candidates = (f"{batch}{at}" for at in itertools.count())
        fitting = (key for key in candidates if shard_name("orders", shard_of(f"order.{key}", number)) in shards)
        return list(itertools.islice(fitting, count))

    @staticmethod
    def names(prefix: str, count: int) -> list[str]:
        return [f"{prefix}{at}" for at in range(count)]

    @contextmanager
    def stream(self, every: float = 0.02, seconds: float = 0.05) -> Iterator[list[str]]:
        """Publish on, alternately to both kinds of queue, until the block ends; yields the growing list of keys."""
        batch, over = self.batch(), threading.Event()
        published: list[str] = []

        def publish() -> None:
            for at in itertools.count():
                task = "order" if at % 2 else "work"
                published.extend(self.publish(task, [f"{batch}{task}-{at}"], seconds))
                if over.wait(every):
                    return

        thread = threading.Thread(target=publish, daemon=True)
        thread.start()
        try:
            yield published
        finally:
            over.set()
            thread.join(30)
            assert not thread.is_alive(), "the publisher hangs"

    # -- waiting ----------------------------------------------------------------------------

    def wait_ended(self, keys: Collection[str], *, within: float = 60.0) -> None:
        """Until every key came to an end, which is to say that nothing was lost."""
        eventually(lambda: not self.ledger.missing(keys), within=within, every=0.05, why=_Late(self, keys))

    def wait_started(self, keys: Collection[str], count: int | None = None) -> None:
        wanted = len(keys) if count is None else count
        eventually(lambda: len(set(self.ledger.by_key()) & set(keys)) >= wanted, why=f"{wanted} of {keys} started")

    def settled(self, keys: Collection[str], *, within: float = 60.0) -> None:
        """Nothing lost and nothing run twice, once all is quiet."""
        self.wait_ended(keys, within=within)
        self.wait_idle()
        assert self.ledger.doubled(keys, self.harms) == {}

    def wait_idle(self) -> None:
        """Until no live lease has anything in flight and nobody waits for recovery."""
        eventually(lambda: not list(self.redis.scan_iter(f"{self.prefix}_ha:flight:*")), why="nothing in flight")
        eventually(lambda: not self.hash("fenced"), why="every fenced lease recovered")


class _Late:
    """What is missing, asked for only when it is."""

    def __init__(self, scene: Scene, keys: Collection[str]) -> None:
        self.scene, self.keys = scene, keys

    def __str__(self) -> str:
        missing = sorted(self.scene.ledger.missing(self.keys))
        return f"{len(missing)} of {len(self.keys)} keys did not end: {missing[:10]}"


@contextmanager
def scene(
    server: RedisServer,
    directory: Path,
    *,
    ttl: float = 3.0,
    broker: str | None = None,
    options: tuple[str, ...] = BOTH,
    client: redis.Redis | None = None,
    results: bool = False,
    **environment: str,
) -> Iterator[Scene]:
    """A clean server and a fleet to start workers in; all of them end with the block."""
    everything = {
        "PROBE_BROKER": broker or server.url,
        "PROBE_LEDGER": str(directory / "ledger"),
        "PROBE_TTL": str(ttl),
        **({"PROBE_BACKEND": f"{server.url[:-1]}1"} if results else {}),
        **environment,
    }
    admin = client or redis.Redis.from_url(server.url)
    admin.flushall()
    probe = load_probe(everything)
    try:
        with fleet(directory, **everything) as workers:
            yield Scene(
                server,
                workers,
                Ledger(directory / "ledger"),
                probe,
                admin,
                ttl,
                options,
                environment.get("PROBE_KEYPREFIX", ""),
            )
    finally:
        probe.app.close()
        leave_store(probe.app)
        admin.close()


def leave_store(app: Celery) -> None:
    """What this process asked of the store: a ZooKeeper client would try to connect, and say so, for ever."""
    made = vars(getattr(app, "ha", None) or app).get("_store")
    if made is not None:
        made.close()


def wait_exit(workers: Iterable[Worker], *, within: float = 60.0) -> None:
    for worker in workers:
        eventually(lambda worker=worker: not worker.alive, within=within, why=f"{worker.name} exits")


def first_start_after(
    ledger: Ledger, keys: Collection[str], at: float, *, elsewhere: str
) -> Callable[[], float | None]:
    """When the first of these keys started after a moment on another node than this; None: not yet."""

    def found() -> float | None:
        starts = [run.start for run in ledger.runs() if run.key in keys and run.start > at and run.node != elsewhere]
        return min(starts) if starts else None

    return found


def now() -> float:
    return time.time()
