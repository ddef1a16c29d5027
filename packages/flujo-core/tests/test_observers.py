"""Observers of steps: told in order, isolated, in their time, whether they wait or not, whatever the step is beside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from flujo.core import (
    AbortPipeline,
    Flujo,
    OnStepFailure,
    Parallel,
    Policy,
    PostStepExecution,
    PreStepExecution,
    Step,
    step,
)

pytestmark = pytest.mark.anyio


@step
async def increase(value: int) -> int:
    return value + 1


async def broken(value: int) -> int:
    raise ValueError("x")


async def wait(value: int) -> int:
    await anyio.sleep(30)
    return value


async def test_observers_are_told_in_order_whether_they_wait_or_not() -> None:
    told: list[str] = []

    def plain(event: PreStepExecution) -> None:
        told.append("plain")

    async def quick(event: PreStepExecution) -> None:
        told.append("quick")

    async def slow(event: PreStepExecution) -> None:
        await anyio.sleep(0.001)
        told.append("slow")

    def decorated(event: PreStepExecution) -> Awaitable[None]:
        return slow(event)

    for hooks in ([plain, quick, slow, quick, plain], [slow, plain, decorated, quick]):
        told.clear()
        named: list[Callable[..., object]] = list(hooks)
        assert (await Flujo(increase, hooks=named).run_async(1)).output == 2
        assert told == ["slow" if one is decorated else getattr(one, "__name__", "") for one in named]


@pytest.mark.parametrize("error", [StopIteration(1), StopAsyncIteration(), SystemExit(3), TimeoutError()])
@pytest.mark.parametrize("waits", [False, True])
async def test_whatever_an_observer_raises_is_counted_and_the_others_are_told(
    error: BaseException, waits: bool
) -> None:
    told: list[int] = []

    def plain(event: PostStepExecution) -> None:
        raise error

    async def coroutine(event: PostStepExecution) -> None:
        if waits:
            await anyio.sleep(0)
        raise error

    def good(event: PostStepExecution) -> None:
        told.append(event.record.attempts)

    result = await Flujo(increase, hooks=[plain, coroutine, good]).run_async(1)
    assert (result.output, told) == (2, [1])
    assert result.counts["plugin_faults"] == {"plain": 1, "coroutine": 1}


async def test_each_observer_has_time_of_its_own() -> None:
    told: list[str] = []

    async def hanging(event: PostStepExecution) -> None:
        await anyio.sleep(30)

    async def slow(event: PostStepExecution) -> None:
        await anyio.sleep(0.06)
        told.append("slow")

    hooks = [hanging, slow, slow, hanging, slow]
    result = await Flujo(increase, hooks=hooks, policy=Policy(observer_timeout_s=0.1)).run_async(1)
    assert told == ["slow"] * 3
    assert result.counts["plugin_faults"] == {"hanging": 2}


async def test_the_next_step_begins_when_the_observers_of_the_last_have_ended() -> None:
    seen: list[str] = []

    async def before(event: PreStepExecution) -> None:
        await anyio.sleep(0.001)
        seen.append(f"before {event.step_path}")

    async def after(event: PostStepExecution) -> None:
        await anyio.sleep(0.002)
        seen.append(f"after {event.step_path}")

    def make(name: str) -> Step:
        async def work(value: int) -> int:
            seen.append(name)
            return value

        return Step(work, name=name)

    await Flujo(Parallel(make("a") >> make("b"), make("c")), hooks=[before, after]).run_async(1)
    for path in {line.split()[1] for line in seen if " " in line}:
        name = path[-1]
        assert seen.index(f"before {path}") < seen.index(name) < seen.index(f"after {path}")
    assert seen.index("b") > next(at for at, line in enumerate(seen) if line.startswith("after") and line.endswith("a"))


async def test_observers_of_a_failed_branch_are_heard_out_though_the_run_ends() -> None:
    told: list[str] = []

    async def failed(event: OnStepFailure) -> None:
        await anyio.sleep(0.001)
        told.append(event.record.name)

    result = await Flujo(Parallel(Step(broken), Step(wait)), hooks=[failed]).run_async(1)
    assert (result.status, told) == ("failed", ["broken"])


async def test_all_are_told_of_a_step_though_one_of_them_ends_the_run_in_a_branch() -> None:
    told: list[str] = []

    def ends(event: PostStepExecution) -> None:
        raise AbortPipeline("enough")

    async def slow(event: PostStepExecution) -> None:
        await anyio.sleep(0.001)
        told.append(event.step_path)

    result = await Flujo(Parallel(increase, Step(wait)), hooks=[ends, slow, ends]).run_async(1)
    assert result.status == "aborted"
    assert len(told) == 1
    assert [record.name for record in result.step_history if record.status == "completed"] == ["increase"]


async def test_an_abort_before_a_branch_keeps_it_from_running() -> None:
    ran: list[int] = []

    async def note(value: int) -> int:
        ran.append(value)
        return value

    async def before(event: PreStepExecution) -> None:
        await anyio.sleep(0)
        raise AbortPipeline("not today")

    result = await Flujo(Parallel(Step(note, name="a"), Step(note, name="b")), hooks=[before]).run_async(1)
    assert (result.status, ran) == ("aborted", [])


async def test_what_an_observer_does_with_its_inputs_changes_nothing() -> None:
    def before(event: PreStepExecution) -> None:
        event.inputs.clear()  # type: ignore[attr-defined]

    assert (await Flujo(increase, hooks=[before]).run_async(1)).output == 2


async def test_a_record_is_the_same_whenever_it_is_read() -> None:
    events: list[PostStepExecution] = []

    def note(event: PostStepExecution) -> None:
        events.append(event)

    await Flujo(increase >> Step(increase.function, name="again"), hooks=[note]).run_async(1)
    assert [event.record.output for event in events] == [2, 3]
