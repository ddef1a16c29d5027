"""The file: its tables, its version, and how it is opened."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Literal

from .errors import StoreForeign, StoreWriteError
from .faults import fault_of

__all__ = ["APPLICATION_ID", "MIGRATIONS", "STATUS", "Durability", "connect", "open_store", "status_of"]

Durability = Literal["full", "normal"]

APPLICATION_ID = 0x464C4A48
"""`FLJH` in the header of each file that is a store."""

STATUS = {"running": 0, "completed": 1, "failed": 2, "paused": 3, "stopped": 4, "aborted": 5}
"""How a run stands, as it is written."""

# Entries go to the end of `tail`, in the order they come, and from there, some thousand at once, to `journal`, where
# those of a run lie together. Straight into `journal`, a hundred runs would change a hundred pages with each commit.
# Wide rows (a snapshot) stand apart from those that lists go through. Names that repeat are written once, in `plans`.
# `pauses` holds what is open at this moment; `decisions` all that was ever decided, `applied` the fence
# of the hold that went on with it, or 0.
_FIRST = """
CREATE TABLE plans(id INTEGER PRIMARY KEY, pipeline TEXT NOT NULL, fingerprint NOT NULL, UNIQUE(fingerprint, pipeline));
CREATE TABLE runs(
  id INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, plan INTEGER NOT NULL, status INTEGER NOT NULL,
  fence INTEGER NOT NULL, owner INTEGER, began INTEGER NOT NULL, changed INTEGER NOT NULL,
  tenant TEXT, actor TEXT, cancel INTEGER);
CREATE INDEX runs_status ON runs(status);
CREATE INDEX runs_plan ON runs(plan, status);
CREATE INDEX runs_tenant ON runs(tenant, status) WHERE tenant IS NOT NULL;
CREATE INDEX runs_cancel ON runs(cancel) WHERE cancel IS NOT NULL;
CREATE TABLE snapshots(
  run INTEGER PRIMARY KEY, position INTEGER NOT NULL, length INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE tail(id INTEGER PRIMARY KEY, run INTEGER NOT NULL, position INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE journal(
  run INTEGER NOT NULL, position INTEGER NOT NULL, payload BLOB NOT NULL, PRIMARY KEY(run, position)) WITHOUT ROWID;
CREATE TABLE pauses(
  run INTEGER NOT NULL, pause TEXT NOT NULL, shown NOT NULL, expires INTEGER, roles TEXT, question BLOB NOT NULL,
  PRIMARY KEY(run, pause)) WITHOUT ROWID;
CREATE INDEX pauses_expire ON pauses(expires) WHERE expires IS NOT NULL;
CREATE TABLE decisions(
  id INTEGER PRIMARY KEY, run INTEGER NOT NULL, pause TEXT NOT NULL, digest NOT NULL, decided INTEGER NOT NULL,
  applied INTEGER NOT NULL, decision BLOB, actor TEXT, reason BLOB, UNIQUE(run, pause));
CREATE INDEX decisions_waiting ON decisions(id) WHERE applied = 0;
CREATE TABLE owners(
  id INTEGER PRIMARY KEY, boot TEXT NOT NULL, space TEXT NOT NULL, pid INTEGER NOT NULL, started INTEGER NOT NULL,
  lease_s REAL NOT NULL, beat INTEGER NOT NULL, beat_mono REAL NOT NULL, beat_wall REAL NOT NULL);
"""

# `stuck` is 1 where nothing was declared for when a question expires: such ones are left to people, however many.
_SECOND = """
ALTER TABLE runs ADD COLUMN target TEXT;
ALTER TABLE pauses ADD COLUMN stuck INTEGER;
DROP INDEX pauses_expire;
CREATE INDEX pauses_expire ON pauses(expires) WHERE expires IS NOT NULL AND stuck IS NULL;
"""

# From here on snapshots may be squeezed: what an earlier version wrote is read as it is.
_THIRD = ""

# `shown` is the digest of what was shown to who decided; of what was decided before this version it is not known.
_FOURTH = """
ALTER TABLE decisions ADD COLUMN shown BLOB;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _SECOND, _THIRD, _FOURTH)
"""What leads from each version of the file to the next; `user_version` is how many of them were done."""


def status_of(number: int) -> str:
    """How a run stands, as it is read; raises KeyError for what was never written."""
    return {code: name for name, code in STATUS.items()}[number]


def connect(path: Path, durability: Durability, wait_s: float) -> sqlite3.Connection:
    """A connection to a file that is a store; whoever has it may use it from any thread, one at a time."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, timeout=wait_s, isolation_level=None, check_same_thread=False, uri=True)
    try:
        connection.execute(f"PRAGMA synchronous={durability}")
        connection.execute("PRAGMA secure_delete=ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def open_store(path: Path, durability: Durability, wait_s: float) -> sqlite3.Connection:
    """A connection that writes, to a file that is made, or brought to this version, where need be.

    Raises:
        StoreError: It cannot be; see its leaves.
    """
    try:
        _touch(path)
        connection = connect(path, durability, wait_s)
    except sqlite3.Error as error:
        raise fault_of(error, path, wait_s) from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise fault_of(error, path, wait_s) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _touch(path: Path) -> None:
    """Make the file where there is none, readable by nobody else, and its folder know it after a power cut."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StoreWriteError(path, error.strerror or "it cannot be made") from error
    with suppress(OSError):  # a file system that cannot sync a folder keeps its names in another way
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    application, version = _numbers(connection)
    if application or version or not _is_empty(connection):
        _check(path, application, version)
    _keep_wal(connection, path)
    if (application, version) == (APPLICATION_ID, len(MIGRATIONS)):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        application, version = _numbers(connection)  # another process may have been quicker
        if application == 0 and _is_empty(connection):
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        else:
            _check(path, application, version)
        for migration in MIGRATIONS[version:]:
            for statement in filter(str.strip, migration.split(";\n")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _keep_wal(connection: sqlite3.Connection, path: Path) -> None:
    """With a write-ahead log, who reads and who writes do not hold up each other; a copy begins without one."""
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        why, do = f"its file system keeps no write-ahead log ({mode})", "Put it on a local disk"
        raise StoreForeign(path, why, do)


def _numbers(connection: sqlite3.Connection) -> tuple[int, int]:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version


def _is_empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_schema").fetchone() is None


def _check(path: Path, application: int, version: int) -> None:
    if application != APPLICATION_ID:
        why = "it is a SQLite database of another program"
        raise StoreForeign(path, why, "Choose another path")
    if version > len(MIGRATIONS):
        why = f"it has version {version}, and this flujo-hitl knows versions up to {len(MIGRATIONS)}"
        raise StoreForeign(path, why, "Update flujo-hitl")
