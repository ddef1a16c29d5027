"""A body that asks, or calls tools, and runs again: each answer and result goes to what it was given to."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flujo.core import (
    Flujo,
    MemoryStore,
    PauseForHumanInput,
    PipelineResult,
    RetryPolicy,
    RunContext,
    Snapshot,
    Step,
    ToolCall,
    ToolResult,
    step,
)

pytestmark = pytest.mark.anyio


def copied(result: PipelineResult) -> Snapshot:
    return Snapshot.model_validate_json(result.snapshot().model_dump_json())


async def test_an_answer_goes_to_the_question_it_was_given_to() -> None:
    got: dict[str, int] = {}

    @step(pauses=True)
    async def both(value: int, ctx: RunContext) -> int:
        async def one(question: str) -> None:
            got[question] = await ctx.ask(question, schema=int)

        async with anyio.create_task_group() as group:
            group.start_soon(one, "first?")
            group.start_soon(one, "second?")
        return value

    flujo = Flujo(both)
    result = await flujo.run_async(1)
    for _ in range(4):
        if result.status != "paused":
            break
        result = await flujo.resume_async(result, 1 if result.pauses[0].question == "first?" else 2)
    assert got == {"first?": 1, "second?": 2}


async def test_an_approval_is_not_used_for_another_question() -> None:
    amount = [100]

    @step(pauses=True)
    async def pay(value: int, ctx: RunContext) -> int:
        shown = amount[0]
        return shown if await ctx.ask(f"Pay {shown}?", schema=bool) else 0

    flujo = Flujo(pay)
    paused = await flujo.run_async(1)
    amount[0] = 200
    result = await flujo.resume_async(paused, True)
    assert result.status in ("paused", "failed")  # asked anew, or refused; never paid


async def test_a_tool_called_before_ask_is_not_called_again() -> None:
    calls: list[str] = []

    async def send(call: ToolCall) -> object:
        calls.append(call.name)
        return len(calls)

    @step(pauses=True)
    async def books(value: int, ctx: RunContext) -> int:
        await ctx.call_tool(ToolCall(name="reserve_seat", arguments={"seat": value}), send)
        return await ctx.ask("Keep it?", schema=int)  # type: ignore[no-any-return]

    flujo = Flujo(books)
    for through in (lambda result: result, copied):
        calls.clear()
        assert (await flujo.resume_async(through(await flujo.run_async(1)), 5)).output == 5
        assert calls == ["reserve_seat"]


async def test_a_tool_called_in_a_failed_attempt_is_not_called_again_by_the_next() -> None:
    calls: list[str] = []

    async def send(call: ToolCall) -> object:
        calls.append(call.name)
        return len(calls)

    @step(retry=RetryPolicy(max_attempts=2, backoff_s=0))
    async def flaky(value: int, ctx: RunContext) -> int:
        await ctx.call_tool(ToolCall(name="pay", arguments={"amount": value}), send)
        if ctx.attempt == 1:
            raise OSError("down")
        return value

    assert (await Flujo(flaky).run_async(1)).output == 1
    assert calls == ["pay"]


@pytest.mark.parametrize("whole", [False, True])
async def test_a_tool_result_carries_the_id_of_the_call_it_answers_recorded_or_not(whole: bool) -> None:
    ids: list[str] = []

    async def send(call: ToolCall) -> object:
        return ToolResult(content="ok", call_id="of the tool's own") if whole else "ok"

    @step(pauses=True)
    async def work(value: int, ctx: RunContext) -> int:
        call = ToolCall(name="look", arguments={}, id=f"id-{len(ids) + 1}")  # a model gives each call an id of its own
        ids.append((await ctx.call_tool(call, send)).call_id)
        return value + await ctx.ask("How many?", int)

    flujo = Flujo(work)
    assert (await flujo.resume_async(await flujo.run_async(1), 2)).unwrap() == 3
    assert ids == ["id-1", "id-2"]


@pytest.mark.parametrize("through", [lambda result: result, copied])
async def test_a_step_that_asked_in_a_later_attempt_goes_on_in_that_one_and_attempts_count_once(through: Any) -> None:
    seen: list[tuple[int, tuple[str, ...]]] = []

    def good(value: str) -> str | None:
        return None if value == "good" else f"{value} is not good"

    @step(pauses=True, retry=RetryPolicy(max_attempts=3, backoff_s=0), validators=[good])
    async def ask(value: int, ctx: RunContext) -> str:
        seen.append((ctx.attempt, ctx.feedback))
        ctx.usage.record(cost_usd="0.1")
        return str(await ctx.ask(f"Not {ctx.feedback[-1]}?", str)) if ctx.feedback else "bad"

    flujo = Flujo(ask)
    first = await flujo.run_async(1)
    second = await flujo.resume_async(through(first), "worse")
    assert seen == [(1, ()), *2 * [(2, ("bad is not good",))], (3, ("worse is not good",))]
    done = await flujo.resume_async(through(second), "awful")
    assert seen[4:] == [(3, ("worse is not good",))]  # the last one: a third question would be a fourth attempt
    assert (done.status, done.step_history[0].attempts, str(done.total_cost_usd)) == ("failed", 3, "0.5")
    await flujo.resume_async(through(done), retry=True)
    assert [attempt for attempt, _ in seen[5:]] == [1, 2, 3]  # from the beginning, as after any failure


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(("most", "ends"), [(3, "failed"), (4, "completed")])
async def test_a_decision_that_is_refused_is_the_attempt_that_asked(most: int, ends: str, kept: bool) -> None:
    """Begun anew, a step would make more attempts than its policy allows."""
    attempts: list[tuple[int, tuple[str, ...]]] = []

    async def large(value: int, ctx: RunContext) -> int:
        attempts.append((ctx.attempt, ctx.feedback))
        if ctx.attempt < 3:
            raise OSError("not yet")
        raise PauseForHumanInput("How many?", schema=int)

    def above_five(value: int) -> bool:
        return value > 5

    retry = RetryPolicy(max_attempts=most, backoff_s=0)
    asks = Step(large, retry=retry, validators=[above_five])
    flujo = Flujo(asks, store=MemoryStore() if kept else None)
    result = await flujo.run_async(1)
    result = await flujo.resume_async(result, 2)
    if ends == "completed":
        assert result.status == "paused"
        assert attempts[3] == (4, ("above_five said no",))
        result = await flujo.resume_async(result, 9)
    assert result.status == ends
    assert [number for number, _ in attempts] == list(range(1, most + 1))
    assert [(record.path, record.attempts) for record in result.step_history] == [("large", most)]
