"""docs/settings.md says what config.py says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from celery_ha.config import names

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent.parent
#: Options of a task or of a call, a header, and an attribute of log records.
NO_SETTINGS = {"ha_key", "ha_unique", "ha_dead", "ha_event"}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("settings_tool", ROOT / "tools" / "settings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool):
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(), "run python tools/settings.py"


def test_every_setting_is_on_the_page(tool):
    page = tool.page()
    assert [name for name in names() if f"## `{name}`\n" not in page] == []


def test_every_setting_is_in_the_table_with_its_default(tool):
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\(#\w+\) \| (.+?) \|", tool.page(), re.MULTILINE))
    assert list(rows) == list(names())
    assert rows["ha_lease_ttl"] == "10 s"
    assert rows["ha_trust_margin"] == "1 s, follows `ha_lease_ttl`"


def test_pages_name_settings_that_there_are():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        named = set(re.findall(r"`(?:CELERY_)?(ha_\w+|HA_\w+)`", page.read_text(encoding="utf-8")))
        assert {name.lower() for name in named} - {*names(), *NO_SETTINGS} == set(), page.name
