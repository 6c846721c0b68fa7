"""A beat inside of a worker (``worker -B``) is a process of its own that must not outlive the worker."""

from __future__ import annotations

import signal
import sys
from typing import Any

from billiard.process import current_process
from billiard.util import set_pdeathsig


def follow_parent() -> None:
    """In a worker's beat: end in order when told to, and end with the worker; elsewhere nothing happens."""
    if current_process().name != "Beat":
        return
    signal.signal(signal.SIGTERM, _leave)
    if sys.platform == "linux":
        set_pdeathsig(signal.SIGTERM)


def _leave(*_: Any) -> None:
    # The worker's own end comes as a second one, while the goodbye is being said.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit
