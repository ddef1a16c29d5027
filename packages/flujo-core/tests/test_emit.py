"""`ctx.emit`: what a step gives who reads its run, before it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from flujo.core import (
    UNCHANGED,
    Chunk,
    ConfigurationError,
    Flujo,
    Map,
    RetryPolicy,
    RunContext,
    Step,
    StepEnded,
    StepFailed,
    StepStarted,
    TransformChunk,
    TransformStepOutput,
    hookimpl,
    step,
)
from flujo.core.streamstep import Stage, StreamStep

pytestmark = pytest.mark.anyio


@step
async def count(most: int, ctx: RunContext) -> int:
    for number in range(most):
        await ctx.emit(f"{number} of {most}")
    return most


async def items_of(flujo: Flujo, run_input: object) -> list[str]:
    """What a reader is given of chunks and steps, in order."""
    seen: list[str] = []
    async with flujo.stream_async(run_input) as stream:
        async for item in stream:
            if isinstance(item, (StepStarted, StepEnded)):
                seen.append(type(item).__name__)
            elif isinstance(item, Chunk):
                seen.append(f"{item.step_path}: {item.value}")
    assert stream.result.status == "completed", stream.result.error
    return seen


async def test_a_reader_is_given_it_before_the_step_ends() -> None:
    assert await items_of(Flujo(count), 2) == ["StepStarted", "count: 0 of 2", "count: 1 of 2", "StepEnded"]


async def test_the_step_goes_on_when_the_reader_asks_for_more() -> None:
    made: list[int] = []

    @step
    async def make(most: int, ctx: RunContext) -> int:
        for number in range(most):
            made.append(number)
            await ctx.emit(number)
        return most

    async with Flujo(make).stream_async(5) as stream:
        async for item in stream:
            if isinstance(item, Chunk):
                assert made[-1] == item.value
                if item.value == 3:
                    break
    assert made == [0, 1, 2, 3]
    assert stream.result.status == "aborted"


async def test_where_nobody_reads_nothing_happens() -> None:
    result = await Flujo(count).run_async(3)
    assert (result.status, result.output) == ("completed", 3)


async def test_steps_at_the_same_time_each_give_theirs() -> None:
    seen = await items_of(Flujo(Map(count)), [2, 1])
    chunks = sorted(one for one in seen if ":" in one)
    assert [one.rpartition(": ")[2] for one in chunks] == ["0 of 2", "1 of 2", "0 of 1"]


async def test_each_attempt_gives_its_own() -> None:
    @step(retry=RetryPolicy(max_attempts=2, backoff_s=0))
    async def flaky(value: int, ctx: RunContext) -> int:
        await ctx.emit(f"attempt {ctx.attempt}")
        if ctx.attempt == 1:
            raise ValueError("again")
        return value

    seen = await items_of(Flujo(flaky), 1)
    assert [one for one in seen if ":" in one] == ["flaky: attempt 1", "flaky: attempt 2"]


class HoldsBack:
    """Gives nothing before the end of a stream, and then all of it in capitals."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}

    @hookimpl
    def transform_chunk(self, payload: TransformChunk) -> object:
        text = self.held.pop(payload.stream_id, "") + str(payload.value)
        if payload.is_last:
            return text.upper()
        self.held[payload.stream_id] = text
        return ""


async def test_chunk_transforms_may_hold_it_back_until_the_attempt_ends() -> None:
    seen = await items_of(Flujo(count, plugins=[HoldsBack()]), 2)
    assert seen == ["StepStarted", "count: 0 OF 21 OF 2", "StepEnded"]


class FailsAtTheEnd(HoldsBack):
    @hookimpl
    def transform_chunk(self, payload: TransformChunk) -> object:
        if payload.is_last:
            raise ValueError("no more")
        return ""


async def test_a_transform_that_fails_at_the_end_fails_the_step() -> None:
    async with Flujo(count, plugins=[FailsAtTheEnd()]).stream_async(1) as stream:
        async for _ in stream:
            pass
    assert stream.result.status == "failed"
    assert isinstance(stream.result.error, StepFailed)
    assert stream.result.error.error_type == "TransformFault"


class Masks:
    @hookimpl
    def transform_step_output(self, payload: TransformStepOutput) -> object:
        return UNCHANGED


async def test_what_only_a_transform_of_outputs_would_mask_is_not_shown() -> None:
    assert await items_of(Flujo(count, plugins=[Masks()]), 2) == ["StepStarted", "StepEnded"]


async def test_a_stream_yields_its_chunks_instead() -> None:
    async def words(text: str, ctx: RunContext) -> AsyncIterator[str]:
        await ctx.emit(text)
        yield text

    result = await Flujo(StreamStep((Stage.of("words", words),), name="words")).run_async("a")
    assert isinstance(result.error, StepFailed)
    assert "Yield the chunk" in str(result.error)


async def test_it_cannot_be_used_when_the_attempt_is_over() -> None:
    kept: list[RunContext] = []

    async def keep(value: int, ctx: RunContext) -> int:
        kept.append(ctx)
        return value

    await Flujo(Step(keep)).run_async(1)
    with pytest.raises(ConfigurationError, match="over"):
        await kept[0].emit("late")
