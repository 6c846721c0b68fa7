"""The pages name files and mutants that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "celery_ha"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "shop" / "README.md"]
#: Inside backticks: a path, and nothing else.
PATH = re.compile(r"`([\w./-]+(?:\.py|\.lua|\.md|/))`")
#: The paths are told as a reader sees them: from the root, from the package, from one of its parts, or from the page.
BASES = (ROOT, PACKAGE, PACKAGE / "brokers", PACKAGE / "store")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page):
    named = set(PATH.findall(page.read_text(encoding="utf-8")))
    missing = {name for name in named if not any((base / name).exists() for base in (*BASES, page.parent))}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_mutant_is_in_the_architecture():
    source = (ROOT / "tests" / "simulation" / "mutants.py").read_text(encoding="utf-8")
    mutants = re.findall(r'^    "(rule_\w+)": Mutant\(', source, re.MULTILINE)
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert mutants
    assert [name for name in mutants if f"`{name}`" not in page] == []
