"""Runs in one file of SQLite: what is written survives a `kill -9`, and one of all resumes wins."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self, TypeVar, cast

from flujo.core import (
    ConfigurationError,
    EntryData,
    Hold,
    HoldLost,
    KeptRun,
    PayloadCodec,
    Receipt,
    ResumeError,
    RunExists,
    Snapshot,
    StillRunning,
    TokenSigner,
    moved_on,
    refusal,
)

from .commits import Committer, Job, Work
from .errors import StoreClosed, StoreError
from .owner import Owner, this_process
from .rows import packed, unpacked, written
from .schema import prepare

T = TypeVar("T")

Durability = Literal["full", "normal"]
"""`full`: what was written survives a loss of power. `normal`: it survives the end of the process, however that ends;
after a loss of power the last writes may be missing, never some in the middle, and the file is whole."""


class SQLiteStore:
    """A RunStore in one file, in WAL mode, written by one thread; many processes may open it at once.

    Args:
        path: The file; it is made, with its folder, when it is first used. It must be on a local disk: SQLite's locks
            do not hold over a network.
        durability: What survives; see Durability.
        codec: Through it goes every payload; None writes it as it is.
        signer: Signs the tokens of pauses; None gives them none.
        lease_s: Seconds after which another machine, or another container, may take over a run whose process it cannot
            look at, unless that renewed its lease. A process of this machine is looked at.
        lock_timeout_s: Seconds to wait for another process that writes; after that a StoreError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        codec: PayloadCodec | None = None,
        signer: TokenSigner | None = None,
        lease_s: float = 30.0,
        lock_timeout_s: float = 10.0,
    ) -> None:
        if durability not in ("full", "normal"):
            raise ConfigurationError(f"durability={durability!r} cannot be used", "it is neither 'full' nor 'normal'")
        for name, value in (("lease_s", lease_s), ("lock_timeout_s", lock_timeout_s)):
            if not 0 < value < float("inf"):
                raise ConfigurationError(f"{name}={value!r} cannot be used", "it must be above 0 seconds")
        self.path: Path = Path(path)
        self.signer: TokenSigner | None = signer
        self._codec = codec
        self._synchronous = durability.upper()
        self._lease_s = lease_s
        self._lock_timeout_s = lock_timeout_s
        self._owner: int | None = None
        self._is_closed = False
        self._commits = Committer(self._connect, self._fault, self._renew, lease_s / 3)

    # --- RunStore ---------------------------------------------------------------------------------------------------

    async def create(self, snapshot: Snapshot) -> Hold:
        """See RunStore."""
        run_id, text, now = snapshot.run_id, written(snapshot), time.time()
        data = packed(text, self._codec, _of_snapshot(run_id))
        facts = (run_id, snapshot.status, snapshot.pipeline, snapshot.fingerprint, snapshot.tenant, now, now)

        def work(db: sqlite3.Connection) -> Hold:
            if db.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone():
                raise RunExists(run_id)
            sql = (
                "INSERT INTO runs (run_id, status, pipeline, fingerprint, tenant, created_at, updated_at, fence, owner)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)"
            )
            key = db.execute(sql, (*facts, self._owner)).lastrowid
            db.execute("INSERT INTO snapshots VALUES (?, ?)", (key, data))
            return Hold(run_id, 1)

        return await self._do(work)

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        """See RunStore."""
        texts = [written(row) for row in rows]

        def work(db: sqlite3.Connection) -> None:
            key, length = self._held(db, hold)
            self._add(db, hold.run_id, key, length, texts)

        await self._do(work)

    async def save(self, hold: Hold, snapshot: Snapshot) -> None:
        """See RunStore."""
        run_id, text = snapshot.run_id, written(snapshot)
        data = packed(text, self._codec, _of_snapshot(run_id))
        pauses = [(one.id, one.expires_at and one.expires_at.timestamp()) for one in snapshot.pauses]

        def work(db: sqlite3.Connection) -> None:
            key, _ = self._held(db, hold)
            db.execute("UPDATE snapshots SET data = ? WHERE run = ?", (data, key))
            sql = "UPDATE runs SET status = ?, owner = NULL, updated_at = ? WHERE id = ?"
            db.execute(sql, (snapshot.status, time.time(), key))
            db.execute("DELETE FROM pauses WHERE run = ?", (key,))
            if snapshot.status == "paused":
                db.executemany("INSERT INTO pauses VALUES (?, ?, ?)", [(key, *pause) for pause in pauses])

        await self._do(work)

    async def release(self, hold: Hold) -> None:
        """See RunStore."""

        def work(db: sqlite3.Connection) -> None:
            key, _ = self._held(db, hold)
            db.execute("UPDATE runs SET owner = NULL, updated_at = ? WHERE id = ?", (time.time(), key))

        await self._do(work)

    async def load(self, run_id: str) -> KeptRun:
        """See RunStore."""

        def work(db: sqlite3.Connection) -> tuple[str, Snapshot, list[object]]:
            key, status = cast("tuple[int, str]", self._known(db, run_id, "id, status"))
            [data] = db.execute("SELECT data FROM snapshots WHERE run = ?", (key,)).fetchone() or [None]
            stand = unpacked(Snapshot, data, self._codec, _of_snapshot(run_id))
            sql = "SELECT data FROM journal WHERE run = ? AND position >= ? ORDER BY position"
            rows = db.execute(sql, (key, stand.checkpoint.position)).fetchall()
            return status, stand, [row for (row,) in rows]

        status, stand, rows = await self._do(work)
        late = self._rows(run_id, rows, stand.checkpoint.position)
        return KeptRun(stand.model_copy(update={"status": status}), late, lambda: self._history(run_id))

    async def receipt(self, run_id: str, pause_id: str | None = None) -> Receipt | None:
        """See RunStore."""

        def work(db: sqlite3.Connection) -> Receipt | None:
            [key] = self._known(db, run_id, "id")
            return _receipt(db, run_id, key, pause_id)

        return await self._do(work)

    async def orphans(self, fingerprint: str) -> Sequence[str]:
        """See RunStore."""

        def work(db: sqlite3.Connection) -> list[str]:
            sql = "SELECT run_id, owner FROM runs WHERE status = 'running' AND fingerprint = ? ORDER BY id"
            return [run for run, owner in db.execute(sql, (fingerprint,)) if not self._lives(db, owner)]

        return await self._do(work)

    async def claim(self, position: int, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        """See RunStore."""
        run_id, texts = receipt.run_id, [written(row) for row in rows]

        def work(db: sqlite3.Connection) -> Hold:
            key, fence, owner = self._known(db, run_id, "id, fence, owner")
            before = _receipt(db, run_id, key, receipt.pause_id) if receipt.pause_id else None
            if before is not None:
                raise refusal(before, receipt)
            if self._lives(db, owner):
                raise StillRunning(run_id)
            if position != (length := _length(db, key)):
                raise moved_on(run_id)
            self._add(db, run_id, key, length, texts)
            if receipt.pause_id:
                number = db.execute("SELECT count(*) FROM decisions WHERE run = ?", (key,)).fetchone()[0]
                facts = (key, receipt.pause_id, receipt.digest, receipt.decided_at.timestamp(), number)
                db.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?)", facts)
                db.execute("DELETE FROM pauses WHERE run = ? AND pause_id = ?", (key, receipt.pause_id))
            sql = "UPDATE runs SET status = 'running', fence = ?, owner = ?, updated_at = ? WHERE id = ?"
            db.execute(sql, (fence + 1, self._owner, time.time(), key))
            return Hold(run_id, fence + 1)

        return await self._do(work)

    # --- beside it --------------------------------------------------------------------------------------------------

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the store while it is in use; blocks. The copy is whole, as of one instant.

        Raises:
            StoreError: One of the two files cannot be used.
        """
        try:
            with closing(self._reader()) as source, closing(sqlite3.connect(path)) as target:
                source.backup(target)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """Write what was asked for, and give up what it holds; blocks until that is done."""
        if not self._is_closed:
            self._is_closed = True
            self._commits.close()
            if self._owner is not None:
                # where this cannot be written, others find it out when the process is gone, or its lease over
                with suppress(sqlite3.Error), closing(self._opened()) as db, db:
                    db.execute("UPDATE runs SET owner = NULL WHERE owner = ?", (self._owner,))
                    db.execute("DELETE FROM owners WHERE id = ?", (self._owner,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- the database -----------------------------------------------------------------------------------------------

    async def _do(self, work: Work[T]) -> T:
        if self._is_closed:
            raise StoreClosed(self.path)
        job = Job(work)
        self._commits.submit(job)
        return await job.wait()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=self._lock_timeout_s, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        prepare(db, self.path)  # before anything is changed: it may be a database of something else
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        return db

    def _connect(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(self.path, f"its folder cannot be made ({error.strerror})") from error
        db = self._opened()
        if self._owner is None:
            me = this_process()
            facts = (me.place, me.pid, me.started, time.time() + self._lease_s)
            sql = "INSERT INTO owners (place, pid, started, expires_at) VALUES (?, ?, ?, ?)"
            self._owner = db.execute(sql, facts).lastrowid
        return db

    def _reader(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=self._lock_timeout_s)

    def _fault(self, error: sqlite3.Error) -> StoreError:
        fault = StoreError(self.path, str(error))
        fault.__cause__ = error
        return fault

    def _renew(self, db: sqlite3.Connection) -> None:
        db.execute("UPDATE owners SET expires_at = ? WHERE id = ?", (time.time() + self._lease_s, self._owner))

    def _lives(self, db: sqlite3.Connection, owner: int | None) -> bool:
        """Whether an owner still is at it, as far as can be told from here."""
        sql = "SELECT place, pid, started, expires_at FROM owners WHERE id = ?"
        found = None if owner is None else db.execute(sql, (owner,)).fetchone()
        if found is None:
            return False
        gone = Owner(*found[:3]).is_gone()
        return found[3] > time.time() if gone is None else not gone

    def _known(self, db: sqlite3.Connection, run_id: str, columns: str) -> tuple[int, ...]:
        found: tuple[int, ...] | None = db.execute(f"SELECT {columns} FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if found is None:
            raise ResumeError(f"run {run_id!r} cannot be resumed", "the store does not know it", "Look at its id")
        return found

    def _held(self, db: sqlite3.Connection, hold: Hold) -> tuple[int, int]:
        """Key of the run and length of its journal, if the hold still counts."""
        key, fence, owner = self._known(db, hold.run_id, "id, fence, owner")
        if fence != hold.fence or owner != self._owner:
            raise HoldLost(hold.run_id)
        return key, _length(db, key)

    def _add(self, db: sqlite3.Connection, run_id: str, key: int, length: int, texts: list[bytes]) -> None:
        about = [_of_row(run_id, length + number) for number in range(len(texts))]
        data = [packed(text, self._codec, where) for text, where in zip(texts, about, strict=True)]
        rows = [(key, length + number, one) for number, one in enumerate(data)]
        db.executemany("INSERT INTO journal VALUES (?, ?, ?)", rows)

    def _rows(self, run_id: str, rows: Sequence[object], start: int) -> list[EntryData]:
        where = [_of_row(run_id, start + number) for number in range(len(rows))]
        return [unpacked(EntryData, row, self._codec, about) for row, about in zip(rows, where, strict=True)]

    def _history(self, run_id: str) -> list[EntryData]:
        try:
            with closing(self._reader()) as db:
                [key] = self._known(db, run_id, "id")
                rows = db.execute("SELECT data FROM journal WHERE run = ? ORDER BY position", (key,)).fetchall()
        except sqlite3.Error as error:
            raise self._fault(error) from error
        return self._rows(run_id, [row for (row,) in rows], 0)


def _length(db: sqlite3.Connection, key: int) -> int:
    last = db.execute("SELECT max(position) FROM journal WHERE run = ?", (key,)).fetchone()[0]
    return 0 if last is None else int(last) + 1


def _receipt(db: sqlite3.Connection, run_id: str, key: int, pause_id: str | None) -> Receipt | None:
    sql, facts = "SELECT pause_id, digest, decided_at FROM decisions WHERE run = ?", [key]
    if pause_id is None:
        found = db.execute(f"{sql} ORDER BY number DESC LIMIT 1", facts).fetchone()
    else:
        found = db.execute(f"{sql} AND pause_id = ?", [*facts, pause_id]).fetchone()
    return None if found is None else Receipt(run_id, found[0], found[1], datetime.fromtimestamp(found[2], UTC))


def _of_snapshot(run_id: str) -> str:
    return f"run {run_id!r}"


def _of_row(run_id: str, position: int) -> str:
    return f"entry {position} of run {run_id!r}"
