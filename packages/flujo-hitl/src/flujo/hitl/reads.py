"""What is read of a store, in SQL that SQLite and PostgreSQL both speak."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flujo.core import EntryData, Receipt, Snapshot, SnapshotError

from .database import Row, Tx
from .errors import unusable
from .packing import instant, microseconds
from .protocol import Order, Page, Question, Recorded, RunLine
from .writes import OPEN, Kit, receipt_of, unknown

__all__ = ["Decided", "Expired", "History", "Load", "OpenPauses", "Orphaned", "ReceiptOf", "Runs", "WantsCancel"]


@dataclass(frozen=True, slots=True)
class Load:
    """Where a run stands, and what it did since: one row, its questions, and late rows, however long its past."""

    kit: Kit
    run_id: str

    def __call__(self, tx: Tx) -> tuple[Snapshot, list[EntryData]]:
        """Do it."""
        found = tx.rows("SELECT key, status, snapshot FROM runs WHERE id = ?", (self.run_id,))
        if not found:
            raise unknown(self.run_id)
        key, status, body = found[0]
        packer = self.kit.packer
        rows = tx.rows("SELECT pause, shown FROM pauses WHERE run = ? ORDER BY place", (key,))
        asked = [packer.question(shown, self.run_id, str(pause)) for pause, shown in rows]
        snapshot = packer.snapshot(body, self.run_id, str(status), asked)
        return snapshot, _journal(self.kit, tx, key, self.run_id, snapshot.checkpoint.position)


@dataclass(frozen=True, slots=True)
class History:
    """The whole journal of a run."""

    kit: Kit
    run_id: str

    def __call__(self, tx: Tx) -> list[EntryData]:
        """Do it."""
        found = tx.rows("SELECT key, length FROM runs WHERE id = ?", (self.run_id,))
        if not found:
            raise unknown(self.run_id)
        rows = _journal(self.kit, tx, found[0][0], self.run_id, 0)
        if len(rows) < found[0][1]:
            raise unusable(self.run_id, f"journal[{len(rows)}]", "it is missing")
        return rows


def _key(tx: Tx, run_id: str) -> int:
    found = tx.rows("SELECT key FROM runs WHERE id = ?", (run_id,))
    if not found:
        raise unknown(run_id)
    return int(found[0][0])


def _journal(kit: Kit, tx: Tx, key: int, run_id: str, start: int) -> list[EntryData]:
    sql = "SELECT position, payload FROM journal WHERE run = ? AND position >= ? ORDER BY position"
    rows = tx.rows(sql, (key, start))
    for due, (position, _) in enumerate(rows, start):
        if position != due:
            raise unusable(run_id, f"journal[{due}]", "it is missing")
    return [kit.packer.row(payload, run_id, position) for position, payload in rows]


@dataclass(frozen=True, slots=True)
class ReceiptOf:
    """See RunStore.receipt: of decisions with which the run went on."""

    run_id: str
    pause_id: str | None

    def __call__(self, tx: Tx) -> Receipt | None:
        """Do it."""
        key = _key(tx, self.run_id)
        sql = "SELECT pause, digest, decided FROM decisions WHERE run = ? AND applied IS NOT NULL"
        if self.pause_id is None:
            found = tx.rows(f"{sql} ORDER BY applied DESC LIMIT 1", (key,))
        else:
            found = tx.rows(f"{sql} AND pause = ?", (key, self.pause_id))
        return receipt_of(self.run_id, found[0]) if found else None


@dataclass(frozen=True, slots=True)
class WantsCancel:
    """See HitlStore.cancel_requested."""

    run_id: str

    def __call__(self, tx: Tx) -> bool:
        """Do it."""
        found = tx.rows("SELECT cancel FROM runs WHERE id = ?", (self.run_id,))
        if not found:
            raise unknown(self.run_id)
        return found[0][0] is not None


# --- lists --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a list by keys that grow."""

    order: Order
    after: int | None
    limit: int

    def ends(self, key: str) -> tuple[str, tuple[int, ...], str]:
        """The condition, its arguments, and the order."""
        sign, word = ("<", "DESC") if self.order == "newest" else (">", "ASC")
        condition, arguments = (f" AND {key} {sign} ?", (self.after,)) if self.after is not None else ("", ())
        return condition, arguments, f" ORDER BY {key} {word} LIMIT {max(1, self.limit) + 1}"

    def page(self, rows: list[Row], items: list[Any]) -> Page[Any]:
        """The page; a row too many says that there is a next one."""
        size = max(1, self.limit)
        return Page(tuple(items[:size]), int(rows[size - 1][0]) if len(rows) > size else None)


def _names(pipeline: str | None, tenant: str | None, table: str) -> tuple[str, list[object]]:
    condition, arguments = "", list[object]()
    for column, name in (("pipeline", pipeline), ("tenant", tenant)):
        if name is not None:
            condition += f" AND {table}.{column} = (SELECT id FROM words WHERE text = ?)"
            arguments.append(name)
    return condition, arguments


@dataclass(frozen=True, slots=True)
class Runs:
    """See HitlStore.runs."""

    kit: Kit
    status: str | None
    pipeline: str | None
    tenant: str | None
    slice: Slice
    run_id: str = ""

    def __call__(self, tx: Tx) -> Page[RunLine]:
        """Do it."""
        condition, arguments = _names(self.pipeline, self.tenant, "runs")
        if self.status is not None:
            condition, arguments = f"{condition} AND runs.status = ?", [*arguments, self.status]
        more, keys, order = self.slice.ends("runs.key")
        # the keys first, from an index alone: rows are wide
        inner = f"SELECT key FROM runs WHERE 1 = 1{condition}{more}{order}"
        _, _, outer = self.slice.ends("runs.key")
        sql = f"""
            SELECT runs.key, runs.id, p.text, t.text, status, owner, cancel, created, updated
            FROM ({inner}) AS these JOIN runs ON runs.key = these.key
            LEFT JOIN words p ON p.id = runs.pipeline LEFT JOIN words t ON t.id = runs.tenant{outer}"""
        rows = tx.rows(sql, (*arguments, *keys))
        owners = {row[5] for row in rows if row[5] is not None}
        gone = self.kit.owner.gone(tx, list(owners)) if owners else set[int]()
        return self.slice.page(rows, [_line(row, gone) for row in rows])


def _line(row: Row, gone: set[int]) -> RunLine:
    run_id, owner = str(row[1]), row[5]
    held = owner is not None and owner not in gone
    times = instant(row[7], run_id), instant(row[8], run_id)
    return RunLine(run_id, _text(row[2]) or "", _text(row[3]), str(row[4]), held, row[6] is not None, *times)


def _text(found: object) -> str | None:
    return None if found is None else str(found)


_QUESTION = """
    SELECT pauses.key, runs.id, p.text, t.text, pauses.pause, pauses.roles, pauses.asked, pauses.shown
    FROM ({}) AS these JOIN pauses ON pauses.key = these.key JOIN runs ON runs.key = pauses.run
    LEFT JOIN words p ON p.id = runs.pipeline LEFT JOIN words t ON t.id = runs.tenant{}"""


def _question(kit: Kit, row: Row) -> Question:
    run_id, pause_id = str(row[1]), str(row[4])
    pause = kit.packer.question(row[7], run_id, pause_id).shown
    roles = frozenset((_text(row[5]) or "").split("\n")) - {""}
    return Question(run_id, _text(row[2]) or "", _text(row[3]), pause, roles, instant(row[6], run_id))


@dataclass(frozen=True, slots=True)
class OpenPauses:
    """See HitlStore.open_pauses."""

    kit: Kit
    of_run: str | None
    pipeline: str | None
    tenant: str | None
    role: str | None
    slice: Slice
    run_id: str = ""

    def __call__(self, tx: Tx) -> Page[Question]:
        """Do it."""
        condition, arguments = _names(self.pipeline, self.tenant, "pauses")
        if self.of_run is not None:
            condition, arguments = f"{condition} AND pauses.run = ?", [*arguments, _key(tx, self.of_run)]
        if self.role is not None:
            condition += " AND (pauses.roles IS NULL OR pauses.roles LIKE ? ESCAPE '!')"
            arguments.append(f"%\n{_literal(self.role)}\n%")
        more, keys, order = self.slice.ends("pauses.key")
        inner = f"SELECT key FROM pauses WHERE state = {OPEN}{condition}{more}{order}"
        _, _, outer = self.slice.ends("pauses.key")
        rows = tx.rows(_QUESTION.format(inner, outer), (*arguments, *keys))
        return self.slice.page(rows, [_question(self.kit, row) for row in rows])


def _literal(role: str) -> str:
    return role.replace("!", "!!").replace("%", "!%").replace("_", "!_")


@dataclass(frozen=True, slots=True)
class Expired:
    """See HitlStore.expired."""

    kit: Kit
    now: datetime
    limit: int
    run_id: str = ""

    def __call__(self, tx: Tx) -> list[Question]:
        """Do it."""
        inner = f"SELECT key FROM pauses WHERE state = {OPEN} AND expires <= ? ORDER BY expires LIMIT ?"
        sql = _QUESTION.format(inner, " ORDER BY pauses.expires")
        found = []
        for row in tx.rows(sql, (microseconds(self.now), max(1, self.limit))):
            try:
                found.append(_question(self.kit, row))
            except SnapshotError:
                continue  # a damaged question must not keep the others from their end; `open_pauses` names it
        return found


@dataclass(frozen=True, slots=True)
class Decided:
    """See HitlStore.decided."""

    kit: Kit
    limit: int
    run_id: str = ""

    def __call__(self, tx: Tx) -> list[Recorded]:
        """Do it."""
        sql = """
            SELECT runs.id, pause, digest, decided, note, owner FROM decisions JOIN runs ON runs.key = decisions.run
            WHERE applied IS NULL ORDER BY decisions.key LIMIT ?"""
        rows = tx.rows(sql, (max(1, self.limit) + HELD_AT_ONCE,))
        owners = {row[5] for row in rows if row[5] is not None}
        gone = self.kit.owner.gone(tx, list(owners)) if owners else set[int]()
        free = [row for row in rows if row[5] is None or row[5] in gone]
        return [_recorded(self.kit, row) for row in free[: max(1, self.limit)]]


HELD_AT_ONCE = 1000
"""Decisions of runs at work that are looked past."""


def _recorded(kit: Kit, row: Row) -> Recorded:
    run_id, pause_id = str(row[0]), str(row[1])
    note = kit.packer.note(row[4], run_id, pause_id)
    actor, shown = note.get("actor"), note.get("shown_digest")
    return Recorded(
        receipt_of(run_id, row[1:]), note["decision"], _text(actor), str(note.get("reason", "")), _text(shown)
    )


@dataclass(frozen=True, slots=True)
class Orphaned:
    """See HitlStore.orphaned."""

    kit: Kit
    limit: int
    run_id: str = ""

    def __call__(self, tx: Tx) -> list[str]:
        """Do it."""
        owners = [row[0] for row in tx.rows("SELECT DISTINCT owner FROM runs WHERE owner IS NOT NULL")]
        alive = sorted(set(owners) - self.kit.owner.gone(tx, owners)) if owners else []
        marks = f" AND (owner IS NULL OR owner NOT IN ({', '.join('?' * len(alive))}))" if alive else ""
        sql = f"SELECT id FROM runs WHERE status = 'running'{marks} ORDER BY key LIMIT ?"
        return [str(row[0]) for row in tx.rows(sql, (*alive, max(1, self.limit)))]
