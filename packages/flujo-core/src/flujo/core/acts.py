"""What is recorded before and after it happens, and the words for how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

from .context import RunContext
from .errors import GuardDenied, RunAborted, UsageLimitExceeded
from .payloads import RecordKind


@dataclass(slots=True)
class Act:
    """What is recorded before and after it happens: a run, an attempt of a step, a call.

    Attributes:
        kind: Which of them.
        record_id: The same in its intent and its result.
        ctx: The attempt it belongs to; None for a run.
        attempt: Its number.
        intended: Whether it came so far that its start was recorded, if anybody records.
        started: When it started, on `perf_counter`.
    """

    kind: RecordKind
    record_id: str
    ctx: RunContext | None = None
    attempt: int = 1
    intended: bool = False
    started: float = field(default_factory=perf_counter)


def status_of(error: BaseException | None) -> Literal["completed", "stopped", "aborted", "failed", "cancelled"]:
    """The word for an end with `error`."""
    if error is None:
        return "completed"
    if isinstance(error, UsageLimitExceeded):
        return "stopped"
    if isinstance(error, (GuardDenied, RunAborted)):
        return "aborted"
    return "failed" if isinstance(error, Exception) else "cancelled"
