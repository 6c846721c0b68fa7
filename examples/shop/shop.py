"""A shop: orders are charged to accounts, one charge at a time for each account."""

import os
import time

from celery import Celery
from celery.utils.log import get_task_logger

from celery_ha import HA, current_lock, locked_task

logger = get_task_logger(__name__)

app = Celery("shop", broker=os.environ.get("SHOP_BROKER", "redis://localhost:6379/0"))
if "SHOP_METRICS_PORT" in os.environ:
    app.conf.ha_metrics_port = int(os.environ["SHOP_METRICS_PORT"])
app.conf.update(
    task_ignore_result=True,
    ha_queues={"orders": 64},  # a sharded queue: each shard is consumed by one live worker
)
if "SHOP_STORE" in os.environ:  # leases and locks elsewhere: RabbitMQ keeps none
    app.conf.ha_store = os.environ["SHOP_STORE"]
HA(app)


@app.task(queue="orders", ha_key="order.{order_id}")
@locked_task("account:{account_id}", on_busy="requeue")
def charge(order_id: int, account_id: int) -> None:
    """Takes half a second; nobody else charges this account meanwhile."""
    lock = current_lock()
    time.sleep(0.5)
    if lock is not None:  # None when called like a function, outside of a worker
        lock.check()  # raises LockLost if this worker was given up meanwhile
    # What the account is kept in would get the token too, and refuse a smaller one than it has seen.
    token = lock.token if lock is not None else None
    logger.info("order %d charged to account %d (token %s)", order_id, account_id, token)


@app.task
def greet(name: str) -> str:
    """An ordinary task on an ordinary queue."""
    return f"Hello, {name}"
