"""Resources that refuse a stale token: what closes the gap that no lock can.

A holder may be paused between its last look at the lock and its write; by the time the write lands somebody else
holds the lock. The resource itself keeps the largest token it has seen and refuses a smaller one, in the same atomic
step as the write.

Source: Burrows, "The Chubby lock service for loosely-coupled distributed systems", OSDI 2006, 2.4 (sequencers);
Kleppmann, "How to do distributed locking", 2016 (fencing tokens).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from celery_ha.errors import StaleToken
from celery_ha.lua import Script

#: A name that can stand in a statement as it is, with its schema or without.
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)

#: PEP 249: how the n-th parameter is written; with a name, parameters are passed by name.
_STYLES = {"qmark": "?", "format": "%s", "numeric": ":{n}", "named": ":p{n}", "pyformat": "%(p{n})s"}


def fenced_update(
    db: Any,
    table: str,
    key: Mapping[str, object],
    token: int,
    values: Mapping[str, object],
    *,
    column: str = "token",
    paramstyle: str | None = None,
) -> None:
    """Update one row of a table unless a newer token has written it before.

    One ``UPDATE ... SET ..., token = ? WHERE ... AND token <= ?``, in the caller's transaction, which the caller
    commits. The column is ``BIGINT NOT NULL DEFAULT 0``. On MySQL connect with ``CLIENT.FOUND_ROWS``: otherwise a
    repeated write that changes nothing counts as none.

    Args:
        db: a DB-API connection or cursor.
        table: its name, with its schema or without; put in the statement as it is.
        key: columns and values that name the row.
        token: :attr:`Lock.token <celery_ha.locks.Lock.token>` of the lock that guards the row.
        values: columns and values to set.
        column: where the row keeps the largest token it has seen.
        paramstyle: of the driver, see PEP 249; None: asked of the driver's module.

    Raises:
        StaleToken: nothing was written: the row has seen a newer token, or there is no such row.
        ValueError: a name is no plain identifier, ``key`` is empty, or the driver's paramstyle is unknown.

    **Failure:** an error of the driver leaves it open whether the row was written; repeating with the same token
    is harmless.
    """
    if not key:
        raise ValueError("fenced_update() needs the key of the row, such as {'id': 7}")
    mark = _mark(paramstyle or _paramstyle_of(db))
    asked: list[object] = []

    def equal(name: str, value: object, comparison: str = "=") -> str:
        asked.append(value)
        return f"{_plain(name)} {comparison} {mark.format(n=len(asked))}"

    changes = ", ".join(equal(name, value) for name, value in {**values, column: token}.items())
    row = " AND ".join([*(equal(name, value) for name, value in key.items()), equal(column, token, "<=")])
    cursor = db.cursor() if hasattr(db, "cursor") else db
    parameters = {f"p{n}": value for n, value in enumerate(asked, 1)} if "p{n}" in mark else tuple(asked)
    cursor.execute(f"UPDATE {_plain(table)} SET {changes} WHERE {row}", parameters)  # noqa: S608 - plain names only
    if cursor.rowcount < 1:
        raise StaleToken(
            f"{table} {dict(key)} was not written with token {token}: it has seen a newer one, or there is no such row"
        )


def fenced_set(client: Any, key: str, value: str | bytes | float, token: int) -> None:
    """Write a value in Redis unless a newer token has written it before.

    The key is a hash with the fields ``value`` and ``token``: read it with ``client.hget(key, "value")``. Give it no
    expiry: with the key goes the memory of the newest token.

    Args:
        client: a redis-py client.
        key: of the hash.
        value: what to write.
        token: :attr:`Lock.token <celery_ha.locks.Lock.token>` of the lock that guards the key.

    Raises:
        StaleToken: nothing was written: the key has seen a newer token.

    **Failure:** an error of the client leaves it open whether the key was written; repeating with the same token
    is harmless. A Redis that fails over may forget the newest write, and its token with it.
    """
    seen = _set_script()(client, [key], [value, token])
    if seen:
        raise StaleToken(f"{key!r} was not written with token {token}: it has seen {int(seen)}")


@cache
def _set_script() -> Script:
    return Script("celery_ha.store", "fenced_set")


def _mark(paramstyle: str) -> str:
    if paramstyle not in _STYLES:
        raise ValueError(f"paramstyle={paramstyle!r}: write one of {', '.join(_STYLES)}")
    return _STYLES[paramstyle]


def _paramstyle_of(db: Any) -> str:
    """What the driver's module says; it is the package that the class comes from."""
    package = type(db).__module__.partition(".")[0]
    found = getattr(sys.modules.get(package), "paramstyle", None)
    if found is None:
        raise ValueError(f"the paramstyle of {package} is not known: pass paramstyle='qmark', 'format', ...")
    return str(found)


def _plain(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no plain name of a table or column")
    return name
