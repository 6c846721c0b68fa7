"""Key → shard: stable across processes, machines and releases, and known to every publisher.

Jump consistent hash needs no membership: publishing never waits for anybody and never uses a stale
view, and growing the number of shards moves the fewest keys, all of them to the new shards.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from functools import lru_cache
from string import Formatter

#: Ours alone, so that nobody else's hash of the same key is correlated with it.
_PERSON = b"celery_ha.key"
_MASK = (1 << 64) - 1

#: Longest name of a lock or of a unique task's key, in bytes of UTF-8.
LONGEST = 1024
#: What ``repr`` says of an object that has no text of its own: another in every process.
_ADDRESS = re.compile(r"<[^<>]*\b(?:object|function)\b.{0,200}? at 0x[0-9a-fA-F]+>")


def stable_hash(key: str) -> int:
    """Hash a text into 64 bits, the same everywhere and for ever (unlike ``hash()``).

    Args:
        key: any text, even one with lone surrogates, as file names have.
    """
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8, person=_PERSON).digest()
    return int.from_bytes(digest, "big")


def shard_of(key: str, shards: int) -> int:
    """The shard of a key.

    Args:
        key: the key's canonical text.
        shards: how many shards there are, at least 1.

    Returns:
        0 to ``shards - 1``.

    Raises:
        ValueError: fewer than one shard.

    Source: Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014.
    """
    if shards < 1:
        raise ValueError(f"a sharded queue needs at least one shard, not {shards}")
    state, bucket, jump = stable_hash(key), -1, 0
    while jump < shards:
        bucket = jump
        state = (state * 2862933555777941757 + 1) & _MASK
        jump = int((bucket + 1) * ((1 << 31) / ((state >> 33) + 1)))
    return bucket


def shard_name(queue: str, index: int) -> str:
    """The real queue behind a shard."""
    return f"{queue}.{index}"


def shard_names(queue: str, shards: int) -> tuple[str, ...]:
    """The real queues behind a sharded queue."""
    return tuple(shard_name(queue, index) for index in range(shards))


def base_of(name: str, queues: Mapping[str, int]) -> str | None:
    """The sharded queue that a real queue is a shard of, or None.

    An index beyond today's count still belongs to it: the count may have been larger once.
    """
    base, dot, index = name.rpartition(".")
    counts = dot and index.isascii() and index.isdecimal() and (index == "0" or index[0] != "0")
    return base if counts and base in queues else None


def canonical(value: object) -> str:
    """The one text of a value, whatever the order of its parts.

    A number and its text are one key, so are an enum's member and its value, a list and a tuple: JSON
    makes the one of the other on the way to a worker. Inside a list or mapping texts are quoted.

    Args:
        value: text, number, True, False, None, UUID, date, time, enum, or a list, tuple or mapping of such.

    Raises:
        ValueError: the value has no stable text form (its ``repr`` would name a memory address).
    """
    if isinstance(value, enum.Enum):
        return canonical(value.value)
    if isinstance(value, str):
        return stable(str.__str__(value))
    if value is None or isinstance(value, (bool, int, float, decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_part, value)) + "]"
    if isinstance(value, Mapping):
        pairs = sorted((_part(key), _part(part)) for key, part in value.items())
        return "{" + ",".join(f"{key}:{part}" for key, part in pairs) + "}"
    raise ValueError(f"a {type(value).__name__} has no stable text form; use a number, a text or another plain value")


def stable(key: str) -> str:
    """A key that was made elsewhere, unless it names a memory address.

    Raises:
        ValueError: it holds the ``repr`` of an object, another in every process.
    """
    if found := _ADDRESS.search(key):
        raise ValueError(f"{found[0]!r} is another text in every process; use a number, a text or another plain value")
    return key


def name_of(key: str) -> str:
    """A key as a name that every store can keep.

    Raises:
        ValueError: it is no Unicode, or longer than 1 KB in UTF-8. It is not hashed: a name is there to be read
            where a lock hangs.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError as exc:
        raise ValueError(f"the key {key[:80]!r} is no valid Unicode; write it without lone surrogates") from exc
    if size > LONGEST:
        raise ValueError(
            f"the key {key[:80]!r}... has {size} bytes, more than {LONGEST}; name only what tells calls apart, or give "
            "a callable that returns a digest, such as hashlib.sha256(text.encode()).hexdigest()"
        )
    return key


def _part(value: object) -> str:
    """The text of a value inside another; quoted, lest ``["a,b"]`` and ``["a", "b"]`` be one key."""
    bare = value.value if isinstance(value, enum.Enum) else value
    text = canonical(bare)
    return text if isinstance(bare, (list, tuple, Mapping)) else json.dumps(text)


def render(template: str, arguments: Mapping[str, object]) -> str:
    """Fill a key template such as ``order.{order_id}``, ``{user.id}`` or ``user.{user[id]}``.

    Args:
        template: text with placeholders; ``{{`` and ``}}`` stand for braces.
        arguments: the call's, by name.

    Raises:
        ValueError: the template cannot be read, a placeholder names no argument, or an argument has no
            stable text form.
    """
    parts = []
    for text, field, spec, conversion in _parse(template):
        parts.append(text)
        if spec or conversion:
            raise ValueError(f"{{{field}}} in the key {template!r} must stand alone, without ! or : after the name")
        if field is not None:
            parts.append(_field(template, field, arguments))
    return "".join(parts)


@lru_cache(maxsize=1024)
def _parse(template: str) -> tuple[tuple[str, str | None, str | None, str | None], ...]:
    try:
        return tuple(Formatter().parse(template))
    except ValueError as exc:
        raise ValueError(f"the key {template!r} cannot be read: {exc}") from exc


def _field(template: str, field: str, arguments: Mapping[str, object]) -> str:
    try:
        value, _ = Formatter().get_field(field, (), arguments)
    except (KeyError, AttributeError, IndexError, TypeError, ValueError) as exc:
        names = ", ".join(sorted(arguments)) or "none"
        raise ValueError(f"{{{field}}} in the key {template!r} is no argument; there are: {names}") from exc
    try:
        return canonical(value)
    except ValueError as exc:
        raise ValueError(f"argument {field!r} cannot be part of the key {template!r}: {exc}") from exc
