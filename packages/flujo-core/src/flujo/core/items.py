"""What a stream gives its reader, and what a model gives piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .messages import ModelUsage, ToolCall

if TYPE_CHECKING:
    from .pause import Pause
    from .result import PipelineResult, StepRecord
    from .usage import Usage


class Chunk(NamedTuple):
    """A piece of what a streaming step gives. (A tuple: it is made for each token.)

    Attributes:
        value: The piece, e.g. a few letters of text.
        step_path: Where the step stands; of a chain of streaming steps, the chain, e.g. `draft>>polish`.
        choice: Which of several answers it belongs to; 0 where there is one.
    """

    value: Any
    step_path: str = ""
    choice: int = 0


@dataclass(frozen=True, slots=True)
class StepStarted:
    """An attempt of a step begins.

    Attributes:
        step_path: Where the step stands.
        name: Name of the step.
        attempt: Number of the attempt, from 1.
    """

    step_path: str
    name: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StepEnded:
    """A step completed, was skipped, or failed for good. One that was cancelled or waits for a human has none.

    Attributes:
        step_path: Where the step stands.
        record: How it went. Its repr shows no output.
    """

    step_path: str
    record: StepRecord


@dataclass(frozen=True, slots=True)
class UsageUpdate:
    """Something was paid for.

    Attributes:
        step_path: Where the step stands that used it.
        usage: What the whole run used so far.
    """

    step_path: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class PausedItem:
    """The run waits for a human; it comes before the result, once for each open question."""

    pause: Pause


@dataclass(frozen=True, slots=True)
class ResultItem:
    """The end, and the last item: however the run ended, nothing is raised."""

    result: PipelineResult = field(repr=False)


StreamItem = Chunk | StepStarted | StepEnded | UsageUpdate | PausedItem | ResultItem


class ModelChunk(NamedTuple):
    """A piece of a model's answer, as `send` of `ctx.stream_model` gives it.

    Attributes:
        content: Some text; empty where the piece tells something else.
        choice: Which of several answers it belongs to.
        tool_calls: Tools the model wants run, each whole.
        usage: What was used so far, as far as the provider says it; the last one counts.
        finish_reason: Why the answer ended, in the last piece.
        model: The model that answers, where the provider says it.
        hidden: Tokens that came and are not shown, as of a tool call that is not whole yet: limits count them.
    """

    content: str = ""
    choice: int = 0
    tool_calls: tuple[ToolCall, ...] = ()
    usage: ModelUsage | None = None
    finish_reason: str = ""
    model: str = ""
    hidden: int = 0
