"""``celery-ha``, before any app is asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from celery import Celery
from click.testing import CliRunner

from celery_ha.cli.main import main
from celery_ha.drill.place import Place, where_is
from celery_ha.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str):
    return CliRunner().invoke(main, arguments, env={"APP": None})


def test_without_an_app_it_says_how_to_name_one():
    found = run("status")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "celery-ha COMMAND --app proj" in found.stderr


def test_an_app_that_cannot_be_loaded_is_said_so():
    found = run("status", "--app", "nowhere.to.be.found")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "cannot load the app 'nowhere.to.be.found'" in found.stderr


@pytest.mark.parametrize("arguments", [(), ("--help",), ("drill", "--help"), ("--help", "drill")])
def test_help_needs_no_app(arguments: tuple[str, ...]):
    found = run(*arguments)
    assert found.exit_code == 0
    assert "Usage: celery-ha" in found.stdout


def test_it_is_installed_under_its_name():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'\[project\.scripts\]\ncelery-ha = "celery_ha\.cli\.main:main"', text)


def test_an_app_is_found_where_it_is(monkeypatch):
    app = Celery("lost", set_as_current=False)
    with pytest.raises(ConfigError, match="celery-ha drill --app"):
        where_is(app)
    monkeypatch.setattr(pytest, "somewhere", app, raising=False)
    assert where_is(app) == "pytest:somewhere"


def test_a_drill_has_nothing_to_try_without_ha():
    with pytest.raises(ConfigError, match="has no HA"):
        Place("here").occupy(Celery("bare", set_as_current=False))
