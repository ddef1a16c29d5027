"""The calls of a run, and what of it is read while it goes on."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from .calls import Calls
from .context import RunContext
from .delivery import Emitted, delivered, needs_whole
from .folds import Chunks, Fold
from .modelstream import ModelStream
from .reading import Asked
from .streamstep import StreamStep


class StreamingCalls(Calls):
    """Calls and streams of one run."""

    def stream_model(self, ctx: RunContext, asked: Asked) -> ModelStream:
        """See StreamingContext.stream_model."""
        return ModelStream(self, ctx, asked)

    def deliver(self, ctx: RunContext, step: StreamStep, chunks: tuple[Chunks, ...], fold: Fold) -> Awaitable[Any]:
        """See StreamingContext.deliver."""
        ctx.is_stream = True
        return delivered(self.run, ctx, step, chunks, fold)

    async def emit(self, ctx: RunContext, chunk: object) -> None:
        """See StreamingContext.emit."""
        if self.run.feed is not None and not needs_whole(self.run, "transform_step_output"):
            ctx.emitted = ctx.emitted or Emitted(self.run, self.run.feed, ctx)
            await ctx.emitted.give(chunk)
