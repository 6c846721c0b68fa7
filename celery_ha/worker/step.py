"""The worker step that makes a Celery worker a node."""

from __future__ import annotations

import os
import weakref
from typing import Any

from celery import bootsteps
from celery.concurrency import solo, thread

from celery_ha.errors import ConfigError, DuplicateNode
from celery_ha.worker.banner import banner
from celery_ha.worker.inherited import InheritedLocks
from celery_ha.worker.node import WorkerNode
from celery_ha.worker.quiet import quieten
from celery_ha.worker.slots import Slots
from celery_ha.worker.starts import Starts
from celery_ha.worker.waiting import Waiting


class LeaseStep(bootsteps.StartStopStep):
    """Opens the lease when the worker is put together: before it connects, before it forks."""

    requires = ("celery.worker.components:Pool",)

    def create(self, w: Any) -> None:
        ha = w.app.ha
        try:
            _refuse_to_grow(w)
            ha.open_node(w)
        except (ConfigError, DuplicateNode) as exc:
            raise SystemExit(f"celery_ha: {exc}") from exc
        store = weakref.ref(ha.store)
        # A child that kept the lease's sockets open would hide its parent's death.
        os.register_at_fork(after_in_child=lambda: _drop(store()))
        os.register_at_fork(after_in_child=InheritedLocks().renew)
        quieten()
        _order_starts(w, ha.node)
        extra = getattr(w, "extra_info", None)  # the program's, not that of an embedded worker
        if extra is not None:
            w.extra_info = lambda: banner(ha) + (extra() or "")


def _refuse_to_grow(w: Any) -> None:
    """Celery would raise at each message that comes, which would be given up for it.

    Raises:
        ConfigError: the pool is to grow and cannot.
    """
    if w.autoscale and issubclass(w.pool_cls, (solo.TaskPool, thread.TaskPool)) and not hasattr(w.pool_cls, "grow"):
        raise ConfigError(f"{w.pool_cls.__module__} cannot grow: give it a fixed size with -c instead of --autoscale")


def _order_starts(w: Any, node: WorkerNode) -> None:
    """Put starts in their order, and give a pool that would queue what it cannot run no more than it can."""
    if issubclass(w.pool_cls, solo.TaskPool):
        return  # whatever it is given has run when it returns
    if getattr(w.pool_cls, "uses_semaphore", False) and w.pool_putlocks:
        w._process_task = Starts(w._process_task, w.hub, node.claims, ahead=node.broker.asks)
        return
    slots = Slots(lambda: node.concurrency())  # noqa: PLW0108 - another one when there is a consumer
    if w.hub is None:
        waiting = Waiting(w._process_task, slots, lambda seconds, call: node.later(seconds, call))  # noqa: PLW0108
        w.process_task = w._process_task = waiting
        node.on_slot_freed = waiting.freed
        return
    starts = Starts(w._process_task, w.hub, node.claims, slots=slots, ahead=node.broker.asks)
    w.process_task = w._process_task = starts
    w.hub.on_tick.add(starts.turn)


def _drop(store: Any) -> None:
    if store is not None:
        store.close_inherited()
