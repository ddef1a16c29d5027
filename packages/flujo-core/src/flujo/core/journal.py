"""The journal of a run: what ended, in the order it ended. The state of a run is a fold of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import FlujoError
from .mutation import PipelineChange
from .outcome import (
    Aborted,
    Answer,
    Begun,
    Called,
    Choice,
    Decided,
    Failure,
    Outcome,
    Paused,
    Skipped,
    Spent,
    StepStatus,
    Success,
)
from .plan import Plan
from .result import StepRecord
from .usage import Usage

_STATUS: dict[type, StepStatus] = {Failure: "failed", Aborted: "aborted", Paused: "paused", Skipped: "skipped"}


@dataclass(slots=True)
class Entry:
    """The end of a visit of a node. One entry holds both instants, its start and its end.

    Attributes:
        frame: Number of the frame in which it was visited.
        node: Index of the node in its plan.
        outcome: How it ended; of a combinator, what was chosen; of a step that goes on, what it was told
            or has begun.
        path: Where the step stands in this run; empty where there is nothing for people to see.
        started_at: Start of the first attempt, seconds since the epoch.
        duration_s: Seconds from the first start to the end, waits between attempts included.
        changes: Context fields it wrote; None when it wrote none.
        attempts: How often it was tried.
        usage: What it used, failed attempts included; None is nothing.
        cached: Whether the output came from the cache.
        cancelled: Whether it was stopped because a sibling ended the run or its body.
        mutation: How it changed the pipeline of the run.
        is_void: Whether it failed while the run was being ended, or by what ended it: nothing follows from it, so a
            fallback is no way round a limit, and the step is due again where the run is resumed.
    """

    frame: int
    node: int
    outcome: Outcome | Choice | Answer | Begun | Called | Decided | Spent
    path: str = ""
    started_at: float = 0.0
    duration_s: float = 0.0
    changes: Mapping[str, object] | None = None
    attempts: int = 1
    usage: Usage | None = None
    cached: bool = False
    cancelled: bool = False
    is_void: bool = False
    mutation: PipelineChange | None = None

    def record(self) -> StepRecord:
        """The facts for people."""
        outcome = self.outcome
        status = "cancelled" if self.cancelled else _STATUS.get(type(outcome), "completed")
        output = None if isinstance(outcome, (Choice, Answer, Begun, Called, Decided, Skipped)) else outcome.output
        error: FlujoError | None = outcome.error
        name, times = self.path.rpartition("/")[2], (self.started_at, self.duration_s)
        used = self.usage or Usage()
        return StepRecord(name, self.path, status, output, error, self.attempts, *times, used, self.cached)


Ended = tuple[int, int, object, str, int, float, float]
"""A step that ended well at once, with nothing to say but its output: an Entry of these is made when somebody asks.

Its path is made of that of the combinator around and of which of its bodies it is. Such a tuple costs a quarter of an
Entry and its outcome, and mostly the garbage collector forgets it.
"""

Chosen = tuple[int, int, int]
"""What a branch or a loop was told, by frame and node: an Entry with a Choice."""

Journal = list[Entry | Ended | Chosen]
"""What ended is only ever appended."""


def as_entry(plan: Plan, ended: Entry | Ended | Chosen) -> Entry:
    """What stands in the journal of a run of `plan`, as an entry."""
    if isinstance(ended, Entry):
        return ended
    if len(ended) == 3:
        return Entry(ended[0], ended[1], Choice(ended[2]))
    node = plan.nodes[ended[1]]
    path = plan.scopes[node.scope].prefix(*ended[3:5]) + node.name
    return Entry(*ended[:2], Success(ended[2]), path, *ended[5:])


def record_of(plan: Plan, ended: Entry | Ended) -> StepRecord:
    """The facts for people."""
    return as_entry(plan, ended).record()
