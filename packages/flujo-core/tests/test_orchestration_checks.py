"""Checks 3, 12, 15, 20, 21 and 23 that our study of other engines asks for; the number is in each name.

22 (poisoned snapshots) and the rest of 23 (versions) are in `test_bad_snapshots.py`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import random
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from flujo.core import (
    Budget,
    ConfigurationError,
    Fallback,
    Flujo,
    Loop,
    LoopLimit,
    Map,
    OnRunEnd,
    Parallel,
    Pipeline,
    RecordIntent,
    RecordResult,
    Resource,
    Resources,
    RetryPolicy,
    RunAborted,
    RunContext,
    SnapshotError,
    Step,
    StepTimeout,
    UsageLimitExceeded,
    UsageLimits,
    step,
)
from flujo.core.testing import RecordingPlugin

pytestmark = pytest.mark.anyio


@step
async def plus(value: int) -> int:
    return value + 1


def never(value: object) -> bool:
    return False


# --- 3: a kill during a fan-out ---------------------------------------------------------------------------------------


def test_check_03_after_a_kill_finished_branches_are_not_run_again_and_the_others_are(tmp_path: Path) -> None:
    effects, stored = tmp_path / "effects", tmp_path / "snapshot.json"
    script = Path(__file__).with_name("fan_out_process.py")

    def process(act: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, script, act, effects, stored], capture_output=True, text=True, timeout=240, check=False
        )

    killed = process("start")
    assert killed.returncode == -9, killed.stderr
    assert sorted(effects.read_text().split()) == sorted(f"b{n}" for n in range(10))
    resumed = process("resume")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["status"] == "completed"
    assert json.loads(resumed.stdout)["output"] == {f"b{n}": 100 + n for n in range(20)}
    assert Counter(effects.read_text().split()) == {f"b{n}": 1 for n in range(20)}


# --- 12: exactly at the limit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "price", "calls"),
    [
        (UsageLimits("0.3"), {"cost_usd": "0.1"}, 3),
        (UsageLimits(Decimal("0.3")), {"cost_usd": 0.1}, 3),
        (UsageLimits(0.3), {"cost_usd": "0.1"}, 3),
        (UsageLimits(total_tokens_limit=30), {"tokens": 10}, 3),
        (UsageLimits(requests_limit=3), {}, 3),
        (UsageLimits(0), {"cost_usd": "0.1"}, 0),
        (UsageLimits(requests_limit=0), {}, 0),
    ],
)
@pytest.mark.parametrize("shape", ["loop", "map", "parallel"])
async def test_check_12_at_the_limit_there_is_no_further_call(
    limits: UsageLimits, price: Any, calls: int, shape: str
) -> None:
    made = [0]

    async def call(value: Any, ctx: RunContext) -> Any:
        async with ctx.usage.reserve(**price) as lease:
            made[0] += 1
            lease.settle(**price)
        return value

    shapes: dict[str, Any] = {
        "loop": Loop(Step(call), until=never),
        "map": Map(Step(call)),
        "parallel": Parallel(*(Step(call, name=f"c{n}") for n in range(5))),
    }
    result = await Flujo(shapes[shape], limits=limits).run_async([1, 2, 3, 4, 5])
    assert result.status == "stopped"
    assert made[0] == calls
    assert result.usage.requests == calls


@pytest.mark.parametrize("wrong", [-1, "-0.01", math.nan, math.inf, Decimal("nan"), Decimal("-inf"), True])
def test_check_12_a_limit_that_is_no_amount_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="total_cost_usd_limit"):
        UsageLimits(wrong)
    with pytest.raises(ConfigurationError, match="total_tokens_limit"):
        UsageLimits(total_tokens_limit=wrong)


async def test_check_12_a_tally_does_not_drift_over_many_settles_of_a_loop() -> None:
    await settle_in_a_loop(10_000)


@pytest.mark.soak
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_check_12_a_tally_does_not_drift_over_a_million_settles_of_a_loop(anyio_backend: str) -> None:
    await settle_in_a_loop(1_000_000)


async def settle_in_a_loop(settles: int) -> None:
    async def work(value: int, ctx: RunContext) -> int:
        for _ in range(settles // 1000):
            async with ctx.usage.reserve(cost_usd=0.1, tokens=1) as lease:
                lease.settle(cost_usd=0.1, tokens=1)
        return value

    loop = Loop(Step(work), until=None, max_iterations=1000, on_limit="return")
    result = await Flujo(loop, limits=UsageLimits(Decimal(settles) / 10, total_tokens_limit=settles)).run_async(1)
    assert result.status == "completed"
    assert result.total_cost_usd == Decimal(settles) / 10
    assert result.usage.total_tokens == settles


# --- 15: cancelled at any instant -------------------------------------------------------------------------------------


class Trap:
    """Counts the instants of a run and ends it at one of them, in one of several ways."""

    def __init__(self, at: int, way: str) -> None:
        self.at, self.way, self.count = at, way, 0
        self.scope = anyio.CancelScope()
        self.task: Any = None

    async def instant(self) -> None:
        self.count += 1
        if self.count == self.at:
            if self.way == "scope":
                self.scope.cancel()
            elif self.way == "timeout":
                self.scope.deadline = -math.inf
            else:
                self.task.cancel()
        await anyio.lowlevel.checkpoint()


def trapped(trap: Trap, open_now: list[str]) -> tuple[Any, Resources]:
    """A pipeline of every kind of nesting that passes a few hundred instants, and its resources."""

    @asynccontextmanager
    async def connection() -> AsyncIterator[dict[str, int]]:
        await trap.instant()
        open_now.append("db")
        try:
            yield {}
        finally:
            open_now.remove("db")

    class Own(Resources):
        run_db: dict[str, int] = Resource(connection, scope="run")

    async def work(value: int, ctx: RunContext, run_db: dict[str, int]) -> int:
        await trap.instant()
        async with ctx.usage.reserve(cost_usd="0.1") as lease:
            await trap.instant()
            lease.settle(cost_usd="0.05")
        await trap.instant()
        return value + 1

    async def total(outputs: dict[str, int]) -> int:
        return sum(outputs.values()) % 7

    fan = Parallel(Step(work, name="a"), Pipeline(Step(work, name="b"), name="sub"), limit=2) >> Step(total)
    return Step(work, name="first") >> Step(list_of, inline=True) >> Map(
        Loop(fan, until=None, max_iterations=2, on_limit="return")
    ), Own()


def list_of(value: int) -> list[int]:
    return [value] * 4


def living() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


@pytest.mark.parametrize("way", ["scope", "timeout", "task", "handle"])
async def test_check_15_a_cancel_at_any_instant_leaks_nothing_and_ends_the_record_once(
    way: str, anyio_backend_name: str
) -> None:
    instants = random.Random(15).sample(range(1, 53), 50)
    for at in instants:
        trap, open_now, budget = Trap(at, way), [], Budget(UsageLimits(1000))
        pipeline, resources = trapped(trap, open_now)
        plugin = RecordingPlugin()
        flujo = Flujo(pipeline, resources=resources, limits=budget, plugins=[plugin])
        before = living()
        if way == "handle":
            trap.task = flujo.start(1)
            assert (await trap.task.wait()).status == "aborted"
        elif way == "task" and anyio_backend_name == "asyncio":
            trap.task = asyncio.ensure_future(flujo.run_async(1))
            with pytest.raises(asyncio.CancelledError):
                await trap.task
        else:
            trap.task = trap.scope
            with trap.scope:
                await flujo.run_async(1)
            assert trap.scope.cancelled_caught
        assert trap.count >= at
        await anyio.lowlevel.checkpoint()  # a task that has ended leaves the loop's books a tick later
        assert living() == before, f"instant {at}"
        assert open_now == []
        room = budget.room()
        spent = plugin.of(OnRunEnd)[-1].result.usage
        assert spent.reserved_usd == 0
        assert room.cost_usd == 1000 - spent.cost_usd
        assert_paired(plugin)


def assert_paired(plugin: RecordingPlugin) -> None:
    """Each intent has one result, and the run has one of both."""
    intents = Counter(record.record_id for record in plugin.of(RecordIntent))
    results = Counter(record.record_id for record in plugin.of(RecordResult))
    assert intents == results
    assert set(intents.values()) == {1}
    (end,) = [record.status for record in plugin.of(RecordResult) if record.kind == "run"]
    assert end in ("aborted", "cancelled")
    assert len(plugin.of(OnRunEnd)) == 1


# --- 20: loops and depth ----------------------------------------------------------------------------------------------


async def test_check_20_a_loop_has_a_small_default_a_hard_cap_and_keeps_its_last_output() -> None:
    result = await Flujo(Loop(plus, until=never)).run_async(0)
    assert isinstance(result.error, LoopLimit)
    assert result.error.partial == 10
    for wrong in (0, -1, 10_001, True, 2.5):
        with pytest.raises(ValueError, match="max_iterations"):
            Loop(plus, until=never, max_iterations=wrong)


async def test_check_20_a_loop_is_capped_by_its_cost_too() -> None:
    async def dear(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.01") as lease:
            lease.settle(cost_usd="0.01")
        return value + 1

    loop = Loop(Step(dear), until=never, max_iterations=10_000)
    result = await Flujo(loop, limits=UsageLimits("0.25")).run_async(0)
    assert isinstance(result.error, UsageLimitExceeded)
    assert result.total_cost_usd == Decimal("0.25")
    assert [r.output for r in result.step_history if r.status == "completed"][-1] == 25


@pytest.mark.soak
async def test_check_20_memory_of_ten_thousand_iterations_is_the_history_and_nothing_else() -> None:
    """Flat but for the history, which is part of the result: memory is held to a straight line."""

    async def held(iterations: int) -> int:
        flujo = Flujo(Loop(plus, until=None, max_iterations=iterations, on_limit="return"))
        gc.collect()
        tracemalloc.start()
        try:
            result = await flujo.run_async(0)
            assert result.output == iterations
            gc.collect()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    await held(10)
    half, whole = await held(5_000), await held(10_000)
    assert whole / half == pytest.approx(2, rel=0.05)


async def test_check_20_a_thousand_nested_pipelines_and_a_deep_mix_run_without_recursion() -> None:
    nested: Any = plus
    for n in range(1000):
        nested = Pipeline(nested, name=f"p{n}")
    result = await Flujo(nested).run_async(0)
    assert result.output == 1
    assert result.step_history[0].path.count("/") >= 999
    mixed: Any = plus
    for n in range(300):
        kind = n % 3
        if kind == 0:
            mixed = Loop(mixed, until=None, max_iterations=1, on_limit="return", name=f"l{n}")
        elif kind == 1:
            mixed = Pipeline(mixed, name=f"p{n}")
        else:
            mixed = Parallel(mixed, name=f"f{n}") >> Step(lambda d: next(iter(d.values())), name=f"t{n}", inline=True)
    assert (await Flujo(mixed).run_async(0)).output == 1


# --- 21: deadlines, on a clock that only moves while all wait ---------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_check_21_retries_waits_and_timeouts_together_never_pass_the_deadline(seed: int) -> None:
    chance = random.Random(seed)
    deadline_s = chance.uniform(0.5, 20)
    retry = RetryPolicy(max_attempts=chance.randint(1, 20), backoff_s=chance.uniform(0, 3), max_backoff_s=5)
    flaky = chance.random()

    async def slow(value: int) -> int:
        await anyio.sleep(chance.uniform(0, 10))
        if chance.random() < flaky:
            raise OSError("not yet")
        return value

    work = Step(slow, timeout_s=chance.uniform(0.1, 5), retry=retry)
    shapes: list[Any] = [work, Map(work, limit=2), Loop(work, until=never, max_iterations=50), Fallback(work, plus)]

    async def main() -> None:
        for shape in shapes:
            started = anyio.current_time()
            result = await Flujo(shape).run_async([1] * 5 if isinstance(shape, Map) else 1, deadline_s=deadline_s)
            took = anyio.current_time() - started
            assert took <= deadline_s + 0.1
            if isinstance(result.error, RunAborted):
                assert "deadline" in str(result.error)
                assert took == pytest.approx(deadline_s)

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_check_21_a_blocking_step_is_abandoned_and_says_so_wherever_it_stands() -> None:
    def blocks(value: int) -> int:
        time.sleep(0.8)
        return value

    for shape in (Loop(Step(blocks, timeout_s=0.3), until=never), Map(Step(blocks, timeout_s=0.3))):
        result = await Flujo(shape).run_async(1 if isinstance(shape, Loop) else [1])
        assert isinstance(result.error, StepTimeout)
        assert result.error.abandoned
        assert "abandoned" in str(result.error)


# --- 23: a changed pipeline -------------------------------------------------------------------------------------------


async def test_check_23_a_changed_pipeline_is_refused_and_nothing_is_lost_in_silence() -> None:
    async def fails(value: int) -> int:
        raise OSError("down")

    old = Flujo(plus >> Step(fails))
    failed = await old.run_async(1)
    changed = {
        "renamed": plus >> Step(fails, name="other"),
        "longer": plus >> Step(fails) >> Step(plus, name="more"),
        "another version": plus >> Step(fails, version=2),
        "looped": Loop(plus >> Step(fails), until=never),
        "another effect": plus >> Step(fails, effect="pure"),
    }
    for pipeline in changed.values():
        with pytest.raises(SnapshotError, match=r"fingerprint|changed"):
            await Flujo(pipeline).resume_async(failed.snapshot(), retry=True)
    assert (await old.resume_async(failed.snapshot(), retry=True)).status == "failed"
