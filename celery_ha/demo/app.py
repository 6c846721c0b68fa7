"""The app of the demo: a sharded queue, and one locked task that writes down when it runs.

The workers and the demo itself import it; where the servers and the ledger are comes from the environment.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery, current_task

from celery_ha import HA, current_lock, locked_task
from celery_ha.demo.ledger import LedgerWriter
from celery_ha.demo.settings import BROKER, KEY_PREFIX, LEDGER, QUEUE, STORE, settings
from celery_ha.demo.verdict import END, START, TOLD
from celery_ha.envelope import DELIVERIES
from celery_ha.errors import LockLost

app = Celery("demo", set_as_current=False)
app.conf.update(
    settings(
        os.environ.get(BROKER, "redis://localhost:6379/0"),
        os.environ.get(STORE) or None,
        os.environ.get(KEY_PREFIX, "demo:"),
    )
)
HA(app)


@app.task(queue=QUEUE, ha_key="order")  # type: ignore[untyped-decorator, unused-ignore]
@locked_task("account:{account}")
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
