"""Workers of one's own, one of them struck down, and what becomes of the tasks: what demo and drill share.

The verdict is reached from what the tasks themselves wrote down (:mod:`~celery_ha.trial.ledger`), not
from what celery_ha says about itself.
"""
