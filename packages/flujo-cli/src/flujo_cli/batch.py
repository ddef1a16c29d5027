"""Many runs of one Flujo under one budget: each ends for itself, and all can be ended at once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import anyio

from flujo.core import (
    Budget,
    Chunk,
    Flujo,
    FlujoError,
    PipelineResult,
    ResourceError,
    RunHandle,
    RunOptions,
    RunStream,
    Usage,
)

from .inputs import Item
from .progress import Progress

__all__ = ["Batch", "Ended"]

ItemStatus = Literal["completed", "failed", "paused", "stopped", "aborted", "not started"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How the run of one item ended. `result` is None where it could not even start; `error` says why."""

    index: int
    name: str
    run_id: str
    result: PipelineResult | None
    error: FlujoError | None

    @property
    def status(self) -> ItemStatus:
        """How it ended."""
        if self.result is not None:
            return self.result.status
        return "failed" if self.error is not None else "not started"

    @property
    def usage(self) -> Usage:
        """What it used."""
        return Usage() if self.result is None else self.result.usage

    @property
    def duration_s(self) -> float:
        """Seconds it took."""
        return 0.0 if self.result is None else self.result.duration_s


class Batch:
    """Runs items, at most `concurrency` at a time; one that fails does not stop the rest.

    Attributes:
        trouble: What went wrong after the last run, when resources were closed.

    Args:
        flujo: What runs them.
        items: What is run.
        budget: The ledger they share.
        options: What every run is given beside its input.
        progress: Is told what happens.
        emit: Takes each item as it ends, while it is still in memory.
        chunk: Takes the name of an item and what its streaming steps give, as it comes; None where nobody reads it.
    """

    def __init__(
        self,
        flujo: Flujo,
        items: Sequence[Item],
        budget: Budget,
        options: RunOptions,
        *,
        progress: Progress,
        emit: Callable[[Ended], None],
        chunk: Callable[[str, object], None] | None = None,
    ) -> None:
        self.ended: list[Ended] = []
        self.cancelled = False
        self.trouble: FlujoError | None = None
        self._refusal: FlujoError | None = None
        self._flujo = flujo
        self._items = items
        self._budget = budget
        self._options = options
        self._progress = progress
        self._emit = emit
        self._chunk = chunk
        self._handles: dict[str, RunHandle | RunStream] = {}

    async def run(self, concurrency: int) -> list[Ended]:
        """Run all items.

        Returns:
            How each ended, in the order of the items; after a cancel also those that were never started.

        Raises:
            FlujoError: Nothing ran: the first item could not start, or a resource did not open.
        """
        waiting = iter(enumerate(self._items))
        try:
            async with self._flujo, anyio.create_task_group() as group:
                for _ in range(min(concurrency, len(self._items))):
                    group.start_soon(self._work, waiting)
        except ResourceError as error:
            if not self.ended:
                raise
            self.trouble = error
        if self._refusal is not None:
            raise self._refusal
        for index, item in waiting:
            self.ended.append(Ended(index, item.name, "", None, None))
        return sorted(self.ended, key=lambda ended: ended.index)

    def cancel(self) -> None:
        """End every run that is under way, keep what is done, start no other."""
        self.cancelled = True
        for handle in list(self._handles.values()):
            handle.cancel("interrupted")

    async def _work(self, waiting: Iterator[tuple[int, Item]]) -> None:
        while not self.cancelled:
            for index, item in waiting:
                await self._one(index, item)
                break
            else:
                return

    async def _one(self, index: int, item: Item) -> None:
        run_id = uuid.uuid4().hex
        self._progress.item_started(run_id, item.name)
        result: PipelineResult | None = None
        error: FlujoError | None = None
        options: RunOptions = {**self._options, "run_id": run_id, "limits": self._budget}
        try:
            if self._chunk is None:
                handle = self._flujo.start(item.value, **options)
                self._handles[run_id] = handle
                result = await handle.wait()
            else:
                result = await self._read(item, run_id, options, self._chunk)
            error = result.error
        except FlujoError as problem:
            error = problem
        started = self._handles.pop(run_id, None)
        if error is not None and started is None and not self.ended and not self._handles:
            # It is the same for all of them, and nothing was paid for yet. Raised by `run`, outside the task group.
            self._refusal, self.cancelled = error, True
            return
        ended = Ended(index, item.name, run_id, result, error)
        self.ended.append(ended)
        self._progress.item_ended(ended)
        self._emit(ended)

    async def _read(
        self, item: Item, run_id: str, options: RunOptions, chunk: Callable[[str, object], None]
    ) -> PipelineResult:
        """Run one item and hand on its chunks as they come."""
        async with self._flujo.stream_async(item.value, **options) as stream:
            self._handles[run_id] = stream
            async for told in stream:
                if isinstance(told, Chunk):
                    chunk(item.name, told.value)
        return stream.result
