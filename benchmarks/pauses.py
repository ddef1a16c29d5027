"""What a pause and a resume cost after many steps: going on from a result must not cost more for a longer past."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from time import process_time

from benchmarks.chain import no_op

from flujo.core import Flujo, Loop, PauseForHumanInput, PipelineResult, Step

STEPS = (10, 100, 1000)


async def ask(value: int) -> int:
    raise PauseForHumanInput(f"go on with {value}?", int)


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds, each the best of all rounds: of a resume from a result, a snapshot, and a snapshot as text."""

    resume_us: float
    standing_us: float
    snapshot_us: float
    dump_us: float
    bare_us: float


def measure(prior: int, rounds: int = 15) -> Cost:
    """Pause a run after `prior` iterations of a no-op, and take the time of what comes after."""
    loop = Loop(Step(no_op), max_iterations=prior, on_limit="return")
    return asyncio.run(_measure(Flujo(loop >> Step(ask) >> Step(no_op, name="end")), rounds))


async def _measure(flujo: Flujo, rounds: int) -> Cost:
    best = [float("inf")] * 5

    def keep(place: int, started: float) -> None:
        best[place] = min(best[place], (process_time() - started) * 1e6)

    for _ in range(rounds):
        results: list[PipelineResult] = [await flujo.run_async(1) for _ in range(10)]
        gc.collect()
        started = process_time()
        for result in results:
            (await flujo.resume_async(result, 7)).unwrap()
        keep(0, started)
        paused = await flujo.run_async(1)
        started = process_time()
        paused.origin.standing()  # type: ignore[attr-defined]
        keep(1, started)
        started = process_time()
        snapshot = paused.snapshot()
        keep(2, started)
        started = process_time()
        snapshot.model_dump_json()
        keep(3, started)
        started = process_time()
        for _ in range(1000):
            await no_op(1)
        keep(4, started)
    return Cost(best[0] / 10, best[1], best[2], best[3], best[4] / 1000)


if __name__ == "__main__":
    for number in STEPS:
        cost = measure(number)
        rest = f"whole snapshot {cost.snapshot_us:8.0f}, as text {cost.dump_us:7.0f}, bare await {cost.bare_us:.3f}"
        print(f"after {number:5} steps: resume {cost.resume_us:6.0f} us, checkpoint {cost.standing_us:5.0f}, {rest}")
