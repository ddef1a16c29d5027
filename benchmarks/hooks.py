"""What observers of one moment add to a step, beside the same steps whose moments nobody observes."""

from collections.abc import Callable

from benchmarks.chain import per_step

from flujo.core import OnRunEnd, OnStepFailure, PostStepExecution, PreStepExecution

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
    return per_step({name: {"hooks": acting} for name, acting in CASES.items()}, rounds=rounds)


if __name__ == "__main__":
    costs = measure()
    for case, us in costs.items():
        added = f", adds {us - costs['another moment']:5.2f}" if "," in case else ""
        print(f"{case:20} {us:6.2f} us per step{added}")
