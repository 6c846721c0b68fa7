"""Chromium without a head."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.dashboard import PASSWORD, USER

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_binary() -> str | None:
    """Where it is; None: it is not here, or what drives it is not."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return None
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium(binary: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # A container has no name spaces to give away.
        browser = driver.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, url: str, *, theme: str) -> Iterator[Any]:
    """A page, logged in; what its scripts throw fails the test."""
    context = browser.new_context(
        color_scheme=theme,
        http_credentials={"username": USER, "password": PASSWORD},
        viewport={"width": 1240, "height": 860},
        timezone_id="UTC",
        locale="en-GB",
    )
    thrown: list[str] = []
    try:
        page = context.new_page()
        page.on("pageerror", lambda error: thrown.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(url)
        yield page
    finally:
        context.close()
    assert thrown == []
