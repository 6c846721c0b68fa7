"""The pages name files and mutants that exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.support.pages import PAGES, ROOT, blocks

pytestmark = pytest.mark.unit

PACKAGE = ROOT / "celery_ha"
#: Inside backticks: a path, and nothing else.
PATH = re.compile(r"`([\w./-]+(?:\.py|\.lua|\.md|/))`")
#: The paths are told as a reader sees them: from the root, from the package, from one of its parts, or from the page.
BASES = (ROOT, PACKAGE, PACKAGE / "brokers", PACKAGE / "store")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page):
    named = set(PATH.findall(page.read_text(encoding="utf-8")))
    named -= {block.file for block in blocks(page, "python")}
    missing = {name for name in named if not any((base / name).exists() for base in (*BASES, page.parent))}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def anchors(page: Path) -> set[str]:
    """What headings can be linked by."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_heading_finds_it(page):
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    assert [(file, to) for file, to in links if to not in anchors(page.parent / file if file else page)] == []


def test_the_site_has_every_page():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"- (?:[\w ]+: )?([\w-]+\.md)$", config, re.MULTILINE))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")}
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [name for name in listed - {"index.md"} if f"({name})" not in index] == []


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("docs_tool", ROOT / "tools" / "docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("line", ["- an item", "1. the first", "| a | row |", "```python twice"])
def test_what_the_site_would_draw_as_plain_text_is_noticed(hook, line):
    assert hook.misread(f"<p>text\n{line}\nmore</p>") == [line]
    assert hook.misread(f"<p>{line}</p>") == [line]


def test_text_is_text(hook):
    assert hook.misread("<p>a - b\n60. of it</p><ul>\n<li>an item</li>\n</ul>") == []


def test_every_mutant_is_in_the_architecture():
    source = (ROOT / "tests" / "simulation" / "mutants.py").read_text(encoding="utf-8")
    mutants = re.findall(r'^    "(rule_\w+)": Mutant\(', source, re.MULTILINE)
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert mutants
    assert [name for name in mutants if f"`{name}`" not in page] == []
