"""Writes ``docs/events.md`` from ``celery_ha/telling/news.py``.

python tools/events.py            write it
python tools/events.py --check    fail if it is not up to date
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from celery_ha.telling.news import ALWAYS, KINDS, Kind

PAGE = Path(__file__).parent.parent / "docs" / "events.md"

HEAD = """# Events

What a worker or a beat decides about the fleet it tells once: as a line in its log, and as an event of Celery's, which
any consumer of events sees: `celery -A shop events --dump`, Flower, a `Receiver` of your own. Metrics are counted from
the same news: [operations.md](operations.md#metrics).

<!-- endless -->
```python
def fenced(event):
    print(event["node"], event["reason"])


with app.connection_for_read() as connection:
    app.events.Receiver(connection, handlers={"ha-fenced": fenced}).capture()
```

Events go out whether or not the worker was started with `-E`; `ha_events = False` keeps them in. They are as lossy as
all of Celery's: sent by a thread that nobody waits for, kept (the last 1,000) while the broker is away, with the time
of the decision as their `timestamp`. Nothing in celery_ha depends on them; the history of failovers is in the store
([`ha failovers`](cli.md#failovers)).

`hostname` is who tells, `node` whom it is about. Fields may be added; consumers should ignore those they do not know.

## Lines

The logger is `celery_ha.decisions`. A line is a sentence, then the type of the event and all of its fields as
`name=value`, quoted where they are no plain word. A handler that writes JSON finds them in the record as `ha_event` and
`ha`.

```
Fenced w2@probe: connections gone [ha-fenced node=w2@probe lease=4f0c term=3 reason="connections gone"]
```

What a prefork child decides (a lock that is lost) is told by its main process.

## All events have
"""


def page() -> str:
    """The page as it should be."""
    return "\n".join([HEAD, *_table(ALWAYS.items()), "", *(line for kind in KINDS.values() for line in _section(kind))])


def _section(kind: Kind) -> list[str]:
    told = kind.when[0].upper() + kind.when[1:]
    lines = [f"## `{kind.name}`", "", f"{told}. Logged as {logging.getLevelName(kind.level)}.", ""]
    return [*lines, *_table(kind.fields.items()), ""] if kind.fields else lines


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    return ["| field | |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in rows)]


def main() -> int:
    """Write or check the page."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") != page():
        print("docs/events.md is not up to date: run python tools/events.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
