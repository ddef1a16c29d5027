"""The tables of a store in SQLite, and the way from each version of them to the next."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from .errors import StoreError

APPLICATION_ID = 0x464C554A
"""Marks the file as a store of ours ("FLUJ" in ASCII); see PRAGMA application_id."""

_FIRST = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    tenant TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    fence INTEGER NOT NULL,
    owner INTEGER
);
CREATE INDEX runs_by_status ON runs (status, updated_at, id);
CREATE TABLE snapshots (run INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE journal (run INTEGER NOT NULL, position INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (run, position)) WITHOUT ROWID;
CREATE TABLE decisions (run INTEGER NOT NULL, pause_id TEXT NOT NULL, digest TEXT NOT NULL, decided_at REAL NOT NULL,
    number INTEGER NOT NULL, PRIMARY KEY (run, pause_id)) WITHOUT ROWID;
CREATE TABLE pauses (run INTEGER NOT NULL, pause_id TEXT NOT NULL, expires_at REAL,
    PRIMARY KEY (run, pause_id)) WITHOUT ROWID;
CREATE INDEX pauses_by_expiry ON pauses (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE owners (id INTEGER PRIMARY KEY, place TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL,
    expires_at REAL NOT NULL);
"""

MIGRATIONS: tuple[str, ...] = (_FIRST,)
"""Statements that lead from version n to n + 1; each file knows its version (PRAGMA user_version)."""


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or bring those of an earlier version up to date.

    Raises:
        StoreError: The file is of something else, or of a later version.
    """
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != APPLICATION_ID and (found or version or connection.execute("SELECT 1 FROM sqlite_master").fetchone()):
        raise StoreError(path, "it is a database of something else", "Give the path of a new file, or of a store")
    if version > len(MIGRATIONS):
        why = f"its tables have version {version}, and this flujo-hitl knows {len(MIGRATIONS)}"
        raise StoreError(path, why, "Install the flujo-hitl that wrote it, or a later one")
    if version == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]  # another process may have been quicker
    for step in MIGRATIONS[version:]:
        for statement in step.split(";"):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")
