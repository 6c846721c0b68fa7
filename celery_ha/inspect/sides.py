"""What is asked of a broker from outside, on each kind of broker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any

from celery_ha.attempts.choose import attempts_in
from celery_ha.brokers import amqp_merge
from celery_ha.brokers.amqp_letters import AmqpDeadLetters
from celery_ha.brokers.amqp_peek import AmqpCensus, Peek
from celery_ha.brokers.census import Census
from celery_ha.brokers.connect import AmqpAccess, RedisAccess
from celery_ha.brokers.dead import DeadLetters
from celery_ha.brokers.merge import merge
from celery_ha.failover.recovery import reclaim
from celery_ha.inspect.findings import Finding, of_durability, of_queues, of_rabbitmq, of_server
from celery_ha.parking.redis import pour
from celery_ha.store.base import Store
from celery_ha.store.redis import RedisStore


class Side(ABC):
    """One broker.

    Raises:
        StoreUnavailable: it was not reached.
    """

    census: Census | AmqpCensus
    dead: DeadLetters | AmqpDeadLetters
    #: What plain workers need after ``ha uninstall``; empty: nothing.
    advice = ""

    @abstractmethod
    def findings(self, queues: Iterable[Any]) -> Iterator[Finding]:
        """Whether it keeps what it is given.

        Args:
            queues: of kombu's, as the app declares them.
        """

    @abstractmethod
    def give_back(self) -> int:
        """Messages of dead leases, and those in line for a lock, back to their queues; returns how many."""

    @abstractmethod
    def merge(self, shard: str, base: Any) -> int:
        """What is on a shard, to the queue it is a shard of; returns how many."""

    @abstractmethod
    def close(self) -> None:
        """Drop the connections."""


class RedisSide(Side):
    """A Redis.

    Args:
        access: to it.
        store: where locks are.
        timeout: seconds for every answer.
        dead_limit: dead letters that it keeps.
    """

    def __init__(self, access: RedisAccess, store: Store, timeout: float, dead_limit: int) -> None:
        self._broker = access.broker(timeout=timeout, dead_limit=dead_limit)
        self._store = store
        self.census = Census(self._broker)
        self.dead = DeadLetters(self._broker)

    def findings(self, queues: Iterable[Any]) -> Iterator[Finding]:
        yield from of_server("broker", self.census.facts())

    def give_back(self) -> int:
        held = reclaim(sorted(self._broker.strangers(frozenset())), self._broker, self._store.locks)
        given = sum(result.requeued for result in held)
        if isinstance(self._store, RedisStore) and self._store.survey is not None:
            given += sum(self._store.survey.lines().values())
            pour(self._store)
        return given

    def merge(self, shard: str, base: Any) -> int:
        return merge(self._broker, shard, base.name, exchange=base.exchange.name, routing_key=base.routing_key)

    def close(self) -> None:
        self._broker.client.connection_pool.disconnect()


class RabbitSide(Side):
    """A RabbitMQ.

    Args:
        access: to it.
        store: where attempts are.
        app: knows its queues.
    """

    advice = (
        "plain workers must declare these queues as quorum queues with the x-delivery-limit they have; what has a "
        "countdown comes to its shard when it is due: repeat this then"
    )

    def __init__(self, access: AmqpAccess, store: Store, app: Any) -> None:
        self._peek = Peek(access.take(), access.url)
        self._app = app
        self.census = AmqpCensus(self._peek, attempts_in(store), app.ha.config.queues)
        self.dead = AmqpDeadLetters(self._peek, self._queue)

    def findings(self, queues: Iterable[Any]) -> Iterator[Finding]:
        conf, config, known = self._app.conf, self._app.ha.config, list(queues)
        ttl = inf if config.rabbitmq_management else config.lease_ttl
        yield from of_rabbitmq("broker", self.census.facts(), conf.broker_heartbeat or 0, ttl)
        yield of_queues(sorted(queue.name for queue in known if not self._peek.fits(queue)))
        yield from of_durability(known, conf.task_default_delivery_mode)

    def give_back(self) -> int:
        return 0  # RabbitMQ did, when their connections closed

    def merge(self, shard: str, base: Any) -> int:
        return amqp_merge.merge(self._peek, shard, base)

    def close(self) -> None:
        self._peek.close()

    def _queue(self, name: str) -> Any:
        """The app's queue of a name; None: it knows none, and there is none to be found by Celery's defaults."""
        queues = self._app.amqp.queues
        if name not in queues and self._peek.ready(name) is None:
            return None
        return queues[name]
