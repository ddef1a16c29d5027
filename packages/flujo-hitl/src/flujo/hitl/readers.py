"""Connections that read, each used by one thread at a time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flujo.core import FlujoError

from .errors import StoreClosed, StoreDamaged
from .faults import typed
from .lane import Ticket
from .schema import open_store

__all__ = ["Readers"]


class Readers:
    """Gives connections to threads; a free one is used again.

    Args:
        path: The file; it is made where there is none.
        wait_s: Seconds to wait where it is locked.
    """

    def __init__(self, path: Path, wait_s: float) -> None:
        self._path = path
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._free: list[sqlite3.Connection] = []
        self._is_closed = False

    @contextmanager
    def moment(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees the store as of one moment; what goes wrong in reading it is an error of ours.

        So read in it what columns hold: a flipped bit may have made them what was never written.
        """
        with typed(self._path, self._wait_s):
            db = self._take()
            try:
                db.execute("BEGIN")
                yield db
                db.execute("COMMIT")
            except BaseException:  # whatever it was, another connection may still work
                db.close()
                raise
            self._give(db)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._is_closed:
                raise StoreClosed(self._path)
            if self._free:
                return self._free.pop()
        db = open_store(self._path, "full", self._wait_s)  # it needs no lock where the file is of this version
        db.execute("PRAGMA query_only=ON")
        return db

    def _give(self, db: sqlite3.Connection) -> None:
        with self._lock:
            if not self._is_closed:
                self._free.append(db)
                return
        db.close()

    def commit(self, tickets: Sequence[Ticket[object]]) -> None:
        """Do what a lane was given to read: a change of threads costs less there than in anyio's."""
        for ticket in tickets:
            try:
                ticket.result = ticket.work()
            except FlujoError as error:
                ticket.error = error
            except Exception as error:  # whatever it is, who waits must hear of it, or waits for ever
                ticket.error = StoreDamaged(self._path, f"{type(error).__name__}: {error}")

    def tidy(self) -> None:
        """See Writes: there is nothing to do."""

    def wait_s(self) -> None:
        """See Writes: there is nothing to wait for."""

    def rest(self) -> None:
        """See Writes: there is nothing to do."""

    def close(self) -> None:
        """Let go of the file; who reads at this moment ends that first."""
        with self._lock:
            self._is_closed = True
            free, self._free = self._free, []
        for db in free:
            db.close()
