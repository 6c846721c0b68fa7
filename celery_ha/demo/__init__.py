"""The main job on show: three workers, one of them killed in the middle, nothing lost.

Run it with ``python -m celery_ha.demo``. :mod:`~celery_ha.trial.scene` tells the story; the verdict is
reached from what the tasks themselves wrote down (:mod:`~celery_ha.trial.ledger`), not from what
celery_ha says about itself.
"""
