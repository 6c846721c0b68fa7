"""Resources that refuse a stale token: the helpers, and the recipes of the page as they stand there."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from http.server import HTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import redis
from celery import Celery

from celery_ha import StaleToken, locked_task
from celery_ha.fenced import fenced_set, fenced_update

pytestmark = pytest.mark.contract

PAGE = Path(__file__).parents[2] / "docs" / "fencing.md"
#: A token of today: microseconds since 1970.
NOW = 1_800_000_000_000_000


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE account (id INTEGER, shop TEXT, balance, token BIGINT NOT NULL DEFAULT 0)")
    connection.executemany("INSERT INTO account VALUES (?, ?, ?, 0)", [(7, "a", 0), (7, "b", 0), (8, "a", 0)])
    yield connection
    connection.close()


@pytest.fixture
def client(redis_server) -> Iterator[redis.Redis]:
    connection = redis.Redis.from_url(redis_server.url)
    connection.flushall()
    yield connection
    connection.close()


def balances(db):
    return [balance for (balance,) in db.execute("SELECT balance FROM account ORDER BY id, shop")]


# A row.


def test_a_row_refuses_a_smaller_token_than_it_has_seen_and_stays_as_it_is(db):
    key = {"id": 7, "shop": "b"}
    fenced_update(db, "account", key, NOW, {"balance": 10})
    fenced_update(db, "account", key, NOW, {"balance": 20})
    with pytest.raises(StaleToken, match=str(NOW - 1)):
        fenced_update(db, "account", key, NOW - 1, {"balance": 30})
    assert balances(db) == [0, 20, 0]

    fenced_update(db, "account", key, NOW + 1, {"balance": 40})
    assert balances(db) == [0, 40, 0]


def test_a_row_that_is_not_there_is_not_written_in_silence(db):
    with pytest.raises(StaleToken, match="no such row"):
        fenced_update(db, "account", {"id": 9}, NOW, {"balance": 1})


def test_a_cursor_will_do_and_the_callers_transaction_decides(db):
    db.commit()
    fenced_update(db.cursor(), "main.account", {"id": 8}, NOW, {"balance": 5})
    db.rollback()

    assert balances(db) == [0, 0, 0]
    fenced_update(db.cursor(), "account", {"id": 8}, 1, {"balance": 6})


def test_another_column_may_keep_the_token(db):
    db.execute("ALTER TABLE account ADD fence BIGINT NOT NULL DEFAULT 0")
    fenced_update(db, "account", {"id": 8}, 2, {"balance": 5}, column="fence")
    with pytest.raises(StaleToken):
        fenced_update(db, "account", {"id": 8}, 1, {"balance": 5}, column="fence")


class Recorder:
    """What a driver of another paramstyle is asked for."""

    rowcount = 1

    def execute(self, statement, parameters):
        self.asked = statement, parameters


@pytest.mark.parametrize(
    ("paramstyle", "statement", "parameters"),
    [
        ("qmark", "UPDATE t SET a = ?, token = ? WHERE id = ? AND token <= ?", (1, 5, 7, 5)),
        ("format", "UPDATE t SET a = %s, token = %s WHERE id = %s AND token <= %s", (1, 5, 7, 5)),
        ("numeric", "UPDATE t SET a = :1, token = :2 WHERE id = :3 AND token <= :4", (1, 5, 7, 5)),
        (
            "named",
            "UPDATE t SET a = :p1, token = :p2 WHERE id = :p3 AND token <= :p4",
            {"p1": 1, "p2": 5, "p3": 7, "p4": 5},
        ),
        (
            "pyformat",
            "UPDATE t SET a = %(p1)s, token = %(p2)s WHERE id = %(p3)s AND token <= %(p4)s",
            {"p1": 1, "p2": 5, "p3": 7, "p4": 5},
        ),
    ],
)
def test_the_statement_is_written_as_the_driver_wants_it(paramstyle, statement, parameters):
    cursor = Recorder()
    fenced_update(cursor, "t", {"id": 7}, 5, {"a": 1}, paramstyle=paramstyle)
    assert cursor.asked == (statement, parameters)


@pytest.mark.parametrize("paramstyle", [None, "qmark", "named"])
def test_every_style_that_sqlite_reads_writes_the_row(db, paramstyle):
    fenced_update(db, "account", {"id": 8}, 5, {"balance": 1}, paramstyle=paramstyle)
    assert balances(db) == [0, 0, 1]


@pytest.mark.parametrize(
    ("table", "key", "values", "options"),
    [
        ("account; DROP TABLE account", {"id": 7}, {"balance": 1}, {}),
        ("account", {"id = 7 OR 1": 1}, {"balance": 1}, {}),
        ("account", {"id": 7}, {"balance = 1, id": 1}, {}),
        ("account", {"id": 7}, {"balance": 1}, {"column": "1 = 1 --"}),
        ("account", {}, {"balance": 1}, {}),
        ("account", {"id": 7}, {"balance": 1}, {"paramstyle": "colon"}),
    ],
)
def test_what_is_no_plain_name_gets_into_no_statement(db, table, key, values, options):
    with pytest.raises(ValueError, match=r"plain name|needs the key|paramstyle"):
        fenced_update(db, table, key, NOW, values, **options)
    assert balances(db) == [0, 0, 0]


def test_a_driver_that_does_not_say_its_style_is_asked_for_it():
    with pytest.raises(ValueError, match="pass paramstyle"):
        fenced_update(Recorder(), "t", {"id": 1}, 1, {})


# A value in Redis.


def test_a_value_refuses_a_smaller_token_than_it_has_seen(client):
    fenced_set(client, "x", "one", NOW)
    fenced_set(client, "x", "two", NOW)
    with pytest.raises(StaleToken, match=str(NOW)):
        fenced_set(client, "x", "late", NOW - 1)
    assert client.hgetall("x") == {b"value": b"two", b"token": str(NOW).encode()}

    fenced_set(client, "x", "three", NOW + 1)
    assert client.hget("x", "value") == b"three"


def test_a_server_that_forgot_the_script_is_told_again(client):
    fenced_set(client, "x", 1, 1)
    client.script_flush()
    fenced_set(client, "x", b"2", 2)
    assert client.hget("x", "value") == b"2"


# The page.


@pytest.fixture(scope="module")
def recipes():
    """The names that the page's code defines, run in its order."""
    names = {"app": Celery("page", set_as_current=False), "locked_task": locked_task}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_recipe_for_a_row_holds(recipes, db):
    recipes["set_balance"](db, 8, 5, token=34)
    with pytest.raises(StaleToken):
        recipes["set_balance"](db, 8, 6, token=33)
    assert balances(db) == [0, 0, 5]


def test_the_recipe_for_redis_holds(recipes, client):
    recipes["publish_price"](client, "tea", 5, token=34)
    with pytest.raises(StaleToken):
        recipes["publish_price"](client, "tea", 6, token=33)
    assert recipes["price_of"](client, "tea") == b"5"


def test_the_recipe_for_http_holds(recipes):
    resource = type("Quiet", (recipes["Resource"],), {"log_message": lambda *_: None})
    with HTTPServer(("127.0.0.1", 0), resource) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/x"
        try:
            recipes["put"](url, b"new", 34)
            recipes["put"](url, b"newer", 34)
            with pytest.raises(StaleToken):
                recipes["put"](url, b"late", 33)
            with pytest.raises(HTTPError, match="428"):
                urlopen(Request(url, b"bare", method="PUT"))
        finally:
            server.shutdown()
            thread.join()
    assert resource.value == b"newer"
