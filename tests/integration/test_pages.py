"""What the quickstart and the page of Django have their readers do, done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery

from celery_ha import HA
from tests.support.command import ask_ha
from tests.support.fleet import eventually
from tests.support.pages import ROOT, commands, write_files
from tests.support.server import RedisServer

DOCS = ROOT / "docs"


class Desk:
    """A reader's folder and shell, and what the test sees besides.

    Args:
        folder: for the files of a page.
        url: of the server.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.app = Celery("shop", broker=url, set_as_current=False)
        HA(self.app)
        bins = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**os.environ, "PATH": bins, "PYTHONPATH": str(ROOT)}
        self.begun: list[subprocess.Popen[str]] = []

    def run(self, command: str) -> str:
        """What a command that ends well prints."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def begin(self, command: str) -> subprocess.Popen[str]:
        """Run one beside the others."""
        out = (self.folder / f"{len(self.begun)}.log").open("wb")
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environment, stdout=out, stderr=out
        )
        out.close()
        self.begun.append(process)
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        return (self.folder / f"{self.begun.index(process)}.log").read_text(errors="replace")

    def ask(self, command: str) -> Any:
        return ask_ha(self.app, command)

    def busy(self, name: str) -> bool:
        return any(node["name"].startswith(f"{name}@") and node["in_flight"] for node in self.ask("status")["nodes"])

    def close(self) -> None:
        pids = [process.pid for process in self.begun]
        pids += [int(file.read_text()) for file in self.folder.glob("*.pid")]
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                main = psutil.Process(pid)
                # The number in the file of one that was killed may be somebody else's by now
                if main.cwd() == str(self.folder):
                    self._end([*main.children(recursive=True), main])
        for process in self.begun:
            process.wait(30)

    @staticmethod
    def _end(family: list[psutil.Process]) -> None:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def desk(tmp_path: Path, start_redis: Callable[..., RedisServer]) -> Iterator[Desk]:
    made = Desk(tmp_path, start_redis().url)
    yield made
    made.close()


def test_quickstart(desk: Desk):
    write_files(DOCS / "quickstart.md", desk.folder, desk.url)
    typed = [line for line in commands(DOCS / "quickstart.md") if not line.startswith(("pip ", "docker "))]
    orders = None
    for command in typed:
        if command.endswith("ha status"):
            eventually(
                lambda: [node["state"] for node in desk.ask("status")["nodes"]] == ["live"] * 2,
                every=0.1,
                why="two nodes that consume",
            )
            assert "leader: w" in desk.run(command)
        elif command.endswith("ha top"):
            assert "nodes: 2 live" in desk.run(f"{command} --count 1")
        elif command.endswith("&"):
            orders = desk.begin(command.removesuffix("&"))
        elif command.startswith("kill -9"):
            # In the middle, as the reader would
            eventually(lambda: desk.busy("w1"), every=0.1, why="w1 has something to do")
            desk.run(command)
        elif command == "wait":
            assert orders is not None
            orders.wait(120)
            assert desk.said(orders) == "40 orders charged\n"
        elif command.endswith("ha failovers"):
            assert "w1@" in desk.run(command)
        elif command.endswith("ha check"):
            assert "0 error" in desk.run(command)
        else:
            desk.run(command)
    assert orders is not None
    eventually(lambda: not desk.ask("status")["nodes"], every=0.1, why="w2 said goodbye")
    assert [each["node"][:3] for each in desk.ask("failovers")] == ["w1@"]


#: What a project has beside what the page shows.
PROJECT = {
    "manage.py": """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "billing/__init__.py": "",
    "shop/more.py": """
SECRET_KEY = "of a test"
INSTALLED_APPS = ["billing"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
""",
    "place.py": """
import json, time
import django
django.setup()
from django.db import transaction
from billing.models import Account
from billing.tasks import book, charge
from billing.views import open_account
from celery_ha import StaleToken

try:
    with transaction.atomic():
        open_account(5)
        raise LookupError("nothing of this is published")
except LookupError:
    pass
account = open_account(7)
deadline = time.monotonic() + 60
while not account.token and time.monotonic() < deadline:
    time.sleep(0.05)
    account.refresh_from_db()
try:
    book(account.pk, -1000, account.token - 1)
    refused = False
except StaleToken:
    refused = True
account.refresh_from_db()
print(json.dumps({"accounts": Account.objects.count(), "balance": account.balance, "refused": refused,
                  "shards": charge.app.ha.config.queues}))
""",
}


def test_django(desk: Desk):
    # Given the project of the page
    write_files(DOCS / "django.md", desk.folder, desk.url)
    for name, text in PROJECT.items():
        path = desk.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    settings = desk.folder / "shop" / "settings.py"
    settings.write_text("from shop.more import *\n" + settings.read_text())
    desk.environment["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    desk.run("python manage.py migrate --run-syncdb")
    (start,) = [line for line in commands(DOCS / "django.md") if " worker " in line]
    worker = desk.begin(start)
    eventually(lambda: len(desk.ask("status")["nodes"]) == 1, every=0.1, why="a node")
    # When one account is rolled back, one is committed, and somebody comes with an old token
    found = json.loads(desk.run("python place.py"))
    # Then one task ran, once, and the row kept the other out
    assert found == {"accounts": 1, "balance": -7, "refused": True, "shards": {"orders": 64}}
    eventually(lambda: not desk.ask("status")["nodes"][0]["in_flight"], every=0.1, why="acknowledged")
    assert desk.ask("dead")["total"] == 0
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
