"""Every kind of broker URL that leads to Redis, with a worker killed on each."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.support.fleet import eventually
from tests.support.missing import missing
from tests.support.scene import Scene
from tests.support.server import RedisServer, Sentinel, free_port

PASSWORD = "open-sesame"


def test_rediss_url_with_a_verified_certificate(
    make_scene: Callable[..., Scene], start_redis: Callable[..., RedisServer], tmp_path: Path
):
    # Given a server that speaks TLS, with a certificate of its own
    key, certificate = self_signed(tmp_path)
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    try:
        server = start_redis(*tls, "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    except RuntimeError as exc:
        missing(f"this server has no TLS ({exc})")
    url = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={certificate}"
    scene = make_scene(server, broker=url)
    # Then a worker's death there is like any other
    survives_a_death(scene)
    assert doors(scene) == {str(port)}


def test_unix_socket_url(make_scene: Callable[..., Scene], own: RedisServer):
    scene = make_scene(own, broker=f"redis+socket://{own.socket}")
    survives_a_death(scene)
    assert doors(scene) == {f"{own.socket}:0"}


def test_sentinel_url(make_scene: Callable[..., Scene], own: RedisServer, sentinel: Sentinel):
    # Given a master with a replica, and a sentinel that says which is which
    options = {"broker_transport_options": {"master_name": sentinel.name}}
    url = f"sentinel://127.0.0.1:{sentinel.port}/0"
    survives_a_death(make_scene(own, broker=url, PROBE_CONF=json.dumps(options)))


def test_url_with_a_password_that_no_log_shows(
    make_scene: Callable[..., Scene], start_redis: Callable[..., RedisServer]
):
    server = start_redis("--requirepass", PASSWORD)
    url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"
    scene = make_scene(server, broker=url, client=redis.Redis.from_url(url))
    survives_a_death(scene)
    assert not [worker.log for worker in scene.fleet.workers if worker.said(PASSWORD)]


def survives_a_death(scene: Scene) -> None:
    """Two workers run a load, locked tasks among it; one is killed in the middle."""
    victim, _ = scene.top_up(2)
    keys = scene.load(50, 0.05)
    keys += scene.publish("charge", scene.names("charge-", 6), "account", 0.02)
    scene.wait_started(keys, 10)
    scene.kill(victim)
    scene.settled(keys)
    assert scene.ledger.overlaps(scene.harms) == []
    assert len(scene.history()) == 1


def doors(scene: Scene) -> set[str]:
    """Where the leases' connections come in: a port, or a socket's path."""
    listed = [client for client in scene.redis.client_list() if client["name"].startswith("ha:")]
    return {client["laddr"].removeprefix("127.0.0.1:") for client in listed}


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1 that is its own authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        missing("no openssl here to make a certificate with")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return key, certificate


@pytest.fixture
def own(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


@pytest.fixture
def sentinel(own: RedisServer, start_redis: Callable[..., RedisServer]) -> Iterator[Sentinel]:
    admin = redis.Redis.from_url(own.url)
    admin.config_set("repl-diskless-sync-delay", 0)
    start_redis("--replicaof", "127.0.0.1", str(own.port))
    eventually(lambda: admin.info("replication").get("slave0", {}).get("state") == "online", why="a replica")
    watcher = Sentinel(own.binary, own, "themaster")
    yield watcher
    watcher.close()
