"""Whether an answer has the form that is documented, and no field more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery_ha.inspect.schema import SCHEMAS


def form_of(arguments: Sequence[str]) -> str:
    """The name in ``SCHEMAS`` of a command as it was typed."""
    command = arguments[0]
    if command in {"dead", "locks"}:
        named = len(arguments) > 1 and not arguments[1].startswith("-")
        return f"{command} {arguments[1] if named else 'list'}"
    asked = [option for option in ("--key", "--without") if command == "ring" and option in arguments]
    return " ".join([command, *asked])


def check_form(command: str, value: Any) -> None:
    """Raises what says where the value is otherwise."""
    import jsonschema

    jsonschema.Draft202012Validator(closed(SCHEMAS[command])).validate(value)


def closed(schema: Any) -> Any:
    """The same, without room for more fields: a new one must be written down."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(value) for name, value in schema.items()}
    return {**inner, "additionalProperties": False} if "required" in inner else inner
