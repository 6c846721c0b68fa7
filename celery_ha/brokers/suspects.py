"""Messages that may kill whoever opens them (rule 15).

A message that takes its worker down before its attempt has started, in the decoder or while it
waits for a slot, counts no attempt, and neither does what happened to be in the same hands. After
three such deliveries it is a suspect: it is opened while nothing else runs here, and its start is
written down before that, so that what it kills then counts, and for nobody but itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from celery_ha.brokers.intake import Intake
from celery_ha.envelope import UNSTARTED, attempts, headers, suspected
from celery_ha.model import Claim

#: Most messages have never been in dead hands: no need to read them twice.
_HINT = UNSTARTED.encode()


class Suspects:
    """Set aside unopened until nothing else runs; meanwhile nothing more is claimed.

    Args:
        open_: hands a message on as any other.

    **Failure:** a suspect set aside is in flight, not started: it goes wherever the lease's claims go.
    """

    def __init__(self, open_: Callable[[Claim], None]) -> None:
        self._open = open_
        self._aside: deque[Claim] = deque()

    def __bool__(self) -> bool:
        return bool(self._aside)

    def take(self, intake: Intake, claim: Claim) -> bool:
        """Set a suspect aside, or give it up if it had all its attempts; False: it is none."""
        found = headers(claim.payload) if _HINT in claim.payload else {}
        if not suspected(found):
            return False
        if attempts(found) >= intake.claims.max_deliveries:
            intake.claims.condemn(claim)
        else:
            self._aside.append(claim)
        return True

    def open_next(self, intake: Intake) -> None:
        """Open suspects, one by one, as long as nothing runs, or may be marked already."""
        ledger = intake.ledger
        while self._aside and intake.batch_limit and not (ledger.running() or intake.claims.asking):
            claim = self._aside.popleft()
            if not intake.claims.mark(claim.id):
                continue  # somebody else's by now, or given back
            self._open(claim)
            if claim.id not in ledger.running():  # it waits for an ETA, or for a rate limit
                ledger.defer(claim.id)
