"""What the commands on stored runs share: their options, what they are given, and what they print."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from flujo.core import CommandHost, EntryData, Flujo, InputError, Pause, PipelineResult, RunStore, Snapshot, scrub

from .listed import TARGET as BEGUN_FROM
from .listed import Decided
from .protocol import HitlStore
from .shown import printable
from .sqlite import SQLiteStore

__all__ = [
    "AS_JSON", "EXPERIMENTAL", "RUN", "STORE", "TARGET", "answer_of", "asked", "check_kept", "decided", "did",
    "facts_of", "host_of", "line", "listing", "pasted", "prepared", "run_of", "span", "stand", "store_of", "told",
    "worst",
]  # fmt: skip

EXIT = {"completed": 0, "failed": 3, "stopped": 4, "paused": 5, "aborted": 6}
"""As `flujo run` has them; 2 is a run that cannot be gone on with."""

_FROM_GOOD_TO_BAD = (0, 5, 4, 3, 6)

_TRIES = "flujo.hitl.experimental"
STORE = click.option("--store", "url", metavar="URL", help="The store; else FLUJO_STORE, else that of [tool.flujo].")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
EXPERIMENTAL = click.option(
    "--experimental", is_flag=True, expose_value=False, callback=lambda ctx, _, value: ctx.meta.update({_TRIES: value}),
    help="Let steps change the steps after them, as `flujo run --experimental` did.",
)  # fmt: skip
TARGET = click.argument("target", metavar="FILE[:NAME]")
RUN = click.argument("run_id", metavar="RUN")

_PASSWORD = re.compile(r"(?<=\w://)([^/@:]*):[^/]*(?=@)|(?<=[?&])(?:ssl)?password=[^&]*&?")


def host_of(ctx: click.Context) -> CommandHost:
    """The command line that called."""
    host = ctx.find_object(CommandHost)  # type: ignore[type-abstract]  # click looks by isinstance, which it can be
    if host is None:
        raise click.UsageError("Call it as `flujo runs`.")
    return host


def store_of(ctx: click.Context, url: str | None) -> RunStore:
    """The store that is named, where there is one; see `check_kept`."""
    store = host_of(ctx).store(url)
    check_kept(store)
    return store


def prepared(ctx: click.Context, target: str, url: str | None, *, may_be_new: bool = False) -> Flujo:
    """The pipeline NAME of FILE, with a store that is there; see `check_kept`."""
    tries = ("mutation",) if ctx.meta.get(_TRIES) else ()
    flujo = host_of(ctx).prepare(target, store=url, experimental=tries)
    check_kept(flujo.store, may_be_new=may_be_new)
    return flujo


def check_kept(store: RunStore | None, *, may_be_new: bool = False) -> None:
    """Refuse a file that is no store: to look for runs where nobody kept any makes none.

    Args:
        store: A store; None, and one without a file, are taken as they are.
        may_be_new: Whether there may be no file yet, as for what waits for the first run.

    Raises:
        InputError: There is no file, or an empty one: of a store of ours no byte is left in that.
    """
    if not isinstance(store, SQLiteStore):
        return
    is_there = store.path.exists()
    if is_there and _is_empty(store.path):
        why, do = "it is empty", "Put a backup in its place; where nothing was kept in it, remove it"
    elif is_there:
        return
    elif may_be_new:
        click.echo(f"There is no {str(store.path)!r} yet: it is made now, and the first run is waited for.", err=True)
        return
    else:
        why, do = "there is no such file", "Look at --store, FLUJO_STORE and [tool.flujo]"
        do += "; the first run that is kept makes it"
    raise InputError(f"store {str(store.path)!r} cannot be looked at", why, do)


def _is_empty(path: Path) -> bool:
    for _ in range(20):  # another process may be about to make it
        if path.stat().st_size:
            return False
        time.sleep(0.05)
    return True


def run_of(store: RunStore, target: str) -> str:
    """The id of a run, which a token names too; a token is not printed, as it may answer a question."""
    facts = None if store.signer is None else store.signer.open(target)
    return target if facts is None else facts.run_id


def pasted(*words: str, url: str | None) -> str:
    """A command to be pasted, with the store where that was given as an option; without its password."""
    called = click.get_current_context(silent=True)
    tries = ["--experimental"] if called is not None and called.meta.get(_TRIES) else []
    store = [] if url is None else ["--store", _PASSWORD.sub(r"\1", url)]
    return shlex.join([*map(printable, words), *tries, *store])


def listing(store: RunStore) -> HitlStore:
    """A store that can do more than keep runs."""
    if not hasattr(store, "runs"):
        raise click.UsageError(f"a {type(store).__name__} cannot list its runs; look at one by its id: flujo runs show")
    return store  # type: ignore[return-value]  # what is asked of it here is there


def answer_of(text: object) -> JsonValue:
    """An answer as it was typed: JSON, or else a text."""
    if not isinstance(text, str):
        return None
    try:
        answer: JsonValue = json.loads(text)
    except ValueError:  # a text need not stand in quotes
        return text
    return answer


def told(result: PipelineResult, target: str, url: str | None, *, as_json: bool) -> int:
    """Print what came of a run of `target`, and how one that waits is gone on with; its exit code."""
    if as_json:
        click.echo(json.dumps(facts_of(result)))
    elif result.status == "completed":
        text = (
            result.value
            if isinstance(result.value, str)
            else json.dumps(to_jsonable_python(result.value, fallback=repr))
        )
        click.echo(text)
    else:
        click.echo(f"run {result.run_id} is {result.status}" + (f": {result.error}" if result.error else ""), err=True)
        for text in (*asked(result.pauses), *_going_on(result, target, url)):
            click.echo(text, err=True)
    return EXIT[result.status]


def facts_of(result: PipelineResult) -> dict[str, object]:
    """A result as plain data."""
    facts = {"run_id": result.run_id, "status": result.status, "cost_usd": str(result.total_cost_usd)}
    more = {"output": result.value, "pauses": result.pauses, "error": result.error and str(result.error)}
    return {**facts, **to_jsonable_python(more, fallback=repr)}


def worst(codes: Iterable[int]) -> int:
    """The one code that speaks for several runs: a pause is no fault, and a denial what somebody must look at first."""
    return max(codes, key=_FROM_GOOD_TO_BAD.index, default=0)


def line(*facts: object) -> str:
    """One line of a list; what is not there is a dash."""
    return "  ".join(printable(str(fact)) if fact is not None else "-" for fact in facts)


def span(text: str) -> timedelta:
    """A length of time as it was typed: 30d, 12h, 90m, 45s, 2w.

    Raises:
        BadParameter: It is none.
    """
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no length of time; write 30d, 12h, 90m, 45s or 2w")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[found[2]]
    return timedelta(**{unit: int(found[1])})


def stand(snapshot: Snapshot) -> Iterator[str]:
    """How a run stands."""
    usage = snapshot.checkpoint.usage
    yield f"run {printable(snapshot.run_id)} of pipeline {printable(snapshot.pipeline)}: {snapshot.status}"
    yield f"  spent {usage.cost_usd} USD, {usage.total_tokens} tokens, {usage.requests} requests"
    yield f"  plan {snapshot.fingerprint}"
    begun = ("begun from", snapshot.tags.get(BEGUN_FROM))
    for name, value in (begun, ("actor", snapshot.actor), ("tenant", snapshot.tenant)):
        if value:
            yield f"  {name} {printable(value)}"


def asked(pauses: Iterable[Pause]) -> Iterator[str]:
    """What it asks."""
    for pause in pauses:
        yield f"  {printable(pause.id)}: {printable(scrub(pause.question))}"
        yield f"    answer: {'any JSON' if pause.schema is None else json.dumps(pause.schema, ensure_ascii=False)}"
        if pause.expires_at is not None:
            yield f"    {_until(pause.expires_at, stuck=pause.on_expiry is None)}"


def decided(decisions: Iterable[Decided], snapshot: Snapshot, url: str | None) -> Iterator[str]:
    """How its questions were decided, without the decisions themselves."""
    for one in decisions:
        who = "" if one.actor is None else f" by {printable(one.actor)}"
        yield f"  {printable(one.receipt.pause_id)}: decided at {one.receipt.decided_at.isoformat()}{who}"
        if not one.is_applied and snapshot.status in ("running", "paused"):
            at = snapshot.tags.get(BEGUN_FROM) or "FILE"
            yield f"    a worker goes on with it: {pasted('flujo', 'runs', 'worker', at, url=url)}"


def _going_on(result: PipelineResult, target: str, url: str | None) -> Iterator[str]:
    """How it is gone on with. The command has no answer, so that what is pasted as it is answers nothing."""
    for pause in result.pauses:
        yield f"Go on with the answer to {printable(pause.id)}, as JSON, at the end of:"
        command = pasted("flujo", "runs", "resume", target, result.run_id, "--pause", pause.id, url=url)
        yield f"    {command} --answer"


def _until(end: datetime, *, stuck: bool) -> str:
    if end > datetime.now(UTC):
        return f"open until {end.isoformat()}"
    now = "nothing was declared for that: cancel the run" if stuck else "a worker goes on with what was declared"
    return f"expired at {end.isoformat()}; {now}"


def did(rows: Iterable[EntryData]) -> Iterator[str]:
    """What it did."""
    for row in rows:
        if row.path:
            began = datetime.fromtimestamp(row.started_at, UTC).isoformat(timespec="milliseconds")
            yield f"  {began}  {printable(row.path)}  {row.kind}  {row.duration_s:.3f} s"
        if row.mutation is not None:
            steps = [*(f"+ {path}" for path in row.mutation.added), *(f"- {path}" for path in row.mutation.removed)]
            yield f"    it changed the pipeline: {printable(', '.join(steps))}"
