"""What every store promises about revoked tasks (rule 19)."""

from __future__ import annotations


def test_revoked_tasks_are_told_to_whoever_comes_later(backend):
    backend.client().revocations.remember(["t1", "t/2 \u0436"], 60.0)

    assert backend.client().revocations.current() == {"t1", "t/2 \u0436"}


def test_a_revocation_ends(backend):
    revocations = backend.client().revocations
    revocations.remember(["short"], 1.0)
    revocations.remember(["long"], 60.0)

    backend.pass_time(2.1)

    assert revocations.current() == {"long"}


def test_revoking_again_makes_it_longer_and_never_shorter(backend):
    revocations = backend.client().revocations
    revocations.remember(["task"], 60.0)
    revocations.remember(["task"], 1.0)

    backend.pass_time(2.1)

    assert revocations.current() == {"task"}
