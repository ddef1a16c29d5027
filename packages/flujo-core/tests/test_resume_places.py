"""Resume where something beside the pause failed, was cancelled, skipped or stopped; and who is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from flujo.core import (
    Allow,
    EntryData,
    Event,
    Fallback,
    Flujo,
    GuardRun,
    GuardStep,
    Hold,
    InputError,
    Map,
    MemoryStore,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    PipelineResult,
    RunContext,
    Snapshot,
    SnapshotError,
    Step,
    StepFailed,
    UsageLimits,
    hookimpl,
    step,
)

pytestmark = pytest.mark.anyio


@step
async def plus(value: int) -> int:
    return value + 1


@step
async def fails(value: int) -> int:
    raise ValueError("no good")


@step(pauses=True)
async def ask(value: int) -> int:
    raise PauseForHumanInput("How many?", schema=int)


def copied(result: PipelineResult) -> Snapshot:
    return Snapshot.model_validate_json(result.snapshot().model_dump_json())


def ends(result: PipelineResult) -> list[tuple[str, str]]:
    return [(record.path, record.status) for record in result.step_history]


BOTH = pytest.mark.parametrize("through", [lambda result: result, copied], ids=["result", "json"])
Through = Callable[[PipelineResult], Any]


@BOTH
async def test_a_body_that_fails_after_its_pause_falls_back_to_the_next(through: Through) -> None:
    flujo = Flujo(Fallback(ask >> fails, Step(plus, name="other")))
    result = await flujo.resume_async(through(await flujo.run_async(1)), 3)
    assert result.output == 2  # the other body gets the input of the fallback
    assert [end for _, end in ends(result)] == ["completed", "failed", "completed"]


@BOTH
async def test_a_collected_failure_is_there_after_the_pause_of_another_branch(through: Through) -> None:
    flujo = Flujo(Parallel(fails, ask, on_failure="collect"))
    paused = await flujo.run_async(1)
    result: Any = await flujo.resume_async(through(paused), 3)
    assert result.output["ask"] == 3
    error = result.output["fails"]
    assert type(error) is StepFailed
    assert (error.step_path, error.error_type) == ("parallel/fails", "ValueError")
    assert str(error) == "step 'parallel/fails' failed: ValueError: no good"


@BOTH
async def test_what_was_skipped_stays_skipped(through: Through) -> None:
    skipped, asked = Step(plus, when=lambda value: False), Step(ask, when=lambda value: True)
    flujo = Flujo(skipped >> asked >> Step(plus, name="last", when=lambda value: value < 0))
    result = await flujo.resume_async(through(await flujo.run_async(1)), 5)
    assert result.output == 5
    assert ends(result) == [("plus", "skipped"), ("ask", "completed"), ("last", "skipped")]


@BOTH
async def test_a_run_that_failed_beside_a_pause_asks_again_when_it_is_tried_again(through: Through) -> None:
    healthy = [False]

    async def later(value: int) -> int:
        await anyio.sleep(0.005)
        if not healthy[0]:
            raise OSError("down")
        return 1

    flujo = Flujo(Parallel(ask, Step(later)))
    failed = await flujo.run_async(1)
    assert (failed.status, failed.pauses) == ("failed", ())
    healthy[0] = True
    paused = await flujo.resume_async(through(failed), retry=True)
    assert [pause.step_path for pause in paused.pauses] == ["parallel/ask"]
    assert (await flujo.resume_async(through(paused), 7)).output == {"ask": 7, "later": 1}


@BOTH
async def test_a_cancelled_run_goes_on_when_it_is_tried_again(through: Through) -> None:
    began, patient = anyio.Event(), [True]

    async def slow(value: int) -> int:
        began.set()
        if patient[0]:
            await anyio.sleep_forever()
        return 2 * value

    flujo = Flujo(plus >> Step(slow))
    handle = flujo.start(1)
    await began.wait()
    handle.cancel("not now")
    aborted = await handle.wait()
    assert aborted.status == "aborted"
    patient[0] = False
    result = await flujo.resume_async(through(aborted), retry=True)
    assert result.output == 4
    assert ends(result) == [("plus", "completed"), ("slow", "cancelled"), ("slow", "completed")]


@BOTH
async def test_a_run_stopped_beside_a_pause_asks_again_under_other_limits(through: Through) -> None:
    async def dear(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd=1) as lease:
            lease.settle(cost_usd=1)
        return 1

    flujo = Flujo(Parallel(ask, Step(dear)), limits=UsageLimits("0.5"))
    stopped = await flujo.run_async(1)
    assert (stopped.status, stopped.pauses) == ("stopped", ())
    paused = await flujo.resume_async(through(stopped), limits=UsageLimits(2))
    assert len(paused.pauses) == 1
    assert (await flujo.resume_async(paused, 4)).output == {"ask": 4, "dear": 1}


async def test_a_sync_step_may_pause_too() -> None:
    def waits(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    flujo = Flujo(Map(Step(waits, pauses=True)))
    assert (await flujo.resume_async(copied(await flujo.run_async([1])), 3)).output == [3]


async def test_the_key_of_a_visit_is_the_same_when_its_body_runs_again_after_ask() -> None:
    keys: list[tuple[str, str]] = []

    @step(pauses=True)
    async def turn(value: int, ctx: RunContext) -> int:
        keys.append((ctx.step_path, ctx.idempotency_key))
        return await ctx.ask("How many?", schema=int)  # type: ignore[no-any-return]

    flujo = Flujo(Map(turn))
    result = await flujo.run_async([1, 2])
    while result.status == "paused":
        result = await flujo.resume_async(copied(result), 1, pause=result.pauses[0])
    assert len(keys) == 4
    assert len(set(keys)) == len({key for _, key in keys}) == 2


async def test_guards_and_observers_are_there_on_both_sides_of_a_pause() -> None:
    told: list[str] = []

    class Guard:
        @hookimpl
        def guard_run(self, payload: GuardRun) -> Allow:
            told.append("guard_run")
            return Allow()

        @hookimpl
        def guard_step(self, payload: GuardStep) -> Allow:
            told.append(f"guard_step {payload.step_path}")
            return Allow()

    def every(event: Event) -> None:
        told.append(type(event).__name__)

    flujo = Flujo(ask >> plus, plugins=[Guard()], hooks=[every])
    paused = await flujo.run_async(1)
    before = ["guard_run", "OnRunStart", "guard_step ask", "PreStepExecution", "OnRunPause", "OnRunEnd"]
    assert told == before
    await flujo.resume_async(copied(paused), 3)
    after = ["guard_run", "OnHumanDecision", "OnRunResume", "PostStepExecution"]  # the end of `ask`
    assert told == [*before, *after, "guard_step plus", "PreStepExecution", "PostStepExecution", "OnRunEnd"]


class Kept(MemoryStore):
    """A store that shows what a process that is gone has left: where the run started, and every entry since."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[EntryData] = []

    async def create(self, snapshot: Snapshot) -> Hold:
        self.first = snapshot
        return await super().create(snapshot)

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        self.rows.extend(rows)
        await super().append(hold, rows)

    def after(self, count: int) -> Snapshot:
        left = self.first.model_copy(update={"journal": self.rows[:count]}).sealed()
        return Snapshot.model_validate_json(left.model_dump_json())


class Size(BaseModel):
    number: int


LATER = datetime(2100, 1, 1, tzinfo=UTC)


async def asks_inside(value: int, ctx: RunContext) -> int:
    size: Size = await ctx.ask("How large?", Size, payload={"least": value}, expires_at=LATER)
    return size.number + value


async def asks_for_a_size(value: int) -> Size:
    raise PauseForHumanInput("How large?", Size, payload={"least": value}, expires_at=LATER)


@pytest.mark.parametrize("asks", [asks_inside, asks_for_a_size])
async def test_a_question_survives_the_end_of_its_process_before_the_run_stood_still(asks: Any) -> None:
    other = Step(plus.function, name="other")
    flow = Pipeline(Parallel(Step(asks, name="asks"), other))
    store = Kept()
    paused = await Flujo(flow, store=store).run_async(1)
    at = next(place for place, row in enumerate(store.rows) if row.kind == "paused")
    flujo = Flujo(flow)
    again = await flujo.resume_async(store.after(at + 1), retry=True)
    assert again.pauses == paused.pauses
    assert (again.pauses[0].payload, again.pauses[0].expires_at) == ({"least": 1}, LATER)
    for wrong in (4, {"number": "four"}):
        with pytest.raises(InputError, match="does not fit"):
            await flujo.resume_async(again, wrong)
    done = await flujo.resume_async(again, {"number": 4})
    assert done.output == {"asks": 5 if asks is asks_inside else Size(number=4), "other": 2}
    assert (await flujo.replay_async(done)).divergence is None


async def test_a_question_that_was_damaged_in_the_journal_is_refused_and_not_shown() -> None:
    store = Kept()
    await Flujo(Step(asks_for_a_size), store=store).run_async(1)
    for damage in (None, {}, {"question": ""}, {"question": "Ann?", "expires_at": "2020-01-01T00:00:00"}):
        store.rows[0] = store.rows[0].model_copy(update={"value": damage})
        with pytest.raises(SnapshotError, match="the question of 'asks_for_a_size' does not fit") as caught:
            await Flujo(Step(asks_for_a_size)).resume_async(store.after(1), retry=True)
        assert "Ann" not in str(caught.value)
