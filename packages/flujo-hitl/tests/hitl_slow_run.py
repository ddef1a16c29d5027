"""A process that runs a pipeline which only a cancel ends: `hitl_slow_run.py PLACE LEASE_S EFFECTS STEPS_S`.

Two branches: one writes a step every STEPS_S seconds, or sleeps where that is 0; the other sleeps.
"""

import sys
from pathlib import Path

import anyio
from hitl_trials import note, store_at

from flujo.core import Flujo, Loop, OnRunEnd, Parallel, Pipeline, Step, step

PLACE, LEASE_S, EFFECTS, STEPS_S = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])


@step
async def sleep(value: int) -> int:
    note(EFFECTS, "began")
    try:
        await anyio.sleep(60)
    finally:
        note(EFFECTS, "cut off")
    return value


@step
async def tick(value: int) -> int:
    await anyio.sleep(STEPS_S)
    return value + 1


@step
async def after(values: dict[str, int]) -> int:
    note(EFFECTS, "after")
    return sum(values.values())


def ended(event: OnRunEnd) -> None:
    note(EFFECTS, f"end {event.result.status}: {event.result.error}")


def never(value: int) -> bool:
    return False


work = Loop(tick, until=never, max_iterations=10_000) if STEPS_S else Step(sleep, name="second")
flow = Pipeline(Parallel(Step(sleep, name="first"), work) >> after, name="slow")


async def main() -> None:
    async with store_at(PLACE, lease_s=LEASE_S) as store:
        result = await Flujo(flow, store=store, hooks=[ended]).run_async(1, run_id="slow")
    sys.stdout.write(f"{result.status} {result.error}\n")


anyio.run(main)
