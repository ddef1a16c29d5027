"""A model's answer while it comes, under the run: what pydantic-ai streams goes through `ctx.stream_model`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from datetime import datetime

from pydantic_ai import messages as pai
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelResponseStreamEvent
from pydantic_ai.models import StreamedResponse

from flujo.core import ModelChunk, ModelRequest, ModelResponse, ModelStream

from .faults import fault_of
from .translate import incoming, priced, revised

Opened = AbstractAsyncContextManager[StreamedResponse]


class Streaming:
    """Sends a request and reads the answer: the `send` of `ctx.stream_model`.

    Args:
        open: Opens pydantic-ai's stream of a request.

    Attributes:
        stream: Pydantic-ai's own stream of the last attempt.
    """

    def __init__(self, open: Callable[[ModelRequest], Opened]) -> None:
        self._open = open
        self.stream: StreamedResponse | None = None

    async def send(self, request: ModelRequest) -> AsyncIterator[ModelChunk]:
        """Text as it comes, and that other tokens came; tool calls whole, at the end, with the usage."""
        try:
            async with self._open(request) as stream:
                self.stream = stream
                async for event in stream:
                    text = text_of(event)
                    if text or _is_hidden(event):
                        yield ModelChunk(text, hidden=not text)
                response = stream.get()
                whole = priced(incoming(response), response, request.model)
                yield ModelChunk("", 0, whole.tool_calls, whole.usage, whole.finish_reason, whole.model)
        except ModelAPIError as error:
            raise fault_of(error, request.model) from error


def text_of(event: object) -> str:
    """The text that an event adds to the answer."""
    if isinstance(event, pai.PartStartEvent) and isinstance(event.part, pai.TextPart):
        return event.part.content
    if isinstance(event, pai.PartDeltaEvent) and isinstance(event.delta, pai.TextPartDelta):
        return event.delta.content_delta
    return ""


@dataclass
class GovernedStream(StreamedResponse):
    """What pydantic-ai reads instead of the provider's stream: the pieces as the run lets them through.

    Attributes:
        source: Where the pieces come from.
        governed: The pieces.
        is_provider_tooled: Whether tools at the provider may show in it.
    """

    source: Streaming
    governed: ModelStream
    is_provider_tooled: bool

    async def _get_event_iterator(self) -> AsyncGenerator[ModelResponseStreamEvent]:
        async with aclosing(self._pieces()) as pieces:
            async for chunk in pieces:
                if chunk.content:
                    for event in self._parts_manager.handle_text_delta(vendor_part_id="text", content=chunk.content):
                        yield event
                for call in chunk.tool_calls:
                    yield self._parts_manager.handle_tool_call_part(
                        vendor_part_id=None, tool_name=call.name, args=dict(call.arguments), tool_call_id=call.id
                    )
        self._usage = self._theirs.usage

    async def _pieces(self) -> AsyncGenerator[ModelChunk]:
        async for chunk in self.governed:
            yield chunk

    @property
    def _theirs(self) -> StreamedResponse:
        assert self.source.stream is not None
        return self.source.stream

    def get(self) -> pai.ModelResponse:
        """The answer so far; the whole one as the provider gave it, with what transforms changed."""
        after = self.governed.response
        if after is None:
            return super().get()
        kept = self._theirs.get()
        before: ModelResponse = incoming(kept)
        return revised(kept, before, after, provider=self.is_provider_tooled)

    async def close_stream(self) -> None:
        """Nothing here: the source is closed with the block it was opened in."""

    @property
    def model_name(self) -> str:
        """As the provider says."""
        return self._theirs.model_name

    @property
    def provider_name(self) -> str | None:
        """As the provider says."""
        return self._theirs.provider_name

    @property
    def provider_url(self) -> str | None:
        """As the provider says."""
        return self._theirs.provider_url

    @property
    def timestamp(self) -> datetime:
        """As the provider says."""
        return self._theirs.timestamp


def _is_hidden(event: object) -> bool:
    """Whether an event adds a token, at least, to a tool call or to what the model thinks."""
    delta = event.delta if isinstance(event, pai.PartDeltaEvent) else None
    if isinstance(delta, pai.ToolCallPartDelta):
        return bool(delta.args_delta)
    return isinstance(delta, pai.ThinkingPartDelta) and bool(delta.content_delta)
