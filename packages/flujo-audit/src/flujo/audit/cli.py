"""`flujo audit`: verify, show, checkpoint. Imported only when called; needs the extra `[cli]`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import click

from flujo.core import ConfigurationError

from .checkpoint import export
from .keys import read_key
from .log import AuditLog
from .verify import Verification

__all__ = ["audit"]

EXIT = {"intact": 0, "tampered": 1, "unusable": 2}

Entry: TypeAlias = dict[str, object]

_LOG = click.argument("path", type=click.Path(path_type=Path))
_KEY = click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path),
    help="File with the key that signs checkpoints; a key itself never belongs on a command line.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def audit() -> None:
    """Check and read audit logs."""


@audit.command()
@_LOG
@click.option("--checkpoint", type=click.Path(path_type=Path), help="File of checkpoints that were exported earlier.")
@_KEY
@_JSON
@click.pass_context
def verify(ctx: click.Context, path: Path, checkpoint: Path | None, key_file: Path | None, as_json: bool) -> None:
    """Check that nothing in PATH was changed. Exit code: 0 intact, 1 tampered, 2 unusable."""
    found = AuditLog.verify(path, checkpoint=checkpoint, key=key_file)
    click.echo(json.dumps(asdict(found)) if as_json else f"{found.verdict}: {found.reason}")
    if found.ok and checkpoint is None and not as_json:
        click.echo("A cut end, or a rewrite of the whole file, shows only against a checkpoint (--checkpoint).")
    ctx.exit(EXIT[found.verdict])


@audit.command()
@_LOG
@click.option("--run", "run_id", help="Only records of this run.")
@_JSON
@click.pass_context
def show(ctx: click.Context, path: Path, run_id: str | None, as_json: bool) -> None:
    """Print the records of PATH up to the first bad one. Exit codes as for verify."""
    found = AuditLog.verify(path)
    if found.verdict == "unusable":
        _say(ctx, found)
    for text in _texts(path, found.records):
        entry = json.loads(text)
        if run_id is None or entry.get("run_id") == run_id:
            click.echo(text if as_json else _row(entry))
    _say(ctx, found)


@audit.command()
@_LOG
@_KEY
@click.option("--out", type=click.Path(path_type=Path), help="Add it to this file instead of printing it.")
@click.pass_context
def checkpoint(ctx: click.Context, path: Path, key_file: Path | None, out: Path | None) -> None:
    """Check PATH, then print its head. Keep it where those who can write PATH cannot write."""
    try:
        key = None if key_file is None else read_key(key_file)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    found = AuditLog.verify(path)
    point = found.checkpoint
    if point is None:
        _say(ctx, found)
    elif out is None:
        click.echo(point.line(key))
    else:
        try:
            export(point, out, key)
        except OSError as error:
            raise click.UsageError(f"{str(out)!r} cannot be written: {error.strerror}") from error


def _say(ctx: click.Context, found: Verification) -> None:
    """End with the verdict's exit code, and on the error stream with the reason when it is not 0."""
    if not found.ok:
        click.echo(f"{found.verdict}: {found.reason}", err=True)
    ctx.exit(EXIT[found.verdict])


def _texts(path: Path, count: int) -> Iterator[str]:
    with path.open(encoding="ascii") as file:
        for _, line in zip(range(count), file, strict=False):
            yield line.rstrip("\n")


def _row(entry: Entry) -> str:
    """One record as a line for people: number, time, event, step, outcome, money, and the run."""
    outcome = entry.get("outcome") or entry.get("hook") or entry.get("limit") or ""
    cost = f"${entry['cost_usd']}" if "cost_usd" in entry else ""
    what = entry.get("step") or entry.get("pipeline") or ""
    more = entry.get("error_type") or entry.get("model") or entry.get("tool") or ""
    cells = (entry["seq"], entry["ts"], entry.get("event", ""), what, outcome, cost, more, entry.get("run_id", ""))
    widths = (6, 27, 14, 24, 10, 10, 20, 0)
    return "  ".join(f"{cell!s:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
