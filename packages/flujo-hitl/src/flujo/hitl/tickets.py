"""A job on its way to the thread that does it, and the task that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar, cast

import anyio
import anyio.lowlevel

from .database import Tx

__all__ = ["Job", "Ticket", "Waited", "wake"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Job(Protocol[T_co]):
    """Something to do in a transaction. It checks before it writes: with a FlujoError it has written nothing."""

    @property
    def run_id(self) -> str:
        """The run that it changes; empty where it changes none."""

    def __call__(self, tx: Tx) -> T_co:
        """Do it."""


class Ticket(Generic[T]):
    """A job that nobody waits for."""

    __slots__ = ("dropped", "error", "job", "result")

    def __init__(self, job: Job[T]) -> None:
        self.job = job
        self.result: T | None = None
        self.error: Exception | None = None
        self.dropped = False


class Waited(Ticket[T]):
    """A job, and the task that waits for it.

    Args:
        job: What to do.
        undo: Takes its result back where the task was cancelled meanwhile.
    """

    __slots__ = ("_event", "_future", "is_over", "undo", "wake")

    def __init__(self, job: Job[T], undo: Callable[[T], object] | None = None) -> None:
        """Must be made inside an event loop: that is the one that will be woken."""
        super().__init__(job)
        self.undo = undo
        self.is_over = False
        self._event: anyio.Event | None = None
        self._future: asyncio.Future[None] | None = None
        try:  # most loops are asyncio's, whose own future costs a third of an anyio.Event
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._event = anyio.Event()
            # trio's token; anyio gives both behind one object but offers no call that does not block
            self.wake: Callable[..., object] = anyio.lowlevel.current_token().native_token.run_sync_soon  # type: ignore[attr-defined]
        else:
            self._future = loop.create_future()
            self.wake = loop.call_soon_threadsafe

    async def wait(self) -> T:
        """Until it is durable. A cancel drops the job where it has not begun, and undoes it where it has."""
        try:
            await (self._future or cast("Awaitable[None]", cast("anyio.Event", self._event).wait()))
        finally:
            self.dropped = not self.is_over
        if self.error is not None:
            raise self.error
        return cast("T", self.result)

    def ring(self) -> None:
        """In the loop of the task: wake it."""
        if self.dropped:
            self.revert()
            return
        self.is_over = True
        if self._event is not None:
            self._event.set()
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    def revert(self) -> None:
        """Nobody will hear of it: give back what it got."""
        if self.undo is not None and self.error is None:
            self.undo(cast("T", self.result))


def wake(tickets: Sequence[Ticket[Any]]) -> None:
    """Wake all who wait, from another thread: once for each loop, and without waiting for it."""
    waiting: dict[Callable[..., object], list[Waited[Any]]] = {}
    for ticket in tickets:
        if isinstance(ticket, Waited):
            waiting.setdefault(ticket.wake, []).append(ticket)
    for call_soon, those in waiting.items():
        try:
            call_soon(_ring_all, those)
        except RuntimeError:  # that loop has ended (asyncio and trio both say so by it): nobody is waiting there
            with suppress(RuntimeError):  # and the store may be closed by now, which gives back everything
                for ticket in those:
                    ticket.revert()


def _ring_all(tickets: Sequence[Waited[Any]]) -> None:
    for ticket in tickets:
        ticket.ring()
