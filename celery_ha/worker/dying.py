"""Children that are being killed: what they have locked is free when they are gone, not before (rule 5).

At a hard time limit Celery tells first and kills then, with SIGTERM and, a tenth of a second later, SIGKILL: until
then the body may run on, and so does its cleanup.
"""

from __future__ import annotations

import os
from collections.abc import Callable

#: Seconds between two looks whether a process is gone.
LOOK_EVERY = 0.02


class Dying:
    """The claims of a worker's children that are on their way out.

    Args:
        later: calls something on the loop after so many seconds.
    """

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._later = later
        #: Whose locks nobody may take for left over.
        self.claims: set[str] = set()

    def once_gone(self, claim: str, pid: int | None, call: Callable[[], None]) -> None:
        """Call when the child has been reaped; at once if it is none, or not known.

        **Failure:** dying before, or a loop that ends, leaves the locks to the settlement of the lease.
        """
        if pid is None or pid == os.getpid() or not _is_there(pid):
            call()
            return
        self.claims.add(claim)

        def look() -> None:
            if _is_there(pid):
                self._later(LOOK_EVERY, look)
                return
            self.claims.discard(claim)
            call()

        self._later(LOOK_EVERY, look)


def _is_there(pid: int) -> bool:
    """Whether a child lives, or nobody has noticed its death yet."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # a greenlet's number is too large for one of a process
        return False
    return True
