"""What SQLite says, as errors of ours: its own never leave this package."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flujo.core import FlujoError

from .errors import StoreBusy, StoreDamaged, StoreError, StoreForeign, StoreWriteError

__all__ = ["fault_of", "is_local", "typed"]

_WRITE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_SHORT_READ = 522  # SQLITE_IOERR_SHORT_READ: the file is shorter than its header says


def _code(error: sqlite3.Error) -> tuple[int, int]:
    extended = getattr(error, "sqlite_errorcode", None)
    return (0, 0) if extended is None else (extended & 0xFF, extended)


def fault_of(error: sqlite3.Error, path: Path, wait_s: float) -> StoreError:
    """The error of ours for one of SQLite's."""
    code, extended = _code(error)
    if code in _BUSY:
        return StoreBusy(path, wait_s)
    if code in _WRITE and extended != _SHORT_READ:
        return StoreWriteError(path, str(error))
    if code == sqlite3.SQLITE_NOTADB:
        return StoreForeign(path, "it is no SQLite database", "Choose another path, or take the file from a backup")
    return StoreDamaged(path, str(error))


def is_local(error: sqlite3.Error) -> bool:
    """Whether it may come of one place in the file, or one statement, while others still work."""
    code, extended = _code(error)
    return code not in _BUSY and (code not in _WRITE or extended == _SHORT_READ)


@contextmanager
def typed(path: Path, wait_s: float) -> Iterator[None]:
    """Turn SQLite's errors, and those of reading what was never written, into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise fault_of(error, path, wait_s) from error
    except FlujoError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise StoreDamaged(path, f"a column holds what was never written: {error}") from error
