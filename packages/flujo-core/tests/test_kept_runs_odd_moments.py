"""Kept runs at odd moments: calls left behind, cancels of a claim, replays of what may happen at most once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from pydantic import BaseModel, ConfigDict

from flujo.core import (
    EntryData,
    Flujo,
    FlujoError,
    Hold,
    InputError,
    MemoryStore,
    OnRunEnd,
    Parallel,
    PauseForHumanInput,
    Policy,
    Receipt,
    RetryPolicy,
    RunContext,
    Snapshot,
    StepFailed,
    ToolCall,
    Update,
    step,
)

pytestmark = pytest.mark.anyio


@step(pauses=True)
async def ask(value: int) -> int:
    raise PauseForHumanInput("How many?", schema=int)


class Slow(MemoryStore):
    """Takes its time."""

    def __init__(self, seconds: float = 0.02) -> None:
        super().__init__()
        self.seconds = seconds

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        await anyio.sleep(self.seconds)
        await super().append(hold, rows)


async def test_a_tool_call_that_returns_after_its_run_ended_does_not_wait_for_ever() -> None:
    ended = anyio.Event()
    go = anyio.Event()

    async with anyio.create_task_group() as group:

        @step
        async def leaves(value: int, ctx: RunContext) -> int:
            started = anyio.Event()

            async def send(call: ToolCall) -> str:
                started.set()
                await go.wait()
                return "late"

            async def behind() -> None:
                await ctx.call_tool(ToolCall(name="t", arguments={}), send)
                ended.set()

            group.start_soon(behind)
            await started.wait()
            return value

        assert (await Flujo(leaves, store=MemoryStore()).run_async(1)).unwrap() == 1
        go.set()
        with anyio.move_on_after(0.5):
            await ended.wait()
        group.cancel_scope.cancel()
    assert ended.is_set()


async def test_a_snapshot_of_a_kept_run_that_paused_while_something_was_cancelled_can_be_used() -> None:
    @step
    async def fails(value: int) -> int:
        await anyio.sleep(0.05)
        raise ValueError("no")

    @step
    async def slow(value: int) -> int:
        await anyio.sleep(10)
        return value

    body = Parallel(fails, slow, name="both")
    pipeline = Parallel(ask, body, on_failure="collect", name="all")
    flujo = Flujo(pipeline, store=Slow())
    paused = await flujo.run_async(1, run_id="r")
    assert paused.status == "paused"
    read = Snapshot.model_validate_json(paused.snapshot().model_dump_json())
    assert (await flujo.resume_async(read, 5)).status == "completed"


async def test_a_snapshot_taken_by_an_observer_of_the_end_does_not_spoil_later_ones() -> None:
    @step
    async def work(value: int) -> int:
        return value + 1

    @step
    async def then(value: int) -> int:
        return value + 1

    async def look(payload: OnRunEnd) -> None:
        payload.result.snapshot()

    flujo = Flujo(work >> then, store=Slow(0.1), hooks=[look])
    result = await flujo.run_async(1, deadline_s=0.05)
    assert result.status == "aborted"
    read = Snapshot.model_validate_json(result.snapshot().model_dump_json())
    assert (await Flujo(work >> then).resume_async(read, retry=True, limits=None)).status in ("completed", "aborted")


async def test_a_question_that_is_shown_is_the_one_that_can_be_answered() -> None:
    @step(pauses=True)
    async def use(value: int, ctx: RunContext) -> str:
        async def send(call: ToolCall) -> str:
            raise OSError("lost")

        try:
            await ctx.call_tool(ToolCall(name="pay", arguments={}), send, effect="at_most_once")
        except Exception:
            return str(await ctx.ask("It went wrong. What now?", str))
        return "paid"

    flujo = Flujo(use, store=MemoryStore())
    paused = await flujo.run_async(1, run_id="r")
    assert [pause.question for pause in paused.pauses] == ["It went wrong. What now?"]
    again = await flujo.resume_async("r", "stop", pause=paused.pauses[0])
    assert again.status == "paused"  # and now it asks what became of the call


async def test_a_refused_decision_is_not_used_again_when_the_step_asks_in_another_way() -> None:
    seen: list[int] = []
    looked: list[int] = []

    def fits(output: int) -> bool:
        looked.append(output)
        return output < 10

    @step(pauses=True, retry=RetryPolicy(max_attempts=2), validators=[fits])
    async def odd(value: int, ctx: RunContext) -> int:
        if ctx.attempt == 1 and not seen:
            seen.append(1)
            raise PauseForHumanInput("How many?", int)
        return int(await ctx.ask("Less!", int))

    flujo = Flujo(odd, store=MemoryStore())
    await flujo.run_async(1, run_id="r")
    second = await flujo.resume_async("r", 50)
    assert second.status == "paused"
    third = await flujo.resume_async("r", 5)
    assert third.unwrap() == 5
    assert looked == [50, 5]


async def test_of_two_equal_calls_at_once_that_may_happen_at_most_once_one_is_sent() -> None:
    sent: list[str] = []
    told: list[str] = []

    @step
    async def use(value: int, ctx: RunContext) -> int:
        async def send(call: ToolCall) -> str:
            sent.append(call.name)
            await anyio.sleep(0.02)
            return "done"

        async def one() -> None:
            try:
                await ctx.call_tool(ToolCall(name="pay", arguments={}), send, effect="at_most_once")
                told.append("done")
            except StepFailed as error:  # where both went out, what came back of one hid that the other was under way
                told.append(error.error_type)

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(one)
        return value

    assert (await Flujo(use, store=Slow(0.01)).run_async(1)).unwrap() == 1
    assert (sent, sorted(told)) == (["pay"], ["NeedsReconcile", "done"])


async def test_one_damaged_run_does_not_stop_the_recovery_of_others() -> None:
    found: list[MemoryStore] = []
    store = MemoryStore()

    @step
    async def work(value: int) -> int:
        if value == 2:
            found.append(store.reopened())
        return value

    @step
    async def then(value: int) -> int:
        if value == 1:
            await anyio.sleep_forever()
        return value

    flujo = Flujo(work >> then, store=store)
    one = flujo.start(1, run_id="a")
    await anyio.sleep(0.02)
    await flujo.run_async(2, run_id="b")
    one.cancel()
    await one.wait()
    left = found[0]
    kept = left._runs["a"]
    kept.snapshot = kept.snapshot.model_copy(
        update={"checkpoint": kept.snapshot.checkpoint.model_copy(update={"frames": []})}
    )
    results = await Flujo(work >> then, store=left).recover_async()
    assert [result.run_id for result in results] == ["b"]


async def test_a_decision_that_cannot_be_written_is_refused_and_not_lost() -> None:
    @step(pauses=True)
    async def raises(value: int) -> Any:
        raise PauseForHumanInput("What?")

    flujo = Flujo(raises, store=MemoryStore())
    await flujo.run_async(1, run_id="r")
    with pytest.raises(InputError, match="tuple"):
        await flujo.resume_async("r", (1, 2))
    assert (await flujo.resume_async("r", [1, 2])).unwrap() == [1, 2]


@pytest.mark.parametrize("native", [True, False])
async def test_a_cancel_while_the_claim_is_written_leaves_a_run_that_can_go_on(
    native: bool, anyio_backend: str
) -> None:
    class Claims(MemoryStore):
        slow = False

        async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
            hold = await super().claim(position, stood, receipt, rows)
            if self.slow:
                claimed.set()
                await anyio.sleep(0.05)
            return hold

    claimed = anyio.Event()
    store = Claims()
    flujo = Flujo(ask, store=store)
    await flujo.run_async(1, run_id="r")
    store.slow = True
    if native and anyio_backend == "asyncio":  # only there are cancels of a task itself
        task = asyncio.create_task(flujo.resume_async("r", 5))
        await claimed.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(flujo.resume_async, "r", 5)
            await claimed.wait()
            group.cancel_scope.cancel()
    store.slow = False
    assert (await flujo.resume_async("r", 5)).unwrap() == 5


async def test_a_run_that_is_cancelled_while_it_is_created_is_not_recovered() -> None:
    class Creates(MemoryStore):
        async def create(self, snapshot: Snapshot) -> Hold:
            hold = await super().create(snapshot)
            await anyio.sleep(0.05)
            return hold

    @step
    async def work(value: int) -> int:
        return value

    store = Creates()
    flujo = Flujo(work, store=store)
    with anyio.move_on_after(0.01):
        await flujo.run_async(1, run_id="r")
    assert (await store.load("r")).snapshot.status == "aborted"
    assert await flujo.recover_async() == []  # nobody wants it any more
    assert (await flujo.resume_async("r", retry=True)).unwrap() == 1


async def test_a_store_that_hangs_when_a_run_is_created_or_claimed_does_not_hang_the_run() -> None:
    class Hangs(MemoryStore):
        on = False

        async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
            if self.on:
                await anyio.sleep(5)
            return await super().claim(position, stood, receipt, rows)

    store = Hangs()
    flujo = Flujo(ask, store=store, policy=Policy(write_timeout_s=0.05))
    await flujo.run_async(1, run_id="r")
    store.on = True
    with anyio.fail_after(1), pytest.raises(FlujoError):
        await flujo.resume_async("r", 5)


@pytest.mark.parametrize("stop", ["cancel", "interrupt"])
async def test_a_run_that_was_cancelled_from_outside_is_not_kept_as_one_that_asks(stop: str) -> None:
    @step
    async def work(value: int) -> int:
        if stop == "interrupt":
            raise KeyboardInterrupt
        scope.cancel()
        await anyio.sleep_forever()
        return value

    store, scope = MemoryStore(), anyio.CancelScope()
    if stop == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            await Flujo(work, store=store).run_async(1, run_id="r")
    else:
        with scope:
            await Flujo(work, store=store).run_async(1, run_id="r")
    assert (await store.load("r")).snapshot.status == "aborted"


class Notes(BaseModel):
    """What the run knows."""

    model_config = ConfigDict(frozen=True)
    number: int = 0


@pytest.mark.parametrize("watched", [False, True])
async def test_the_context_of_a_run_that_was_cut_while_the_store_wrote_has_what_its_history_has(watched: bool) -> None:
    @step(writes=("number",))
    async def write(value: int) -> Update[int]:
        return Update(value, number=1)

    @step
    async def then(value: int) -> int:
        return value

    seen: list[int] = []

    async def look(payload: OnRunEnd) -> None:
        assert isinstance(payload.result.context, Notes)
        seen.append(payload.result.context.number)

    flujo = Flujo(write >> then, store=Slow(0.1), context_model=Notes, hooks=[look] if watched else [])
    result = await flujo.run_async(1, deadline_s=0.05)
    assert [record.status for record in result.step_history] == ["completed"]
    assert isinstance(result.context, Notes)
    assert (result.context.number, seen) == (1, [1] if watched else [])
