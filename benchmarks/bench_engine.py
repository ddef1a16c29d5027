"""The engine's own cost, beside bare awaits of the same run: `uv run pytest benchmarks --benchmark-only`.

Times are CPU time; what to read is the ratio in `extra_info`, since a machine's speed drifts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import process_time

import pytest
from benchmarks import fan_out, hooks, loop, many_runs, nested, one_run, pauses, traced
from benchmarks.chain import measure, no_op, no_op_step
from benchmarks.compare import Ratio
from pytest_benchmark.fixture import BenchmarkFixture

from flujo.core import Flujo, OnRunEnd, Pipeline, PostStepExecution, Step

STEPS = (10, 100, 1000)
RATIOS: dict[str, Callable[[], Ratio]] = {
    "one run": lambda: one_run.measure(rounds=9),
    "loop, an iteration of 1000": lambda: loop.measure(1000, rounds=9),
    "loop with until=, an iteration of 1000": lambda: loop.measure(1000, asks=True, rounds=9),
    **{f"{kind}, a branch of 1000": lambda kind=kind: fan_out.measure(kind, rounds=9) for kind in fan_out.KINDS},
    "100 branches of 50 ms, wall": lambda: fan_out.measure_waits(rounds=5),
    "10,000 concurrent runs, a run": lambda: many_runs.measure(rounds=3),
    "1000 nested sub-pipelines, a level": lambda: nested.measure(rounds=9),
}


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


@pytest.mark.parametrize("what", RATIOS)
def test_ratio(what: str) -> None:
    """Each of the engine's numbers beside bare asyncio; the guard holds the steady ones."""
    print("\n" + RATIOS[what]().line(what))


def test_hook_moments() -> None:
    """What observers add to a step, in CPU microseconds."""
    print("\n" + ", ".join(f"{case}: {us:.2f}" for case, us in hooks.measure(rounds=9).items()))


def test_spans_cost_at_most_twice_what_they_cost_in_the_sdk_and_nothing_while_off() -> None:
    """Of a chain of no-ops, the best of three: noise only ever adds."""
    costs = min((traced.measure() for _ in range(3)), key=lambda found: found.ratio)
    print(f"\nspans x {costs.ratio:.2f} of the SDK's, with metrics x {costs.ratio_of_both:.2f}; off {costs.share:.1%}")
    assert costs.ratio <= 2
    assert costs.share < 0.05


def test_going_on_from_a_result_costs_what_is_live_not_what_was_done() -> None:
    """After a thousand steps a resume costs what it costs after ten, but for noise."""
    few, many = pauses.measure(10), pauses.measure(1000)
    print(f"\nresume: {few.resume_us:.0f} us after 10 steps, {many.resume_us:.0f} us after 1000")
    assert many.resume_us < 2 * few.resume_us
    assert many.standing_us < 3 * few.standing_us


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
