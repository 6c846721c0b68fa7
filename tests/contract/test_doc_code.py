"""The code that the pages show compiles, and runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import redis
from celery import Celery, _state

import celery_ha
from celery_ha import HA
from tests.support.pages import PAGES, ROOT, SERVER, Block, blocks

pytestmark = pytest.mark.contract

ALL = [block for page in PAGES for block in blocks(page, "python")]
#: Whole files are run by a test of their page: tests/integration/test_pages.py.
PARTS = {page: [block for block in blocks(page, "python") if not block.file and block.mark is None] for page in PAGES}


@contextmanager
def aside() -> Iterator[None]:
    """Celery offers an app's tasks to every later app of the process, and remembers the last app: not here."""
    before = getattr(_state._tls, "current_app", None)
    with mock.patch.object(_state, "_on_app_finalizers", set(_state._on_app_finalizers)):
        try:
            yield
        finally:
            _state._tls.current_app = before


@pytest.mark.parametrize("block", ALL, ids=str)
def test_it_compiles(block: Block):
    compile(block.code, str(block), "exec")


def test_there_is_code():
    assert len(ALL) > 15
    assert {block.mark for block in ALL} <= {None, "before", "endless"}


@pytest.fixture
def known(redis_server) -> Iterator[dict[str, Any]]:
    """What a reader has before a page begins, and what examples call."""
    app = Celery("shop", broker=redis_server.url, set_as_current=False)
    HA(app)
    names = {name: getattr(celery_ha, name) for name in celery_ha.__all__}
    yield {**names, "Celery": Celery, "app": app, "write": mock.Mock(), "report": "a report", "__name__": "shop"}
    if app.ha._tenant is not None:
        app.ha._tenant.close()
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()


@pytest.mark.parametrize("page", [page for page in PAGES if PARTS[page]], ids=lambda page: str(page.relative_to(ROOT)))
def test_it_runs(page, known, redis_server):
    with aside():
        for block in PARTS[page]:
            code = "\n" * block.line + block.code.replace(SERVER, redis_server.url)
            exec(compile(code, str(page.relative_to(ROOT)), "exec"), known)
            if isinstance(known["app"], Celery) and getattr(known["app"], "ha", None):
                known["app"].finalize()
                known["app"].ha.config  # noqa: B018 - refuses what cannot be used
    if page.name == "locks.md":
        assert known["write"].call_args.kwargs["token"] > 0
    if page.name == "unique.md":
        assert known["report"].delay(7).id == known["first"].id


def test_a_duplicate_is_known_by_its_id_as_the_page_of_migrating_says(known):
    """A publish of a unique task under an id of the caller's own."""
    with aside():

        @known["app"].task(name="migrated")
        @celery_ha.unique_task("{report_id}")
        def report(report_id): ...

        assert report.apply_async((7,), task_id="mine").id == "mine"
        assert report.apply_async((7,), task_id="other").id == "mine"
