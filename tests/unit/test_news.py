"""What is told: the fields of events, the lines of the log, the page about them, and what is counted."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import string
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from celery_ha.errors import ConfigError
from celery_ha.telling import news
from celery_ha.telling.metrics import Metrics
from celery_ha.telling.news import ALWAYS, KINDS, News, logfmt
from celery_ha.telling.serve import serve
from celery_ha.telling.teller import Teller

prometheus_client = pytest.importorskip("prometheus_client")

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


def some(kind: news.Kind) -> News:
    values = {"queues": {"a": 1}, "clean": True}
    return News.of(kind, **{name: values.get(name, 1) for name in kind.fields})


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("events_tool", ROOT / "tools" / "events.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool):
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(), "run python tools/events.py"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_line_has_a_sentence_and_every_field(kind):
    line = some(kind).line()
    assert f" [{kind.name} node=" in line
    assert [name for name in (*ALWAYS, *kind.fields) if f" {name}=" not in line] == []
    assert {name for _, name, _, _ in string.Formatter().parse(kind.text) if name} <= {*ALWAYS, *kind.fields}


@pytest.mark.parametrize("fields", [{"clean": True, "more": 1}, {}])
def test_news_with_other_fields_than_documented_are_refused(fields):
    with pytest.raises(ValueError, match="ha-drained has"):
        News.of(news.DRAINED, **fields)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain@host", "plain@host"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "no"', '"say \\"no\\""'),
        ("line\nbreak\x1b[31m", '"line\\nbreak\\x1b[31m"'),
        ("a=b", '"a=b"'),
        (True, "true"),
        (0.25, "0.25"),
        ({"orders.1": 2, "celery": 1}, "orders.1:2,celery:1"),
    ],
)
def test_a_value_can_break_neither_the_line_nor_its_form(value, written):
    assert logfmt({"x": value}) == f"x={written}"


def test_a_log_record_carries_the_fields(caplog):
    with caplog.at_level(logging.INFO, "celery_ha.decisions"):
        Teller().tell(news.FENCED, node="w1", lease="a", term=3, reason="connections gone")
    (record,) = caplog.records
    assert (record.ha_event, record.ha["term"], record.levelname) == ("ha-fenced", 3, "WARNING")
    assert record.message == (
        'Fenced w1: connections gone [ha-fenced node=w1 lease=a term=3 reason="connections gone"]'
    )


class Heard:
    """Hears and measures."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self.measured: list[tuple[str, dict[str, str]]] = []

    def put(self, news: News) -> None:
        self.news.append(news)

    def measure(self, what: str, seconds: float, labels: dict[str, str]) -> None:
        self.measured.append((what, labels))

    def close(self, within: float) -> None:
        pass


def test_what_a_killed_child_told_last_has_arrived_whole():
    # Given a teller whose process forks
    heard, teller = Heard(), Teller()
    teller.open("w1@host", [heard], heard, forks=True)
    teller.term = 7
    # When children tell a lot and are killed
    for number in range(4):
        if os.fork() == 0:
            for _ in range(20):
                teller.measure("lock_hold", 0.1, task="t")
            fields = {"claim": "a.1", "task_id": "x", "lock": "l" * 900, "token": number, "cause": "taken"}
            teller.tell(news.LOCK_LOST, lease="a", **fields)
            os.kill(os.getpid(), 9)
        os.wait()
    teller.close(1.0)
    # Then all of it was heard in the main process, in its name and its term
    assert sorted(each.fields["token"] for each in heard.news) == [0, 1, 2, 3]
    assert {(each.fields["node"], each.fields["term"]) for each in heard.news} == {("w1@host", 7)}
    assert heard.measured == [("lock_hold", {"task": "t"})] * 80


def test_a_child_whose_main_process_does_not_listen_is_not_held_up(caplog):
    # Given a pipe that nobody empties
    heard, teller = Heard(), Teller()
    teller.open("w1@host", [heard], heard, forks=True)
    child = os.fork()
    if child == 0:
        for _ in range(5_000):  # several times what a pipe holds
            teller._pipe.send({"measure": "lock_hold", "seconds": 1.0, "labels": {"task": "t" * 200}})
        os._exit(0)
    # Then it comes to its end
    _, status = os.waitpid(child, 0)
    assert status == 0
    teller.close(1.0)


def samples(registry) -> dict[str, float]:
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_what_is_not_foreseen_makes_no_new_series():
    # Given metrics that have counted all there is
    registry = prometheus_client.CollectorRegistry()
    metrics = Metrics(registry)
    before = samples(registry).keys()
    # When news come with reasons nobody has thought of
    for kind in KINDS.values():
        for odd in ("odd", "odder"):
            fields = {**some(kind).fields, "node": odd, "lease": odd, "reason": odd}
            metrics.put(News(kind, {**fields, **({"cause": odd} if "cause" in kind.fields else {})}))
    # Then there are no more series than before
    assert samples(registry).keys() == before
    assert samples(registry)["celery_ha_deaths_total|other"] == 2


def test_an_event_of_another_version_or_of_somebody_else_counts_nothing():
    registry = prometheus_client.CollectorRegistry()
    metrics = Metrics(registry)
    before = samples(registry)
    for event in ({"type": "task-received"}, {"type": "ha-of-tomorrow"}, {"type": "ha-fenced", "node": "w1"}, {}):
        metrics.put_event(event)
    assert samples(registry) == before
    metrics.put_event({"type": "ha-leader", **dict.fromkeys(ALWAYS, ""), "hostname": "w1", "of tomorrow": 1})
    assert samples(registry)["celery_ha_elections_total"] == 1


def test_a_port_that_is_taken_stops_no_worker(caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert serve(f"127.0.0.1:{taken.getsockname()[1]}") is None
    assert "needs a port of its own" in caplog.text


def test_a_pool_child_does_not_keep_the_port_of_its_main_process():
    code = """
        import os, socket, time
        from celery_ha.telling.serve import serve
        port, (told, tell) = serve("127.0.0.1:0"), os.pipe()
        if os.fork():
            os.read(told, 1)
            print(port, flush=True)
            os._exit(0)
        os.write(tell, b"x")
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        port = int(process.stdout.readline())
        assert process.wait(30) == 0  # its child lives on
        with socket.socket() as heir:
            heir.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            heir.bind(("127.0.0.1", port))
            heir.listen()
    finally:
        os.killpg(process.pid, 9)


def test_metrics_without_prometheus_client_are_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"pip install 'celery-ha\[metrics\]'"):
        serve(0)
