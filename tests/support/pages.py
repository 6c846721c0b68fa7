"""The code that the pages show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "shop" / "README.md")
#: A fenced block, and a comment above it that says what it is.
FENCED = re.compile(r"(?:<!-- (\w+) -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: The server of whoever reads.
SERVER = "redis://localhost:6379/0"


@dataclass(frozen=True)
class Block:
    """A piece of code."""

    page: Path
    line: int
    language: str
    code: str
    #: ``before``: code of another library, for comparison; ``endless``: it would not come to an end.
    mark: str | None

    @property
    def file(self) -> str | None:
        """The file it is, by a comment in its first line; None: a part of one."""
        named = re.match(r"# ([\w./-]+\.py)\n", self.code)
        return named[1] if named else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """The blocks of a page in these languages."""
    text = page.read_text(encoding="utf-8")
    for found in FENCED.finditer(text):
        mark, language, code = found.groups()
        if language in languages:
            yield Block(page, text.count("\n", 0, found.start(3)), language, code, mark)


def write_files(page: Path, folder: Path, server: str) -> None:
    """Write the files that a page shows, with a server of ours in the place of the reader's."""
    for block in blocks(page, "python"):
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code.replace(SERVER, server), encoding="utf-8")


def commands(page: Path, language: str = "console") -> Iterator[str]:
    """What a page has its reader type, without the comments behind it."""
    for block in blocks(page, language):
        for line in block.code.splitlines():
            if line.startswith("$ "):
                yield line[2:].partition("  #")[0].rstrip()
