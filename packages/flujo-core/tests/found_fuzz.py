"""Faults of the engine that the fuzz found, each as the smallest test that fails; not collected until mended."""

from __future__ import annotations

import anyio
import pytest
from pydantic import BaseModel

from flujo.core import Flujo, Loop, Parallel, Pipeline, RunContext, Snapshot, Step
from flujo.core.snapshot import EntryData
from flujo.core.store import MemoryStore


class Kept(MemoryStore):
    """A store that shows what a process that is gone has left: where the run started, and every entry since."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[EntryData] = []

    async def create(self, snapshot: Snapshot) -> None:
        self.first = snapshot
        await super().create(snapshot)

    async def append(self, run_id: str, row: EntryData) -> None:
        self.rows.append(row)
        await super().append(run_id, row)

    def after(self, count: int) -> Snapshot:
        return self.first.model_copy(update={"journal": self.rows[:count]})


async def asks(value: int, ctx: RunContext) -> int:
    return await ctx.ask("how many?", schema=int) + 1


async def other(value: int) -> int:
    await anyio.sleep(0)
    return value


@pytest.mark.anyio
async def test_a_question_survives_the_end_of_its_process_before_the_run_stands_still() -> None:
    """`restore.entry_of` makes every paused entry "a question of the past": text, schema and `asked` are lost, so the
    decision is not checked and becomes the step's output, and the body never goes on (SEMANTICS 8)."""
    store, flujo = Kept(), Flujo(Pipeline(Parallel(Step(asks), Step(other))))
    paused = await Flujo(Pipeline(Parallel(Step(asks), Step(other))), store=store).run_async(1)
    assert [row.kind for row in store.rows] == ["paused", "success"]
    again = await flujo.resume_async(store.after(1), retry=True)
    assert [pause.question for pause in again.pauses] == ["how many?"]
    assert again.pauses == paused.pauses
    done = await flujo.resume_async(again, 4)
    assert done.output == {"asks": 5, "other": 1}


@pytest.mark.anyio
async def test_a_run_whose_process_was_gone_after_its_last_entry_gives_its_output() -> None:
    """Between the last `append` and `save` of a store: the snapshot is `running`, nothing is left to do, and
    `resume_async` refuses ("it has completed ... Read its output") although no result of it exists anywhere."""
    store, pipeline = Kept(), Pipeline(Step(other))
    await Flujo(pipeline, store=store).run_async(1)
    again = await Flujo(pipeline).resume_async(store.after(len(store.rows)), retry=True)
    assert (again.status, again.output) == ("completed", 1)


class Draft(BaseModel):
    text: str


async def drafts(value: object) -> list[Draft]:
    return [Draft(text="a")]


@pytest.mark.anyio
async def test_a_collected_loop_limit_with_any_partial_output_can_be_kept() -> None:
    """`FlujoError.as_data` hands `LoopLimit.partial` on as it is where it is a list or dict: one that holds models
    does not come back equal, one that holds errors cannot be written; so snapshot(), replay_async and pausing fail."""
    never = Loop(Step(drafts), lambda output: False, 1)
    result = await Flujo(Pipeline(Parallel(never, Step(other), on_failure="collect"))).run_async(1)
    assert result.status == "completed"
    Snapshot.model_validate_json(result.snapshot().model_dump_json())
