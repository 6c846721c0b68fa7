"""One look at a worker's sign."""

from __future__ import annotations

import time

from celery_ha.probe.folder import folder_of, runs, signs
from celery_ha.probe.sign import Finding, Sign, judge, load

#: Exit codes: all is well; something is wrong; it cannot be said of which worker.
WELL, RED, UNCLEAR = 0, 1, 2


def look(node: str | None, folder: str | None, *, live: bool, as_json: bool) -> tuple[int, str]:
    """Probe a worker.

    Args:
        node: its name, or what is before the ``@``; None: the only one that runs here.
        folder: where signs are; None: where they are by default.
        live: only what a restart can help is wrong.
        as_json: answer in JSON.

    Returns:
        The exit code, and the answer; a sentence, also where JSON is wanted, if there is no worker to tell of.
    """
    where = folder_of(folder)
    found = [sign for path in signs(where) if (sign := _read(path)) and node in {None, sign.node, _short(sign)}]
    running = [sign for sign in found if runs(sign.pid)] or found[:1]
    if len(running) > 1:
        names = ", ".join(sign.node for sign in running)
        return UNCLEAR, f"several workers run here: name one of {names} with -n, or give them a folder each"
    if not running:
        return RED, f"no worker{f' {node}' if node else ''} has told how it is in {where}"
    (sign,) = running
    findings = judge(sign, time.monotonic(), runs=runs(sign.pid))
    wrong = [finding for finding in findings if finding.fatal or not live]
    code = RED if wrong else WELL
    return code, _json(sign, findings, code) if as_json else _text(sign, wrong, live=live)


def _short(sign: Sign) -> str:
    return sign.node.partition("@")[0]


def _read(path: str) -> Sign | None:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes a while to import
            return load(file.read())
    except (OSError, ValueError):
        return None


def _text(sign: Sign, wrong: list[Finding], *, live: bool) -> str:
    if not wrong:
        return f"{sign.node} is {'alive' if live else 'ready'}"
    return f"{sign.node}: {'; '.join(finding.text for finding in wrong)}"


def _json(sign: Sign, findings: list[Finding], code: int) -> str:
    import json  # noqa: PLC0415 - takes a while

    return json.dumps(
        {
            "node": sign.node,
            "lease": sign.lease or None,
            "ok": code == WELL,
            "live": not any(finding.fatal for finding in findings),
            "ready": not findings,
            "findings": [finding.text for finding in findings],
        }
    )
