"""Agents that are read while their model answers: on a real server, and on scripted models for what it cannot do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Literal

import pytest
from pydantic import BaseModel, Field
from pydantic_ai.models.function import DeltaThinkingPart, DeltaToolCall, FunctionModel

from flujo.agent import agent
from flujo.core import (
    Budget,
    Chunk,
    Deny,
    Flujo,
    GuardModelCall,
    OnModelCall,
    Price,
    RecordResult,
    Stage,
    StreamStep,
    TransformChunk,
    UsageLimits,
    hookimpl,
)

FREE = Price()
ONE_A_TOKEN = Price(input_usd="0.001", output_usd="0.001")


def streamed(talker) -> StreamStep:
    return StreamStep((Stage.of(talker.name, talker.stream),), name=talker.name)


async def read(flujo: Flujo, given: str = "hello") -> tuple[list[str], object]:
    async with flujo.stream_async(given) as stream:
        chunks = [item.value async for item in stream if isinstance(item, Chunk)]
    return chunks, stream.result


def test_check_22_the_servers_tokens_are_counted_over_50_concurrent_streams(server):
    budget = Budget(UsageLimits(total_cost_usd_limit=1000, total_tokens_limit=10**6))
    talker = agent("openai:tiny", base_url=server.base_url, max_tokens=30, price=ONE_A_TOKEN)
    flujo = Flujo(streamed(talker), limits=budget)

    async def main():
        return await asyncio.gather(*(read(flujo, f"call number {number}") for number in range(50)))

    before = server.counted()
    ends = asyncio.run(main())
    after = server.counted()
    sent, received = after[0] - before[0], after[1] - before[1]
    assert [result.status for _, result in ends] == ["completed"] * 50
    assert sum(len(chunks) for chunks, _ in ends) > 250  # some of its babble ends at once
    assert all("".join(chunks) == result.output for chunks, result in ends)
    assert sum(result.usage.input_tokens for _, result in ends) == sent
    assert sum(result.usage.output_tokens for _, result in ends) == received
    assert sum(result.usage.unmeasured for _, result in ends) == 0


def test_check_22_leaving_early_frees_the_servers_slot(server):
    talker = agent("openai:tiny", base_url=server.base_url, max_tokens=3000, price=FREE)
    flujo = Flujo(streamed(talker))

    async def main():
        before = server.counted()
        async with flujo.stream_async("talk without end") as stream:
            count = 0
            async for _ in stream.text():
                count += 1
                if count == 5:
                    break
        assert stream.result.status == "aborted"
        started = time.monotonic()
        _, result = await read(Flujo(streamed(agent("openai:tiny", base_url=server.base_url, max_tokens=3))))
        assert result.status == "completed"
        assert time.monotonic() - started < 30
        assert server.counted()[1] - before[1] < 2000  # it did not talk on to the end

    asyncio.run(main())


class Ticket(BaseModel, extra="forbid"):
    """Bounded in each field: random weights close no string by themselves, and end no list."""

    kind: Literal["bug", "plan", "question"]
    is_urgent: bool
    points: int = Field(ge=1, le=13)
    title: str = Field(max_length=12)


def test_check_22_20_of_20_streamed_answers_fit_their_schema(server):
    clerk = agent(
        "openai:tiny",
        base_url=server.base_url,
        output_type=Ticket,
        output_mode="native",
        repairs=0,
        max_tokens=300,
        price=FREE,
    )
    flujo = Flujo(streamed(clerk))

    async def main():
        return await asyncio.gather(*(read(flujo, f"case number {number}") for number in range(20)))

    before = server.at_rest()
    ends = asyncio.run(main())
    received = server.counted()[1] - before[1]
    assert [result.status for _, result in ends] == ["completed"] * 20
    tickets = [Ticket.model_validate_json("".join(chunks), strict=True) for chunks, _ in ends]
    assert len(tickets) == 20
    assert min(len(chunks) for chunks, _ in ends) > 5  # they came in pieces
    assert all("".join(chunks) == result.output for chunks, result in ends)
    assert sum(result.usage.requests for _, result in ends) == 20
    assert sum(result.usage.output_tokens for _, result in ends) == received < 20 * 300  # none ran into its bound


def test_check_22_an_answer_that_no_bound_ends_fails_at_max_tokens(server):
    class Open(BaseModel):
        title: str = Field(min_length=400)

    talker = agent(
        "openai:tiny", base_url=server.base_url, output_type=Open, output_mode="native", max_tokens=50, price=FREE
    )
    chunks, result = asyncio.run(read(Flujo(streamed(talker))))
    assert result.status == "failed"
    assert "".join(chunks).startswith("{")
    assert result.usage.output_tokens == 50


def test_a_limit_clamps_what_the_server_may_give(server):
    talker = agent("openai:tiny", base_url=server.base_url, max_tokens=500, price=FREE)
    _, result = asyncio.run(read(Flujo(streamed(talker), limits=UsageLimits(total_tokens_limit=200))))
    assert result.status == "completed"
    assert result.usage.total_tokens <= 200
    assert result.usage.unmeasured == 0


class Watching:
    def __init__(self):
        self.calls, self.results, self.pieces = [], [], 0

    @hookimpl
    def on_model_call(self, payload: OnModelCall):
        self.calls.append(payload.response.content)

    @hookimpl
    def record_result(self, payload: RecordResult):
        if payload.kind == "model_call":
            self.results.append(payload.status)

    @hookimpl
    def transform_chunk(self, payload: TransformChunk):
        if payload.surface != "model":
            return payload.value
        self.pieces += 1
        return payload.value.upper()


def test_transforms_and_records_act_on_what_pydantic_ai_streams(server):
    watching = Watching()
    talker = agent("openai:tiny", base_url=server.base_url, max_tokens=20, price=FREE)
    chunks, result = asyncio.run(read(Flujo(streamed(talker), plugins=[watching])))
    text = "".join(chunks)
    assert text == text.upper() == result.output
    assert watching.calls == [text]
    assert watching.results == ["completed"]
    assert watching.pieces > 5


def test_a_guard_stops_it_before_the_server_is_asked(server):
    class No:
        @hookimpl
        def guard_model_call(self, payload: GuardModelCall):
            return Deny("no")

    before = server.counted()
    chunks, result = asyncio.run(read(Flujo(streamed(agent("openai:tiny", base_url=server.base_url)), plugins=[No()])))
    assert (chunks, result.status) == ([], "aborted")
    assert server.counted() == before


def test_tools_run_between_what_is_streamed():
    asked = []

    def look(place: str) -> str:
        asked.append(place)
        return f"it rains in {place}"

    async def answers(messages, info) -> AsyncIterator[object]:
        if len(messages) == 1:
            yield "Let me see. "
            yield {1: DeltaToolCall(name="look", json_args='{"place": "Bo')}
            yield {1: DeltaToolCall(json_args='nn"}')}
        else:
            yield "It "
            yield "rains."

    talker = agent(FunctionModel(stream_function=answers), tools=[look], name="weather", price=FREE)
    chunks, result = asyncio.run(read(Flujo(streamed(talker))))
    assert result.error is None
    assert asked == ["Bonn"]
    assert "".join(chunks) == "Let me see. It rains."


@pytest.mark.parametrize("kind", ["tool call", "thinking"])
def test_check_8_a_limit_stops_what_is_not_shown(kind):
    given = []

    async def answers(messages, info) -> AsyncIterator[object]:
        if kind == "tool call":
            yield {0: DeltaToolCall(name="look", json_args='{"place": "')}
        while len(given) < 5000:
            given.append(1)
            yield {0: DeltaToolCall(json_args="x") if kind == "tool call" else DeltaThinkingPart(content="hm ")}

    def look(place: str) -> str:
        return place

    limits = UsageLimits(total_tokens_limit=400)
    talker = agent(FunctionModel(stream_function=answers), tools=[look], name="weather", price=FREE)
    chunks, result = asyncio.run(read(Flujo(streamed(talker), limits=limits)))
    assert (chunks, result.status) == ([], "stopped")
    assert len(given) < 500


class Verdict(BaseModel):
    good: bool


def test_a_typed_answer_is_streamed_as_json():
    async def answers(messages, info) -> AsyncIterator[object]:
        yield {0: DeltaToolCall(name=info.output_tools[0].name, json_args='{"good": tr')}
        yield {0: DeltaToolCall(json_args="ue}")}

    talker = agent(FunctionModel(stream_function=answers), output_type=Verdict, name="judge", price=FREE)
    chunks, result = asyncio.run(read(Flujo(streamed(talker))))
    assert result.error is None
    assert Verdict.model_validate_json("".join(chunks)) == Verdict(good=True)


@pytest.mark.parametrize("mode", ["native", "prompted"])
def test_a_refused_answer_that_its_reader_has_is_no_half_of_the_next(mode):
    async def answers(messages, info) -> AsyncIterator[str]:
        for piece in ('{"good":', " 7}") if len(messages) == 1 else ('{"good":', " true}"):
            yield piece

    talker = agent(
        FunctionModel(stream_function=answers), output_type=Verdict, output_mode=mode, name="judge", price=FREE
    )
    chunks, result = asyncio.run(read(Flujo(streamed(talker))))
    assert chunks == ['{"good":', " 7}"]
    assert result.status == "failed"
    assert "its reader has been given it" in str(result.error)


def test_what_is_said_beside_a_typed_answer_is_no_part_of_it():
    async def answers(messages, info) -> AsyncIterator[object]:
        yield "Let me judge. "
        good = "7" if len(messages) == 1 else "true"  # the first is refused, and nobody was given it
        yield {1: DeltaToolCall(name=info.output_tools[0].name, json_args=f'{{"good": {good}}}')}

    talker = agent(FunctionModel(stream_function=answers), output_type=Verdict, name="judge", price=FREE)
    chunks, result = asyncio.run(read(Flujo(streamed(talker))))
    assert result.error is None
    assert chunks == ['{"good":true}']


def test_what_is_said_before_tools_is_followed_by_what_is_said_after_them():
    def look(place: str) -> str:
        return f"it rains in {place}"

    async def answers(messages, info) -> AsyncIterator[object]:
        yield f"{len(messages)} "
        if len(messages) == 1:
            yield {1: DeltaToolCall(name="look", json_args='{"place": 7')}  # refused, too: it is no JSON
        elif len(messages) == 3:
            yield {1: DeltaToolCall(name="look", json_args='{"place": "Bonn"}')}

    talker = agent(FunctionModel(stream_function=answers), tools=[look], name="weather", price=FREE)
    chunks, result = asyncio.run(read(Flujo(streamed(talker))))
    assert result.error is None
    assert chunks == ["1 ", "3 ", "5 "]


def test_two_agents_of_one_chain_are_each_under_their_own_step():
    seen = []

    def speaking(word: str) -> FunctionModel:
        async def answers(messages, info) -> AsyncIterator[str]:
            for _ in range(3):
                yield word

        return FunctionModel(stream_function=answers)

    class Look:
        @hookimpl
        def guard_model_call(self, payload: GuardModelCall):
            seen.append(payload.step_path)
            from flujo.core import Allow

            return Allow()

    first = streamed(agent(speaking("a"), name="first", price=FREE))
    second = streamed(agent(speaking("b"), name="second", price=FREE))
    chunks, result = asyncio.run(read(Flujo(first >> second, plugins=[Look()])))
    assert result.error is None
    assert chunks == ["a", "a", "a", "b", "b", "b"]
    assert seen == ["first", "second"]


@pytest.mark.parametrize("number", [1, 5])
def test_a_reader_that_leaves_ends_the_agent(number):
    ended = []

    async def answers(messages, info) -> AsyncIterator[str]:
        try:
            while True:
                await asyncio.sleep(0.001)
                yield "a"
        finally:
            ended.append(1)

    talker = agent(FunctionModel(stream_function=answers), name="endless", price=FREE)

    async def main():
        async with Flujo(streamed(talker)).stream_async("x") as stream:
            count = 0
            async for _ in stream.text():
                count += 1
                if count == number:
                    break
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        return stream.result, left

    result, left = asyncio.run(main())
    assert ended == [1]
    assert result.status == "aborted"
    assert left == []
