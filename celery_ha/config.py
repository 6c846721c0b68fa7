"""The settings of celery_ha: what each costs, what it defaults to, and which contradict each other.

A :class:`Config` is a plain value made from the ``ha_*`` settings of an app. The derived defaults
follow the lease TTL, so that setting ``ha_lease_ttl`` alone always gives a set that fits together.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from celery_ha.errors import ConfigError
from celery_ha.keys import base_of

#: What every setting's name starts with.
SETTING = "ha_"

#: What a store's URL looks like.
_STORES = '"redis://localhost:6379/1" or "zookeeper://h1:2181,h2:2181,h3:2181/path"'

#: Most shards a queue can have: each costs an owner a key to watch and a poll a second.
MAX_SHARDS = 4096

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


def _refuse(name: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"{SETTING}{name} is {value!r}; write {wanted}")


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise _refuse(name, value, "a number of seconds above 0")
    return float(value)


def _seconds_or_none(name: str, value: object) -> float | None:
    return None if value is None else _seconds(name, value)


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _refuse(name, value, "a whole number, 1 or more")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _refuse(name, value, "True or False")
    return value


def _prefix(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or any(c.isspace() for c in value):
        raise _refuse(name, value, 'a text without spaces, such as "_ha:"')
    return value


def _url(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or "://" not in value:
        raise _refuse(name, value, f"a URL such as {_STORES}, or None for the broker's Redis")
    return value


def _path(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.rpartition(":" if ":" in value else ".")[0]:
        raise _refuse(name, value, 'the path of a class, such as "celery.beat:PersistentScheduler"')
    return value


def _listen(name: str, value: object) -> int | str | None:
    port = value.rpartition(":")[2] if isinstance(value, str) else value
    number = int(port) if isinstance(port, str) and port.isdecimal() else port
    if value is not None and (isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 65_536):
        raise _refuse(name, value, 'a port such as 9808, an address with one such as "127.0.0.1:9808", or None')
    return value  # type: ignore[return-value]


def _folder(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.startswith("/")):
        return value
    raise _refuse(name, value, 'the whole path of a folder, such as "/run/celery_ha", or None')


def _catch_up(name: str, value: object) -> str:
    if value not in {"one", "all", "none"}:
        raise _refuse(name, value, '"one", "all" or "none"')
    return str(value)


def _queues(name: str, value: object) -> Mapping[str, int]:
    if not isinstance(value, Mapping):
        raise _refuse(name, value, 'queue names with their number of shards, such as {"orders": 64}')
    for queue, shards in value.items():
        if not isinstance(queue, str) or not queue:
            raise _refuse(name, value, f"a queue's name instead of {queue!r}")
        if isinstance(shards, bool) or not isinstance(shards, int) or not 1 <= shards <= MAX_SHARDS:
            raise _refuse(name, value, f"a whole number from 1 to {MAX_SHARDS} instead of {shards!r} for {queue!r}")
    return dict(value)


def _setting(check: Callable[[str, object], object]) -> dict[str, object]:
    return {"check": check}


@dataclass(frozen=True)
class Config:
    """The settings in force. Made by :meth:`from_conf`; durations are seconds."""

    #: Sharded queues, each with its number of shards (1 to 4096); default none. More shards spread
    #: keys more evenly over more nodes; each costs its owner one more queue to watch. Growing the
    #: number later moves the fewest keys, shrinking it strands nothing.
    queues: Mapping[str, int] = field(default_factory=dict, metadata=_setting(_queues))

    #: URL of the store, where leases and locks live: ``redis://...``, or ``zookeeper://h1:2181,h2:2181/path``
    #: (see docs/zookeeper.md); default None: the broker's Redis. A store of its own keeps judging while the
    #: broker is busy, and is one more service to keep alive.
    store: str | None = field(default=None, metadata=_setting(_url))

    #: Start of every key in the store; default ``_ha:``. Two apps that share a Redis database need
    #: two prefixes; the nodes of one app need the same.
    prefix: str = field(default="_ha:", metadata=_setting(_prefix))

    #: How long a lease lives without a renewal; seconds, default 10. Shorter: a frozen or cut-off
    #: node's tasks move sooner (TTL + 2 s). Longer: the node rides out a longer stall.
    lease_ttl: float = field(default=10.0, metadata=_setting(_seconds))

    #: How long before the TTL a node stops trusting its own lease; seconds, default a tenth of the
    #: TTL, at least 0.2. Larger: more room for the time between the last check and the body's start.
    #: Smaller: a slow store costs a healthy node its trust later.
    trust_margin: float = field(default=1.0, metadata=_setting(_seconds))

    #: Time between renewals; seconds, default a quarter of the TTL. Shorter: more lost calls are
    #: survived. Longer: less traffic, one call per node and interval.
    renew_every: float = field(default=2.5, metadata=_setting(_seconds))

    #: Time between two looks of the leader at the store; seconds, default 0.25. Shorter: a killed
    #: process is noticed sooner. Longer: less work for the store, one call per look.
    look_every: float = field(default=0.25, metadata=_setting(_seconds))

    #: How long all connections of a node must stay gone before it is dead; seconds, default 0.5.
    #: Shorter: faster recovery of a killed process. Longer: a node may take longer to reconnect.
    confirm_after: float = field(default=0.5, metadata=_setting(_seconds))

    #: How long a worker's main loop may be silent before the node stops renewing; seconds, default
    #: 60. Shorter: a wedged worker's tasks move sooner. Longer: slow callbacks on the loop are forgiven.
    wedged_after: float = field(default=60.0, metadata=_setting(_seconds))

    #: How long an interrupted task's lock is kept for its redelivery; seconds, default 60. Longer:
    #: nobody overtakes it even behind a backlog. Shorter: others wait less if it never comes back.
    lock_inherit: float = field(default=60.0, metadata=_setting(_seconds))

    #: How long the key of a unique task is reserved while it is being published; seconds, default 30. Longer: a
    #: slow broker lets no duplicate through. Shorter: a publisher that died in between blocks others for less time.
    publish_within: float = field(default=30.0, metadata=_setting(_seconds))

    #: Attempts that may start before a task is dead-lettered; default 3. More: a task survives more
    #: crashes of others. Fewer: a poison task takes fewer workers with it.
    max_deliveries: int = field(default=3, metadata=_setting(_count))

    #: Dead letters kept in the broker's database, the oldest dropped beyond it; default 10000. More: nothing is
    #: lost before you look. Fewer: less memory in the broker.
    dead_letters_max: int = field(default=10_000, metadata=_setting(_count))

    #: How long a dead letter is kept, whether or not anybody looked at it; seconds, default None: until it is retried
    #: or dropped by hand. Workers drop what is older, within half a minute. Longer: more time to look. Shorter: what
    #: messages carry does not stay longer than you may keep it.
    dead_letters_ttl: float | None = field(default=None, metadata=_setting(_seconds_or_none))

    #: Whether Celery's own defaults are changed (:data:`CELERY_DEFAULTS`), where you have not set
    #: them yourself; default True. False: early acks stay early, and what they lose stays lost.
    defaults: bool = field(default=True, metadata=_setting(_flag))

    #: How long one call to the store may take; seconds, default a quarter of the TTL. Shorter: a hung
    #: connection is given up and renewed on another in time. Longer: a slow store still counts as there.
    store_timeout: float = field(default=2.5, metadata=_setting(_seconds))

    #: Scheduler class that ``celery_ha.beat:Scheduler`` takes its entries from; default Celery's own for
    #: ``beat_schedule``, with no file beside it: what ran last is in the store. Another: entries from elsewhere,
    #: such as ``django_celery_beat.schedulers:DatabaseScheduler``.
    beat_scheduler: str = field(default="celery.beat:Scheduler", metadata=_setting(_path))

    #: What a beat does about firings that were missed for longer than two ``ha_lease_ttl``, because no beat ran;
    #: default ``one``: each such entry fires once. ``all``: every missed firing of the last day. ``none``: the
    #: entry goes on with the next one.
    beat_catch_up: str = field(default="one", metadata=_setting(_catch_up))

    #: Whether decisions are sent as events of Celery's (``ha-...``, see docs/events.md); default True. False: they are
    #: in the log alone, and in the metrics.
    events: bool = field(default=True, metadata=_setting(_flag))

    #: Where a worker serves metrics for Prometheus: a port, or an address with one such as ``127.0.0.1:9808``;
    #: default None: nowhere. A port alone is served on all addresses; port 0 is a free one, named in the log. Workers
    #: of one machine need a port each. Needs ``pip install celery-ha[metrics]``.
    metrics_port: int | str | None = field(default=None, metadata=_setting(_listen))

    #: Folder in which a worker tells ``celery-ha-probe`` how it is; default None: ``CELERY_HA_PROBE_DIR`` in the
    #: environment, or else one for each user in ``/dev/shm``, or in the folder for temporary files. One small file a
    #: worker, written once a second. The probe needs the same: as the variable, or as ``--dir``.
    probe_dir: str | None = field(default=None, metadata=_setting(_folder))

    def __post_init__(self) -> None:
        for spec in fields(self):
            check = spec.metadata["check"]
            object.__setattr__(self, spec.name, check(spec.name, getattr(self, spec.name)))
        for sentence in _contradictions(self):
            raise ConfigError(sentence)

    @classmethod
    def from_conf(cls, conf: Mapping[str, object]) -> Config:
        """Make a config from ``ha_*`` settings.

        Args:
            conf: The ``ha_*`` settings that are set, by full name; other names are ignored.

        Returns:
            The config; whatever is not set has its default, derived from the TTL where it should be.

        Raises:
            ConfigError: A name is unknown, a value has the wrong type or range, or two settings
                contradict each other. The message says what to write.
        """
        given = {name.removeprefix(SETTING): value for name, value in conf.items() if name.startswith(SETTING)}
        _refuse_unknown(given)
        ttl = _seconds("lease_ttl", given.get("lease_ttl", cls.lease_ttl))
        return cls(**{**derived(ttl), **given})  # type: ignore[arg-type]


def names() -> tuple[str, ...]:
    """Every setting's full name, in the order they are documented."""
    return tuple(SETTING + spec.name for spec in fields(Config))


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


def _refuse_unknown(given: Mapping[str, object]) -> None:
    known = [spec.name for spec in fields(Config)]
    for name in sorted(given.keys() - set(known)):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        advice = f"write {SETTING}{near[0]}" if near else f"write one of {', '.join(names())}"
        raise ConfigError(f"there is no setting {SETTING}{name}; {advice}")


def derived(ttl: float) -> dict[str, object]:
    """Defaults that follow the lease TTL, by field."""
    return {"trust_margin": max(ttl / 10, 0.2), "renew_every": ttl / 4, "store_timeout": ttl / 4}


def _contradictions(config: Config) -> Iterator[str]:
    """Sentences about settings that cannot hold together, each saying what to write."""
    ttl = config.lease_ttl
    if config.trust_margin >= ttl:
        yield (
            f"ha_trust_margin ({config.trust_margin:g} s) leaves nothing of ha_lease_ttl ({ttl:g} s): "
            f"write a margin of at most {ttl / 2:g}, or a longer TTL"
        )
    if config.renew_every * 2 >= ttl:
        yield (
            f"ha_renew_every ({config.renew_every:g} s) lets one lost renewal end a lease of {ttl:g} s: "
            f"write at most {ttl / 4:g}, or an ha_lease_ttl above {config.renew_every * 2:g}"
        )
    if config.renew_every + config.store_timeout > ttl - config.trust_margin:
        yield (
            f"one hung renewal (ha_renew_every {config.renew_every:g} s + ha_store_timeout "
            f"{config.store_timeout:g} s) outlasts the trust in a lease (ha_lease_ttl {ttl:g} s - ha_trust_margin "
            f"{config.trust_margin:g} s): write an ha_store_timeout of {ttl / 4:g}, or a longer TTL"
        )
    if config.look_every * 2 > ttl:
        yield (
            f"ha_look_every ({config.look_every:g} s) is too seldom for leases of {ttl:g} s: write at most {ttl / 4:g}"
        )
    if config.confirm_after < config.look_every * 2:
        yield (
            f"ha_confirm_after ({config.confirm_after:g} s) is over before the leader looked twice "
            f"(ha_look_every {config.look_every:g} s): write at least {config.look_every * 2:g}, "
            f"or an ha_look_every of {config.confirm_after / 2:g}"
        )
    if config.wedged_after < ttl:
        yield f"ha_wedged_after ({config.wedged_after:g} s) is shorter than ha_lease_ttl: write at least {ttl:g}"
    yield from _queue_contradictions(config.queues)


def _queue_contradictions(queues: Mapping[str, int]) -> Iterator[str]:
    for name in queues:
        base = base_of(name, queues)
        if base is not None:
            yield f"ha_queues: {name!r} is the name of a shard of {base!r}: give that queue another name"
