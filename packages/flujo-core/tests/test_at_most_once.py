"""Work that may happen at most once: stopped in the middle, it is put to a human and never done again by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from flujo.core import (
    Flujo,
    Hold,
    InputError,
    MemoryStore,
    NotSent,
    Parallel,
    PauseForHumanInput,
    RetryPolicy,
    RunContext,
    Snapshot,
    Step,
    ToolCall,
    ToolResult,
    step,
)

pytestmark = pytest.mark.anyio


class Disks:
    """A store, and what a process finds in it that starts where another was killed in the middle of something."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.found: list[MemoryStore] = []

    def dies_here(self) -> None:
        self.found.append(self.store.reopened())


async def test_a_step_that_did_not_happen_is_done_again() -> None:
    disks = Disks()
    sent: list[Any] = []

    @step(effect="at_most_once")
    async def send(value: int) -> int:
        sent.append(value)
        disks.dies_here()
        return value

    await Flujo(send, store=disks.store).run_async(1, run_id="r")
    flujo = Flujo(send, store=disks.found[0])
    parked = await flujo.resume_async("r")
    assert [pause.id for pause in parked.pauses] == ["send"]
    again = await flujo.resume_async("r", {"happened": False})
    assert (again.unwrap(), sent) == (1, [1, 1])


async def test_the_output_that_a_human_reports_must_be_one_of_the_step() -> None:
    disks = Disks()

    @step(effect="at_most_once")
    async def send(value: int) -> int:
        disks.dies_here()
        return value

    await Flujo(send, store=disks.store).run_async(1, run_id="r")
    flujo = Flujo(send, store=disks.found[0])
    await flujo.resume_async("r")
    with pytest.raises(InputError):
        await flujo.resume_async("r", {"happened": True, "output": "seven"})
    with pytest.raises(InputError):
        await flujo.resume_async("r", "yes")
    assert (await flujo.resume_async("r", {"happened": True, "output": 7})).unwrap() == 7


async def test_it_is_asked_again_where_it_is_stopped_again() -> None:
    disks = Disks()
    sent: list[Any] = []

    def flujo(store: MemoryStore) -> Flujo:
        @step(effect="at_most_once")
        async def send(value: int) -> int:
            sent.append(value)
            if len(disks.found) < 2:
                disks.found.append(store.reopened())
            return value

        return Flujo(send, store=store)

    await flujo(disks.store).run_async(1, run_id="r")
    first = await flujo(disks.found[0]).resume_async("r")
    await flujo(disks.found[0]).resume_async("r", {"happened": False})
    second = await flujo(disks.found[1]).resume_async("r")
    assert first.pauses[0].id != second.pauses[0].id
    assert (await flujo(disks.found[1]).resume_async("r", {"happened": True, "output": 3})).unwrap() == 3
    assert sent == [1, 1]


def tool_user(disks: Disks, sent: list[str], *, dies: str) -> Callable[..., object]:
    async def use(value: int, ctx: RunContext) -> str:
        async def send(call: ToolCall) -> str:
            sent.append(call.name)
            if call.name == dies:
                disks.dies_here()
            return f"{call.name} done"

        for name in ("look", "pay", "tell"):
            effect = "at_most_once" if name == "pay" else "idempotent"
            answer = await ctx.call_tool(ToolCall(name=name, arguments={}), send, effect=effect)  # type: ignore[arg-type]
        return str(answer.content)

    return use


@pytest.mark.parametrize(
    ("happened", "calls"), [(True, ["look", "pay", "tell"]), (False, ["look", "pay", "pay", "tell"])]
)
async def test_a_tool_that_was_stopped_in_the_middle_is_put_to_a_human(happened: bool, calls: list[str]) -> None:
    disks = Disks()
    sent: list[Any] = []
    pipeline = Step(tool_user(disks, sent, dies="pay"), name="use")
    await Flujo(pipeline, store=disks.store).run_async(1, run_id="r")
    del sent[2:]  # the process was gone then
    flujo = Flujo(pipeline, store=disks.found[0])
    parked = await flujo.resume_async("r")
    assert (parked.status, sent) == ("paused", ["look", "pay"])
    assert "tool 'pay'" in parked.pauses[0].question
    done = await flujo.resume_async("r", {"happened": happened, "output": "paid"})
    assert (done.unwrap(), sent) == ("tell done", calls)


async def test_a_tool_that_may_be_called_again_is() -> None:
    disks = Disks()
    sent: list[Any] = []
    pipeline = Step(tool_user(disks, sent, dies="tell"), name="use")
    await Flujo(pipeline, store=disks.store).run_async(1, run_id="r")
    done = await Flujo(pipeline, store=disks.found[0]).resume_async("r")
    assert (done.unwrap(), sent) == ("tell done", ["look", "pay", "tell", "tell"])


async def test_a_call_of_unknown_end_is_not_made_again_by_a_retry_of_its_step() -> None:
    sent: list[str] = []

    async def send(call: ToolCall) -> str:
        sent.append(call.name)
        raise OSError("connection lost")

    @step(retry=RetryPolicy(max_attempts=3, backoff_s=0))
    async def use(value: int, ctx: RunContext) -> ToolResult:
        return await ctx.call_tool(ToolCall(name="pay", arguments={}), send, effect="at_most_once")

    flujo = Flujo(use)
    failed = await flujo.run_async(1)
    assert failed.status == "failed"
    assert "nobody knows how it ended" in str(failed.error)
    parked = await flujo.resume_async(failed, retry=True)
    assert (parked.status, sent) == ("paused", ["pay"])


async def test_a_call_that_was_surely_not_sent_is_made_again() -> None:
    sent: list[str] = []

    async def send(call: ToolCall) -> str:
        sent.append(call.name)
        if len(sent) == 1:
            raise NotSent("no connection")
        return "paid"

    @step(retry=RetryPolicy(max_attempts=2, backoff_s=0))
    async def use(value: int, ctx: RunContext) -> str:
        return str((await ctx.call_tool(ToolCall(name="pay", arguments={}), send, effect="at_most_once")).content)

    assert (await Flujo(use).run_async(1)).unwrap() == "paid"
    assert sent == ["pay", "pay"]


@pytest.mark.parametrize("kept", [True, False])
async def test_a_step_that_was_cancelled_in_the_middle_is_put_to_a_human_where_the_run_is_tried_again(
    kept: bool,
) -> None:
    started, sent = anyio.Event(), []

    @step(effect="at_most_once")
    async def send(value: int) -> int:
        sent.append(value)
        started.set()
        await anyio.sleep_forever()
        return value

    flujo = Flujo(send, store=MemoryStore() if kept else None)
    handle = flujo.start(1)
    await started.wait()
    handle.cancel()
    aborted = await handle.wait()
    parked = await flujo.resume_async(aborted.run_id if kept else aborted, retry=True)
    assert (parked.status, sent) == ("paused", [1])
    read = Snapshot.model_validate_json(parked.snapshot().model_dump_json())
    assert [pause.id for pause in read.pauses] == ["send"]
    target = parked.run_id if kept else read
    assert (await flujo.resume_async(target, {"happened": True, "output": 4})).unwrap() == 4


async def test_a_denied_attempt_was_no_beginning() -> None:
    @step(effect="at_most_once", when=lambda value: value > 0)
    async def send(value: int) -> int:
        raise ValueError("not now")

    flujo = Flujo(send)
    failed = await flujo.run_async(1)
    assert failed.status == "failed"
    again = await flujo.resume_async(failed, retry=True)  # it failed: its end is known, and a human wants it again
    assert again.status == "failed"


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("how", ["raised", "asked"])
async def test_a_step_that_came_as_far_as_its_question_has_it_answered(how: str, kept: bool) -> None:
    @step(effect="at_most_once", pauses=True)
    async def send(value: int, ctx: RunContext) -> int:
        if how == "raised":
            raise PauseForHumanInput("How many?", schema=int)
        answer: int = await ctx.ask("How many?", int)
        return answer

    flujo = Flujo(send, store=MemoryStore() if kept else None)
    paused = await flujo.run_async(1)
    assert [pause.question for pause in paused.pauses] == ["How many?"]
    assert (await flujo.resume_async(paused.run_id if kept else paused, 7)).unwrap() == 7


async def test_what_stands_beside_it_goes_on() -> None:
    disks, done = Disks(), []

    @step(effect="at_most_once")
    async def send(value: int) -> int:
        disks.dies_here()
        return value

    @step
    async def other(value: int) -> int:
        done.append(value)
        return value

    pipeline = Parallel(send, other)
    await Flujo(pipeline, store=disks.store).run_async(1, run_id="r")
    flujo = Flujo(pipeline, store=disks.found[0])
    parked = await flujo.resume_async("r")
    assert parked.status == "paused"
    assert (await flujo.resume_async("r", {"happened": True, "output": 9})).unwrap() == {"send": 9, "other": 1}


@pytest.mark.parametrize("kept", [True, False])
async def test_a_run_with_work_that_may_happen_at_most_once_can_be_replayed(kept: bool) -> None:
    @step(effect="at_most_once")
    async def send(value: int) -> int:
        return value

    flujo = Flujo(send, store=MemoryStore() if kept else None)
    result = await flujo.run_async(1)
    assert (await flujo.replay_async(result)).divergence is None


@pytest.mark.parametrize("happened", [True, False])
async def test_a_run_that_was_reconciled_can_be_replayed(happened: bool) -> None:
    store = MemoryStore()
    found: list[MemoryStore] = []

    @step(effect="at_most_once")
    async def send(value: int) -> int:
        found.append(store.reopened())
        return value

    await Flujo(send, store=store).run_async(1, run_id="r")
    flujo = Flujo(send, store=found[0])
    await flujo.resume_async("r")
    result = await flujo.resume_async("r", {"happened": happened, "output": 1})
    assert result.unwrap() == 1
    assert (await flujo.replay_async("r")).divergence is None


@pytest.mark.parametrize("happened", [True, False])
async def test_a_run_whose_tool_was_reconciled_can_be_replayed(happened: bool) -> None:
    store = MemoryStore()
    found: list[MemoryStore] = []

    async def send(call: ToolCall) -> str:
        found.append(store.reopened())
        return "x"

    @step
    async def use(value: int, ctx: RunContext) -> str:
        return str((await ctx.call_tool(ToolCall(name="t", arguments={}), send, effect="at_most_once")).content)

    first = await Flujo(use, store=store).run_async(1, run_id="r")
    assert (await Flujo(use, store=store).replay_async(first)).divergence is None
    flujo = Flujo(use, store=found[0])
    await flujo.resume_async("r")
    result = await flujo.resume_async("r", {"happened": happened, "output": "x"})
    assert result.unwrap() == "x"
    assert (await flujo.replay_async("r")).divergence is None


async def test_a_step_that_was_cut_off_by_its_timeout_is_put_to_a_human() -> None:
    sent: list[int] = []

    @step(effect="at_most_once", timeout_s=0.02)
    async def send(value: int) -> int:
        sent.append(value)
        if len(sent) == 1:
            await anyio.sleep(1)
        return value

    flujo = Flujo(send, store=MemoryStore())
    failed = await flujo.run_async(1, run_id="r")
    assert failed.status == "failed"
    again = await flujo.resume_async("r", retry=True)
    assert (again.status, sent) == ("paused", [1])


async def test_a_failed_step_that_may_happen_at_most_once_is_not_done_again_by_a_recovery() -> None:
    sent: list[int] = []
    found: list[MemoryStore] = []

    class Dies(MemoryStore):
        async def save(self, hold: Hold, snapshot: Snapshot) -> None:
            found.append(self.reopened())  # killed before the end is kept
            await super().save(hold, snapshot)

    @step(effect="at_most_once")
    async def send(value: int) -> int:
        sent.append(value)
        raise OSError("the connection was lost after it was sent")

    assert (await Flujo(send, store=Dies()).run_async(1, run_id="r")).status == "failed"
    [recovered] = await Flujo(send, store=found[0]).recover_async()
    assert (recovered.status, sent) == ("paused", [1])
