"""A beat's place in the line for the office, under a lease of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from dataclasses import replace
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from celery_ha.config import Config
from celery_ha.errors import StoreUnavailable
from celery_ha.model import BEAT_QUEUE, Holder, Term
from celery_ha.telling.post import Post
from celery_ha.telling.teller import Teller
from celery_ha.worker.announcer import Announcer
from celery_ha.worker.birth import begin_life
from celery_ha.worker.life import Life
from celery_ha.worker.page import TrustPage

logger = logging.getLogger(__name__)

#: The lock whose holder is the beat in office.
OFFICE = "@beat"
#: What makes it a node, so beats judge each other also when no worker lives (see
#: :func:`celery_ha.failover.roles.deputies`).
QUEUE = BEAT_QUEUE
#: Longest TTL of a beat's lease, seconds. Nothing runs twice when a beat is given up for dead by mistake, so a beat can
#: afford a shorter one than a worker; and nobody is judged before he was watched for his TTL.
TTL = 3.0
#: Seconds to stand in line in one go.
WAIT = 2.0
#: Seconds before it is tried again after a failure, and of rest for a beat that gave the office up.
AGAIN = 1.0


class Seat:
    """Opens a lease, stands in line for the office, and does so again whenever either is lost.

    All of it happens in a thread. Whoever fires asks for :attr:`term` before each firing; the store checks it again
    in the step that claims. May be closed from a signal handler: it holds no lock that the handler could need.

    Args:
        app: with HA installed.
    """

    def __init__(self, app: Any) -> None:
        config = shortened(app.ha.config)
        self.name = f"beat-{os.getpid()}@{socket.gethostname()}"
        # Not the store of this process: a worker in it may have a lease of its own there.
        self.store = app.ha.make_store(config.store_timeout, config.lease_ttl)
        self._config = config
        self._broker = app.ha.make_broker(self.store, config.lease_ttl, retries=1)
        self._page = TrustPage()
        teller = Teller()
        teller.open(self.name, [Post(app, self.name)] if config.events else [])
        self._announcer = Announcer(teller, self.name, self._lease, self._broker.queue_of)
        self._life: Life | None = None
        self._term: Term | None = None
        self._news: SimpleQueue[None] = SimpleQueue()
        #: It said goodbye, or is about to.
        self.closed = False
        self._thread = threading.Thread(target=self._run, name="ha-beat", daemon=True)
        self._thread.start()

    @property
    def term(self) -> Term | None:
        """The office, if it is ours and the lease is trusted."""
        term = self._term
        return term if term is not None and self.trusts(term) else None

    def trusts(self, term: Term) -> bool:
        """Whether something may still be sent in this term: its lease is kept, by the local monotonic clock."""
        return self._page.trusts(term.holder.lease)

    def pulse(self, seconds: float) -> None:
        """The main loop turns, and will again after so many seconds; if not, the lease ends (rule 10)."""
        if self._life is not None:
            self._life.pulse = monotonic() + seconds

    def lost(self, term: Term) -> None:
        """The store says that the term is over."""
        if self._term == term:
            self._term = None
            logger.warning("This beat lost its office and fires nothing until it has it again")
        self._news.put(None)

    def resign(self, term: Term) -> None:
        """Let another beat try: it may reach a broker that we do not.

        **Failure:** dying before leaves the office to the settlement of the lease.
        """
        self._term = None
        with contextlib.suppress(StoreUnavailable):
            self.store.locks.release(term.office, term.holder, term.token)
        self._news.put(None)

    def close(self) -> None:
        """Hand the office on and say goodbye; harmless to repeat."""
        if self.closed:
            return
        self.closed = True
        self._news.put(None)
        self._term = None
        life = self._life
        if life is None:
            return
        life.leaving = True
        with contextlib.suppress(StoreUnavailable):
            # Not only released: a place in line that the thread still has must not be granted.
            self.store.locks.ended((_holder(life).claim,))
        life.end()
        life.keeper.goodbye()
        self.store.close()
        self._announcer.teller.close(0.0)

    def _run(self) -> None:
        while not self.closed:
            self._run_once()

    def _run_once(self) -> None:
        try:
            self._serve(self._living())
        except StoreUnavailable as error:
            logger.warning("No office without the store: %s", error)
            self._rest()
        except Exception:
            logger.exception("Standing in line for the office failed; trying again in %s s", AGAIN)
            self._rest()

    def _living(self) -> Life:
        if self._life is not None and self._life.fenced:
            self._life.end()
            self._life = None
        if self._life is None:
            self._life = begin_life(
                self.name,
                1,
                (QUEUE,),
                {},
                config=self._config,
                store=self.store,
                broker=self._broker,
                page=self._page,
                on_owed=lambda: None,
                suspected=frozenset,
                on_observed=lambda observed: self._announcer.observed(observed, ()),
                on_change=lambda: self._news.put(None),
                teller=self._announcer.teller,
            )
        return self._life

    def _lease(self) -> str:
        return "" if self._life is None else self._life.keeper.lease

    def _serve(self, life: Life) -> None:
        """Stand in line for a while; if the office comes, stay until it is gone."""
        grant = self.store.locks.acquire(OFFICE, _holder(life), inherit=0.0, wait=WAIT)
        if grant.token is None or self.closed:
            return
        self._term = term = Term(OFFICE, _holder(life), grant.token)
        logger.info("This beat is in office: %s", self.name)
        while self._term == term and not (life.fenced or self.closed):
            with contextlib.suppress(Empty):
                self._news.get(timeout=AGAIN)
        if life.fenced:
            self.lost(term)
        if not self.closed:
            self._rest()

    def _rest(self) -> None:
        until = monotonic() + AGAIN
        while not self.closed and (left := until - monotonic()) > 0:
            with contextlib.suppress(Empty):
                self._news.get(timeout=left)


def shortened(config: Config) -> Config:
    """The settings of a worker's lease, for a beat's."""
    if config.lease_ttl <= TTL:
        return config
    ttl = min(config.lease_ttl, max(TTL, 2 * config.look_every))
    timeout = min(config.store_timeout, ttl / 4)
    return replace(config, lease_ttl=ttl, trust_margin=ttl / 10, renew_every=ttl / 4, store_timeout=timeout)


def _holder(life: Life) -> Holder:
    lease = life.keeper.lease
    return Holder(lease, f"{lease}.beat", "")
