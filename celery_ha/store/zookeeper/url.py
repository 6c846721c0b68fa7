"""From ``zookeeper://`` URLs to the settings of a client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from celery_ha.errors import ConfigError

DEFAULT_PORT = 2181
#: Where our znodes are if the URL names no path.
DEFAULT_PATH = "/celery_ha"

_SCHEMES = {"zookeeper": False, "zookeepers": True}
_FILES = ("certfile", "keyfile", "keyfile_password", "ca")
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_EXAMPLE = "zookeeper://h1:2181,h2:2181,h3:2181/path"


@dataclass(frozen=True)
class Address:
    """What a URL says."""

    #: ``host:port`` of every server, separated by commas.
    hosts: str
    #: Where our znodes are; begins with a slash and does not end with one.
    path: str = DEFAULT_PATH
    user: str = ""
    password: str = ""
    #: SASL mechanism; empty: ZooKeeper's own digest, if there is a user at all.
    sasl: str = ""
    tls: bool = False
    verify: bool = True
    #: Paths of the TLS files that were named, by kazoo's names.
    files: tuple[tuple[str, str], ...] = ()
    #: Seconds without a sign of life after which the servers drop a session; None: a part of the TTL.
    session_timeout: float | None = None


def parse(url: str) -> Address:
    """Read a URL.

    Args:
        url: ``zookeeper://[user:password@]h1:2181,h2:2181/path?options``, or ``zookeepers://`` for TLS.
            Options: ``sasl`` (a mechanism such as ``DIGEST-MD5``), ``certfile``, ``keyfile``,
            ``keyfile_password``, ``ca``, ``verify`` (``false`` trusts any certificate) and
            ``session_timeout`` (seconds).

    Raises:
        ConfigError: it is of another kind; the message says what to write.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        raise ConfigError(f"the store URL begins with {scheme!r}; write one such as {_EXAMPLE}")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    options = dict(parse_qsl(query))
    address = Address(
        hosts=",".join(_host(host.strip()) for host in hosts.split(",")),
        path=_path(slash + path),
        user=unquote(user),
        password=unquote(password),
        sasl=options.pop("sasl", ""),
        tls=_SCHEMES[scheme],
        verify=_flag(options.pop("verify", "true")),
        session_timeout=_seconds(options.pop("session_timeout", None)),
        files=tuple((name, options.pop(name)) for name in _FILES if name in options),
    )
    if options:
        known = ", ".join(("sasl", "session_timeout", "verify", *_FILES))
        raise ConfigError(f"the store URL has the option {min(options)!r}; write one of {known}")
    if address.sasl and not address.user:
        raise ConfigError("the store URL asks for SASL; write user:password@ before the hosts")
    if address.files and not address.tls:
        raise ConfigError("the store URL names TLS files; write zookeepers:// instead of zookeeper://")
    return address


def client_settings(address: Address) -> Mapping[str, object]:
    """The address as keyword arguments of kazoo's client, but for the access list and the timeout."""
    settings: dict[str, object] = {"hosts": address.hosts}
    if address.tls:
        settings |= {"use_ssl": True, "verify_certs": address.verify, **dict(address.files)}
    if address.sasl:
        settings["sasl_options"] = {
            "mechanism": address.sasl,
            "username": address.user,
            "password": address.password,
        }
    elif address.user:
        settings["auth_data"] = [("digest", f"{address.user}:{address.password}")]
    return settings


def _host(host: str) -> str:
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name, port = host, str(DEFAULT_PORT)
    if not name or not port.isdigit():
        raise ConfigError(f"the store URL names the host {host!r}; write one such as {_EXAMPLE}")
    return f"{name}:{port}"


def _path(path: str) -> str:
    path = path.rstrip("/")
    if any(part in {"", ".", ".."} for part in path.split("/")[1:]):
        raise ConfigError(f"the store URL names the path {path!r}; write one such as {_EXAMPLE}")
    return path or DEFAULT_PATH


def _flag(text: str) -> bool:
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise ConfigError(f"the store URL says verify={text}; write true or false") from None


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"the store URL says session_timeout={text}; write a number of seconds above 0")
    return seconds
