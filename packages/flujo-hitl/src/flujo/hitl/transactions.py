"""The connection that writes: batches of work as transactions, and the lease of who holds runs."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from weakref import WeakValueDictionary

from flujo.core import FlujoError, Hold

from .connection import Connection, Held, pass_on_cancels
from .errors import StoreDamaged, StoreError
from .faults import fault_of, is_local
from .lane import Ticket
from .owner import Beats, Me, Owner, is_gone
from .schema import Durability, open_store

__all__ = ["Transactions", "owner_of"]

FOLD = 4096
"""Entries that are moved at once. A run that is loaded while it runs looks through as many."""

_LOOK = 256
"""Entries after which this store looks how long the tail is: others add to it too."""

_log = logging.getLogger("flujo.hitl")


def owner_of(db: Connection, number: int) -> Owner | None:
    """Who has this number; None where it is gone for good."""
    found = db.execute("SELECT * FROM owners WHERE id=?", (number,)).fetchone()
    return None if found is None else Owner(*found)


class Transactions:
    """Used by the thread of a lane alone.

    Args:
        path: The file.
        durability: `full` syncs at each commit, `normal` from time to time.
        me: This store as a holder.
        wait_s: Seconds to wait for another process that writes.
    """

    def __init__(self, path: Path, durability: Durability, me: Me, wait_s: float) -> None:
        self.path: Path = path
        self.durability: Durability = durability
        self.me: Me = me
        self.beats: Beats = Beats()
        self._wait_s = wait_s
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self.version: int = -1
        """Of what other connections wrote; while it stays the same, so do the holds of this store."""
        self.fold_at: int = FOLD
        self.held: dict[str, Held] = {}
        self.holds: WeakValueDictionary[str, Hold] = WeakValueDictionary()
        self.plans: dict[tuple[str, str], int] = {}
        self.has_deleted: bool = False
        """Whether what was deleted still stands in the write-ahead log."""
        self.pending: list[tuple[int, int, bytes]] = []
        self.added: int = 0
        """Entries that were added since the tail was looked at."""
        self._is_registered = False

    @property
    def db(self) -> sqlite3.Connection:
        """The connection, opened at first use."""
        if self._db is None:
            self._db = open_store(self.path, self.durability, self._wait_s)
            self._file = _identity(self.path)
        return self._db

    def _check_file(self) -> None:
        """What is written to a file without a name is lost."""
        if _identity(self.path) != self._file:
            raise StoreDamaged(self.path, "it was removed or replaced while it was used")

    # --- a batch ------------------------------------------------------------------------------------------------------

    def commit(self, tickets: Sequence[Ticket[object]]) -> None:
        """See Writes."""
        try:
            self._transact(tickets)
        except Exception as error:  # whatever it is, those who wait must hear of it, or they wait for ever
            self._roll_back()
            if len(tickets) > 1 and not isinstance(error, StoreError) and _is_of_one(error):
                for ticket in tickets:
                    self.commit([ticket])
                return
            fault = self._fault(error)
            for ticket in tickets:
                ticket.result, ticket.error = None, fault

    def _fault(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            fault = fault_of(error, self.path, self._wait_s)
            fault.__cause__ = error
            return fault
        if isinstance(error, FlujoError):
            return error
        fault = StoreError(f"store {str(self.path)!r} cannot keep this", f"{type(error).__name__}: {error}")
        fault.__cause__ = error
        return fault

    def _transact(self, tickets: Sequence[Ticket[object]]) -> None:
        db = self.db
        self._check_file()
        db.execute("BEGIN IMMEDIATE")
        self._notice_others(db)
        beat = self._beat() if self._is_registered and self.me.is_due() else None
        for ticket in tickets:
            if ticket.is_left and ticket.undo is not None:
                continue
            ticket.result = ticket.error = None
            try:
                ticket.result = ticket.work()
            except FlujoError as refused:
                ticket.error = refused
        self.flush()
        db.execute("COMMIT")
        if beat is not None:
            self.me.kept(beat)
        if self.has_deleted:  # before who deleted is told that it is gone
            self._clean(db)

    def flush(self) -> None:
        """See Writing: one call for a batch, which takes less of the processor than one for each entry."""
        if self.pending:
            self.db.executemany("INSERT INTO tail(run, position, payload) VALUES(?,?,?)", self.pending)
            self.added += len(self.pending)
            self.pending.clear()

    def tidy(self) -> None:
        """See Writes."""
        if self._db is None:
            return
        try:
            if self.has_deleted:
                self._clean(self._db)
            if self.added < min(_LOOK, self.fold_at):
                return
            self.added = 0
            (rows,) = self._db.execute("SELECT max(id) FROM tail").fetchone()
            if rows is not None and rows >= self.fold_at:
                self.fold(self._db)
        except sqlite3.Error as error:  # all is kept where it is; tried again when as much was added
            self._roll_back()
            self.fold_at += FOLD
            _log.warning("store %r: entries could not be put in order: %s", str(self.path), error)

    def fold(self, db: sqlite3.Connection) -> None:
        """Move all entries from the tail to the journal."""
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO journal SELECT run, position, payload FROM tail ORDER BY run, position")
        db.execute("DELETE FROM tail")
        db.execute("COMMIT")
        self.fold_at = FOLD

    def _clean(self, db: sqlite3.Connection) -> None:
        """Cut the write-ahead log; where somebody reads from it at this moment, later."""
        try:
            db.execute("PRAGMA busy_timeout=0")
            (is_busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            db.execute(f"PRAGMA busy_timeout={int(self._wait_s * 1000)}")
            self.has_deleted = bool(is_busy)
        except sqlite3.Error as error:  # what was to be kept is kept, whatever becomes of the log
            _log.warning("store %r: its log could not be cut: %s", str(self.path), error)

    def _notice_others(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version != self.version and self._is_registered:  # who writes often hears of it at once
            pass_on_cancels(db, self.me, self.holds)
        self.version = version

    def _roll_back(self) -> None:
        self.held.clear()
        self.plans.clear()
        self.pending.clear()
        self.me.unsettle()  # what was written of us may be rolled back with the rest
        if self._db is None:
            return
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            # A connection that cannot even do that is of no use any more.
            self._db.close()
            self._db = None

    # --- the lease ----------------------------------------------------------------------------------------------------

    def register(self) -> None:
        """Write who holds runs from here on, inside a transaction."""
        if not self._is_registered:
            self.me.kept(self._beat())
            self._is_registered = True

    def _beat(self) -> Owner:
        owner = self.me.beat()
        pass_on_cancels(self.db, self.me, self.holds)  # also those who could not be told before, as they just began
        self.db.execute("INSERT OR REPLACE INTO owners VALUES(?,?,?,?,?,?,?,?,?)", astuple(owner))
        return owner

    def is_free(self, owner: int | None) -> bool:
        """Whether nobody holds a run any more that `owner` held."""
        if owner is None:
            return True
        if owner == self.me.id:
            return False
        found = owner_of(self.db, owner)
        return found is None or is_gone(found, self.beats)

    def wait_s(self) -> float | None:
        """See Writes."""
        pace = self.me.lease_s / 3 if self._is_registered else None
        return min(1.0, pace or 1.0) if self.has_deleted else pace

    def rest(self) -> None:
        """Renew the lease, or let it go when nothing is held."""
        try:
            self.tidy()
            if not self._is_registered or not self.me.is_due():
                return
            self.db.execute("BEGIN IMMEDIATE")
            if self._holds():
                beat = self._beat()
                self.db.execute("COMMIT")
                self.me.kept(beat)
            else:
                self.db.execute("DELETE FROM owners WHERE id=?", (self.me.id,))
                self.db.execute("COMMIT")
                self._is_registered = False
        except (sqlite3.Error, StoreError) as error:  # tried again after a third of the lease
            self._roll_back()
            _log.warning("store %r: the lease of its runs could not be renewed: %s", str(self.path), error)

    def _holds(self) -> bool:
        return self.db.execute("SELECT 1 FROM runs WHERE status=0 AND owner=?", (self.me.id,)).fetchone() is not None

    def close(self) -> None:
        """Give back what is held, put what was written in order, and let go of the file."""
        try:
            if self._db is not None and self._is_registered:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("UPDATE runs SET owner=NULL WHERE status=0 AND owner=?", (self.me.id,))
                self._db.execute("DELETE FROM owners WHERE id=?", (self.me.id,))
                self._db.execute("COMMIT")
        except sqlite3.Error as error:  # the lease ends by itself
            _log.warning("store %r: runs could not be given back: %s", str(self.path), error)
        self.fold_at, self.added = 1, 1
        self.tidy()
        if self._db is not None:
            self._db.close()
            self._db = None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_of_one(error: Exception) -> bool:
    """Whether it may come of one ticket, so that the others are worth a transaction each."""
    return not isinstance(error, sqlite3.Error) or is_local(error)
