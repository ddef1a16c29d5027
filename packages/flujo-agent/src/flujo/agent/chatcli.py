"""`flujo chat`: talk with a model. Imported only when called; needs the extra `[cli]`."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Unpack

import click

from flujo.core import Flujo, PipelineResult

from .conversing import Conversation
from .prompts import Dialogue
from .recipecli import (
    EXIT_CODES,
    PAUSED,
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

__all__ = ["chat"]

BYE = "/bye"

_EPILOG = f"""\b
Examples:
  flujo chat -m openai:gpt-4o --max-usd 0.10
  flujo chat "What is an audit log?" -m local:model.gguf
  flujo chat -m openai:gpt-4o --store sqlite:///runs.db
  flujo chat -m openai:gpt-4o --store sqlite:///runs.db --resume RUN
  printf 'hello\\nand in short?\\n' | flujo chat -m local:model.gguf --json

\b
{BYE} ends the conversation. The end of the input (Ctrl-D) ends it too, but
where a store keeps it: there it waits, for --resume RUN. The model is shown
the newest messages; the limits hold for the whole conversation, pauses
included.

{EXIT_CODES}"""


class ChatFlags(ModelFlags):
    """The options of `flujo chat`, as click gives them."""

    memory: int
    max_turns: int


@click.command("chat", epilog=_EPILOG)
@click.argument("message", metavar="[MESSAGE]", required=False)
@click.option(
    "--memory",
    type=click.IntRange(2),
    default=40,
    show_default=True,
    metavar="N",
    help="Most messages that the model is shown beside the last.",
)
@click.option("--max-turns", type=click.IntRange(1, 10_000), default=100, show_default=True, metavar="N",
              help="Most answers.")  # fmt: skip
@model_options
@click.pass_context
def chat(ctx: click.Context, message: str | None, **flags: Unpack[ChatFlags]) -> None:
    """Talk with a model, under limits: one line is one message.

    MESSAGE is what you say first; left out, it is read like all further ones. Answers go to stdout, all else to stderr.
    With --json each answer is a line of JSON, and the last line is the run.
    """
    talk = Conversation(
        flags["model"], instructions=flags["instructions"], memory=flags["memory"], max_turns=flags["max_turns"],
        **agent_options(flags),
    )  # fmt: skip
    with Watch(quiet=flags["quiet"] or flags["as_json"], steps=False) as watch:
        flujo = prepared(ctx, talk, flags, watch)
        try:
            result = _talked(flujo, message, flags, watch)
        except KeyboardInterrupt:
            ctx.exit(interrupted(watch, kept=flujo.store is not None))
    if result is None:
        raise click.UsageError("Nothing was said: give a MESSAGE, or one on stdin.")
    ctx.exit(_tell(result, flags, kept=flujo.store is not None))


def _talked(flujo: Flujo, message: str | None, flags: ChatFlags, watch: Watch) -> PipelineResult | None:
    if message is not None and message.strip() == BYE:
        message = ""
    first = None
    if flags["resume"] is None:
        first, message = _heard(watch) if message is None else message, None
        if not first:
            return None
    result = begun(flujo, first, flags)
    while result.status == "paused":
        if message is None:
            with watch.paused():
                _say(result.pauses[0].question, flags)
        heard, message = _heard(watch) if message is None else message, None
        if heard is None and flujo.store is not None:
            break
        result = run(partial(flujo.resume_async, result, heard or ""))
    return result


def _say(answer: str, flags: ChatFlags) -> None:
    click.echo(json.dumps({"agent": answer}, ensure_ascii=False) if flags["as_json"] else answer)


def _heard(watch: Watch) -> str | None:
    """The next line that says something; "" to end the conversation, None at the end of the input."""
    with watch.paused():
        while True:
            if sys.stdin.isatty():
                click.echo("> ", err=True, nl=False)
            line = sys.stdin.readline()
            if not line:
                return None
            if line.strip():
                return "" if line.strip() == BYE else line.strip()


def _tell(result: PipelineResult, flags: ChatFlags, *, kept: bool) -> int:
    """Say how it ended; gives the exit code."""
    ended = result.status == "completed"
    if ended and isinstance(result.value, Dialogue) and result.value.turns[-1].speaker == "agent":
        last = result.value
        if sum(turn.speaker == "agent" for turn in last.turns) >= flags["max_turns"]:
            _say(last.latest, flags)
    if flags["as_json"]:
        click.echo(facts(result))
    elif result.error is not None:
        click.echo(f"flujo: {result.error}", err=True)
    if not flags["quiet"] and not flags["as_json"]:
        click.echo(f"{result.status}: {spent(result.usage)}", err=True)
    if result.status == "paused" and kept and not flags["as_json"]:
        click.echo(f"Go on: --resume {result.run_id}", err=True)
    return PAUSED if result.status == "paused" else of_status(result.status)
