"""What the stores are: work, handed to the thread that writes or to those that read."""

from __future__ import annotations

import json
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar

import anyio
import anyio.to_thread
from pydantic import JsonValue

from flujo.core import (
    ConfigurationError,
    EntryData,
    Hold,
    InputError,
    KeptRun,
    PayloadCodec,
    Receipt,
    Snapshot,
    StillRunning,
    TokenSigner,
    decision_digest,
)

from .connection import Moments
from .errors import RunDamaged, StoreClosed, StoreError
from .lane import Lane, Writes
from .listed import Decided, OpenPause, Page, RunRow
from .lists import Lists, code_of
from .payloads import Payloads, stamp
from .reads import RunReads
from .writes import RunWrites

__all__ = ["KeepingStore"]

P = ParamSpec("P")
T = TypeVar("T")

_CHUNK = 200
"""Runs that are deleted in one transaction, so that others may write in between."""


class Reading(Moments, Writes, Protocol):
    """What reads, in any thread or in that of a lane."""


class KeepingStore(ABC):
    """A HitlStore but for its database.

    Nothing is opened before it is used. It holds two threads until `close`, or until it is forgotten.
    """

    def __init__(self, path: Path, codec: PayloadCodec | None, signer: TokenSigner | None, **seconds: float) -> None:
        for name, number in seconds.items():
            if not 0 < number < 1e6:
                raise ConfigurationError(f"{name}={number!r} cannot be used", "it is no number of seconds above 0")
        self.path: Path = path
        self.signer: TokenSigner | None = signer
        self.codec: PayloadCodec | None = codec
        self._payloads = Payloads(codec)
        self._is_closed = False
        self._start()
        _living.add(self)

    @abstractmethod
    def _start(self) -> None:
        """Make what reads and writes, and give it to `_use`; called again in a forked child."""

    def _use(self, transactions: Writes, writes: RunWrites, readers: Reading, reads: RunReads) -> None:
        self._transactions = transactions
        self._writes = writes
        self._lane = Lane(transactions, self.path)
        self._readers = readers
        self._reads = reads
        self._lists = Lists(readers, self._payloads)
        self._quick = Lane(readers, self.path)  # what is short; a list may take its time in a thread of anyio
        self._forgotten = weakref.finalize(self, _let_go, self._lane, self._quick)

    # --- RunStore -----------------------------------------------------------------------------------------------------

    async def create(self, snapshot: Snapshot) -> Hold:
        """See RunStore."""
        return await self._lane.do(lambda: self._writes.create(snapshot), self._give_back, run_id=snapshot.run_id)

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        """See RunStore."""
        await self._lane.do(lambda: self._writes.append(hold, rows), run_id=hold.run_id)

    async def save(self, hold: Hold, snapshot: Snapshot) -> None:
        """See RunStore."""
        await self._lane.do(lambda: self._writes.save(hold, snapshot), run_id=hold.run_id)

    async def release(self, hold: Hold) -> None:
        """See RunStore. Where the store cannot, it is tried again: else this process would hold the run for ever."""
        try:
            await self._lane.do(lambda: self._writes.release(hold), run_id=hold.run_id)
        except StoreError:
            self._give_back(hold)
            raise

    async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        """See RunStore; a decision that was recorded, and is this one, is applied by it."""
        return await self._lane.do(
            lambda: self._writes.claim(position, stood, receipt, rows), self._give_back, run_id=receipt.run_id
        )

    async def load(self, run_id: str) -> KeptRun:
        """See RunStore."""
        return await self._quick.do(lambda: self._reads.load(run_id))

    async def receipt(self, run_id: str, pause_id: str | None = None) -> Receipt | None:
        """See RunStore."""
        return await self._quick.do(lambda: self._reads.receipt(run_id, pause_id))

    async def orphans(self, fingerprint: str) -> Sequence[str]:
        """See RunStore."""
        return await self._read(self._reads.orphans, fingerprint)

    # --- HitlStore ----------------------------------------------------------------------------------------------------

    async def runs(
        self,
        *,
        status: str | None = None,
        pipeline: str | None = None,
        tenant: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[RunRow]:
        """See HitlStore."""
        return await self._read(self._lists.runs, status, pipeline, tenant, after, limit)

    async def open_pauses(
        self,
        *,
        pipeline: str | None = None,
        tenant: str | None = None,
        role: str | Collection[str] | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[OpenPause]:
        """See HitlStore."""
        roles = (role,) if isinstance(role, str) else role
        return await self._read(self._lists.open_pauses, pipeline, tenant, roles, after, limit)

    async def record_decision(
        self,
        run_id: str,
        pause_id: str,
        decision: JsonValue,
        *,
        shown_digest: str,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Receipt:
        """See HitlStore."""
        if not _is_json(decision):  # a model would be another decision when it is read
            what, do = f"decision for {pause_id!r} cannot be kept", "Use model_dump(mode='json')"
            raise InputError(what, "it is no JSON", do)
        receipt = Receipt(run_id, pause_id, decision_digest(decision), datetime.now(UTC))
        words = (shown_digest, actor, reason)
        return await self._lane.do(lambda: self._writes.record(receipt, decision, *words), run_id=run_id)

    async def decided(self, fingerprint: str | None = None, limit: int = 100) -> Sequence[Decided]:
        """See HitlStore."""
        return await self._read(self._lists.decided, fingerprint, limit)

    async def decisions(self, run_id: str) -> Sequence[Decided]:
        """See HitlStore."""
        return await self._read(self._lists.decisions, run_id)

    async def withdraw(self, receipt: Receipt) -> None:
        """See HitlStore."""
        await self._lane.do(lambda: self._writes.withdraw(receipt), run_id=receipt.run_id)

    async def expired(self, now: datetime, fingerprint: str | None = None, limit: int = 100) -> Sequence[OpenPause]:
        """See HitlStore."""
        return await self._read(self._lists.expired, now, fingerprint, limit)

    async def request_cancel(self, run_id: str) -> None:
        """See HitlStore."""
        await self._lane.do(lambda: self._writes.request_cancel(run_id), run_id=run_id)

    async def cancel_requested(self, run_ids: Collection[str] | None = None) -> Sequence[str]:
        """See HitlStore."""
        return await self._read(self._lists.cancel_requested, run_ids)

    async def purge(self, older_than: datetime, status: Collection[str] = ("completed", "aborted")) -> int:
        """See HitlStore."""
        codes = [code_of(name) for name in status]
        where = f"changed<? AND status IN ({','.join('?' * len(codes))})"
        number, _ = await self._forget_all(where, (stamp(older_than), *codes))
        return number

    async def delete(self, run_id: str | None = None, *, tenant: str | None = None, subject: str | None = None) -> int:
        """See HitlStore."""
        if (run_id is None) == (tenant is None and subject is None):
            raise ConfigurationError(
                "delete cannot be used so", "it takes either a run, or a tenant, a subject or both"
            )
        if run_id is not None:
            await self._lane.do(lambda: self._writes.forget(run_id), run_id=run_id)
            return 1
        if subject is not None:
            return await self._delete_subject(subject, tenant)
        number, held = await self._forget_all("tenant=?", (tenant,))
        if held:
            raise StillRunning(held)
        return number

    async def _delete_subject(self, subject: str, tenant: str | None) -> int:
        after: str | None = None
        number, left = 0, None
        while True:
            page = await self.runs(tenant=tenant, after=after, limit=_CHUNK)
            for row in page.items:
                try:
                    if await self._read(self._reads.subject, row.run_id) == subject:
                        number += await self.delete(row.run_id)
                except (StillRunning, RunDamaged) as error:
                    left = left or error
            if (after := page.next) is None:
                if left is not None:
                    raise left
                return number

    # --- the object ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Do what is queued, give back what is held, and let go of the file. Blocks; may be called again."""
        self._is_closed = True
        self._forgotten.detach()
        self._lane.close()
        self._quick.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.close)

    async def _read(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Read in a thread. The limiter is its own: steps that wait in all other threads do not hold it up."""
        if self._is_closed:
            raise StoreClosed(self.path)
        return await anyio.to_thread.run_sync(lambda: work(*args, **options), limiter=anyio.CapacityLimiter(1))

    def _give_back(self, hold: Hold) -> None:
        """A hold that nobody waits for any more."""
        self._lane.post(lambda: self._writes.release(hold))

    async def _forget_all(self, where: str, facts: Sequence[object]) -> tuple[int, str]:
        after, number, held = 0, 0, ""
        while True:
            after, some, one = await self._lane.do(
                lambda after=after: self._writes.forget_some(where, facts, after, _CHUNK)  # type: ignore[misc]
            )
            number, held = number + some, held or one
            if not after:
                return number, held

    def _forget_parent(self) -> None:
        """In a forked child: the thread is not here, and what the parent opened must not even be closed here."""
        self._forgotten.detach()
        _left_open.append((self._lane, self._quick, self._transactions, self._readers))
        if not self._is_closed:
            self._start()


def _is_json(value: object) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def _let_go(*lanes: Lane) -> None:
    for lane in lanes:
        lane.close(wait=False)


_living: weakref.WeakSet[KeepingStore] = weakref.WeakSet()
_left_open: list[object] = []


def _after_fork() -> None:
    for store in list(_living):
        store._forget_parent()


os.register_at_fork(after_in_child=_after_fork)
