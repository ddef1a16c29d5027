"""A task that pulls a stream ahead of its reader, within a bound: for `buffer`, `tee` and `merge`.

The task is no child of the reader's: an async generator cannot hold a task group open across a `yield`. It pulls,
cleans up and closes the source by itself, so that scopes which the source opens are left in the task that entered them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, TypeVar

import anyio

from flujo.core import ConfigurationError, attempt_async, spawn
from flujo.streaming.steps import StreamingStep

__all__ = ["CLEAN_UP_S", "Pump", "buffer", "buffered", "stop_all"]

T = TypeVar("T")

CLEAN_UP_S = 1.0
"""Seconds that a source gets to clean up when nobody wants more of it."""


class Pump:
    """Pulls `source` in a task of its own and gives each item away, until it is stopped.

    Attributes:
        error: What the source raised.
        ended: Is set when the source is closed.
    """

    def __init__(self, source: AsyncIterator[Any], give: Callable[[Any], Awaitable[None] | None]) -> None:
        self._source = source
        self._give = give
        self._scope = anyio.CancelScope()
        self._task: object = None
        self.error: Exception | None = None
        self.ended: anyio.Event = anyio.Event()
        self.told: Callable[[], object] = bool

    def start(self) -> None:
        """Begin to pull."""
        self._task = spawn(self._run)

    def cancel(self) -> None:
        """End it; the source is closed a little later."""
        self._scope.cancel()

    async def stop(self) -> None:
        """End it, and wait until the source is closed."""
        self.cancel()
        if self._task is not None:
            with anyio.CancelScope(shield=True):
                await self.ended.wait()

    async def _run(self) -> None:
        try:
            with self._scope:
                self.error = (await attempt_async(self._pull()))[1]  # told to the reader, who asks for it
        finally:
            try:
                fault = (await attempt_async(close(self._source)))[1]
                self.error = self.error or fault  # the first error wins
            finally:  # whoever stops it waits for this
                self.ended.set()
                self.told()

    async def _pull(self) -> None:
        async for item in self._source:
            waits = self._give(item)
            if waits is not None:
                await waits


async def stop_all(pumps: Collection[Pump]) -> None:
    """Stop them, all at once: each may take its time to clean up."""
    for pump in pumps:
        pump.cancel()
    for pump in pumps:
        await pump.stop()


async def close(source: AsyncIterator[Any]) -> None:
    """Close a stream, whatever is cancelled meanwhile; one that hangs is given up at its deadline."""
    aclose = getattr(source, "aclose", None)  # an iterator need not have one
    if aclose is not None:
        with anyio.move_on_after(CLEAN_UP_S, shield=True):
            await aclose()


class _Queue:
    """A bounded hand-over, a batch at a time: the one that fills it is woken when half of it was taken."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Any] = deque()
        self._filled: anyio.Event | None = None
        self._emptied: anyio.Event | None = None

    def put(self, item: Any) -> Awaitable[None] | None:
        self._items.append(item)
        if self._filled is not None:  # asked here: a call for each chunk is a fifth of what this costs
            self.wake()
        if len(self._items) < self._size:
            return None
        self._emptied = anyio.Event()
        return self._emptied.wait()

    def wake(self) -> None:
        if self._filled is not None:
            self._filled.set()
            self._filled = None


async def buffered(chunks: AsyncIterator[T], size: int) -> AsyncIterator[T]:
    """The same chunks, up to `size` of them pulled ahead of the reader by a task of their own."""
    queue = _Queue(check_size("buffer", size))
    items = queue._items
    pump = Pump(chunks, queue.put)
    pump.told = queue.wake
    pump.start()
    try:
        while True:
            while items:
                item = items.popleft()
                if queue._emptied is not None and len(items) <= size // 2:
                    queue._emptied.set()
                    queue._emptied = None
                yield item
            if pump.ended.is_set():
                break
            queue._filled = anyio.Event()
            await queue._filled.wait()
    finally:
        await pump.stop()
    if pump.error is not None:
        raise pump.error


def buffer(size: int) -> StreamingStep:
    """A step between two streaming steps: lets the one before work ahead, at most `size` chunks.

    Without it a chunk is made when it is asked for. It costs a task, and what the source does ahead may be paid for and
    never read.

    Raises:
        ConfigurationError: `size` is no whole number above 0.
    """
    check_size("buffer", size)

    def ahead(chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return buffered(chunks, size)

    return StreamingStep(ahead, name=f"buffer({size})")


def check_size(what: str, size: int) -> int:
    """The size; raises ConfigurationError where it is no whole number above 0."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigurationError(f"{what}({size!r}) cannot be used", "its size must be a whole number above 0")
    return size
