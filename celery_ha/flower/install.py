"""Puts the HA tab into Flower.

Flower has no plug-ins. Its pages are a list that ends in one for every other address, and its command makes the web
application of that list and of a dictionary of settings: ours go before the last, and a template loader of ours
adds the tab to the navigation. Login, XSRF and ``url_prefix`` are Flower's own, since the handlers are.
"""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger(__name__)


def show_in_flower() -> None:
    """Add the tab if Flower was imported; a second time changes nothing.

    ``celery flower`` imports Flower, as a plug-in of the command line, before the app. Whoever makes a ``Flower`` in
    a program of his own imports ``flower.urls`` before the app is finalized, or calls this.

    **Failure:** with a Flower that is built otherwise there is no tab, and a warning.
    """
    urls = sys.modules.get("flower.urls")
    if urls is None or "celery_ha" in urls.settings:
        return
    try:
        from flower.events import EventsState  # noqa: PLC0415 - Flower is optional

        from celery_ha.flower.loader import TabLoader  # noqa: PLC0415 - same
        from celery_ha.flower.metrics import count_events  # noqa: PLC0415 - same
        from celery_ha.flower.pages import pages  # noqa: PLC0415 - same

        loader = TabLoader(urls.settings["template_path"])
        urls.handlers[-1:-1] = pages()
        count_events(EventsState)
        urls.settings.update(template_loader=loader, celery_ha=True)
    except (ImportError, AttributeError, KeyError) as exc:
        logger.warning("This Flower cannot show the HA tab: %r", exc)
