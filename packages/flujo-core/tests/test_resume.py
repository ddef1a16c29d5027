"""Resume: who may, how often, and what a run that failed or was stopped needs to go on."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from flujo.core import (
    AbortPipeline,
    AlreadyResumed,
    AmbiguousPause,
    Budget,
    ConfigurationError,
    Flujo,
    FlujoError,
    Loop,
    Map,
    MemoryStore,
    Parallel,
    PauseForHumanInput,
    PipelineResult,
    PostStepExecution,
    ResumeConflict,
    ResumeError,
    RunAborted,
    RunContext,
    Snapshot,
    Step,
    UsageLimitExceeded,
    UsageLimits,
    step,
)

pytestmark = pytest.mark.anyio

effects: list[object] = []


@step
async def effect(value: int) -> int:
    effects.append(value)
    return value


@step(pauses=True)
async def ask(value: int) -> int:
    raise PauseForHumanInput("How many?", schema=int)


def copied(result: PipelineResult) -> Snapshot:
    return Snapshot.model_validate_json(result.snapshot().model_dump_json())


# --- which pause ------------------------------------------------------------------------------------------------------


async def test_with_several_open_pauses_one_must_be_named() -> None:
    flujo = Flujo(Parallel(Step(ask, name="a"), Step(ask, name="b")))
    paused = await flujo.run_async(1)
    with pytest.raises(AmbiguousPause) as unclear:
        await flujo.resume_async(paused, 5)
    for pause in paused.pauses:
        assert pause.step_path in str(unclear.value)
    for unknown in ("no such pause", paused.pauses[0].id + "x"):
        with pytest.raises(ResumeError, match="does not wait for"):
            await flujo.resume_async(paused, 5, pause=unknown)
    half = await flujo.resume_async(paused, 5, pause=paused.pauses[0])
    assert (await flujo.resume_async(half, 6)).output == {"a": 5, "b": 6}


# --- once -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["result", "snapshot"])
async def test_a_pause_is_decided_once_in_a_process(by: str) -> None:
    effects.clear()
    flujo = Flujo(ask >> effect)
    paused = await flujo.run_async(1)
    targets: Any = (paused, paused, paused) if by == "result" else (copied(paused), copied(paused), copied(paused))
    result = await flujo.resume_async(targets[0], 5)
    with pytest.raises(AlreadyResumed) as same:
        await flujo.resume_async(targets[1], 5)
    with pytest.raises(ResumeConflict) as other:
        await flujo.resume_async(targets[2], 6)
    assert result.output == 5
    assert effects == [5]
    assert same.value.receipt == other.value.receipt
    assert same.value.receipt is not None


async def test_of_many_resumes_at_the_same_time_one_wins_and_the_others_get_its_receipt() -> None:
    effects.clear()
    flujo = Flujo(ask >> effect)
    paused = await flujo.run_async(1)
    won: list[PipelineResult] = []
    lost: list[AlreadyResumed | ResumeConflict] = []

    async def resume(decision: int) -> None:
        try:
            won.append(await flujo.resume_async(paused if decision else copied(paused), decision % 2))
        except (AlreadyResumed, ResumeConflict) as error:
            lost.append(error)

    async with anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(resume, n)
    assert len(won) == 1
    assert effects == [won[0].output]
    assert len(lost) == 19
    winner = won[0].output
    assert len([error for error in lost if isinstance(error, AlreadyResumed)]) == 9
    assert {repr(error.receipt) for error in lost} == {repr(lost[0].receipt)}
    assert winner in (0, 1)


@pytest.mark.parametrize("by", ["result", "snapshot"])
async def test_who_answers_while_the_winner_still_works_gets_its_receipt(by: str) -> None:
    go = anyio.Event()

    @step
    async def work(value: int) -> int:
        await go.wait()
        return value

    flujo = Flujo(ask >> work)
    paused = await flujo.run_async(1)
    others: Any = (paused, paused) if by == "result" else (copied(paused), copied(paused))
    won: list[PipelineResult] = []

    async def win() -> None:
        won.append(await flujo.resume_async(paused, 5))

    async with anyio.create_task_group() as group:
        group.start_soon(win)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(AlreadyResumed) as same:
            await flujo.resume_async(others[0], 5)
        with pytest.raises(ResumeConflict) as other:
            await flujo.resume_async(others[1], 6)
        go.set()
    assert won[0].output == 5
    assert same.value.receipt == other.value.receipt


async def test_an_answered_question_is_told_from_an_unknown_one_wherever_the_run_stands() -> None:
    flujo = Flujo(Parallel(Step(ask, name="a"), Step(ask, name="b")))
    paused = await flujo.run_async(1)
    first, second = paused.pauses
    half = await flujo.resume_async(paused, 5, pause=first)
    whole = await flujo.resume_async(copied(half), 6)
    for later in (half, copied(half), whole, copied(whole)):
        with pytest.raises(AlreadyResumed):
            await flujo.resume_async(later, 5, pause=first)
        with pytest.raises(ResumeConflict):
            await flujo.resume_async(later, 6, pause=first)
    with pytest.raises(AlreadyResumed):
        await flujo.resume_async(whole, 6)  # a network's second try
    with pytest.raises(ResumeConflict):
        await flujo.resume_async(whole, 7, pause=second)
    with pytest.raises(ResumeError, match="has completed"):
        await flujo.resume_async(whole, retry=True)


async def test_a_refused_answer_uses_nothing_up_and_the_next_pause_of_a_run_is_another() -> None:
    flujo = Flujo(Loop(ask, until=lambda value: value > 5))
    paused = await flujo.run_async(1)
    with pytest.raises(FlujoError):
        await flujo.resume_async(paused, "wrong")
    again = await flujo.resume_async(paused, 2)
    assert again.pauses[0].id != paused.pauses[0].id
    assert (await flujo.resume_async(again, 2)).status == "paused"  # the same answer to another question


async def test_two_runs_of_one_pipeline_have_pauses_of_their_own() -> None:
    flujo = Flujo(ask)
    one, two = await flujo.run_async(1), await flujo.run_async(1)
    assert (await flujo.resume_async(one, 1)).output == 1
    assert (await flujo.resume_async(two, 2)).output == 2


# --- failed and stopped runs ------------------------------------------------------------------------------------------


async def test_a_failed_run_goes_on_only_when_asked_to_retry() -> None:
    effects.clear()
    healthy = [False]

    async def flaky(value: int) -> int:
        if not healthy[0]:
            raise OSError("down")
        return value + 1

    flujo = Flujo(Map(effect >> Step(flaky)))
    failed = await flujo.run_async([1, 2])
    assert failed.status == "failed"
    with pytest.raises(FlujoError, match="retry"):
        await flujo.resume_async(failed)
    again = await flujo.resume_async(copied(failed), retry=True)
    assert again.status == "failed"
    with pytest.raises(AlreadyResumed):
        await flujo.resume_async(copied(failed), retry=True)
    healthy[0] = True
    result = await flujo.resume_async(copied(again), retry=True)
    assert result.output == [2, 3]
    assert len(effects) <= 3  # the one that was cut off may have run again, the others have not
    assert result.step_history[-1].status == "completed"


async def test_a_run_stopped_by_a_limit_goes_on_with_other_limits() -> None:
    async def dear(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.4") as lease:
            effects.append("paid")
            lease.settle(cost_usd="0.4")
        return value + 1

    effects.clear()
    loop = Loop(Step(dear), until=None, max_iterations=4, on_limit="return")
    flujo = Flujo(loop, limits=UsageLimits("1"))
    stopped = await flujo.run_async(0)
    assert (stopped.status, stopped.total_cost_usd) == ("stopped", Decimal("0.8"))
    with pytest.raises(FlujoError, match="limits"):
        await flujo.resume_async(copied(stopped))
    more = await flujo.resume_async(copied(stopped), limits=UsageLimits("1.3"))
    assert (more.status, more.total_cost_usd) == ("stopped", Decimal("1.2"))
    assert isinstance(more.error, UsageLimitExceeded)
    result = await flujo.resume_async(more, limits=UsageLimits("1.6"))
    assert (result.output, result.total_cost_usd) == (4, Decimal("1.6"))
    assert effects == ["paid"] * 4


async def test_a_decision_may_come_with_other_limits() -> None:
    async def dear(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.4") as lease:
            lease.settle(cost_usd="0.4")
        return value

    flujo = Flujo(Step(dear, name="a") >> ask >> Step(dear, name="b"), limits=UsageLimits("0.5"))
    result = await flujo.resume_async(await flujo.run_async(1), 2, limits=UsageLimits("0.8"))
    assert (result.status, result.total_cost_usd) == ("completed", Decimal("0.8"))


async def test_other_limits_do_not_take_a_run_out_of_the_budget_that_it_shares() -> None:
    async def dear(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.4") as lease:
            lease.settle(cost_usd="0.4")
        return value

    budget = Budget(UsageLimits("1"))
    flujo = Flujo(Step(dear, name="a") >> ask >> Step(dear, name="b") >> Step(dear, name="c"), limits=budget)
    stopped = await flujo.resume_async(await flujo.run_async(1), 2, limits=UsageLimits("5"))
    assert (stopped.status, budget.spent.cost_usd) == ("stopped", Decimal("0.8"))
    with pytest.raises(FlujoError, match="does not stand under it"):
        await flujo.resume_async(stopped, limits=Budget(UsageLimits("5")))


# --- time -------------------------------------------------------------------------------------------------------------


def test_paused_time_does_not_count_against_the_deadline() -> None:
    async def before(value: int) -> int:
        await anyio.sleep(0.6)
        return value

    async def after(value: int) -> int:
        await anyio.sleep(0.3)
        return value

    async def main() -> None:
        flujo = Flujo(Step(before) >> ask >> Step(after))
        paused = await flujo.run_async(1, deadline_s=1)
        await anyio.sleep(1000)  # of the clock of this test
        assert (await flujo.resume_async(copied(paused), 5)).output == 5

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.alone
async def test_the_time_before_a_pause_counts_against_the_deadline() -> None:
    async def before(value: int) -> int:
        await anyio.sleep(0.5)
        return value

    async def after(value: int) -> int:
        await anyio.sleep_forever()
        return value

    flujo = Flujo(Step(before) >> ask >> Step(after))
    paused = await flujo.run_async(1, deadline_s=1)
    started = anyio.current_time()
    result = await flujo.resume_async(copied(paused), 5)
    assert anyio.current_time() - started < 0.9  # what was left is 0.5 s or less, not the whole second
    assert result.status == "aborted"
    assert isinstance(result.error, RunAborted)
    assert "deadline" in str(result.error)
    assert "s that it had left passed" in str(result.error)  # it was given more than these
    with pytest.raises(ConfigurationError, match="deadline_s=0 cannot be used"):
        await flujo.resume_async(result, retry=True, deadline_s=0)


@pytest.mark.parametrize("kept", [False, True])
async def test_a_run_that_its_deadline_ended_goes_on_with_another(kept: bool) -> None:
    slow = [True]

    async def waits(value: int) -> int:
        await anyio.sleep(60 if slow[0] else 0.01)
        return value + 1

    store = MemoryStore() if kept else None
    flujo = Flujo(Step(waits), store=store)
    late = await flujo.run_async(1, run_id="run", deadline_s=0.05)
    assert late.status == "aborted"
    slow[0] = False
    for seconds, status in ((0.001, "aborted"), (30, "completed")):
        result = await flujo.resume_async("run" if kept else late, retry=True, deadline_s=seconds)
        assert result.status == status
        late = result
    paused = await Flujo(Step(waits) >> ask).run_async(1)
    slow[0] = True
    after = await Flujo(Step(waits) >> ask).resume_async(paused, 5, deadline_s=30)  # where there was none before
    assert after.output == 5


async def test_a_resumed_run_can_be_cancelled_from_outside_and_resumed_by_nobody_else() -> None:
    began = anyio.Event()

    async def waits(value: int) -> int:
        began.set()
        await anyio.sleep_forever()
        return value

    flujo = Flujo(ask >> Step(waits))
    paused = await flujo.run_async(1)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(flujo.resume_async, paused, 5)
            await began.wait()
            scope.cancel()
    assert scope.cancelled_caught
    with pytest.raises(AlreadyResumed):
        await flujo.resume_async(paused, 5)


@pytest.mark.parametrize("as_snapshot", [False, True])
async def test_an_id_that_is_used_again_without_a_store_makes_no_other_run_of_it(as_snapshot: bool) -> None:
    @step
    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    def target(result: PipelineResult) -> PipelineResult | Snapshot:
        return Snapshot.model_validate_json(result.snapshot().model_dump_json()) if as_snapshot else result

    flujo, given = Flujo(ask), "mine"
    runs = [await flujo.run_async(1, run_id=given) for _ in range(2)]
    for run in runs:
        assert (await flujo.resume_async(target(run), 3)).output == 3
    for run in runs:
        for one in (run, run.snapshot()):
            with pytest.raises(AlreadyResumed):
                await flujo.resume_async(one, 3)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("end", ["abort", "limit"])
async def test_a_run_that_was_ended_after_its_last_step_gives_its_output_when_it_is_tried_again(
    end: str, kept: bool
) -> None:
    effects.clear()

    async def pay(value: int, ctx: RunContext) -> int:
        ctx.usage.record(cost_usd="2" if end == "limit" else 0)
        return value

    def stop(event: PostStepExecution) -> None:
        if end == "abort" and event.record.name == "pay":
            raise AbortPipeline("enough")

    flujo = Flujo(effect >> Step(pay), hooks=[stop], limits=UsageLimits(1), store=MemoryStore() if kept else None)
    ended = await flujo.run_async(7)
    assert ended.status == ("stopped" if end == "limit" else "aborted")
    assert [record.status for record in ended.step_history] == ["completed", "completed"]
    target: Any = ended.run_id if kept else copied(ended)
    with pytest.raises(ResumeError, match="Pass retry=True"):
        await flujo.resume_async(target)
    result = await flujo.resume_async(target, retry=True, limits=UsageLimits(3))
    assert (result.status, result.output, effects) == ("completed", 7, [7])
    with pytest.raises(ResumeError, match="has completed"):
        await flujo.resume_async(result, retry=True)
