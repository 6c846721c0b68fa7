"""``app.amqp`` with sharded queues: what an app declares, and which router it uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import kombu
from celery.app import amqp

from celery_ha import appconf
from celery_ha.brokers.connection import Connection
from celery_ha.delays import led_through
from celery_ha.keys import base_of, shard_names
from celery_ha.rabbitmq import make_quorum, on_rabbitmq, refuse_unconfirmed
from celery_ha.routing import Router
from celery_ha.worker.chord import numbered
from celery_ha.worker.claimed import guarded

#: The setting that says which queues are sharded.
SHARDED = "ha_queues"


class ShardedQueues(amqp.Queues):
    """Celery's queues, some of them sharded.

    A shard is an ordinary queue, declared for routing only: which worker consumes it is decided while
    the workers run, so no worker consumes a shard just because it is declared. The base queue stays
    among those consumed: producers that know nothing of shards publish there.
    """

    #: What is consumed; None in Celery's own class stands for its default.
    _consume_from: dict[str, kombu.Queue] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: Number of shards by the name of their base queue.
        self.sharded: Mapping[str, int] = {}
        self._selected = False
        self._quorum = False
        super().__init__(*args, **kwargs)

    def shard(self, sharded: Mapping[str, int]) -> None:
        """Declare sharded queues: each base queue, if it is not declared yet, and its shards.

        May be called again with another mapping; queues declared by an earlier one stay declared,
        because messages may still be in them.

        Args:
            sharded: Number of shards by the name of the base queue.
        """
        # A fixed choice of what is consumed: before 5.7 Celery consumes everything declared.
        if sharded and self._consume_from is None:
            self._consume_from = dict(self.consume_from)
        self.sharded = dict(sharded)
        for base, shards in sharded.items():
            self._declare_base(base)
            for name in shard_names(base, shards):
                if name not in self:
                    self.add(self.new_missing(name))

    def on_rabbitmq(self) -> None:
        """Make quorum queues of all, those to come included."""
        self._quorum = True
        for queue in self.values():
            make_quorum(queue)

    def __setitem__(self, name: str, queue: kombu.Queue) -> None:
        super().__setitem__(name, queue)
        if self._quorum:
            make_quorum(queue, single=self.is_shard(name))

    def is_shard(self, name: str) -> bool:
        """Whether this is the name of a shard, be it beyond the present number of shards."""
        return base_of(name, self.sharded) is not None

    def select(self, include: Any) -> None:
        """Consume only these queues (``-Q``)."""
        self._selected = self._selected or bool(include)
        super().select(include)

    def new_missing(self, name: str) -> kombu.Queue:
        """Make the queue of a name that is not declared; a shard is made after its base queue."""
        base = base_of(name, self.sharded)
        return super().new_missing(name) if base is None else _shard_of(self[base], name)

    def __missing__(self, name: str) -> kombu.Queue:
        # A retry may come from a shard that was dropped when the number of shards shrank.
        if self.is_shard(name):
            return self.add(self.new_missing(name))
        return super().__missing__(name)

    def _declare_base(self, base: str) -> None:
        if base in self or base in self.aliases:
            return
        queue = self.add(super().new_missing(base))
        if self._consume_from is not None and not self._selected:
            self._consume_from[queue.name] = queue


class AMQP(amqp.AMQP):
    """Celery's AMQP API for an app with sharded queues; set as ``app.amqp_cls``."""

    Connection = Connection

    queues_cls = ShardedQueues

    @cached_property
    def send_task_message(self) -> Callable[..., Any]:
        """Publish a task; refused inside a task whose own message has moved on (rule 13)."""
        send = numbered(led_through(self._create_task_sender(), lambda: self.queues, self._retries))
        return guarded(getattr(self.app, "ha", None), send)

    def _retries(self, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """As Celery works them out for a publish with these options."""
        conf, retry = self.app.conf, options.get("retry")
        if not (conf.task_publish_retry if retry is None else retry):
            return None
        return {**conf.task_publish_retry_policy, **(options.get("retry_policy") or {})}

    def Queues(self, queues: Any, *args: Any, **kwargs: Any) -> ShardedQueues:  # noqa: N802 - Celery's name
        """Make the app's queues, shards included.

        Args:
            queues: The user's own, ``task_queues``.
            args: Passed on.
            kwargs: Passed on.

        Raises:
            ConfigError: A setting cannot be used.
        """
        declared: ShardedQueues = super().Queues(queues, *args, **kwargs)
        if on_rabbitmq(self.app.conf):
            refuse_unconfirmed(self.app.conf.broker_transport_options)
            declared.on_rabbitmq()
        declared.shard(appconf.read(self.app).queues)
        return declared

    def Router(self, queues: Any = None, create_missing: Any = None) -> Router:  # noqa: N802 - Celery's name
        """Make the app's router."""
        create = self.app.either("task_create_missing_queues", create_missing)
        return Router(self.routes, queues or self.queues, create, app=self.app)

    def _handle_conf_update(self, *args: Any, **kwargs: Any) -> None:
        """Follow ``app.conf.update(ha_queues=...)``; the router asks the queues each time."""
        super()._handle_conf_update(*args, **kwargs)
        changed = {**(args[0] if args else {}), **kwargs}
        if "queues" in self.__dict__ and any(key in changed for key in self.app.conf._to_keys(SHARDED)):  # noqa: SLF001
            self.queues.shard(appconf.read(self.app).queues)


def _shard_of(base: kombu.Queue, name: str) -> kombu.Queue:
    """A shard: declared like its base queue, under its own name and routing key."""
    like = base.as_dict()
    arguments = like.get("queue_arguments")
    return kombu.Queue(
        **{
            **like,
            "name": name,
            "alias": None,
            "bindings": None,
            "exchange": _shard_exchange(base),
            "routing_key": name,
            "queue_arguments": None if arguments is None else dict(arguments),
        }
    )


def _shard_exchange(base: kombu.Queue) -> kombu.Exchange:
    """The base queue's exchange if it leads by exact name; otherwise one of the shards' own.

    On a user's topic exchange the base queue may be bound to ``orders.#``: it would get every message
    for a shard as well.
    """
    if base.exchange.type == "direct" or base.routing_key == base.exchange.name == base.name:
        return base.exchange
    kind = "topic" if base.exchange.type == "topic" else "direct"
    return kombu.Exchange(f"{base.name}.shards", type=kind)
