"""How a step ended. Outcomes are values, told apart by `match`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import JsonValue

from .errors import FlujoError, GuardDenied, RunAborted, UsageLimitExceeded
from .pause import PauseForHumanInput

if TYPE_CHECKING:
    from .mutation import PipelineMutation


@dataclass(slots=True)
class Success:
    """The step gave an output."""

    output: object
    error: ClassVar[None] = None


@dataclass(slots=True)
class Mutated(Success):
    """The step gave an output, and says how the rest of its pipeline is to change."""

    mutation: PipelineMutation[object]


@dataclass(slots=True)
class Failure:
    """The step failed after its last attempt, or a limit refused its work."""

    error: FlujoError
    output: ClassVar[None] = None


@dataclass(slots=True)
class Skipped:
    """The step's `when` said no; `output` is its input, which `>>` hands on."""

    output: object
    error: ClassVar[None] = None


@dataclass(slots=True)
class Paused:
    """The step waits for a human."""

    request: PauseForHumanInput
    output: ClassVar[None] = None
    error: ClassVar[None] = None


@dataclass(slots=True)
class Aborted:
    """The step was not let through, or was ended with the run: a denial, an abort or a cancel."""

    error: FlujoError
    output: ClassVar[None] = None


Outcome = Success | Failure | Paused | Skipped | Aborted


@dataclass(slots=True)
class Choice:
    """What a branch or a loop was told: the place of the case to run; for a loop 1 where it is to end, else 0."""

    value: int
    error: ClassVar[None] = None


@dataclass(slots=True)
class Answer:
    """What a human answered to `ctx.ask`: the step runs again and finds it under `key`, a digest of what was shown."""

    value: JsonValue
    key: str
    error: ClassVar[None] = None


@dataclass(slots=True)
class Decided:
    """What a human decided for a step that raised its question: it ends with that, and its body is not run again."""

    output: object
    error: ClassVar[None] = None


@dataclass(slots=True)
class Called:
    """What a tool gave: a step that runs again finds it under `key`, a digest of the call."""

    value: JsonValue
    key: str
    error: ClassVar[None] = None


@dataclass(slots=True)
class Begun:
    """That what may happen at most once begins: the work of a step, or the call of a tool.

    Attributes:
        key: A digest of the call; empty for the step itself.
        tool: Name of the tool.
        is_over: That it surely did not happen, after all.
    """

    key: str = ""
    tool: str = ""
    is_over: bool = False
    error: ClassVar[None] = None


@dataclass(slots=True)
class Spent:
    """That a call to a model ended; the usage of its entry is what it used, and counts with the end of the step.

    Attributes:
        priced_by: Where its price came from.
        is_lost: That the step was cut off before its end, so that this counts for itself.
    """

    priced_by: str = ""
    is_lost: bool = False
    output: ClassVar[None] = None
    error: ClassVar[None] = None


Effect = Literal["pure", "idempotent", "at_most_once"]
"""What may happen to work that a crash interrupted: done again; done again with the same key; never by itself."""

StepStatus = Literal["completed", "failed", "aborted", "cancelled", "paused", "skipped"]
"""Status of a step record; `cancelled` is a step that was stopped because a sibling ended the run or its body."""


def status_of(error: BaseException | None) -> Literal["completed", "stopped", "aborted", "failed", "cancelled"]:
    """The word for an end with `error`."""
    if error is None:
        return "completed"
    if isinstance(error, UsageLimitExceeded):
        return "stopped"
    if isinstance(error, (GuardDenied, RunAborted)):
        return "aborted"
    return "failed" if isinstance(error, Exception) else "cancelled"
