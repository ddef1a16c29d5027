"""Kept runs at odd moments: calls left behind, cancels of a claim, replays of what may happen at most once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

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
    ToolCall,
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
