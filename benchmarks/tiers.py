"""What one guard, transform, recorder or observer adds to a step, beside the same steps at which nobody acts.

Who acts elsewhere only, as a guard of tool calls, costs such steps next to nothing: what a hook adds is measured
against that.
"""

from typing import Any

from benchmarks.chain import per_step

from flujo.core import (
    UNCHANGED,
    Allow,
    GuardStep,
    GuardToolCall,
    PostStepExecution,
    RecordIntent,
    RecordResult,
    TransformStepInput,
    TransformStepOutput,
    hookimpl,
)


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
    return per_step({name: {"plugins": acting} for name, acting in CASES.items()}, rounds=rounds)


if __name__ == "__main__":
    costs = measure()
    for case, us in costs.items():
        added = f", adds {us - costs['elsewhere']:5.2f}" if case[0].isdigit() else ""
        print(f"{case:20} {us:6.2f} us per step{added}")
