"""The chunks of a streaming step on a worker: they leave as they come, and nothing is kept of them there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .codec import dump
from .context import RunContext
from .delivery import pull, told_of
from .errors import SnapshotError, StepFailed, TaskRejected
from .feed import Source
from .folds import Chunks, Fold, Last
from .items import Chunk
from .run import Run
from .streamcalls import StreamingCalls
from .streamstep import StreamStep
from .wire import ChunkData, StepTask

GiveChunk = Callable[[str], Awaitable[object]]
"""Sends one chunk, as JSON, to where its task came from, and returns when the next may be made."""


def leaving(run: Run, task: StepTask, give: GiveChunk | None) -> LeavingCalls:
    """The calls of the run of a streaming step.

    Raises:
        TaskRejected: Nobody takes its chunks.
    """
    if give is None:
        raise TaskRejected("E_CODE", "it is a stream, and who brought the task takes no chunks")
    return LeavingCalls(run, task.id, give)


class LeavingCalls(StreamingCalls):
    """Calls of a streaming step on a worker.

    What its chunks make is made where its reader is, and hooks that see a step's chunks act there; those of a model's
    answer act here.
    """

    def __init__(self, run: Run, task_id: str, give: GiveChunk) -> None:
        super().__init__(run)
        self._task_id = task_id
        self._give = give
        self._count = 0
        self._hint: object = Any

    async def deliver(self, ctx: RunContext, step: StreamStep, chunks: tuple[Chunks, ...], fold: Fold) -> int:
        """See StreamingContext.deliver; returns how many chunks left."""
        ctx.is_stream, self._hint = True, step.chunk
        source = Source(self.run.info, chunks, Last(keeps=False), ctx.step_path)
        await pull(source, self._leave)
        if source.error is not None:
            raise told_of(source, step, whole=True)
        return self._count

    async def _leave(self, chunk: Chunk) -> None:
        try:
            value = dump(self._hint, chunk.value, f"chunk {self._count}")
        except SnapshotError as error:
            raise StepFailed(chunk.step_path, "NotSerialisable", f"{error.what}: {error.why}") from None
        data = ChunkData.model_construct(task_id=self._task_id, number=self._count, value=value)
        self._count += 1
        await self._give(data.model_dump_json())
