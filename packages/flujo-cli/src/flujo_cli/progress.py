"""What is told while runs go on: plain lines here, a live display in `live`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from flujo.core import (
    Budget,
    Event,
    OnGovernorBreach,
    OnGuardDenied,
    OnRetry,
    OnRunPause,
    OnStepFailure,
    OnUsageWarning,
    PostStepExecution,
    PreStepExecution,
    Usage,
)

if TYPE_CHECKING:
    from .batch import Ended

__all__ = ["PlainProgress", "Progress", "money", "spent"]


@dataclass
class Progress:
    """How far the work is. This one says nothing; its children show it.

    Attributes:
        total: Items in all.
        budget: The ledger all runs share.
        steps_in_all: Steps that each run goes through; None where its input decides that.
        done: Items that ended.
        bad: Items that ended otherwise than completed or paused.
        waiting: Items that paused.
        running: Name of each running item, by run id.
        steps: Steps under way in each running item.
        ended_steps: Steps that ended in each running item.
    """

    total: int
    budget: Budget
    steps_in_all: int | None = None
    done: int = 0
    bad: int = 0
    waiting: int = 0
    running: dict[str, str] = field(default_factory=dict)
    steps: dict[str, list[str]] = field(default_factory=dict)
    ended_steps: dict[str, int] = field(default_factory=dict)

    def item_started(self, run_id: str, name: str) -> None:
        """An item's run starts."""
        self.running[run_id] = name
        self.steps[run_id] = []
        self.ended_steps[run_id] = 0

    def item_ended(self, ended: Ended) -> None:
        """An item's run ended."""
        self.running.pop(ended.run_id, None)
        self.steps.pop(ended.run_id, None)
        self.ended_steps.pop(ended.run_id, None)
        self.done += 1
        self.waiting += ended.status == "paused"
        self.bad += ended.status not in ("completed", "paused")

    def observe(self, event: Event) -> None:
        """A moment of a run; given to the engine as an observer."""
        under_way = self.steps.get(event.run.run_id)
        if under_way is None:
            return
        if isinstance(event, PreStepExecution) and event.step_path not in under_way:
            under_way.append(event.step_path)
        elif isinstance(event, (PostStepExecution, OnStepFailure)):
            self.ended_steps[event.run.run_id] += 1
            if event.step_path in under_way:  # one that was skipped never was
                under_way.remove(event.step_path)
        elif isinstance(event, OnRunPause):
            under_way.clear()  # a run pauses when nothing else of it can go on

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Results may be printed meanwhile."""
        yield

    def close(self) -> None:
        """The work is over."""


class PlainProgress(Progress):
    """Lines on the error stream: steps of a single item, ends of several."""

    def item_ended(self, ended: Ended) -> None:
        """Say how it ended, and what it took."""
        super().item_ended(ended)
        if self.total > 1:
            what = f"[{self.done}/{self.total}] {ended.name}: {ended.status}"
            self._say(f"{what}, {ended.duration_s:.1f} s{spent(ended.usage, before=', ')}")

    def observe(self, event: Event) -> None:
        """Say what a single item is at, and of any item what is out of the ordinary."""
        super().observe(event)
        name = self.running.get(event.run.run_id, "")
        item = f"{name}: " if self.total > 1 else ""
        text = _moment(event)
        if text is not None:
            self._say(f"{item}{text}")
        elif self.total == 1 and isinstance(event, PreStepExecution) and event.attempt == 1:
            self._say(f"step {event.step_path} ...")
        elif self.total == 1 and isinstance(event, (PostStepExecution, OnStepFailure)):
            self._say(self._counted(event))
        elif self.total == 1 and isinstance(event, OnRunPause):
            for pause in event.pauses:
                self._say(f"step {pause.step_path}: paused, asks a human")

    def _counted(self, event: PostStepExecution | OnStepFailure) -> str:
        """How a step ended, and how many did. Before the last one nobody knows how often a loop turns."""
        record = event.record
        number = f"[{self.ended_steps.get(event.run.run_id, 0)}/{self.steps_in_all or '?'}]"
        status = "cached" if record.cached else record.status
        took = "" if status == "skipped" else f", {record.duration_s:.1f} s{spent(record.usage, before=', ')}"
        return f"{number} step {event.step_path}: {status}{took}"

    def _say(self, text: str) -> None:
        click.echo(text, err=True)


def _moment(event: Event) -> str | None:
    """What is worth a line however many items there are."""
    if isinstance(event, OnRetry):
        failed = f"step {event.step_path}: attempt {event.attempt} failed ({event.error_type})"
        return f"{failed}, again in {event.delay_s:.1f} s"
    if isinstance(event, OnUsageWarning):
        return f"{event.limit} is used to {event.share:.0%}"
    if isinstance(event, OnGovernorBreach):
        return f"{event.error.what}; the run stops"
    if isinstance(event, OnGuardDenied):
        return f"denied by {event.denial.plugin}: {event.denial.reason}"
    return None


def money(usage: Usage) -> str:
    """USD spent, for people: no more digits than say something."""
    cost = usage.cost_usd
    return f"${cost:.2f}" if cost == cost.quantize(_CENT) else f"${cost:.6f}".rstrip("0")


_CENT = type(Usage().cost_usd)("0.01")


def spent(usage: Usage, before: str = "") -> str:
    """Tokens and money, where there were any."""
    parts = []
    if usage.total_tokens:
        parts.append(f"{usage.total_tokens:,} tokens")
    if usage.cost_usd:
        parts.append(money(usage))
    return before + ", ".join(parts) if parts else ""
