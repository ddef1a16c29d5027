"""A time limit whose timer is armed late holds like one that was there from the start."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from flujo.core.patience import within

LOOPS = ("asyncio", "trio")


@pytest.mark.parametrize("backend", LOOPS)
@pytest.mark.parametrize("pauses", [0, 1, 3])
def test_what_is_in_time_gives_its_value(backend: str, pauses: int) -> None:
    async def work() -> int:
        for _ in range(pauses):
            await anyio.sleep(0)
        return pauses

    async def main() -> int:
        return await within(30, work())

    assert anyio.run(main, backend=backend) == pauses


@pytest.mark.parametrize("backend", LOOPS)
def test_what_is_late_is_cancelled_where_it_waits(backend: str) -> None:
    ended: list[str] = []

    async def work() -> None:
        with anyio.CancelScope():  # opened before it first waits: the timer must not stand inside it
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("cleaned up")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await within(0.01, work())
        await anyio.sleep(0)  # the task itself is not cancelled

    anyio.run(main, backend=backend)
    assert ended == ["cleaned up"]


@pytest.mark.parametrize("backend", LOOPS)
@pytest.mark.parametrize("pauses", [0, 1])
def test_what_it_raises_goes_up(backend: str, pauses: int) -> None:
    async def work() -> None:
        for _ in range(pauses):
            await anyio.sleep(0)
        raise LookupError("x")

    async def main() -> None:
        with pytest.raises(LookupError):
            await within(30, work())

    anyio.run(main, backend=backend)


def test_a_cancel_from_outside_is_no_timeout() -> None:
    async def main() -> None:
        waits = asyncio.Event()

        async def work() -> None:
            waits.set()
            await asyncio.sleep(3600)

        task = asyncio.create_task(within(30, work()))
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_the_task_and_its_time_limits_are_those_of_the_caller() -> None:
    async def work() -> asyncio.Task[object] | None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(3600)
        return asyncio.current_task()

    async def main() -> None:
        assert await within(30, work()) is asyncio.current_task()

    asyncio.run(main())
