"""What hooks get and give: one small typed object per moment, named like its hook.

Slots classes, not pydantic: they are built on the engine's hot path, and only if someone listens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, cast

from .context import RunInfo
from .errors import FlujoError, GuardDenied, UsageLimitExceeded
from .messages import ModelRequest, ModelResponse, ToolCall, ToolResult
from .mutation import PipelineChange
from .pause import Pause
from .result import PipelineResult, StepRecord
from .usage import Usage, UsageLimits


class AbortPipeline(Exception):
    """Raised by a hook to end the run: the finished step and its cost stay, the result is `aborted`.

    A guard that raises it denies for its reason.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


# --- answers of guards and transforms -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, init=False)  # no `__init__`: to call an empty one doubles what one costs
class Allow:
    """A guard's yes."""


@dataclass(frozen=True, slots=True)
class Deny:
    """A guard's no. In `guard_tool_call`, `to_model=True` gives the model a refusal instead of ending the run."""

    reason: str
    to_model: bool = False


class _Unchanged:
    """The type of UNCHANGED."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = _Unchanged()
"""A transform's answer when it leaves the value as it is."""


@dataclass(slots=True, repr=False, eq=False)
class Event:
    """What every payload knows: its run. As the annotation of a `hooks=[fn]` callable it means all observed moments."""

    run: RunInfo

    def __repr__(self) -> str:
        """Shows no value: inputs, requests and outputs may be private."""
        return f"{type(self).__name__}(run_id={self.run.run_id!r})"


@dataclass(slots=True, repr=False, eq=False)
class StepEvent(Event):
    """What a payload of a step's moment knows too: where the step stands; empty where it is the run's."""

    step_path: str


# --- guards ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True, repr=False, eq=False)
class GuardRun(Event):
    """A run is about to start with this input."""

    input: object
    limits: UsageLimits | None


@dataclass(slots=True, repr=False, eq=False)
class GuardStep(StepEvent):
    """An attempt of a step is about to start with these inputs, after all input transforms."""

    name: str
    attempt: int
    inputs: Mapping[str, object]


@dataclass(slots=True, repr=False, eq=False)
class GuardMutation(StepEvent):
    """A step ended, and is about to change what comes after it in the pipeline of its run: experimental."""

    change: PipelineChange


@dataclass(slots=True, repr=False, eq=False)
class GuardModelCall(StepEvent):
    """A model is about to be called with this request, after all request transforms."""

    attempt: int
    request: ModelRequest


@dataclass(slots=True, repr=False, eq=False)
class GuardToolCall(StepEvent):
    """A tool is about to be called."""

    attempt: int
    call: ToolCall


# --- transforms -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, repr=False, eq=False)
class TransformStepInput(StepEvent):
    """One input of a step. `from_run_input` says that the value is (part of) what the user gave the run."""

    parameter: str
    value: object
    from_run_input: bool


@dataclass(slots=True, repr=False, eq=False)
class TransformStepOutput(StepEvent):
    """What a step returned."""

    value: object


@dataclass(slots=True, repr=False, eq=False)
class TransformModelRequest(StepEvent):
    """A request on its way to a model. `cost_left_usd` and `tokens_left` are None where there is no limit."""

    value: ModelRequest
    cost_left_usd: Decimal | None
    tokens_left: int | None


@dataclass(slots=True, repr=False, eq=False)
class TransformModelResponse(StepEvent):
    """A model's answer on its way to the step."""

    request: ModelRequest
    value: ModelResponse


Surface = Literal["model", "step"]


@dataclass(slots=True, repr=False, eq=False)
class TransformChunk(StepEvent):
    """A piece of a stream on its way to who reads it.

    A transform of texts may hold some back: it gives "" where nothing may be seen yet, and what it holds when it is
    asked with `is_last`, with the value "". What it has to remember stands in `state`, under a key of its own.

    Attributes:
        stream_id: The same for all pieces of a stream.
        surface: "model" for a model's answer on its way to the step, "step" for a step's chunk on its way out.
        state: Lives as long as the stream; all transforms share it.
        is_last: Whether the stream has ended.
        value: The piece.
    """

    stream_id: str
    surface: Surface
    state: dict[str, object]
    value: object
    is_last: bool


# --- records --------------------------------------------------------------------------------------------------------

RecordKind = Literal["run", "step", "model_call", "tool_call"]


@dataclass(slots=True, repr=False, eq=False)
class RecordIntent(Event):
    """Something is about to happen. `record_id` is the same in the intent and its result, and unique in the run.

    After a resume it ends with a mark of that resume, as in `call-1~9f86d081`: its counts begin anew.

    `subject` is the run input, the step's inputs by name, the ModelRequest or the ToolCall.
    """

    kind: RecordKind
    record_id: str
    step_path: str
    attempt: int
    subject: object


@dataclass(slots=True, repr=False, eq=False)
class RecordResult(Event):
    """It happened. `value` is the output, ModelResponse or ToolResult; None where there is none.

    `status` is completed, failed, stopped, aborted, cancelled or paused; `error_type` names the error, never its text.
    """

    kind: RecordKind
    record_id: str
    step_path: str
    attempt: int
    status: str
    value: object
    error_type: str
    usage: Usage
    duration_s: float


# --- observed moments -----------------------------------------------------------------------------------------------


@dataclass(slots=True, repr=False, eq=False)
class OnRunStart(Event):
    """A run was let through and starts; `steps` is how many the plan has.

    `input` is None where a transform acts on the inputs of steps: observers see it in each step, as that leaves it.
    """

    input: object
    steps: int


@dataclass(slots=True, repr=False, eq=False)
class PreStepExecution(GuardStep):
    """An attempt of a step starts. Raising AbortPipeline here means the step does not run."""


class StepEndEvent(StepEvent):
    """What the payloads of a step's end know.

    Args:
        run: Which run.
        step_path: Where the step stands.
        record: How it went, or what makes that when somebody asks for it.
    """

    __slots__ = ("_record",)

    def __init__(self, run: RunInfo, step_path: str, record: StepRecord | Callable[[], StepRecord]) -> None:
        self.run = run
        self.step_path = step_path
        self._record: StepRecord | tuple[Any, ...] = record if isinstance(record, StepRecord) else (record,)

    @property
    def record(self) -> StepRecord:
        """How it went."""
        if not isinstance(self._record, StepRecord):
            self._record = cast("StepRecord", self._record[0](*self._record[1:]))
        return self._record


class PostStepExecution(StepEndEvent):
    """A step completed."""

    __slots__ = ()


class OnStepFailure(StepEndEvent):
    """A step failed after its last attempt; `error` says why."""

    __slots__ = ("error",)

    def __init__(
        self, run: RunInfo, step_path: str, record: StepRecord | Callable[[], StepRecord], error: FlujoError
    ) -> None:
        super().__init__(run, step_path, record)
        self.error: FlujoError = error


@dataclass(slots=True, repr=False, eq=False)
class OnRetry(StepEvent):
    """An attempt failed and is made again after `delay_s` seconds."""

    attempt: int
    error_type: str
    delay_s: float


@dataclass(slots=True, repr=False, eq=False)
class OnModelCall(StepEvent):
    """A model was called; `usage` is what was booked for it, `response` is None when the call failed."""

    request: ModelRequest
    response: ModelResponse | None
    usage: Usage
    duration_s: float


@dataclass(slots=True, repr=False, eq=False)
class OnToolCall(StepEvent):
    """A tool was called; `result` is None when the call failed."""

    call: ToolCall
    result: ToolResult | None
    duration_s: float


@dataclass(slots=True, repr=False, eq=False)
class OnGuardDenied(StepEvent):
    """A guard, or a required recorder, denied."""

    denial: GuardDenied


@dataclass(slots=True, repr=False, eq=False)
class OnUsageWarning(Event):
    """The share `warn_at` of a limit is used: once per limit and run, of a Budget once for all its runs.

    Told after the model call that used it; of what a step reserves or records itself, when its attempt ends.
    """

    limit: str
    share: float


@dataclass(slots=True, repr=False, eq=False)
class OnGovernorBreach(StepEvent):
    """A limit refused work; the run stops."""

    error: UsageLimitExceeded


@dataclass(slots=True, repr=False, eq=False)
class OnCacheHit(StepEvent):
    """A step was not run: its output was kept from before. `post_step_execution` follows."""


@dataclass(slots=True, repr=False, eq=False)
class OnMutation(GuardMutation):
    """A step changed what comes after it in the pipeline of its run: experimental."""


@dataclass(slots=True, repr=False, eq=False)
class OnRunPause(Event):
    """A run waits for a human, and nothing else of it can go on."""

    pauses: tuple[Pause, ...]


@dataclass(slots=True, repr=False, eq=False)
class OnRunResume(Event):
    """A run goes on from where it stood; `input` is that of OnRunStart."""

    input: object


@dataclass(slots=True, repr=False, eq=False)
class OnHumanDecision(StepEvent):
    """A human decided what a paused step asked; the run is about to go on.

    `decision` is None where a transform acts on outputs of steps: observers see it as the step's, as that leaves it.
    """

    pause: Pause
    decision: object


@dataclass(slots=True, repr=False, eq=False)
class OnRunEnd(Event):
    """A run ended or paused, in whatever way."""

    result: PipelineResult
