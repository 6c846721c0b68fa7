"""The processes of a round, and what strikes them."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from tests.history.arena import Arena
from tests.history.client import Client, Stage, fork, guest
from tests.history.peek import Away
from tests.history.plan import Blow
from tests.support.fleet import Fleet, Worker

OPTIONS = ("-Q", "celery", "-P", "solo", "--without-gossip", "--without-mingle")
WORKERS = 2


class Crew:
    """Clients, workers and their servers. Every blow is noted before it is struck, and its end after it."""

    def __init__(self, stage: Stage, arena: Arena, fleet: Fleet, seed: str) -> None:
        self.clients: list[int] = []
        self._stage, self._arena, self._fleet = stage, arena, fleet
        self._ledger = stage.ledger
        self._seeds = (f"{seed}-{number}" for number in itertools.count())
        self._stopped: set[int] = set()
        self._away = False

    def hire(self, role: Callable[[Client], None] = guest) -> int:
        pid = fork(self._stage, role, next(self._seeds))
        self.clients.append(pid)
        return pid

    def strike(self, blow: Blow) -> Callable[[], None] | None:
        """Do it; returns how it ends, if it does not at once. Whoever is struck already is left alone."""
        what, whom = blow.kind.split()[:2]
        if whom == "server":
            return None if self._away else self._strike_server(what)
        clients = [pid for pid in self.clients if pid not in self._stopped]
        workers = [worker for worker in self.workers if worker.pid not in self._stopped]
        pool = clients if whom == "client" else [worker.pid for worker in workers]
        if not pool:
            return None
        pid = pool[blow.victim % len(pool)]
        if what == "stop":
            return self._stop(pid)
        if what == "cut":
            self._cut(pid)
        elif whom == "client":
            self._ledger.note("kill", pid=pid)
            os.kill(pid, signal.SIGKILL)
            self.reap()
            self.hire()
        else:
            self._ledger.note("kill", pid=pid)
            os.kill(pid, signal.SIGKILL)
            self._fleet.start(*OPTIONS, ready=False)
        return None

    @property
    def workers(self) -> list[Worker]:
        return [worker for worker in self._fleet.workers if worker.alive]

    def reap(self) -> None:
        """Note who ended and how; one that was killed is reaped without a word."""
        for pid in list(self.clients):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.clients.remove(pid)
                self._ledger.note("exit", pid=pid, yes=os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL))

    def close(self) -> None:
        """End what is left of the clients."""
        for pid in self.clients:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _stop(self, pid: int) -> Callable[[], None]:
        self._stopped.add(pid)
        self._ledger.note("stop", pid=pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            self._ledger.note("cont", pid=pid)
            self._stopped.discard(pid)

        return go_on

    def _cut(self, pid: int) -> None:
        self._ledger.note("cut", pid=pid)
        with suppress(Away):
            self._arena.cut(pid)

    def _strike_server(self, what: str) -> Callable[[], None]:
        self._away = True
        if what == "stall":
            self._ledger.note("stall")
            self._arena.server.send(signal.SIGSTOP)
        else:
            self._ledger.note("down", yes=self._arena.keeps())
            self._arena.server.send(signal.SIGKILL)
            self._arena.server.stop()

        def back() -> None:
            if what == "stall":
                self._arena.server.send(signal.SIGCONT)
            else:
                self._arena.server.start()
            self._ledger.note("unstall" if what == "stall" else "up")
            self._away = False

        return back
