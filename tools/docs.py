"""A hook of mkdocs: warns of Markdown that GitHub draws and mkdocs does not, so that ``strict`` fails.

A list or a table needs an empty line before it, and a fence no more than one word after it; otherwise mkdocs makes a
paragraph of it.
"""

from __future__ import annotations

import logging
import re
from typing import Any

logger = logging.getLogger("mkdocs.hooks.docs")

PARAGRAPH = re.compile(r"<p>(.*?)</p>", re.DOTALL)
#: How a line begins that was meant to be an item of a list, a row of a table, or the fence of a code block.
MEANT = re.compile(r"(?:- |\* |1\. |\| |```)")


def on_page_content(html: str, page: Any, **_: Any) -> None:
    """Called by mkdocs for each page that was rendered."""
    for line in misread(html):
        logger.warning("%s: drawn as plain text; is an empty line before it missing? %s", page.file.src_uri, line)


def misread(html: str) -> list[str]:
    """Lines that were meant to be more than text.

    Args:
        html: a page as it was rendered.
    """
    return [line for text in PARAGRAPH.findall(html) for line in text.splitlines() if MEANT.match(line)]
