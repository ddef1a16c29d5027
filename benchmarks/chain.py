"""What a chain of steps costs beside the same awaits without an engine."""

import asyncio
from collections.abc import Callable
from functools import reduce
from operator import rshift

from benchmarks.compare import Ratio, compare

from flujo.core import Flujo, Step

MakeStep = Callable[[int], Step]


async def no_op(value: int) -> int:
    return value


def no_op_step(index: int) -> Step:
    """Make the step that costs nothing, so that only the engine is measured."""
    return Step(no_op, name=f"step_{index}")


def measure(n_steps: int = 100, make_step: MakeStep = no_op_step, rounds: int = 25) -> Ratio:
    """Compare a run of ``n_steps`` steps with ``n_steps`` bare awaits, per step.

    Args:
        n_steps: length of the chain.
        make_step: makes the step at each index of the engine's chain; the bare awaits always await ``no_op``.
        rounds: number of pairs of timings.
    """
    flujo = Flujo(reduce(rshift, [make_step(index) for index in range(n_steps)]))

    async def engine() -> None:
        # unwrap, so that a chain that fails early cannot pass for a fast one.
        (await flujo.run_async(1)).unwrap()

    async def bare() -> None:
        value = 1
        for _ in range(n_steps):
            value = await no_op(value)

    return asyncio.run(compare(engine, bare, n_steps, rounds))


if __name__ == "__main__":
    for length in (10, 100, 1000, 10_000):
        print(measure(length).line(f"chain of {length}, per step"))
