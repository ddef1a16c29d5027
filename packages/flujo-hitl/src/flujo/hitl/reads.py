"""What is read of runs, each as of one moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flujo.core import EntryData, KeptRun, Receipt

from .connection import Connection, Cursor, Moments
from .errors import RunDamaged
from .faults import is_local
from .owner import Beats, Owner, is_gone
from .payloads import Payloads, moment, packed, unpacked
from .schema import STATUS, status_of
from .writes import unknown

__all__ = ["RunReads"]

_STANDING = (
    "SELECT r.id, r.status, p.pipeline, p.fingerprint, s.position, s.length, s.payload FROM runs r"
    " LEFT JOIN plans p ON p.id=r.plan LEFT JOIN snapshots s ON s.run=r.id WHERE r.run_id=?"
)
_JOURNAL = (
    "SELECT position, payload FROM journal WHERE run=? AND position>=? UNION ALL"
    " SELECT position, payload FROM tail WHERE run=? AND position>=? ORDER BY position"
)


class RunReads:
    """The reading half of a RunStore, without waiting.

    Args:
        readers: Where connections come from.
        payloads: How payloads are read.
        beats: What was seen of other owners.
    """

    def __init__(self, readers: Moments, payloads: Payloads, beats: Beats) -> None:
        self._readers = readers
        self._payloads = payloads
        self._beats = beats

    def load(self, run_id: str) -> KeptRun:
        """See RunStore: where it stands and what came after that, however long its journal is."""
        with self._readers.moment() as db, _of_run(run_id):
            return self._load(db, run_id)

    def _load(self, db: Connection, run_id: str) -> KeptRun:
        found = db.execute(_STANDING, (run_id,)).fetchone()
        if found is None:
            raise unknown(run_id)
        row, status, pipeline, fingerprint, position, ended, payload = found
        if pipeline is None or position is None or status not in STATUS.values():
            raise RunDamaged(run_id, "where it stands is missing")
        facts = (run_id, pipeline, unpacked(fingerprint), status_of(status))
        snapshot = self._payloads.standing(payload, *facts)
        if snapshot.checkpoint.position != position:
            raise RunDamaged(run_id, f"it stands at {snapshot.checkpoint.position} of its journal, or at {position}")
        has_late = status == STATUS["running"] or ended != position
        written = self._entries(db, row, position) if has_late else ()
        late = self._payloads.rows(written, run_id, position)
        length = position + len(late)
        return KeptRun(snapshot, tuple(late), lambda: self._history(row, run_id, length))

    def _history(self, row: int, run_id: str, length: int) -> list[EntryData]:
        with self._readers.moment() as db, _of_run(run_id):
            rows = self._payloads.rows(self._entries(db, row, 0), run_id, 0)
        if len(rows) < length:
            raise RunDamaged(run_id, f"its journal has {len(rows)} entries, not {length}")
        return rows

    def _entries(self, db: Connection, row: int, first: int) -> Cursor:
        """Position and payload of what was journaled from `first` on, in order."""
        return db.execute(_JOURNAL, (row, first, row, first))

    def subject(self, run_id: str) -> str | None:
        """About whom a run is, by its tags."""
        with self._readers.moment() as db, _of_run(run_id):
            found = db.execute(_STANDING, (run_id,)).fetchone()
        if found is None:
            return None  # somebody was quicker
        _, status, pipeline, fingerprint, _, _, payload = found
        facts = (run_id, pipeline, unpacked(fingerprint), status_of(status))
        return self._payloads.standing(payload, *facts).tags.get("subject")

    def receipt(self, run_id: str, pause_id: str | None) -> Receipt | None:
        """See RunStore."""
        ask = "SELECT pause, digest, decided FROM decisions WHERE run=?"
        with self._readers.moment() as db:
            known = db.execute("SELECT id FROM runs WHERE run_id=?", (run_id,)).fetchone()
            if known is None:
                raise unknown(run_id)
            if pause_id is None:
                found = db.execute(f"{ask} ORDER BY applied DESC, id DESC LIMIT 1", known).fetchone()
            else:
                found = db.execute(f"{ask} AND pause=?", (*known, pause_id)).fetchone()
            return None if found is None else Receipt(run_id, found[0], unpacked(found[1]), moment(found[2]))

    def orphans(self, fingerprint: str) -> Sequence[str]:
        """See RunStore."""
        ask = (
            "SELECT r.run_id, r.owner FROM runs r WHERE r.status=0"
            " AND r.plan IN (SELECT id FROM plans WHERE fingerprint=?) ORDER BY r.id"
        )
        with self._readers.moment() as db:
            found = db.execute(ask, (packed(fingerprint),)).fetchall()
            owners = {row[0]: Owner(*row) for row in db.execute("SELECT * FROM owners")}
            living = {number for number, owner in owners.items() if not self._is_gone(db, owner)}
        return [run_id for run_id, owner in found if owner not in living]

    def _is_gone(self, db: Connection, owner: Owner) -> bool:
        return is_gone(owner, self._beats)


@contextmanager
def _of_run(run_id: str) -> Iterator[None]:
    """What is damaged where a run is read is damage of this run, not of the store."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_local(error):
            raise RunDamaged(run_id, f"the file is damaged there: {error}") from error
        raise
