"""Keys hash the same for ever, and a key has one text."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_ha.keys import base_of, canonical, name_of, render, shard_name, shard_names, shard_of, stable_hash

#: Made once. A release that changes one of these answers sends a key to two shards while it rolls out.
KNOWN = json.loads((Path(__file__).parent / "known_shards.json").read_text(encoding="ascii"))

QUEUES = {"orders": 64, "eu.orders": 8}


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


# Hash and shard.


def test_there_are_a_thousand_known_keys() -> None:
    assert len(KNOWN["keys"]) == 1000
    assert not all(key.isascii() for key in KNOWN["keys"])


def test_a_known_key_goes_to_the_shard_it_always_went_to() -> None:
    moved = {
        key: shards
        for key, shards in KNOWN["keys"].items()
        if shards != [shard_of(key, count) for count in KNOWN["counts"]]
    }
    assert not moved


def test_the_hash_of_a_known_text_never_changes() -> None:
    assert stable_hash("") == 0x80C48B0B757DF3DA
    assert stable_hash("key-0") == 0x49A54DB6564A716F


@pytest.mark.parametrize("seed", ["1", "2"])
def test_shards_do_not_depend_on_the_hash_seed_of_the_process(seed: str) -> None:
    code = "from celery_ha.keys import shard_of; print([shard_of(f'key-{i}', 64) for i in range(50)])"
    env = {**os.environ, "PYTHONHASHSEED": seed}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True, text=True)
    assert json.loads(out.stdout) == [shard_of(f"key-{i}", 64) for i in range(50)]


@given(st.text(), st.integers(1, 2000), st.integers(0, 2000))
def test_more_shards_move_a_key_to_a_new_shard_only(key: str, shards: int, more: int) -> None:
    before, after = shard_of(key, shards), shard_of(key, shards + more)
    assert 0 <= before < shards
    assert after == before or shards <= after < shards + more


def test_one_shard_more_moves_only_its_share_of_the_keys() -> None:
    keys = [f"key-{n}" for n in range(20_000)]
    moved = sum(shard_of(key, 64) != shard_of(key, 65) for key in keys)
    assert moved == pytest.approx(len(keys) / 65, rel=0.25)


def test_keys_spread_evenly_over_the_shards() -> None:
    loads = Counter(shard_of(f"key-{n}", 16) for n in range(16_000))
    assert len(loads) == 16
    assert max(loads.values()) < 1200


def test_a_text_that_is_no_unicode_has_a_hash_all_the_same() -> None:
    assert 0 <= shard_of("caf\udce9", 8) < 8


@pytest.mark.parametrize("shards", [0, -1])
def test_no_shards_are_refused(shards: int) -> None:
    with pytest.raises(ValueError, match="at least one shard"):
        shard_of("key", shards)


# Names.


def test_shards_are_named_after_their_queue() -> None:
    assert shard_name("orders", 7) == "orders.7"
    assert shard_names("orders", 3) == ("orders.0", "orders.1", "orders.2")


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("orders.0", "orders"),
        ("orders.63", "orders"),
        ("orders.70", "orders"),  # there were more of them once
        ("eu.orders.3", "eu.orders"),
        ("orders", None),
        ("orders.", None),
        ("orders.007", None),
        ("orders.00", None),
        ("orders.-1", None),
        ("orders.+1", None),
        ("orders. 1", None),
        ("orders.1x", None),
        ("orders.1.2", None),
        ("orders.٣", None),
        ("orders.²", None),
        ("eu.orders", None),
        ("others.1", None),
        (".1", None),
        ("", None),
    ],
)
def test_only_a_shard_has_a_base_queue(name: str, base: str | None) -> None:
    assert base_of(name, QUEUES) == base


@given(st.integers(0, 10_000))
def test_every_shard_finds_its_base_queue(index: int) -> None:
    assert base_of(shard_name("eu.orders", index), QUEUES) == "eu.orders"


# Texts of values.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", "a b"),
        (17, "17"),
        (True, "True"),
        (None, "None"),
        (1.5, "1.5"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone.utc), "2026-01-02T03:00:00+00:00"),
        (Colour.RED, "red"),
        (Level.HIGH, "3"),
        ((), "[]"),
        ([1, "x", None], '["1","x","None"]'),
        ((1, (2,)), '["1",["2"]]'),
        ({"b": 1, "a": [Colour.RED]}, '{"a":["red"],"b":"1"}'),
    ],
)
def test_a_value_has_one_text(value: object, text: str) -> None:
    assert canonical(value) == text


def test_the_order_of_a_mapping_does_not_change_its_text() -> None:
    assert canonical({"a": 1, "b": {"c": 2, "d": 3}}) == canonical({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [(["a,b"], ["a", "b"]), (["a", ["b"]], ["a", "b"]), ({"a": "b"}, ["a", "b"]), (['a","b'], ["a", "b"])],
)
def test_values_of_another_shape_have_another_text(one: object, other: object) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize("value", [object(), SimpleNamespace(a=1), {1, 2}, b"x", [object()], {"a": object()}, print])
def test_a_value_without_a_stable_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="has no stable text form"):
        canonical(value)


class Bare:
    def method(self) -> None: ...


@pytest.mark.parametrize("value", [Bare(), Bare().method, Bare.method, (n for n in ()), lambda: None, iter([])])
def test_the_text_of_a_memory_address_is_refused_as_the_object_itself_is(value: object) -> None:
    for text in (repr(value), f"order {value}", [str(value)]):
        with pytest.raises(ValueError, match="another text in every process"):
            canonical(text)


@pytest.mark.parametrize("text", ["<html>", "meet at 0x10", "<b> at 0xff", "an object at 0x7f", "x < y at 0x1 > z"])
def test_a_text_that_only_looks_a_little_like_an_address_is_a_key(text: str) -> None:
    assert canonical(text) == text


def test_a_name_has_at_most_1_kb_of_utf_8() -> None:
    assert name_of("ä" * 512) == "ä" * 512
    with pytest.raises(ValueError, match="1025 bytes, more than 1024"):
        name_of("ä" * 512 + "x")
    with pytest.raises(ValueError, match="no valid Unicode"):
        name_of("caf\udce9")


# Templates.


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("order.{order_id}", "order.17"),
        ("{order_id}:{name}", "17:Ada"),
        ("user.{user.id}", "user.5"),
        ("{row[city]}/{row[tags][0]}", "Bern/x"),
        ("{{{order_id}}}", "{17}"),
        ("everything", "everything"),
        ("{tags}", '["x","y"]'),
    ],
)
def test_a_template_takes_the_arguments_by_name(template: str, key: str) -> None:
    arguments = {
        "order_id": 17,
        "name": "Ada",
        "user": SimpleNamespace(id=5),
        "row": {"city": "Bern", "tags": ["x"]},
        "tags": ("x", "y"),
    }
    assert render(template, arguments) == key


@pytest.mark.parametrize("template", ["{oder_id}", "{}", "{0}", "{order_id.real.x}", "{order_id[3]}", "{order_id[a}"])
def test_a_placeholder_for_nothing_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="the key"):
        render(template, {"order_id": 17, "amount": 1})


def test_the_refusal_of_a_placeholder_says_which_arguments_there_are() -> None:
    with pytest.raises(ValueError) as refusal:
        render("order.{oder_id}", {"order_id": 17, "amount": 1})
    assert "{oder_id}" in str(refusal.value)
    assert "amount, order_id" in str(refusal.value)


def test_the_refusal_names_the_argument_without_a_stable_text() -> None:
    with pytest.raises(ValueError, match=r"argument 'user' .*SimpleNamespace"):
        render("user.{user}", {"user": SimpleNamespace(id=5)})


@pytest.mark.parametrize("template", ["{order_id", "order_id}", "{order_id!z"])
def test_a_template_that_cannot_be_read_is_refused_by_name(template: str) -> None:
    with pytest.raises(ValueError, match="cannot be read") as refusal:
        render(template, {"order_id": 17})
    assert repr(template) in str(refusal.value)


@pytest.mark.parametrize("template", ["{order_id:05d}", "{order_id!r}"])
def test_a_format_is_refused_rather_than_ignored(template: str) -> None:
    with pytest.raises(ValueError, match="must stand alone"):
        render(template, {"order_id": 17})


@settings(max_examples=50)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.integers() | st.text(), min_size=1))
def test_a_key_does_not_depend_on_the_order_of_the_arguments(arguments: dict[str, object]) -> None:
    template = "/".join(f"{{{name}}}" for name in sorted(arguments))
    assert render(template, arguments) == render(template, dict(reversed(arguments.items())))
