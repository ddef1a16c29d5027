"""Calls that a step left behind in a task of its own: what comes back after its end is no part of its run."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from flujo.core import (
    AbortPipeline,
    Allow,
    Flujo,
    GuardToolCall,
    MemoryStore,
    OnToolCall,
    PauseForHumanInput,
    PipelineResult,
    RetryPolicy,
    RunContext,
    Snapshot,
    ToolCall,
    ToolResult,
    hookimpl,
    step,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Left:
    """A step that ends in one way or another while a call of its is under way, and that call."""

    def __init__(self, ends: str, effect: Any = "idempotent", **options: Any) -> None:
        self.go = anyio.Event()
        self.sent: list[str] = []
        self.tasks: list[asyncio.Task[ToolResult]] = []

        async def send(call: ToolCall) -> str:
            self.sent.append(call.name)
            await self.go.wait()
            return "ok"

        @step(pauses=True)
        async def leave(value: int, ctx: RunContext) -> int:
            call = ToolCall(name="slow", arguments={})
            if not self.tasks:
                self.tasks.append(asyncio.ensure_future(ctx.call_tool(call, send, effect=effect)))
                await asyncio.sleep(0.01)
            if ends == "raises a question":
                raise PauseForHumanInput("How many?", schema=int)
            if ends == "asks":
                return value + int(await ctx.ask("How many?", int))
            if ends == "fails":
                raise OSError("down")
            return value

        self.flujo = Flujo(leave, **options)

    async def comes_back(self) -> None:
        self.go.set()
        _, pending = await asyncio.wait(self.tasks, timeout=5)
        assert not pending


def whole(result: PipelineResult) -> Snapshot:
    return Snapshot.model_validate_json(result.snapshot().model_dump_json())


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("ends", ["raises a question", "asks", "fails", "completes"])
async def test_a_call_that_comes_back_after_its_run_changes_nothing_of_it(ends: str, kept: bool) -> None:
    left = Left(ends, store=MemoryStore() if kept else None)
    result = await left.flujo.run_async(1)
    before = whole(result)
    await left.comes_back()
    after = whole(result)
    assert (after.journal, after.pauses, after.checkpoint) == (before.journal, before.pauses, before.checkpoint)
    if result.pauses:
        assert (await left.flujo.resume_async(result.run_id if kept else after, 7)).status == "completed"
    else:
        assert (await left.flujo.replay_async(after)).divergence is None


async def test_an_observer_of_a_call_that_comes_back_late_does_not_change_how_its_run_ended() -> None:
    def stop(event: OnToolCall) -> None:
        raise AbortPipeline("enough")

    left = Left("completes", hooks=[stop])
    result = await left.flujo.run_async(1)
    await left.comes_back()
    assert (result.status, whole(result).status) == ("completed", "completed")


async def test_a_call_of_an_earlier_attempt_is_found_by_a_later_one_of_the_same_visit() -> None:
    sent: list[int] = []
    attempts: list[int] = []

    async def send(call: ToolCall) -> str:
        sent.append(len(attempts))
        await anyio.sleep(0.01)
        return "ok"

    @step(retry=RetryPolicy(max_attempts=2, backoff_s=0.05, jitter=0))
    async def work(value: int, ctx: RunContext) -> int:
        attempts.append(value)
        charge = ctx.call_tool(ToolCall(name="charge", arguments={}), send)
        if len(attempts) == 1:
            left.append(asyncio.ensure_future(charge))
            await asyncio.sleep(0)
            raise OSError("the other of two calls failed")
        await charge
        return value

    left: list[asyncio.Task[ToolResult]] = []
    assert (await Flujo(work).run_async(1)).unwrap() == 1
    assert sent == [1]


@pytest.mark.parametrize("kept", [False, True])
async def test_a_call_that_may_happen_at_most_once_and_was_left_behind_at_a_question_is_put_to_a_human_first(
    kept: bool,
) -> None:
    left = Left("raises a question", "at_most_once", store=MemoryStore() if kept else None)
    parked = await left.flujo.run_async(1)
    await left.comes_back()
    assert [pause.id for pause in parked.pauses] == ["leave"]
    assert "How many?" not in parked.pauses[0].question
    target = parked.run_id if kept else whole(parked)
    asked = await left.flujo.resume_async(target, {"happened": True, "output": "ok"})
    assert [pause.question for pause in asked.pauses] == ["How many?"]
    assert (await left.flujo.resume_async(asked.run_id if kept else whole(asked), 7)).unwrap() == 7


async def test_a_call_that_a_guard_held_back_until_its_step_had_ended_is_not_sent_where_it_may_happen_once() -> None:
    class Slow:
        @hookimpl
        async def guard_tool_call(self, payload: GuardToolCall) -> Allow:
            await anyio.sleep(0.05)
            return Allow()

    left = Left("completes", "at_most_once", plugins=[Slow()])
    assert (await left.flujo.run_async(1)).unwrap() == 1
    await left.comes_back()
    assert left.sent == []
    assert "is over" in str(left.tasks[0].exception())
