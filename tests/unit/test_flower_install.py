"""When the tab gets into Flower, and when nothing of Flower is touched."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HA = "from celery import Celery; from celery_ha import HA; app = Celery('a', broker='redis://localhost:1/0'); HA(app)"
FLOWER = "import flower.urls"
SHOWN = """
    import flower.urls
    ours = [each.name for each in flower.urls.handlers if getattr(each, 'name', None) == 'ha']
    print(ours, flower.urls.handlers[-1][0], type(flower.urls.settings.get('template_loader')).__name__)
"""


def python(*lines: str) -> str:
    """What a program of its own prints."""
    code = "\n".join(textwrap.dedent(line) for line in lines)
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


@pytest.mark.parametrize(
    "lines", [(FLOWER, HA), (HA, FLOWER, "app.finalize()"), (FLOWER, HA, "HA(Celery('b'))", "app.finalize()")]
)
def test_the_tab_is_there_once_before_the_page_for_every_other_address(lines):
    pytest.importorskip("flower")
    assert python(*lines, SHOWN) == "['ha'] .* TabLoader"


def test_without_flower_nothing_of_it_is_imported():
    said = python(HA, "app.finalize()", "import sys", "print('flower' in sys.modules, 'tornado' in sys.modules)")
    assert said == "False False"


def test_a_flower_that_is_built_otherwise_is_left_alone_with_a_warning():
    pytest.importorskip("flower")
    odd = "import flower.urls; flower.urls.settings.pop('template_path'); before = len(flower.urls.handlers)"
    said = python(odd, HA, "print(len(flower.urls.handlers) - before, 'template_loader' in flower.urls.settings)")
    assert said == "0 False"
