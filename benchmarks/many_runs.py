"""What many concurrent runs cost beside bare asyncio: 10,000 runs of three steps that each sleep a millisecond."""

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable

from benchmarks.compare import Ratio, compare

from flujo.core import Flujo, Step

SLEEP_S = 0.001


async def nap(value: int) -> int:
    await asyncio.sleep(SLEEP_S)
    return value


async def three_naps(value: int) -> int:
    return await nap(await nap(await nap(value)))


def flujo_of() -> Flujo:
    return Flujo(Step(nap, name="a") >> Step(nap, name="b") >> Step(nap, name="c"))


def measure(runs: int = 10_000, rounds: int = 5) -> Ratio:
    """Compare concurrent runs with as many bare tasks that await the same: CPU microseconds per run."""
    flujo = flujo_of()

    async def one() -> object:
        return (await flujo.run_async(1)).unwrap()

    async def one_bare() -> object:  # whoever starts something many times does it from a function of their own
        return await three_naps(1)

    async def engine() -> None:
        await asyncio.gather(*(one() for _ in range(runs)))

    async def bare() -> None:
        await asyncio.gather(*(one_bare() for _ in range(runs)))

    return asyncio.run(compare(engine, bare, runs, rounds))


def memory_bytes(runs: int = 2000) -> tuple[float, float]:
    """Bytes that a run in its second step holds, and a bare task that does the same."""
    flujo = flujo_of()
    return asyncio.run(_held(lambda: flujo.run_async(1), runs)), asyncio.run(_held(lambda: three_naps(1), runs))


async def _held(start: Callable[[], Awaitable[object]], runs: int) -> float:
    await start()
    gc.collect()
    tracemalloc.start()
    tasks = [asyncio.ensure_future(start()) for _ in range(runs)]
    await asyncio.sleep(SLEEP_S * 1.5)
    held = tracemalloc.get_traced_memory()[0] / runs
    tracemalloc.stop()
    await asyncio.gather(*tasks)
    return held


if __name__ == "__main__":
    found = measure()
    print(found.line("10,000 runs of 3 x 1 ms, per run"))
    print(f"throughput: {100 / found.value:.0f} % of bare asyncio")
    ours, theirs = memory_bytes()
    print(f"memory in flight: {ours:.0f} bytes per run, bare {theirs:.0f}")
