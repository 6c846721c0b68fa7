"""From a Redis URL, as Celery users write it, to a function that makes one connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from celery_ha.errors import ConfigError
from celery_ha.forks import minding_forks


class Wire(Protocol):
    """What we use of a redis-py connection."""

    def connect(self) -> None:
        """Connect, authenticate and select the database."""

    def disconnect(self) -> None:
        """Close the socket; in a forked child without shutting it down."""

    def pack_commands(self, commands: Sequence[tuple[Any, ...]]) -> list[bytes]:
        """Encode commands."""

    def send_packed_command(self, command: list[bytes], check_health: bool = ...) -> None:  # noqa: FBT001
        """Send them."""

    def can_read(self, timeout: float = ...) -> bool:
        """Whether anything unread, or the end of the connection, is there."""

    def read_response(self) -> Any:
        """Read one reply; a refusal is raised."""


@dataclass(frozen=True)
class Dial:
    """Makes connections that are not connected yet."""

    wire: Callable[[], Wire]
    #: A master that can fail over: replicas exist.
    sentinel: bool = False


_TCP_SCHEMES = ("redis", "rediss")
_SOCKET_SCHEMES = ("redis+socket", "socket")
_DEFAULT_SENTINEL_PORT = 26379
#: kombu takes the names of the ssl module, redis-py its own.
_CERT_REQS = {"CERT_REQUIRED": "required", "CERT_OPTIONAL": "optional", "CERT_NONE": "none"}


def dial_url(
    url: str, *, timeout: float, master_name: str | None = None, sentinel_kwargs: Mapping[str, Any] | None = None
) -> Dial:
    """Make a dialler from a URL.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, ``redis+socket://`` (kombu's form, database as
            ``?virtual_host=``) or ``sentinel://h1:p;sentinel://h2:p/db``.
        timeout: seconds for connecting and for every read and write.
        master_name: name of the master the sentinels watch.
        sentinel_kwargs: how to talk to the sentinels themselves (their own password, TLS).

    Raises:
        ConfigError: a URL of another kind, or Sentinel without a master name.
    """
    scheme = url.partition("://")[0]
    if scheme == "sentinel":
        return _dial_sentinel(url, timeout, master_name, dict(sentinel_kwargs or {}))
    if scheme in _SOCKET_SCHEMES:
        url = _unix_url(url)
    elif scheme in _TCP_SCHEMES:
        _database(urlsplit(url).path)  # redis-py would take database 0 for one that it cannot read
    try:
        kwargs: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ConfigError(f"the store URL cannot be used: {error}") from error
    return _dial_kwargs(kwargs.pop("connection_class", Connection), _plain(kwargs), timeout)


def dial_client(factory: Callable[[], Redis], *, timeout: float) -> Dial:
    """Make a dialler that copies the settings of a redis-py client.

    Args:
        factory: makes the client; its pool is read for settings and never used for commands.
        timeout: seconds, instead of the client's own timeouts.
    """
    return _dial_pool(factory().connection_pool, timeout)


def _dial_kwargs(connection_class: type[Any], kwargs: Mapping[str, Any], timeout: float) -> Dial:
    settings = {**kwargs, **_ours(timeout)}
    try:
        connection_class(**settings)  # connects to nothing yet
    except TypeError as error:
        raise ConfigError(f"the store URL has an option that cannot be used: {error}") from error
    wire = minding_forks(connection_class)
    return Dial(lambda: wire(**settings))


def _dial_pool(pool: ConnectionPool, timeout: float) -> Dial:
    # What redis-py's pool adds for its own upkeep needs RESP3, and must not touch these connections.
    upkeep = ("maint_notifications", "orig_")
    own = {key: value for key, value in pool.connection_kwargs.items() if not key.startswith(upkeep)}
    settings = {**own, **_ours(timeout)}

    wire = minding_forks(pool.connection_class)

    def dial(_alive: object = pool) -> Wire:
        # A sentinel connection knows its pool by a weak reference only.
        connection: Wire = wire(**settings)
        return connection

    return Dial(dial, sentinel=isinstance(pool, SentinelConnectionPool))


def _ours(timeout: float) -> dict[str, Any]:
    """Settings nobody may change: a call is sent once, and its answer is bytes in RESP2."""
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
        "health_check_interval": 0,
        "decode_responses": False,
        "client_name": None,
        "protocol": 2,
    }


def _plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drop what only a pool or kombu understands and translate the ssl module's names."""
    for name in ("max_connections", "timeout", "virtual_host", "master_name"):
        kwargs.pop(name, None)
    reqs = kwargs.get("ssl_cert_reqs")
    if isinstance(reqs, str):
        kwargs["ssl_cert_reqs"] = _CERT_REQS.get(reqs, reqs)
    return kwargs


def _unix_url(url: str) -> str:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    database = query.pop("virtual_host", None)
    if database is not None:
        query["db"] = database.strip("/") or "0"
    user = parts.netloc.rpartition("@")[0]
    return f"unix://{user + '@' if user else ''}{parts.path}?{urlencode(query)}"


def _dial_sentinel(url: str, timeout: float, master_name: str | None, sentinel_kwargs: dict[str, Any]) -> Dial:
    if not master_name:
        raise ConfigError("a sentinel:// store needs master_name, the name the sentinels know the master by")
    parts = [urlsplit(part.strip()) for part in url.split(";") if part.strip()]
    try:
        hosts = [(part.hostname or "localhost", part.port or _DEFAULT_SENTINEL_PORT) for part in parts]
    except ValueError as error:
        raise ConfigError(f"the store URL cannot be used: {error}") from error
    # kombu's own example puts the database behind the last of them.
    master: dict[str, Any] = {"db": _database(next((part.path for part in parts if part.path), ""))}
    for part in parts:
        if part.username or part.password:
            master["username"] = unquote(part.username) if part.username else None
            master["password"] = unquote(part.password) if part.password else None
            break
    limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    sentinel = Sentinel(hosts, sentinel_kwargs={**limits, **sentinel_kwargs})  # type: ignore[no-untyped-call]
    options = {**{name: value for part in parts for name, value in parse_qsl(part.query)}, **master}
    pool = SentinelConnectionPool(master_name, sentinel, **_plain(options))  # type: ignore[no-untyped-call]
    return _dial_pool(pool, timeout)


def _database(path: str) -> int:
    text = path.strip("/")
    if text and not text.isdigit():
        raise ConfigError(f"the store URL names the database {text!r}; it must be a number")
    return int(text or 0)
