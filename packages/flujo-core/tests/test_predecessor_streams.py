"""Defects 14 to 16 and behaviour 39 of the old `flujo` 0.x: what is read while it comes. See the files beside this one.

Where ours is meant to differ, the docstring says how; docs/how-to/move-from-flujo-0.md has the same as a table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import anyio.lowlevel
import pytest

from flujo.core import (
    Chunk,
    Flujo,
    Message,
    ModelChunk,
    ModelRequest,
    ModelUsage,
    Price,
    Resource,
    Resources,
    ResultItem,
    RunContext,
    Stage,
    StepEnded,
    StepFailed,
    StepStarted,
    StreamStep,
    UsageLimitExceeded,
    UsageLimits,
    step,
)

pytestmark = pytest.mark.anyio

PRICE = Price(Decimal("0.01"), Decimal("0.1"))


@step
async def plus(value: int) -> int:
    return value + 1


@step
async def length(text: str) -> int:
    return len(text)


class Ticks:
    """A source that knows how many chunks it made, and whether it was closed."""

    def __init__(self, fails_at: int = 10**9) -> None:
        self.fails_at = fails_at
        self.made = 0
        self.closed = False

    def step(self) -> StreamStep:
        async def ticks(value: int) -> AsyncIterator[str]:
            try:
                while self.made < 200:
                    self.made += 1
                    if self.made == self.fails_at:
                        raise OSError("the line is dead")
                    yield "x"
            finally:
                self.closed = True

        return StreamStep((Stage.of("ticks", ticks),), name="ticks")


async def test_14_a_slow_consumer_sets_the_pace_of_the_source() -> None:
    source = Ticks()
    read = 0
    async with Flujo(source.step()).stream_async(1) as stream:
        async for _ in stream.text():
            read += 1
            for _ in range(5):  # the turns in which a producer that waits for nobody runs ahead
                await anyio.lowlevel.checkpoint()
            assert source.made == read
            if read == 20:
                break
    assert (source.made, source.closed) == (20, True)


def talking(pieces: int) -> StreamStep:
    async def send(request: ModelRequest) -> AsyncIterator[ModelChunk]:
        for number in range(pieces):
            yield ModelChunk("x", usage=ModelUsage(input_tokens=1, output_tokens=number + 1))

    async def talk(value: int, ctx: RunContext) -> AsyncIterator[str]:
        request = ModelRequest(model="m", messages=(Message(role="user", content="hi"),), max_tokens=500)
        async with ctx.stream_model(request, send, price=PRICE) as answer:
            async for text in answer.text():
                yield text

    return StreamStep((Stage.of("talk", talk),), name="talk")


async def test_15_a_streaming_step_is_billed_and_limits_apply_to_it() -> None:
    billed = await Flujo(talking(5)).run_async(1)
    assert (billed.output, billed.total_cost_usd, billed.usage.total_tokens) == ("xxxxx", Decimal("0.51"), 6)
    texts: list[str] = []
    async with Flujo(talking(10_000), limits=UsageLimits(total_tokens_limit=50)).stream_async(1) as stream:
        async for item in stream:
            if isinstance(item, Chunk):
                texts.append(item.value)
    assert stream.result.status == "stopped"
    assert isinstance(stream.result.error, UsageLimitExceeded)
    assert stream.result.error.partial == "".join(texts)
    assert 0 < len(texts) < 50
    assert stream.result.usage.total_tokens <= 50


async def test_16_a_streaming_step_in_the_middle_of_a_pipeline_streams() -> None:
    source = Ticks()
    lead: list[int] = []
    async with Flujo(plus >> source.step() >> length).stream_async(1) as stream:
        async for item in stream:
            if isinstance(item, Chunk):
                lead.append(source.made - len(lead) - 1)
    assert lead == [0] * 200  # each was read before the next was made, and before the step after it began
    assert stream.result.output == 200


async def test_39_chunks_come_first_and_the_result_last() -> None:
    async with Flujo(Ticks().step()).stream_async(1) as stream:
        items = [item async for item in stream]
    assert [item.value for item in items if isinstance(item, Chunk)] == ["x"] * 200
    assert isinstance(items[-1], ResultItem)
    assert items[-1].result.output == "x" * 200


async def test_39_a_pipeline_that_does_not_stream_gives_its_steps_and_the_result() -> None:
    """Differs: the old package gave the result only."""
    async with Flujo(plus).stream_async(1) as stream:
        items = [item async for item in stream]
    assert [type(item) for item in items] == [StepStarted, StepEnded, ResultItem]
    assert stream.result.output == 2


class Voice:
    word = "ping"


class Mine(Resources):
    voice: Voice = Resource(Voice, scope="run")


async def test_39_resources_and_the_run_context_reach_a_stream() -> None:
    async def says(value: int, voice: Voice, ctx: RunContext) -> AsyncIterator[str]:
        yield f"{voice.word} from {ctx.step_path}"

    result = await Flujo(StreamStep((Stage.of("says", says),), name="says"), resources=Mine()).run_async(1)
    assert result.output == "ping from says"


async def test_39_a_failure_in_the_middle_of_a_stream_is_a_result_that_keeps_what_came() -> None:
    source = Ticks(fails_at=4)
    async with Flujo(source.step()).stream_async(1) as stream:
        texts = [item.value async for item in stream if isinstance(item, Chunk)]
    assert texts == ["x"] * 3
    assert stream.result.status == "failed"
    assert isinstance(stream.result.error, StepFailed)
    assert (stream.result.error.partial, source.closed) == ("xxx", True)
