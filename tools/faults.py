"""Writes ``docs/faults.md``: every fault, every guarantee it puts to the test, and the test that shows it.

python tools/faults.py            write it
python tools/faults.py --check    fail if it is not up to date

Either way it fails when a test that is named here does not exist.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "faults.md"

GUARANTEES = {
    "G1": "nothing accepted is lost",
    "G2": "a fenced lease starts nothing; what had not started runs once",
    "G3": "a lock has one holder, its token grows",
    "G4": "fast",
    "G5": "no false deaths",
    "G6": "the message survives whole",
    "G7": "a poison task stops, alone",
    "G8": "drop-in",
}

DEATH, FREEZE, LEAVE = "integration/test_death.py", "integration/test_freeze.py", "integration/test_leave.py"
CHILDREN, POISON, FEATURES = (
    "integration/test_children.py",
    "integration/test_poison.py",
    "integration/test_features.py",
)
SERVER, SENTINEL, OUTAGE = (
    "integration/test_server_faults.py",
    "integration/test_sentinels.py",
    "integration/test_outage.py",
)
STUCK, DRILL = "integration/test_stuck.py", "integration/test_drill.py"
LOCKS, NAMES, ROLLOUT = "integration/test_locks.py", "integration/test_names.py", "integration/test_rollout.py"
CHORDS, POOLS = "integration/test_chords.py", "integration/test_pools.py"
STARTS = "integration/test_rabbitmq_starts.py"

FENCED_PART = "test_part_that_wakes_up_fenced_neither_publishes_nor_fails_nor_cleans_what_its_other_attempt_needs"
FROZEN_MASTER = "test_frozen_master_that_wakes_when_another_is_in_its_place_loses_nothing_that_was_replicated"
CUT_OFF = (
    "integration/test_recovery_cut_off.py",
    "test_leader_killed_in_the_middle_of_a_recovery_is_followed_by_one_that_finishes_it",
)

#: Fault -> guarantee -> file and test.
MATRIX: dict[str, dict[str, tuple[str, str]]] = {
    "worker killed under load": {
        "G1": (DEATH, "test_killed_worker_under_load_loses_nothing_and_runs_nothing_twice_that_had_not_started"),
        "G2": (DEATH, "test_killed_worker_under_load_loses_nothing_and_runs_nothing_twice_that_had_not_started"),
        "G3": (LOCKS, "test_interrupted_task_takes_its_own_lock_back_before_anybody_else"),
        "G6": (FEATURES, "test_chord_whose_worker_is_killed_runs_its_body_once_with_all_results"),
    },
    "part of a chord: child or worker killed while it is counted": {
        "G1": (CHORDS, "test_body_runs_once_whoever_dies_at_whatever_step_of_counting_a_part"),
        "G6": (CHORDS, "test_body_runs_once_whoever_dies_at_whatever_step_of_counting_a_part"),
    },
    "part of a chord: frozen about to publish the body": {
        "G2": (CHORDS, FENCED_PART),
        "G6": (CHORDS, FENCED_PART),
    },
    "leader and deputy killed": {
        "G1": (DEATH, "test_leader_and_deputy_killed_together_are_recovered_by_the_third"),
    },
    "leader killed after each step of a recovery": dict.fromkeys(("G1", "G2", "G3"), CUT_OFF),
    "all workers killed": {"G1": (DEATH, "test_workers_started_after_all_were_killed_recover_everything")},
    "worker of any pool killed": {
        "G1": (POOLS, "test_killed_worker_of_any_pool_loses_nothing"),
        "G7": (POOLS, "test_what_is_due_and_has_no_slot_has_not_started"),
    },
    "the same on RabbitMQ": {"G7": (STARTS, "test_what_waits_for_a_slot_has_not_started")},
    "SystemExit in a thread or a greenlet": {
        "G1": (POOLS, "test_task_that_would_end_its_process_takes_no_slot_with_it")
    },
    "worker frozen": {
        "G1": (FREEZE, "test_frozen_worker_is_taken_over_and_starts_nothing_it_was_fenced_from"),
        "G2": (FREEZE, "test_frozen_worker_is_taken_over_and_starts_nothing_it_was_fenced_from"),
        "G4": (FREEZE, "test_frozen_worker_is_taken_over_and_starts_nothing_it_was_fenced_from"),
        "G5": (FREEZE, "test_freeze_shorter_than_half_the_ttl_fences_nobody"),
    },
    "leader frozen": {"G5": (FREEZE, "test_frozen_leader_is_deposed_and_judges_nobody_when_it_wakes")},
    "pool child: exit, segfault, OOM kill": {
        "G1": (CHILDREN, "test_lost_child_costs_its_task_one_attempt_and_frees_its_lock"),
        "G3": (CHILDREN, "test_lost_child_costs_its_task_one_attempt_and_frees_its_lock"),
        "G4": (CHILDREN, "test_lost_child_costs_its_task_one_attempt_and_frees_its_lock"),
    },
    "pool children killed in a row": {
        "G1": (CHILDREN, "test_children_killed_one_after_the_other_under_load_leave_nothing_stuck"),
    },
    "pool child: hard time limit": {
        "G3": (CHILDREN, "test_hard_time_limit_ends_a_task_once_and_frees_its_lock"),
    },
    "pool children that retire": {
        "G1": (CHILDREN, "test_children_that_retire_lose_nothing_and_run_nothing_twice"),
        "G3": (CHILDREN, "test_children_that_retire_lose_nothing_and_run_nothing_twice"),
    },
    "task that kills its process": {
        "G3": (POISON, "test_poison_task_is_given_up_and_errback_and_chord_are_told"),
        "G6": (POISON, "test_poison_task_is_given_up_and_errback_and_chord_are_told"),
        "G7": (POISON, "test_poison_task_is_given_up_and_errback_and_chord_are_told"),
    },
    "task that kills its worker": {
        "G1": (POISON, "test_task_that_kills_the_main_process_is_given_up_and_nothing_else"),
        "G7": (POISON, "test_task_that_kills_the_main_process_is_given_up_and_nothing_else"),
    },
    "message that kills whoever opens it": {
        "G1": (POISON, "test_message_that_kills_whoever_opens_it_is_given_up_and_drags_nobody_along"),
        "G7": (POISON, "test_message_that_kills_whoever_opens_it_is_given_up_and_drags_nobody_along"),
    },
    "task that kills whoever receives it": {
        "G6": (POISON, "test_task_that_kills_whoever_receives_it_is_given_up_unopened_and_everybody_is_told"),
        "G7": (POISON, "test_task_that_kills_whoever_receives_it_is_given_up_unopened_and_everybody_is_told"),
    },
    "message nobody can read": {
        "G1": ("integration/test_fuzz.py", "test_bad_message_is_kept_among_the_dead_letters_whole_with_a_reason"),
        "G7": ("integration/test_fuzz.py", "test_worker_lives_and_runs_every_good_task_once"),
    },
    "SIGTERM": {
        "G1": (LEAVE, "test_warm_shutdown_under_load_loses_nothing_and_runs_nothing_twice"),
        "G2": (LEAVE, "test_leaving_worker_gives_its_shards_and_what_waits_away_while_its_last_tasks_run"),
        "G5": (LEAVE, "test_warm_shutdown_under_load_loses_nothing_and_runs_nothing_twice"),
    },
    "SIGQUIT": {"G1": (LEAVE, "test_cold_shutdown_loses_nothing_and_repeats_only_what_was_cut_off")},
    "a second signal": {"G1": (LEAVE, "test_second_signal_loses_nothing_either")},
    "soft shutdown": {"G2": (LEAVE, "test_soft_shutdown_finishes_what_ends_in_its_time_and_gives_back_the_rest")},
    "`celery control shutdown`": {
        "G1": (LEAVE, "test_worker_told_by_remote_control_to_shut_down_says_goodbye"),
        "G5": (LEAVE, "test_worker_told_by_remote_control_to_shut_down_says_goodbye"),
    },
    "`celery ha drain`": {"G5": ("integration/test_cli.py", "test_drain_sends_a_node_home_without_a_failover")},
    "rolling restart of four": {
        "G1": (LEAVE, "test_rolling_restarts_under_load_lose_nothing_and_run_nothing_twice"),
        "G2": (LEAVE, "test_rolling_restarts_under_load_lose_nothing_and_run_nothing_twice"),
    },
    "server stalled, 5 and 14 s": {
        "G1": (SERVER, "test_stalled_server_loses_nothing_and_fences_nobody"),
        "G3": (SERVER, "test_stalled_server_loses_nothing_and_fences_nobody"),
        "G5": (SERVER, "test_stalled_server_loses_nothing_and_fences_nobody"),
    },
    "server stalled, seen by who waits for a lock": {
        "G3": (OUTAGE, "test_nothing_is_granted_twice_while_the_store_stalls"),
    },
    "server restarted with its memory": {
        "G1": (FREEZE, "test_server_that_restarts_with_its_memory_loses_nothing"),
        "G3": (OUTAGE, "test_a_call_that_waits_outlives_a_restart_of_the_store"),
        "G5": (FREEZE, "test_server_that_restarts_with_its_memory_loses_nothing"),
    },
    "server restarted without memory": {"G5": (FREEZE, "test_server_that_forgot_everything_kills_no_worker")},
    "database flushed": {
        "G3": (SERVER, "test_database_that_is_flushed_under_working_workers_kills_none_of_them"),
        "G5": (SERVER, "test_database_that_is_flushed_under_working_workers_kills_none_of_them"),
    },
    "scripts flushed": {
        "G1": (SERVER, "test_server_that_forgets_its_scripts_is_told_them_again"),
        "G5": (SERVER, "test_server_that_forgets_its_scripts_is_told_them_again"),
    },
    "server's clock an hour ahead, and back": {
        "G1": (SERVER, "test_server_whose_clock_jumps_an_hour_ahead_and_back_fences_nobody"),
        "G3": (SERVER, "test_server_whose_clock_jumps_an_hour_ahead_and_back_fences_nobody"),
        "G5": (SERVER, "test_server_whose_clock_jumps_an_hour_ahead_and_back_fences_nobody"),
    },
    "failover by Sentinel": {
        "G1": (SENTINEL, "test_failover_by_sentinel_kills_no_worker_and_no_token_goes_backwards"),
        "G3": (SENTINEL, "test_failover_by_sentinel_kills_no_worker_and_no_token_goes_backwards"),
        "G5": (SENTINEL, "test_failover_by_sentinel_kills_no_worker_and_no_token_goes_backwards"),
    },
    "master frozen, woken when another is in its place": {"G1": (SENTINEL, FROZEN_MASTER)},
    "chain across a failover": {"G6": (FEATURES, "test_chain_whose_worker_is_killed_in_the_middle_goes_on")},
    "1,000 ETA tasks across a failover": {
        "G1": (FEATURES, "test_eta_tasks_of_a_killed_worker_run_once_elsewhere_and_not_too_early"),
        "G6": (FEATURES, "test_eta_tasks_of_a_killed_worker_run_once_elsewhere_and_not_too_early"),
    },
    "rate limits across a failover": {
        "G6": (FEATURES, "test_rate_limited_tasks_keep_their_rate_and_survive_their_worker"),
    },
    "expiry across a failover": {"G6": (FEATURES, "test_expired_task_of_a_killed_worker_is_not_run_by_another")},
    "revoked, and all who knew it dead": {
        "G6": (
            FEATURES,
            "test_task_that_was_revoked_stays_revoked_for_workers_that_come_when_all_who_knew_are_dead",
        ),
    },
    "name used again at once": {
        "G1": (DEATH, "test_killed_worker_whose_name_is_reused_at_once_is_recovered_all_the_same"),
        "G5": (NAMES, "test_worker_with_the_name_of_a_live_one_is_refused_with_advice"),
    },
    "plain workers and producers beside ours": {
        "G1": (ROLLOUT, "test_plain_workers_and_producers_beside_ours_lose_nothing"),
        "G8": (ROLLOUT, "test_plain_workers_and_producers_beside_ours_lose_nothing"),
    },
    "number of shards changed, node by node": {
        "G1": (ROLLOUT, "test_while_the_number_of_shards_is_changed_every_shard_has_one_owner"),
    },
    "celery_ha taken out": {
        "G1": (ROLLOUT, "test_uninstalling_gives_everything_that_is_held_to_plain_workers"),
        "G6": (ROLLOUT, "test_retry_of_a_task_that_was_on_a_shard_finds_a_plain_worker"),
        "G8": (ROLLOUT, "test_uninstalling_gives_everything_that_is_held_to_plain_workers"),
    },
    "all of these at once, at random": dict.fromkeys(
        ("G1", "G2", "G3", "G5", "G6", "G7"),
        ("chaos/test_short_round.py", "test_every_fault_at_once_breaks_no_promise"),
    ),
    "the same on RabbitMQ, which is struck too": dict.fromkeys(
        ("G1", "G2", "G3", "G5", "G6", "G7"),
        ("chaos/test_short_round.py", "test_every_fault_at_once_breaks_no_promise_on_rabbitmq"),
    ),
    "broker lost by one worker, whose store is another server": {
        "G4": ("integration/test_share.py", "test_shards_of_a_worker_that_has_lost_the_broker_are_served_by_others"),
        "G5": ("integration/test_share.py", "test_shards_of_a_worker_that_has_lost_the_broker_are_served_by_others"),
    },
    "connection lost right before a delayed publish, on RabbitMQ": {
        "G1": (STARTS, "test_delayed_publish_over_a_connection_that_is_gone_makes_another_as_any_other_does"),
    },
    "confirm that never comes, on RabbitMQ": {
        "G1": ("contract/test_amqp.py", "test_publish_that_is_never_confirmed_is_repeated_over_another_connection"),
    },
    "consumer that hears nothing: poll, credit, subscription lost": {
        "G4": (STUCK, "test_deaf_consumer_connects_anew_and_what_runs_goes_on"),
        "G2": (STUCK, "test_deaf_consumer_connects_anew_and_what_runs_goes_on"),
        "G5": (STUCK, "test_worker_that_is_full_or_limited_or_paused_is_not_stuck"),
    },
    "consumer cancelled by RabbitMQ without a word": {
        "G4": (STUCK, "test_consumer_that_rabbitmq_has_cancelled_subscribes_again"),
    },
    "connections dropped by a firewall, half open": {
        "G1": (STUCK, "test_connection_that_a_firewall_has_dropped_is_given_up"),
        "G5": (STUCK, "test_connection_that_a_firewall_has_dropped_is_given_up"),
    },
    "kills and freezes on a user's servers (`celery-ha drill`)": {
        "G1": (DRILL, "test_kills_lose_nothing_and_the_workers_that_serve_users_do_not_notice"),
        "G3": (DRILL, "test_kills_lose_nothing_and_the_workers_that_serve_users_do_not_notice"),
        "G4": (DRILL, "test_frozen_worker_is_given_up_and_comes_back"),
    },
    "any call, any moment, simulated": dict.fromkeys(
        ("G1", "G2", "G3", "G4", "G5"), ("simulation/test_simulation.py", "test_no_history_breaks_a_guarantee")
    ),
}

HEAD = """# Faults

Which fault is put to the test for which guarantee, each number a test below: real processes, real signals, a real
server, except for the simulation. Redis; what differs on another store is in its own tests.

This page is written by `tools/faults.py`, which fails when a test it names is gone.
"""


def page() -> str:
    """The page as it should be."""
    tests = list(dict.fromkeys(test for row in MATRIX.values() for test in row.values()))
    lines = [HEAD, *(f"- **{name}** {what}" for name, what in GUARANTEES.items()), ""]
    lines += ["| fault | " + " | ".join(GUARANTEES) + " |", "|---" * (len(GUARANTEES) + 1) + "|"]
    for fault, row in MATRIX.items():
        cells = (str(tests.index(row[name]) + 1) if name in row else "" for name in GUARANTEES)
        lines.append(f"| {fault} | " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"{at}. `{name}` in `tests/{file}`" for at, (file, name) in enumerate(tests, 1)]
    return "\n".join([*lines, ""])


def missing() -> list[str]:
    """Tests that are named here and do not exist."""
    return sorted({f"{file}::{name}" for row in MATRIX.values() for file, name in row.values()} - set(_tests()))


def _tests() -> Iterator[str]:
    for path in TESTS.rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(TESTS).as_posix()}::{node.name}"


def main() -> int:
    """Write or check the page."""
    if gone := missing():
        print("no such test:", *gone, sep="\n  ")
        return 1
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") != page():
        print("docs/faults.md is not up to date: run python tools/faults.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
