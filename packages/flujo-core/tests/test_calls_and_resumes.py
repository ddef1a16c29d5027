"""Tool calls, hooks, recorders and limits over failures, pauses, resumes and cancels."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from pydantic import BaseModel, ConfigDict

from flujo.core import (
    AbortPipeline,
    Allow,
    Deny,
    EntryData,
    Flujo,
    GuardToolCall,
    Hold,
    MemoryStore,
    OnRetry,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    PostStepExecution,
    RecordIntent,
    RecordResult,
    ResumeConflict,
    RetryPolicy,
    RunContext,
    ToolCall,
    ToolResult,
    TransformStepOutput,
    Update,
    UsageLimits,
    hookimpl,
    step,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- tools ------------------------------------------------------------------------------------------------------------


async def test_a_tool_that_was_called_is_not_called_again_where_a_guard_stopped_the_step_after_it() -> None:
    sent: list[str] = []
    refuse = [True]

    class Guard:
        @hookimpl
        def guard_tool_call(self, payload: GuardToolCall) -> Allow | Deny:
            return Deny("not now") if payload.call.name == "mail" and refuse[0] else Allow()

    async def send(call: ToolCall) -> str:
        sent.append(call.name)
        return "ok"

    @step
    async def pay(value: int, ctx: RunContext) -> int:
        await ctx.call_tool(ToolCall(name="charge", arguments={}), send)
        await ctx.call_tool(ToolCall(name="mail", arguments={}), send)
        return value

    flujo = Flujo(pay, plugins=[Guard()])
    denied = await flujo.run_async(1)
    assert denied.status == "aborted"
    refuse[0] = False
    assert (await flujo.resume_async(denied, retry=True)).unwrap() == 1
    assert sent == ["charge", "mail"]


async def test_a_recorded_tool_result_answers_the_call_that_was_made() -> None:
    ids: list[str] = []
    number = [0]

    async def send(call: ToolCall) -> str:
        return "ok"

    @step(pauses=True)
    async def work(value: int, ctx: RunContext) -> int:
        number[0] += 1  # a model gives each call an id of its own
        call = ToolCall(name="look", arguments={}, id=f"id-{number[0]}")
        ids.append((await ctx.call_tool(call, send)).call_id)
        return value + await ctx.ask("How many?", int)

    flujo = Flujo(work)
    paused = await flujo.run_async(1)
    assert (await flujo.resume_async(paused, 2)).unwrap() == 3
    assert ids == ["id-1", "id-2"]


async def test_a_tool_call_that_outlives_its_step_does_not_spoil_the_run() -> None:
    tasks: list[asyncio.Task[ToolResult]] = []
    go = anyio.Event()

    async def send(call: ToolCall) -> str:
        await go.wait()
        return "ok"

    @step
    async def spawn(value: int, ctx: RunContext) -> int:
        tasks.append(asyncio.ensure_future(ctx.call_tool(ToolCall(name="slow", arguments={}), send)))
        await asyncio.sleep(0)
        return value

    @step
    async def wait(value: int) -> int:
        go.set()
        await asyncio.wait(tasks)
        return value

    @step(pauses=True)
    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    flujo = Flujo(spawn >> wait >> ask)
    paused = await flujo.run_async(1)
    assert paused.status == "paused"
    assert (await flujo.resume_async(paused, 7)).unwrap() == 7


# --- intents and results ----------------------------------------------------------------------------------------------


class Recorder:
    def __init__(self) -> None:
        self.intents: list[tuple[str, str]] = []
        self.results: list[tuple[str, str, str]] = []

    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None:
        self.intents.append((payload.kind, payload.record_id))

    @hookimpl
    def record_result(self, payload: RecordResult) -> None:
        self.results.append((payload.kind, payload.record_id, payload.status))


async def test_record_ids_are_unique_in_a_run_over_a_resume() -> None:
    recorder = Recorder()

    async def send(call: ToolCall) -> str:
        return "ok"

    @step(pauses=True)
    async def work(value: int, ctx: RunContext) -> int:
        await ctx.call_tool(ToolCall(name="before", arguments={}), send)
        answer = await ctx.ask("How many?", int)
        await ctx.call_tool(ToolCall(name="after", arguments={}), send)
        return int(answer)

    flujo = Flujo(work, plugins=[recorder])
    paused = await flujo.run_async(1)
    assert (await flujo.resume_async(paused, 2)).unwrap() == 2
    ids = [record_id for kind, record_id in recorder.intents if kind == "tool_call"]
    assert len(set(ids)) == 2


async def test_a_tool_call_has_its_result_recorded_where_the_store_cannot_write_it() -> None:
    recorder = Recorder()

    class Full(MemoryStore):
        async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
            if any(row.kind == "called" for row in rows):
                raise OSError("disk full")
            await super().append(hold, rows)

    async def send(call: ToolCall) -> str:
        return "ok"

    @step
    async def work(value: int, ctx: RunContext) -> int:
        await ctx.call_tool(ToolCall(name="pay", arguments={}), send)
        return value

    await Flujo(work, plugins=[recorder], store=Full()).run_async(1)
    assert Counter(recorder.intents) == Counter((kind, record_id) for kind, record_id, _ in recorder.results)


async def test_a_recorder_that_returns_an_awaitable_is_awaited_or_refused() -> None:
    class Audit:
        def __init__(self) -> None:
            self.written: list[str] = []

        async def _write(self, line: str) -> None:
            self.written.append(line)

        @hookimpl
        def record_intent(self, payload: RecordIntent) -> object:
            return self._write(payload.record_id)  # no `async def`, as a decorator or a short method makes it

    audit = Audit()
    ran: list[int] = []

    @step
    async def work(value: int) -> int:
        ran.append(value)
        return value

    await Flujo(work, plugins=[audit]).run_async(1)
    assert audit.written or not ran


async def test_a_cancel_while_the_end_is_recorded_comes_too_late_to_change_it() -> None:
    handles: list[Any] = []
    recorded: list[str] = []

    class Recorder:
        @hookimpl
        async def record_result(self, payload: RecordResult) -> None:
            if payload.kind == "run":
                recorded.append(payload.status)
                handles[0].cancel()

    @step
    async def work(value: int) -> int:
        return value

    handles.append(Flujo(work, plugins=[Recorder()]).start(1))
    result = await handles[0].wait()
    assert [result.status] == recorded


# --- cancels ----------------------------------------------------------------------------------------------------------


async def test_a_cancel_after_the_end_changes_nothing() -> None:
    @step
    async def work(value: int) -> int:
        return value

    handle = Flujo(work).start(1)
    result = await handle.wait()
    handle.cancel()
    assert (result.status, result.snapshot().status) == ("completed", "completed")


async def test_a_flujo_closed_after_an_error_leaves_runs_that_had_completed_as_they_are() -> None:
    @step
    async def work(value: int) -> int:
        return value

    flujo = Flujo(work)
    await flujo.__aenter__()
    result = await flujo.start(1).wait()
    await flujo.__aexit__(KeyError, KeyError("something else"), None)
    assert result.snapshot().status == "completed"


async def test_an_abort_in_on_retry_does_not_wait_for_the_retry() -> None:
    def stop(event: OnRetry) -> None:
        raise AbortPipeline("enough")

    @step(retry=RetryPolicy(backoff_s=30, jitter=0))
    async def bad(value: int) -> int:
        raise OSError("down")

    with anyio.fail_after(5):
        result = await Flujo(bad, hooks=[stop]).run_async(1)
    assert result.status == "aborted"


# --- limits and decisions ---------------------------------------------------------------------------------------------


async def test_limits_of_a_step_span_its_pause() -> None:
    @step(pauses=True, limits=UsageLimits(total_cost_usd_limit=1))
    async def work(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.8") as lease:
            lease.settle(cost_usd="0.8")
        return value + await ctx.ask("How many?", int)

    flujo = Flujo(work)
    paused = await flujo.run_async(1)
    result = await flujo.resume_async(paused, 2)
    assert (result.status, str(result.usage.cost_usd)) == ("stopped", "0.8")


async def test_a_decision_passes_the_output_transforms_of_its_step() -> None:
    class Mask:
        @hookimpl
        def transform_step_output(self, payload: TransformStepOutput) -> object:
            return "[NAME]"

    @step(pauses=True)
    async def ask(value: int) -> str:
        raise PauseForHumanInput("Who?", schema=str)

    flujo = Flujo(ask, plugins=[Mask()])
    paused = await flujo.run_async(1)
    assert (await flujo.resume_async(paused, "Ann Smith")).unwrap() == "[NAME]"


async def test_a_decision_that_a_validator_of_its_step_refuses_is_refused() -> None:
    def even(value: int) -> bool:
        return value % 2 == 0

    @step(pauses=True, validators=[even])
    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    flujo = Flujo(ask)
    paused = await flujo.run_async(1)
    with pytest.raises(Exception, match="even"):
        (await flujo.resume_async(paused, 3)).unwrap()


async def test_a_cancelled_run_keeps_the_context_it_came_to() -> None:
    class Notes(BaseModel):
        model_config = ConfigDict(frozen=True)
        note: str = ""

    started = anyio.Event()

    @step(writes=("note",))
    async def write(value: int) -> Update[int]:
        return Update(value, note="kept")

    @step
    async def wait(value: int) -> int:
        started.set()
        await anyio.sleep_forever()
        return value

    handle = Flujo(write >> wait, context_model=Notes).start(1)
    await started.wait()
    handle.cancel()
    result = await handle.wait()
    assert result.context == Notes(note="kept")


async def test_a_decision_is_not_lost_where_its_run_is_cancelled_before_its_step_ends() -> None:
    reached = anyio.Event()

    class Slow:
        @hookimpl
        async def transform_step_output(self, payload: TransformStepOutput) -> object:
            reached.set()
            await anyio.sleep_forever()

    @step(pauses=True)
    async def ask(value: int) -> str:
        raise PauseForHumanInput("Who?", schema=str)

    store = MemoryStore()
    await Flujo(ask, store=store).run_async(1, run_id="r")
    task = asyncio.ensure_future(Flujo(ask, store=store, plugins=[Slow()]).resume_async("r", "Ann"))
    await reached.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    with pytest.raises(ResumeConflict):
        await Flujo(ask, store=store).resume_async("r", "Bob")
    assert (await Flujo(ask, store=store).resume_async("r", retry=True)).unwrap() == "Ann"


async def test_a_validator_that_refuses_a_decision_has_the_question_asked_anew() -> None:
    asked: list[tuple[str, ...]] = []

    def even(value: int) -> str | None:
        return None if value % 2 == 0 else f"{value} is odd"

    @step(pauses=True, validators=[even], retry=RetryPolicy(max_attempts=2, backoff_s=0))
    async def ask(value: int, ctx: RunContext) -> int:
        asked.append(ctx.feedback)
        raise PauseForHumanInput("How many?", schema=int)

    flujo = Flujo(ask, store=MemoryStore())
    paused = await flujo.run_async(1, run_id="r")
    again = await flujo.resume_async("r", 3)
    assert again.status == "paused"
    assert asked == [(), ("3 is odd",)]
    assert again.pauses[0].id != paused.pauses[0].id  # the token of the first is used up
    assert (await flujo.resume_async("r", 4)).unwrap() == 4


async def test_a_step_whose_question_was_decided_is_not_asked_again_whether_it_is_wanted() -> None:
    wanted = [True]

    @step(pauses=True, when=lambda value: wanted[0])
    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    flujo = Flujo(ask)
    paused = await flujo.run_async(1)
    wanted[0] = False
    assert (await flujo.resume_async(paused, 7)).unwrap() == 7


async def test_the_hooks_of_a_step_hear_of_its_end_by_a_decision() -> None:
    heard: list[tuple[str, str, object]] = []

    def after(event: PostStepExecution) -> None:
        heard.append((event.step_path, event.record.status, event.record.output))

    @step(pauses=True)
    async def ask(value: int) -> str:
        raise PauseForHumanInput("Who?", schema=str)

    flujo = Flujo(ask, hooks=[after])
    done = await flujo.resume_async(await flujo.run_async(1), "Ann")
    assert heard == [("ask", "completed", "Ann")]
    assert [(record.path, record.status) for record in done.step_history] == [("ask", "completed")]


async def test_what_steps_and_pipelines_spent_counts_under_their_limits_after_a_crash() -> None:
    disks: list[MemoryStore] = []
    store = MemoryStore()
    limits = UsageLimits(total_cost_usd_limit=1)

    @step(limits=limits, retry=RetryPolicy(max_attempts=2, backoff_s=0))
    async def pay(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.8") as lease:
            lease.settle(cost_usd="0.8")
        answer: int = await ctx.ask("How many?", int)
        return answer

    @step
    async def between(value: int) -> int:
        disks.append(store.reopened())
        return value

    def flujo(kept: MemoryStore) -> Flujo:
        return Flujo(Pipeline(Parallel(pay, between), name="inner", limits=limits), store=kept)

    assert (await flujo(store).run_async(1, run_id="r")).status == "paused"
    late = await flujo(store.reopened()).resume_async("r", 2)  # from where it stood
    assert (late.status, str(late.usage.cost_usd)) == ("stopped", "0.8")
