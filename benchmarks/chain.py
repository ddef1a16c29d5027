"""What a chain of steps costs beside the same awaits without an engine: CPU time, both in one process, interleaved."""

import asyncio
import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import rshift
from time import process_time

from flujo.core import Flujo, Step

MakeStep = Callable[[int], Step]
TARGET_S = 0.02
"""Every timing repeats its work for about this long, far above the clock's resolution of a microsecond."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """CPU microseconds per step and per bare await (medians); ``value`` is the median of the rounds' ratios."""

    engine_us: float
    bare_us: float
    value: float


async def no_op(value: int) -> int:
    return value


def no_op_step(index: int) -> Step:
    """Make the step that costs nothing, so that only the engine is measured."""
    return Step(no_op, name=f"step_{index}")


def measure(n_steps: int = 100, make_step: MakeStep = no_op_step, rounds: int = 9) -> Ratio:
    """Compare a run of ``n_steps`` steps with ``n_steps`` bare awaits.

    Each round times both, so that a slow spell of the machine hits both; the median of the rounds' ratios is kept.

    Args:
        n_steps: length of the chain.
        make_step: makes the step at each index of the engine's chain; the bare awaits always await ``no_op``.
        rounds: number of pairs of timings.
    """
    flujo = Flujo(reduce(rshift, [make_step(index) for index in range(n_steps)]))
    return asyncio.run(_measure(flujo, n_steps, rounds))


async def _measure(flujo: Flujo, n_steps: int, rounds: int) -> Ratio:
    async def engine() -> None:
        # unwrap, so that a chain that fails early cannot pass for a fast one.
        (await flujo.run_async(1)).unwrap()

    async def bare() -> None:
        value = 1
        for _ in range(n_steps):
            value = await no_op(value)

    engine_runs, bare_runs = await _repeats(engine), await _repeats(bare)
    pairs = []
    for _ in range(rounds):
        gc.collect()
        engine_us = await _time_us(engine, engine_runs) / n_steps
        bare_us = await _time_us(bare, bare_runs) / n_steps
        pairs.append((engine_us, bare_us))
    engine_median, bare_median = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Ratio(engine_median, bare_median, statistics.median(e / b for e, b in pairs))


async def _repeats(run: Callable[[], object]) -> int:
    """Find how often to run so that one timing takes about TARGET_S; this also warms caches up."""
    runs = 1
    while (took_us := await _time_us(run, runs)) * runs < TARGET_S * 1e6 / 2:
        runs *= 2
    return max(1, round(TARGET_S * 1e6 / took_us))


async def _time_us(run: Callable[[], object], times: int) -> float:
    started = process_time()
    for _ in range(times):
        await run()
    return (process_time() - started) / times * 1e6


if __name__ == "__main__":
    for length in (10, 100, 1000):
        found = measure(length)
        costs = f"{found.engine_us:6.2f} us/step, bare {found.bare_us:.3f} us/await, x {found.value:.1f}"
        print(f"chain of {length:5}: {costs}")
