"""A pipeline that its first step changes, as a module that other processes load too."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from flujo.core import Flujo, Loop, PauseForHumanInput, Pipeline, PipelineMutation, Snapshot, Step, step


@step
async def ask(value: int) -> int:
    raise PauseForHumanInput("how much?", int)


@step
async def more(value: int) -> int:
    return value + 100


@step
async def double(value: int) -> int:
    return 2 * value


@step
async def again(value: int) -> PipelineMutation[int]:
    """Puts in what asks, and itself, once."""
    how: dict[str, Any] = {"again-2": ask} if value >= 5 else {"again": again}
    return PipelineMutation(value + 5, insert_after=how)


@step
async def first(value: int) -> PipelineMutation[int]:
    return PipelineMutation(value, insert_after={"first": more >> ask, "last": twice}, remove=["skipped"])


@step
async def skipped(value: int) -> int:
    raise ValueError("it was to be left out")


@step
async def takes_any(value: Any) -> int:
    return 1


@step
async def last(value: int) -> int:
    return value + 1


twice = Loop(Step(double), max_iterations=2, on_limit="return", name="twice")
pipeline = Pipeline(first >> skipped >> last, name="mutating")
nested = Pipeline(again >> last, name="nested")


def flujo_of(name: str, **given: Any) -> Flujo:
    return Flujo(globals()[name], experimental={"mutation"}, **given)


if __name__ == "__main__":
    import mutating_pipeline  # what stands in a script that was started has another path

    snapshot = Snapshot.model_validate_json(Path(sys.argv[2]).read_text())
    result = asyncio.run(mutating_pipeline.flujo_of(sys.argv[1]).resume_async(snapshot, int(sys.argv[3])))
    print(result.output, *(f"{record.path}={record.output}" for record in result.step_history))  # noqa: T201
