"""What Flower shows of a fleet: read beside its loop, once for all who look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from time import monotonic
from typing import Any

from tornado.ioloop import PeriodicCallback

from celery_ha.beat.overview import described, overview_of
from celery_ha.errors import StoreError
from celery_ha.flower.requeued import Requeued
from celery_ha.inspect import values
from celery_ha.inspect.desk import UNANSWERED, Desk

#: Seconds for which an answer is given to others who ask the same.
FRESH = 0.5
#: Seconds to wait for an answer. Each call to the store and the broker has ``ha_store_timeout``.
PATIENCE = 10.0
#: Seconds between two looks at the failovers.
PERIOD = 2.0
#: How many failovers, dead letters, locks and firings are told unless somebody wants more.
LIMIT = 50

#: What there is to ask, by noun.
NOUNS: dict[str, Callable[[Desk, int], Any]] = {
    "status": lambda desk, _: values.status(desk),
    "ring": lambda desk, _: values.rings(desk),
    "locks": values.locks,
    "dead": values.letters,
    "failovers": values.failovers,
    "beat": lambda desk, limit: described(overview_of(desk.store), limit),
}


class Reader:
    """Reads the fleet of one Flower.

    Args:
        flower: Flower's web application.
    """

    def __init__(self, flower: Any) -> None:
        self.flower = flower
        self.requeued = Requeued()
        self._asked: dict[tuple[str, int], tuple[float, asyncio.Future[Any]]] = {}
        self._threads = ThreadPoolExecutor(4, "ha-reader")
        self._watch = PeriodicCallback(self._look, PERIOD * 1000)

    @classmethod
    def of(cls, flower: Any) -> Reader | None:
        """The reader of a Flower, watching from the first call on; None: its app has no HA."""
        if getattr(flower.capp, "ha", None) is None:
            return None
        if not isinstance(flower.settings.get("celery_ha"), cls):
            flower.settings["celery_ha"] = made = cls(flower)
            made._watch.start()
        reader: Reader = flower.settings["celery_ha"]
        return reader

    async def ask(self, noun: str, limit: int = LIMIT) -> Any:
        """The value of a noun, or of ``page``: all of them.

        Args:
            limit: how many at most, of what may be many.

        Raises:
            StoreError: the store cannot tell.
            StoreUnavailable: the store or the broker did not answer.
            asyncio.TimeoutError: not in time.
        """
        now = monotonic()
        self._asked = {
            key: (at, task) for key, (at, task) in self._asked.items() if not task.done() or now - at < FRESH
        }
        if (noun, limit) not in self._asked:
            self._asked[noun, limit] = now, self._run(partial(self._read, noun, limit))
        # Shielded: others may wait for it too.
        return await asyncio.wait_for(asyncio.shield(self._asked[noun, limit][1]), PATIENCE)

    async def act(self, change: Callable[[Desk], Any]) -> Any:
        """Change something at a desk; raises as :meth:`ask` does."""
        try:
            return await asyncio.wait_for(self._run(partial(self._at_desk, change)), PATIENCE)
        finally:
            self._asked.clear()  # what was read meanwhile may be from before

    def _run(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _at_desk(self, call: Callable[[Desk], Any]) -> Any:
        with closing(Desk(self.flower.capp)) as desk:
            return call(desk)

    def _read(self, noun: str, limit: int) -> Any:
        if noun == "page":
            return self._at_desk(lambda desk: {each: _told(ask, desk, limit) for each, ask in NOUNS.items()})
        return self._at_desk(lambda desk: NOUNS[noun](desk, limit))

    async def _look(self) -> None:
        try:
            self.requeued.mark(self.flower.events.state, await self.ask("failovers"))
        except (*UNANSWERED, asyncio.TimeoutError):
            return  # the page says so; next time


def _told(ask: Callable[[Desk, int], Any], desk: Desk, limit: int) -> Any:
    """The part of a page; what the store cannot tell is said in its place."""
    try:
        return ask(desk, limit)
    except StoreError as exc:
        return {"error": str(exc)}
