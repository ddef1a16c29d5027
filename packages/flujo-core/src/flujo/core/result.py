"""What a run gives back: a result that keeps everything paid for, however the run ended."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

from .errors import FlujoError, RunPaused
from .outcome import StepStatus
from .pause import Pause
from .usage import Usage

if TYPE_CHECKING:
    from .snapshot import Snapshot

RunStatus = Literal["completed", "failed", "paused", "stopped", "aborted"]
"""`stopped` is a run that a limit stopped; `aborted` one that was denied, aborted or cancelled."""


@dataclass(slots=True)
class StepRecord:
    """How one step went. Its repr shows no output: that may be long or private.

    A branch or loop that failed by itself has one too. What never began has none, as a body that a failure forestalled.

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
    output: object = field(repr=False)
    error: FlujoError | None
    attempts: int
    started_at: float
    duration_s: float
    usage: Usage
    cached: bool = False


class Origin(Protocol):
    """The run that a result comes from."""

    def history(self) -> list[StepRecord]:
        """One record per visit of a step."""

    def snapshot(self) -> Snapshot:
        """Where it stands, as data."""


@dataclass(repr=False, eq=False)
class PipelineResult:
    """The end of a run, or its pause.

    Attributes:
        run_id: Unique id of the run.
        status: How the run ended.
        context: The user's context as the run left it; None without a context model.
        usage: What the whole run used.
        error: Why the run did not complete; None of a paused one.
        counts: What plugins counted, e.g. `{"redactions": {"PERSON": 3}}`.
        duration_s: Seconds from start to end.
        pauses: Questions that wait for a human.
    """

    run_id: str
    status: RunStatus
    value: object
    context: object
    usage: Usage
    error: FlujoError | None
    counts: Mapping[str, Mapping[str, int]]
    duration_s: float
    pauses: tuple[Pause, ...]
    origin: Origin

    @cached_property
    def step_history(self) -> list[StepRecord]:
        """One record per step that was started, in the order they ended; made when it is first read."""
        return self.origin.history()

    @property
    def output(self) -> object:
        """What the pipeline gave.

        Raises:
            FlujoError: The run did not complete; it is the stored error, or RunPaused.
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
        if self.status == "paused":
            raise RunPaused(self.run_id, len(self.pauses))
        return self.value

    def snapshot(self) -> Snapshot:
        """The run as JSON data, to be resumed later, elsewhere; see Snapshot.

        Raises:
            SnapshotError: A value that the run holds cannot be written as JSON and read back; it is named.
        """
        return self.origin.snapshot()

    def __reduce__(self) -> NoReturn:
        raise FlujoError("a PipelineResult cannot be pickled", "it belongs to its run", "Keep result.snapshot()")

    def __copy__(self) -> PipelineResult:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> PipelineResult:
        """A copy of its values; the run that it comes from is the same one, not copied."""
        value, context, usage = deepcopy((self.value, self.context, self.usage), memo)
        return replace(self, value=value, context=context, usage=usage)

    def __repr__(self) -> str:
        """Never raises, and shows no output: it may be long or private."""
        error = f", error={type(self.error).__name__}" if self.error is not None else ""
        return f"PipelineResult(run_id={self.run_id!r}, status={self.status!r}, cost_usd={self.usage.cost_usd}{error})"
