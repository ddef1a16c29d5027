"""The calls of a run, and what of it is read while it goes on."""

from __future__ import annotations

from typing import Any

from .calls import Calls
from .context import RunContext
from .delivery import delivered
from .folds import Chunks, Fold
from .messages import ModelRequest
from .modelstream import ModelStream
from .reading import SendStream
from .retry import RetryPolicy
from .streamstep import StreamStep
from .usage import Price


class StreamingCalls(Calls):
    """Calls and streams of one run."""

    def stream_model(
        self,
        ctx: RunContext,
        request: ModelRequest,
        send: SendStream,
        *,
        retry: RetryPolicy | None,
        price: Price | None,
        record: bool,
    ) -> ModelStream:
        """See StreamingContext.stream_model."""
        return ModelStream(self, ctx, request, send, retry=retry, price=price, record=record)

    async def deliver(self, ctx: RunContext, step: StreamStep, chunks: tuple[Chunks, ...], fold: Fold) -> Any:
        """See StreamingContext.deliver."""
        return await delivered(self.run, ctx, step, chunks, fold)
