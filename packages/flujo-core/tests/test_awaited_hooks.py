"""What a plain hook function returns to be awaited is awaited, in time, and counts as what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from flujo.core import (
    AbortPipeline,
    Allow,
    Deny,
    Flujo,
    GuardStep,
    PluginError,
    Policy,
    PostStepExecution,
    RecordIntent,
    RecordResult,
    TransformStepOutput,
    hookimpl,
    step,
)

pytestmark = pytest.mark.anyio


@step
async def double(value: int) -> int:
    return 2 * value


async def fails(about: str) -> None:
    await anyio.sleep(0)
    raise OSError(about)


async def hangs() -> None:
    await anyio.sleep_forever()


async def twice() -> Any:
    return fails("an awaitable in an awaitable")


WAYS: list[Callable[[], Any]] = [lambda: fails("disk full"), hangs, twice]


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("way", WAYS, ids=["fails", "hangs", "twice"])
async def test_a_recorder_whose_awaitable_comes_to_nothing_has_recorded_nothing(
    way: Callable[[], Any], thread: bool
) -> None:
    class Audit:
        @hookimpl(thread=thread)
        def record_intent(self, payload: RecordIntent) -> object:
            return way()

    result = await Flujo(double, plugins=[Audit()], policy=Policy(recorder_timeout_s=0.05)).run_async(1)
    assert [*result.counts["plugin_faults"].values()] == [2]  # of the run and of the step


async def test_a_recorder_that_returns_an_awaitable_is_awaited() -> None:
    class Audit:
        def __init__(self) -> None:
            self.written: list[str] = []

        async def _write(self, line: str) -> None:
            await anyio.sleep(0)
            self.written.append(line)

        @hookimpl
        def record_intent(self, payload: RecordIntent) -> object:
            return self._write(f"intent {payload.record_id}")

        @hookimpl
        def record_result(self, payload: RecordResult) -> object:
            return self._write(f"result {payload.record_id}")

    audit = Audit()
    result = await Flujo(double, plugins=[audit]).run_async(1, run_id="r")
    assert audit.written == ["intent r", "intent double@1", "result double@1", "result r"]
    assert result.counts == {}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_observer_may_return_a_task() -> None:
    told: list[str] = []

    async def tell(path: str) -> None:
        told.append(path)

    def post(event: PostStepExecution) -> object:
        return asyncio.ensure_future(tell(event.step_path))

    await Flujo(double, hooks=[post]).run_async(1)
    assert told == ["double"]


async def test_an_observer_aborts_by_its_awaitable_too() -> None:
    async def stop() -> None:
        raise AbortPipeline("enough")

    def post(event: PostStepExecution) -> object:
        return stop()

    result = await Flujo(double, hooks=[post]).run_async(1)
    assert (result.status, str(result.error)) == (
        "aborted",
        "run aborted by post_step_execution of plugin 'post': enough",
    )


async def test_a_guard_and_a_transform_may_return_an_awaitable() -> None:
    async def say(answer: object) -> object:
        await anyio.sleep(0)
        return answer

    class Plugin:
        answer: Allow | Deny = Allow()

        @hookimpl
        def guard_step(self, payload: GuardStep) -> object:
            return say(self.answer)

        @hookimpl
        def transform_step_output(self, payload: TransformStepOutput) -> object:
            return say(7)

    plugin = Plugin()
    assert (await Flujo(double, plugins=[plugin]).run_async(1)).output == 7
    plugin.answer = Deny("no")
    assert (await Flujo(double, plugins=[plugin]).run_async(1)).status == "aborted"


def test_a_hook_with_a_yield_is_refused() -> None:
    class Audit:
        @hookimpl
        def record_intent(self, payload: RecordIntent) -> Any:
            yield payload

    with pytest.raises(PluginError, match="it has a yield"):
        Flujo(double, plugins=[Audit()])
