"""A worker that dies right after one of the steps of ``reclaim``, or of asking for starts on RabbitMQ."""

from __future__ import annotations

import os
import signal
from typing import Any

from celery_ha.brokers.amqp import AmqpBroker
from celery_ha.brokers.redis import RedisBroker
from celery_ha.store.redis.court import RedisCourt
from celery_ha.store.redis.locks import RedisLocks

#: Of asking for starts on RabbitMQ.
STARTING = {"asked": (AmqpBroker, "ask"), "answered": (AmqpBroker, "answer")}
#: Of ``reclaim``.
RECOVERY = {
    "fence": (RedisBroker, "fence"),
    "in_flight": (RedisBroker, "in_flight"),
    "settle": (RedisLocks, "settle"),
    "requeue": (RedisBroker, "requeue"),
    "forget": (RedisBroker, "forget"),
    "recovered": (RedisCourt, "recovered"),
}


def die_after(step: str) -> None:
    """Kill this process as soon as a step is done, in whatever thread."""
    owner, name = {**STARTING, **RECOVERY}[step]
    real = getattr(owner, name)

    def last(*args: Any, **kwargs: Any) -> Any:
        real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, last)
