"""`flujo run`: the main job."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Unpack

import anyio
import click
from rich.console import Console

from flujo.core import Budget, Event, Flujo, RunOptions, UsageLimits

from .batch import Batch, Ended
from .describe import steps_in_all
from .inputs import read_items
from .interrupts import Interrupts
from .live import LiveProgress
from .options import backend_option, debug_option, json_option, policy_options
from .outputs import PAUSED, OutputFolder
from .prepare import PolicyOptions, limits_of, prepare
from .problems import State, note, say
from .progress import PlainProgress, Progress
from .questions import resuming
from .results import Results
from .summary import Summary

__all__ = ["run"]

_EPILOG = """\b
Examples:
  flujo run pipeline.py --text "Three facts about audit logs"
  flujo run pipeline.py --input report.txt --max-usd 0.50
  flujo run flows.py:summary --input notes/ --out summaries/ --concurrency 4
  flujo run flows.py --input cases.jsonl --json > results.jsonl
  flujo run chat.py --text "Tell me more" --stream
  cat note.txt | flujo run flows.py --input - --plugin flujo-audit

\b
Exit codes, the worst of all items:
  0 completed   2 nothing ran   3 failed   4 stopped by a limit
  5 paused      6 denied or aborted        130 interrupted
"""


class RunFlags(PolicyOptions):
    """The options of `flujo run`, as click gives them."""

    value: str | None
    text: str | None
    store: str | None
    backend: str | None
    experimental: bool
    max_usd: str | None
    max_tokens: int | None
    max_requests: int | None
    max_input_mb: float
    concurrency: int
    out: Path | None
    as_json: bool
    stream: bool
    quiet: bool
    actor: str | None
    tenant: str | None
    deadline: float | None


@click.command(epilog=_EPILOG)
@click.argument("target", metavar="FILE[:NAME]")
@click.option("--input", "value", metavar="V", help="A file, a folder, a .jsonl file, '-' for stdin, or else text.")
@click.option("--text", metavar="TEXT", help="The input itself, whatever it looks like.")
@click.option("--max-usd", metavar="USD", help="Most money for all items together, e.g. 0.50.")
@click.option("--max-tokens", type=int, metavar="N", help="Most tokens for all items together.")
@click.option("--max-requests", type=int, metavar="N", help="Most calls to models for all items together.")
@policy_options
@click.option("--store", metavar="URL", help="Keep every step of each run here, e.g. sqlite:///runs.db.")
@backend_option
@click.option(
    "--experimental", is_flag=True, help="Let steps change the steps after them; may change with any release."
)
@click.option("--concurrency", type=click.IntRange(1, 1000), default=1, show_default=True, help="Items at a time.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Write one file per item here.")
@click.option("--stream", is_flag=True, help="Print what streaming steps give as it comes.")
@click.option("--actor", metavar="NAME", help="Who runs it, for audit and traces.")
@click.option("--tenant", metavar="NAME", help="For whom it is run, for audit and traces.")
@click.option("--deadline", type=float, metavar="S", help="Seconds after which an item's run is ended.")
@click.option(
    "--max-input-mb",
    type=click.FloatRange(min=0, min_open=True, max=1_000_000),
    default=10,
    show_default=True,
    help="Most MB of a file.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress and no summary.")
@json_option
@debug_option
@click.pass_context
def run(ctx: click.Context, target: str, **flags: Unpack[RunFlags]) -> None:
    """Run the pipeline NAME of FILE, a .py path or a module.

    NAME may be left out where FILE holds one pipeline, or one called `pipeline`. A folder is one run per file, a .jsonl
    file one run per line; all share the limits, and one that fails does not stop the rest. Everything is read and
    checked before anything runs. Results go to stdout (or --out), progress and the summary to stderr.
    """
    if flags["value"] is not None and flags["text"] is not None:
        raise click.UsageError("--input and --text exclude each other.")
    if math.isnan(flags["max_input_mb"]):  # it compares with no bound
        raise click.UsageError("--max-input-mb is not a number; give megabytes, e.g. 10.")
    if flags["stream"] and (flags["as_json"] or flags["out"] is not None or flags["concurrency"] > 1):
        raise click.UsageError(
            "--stream goes to stdout, one item at a time: leave out --json, --out and --concurrency."
        )
    with Interrupts() as interrupts:
        code = _run(target, flags, interrupts, debug=ctx.ensure_object(State).debug)
    ctx.exit(code)


def _run(target: str, flags: RunFlags, interrupts: Interrupts, *, debug: bool) -> int:
    limits = limits_of(flags["max_usd"], flags["max_tokens"], flags["max_requests"])
    relay = _Relay()
    place, tries = flags["backend"], ("mutation",) if flags["experimental"] else ()
    found, flujo = prepare(
        target, flags, [relay.observe], store=flags["store"], keeps=True, backend=place, experimental=tries
    )
    items = read_items(flags["value"], flags["text"], flags["max_input_mb"], flujo.plan)
    folder = None
    if flags["out"] is not None:
        folder = OutputFolder(flags["out"], [item.name for item in items], flags["value"])
    budget = _shared(flujo, limits)
    relay.progress = _progress(len(items), budget, steps_in_all(flujo.plan), quiet=flags["quiet"] or flags["stream"])
    going = partial(resuming, target, store=flags["store"], experimental=flags["experimental"])
    resume = None if flujo.store is None else going
    many = len(items) > 1
    results = Results(
        sys.stdout, folder, relay.progress, as_json=flags["as_json"], many=many, debug=debug, resume=resume
    )
    options: RunOptions = {"actor": flags["actor"], "tenant": flags["tenant"], "deadline_s": flags["deadline"]}
    options["tags"] = {"target": f"{found.where}:{found.name}"}  # who finds the run in a store, knows what it is of
    chunk = results.chunk if flags["stream"] else None
    batch = Batch(flujo, items, budget, options, progress=relay.progress, emit=results.emit, chunk=chunk)
    results.on_reader_gone = batch.cancel
    try:
        with redirect_stdout(sys.stderr):  # what steps print must not mix with results
            ended = anyio.run(_supervised, batch, interrupts, flags["concurrency"])
    finally:
        relay.progress.close()
    interrupted = interrupts.seen or results.reader_gone
    troubled = results.troubled or batch.trouble is not None
    summary = Summary(ended, budget, flujo.plan, interrupted=interrupted, troubled=troubled)
    return _conclude(summary, batch, results, flags, resume)


def _shared(flujo: Flujo, limits: UsageLimits) -> Budget:
    """The ledger of the whole command: what a Flujo of the file limits itself goes on to hold."""
    if not isinstance(flujo.limits, Budget):
        return Budget(limits)
    return flujo.limits if limits.unlimited else Budget(limits, flujo.limits)


class _Relay:
    """Hands moments on to the progress, which is made when it is known how many items there are."""

    def __init__(self) -> None:
        self.progress: Progress | None = None

    def observe(self, event: Event) -> None:
        if self.progress is not None:
            self.progress.observe(event)


def _progress(total: int, budget: Budget, steps: int | None, *, quiet: bool) -> Progress:
    if quiet:
        return Progress(total, budget, steps)
    console = Console(stderr=True)
    # Rich calls a pipe a terminal where FORCE_COLOR is set; a display that redraws itself needs a real one.
    if sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(total, budget, console, steps_in_all=steps)
    return PlainProgress(total, budget, steps)


async def _supervised(batch: Batch, interrupts: Interrupts, concurrency: int) -> list[Ended]:
    """Run the batch; a signal ends it from inside the loop."""
    with interrupts.telling(batch.cancel):
        return await batch.run(concurrency)


def _conclude(
    summary: Summary, batch: Batch, results: Results, flags: RunFlags, resume: Callable[[str], str] | None
) -> int:
    """Print what became of it all.

    Returns:
        The exit code.
    """
    if batch.trouble is not None:
        say(batch.trouble.what, batch.trouble.why, batch.trouble.do)
    results.conclude(summary)
    if not flags["quiet"] and not flags["as_json"]:
        # A file or a CI log has no width of its own.
        summary.show(Console(stderr=True, width=None if sys.stderr.isatty() else 100))
        if flags["out"] is not None:
            paused = f", {results.kept} paused to {flags['out'] / PAUSED}" if results.kept else ""
            click.echo(f"written: {results.files} to {flags['out']}{paused}", err=True)
    if not flags["as_json"]:
        results.say_how_to_go_on()
    if summary.interrupted:
        _say_what_is_left(summary.ended, resume)
    return summary.exit_code


def _say_what_is_left(ended: Sequence[Ended], resume: Callable[[str], str] | None) -> None:
    """Say how to go on with what was interrupted; `resume` gives the command for a run, where a store has them."""
    left = [item for item in ended if item.status not in ("completed", "paused")]
    begun = [] if resume is None else [resume(item.run_id) for item in left if item.result is not None]
    if left:
        do = "Run the rest again" if len(begun) < len(left) else "Go on with them"
        note(f"interrupted: {len(left)} of {len(ended)} not completed; what is done is kept. {do}")
    for command in begun:
        click.echo(f"    {command} --retry", err=True)
