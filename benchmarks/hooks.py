"""What observers of one moment add to a step, beside the same steps whose moments nobody observes."""

import asyncio
from collections.abc import Callable

from benchmarks.chain import no_op, no_op_step
from benchmarks.compare import best_us

from flujo.core import Flujo, OnRunEnd, OnStepFailure, Pipeline, PostStepExecution, PreStepExecution

STEPS = 100
Observer = Callable[..., object]


def at_start(event: PreStepExecution) -> None:
    return None


def at_end(event: PostStepExecution) -> None:
    return None


async def at_start_async(event: PreStepExecution) -> None:
    return None


async def at_end_async(event: PostStepExecution) -> None:
    return None


def elsewhere(event: OnStepFailure) -> None:
    """Observes a moment of steps that never comes here: what it costs that somebody acts in steps at all."""


def at_run_end(event: OnRunEnd) -> None:
    return None


CASES: dict[str, list[Observer]] = {
    "nobody": [],
    "the run's end": [at_run_end],
    "another moment": [elsewhere],
    "start, 1 sync": [elsewhere, at_start],
    "start, 1 async": [elsewhere, at_start_async],
    "start, 5 sync": [elsewhere, *[at_start] * 5],
    "start, 5 async": [elsewhere, *[at_start_async] * 5],
    "end, 1 sync": [elsewhere, at_end],
    "end, 1 async": [elsewhere, at_end_async],
    "end, 5 sync": [elsewhere, *[at_end] * 5],
    "end, 5 async": [elsewhere, *[at_end_async] * 5],
}


def measure(rounds: int = 25) -> dict[str, float]:
    """CPU microseconds per step in each case, and of a bare await as `bare`."""
    steps = no_op_step(0) >> no_op_step(1)
    for index in range(2, STEPS):
        steps = steps >> no_op_step(index)
    flujos = [Flujo(Pipeline(steps), hooks=hooks) for hooks in CASES.values()]

    async def bare() -> None:
        for _ in range(STEPS):
            await no_op(1)

    runs = [lambda flujo=flujo: flujo.run_async(1) for flujo in flujos]
    found = asyncio.run(best_us(*runs, bare, rounds=rounds))
    return dict(zip([*CASES, "bare"], [us / STEPS for us in found], strict=True))


if __name__ == "__main__":
    costs = measure()
    for case, us in costs.items():
        added = f", adds {us - costs['another moment']:5.2f}" if "," in case else ""
        print(f"{case:20} {us:6.2f} us per step{added}")
