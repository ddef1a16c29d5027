"""Runs kept in the memory of this process: the smallest RunStore, and what tests use."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from .errors import HoldLost, ResumeError, RunExists, StillRunning
from .kept import Hold, KeptRun, Receipt, moved_on, refusal
from .protocols import TokenSigner
from .snapshot import EntryData, Snapshot


@dataclass(slots=True)
class _Kept:
    snapshot: Snapshot
    journal: list[EntryData] = field(default_factory=list)
    decisions: dict[str, Receipt] = field(default_factory=dict)
    fence: int = 1
    is_held: bool = True


class MemoryStore:
    """A RunStore that forgets with its process.

    Args:
        signer: Signs the tokens of pauses; None gives them none.
    """

    def __init__(self, signer: TokenSigner | None = None) -> None:
        self.signer: TokenSigner | None = signer
        self._runs: dict[str, _Kept] = {}

    async def create(self, snapshot: Snapshot) -> Hold:
        """See RunStore."""
        if snapshot.run_id in self._runs:
            raise RunExists(snapshot.run_id)
        self._runs[snapshot.run_id] = _Kept(snapshot)
        return Hold(snapshot.run_id, 1)

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        """See RunStore."""
        self._held(hold).journal.extend(rows)

    async def save(self, hold: Hold, snapshot: Snapshot) -> None:
        """See RunStore."""
        kept = self._held(hold)
        kept.snapshot, kept.is_held = snapshot, False

    async def release(self, hold: Hold) -> None:
        """See RunStore."""
        self._held(hold).is_held = False

    async def load(self, run_id: str) -> KeptRun:
        """See RunStore."""
        kept = self._known(run_id)
        late = tuple(kept.journal[kept.snapshot.checkpoint.position :])
        return KeptRun(kept.snapshot, late, lambda: list(kept.journal))

    async def receipt(self, run_id: str, pause_id: str | None = None) -> Receipt | None:
        """See RunStore."""
        decisions = self._known(run_id).decisions
        return next(reversed(decisions.values()), None) if pause_id is None else decisions.get(pause_id)

    async def orphans(self, fingerprint: str) -> Sequence[str]:
        """See RunStore."""
        return [
            run_id
            for run_id, kept in self._runs.items()
            if kept.snapshot.status == "running" and not kept.is_held and kept.snapshot.fingerprint == fingerprint
        ]

    async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        """See RunStore."""
        kept = self._known(receipt.run_id)
        if before := kept.decisions.get(receipt.pause_id):
            raise refusal(before, receipt)
        if kept.is_held:
            raise StillRunning(receipt.run_id)
        if (position, stood) != (len(kept.journal), kept.snapshot.status):
            raise moved_on(receipt.run_id)
        if receipt.pause_id:
            kept.decisions[receipt.pause_id] = receipt
        kept.journal.extend(rows)
        kept.snapshot = kept.snapshot.model_copy(update={"status": "running"})
        kept.fence, kept.is_held = kept.fence + 1, True
        return Hold(receipt.run_id, kept.fence)

    def reopened(self) -> MemoryStore:
        """The same runs as a process finds them that starts after this one went away: nobody holds them."""
        store = MemoryStore(self.signer)
        store._runs = deepcopy(self._runs)
        for kept in store._runs.values():
            kept.is_held = False
        return store

    def _known(self, run_id: str) -> _Kept:
        if run_id not in self._runs:
            raise ResumeError(f"run {run_id!r} cannot be resumed", "the store does not know it", "Look at its id")
        return self._runs[run_id]

    def _held(self, hold: Hold) -> _Kept:
        kept = self._known(hold.run_id)
        if not kept.is_held or kept.fence != hold.fence:
            raise HoldLost(hold.run_id)
        return kept
