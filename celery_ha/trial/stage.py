"""Where it plays: the workers, what is seen of them, and what the audience sees."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from celery_ha.trial.fleet import Fleet, NotOurs
from celery_ha.trial.ledger import LedgerReader
from celery_ha.trial.view import Picture, Row, View
from celery_ha.trial.watch import Failover, Sight, Watch

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
    """

    def __init__(self, fleet: Fleet, watch: Watch, ledger: Path, view: View, total: int) -> None:
        self.fleet = fleet
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

    def is_there(self, name: str, *, but: str = "") -> bool:
        """Whether a worker has an open lease, another one than this."""
        member = self.sight.members.get(name)
        return member is not None and member.lease != but

    @property
    def everybody_is_there(self) -> bool:
        return self.sight.led and all(map(self.is_there, self.fleet.names))

    def say(self, text: str) -> None:
        self._view.say(text)

    def failover_of(self, lease: str) -> Failover | None:
        return next((failover for failover in self._watch.failovers if failover.lease == lease), None)

    def look(self) -> None:
        """Look once and show it.

        Raises:
            WorkerGone: a worker ended by itself.
            NotOurs: somebody else takes part.
        """
        self.fleet.check()
        self.sight = self._watch.see()
        refuse_strangers(self.sight, self.fleet.names)
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


def refuse_strangers(sight: Sight, names: tuple[str, ...]) -> None:
    """Have nothing to do with a fleet that others take part in.

    Raises:
        NotOurs: somebody has an open lease who is not one of these.
    """
    strangers = sorted(set(sight.members) - set(names))
    if strangers:
        raise NotOurs(f"{', '.join(strangers)} would take part, not started here: nobody is touched")
