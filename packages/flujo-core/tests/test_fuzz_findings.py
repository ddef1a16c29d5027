"""Faults of the engine that the fuzz found and that are mended, each as the smallest test that failed."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from fuzz_check import check_on
from fuzz_mutants import one_branch_lost
from pydantic import BaseModel

from flujo.core import EntryData, Flujo, Hold, Loop, MemoryStore, Parallel, Pipeline, RunContext, Snapshot, Step, Update


class Kept(MemoryStore):
    """A store that shows what a process that is gone has left: where the run started, and every entry since."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[MemoryStore] = []

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        await super().append(hold, rows)
        self.found.append(self.reopened())


async def asks(value: int, ctx: RunContext) -> int:
    return await ctx.ask("how many?", schema=int) + 1


async def other(value: int) -> int:
    await anyio.sleep(0)
    return value


@pytest.mark.anyio
async def test_a_question_survives_the_end_of_its_process_before_the_run_stands_still() -> None:
    store, pipeline = Kept(), Pipeline(Parallel(Step(asks), Step(other)))
    paused = await Flujo(pipeline, store=store).run_async(1, run_id="r")
    for left in store.found:
        flujo = Flujo(pipeline, store=left)
        again = await flujo.resume_async("r")
        assert again.pauses == paused.pauses
        done = await flujo.resume_async("r", 4)
        assert done.output == {"asks": 5, "other": 1}


@pytest.mark.anyio
async def test_a_run_whose_process_was_gone_after_its_last_entry_gives_its_output() -> None:
    store, pipeline = Kept(), Pipeline(Step(other))
    await Flujo(pipeline, store=store).run_async(1, run_id="r")
    [again] = await Flujo(pipeline, store=store.found[-1]).recover_async()
    assert (again.status, again.output) == ("completed", 1)


class Draft(BaseModel):
    text: str


async def drafts(value: object) -> list[Draft]:
    return [Draft(text="a")]


@pytest.mark.anyio
async def test_a_collected_loop_limit_with_any_partial_output_can_be_kept() -> None:
    never = Loop(Step(drafts), lambda output: False, 1)
    result = await Flujo(Pipeline(Parallel(never, Step(other), on_failure="collect"))).run_async(1)
    assert result.status == "completed"
    Snapshot.model_validate_json(result.snapshot().model_dump_json())


class Memory(BaseModel, frozen=True):
    seen: int = 0


async def writes(value: int) -> Update[int]:
    return Update(value, seen=value)


async def waits(value: int) -> int:
    await anyio.sleep_forever()
    return value


@pytest.mark.anyio
async def test_a_cancelled_run_tells_the_context_that_its_steps_left() -> None:
    flujo = Flujo(Step(writes, writes=("seen",)) >> Step(waits), context_model=Memory)
    handle = flujo.start(7)
    for _ in range(5):
        await anyio.sleep(0)
    handle.cancel()
    result = await handle.wait()
    assert (result.status, result.context) == ("aborted", Memory(seen=7))


@pytest.mark.anyio
async def test_a_run_with_work_that_may_happen_at_most_once_can_be_replayed() -> None:
    flujo = Flujo(Step(other, effect="at_most_once"))
    result = await flujo.run_async(3)
    assert (await flujo.replay_async(result)).divergence is None


@pytest.mark.parametrize("delay", range(8))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_follows_a_fan_that_lost_a_branch_waits_until_that_has_cleaned_up(backend: str, delay: int) -> None:
    check_on(backend, one_branch_lost(delay))
