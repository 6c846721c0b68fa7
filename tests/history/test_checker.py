"""Each rule by a history that keeps it and by one that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf

import pytest

from tests.history.checker import check
from tests.history.event import Event

TTL = 2.0


def at(seconds: float, kind: str, pid: int = 0, hold: int = 0, **what: object) -> Event:
    """An event of process ``pid``'s hold of lock ``a``."""
    return Event(seconds, kind, pid, "a" if hold else "", hold, **what)


def holding(
    pid: int,
    *,
    since: float,
    until: float,
    asked: float | None = None,
    hold: int = 1,
    told: bool = False,
    **terms: object,
) -> list[Event]:
    """A whole hold, from just after the server's grant to just before the release."""
    token = round(since * 1_000_000)
    return [
        at(since - 0.01 if asked is None else asked, "ask", pid, hold, **terms),
        at(since + 0.001, "granted", pid, hold, token=token, claim=f"{pid}.{hold}"),
        at(until, "releasing", pid, hold),
        at(until + 0.001, "released", pid, hold, yes=not told),
    ]


def rules(*parts: Iterable[Event], session: float = inf) -> set[str]:
    """Which rules a history breaks; its parts are put in the order of their times."""
    events = sorted((event for part in parts for event in part), key=lambda event: event.at)
    return {violation.rule for violation in check(events, TTL, session)}


def test_holds_one_after_the_other_break_nothing():
    assert rules(holding(1, since=10, until=11), holding(2, since=11.1, until=12, asked=10.5)) == set()


def test_two_holders_at_once_are_found_and_the_first_was_not_told():
    assert rules(holding(1, since=10, until=12), holding(2, since=11, until=13)) == {"two holders", "untold loss"}


def test_as_many_as_the_limit_may_hold_it_and_not_one_more():
    pair = [holding(pid, since=10 + pid / 10, until=12, limit=2) for pid in (1, 2)]
    assert rules(*pair) == set()
    assert rules(*pair, holding(3, since=11, until=11.5, limit=2)) == {"two holders"}


def test_holder_that_was_killed_holds_it_no_longer():
    events = [event for event in holding(1, since=10, until=12) if event.kind in ("ask", "granted")]
    heir = holding(2, since=11, until=13)
    assert rules(events, [at(10.5, "kill", 1)], heir) == set()
    assert rules(events, [at(11.5, "kill", 1)], heir) == {"two holders"}


def test_old_token_that_is_accepted_is_found():
    first, second = holding(1, since=10, until=11), holding(2, since=11.1, until=12)
    touches = [
        at(10.5, "touch", 1, 1, token=first[1].token),
        at(11.5, "touch", 2, 1, token=second[1].token),
    ]
    assert rules(first, second, touches) == set()
    late = at(11.6, "touch", 1, 1, token=first[1].token)
    assert rules(first, second, [*touches, late]) == {"old token"}


def test_holder_that_is_refused_by_what_it_guards_is_found():
    first = holding(1, since=10, until=11)
    assert rules(first, [at(10.5, "touch", 1, 1, token=first[1].token, yes=False)]) == {"refused holder"}


def test_token_that_does_not_grow_is_found():
    first, second = holding(1, since=10, until=11), holding(2, since=11.1, until=12)
    smaller = [
        at(11.1, "ask", 2, 1),
        at(11.2, "granted", 2, 1, token=5, claim="2.1"),
        at(11.3, "releasing", 2, 1),
        at(11.31, "released", 2, 1),
    ]
    assert rules(first, second) == set()
    assert "token shrank" in rules(first, smaller)


def test_token_that_is_granted_twice_is_found():
    first = holding(1, since=10, until=11)
    again = holding(2, since=11.1, until=12, asked=10.5)
    again[1] = at(11.2, "granted", 2, 1, token=first[1].token, claim="2.1")
    assert "token twice" in rules(first, again)


def stopped(since: float, until: float) -> list[Event]:
    return [at(since, "stop", 1), at(until, "cont", 1)]


@pytest.mark.parametrize(
    ("blows", "broken"),
    [
        ([], {"false death"}),
        (stopped(10.1, 10.3), {"false death"}),
        ([at(10.2, "cut", 1)], {"false death"}),
        ([at(10.2, "stall"), at(12.0, "unstall")], {"false death"}),
        ([at(10.2, "down"), at(10.4, "up")], {"false death"}),
        ([at(10.2, "down", yes=False), at(10.4, "up")], set()),
        ([at(10.2, "cut", 1), *stopped(10.3, 11.0)], set()),
        (stopped(10.1, 13.0), set()),
    ],
    ids=["nothing", "short stop", "cut", "stall", "restart", "memory lost", "cut and short stop", "long stop"],
)
def test_loss_without_a_cause_is_found(blows: list[Event], broken: set[str]):
    assert rules(holding(1, since=10, until=13.1, told=True), blows) == broken


def test_silence_that_a_session_does_not_outlive_is_a_cause_and_a_restart_is_none():
    lost = holding(1, since=10, until=13.1, told=True)
    short, restart = stopped(10.1, 10.8), [at(10.2, "down"), at(11.9, "up")]
    assert rules(lost, short) == {"false death"}
    assert rules(lost, short, session=1.0) == set()
    assert rules(lost, stopped(10.1, 10.3), session=1.0) == {"false death"}
    assert rules(lost, restart, session=1.0) == {"false death"}


def test_token_that_tells_no_time_was_given_when_the_server_says():
    first, second = holding(1, since=10, until=11, max_hold=0.9, wait=5.0), holding(2, since=10.95, until=12)
    numbers = [replace(event, token=number) for number, hold in ((7, first), (8, second)) for event in hold[1:2]]
    parts = [first[0], *first[2:], second[0], *second[2:], *numbers]
    dates = [at(20, "dated", token=7, served=10.0), at(20, "dated", token=8, served=10.95)]
    assert rules(parts, dates) == {"untold loss"}
    late = [replace(dates[0], served=10.5), replace(dates[1], served=11.01)]
    assert rules(parts, late) == {"two holders"}


def test_max_hold_is_a_cause_once_it_is_over():
    assert rules(holding(1, since=10, until=11, told=True, max_hold=0.5)) == set()
    assert rules(holding(1, since=10, until=11, told=True, max_hold=5.0)) == {"false death"}


def test_max_hold_counts_from_the_question_of_who_does_not_wait():
    asked = {"asked": 9, "since": 10, "until": 10.5, "told": True, "max_hold": 1.0}
    assert rules(holding(1, **asked)) == set()
    assert rules(holding(1, **asked, wait=2.0)) == {"false death"}


@pytest.mark.parametrize(
    ("wait", "blows", "broken"),
    [
        (3.0, [], set()),
        (3.5, [], {"turned away"}),
        (-1.0, [], {"turned away"}),
        (-1.0, [at(10.2, "cut", 1)], {"turned away"}),
        (-1.0, stopped(10.1, 13.0), set()),
    ],
    ids=["in time", "too early", "would wait for ever", "cut", "long stop"],
)
def test_caller_that_is_turned_away_early_is_found(wait: float, blows: list[Event], broken: set[str]):
    assert rules([at(10, "ask", 1, 1, wait=wait), at(13.01, "busy", 1, 1)], blows) == broken


def test_loss_that_is_not_told_is_found():
    frozen, heir = stopped(10.1, 13.0), holding(2, since=12.5, until=12.9)
    assert rules(holding(1, since=10, until=13.1, told=True), frozen, heir) == set()
    assert rules(holding(1, since=10, until=13.1), frozen, heir) == {"untold loss"}


def test_loss_that_is_told_late_is_found_from_when_its_holder_runs_again():
    frozen, heir = stopped(10.1, 14.0), holding(2, since=12.5, until=12.9)
    assert rules(holding(1, since=10, until=14 + TTL, told=True), frozen, heir) == set()
    assert rules(holding(1, since=10, until=18, told=True), frozen, heir) == {"loss told late"}


def test_loss_by_a_server_that_lost_its_memory_may_be_told_at_the_release():
    lost = [at(10.5, "down", yes=False), at(10.6, "up")]
    assert rules(holding(1, since=10, until=18, told=True), lost, holding(2, since=12.5, until=12.9)) == set()


def in_line(seconds: float, *who: int) -> Event:
    return Event(seconds, "line", lock="a", line=tuple((pid, f"{pid}.1") for pid in who))


@pytest.fixture
def overtaken() -> Callable[..., set[str]]:
    """Process 2 stands before process 3 and comes to another end than a grant."""

    def judge(outcome: str, ended: float, *blows: Event) -> set[str]:
        first = [at(10.1, "ask", 2, 1), at(10.1, "claim", 2, 1, claim="2.1"), at(ended, outcome, 2, 1)]
        return rules([in_line(10.5, 2, 3)], first, holding(3, since=11, until=12, asked=10.2), blows)

    return judge


def test_line_that_is_served_in_order_breaks_nothing():
    first, second = holding(2, since=11, until=12, asked=10.1), holding(3, since=12.1, until=13, asked=10.2)
    assert rules([in_line(10.5, 2, 3), in_line(11.5, 3)], first, second) == set()
    assert rules([in_line(10.5, 3, 2), in_line(11.5, 3)], first, second) == {"out of order"}


def test_who_asks_later_and_is_served_before_the_line_is_found():
    first, second = holding(2, since=12, until=13, asked=10.1), holding(3, since=11, until=11.5, asked=10.6)
    assert rules([in_line(10.5, 2)], first, second) == {"out of order"}
    assert rules([in_line(10.7, 2)], first, second) == set(), "who of the two came first is not known"


def test_place_in_line_goes_with_its_session_when_the_server_stalls():
    first, second = holding(2, since=13, until=13.5, asked=10.1), holding(3, since=12.1, until=13, asked=10.2)
    stall = [at(10.6, "stall"), at(11.9, "unstall")]
    assert rules([in_line(10.5, 2, 3)], first, second, stall) == {"out of order"}
    assert rules([in_line(10.5, 2, 3)], first, second, stall, session=1.0) == set()


def test_who_was_silent_in_line_for_a_ttl_may_be_passed_over():
    first, second = holding(2, since=14, until=14.2, asked=10.1), holding(3, since=12, until=12.9)
    line = in_line(10.5, 2, 3)
    assert rules([line], first, second, [at(10.6, "stop", 2), at(12.5, "cont", 2)]) == {"out of order"}
    assert rules([line], first, second, [at(10.6, "stop", 2), at(12.7, "cont", 2)]) == set()


def test_turn_that_came_and_passed_while_its_process_was_stopped_is_over():
    first, second = holding(2, since=13, until=13.2, asked=10.1, max_hold=0.3), holding(3, since=12, until=12.9)
    frozen = [at(10.6, "stop", 2), at(12.5, "cont", 2)]
    line = in_line(10.5, 2, 3)
    assert rules([line], first, second) == {"out of order"}
    assert rules([line], first, second, frozen) == set()


def test_who_is_overtaken_and_then_gives_up_is_found(overtaken):
    assert overtaken("busy", 14.0) == {"out of order"}


def test_entry_that_an_earlier_call_left_behind_is_nobodys():
    earlier = [at(10.0, "ask", 2, 1), at(10.0, "claim", 2, 1, claim="2.1"), at(10.4, "unavailable", 2, 1)]
    now = [at(10.45, "ask", 2, 2, wait=2.0), at(10.45, "claim", 2, 2, claim="2.2"), at(13, "busy", 2, 2)]
    assert rules([in_line(10.5, 2, 3)], earlier, now, holding(3, since=11, until=12, asked=10.2)) == set()


def test_who_stepped_out_of_the_line_before_is_not_overtaken(overtaken):
    assert overtaken("busy", 10.9) == set()
    assert overtaken("unavailable", 14.0) == set()


@pytest.mark.parametrize("blow", ["kill", "stop", "cut"])
def test_who_was_struck_in_line_may_be_passed_over(overtaken, blow: str):
    assert overtaken("busy", 14.0, at(10.6, blow, 2)) == set()


@pytest.mark.parametrize(
    ("event", "rule"),
    [
        (at(20, "hung", 1), "hung"),
        (at(20, "exit", 1, yes=False), "crashed"),
        (at(20, "left", hold=1), "left over"),
        (at(20, "exit", 1), None),
    ],
)
def test_bad_end_is_found(event: Event, rule: str | None):
    whole = [event] if event.hold == 0 else [Event(20, "left", lock="a")]
    assert rules(holding(1, since=10, until=11), whole) == ({rule} if rule else set())


def test_newcomer_that_does_not_get_a_lock_is_found():
    newcomer = [at(20, "newcomer", 9)]
    assert rules(newcomer, holding(9, since=20.1, until=20.2)) == set()
    assert rules(newcomer, [at(20.1, "ask", 9, 1), at(23, "busy", 9, 1)]) == {"not free"}
