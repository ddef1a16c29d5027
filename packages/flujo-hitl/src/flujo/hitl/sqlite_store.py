"""Runs kept in one SQLite file."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

from flujo.core import ConfigurationError, PayloadCodec, TokenSigner

from .database import Database
from .errors import StoreUnavailable
from .sqlite import SQLiteDatabase
from .store import SqlStore

__all__ = ["SQLiteStore"]

_OLDEST = (3, 35, 0)


class SQLiteStore(SqlStore):
    """Keeps runs in one file, on a disk of this machine; see HitlStore.

    What is acknowledged survives the end of the process in any way. With `full` it survives a crash of the system and
    a power cut, too, as far as the disk keeps what it says it has written; with `normal` the last moments before one
    may be lost, never the order: what is there is what was there some moments before.

    Args:
        path: The file; it is made when it is first used.
        durability: Whether each commit waits for the disk.
        codec: Every payload goes through it; None writes them as they are.
        signer: Signs the tokens of pauses; None gives them none.
        lease_s: Seconds after which another process may take over what nobody renewed; a process that is gone on this
            machine is known to be gone at once.
        patience_s: Seconds that is waited for others who write, before StoreUnavailable.
        clock: Seconds since the epoch.

    Raises:
        ConfigurationError: An argument cannot be used, or this SQLite is older than 3.35.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "normal"] = "full",
        codec: PayloadCodec | None = None,
        signer: TokenSigner | None = None,
        lease_s: float = 30.0,
        patience_s: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if durability not in ("full", "normal"):
            raise ConfigurationError(f"durability={durability!r} cannot be used", "it is neither 'full' nor 'normal'")
        if sqlite3.sqlite_version_info < _OLDEST:
            why = f"this Python has SQLite {sqlite3.sqlite_version}"
            raise ConfigurationError("SQLiteStore cannot be used", why, "Use one with SQLite 3.35 or later")
        self.path: Path = Path(os.path.abspath(path))
        self._clock = clock
        self._full = durability == "full"
        self._patience_s = patience_s
        writer = SQLiteDatabase(self.path, clock, full=self._full, writes=True, patience_s=patience_s)
        super().__init__(writer, self._new_reader(), codec=codec, signer=signer, lease_s=lease_s)

    def _new_reader(self) -> Database:
        return SQLiteDatabase(self.path, self._clock, full=self._full, patience_s=self._patience_s)

    def _tidy(self) -> None:
        """Give the pages back, and empty the file with the newest rows: it has the old ones, too."""
        self._tell(self._vacuum)

    def _vacuum(self) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=self._patience_s)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA incremental_vacuum").fetchall()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _backup(self, path: Path) -> None:
        try:
            path.touch(exist_ok=False)
        except OSError as error:
            raise StoreUnavailable(str(path), error.strerror or str(error)) from None
        self._tell(lambda: self._copy(path))

    def _copy(self, path: Path) -> None:
        with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(path)) as target:
            source.backup(target)  # in one go: it would begin again each time that somebody writes
            target.execute("UPDATE runs SET owner = NULL WHERE owner IS NOT NULL")
            target.execute("DELETE FROM owners")
            target.commit()

    def _tell(self, work: Callable[[], None]) -> None:
        try:
            work()
        except sqlite3.Error as error:
            raise self._new_reader().told(error) from None
