"""Many branches at once: a cancel reaches each of them once, shields hold, and nothing hangs or is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import anyio
import pytest

from flujo.core import Flujo, Map, Step

LOOPS = ("asyncio", "trio")
WIDTH = 40


def run(backend: str, work: Callable[[], Awaitable[None]]) -> None:
    anyio.run(work, backend=backend)


@pytest.mark.parametrize("backend", LOOPS)
def test_a_cancel_from_outside_lets_what_is_shielded_finish_in_every_branch(backend: str) -> None:
    ended: list[int] = []
    waiting: list[int] = []

    async def work() -> None:
        all_wait = anyio.Event()

        async def careful(value: int) -> int:
            waiting.append(value)
            if len(waiting) == WIDTH:
                all_wait.set()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.01)
                    ended.append(value)
            return value

        async with anyio.create_task_group() as group:
            group.start_soon(Flujo(Map(Step(careful))).run_async, list(range(WIDTH)))
            await all_wait.wait()
            group.cancel_scope.cancel()

    run(backend, work)
    assert sorted(ended) == list(range(WIDTH))


def test_a_cancelled_task_is_cancelled_and_leaves_no_task_behind() -> None:
    async def work() -> None:
        all_wait, waiting = asyncio.Event(), []

        async def forever(value: int) -> int:
            waiting.append(value)
            if len(waiting) == WIDTH:
                all_wait.set()
            await asyncio.sleep(3600)
            return value

        task = asyncio.create_task(Flujo(Map(Step(forever))).run_async(list(range(WIDTH))))
        await all_wait.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())


def test_a_cancel_just_after_the_first_worker_was_made_ends_the_run() -> None:
    async def work() -> None:
        async def one(value: int) -> int:
            return value

        task = asyncio.create_task(Flujo(Map(Step(one))).run_async([1, 2, 3]))
        await asyncio.sleep(0)  # it has made its first worker, and waits
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())


@pytest.mark.parametrize("backend", LOOPS)
def test_a_deadline_stops_every_branch(backend: str) -> None:
    async def work() -> None:
        async def forever(value: int) -> int:
            await anyio.sleep_forever()
            return value

        result = await Flujo(Map(Step(forever))).run_async(list(range(WIDTH)), deadline_s=1)
        assert result.status == "aborted"
        assert [record.status for record in result.step_history] == ["cancelled"] * WIDTH

    run(backend, work)


@pytest.mark.parametrize("backend", LOOPS)
def test_what_ends_the_program_in_one_branch_goes_up_and_the_others_end(backend: str) -> None:
    ended: list[int] = []

    async def stop(value: int) -> int:
        if value == WIDTH - 1:
            raise KeyboardInterrupt
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(value)
        return value

    async def work() -> None:
        await Flujo(Map(Step(stop))).run_async(list(range(WIDTH)))

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
        run(backend, work)
    assert sorted(ended) == list(range(WIDTH - 1))


@pytest.mark.parametrize("backend", LOOPS)
def test_a_branch_does_not_see_the_context_variables_of_another(backend: str) -> None:
    seen: list[object] = []
    word: ContextVar[int | None] = ContextVar("word", default=None)

    async def mark(value: int) -> int:
        seen.append(word.get())
        word.set(value)
        return value

    async def work() -> None:
        assert (await Flujo(Map(Step(mark))).run_async(list(range(WIDTH)))).output == list(range(WIDTH))

    run(backend, work)
    assert seen == [None] * WIDTH
