"""``ha probe``: how a worker of this machine is, without asking anybody."""

from __future__ import annotations

import click

from celery_ha.errors import HAError
from celery_ha.probe.look import WELL, look


@click.command()
@click.option("--live", is_flag=True, help="Red only if a restart can help.")
@click.option("--ready", is_flag=True, help="Red also if it has no trusted lease, or drains; the default.")
@click.option("-n", "--node", help="Name of the worker, if several run here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def probe(*, live: bool, ready: bool, node: str | None, as_json: bool) -> None:
    """Ask how a worker of this machine is; no broker is asked.

    Exit code 1 if it is red. The program celery-ha-probe is the same, and need not import the app first.
    """
    if live and ready:
        raise click.UsageError("--live and --ready: name one")
    ctx = click.get_current_context()
    ha = getattr(ctx.obj.app, "ha", None)
    if ha is None:
        raise click.ClickException("this app has no HA: write HA(app)")
    try:
        folder = ha.config.probe_dir
    except HAError as exc:
        raise click.ClickException(str(exc)) from exc
    code, answer = look(node, folder, live=live, as_json=as_json)
    click.echo(answer, err=code != WELL and not answer.startswith("{"))
    ctx.exit(code)
