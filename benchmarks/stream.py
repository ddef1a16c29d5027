"""What reading a run adds to bare async generators: for each token, before the first, and in memory.

Run it as ``python -m benchmarks.stream``; CPU time, best of several, three stages. The tokens of text are short, since
the run keeps what they make.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import quantiles

from flujo.core import UNCHANGED, Chain, Flujo, TransformChunk, hookimpl
from flujo.streaming import StreamingStep, buffer

TOKENS = 100_000
TURNS = 5


async def source(number: int) -> AsyncIterator[str]:
    for _ in range(number):
        yield "ab "


async def first(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    async for chunk in chunks:
        yield chunk


async def second(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    async for chunk in chunks:
        yield chunk


def chain() -> Chain:
    return StreamingStep(source) >> StreamingStep(first) >> StreamingStep(second)


class Looking:
    """A plugin that looks at each chunk."""

    @hookimpl
    def transform_chunk(self, payload: TransformChunk) -> object:
        return UNCHANGED


async def bare(number: int) -> None:
    async for _ in second(first(source(number))):
        pass


async def text(flujo: Flujo, number: int) -> None:
    async with flujo.stream_async(number) as stream:
        async for _ in stream.text():
            pass


async def items(flujo: Flujo, number: int) -> None:
    async with flujo.stream_async(number) as stream:
        async for _ in stream:
            pass


async def micros(work: Callable[[], Awaitable[None]], number: int) -> float:
    """Microseconds of CPU for each token, best of several."""
    best = float("inf")
    for _ in range(TURNS):
        started = time.process_time()
        await work()
        best = min(best, time.process_time() - started)
    return best / number * 1e6


async def per_token() -> dict[str, float]:
    """Microseconds that each way adds for a token of three stages; `bare` is what the generators cost."""
    plain, looked = Flujo(chain()), Flujo(chain(), plugins=[Looking(), Looking()])
    ahead = Flujo(StreamingStep(source) >> StreamingStep(first) >> buffer(64) >> StreamingStep(second))
    base = await micros(lambda: bare(TOKENS), TOKENS)
    return {
        "bare": base,
        "text()": await micros(lambda: text(plain, TOKENS), TOKENS) - base,
        "items": await micros(lambda: items(plain, TOKENS), TOKENS) - base,
        "items, two chunk hooks": await micros(lambda: items(looked, TOKENS), TOKENS) - base,
        "text(), buffer(64)": await micros(lambda: text(ahead, TOKENS), TOKENS) - base,
    }


async def third(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    async for chunk in chunks:
        yield chunk


async def first_token() -> tuple[float, float]:
    """Microseconds from `stream_async` to the first token of a chain of four, median and 99th of a hundred."""
    flujo = Flujo(chain() >> StreamingStep(third))
    found = []
    for _ in range(500):
        started = time.perf_counter()
        async with flujo.stream_async(1) as stream:
            async for _ in stream.text():
                found.append((time.perf_counter() - started) * 1e6)
                break
    ordered = quantiles(found, n=100)
    return ordered[49], ordered[98]


async def memory(number: int) -> float:
    """MB by which the process grew over `number` tokens whose text is not kept, after a first stream."""
    last = StreamingStep(source) >> StreamingStep(first) >> StreamingStep(second, collect="none")
    flujo = Flujo(last)
    await text(flujo, 1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await text(flujo, number)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


async def at_once(streams: int, each: int) -> tuple[float, float, float]:
    """Seconds for many streams whose source waits a turn for each token: in all, to the slowest first token, spread."""

    async def waiting(number: int) -> AsyncIterator[str]:
        for _ in range(number):
            await asyncio.sleep(0)
            yield "ab "

    flujo = Flujo(StreamingStep(waiting) >> StreamingStep(first))
    begun, firsts, ends = time.perf_counter(), [], []

    async def one() -> None:
        async with flujo.stream_async(each) as stream:
            seen = 0
            async for _ in stream.text():
                if not seen:
                    firsts.append(time.perf_counter() - begun)
                seen += 1
        ends.append(time.perf_counter() - begun)

    await asyncio.gather(*(one() for _ in range(streams)))
    return max(ends), max(firsts), max(ends) - min(ends)


async def main() -> None:
    for name, cost in (await per_token()).items():
        print(f"{name:24} {cost:8.3f} us/token")
    median, late = await first_token()
    print(f"{'to the first token':24} {median:8.1f} us, 99th of a hundred {late:.1f} us")
    print(f"{'1,000,000 tokens':24} {await memory(1_000_000):8.2f} MB of growth")
    total, slowest, spread = await at_once(1000, 100)
    print(
        f"{'1,000 streams x 100':24} {total:8.2f} s, slowest first token {slowest * 1e3:.0f} ms, spread {spread:.2f} s"
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
