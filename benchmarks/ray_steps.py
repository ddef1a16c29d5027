"""1,000 no-op steps on Ray beside as many raw calls of Ray actors, in the same cluster and the same run.

Run it as ``python -m benchmarks.ray_steps [ROUNDS]``; exit code 1 where the best round of steps takes more than
1.5 times the best round of raw calls. Both are made by as many actors, all at once from one event loop.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from flujo.backend_ray import RayBackend
from flujo.core import Flujo, Map, step

STEPS = 1000
ACTORS = 2
MOST = 1.5


@step
async def nothing(number: int) -> int:
    return number


class Raw:
    """An actor without Flujo."""

    async def run(self, number: int) -> int:
        return number


def main(rounds: int) -> int:
    import ray  # heavy: 1 s
    from benchmarks import ray_steps  # this module by the name that an actor can import

    flujo = Flujo(Map(ray_steps.nothing), backend=RayBackend(actors=ACTORS))
    flujo.run(list(range(ACTORS))).unwrap()
    kind: Any = ray.remote(Raw)
    raw = [kind.options(num_cpus=0, max_concurrency=10_000).remote() for _ in range(ACTORS)]

    async def call_raw() -> list[int]:
        return list(await asyncio.gather(*(raw[number % ACTORS].run.remote(number) for number in range(STEPS))))

    asyncio.run(call_raw())
    mine, theirs = [], []
    for _ in range(rounds):  # in turn, so that both see the same machine
        started = time.perf_counter()
        asyncio.run(call_raw())
        theirs.append(time.perf_counter() - started)
        started = time.perf_counter()
        assert flujo.run(list(range(STEPS))).unwrap() == list(range(STEPS))
        mine.append(time.perf_counter() - started)
    ratio = min(mine) / min(theirs)
    print(f"{STEPS} steps {min(mine):.3f} s, raw calls {min(theirs):.3f} s, ratio {ratio:.2f} (at most {MOST})")
    return int(ratio > MOST)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
