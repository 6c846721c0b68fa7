"""The task that is run while workers are struck: it takes a lock, and writes down what it does."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import current_task

from celery_ha.envelope import DELIVERIES
from celery_ha.errors import LockLost
from celery_ha.locks.inside import current_lock
from celery_ha.locks.task import locked_task
from celery_ha.locks.terms import OnBusy
from celery_ha.trial.ledger import LedgerWriter
from celery_ha.trial.verdict import END, START, TOLD

#: Environment variable with the folder of the ledger.
LEDGER = "CELERY_HA_TRIAL_LEDGER"


@dataclass(frozen=True)
class Work:
    """What is published, and where."""

    #: Takes an order, an account and seconds.
    task: Any
    #: A sharded queue.
    queue: str
    shards: int


def make_probe(app: Any, name: str, queue: str, on_busy: OnBusy = "requeue") -> Any:
    """Give an app the task.

    Args:
        app: with HA.
        name: of the task.
        queue: a sharded one.
        on_busy: as of :func:`~celery_ha.locks.task.locked_task`.
    """
    locked = locked_task("account:{account}", on_busy=on_busy)(charge)
    # No rate: whatever limit is the default of the app, it is not what is tried here.
    make = app.task(name=name, queue=queue, ha_key="order", ignore_result=True, rate_limit=0, shared=False)
    return make(locked)


def charge(order: str, account: str, seconds: float) -> None:
    """Charge an account for an order: takes a while, and nobody else may touch the account meanwhile.

    Args:
        order: the key; it decides about the shard.
        account: what is locked.
        seconds: how long it takes.
    """
    request, lock = current_task.request, current_lock()
    if lock is None:
        raise RuntimeError("run by a worker only: elsewhere there is no lock")
    ledger = LedgerWriter(
        Path(os.environ[LEDGER]),
        node=request.hostname,
        task=order,
        lock=f"account:{account}",
        token=lock.token,
        attempt=1 + int(request.get(DELIVERIES) or 0),
    )
    ledger.write(START)
    time.sleep(seconds)
    try:
        lock.check()  # somebody else may have it by now, if this worker was frozen
    except LockLost:
        ledger.write(TOLD)
        raise
    ledger.write(END)
