"""How a step ended. Outcomes are values, told apart by `match`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .errors import FlujoError


@dataclass(slots=True)
class Success:
    """The step gave an output."""

    output: object
    error: ClassVar[None] = None


@dataclass(slots=True)
class Failure:
    """The step failed after its last attempt, or a limit refused its work."""

    error: FlujoError
    output: ClassVar[None] = None


@dataclass(slots=True)
class Aborted:
    """The step was not let through, or was ended with the run: a denial, an abort or a cancel."""

    error: FlujoError
    output: ClassVar[None] = None


Outcome = Success | Failure | Aborted

StepStatus = Literal["completed", "failed", "aborted", "cancelled"]
"""Status of a step record; `cancelled` is a step that was stopped because a sibling ended the run."""
