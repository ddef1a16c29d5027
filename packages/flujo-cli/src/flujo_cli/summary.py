"""What became of a command's runs: a table for people, an object for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flujo.core import Budget, FlujoError, Plan, Usage

from . import exits
from .batch import Ended
from .describe import paths_of
from .progress import money
from .questions import pause_facts

__all__ = ["Summary", "item_facts"]

_TITLES = {"redactions": "redacted", "plugin_faults": "plugins that failed"}
_STYLES = {
    "completed": "green", "cached": "green", "skipped": "dim", "paused": "yellow",
    "stopped": "yellow", "cancelled": "yellow", "failed": "red", "aborted": "red",
}  # fmt: skip


@dataclass
class _Row:
    """A step over all items, and all visits of it in each. A `cached` one completed."""

    statuses: Counter[str] = field(default_factory=Counter)
    cached: int = 0
    duration_s: float = 0.0
    usage: Usage = field(default_factory=Usage)

    def shown(self) -> dict[str, int]:
        """How often it ended how, for people: what came from a cache did not work."""
        counts = {"completed": self.statuses["completed"] - self.cached, "cached": self.cached}
        return {name: number for name, number in {**self.statuses, **counts}.items() if number}


class Summary:
    """Adds up how items ended.

    Args:
        ended: All items.
        budget: The ledger they shared.
        plan: What they ran.
        interrupted: Whether a signal ended the command.
        troubled: Whether something went wrong beside the runs, e.g. a result that could not be written.
    """

    def __init__(
        self, ended: Sequence[Ended], budget: Budget, plan: Plan, *, interrupted: bool, troubled: bool
    ) -> None:
        self.ended = ended
        self.interrupted = interrupted
        self._path_in_plan = paths_of(plan)
        self.budget = budget
        self.statuses = Counter(item.status for item in ended)
        self.usage = Usage()
        self.counts: dict[str, Counter[str]] = {}
        for item in ended:
            self.usage.add(item.usage)
            for kind, labels in ({} if item.result is None else item.result.counts).items():
                self.counts.setdefault(kind, Counter()).update(labels)
        codes = [exits.of_status(item.status) for item in ended if item.status != "not started"]
        extra = [exits.INTERRUPTED] * interrupted + [exits.FAILED] * troubled
        self.exit_code = exits.worst([*codes, *extra])

    # --- for people -------------------------------------------------------------------------------------------------

    def show(self, console: Console) -> None:
        """Print the table of steps and the lines below it."""
        console.print(self._table())
        for line in self._lines():
            console.print(line, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("step", overflow="fold")
        table.add_column("status")
        for name in ("time", "tokens", "cost"):
            table.add_column(name, justify="right")
        for path, row in self._rows().items():
            status = _statuses(row.shown(), len(self.ended))
            time = f"{row.duration_s:.2f} s"
            table.add_row(escape(path), status, time, f"{row.usage.total_tokens:,}", money(row.usage))
        return table

    def _rows(self) -> dict[str, _Row]:
        rows: dict[str, _Row] = {}
        for item in self.ended:
            for record in () if item.result is None else item.result.step_history:
                row = rows.setdefault(self._path_in_plan(record.path), _Row())
                row.statuses[record.status] += 1
                row.cached += record.cached
                row.duration_s += record.duration_s
                row.usage.add(record.usage)
        return rows

    def _lines(self) -> Iterable[str]:
        many, statuses = len(self.ended) > 1, {str(name): number for name, number in self.statuses.items()}
        what = f"{len(self.ended)} items: {_statuses(statuses, 0)}" if many else _statuses(statuses, 1)
        used = f"{self.usage.total_tokens:,} tokens, {money(self.usage)}"
        run_id = "" if many or not self.ended[0].run_id else f"   run {self.ended[0].run_id}"
        yield f"{what}   {used}{run_id}"
        for kind, labels in self.counts.items():
            listed = ", ".join(f"{escape(label)} {number}" for label, number in labels.most_common())
            yield f"{escape(_TITLES.get(kind, kind.replace('_', ' ')))}: {listed}"
        yield from self._budget_lines()

    def _budget_lines(self) -> Iterable[str]:
        limits, usage = self.budget.limits, self.usage
        parts = []
        if limits.cost is not None:
            parts.append(f"{money(usage)} of ${limits.cost}")
        if limits.total_tokens_limit is not None:
            parts.append(f"{usage.total_tokens:,} of {limits.total_tokens_limit:,} tokens")
        if limits.requests_limit is not None:
            parts.append(f"{usage.requests:,} of {limits.requests_limit:,} calls")
        if parts:
            yield f"budget: {', '.join(parts)}"
        if usage.unpriced:
            yield f"not in the cost: {usage.unpriced} calls to models of unknown price"
        if usage.unmeasured:
            yield f"estimated at their most: {usage.unmeasured} calls whose provider reported no usage"
        if usage.overshoot_usd:
            yield f"billed beyond what was reserved: ${usage.overshoot_usd}"

    # --- for machines -----------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, object]:
        """All of it as plain data, outputs left out."""
        limits = self.budget.limits
        return {
            "type": "summary",
            "exit_code": self.exit_code,
            "items": len(self.ended),
            "statuses": dict(self.statuses),
            "usage": _usage(self.usage),
            "counts": {kind: dict(labels) for kind, labels in self.counts.items()},
            "limits": {
                "cost_usd": None if limits.cost is None else str(limits.cost),
                "tokens": limits.total_tokens_limit,
                "requests": limits.requests_limit,
            },
            "steps": {
                path: {
                    "statuses": dict(row.statuses),
                    "cached": row.cached,
                    "duration_s": round(row.duration_s, 6),
                    "usage": _usage(row.usage),
                }
                for path, row in self._rows().items()
            },
        }


def item_facts(ended: Ended, *, output: bool, kept: Path | None = None) -> dict[str, object]:
    """How one item ended, as plain data.

    Args:
        ended: The item.
        output: Whether what it gave belongs in, too.
        kept: Where its run was written to, that waits for a human.
    """
    result = ended.result
    facts: dict[str, object] = {
        "type": "item",
        "index": ended.index,
        "item": ended.name,
        "status": ended.status,
        "run_id": ended.run_id or None,
        "error": _error(ended.error),
        "pauses": [] if result is None else [pause_facts(pause) for pause in result.pauses],
        "snapshot": None if kept is None else str(kept),
        "duration_s": round(ended.duration_s, 6),
        "usage": _usage(ended.usage),
        "counts": {} if result is None else result.counts,
        "steps": [
            {
                "path": record.path,
                "status": record.status,
                "cached": record.cached,
                "attempts": record.attempts,
                "duration_s": round(record.duration_s, 6),
                "usage": _usage(record.usage),
                "error": _error(record.error),
            }
            for record in (() if result is None else result.step_history)
        ],
    }
    if output:
        facts["output"] = result.value if result is not None and ended.status == "completed" else None
    return facts


def _error(error: FlujoError | None) -> Mapping[str, str] | None:
    if error is None:
        return None
    return {"type": type(error).__name__, "what": error.what, "why": error.why, "do": error.do}


def _usage(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "requests": usage.requests,
        "cost_usd": str(usage.cost_usd),
        "unmeasured": usage.unmeasured,
        "unpriced": usage.unpriced,
    }


def _statuses(statuses: Mapping[str, int], single: int) -> str:
    """`completed`, or `18 completed, 2 failed` where there are several."""
    styled = {name: f"[{_STYLES[name]}]{name}[/]" if name in _STYLES else name for name in statuses}
    if single == 1 and sum(statuses.values()) == 1:
        return "".join(styled.values())
    return ", ".join(f"{number} {styled[name]}" for name, number in statuses.items())
