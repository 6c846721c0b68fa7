"""A place of a drill's own on the servers of an app: another prefix, another queue, no task but one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from celery_ha.appconf import read
from celery_ha.brokers.connect import RedisAccess, access_to
from celery_ha.errors import ConfigError
from celery_ha.locks.terms import OnBusy
from celery_ha.trial.probe import Work, make_probe

#: Environment variables that tell a drill's workers what to run, and where.
APP, NAME = "CELERY_HA_DRILL_APP", "CELERY_HA_DRILL_NAME"
#: Of the queue.
SHARDS = 12
TASK = "celery_ha.drill.probe"


@dataclass(frozen=True)
class Place:
    """Where a drill is."""

    #: Nobody else's: ``celery-ha-drill-<random>``; also that of its queue.
    name: str

    @property
    def exchanges(self) -> tuple[str, ...]:
        """On RabbitMQ: what its workers tell each other over."""
        return (f"{self.name}.events", f"{self.name}.control")

    def occupy(self, app: Any) -> Work:
        """Change an app of this process so that all it does is here.

        Settings of the app that say how workers behave are left as they are: they are what is tried.

        Raises:
            ConfigError: the app has no HA, or sets what must be changed by itself.
        """
        if getattr(app, "ha", None) is None:
            raise ConfigError(f"the app {app.main or '(none given)'} has no HA: there is nothing to try; write HA(app)")
        app.finalize()  # whatever the app does then is done before
        app.conf.update(self._settings(app))
        # Whatever was made from the settings before is made anew.
        app.__dict__.pop("amqp", None)
        for made in ("config", "_store"):
            app.ha.__dict__.pop(made, None)
        self._make_sure(app)
        on_busy: OnBusy = "requeue" if app.conf.task_acks_late else "wait"
        return Work(make_probe(app, TASK, self.name, on_busy=on_busy), self.name, SHARDS)

    def _settings(self, app: Any) -> dict[str, object]:
        conf = app.conf
        events, control = self.exchanges
        options = dict(conf.broker_transport_options or {})
        options["global_keyprefix"] = f"{options.get('global_keyprefix', '')}{self.name}:"
        return {
            "broker_transport_options": options,
            "ha_prefix": f"{read(app).prefix}{self.name}:",
            "ha_queues": {self.name: SHARDS},
            "task_queues": None,
            "task_routes": None,
            "task_default_queue": self.name,
            "task_default_exchange": None,
            "task_default_routing_key": None,
            "task_create_missing_queues": True,
            "task_always_eager": False,
            "event_exchange": events,
            "control_exchange": control,
            "worker_enable_remote_control": False,
            "broker_connection_retry_on_startup": True,
        }

    def _make_sure(self, app: Any) -> None:
        """Refuse an app that undoes it: its own workers would be in reach."""
        inside = app.ha.config.prefix.endswith(f"{self.name}:") and dict(app.ha.config.queues) == {self.name: SHARDS}
        if isinstance(access_to(app), RedisAccess):
            for connection in (app.connection_for_read(), app.connection_for_write()):
                given = str(connection.transport_options.get("global_keyprefix", ""))
                inside = inside and given.endswith(f"{self.name}:")
        if not inside:
            raise ConfigError(
                "the app changes global_keyprefix, ha_prefix or ha_queues by itself after they were set: a drill "
                "would be among its own workers and tasks, so it does not begin"
            )


def where_is(app: Any) -> str:
    """Where another process finds an app: ``module:attribute``.

    Raises:
        ConfigError: in no module that could be imported.
    """
    for name, module in sorted(sys.modules.items()):
        if name != "__main__" and not name.startswith(("celery.", "celery_ha.")):
            for attribute, value in tuple(vars(module).items()) if hasattr(module, "__dict__") else ():
                if value is app:
                    return f"{name}:{attribute}"
    raise ConfigError("the workers of a drill must find the app in a module: celery-ha drill --app proj")


def place_of_this_worker() -> tuple[str, Place]:
    """What a worker was told by the drill that started it."""
    return os.environ[APP], Place(os.environ[NAME])
