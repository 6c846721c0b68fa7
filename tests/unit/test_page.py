"""The page that tells pool children how long their lease is trusted."""

from __future__ import annotations

import os

from celery_ha.worker.page import TrustPage

LEASE = "a" * 32


def test_new_page_trusts_nothing() -> None:
    assert not TrustPage().trusts(LEASE, now=0.0)


def test_trust_ends_at_its_deadline() -> None:
    page = TrustPage()
    page.write(LEASE, 10.0)
    assert page.trusts(LEASE, now=9.9)
    assert not page.trusts(LEASE, now=10.0)


def test_another_lease_is_not_trusted_though_the_page_is_fresh() -> None:
    page = TrustPage()
    page.write(LEASE, 10.0)
    assert not page.trusts("b" * 32, now=1.0)


def test_child_sees_trust_that_ended_after_it_was_forked() -> None:
    page = TrustPage()
    page.write(LEASE, 10.0)
    ready, answer = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:  # the child waits for the parent's word, then looks
        os.read(ready[0], 1)
        os.write(answer[1], b"1" if page.trusts(LEASE, now=5.0) else b"0")
        os._exit(0)
    page.write(LEASE, 1.0)
    os.write(ready[1], b".")
    assert os.read(answer[0], 1) == b"0"
    os.waitpid(pid, 0)
