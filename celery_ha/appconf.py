"""Our settings in a Celery app's configuration, and Celery's own that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery_ha.checks import SETTING
from celery_ha.config import Config, names

#: Celery settings that HA needs and that Celery defaults the other way, or will.
CELERY_DEFAULTS: Mapping[str, object] = {
    # A message acked before its task ran is nobody's once the worker dies.
    "task_acks_late": True,
    # A killed pool child is a lost worker too.
    "task_reject_on_worker_lost": True,
    # What waits in a worker's memory waits for that worker's death.
    "worker_prefetch_multiplier": 1,
    # A reconnect under a living lease must not kill what runs.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # Two of Celery's own beats, and every `worker -B` is one, fire everything twice.
    "beat_scheduler": "celery_ha.beat:Scheduler",
}


def found(conf: Any) -> dict[str, object]:
    """Find the ``ha_*`` settings in an app's configuration.

    They may be written as ``ha_queues``, as ``CELERY_HA_QUEUES`` (with ``namespace="CELERY"`` or
    in a module of old-style names), or as ``HA_QUEUES`` in such a module. With a namespace, a bare
    ``HA_...`` belongs to somebody else and is left alone.

    Args:
        conf: ``app.conf``, a chain of mappings, the strongest first; reading it loads it.

    Returns:
        Values by full lower-case name.
    """
    conf.get(SETTING + "queues")  # The first read of a key loads what is pending.
    settings: dict[str, object] = {}
    for mapping in conf.maps:
        for key in list(mapping):
            name = _canonical_name(key, conf.prefix)
            if name is not None and name not in settings:
                settings[name] = mapping[key]
    return settings


def read(app: Any) -> Config:
    """Read the config of a Celery app.

    Args:
        app: The app; its configuration is loaded if it was still pending.

    Returns:
        The config in force now; later changes of ``app.conf`` do not reach it.

    Raises:
        ConfigError: As :meth:`Config.from_conf`.
    """
    return Config.from_conf(found(app.conf))


def is_set(conf: Any, key: str) -> bool:
    """Whether the user set a Celery setting, under whatever name Celery accepts for it.

    ``Settings.value_set_for`` does not look behind a namespace before Celery 5.7.

    Args:
        conf: ``app.conf``.
        key: The setting's new-style name.

    Returns:
        True if any mapping but Celery's own defaults has it.
    """
    conf.get(key)
    # Celery 5.6 leaves the old names out of _to_keys, though it does resolve them.
    old_names = (rename(key) for rename in conf._keys or ())  # noqa: SLF001 - the one place that knows them
    spellings = {*conf._to_keys(key), *old_names}  # noqa: SLF001 - and the one that knows the prefix
    return any(spelling in mapping for mapping in conf.maps[:-1] for spelling in spellings)


def defaults_for(config: Config, conf: Any) -> dict[str, object]:
    """Celery settings to change because HA needs them and the user has not chosen.

    ``app.add_defaults`` would win over the user's own config object, so only what is not set may be
    handed to it.

    Args:
        config: Ours; nothing is changed if its ``defaults`` is False.
        conf: ``app.conf``.

    Returns:
        New values by name, for ``app.add_defaults`` and for the list in the start banner.
    """
    if not config.defaults:
        return {}
    return {key: value for key, value in CELERY_DEFAULTS.items() if not is_set(conf, key)}


def _canonical_name(key: object, prefix: str | None) -> str | None:
    """The full lower-case name of one of our settings, or None if the key is not ours."""
    if not isinstance(key, str):
        return None
    if key.startswith(SETTING):
        return key
    namespace = prefix or "CELERY_"
    bare = key.removeprefix(namespace).lower()
    if not bare.startswith(SETTING):
        return None
    return bare if key.startswith(namespace) or (not prefix and bare in names()) else None
