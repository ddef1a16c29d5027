"""A resource scope with a task of its own, for a sync step whose thread may outlive its attempt."""

from __future__ import annotations

from threading import Lock

import anyio

from .errors import ResourceError
from .resources import ResourceScope
from .wakeup import LoopEvent, spawn


class Keeper:
    """Opens a scope, waits until it is released, and closes it, all in one task that no step's timeout cancels.

    Resources may hold task groups, and these must end in the task in which they began. Where the event loop ends
    before the thread does, async exits run with it, since no other loop could run them; a scope that has only sync
    exits is left to the thread.

    Args:
        scope: What is opened and closed.
    """

    def __init__(self, scope: ResourceScope) -> None:
        self.scope: ResourceScope = scope
        self._cut = anyio.CancelScope()
        self._opened = anyio.Event()
        self._release = LoopEvent()
        self._closed = anyio.Event()
        self._fault: BaseException | None = None
        self._lock = Lock()
        self._released = self._left = False
        self._task = spawn(self._keep)

    async def __aenter__(self) -> ResourceScope:
        try:
            await self._opened.wait()
        except BaseException as stop:  # a cancel, or a timeout: it goes on up when nothing is left open
            self.scope.cause = stop
            self.release()
            self._cut.cancel()
            await self._end()
            raise
        if self._fault is not None:
            raise self._fault
        return self.scope

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.scope.cause = error
        self.release()
        await self._end()
        if self._fault is not None:
            raise self._fault

    def release(self) -> None:
        """Say, from whatever thread, that the work is over; `scope.cause` is what it ended with."""
        with self._lock:
            self._released = True
        if self._left:
            self.scope.close_without_loop()
        else:
            self._release.set()

    async def _end(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._closed.wait()

    async def _keep(self) -> None:
        try:
            with self._cut:
                await self.scope.__aenter__()
                self._opened.set()
                try:
                    await self._release.wait()
                except anyio.get_cancelled_exc_class() as stop:  # this task ends with what follows, as it is told to
                    if not self._released:
                        self.scope.cause = self.scope.cause or stop
                        why = "one of them, or the end of the event loop, cancelled them"
                        self._fault = ResourceError("resources of a step were closed while it ran", why)
                if not self._leave():
                    await self.scope.__aexit__(None, self.scope.cause, None)
        except BaseException as error:  # handed to who waits, in whose task it counts
            self._fault = error
        finally:
            self._opened.set()
            self._closed.set()

    def _leave(self) -> bool:
        """Whether the thread closes: the event loop ends, it does not, and no exit needs the loop."""
        with self._lock:
            self._left = not (self._released or self.scope.needs_loop)
        return self._left
