"""The command line, called in this process."""

from __future__ import annotations

import json
from typing import Any

from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from celery_ha.cli import ha
from tests.support.form import check_form, form_of


def run_ha(app: Celery, *arguments: str, typed: str | None = None) -> Result:
    context = CLIContext(app=app, no_color=True, workdir=None)
    return CliRunner().invoke(ha, arguments, obj=context, input=typed)


def ask_ha(app: Celery, *arguments: str) -> Any:
    """The JSON of a command that ends well, in the documented form."""
    result = run_ha(app, *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    value = json.loads(result.stdout)
    check_form(form_of(arguments), value)
    return value
