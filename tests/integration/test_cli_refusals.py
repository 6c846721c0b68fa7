"""Every command, in every world in which it cannot do what it is asked: one line, exit code 1 or 2, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery

from celery_ha import HA
from celery_ha.inspect.schema import SCHEMAS
from tests.support.command import run_ha
from tests.support.fleet import ROOT
from tests.support.scene import PROBE
from tests.support.server import RedisServer, free_port

#: Options and arguments without which a command would be misuse.
ARGUMENTS = {
    "top": ("--count", "1"),
    "ring --key": ("k",),
    "ring --without": ("w1@host",),
    "locks release": ("account:7", "--yes"),
    "dead show": ("x",),
    "dead retry": ("--all",),
    "dead drop": ("--all", "--yes"),
    "drain": ("w1@host",),
    "uninstall": ("--yes",),
}
COMMANDS = [(*form.split(), *ARGUMENTS.get(form, ())) for form in SCHEMAS]


def make(broker: str, *, ha: bool = True, **conf: object) -> Celery:
    app = Celery("refused", broker=broker, set_as_current=False)
    app.conf.update(ha_queues={"orders": 4}, ha_lease_ttl=2.0, **conf)
    if ha:
        HA(app)
    return app


def on_sentinel(gone: str, **options: str) -> Celery:
    return make(f"sentinel://{gone}", broker_transport_options=options)


#: An app, made of the URL of a server that is there and of an address where there is none; and what must be said.
WORLDS: dict[str, tuple[Callable[[str, str], Celery], str]] = {
    "no HA": (lambda there, _: make(there, ha=False), "has no HA"),
    "a misspelt setting": (lambda there, _: make(there, ha_lease_tll=3), "write ha_lease_ttl"),
    "broker away": (lambda _, gone: make(f"redis://{gone}/0"), "the broker redis://{gone}/0 could not be reached"),
    "broker with another password": (
        lambda there, _: make(there.replace("secret", "wrong")),
        "invalid username-password",
    ),
    "broker without a password": (lambda there, _: make(there.replace(":secret@", "")), "Authentication required"),
    "broker without such a database": (lambda there, _: make(f"{there}/99"), "DB index is out of range"),
    "broker's database no number": (lambda there, _: make(f"{there}/abc"), "cannot be used: Database"),
    "broker's port no number": (lambda *_: make("redis://:secret@localhost:abc/0"), "Port could not be cast"),
    "broker with an unknown option": (lambda there, _: make(f"{there}/0?nonsense=1"), "nonsense"),
    "broker of another kind": (lambda *_: make("sqs://ann:secret@"), "write a redis://"),
    "RabbitMQ away": (lambda there, gone: make(f"amqp://{gone}//", ha_store=f"{there}/1"), "could not be reached"),
    "Sentinel away": (lambda _, gone: on_sentinel(gone, master_name="m"), "No master found for 'm'"),
    "Sentinel without a name": (lambda _, gone: on_sentinel(gone), "master_name"),
    "store away": (lambda there, gone: make(there, ha_store=f"redis://{gone}/1"), "cannot connect to the store"),
    "store's database no number": (lambda there, _: make(there, ha_store=f"{there}/abc"), "it must be a number"),
    "store's port no number": (lambda there, _: make(there, ha_store="redis://h:abc/1"), "Port could not be cast"),
    "store with an unknown option": (lambda there, _: make(there, ha_store=f"{there}/1?nonsense=1"), "nonsense"),
    "store of another kind": (lambda there, _: make(there, ha_store="nonsense"), "ha_store is 'nonsense'"),
    "ZooKeeper away": (lambda there, gone: make(there, ha_store=f"zookeeper://{gone}/x"), "ZooKeeper at {gone}"),
}


@pytest.fixture(scope="module")
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis("--requirepass", "secret")


@pytest.fixture(autouse=True)
def no_worker_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_HA_PROBE_DIR", str(tmp_path))


@pytest.mark.parametrize("world", WORLDS)
def test_every_command_says_in_one_line_what_is_wrong(server: RedisServer, world: str, monkeypatch: pytest.MonkeyPatch):
    make_app, says = WORLDS[world]
    gone = f"127.0.0.1:{free_port()}"
    for command in COMMANDS:
        app = make_app(f"redis://:secret@127.0.0.1:{server.port}", gone)
        monkeypatch.setattr(pytest, "somewhere", app, raising=False)  # a drill looks for where its workers find it
        result = run_ha(app, *command)
        if world in {"store away", "ZooKeeper away"} and command[0] == "dead" and command[1] != "show":
            assert (result.exit_code, result.stderr) == (0, "")  # letters are on the broker
            continue
        told = [line for line in result.stderr.splitlines() if not line.startswith("Drill ")]
        assert isinstance(result.exception, SystemExit), (command, result.exception)
        assert (result.exit_code in {1, 2}, result.stdout, len(told)) == (True, "", 1), (command, result.output)
        assert "secret" not in told[0], command
        # The probe asks no server; that there is no letter needs no store.
        spared = {"probe": "no worker has told how it is", "dead": "there is no dead letter"}.get(command[0], says)
        assert says.format(gone=gone) in told[0] or spared in told[0], (command, told)


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_what_is_not_there_is_named(server: RedisServer, option: tuple[str, ...]):
    app = make(f"redis://:secret@127.0.0.1:{server.port}")
    for command, says in {
        ("ring", "nowhere"): "there is no sharded queue 'nowhere'; there are: orders",
        ("ring", "--without", "w9@host"): "there is no node with shards 'w9@host'",
        ("drain", "w9@host"): "there is no node 'w9@host'",
        ("locks", "release", "nothing", "--yes"): "there is no held lock 'nothing'",
        ("dead", "show", "x"): "there is no dead letter 'x'",
        ("dead", "retry", "x"): "there is no dead letter 'x'",
        ("dead", "drop", "x", "--yes"): "there is no dead letter 'x'",
        ("probe", "-n", "w9"): "no worker w9 has told how it is",
    }.items():
        result = run_ha(app, *command, *option)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1), command
        assert says in result.stderr


def test_what_a_client_library_logs_is_not_said_beside_it(server: RedisServer):
    url, gone = f"redis://:secret@127.0.0.1:{server.port}/0", f"127.0.0.1:{free_port()}"
    conf = json.dumps({"ha_store": f"zookeeper://{gone}/x"})
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", PROBE, "ha", "status"],
        cwd=ROOT,
        env={**os.environ, "PROBE_BROKER": url, "PROBE_CONF": conf, "PROBE_TTL": "2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: cannot connect to the store in time: ZooKeeper at {gone}\n"
