"""`flujo runs worker`: goes on with what was decided, has expired, was left behind or is to be cancelled."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable

import anyio
import click

from .printing import AS_JSON, EXIT, EXPERIMENTAL, STORE, TARGET, facts_of, line, prepared, worst
from .worker import Progress, Worker

__all__ = ["INTERRUPTED", "Teller", "until_signal", "worker"]

INTERRUPTED = 130


class Teller:
    """Prints what a worker does, line by line.

    Attributes:
        codes: Exit codes of the runs that ended.
        is_interrupted: Whether a signal asked it to end.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.codes: list[int] = []
        self.is_interrupted = False

    def __call__(self, one: Progress) -> None:
        """Print one line."""
        if one.result is not None:
            self.codes.append(EXIT[one.result.status])
        elif one.event == "refused":
            self.codes.append(EXIT["failed"])
        if self._as_json:
            facts = {"event": one.event, "run_id": one.run_id, "why": one.why}
            click.echo(json.dumps({**facts, **({} if one.result is None else facts_of(one.result))}))
        elif one.result is not None:
            error = f": {one.result.error}" if one.result.error else ""
            text = f"run {one.run_id} is {one.result.status}, {one.result.total_cost_usd} USD in all{error}"
            click.echo(line(text))
        else:
            click.echo(line(f"run {one.run_id} {one.event}: {one.why}" if one.run_id else f"{one.event}: {one.why}"))
        sys.stdout.flush()


async def until_signal(end: Callable[[], object], teller: Teller) -> None:
    """Let the first SIGINT or SIGTERM `end` what runs, in good order; the second ends the process."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if teller.is_interrupted:
                os.write(2, b"flujo: stopped at once; another worker goes on with what ran\n")
                os._exit(INTERRUPTED)
            teller.is_interrupted = True
            os.write(2, b"flujo: ending what runs, taking up nothing new. Once more stops at once.\n")
            end()


@click.command()
@TARGET
@STORE
@EXPERIMENTAL
@click.option("--once", is_flag=True, help="Return when nothing is left that can go on now.")
@click.option("--poll", "poll_s", metavar="SECONDS", type=click.FloatRange(0.05, 3600), default=1.0, show_default=True,
              help="How often to look.")  # fmt: skip
@click.option("--concurrency", metavar="N", type=click.IntRange(1, 1000), default=4, show_default=True,
              help="Most runs at once.")  # fmt: skip
@AS_JSON
@click.pass_context
def worker(
    ctx: click.Context, target: str, *, url: str | None, once: bool, poll_s: float, concurrency: int, as_json: bool
) -> None:
    """Go on with the runs of the pipeline NAME of FILE that wait for nobody but a process.

    These are runs whose question was answered in the inbox or by `flujo runs approve`, whose question has expired with
    an outcome that was declared, whose process went away, or that should be cancelled. A run that cannot go on is told
    and tried again later; it stops no other. Any number of workers may share a store, on any machine that can open it.

    \b
      flujo runs worker flows.py
      flujo runs worker flows.py --once      # from cron

    The first SIGTERM or Ctrl-C lets what runs end and takes up nothing new; the second stops at once, and another
    worker goes on with what ran. Exit code: 130 after a signal; with --once the worst of the runs.
    """
    teller = Teller(as_json=as_json)
    working = Worker(prepared(ctx, target, url, may_be_new=True), teller, concurrency=concurrency)

    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(until_signal, working.end, teller)
            await working.work(once=once, poll_s=poll_s)
            group.cancel_scope.cancel()

    anyio.run(work)
    ctx.exit(INTERRUPTED if teller.is_interrupted else worst(teller.codes) if once else 0)
