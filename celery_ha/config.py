"""The settings of celery_ha: what each costs, what it defaults to, and which contradict each other.

A :class:`Config` is a plain value made from the ``ha_*`` settings of an app. The derived defaults
follow the lease TTL, so that setting ``ha_lease_ttl`` alone always gives a set that fits together.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields

from celery_ha import checks
from celery_ha.checks import SETTING
from celery_ha.errors import ConfigError
from celery_ha.keys import base_of


def _setting(check: Callable[[str, object], object]) -> dict[str, object]:
    return {"check": check}


@dataclass(frozen=True)
class Config:
    """The settings in force. Made by :meth:`from_conf`; durations are seconds."""

    #: Sharded queues, each with its number of shards (1 to 4096); default none. More shards spread
    #: keys more evenly over more nodes; each costs its owner one more queue to watch. Growing the
    #: number later moves the fewest keys, shrinking it strands nothing.
    queues: Mapping[str, int] = field(default_factory=dict, metadata=_setting(checks.queues))

    #: URL of the store, where leases and locks live: ``redis://...``, or ``zookeeper://h1:2181,h2:2181/path``
    #: (see docs/zookeeper.md); default None: the broker's Redis. A store of its own keeps judging while the
    #: broker is busy, and is one more service to keep alive.
    store: str | None = field(default=None, metadata=_setting(checks.url))

    #: URL of the management API of a RabbitMQ broker, ``http://user:password@host:15672``; default None. With it the
    #: connection of a fenced node is closed at once, so that what RabbitMQ has sent to a frozen worker goes to others
    #: whatever ``broker_heartbeat`` is. The user needs the tag ``administrator``. Without: RabbitMQ waits for its
    #: heartbeats.
    rabbitmq_management: str | None = field(default=None, metadata=_setting(checks.web))

    #: Start of every key in the store; default ``_ha:``. Two apps that share a Redis database need
    #: two prefixes; the nodes of one app need the same.
    prefix: str = field(default="_ha:", metadata=_setting(checks.prefix))

    #: How long a lease lives without a renewal; seconds, default 10. Shorter: a frozen or cut-off
    #: node's tasks move sooner (TTL + 2 s). Longer: the node rides out a longer stall.
    lease_ttl: float = field(default=10.0, metadata=_setting(checks.seconds))

    #: How long before the TTL a node stops trusting its own lease; seconds, default a tenth of the
    #: TTL, at least 0.2. Larger: more room for the time between the last check and the body's start.
    #: Smaller: a slow store costs a healthy node its trust later.
    trust_margin: float = field(default=1.0, metadata=_setting(checks.seconds))

    #: Time between renewals; seconds, default a quarter of the TTL. Shorter: more lost calls are
    #: survived. Longer: less traffic, one call per node and interval.
    renew_every: float = field(default=2.5, metadata=_setting(checks.seconds))

    #: Time between two looks of the leader at the store; seconds, default 0.25. Shorter: a killed
    #: process is noticed sooner. Longer: less work for the store, one call per look.
    look_every: float = field(default=0.25, metadata=_setting(checks.seconds))

    #: How long all connections of a node must stay gone before it is dead; seconds, default 0.5.
    #: Shorter: faster recovery of a killed process. Longer: a node may take longer to reconnect. If
    #: RabbitMQ too has given up the node's connection, 0.4 of it are enough.
    confirm_after: float = field(default=0.5, metadata=_setting(checks.seconds))

    #: How long a worker's main loop may be silent before the node stops renewing; seconds, default
    #: 60. Shorter: a wedged worker's tasks move sooner. Longer: slow callbacks on the loop are forgiven.
    wedged_after: float = field(default=60.0, metadata=_setting(checks.seconds))

    #: How long a worker with a free slot may hear nothing of a queue in which messages wait, or (prefork) its main
    #: loop may hang in a call, before it connects anew; seconds, default 30; 0: it never does so by itself. Shorter:
    #: a deaf consumer is healed sooner. Longer: fewer questions of idle workers on RabbitMQ, one for each of their
    #: queues in an eighth of it.
    stuck_after: float = field(default=30.0, metadata=_setting(checks.seconds_or_zero))

    #: How long an interrupted task's lock is kept for its redelivery; seconds, default 60. Longer:
    #: nobody overtakes it even behind a backlog. Shorter: others wait less if it never comes back.
    lock_inherit: float = field(default=60.0, metadata=_setting(checks.seconds))

    #: How long the key of a unique task is reserved while it is being published; seconds, default 30. Longer: a
    #: slow broker lets no duplicate through. Shorter: a publisher that died in between blocks others for less time.
    publish_within: float = field(default=30.0, metadata=_setting(checks.seconds))

    #: Attempts that may start before a task is dead-lettered; default 3. More: a task survives more
    #: crashes of others. Fewer: a poison task takes fewer workers with it.
    max_deliveries: int = field(default=3, metadata=_setting(checks.count))

    #: Dead letters kept in the broker's database, the oldest dropped beyond it; default 10000. More: nothing is
    #: lost before you look. Fewer: less memory in the broker.
    dead_letters_max: int = field(default=10_000, metadata=_setting(checks.count))

    #: How long a dead letter is kept, whether or not anybody looked at it; seconds, default None: until it is retried
    #: or dropped by hand. Workers drop what is older, within half a minute. Longer: more time to look. Shorter: what
    #: messages carry does not stay longer than you may keep it.
    dead_letters_ttl: float | None = field(default=None, metadata=_setting(checks.seconds_or_none))

    #: Whether Celery's own defaults are changed (:data:`CELERY_DEFAULTS`), where you have not set
    #: them yourself; default True. False: early acks stay early, and what they lose stays lost.
    defaults: bool = field(default=True, metadata=_setting(checks.flag))

    #: How long one call to the store may take; seconds, default a quarter of the TTL. Shorter: a hung
    #: connection is given up and renewed on another in time. Longer: a slow store still counts as there.
    store_timeout: float = field(default=2.5, metadata=_setting(checks.seconds))

    #: Scheduler class that ``celery_ha.beat:Scheduler`` takes its entries from; default Celery's own for
    #: ``beat_schedule``, with no file beside it: what ran last is in the store. Another: entries from elsewhere,
    #: such as ``django_celery_beat.schedulers:DatabaseScheduler``.
    beat_scheduler: str = field(default="celery.beat:Scheduler", metadata=_setting(checks.path))

    #: What a beat does about firings that were missed for longer than two ``ha_lease_ttl``, because no beat ran;
    #: default ``one``: each such entry fires once. ``all``: every missed firing of the last day. ``none``: the
    #: entry goes on with the next one.
    beat_catch_up: str = field(default="one", metadata=_setting(checks.catch_up))

    #: Whether decisions are sent as events of Celery's (``ha-...``, see docs/events.md); default True. False: they are
    #: in the log alone, and in the metrics.
    events: bool = field(default=True, metadata=_setting(checks.flag))

    #: Where a worker serves metrics for Prometheus: a port, or an address with one such as ``127.0.0.1:9808``;
    #: default None: nowhere. A port alone is served on all addresses; port 0 is a free one, named in the log. Workers
    #: of one machine need a port each. Needs ``pip install celery-ha[metrics]``.
    metrics_port: int | str | None = field(default=None, metadata=_setting(checks.listen))

    #: Folder in which a worker tells ``celery-ha-probe`` how it is; default None: ``CELERY_HA_PROBE_DIR`` in the
    #: environment, or else one for each user in ``/dev/shm``, or in the folder for temporary files. One small file a
    #: worker, written once a second. The probe needs the same: as the variable, or as ``--dir``.
    probe_dir: str | None = field(default=None, metadata=_setting(checks.folder))

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
        ttl = checks.seconds("lease_ttl", given.get("lease_ttl", cls.lease_ttl))
        return cls(**{**derived(ttl), **given})  # type: ignore[arg-type]


def names() -> tuple[str, ...]:
    """Every setting's full name, in the order they are documented."""
    return tuple(SETTING + spec.name for spec in fields(Config))


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
