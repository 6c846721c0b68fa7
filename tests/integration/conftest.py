"""Scenes for tests of real worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.leaks import leaks
from tests.support.scene import Scene, scene
from tests.support.server import RedisServer


@pytest.fixture
def make_scene(redis_server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Make a scene on the shared server, or on one of the test's own; all end with the test."""
    with ExitStack() as stack:

        def make(server: RedisServer | None = None, **settings: object) -> Scene:
            folder = tmp_path / f"scene{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return stack.enter_context(scene(server or redis_server, folder, **settings))

        yield make


@pytest.fixture(scope="module")
def shared_scene(start_redis: Callable[..., RedisServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One scene for a whole module, on a server of its own: its tests use different keys."""
    with scene(start_redis(), tmp_path_factory.mktemp("scene")) as made:
        yield made
        assert leaks(made) == []


@pytest.fixture
def trio(shared_scene: Scene) -> Scene:
    """Three live workers, with nothing left of the test before."""
    shared_scene.top_up(3)
    shared_scene.wait_idle()
    shared_scene.harms.clear()
    return shared_scene
