"""Which store a URL means."""

from __future__ import annotations

from celery_ha.errors import ConfigError
from celery_ha.store.base import Store
from celery_ha.store.redis.store import RedisStore


def store_from_url(url: str, *, prefix: str, timeout: float, ttl: float) -> Store:
    """Make the store of a process; it connects when it is used.

    Args:
        url: ``ha_store``.
        prefix: beginning of every key, or the name of a znode.
        timeout: seconds for every call.
        ttl: seconds that leases live.

    Raises:
        ConfigError: the URL cannot be used, or what its store needs is not installed.
    """
    if not url.startswith(("zookeeper://", "zookeepers://")):
        return RedisStore(url, prefix=prefix, timeout=timeout)
    try:
        # Here, because kazoo is installed where it is wanted only.
        from celery_ha.store.zookeeper.store import ZooKeeperStore  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError("ha_store names a ZooKeeper; run pip install celery-ha[zookeeper]") from error
    return ZooKeeperStore(url, prefix=prefix, timeout=timeout, ttl=ttl)
