"""What a store can do beyond keeping runs: for inboxes that record decisions, and workers that go on with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from flujo.core import Receipt, RunStore

from .listed import Decided, OpenPause, Page, RunRow

__all__ = ["HitlStore"]


class HitlStore(RunStore, Protocol):
    """A RunStore whose `claim` also accepts a decision that was recorded and not applied yet, once."""

    async def runs(
        self,
        *,
        status: str | None = None,
        pipeline: str | None = None,
        tenant: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[RunRow]:
        """Runs, the newest first."""

    async def open_pauses(
        self,
        *,
        pipeline: str | None = None,
        tenant: str | None = None,
        role: str | Collection[str] | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[OpenPause]:
        """Questions that wait for an answer, of the oldest runs first; with roles those that one of them may answer."""

    async def record_decision(
        self,
        run_id: str,
        pause_id: str,
        decision: JsonValue,
        *,
        shown_digest: str,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Receipt:
        """Keep a decision, and nothing else: a worker goes on with the run. The first one counts.

        The same decision again gets the same receipt.

        Raises:
            ResumeConflict: The question was answered in another way; `receipt` says when.
            ResumeError: It is not open, has expired, or is not what was shown.
            InputError: The decision is no JSON.
        """

    async def decided(self, fingerprint: str | None = None, limit: int = 100) -> Sequence[Decided]:
        """Decisions that wait for a worker, the oldest first; of runs of one plan, or of all."""

    async def decisions(self, run_id: str) -> Sequence[Decided]:
        """How the questions of a run were answered, the oldest first, applied or not; none of an unknown id."""

    async def withdraw(self, receipt: Receipt) -> None:
        """Forget a decision that was recorded and proved to be none, as it does not fit: the question is open again.

        One that its run went on with stays.
        """

    async def expired(self, now: datetime, fingerprint: str | None = None, limit: int = 100) -> Sequence[OpenPause]:
        """Questions that were not answered in time, and for which an outcome was declared; the oldest first."""

    async def request_cancel(self, run_id: str) -> None:
        """Say that a run should end; whoever holds it looks for that. Raises ResumeError for an unknown id, and one
        that neither runs nor waits.
        """

    async def cancel_requested(self, run_ids: Collection[str] | None = None) -> Sequence[str]:
        """Which of these runs (None: of all) should end, and did not yet."""

    async def purge(self, older_than: datetime, status: Collection[str] = ("completed", "aborted")) -> int:
        """Delete runs that stand like this and did not change since; how many they were. Held ones stay."""

    async def delete(self, run_id: str | None = None, *, tenant: str | None = None, subject: str | None = None) -> int:
        """Delete one run, or all of a tenant, of a person, or of a person at a tenant; how many they were.

        All that is kept of them goes. The runs of a person are those that began with `tags={"subject": subject}`; each
        run is looked at, since no list of persons is kept. Runs that begin meanwhile are not.

        Raises:
            StillRunning: One is held; all others are deleted.
            ResumeError: The id is not known.
            RunDamaged: It cannot be read whose run one is; all others are deleted.
        """

    async def backup(self, path: str | Path) -> None:
        """Write a copy, as of one moment, to a new file, while runs go on. In the copy nobody holds a run."""
