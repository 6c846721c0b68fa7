"""Where a store keeps attempts."""

from __future__ import annotations

from celery_ha.attempts.base import Attempts
from celery_ha.attempts.redis import RedisAttempts
from celery_ha.errors import ConfigError
from celery_ha.store.base import Store
from celery_ha.store.redis.store import RedisStore


def attempts_in(store: Store) -> Attempts:
    """The record of attempts of a store.

    Raises:
        ConfigError: this kind of store keeps none.
    """
    if isinstance(store, RedisStore):
        return RedisAttempts(store)
    raise ConfigError(f"{type(store).__name__} cannot be used with this broker")
