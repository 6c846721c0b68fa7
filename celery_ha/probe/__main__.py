"""``celery-ha-probe``, or ``python -m celery_ha.probe``: what Kubernetes and the like call every few seconds."""

from __future__ import annotations

import sys

from celery_ha.probe.look import WELL, look


def main() -> int:
    """Probe a worker of this machine; returns the exit code: 0, or 1 if it is red, or 2 if it is unclear which one."""
    node, folder, live, as_json = _options(sys.argv[1:])
    code, answer = look(node, folder, live=live, as_json=as_json)
    told = code == WELL or answer.startswith("{")
    print(answer, file=sys.stdout if told else sys.stderr)
    return code


def _options(given: list[str]) -> tuple[str | None, str | None, bool, bool]:
    """Node, folder, whether only liveness is asked for, whether the answer is JSON."""
    if not given or given in (["--live"], ["--ready"]):
        return None, None, given == ["--live"], False
    import argparse  # noqa: PLC0415 - takes as long as all the rest

    parser = argparse.ArgumentParser(prog="celery-ha-probe", description="Ask how a worker of this machine is.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--live", action="store_true", help="red only if a restart can help")
    which.add_argument(
        "--ready", action="store_true", help="red also if it has no trusted lease, or drains; the default"
    )
    parser.add_argument("-n", "--node", help="name of the worker, if several run here")
    parser.add_argument("--dir", help="where workers tell how they are, if ha_probe_dir is set")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    options = parser.parse_args(given)
    return options.node, options.dir, options.live, options.json


if __name__ == "__main__":
    sys.exit(main())
