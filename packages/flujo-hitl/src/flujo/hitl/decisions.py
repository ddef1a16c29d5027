"""The rules by which decisions are recorded, cancels asked for, and runs erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flujo.core import Receipt, ResumeConflict, ResumeError

from .database import Tx
from .packing import instant, microseconds
from .writes import DECIDED, OPEN, Kit, decision_row, receipt_of, run_row

__all__ = ["Erase", "Purge", "Record", "RequestCancel"]

ENDED = ("completed", "failed", "stopped", "aborted")


@dataclass(frozen=True, slots=True)
class Record:
    """See HitlStore.record_decision."""

    kit: Kit
    receipt: Receipt
    note: bytes
    shown_digest: str | None

    @property
    def run_id(self) -> str:
        """The run."""
        return self.receipt.run_id

    def __call__(self, tx: Tx) -> Receipt:
        """Do it."""
        pause_id, digest = self.receipt.pause_id, self.receipt.digest
        key, _, _ = run_row(tx, self.run_id)
        before = decision_row(tx, key, pause_id)
        if before is not None:
            first = receipt_of(self.run_id, before)
            if first.digest != digest:
                raise ResumeConflict(first)
            return first
        self._check_open(tx, key)
        decided = microseconds(self.receipt.decided_at)
        body = self.kit.packer.pack(self.note, self.run_id, f"decision on {pause_id!r}")
        sql = "INSERT INTO decisions (run, pause, digest, decided, note) VALUES (?, ?, ?, ?, ?)"
        tx.change(sql, (key, pause_id, digest, decided, body))
        tx.change("UPDATE pauses SET state = ? WHERE run = ? AND pause = ?", (DECIDED, key, pause_id))
        return Receipt(self.run_id, pause_id, digest, instant(decided, self.run_id))

    def _check_open(self, tx: Tx, key: int) -> None:
        pause_id = self.receipt.pause_id
        what = f"question {pause_id!r} of run {self.run_id!r} cannot be answered"
        found = tx.rows("SELECT state, expires, shown FROM pauses WHERE run = ? AND pause = ?", (key, pause_id))
        if not found or found[0][0] != OPEN:
            raise ResumeError(what, "it is not open", "Look at the questions that are")
        expires, shown = found[0][1:]
        if expires is not None and expires <= tx.now_us():
            raise ResumeError(what, f"it has expired at {instant(expires, self.run_id).isoformat()}")
        if self.shown_digest is not None:
            asked = self.kit.packer.question(shown, self.run_id, pause_id)
            if asked.shown.shown_digest != self.shown_digest:
                raise ResumeError(what, "something else was shown than what is asked", "Show it again, whole")


@dataclass(frozen=True, slots=True)
class RequestCancel:
    """See HitlStore.request_cancel."""

    run_id: str

    def __call__(self, tx: Tx) -> None:
        """Do it."""
        key, _, _ = run_row(tx, self.run_id)
        tx.change("UPDATE runs SET cancel = 1 WHERE key = ?", (key,))


@dataclass(frozen=True, slots=True)
class Purge:
    """See HitlStore.purge: a part of it, for a long transaction would hold up the runs at work."""

    before: datetime
    status: str | None
    most: int = 200
    run_id: str = ""

    def __call__(self, tx: Tx) -> int:
        """Delete some; returns how many."""
        statuses = (self.status,) if self.status else ENDED
        marks = ", ".join("?" * len(statuses))
        sql = f"SELECT key FROM runs WHERE status IN ({marks}) AND owner IS NULL AND updated < ? LIMIT ?{tx.lock}"
        return _erase(tx, [row[0] for row in tx.rows(sql, (*statuses, microseconds(self.before), self.most))])


@dataclass(frozen=True, slots=True)
class Erase:
    """See HitlStore.delete: a part of it."""

    where: str
    value: object
    most: int = 200
    run_id: str = ""

    def __call__(self, tx: Tx) -> int:
        """Delete some; returns how many."""
        sql = f"SELECT key FROM runs WHERE {self.where} LIMIT ?{tx.lock}"
        count = _erase(tx, [row[0] for row in tx.rows(sql, (self.value, self.most))])
        if not count and self.where.startswith("tenant"):
            unused = "NOT EXISTS (SELECT 1 FROM runs WHERE pipeline = words.id OR tenant = words.id)"
            tx.change(f"DELETE FROM words WHERE text = ? AND {unused}", (self.value,))
        return count


def _erase(tx: Tx, keys: Sequence[int]) -> int:
    if keys:
        marks = ", ".join("?" * len(keys))
        for table, column in (("journal", "run"), ("pauses", "run"), ("decisions", "run"), ("runs", "key")):
            tx.change(f"DELETE FROM {table} WHERE {column} IN ({marks})", keys)
    return len(keys)
