"""`flujo solve`: let a recipe solve a task. Imported only when called; needs the extra `[cli]`."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Unpack

import click
from pydantic_core import to_json

from flujo.core import Flujo, InputError, Pause, PipelineResult

from .offered import recipe_called
from .recipecli import (
    EXIT_CODES,
    ModelFlags,
    Watch,
    agent_options,
    begun,
    facts,
    interrupted,
    model_options,
    of_status,
    prepared,
    run,
    spent,
)
from .solving import Solution

__all__ = ["solve"]

_EPILOG = f"""\b
Recipes:
  default  a checklist of the task, an answer, its validation and what to do
           better, up to three times; the answer comes with a score
  loop     a planner that lets an agent work, asks you, and finishes
  review   an answer that another call of the model reviews, and its revision
  (plugins may offer more)

\b
Examples:
  flujo solve "Name three uses of an audit log" -m openai:gpt-4o --max-usd 0.05
  flujo solve - -m local:model.gguf --recipe review < task.txt
  flujo solve "Plan a party" -m openai:qwen3 --base-url http://localhost:11434/v1 \\
      --price free --recipe loop
  flujo solve -m openai:gpt-4o --recipe loop --store sqlite:///runs.db --resume RUN

\b
Questions of the recipe are asked here where stdin is a terminal. Elsewhere the
run is left paused; with --store it can be gone on with: --resume RUN.

{EXIT_CODES}"""


class SolveFlags(ModelFlags):
    """The options of `flujo solve`, as click gives them."""

    recipe: str
    answer: str | None


@click.command("solve", epilog=_EPILOG)
@click.argument("task", metavar="[TASK]", required=False)
@click.option("--recipe", default="default", show_default=True, metavar="NAME", help="How it is solved.")
@click.option("--answer", metavar="TEXT", help="With --resume: the answer to the question that the run waits for.")
@model_options
@click.pass_context
def solve(ctx: click.Context, task: str | None, **flags: Unpack[SolveFlags]) -> None:
    """Let a recipe solve TASK with a model, under limits, and print the answer.

    TASK is a text; `-` reads it from stdin. The answer goes to stdout, progress and the summary to stderr.
    """
    if (task is None) == (flags["resume"] is None):
        raise click.UsageError("Give a TASK, or a run to go on with: --resume RUN.")
    if flags["answer"] is not None and flags["resume"] is None:
        raise click.UsageError("--answer goes with --resume.")
    given = sys.stdin.read() if task == "-" else task
    if given is not None and not given.strip():
        raise click.UsageError("The task is empty.")
    pipeline = recipe_called(flags["recipe"]).make(
        flags["model"], instructions=flags["instructions"], **agent_options(flags)
    )
    watch = Watch(quiet=flags["quiet"] or flags["as_json"])
    flujo = prepared(ctx, pipeline, flags, watch)
    try:
        with watch:
            result = _solved(flujo, given, flags, watch)
    except KeyboardInterrupt:
        ctx.exit(interrupted(watch, kept=flujo.store is not None))
    _tell(result, flags, kept=flujo.store is not None)
    ctx.exit(of_status(result.status))


def _solved(flujo: Flujo, task: str | None, flags: SolveFlags, watch: Watch) -> PipelineResult:
    result, given = begun(flujo, task, flags), flags["answer"]
    while result.status == "paused":
        with watch.paused():
            answer = _answered(result.pauses[0], flags) if given is None else given
        if answer is None:
            break
        given = None
        result = run(partial(_go_on, flujo, result, answer))
    return result


async def _go_on(flujo: Flujo, result: PipelineResult, answer: str) -> PipelineResult:
    """Resume with an answer; one that does not fit is told, and the question stays open."""
    pause = result.pauses[0]
    try:
        decision = answer if _takes_text(pause) else json.loads(answer)
        return await flujo.resume_async(result, decision, pause=pause)
    except (InputError, json.JSONDecodeError) as error:
        click.echo(f"flujo: {error}", err=True)
        return result


def _takes_text(pause: Pause) -> bool:
    return pause.schema is not None and pause.schema.get("type") == "string"


def _answered(pause: Pause, flags: SolveFlags) -> str | None:
    """What a human types in; None where there is none, or where they end the input instead."""
    if flags["as_json"] or not sys.stdin.isatty():
        return None
    click.echo(f"\n{pause.question}", err=True)
    if pause.payload is not None:
        click.echo(to_json(pause.payload, indent=2).decode(), err=True)
    if not _takes_text(pause):
        click.echo(f"(as JSON: {json.dumps(pause.schema)})", err=True)
    while True:
        click.echo("> ", err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            return None
        if line.strip():
            return line.strip()


def _tell(result: PipelineResult, flags: SolveFlags, *, kept: bool) -> None:
    if flags["as_json"]:
        click.echo(facts(result))
        return
    if result.status == "completed":
        value = result.value.answer if isinstance(result.value, Solution) else result.value
        click.echo(value if isinstance(value, str) else to_json(value, indent=2, fallback=repr).decode())
    elif result.error is not None:
        click.echo(f"flujo: {result.error}", err=True)
    if not flags["quiet"]:
        score = ""
        if result.status == "completed" and isinstance(result.value, Solution):
            score = f", score {result.value.score:.2f} after {result.value.attempts} attempts"
        click.echo(f"{result.status}{score}: {spent(result.usage)}, {result.duration_s:.1f} s", err=True)
    if result.status == "paused":
        click.echo(f"It waits for an answer: {result.pauses[0].question}", err=True)
        where = f"--resume {result.run_id} --answer ..." if kept else "nothing keeps it; start again with --store URL"
        click.echo(f"Go on: {where}", err=True)
