"""The other end of a remote backend: a worker runs tasks as the engine would, under the same plugins and policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from .policy import Policy
from .wire import CodeBlob, OutcomeData, StepTask


class Worker:
    """Runs tasks, any number at a time, on asyncio or trio. Resources of app scope live as long as it does.

    Args:
        plugins: Plugin objects, for those that a run was given as objects: an object does not travel.
        policy: What is demanded here, beside the policy of each run.
        unpack: Makes the step's code of what a backend packed; None refuses such tasks.
        secret: Finds a secret by its name; the environment's variables when left out.
        engine: What it calls itself in `WorkerFacts`.
    """

    def __init__(
        self,
        *,
        plugins: Iterable[object] = (),
        policy: Policy | None = None,
        unpack: Callable[[CodeBlob], object] | None = None,
        secret: Callable[[str], str] | None = None,
        engine: str = "worker",
    ) -> None:
        self._plugins = tuple(plugins)

    async def execute_task(self, task: StepTask) -> OutcomeData:
        """Run one attempt. Whatever goes wrong is in what it returns; only a cancellation is raised."""
        raise NotImplementedError

    async def execute(self, data: str | bytes) -> str:
        """The same with JSON on both sides; a task that cannot be read gives an outcome that says so."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the resources of app scope."""
