"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .problems import State

__all__ = ["backend_option", "debug_option", "json_option", "policy_file_option", "policy_options"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _note_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.ensure_object(State).debug |= value


def _note_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.ensure_object(State).json |= value
    return value


debug_option: Decorator = click.option(
    "--debug", is_flag=True, expose_value=False, is_eager=True, callback=_note_debug, help="Show tracebacks."
)

json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, is_eager=True, callback=_note_json, help="Print JSON, for machines."
)

backend_option: Decorator = click.option(
    "--backend",
    metavar="NAME",
    help="Where steps run that do not say it themselves, e.g. ray. Also [tool.flujo] backend.",
)

policy_file_option: Decorator = click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Rules that hold on top of [tool.flujo.policy].",
)

_POLICY_OPTIONS: tuple[Decorator, ...] = (
    click.option(
        "--plugin",
        "plugin",
        multiple=True,
        metavar="NAME",
        help="A plugin that acts, by its distribution's name. May be repeated.",
    ),
    click.option(
        "--require",
        "require",
        multiple=True,
        metavar="NAME",
        help="A plugin without which nothing may run; it acts too. May be repeated.",
    ),
    policy_file_option,
)


def policy_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--plugin`, `--require` and `--policy`."""
    for option in reversed(_POLICY_OPTIONS):
        function = option(function)
    return function
