"""The live display on a terminal: items done, what runs, tokens, money, and how much of the budget is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flujo.core import Budget, Event, OnGovernorBreach, OnGuardDenied, OnRetry, OnRunPause

from .progress import Progress, money

__all__ = ["LiveProgress"]

_MOST_SHOWN = 5
"""Running items, and steps of one item, shown by name."""


class LiveProgress(Progress):
    """Draws itself ten times a second on the error stream, and leaves nothing behind."""

    def __init__(self, total: int, budget: Budget, console: Console, *, steps_in_all: int | None = None) -> None:
        super().__init__(total, budget, steps_in_all)
        self._last = ""
        # Not stdout: results go there themselves, through `paused`; what steps print is sent to stderr by the command.
        self._live = Live(self, console=console, refresh_per_second=10, transient=True, redirect_stdout=False)
        self._live.start()

    def observe(self, event: Event) -> None:
        """Keep the last thing that is out of the ordinary in sight."""
        super().observe(event)
        name = self.running.get(event.run.run_id, "")
        if isinstance(event, OnRetry):
            self._last = f"{name}: step {event.step_path} is tried again after {event.error_type}"
        elif isinstance(event, OnGovernorBreach):
            self._last = f"{name}: {event.error.what}"
        elif isinstance(event, OnGuardDenied):
            self._last = f"{name}: denied by {event.denial.plugin}"
        elif isinstance(event, OnRunPause):
            self._last = f"{name}: step {event.pauses[0].step_path} asks a human"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the display away while something is printed."""
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def close(self) -> None:
        """Take the display away."""
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The display as it is now."""
        yield Group(self._bars(), *self._running())

    def _bars(self) -> Table:
        table = Table.grid(padding=(0, 1))
        usage, limits = self.budget.spent, self.budget.limits
        bad = f", {self.bad} not completed" if self.bad else ""
        bad += f", {self.waiting} paused" if self.waiting else ""
        self._bar(table, "items", self.done / max(1, self.total), f"{self.done} of {self.total}{bad}")
        cost = f"{money(usage)} spent, {usage.total_tokens:,} tokens, {usage.requests} calls"
        if limits.cost is not None:
            share = float(usage.cost_usd / limits.cost) if limits.cost else 1.0
            self._bar(table, "budget", share, f"{cost}, of ${limits.cost}")
        elif limits.total_tokens_limit is not None:
            share = usage.total_tokens / max(1, limits.total_tokens_limit)
            self._bar(table, "budget", share, f"{cost}, of {limits.total_tokens_limit:,} tokens")
        else:
            table.add_row("used", "", cost)
        return table

    def _bar(self, table: Table, name: str, share: float, text: str) -> None:
        table.add_row(name, ProgressBar(total=1.0, completed=min(1.0, share), width=30), text)

    def _running(self) -> Iterator[Text]:
        # Copies: the display is drawn by a thread of its own while runs start and end.
        running, steps, ended = dict(self.running), dict(self.steps), dict(self.ended_steps)
        of = "" if self.steps_in_all is None else f" of {self.steps_in_all}"
        for run_id, name in list(running.items())[:_MOST_SHOWN]:
            names = list(steps.get(run_id, ()))
            more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
            under_way = (", ".join(names[:_MOST_SHOWN]) or "starting") + more
            number = ended.get(run_id, 0)
            count = f"  ({number}{of} step{'s'[: number != 1 or bool(of)]} done)"
            yield Text(f"  {name}: {under_way}{count}", no_wrap=True, overflow="ellipsis")
        if len(running) > _MOST_SHOWN:
            yield Text(f"  and {len(running) - _MOST_SHOWN} more")
        if self._last:
            yield Text(f"  {self._last}", style="yellow", no_wrap=True, overflow="ellipsis")
