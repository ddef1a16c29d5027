"""What a step's context may do with what is read while it comes: a model's answer, and its own chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, runtime_checkable

from .errors import ConfigurationError
from .folds import Chunks, Fold
from .items import ModelChunk
from .messages import ModelRequest
from .retry import RetryPolicy
from .usage import Price

if TYPE_CHECKING:
    from .context import RunContext
    from .modelstream import ModelStream
    from .streamstep import StreamStep

SendStream = Callable[[ModelRequest], AsyncIterator[ModelChunk | str]]
"""Sends a request, and gives the answer piece by piece; it is closed as soon as nobody wants more."""


@runtime_checkable
class StreamingAgent(Protocol):
    """Any object that can be a streaming step: its `stream` is called with the step's inputs."""

    @property
    def stream(self) -> object:
        """An async generator method, or a method that gives an async iterator; annotated as an agent's `run`."""


class Asked(NamedTuple):
    """What `stream_model` was given; see there."""

    request: ModelRequest
    send: SendStream
    retry: RetryPolicy | None
    price: Price | None
    record: bool


class StreamGate(Protocol):
    """The one way to what is read while it comes; the engine gives it to each step."""

    def stream_model(self, ctx: RunContext, asked: Asked) -> ModelStream:
        """See StreamingContext.stream_model."""

    def deliver(self, ctx: RunContext, step: StreamStep, chunks: tuple[Chunks, ...], fold: Fold) -> Awaitable[Any]:
        """See StreamingContext.deliver."""

    async def emit(self, ctx: RunContext, chunk: object) -> None:
        """See StreamingContext.emit."""


class StreamingContext:
    """The part of a RunContext that streams."""

    __slots__ = ()
    _gate: StreamGate
    step_path: str
    is_stream: bool

    def check_open(self) -> None:
        """See RunContext.check_open."""

    def stream_model(
        self,
        request: ModelRequest,
        send: SendStream,
        *,
        retry: RetryPolicy | None = None,
        price: Price | None = None,
        record: bool = False,
    ) -> ModelStream:
        """Call a model through every transform, guard, recorder and limit of the run, and read its answer as it comes.

        async with ctx.stream_model(request, send) as stream:
            async for text in stream.text():
                yield text

        Args:
            request: As of `call_model`.
            send: Sends the final request; an async generator of texts or `ModelChunk`s, which is closed at the end of
                the block, at a limit, and when nobody wants more.
            retry: How an attempt that failed before its first piece is made again.
            price: As of `call_model`.
            record: Keep the whole answer in the journal: a step that runs again gets it in one piece, and pays nothing.

        Raises:
            GuardDenied: On entering; a guard or a required recorder said no.
            UsageLimitExceeded: On entering, where it does not fit; later, where the model gives more than was reserved.
            ConfigurationError: The attempt that this context belongs to is over.
        """
        self.check_open()
        return self._gate.stream_model(cast("RunContext", self), Asked(request, send, retry, price, record))

    async def emit(self, chunk: object) -> None:
        """Give a chunk to who reads the run by `Flujo.stream_async`, and wait until that asks for the next item.

        For what a step likes to be seen before it ends, as its progress: no part of its output, and nowhere kept. Where
        nobody reads, nothing happens. Chunks pass `transform_chunk`; where a plugin transforms outputs and no chunks,
        they are not shown. An attempt that is made again gives its chunks again.

        Raises:
            ConfigurationError: The step is a stream, which yields its chunks; or the attempt is over.
        """
        self.check_open()
        if self.is_stream:
            raise ConfigurationError(f"step {self.step_path!r} cannot emit", "it is a stream", "Yield the chunk")
        await self._gate.emit(cast("RunContext", self), chunk)

    def deliver(self, step: StreamStep, chunks: tuple[Chunks, ...], fold: Fold) -> Awaitable[Any]:
        """Give the last of `chunks`, which pull from each other, to the run's reader, and return what `fold` makes."""
        return self._gate.deliver(cast("RunContext", self), step, chunks, fold)
