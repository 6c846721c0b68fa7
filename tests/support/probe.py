"""The app that the integration tests run: tasks that write what they do to a ledger."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from celery.exceptions import Ignore, Reject
from celery.worker.request import Request
from kombu.serialization import register

from celery_ha import HA, LockLost, current_lock, locked_task, unique_task

BROKER = os.environ.get("PROBE_BROKER", "redis://localhost:6379/0")
LEDGER = os.environ.get("PROBE_LEDGER", "")

app = Celery("probe", broker=BROKER, backend=os.environ.get("PROBE_BACKEND") or None)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result=not os.environ.get("PROBE_BACKEND"),
    worker_hijack_root_logger=False,
)
if os.environ.get("PROBE_PREFETCH"):
    app.conf.worker_prefetch_multiplier = int(os.environ["PROBE_PREFETCH"])
if os.environ.get("PROBE_KEYPREFIX"):
    app.conf.broker_transport_options = {"global_keyprefix": os.environ["PROBE_KEYPREFIX"]}
if os.environ.get("PROBE_CONF"):
    app.conf.update(json.loads(os.environ["PROBE_CONF"]))
if os.environ.get("PROBE_PLAIN"):
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)
    app.conf.setdefault("worker_prefetch_multiplier", 1)
else:
    app.conf.ha_queues = {"orders": int(os.environ.get("PROBE_SHARDS", "12"))}
    app.conf.ha_lease_ttl = float(os.environ.get("PROBE_TTL", "4"))
    HA(app)
if os.environ.get("PROBE_DIES_AFTER"):
    from tests.support.mortal import die_after

    die_after(os.environ["PROBE_DIES_AFTER"])
if os.environ.get("PROBE_STRIKES"):
    from tests.support.fatal_chords import strike_at_steps

    strike_at_steps(Path(os.environ["PROBE_STRIKES"]))


def note(event: str, key: object, attempt: object, *extra: object) -> None:
    """One line, appended in one write: what survives any kill."""
    line = " ".join(map(str, (event, key, attempt, os.getpid(), f"{time.time():.6f}", *extra))) + "\n"
    fd = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


@app.task
def noop() -> None:
    pass


@app.task(bind=True)
def work(self, key: object, seconds: float = 0.05) -> object:
    """Plain queue."""
    return _run(self, key, seconds)


@app.task(bind=True)
def tick(self) -> None:
    """An entry of a schedule; a firing is known by its task id."""
    _run(self, self.request.id, 0)


@app.task(bind=True, queue="orders", ha_key="order.{key}")
def order(self, key: object, seconds: float = 0.05) -> object:
    """Sharded queue."""
    return _run(self, key, seconds)


def _run(task: Any, key: object, seconds: float, *extra: object) -> object:
    claim = task.request.properties.get("delivery_tag", "-")
    note("start", key, claim, task.request.hostname, *extra)
    time.sleep(seconds)
    note("end", key, claim, task.request.hostname, *extra)
    return key


@app.task(bind=True, queue="orders", ha_key="order.{key}")
@locked_task("account:{account}", on_busy="requeue")
def charge(self, key: object, account: object, seconds: float = 0.05) -> object:
    """Sharded queue, locked."""
    lock = current_lock()
    return _run(self, key, seconds, account, lock.token if lock else "-")


@app.task(bind=True)
@locked_task("account:{account}", on_busy="wait")
def patient(self, key: object, account: object, seconds: float = 0.05) -> object:
    """Waits for its lock in its slot."""
    return _run(self, key, seconds, account, current_lock().token)


@app.task(bind=True, soft_time_limit=1)
@locked_task("account:{account}", on_busy="wait")
def impatient(self, key: object, account: object) -> object:
    """Is told to stop while it waits."""
    return _run(self, key, 0, account, current_lock().token)


@app.task(bind=True)
@locked_task("contended:{name}")
def contend(self, key: object, name: object, seconds: float = 0.05) -> object:
    """Plain queue, locked."""
    return _run(self, key, seconds)


@app.task(bind=True)
def polled(self, key: object, name: object, seconds: float = 0.05) -> object:
    """The same with the lock of redis-py."""
    with redis.Redis.from_url(BROKER).lock(f"polled:{name}", timeout=60):
        return _run(self, key, seconds)


@app.task(bind=True)
@locked_task("account:{payer}", "account:{payee}")
def transfer(self, key: object, payer: object, payee: object, seconds: float = 0.05) -> object:
    """Two locks, all or none."""
    tokens = [current_lock(f"account:{name}").token for name in (payer, payee)]
    return _run(self, key, seconds, *tokens)


@app.task(bind=True, max_retries=3)
@unique_task("{name}")
def sole(self, key: object, name: object, seconds: float = 0.05, fate: str = "") -> object:
    """One under way for each name; comes to the end it is told to."""
    _run(self, key, seconds)
    if fate == "fail":
        raise ArithmeticError
    if fate == "ignore":
        raise Ignore
    if fate == "reject":
        raise Reject("told to", requeue=False)
    if fate == "crash":
        os._exit(9)
    if fate == "replace" and not self.request.replaced_task_nesting:
        raise self.replace(self.s(key, name, seconds, fate).set(countdown=1.5))
    if fate == "retry" and not self.request.retries:
        raise self.retry(countdown=0.5)
    return key


@app.task(bind=True)
def returning(self, key: object, times: int) -> None:
    """Wants to run again, so many times."""
    _run(self, key, 0)
    if sum(line[:2] == ["end", str(key)] for line in entries(Path(LEDGER))) <= times:
        raise Reject("not yet", requeue=True)


@app.task(bind=True)
def refusing(self, key: object, seconds: float = 0.05) -> None:
    """Goes to the dead letters when it has run."""
    _run(self, key, seconds)
    raise Reject("told to", requeue=False)


@app.task(bind=True)
@unique_task("{name}", until="started")
def waiting(self, key: object, name: object, seconds: float = 0.05) -> object:
    """One waiting for each name."""
    return _run(self, key, seconds)


@app.task(bind=True)
@locked_task("skipped:{name}", on_busy="skip")
def skip(self, key: object, name: object, seconds: float = 0.05) -> object:
    """Acknowledged, without a word, when its lock is busy."""
    return _run(self, key, seconds)


@app.task(bind=True)
@locked_task("limited:{name}", limit=2)
def pair(self, key: object, name: object, seconds: float = 0.05) -> object:
    """Two at a time."""
    return _run(self, key, seconds)


@app.task(bind=True)
@locked_task("brief:{name}", max_hold=0.5)
def brief(self, key: object, name: object, seconds: float = 0.05) -> object:
    """Loses its lock after half a second."""
    try:
        deadline = time.monotonic() + seconds
        note("start", key, self.request.id)
        while time.monotonic() < deadline:
            time.sleep(0.01)
    except LockLost:
        note("told", key, self.request.id)
        raise
    note("end", key, self.request.id)
    return key


@app.task(bind=True)
@locked_task("brief:{name}", max_hold=0.5, on_lost="kill")
def doomed(self, key: object, name: object, seconds: float = 0.05) -> object:
    """Is killed when it has held its lock for half a second, the first time."""
    first = not self.request.delivery_info["redelivered"] and not self.request.get("ha_deliveries")
    return _run(self, key, seconds if first else 0)


@app.task(bind=True, acks_late=False)
def early(self, key: object, seconds: float = 0.05) -> object:
    """Acknowledged before it runs."""
    return _run(self, key, seconds)


@app.task(bind=True, rate_limit="4/s")
def limited(self, key: object) -> object:
    """Four a second."""
    return _run(self, key, 0)


@app.task(bind=True, queue="orders", ha_key="order.{key}", max_retries=3)
def again(self, key: object) -> object:
    """Succeeds at the fourth attempt."""
    _run(self, key, 0, self.request.delivery_info["routing_key"])
    if self.request.retries < 3:
        raise self.retry(countdown=0.05)
    return key


@app.task(bind=True, queue="orders", ha_key="order.{key}", max_retries=2)
def retried(self, key: object) -> object:
    """Succeeds at the third attempt; each has a key of its own."""
    _run(self, f"{key}/{self.request.retries}", 0)
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)
    return key


@app.task(bind=True, queue="orders", ha_key="order.{key}")
def carry(self, key: object, cargo: str) -> int:
    """A large message."""
    _run(self, key, 0)
    return len(cargo)


@app.task(bind=True)
def traced(self, key: object) -> object:
    """Notes the trace it is part of; outlasts the test at its first attempt."""
    again = self.request.get("ha_deliveries")
    return _run(self, key, 0 if again else 60, self.request.get("traceparent"), self.request.get("tracestate"))


@app.task(bind=True)
def total(self, parts: list[object], key: object) -> list[object]:
    """The body of a chord."""
    _run(self, key, 0)
    return sorted(map(str, parts))


@app.task(bind=True)
def finale(self, parts: list[object], key: object) -> object:
    """The body of a chord; notes what it was given."""
    return _run(self, key, 0, "+".join(sorted(map(str, parts))))


@app.task(bind=True, queue="orders", ha_key="order.{key}")
@locked_task("account:{key}", on_busy="requeue")
def fatal(self, key: object, way: str, times: int = 1_000) -> object:
    """Loses the process it runs in, the first ``times`` attempts."""
    attempts = sum(line[:2] == ["start", str(key)] for line in entries(Path(LEDGER)))
    _run(self, key, 0) if attempts >= times else lose(self, key, way)
    return key


def lose(task: Any, key: object, way: str) -> None:
    note("start", key, task.request.properties["delivery_tag"], task.request.hostname)
    if way == "exit":
        os._exit(9)
    if way == "segfault":
        ctypes.string_at(0)
    if way == "oom":  # as the kernel does
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "leave":
        raise SystemExit(9)
    if way == "main":
        os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


#: A body that nobody survives to open.
register("deadly", json.dumps, lambda _body: os._exit(9), "application/x-deadly", "utf-8")


class DeadlyRequest(Request):
    """No worker survives the arrival of its task."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        os._exit(9)


@app.task(Request=DeadlyRequest)
def sinister(key: object) -> object:
    """Kills whoever receives it."""
    return key


@app.task
def told(request: Any, exc: object, traceback: object) -> None:
    """An errback."""
    note("told", request.id, type(exc).__name__, "-")


@app.task
def crash() -> None:
    os._exit(9)


def entries(ledger: Path) -> list[list[str]]:
    """All ledger lines, split."""
    return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []
