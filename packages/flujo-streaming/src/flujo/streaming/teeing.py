"""One stream, several readers."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, Literal, TypeVar

import anyio

from flujo.core import ConfigurationError, FlujoError
from flujo.streaming.pump import Pump, check_size

__all__ = ["Policy", "TeeOverflow", "tee"]

T = TypeVar("T")

Policy = Literal["block", "drop_oldest", "latest", "error"]
"""What comes of a slow reader: others wait for it; it misses the oldest; it sees the newest only; it gets an error."""


class TeeOverflow(FlujoError):
    """A reader of a tee with the policy "error" was slower than its buffer allows."""

    def __init__(self, size: int) -> None:
        why, do = f"it is {size} chunks behind the others", "Read faster, raise `size`, or choose another policy"
        super().__init__("a branch of a tee cannot go on", why, do)


class Branch(Generic[T]):
    """One reader's view of a shared stream; `async for` it in one task, and `aclose` it when it wants no more."""

    def __init__(self, shared: _Shared, size: int, policy: Policy) -> None:
        self._shared = shared
        self._items: deque[T] = deque(maxlen={"drop_oldest": size, "latest": 1}.get(policy))
        self._size = size
        self._policy = policy
        self._news: anyio.Event | None = None
        self._error: Exception | None = None
        self.is_open: bool = True

    def __aiter__(self) -> Branch[T]:
        return self

    async def __anext__(self) -> T:
        while self.is_open:
            if self._error is not None:
                self.is_open = False
                raise self._error
            if self._items:
                item = self._items.popleft()
                self._shared.wake()
                return item
            if self._shared.pump.ended.is_set():
                self.is_open = False
                if self._shared.pump.error is not None:
                    raise self._shared.pump.error
                break
            self._news = anyio.Event()
            self._shared.wake()
            await self._news.wait()
        raise StopAsyncIteration

    @property
    def is_full(self) -> bool:
        """Whether the others have to wait for it."""
        return self.is_open and self._policy == "block" and len(self._items) >= self._size

    @property
    def is_hungry(self) -> bool:
        """Whether its reader waits."""
        return self.is_open and self._news is not None and not self._items

    def put(self, item: T) -> None:
        """Take the next item."""
        if self._policy == "error" and len(self._items) >= self._size and self._error is None:
            self._error = TeeOverflow(self._size)
            self._items.clear()
        elif self.is_open and self._error is None:
            self._items.append(item)
        self.wake()

    def wake(self) -> None:
        """Let its reader look again."""
        if self._news is not None:
            self._news.set()
            self._news = None

    async def aclose(self) -> None:
        """Want no more; when the last branch closes, the source is closed before this returns."""
        self.is_open = False
        self._items.clear()
        self.wake()
        await self._shared.close_if_unread()


class _Shared:
    """The source, and who reads it."""

    def __init__(self, source: AsyncIterator[Any]) -> None:
        self.branches: list[Branch[Any]] = []
        self.pump: Pump = Pump(source, self.give)
        self.pump.told = self._end
        self._wanted = anyio.Event()
        self._started = False

    def give(self, item: Any) -> Any:
        for branch in self.branches:
            if branch.is_open:
                branch.put(item)
        return self._demand()

    async def _demand(self) -> None:
        """Wait until somebody wants the next, and nobody holds the others up."""
        while any(branch.is_full for branch in self.branches) or not any(b.is_hungry for b in self.branches):
            self._wanted = anyio.Event()
            await self._wanted.wait()

    def wake(self) -> None:
        if not self._started:
            self._started = True
            self.pump.start()
        self._wanted.set()

    def _end(self) -> None:
        for branch in self.branches:
            branch.wake()

    async def close_if_unread(self) -> None:
        if not any(branch.is_open for branch in self.branches):
            await self.pump.stop()


@asynccontextmanager
async def tee(
    source: AsyncIterator[T], branches: int = 2, *, size: int = 16, policy: Policy = "block"
) -> AsyncIterator[tuple[Branch[T], ...]]:
    """Share a stream: `async with tee(stream.text(), 2) as (screen, voice)`, each read by a task of its own.

    A chunk is pulled when some reader waits for it, so the fastest sets the pace, until one is `size` chunks behind. A
    reader that leaves before the end has to `aclose` its branch, or others wait for it: `async with aclosing(screen)`.

    Args:
        source: The stream; it is closed when the block, or the last branch, is.
        branches: How many readers.
        size: How many chunks a branch may be behind.
        policy: What happens then; see Policy.

    Raises:
        ConfigurationError: A number is none above 0, or the policy is unknown.
    """
    check_size("tee", branches)
    check_size("tee size", size)
    if policy not in ("block", "drop_oldest", "latest", "error"):
        raise ConfigurationError(f"policy={policy!r} cannot be used", "it is block, drop_oldest, latest or error")
    shared = _Shared(source)
    shared.branches = [Branch(shared, size, policy) for _ in range(branches)]
    try:
        yield tuple(shared.branches)
    finally:
        for branch in shared.branches:
            branch.is_open = False
            branch.wake()
        await shared.pump.stop()
