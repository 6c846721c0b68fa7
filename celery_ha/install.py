"""``HA(app)``: the one line that makes a Celery app highly available."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from math import inf
from time import monotonic, sleep
from typing import Any

from celery._state import connect_on_app_finalize

from celery_ha.appconf import defaults_for, found, read
from celery_ha.attempts.choose import attempts_in
from celery_ha.brokers.amqp import AmqpBroker
from celery_ha.brokers.amqp_management import Management
from celery_ha.brokers.amqp_peek import Peek, widest
from celery_ha.brokers.base import NodeBroker
from celery_ha.brokers.connect import AmqpAccess, BrokerAccess, RedisAccess, access_to
from celery_ha.config import Config
from celery_ha.delays import lasting
from celery_ha.errors import ConfigError, KeyRefused, StoreUnavailable
from celery_ha.failover.namesake import make_sure_of
from celery_ha.flower.install import show_in_flower
from celery_ha.inspect.losses import warn_of_losses
from celery_ha.keys import name_of
from celery_ha.locks.lock import Lock
from celery_ha.locks.publish import publishing
from celery_ha.locks.terms import OnLost, Terms
from celery_ha.parking.redis import RedisParking
from celery_ha.rabbitmq import on_rabbitmq, rabbitmq_defaults
from celery_ha.store.base import LockStore, Store, Uniques
from celery_ha.store.choose import store_from_url
from celery_ha.store.redis.store import RedisStore
from celery_ha.telling.metrics import Metrics
from celery_ha.telling.post import Post
from celery_ha.telling.serve import serve
from celery_ha.telling.teller import Listener, Teller
from celery_ha.worker.chord import counts_chords, seen_through
from celery_ha.worker.claimed import guarded
from celery_ha.worker.gauges import follow
from celery_ha.worker.heartbeats import Heartbeats
from celery_ha.worker.hold import hold
from celery_ha.worker.lookout import LookoutStep
from celery_ha.worker.node import WorkerNode
from celery_ha.worker.outcome import freeing
from celery_ha.worker.step import LeaseStep
from celery_ha.worker.tenant import Tenant

logger = logging.getLogger(__name__)

CONSUMER = "celery_ha.worker.consumer:Consumer"
AMQP = "celery_ha.amqp:AMQP"


class HA:
    """Installs celery_ha in a Celery app; reachable as ``app.ha`` afterwards.

    Nothing connects before it is needed, so it may be called where the app is made, before or after
    ``config_from_object``. Settings are ``app.conf.ha_*``; see :class:`~celery_ha.config.Config`.

    Args:
        app: the Celery app; None to install later with :meth:`init_app` (app factories).
    """

    def __init__(self, app: Any | None = None) -> None:
        #: The node that this process is, in a worker's main process.
        self.node: WorkerNode | None = None
        #: Tells what is decided in this process.
        self.teller = Teller()
        #: Celery settings that were changed because the user has not set them.
        self.changed: dict[str, object] = {}
        self._mutex = threading.Lock()
        self._pid = os.getpid()
        self._asker: NodeBroker | None = None
        self._tenant: Tenant | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Any) -> None:
        """Install in ``app``; a second time changes nothing.

        Raises:
            ConfigError: another HA is installed in this app.
        """
        if getattr(app, "ha", self) is not self:
            raise ConfigError("HA was installed in this app before; use app.ha")
        self.app = app
        app.ha = self
        app.amqp_cls = AMQP
        app.__dict__.pop("amqp", None)  # cached, if somebody used it before us
        app.steps["worker"].add(LeaseStep)
        app.steps["consumer"].add(LookoutStep)
        app.add_defaults(self._defaults)
        # Every thread's backend comes from here; see worker/claimed.py.
        app._get_backend = self._guarded_backend(app._get_backend)  # noqa: SLF001 - the only seam
        # Every way to publish ends here: apply_async, canvas, beat, retry.
        app.send_task = publishing(self, lasting(app.send_task, lambda: on_rabbitmq(app.conf)))
        show_in_flower()

    @cached_property
    def config(self) -> Config:
        """The settings, read once.

        Raises:
            ConfigError: a setting cannot be used; the message says what to write.
        """
        return read(self.app)

    def _guarded_backend(self, make: Callable[[], Any]) -> Callable[[], Any]:
        def backend() -> Any:
            made = make()
            made.store_result = guarded(self, made.store_result)
            for told in ("mark_as_done", "mark_as_failure", "mark_as_revoked"):
                setattr(made, told, freeing(self, getattr(made, told)))
            if counts_chords(made):
                made.on_chord_part_return = seen_through(self, made)
            return made

        return backend

    def _defaults(self) -> dict[str, object]:
        """Celery's settings as we need them, where the user has not set them.

        Asked when the configuration is loaded, which is before a worker reads it; ``ha_*`` settings
        may still change afterwards, so none but the switch and the TTL are looked at.
        """
        conf, config = self.app.conf, _for_defaults(found(self.app.conf))
        self.changed = {**defaults_for(config, conf), **rabbitmq_defaults(config, conf)}
        return {**self.changed, "worker_consumer": CONSUMER}

    # -- store ------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store of this process; made on first use."""
        with self._mutex_of_this_process():
            return self._store

    @cached_property
    def _store(self) -> Store:
        return self.make_store()

    def make_store(
        self, timeout: float | None = None, ttl: float | None = None, access: BrokerAccess | None = None
    ) -> Store:
        """Another client of the store, for another lease than this process has already.

        Args:
            timeout: seconds for every call; None: ``ha_store_timeout``.
            ttl: seconds that its lease lives; None: ``ha_lease_ttl``.
            access: to the broker, for who closes it; None: one of its own, which goes with the garbage.
        """
        config = self.config
        timeout, ttl = timeout or config.store_timeout, ttl or config.lease_ttl
        if config.store is not None:
            return store_from_url(config.store, prefix=config.prefix, timeout=timeout, ttl=ttl)
        broker = access or access_to(self.app)
        if not isinstance(broker, RedisAccess):
            raise ConfigError(
                f"the broker {broker.url} can keep no leases: set ha_store to a Redis or ZooKeeper, such as "
                '"redis://localhost:6379/1" or "zookeeper://h1:2181,h2:2181,h3:2181/path"'
            )
        return RedisStore(
            lambda: broker.client(timeout=timeout), prefix=broker.key_prefix + config.prefix, timeout=timeout
        )

    @property
    def store_url(self) -> str:
        """Where the store is, without passwords."""
        if self.config.store is None:
            return f"the broker, {access_to(self.app).url}"
        scheme, _, rest = self.config.store.partition("://")
        return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"

    @property
    def locks(self) -> LockStore:
        return self.store.locks

    @property
    def uniques(self) -> Uniques:
        return self.store.uniques

    @contextmanager
    def lock(
        self,
        name: str,
        timeout: float | None = None,
        *,
        limit: int = 1,
        max_hold: float | None = None,
        on_lost: OnLost = "raise",
    ) -> Iterator[Lock]:
        """Hold a lock for the length of a block, in a task or in any other process.

        In a task it belongs to the delivery, as those of :func:`~celery_ha.locks.task.locked_task` do. Elsewhere
        it belongs to a lease of this process, opened by the first lock and kept alive in the background; the
        workers free its locks when the process dies.

        Args:
            name: what is locked; any characters, at most 1 KB.
            timeout: seconds to stand in line for it; 0: only try; None: as long as it takes.
            limit: how many may hold it at a time; the same wherever the lock is used.
            max_hold: seconds after which it is free whatever happens here.
            on_lost: as of ``locked_task``; ``kill`` is for prefork children, elsewhere it is ``raise``.

        Raises:
            ConfigError: a term cannot be used.
            LockBusy: not granted in time; in a task also when its worker was given up.
            KeyRefused: the name is longer than 1 KB.
            LockLost: raised in the block when the lock is gone.
            StoreUnavailable: the store did not answer; nothing is held, or will not be for long.
        """
        try:
            name_of(name)
        except ValueError as exc:
            raise KeyRefused(str(exc)) from exc
        terms = Terms("wait", timeout or None, limit, max_hold, on_lost)
        deadline = monotonic() + (inf if timeout is None else timeout)
        with hold(name, terms, deadline, self.tenant, self.store_url) as lock:
            yield lock

    @property
    def tenant(self) -> Tenant:
        """The lease of this process for locks outside of tasks; made on first use, by each process anew."""
        with self._mutex_of_this_process():
            if self._tenant is None:
                self._tenant = Tenant(self.make_store(), self.config)
            return self._tenant

    def has_lost(self, lease: str) -> bool:
        """Whether this worker is known to have lost a lease; from its main process or a pool child."""
        return self.node is not None and self.node.page.has_lost(lease)

    def confirm(self, lease: str, claim: str) -> bool:
        """Ask the broker whether a claim is still in flight under its lease; from any process.

        Raises:
            StoreUnavailable: the broker was not reached.
        """
        with self._mutex_of_this_process():
            if self._asker is None:
                self._asker = self.make_broker(self._store, self.config.store_timeout)  # the mutex is ours already
            return self._asker.holds(lease, claim)

    def make_broker(self, store: Store, timeout: float, retries: int = 0) -> NodeBroker:
        """Another client of the broker, and where it keeps no record of its own, of that in the store.

        Args:
            store: whose client asks.
            timeout: seconds for every call to a broker that is asked directly.
            retries: how often such a call is repeated on a new connection.

        Raises:
            ConfigError: the broker or the store is of a kind that cannot be used.
        """
        access = access_to(self.app)
        if isinstance(access, RedisAccess):
            return access.broker(timeout=timeout, retries=retries, dead_limit=self.config.dead_letters_max)
        url = self.config.rabbitmq_management
        cut_off = Management(url).cut_off if url else None
        return AmqpBroker(attempts_in(store), cut_off=cut_off, widest=self._widest)

    def _widest(self, queue: str, shards: int) -> int:
        """The number of shards a queue has on a RabbitMQ, however many are configured."""
        access = access_to(self.app)
        access.once(self.config.store_timeout)
        try:
            return widest(Peek(access.take(), access.url), queue, shards) if isinstance(access, AmqpAccess) else shards
        finally:
            access.close()

    def _mutex_of_this_process(self) -> threading.Lock:
        """A forked child may inherit a lock that nobody in it will ever release."""
        if self._pid != os.getpid():
            self._pid, self._mutex, self._asker, self._tenant = os.getpid(), threading.Lock(), None, None
        return self._mutex

    # -- worker -----------------------------------------------------------------------------

    def open_node(self, worker: Any) -> None:
        """Make this worker a node and open its lease; before it connects and before it forks.

        Raises:
            DuplicateNode: another live worker has its name.
        """
        config, access = self.config, access_to(self.app)
        store, broker, asker = access.once_there(
            lambda: (
                self.store,
                self.make_broker(self.store, config.lease_ttl, retries=1),
                self.make_broker(self.store, config.store_timeout),
            )
        )
        with suppress(StoreUnavailable):
            make_sure_of(worker.hostname, store.court, clock=monotonic, sleep=sleep)
        consumed = tuple(sorted(self.app.amqp.queues.consume_from))
        pool = worker.pool_cls.__module__.rpartition(".")[2]
        self._open_teller(worker.hostname, forks=pool == "prefork")
        self.node = WorkerNode(
            worker.hostname,
            consumed,
            worker.max_concurrency or worker.concurrency,
            config,
            store,
            broker,
            asker,
            serial=pool == "solo",
            watch_loop=pool == "prefork",
            teller=self.teller,
        )
        if config.metrics_port is not None:
            follow(Metrics.of_process(), self.node)
        self.node.heartbeats = Heartbeats(self.app)
        if (
            isinstance(store, RedisStore)
            and isinstance(access, RedisAccess)
            and config.store in (None, access.full_url)
        ):
            self.node.claims.parking = RedisParking(store, access.layout(config.dead_letters_max))
        warn_of_losses(asker, store, apart=config.store not in (None, access.full_url))
        self.node.signs.begin()
        try:
            self.node.open()
        except StoreUnavailable as exc:
            logger.warning("No lease yet (%s); trying again when the worker connects", exc)

    def _open_teller(self, name: str, *, forks: bool) -> None:
        listeners: list[Listener] = []
        measures = None
        if self.config.events:
            listeners.append(Post(self.app, name))
        if self.config.metrics_port is not None:
            serve(self.config.metrics_port)
            measures = Metrics.of_process()
            listeners.append(measures)
        self.teller.open(name, listeners, measures, forks=forks)


def _for_defaults(settings: dict[str, object]) -> Config:
    """What Celery's settings depend on; what cannot be used is refused later, with all the rest."""
    wanted: dict[str, object] = {name: settings[name] for name in ("ha_defaults", "ha_lease_ttl") if name in settings}
    try:
        return Config.from_conf(wanted)
    except ConfigError:
        return Config(defaults=bool(settings.get("ha_defaults", True)))


def _finalize(app: Any) -> None:
    ha = getattr(app, "ha", None)
    if isinstance(ha, HA):
        _ = ha.config  # refuses what cannot be used
        show_in_flower()


# Not the on_after_finalize signal: Celery swallows what its receivers raise.
connect_on_app_finalize(_finalize)
