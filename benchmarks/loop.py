"""What an iteration of a loop costs beside a `for` loop of awaits."""

import asyncio

from benchmarks.chain import no_op
from benchmarks.compare import Ratio, compare

from flujo.core import Flujo, Loop, Step


def measure(iterations: int = 1000, *, asks: bool = False, rounds: int = 25) -> Ratio:
    """Compare a loop of a no-op step with awaits, per iteration.

    Args:
        iterations: How many.
        asks: Whether the loop is asked after each iteration whether it is good (`until`), instead of counting.
        rounds: Number of pairs of timings.
    """
    until = (lambda _: False) if asks else None
    flujo = Flujo(Loop(Step(no_op), until, max_iterations=iterations, on_limit="return"))

    async def engine() -> None:
        (await flujo.run_async(1)).unwrap()

    async def bare() -> None:
        value = 1
        for _ in range(iterations):
            value = await no_op(value)

    return asyncio.run(compare(engine, bare, iterations, rounds))


if __name__ == "__main__":
    for count in (10, 100, 1000, 10_000):
        print(measure(count).line(f"loop of {count}, per iteration"))
    print(measure(asks=True).line("loop of 1000 with until=, per iteration"))
