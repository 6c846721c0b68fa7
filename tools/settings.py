"""Writes ``docs/settings.md`` from the comments in ``celery_ha/config.py``.

python tools/settings.py            write it
python tools/settings.py --check    fail if it is not up to date
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from celery_ha import appconf, config
from celery_ha.checks import SETTING

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
MARK = "#:"

HEAD = """# Settings

All are optional, and all are settings of the Celery app: `app.conf.ha_lease_ttl = 5`, `ha_lease_ttl` in a module of
settings, or `CELERY_HA_LEASE_TTL` with `namespace="CELERY"`. They are read once, when the app is finalised; a
misspelt, wrong or contradictory one stops the app with a sentence that says what to write instead. Durations are
seconds. Those that follow from the TTL need not be set: set `ha_lease_ttl` alone and the rest fits.

This page is written by `tools/settings.py` from the comments in `celery_ha/config.py`.
"""


def page() -> str:
    """The page as it should be."""
    comments = dict(_comments())
    rows = "\n".join(_row(name, text) for name, text in comments.items())
    sections = "\n".join(_section(name, text) for name, text in comments.items())
    return f"{HEAD}\n| setting | default | |\n|---|---|---|\n{rows}\n\n{sections}\n{_celery_defaults()}"


def _row(name: str, text: str) -> str:
    full = f"{SETTING}{name}"
    return f"| [`{full}`](#{full}) | {_default(name)} | {_summary(text)} |"


def _default(name: str) -> str:
    value = getattr(config.Config(), name)
    shown = f"{value:g} s" if isinstance(value, float) else f"`{value!r}`"
    return f"{shown}, follows `ha_lease_ttl`" if name in config.derived(config.Config.lease_ttl) else shown


def _summary(text: str) -> str:
    """The first clause of a comment, which says what the setting is."""
    return re.split(r"[;.:](?=\s)|,? default ", " ".join(text.split()), maxsplit=1)[0]


def _section(name: str, text: str) -> str:
    return f"## `{SETTING}{name}`\n\n{text}\n"


def _celery_defaults() -> str:
    changed = "\n".join(f"| `{key}` | `{value}` |" for key, value in appconf.CELERY_DEFAULTS.items())
    return (
        "## Celery's own settings\n\n"
        "Changed by `HA(app)` unless you set them yourself or set `ha_defaults = False`; the worker's banner lists "
        f"what was changed.\n\n| setting | value |\n|---|---|\n{changed}\n"
    )


def _comments() -> Iterator[tuple[str, str]]:
    """Each field of ``Config`` with the comment above it."""
    source = inspect.getsource(config)
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == config.Config.__name__:
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield field.target.id, _above(lines, field.lineno - 1)


def _above(lines: list[str], at: int) -> str:
    first = at
    while lines[first - 1].strip().startswith(MARK):
        first -= 1
    return (
        "\n".join(line.strip().removeprefix(MARK).strip() for line in lines[first:at])
        .replace("``", "`")
        .replace(":data:", "")
    )


def main() -> int:
    """Write or check the page."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") != page():
        print("docs/settings.md is not up to date: run python tools/settings.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
