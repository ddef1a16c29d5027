"""`flujo validate`: everything that can be known before a token is spent."""

from __future__ import annotations

import json
from typing import Unpack

import click

from flujo.core import Flujo, FlujoError, PipelineError, type_name

from .exits import NOTHING_RAN
from .options import backend_option, debug_option, json_option, policy_options
from .prepare import PolicyOptions, prepare
from .problems import Problem
from .target import Target

__all__ = ["validate"]

_EPILOG = """\b
Examples:
  flujo validate pipeline.py
  flujo validate my.package.flows:summary --require flujo-audit
  flujo validate pipeline.py --backend ray
"""


@click.command(epilog=_EPILOG)
@click.argument("target", metavar="FILE[:NAME]")
@policy_options
@backend_option
@json_option
@debug_option
@click.pass_context
def validate(
    ctx: click.Context, target: str, as_json: bool, backend: str | None, **options: Unpack[PolicyOptions]
) -> None:
    """Check a pipeline and the plugins it is to run with, without running it.

    Names, cycles, types of all data edges, resources, limits, the policy and the plugins it requires, and whether steps
    that are to run elsewhere can leave. All problems of
    the pipeline are listed, those of everything in it, too, not the first one alone. Exit code: 0 it can run, 2 it
    cannot; with --json stdout holds one object either way.
    """
    try:
        found, flujo = prepare(target, options, backend=backend)
    except (FlujoError, Problem) as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "what": error.what, "problems": _problems(error), "do": error.do}))
        elif isinstance(error, PipelineError):
            click.echo(f"{error.what}: {len(error.problems)} problem{'s'[: len(error.problems) != 1]}")
            click.echo("\n".join(f"  - {problem}" for problem in error.problems))
        else:
            raise
        ctx.exit(NOTHING_RAN)
    _say_good(found, flujo, as_json)


def _problems(error: FlujoError | Problem) -> list[str]:
    """All that is wrong, each in a sentence; also where the file itself could not build its pipeline."""
    if isinstance(error.__cause__, PipelineError):
        error = error.__cause__
    if isinstance(error, PipelineError):
        return list(error.problems)
    return [error.why or error.what]


def _say_good(found: Target, flujo: Flujo, as_json: bool) -> None:
    plan = flujo.plan
    acting = [name for name, _ in flujo.plugins.acting]
    if as_json:
        facts = {
            "ok": True,
            "pipeline": plan.name,
            "name": found.name,
            "steps": [node.path for node in plan.steps],
            "input": type_name(plan.input_type),
            "fingerprint": plan.fingerprint,
            "plugins": acting,
            "required": sorted(flujo.policy.require),
        }
        click.echo(json.dumps(facts))
        return
    click.echo(f"{found.where}:{found.name} can run")
    click.echo(f"  steps    {len(plan.steps)}: {', '.join(node.path for node in plan.steps)}")
    click.echo(f"  input    {type_name(plan.input_type)}")
    click.echo(f"  plugins  {', '.join(acting) or 'none'}")
    click.echo(f"  plan     {plan.fingerprint[:16]}")
