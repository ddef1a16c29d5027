"""The running event loop: an event that other threads may set, and a task beside the one that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

import anyio
from anyio.lowlevel import current_token

from .foreign import attempt


def loop_is_running() -> bool:
    """Whether an event loop runs in this thread."""
    return attempt(current_token)[1] is None


class LoopEvent:
    """An event of the running loop that any thread may set."""

    __slots__ = ("_event", "_loop")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._loop = current_token().native_token

    def set(self) -> bool:
        """Wake the waiter, from whatever thread; says whether its loop is still there."""
        return call_in(self._loop, self._event.set)

    async def wait(self) -> None:
        """Wait in the loop that made it."""
        await self._event.wait()


def call_in(loop: object, act: Callable[[], object]) -> bool:
    """Have `act` called in a loop, from whatever thread; says whether the loop is still there.

    `loop` is its `current_token().native_token`.
    """
    try:
        if isinstance(loop, asyncio.AbstractEventLoop):
            loop.call_soon_threadsafe(act)
        else:  # trio's token; anyio gives both behind one object but offers no call that does not block
            loop.run_sync_soon(act)  # type: ignore[attr-defined]
    except RuntimeError:  # that loop is closed, and nobody waits in it any more; the caller has others to wake
        return False
    return True


def spawn(work: Callable[[], Coroutine[Any, Any, None]]) -> object:
    """Start `work` in a task of its own that ends with the event loop; the reference returned keeps it alive."""
    loop = current_token().native_token
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop.create_task(work())
    import trio  # optional: it is there when its loop runs

    return trio.lowlevel.spawn_system_task(work, context=copy_context())
