"""What a worker writes of itself, and what a probe concludes from it. Pure.

Next to nothing is imported, here and in the rest of the package: the probe runs every few seconds, in containers that
may have a tenth of a processor, and each of ``dataclasses``, ``typing``, ``json`` and ``argparse`` takes longer than
all it does.
"""

from __future__ import annotations

#: Version of what is written.
SCHEMA = "1"


class Sign:
    """A worker's state. Times are of the monotonic clock, which all processes of a machine share.

    Args:
        node: Celery name.
        pid: of its main process.
        patience: seconds after which a silent main loop, a pool that takes nothing or a lost lease is no hiccup.
        written: when this was written; with a lease that is not lost, that is done every few seconds.
        lease: its current one; empty if there is none.
        trusted_until: until when the lease is trusted; None: there is none, or it is in doubt.
        lost_since: since when the lease is lost although the store answers; None: it is not.
        pulse: when the main loop last turned; None: it cannot tell, as while it reaches for the broker.
        stuck_since: since when the pool has a free process and takes no task; None: it does.
        connected: to its broker.
        draining: it gives its shards away and will leave.
    """

    def __init__(
        self,
        node: str,
        pid: int,
        patience: float,
        written: float,
        *,
        lease: str = "",
        trusted_until: float | None = None,
        lost_since: float | None = None,
        pulse: float | None = None,
        stuck_since: float | None = None,
        connected: bool = False,
        draining: bool = False,
    ) -> None:
        self.node = node
        self.pid = pid
        self.patience = patience
        self.written = written
        self.lease = lease
        self.trusted_until = trusted_until
        self.lost_since = lost_since
        self.pulse = pulse
        self.stuck_since = stuck_since
        self.connected = connected
        self.draining = draining


class Finding:
    """Something wrong with a worker.

    Args:
        text: what.
        fatal: only a restart helps; otherwise it may come back by itself.
    """

    def __init__(self, text: str, *, fatal: bool) -> None:
        self.text = text
        self.fatal = fatal


_TEXTS = ("node", "lease")
_FLAGS = ("connected", "draining")
_TIMES = ("trusted_until", "lost_since", "pulse", "stuck_since")


def dump(sign: Sign) -> str:
    """A sign as text: a line for each field that is known."""
    lines = [f"schema {SCHEMA}", f"pid {sign.pid}", f"patience {sign.patience!r}", f"written {sign.written!r}"]
    lines += [f"{name} {getattr(sign, name)}" for name in _TEXTS]
    lines += [f"{name} {int(getattr(sign, name))}" for name in _FLAGS]
    lines += [f"{name} {getattr(sign, name)!r}" for name in _TIMES if getattr(sign, name) is not None]
    return "\n".join(lines)


def load(text: str) -> Sign:
    """Read what :func:`dump` wrote.

    Raises:
        ValueError: it is not that, or of another version.
    """
    fields = dict(line.partition(" ")[::2] for line in text.splitlines())
    if fields.get("schema") != SCHEMA:
        raise ValueError("not a worker's sign of life, or one of another version of celery_ha")
    try:
        return Sign(
            fields["node"],
            int(fields["pid"]),
            float(fields["patience"]),
            float(fields["written"]),
            lease=fields["lease"],
            connected=fields["connected"] == "1",
            draining=fields["draining"] == "1",
            **{name: float(fields[name]) for name in _TIMES if name in fields},
        )
    except KeyError as exc:
        raise ValueError(f"a worker's sign of life lacks {exc}") from exc


def judge(sign: Sign, now: float, *, runs: bool) -> list[Finding]:
    """Find what is wrong with a worker.

    A store that does not answer is not fatal: no restart helps, and a lease goes on when the store is back.

    Args:
        sign: what it last wrote.
        now: monotonic time.
        runs: whether its process is there.
    """
    if not runs:
        return [Finding(f"process {sign.pid} is gone", fatal=True)]
    found = []
    kept = sign.written if sign.lease and sign.lost_since is None else None
    for since, what in (
        (kept, "it has told nothing of itself"),
        (sign.pulse, "the main loop has not turned"),
        (sign.stuck_since, "the pool has a free process and has not taken the next task"),
        (sign.lost_since, "the lease is lost and there has been no new one"),
    ):
        if since is not None and now - since > sign.patience:
            found.append(Finding(f"{what} for {now - since:.0f} s", fatal=True))
    if sign.lost_since is not None:
        found.append(Finding("its lease was fenced", fatal=False))
    elif sign.trusted_until is None or now >= sign.trusted_until:
        found.append(Finding("it has no lease that it can trust: is the store away?", fatal=False))
    if not sign.connected:
        found.append(Finding("it is not connected to its broker", fatal=False))
    if sign.draining:
        found.append(Finding("it drains", fatal=False))
    return found
