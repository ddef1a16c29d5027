"""Group commit: whatever is waiting while the disk syncs becomes the next batch, written and synced as one."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from weakref import WeakSet

import anyio
import anyio.lowlevel

from .chain import Chain, Receipt
from .errors import AuditLogClosed

__all__ = ["GroupCommit", "Ticket"]

_MAX_BATCH = 1024
_MAX_BATCH_BYTES = 4 << 20
_LINGER_S = 0.05


class Ticket:
    """A record on its way to the disk, and the task that waits for it."""

    __slots__ = ("body", "done", "error", "receipt", "wake")

    def __init__(self, body: bytes) -> None:
        """Must be made inside an event loop, asyncio's or trio's: that is the one that will be woken."""
        self.body: bytes = body
        self.done: anyio.Event = anyio.Event()
        self.receipt: Receipt | None = None
        self.error: Exception | None = None
        self.wake: Callable[..., object] = _waker()


def _waker() -> Callable[..., object]:
    """How another thread calls a function soon in this event loop, without waiting for it."""
    # Not anyio.from_thread.run_sync: it waits until the loop has run the call, so that one busy loop would hold up
    # every other task and loop that waits for the same batch.
    token = anyio.lowlevel.current_token().native_token
    wake: Callable[..., object] = getattr(token, "call_soon_threadsafe", None) or getattr(token, "run_sync_soon")  # noqa: B009
    return wake


class GroupCommit:
    """Writes tickets in the order they came, from a thread that lives only while there is something to write.

    The thread is no daemon: a program that ends waits for what is queued. It ends, and closes the file, after a moment
    without work, so an idle log holds neither thread nor file and needs no `close`.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._closed = False
        self._reset()
        _living.add(self)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[Ticket] = deque()
        self._thread: threading.Thread | None = None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def submit(self, ticket: Ticket) -> None:
        """Queue a record. From here on it will be written, whatever becomes of the task that waits for it.

        Raises:
            AuditLogClosed: The log was closed.
            RuntimeError: No thread can be started; the record was not queued.
        """
        with self._changed:
            if self._closed:
                raise AuditLogClosed(self._chain.path)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=f"flujo-audit {self._chain.path.name}")
                thread.start()
                self._thread = thread
            self._queue.append(ticket)
            self._changed.notify()

    def close(self) -> None:
        """Refuse further records and wait until the queued ones are written. Blocks; may be called again."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify()
        if thread is not None:
            thread.join()

    def forget_parent(self) -> None:
        """In a forked child: the thread is not here, its records are the parent's to write, its locks may be held."""
        self._reset()
        self._chain.forget()

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                receipts = self._chain.append([ticket.body for ticket in batch])
            except Exception as error:  # whatever it is, those who wait must hear of it, or they wait for ever
                for ticket in batch:
                    ticket.error = error
            else:
                for ticket, receipt in zip(batch, receipts, strict=True):
                    ticket.receipt = receipt
            _acknowledge(batch)

    def _next_batch(self) -> list[Ticket]:
        """Wait a moment for work. With none, close the file and let this thread end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed, _LINGER_S)
            number, size = 0, 0
            for ticket in islice(self._queue, _MAX_BATCH):
                size += len(ticket.body)
                if number and size > _MAX_BATCH_BYTES:
                    break
                number += 1
            batch = [self._queue.popleft() for _ in range(number)]
            if not batch:
                self._chain.close()
                self._thread = None
            return batch


def _acknowledge(batch: Sequence[Ticket]) -> None:
    waiting: dict[Callable[..., object], list[anyio.Event]] = {}
    for ticket in batch:
        waiting.setdefault(ticket.wake, []).append(ticket.done)
    for wake, events in waiting.items():
        # RuntimeError: that loop has ended (asyncio and trio both say so by it), so nobody is waiting there any more.
        with suppress(RuntimeError):
            wake(_set_all, events)


def _set_all(events: Sequence[anyio.Event]) -> None:
    for event in events:
        event.set()


# A fork copies the memory of a writer but not its thread. There is no other moment at which the child can learn of it
# before it uses, or merely keeps open, what belongs to the parent; hence the one registration at import.
_living: WeakSet[GroupCommit] = WeakSet()


def _after_fork() -> None:
    for writer in list(_living):
        writer.forget_parent()


os.register_at_fork(after_in_child=_after_fork)
