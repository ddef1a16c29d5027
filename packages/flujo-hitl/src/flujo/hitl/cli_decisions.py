"""`flujo runs inbox`, `approve`, `reject`, `answer`: what runs ask, and decisions that are recorded for a worker."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypedDict, TypeVar, Unpack

import anyio
import click
from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from flujo.core import AmbiguousPause, InputError, Pause, ResumeConflict, ResumeError, RunStore

from .printing import AS_JSON, RUN, STORE, answer_of, line, listing, run_of, store_of
from .protocol import HitlStore
from .shown import MOST_SHOWN, Shown, misfit, show, verdict

__all__ = ["answer", "approve", "check_no_answer_is_due", "inbox", "reject"]

C = TypeVar("C", bound=Callable[..., object])


class DecideFlags(TypedDict):
    """The options of a decision, as click gives them."""

    url: str | None
    pause_id: str | None
    reason: str | None
    actor: str | None
    shown: str | None
    yes: bool
    as_json: bool


def _decide_options(function: C) -> C:
    for option in reversed(
        (
            STORE,
            click.option("--pause", "pause_id", metavar="ID", help="Which question, where several are open."),
            click.option("--reason", metavar="TEXT", help="Why; kept with the decision."),
            click.option("--actor", metavar="NAME", help="Who decides; your login name when left out."),
            click.option("--shown", metavar="DIGEST", help="Decide only on what has this digest, as it is printed."),
            click.option("--yes", is_flag=True, help="Do not ask back; needed where there is no terminal."),
            AS_JSON,
        )
    ):
        function = option(function)
    return function


@click.command()
@STORE
@click.option("--role", "role", metavar="NAME", multiple=True, help="Only what this role may answer; may be repeated.")
@click.option("--pipeline", metavar="NAME", help="Only questions of this pipeline.")
@click.option("--tenant", metavar="NAME", help="Only questions of runs for this tenant.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Most questions to print.")
@AS_JSON
@click.pass_context
def inbox(
    ctx: click.Context, /, url: str | None, role: tuple[str, ...], *, limit: int, as_json: bool, **only: str | None
) -> None:
    """Print the questions that wait for a human, those of the oldest runs first: run, question's id, pipeline, text.

    \b
      flujo runs inbox --role finance
      flujo runs approve RUN
    """
    store = listing(store_of(ctx, url))
    roles = role or None
    page = anyio.run(lambda: store.open_pauses(role=roles, limit=limit, **only))
    for one in page.items:
        until = one.expires_at and f"(until {one.expires_at.isoformat(timespec='seconds')})"
        facts = (one.run_id, one.pause_id, one.pipeline, one.question, *([until] if until else []))
        click.echo(json.dumps(to_jsonable_python(one)) if as_json else line(*facts))
    if page.next is not None and not as_json:
        click.echo(f"There are more: --limit {min(1000, limit * 2)}", err=True)


@click.command()
@RUN
@_decide_options
@click.pass_context
def approve(ctx: click.Context, run_id: str, **flags: Unpack[DecideFlags]) -> None:
    """Approve what RUN, an id or a token, asks: shows exactly what that is, asks back, and records it for a worker.

    \b
      flujo runs approve RUN --reason "as agreed"
      flujo runs worker flows.py

    Who may open the store may answer: roles are what the web app checks. The first decision counts; the same again is
    told when that was, another is refused.
    """
    _decide(ctx, run_id, "Approve this?", lambda pause: _verdict(pause, flags["reason"], approved=True), flags)


@click.command()
@RUN
@_decide_options
@click.pass_context
def reject(ctx: click.Context, run_id: str, **flags: Unpack[DecideFlags]) -> None:
    """Reject what RUN, an id or a token, asks: shows exactly what that is, asks back, and records it for a worker.

    \b
      flujo runs reject RUN --reason "the amount is wrong"

    A step of `flujo.hitl.approve` then fails, with the reason; what follows elsewhere is what the pipeline says.
    """
    _decide(ctx, run_id, "Reject this?", lambda pause: _verdict(pause, flags["reason"], approved=False), flags)


@click.command()
@RUN
@click.argument("value", metavar="ANSWER")
@_decide_options
@click.pass_context
def answer(ctx: click.Context, run_id: str, value: str, **flags: Unpack[DecideFlags]) -> None:
    """Answer what RUN, an id or a token, asks, with JSON or a text, and record it for a worker.

    \b
      flujo runs answer RUN 40
      flujo runs answer RUN '{"amount": 40, "note": "late parcel"}'
    """
    _decide(ctx, run_id, f"Answer {value}?", lambda _: answer_of(value), flags)


def _verdict(pause: Pause, reason: str | None, *, approved: bool) -> JsonValue:
    try:
        return verdict(to_jsonable_python(pause.schema), approved=approved, reason=reason or "")
    except ValueError as error:
        do = "Give the answer itself: flujo runs answer RUN ANSWER"
        raise InputError(f"question {pause.id!r} cannot be approved or rejected", str(error), do) from error


def _decide(
    ctx: click.Context, target: str, ask: str, decision_of: Callable[[Pause], JsonValue], flags: DecideFlags
) -> None:
    actor = flags["actor"] or _login()
    store = listing(store_of(ctx, flags["url"]))
    run_id, pause = anyio.run(_found, store, target, flags["pause_id"])
    shown, decision = show(pause), decision_of(pause)
    _print(run_id, pause, shown, err=flags["as_json"])
    _check(pause, shown, decision, flags["shown"])
    if not flags["yes"]:
        if not sys.stdin.isatty():
            do = "Look at what is shown above, then say --yes"
            raise InputError("nothing was recorded", "there is no terminal to ask back on", do)
        if not click.confirm(ask, err=flags["as_json"]):
            click.echo("Nothing was recorded.", err=True)
            ctx.exit(2)
    words = {"shown_digest": pause.shown_digest, "actor": actor}
    try:
        receipt = anyio.run(lambda: store.record_decision(run_id, pause.id, decision, reason=flags["reason"], **words))
    except ResumeConflict as conflict:
        do = f"The first decision counts; see when it was: flujo runs show {run_id}"
        raise ResumeError(f"question {pause.id!r} is no longer open", conflict.why, do) from conflict
    if flags["as_json"]:
        click.echo(json.dumps({"receipt": to_jsonable_python(receipt), "decision": decision}))
    else:
        click.echo(f"Recorded at {receipt.decided_at.isoformat(timespec='seconds')}. A worker goes on with the run.")


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError) as error:  # which of them, is a matter of the version of Python
        why = "no user has the number of this process, and none is in LOGNAME or USER"
        raise InputError("nothing can be recorded without a name", why, "Give one: --actor NAME") from error


async def _found(store: HitlStore, target: str, pause_id: str | None) -> tuple[str, Pause]:
    """The question that is meant by an id of a run, or a token."""
    facts = None if store.signer is None else store.signer.open(target)
    run_id, wanted = (target, pause_id) if facts is None else (facts.run_id, facts.pause_id)
    snapshot = (await store.load(run_id)).snapshot
    open_ = {pause.id: pause for pause in snapshot.pauses} if snapshot.status != "aborted" else {}
    if wanted is None and len(open_) > 1:
        raise AmbiguousPause(run_id, list(open_))
    if wanted is None and open_:
        (wanted,) = open_
    if wanted in open_:
        if facts is not None and facts.shown_digest != open_[wanted].shown_digest:
            why = "what its token shows is not what it asks now"
            raise ResumeError(f"question {wanted!r} cannot be decided on", why, "Show the question anew")
        return run_id, open_[wanted]
    receipt = await store.receipt(run_id, wanted)
    what, why = f"run {run_id!r} waits for no such answer", f"it is {snapshot.status}"
    if open_:
        why += f", and asks {', '.join(map(repr, open_))}"
    if receipt is not None:
        why = f"{receipt.pause_id!r} was answered at {receipt.decided_at.isoformat(timespec='seconds')}"
    raise ResumeError(what, why, f"Look at it: flujo runs show {run_id}")


async def check_no_answer_is_due(store: RunStore, target: str) -> None:
    """Refuse to go on without an answer where one is asked for: to a question about anything, none would be `null`.

    Raises:
        InputError: A question is open and has not expired, or its answer waits for a worker.
    """
    run_id = run_of(store, target)
    snapshot, now = (await store.load(run_id)).snapshot, datetime.now(UTC)
    for pause in snapshot.pauses if snapshot.status == "paused" else ():
        why = f"{pause.id!r} waits for an answer"
        do = f"Give one with --answer, or look first: flujo runs show {run_id}"
        if await store.receipt(run_id, pause.id) is not None:
            why, do = f"the answer to {pause.id!r} is recorded", "A worker goes on with it: flujo runs worker FILE"
        elif pause.expires_at is not None and pause.expires_at <= now:
            continue
        raise InputError(f"run {run_id!r} was not gone on with", why, do)


def _print(run_id: str, pause: Pause, shown: Shown, *, err: bool) -> None:
    click.echo(f"run {line(run_id)}, question {line(pause.id)}", err=err)
    click.echo("\n".join(f"  {text}" for text in shown.lines()), err=err)
    if pause.roles:
        click.echo(f"For: {line(', '.join(sorted(pause.roles)))}", err=err)
    if pause.expires_at is not None:
        click.echo(f"Open until {pause.expires_at.isoformat(timespec='seconds')}", err=err)
    click.echo(f"Digest of what is shown: {shown.digest}", err=err)


def _check(pause: Pause, shown: Shown, decision: JsonValue, digest: str | None) -> None:
    what = f"question {pause.id!r} cannot be decided on"
    if not shown.is_whole:
        why, do = f"it is longer than the {MOST_SHOWN:,} characters that are shown", "Let the step show less of it"
        raise InputError(what, why, do)
    if digest not in (None, shown.digest, pause.shown_digest):
        raise InputError(what, f"what is shown has not the digest {digest}", "Look at what it asks now")
    if problem := misfit(pause, decision):
        raise InputError(f"the decision for {pause.id!r} does not fit", problem, "See above what an answer must be")
