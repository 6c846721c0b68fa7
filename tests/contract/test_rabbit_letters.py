"""Dead letters on RabbitMQ, looked at by several at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from kombu import Connection

from celery_ha.brokers import amqp_letters
from celery_ha.brokers.amqp_dead import DEAD_HEADER, DEAD_QUEUE, declare_dead_queue
from celery_ha.brokers.amqp_letters import AmqpDeadLetters
from celery_ha.brokers.amqp_peek import Peek
from celery_ha.errors import StoreError
from tests.support.fleet import eventually
from tests.support.rabbit import Rabbit

ALL = ["L.5", "L.4", "L.3", "L.2", "L.1"]


@pytest.fixture
def look(rabbit: Rabbit) -> Iterator[Callable[[], AmqpDeadLetters]]:
    """Lookers of one queue with five letters, each over a connection of its own."""
    url = rabbit.url()
    with ExitStack() as stack, Connection(url, transport_options={"confirm_publish": True}) as connection:
        declare_dead_queue(connection.channel())
        producer = connection.Producer()
        for number in range(1, 6):
            why = {"reason": "poison", "queue": "work", "claim": f"L.{number}", "at": number}
            headers = {"id": f"task-{number % 2}", DEAD_HEADER: json.dumps(why)}
            producer.publish("x", routing_key=DEAD_QUEUE, headers=headers)

        def make() -> AmqpDeadLetters:
            own = stack.enter_context(Connection(url, transport_options={"confirm_publish": True}))
            return AmqpDeadLetters(Peek(own, url), lambda _name: None)

        yield make


def ids(letters: AmqpDeadLetters) -> list[str]:
    return [letter.claim.id for letter in letters]


def test_list_takes_a_page_and_leaves_everything_there(look, monkeypatch):
    monkeypatch.setattr(amqp_letters, "PAGE", 3)
    letters = look()
    assert [letter.claim.id for letter in letters.newest(2)] == ["L.3", "L.2"]
    assert [letter.claim.id for letter in letters.newest(9)] == ["L.3", "L.2", "L.1"]
    assert ids(letters) == ALL


def test_letter_is_found_by_its_id_and_by_its_task_the_newest(look):
    letters = look()
    assert letters.find("L.2").claim.id == "L.2"
    assert letters.find("task-1").claim.id == "L.5"
    assert letters.find("missing") is None
    assert ids(letters) == ALL


def test_second_looker_waits_for_the_first_and_sees_every_letter(look):
    first, second = look(), look()
    with ThreadPoolExecutor(1) as pool:
        with first._browse() as (_, found):
            assert len(list(found)) == 5
            answer = pool.submit(ids, second)
            # It has been refused at least once by the time that a third one was.
            eventually(lambda: not answer.done())
        assert answer.result(30) == ALL


def test_looker_that_comes_to_no_end_is_told_of(look, monkeypatch):
    monkeypatch.setattr(amqp_letters, "PATIENCE", 0.1)
    first, second = look(), look()
    with first._browse(), pytest.raises(StoreError, match="somebody else"):
        second.newest(1)


def test_looker_that_died_holds_nobody_up(look):
    first, second = look(), look()
    browsing = first._browse()
    _, found = browsing.__enter__()
    assert len(list(found)) == 5
    first._peek.connection.connection.transport.sock.close()
    first._peek.connection.collect()
    assert eventually(lambda: ids(second)) == ALL


def test_letters_are_dropped_once_whoever_wants_it_too(look):
    first, second = look(), look()
    chosen = [letter for letter in first if letter.claim.id in {"L.2", "L.4"}]
    with ThreadPoolExecutor(2) as pool:
        dropped = [pool.submit(which.drop, chosen) for which in (first, second)]
        assert sorted(each.result(30) for each in dropped) == [0, 2]
    assert ids(first) == ["L.5", "L.3", "L.1"]
