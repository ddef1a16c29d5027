"""`flujo runs`: stored runs. Imported only when called; needs the extra `[cli]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TypedDict, Unpack

import anyio
import click
from pydantic_core import to_jsonable_python

from flujo.core import EntryData, PipelineResult, ResumeOptions, Snapshot, UsageLimits

from .cli_decisions import answer, approve, check_no_answer_is_due, inbox, reject
from .cli_keeping import backup, cancel, delete, purge
from .cli_worker import worker
from .listed import Decided
from .printing import (
    AS_JSON,
    EXPERIMENTAL,
    RUN,
    STORE,
    TARGET,
    answer_of,
    asked,
    decided,
    did,
    line,
    listing,
    prepared,
    run_of,
    stand,
    store_of,
    told,
    worst,
)

__all__ = ["runs"]


class ListFilters(TypedDict):
    """Which runs are printed, as click gives them."""

    status: str | None
    pipeline: str | None
    tenant: str | None


class ResumeFlags(TypedDict):
    """The options of `flujo runs resume`, as click gives them."""

    url: str | None
    answer: str | None
    pause_id: str | None
    retry: bool
    max_usd: str | None
    deadline: float | None
    as_json: bool


@click.group()
def runs() -> None:
    """Look at the runs that a store keeps, answer what they ask, and go on with them.

    Either at once, in this process:

    \b
      export FLUJO_STORE=sqlite:///runs.db
      flujo run flows.py --text "a case"
      flujo runs resume flows.py RUN --answer true

    Or recorded now, and applied by a worker, which may run elsewhere:

    \b
      flujo runs inbox
      flujo runs approve RUN --reason "as agreed"
      flujo runs worker flows.py

    \b
    Exit codes: 0 done, or the run completed   2 nothing was done   3 the run failed
      4 stopped by a limit   5 paused   6 denied or aborted   130 interrupted
    """


@runs.command("list")
@STORE
@click.option("--status", metavar="WORD", help="Only runs that stand like this: paused, failed, running, ...")
@click.option("--pipeline", metavar="NAME", help="Only runs of this pipeline.")
@click.option("--tenant", metavar="NAME", help="Only runs for this tenant.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Most runs to print.")
@AS_JSON
@click.pass_context
def list_runs(ctx: click.Context, /, url: str | None, limit: int, as_json: bool, **only: Unpack[ListFilters]) -> None:
    """Print the runs of a store, the newest first: id, how it stands, pipeline, tenant, when it changed, FILE:NAME."""
    store = listing(store_of(ctx, url))
    page = anyio.run(lambda: store.runs(**only, limit=limit))
    for row in page.items:
        changed = row.changed_at.isoformat(timespec="seconds")
        facts = (row.run_id, row.status, row.pipeline, row.tenant, changed, row.target)
        click.echo(json.dumps(to_jsonable_python(row)) if as_json else line(*facts))
    if page.next is not None and not as_json:
        click.echo(f"There are more: --limit {min(1000, limit * 2)}", err=True)


@runs.command()
@RUN
@STORE
@AS_JSON
@click.pass_context
def show(ctx: click.Context, run_id: str, url: str | None, as_json: bool) -> None:
    """Print how RUN, an id or a token, stands, asks, was told and did. What steps were given and gave is in --json."""
    store = store_of(ctx, url)
    run_id = run_of(store, run_id)

    async def look() -> tuple[Snapshot, list[EntryData], Sequence[Decided]]:
        kept = await store.load(run_id)
        decisions = await store.decisions(run_id) if hasattr(store, "decisions") else ()
        return kept.snapshot, kept.history(), decisions

    snapshot, rows, decisions = anyio.run(look)
    if as_json:
        click.echo(snapshot.model_copy(update={"journal": rows}).sealed().model_dump_json())
        return
    waits = {one.receipt.pause_id for one in decisions if not one.is_applied}
    open_ = [pause for pause in snapshot.pauses if snapshot.status != "aborted" and pause.id not in waits]
    for text in (*stand(snapshot), *asked(open_), *decided(decisions, snapshot, url), *did(rows)):
        click.echo(text)


@runs.command()
@TARGET
@RUN
@STORE
@EXPERIMENTAL
@click.option("--answer", metavar="V", help="The answer, as JSON; what is no JSON is taken as a text.")
@click.option("--pause", "pause_id", metavar="ID", help="Which question is answered, where several are open.")
@click.option("--retry", is_flag=True, help="Run again what failed, was cancelled or was stopped.")
@click.option("--max-usd", metavar="USD", help="Another limit of money, what was spent before included.")
@click.option("--deadline", type=float, metavar="S", help="Seconds from now after which it is ended.")
@AS_JSON
@click.pass_context
def resume(ctx: click.Context, target: str, run_id: str, **flags: Unpack[ResumeFlags]) -> None:
    """Go on with RUN, an id or a token, by the pipeline NAME of FILE.

    A decision counts once: the same again is told so, another is refused, where --pause or a token names its question.
    Exit codes are those of `flujo run`.
    """
    flujo = prepared(ctx, target, flags["url"])
    limits = None if flags["max_usd"] is None else UsageLimits(total_cost_usd_limit=flags["max_usd"])
    answer = answer_of(flags["answer"])
    how: ResumeOptions = {"pause": flags["pause_id"], "limits": limits, "retry": flags["retry"]}
    how["deadline_s"] = flags["deadline"]

    async def go_on() -> PipelineResult:
        if flags["answer"] is None and not flags["retry"] and limits is None and flujo.store is not None:
            await check_no_answer_is_due(flujo.store, run_id)
        return await flujo.resume_async(run_id, answer, **how)

    ctx.exit(told(anyio.run(go_on), target, flags["url"], as_json=flags["as_json"]))


@runs.command()
@TARGET
@STORE
@EXPERIMENTAL
@AS_JSON
@click.pass_context
def recover(ctx: click.Context, target: str, url: str | None, as_json: bool) -> None:
    """Go on with the runs of the pipeline NAME of FILE whose process went away.

    A step that may happen at most once and was cut off is not done again: the run then waits for a human who looks.
    """
    flujo = prepared(ctx, target, url)
    results = anyio.run(flujo.recover_async)
    codes = [told(result, target, url, as_json=as_json) for result in results]
    if not results and not as_json:
        click.echo("No run of this pipeline was left behind.", err=True)
    ctx.exit(worst(codes))


@runs.command()
@TARGET
@RUN
@STORE
@EXPERIMENTAL
@AS_JSON
@click.pass_context
def replay(ctx: click.Context, target: str, run_id: str, *, url: str | None, as_json: bool) -> None:
    """Run the engine over what RUN, an id or a token, recorded; no step is called. Exit code: 0 the same, 1 not."""
    flujo = prepared(ctx, target, url)
    if flujo.store is not None:
        run_id = run_of(flujo.store, run_id)
    differs = anyio.run(flujo.replay_async, run_id).divergence
    if as_json:
        click.echo(json.dumps({"run_id": run_id, "divergence": differs}, default=asdict))
    elif differs is None:
        click.echo(f"run {run_id} goes the same way again")
    else:
        click.echo(f"entry {differs.position}, {differs.path}: recorded {differs.recorded}, now {differs.replayed}")
    ctx.exit(0 if differs is None else 1)


for _command in (inbox, approve, reject, answer, cancel, purge, delete, backup, worker):
    runs.add_command(_command)
