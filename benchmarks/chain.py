"""What a chain of steps costs beside the same awaits without an engine."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial, reduce
from operator import rshift
from typing import Any

from benchmarks.compare import Ratio, best_us, compare

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


def per_step(cases: Mapping[str, Mapping[str, Any]], n_steps: int = 100, rounds: int = 25) -> dict[str, float]:
    """CPU microseconds per step of the same chain in Flujos that are made in different ways, and of a bare await.

    Args:
        cases: Arguments of each Flujo, by what the case is called.
        n_steps: length of the chain.
        rounds: number of timings of each.
    """
    chain = reduce(rshift, [no_op_step(index) for index in range(n_steps)])
    flujos = [Flujo(chain, **options) for options in cases.values()]

    async def engine(flujo: Flujo) -> None:
        (await flujo.run_async(1)).unwrap()

    async def bare() -> None:
        for _ in range(n_steps):
            await no_op(1)

    found = asyncio.run(best_us(*(partial(engine, flujo) for flujo in flujos), bare, rounds=rounds))
    return dict(zip([*cases, "bare"], [us / n_steps for us in found], strict=True))


if __name__ == "__main__":
    for length in (10, 100, 1000, 10_000):
        print(measure(length).line(f"chain of {length}, per step"))
