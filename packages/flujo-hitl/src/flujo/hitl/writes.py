"""The rules by which runs are written, in SQL that SQLite and PostgreSQL both speak. One job is one change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flujo.core import (
    AlreadyResumed,
    FlujoError,
    Hold,
    HoldLost,
    Receipt,
    ResumeConflict,
    ResumeError,
    RunExists,
    StillRunning,
)

from .database import Row, Tx
from .owners import Owner
from .packing import Draft, Packer, instant, microseconds

__all__ = ["OPEN", "Append", "Claim", "Create", "Kit", "Release", "Save", "append_all", "receipt_of", "run_row"]

OPEN, DECIDED, ANSWERED = 0, 1, 2
"""States of a question: nobody answered; a decision was recorded; the run went on, with one or without."""


@dataclass(frozen=True, slots=True)
class Kit:
    """What the rules need of their store."""

    packer: Packer
    owner: Owner


@dataclass(frozen=True, slots=True)
class Create:
    """See RunStore.create."""

    kit: Kit
    draft: Draft

    @property
    def run_id(self) -> str:
        """The run."""
        return self.draft.run_id

    def __call__(self, tx: Tx) -> Hold:
        """Do it."""
        draft, now = self.draft, tx.now_us()
        body = self.kit.packer.pack(draft.body, draft.run_id, "snapshot")
        asked = _packed(self.kit.packer, draft)
        if tx.rows("SELECT 1 FROM runs WHERE id = ?", (draft.run_id,)):
            raise RunExists(draft.run_id)
        tenant = None if draft.tenant is None else word(tx, draft.tenant)
        names = (draft.run_id, word(tx, draft.pipeline), tenant, draft.subject)
        sql = """
            INSERT INTO runs (id, pipeline, tenant, subject, status, created, updated, fence, owner, length, snapshot)
            VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING key"""
        made = tx.rows(sql, (*names, draft.status, now, now, self.kit.owner.id, draft.length, body))
        if not made:  # somebody else wrote it between the question and now
            raise RunExists(draft.run_id)
        _ask(tx, int(made[0][0]), draft, asked)
        self.kit.owner.holds.add((draft.run_id, 1))
        return Hold(draft.run_id, 1)


@dataclass(frozen=True, slots=True)
class Append:
    """See RunStore.append. Rows are JSON; where they stand is known when they are written."""

    hold: Hold
    rows: Sequence[bytes]

    @property
    def run_id(self) -> str:
        """The run."""
        return self.hold.run_id

    def __call__(self, tx: Tx) -> None:
        """Never alone: see `append_all`."""
        raise NotImplementedError


def append_all(kit: Kit, tx: Tx, jobs: Sequence[Append]) -> list[FlujoError | None]:
    """Append to many runs at once."""
    ids = list({job.hold.run_id for job in jobs})
    sql = f"""
        SELECT id, key, fence, owner, (SELECT max(position) + 1 FROM journal WHERE run = key) FROM runs
        WHERE id IN ({", ".join("?" * len(ids))})"""
    known = {str(row[0]): row[1:] for row in tx.rows(sql, ids)}
    length = {run_id: int(row[3] or 0) for run_id, row in known.items()}
    problems: list[FlujoError | None] = []
    rows: list[tuple[int, int, bytes]] = []
    for job in jobs:
        run_id = job.hold.run_id
        problem = _not_held(job.hold, known)
        if problem is None:
            try:
                rows += _journal(kit.packer, run_id, known[run_id][0], length[run_id], job.rows)
                length[run_id] += len(job.rows)
            except FlujoError as error:
                problem = error
        problems.append(problem)
    tx.each("INSERT INTO journal (run, position, payload) VALUES (?, ?, ?)", rows)
    return problems


def _not_held(hold: Hold, known: Mapping[str, Row]) -> FlujoError | None:
    if hold.run_id not in known:
        return unknown(hold.run_id)
    _, fence, owner, _ = known[hold.run_id]
    return None if owner is not None and fence == hold.fence else HoldLost(hold.run_id)


def _journal(packer: Packer, run_id: str, key: int, length: int, rows: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
    return [
        (key, position, packer.pack(row, run_id, f"journal[{position}]")) for position, row in enumerate(rows, length)
    ]


@dataclass(frozen=True, slots=True)
class Save:
    """See RunStore.save."""

    kit: Kit
    hold: Hold
    draft: Draft

    @property
    def run_id(self) -> str:
        """The run."""
        return self.hold.run_id

    def __call__(self, tx: Tx) -> None:
        """Do it."""
        draft = self.draft
        body = self.kit.packer.pack(draft.body, draft.run_id, "snapshot")
        asked = _packed(self.kit.packer, draft)
        key = _held(self.kit, tx, self.hold)
        sql = "UPDATE runs SET status = ?, updated = ?, owner = NULL, length = ?, snapshot = ? WHERE key = ?"
        tx.change(sql, (draft.status, tx.now_us(), draft.length, body, key))
        before = {str(pause): (number, asked) for pause, number, asked in tx.rows(_ASKED, (key,))}
        if before:
            tx.change("DELETE FROM pauses WHERE run = ?", (key,))
        _ask(tx, key, draft, asked, before)


@dataclass(frozen=True, slots=True)
class Release:
    """See RunStore.release."""

    kit: Kit
    hold: Hold

    @property
    def run_id(self) -> str:
        """The run."""
        return self.hold.run_id

    def __call__(self, tx: Tx) -> None:
        """Do it."""
        key = _held(self.kit, tx, self.hold)
        tx.change("UPDATE runs SET owner = NULL, updated = ? WHERE key = ?", (tx.now_us(), key))


@dataclass(frozen=True, slots=True)
class Claim:
    """See RunStore.claim; a decision that was recorded before is taken up by one claim with the same digest."""

    kit: Kit
    position: int
    receipt: Receipt
    rows: Sequence[bytes]

    @property
    def run_id(self) -> str:
        """The run."""
        return self.receipt.run_id

    def __call__(self, tx: Tx) -> Hold:
        """Do it."""
        run_id, pause_id = self.run_id, self.receipt.pause_id
        key, fence, owner = run_row(tx, run_id)
        before = decision_row(tx, key, pause_id) if pause_id else None
        if before is not None:
            self._refuse_other(before)
        if owner is not None and owner not in self.kit.owner.gone(tx, [owner]):
            raise StillRunning(run_id)
        length = int(tx.rows("SELECT max(position) + 1 FROM journal WHERE run = ?", (key,))[0][0] or 0)
        if length != self.position:
            raise ResumeError(
                f"run {run_id!r} cannot be resumed from here", "it went on from there before",
                "Use the result of that resume",
            )  # fmt: skip
        rows = _journal(self.kit.packer, run_id, key, length, self.rows)
        fence += 1
        if before is not None:
            tx.change("UPDATE decisions SET applied = ? WHERE run = ? AND pause = ?", (fence, key, pause_id))
        elif pause_id:
            sql = "INSERT INTO decisions (run, pause, digest, decided, applied) VALUES (?, ?, ?, ?, ?)"
            tx.change(sql, (key, pause_id, self.receipt.digest, microseconds(self.receipt.decided_at), fence))
        if pause_id:
            tx.change("UPDATE pauses SET state = ? WHERE run = ? AND pause = ?", (ANSWERED, key, pause_id))
        sql = "UPDATE runs SET status = 'running', updated = ?, fence = ?, owner = ? WHERE key = ?"
        tx.change(sql, (tx.now_us(), fence, self.kit.owner.id, key))
        tx.each("INSERT INTO journal (run, position, payload) VALUES (?, ?, ?)", rows)
        self.kit.owner.holds.add((run_id, fence))
        return Hold(run_id, fence)

    def _refuse_other(self, before: Row) -> None:
        receipt = receipt_of(self.run_id, before)
        if receipt.digest != self.receipt.digest:
            raise ResumeConflict(receipt)
        if before[3] is not None:
            raise AlreadyResumed(receipt)


# --- parts --------------------------------------------------------------------------------------------------------


def unknown(run_id: str) -> ResumeError:
    """The error for an id that no run has."""
    return ResumeError(f"run {run_id!r} cannot be resumed", "the store does not know it", "Look at its id")


def run_row(tx: Tx, run_id: str) -> tuple[int, int, int | None]:
    """Key, fence and owner of a run that is about to be changed.

    Raises:
        ResumeError: The id is not known.
    """
    found = tx.rows(f"SELECT key, fence, owner FROM runs WHERE id = ?{tx.lock}", (run_id,))
    if not found:
        raise unknown(run_id)
    return int(found[0][0]), int(found[0][1]), found[0][2]


def _held(kit: Kit, tx: Tx, hold: Hold) -> int:
    """The key of a run whose hold is about to be given back, or was lost."""
    kit.owner.holds.discard((hold.run_id, hold.fence))
    key, fence, owner = run_row(tx, hold.run_id)
    if owner is None or fence != hold.fence:
        raise HoldLost(hold.run_id)
    return key


def decision_row(tx: Tx, key: int, pause_id: str) -> Row | None:
    """How a question was answered."""
    sql = "SELECT pause, digest, decided, applied FROM decisions WHERE run = ? AND pause = ?"
    found = tx.rows(sql, (key, pause_id))
    return found[0] if found else None


def receipt_of(run_id: str, row: Row) -> Receipt:
    """The receipt of a decision."""
    return Receipt(run_id, str(row[0]), str(row[1]), instant(row[2], run_id))


def word(tx: Tx, text: str) -> int:
    """The number that stands for a name in rows and indexes."""
    found = tx.rows("SELECT id FROM words WHERE text = ?", (text,))
    sql = "INSERT INTO words (text) VALUES (?) ON CONFLICT (text) DO UPDATE SET text = excluded.text RETURNING id"
    return int((found or tx.rows(sql, (text,)))[0][0])


def _packed(packer: Packer, draft: Draft) -> list[bytes]:
    return [packer.pack(one.body, draft.run_id, f"pause {one.pause_id!r}") for one in draft.asked]


_ASKED = "SELECT pause, key, asked FROM pauses WHERE run = ?"
_ASK = """
    INSERT INTO pauses ({}run, pause, place, state, pipeline, tenant, expires, roles, asked, shown)
    VALUES ({}?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def _ask(
    tx: Tx, key: int, draft: Draft, packed: Sequence[bytes], before: Mapping[str, tuple[int, int]] | None = None
) -> None:
    """Note the questions of a run. One that was there before keeps its place in lists.

    Open are those of a paused run that nobody decided on: a run that failed beside them must be tried again first.
    """
    if not draft.asked:
        return
    usual = OPEN if draft.status == "paused" else ANSWERED
    now = tx.now_us()
    names = tx.rows("SELECT pipeline, tenant FROM runs WHERE key = ?", (key,))[0]
    sql = "SELECT pause, applied FROM decisions WHERE run = ?"
    known = {str(pause): DECIDED if applied is None else ANSWERED for pause, applied in tx.rows(sql, (key,))}
    new: list[tuple[object, ...]] = []
    old: list[tuple[object, ...]] = []
    for place, (one, body) in enumerate(zip(draft.asked, packed, strict=True)):
        number, since = (before or {}).get(one.pause_id, (None, now))
        state = known.get(one.pause_id, usual)
        row = (key, one.pause_id, place, state, *names, one.expires, one.roles, since, body)
        if number is None:
            new.append(row)
        else:
            old.append((number, *row))
    tx.each(_ASK.format("", ""), new)
    tx.each(_ASK.format("key, ", "?, "), old)
