"""What one guard, transform, recorder or observer adds to a step, beside the same steps at which nobody acts.

Where anybody acts in steps at all, each step is announced, guarded and recorded as a whole: that is what "elsewhere"
costs, a guard that is never asked here. What a hook adds is measured against it.
"""

import asyncio
from typing import Any

from benchmarks.chain import no_op, no_op_step
from benchmarks.compare import best_us

from flujo.core import (
    UNCHANGED,
    Allow,
    Flujo,
    GuardStep,
    GuardToolCall,
    Pipeline,
    PostStepExecution,
    RecordIntent,
    RecordResult,
    TransformStepInput,
    TransformStepOutput,
    hookimpl,
)

STEPS = 100


class Elsewhere:
    @hookimpl
    def guard_tool_call(self, payload: GuardToolCall) -> Allow:
        return Allow()


class Guard:
    @hookimpl
    def guard_step(self, payload: GuardStep) -> Allow:
        return Allow()


class AsyncGuard:
    @hookimpl
    async def guard_step(self, payload: GuardStep) -> Allow:
        return Allow()


class OutputTransform:
    @hookimpl
    def transform_step_output(self, payload: TransformStepOutput) -> object:
        return UNCHANGED


class InputTransform:
    @hookimpl
    def transform_step_input(self, payload: TransformStepInput) -> object:
        return UNCHANGED


class Recorder:
    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None: ...

    @hookimpl
    def record_result(self, payload: RecordResult) -> None: ...


class Observer:
    @hookimpl
    def post_step_execution(self, payload: PostStepExecution) -> None: ...


CASES: dict[str, list[Any]] = {
    "nobody": [],
    "elsewhere": [Elsewhere()],
    "1 guard": [Elsewhere(), Guard()],
    "1 async guard": [Elsewhere(), AsyncGuard()],
    "5 guards": [Elsewhere(), *(Guard() for _ in range(5))],
    "1 input transform": [Elsewhere(), InputTransform()],
    "1 output transform": [Elsewhere(), OutputTransform()],
    "1 observer": [Elsewhere(), Observer()],
    "1 recorder": [Elsewhere(), Recorder()],
}


def measure(rounds: int = 25) -> dict[str, float]:
    """CPU microseconds per step in each case, and of a bare await as `bare`."""
    steps = no_op_step(0) >> no_op_step(1)
    for index in range(2, STEPS):
        steps = steps >> no_op_step(index)
    flujos = [Flujo(Pipeline(steps), plugins=plugins) for plugins in CASES.values()]

    async def bare() -> None:
        for _ in range(STEPS):
            await no_op(1)

    runs = [lambda flujo=flujo: flujo.run_async(1) for flujo in flujos]
    found = asyncio.run(best_us(*runs, bare, rounds=rounds))
    return dict(zip([*CASES, "bare"], [us / STEPS for us in found], strict=True))


if __name__ == "__main__":
    costs = measure()
    for case, us in costs.items():
        added = f", adds {us - costs['elsewhere']:5.2f}" if case[0].isdigit() else ""
        print(f"{case:20} {us:6.2f} us per step{added}")
