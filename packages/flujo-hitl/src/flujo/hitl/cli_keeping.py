"""`flujo runs cancel`, `purge`, `delete`, `backup`: what becomes of runs that are kept."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict, Unpack

import anyio
import click

from flujo.core import InputError

from .listed import TARGET as BEGUN_FROM
from .printing import AS_JSON, EXPERIMENTAL, RUN, STORE, listing, pasted, prepared, span, store_of
from .schema import STATUS
from .worker import Worker

__all__ = ["backup", "cancel", "delete", "purge"]


class Whose(TypedDict):
    """Whose runs are deleted, as click gives it."""

    tenant: str | None
    subject: str | None


@click.command()
@RUN
@click.option("--now", "target", metavar="FILE[:NAME]", help="End it here, at once: by its pipeline, as a worker does.")
@STORE
@EXPERIMENTAL
@AS_JSON
@click.pass_context
def cancel(ctx: click.Context, run_id: str, target: str | None, url: str | None, as_json: bool) -> None:
    """Ask that RUN ends: the process that runs it ends it, within a third of its lease (10 s); else a worker does.

    What was done is kept, and the run is `aborted`.

    \b
      flujo runs cancel RUN
      flujo runs cancel RUN --now flows.py    # where no worker runs
    """
    store = listing(store_of(ctx, url))
    anyio.run(store.request_cancel, run_id)
    if target is not None:
        working = Worker(prepared(ctx, target, url), lambda _: None)
        result = anyio.run(working.cancel, run_id)
        _say({"run_id": run_id, "status": result.status}, f"The run is {result.status}.", as_json=as_json)
        return
    snapshot = anyio.run(store.load, run_id).snapshot
    at = snapshot.tags.get(BEGUN_FROM) or "FILE"
    waits = snapshot.status != "running"
    by = "As it waits" if waits else "Its process ends it within some seconds. Where that is gone"
    text = f"Asked for. {by}, a worker does: {pasted('flujo', 'runs', 'worker', at, url=url)}"
    text += f"\nWhere no worker runs: {pasted('flujo', 'runs', 'cancel', run_id, '--now', at, url=url)}"
    _say({"run_id": run_id, "cancel_requested": True}, text, as_json=as_json)


@click.command()
@click.option(
    "--older-than", metavar="TIME", required=True, help="Since when nothing changed in them, e.g. 30d or 12h."
)
@click.option(
    "--status",
    type=click.Choice([*STATUS]),
    multiple=True,
    default=("completed", "aborted"),
    show_default=True,
    help="How they stand; may be repeated.",
)
@STORE
@AS_JSON
@click.pass_context
def purge(ctx: click.Context, older_than: str, status: tuple[str, ...], *, url: str | None, as_json: bool) -> None:
    """Delete runs that ended long ago, with all that is kept of them. What somebody holds stays.

    \b
      flujo runs purge --older-than 30d
      flujo runs purge --older-than 52w --status failed --status stopped
    """
    store = listing(store_of(ctx, url))
    before = datetime.now(UTC) - span(older_than)
    number = anyio.run(store.purge, before, status)
    _say({"deleted": number}, f"Deleted {number} run{'s'[: number != 1]}.", as_json=as_json)


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--tenant", metavar="NAME", help="All runs for this tenant.")
@click.option("--subject", metavar="NAME", help='All runs about this person: those begun with tags={"subject": NAME}.')
@click.option("--yes", is_flag=True, help="Do not ask back; needed where there is no terminal.")
@STORE
@AS_JSON
@click.pass_context
def delete(
    ctx: click.Context, run_id: str | None, *, url: str | None, yes: bool, as_json: bool, **whose: Unpack[Whose]
) -> None:
    """Delete one run, all of a tenant, or all about a person, with all that is kept of them: for good.

    \b
      flujo runs delete RUN
      flujo runs delete --tenant acme --subject patient-17

    What is deleted is overwritten in a SQLite file; backups, and the logs of a database server, keep it.
    """
    named = [f"{word} {name!r}" for word, name in whose.items() if name is not None]
    if (run_id is None) == (not named):
        raise click.UsageError("Name a RUN, or --tenant, --subject or both.")
    store = listing(store_of(ctx, url))
    which = f"run {run_id!r}" if run_id is not None else f"all runs of {' and '.join(named)}"
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("nothing was deleted", "there is no terminal to ask back on", "Say --yes")
        if not click.confirm(f"Delete {which} for good?", err=as_json):
            click.echo("Nothing was deleted.", err=True)
            ctx.exit(2)
    number = anyio.run(lambda: store.delete(run_id, **whose))
    _say({"deleted": number}, f"Deleted {number} run{'s'[: number != 1]}.", as_json=as_json)


@click.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@STORE
@AS_JSON
@click.pass_context
def backup(ctx: click.Context, path: Path, url: str | None, as_json: bool) -> None:
    """Write a copy of the store, as of one moment, to the new file PATH, while runs go on.

    A store in PostgreSQL is copied by the server's own tool: pg_dump.
    """
    store = listing(store_of(ctx, url))
    anyio.run(store.backup, path)
    size = path.stat().st_size
    _say({"path": str(path), "bytes": size}, f"Wrote {path}, {size:,} bytes.", as_json=as_json)


def _say(facts: dict[str, object], text: str, *, as_json: bool) -> None:
    click.echo(json.dumps(facts) if as_json else text)
