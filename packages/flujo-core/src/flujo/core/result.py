"""What a run gives back: a result that keeps everything paid for, however the run ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from .errors import FlujoError
from .outcome import StepStatus
from .usage import Usage

RunStatus = Literal["completed", "failed", "paused", "stopped", "aborted"]
"""`stopped` is a run that a limit stopped; `aborted` one that was denied, aborted or cancelled."""


@dataclass(slots=True)
class StepRecord:
    """How one step went.

    Attributes:
        name: Name of the step.
        path: Where it stands in the pipeline.
        status: How it ended.
        output: What it gave; None unless it completed.
        error: Why it did not complete.
        attempts: How often it was tried.
        started_at: Start of the first attempt, seconds since the epoch.
        duration_s: Seconds from the first start to the end, waits between attempts included.
        usage: What it used, failed attempts included.
        cached: Whether the output came from a cache.
    """

    name: str
    path: str
    status: StepStatus
    output: object
    error: FlujoError | None
    attempts: int
    started_at: float
    duration_s: float
    usage: Usage
    cached: bool = False


@dataclass(slots=True, repr=False)
class PipelineResult:
    """The end of a run.

    Attributes:
        run_id: Unique id of the run.
        status: How the run ended.
        context: The user's context as the run left it; None without a context model.
        step_history: One record per step that was started, in the order they ended.
        usage: What the whole run used.
        error: Why the run did not complete.
        counts: What plugins counted, e.g. `{"redactions": {"PERSON": 3}}`.
        duration_s: Seconds from start to end.
    """

    run_id: str
    status: RunStatus
    value: object
    context: object
    step_history: list[StepRecord]
    usage: Usage
    error: FlujoError | None = None
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    duration_s: float = 0.0

    @property
    def output(self) -> object:
        """What the pipeline gave.

        Raises:
            FlujoError: The run did not complete; it is the stored error.
        """
        return self.unwrap()

    @property
    def total_cost_usd(self) -> Decimal:
        """USD spent by the whole run."""
        return self.usage.cost_usd

    def unwrap(self) -> object:
        """Return the output, or raise the stored error when the run did not complete."""
        if self.error is not None:
            raise self.error
        return self.value

    def __repr__(self) -> str:
        """Never raises, and shows no output: it may be long or private."""
        error = f", error={type(self.error).__name__}" if self.error is not None else ""
        return (
            f"PipelineResult(run_id={self.run_id!r}, status={self.status!r}, steps={len(self.step_history)}, "
            f"cost_usd={self.usage.cost_usd}{error})"
        )
