"""docs/settings.md says what config.py says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from celery_ha.config import names

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent.parent


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


def test_the_readme_lists_every_setting():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in names() if f"| `{name}` |" not in readme] == []
