"""A worker's own half of the probe: what it writes of itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from contextlib import suppress
from math import isfinite
from time import monotonic
from typing import Any

from celery_ha.probe.folder import folder_of, make, path_of, tidy, write
from celery_ha.probe.sign import Sign, dump
from celery_ha.worker.life import Life

logger = logging.getLogger(__name__)


class Signs:
    """Written by the keeper's thread, and by whoever changes something; a file that cannot be written stops nobody.

    Args:
        node: name of the worker.
        folder: where; None: where it is by default.
        patience: see :attr:`Sign.patience <celery_ha.probe.sign.Sign.patience>`.
    """

    def __init__(self, node: str, folder: str | None, patience: float) -> None:
        self._fields: dict[str, Any] = {"node": node, "pid": os.getpid(), "patience": patience}
        self._patience = patience
        self._folder = folder_of(folder)
        self._path = path_of(self._folder, node, os.getpid())
        self._over = False
        self._warned = False
        self._wedged = False
        #: What waits for the pool although that has a free process, and since when.
        self._waiting: dict[str, float] = {}

    def show(self, **changes: object) -> None:
        """Change the sign and write it; from any thread."""
        self._fields = {**self._fields, **changes, "written": monotonic()}
        if self._over:
            return
        try:
            make(self._folder)
            write(self._path, dump(Sign(**self._fields)))
        except OSError as exc:
            if not self._warned:
                logger.warning("celery-ha-probe will find nothing here: %s; set ha_probe_dir", exc)
            self._warned = True

    def begin(self) -> None:
        """The worker starts, and has no lease yet."""
        with suppress(OSError):
            tidy(self._folder, str(self._fields["node"]))
        self.show()

    def show_life(self, life: Life) -> None:
        """How a life of the node is; from its keeper's thread."""
        until, lost = life.keeper.trusted_until, self._fields.get("lost_since")
        self.show(
            lease=life.keeper.lease,
            trusted_until=until if isfinite(until) else None,
            lost_since=(lost or monotonic()) if life.fenced else None,
            pulse=None if life.fenced else life.pulse,  # nobody writes it again before there is another life
            stuck_since=min(self._waiting.values(), default=None),
        )

    def waits_for_store(self) -> None:
        """A lost lease has no successor because the store is away: no restart would help."""
        if self._fields.get("lost_since") is not None:
            self.show(lost_since=monotonic())

    def pool(self, waiting: Collection[str], *, free: bool) -> bool:
        """Note a look at the pool; on the main loop.

        Args:
            waiting: claims that were handed to the pool and that no process of it has taken.
            free: it has a process that runs nothing.

        Returns:
            It has taken nothing for too long, and that was not said before.
        """
        now = monotonic()
        self._waiting = {claim: self._waiting.get(claim, now) for claim in waiting} if free else {}
        was_wedged = self._wedged
        self._wedged = now - min(self._waiting.values(), default=now) > self._patience
        return self._wedged and not was_wedged

    def remove(self) -> None:
        """The worker says goodbye."""
        self._over = True
        with suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108 - as where it is written
