"""Private ZooKeeper servers from Debian's jars, on free loopback ports, ended by their own process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.server import free_port

#: The class path; the manifest of Debian's jar names what else it needs.
JARS = os.environ.get("HA_TEST_ZOOKEEPER", "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar")
START_TIMEOUT = 40.0
#: Milliseconds: sessions may time out after two of them.
TICK = 200


@dataclass
class ZooKeeper:
    """One server: alone, or a member of an ensemble."""

    tick: int = TICK
    number: int = 1
    #: Lines of the configuration that name the members; none: it is alone.
    members: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    java: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ha-test-zk-")
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "data").mkdir()
        (self.folder / "data" / "myid").write_text(str(self.number))

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"zookeeper://{self.host}/test"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        lines = [
            f"tickTime={self.tick}",
            "initLimit=50",
            "syncLimit=25",
            f"dataDir={self.folder / 'data'}",
            "clientPortAddress=127.0.0.1",
            f"clientPort={self.port}",
            "admin.enableServer=false",
            "4lw.commands.whitelist=srvr",
            "forceSync=no",
            *self.members,
            *self.options,
        ]
        config = self.folder / "zoo.cfg"
        config.write_text("\n".join([*lines, ""]))
        log = (self.folder / "log").open("ab")
        command = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *self.java, "-cp", JARS]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        self._process = subprocess.Popen([*command, main, str(config)], stdout=log, stderr=log, cwd=self.folder)
        log.close()

    def start(self) -> None:
        self.launch()
        self.wait()

    def wait(self) -> None:
        """Until it serves clients."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with suppress(OSError):
                if "Mode:" in self.asked("srvr"):
                    return
            time.sleep(0.05)
        text = (self.folder / "log").read_text(errors="replace")
        self.stop()
        raise RuntimeError(f"ZooKeeper did not start:\n{text}")

    def asked(self, word: str) -> str:
        """What it answers to one of its four-letter words."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
            probe.sendall(word.encode())
            return b"".join(iter(lambda: probe.recv(4096), b"")).decode()

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def stop(self) -> None:
        if self._process is not None:
            self.send(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def close(self) -> None:
        self.stop()
        self._folder.cleanup()


@contextmanager
def ensemble(size: int = 3, tick: int = TICK) -> Iterator[list[ZooKeeper]]:
    """Servers that elect a leader among themselves; all end with the block."""
    ports = [(free_port(), free_port()) for _ in range(size)]
    members = tuple(f"server.{at}=127.0.0.1:{peer}:{election}" for at, (peer, election) in enumerate(ports, 1))
    servers = [ZooKeeper(tick, number, members) for number in range(1, size + 1)]
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.close()


def zookeeper_is_here() -> bool:
    return shutil.which("java") is not None and Path(JARS.partition(":")[0].removesuffix("*")).exists()
