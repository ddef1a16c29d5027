"""What a failed body leaves behind is over before anything follows from its failure."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flujo.core import Fallback, Flujo, Loop, Map, Parallel, Step

pytestmark = pytest.mark.anyio


async def test_what_is_cancelled_by_the_failure_is_over_before_the_next_begins() -> None:
    lines: list[str] = []
    began = anyio.Event()

    async def lingers(value: int) -> int:
        try:
            began.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
            lines.append("cleaned up")
        return value

    async def bad(value: int) -> int:
        await began.wait()
        raise ValueError("no good")

    async def rescue(value: int) -> dict[str, Any]:
        lines.append("rescue")
        return {}

    result = await Flujo(Fallback(Parallel(Step(lingers), Step(bad)), Step(rescue))).run_async(1)
    assert result.status == "completed"
    assert lines == ["cleaned up", "rescue"]


async def test_a_cancel_while_a_failure_is_being_cleaned_up_is_not_lost() -> None:
    cleaning, cleaned = anyio.Event(), []

    async def lingers(value: int) -> int:
        try:
            await anyio.sleep_forever()
        finally:
            cleaning.set()
            with anyio.CancelScope(shield=True):
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
            cleaned.append(value)
        return value

    async def bad(value: int) -> int:
        await anyio.lowlevel.checkpoint()
        raise ValueError("no good")

    rescued = []

    async def rescue(value: int) -> dict[str, Any]:
        rescued.append(value)
        return {}

    flow = Fallback(Parallel(Step(lingers), Step(bad)), Step(rescue))
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(Flujo(flow).run_async, 1)
            await cleaning.wait()
            scope.cancel()
    assert scope.cancelled_caught
    assert cleaned == [1]
    assert rescued == []


async def test_a_limit_of_one_holds_while_a_failed_item_is_still_ending() -> None:
    inside: set[int] = set()
    peak = 0

    async def lingers(value: int) -> int:
        nonlocal peak
        inside.add(value)
        peak = max(peak, len(inside))
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
            inside.remove(value)
        return value

    async def bad(value: int) -> int:
        while value not in inside:
            await anyio.lowlevel.checkpoint()
        raise ValueError("no good")

    flow = Map(Parallel(Step(lingers), Step(bad)), limit=1, on_failure="collect")
    with anyio.fail_after(5):
        await Flujo(flow).run_async([1, 2, 3])
    assert peak == 1


@pytest.mark.parametrize("until", [None, lambda _: False, lambda _: 0], ids=["none", "false", "falsy"])
async def test_an_iteration_that_cannot_begin_ends_its_loop(until: Any) -> None:
    """What the first iteration gives is no list, which `Any` does not tell before: the second cannot begin."""

    async def plus(value: int) -> int:
        return value + 1

    async def total(values: Any) -> Any:
        return sum(values)

    async def sleeps(value: Any) -> Any:
        await anyio.sleep(30)

    async def rescue(value: Any) -> Any:
        return value

    loop = Loop(Map(Step(plus)) >> Step(total), until, 4, on_limit="return", name="loop")
    with anyio.fail_after(10):
        for pipeline in (loop, Parallel(loop, Step(sleeps), name="beside")):
            result = await Flujo(pipeline).run_async([1, 2])
            assert result.status == "failed"
            assert "loop#2/map' failed: InputMismatch" in str(result.error)
        caught = await Flujo(Fallback(Parallel(loop, Step(sleeps)), Step(rescue))).run_async([1, 2])
    assert caught.output == [1, 2]
