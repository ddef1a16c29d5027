"""`flujo plugins`: what is installed, and whether it works."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Unpack

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .exits import COMPLETED, FINDINGS
from .options import debug_option, json_option, policy_options
from .prepare import PolicyOptions, policy_of, prepare
from .settings import canonical, read_settings
from .survey import Survey, survey, trial_of

__all__ = ["plugins"]

_EPILOG = """\b
Examples:
  flujo plugins
  flujo plugins --json
  flujo plugins --order --plugin flujo-audit --plugin flujo-deidentifier
  FLUJO_PLUGINS=flujo-audit flujo plugins check

\b
Installed is not active. A plugin acts where a run names it (--plugin), in [tool.flujo] use, or in a policy's require.
FLUJO_PLUGINS, or [tool.flujo] plugins, lists what may be imported at all.
"""


@click.group(invoke_without_command=True, epilog=_EPILOG)
@click.option("--order", is_flag=True, help="Show which plugin each hook calls, first to last.")
@click.option("--target", metavar="FILE[:NAME]", help="With --order: the hooks of this pipeline, as `flujo run` has.")
@policy_options
@json_option
@debug_option
@click.pass_context
def plugins(
    ctx: click.Context, order: bool, target: str | None, as_json: bool, **policy: Unpack[PolicyOptions]
) -> None:
    """List installed plugins: version, state, tiers, hooks and where each comes from."""
    if ctx.invoked_subcommand is not None:
        return
    if target is not None and not order:
        raise click.UsageError("--target goes with --order.")
    if order:
        _show_order(_order(target, policy), as_json=as_json)
        return
    found = survey(read_settings(), build=False, policy_file=policy["policy_file"])
    if as_json:
        click.echo(json.dumps({"plugins": found.facts(), "problems": found.problems}, indent=2))
        return
    _show(found)
    for problem in found.problems:
        click.echo(f"flujo: {problem}", err=True)


@plugins.command()
@json_option
@debug_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Import every allowed plugin, and build those that act with their settings, as a run would.

    Exit code: 0 all well, 1 something is wrong, 2 the settings cannot be read.
    """
    found = survey(read_settings(), build=True)
    if as_json:
        click.echo(json.dumps({"ok": not found.problems, "problems": found.problems}))
    else:
        for problem in found.problems:
            click.echo(problem)
        click.echo(f"{len(found.plugins)} plugins looked at, {len(found.problems)} problems")
    ctx.exit(FINDINGS if found.problems else COMPLETED)


def _order(target: str | None, policy: PolicyOptions) -> dict[str, list[str]]:
    """For each hook, by whom it is implemented, in the order of the calls."""
    if target is not None:
        hooks = prepare(target, policy)[1].hooks
    else:
        settings = read_settings()
        use = (*settings.use, *map(canonical, policy["plugin"]))
        rules = policy_of(settings, policy["policy_file"], policy["require"])
        hooks = trial_of(replace(settings, use=use), rules).hooks
    return {hook: [one.plugin for one in found] for hook, found in hooks.table.items()}


def _show_order(order: dict[str, list[str]], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"order": order}, indent=2))
        return
    if not order:
        click.echo("no plugin acts here; name one with --plugin, [tool.flujo] use, or a policy's require")
    for hook, names in order.items():
        click.echo(f"{hook:<26} {' -> '.join(names)}")


def _show(found: Survey) -> None:
    if not found.plugins:
        click.echo("no plugin is installed; see for instance: pip install flujo-audit")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("name", "version", "state", "tiers", "hooks", "source"):
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "version"))
    for plugin in found.plugins:
        state = "acts" if plugin.acts and plugin.state == "loaded" else plugin.state
        cells = (plugin.name, plugin.version, state, " ".join(plugin.tiers), " ".join(plugin.hooks), plugin.source)
        table.add_row(*map(escape, cells))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
