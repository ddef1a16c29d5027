"""A run that a store keeps: who may write it, why it went on, and what is found of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from .errors import AlreadyResumed, ResumeConflict, ResumeError
from .result import StepRecord
from .snapshot import EntryData, Snapshot


@dataclass(frozen=True, slots=True)
class Receipt:
    """That a run went on from where it stood, and why.

    Attributes:
        run_id: The run.
        pause_id: The question that was answered; empty where the run was continued without one.
        digest: SHA-256 of the decision as canonical JSON.
        decided_at: When, in UTC.
    """

    run_id: str
    pause_id: str
    digest: str
    decided_at: datetime


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Hold:
    """The right to write a run, from when it is created or claimed until it is given back or taken over.

    Attributes:
        run_id: The run.
        fence: Grows with each hold of the run; a store refuses what comes with an older one.
        ends: What ends the run, once it goes on; may be called from whatever thread, and again.
    """

    run_id: str
    fence: int
    ends: list[Callable[[], object]] = field(default_factory=list, compare=False, repr=False)

    def cancel(self) -> None:
        """Have the run ended by who holds it: for a store that was asked to, in whatever thread it hears of it."""
        for end in self.ends:
            end()


@dataclass(frozen=True, slots=True)
class KeptRun:
    """What a store keeps of a run.

    Attributes:
        snapshot: Where it stood when that was last saved, with an empty journal.
        late: What was journaled since: entries from `snapshot.checkpoint.position` on.
        history: Reads its whole journal, when somebody wants to see it; it may block for as long as that takes.
    """

    snapshot: Snapshot
    late: Sequence[EntryData]
    history: Callable[[], list[EntryData]]

    @property
    def length(self) -> int:
        """Entries of its whole journal."""
        return self.snapshot.checkpoint.position + len(self.late)


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What the token of a pause is bound to.

    Attributes:
        run_id: The run.
        pause_id: The question.
        shown_digest: SHA-256 of what the human must be shown.
        fingerprint: Of the plan of the run.
        expires_at: When the token is no longer good; None is never.
        roles: Who may answer; empty is anybody.
    """

    run_id: str
    pause_id: str
    shown_digest: str
    fingerprint: str
    expires_at: datetime | None = None
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Past:
    """What a resumed run did before.

    Attributes:
        records: Makes its step records, in order.
        rows: Makes its journal, as data.
        length: Entries of its journal.
        stood: How it stood when it was loaded.
        began: When the last step in it began, which tells it from other runs of its id; not known where a store does.
    """

    records: Callable[[], list[StepRecord]]
    rows: Callable[[], list[EntryData]]
    length: int
    stood: str
    began: float = 0.0


def refusal(before: Receipt, now: Receipt) -> ResumeError:
    """Why a resume does not win, when `before` did."""
    if before.pause_id != now.pause_id:
        return moved_on(now.run_id)
    return AlreadyResumed(before) if before.digest == now.digest else ResumeConflict(before)


def moved_on(run_id: str) -> ResumeError:
    """Why a run cannot be resumed from a place that it left."""
    why = "it went on from there before"
    return ResumeError(f"run {run_id!r} cannot be resumed from here", why, "Use the result of that resume")
