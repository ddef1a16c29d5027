"""What is written of runs. Each function runs inside a transaction, and looks before it writes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import JsonValue

from flujo.core import (
    AlreadyResumed,
    EntryData,
    FlujoError,
    Hold,
    HoldLost,
    Receipt,
    ResumeConflict,
    ResumeError,
    RunExists,
    Snapshot,
    StillRunning,
)

from .connection import Held, Writing
from .errors import RunDamaged
from .listed import TARGET
from .payloads import Payloads, moment, packed, stamp, unpacked
from .schema import STATUS, status_of
from .tokens import TOKEN

__all__ = ["RunWrites", "unknown"]

_CANCELLABLE = (STATUS["running"], STATUS["paused"])
_PAUSE = "INSERT INTO pauses(run, pause, shown, expires, roles, question, stuck) VALUES(?,?,?,?,?,?,?)"
_KNOWN = "SELECT id, fence, owner, status FROM runs WHERE run_id=?"


def unknown(run_id: str) -> ResumeError:
    """Why a run cannot be used that is not kept. A token is not told: it may answer a question."""
    if run_id.startswith(f"{TOKEN}."):
        why = "this store has no key that opens it, or what is wanted here is the id of a run"
        do = "Set FLUJO_TOKEN_KEY as it was where the run paused, or see the ids of runs: flujo runs list"
        return ResumeError("this token cannot be used", why, do)
    return ResumeError(f"run {run_id!r} is not here", "the store does not know it", "See its ids: flujo runs list")


def _now() -> int:
    return time.time_ns() // 1000


class RunWrites:
    """The writing half of a RunStore, without waiting.

    Args:
        transactions: In which it is done.
        payloads: How payloads are written.
    """

    tables: Sequence[str] = ("snapshots", "journal", "tail", "pauses", "decisions")
    """Where rows of a run are, but for `runs`."""
    lock: str = ""
    """What a SELECT of runs ends with that keeps others from changing them."""

    def __init__(self, transactions: Writing, payloads: Payloads) -> None:
        self._in = transactions
        self._payloads = payloads

    # --- a run --------------------------------------------------------------------------------------------------------

    def create(self, snapshot: Snapshot) -> Hold:
        """See RunStore."""
        db, run_id, now = self._in.db, snapshot.run_id, _now()
        if db.execute("SELECT 1 FROM runs WHERE run_id=?", (run_id,)).fetchone() is not None:
            raise RunExists(run_id)
        payload = self._payloads.snapshot(snapshot)
        self._in.register()
        facts = (run_id, self._plan(snapshot), STATUS[snapshot.status], 1, self._in.me.id, now, now)
        words = (snapshot.tenant, snapshot.actor, snapshot.tags.get(TARGET))
        insert = (
            "INSERT INTO runs(run_id, plan, status, fence, owner, began, changed, tenant, actor, target)"
            " VALUES(?,?,?,?,?,?,?,?,?,?) RETURNING id"
        )
        (row,) = db.execute(insert, (*facts, *words)).fetchone()
        db.execute("INSERT INTO snapshots VALUES(?,?,0,?)", (row, snapshot.checkpoint.position, payload))
        return self._given(run_id, Held(row, 1, 0, self._in.version))

    def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        """See RunStore."""
        self._append(hold.run_id, self._held(hold), rows)

    def save(self, hold: Hold, snapshot: Snapshot) -> None:
        """See RunStore."""
        held, db = self._held(hold), self._in.db
        payload = self._payloads.snapshot(snapshot)
        pauses = list(self._pauses(held.row, snapshot))
        # its plan, too: it may have come over from another one by a migration
        facts = (self._plan(snapshot), STATUS[snapshot.status], _now(), snapshot.status == "paused", held.row)
        change = "plan=?, status=?, owner=NULL, changed=?, cancel=CASE WHEN ? THEN cancel END"
        db.execute(f"UPDATE runs SET {change} WHERE id=?", facts)
        standing = (snapshot.checkpoint.position, held.next, payload, held.row)
        db.execute("UPDATE snapshots SET position=?, length=?, payload=? WHERE run=?", standing)
        if pauses:
            self._carry(held, snapshot)
        db.execute("DELETE FROM pauses WHERE run=?", (held.row,))
        db.executemany(_PAUSE, pauses)
        self._in.held.pop(hold.run_id, None)

    def release(self, hold: Hold) -> None:
        """See RunStore."""
        held = self._held(hold)
        self._in.db.execute("UPDATE runs SET owner=NULL WHERE id=?", (held.row,))
        self._in.held.pop(hold.run_id, None)

    def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        """See RunStore. A decision that was recorded before, and is this one, is applied by it."""
        run_id, db = receipt.run_id, self._in.db
        row, fence, owner, status = self._known(run_id)
        before, is_applied = self.decision(row, run_id, receipt.pause_id)
        if before is not None and (is_applied or before.digest != receipt.digest):
            raise _refusal(before, receipt)
        if not self._in.is_free(owner):
            raise StillRunning(run_id)
        held = Held(row, fence + 1, self._length(row, status), self._in.version)
        if position != held.next or status != STATUS.get(stood):
            why = "it went on from there before"
            raise ResumeError(f"run {run_id!r} cannot be resumed from here", why, "Use the result of that resume")
        self._append(run_id, held, rows)  # before all else: an entry that cannot be written leaves nothing behind
        self._in.register()
        if receipt.pause_id:
            self._apply(row, receipt, held.fence)
        facts = (STATUS["running"], held.fence, self._in.me.id, _now(), row)
        db.execute("UPDATE runs SET status=?, fence=?, owner=?, changed=? WHERE id=?", facts)
        return self._given(run_id, held)

    # --- decisions ----------------------------------------------------------------------------------------------------

    def record(
        self, receipt: Receipt, decision: JsonValue, shown_digest: str, actor: str | None, reason: str | None
    ) -> Receipt:
        """See HitlStore.record_decision."""
        run_id, pause_id = receipt.run_id, receipt.pause_id
        row, _, _, _ = self._known(run_id)
        before, _ = self.decision(row, run_id, pause_id)
        if before is not None:
            if before.digest != receipt.digest:
                raise ResumeConflict(before)
            return before
        self._check_open(row, receipt, shown_digest)
        facts = (packed(receipt.digest), stamp(receipt.decided_at), actor, packed(shown_digest))
        self._decide(row, (run_id, pause_id), facts, (decision, reason))
        return receipt

    def decision(self, row: int, run_id: str, pause_id: str) -> tuple[Receipt | None, bool]:
        """How a question was answered, and whether the run went on with that."""
        ask = "SELECT digest, decided, applied FROM decisions WHERE run=? AND pause=?"
        found = self._in.db.execute(ask, (row, pause_id)).fetchone() if pause_id else None
        if found is None:
            return None, False
        digest, decided, applied = found
        return Receipt(run_id, pause_id, unpacked(digest), moment(decided)), applied > 0

    def withdraw(self, receipt: Receipt) -> None:
        """See HitlStore."""
        row, _, _, _ = self._known(receipt.run_id)
        delete = "DELETE FROM decisions WHERE run=? AND pause=? AND digest=? AND applied=0"
        self._in.db.execute(delete, (row, receipt.pause_id, packed(receipt.digest)))

    def request_cancel(self, run_id: str) -> None:
        """See HitlStore."""
        row, _, _, status = self._known(run_id)
        if status not in _CANCELLABLE:
            why = f"it is {status_of(status)}"
            raise ResumeError(f"run {run_id!r} cannot be cancelled", why, "Only what runs or waits can be")
        self._in.db.execute("UPDATE runs SET cancel=? WHERE id=? AND cancel IS NULL", (_now(), row))
        if (hold := self._in.holds.get(run_id)) is not None:  # held by this very store
            hold.cancel()

    # --- the end of a run ---------------------------------------------------------------------------------------------

    def forget(self, run_id: str) -> None:
        """Delete one run; raises StillRunning where it is held."""
        row, _, owner, _ = self._known(run_id)
        if not self._in.is_free(owner):
            raise StillRunning(run_id)
        self._delete(row)

    def forget_some(self, where: str, facts: Sequence[object], after: int, limit: int) -> tuple[int, int, str]:
        """Delete the next runs of which `where` is true and that nobody holds.

        Returns:
            The place to go on from (0 at the end), how many were deleted, and one that is held, if any.
        """
        ask = f"SELECT id, run_id, owner FROM runs WHERE id>? AND {where} ORDER BY id LIMIT ?{self.lock}"
        found = self._in.db.execute(ask, (after, *facts, limit)).fetchall()
        held = ""
        number = 0
        for row, run_id, owner in found:
            if self._in.is_free(owner):
                self._delete(row)
                number += 1
            else:
                held = run_id
        return (found[-1][0] if len(found) == limit else 0), number, held

    def _delete(self, row: int) -> None:
        self._in.flush()
        for table in self.tables:
            self._in.db.execute(f"DELETE FROM {table} WHERE run=?", (row,))
        self._in.db.execute("DELETE FROM runs WHERE id=?", (row,))
        self._in.has_deleted = True

    def _carry(self, held: Held, snapshot: Snapshot) -> None:
        """Let a decision that waits go with its question, to which a migration gave another id.

        What was shown tells which that is; where several look the same, none. The receipt of who recorded it stays.
        """
        alike = "(SELECT count(*) FROM pauses q WHERE q.run=d.run AND q.shown=d.shown)"
        ask = f"SELECT d.pause, d.digest, d.decided, d.decision, d.actor, d.reason, d.shown, {alike} FROM pauses p"
        # By what was open until now: a run may have had thousands of decisions.
        ask += " CROSS JOIN decisions d ON d.run=p.run AND d.pause=p.pause WHERE p.run=? AND d.applied=0"
        waiting = self._in.db.execute(ask, (held.row,)).fetchall()
        open_ = {pause.id: pause.shown_digest for pause in snapshot.pauses} if waiting else {}
        for old, digest, decided, decision, actor, reason, shown, number in waiting:
            asked = [id for id, its in open_.items() if shown is not None and its == unpacked(shown)]
            is_sure = old not in open_ and len(asked) == 1 and number == 1
            if not is_sure or self.decision(held.row, snapshot.run_id, asked[0])[0] is not None:
                continue
            try:
                words = self._said(snapshot.run_id, old, decision, reason)
            except RunDamaged:  # who looks at it is told
                continue
            self._decide(held.row, (snapshot.run_id, asked[0]), (digest, decided, actor, shown), words)
            apply = "UPDATE decisions SET applied=? WHERE run=? AND pause=?"
            self._in.db.execute(apply, (held.fence, held.row, old))

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _given(self, run_id: str, held: Held) -> Hold:
        self._in.held[run_id] = held
        hold = self._in.holds[run_id] = Hold(run_id, held.fence)
        return hold

    def _known(self, run_id: str) -> tuple[int, int, int | None, int]:
        found = self._in.db.execute(f"{_KNOWN}{self.lock}", (run_id,)).fetchone()
        if found is None:
            raise unknown(run_id)
        row, fence, owner, status = found
        return row, fence, owner, status

    def _held(self, hold: Hold) -> Held:
        held = self._in.held.get(hold.run_id)
        if held is None or held.version != self._in.version:
            row, fence, owner, status = self._known(hold.run_id)
            if owner != self._in.me.id:
                raise HoldLost(hold.run_id)
            if held is None or held.fence != fence:  # else nobody else added to its journal
                held = Held(row, fence, self._length(row, status), self._in.version)
            held.version = self._in.version
            self._in.held[hold.run_id] = held
        if held.fence != hold.fence:
            raise HoldLost(hold.run_id)
        return held

    def _length(self, row: int, status: int) -> int:
        if status != STATUS["running"]:
            return int(self._in.db.execute("SELECT length FROM snapshots WHERE run=?", (row,)).fetchone()[0])
        self._in.flush()
        ends = [
            self._in.db.execute(f"SELECT max(position) FROM {table} WHERE run=?", (row,)).fetchone()[0]
            for table in ("journal", "tail")
        ]
        return 1 + max((end for end in ends if end is not None), default=-1)

    def _append(self, run_id: str, held: Held, rows: Sequence[EntryData]) -> None:
        self._in.pending += [
            (held.row, position, self._payloads.row(row, run_id, position))
            for position, row in enumerate(rows, held.next)
        ]
        held.next += len(rows)

    def _plan(self, snapshot: Snapshot) -> int:
        key = (snapshot.pipeline, snapshot.fingerprint)
        number = self._in.plans.get(key)
        if number is None:
            names = (snapshot.pipeline, packed(snapshot.fingerprint))
            db = self._in.db
            db.execute("INSERT INTO plans(pipeline, fingerprint) VALUES(?,?) ON CONFLICT DO NOTHING", names)
            found = db.execute("SELECT id FROM plans WHERE pipeline=? AND fingerprint=?", names).fetchone()
            number = self._in.plans[key] = int(found[0])
        return number

    def _pauses(self, row: int, snapshot: Snapshot) -> Sequence[tuple[object, ...]]:
        asks = () if snapshot.status == "aborted" else snapshot.pauses  # what was ended waits for nobody
        return [
            (
                row,
                pause.id,
                packed(pause.shown_digest),
                None if pause.expires_at is None else stamp(pause.expires_at),
                f",{','.join(sorted(pause.roles))}," if pause.roles else None,
                self._payloads.words(pause.question, f"question {pause.id} of {snapshot.run_id}"),
                1 if pause.expires_at is not None and pause.on_expiry is None else None,
            )
            for pause in asks
        ]

    def _decide(
        self, row: int, place: tuple[str, str], facts: tuple[object, ...], words: tuple[JsonValue, JsonValue]
    ) -> None:
        """Write a decision that waits: its digest, when, who, and of what was shown; what was decided, and why."""
        (run_id, pause_id), (decision, reason) = place, words
        about = f"decision of {pause_id} of {run_id}"
        said = self._payloads.words(decision, about)
        why = None if reason is None else self._payloads.words(reason, f"reason of {about}")
        insert = (
            "INSERT INTO decisions(run, pause, digest, decided, actor, shown, applied, decision, reason)"
            " VALUES(?,?,?,?,?,?,0,?,?)"
        )
        self._in.db.execute(insert, (row, pause_id, *facts, said, why))

    def _said(self, run_id: str, pause_id: str, decision: object, reason: object) -> tuple[JsonValue, JsonValue]:
        """What `_decide` wrote; raises RunDamaged."""
        about = f"decision of {pause_id} of {run_id}"
        said = self._payloads.said(decision, about, run_id)
        return said, None if reason is None else self._payloads.said(reason, f"reason of {about}", run_id)

    def _apply(self, row: int, receipt: Receipt, fence: int) -> None:
        db = self._in.db
        facts = (row, receipt.pause_id, packed(receipt.digest), stamp(receipt.decided_at), fence)
        db.execute(
            "INSERT INTO decisions(run, pause, digest, decided, applied) VALUES(?,?,?,?,?)"
            " ON CONFLICT(run, pause) DO UPDATE SET applied=excluded.applied",
            facts,
        )
        db.execute("DELETE FROM pauses WHERE run=? AND pause=?", (row, receipt.pause_id))

    def _check_open(self, row: int, receipt: Receipt, shown_digest: str) -> None:
        what = f"pause {receipt.pause_id!r} of run {receipt.run_id!r} cannot be decided"
        ask = "SELECT shown, expires FROM pauses WHERE run=? AND pause=?"
        found = self._in.db.execute(ask, (row, receipt.pause_id)).fetchone()
        if found is None:
            raise ResumeError(what, "the run does not wait for it", "Look at its open questions")
        shown, expires = found
        if expires is not None and moment(expires) < datetime.now(UTC):
            raise ResumeError(what, f"it expired at {moment(expires).isoformat()}", "Start the run anew")
        if unpacked(shown) != shown_digest:
            raise ResumeError(what, "what was shown is not what it asks", "Show the question anew")


def _refusal(before: Receipt, now: Receipt) -> FlujoError:
    return AlreadyResumed(before) if before.digest == now.digest else ResumeConflict(before)
