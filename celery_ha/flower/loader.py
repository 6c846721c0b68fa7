"""Flower's templates, with a tab more."""

from __future__ import annotations

from pathlib import Path

from tornado.template import Loader, Template

from celery_ha.flower.reader import Reader

HERE = Path(__file__).parent / "templates"


class TabLoader(Loader):
    """Loads Flower's templates and ours.

    Args:
        root: the folder of Flower's templates.
    """

    def __init__(self, root: str) -> None:
        super().__init__(root, namespace={"ha_reader": Reader.of})

    def _create_template(self, name: str) -> Template:
        if name == "navbar.html":
            # Flower's own, whatever it has in it: the first list is that of the pages.
            pages, end, rest = Path(self.root, name).read_text().partition("</ul>")
            return self._template(name, pages + (HERE / "tab.html").read_text() + end + rest)
        if name == "ha.html":
            return self._template(name, (HERE / name).read_text())
        return super()._create_template(name)

    def _template(self, name: str, source: str) -> Template:
        return Template(source, name=name, loader=self)
