"""docs/faults.md says what tools/faults.py says, of tests that exist."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("faults_tool", ROOT / "tools" / "faults.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool):
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(), "run python tools/faults.py"


def test_every_test_it_names_exists(tool):
    assert tool.missing() == []


def test_a_test_that_is_gone_is_noticed(tool, monkeypatch, capsys):
    monkeypatch.setitem(tool.MATRIX, "nothing", {"G1": ("unit/test_faults_page.py", "test_that_is_not_there")})
    assert tool.main() == 1
    assert "test_that_is_not_there" in capsys.readouterr().out


def test_every_guarantee_has_a_test(tool):
    shown = {name for row in tool.MATRIX.values() for name in row}
    assert shown == set(tool.GUARANTEES)
