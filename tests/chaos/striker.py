"""Deals the blows of a plan, and keeps the fleet at its number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from tests.chaos.ground import Ground, Server, outage
from tests.chaos.plan import Blow, Plan, blows
from tests.chaos.publisher import HANG
from tests.support.fleet import ROOT, Worker, eventually
from tests.support.ledger import Harm
from tests.support.scene import DYING, Scene

OPTIONS = ("-Q", "orders,celery,reports", "-c", "2", "--without-gossip", "--without-mingle")
#: Chances of a name that is used again by the next worker, and of a victim that is still starting or just leaving.
NAMESAKE, UNSETTLED = 0.3, 0.15


class Striker:
    """Who is struck is chosen by the plan among those there are, so that a seed repeats as far as it can.

    Args:
        made: the store and the fleet.
        ground: its servers.
        plan: what to do.
        tell: is told how far we are.
    """

    def __init__(self, made: Scene, ground: Ground, plan: Plan, tell: Callable[[str], None]) -> None:
        self.dealt: Counter[str] = Counter()
        #: Workers that were asked to go, and those that never went.
        self.leaving: list[Worker] = []
        self.stayed: list[str] = []
        #: All that were ever told to go, in whatever way.
        self.told: list[Worker] = []
        #: Seconds for which a server stood still, at the longest.
        self.longest_stall = 0.0
        #: From when to when a server was away, wall clock; the last one may not be over.
        self.outages: list[tuple[float, float]] = []
        self._scene, self._ground, self._plan, self._tell = made, ground, plan, tell
        self._frozen: list[tuple[float, Worker]] = []
        self._stalled: list[tuple[float, Server]] = []
        self._drains: list[tuple[Worker, subprocess.Popen[bytes]]] = []

    def strike_all(self) -> None:
        """Deal every blow, then let everybody go on and wait for who leaves."""
        planned, over = blows(self._plan), time.monotonic() + self._plan.minutes * 60
        for number, blow in enumerate(planned, 1):
            self._wait(blow.pause)
            eventually(self._may_strike, within=HANG, why="half of the workers ready")
            getattr(self, f"_{blow.kind}")(blow)
            self.dealt[blow.kind] += 1
            if number % 20 == 0 or number == len(planned):
                self._tell(f"{number} of {len(planned)} blows; {len(self._scene.ledger.lines())} lines in the ledger")
            if self._plan.punctual and time.monotonic() > over:
                break
        eventually(self._all_go_on, within=HANG, why="nobody stands still")
        with suppress(AssertionError):
            eventually(lambda: not any(worker.alive for worker in self.leaving), within=HANG)
        self.stayed = [worker.name for worker in self.leaving if worker.alive]
        self._settle_drains(wait=True)
        self._top_up()

    def asked(self, worker: Worker) -> bool:
        """Whether it was told to go, and might."""
        return worker in self.told

    # -- who is there -----------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._all_go_on()
            time.sleep(min(0.1, max(0.0, until - time.monotonic())))

    def _may_strike(self) -> bool:
        self._all_go_on()
        self._settle_drains()
        self._top_up()
        return len(self._ready()) > self._plan.workers // 2

    def _ready(self) -> list[Worker]:
        away = [*self.leaving, *(worker for _, worker in self._frozen)]
        found = [worker for worker in self._scene.live if worker not in away and worker.said(" ready.")]
        return sorted(found, key=lambda worker: worker.name)

    def _victim(self, blow: Blow) -> Worker:
        """One of the ready; for some blows, one that is just starting or leaving."""
        ready = self._ready()
        unsettled = [worker for worker in self._scene.live if worker not in ready]
        pool = unsettled if unsettled and blow.kind == "kill" and blow.force < UNSETTLED else ready
        victim = pool[int(blow.victim * len(pool))]
        self._log(blow, victim.log.name)
        return victim

    def _log(self, blow: Blow, whom: str) -> None:
        with (self._scene.fleet.directory / "blows").open("a") as file:
            file.write(f"{time.time():.3f} {blow.kind} {whom} {blow.force:.3f}\n")

    def _top_up(self, name: str | None = None) -> None:
        staying = [worker for worker in self._scene.live if worker not in self.leaving]
        for _ in range(self._plan.workers - len(staying)):
            self._scene.fleet.start(*OPTIONS, name=name, ready=False)
            name = None

    def _all_go_on(self) -> bool:
        """Let go on who stood still for long enough; True: nobody stands still."""
        now = time.monotonic()
        for until, worker in list(self._frozen):
            if now >= until:
                worker.send(signal.SIGCONT)
                self._frozen.remove((until, worker))
        for until, server in list(self._stalled):
            if now >= until:
                server.send(signal.SIGCONT)
                self._stalled.remove((until, server))
        return not self._frozen and not self._stalled

    # -- the blows --------------------------------------------------------------------------

    def _kill(self, blow: Blow) -> None:
        victim = self._victim(blow)
        self._scene.kill(victim)
        self._forget(victim)
        self._top_up(victim.name if blow.force > 1 - NAMESAKE else None)

    def _twins(self, blow: Blow) -> None:
        self._kill(blow)
        if self._ready():
            self._kill(blow)

    def _freeze(self, blow: Blow) -> None:
        victim = self._victim(blow)
        self._scene.kill(victim, signal.SIGSTOP)
        self._frozen.append((time.monotonic() + self._plan.ttl * (1.5 + blow.force), victim))

    def _child(self, blow: Blow) -> None:
        victim = self._victim(blow)
        children = sorted(victim.children())
        if children:
            pid = children[int(blow.force * len(children))]
            self._scene.harms.append(Harm(victim.name, time.time(), DYING, pid))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _leave(self, blow: Blow) -> None:
        victim = self._victim(blow)
        victim.send(signal.SIGTERM)
        self.leaving.append(victim)
        self.told.append(victim)
        self._top_up()

    def _quit(self, blow: Blow) -> None:
        """Whatever it runs is cut off, as soon as its loop hears of it."""
        victim = self._victim(blow)
        self._scene.harms.append(Harm(victim.name, victim.send(signal.SIGQUIT), HANG))
        self.leaving.append(victim)
        self.told.append(victim)
        self._top_up()

    def _drain(self, blow: Blow) -> None:
        victim = self._victim(blow)
        self.told.append(victim)
        command = (sys.executable, "-m", "celery", "-A", self._scene.fleet.app, "ha", "drain", victim.name)
        environment = {**os.environ, **self._scene.fleet.environment}
        quiet = subprocess.DEVNULL
        self._drains.append((victim, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)))

    def _settle_drains(self, *, wait: bool = False) -> None:
        """A node that was told to go is on its way, unless the server was struck meanwhile."""
        for victim, command in list(self._drains):
            if wait:
                command.wait(HANG)
            if command.poll() is not None:
                self._drains.remove((victim, command))
                self.dealt["drain refused"] += command.returncode != 0

    def _stall(self, blow: Blow) -> None:
        """A server stands still; nothing that dies of it is excused."""
        seconds, server = self._plan.ttl * (0.5 + 1.5 * blow.force), self._server(blow)
        self._stalled = [(until, other) for until, other in self._stalled if other is not server]
        server.send(signal.SIGSTOP)
        self._stalled.append((time.monotonic() + seconds, server))
        self.outages.append((time.time(), time.time() + seconds))
        self.longest_stall = max(self.longest_stall, seconds)

    def _restart(self, blow: Blow) -> None:
        """A server is killed and comes back with every write that it has confirmed."""
        server = self._server(blow)
        self._stalled = [(until, other) for until, other in self._stalled if other is not server]
        self.outages.append(outage(server, blow.force))

    def _server(self, blow: Blow) -> Server:
        servers = self._ground.servers
        found = servers[int(blow.victim * len(servers))]
        self._log(blow, type(found).__name__)
        return found

    def _forget(self, victim: Worker) -> None:
        self._frozen = [(until, worker) for until, worker in self._frozen if worker is not victim]
        self.leaving = [worker for worker in self.leaving if worker is not victim]
