"""A run that goes on by itself, and the event loop it goes on in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from .result import PipelineResult
from .run import Run
from .wakeup import spawn


class RunHandle:
    """A run that was started with `Flujo.start`: wait for its result, or cancel it.

    handle = flujo.start(x)
    handle.cancel()
    result = await handle.wait()

    Attributes:
        done: Is set when the run has ended, in whatever way.
    """

    def __init__(
        self, run: Run, execute: Callable[[], Awaitable[PipelineResult]], ended: Callable[[RunHandle], None]
    ) -> None:
        self._run, self._execute, self._ended = run, execute, ended
        self.done: anyio.Event = anyio.Event()
        self._result: PipelineResult | None = None
        self._error: BaseException | None = None
        self._task: object = spawn(self._work)

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self._run.run_id

    def cancel(self, reason: str = "cancelled") -> None:
        """End the run: running steps are cancelled, its result is `aborted` with everything kept."""
        self._run.cancel(reason)

    async def wait(self) -> PipelineResult:
        """Wait for the result."""
        await self.done.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    async def _work(self) -> None:
        try:
            self._result = await self._execute()
        except BaseException as error:  # handed to whoever waits; where the loop is being closed, it is to close
            self._error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.done.set()
            self._ended(self)
