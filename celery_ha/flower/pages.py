"""What Flower serves of us."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from flower.api import BaseApiHandler
from flower.views import BaseHandler
from tornado.web import HTTPError, RequestHandler, StaticFileHandler, authenticated, url

from celery_ha.errors import ConfigError, StoreError
from celery_ha.flower.reader import LIMIT, NOUNS, Reader
from celery_ha.inspect.desk import UNANSWERED, Desk

STATIC = Path(__file__).parent / "static"
#: Most that is told of anything.
MOST = 1000


def pages() -> list[Any]:
    """Ours, for Flower's list."""
    return [
        url(r"/ha", Page, name="ha"),
        url(r"/ha/data", PageData),
        url(r"/ha/static/(.*)", Asset, {"path": str(STATIC)}, name="ha-static"),
        url(rf"/api/ha/({'|'.join(NOUNS)})", Noun),
        url(r"/api/ha/dead/(retry|drop)/(.+)", Letter),
    ]


class Page(BaseHandler):
    """The tab; what it shows is asked for by its script."""

    @authenticated
    async def get(self) -> None:
        self.render("ha.html", read_only=self.application.options.read_only)


class Asset(BaseHandler, StaticFileHandler):
    """Script and style, behind the login as the rest is."""

    @authenticated
    def prepare(self) -> None:
        """Who is not logged in gets no further."""


class PageData(BaseHandler):
    """``GET /ha/data?limit=50``: all that the tab shows.

    Not of the API, which a Flower without logins keeps shut unless it is told otherwise.
    """

    @authenticated
    async def get(self) -> None:
        await answer(self, self._page(limit_of(self)))

    async def _page(self, limit: int) -> dict[str, Any]:
        reader = reader_of(self)
        found = await reader.ask("page", limit)
        state = self.application.events.state
        if isinstance(found["failovers"], list):
            reader.requeued.mark(state, found["failovers"])
        return {**found, "requeued": reader.requeued.listed(state)}


class Noun(BaseApiHandler):
    """``GET /api/ha/<noun>?limit=50``: what ``celery ha <noun> --json`` prints."""

    @authenticated
    async def get(self, noun: str) -> None:
        await answer(self, reader_of(self).ask(noun, limit_of(self)))


class Letter(BaseApiHandler):
    """``POST /api/ha/dead/retry/<id>`` and ``.../drop/<id>``."""

    @authenticated
    async def post(self, action: str, id_: str) -> None:
        if self.application.options.read_only:
            raise HTTPError(403, "Read only mode is enabled")

        def change(desk: Desk) -> dict[str, int] | None:
            letter = desk.dead.find(id_)
            if letter is None:
                return None
            return (
                {"retried": desk.dead.retry([letter])} if action == "retry" else {"dropped": desk.dead.drop([letter])}
            )

        await answer(self, reader_of(self).act(change), missing=f"there is no dead letter {id_!r}")


def limit_of(handler: Any) -> int:
    """How many the question wants of what may be many.

    Raises:
        HTTPError: it is no such number.
    """
    limit = int(handler.get_argument("limit", LIMIT, type=int))
    if not 1 <= limit <= MOST:
        raise HTTPError(400, f"limit is from 1 to {MOST}")
    return limit


def reader_of(handler: Any) -> Reader:
    """The reader of a handler's Flower.

    Raises:
        HTTPError: its app has no HA.
    """
    reader = Reader.of(handler.application)
    if reader is None:
        raise HTTPError(404, "this app has no HA: write HA(app)")
    return reader


async def answer(handler: RequestHandler, asking: Awaitable[Any], *, missing: str = "") -> None:
    """Write a value as JSON, or in one line why there is none."""
    try:
        value = await asking
        if value is None:
            handler.set_status(404)
            value = {"error": missing}
    except StoreError as exc:
        handler.set_status(501)
        value = {"error": str(exc)}
    except asyncio.TimeoutError:
        handler.set_status(503)
        value = {"error": "the store does not answer"}
    except UNANSWERED as exc:
        handler.set_status(500 if isinstance(exc, ConfigError) else 503)
        value = {"error": " ".join(str(exc).split())}
    handler.set_header("Content-Type", "application/json; charset=UTF-8")
    handler.set_header("Cache-Control", "no-store")
    handler.finish(json.dumps(value, default=str))
