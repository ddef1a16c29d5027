"""The calls of a run, and what of it is read while it goes on."""

from __future__ import annotations

from typing import Any

from .calls import Calls
from .context import RunContext
from .delivery import delivered
from .folds import Chunks, Fold
from .modelstream import ModelStream
from .reading import Asked
from .streamstep import StreamStep


class StreamingCalls(Calls):
    """Calls and streams of one run."""

    def stream_model(self, ctx: RunContext, asked: Asked) -> ModelStream:
        """See StreamingContext.stream_model."""
        return ModelStream(self, ctx, asked)

    async def deliver(self, ctx: RunContext, step: StreamStep, chunks: tuple[Chunks, ...], fold: Fold) -> Any:
        """See StreamingContext.deliver."""
        return await delivered(self.run, ctx, step, chunks, fold)
