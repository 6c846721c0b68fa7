"""A process that takes and gives back locks and writes down what it sees; no Celery worker."""

from __future__ import annotations

import faulthandler
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from billiard.util import set_pdeathsig
from celery import Celery

from celery_ha import HA, LockBusy, LockLost
from celery_ha.errors import StoreUnavailable
from celery_ha.locks.attempt import Attempt
from tests.history.event import Ledger
from tests.history.register import Register

#: How many may hold each lock. Taken inside each other in the order of their names, so there is no deadlock.
LOCKS = {"a": 1, "b": 1, "c": 2}


@dataclass(frozen=True)
class Stage:
    """Where a round takes place."""

    folder: Path
    #: URLs.
    broker: str
    store: str
    #: Lease TTL, seconds.
    ttl: float

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger")

    @property
    def enough(self) -> Path:
        """Once this file is there, clients ask for nothing more."""
        return self.folder / "enough"

    @property
    def over(self) -> Path:
        """Once this file is there, clients end."""
        return self.folder / "over"


def fork(stage: Stage, role: Callable[[Client], None], seed: str) -> int:
    """Start a client; returns its process id.

    Of the caller's threads the child has nothing but the locks they held, of a log's file for one: it logs to its own.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        set_pdeathsig(signal.SIGKILL)
        log = os.open(stage.folder / f"client.{os.getpid()}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        logging.root.handlers[:] = [logging.StreamHandler(sys.__stderr__)]
        faulthandler.register(signal.SIGUSR1, file=sys.__stderr__)
        client = Client(stage, random.Random(seed))
        role(client)
        client.app.ha.tenant.close()
        code = 0
    except BaseException:  # noqa: BLE001 - told by whoever waits for us
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


class Client:
    """One process's locks."""

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self.app = Celery("history", broker=stage.broker)
        self.app.conf.ha_store = stage.store
        self.app.conf.ha_lease_ttl = stage.ttl
        HA(self.app)
        self.stage = stage
        self.ledger = stage.ledger
        self.chance = chance
        self._register = Register(stage.folder, self.ledger)
        self._number = 0
        # Under which claim a call stands in line is not told to who is never granted anything.
        self._attempt, self.app.ha.tenant.attempt = self.app.ha.tenant.attempt, self._noted_attempt

    def hold(self, names: list[str], timeout: float | None, body: Callable[[], None], max_hold: float = 0.0) -> None:
        """Hold locks one inside the other, note all of it, and touch what they guard."""
        self._number += 1
        (name, *inner), number = names, self._number
        self._note("ask", name, number, limit=LOCKS[name], max_hold=max_hold, wait=-1.0 if timeout is None else timeout)
        lock, outcome = None, "released"
        try:
            with self.app.ha.lock(name, timeout, limit=LOCKS[name], max_hold=max_hold or None) as lock:
                try:
                    self._note("granted", name, number, token=lock.token, claim=lock.holder.claim)
                    self._touch(name, number, lock.token)
                    if inner:
                        self.hold(inner, timeout, body)
                    else:
                        body()
                    self._touch(name, number, lock.token)
                finally:
                    self._note("releasing", name, number)
        except LockBusy:
            outcome = "busy" if lock is None else "released"
        except StoreUnavailable:
            outcome = "unavailable" if lock is None else "released"
        except LockLost:
            if lock is None:
                # An outer one is lost while this one is waited for.
                self._note("unavailable", name, number)
                raise
        self._note(outcome, name, number, yes=lock is None or not lock.lost)

    def _noted_attempt(self, deadline: float) -> Attempt:
        attempt = self._attempt(deadline)
        self.ledger.note("claim", pid=os.getpid(), hold=self._number, claim=attempt.holder.claim)
        return attempt

    def _touch(self, name: str, number: int, token: int) -> None:
        if LOCKS[name] == 1:
            self._register.touch(name, token, number)

    def _note(self, kind: str, lock: str, hold: int, **what: object) -> None:
        self.ledger.note(kind, pid=os.getpid(), lock=lock, hold=hold, **what)


def guest(client: Client) -> None:
    """Takes and gives back locks until it is enough; stays, with its lease, until all is over."""
    chance, stage, parent = client.chance, client.stage, os.getppid()
    while not stage.enough.exists():
        names = sorted(chance.sample(sorted(LOCKS), chance.choice([1, 1, 1, 2, 3])))
        timeout = chance.choice([0.0, 0.3, 1.0, stage.ttl, None, None])
        client.hold(names, timeout, lambda: _stay(client), chance.choice([0.0, 0.0, 0.0, 0.3]))
        time.sleep(chance.uniform(0, 0.03))
    client.ledger.note("idle", pid=os.getpid())
    while not stage.over.exists() and os.getppid() == parent:
        time.sleep(0.05)


def newcomer(client: Client) -> None:
    """Takes each lock once, when nobody else does."""
    client.ledger.note("newcomer", pid=os.getpid())
    for name in LOCKS:
        client.hold([name], 2 * client.stage.ttl + 1, lambda: None)


def _stay(client: Client) -> None:
    """Mostly short; at times longer than the lease of a holder that is frozen meanwhile."""
    chance, ttl = client.chance, client.stage.ttl
    seconds = chance.choices([chance.uniform(0, 0.1), chance.uniform(0.2, 0.6), ttl * 1.2], [80, 17, 3])[0]
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(0.02, left))
