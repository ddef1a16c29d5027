"""Runs kept in the memory of this process: the smallest RunStore, and what tests use."""

from __future__ import annotations

from datetime import UTC, datetime

from .errors import AlreadyResumed, ResumeConflict, ResumeError, RunExists
from .snapshot import EntryData, Receipt, Snapshot


class MemoryStore:
    """A RunStore that forgets with its process."""

    def __init__(self) -> None:
        self._runs: dict[str, Snapshot] = {}
        self._journals: dict[str, list[EntryData]] = {}
        self._claims: dict[tuple[str, int], Receipt] = {}

    async def create(self, snapshot: Snapshot) -> None:
        """See RunStore."""
        if snapshot.run_id in self._runs:
            raise RunExists(snapshot.run_id)
        self._runs[snapshot.run_id] = snapshot
        self._journals[snapshot.run_id] = []

    async def append(self, run_id: str, row: EntryData) -> None:
        """See RunStore."""
        self._journals[run_id].append(row)

    async def save(self, snapshot: Snapshot) -> None:
        """See RunStore."""
        self._runs[snapshot.run_id] = snapshot

    async def load(self, run_id: str) -> Snapshot:
        """See RunStore."""
        if run_id not in self._runs:
            raise ResumeError(f"run {run_id!r} cannot be resumed", "the store does not know it", "Look at its id")
        return self._runs[run_id].model_copy(update={"journal": list(self._journals[run_id])})

    async def claim(self, run_id: str, position: int, pause_id: str, digest: str) -> None:
        """See RunStore."""
        receipt = Receipt(run_id, pause_id, digest, datetime.now(UTC))
        before = self._claims.setdefault((run_id, position), receipt)
        if before is not receipt:
            raise refusal(before, receipt)


def refusal(before: Receipt, now: Receipt) -> ResumeError:
    """Why a resume does not win, when `before` did."""
    if before.pause_id != now.pause_id:
        why = "it went on from there before, by another answer"
        return ResumeError(f"run {now.run_id!r} cannot be resumed from here", why, "Use the result of that resume")
    return AlreadyResumed(before) if before.digest == now.digest else ResumeConflict(before)
