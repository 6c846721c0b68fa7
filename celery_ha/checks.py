"""What each kind of setting may be: checks of one value, each with what to write instead.

Every check takes the setting's name, without ``ha_``, and its value, returns the value to use, and raises
:class:`~celery_ha.errors.ConfigError`.
"""

from __future__ import annotations

from collections.abc import Mapping

from celery_ha.errors import ConfigError

#: What every setting's name starts with.
SETTING = "ha_"

#: What a store's URL looks like.
_STORES = '"redis://localhost:6379/1" or "zookeeper://h1:2181,h2:2181,h3:2181/path"'

#: Most shards a queue can have: each costs an owner a key to watch and a poll a second.
MAX_SHARDS = 4096


def _refuse(name: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"{SETTING}{name} is {value!r}; write {wanted}")


def seconds(name: str, value: object) -> float:
    """A duration, in seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise _refuse(name, value, "a number of seconds above 0")
    return float(value)


def seconds_or_none(name: str, value: object) -> float | None:
    """A duration, or None for no limit."""
    return None if value is None else seconds(name, value)


def seconds_or_zero(name: str, value: object) -> float:
    """A duration, or 0 for never."""
    return 0.0 if value == 0 and not isinstance(value, bool) else seconds(name, value)


def count(name: str, value: object) -> int:
    """A whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _refuse(name, value, "a whole number, 1 or more")
    return value


def flag(name: str, value: object) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise _refuse(name, value, "True or False")
    return value


def prefix(name: str, value: object) -> str:
    """What names of keys start with."""
    if not isinstance(value, str) or not value or any(c.isspace() for c in value):
        raise _refuse(name, value, 'a text without spaces, such as "_ha:"')
    return value


def url(name: str, value: object) -> str | None:
    """A store."""
    if value is None:
        return None
    if not isinstance(value, str) or "://" not in value:
        raise _refuse(name, value, f"a URL such as {_STORES}, or None for the broker's Redis")
    return value


def web(name: str, value: object) -> str | None:
    """A web address, or None."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        raise _refuse(name, value, 'a URL such as "http://user:password@rabbitmq:15672", or None')
    return value


def path(name: str, value: object) -> str:
    """A class by its path."""
    if not isinstance(value, str) or not value.rpartition(":" if ":" in value else ".")[0]:
        raise _refuse(name, value, 'the path of a class, such as "celery.beat:PersistentScheduler"')
    return value


def listen(name: str, value: object) -> int | str | None:
    """Where to listen: a port, an address with one, or None."""
    port = value.rpartition(":")[2] if isinstance(value, str) else value
    number = int(port) if isinstance(port, str) and port.isdecimal() else port
    if value is not None and (isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 65_536):
        raise _refuse(name, value, 'a port such as 9808, an address with one such as "127.0.0.1:9808", or None')
    return value  # type: ignore[return-value]


def folder(name: str, value: object) -> str | None:
    """A folder by its whole path, or None."""
    if value is None or (isinstance(value, str) and value.startswith("/")):
        return value
    raise _refuse(name, value, 'the whole path of a folder, such as "/run/celery_ha", or None')


def catch_up(name: str, value: object) -> str:
    """What becomes of firings that were missed."""
    if value not in {"one", "all", "none"}:
        raise _refuse(name, value, '"one", "all" or "none"')
    return str(value)


def queues(name: str, value: object) -> Mapping[str, int]:
    """Queues with their numbers of shards."""
    if not isinstance(value, Mapping):
        raise _refuse(name, value, 'queue names with their number of shards, such as {"orders": 64}')
    for queue, shards in value.items():
        if not isinstance(queue, str) or not queue:
            raise _refuse(name, value, f"a queue's name instead of {queue!r}")
        if isinstance(shards, bool) or not isinstance(shards, int) or not 1 <= shards <= MAX_SHARDS:
            raise _refuse(name, value, f"a whole number from 1 to {MAX_SHARDS} instead of {shards!r} for {queue!r}")
    return dict(value)
