"""What a branch of a fan-out costs beside `asyncio.gather`: CPU time of no-ops, wall time of branches that sleep."""

import asyncio
from time import perf_counter

from benchmarks.chain import no_op, no_op_step
from benchmarks.compare import Ratio, best_us, compare

from flujo.core import Flujo, Map, Parallel, Pipeline, Step

KINDS = ("map", "parallel", "pipeline")
WAIT_S = 0.05


def flujo_of(kind: str, width: int) -> tuple[Flujo, object]:
    """A fan-out of no-op steps, and its input."""
    if kind == "map":
        return Flujo(Map(Step(no_op))), list(range(width))
    steps = [no_op_step(index) for index in range(width)]
    return Flujo(Parallel(*steps) if kind == "parallel" else Pipeline(*steps)), 1


def measure(kind: str, width: int = 1000, rounds: int = 25) -> Ratio:
    """Compare a fan-out of no-op branches with a gather of as many no-ops, per branch.

    Args:
        kind: One of KINDS; a pipeline's branches are independent steps.
        width: How many branches.
        rounds: Number of pairs of timings.
    """
    flujo, given = flujo_of(kind, width)

    async def engine() -> None:
        (await flujo.run_async(given)).unwrap()

    async def bare() -> None:
        await asyncio.gather(*(no_op(1) for _ in range(width)))

    return asyncio.run(compare(engine, bare, width, rounds))


def measure_waits(width: int = 100, rounds: int = 15) -> Ratio:
    """Compare branches that each sleep WAIT_S with a gather of as many sleeps: wall microseconds of the whole."""

    async def wait(value: int) -> int:
        await asyncio.sleep(WAIT_S)
        return value

    flujo = Flujo(Map(Step(wait)))

    async def engine() -> None:
        (await flujo.run_async(list(range(width)))).unwrap()

    async def bare() -> None:
        await asyncio.gather(*(wait(1) for _ in range(width)))

    return Ratio(*asyncio.run(best_us(engine, bare, rounds=rounds, clock=perf_counter)))


if __name__ == "__main__":
    for fan in KINDS:
        for number in (2, 10, 100, 1000):
            print(measure(fan, number).line(f"{fan} of {number} no-ops, per branch"))
    print(measure_waits().line("map of 100 x 50 ms, wall"))
