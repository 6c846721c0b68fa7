"""Scenes for tests of real worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.fleet import eventually
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
            made = stack.enter_context(scene(server or redis_server, folder, **settings))
            stack.callback(_nothing_leaked, made)
            return made

        yield make


@pytest.fixture(scope="module")
def make_module_scene(
    start_redis: Callable[..., RedisServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Scene]]:
    """Make a scene for a whole module, on a server of its own: its tests use different keys."""
    with ExitStack() as stack:

        def make(**settings: object) -> Scene:
            made = stack.enter_context(scene(start_redis(), tmp_path_factory.mktemp("scene"), **settings))
            stack.callback(_nothing_leaked, made)
            return made

        yield make


def _nothing_leaked(scene: Scene) -> None:
    # A plain worker acknowledges a moment after the body's end, and the last of them may still be at it
    eventually(lambda: not scene.redis.exists(f"{scene.prefix}unacked"), why="plain workers acknowledge what they ran")
    assert leaks(scene) == []


@pytest.fixture(scope="module")
def shared_scene(make_module_scene: Callable[..., Scene]) -> Scene:
    return make_module_scene()


@pytest.fixture
def trio(shared_scene: Scene) -> Scene:
    """Three live workers, with nothing left of the test before."""
    shared_scene.top_up(3)
    shared_scene.wait_idle()
    shared_scene.harms.clear()
    return shared_scene
