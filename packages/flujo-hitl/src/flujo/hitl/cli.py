"""`flujo runs`: stored runs. Imported only when called; needs the extra `[cli]`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TypedDict, Unpack

import anyio
import click
from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from flujo.core import CommandHost, EntryData, Flujo, Pause, PipelineResult, RunStore, Snapshot, UsageLimits, scrub

from .protocol import HitlStore

__all__ = ["runs"]


class ResumeFlags(TypedDict):
    """The options of `flujo runs resume`, as click gives them."""

    url: str | None
    answer: str | None
    pause_id: str | None
    retry: bool
    max_usd: str | None
    as_json: bool


EXIT = {"completed": 0, "failed": 3, "stopped": 4, "paused": 5, "aborted": 6}
"""As `flujo run` has them; 2 is a run that cannot be gone on with."""

_STORE = click.option("--store", "url", metavar="URL", help="The store; else FLUJO_STORE, else that of [tool.flujo].")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
_TARGET = click.argument("target", metavar="FILE[:NAME]")
_RUN = click.argument("run_id", metavar="RUN")


@click.group()
def runs() -> None:
    """List, look at, resume and replay the runs that a store keeps.

    \b
    flujo run flows.py --text "a case" --store sqlite:///runs.db
    flujo runs list --store sqlite:///runs.db --status paused
    flujo runs resume flows.py 3f2a... --answer '{"approved": true}' --store sqlite:///runs.db
    """


@runs.command("list")
@_STORE
@click.option("--status", metavar="WORD", help="Only runs that stand like this: paused, failed, running, ...")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Most runs to print.")
@_JSON
@click.pass_context
def list_runs(ctx: click.Context, url: str | None, status: str | None, limit: int, as_json: bool) -> None:
    """Print the runs of a store, the newest first."""
    store = _listing(_host(ctx).store(url))
    page = anyio.run(lambda: store.runs(status=status, limit=limit))
    for row in page.items:
        facts = (row.run_id, row.status, row.pipeline, row.tenant or "-", row.changed_at.isoformat(timespec="seconds"))
        click.echo(json.dumps(to_jsonable_python(row)) if as_json else "  ".join(map(_printable, facts)))
    if page.next is not None and not as_json:
        click.echo(f"There are more: --limit {limit * 2}", err=True)


@runs.command()
@_RUN
@_STORE
@_JSON
@click.pass_context
def show(ctx: click.Context, run_id: str, url: str | None, as_json: bool) -> None:
    """Print how RUN stands, what it asks, and what it did. What steps were given and gave is in --json alone."""
    store = _host(ctx).store(url)

    async def look() -> tuple[Snapshot, list[EntryData]]:
        kept = await store.load(run_id)
        return kept.snapshot, kept.history()

    snapshot, rows = anyio.run(look)
    if as_json:
        click.echo(snapshot.model_copy(update={"journal": rows}).model_dump_json())
        return
    for line in (*_stand(snapshot), *_asked(snapshot.pauses), *_did(rows)):
        click.echo(line)


@runs.command()
@_TARGET
@_RUN
@_STORE
@click.option("--answer", metavar="V", help="The answer, as JSON; what is no JSON is taken as a text.")
@click.option("--pause", "pause_id", metavar="ID", help="Which question is answered, where several are open.")
@click.option("--retry", is_flag=True, help="Run again what failed, was cancelled or was stopped.")
@click.option("--max-usd", metavar="USD", help="Another limit of money, what was spent before included.")
@_JSON
@click.pass_context
def resume(ctx: click.Context, target: str, run_id: str, **flags: Unpack[ResumeFlags]) -> None:
    """Go on with RUN, an id or a token, by the pipeline NAME of FILE.

    A decision counts once: the same again is told so, another is refused. Exit codes are those of `flujo run`.
    """
    flujo = _host(ctx).prepare(target, store=flags["url"])
    limits = None if flags["max_usd"] is None else UsageLimits(total_cost_usd_limit=flags["max_usd"])
    answer = _answer(flags["answer"])

    async def go_on() -> PipelineResult:
        return await flujo.resume_async(run_id, answer, pause=flags["pause_id"], limits=limits, retry=flags["retry"])

    ctx.exit(_told(anyio.run(go_on), as_json=flags["as_json"]))


@runs.command()
@_TARGET
@_STORE
@_JSON
@click.pass_context
def recover(ctx: click.Context, target: str, url: str | None, as_json: bool) -> None:
    """Go on with the runs of the pipeline NAME of FILE whose process went away.

    A step that may happen at most once and was cut off is not done again: the run then waits for a human who looks.
    """
    flujo = _host(ctx).prepare(target, store=url)
    results = anyio.run(flujo.recover_async)
    codes = [_told(result, as_json=as_json) for result in results]
    if not results and not as_json:
        click.echo("No run of this pipeline was left behind.", err=True)
    ctx.exit(max(codes, default=0))


@runs.command()
@_TARGET
@_RUN
@_STORE
@click.pass_context
def replay(ctx: click.Context, target: str, run_id: str, url: str | None) -> None:
    """Run the engine over what RUN recorded, without calling a step. Exit code: 0 it is the same, 1 it differs."""
    flujo: Flujo = _host(ctx).prepare(target, store=url)
    replayed = anyio.run(flujo.replay_async, run_id)
    if (differs := replayed.divergence) is None:
        click.echo(f"run {run_id} goes the same way again")
        ctx.exit(0)
    click.echo(f"entry {differs.position}, {differs.path}: recorded {differs.recorded}, now {differs.replayed}")
    ctx.exit(1)


# --- what is printed --------------------------------------------------------------------------------------------------


def _host(ctx: click.Context) -> CommandHost:
    host = ctx.find_object(CommandHost)  # type: ignore[type-abstract]  # click looks by isinstance, which it can be
    if host is None:
        raise click.UsageError("Call it as `flujo runs`.")
    return host


def _listing(store: RunStore) -> HitlStore:
    if not hasattr(store, "runs"):
        raise click.UsageError(f"a {type(store).__name__} cannot list its runs; look at one by its id: flujo runs show")
    return store  # type: ignore[return-value]  # what is asked of it here is there


def _answer(text: object) -> JsonValue:
    if not isinstance(text, str):
        return None
    try:
        answer: JsonValue = json.loads(text)
    except ValueError:  # a text need not stand in quotes
        return text
    return answer


def _told(result: PipelineResult, *, as_json: bool) -> int:
    """Print what came of a run; its exit code."""
    if as_json:
        facts = {"run_id": result.run_id, "status": result.status, "cost_usd": str(result.total_cost_usd)}
        more = {"output": result.value, "pauses": result.pauses, "error": result.error and str(result.error)}
        click.echo(json.dumps({**facts, **to_jsonable_python(more, fallback=repr)}))
    elif result.status == "completed":
        text = (
            result.value
            if isinstance(result.value, str)
            else json.dumps(to_jsonable_python(result.value, fallback=repr))
        )
        click.echo(text)
    else:
        click.echo(f"run {result.run_id} is {result.status}" + (f": {result.error}" if result.error else ""), err=True)
        for line in _asked(result.pauses):
            click.echo(line, err=True)
    return EXIT[result.status]


def _stand(snapshot: Snapshot) -> Iterator[str]:
    usage = snapshot.checkpoint.usage
    yield f"run {_printable(snapshot.run_id)} of pipeline {_printable(snapshot.pipeline)}: {snapshot.status}"
    yield f"  spent {usage.cost_usd} USD, {usage.total_tokens} tokens, {usage.requests} requests"
    for name, value in (("actor", snapshot.actor), ("tenant", snapshot.tenant)):
        if value:
            yield f"  {name} {_printable(value)}"


def _asked(pauses: Iterable[Pause]) -> Iterator[str]:
    for pause in pauses:
        yield f"  {_printable(pause.id)}: {_printable(scrub(pause.question))}"
        yield f"    answer: {'any JSON' if pause.schema is None else json.dumps(pause.schema, ensure_ascii=False)}"
        if pause.expires_at is not None:
            yield f"    open until {pause.expires_at.isoformat()}"


def _did(rows: Iterable[EntryData]) -> Iterator[str]:
    for row in rows:
        if row.path:
            began = datetime.fromtimestamp(row.started_at, UTC).isoformat(timespec="milliseconds")
            yield f"  {began}  {_printable(row.path)}  {row.kind}  {row.duration_s:.3f} s"


def _printable(text: str) -> str:
    """Without what would change the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
