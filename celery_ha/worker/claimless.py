"""The broker's door for a process that claims no messages: there is nothing to open and nothing to refuse."""

from __future__ import annotations

from celery_ha.brokers.base import Door


class Claimless(Door):
    """Its lease lives in the store alone."""

    def join(self, lease: str) -> bool:
        return True

    def leave(self, lease: str) -> bool:
        return True
