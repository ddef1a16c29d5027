"""Faults of the engine that the fuzz found, each as the smallest test that fails; not collected until mended."""

from __future__ import annotations

import anyio
import pytest

from flujo.core import Flujo, Parallel, Pipeline, RunContext, Snapshot, Step
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
