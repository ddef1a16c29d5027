"""`flujo plugins`: what is installed, and whether it works."""

from __future__ import annotations

import json
import sys

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .exits import COMPLETED, FINDINGS
from .options import debug_option, json_option
from .settings import read_settings
from .survey import Survey, survey

__all__ = ["plugins"]

_EPILOG = """\b
Examples:
  flujo plugins
  flujo plugins --json
  FLUJO_PLUGINS=flujo-audit flujo plugins check

\b
Installed is not active. A plugin acts where a run names it (--plugin), in [tool.flujo] use, or in a policy's require.
FLUJO_PLUGINS, or [tool.flujo] plugins, lists what may be imported at all.
"""


@click.group(invoke_without_command=True, epilog=_EPILOG)
@json_option
@debug_option
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """List installed plugins: version, state, tiers, hooks and where each comes from."""
    if ctx.invoked_subcommand is not None:
        return
    found = survey(read_settings(), build=False)
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
