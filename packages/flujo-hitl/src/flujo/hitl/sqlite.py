"""One SQLite file: how it is opened, checked and migrated, and what its faults mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from flujo.core import FlujoError

from .database import Row
from .errors import StoreDamaged, StoreError, StoreTooNew, StoreUnavailable, refused

__all__ = ["APPLICATION_ID", "MIGRATIONS", "SQLiteDatabase"]

APPLICATION_ID = 0x464C4A4F  # "FLJO"

# Rows of all runs stand in the order they came, so that a commit of many runs touches few pages; the index finds those
# of one run. A table clustered by run touches a page per run and commit: measured at 100 runs, a third of the speed.
_FIRST = """
CREATE TABLE owners (
    id INTEGER PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, started INTEGER NOT NULL,
    beat INTEGER NOT NULL, lease INTEGER NOT NULL, expires INTEGER NOT NULL);
CREATE TABLE words (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE runs (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, pipeline INTEGER NOT NULL, tenant INTEGER, subject BLOB,
    status TEXT NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL, fence INTEGER NOT NULL,
    owner INTEGER, cancel INTEGER, length INTEGER NOT NULL, snapshot BLOB NOT NULL);
CREATE INDEX runs_by_status ON runs (status, key, pipeline, tenant);
CREATE INDEX runs_by_tenant ON runs (tenant, key, pipeline) WHERE tenant IS NOT NULL;
CREATE INDEX runs_by_subject ON runs (subject) WHERE subject IS NOT NULL;
CREATE INDEX runs_held ON runs (owner) WHERE owner IS NOT NULL;
CREATE TABLE journal (seq INTEGER PRIMARY KEY, run INTEGER NOT NULL, position INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE UNIQUE INDEX journal_of_run ON journal (run, position);
CREATE TABLE pauses (
    key INTEGER PRIMARY KEY, run INTEGER NOT NULL, pause TEXT NOT NULL, place INTEGER NOT NULL, state INTEGER NOT NULL,
    pipeline INTEGER NOT NULL, tenant INTEGER, expires INTEGER, roles TEXT, asked INTEGER NOT NULL,
    shown BLOB NOT NULL);
CREATE UNIQUE INDEX pauses_of_run ON pauses (run, pause);
CREATE INDEX pauses_open ON pauses (key, tenant, pipeline, roles) WHERE state = 0;
CREATE INDEX pauses_expiring ON pauses (expires) WHERE state = 0 AND expires IS NOT NULL;
CREATE TABLE decisions (
    key INTEGER PRIMARY KEY, run INTEGER NOT NULL, pause TEXT NOT NULL, digest TEXT NOT NULL, decided INTEGER NOT NULL,
    applied INTEGER, note BLOB);
CREATE UNIQUE INDEX decisions_of_run ON decisions (run, pause);
CREATE INDEX decisions_waiting ON decisions (key) WHERE applied IS NULL;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST,)
"""What makes version n + 1 of version n. A released one is never changed."""

_IDENTITY = ("application_id", "user_version")
_UNREADABLE = (ValueError, TypeError, OverflowError)  # UnicodeDecodeError, for names in a damaged schema, is one
_PAGES_BETWEEN_CHECKPOINTS = 4000
_UNAVAILABLE = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "its file cannot be opened",
    sqlite3.SQLITE_BUSY: "another process kept it locked for too long",
    sqlite3.SQLITE_LOCKED: "another connection keeps it locked",
    sqlite3.SQLITE_IOERR: "the system failed to read or write it",
    sqlite3.SQLITE_PERM: "access is denied",
    sqlite3.SQLITE_AUTH: "access is denied",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_INTERRUPT: "the work was interrupted",
    sqlite3.SQLITE_PROTOCOL: "another process kept it locked for too long",
}


class SQLiteDatabase:
    """A connection to one file; opened when it is first used, and again after a fault.

    Args:
        path: The file; made where it is not there.
        clock: Seconds since the epoch.
        full: Whether a commit waits for the disk.
        writes: Whether it may change anything.
        patience_s: How long it waits for others who write.
    """

    lock = ""  # there is one who writes, and it has it from the start of its transaction

    def __init__(
        self, path: Path, clock: Callable[[], float], *, full: bool = True, writes: bool = False, patience_s: float = 10
    ) -> None:
        self.path = path
        self._clock = clock
        self._full = full
        self._writes = writes
        self._patience_s = patience_s
        self._connection: sqlite3.Connection | None = None
        self._left: list[sqlite3.Connection] = []
        self._files: tuple[tuple[int, int] | None, ...] = ()
        self._first: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """See Database."""
        return str(self.path)

    # --- Tx ---

    def rows(self, sql: str, arguments: Sequence[object] = ()) -> list[Row]:
        """See Tx."""
        return self._open.execute(sql, tuple(arguments)).fetchall()

    def change(self, sql: str, arguments: Sequence[object] = ()) -> int:
        """See Tx."""
        return self._open.execute(sql, tuple(arguments)).rowcount

    def each(self, sql: str, arguments: Iterable[Sequence[object]]) -> None:
        """See Tx."""
        self._open.executemany(sql, arguments)

    def now_us(self) -> int:
        """See Tx."""
        return int(self._clock() * 1e6)

    # --- Database ---

    def begin(self, run_ids: Sequence[str]) -> None:
        """See Database."""
        if self._connection is None:
            self._connect()
        elif self._files and self._files != self._seen():
            raise StoreDamaged(self.name, "its file, or the one with the newest rows (-wal), was taken away in use")
        self._open.execute("BEGIN IMMEDIATE" if self._writes else "BEGIN")

    def commit(self) -> None:
        """See Database."""
        self._open.execute("COMMIT")
        if not self._files:  # both are there once something was written or read
            self._files = self._seen()

    def rollback(self, error: Exception) -> bool:
        """See Database. After a fault nothing is known of what the system kept in its memory: open it anew."""
        self.close()
        return False

    def close(self) -> None:
        """See Database."""
        connection, self._connection, self._files = self._connection, None, ()
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def forget(self) -> None:
        """See Database."""
        if self._connection is not None:
            self._left.append(self._connection)
        self._connection, self._files = None, ()

    def told(self, error: Exception) -> Exception:
        """See Database."""
        if isinstance(error, FlujoError):
            return error
        if isinstance(error, UnicodeEncodeError):
            return refused(self.name, "a text in it is no Unicode")
        if isinstance(error, _UNREADABLE):
            return StoreDamaged(self.name, f"it holds what no store writes ({type(error).__name__})")
        if not isinstance(error, sqlite3.Error):
            return error
        code = getattr(error, "sqlite_errorcode", None)
        why = _UNAVAILABLE.get((code or 0) & 0xFF)
        if why is not None:
            return StoreUnavailable(self.name, f"{why} ({error})")
        return StoreDamaged(self.name, str(error))

    # --- opening ---

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def _seen(self) -> tuple[tuple[int, int] | None, ...]:
        """Which files stand at the two paths. SQLite goes on with a file that is gone, and nobody would ever see it."""
        return tuple(map(_identity, (self.name, f"{self.name}-wal")))

    def _connect(self) -> None:
        if self._first is not None and _identity(self.name) != self._first:
            raise StoreDamaged(self.name, "its file was taken away in use")
        self._connection = sqlite3.connect(
            self.path, isolation_level=None, timeout=self._patience_s, check_same_thread=False
        )
        try:
            self._wait(self._prepare)
        except (sqlite3.Error, StoreError, *_UNREADABLE):
            self.close()
            raise
        self._first = _identity(self.name)
        if not self._writes:
            self._open.execute("PRAGMA query_only = ON")

    def _wait(self, work: Callable[[], None]) -> None:
        """Try again while others are in the way: where a lock may deadlock SQLite does not wait by itself."""
        deadline = monotonic() + self._patience_s
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                    raise
                sleep(0.01)

    def _prepare(self) -> None:
        connection = self._open
        identity, version = _versions(connection)
        if identity != APPLICATION_ID and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreDamaged(self.name, "it is a database of another program")
        if version > len(MIGRATIONS):
            raise StoreTooNew(self.name, version, len(MIGRATIONS))
        if identity == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._full else 'NORMAL'}")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_BETWEEN_CHECKPOINTS}")
        if (identity, version) != (APPLICATION_ID, len(MIGRATIONS)):
            self._migrate()

    def _migrate(self) -> None:
        connection = self._open
        connection.execute("BEGIN IMMEDIATE")
        try:
            _, version = _versions(connection)  # somebody else may have done it while this one waited
            for change in MIGRATIONS[version:]:
                for statement in filter(str.strip, change.split(";")):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _versions(connection: sqlite3.Connection) -> tuple[int, int]:
    identity, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _IDENTITY)
    return identity, version


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
