"""Private RabbitMQ servers, on free loopback ports, ended by their own process group."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.support.server import free_port

#: Not the wrapper of Debian's, which changes the user.
BINARY = os.environ.get("HA_TEST_RABBITMQ", "/usr/lib/rabbitmq/bin/rabbitmq-server")
START_TIMEOUT = 60.0
#: Virtual hosts made at the start: one a scene.
HOSTS = 64


class Rabbit:
    """One node with an epmd and a folder of its own; its queues outlive a restart."""

    def __init__(self, *, management: bool = False, unacked_for: float = 0.0) -> None:
        self._unacked_for = unacked_for
        self._management_port = free_port() if management else None
        self.port, self._dist, self._epmd_port = free_port(), free_port(), free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="ha-test-mq-")
        self._epmd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._hosts = iter([f"t{number}" for number in range(1, HOSTS + 1)])
        self._configure()

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    def url(self) -> str:
        """Where nobody was before: a virtual host of the caller's own."""
        host = next(self._hosts, None)
        assert host, f"more than {HOSTS} scenes share this RabbitMQ: raise HOSTS"
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{host}"

    @property
    def management(self) -> str:
        """Of its API, if it was made with one."""
        return f"http://guest:guest@127.0.0.1:{self._management_port}"

    def start(self) -> None:
        """Start it, again after :meth:`stop`, and wait until it serves clients."""
        environment = {**os.environ, **self._environment()}
        with (self.folder / "out").open("ab") as out:
            if self._epmd is None:
                command = ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
                self._epmd = subprocess.Popen(command, stdout=out, stderr=out)
            self._process = subprocess.Popen(
                [BINARY], stdout=out, stderr=out, cwd=self.folder, env=environment, start_new_session=True
            )
        self._wait()

    def send(self, signum: int) -> None:
        """Signal it and all that it has started."""
        assert self._process is not None
        os.killpg(self._process.pid, signum)

    def stop(self) -> None:
        """End it at once, as a power cut does; what it confirmed is on disk."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def close(self) -> None:
        self.stop()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(10)
        self._folder.cleanup()

    def _configure(self) -> None:
        hosts = ["/", *(f"t{number}" for number in range(1, HOSTS + 1))]
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "users": [{"name": "guest", "password": "guest", "tags": "administrator"}],
            "vhosts": [{"name": host} for host in hosts],
            "permissions": [{"user": "guest", "vhost": host, **everything} for host in hosts],
        }
        (self.folder / "definitions.json").write_text(json.dumps(definitions))
        plugins, settings = "[].", [f"load_definitions = {self.folder / 'definitions.json'}"]
        if self._management_port:
            plugins = "[rabbitmq_management]."
            settings += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {self._management_port}"]
        (self.folder / "plugins").write_text(plugins)
        (self.folder / "rabbitmq.conf").write_text("\n".join([*settings, ""]))

    def _environment(self) -> dict[str, str]:
        patience = self._unacked_for and f" -rabbit consumer_timeout {self._unacked_for * 1000:.0f}"
        return {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            # A node that spins while it waits slows down what shares the machine with it.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
            + (f"{patience} -rabbit channel_tick_interval 1000" if patience else ""),
        }

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                if probe.recv(1) == b"\x01":
                    return
            time.sleep(0.1)
        text = (self.folder / "out").read_text(errors="replace")
        self.stop()
        raise RuntimeError(f"RabbitMQ did not start:\n{text}")


def rabbit_is_here() -> bool:
    return Path(BINARY).exists() and shutil.which("epmd") is not None
