"""The name of a lock, from the arguments of a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import Task

from celery_ha.errors import ConfigError, KeyRefused
from celery_ha.keys import canonical, name_of, render

#: A template such as ``account:{account_id}``, or a callable that takes what the task takes.
KeySource = str | Callable[..., object]


class LockKey:
    """How a function's calls are locked; positional, keyword and default arguments give the same name.

    Args:
        source: template or callable. A template without braces is one lock for all calls.
        function: the function, whose signature binds the arguments. The ``self`` of a bound task is
            no argument.
        namespaced: True: the name starts with the function's own, so that no other function shares
            the lock.
        what: the decorator that a refusal speaks of.

    Raises:
        ConfigError: ``source`` is neither template nor callable.
    """

    def __init__(
        self, source: KeySource, function: Callable[..., Any], *, namespaced: bool, what: str = "locked_task"
    ) -> None:
        if not isinstance(source, str) and not callable(source):
            raise ConfigError(f"{what}({source!r}): write a template such as 'account:{{id}}', or a callable")
        self._source = source
        self._what = what
        self._signature = inspect.signature(function)
        self._prefix = f"{function.__module__}.{function.__qualname__}:" if namespaced else ""

    def name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Name the lock of one call.

        Raises:
            KeyRefused: an argument in the key is missing or has no stable text form, or the name is too long.
            TypeError: the arguments do not fit the function.
        """
        bound = self.bind(args, kwargs)
        returned = self._source(*_without_task(bound.args), **bound.kwargs) if callable(self._source) else None
        try:
            return name_of(self._prefix + self._text(bound, returned))
        except KeyRefused:
            raise
        except ValueError as error:
            raise KeyRefused(f"{self._what}({self._source!r}): {error}") from error

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """The arguments by name, defaults included.

        Raises:
            TypeError: they do not fit the function.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound

    def _text(self, bound: inspect.BoundArguments, returned: object) -> str:
        if isinstance(self._source, str):
            return render(self._source, _by_name(bound))
        if returned is None:
            raise ValueError("it returned None; return the key")
        return canonical(returned)


def _without_task(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args[1:] if args and isinstance(args[0], Task) else args


def _by_name(bound: inspect.BoundArguments) -> dict[str, object]:
    """Arguments by name, those collected by ``**kwargs`` under their own."""
    arguments = dict(bound.arguments)
    for place, parameter in enumerate(bound.signature.parameters.values()):
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(parameter.name))
        elif place == 0 and isinstance(arguments[parameter.name], Task):
            del arguments[parameter.name]
    return arguments
