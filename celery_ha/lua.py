"""Lua scripts kept in files of their own, one a file, each opening with its keys, arguments and result."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import Any

from redis.exceptions import ClusterDownError, NoScriptError, OutOfMemoryError, ReadOnlyError, TryAgainError

_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)


#: Refusals that are about the state of the server, not about the command: it may do it later.
_NOT_NOW = (ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError)
_NOT_NOW_CODES = ("MISCONF", "NOREPLICAS", "BUSY ", "UNBLOCKED", "LOADING", "MASTERDOWN")


def not_now(error: BaseException) -> bool:
    """Whether a refusal is about the state the server is in."""
    return isinstance(error, _NOT_NOW) or str(error).startswith(_NOT_NOW_CODES)


def pack(command: tuple[Any, ...]) -> bytes:
    """A command in the Redis protocol: an array of bulk strings."""
    parts = [b"*%d\r\n" % len(command)]
    for part in command:
        text = part if type(part) is bytes else str(part).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    return b"".join(parts)


class Script:
    """A script a server knows by its digest.

    Args:
        package: the package whose ``lua`` folder holds the file.
        name: file name without ``.lua``. A line ``-- include: x`` is replaced by ``x.lua``.
    """

    def __init__(self, package: str, name: str) -> None:
        self.name = name
        self.text = _read(package, name)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: list[str], args: list[Any]) -> tuple[Any, ...]:
        """The command to send on a connection that the caller reads by himself."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def whole(self, keys: list[str], args: list[Any]) -> tuple[Any, ...]:
        """The same, with the text for a server that does not know the script: after this it does.

        One command, since a server that forgot it once may forget it again between two.
        """
        return ("EVAL", self.text, len(keys), *keys, *args)

    def packed(self, keys: list[str], args: list[Any]) -> bytes:
        """The same as the bytes to send; redis-py takes four times as long to make them."""
        return pack(self.command(keys, args))

    def __call__(self, client: Any, keys: list[str], args: list[Any]) -> Any:
        """Run it, by its text if the server does not know it (a restart, SCRIPT FLUSH).

        An unknown script has run nothing, so repeating is safe.
        """
        try:
            return client.execute_command(*self.command(keys, args))
        except NoScriptError:
            return client.execute_command(*self.whole(keys, args))

    def load(self, client: Any) -> None:
        """Make it known, for a caller that asks again whatever happens."""
        client.execute_command("SCRIPT LOAD", self.text)


def _read(package: str, name: str) -> str:
    text = (resources.files(package) / "lua" / f"{name}.lua").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: _read(package, found.group(1)), text)
