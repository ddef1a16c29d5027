"""The engine's own cost, beside bare awaits of the same run: `uv run pytest benchmarks --benchmark-only`.

Times are CPU time; what to read is the ratio in `extra_info`, since a machine's speed drifts.
"""

from __future__ import annotations

import asyncio
from time import process_time

import pytest
from benchmarks.chain import measure, no_op, no_op_step
from pytest_benchmark.fixture import BenchmarkFixture

from flujo.core import Flujo, OnRunEnd, Pipeline, PostStepExecution, Step

STEPS = (10, 100, 1000)
LIMIT_US = 10.0
"""Most CPU microseconds per no-op step without a plugin (issue 2); figures are printed, ratios are guarded."""


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.benchmark(timer=process_time)
def test_chain(benchmark: BenchmarkFixture, steps: int) -> None:
    """A chain of no-op steps, per run."""
    flujo = Flujo(chain(steps))
    with asyncio.Runner() as runner:
        benchmark(lambda: runner.run(flujo.run_async(1)).unwrap())
    ratio = measure(steps)
    benchmark.extra_info.update(engine_us_per_step=ratio.engine_us, bare_us=ratio.bare_us, ratio=ratio.value)


def test_chain_cost_is_linear() -> None:
    """A thousand steps cost no more per step than a hundred, but for noise; ten also carry the cost of a run."""
    hundred, thousand = measure(100), measure(1000)
    assert thousand.engine_us < 1.5 * hundred.engine_us


@pytest.mark.benchmark(timer=process_time)
def test_one_step_run(benchmark: BenchmarkFixture) -> None:
    """A whole run of one no-op step."""
    flujo = Flujo(Step(no_op))
    with asyncio.Runner() as runner:

        async def hundred() -> None:
            for _ in range(100):
                await flujo.run_async(1)

        benchmark(lambda: runner.run(hundred()))


@pytest.mark.parametrize("width", [10, 100, 1000])
@pytest.mark.benchmark(timer=process_time)
def test_fan_out(benchmark: BenchmarkFixture, width: int) -> None:
    """Independent no-op steps, beside `asyncio.gather` of as many awaits."""
    flujo = Flujo(Pipeline(*(no_op_step(n) for n in range(width))))
    with asyncio.Runner() as runner:
        benchmark(lambda: runner.run(flujo.run_async(1)))

        async def gather() -> None:
            await asyncio.gather(*(no_op(1) for _ in range(width)))

        started = process_time()
        for _ in range(10):
            runner.run(gather())
        benchmark.extra_info["gather_s"] = (process_time() - started) / 10


@pytest.mark.parametrize("observers", [0, 1, 5])
@pytest.mark.benchmark(timer=process_time)
def test_observers(benchmark: BenchmarkFixture, observers: int) -> None:
    """A hundred steps with sync observers of one moment."""

    def observe(event: PostStepExecution) -> None:
        return None

    flujo = Flujo(chain(100), hooks=[observe] * observers)
    with asyncio.Runner() as runner:
        benchmark(lambda: runner.run(flujo.run_async(1)).unwrap())


def test_a_hook_nobody_implements_is_not_called() -> None:
    """An observer of the run's end costs the steps nothing: they take the plain path's hooks, none of them built."""
    ended = []

    def at_end(event: OnRunEnd) -> None:
        ended.append(event.result.status)

    asyncio.run(Flujo(chain(3), hooks=[at_end]).run_async(1))
    assert ended == ["completed"]


def chain(steps: int) -> Pipeline:
    """A pipeline of `steps` no-op steps in a row."""
    joined = no_op_step(0) >> no_op_step(1)
    for index in range(2, steps):
        joined = joined >> no_op_step(index)
    return Pipeline(joined)
