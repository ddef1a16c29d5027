"""A time limit for code that mostly does not wait at all: its timer is armed when it first does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

import anyio

from .foreign import attempt

T = TypeVar("T")

NOTHING = (None,)
"""What `begin` gives of work that never waited and gave None."""


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Await `work` for at most `seconds` from where it first waits. (A scope around each call costs 10 to 20 us.)

    Raises:
        TimeoutError: It took longer, and was cancelled.
    """
    if attempt(asyncio.current_task)[0] is None:  # trio: a scope cannot be opened later than what it is around
        with anyio.fail_after(seconds):
            return await work
    begun = begin(work)
    return await begun.within(seconds) if isinstance(begun, Begun) else begun[0]


def begin(work: Coroutine[Any, Any, T]) -> tuple[T] | Begun[T]:
    """Run `work` to where it first waits: what it gave if it never does, else what goes on with it in the same task.

    For asyncio only.
    """
    steps = work.__await__()
    try:
        first = next(steps)
    except StopIteration as end:
        return (end.value,)
    return Begun(first, steps)


class Begun(Generic[T]):
    """Goes on with a coroutine that has begun to wait for `first`; the same task must await it."""

    __slots__ = ("_first", "_steps")

    def __init__(self, first: object, steps: Generator[Any, Any, T]) -> None:
        self._first = [first]
        self._steps = steps

    async def within(self, seconds: float) -> T:
        """Go on for at most `seconds`; raises TimeoutError where that was not enough."""
        async with asyncio.timeout(seconds):
            return await self

    def __await__(self) -> Generator[Any, Any, T]:
        return self  # type: ignore[return-value]  # what `await` needs of a generator is here

    def __next__(self) -> object:
        return self._first.pop() if self._first else next(self._steps)

    def throw(self, *error: Any) -> object:
        """See Generator."""
        self._first.clear()
        return self._steps.throw(*error)

    def close(self) -> None:
        """See Generator."""
        self._steps.close()
