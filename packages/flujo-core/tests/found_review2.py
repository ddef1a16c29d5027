"""Faults found by the second hostile review; each test fails until its fault is mended."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from flujo.core import EntryData, Flujo, Hold, MemoryStore, PauseForHumanInput, Snapshot, step

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


@pytest.mark.parametrize("stop", ["cancel", "interrupt"])
async def test_a_run_that_was_cancelled_from_outside_is_not_kept_as_one_that_asks(stop: str) -> None:
    @step
    async def work(value: int) -> int:
        if stop == "interrupt":
            raise KeyboardInterrupt
        await anyio.sleep_forever()
        return value

    store = MemoryStore()
    if stop == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            await Flujo(work, store=store).run_async(1, run_id="r")
    else:
        with anyio.move_on_after(0.02):
            await Flujo(work, store=store).run_async(1, run_id="r")
    assert (await store.load("r")).snapshot.status == "aborted"
