"""Any number of beats that are one: ``celery beat -S celery_ha.beat:Scheduler``, and ``worker -B`` on every worker.

The beats stand in line for one lock, the office. Its holder fires the entries of a schedule; each firing is claimed
in the store before it is sent and marked afterwards, in the same step that checks the term. What becomes of a
firing when its beat dies:

- *before the claim*: the next beat in office finds the entry due, and fires it.
- *between claim and sending*: the next one sends it, under the same task id.
- *between sending and the mark*: the next one sends it again, with the same publish id, and the broker drops the
  repetition (rule 14 of the design). It remembers for ten minutes: if no beat ran for longer, the task comes twice,
  under one id.
- *a beat that froze* anywhere and wakes up has lost its term: its claims are refused, and what it had claimed it
  does not send once its lease is out of trust. A message already on the wire is such a repetition too.
"""

from __future__ import annotations

from celery_ha.beat.overview import Entry, Overview, overview
from celery_ha.beat.scheduler import Scheduler

__all__ = ["Entry", "Overview", "Scheduler", "overview"]
