"""What both stores are: jobs, handed to the thread that writes or to the one that reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Self, TypeVar
from weakref import finalize

import anyio.to_thread
from pydantic import JsonValue

from flujo.core import ConfigurationError, EntryData, Hold, KeptRun, PayloadCodec, Receipt, Snapshot, TokenSigner

from .database import Database
from .decisions import Erase, Purge, Record, RequestCancel
from .owners import Owner
from .packing import Packer, draft_of, note_json, row_json, subject_key
from .protocol import Order, Page, Question, Recorded, RunLine
from .reads import Decided, Expired, History, Load, OpenPauses, Orphaned, ReceiptOf, Runs, Slice, WantsCancel
from .tickets import Job, Ticket
from .worker import Worker
from .writes import Append, Claim, Create, Kit, Release, Save, append_all

__all__ = ["SqlStore"]

T = TypeVar("T")


class SqlStore:
    """A HitlStore over a database: one thread writes, by group commit, another one reads.

    Both threads start when they are needed, on whatever event loop, and end with the store.
    """

    signer: TokenSigner | None

    def __init__(
        self,
        writer: Database,
        reader: Database,
        *,
        codec: PayloadCodec | None,
        signer: TokenSigner | None,
        lease_s: float,
    ) -> None:
        if not lease_s > 0:
            what = f"lease_s={lease_s!r} cannot be used"
            raise ConfigurationError(what, "a hold that nobody renews lasts so many seconds", "Give for instance 30")
        self.signer = signer
        self._kit = Kit(Packer(codec), Owner(lease_s))
        together = Append, partial(append_all, self._kit)
        self._writer = Worker(writer, f"flujo-hitl {writer.name}", together=together, beat=self._kit.owner)
        self._reader = Worker(reader, f"flujo-hitl {reader.name} reads")
        finalize(self, _stop, self._writer, self._reader)

    # --- RunStore ---

    async def create(self, snapshot: Snapshot) -> Hold:
        """See RunStore."""
        return await self._writer.call(Create(self._kit, draft_of(snapshot)), self._give_back)

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        """See RunStore."""
        await self._writer.call(Append(hold, [row_json(hold.run_id, row) for row in rows]))

    async def save(self, hold: Hold, snapshot: Snapshot) -> None:
        """See RunStore."""
        await self._writer.call(Save(self._kit, hold, draft_of(snapshot)))

    async def release(self, hold: Hold) -> None:
        """See RunStore."""
        await self._writer.call(Release(self._kit, hold))

    async def load(self, run_id: str) -> KeptRun:
        """See RunStore."""
        snapshot, late = await self._reader.call(Load(self._kit, run_id))
        return KeptRun(snapshot, tuple(late), partial(self._read_here, History(self._kit, run_id)))

    async def receipt(self, run_id: str, pause_id: str | None = None) -> Receipt | None:
        """See RunStore."""
        return await self._reader.call(ReceiptOf(run_id, pause_id))

    async def claim(self, position: int, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        """See RunStore."""
        written = [row_json(receipt.run_id, row) for row in rows]
        return await self._writer.call(Claim(self._kit, position, receipt, written), self._give_back)

    def _give_back(self, hold: Hold) -> None:
        """Nobody will use it: who asked for it was cancelled meanwhile."""
        self._writer.post(Ticket(Release(self._kit, hold)))

    # --- HitlStore ---

    async def runs(
        self,
        *,
        status: str | None = None,
        pipeline: str | None = None,
        tenant: str | None = None,
        order: Order = "newest",
        after: int | None = None,
        limit: int = 50,
    ) -> Page[RunLine]:
        """See HitlStore."""
        return await self._reader.call(Runs(self._kit, status, pipeline, tenant, Slice(order, after, limit)))

    async def open_pauses(
        self,
        *,
        run_id: str | None = None,
        pipeline: str | None = None,
        tenant: str | None = None,
        role: str | None = None,
        order: Order = "newest",
        after: int | None = None,
        limit: int = 50,
    ) -> Page[Question]:
        """See HitlStore."""
        part = Slice(order, after, limit)
        return await self._reader.call(OpenPauses(self._kit, run_id, pipeline, tenant, role, part))

    async def record_decision(
        self,
        run_id: str,
        pause_id: str,
        decision: JsonValue,
        digest: str,
        *,
        actor: str | None = None,
        reason: str = "",
        shown_digest: str | None = None,
    ) -> Receipt:
        """See HitlStore."""
        note: dict[str, JsonValue] = {"decision": decision, "actor": actor, "reason": reason}
        note["shown_digest"] = shown_digest
        receipt = Receipt(run_id, pause_id, digest, datetime.now(UTC))
        body = note_json(note, run_id, pause_id)
        return await self._writer.call(Record(self._kit, receipt, body, shown_digest))

    async def decided(self, *, limit: int = 50) -> list[Recorded]:
        """See HitlStore."""
        return await self._reader.call(Decided(self._kit, limit))

    async def orphaned(self, *, limit: int = 50) -> list[str]:
        """See HitlStore."""
        return await self._reader.call(Orphaned(self._kit, limit))

    async def expired(self, now: datetime, *, limit: int = 50) -> list[Question]:
        """See HitlStore."""
        return await self._reader.call(Expired(self._kit, now, limit))

    async def request_cancel(self, run_id: str) -> None:
        """See HitlStore."""
        await self._writer.call(RequestCancel(run_id))

    async def cancel_requested(self, run_id: str) -> bool:
        """See HitlStore."""
        return await self._reader.call(WantsCancel(run_id))

    async def purge(self, *, older_than: timedelta, status: str | None = None) -> int:
        """See HitlStore."""
        return await self._all_of(Purge(datetime.now(UTC) - older_than, status))

    async def delete(self, *, run_id: str | None = None, tenant: str | None = None, subject: str | None = None) -> int:
        """See HitlStore."""
        ways = {
            "id = ?": run_id,
            "tenant = (SELECT id FROM words WHERE text = ?)": tenant,
            "subject = ?": None if subject is None else subject_key(subject),
        }
        given = [(where, value) for where, value in ways.items() if value is not None]
        if len(given) != 1:
            raise ConfigurationError("delete() cannot be used like this", "it takes one of run_id, tenant, subject")
        return await self._all_of(Erase(*given[0]))

    async def _all_of(self, job: Job[int]) -> int:
        count = 0
        while part := await self._writer.call(job):
            count += part
        if count:
            await anyio.to_thread.run_sync(self._tidy)
        return count

    async def backup(self, path: str | Path) -> None:
        """See HitlStore."""
        await anyio.to_thread.run_sync(self._backup, Path(path))

    async def aclose(self) -> None:
        """See HitlStore."""
        for worker in (self._reader, self._writer):
            thread = worker.stop()
            if thread is not None:
                await anyio.to_thread.run_sync(thread.join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with anyio.CancelScope(shield=True):
            await self.aclose()

    # --- what each store does in its way ---

    def _read_here(self, job: Job[T]) -> T:
        """Read something in this thread, and wait for it."""
        database = self._new_reader()
        try:
            database.begin(())
            return job(database)
        except Exception as error:  # the driver's are many, and none of them may come out
            told = database.told(error)
            if told is error:
                raise
            raise told from error
        finally:
            database.close()

    def _new_reader(self) -> Database:
        raise NotImplementedError

    def _tidy(self) -> None:
        """Take what was deleted off the disk."""

    def _backup(self, path: Path) -> None:
        raise NotImplementedError


def _stop(*workers: Worker) -> None:
    for worker in workers:
        worker.stop()
