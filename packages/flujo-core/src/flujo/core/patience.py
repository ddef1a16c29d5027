"""A time limit for code that mostly does not wait at all: its timer is armed when it first does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

import anyio

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T], eager: bool = False) -> T:
    """Await `work` for at most `seconds` from where it first waits. (A scope around each call costs 10 to 20 us.)

    Args:
        seconds: How long it may take.
        work: What to do.
        eager: Whether this is known to be a task of asyncio; to find it out costs more than most of what is done here.

    Raises:
        TimeoutError: It took longer, and was cancelled.
    """
    # In spite of its name it is in asyncio's `__all__`; what has no underscore raises where no loop of asyncio runs.
    # On trio, which may be a guest of asyncio, a scope cannot be opened later than what it is around.
    if not eager and (asyncio._get_running_loop() is None or asyncio.current_task() is None):
        with anyio.fail_after(seconds):
            return await work
    try:
        first = work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    return await rest_within(seconds, first, work)


async def rest_within(seconds: float, first: object, work: Coroutine[Any, Any, T]) -> T:
    """Go on for at most `seconds` with a coroutine that has begun to wait for `first`; on asyncio, in the same task.

    Raises:
        TimeoutError: It took longer, and was cancelled.
    """
    async with asyncio.timeout(seconds):
        return await _Begun(first, work)


class _Begun(Generic[T]):
    """Goes on with a coroutine that has begun to wait for `first`; the same task must await it."""

    __slots__ = ("_first", "_work")

    def __init__(self, first: object, work: Coroutine[Any, Any, T]) -> None:
        self._first = [first]
        self._work = work

    def __await__(self) -> Generator[Any, Any, T]:
        return self  # type: ignore[return-value]  # what `await` needs of a generator is here

    def __next__(self) -> object:
        return self._first.pop() if self._first else self._work.send(None)

    def throw(self, *error: Any) -> object:
        self._first.clear()
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()
