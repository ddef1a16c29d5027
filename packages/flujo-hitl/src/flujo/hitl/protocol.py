"""What a store of flujo-hitl does beyond core's RunStore: the whole contract on one screen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from pydantic import JsonValue

from flujo.core import Pause, Receipt, RunStore

T = TypeVar("T")
Order = Literal["newest", "oldest"]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list. `after` is given to the next call; None where this is the last page."""

    items: tuple[T, ...]
    after: int | None


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in a list. `held` tells whether some process has it, as far as the store can tell."""

    run_id: str
    pipeline: str
    tenant: str | None
    status: str
    held: bool
    cancel_requested: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Question:
    """An open question in a list. `roles` may answer; empty is anybody."""

    run_id: str
    pipeline: str
    tenant: str | None
    pause: Pause
    roles: frozenset[str]
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision that was recorded and waits for somebody to go on with its run."""

    receipt: Receipt
    decision: JsonValue
    actor: str | None
    reason: str
    shown_digest: str | None


class HitlStore(RunStore, Protocol):
    """Lists, decisions that are recorded before somebody goes on with the run, retention and erasure."""

    async def runs(
        self,
        *,
        status: str | None = None,
        pipeline: str | None = None,
        tenant: str | None = None,
        order: Order = "newest",
        after: int | None = None,
        limit: int = 50,
    ) -> Page[RunLine]:
        """A page of the runs, in the order they were created."""

    async def open_pauses(
        self,
        *,
        run_id: str | None = None,
        pipeline: str | None = None,
        tenant: str | None = None,
        role: str | None = None,
        order: Order = "newest",
        after: int | None = None,
        limit: int = 50,
    ) -> Page[Question]:
        """A page of the questions that nobody answered, in the order they were asked; of a role, those it may answer.

        Raises:
            SnapshotError: One of them cannot be read.
        """

    async def record_decision(
        self,
        run_id: str,
        pause_id: str,
        decision: JsonValue,
        digest: str,
        *,
        actor: str | None = None,
        reason: str = "",
        shown_digest: str | None = None,
    ) -> Receipt:
        """Record how a question is answered, for `claim` to go on with. The first decision counts.

        The same one again gets the first one's receipt. `shown_digest` is what was shown to who decided.

        Raises:
            ResumeConflict: It was answered in another way.
            ResumeError: It is not open, has expired, or shows something else by now; or the id is not known.
        """

    async def decided(self, *, limit: int = 50) -> list[Recorded]:
        """Recorded decisions that nobody went on with, of runs that nobody holds; the oldest first."""

    async def orphaned(self, *, limit: int = 50) -> list[str]:
        """Ids of runs that were at work when their process went away; the oldest first."""

    async def expired(self, now: datetime, *, limit: int = 50) -> list[Question]:
        """Questions that were to be answered before `now` and were not; the first to expire first."""

    async def request_cancel(self, run_id: str) -> None:
        """Ask whoever holds a run to end it. Raises ResumeError for an unknown id."""

    async def cancel_requested(self, run_id: str) -> bool:
        """Whether that was asked. Raises ResumeError for an unknown id."""

    async def purge(self, *, older_than: timedelta, status: str | None = None) -> int:
        """Delete runs that ended, or have the status given, and were last changed before; returns how many."""

    async def delete(self, *, run_id: str | None = None, tenant: str | None = None, subject: str | None = None) -> int:
        """Erase a run, or all of a tenant or of a subject (its tag `subject`), held ones too; returns how many."""

    async def backup(self, path: str | Path) -> None:
        """Write all of it to a new file while it is in use.

        Raises:
            StoreUnavailable: It cannot be written, or this kind of store has a tool of its own for that.
        """

    async def aclose(self) -> None:
        """Give back what this process holds and end; what is queued is written before."""
