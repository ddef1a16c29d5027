"""A copy of a store while it is used."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from .errors import StoreWriteError
from .faults import typed
from .schema import connect

__all__ = ["copy"]


def copy(source: Path, target: Path, wait_s: float) -> None:
    """Copy the store, as of one moment, to a new file, which is there only when it is whole.

    In the copy nobody holds a run: who held it goes on with the original.
    """
    if target.exists():
        raise StoreWriteError(target, "there is a file already")
    part = target.with_name(f"{target.name}.part")
    try:
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StoreWriteError(part, error.strerror or "it cannot be made") from error
    try:
        with typed(source, wait_s), closing(connect(source, "full", wait_s)) as db:
            _copy(db, part, wait_s)
        os.link(part, target)  # unlike a rename, it never takes the place of another file
    except OSError as error:
        raise StoreWriteError(target, error.strerror or "it cannot be made") from error
    finally:
        part.unlink()


def _copy(db: sqlite3.Connection, part: Path, wait_s: float) -> None:
    with typed(part, wait_s), closing(sqlite3.connect(part, isolation_level=None)) as other:
        db.backup(other)
        other.execute("PRAGMA journal_mode=DELETE").fetchall()  # one file, until it is used
        other.execute("PRAGMA synchronous=FULL")
        other.execute("BEGIN")
        other.execute("UPDATE runs SET owner=NULL WHERE owner IS NOT NULL")
        other.execute("DELETE FROM owners")
        other.execute("COMMIT")
