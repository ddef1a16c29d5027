"""Writing what a kept run does: in one order, each entry before anything follows from it, whatever is cancelled.

A task of its own writes, so that no cancel of a step or of the run, not even a native one of its asyncio task, comes
between an entry that is kept and what the run knows of it. Entries that wait are written together.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
from anyio.lowlevel import current_token

from .errors import FlujoError, RunAborted
from .foreign import attempt, attempt_async, text_of
from .kept import Hold
from .protocols import RunStore
from .snapshot import EntryData, Snapshot
from .wakeup import call_in

_log = logging.getLogger("flujo.core")

T = TypeVar("T")


def created(store: RunStore, begun: Snapshot, limit_s: float) -> Awaitable[Hold]:
    """Have a run kept as one that goes on; one that is cancelled meanwhile as that, and no recovery runs it."""
    ended = begun.model_copy(update={"status": "aborted"})
    return taken(store.create(begun), limit_s, lambda hold: store.save(hold, ended))


async def taken(work: Awaitable[Hold], limit_s: float, undo: Callable[[Hold], Awaitable[None]]) -> Hold:
    """Get a hold, in a task of its own: where a cancel comes meanwhile, even a native one, `undo` gives it back.

    Raises:
        RunAborted: The store did not answer in that time.
    """
    got: list[tuple[Hold | None, Exception | None]] = []

    async def take() -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(limit_s):
            got.append(await attempt_async(work))

    async def give_back(hold: Hold) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(limit_s):
            await attempt_async(undo(hold))

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(take)
        await anyio.lowlevel.checkpoint_if_cancelled()  # trio's group does not tell of it, once its tasks have ended
    except BaseException:  # a cancel, which goes on up: nobody is there to go on with the run
        if got and got[0][0] is not None:
            async with anyio.create_task_group() as group:
                group.start_soon(give_back, got[0][0])
        raise
    if not got:
        raise RunAborted(f"its store did not answer in {limit_s:g} s", "store")
    hold, error = got[0]
    if hold is None:
        assert error is not None
        raise error
    return hold


class Writer:
    """Writes one run while it is held.

    Args:
        store: Where to.
        hold: The right to.
        limit_s: Seconds that the store may take for one call.
        stop: Ends the run; called where the store fails.
    """

    def __init__(self, store: RunStore, hold: Hold, limit_s: float, stop: Callable[[FlujoError], None]) -> None:
        self._store = store
        self._hold = hold
        self._limit_s = limit_s
        self._stop = stop
        self._loop = current_token().native_token
        self._waiting: list[tuple[EntryData, Callable[[], object], anyio.Event]] = []
        self._work = anyio.Event()
        self._last: anyio.Event | None = None
        self._is_over = False
        self._is_closed = False
        self._has_failed = False

    def put(self, row: EntryData, then: Callable[[], object]) -> anyio.Event:
        """Write a row, and call `then` once it is kept, in the order of the rows; the event is set after that.

        What comes from work that was left behind, after the end, is neither kept nor noted.
        """
        done = anyio.Event()
        if self._is_closed:
            done.set()
            return done
        self._waiting.append((row, then, done))
        self._last = done
        self._work.set()
        return done

    def here(self, act: Callable[[], object]) -> None:
        """Call `act` in the event loop of this, from whatever thread: at once where that runs here."""
        token, _ = attempt(current_token)
        if token is not None and token.native_token is self._loop:
            act()
        else:
            call_in(self._loop, act)

    async def settled(self) -> None:
        """Wait until all that was given to it is noted, also while the run is being cancelled."""
        if self._last is not None:
            with anyio.CancelScope(shield=True):
                await self._last.wait()

    async def around(self, work: Callable[[], Awaitable[T]], end: Callable[[], Snapshot | None]) -> T:
        """Do the work of the run with this at its side, and keep where it stands then: what `end` gives.

        Where `end` gives None, or the store failed, the run is given back as one whose process went away.
        """
        result: list[T] = []
        errors: list[BaseException] = []
        async with anyio.create_task_group() as group:
            group.start_soon(self._write, end, errors)
            try:
                result.append(await work())
            except BaseException as raised:  # goes on below, out of the group: it must not stand in one of its own
                errors.append(raised)
                self._stop(RunAborted("cancelled from outside"))  # it does not wait for a human
            self._is_over = True
            self._work.set()
        if errors:
            raise errors[0]
        return result[0]

    async def _write(self, end: Callable[[], Snapshot | None], errors: list[BaseException]) -> None:
        with anyio.CancelScope(shield=True):
            try:
                while self._waiting or not self._is_over:
                    await self._work.wait()
                    self._work = anyio.Event()
                    if self._waiting:
                        await self._flush()
                self._is_closed = True
                await self._give_back(end)
            except BaseException as raised:  # a Ctrl-C, say: it goes on above, and nobody waits for what is not written
                errors.insert(0, raised)
                self._is_closed = True
                self._stop(RunAborted("cancelled from outside"))
                for _, _, done in self._waiting:
                    done.set()

    async def _flush(self) -> None:
        rows = self._waiting.copy()
        if not self._has_failed:
            fault = await self._within(self._store.append(self._hold, [row for row, _, _ in rows]))
            if fault is not None:
                self._has_failed = True
                self._stop(RunAborted(f"its store could not keep what it did: {fault}", "store"))
        del self._waiting[: len(rows)]
        for _, then, done in rows:  # also what could not be kept: it happened, and nothing follows from it
            then()
            done.set()

    async def _give_back(self, end: Callable[[], Snapshot | None]) -> None:
        snapshot: Snapshot | None = None
        fault: str | None = None
        if not self._has_failed:
            snapshot, error = attempt(end)
            fault = None if error is None else text_of(error)
        if snapshot is not None:
            fault = await self._within(self._store.save(self._hold, snapshot))
        if snapshot is None or fault is not None:
            lost = await self._within(self._store.release(self._hold))
            fault = fault or lost
        if fault is not None:  # its journal is kept: who recovers it finds all that it did
            _log.warning("run %r: where it stands could not be kept: %s", self._hold.run_id, fault)

    async def _within(self, work: Awaitable[None]) -> str | None:
        """Why a call of the store did not do its work, if so."""
        with anyio.move_on_after(self._limit_s):
            _, error = await attempt_async(work)
            return None if error is None else f"{type(error).__name__}: {text_of(error)}"
        return f"it did not answer in {self._limit_s:g} s"
