"""The end from outside and from inside: not swallowed, told to every step at once, with nothing left open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from flujo.core import (
    Branch,
    Budget,
    Fallback,
    Flujo,
    Loop,
    Map,
    OnRunEnd,
    Parallel,
    Pipeline,
    PipelineResult,
    Resource,
    Resources,
    RetryPolicy,
    RunAborted,
    RunContext,
    Step,
    StepFailed,
    Update,
    UsageLimitExceeded,
    UsageLimits,
    step,
)

pytestmark = pytest.mark.anyio


@step
async def double(value: int) -> int:
    return 2 * value


@step
async def twice(value: int) -> list[int]:
    return [value, value]


async def first(both: dict[str, Any]) -> int:
    return int(next(iter(both.values())))


def done(value: int) -> bool:
    return True


@dataclass
class Scene:
    """Steps that hang with a lease and resources open, and what became of them."""

    hanging: int = 1
    begun: int = 0
    lines: list[str] = field(default_factory=list)
    all_hang: anyio.Event = field(default_factory=anyio.Event)
    budget: Budget = field(default_factory=lambda: Budget(UsageLimits(100)))

    def step(self, name: str = "hang", **options: Any) -> Step:
        async def hang(value: int, ctx: RunContext, item: str) -> int:
            async with ctx.usage.reserve(cost_usd=1):
                self.begun += 1
                if self.begun == self.hanging:
                    self.all_hang.set()
                try:
                    await anyio.sleep_forever()
                finally:
                    self.lines.append("ended")
            return value

        return Step(hang, name=name, **options)

    def resources(self) -> Resources:
        def opens(name: str) -> Callable[[], Any]:
            @asynccontextmanager
            async def manage() -> AsyncIterator[str]:
                self.lines.append(f"+{name}")
                try:
                    yield name
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.lowlevel.checkpoint()
                    self.lines.append(f"-{name}")

            return manage

        class Own(Resources):
            app: str = Resource(opens("app"), scope="app")
            run: str = Resource(opens("run"))
            item: str = Resource(opens("item"), scope="step")

        return Own()

    def flujo(self, flow: Any, **options: Any) -> Flujo:
        return Flujo(flow, resources=self.resources(), limits=self.budget, **options)

    def check_nothing_is_left(self) -> None:
        assert self.lines.count("ended") == self.begun == self.hanging
        for name in ("app", "run", "item"):
            assert self.lines.count(f"+{name}") == self.lines.count(f"-{name}"), name
        assert self.lines.count("+item") == self.hanging
        assert self.budget.spent.reserved_usd == 0
        assert self.budget.spent.cost_usd == Decimal(self.hanging), "a lease that is not settled counts in full"


def beside(scene: Scene) -> Parallel:
    return Parallel(Fallback(scene.step("a"), double), scene.step("b"))


SCENES: dict[str, tuple[int, Callable[[Scene], Any]]] = {
    "step": (1, lambda scene: scene.step()),
    "chain": (1, lambda scene: double >> scene.step() >> Step(double, name="never")),
    "graph": (2, lambda scene: Pipeline(scene.step("a"), scene.step("b"), double)),
    "parallel": (3, lambda scene: Parallel(scene.step("a"), scene.step("b"), scene.step("c"))),
    "limited": (2, lambda scene: Parallel(*(scene.step(f"s{n}") for n in range(9)), limit=2)),
    "collected": (2, lambda scene: Parallel(scene.step("a"), scene.step("b"), on_failure="collect")),
    "map": (2, lambda scene: twice >> Map(scene.step())),
    "loop": (1, lambda scene: Loop(scene.step(), until=done)),
    "branch": (1, lambda scene: Branch(on=lambda value: True, cases={True: scene.step()})),
    "fallback": (1, lambda scene: Fallback(scene.step("a"), scene.step("b"))),
    "retried": (1, lambda scene: scene.step(retry=RetryPolicy(max_attempts=5, backoff_s=0))),
    "timed": (1, lambda scene: scene.step(timeout_s=60)),
    "pipeline": (1, lambda scene: double >> Pipeline(Pipeline(scene.step(), name="b"), name="a")),
    "nested": (4, lambda scene: twice >> Map(Loop(Pipeline(beside(scene) >> Step(first), name="p"), until=done))),
}


def set_up(kind: str) -> tuple[Scene, Any]:
    hanging, build = SCENES[kind]
    scene = Scene(hanging)
    return scene, build(scene)


# --- from outside -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCENES)
async def test_a_cancelled_scope_around_a_run_ends_all_of_it_and_is_not_swallowed(kind: str) -> None:
    scene, flow = set_up(kind)
    ends: list[PipelineResult] = []

    def on_end(event: OnRunEnd) -> None:
        ends.append(event.result)

    results = []

    async def run() -> None:
        results.append(await scene.flujo(flow, hooks=[on_end]).run_async(1))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await scene.all_hang.wait()
            group.cancel_scope.cancel()
    assert results == [], "a cancelled run gives no result"
    scene.check_nothing_is_left()
    assert [end.status for end in ends] == ["aborted"], "its end is told once"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio has no cancel of one task
@pytest.mark.parametrize("kind", SCENES)
async def test_a_cancelled_task_ends_the_run_in_it(kind: str) -> None:
    scene, flow = set_up(kind)
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(scene.flujo(flow).run_async(1))
    await asyncio.wait_for(scene.all_hang.wait(), 5)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert task.cancelled()
    scene.check_nothing_is_left()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("kind", SCENES)
async def test_a_timeout_around_a_run_is_raised_and_not_taken_for_a_failure_of_a_step(kind: str) -> None:
    scene, flow = set_up(kind)
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.05):
            await scene.flujo(flow).run_async(1)
    assert scene.lines.count("ended") == scene.begun
    assert scene.budget.spent.reserved_usd == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_timeout_works_around_a_run() -> None:
    scene, flow = set_up("nested")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await scene.flujo(flow).run_async(1)
    assert scene.budget.spent.reserved_usd == 0
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_step_that_takes_its_time_to_end_is_waited_for() -> None:
    ended = []
    one, other = anyio.Event(), anyio.Event()

    async def lingers(value: int, ctx: RunContext) -> int:
        try:
            (one if ctx.step_path.endswith("a") else other).set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(50):
                    await anyio.lowlevel.checkpoint()
            ended.append(value)
        return value

    async with anyio.create_task_group() as group:
        group.start_soon(Flujo(Parallel(Step(lingers, name="a"), Step(lingers, name="b"))).run_async, 1)
        await one.wait()
        await other.wait()
        group.cancel_scope.cancel()
    assert ended == [1, 1]


async def test_a_cancel_before_the_run_lets_no_step_come_to_its_end() -> None:
    ran = []

    async def note(value: int) -> int:
        await anyio.lowlevel.checkpoint()
        ran.append(value)
        return value

    with anyio.CancelScope() as scope:
        scope.cancel()
        await Flujo(Parallel(Step(note), double) >> Step(first) >> Step(note, name="again")).run_async(1)
    assert scope.cancelled_caught
    assert ran == []


async def test_runs_beside_a_cancelled_one_go_on() -> None:
    scene, flow = set_up("parallel")
    flujo = scene.flujo(flow)
    results: dict[str, PipelineResult] = {}
    hold = anyio.Event()

    async def wait(value: int) -> int:
        await hold.wait()
        return value

    async def beside() -> None:
        results["beside"] = await Flujo(Parallel(Step(wait), double)).run_async(1)

    async with anyio.create_task_group() as outer:
        outer.start_soon(beside)
        async with anyio.create_task_group() as group:
            group.start_soon(flujo.run_async, 1)
            await scene.all_hang.wait()
            group.cancel_scope.cancel()
        hold.set()
    assert results["beside"].output == {"wait": 1, "double": 2}
    scene.check_nothing_is_left()


# --- by the handle and by the deadline --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCENES)
async def test_a_cancelled_handle_gives_an_aborted_result_that_keeps_everything(kind: str) -> None:
    scene, flow = set_up(kind)
    handle = scene.flujo(flow).start(1)
    with anyio.fail_after(5):
        await scene.all_hang.wait()
        handle.cancel("no longer needed")
        result = await handle.wait()
    assert result.status == "aborted"
    assert isinstance(result.error, RunAborted)
    assert "no longer needed" in str(result.error)
    statuses = [r.status for r in result.step_history]
    assert statuses.count("cancelled") == scene.hanging
    assert set(statuses) <= {"completed", "cancelled"}
    assert result.total_cost_usd == scene.hanging
    scene.check_nothing_is_left()


@pytest.mark.parametrize("kind", SCENES)
async def test_a_deadline_reaches_every_step_wherever_it_stands(kind: str) -> None:
    scene, flow = set_up(kind)
    with anyio.fail_after(5):
        result = await scene.flujo(flow).run_async(1, deadline_s=0.1)
    assert result.status == "aborted"
    assert isinstance(result.error, RunAborted)
    assert "deadline" in str(result.error)
    scene.check_nothing_is_left()


async def test_steps_know_the_deadline_of_their_run_wherever_they_stand() -> None:
    left = []

    async def look(value: int, ctx: RunContext) -> int:
        assert ctx.deadline is not None
        left.append(ctx.deadline - anyio.current_time())
        return value

    flow = twice >> Map(Loop(Pipeline(Step(look), name="p"), max_iterations=2, on_limit="return"))
    await Flujo(flow).run_async(1, deadline_s=30)
    assert len(left) == 4
    assert all(20 < seconds <= 30 for seconds in left)


# --- from inside ------------------------------------------------------------------------------------------------------


async def test_a_failure_in_one_branch_cancels_its_siblings_at_once() -> None:
    scene = Scene(3)

    async def bad(value: int) -> int:
        await scene.all_hang.wait()
        raise ValueError("no good")

    deep = Pipeline(Loop(scene.step("deep"), until=done), name="p")
    flow = Parallel(scene.step("a"), Step(bad), deep, scene.step("b"))
    with anyio.fail_after(5):
        result = await scene.flujo(flow).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.step_path == "parallel/bad"
    assert {r.name: r.status for r in result.step_history} == {
        "a": "cancelled", "b": "cancelled", "deep": "cancelled", "bad": "failed",
    }  # fmt: skip
    scene.check_nothing_is_left()


async def test_a_breach_in_one_branch_cancels_its_siblings_at_once() -> None:
    began = anyio.Event()
    ended = []

    async def idle(value: int) -> int:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(value)
        return value

    async def greedy(value: int, ctx: RunContext) -> int:
        await began.wait()
        async with ctx.usage.reserve(cost_usd=2):
            return value

    flow = Parallel(Pipeline(Loop(Step(idle), until=done), name="slow"), Step(greedy))
    with anyio.fail_after(5):
        result = await Flujo(flow, limits=UsageLimits(1)).run_async(1)
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert ended == [1]
    assert {r.name: r.status for r in result.step_history} == {"idle": "cancelled", "greedy": "failed"}


async def test_what_fits_together_is_not_divided_between_branches() -> None:
    def paid(name: str, cost: str) -> Step:
        async def pay(value: int, ctx: RunContext) -> int:
            async with ctx.usage.reserve(cost_usd=cost) as lease:
                await anyio.lowlevel.checkpoint()
                lease.settle(cost_usd=cost)
            return value

        return Step(pay, name=name)

    flow = Parallel(paid("large", "0.8"), paid("small", "0.1"))
    result = await Flujo(flow, limits=UsageLimits("1.0")).run_async(1)
    assert (result.status, result.total_cost_usd) == ("completed", Decimal("0.9"))


async def test_a_step_that_swallows_the_cancel_does_not_keep_the_run_alive() -> None:
    began = anyio.Event()
    after = []

    async def stubborn(value: int) -> int:
        with contextlib.suppress(BaseException):
            began.set()
            await anyio.sleep_forever()
        return value

    async def never(value: int) -> int:
        after.append(value)
        return value

    handle = Flujo(Step(stubborn) >> Step(never)).start(1)
    await began.wait()
    handle.cancel()
    with anyio.fail_after(5):
        result = await handle.wait()
    assert result.status == "aborted"
    assert after == []


class Notes(BaseModel, frozen=True):
    count: int = 0


async def test_a_cancelled_run_tells_the_context_as_its_last_step_left_it() -> None:
    async def writes(value: int) -> Update[int]:
        return Update(value, count=value)

    async def waits(value: int) -> int:
        handle.cancel()
        await anyio.sleep(5)
        return value

    flujo = Flujo(Step(writes, writes="count") >> Step(waits), context_model=Notes)
    handle = flujo.start(3)
    result = await handle.wait()
    assert (result.status, result.context) == ("aborted", Notes(count=3))


async def test_no_step_begins_between_a_cancel_from_outside_and_the_turn_in_which_the_run_hears_of_it() -> None:
    began: list[str] = []

    async def cancels(value: int) -> int:
        await anyio.sleep(0)
        scope.cancel()
        await anyio.sleep(5)
        return value

    async def waits(value: int) -> int:
        await anyio.sleep(0)
        return value

    async def follows(value: int) -> int:
        began.append("follows")
        return value

    parallel = Parallel(Step(cancels), Step(waits) >> Step(follows))
    with anyio.CancelScope() as scope:
        await Flujo(Pipeline(parallel)).run_async(1)
    assert scope.cancelled_caught
    assert began == []
