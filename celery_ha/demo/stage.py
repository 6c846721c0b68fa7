"""Where the demo plays: the workers, what is seen of them, and what the audience sees."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery_ha.demo.fleet import Fleet
from celery_ha.demo.ledger import LedgerReader
from celery_ha.demo.view import Picture, Row, View
from celery_ha.demo.watch import Failover, Sight, Watch

#: Seconds between two looks.
TICK = 0.04


class Stage:
    """Looks at everything and shows it.

    Args:
        fleet: running workers.
        watch: on their store and broker.
        ledger: folder that the tasks write to.
        view: where to show it.
        total: tasks there will be.
        charge: the task to publish.
    """

    def __init__(self, fleet: Fleet, watch: Watch, ledger: Path, view: View, total: int, charge: Any) -> None:
        self.fleet = fleet
        self.charge = charge
        self.total = total
        self.ledger = LedgerReader(ledger)
        #: What was done to whom, for the view.
        self.struck: dict[str, str] = {}
        self.sight = Sight({}, 0)
        self._watch = watch
        self._view = view

    @property
    def done(self) -> int:
        return len(self.ledger.finished)

    @property
    def everybody_is_there(self) -> bool:
        return self.sight.led and set(self.fleet.names) <= set(self.sight.members)

    def say(self, text: str) -> None:
        self._view.say(text)

    def failover_of(self, node: str) -> Failover | None:
        return next((failover for failover in self._watch.failovers if failover.node == node), None)

    def look(self) -> None:
        """Look once and show it.

        Raises:
            WorkerGone: a worker ended by itself.
        """
        self.fleet.check()
        self.sight = self._watch.see()
        self.ledger.refresh()
        done = Counter(self.ledger.finished.values())
        rows = [self._row(name, done[name]) for name in self.fleet.names]
        self._view.show(Picture(rows, self.done, self.total, self.sight.waiting))

    def until(self, condition: Callable[[], bool], patience: float) -> bool:
        """Look on until a condition holds; False if nothing at all moved for ``patience`` seconds."""
        seen, since = None, time.monotonic()
        while not condition():
            self.look()
            now = (self.sight, len(self.ledger.events), len(self._watch.failovers))
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > patience:
                return False
            time.sleep(TICK)
        return True

    def wait(self, seconds: float) -> None:
        """Look on for so long."""
        deadline = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= deadline, seconds + 1)

    def _row(self, name: str, done: int) -> Row:
        member = self.sight.members.get(name)
        if member is None:
            return Row(name, self.struck.get(name, "starting"), 0, 0, done)
        state = self.struck.get(name, "leader" if member.leads else "up")
        return Row(name, state, len(member.shards), member.in_flight, done)
