"""Many things at once, each in a task, but no task for what never waits.

A worker does ready items one after another. While items wait, one spare worker is armed: its task begins only when the
others wait for something, takes the next item, and arms another spare. So a thousand items that never suspend cost one
task, and a thousand that sleep cost a task each. (A task for each item costs 4 to 16 us, measured.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from .context import RunContext
from .foreign import attempt
from .frames import Due, Frame

YIELD_EVERY = 128
"""Items after which a worker lets the event loop run, so that steps that never wait starve nothing."""


@dataclass(slots=True, eq=False, repr=False)
class Worker:
    """A task that does items, one at a time.

    Attributes:
        scope: Cancels the item it does, and with it the worker; another takes its place.
        frame: Where the item stands, while it can be cancelled with that.
        ctx: The attempt it makes.
    """

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    frame: Frame | None = None
    ctx: RunContext | None = None


class Relay:
    """Does items until none is left, those that doing them adds included.

    Args:
        ready: The items.
        workers: Filled with the workers that are there.
        do: What does one item; None where there is nothing to do any more.
        left: Told of each worker that ends; it may add to what is ready.
    """

    __slots__ = ("_do", "_group", "_is_armed", "_left", "_ready", "_workers")

    def __init__(
        self,
        ready: deque[Due],
        workers: set[Worker],
        do: Callable[[Due, Worker], Awaitable[None] | None],
        left: Callable[[Worker], None],
    ) -> None:
        self._ready = ready
        self._workers = workers
        self._do = do
        self._left = left
        self._is_armed = False
        self._group: TaskGroup

    async def run(self) -> None:
        """Return when all is done; a cancel goes to every item first."""
        async with anyio.create_task_group() as self._group:
            self._arm()

    def _arm(self) -> None:
        if self._ready and not self._is_armed:
            self._is_armed = True
            self._group.start_soon(self._work)

    async def _work(self) -> None:
        self._is_armed = False
        await anyio.lowlevel.checkpoint_if_cancelled()  # else a step that never waits would begin all the same
        ready, worker, base = self._ready, Worker(), copy_context()
        self._workers.add(worker)
        done = 0
        try:
            with worker.scope as scope:
                while ready:
                    item = ready.popleft()
                    if ready and not self._is_armed:
                        self._arm()
                    work = self._do(item, worker)
                    if work is None:
                        continue
                    await work
                    worker.frame = worker.ctx = None
                    done += 1
                    if scope.cancel_called or not _is_clean(base):
                        break
                    if done % YIELD_EVERY == 0:
                        await anyio.lowlevel.checkpoint()
        finally:
            self._workers.discard(worker)
            self._left(worker)
        self._arm()


def _is_clean(base: Context) -> bool:
    """Whether the items so far left no context variable behind that the next would see."""
    return bool(attempt(base.__eq__, copy_context())[0])  # comparing asks values of the user's, which may raise
