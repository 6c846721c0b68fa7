"""Where a store keeps attempts."""

from __future__ import annotations

from contextlib import suppress

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
    with suppress(ModuleNotFoundError):
        # Here, because kazoo is installed where it is wanted only.
        from celery_ha.attempts.zookeeper import ZooKeeperAttempts  # noqa: PLC0415
        from celery_ha.store.zookeeper.store import ZooKeeperStore  # noqa: PLC0415

        if isinstance(store, ZooKeeperStore):
            return ZooKeeperAttempts(store)
    raise ConfigError(f"{type(store).__name__} cannot be used with this broker")
