"""One way to compare the engine with bare code: CPU time of one process, both interleaved, the best of all rounds."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from time import process_time

Run = Callable[[], Awaitable[object]]
SLICE_S = 0.01
"""Every timing repeats its work for about this long: far above the clock's resolution, short enough to hit a lull."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """CPU microseconds per item of the engine and of bare code, each the best of all rounds."""

    engine_us: float
    bare_us: float

    @property
    def value(self) -> float:
        return self.engine_us / self.bare_us

    def line(self, what: str) -> str:
        """One row of a table."""
        return f"{what:44} {self.engine_us:9.2f} us, bare {self.bare_us:8.3f} us, x {self.value:.2f}"


async def compare(engine: Run, bare: Run, items: int = 1, rounds: int = 25) -> Ratio:
    """Compare two pieces of async work.

    Each round times both, so that a slow spell of the machine hits both. The best rounds are compared: noise only ever
    adds time. (Of 18 measurements on a busy machine these ratios lay between 62.7 and 67.4, medians of longer slices
    without a warm-up between 63 and 90.)

    Args:
        engine: What is measured.
        bare: What it is measured by.
        items: Items that each does in one call; what is given is the time per item.
        rounds: Number of pairs of timings.
    """
    best = await best_us(engine, bare, rounds=rounds)
    return Ratio(best[0] / items, best[1] / items)


async def best_us(*runs: Run, rounds: int = 25, clock: Callable[[], float] = process_time) -> list[float]:
    """Microseconds of each of several pieces of work, interleaved, each the best of all rounds."""
    repeats = [await _repeats(run, clock) for run in runs]
    best = [float("inf")] * len(runs)
    for _ in range(rounds):
        gc.collect()
        for place, (run, times) in enumerate(zip(runs, repeats, strict=True)):
            best[place] = min(best[place], await _time_us(run, times, clock))
    return best


async def paired(engine: Run, bare: Run, items: int = 1, rounds: int = 60) -> Ratio:
    """Compare two pieces of async work that take so long that no lull of a busy machine holds for many of them.

    What is given is the median of the ratios of pairs: who is slowed down is so in both halves of most pairs. (The best
    of all rounds compared two moments of luck: of one call of an agent they said anything from 1.08 to 1.38.)

    Args:
        engine: What is measured.
        bare: What it is measured by.
        items: Items that each does in one call; what is given is the time per item.
        rounds: Number of pairs, each the other way round than the one before.
    """
    for run in (engine, bare) * 3:
        await run()
    gc.collect()
    gc.freeze()  # else a collection of all that was imported falls into some of the pairs
    times = [
        [await _time_us(run, 1, process_time) for run in (engine, bare)[:: 1 - 2 * (n % 2)]] for n in range(rounds)
    ]
    pairs = [pair[:: 1 - 2 * (n % 2)] for n, pair in enumerate(times)]
    bare_us = median(theirs for _, theirs in pairs) / items
    return Ratio(bare_us * median(ours / theirs for ours, theirs in pairs), bare_us)


async def _repeats(run: Run, clock: Callable[[], float]) -> int:
    """Find how often to run so that one timing takes about SLICE_S, and warm up on the way."""
    runs, slices = 1, 0
    while slices < 5:
        took_us = max(1.0, await _time_us(run, runs, clock))
        slices += took_us * runs > SLICE_S * 1e6 / 2
        runs = max(1, min(2 * runs, round(SLICE_S * 1e6 / took_us)))
    return runs


async def _time_us(run: Run, times: int, clock: Callable[[], float]) -> float:
    started = clock()
    for _ in range(times):
        await run()
    return (clock() - started) / times * 1e6
