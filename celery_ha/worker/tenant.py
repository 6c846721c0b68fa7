"""A process that is no worker but takes locks: a web process, a script. It has a lease like a worker's."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import socket
import threading
from time import monotonic
from uuid import uuid4

from celery_ha.config import Config
from celery_ha.errors import Fenced, StoreUnavailable
from celery_ha.failover.keeper import Keeper
from celery_ha.locks.attempt import Attempt
from celery_ha.model import Holder, Node
from celery_ha.store.base import Store
from celery_ha.store.persistent import Persistent
from celery_ha.worker.claimless import Claimless

logger = logging.getLogger(__name__)

#: Seconds between two tries to reach the store, and before a cut connection is made anew.
AGAIN, RETRY = 0.5, 0.1
#: Seconds between two looks for locks that nobody here has any more, and before one after the store was away.
LOOK_EVERY, LOOK_SOON = 30.0, 2.0


class Tenant:
    """The lease of a process that holds locks and no messages; opened by the first lock, kept by a thread.

    The workers judge it as they judge each other: when the process dies its locks are free in seconds. It
    judges nobody itself, so without a single worker nobody frees a dead process's locks. A forked child
    needs a tenant of its own.

    Args:
        store: leases and locks; its connections are this lease's alone, by which it is judged.
        config: settings.
    """

    def __init__(self, store: Store, config: Config) -> None:
        self._store = store
        self._config = config
        self._mutex = threading.Lock()
        self._keeper: Keeper | None = None
        self._numbers = itertools.count(1)
        self._claims: set[str] = set()
        self._look_at = monotonic() + LOOK_EVERY
        self._over = threading.Event()
        #: The goodbye was said, or could not be.
        self._said = threading.Event()
        self._pid = os.getpid()

    @property
    def lease(self) -> str:
        """The current one; empty if there is none."""
        keeper = self._keeper
        return "" if keeper is None or keeper.over else keeper.lease

    def attempt(self, deadline: float) -> Attempt:
        """On whose behalf a lock is taken here; every call is another holder.

        Args:
            deadline: local monotonic time until which the store may be away.

        Raises:
            StoreUnavailable: there is no lease yet and the store was not reached until then.
        """
        lease = self._open(deadline)
        holder = Holder(lease, f"{lease}.{next(self._numbers)}", "")
        self._claims.add(holder.claim)
        return Attempt(holder, self._store.locks, inherit=0.0, acks_late=False, lost=lambda: self._has_lost(lease))

    def done(self, holder: Holder) -> None:
        """This holder takes no lock any more and has given back what it had."""
        self._claims.discard(holder.claim)

    def forget(self, holder: Holder) -> None:
        """Make sure that a holder who got no answer holds nothing: asked again until the store answers.

        **Failure:** dying before leaves its locks to the settlement of the lease.
        """
        Persistent().run(lambda: self._store.locks.ended((holder.claim,)))

    def close(self) -> None:
        """Say goodbye; what is still held is freed by the workers. In a forked child: nothing, it is its parent's."""
        if self._pid != os.getpid():
            return
        self._over.set()
        with self._mutex:
            if self._keeper is not None and not self._keeper.over:
                self._keeper.goodbye()
        self._said.set()

    def _open(self, deadline: float) -> str:
        while True:
            try:
                with self._mutex:
                    if self._keeper is None or self._keeper.over:
                        self._keeper = self._begin()
                    return self._keeper.lease
            except StoreUnavailable:
                if monotonic() >= deadline:
                    raise
            self._over.wait(max(0.0, min(AGAIN, deadline - monotonic())))

    def _begin(self) -> Keeper:
        config = self._config
        name = f"{os.getpid()}@{socket.gethostname()}"
        keeper = Keeper(
            Node(uuid4().hex, name, 0, (), ttl=config.lease_ttl),
            self._store.leases,
            Claimless(),
            clock=monotonic,
            margin=config.trust_margin,
            wedged_after=config.wedged_after,
            renew_every=config.renew_every,
        )
        keeper.open()
        if self._keeper is None:
            atexit.register(self.close)
        threading.Thread(target=self._keep, args=(keeper,), name="ha-tenant", daemon=True).start()
        logger.info("Opened lease %s as %s, for locks only", keeper.lease, name)
        return keeper

    def _keep(self, keeper: Keeper) -> None:
        while not (keeper.over or self._over.is_set()):
            self._over.wait(self._keep_once(keeper))
        # By this thread, which may have been waiting on a connection; not before the goodbye has gone over another.
        if self._over.is_set() and self._said.wait(self._config.lease_ttl):
            self._store.close()

    def _keep_once(self, keeper: Keeper) -> float:
        """Renew and watch until the next renewal is due; returns for how many seconds to do nothing."""
        try:
            again_in = keeper.step().again_in
            if monotonic() >= self._look_at:
                self._free_leftovers(keeper.lease)
            self._pause(keeper.lease, again_in)
        except Fenced:
            if not self._over.is_set():
                logger.error(  # noqa: TRY400 - the cause is in the sentence
                    "Lease %s was fenced: the locks of this process are free", keeper.lease
                )
        except StoreUnavailable:
            self._look_at = monotonic() + LOOK_SOON
            return RETRY
        except Exception:
            logger.exception("Renewing lease %s failed; trying again in %s s", keeper.lease, AGAIN)
            return AGAIN
        return 0.0

    def _free_leftovers(self, lease: str) -> None:
        """Free what nobody here has any more: a store that lost its last moments has a released lock again.

        **Failure:** dying within leaves the rest to the settlement of the lease; ending a claim twice is harmless.
        """
        self._look_at = monotonic() + LOOK_EVERY
        # The store is asked first: whoever has taken a lock meanwhile is known here since before.
        for claim in self._store.locks.claims(lease) - frozenset(self._claims):
            logger.warning("Freeing what %s still holds: nobody here has it any more", claim)
            self._store.locks.ended((claim,))

    def _pause(self, lease: str, seconds: float) -> None:
        """Until the next renewal is due; a connection that is cut meanwhile is noticed at once, as others notice it.

        Raises:
            StoreUnavailable: it was cut: renew now.
        """
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0 and not self._over.is_set():
            self._store.leases.wait(lease, left)

    def _has_lost(self, lease: str) -> bool:
        return self.lease != lease
