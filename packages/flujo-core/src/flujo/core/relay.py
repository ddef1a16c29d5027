"""Many things at once, each in a task, but no task for what never waits.

A worker does ready items one after another. While items wait, spare workers are armed: their tasks begin only when the
others wait for something, take the next items, and arm further spares, as many as there are workers by then. So a
thousand items that never suspend cost few tasks, and a thousand that sleep cost a task each, all of them within a few
turns of the event loop. (A task for each item costs 4 to 16 us, measured.)

On asyncio the tasks stand in no group: anyio's costs four times as much, and asyncio's would cancel them natively,
which breaks code that shields itself with an anyio scope. A cancel from outside is handed to the scope of each worker.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial

import anyio

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
        done: How many items it did.
    """

    scope: anyio.CancelScope
    frame: Frame | None = None
    ctx: RunContext | None = None
    done: int = 0


class Relay:
    """Does items until none is left, those that doing them adds included.

    Args:
        ready: The items; doing one adds those that follow.
        workers: Filled with the workers that are there.
        do: Does what it takes, one item after another, until there is none.
        left: Told of each worker that ends; it may add to what is ready.
    """

    def __init__(
        self,
        ready: list[Due],
        workers: set[Worker],
        do: Callable[[Callable[[], Due | None], Worker], Awaitable[None]],
        left: Callable[[Worker], None],
    ) -> None:
        self._ready = ready
        self._queue: deque[Due] = deque()  # what was ready, in order
        self._workers, self._do, self._left = workers, do, left
        self._armed = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped: BaseException | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._spawn: Callable[[], object]
        self._scope = type(anyio.CancelScope())  # the backend's: to look it up takes longer than to make one

    async def run(self) -> None:
        """Return when all is done; a cancel goes to every item first."""
        if attempt(asyncio.current_task)[0] is not None:
            await self._run_tasks(asyncio.get_running_loop())
        else:
            async with anyio.create_task_group() as group:
                self._spawn = lambda: group.start_soon(self._work_unless_cancelled)
                self._arm()

    async def _run_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until no task is left; a cancel is passed on once, and raised at the end."""

        def spawn() -> None:
            task = loop.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._note_end)

        self._spawn = spawn
        self._arm()
        while self._tasks:
            self._waiting = loop.create_future()
            try:
                await self._waiting
            except asyncio.CancelledError as error:
                self._stop(error)
        if self._stopped is not None:
            raise self._stopped

    def _stop(self, error: BaseException) -> None:
        if self._stopped is None:
            self._stopped = error
            for worker in self._workers:
                worker.scope.cancel()

    @property
    def _is_cancelled(self) -> bool:
        """Whether a cancel came from outside, even where `run` has not been woken for it: nothing begins after it."""
        return self._stopped is not None or (self._waiting is not None and self._waiting.cancelled())

    def _arm(self) -> None:
        wanted = min(len(self._queue) + len(self._ready), len(self._workers) or 1)
        while self._armed < wanted:
            self._armed += 1
            self._spawn()

    async def _work_unless_cancelled(self) -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()  # else a step that never waits would begin all the same
        await self._work()

    async def _work(self) -> None:
        self._armed -= 1
        worker = Worker(self._scope())
        self._workers.add(worker)
        try:
            if not self._is_cancelled:
                with worker.scope:
                    await self._do(partial(self._next, worker, copy_context()), worker)
        finally:
            self._workers.discard(worker)
            self._left(worker)
        if (self._queue or self._ready) and not self._is_cancelled:
            self._arm()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop(error)
        if not self._tasks and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _next(self, worker: Worker, base: Context) -> Due | None:
        """What a worker does next; nothing where it is to end: another begins when the event loop has run."""
        ready, queue = self._ready, self._queue
        worker.frame = worker.ctx = None
        if ready:
            queue += ready
            ready.clear()
        if not queue or worker.done == YIELD_EVERY or worker.scope.cancel_called or self._is_cancelled:
            return None
        if worker.done and not _is_clean(base):
            return None
        item = queue.popleft()
        if queue and self._armed < len(self._workers):
            self._arm()
        worker.done += 1
        worker.frame = item[0]
        return item


def _is_clean(base: Context) -> bool:
    """Whether the items so far left no context variable behind that the next would see."""
    return bool(attempt(base.__eq__, copy_context())[0])  # comparing asks values of the user's, which may raise
