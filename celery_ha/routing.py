"""Routing: from a task's key to the shard that its message goes to.

The router runs after the user's own routes. Where they lead to a sharded queue, it hashes the call's
key to one of that queue's shards; everything else it leaves as it found it. It needs no knowledge of
workers: a key's shard depends on the key and on the number of shards alone.
"""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from celery.app.routes import Router as CeleryRouter

from celery_ha.errors import ConfigError, KeyRefused
from celery_ha.keys import canonical, render, shard_name, shard_of

#: The name of the option of a call, and of the attribute of a task, that says the key.
OPTION = "ha_key"

#: What Celery's native delayed delivery puts before a routing key: the delay in bits.
_DELAY = re.compile(r"^(?:[01]\.){28}")
#: And how the exchanges begin, or go on after a prefix, that such a message came through.
_DELAYED_EXCHANGE = "celery_delayed"


class Router(CeleryRouter):
    """Celery's router, plus the step from a sharded queue to one of its shards.

    ``queues`` must be :class:`celery_ha.amqp.ShardedQueues`, which knows what is sharded.
    """

    def route(
        self,
        options: dict[str, Any],
        name: str,
        args: Sequence[Any] | None = (),
        kwargs: Mapping[str, Any] | None = None,
        task_type: Any = None,
    ) -> dict[str, Any]:
        """Find where a call goes.

        Args:
            options: The call's options; ``ha_key`` among them is taken out.
            name: The task's name.
            args: The task's positional arguments.
            kwargs: The task's keyword arguments.
            task_type: The task, if the caller has it; otherwise looked up by name.

        Returns:
            The options to publish with, ``queue`` a declared queue, never one that is sharded unless
            an exchange was asked for explicitly.

        Raises:
            KeyRefused: The key has no stable text form.
            ConfigError: The task's ``ha_key`` does not fit its arguments.
        """
        options = super().route(self._back_to_queue(options), name, args or (), kwargs, task_type)
        explicit = options.pop(OPTION, None)
        queue: Any = options.get("queue")
        shards = None if queue is None else self.queues.sharded.get(queue.name)
        if shards is None or options.get("exchange"):
            return options
        key = self._key(explicit, name, args or (), kwargs or {}, task_type)
        # Celery does not show a router the task id, so a call without a key is spread by chance.
        index = random.randrange(shards) if key is None else shard_of(key, shards)
        options["queue"] = self.queues[shard_name(queue.name, index)]
        options.pop("routing_key", None)
        return options

    def _back_to_queue(self, options: dict[str, Any]) -> dict[str, Any]:
        """Name the queue of a call that goes by exchange and routing key: a retry of what came that way.

        Celery would add the task's own queue, or the default one, and declare that instead of ours.
        """
        if not options.get("routing_key") or (options.get("queue") and not options.get("exchange")):
            return options
        name = undelayed(options["routing_key"])
        if not (name in self.queues.sharded or self.queues.is_shard(name)):
            return options
        exchange = getattr(options.get("exchange"), "name", options.get("exchange")) or ""
        if exchange in {"", self.queues[name].exchange.name} or _DELAYED_EXCHANGE in exchange:
            return {**options, "queue": name, "exchange": None, "routing_key": None}
        return options

    def _key(
        self, explicit: object, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], task: Any
    ) -> str | None:
        if explicit is not None:
            return _text(explicit)
        task = task or self._registered(name)
        declared = None if task is None else _declared(task)
        return None if declared is None else key_of_call(declared, task.run, args, kwargs)

    def _registered(self, name: str) -> Any:
        """The task of that name in this process: before 5.7, ``send_task`` does not look it up itself."""
        # Reading `tasks` evaluates tasks that are still pending; without autofinalize it would raise.
        tasks = self.app.tasks if self.app.finalized or self.app.autofinalize else self.app._tasks  # noqa: SLF001
        return tasks.get(name)


def undelayed(routing_key: str) -> str:
    """The routing key that a message goes on with after its delay; of one that is not delayed, its own."""
    return _DELAY.sub("", routing_key)


#: Reading a signature costs more than all the rest of routing.
_signature = lru_cache(maxsize=1024)(inspect.signature)


def key_of_call(
    declared: str | Callable[..., object], run: Callable[..., object], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str | None:
    """Work out the key of one call, the same however its arguments were passed.

    Args:
        declared: An argument's name, a template such as ``order.{order_id}``, or a callable that
            takes what the task takes.
        run: The task's body, whose signature binds the arguments and fills in defaults.
        args: The call's positional arguments.
        kwargs: The call's keyword arguments.

    Returns:
        The key; None if the callable gave none, or if the arguments do not fit the signature: such a
        call fails in any worker, so any shard will do.

    Raises:
        KeyRefused: An argument in the key has no stable text form.
        ConfigError: ``declared`` names no argument of the task.
    """
    signature = _signature(run)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    bound.apply_defaults()
    if not isinstance(declared, str):
        return _text(declared(*bound.args, **bound.kwargs))
    arguments = _by_name(bound)
    if "{" in declared:
        return _stable(render, declared, arguments)
    if declared not in arguments:
        raise ConfigError(
            f"ha_key={declared!r} is no argument of {getattr(run, '__name__', run)}{signature}; "
            "write the name of one, or a template with it in braces"
        )
    return _stable(render, "{" + declared + "}", arguments)


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Arguments by name, with those collected by ``**kwargs`` under their own."""
    arguments = dict(bound.arguments)
    for parameter in bound.signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(parameter.name))
    return arguments


def _declared(task: Any) -> Any:
    """A task's ``ha_key`` as it was written.

    A function given to ``@app.task(ha_key=...)`` becomes an attribute of a class; asked for in the
    ordinary way it would come back with the task as its first argument.
    """
    declared = inspect.getattr_static(task, OPTION, None)
    if isinstance(declared, (staticmethod, classmethod)):
        return getattr(task, OPTION)
    if inspect.isfunction(declared) and next(iter(inspect.signature(declared).parameters), None) == "self":
        return getattr(task, OPTION)
    if declared is None or isinstance(declared, str) or callable(declared):
        return declared
    raise ConfigError(
        f"ha_key of task {task.name} is {declared!r}; write an argument's name, a template such as "
        '"order.{order_id}", or a callable'
    )


def _text(key: object) -> str | None:
    """A key as text: a string is final, anything else gets its canonical form."""
    return None if key is None else _stable(canonical, key)


def _stable(form: Callable[..., str], *parts: object) -> str:
    """Form a key; whatever the reason it has no stable form, say so the same way."""
    try:
        return form(*parts)
    except KeyRefused:
        raise
    except ValueError as error:
        raise KeyRefused(f"a routing key has no stable form: {error}") from error
