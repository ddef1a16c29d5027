"""Faults found by the second hostile review; each test fails until its fault is mended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import anyio
import pytest

from flujo.core import (
    EntryData,
    Flujo,
    FlujoError,
    Hold,
    MemoryStore,
    PauseForHumanInput,
    Policy,
    Receipt,
    Snapshot,
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


@pytest.mark.parametrize("native", [True, False])
async def test_a_cancel_while_the_claim_is_written_leaves_a_run_that_can_go_on(
    native: bool, anyio_backend: str
) -> None:
    if native and anyio_backend != "asyncio":
        pytest.skip("only asyncio has native cancels")

    class Claims(MemoryStore):
        slow = False

        async def claim(self, position: int, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
            hold = await super().claim(position, receipt, rows)
            if self.slow:
                claimed.set()
                await anyio.sleep(0.05)
            return hold

    claimed = anyio.Event()
    store = Claims()
    flujo = Flujo(ask, store=store)
    await flujo.run_async(1, run_id="r")
    store.slow = True
    if native:
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


async def test_a_cancel_while_a_run_is_created_leaves_no_run_that_is_held() -> None:
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
    assert [one.unwrap() for one in await flujo.recover_async()] == [1]


async def test_a_store_that_hangs_when_a_run_is_created_or_claimed_does_not_hang_the_run() -> None:
    class Hangs(MemoryStore):
        on = False

        async def claim(self, position: int, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
            if self.on:
                await anyio.sleep(5)
            return await super().claim(position, receipt, rows)

    store = Hangs()
    flujo = Flujo(ask, store=store, policy=Policy(write_timeout_s=0.05))
    await flujo.run_async(1, run_id="r")
    store.on = True
    with anyio.fail_after(1), pytest.raises(FlujoError):
        await flujo.resume_async("r", 5)
