"""How an evaluation is shown: a table on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from types import TracebackType
from typing import Self

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from flujo.core import Budget

from .evalruns import CaseRun, Comparison, EvalRun

__all__ = ["Watch", "as_json", "show"]


class Watch:
    """Tells on the error stream how far the work is: a bar on a terminal, a line for each case elsewhere."""

    def __init__(self, total: int, budget: Budget, *, quiet: bool) -> None:
        self._total = total
        self._budget = budget
        self._done = 0
        self._quiet = quiet
        self._bar: Progress | None = None
        console = Console(stderr=True)
        if not quiet and sys.stderr.isatty() and not console.is_dumb_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=console, transient=True, redirect_stdout=False)
            self._task = self._bar.add_task("cases", total=total)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def case(self, done: CaseRun) -> None:
        """A case is done."""
        self._done += 1
        if self._bar is not None:
            spent = money(self._budget.spent.cost_usd)
            self._bar.update(self._task, advance=1, description=f"cases, {spent} spent")
        elif not self._quiet:
            cost = money(done.cost_usd)
            click.echo(f"[{self._done}/{self._total}] {done.name}: {_outcome(done)}, {cost}", err=True)


def _outcome(case: CaseRun) -> str:
    score = "" if case.score is None else f", score {case.score:.2f}"
    return f"{case.status}{score}, {case.duration_s:.2f} s"


def money(usd: Decimal) -> str:
    """USD for people: no more digits than say something."""
    return f"${usd:.2f}" if usd == usd.quantize(Decimal("0.01")) else f"${usd:.6f}".rstrip("0")


def as_json(run: EvalRun, found: Comparison | None, *, interrupted: bool) -> str:
    """The evaluation for machines."""
    totals: dict[str, object] = {
        "score": run.score,
        "scorers": run.scorers,
        "cost_usd": str(run.cost_usd),
        "grading_usd": str(run.grading_usd),
        "duration_s": run.duration_s,
        "not_completed": [case.name for case in run.bad],
        "interrupted": interrupted,
    }
    if found is not None:
        totals |= {"regressions": found.regressions, "notes": found.notes}
    return json.dumps({**run.model_dump(mode="json"), "summary": totals}, indent=2)


def show(run: EvalRun, found: Comparison | None) -> None:
    """Print the evaluation: the cases, what all of it came to, and what became worse."""
    was = {} if found is None else {case.name: case for case in found.before.cases}
    rows = [_row(case, was.get(case.name)) for case in run.cases]
    head = ["case", "status", "score", *run.scorers, "cost", "latency"]
    for row, case in zip(rows, run.cases, strict=True):
        row[3:3] = [_number(case.scores.get(name)) for name in run.scorers]
    before = None if found is None else found.before
    means = [_number(mean) for mean in run.scorers.values()]
    score = _moved(run.score, None if before is None else before.score)
    rows.append(["all", "", score, *means, money(run.cost_usd), f"{run.duration_s:.2f} s"])
    _print(head, rows)
    for case in run.bad:
        for what in (case.error, *(f"not scored by {name}: {why}" for name, why in case.unscored.items())):
            if what:
                click.echo(f"{case.name}: {' '.join(what.split())}")
    if run.grading_usd:
        click.echo(f"grading: {money(run.grading_usd)}")
    if found is not None:
        _say_compared(run, found)


def _row(case: CaseRun, was: CaseRun | None) -> list[str]:
    score = _moved(case.score, None if was is None else was.score)
    return [case.name, case.status, score, money(case.cost_usd), f"{case.duration_s:.2f} s"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _moved(now: float | None, before: float | None) -> str:
    """A score, and by how much it moved since the saved one."""
    moved = "" if now is None or before is None or abs(now - before) < 0.005 else f" ({now - before:+.2f})"
    return _number(now) + moved


def _print(head: list[str], rows: list[list[str]]) -> None:
    if not sys.stdout.isatty():
        widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
        for row in (head, *rows):
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(box=box.SIMPLE_HEAD)
    for at, name in enumerate(head):
        table.add_column(escape(name), justify="left" if at < 2 else "right", overflow="fold")
    for at, row in enumerate(rows):
        table.add_row(*map(escape, row), end_section=at == len(rows) - 2, style="bold" if at == len(rows) - 1 else None)
    Console().print(table)


def _say_compared(run: EvalRun, found: Comparison) -> None:
    before = found.before
    cost = f"cost {money(before.cost_usd)} -> {money(run.cost_usd)}"
    click.echo(f"since the saved run: {cost}, latency {before.duration_s:.2f} s -> {run.duration_s:.2f} s")
    for note in found.notes:
        click.echo(f"note: {note}")
    for regression in found.regressions:
        click.echo(f"regression: {regression}")
    if not found.regressions:
        click.echo("no regression")
