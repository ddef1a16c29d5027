"""What a sub-pipeline costs, a thousand of them nested in each other, beside as many nested awaits."""

import asyncio

from benchmarks.chain import no_op, no_op_step
from benchmarks.compare import Ratio, compare

from flujo.core import Flujo, Pipeline


def measure(depth: int = 1000, rounds: int = 25) -> Ratio:
    """Compare `depth` sub-pipelines in each other with as many awaits, per level."""
    inner = Pipeline(no_op_step(0), name="p0")
    for level in range(1, depth):
        inner = Pipeline(inner, name=f"p{level}")
    flujo = Flujo(inner)

    async def engine() -> None:
        (await flujo.run_async(1)).unwrap()

    async def bare() -> None:
        for _ in range(depth):
            await no_op(1)

    return asyncio.run(compare(engine, bare, depth, rounds))


if __name__ == "__main__":
    for levels in (10, 100, 1000):
        print(measure(levels).line(f"{levels} nested sub-pipelines, per level"))
