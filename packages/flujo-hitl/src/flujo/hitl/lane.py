"""Group commit: all that waits while the disk syncs goes into the next transaction, in one thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

import anyio
import anyio.lowlevel

from .errors import StoreClosed, StoreError

__all__ = ["Lane", "Ticket", "Writes"]

_MAX_BATCH = 1024

T = TypeVar("T")


class _Call(Protocol):
    """A task that waits, in its event loop."""

    soon: Callable[..., object]
    """How another thread calls a function in that loop, without waiting for it."""

    async def wait(self) -> object:
        """Wait."""

    def wake(self) -> None:
        """Let it go on; called in that loop."""


class _AsyncioCall:
    """What anyio offers works on asyncio too, and takes twice the time of a step."""

    __slots__ = ("_future", "soon")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[None] = loop.create_future()
        self.soon: Callable[..., object] = loop.call_soon_threadsafe

    async def wait(self) -> None:
        await self._future

    def wake(self) -> None:
        if not self._future.done():  # else it was cancelled
            self._future.set_result(None)


class _TrioCall:
    __slots__ = ("_event", "soon")

    def __init__(self) -> None:
        self._event: anyio.Event = anyio.Event()
        self.soon: Callable[..., object] = anyio.lowlevel.current_token().native_token.run_sync_soon  # type: ignore[attr-defined]

    async def wait(self) -> None:
        await self._event.wait()

    def wake(self) -> None:
        self._event.set()


def _this_call() -> _Call:
    try:
        return _AsyncioCall(asyncio.get_running_loop())
    except RuntimeError:
        return _TrioCall()


class Ticket(Generic[T]):
    """A piece of work on its way to the disk, and the task that waits for it.

    Attributes:
        work: Does it, inside a transaction: it looks before it writes, so that what it refuses leaves nothing behind.
        run_id: The run that it changes; empty where it changes none, or many.
        is_left: Nobody waits any more.
        undo: Takes back what it gave, where nobody waits any more.
    """

    __slots__ = ("call", "error", "is_done", "is_left", "result", "run_id", "undo", "work")

    def __init__(
        self, work: Callable[[], T], undo: Callable[[T], object] | None, call: _Call | None, run_id: str = ""
    ) -> None:
        self.work: Callable[[], T] = work
        self.run_id: str = run_id
        self.undo: Callable[[T], object] | None = undo
        self.call: _Call | None = call
        self.is_left: bool = call is None
        self.is_done: bool = False
        self.result: T | None = None
        self.error: BaseException | None = None

    def tell(self) -> None:
        """Wake who waits, in its event loop."""
        self.is_done = True
        if self.is_left:
            self.take_back()
        elif self.call is not None:
            self.call.wake()

    def take_back(self) -> None:
        """Give back what nobody will."""
        if self.undo is not None and self.error is None and self.result is not None:
            self.undo(self.result)


class Writes(Protocol):
    """What a lane drives, always from its thread."""

    def commit(self, tickets: Sequence[Ticket[object]]) -> None:
        """Do all of it in one transaction, and set the result or error of each."""

    def tidy(self) -> None:
        """Do what may follow a batch, when nobody waits for it any more."""

    def wait_s(self) -> float | None:
        """Seconds after which `rest` wants to be called when there is nothing to do; None is never."""

    def rest(self) -> None:
        """Do what has to be done from time to time."""

    def close(self) -> None:
        """Let go of everything."""


class Lane:
    """A thread that takes tickets in the order they came. It begins with the first one and ends with `close`.

    It is a daemon: who was told that something is kept was told after the commit, and for the rest nobody waits.
    """

    def __init__(self, writes: Writes, path: Path) -> None:
        self._writes = writes
        self._path = path
        self._queue: SimpleQueue[Ticket[object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failed: list[Ticket[object]] = []
        self.is_closed: bool = False

    async def do(self, work: Callable[[], T], undo: Callable[[T], object] | None = None, *, run_id: str = "") -> T:
        """Have it done, and wait until it is as durable as promised.

        A cancelled wait does not take it back, unless it has an `undo`.
        """
        call = _this_call()
        ticket = Ticket(work, undo, call, run_id)
        self._submit(ticket)
        try:
            await call.wait()
        except BaseException:  # a cancel: what was won by it is given back, now or when it is done
            ticket.is_left = True
            if ticket.is_done:
                ticket.take_back()
            raise
        if ticket.error is not None:
            raise ticket.error
        return ticket.result  # type: ignore[return-value]  # done without an error

    def post(self, work: Callable[[], object]) -> None:
        """Have it done, from whatever thread, without waiting; nothing is done any more once this is closed.

        What the store could not do is tried again when it rests.
        """
        with suppress(StoreClosed):
            self._submit(Ticket(work, None, None))

    def _submit(self, ticket: Ticket[T]) -> None:
        with self._lock:
            if self.is_closed:
                raise StoreClosed(self._path)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"flujo-hitl {self._path.name}", daemon=True)
                self._thread.start()
            self._queue.put(ticket)  # type: ignore[arg-type]  # a ticket of anything is one of object

    def close(self, *, wait: bool = True) -> None:
        """Take nothing more, do what is queued, and let go. May be called again."""
        with self._lock:
            first, self.is_closed = not self.is_closed, True
            thread = self._thread
            if first and thread is not None:
                self._queue.put(None)
        if thread is None and first:
            self._writes.close()
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while self._turn():  # a call for each batch: what waited in it, a store perhaps, must not be kept alive here
            pass
        self._writes.close()

    def _turn(self) -> bool:
        batch, goes_on = self._next()
        if batch:
            self._writes.commit(batch)
            _acknowledge(batch)
            self._failed += [one for one in batch if one.call is None and isinstance(one.error, StoreError)]
            self._writes.tidy()
        elif goes_on:
            self._writes.rest()
            again, self._failed = self._failed, []
            for ticket in again:
                self._queue.put(ticket)
        return goes_on

    def _next(self) -> tuple[list[Ticket[object]], bool]:
        """What waits, and whether more may come."""
        batch: list[Ticket[object]] = []
        wait_s = self._writes.wait_s()
        with suppress(Empty):
            ticket = self._queue.get(timeout=wait_s)
            while ticket is not None:
                batch.append(ticket)
                if len(batch) == _MAX_BATCH:
                    return batch, True
                ticket = self._queue.get_nowait()
            return batch, False
        return batch, True


def _acknowledge(batch: Sequence[Ticket[object]]) -> None:
    """Wake all who wait, with one call for each event loop."""
    waiting: dict[Callable[..., object], list[Ticket[object]]] = {}
    for ticket in batch:
        if ticket.call is not None:
            waiting.setdefault(ticket.call.soon, []).append(ticket)
    for soon, tickets in waiting.items():
        try:
            soon(_tell, tickets)
        except RuntimeError:  # that loop has ended: nobody waits there
            for ticket in tickets:
                ticket.take_back()


def _tell(tickets: Sequence[Ticket[object]]) -> None:
    for ticket in tickets:
        ticket.tell()
