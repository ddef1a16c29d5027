"""What a whole `run_async` of one no-op step costs beside a bare await."""

import asyncio

from benchmarks.chain import no_op
from benchmarks.compare import Ratio, compare

from flujo.core import Flujo, Step


def measure(rounds: int = 25) -> Ratio:
    """Compare one run with one await."""
    flujo = Flujo(Step(no_op))

    async def engine() -> None:
        for _ in range(100):
            (await flujo.run_async(1)).unwrap()

    async def bare() -> None:
        for _ in range(100):
            await no_op(1)

    return asyncio.run(compare(engine, bare, 100, rounds))


if __name__ == "__main__":
    print(measure().line("run_async of one step"))
