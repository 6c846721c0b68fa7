"""A real Flower on a scene's app."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support.fleet import Fleet, Worker, eventually
from tests.support.server import free_port

USER, PASSWORD = "ann", "secret"
LOGIN = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class Dashboard:
    """One ``celery flower`` process."""

    fleet: Fleet
    port: int
    prefix: str
    options: tuple[str, ...]
    environment: dict[str, str]
    process: Worker | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def start(self) -> None:
        options = [f"--port={self.port}", "--address=127.0.0.1", *self.options]
        if self.prefix:
            options.append(f"--url_prefix={self.prefix.strip('/')}")
        self.process = process = self.fleet.launch("flower", "flower", *options, **self.environment)
        eventually(lambda: self._there() or not process.alive, every=0.05, why="Flower answers")
        assert process.alive, process.log.read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        assert self.process is not None
        self.process.process.terminate()
        self.process.process.wait(30)

    def get(self, path: str, **headers: Any) -> tuple[int, str]:
        return self.send("GET", path, **headers)

    def send(self, method: str, path: str, *, login: str = LOGIN, **headers: Any) -> tuple[int, str]:
        """Status and body of an answer."""
        if login:
            headers["Authorization"] = login
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = b"" if method == "POST" else None
        try:
            with urlopen(Request(self.url + path, data=data, headers=named, method=method), timeout=30) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as exc:
            return exc.code, exc.read().decode()

    def head_of(self, method: str, path: str) -> tuple[int, Mapping[str, str]]:
        """Status and headers of an answer to nobody in particular, wherever it sends him."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, self.prefix + path)
            answer = connection.getresponse()
            return answer.status, answer.headers
        finally:
            connection.close()

    def ask(self, path: str) -> Any:
        """The JSON of an answer that is well."""
        status, body = self.get(path)
        assert status == 200, body
        return json.loads(body)

    def _there(self) -> bool:
        try:
            return bool(self.get("/healthcheck")[0] == 200)
        except OSError:
            return False


def dashboard(fleet: Fleet, *options: str, prefix: str = "", auth: bool = True, **environment: str) -> Dashboard:
    """Start one; it ends with its fleet."""
    login = (f"--basic-auth={USER}:{PASSWORD}",) if auth else ()
    made = Dashboard(fleet, free_port(), prefix, (*login, *options), environment)
    made.start()
    return made
