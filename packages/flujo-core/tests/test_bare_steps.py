"""A step that asks for nothing but to be called is called by the engine itself: that gives what an attempt of it gives.

The same random pipelines run both ways, once with steps that ask for nothing, once with a timeout that never comes.
The engine fuzz has neither such steps nor runs without a context.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from pydantic import BaseModel
from stable_ids import shown

from flujo.core import (
    UNCHANGED,
    AbortPipeline,
    Allow,
    Branch,
    Deny,
    Event,
    Fallback,
    Flujo,
    GuardStep,
    Loop,
    Map,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    PipelineResult,
    PostStepExecution,
    PreStepExecution,
    RecordIntent,
    RecordResult,
    Snapshot,
    Step,
    TransformStepInput,
    TransformStepOutput,
    Update,
    hookimpl,
)

pytestmark = pytest.mark.anyio

SEEDS = range(20)


class Notes(BaseModel, frozen=True):
    last: int = 0


class Meddler:
    """Guards, changes and records all steps, fails at times, and remembers what it was shown.

    On trio it never waits: that takes the tasks that can go on in an order by chance.
    """

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits
        self.seen: list[object] = []

    @hookimpl
    async def guard_step(self, payload: GuardStep) -> Allow | Deny:
        self.seen.append(("guard", payload.step_path, payload.name, payload.attempt, dict(payload.inputs)))
        if self.waits:
            await anyio.lowlevel.checkpoint()
        return Deny("not this one") if 13 in payload.inputs.values() else Allow()

    @hookimpl
    def transform_step_input(self, payload: TransformStepInput) -> object:
        if payload.value == 16:
            raise ValueError("a bad day")
        return 3 if payload.value == 11 else UNCHANGED

    @hookimpl
    def transform_step_output(self, payload: TransformStepOutput) -> object:
        return {7: 8, 9: "no number"}.get(payload.value, UNCHANGED) if type(payload.value) is int else UNCHANGED

    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None:
        self.seen.append(("intent", payload.kind, payload.step_path, payload.attempt))

    @hookimpl
    def record_result(self, payload: RecordResult) -> None:
        self.seen.append(("result", payload.kind, payload.step_path, payload.status, payload.error_type, payload.value))
        if payload.value == 10:
            raise OSError("the disk is full")


class Maker:
    """Makes a pipeline that takes a number and gives one."""

    def __init__(self, seed: int, options: dict[str, Any], *, writes: bool) -> None:
        self.chance = random.Random(seed)
        self.options = options
        self.writes = writes
        self.count = Counter[str]()

    def name(self, kind: str) -> str:
        self.count[kind] += 1
        return f"{kind}{self.count[kind]}"

    def step(self, function: Callable[..., Any], **more: Any) -> Step:
        return Step(function, name=self.name("step"), **self.options, **more)

    def leaf(self) -> Any:
        odd = self.chance.randrange(3, 40)

        async def plain(value: int) -> int:
            return (value * 3 + odd) % 17

        async def fails(value: int) -> int:
            if value % 5 == 0:
                raise ValueError(f"{odd} is too odd")
            return value + 1

        async def lies(value: int) -> int:
            return "no number" if value % 7 == 6 else value  # type: ignore[return-value]

        async def asks(value: int) -> int:
            if value % 6 == 1:
                raise PauseForHumanInput("how many?")
            return value + 2

        async def named(*, value: int) -> int:
            return value + 5

        async def writes(value: int) -> Update[int]:
            return Update(value + 1, last=value)

        if self.writes and self.chance.random() < 0.3:
            return self.step(writes, writes=("last",))
        return self.step(self.chance.choice((plain, plain, plain, named, fails, lies, asks)))

    def node(self, level: int) -> Any:
        kind = self.chance.randrange(11) if level else 0
        if kind < 4:
            return self.leaf()
        if kind in (4, 5, 6):
            most, odd = self.chance.randrange(1, 5), self.chance.randrange(2, 5)
            until = None if kind < 6 else lambda value: value % odd == 0
            return Loop(self.row(level - 1), until, most, "return", name=self.name("loop"))
        if kind == 7:
            cases = {0: self.row(level - 1), 1: self.row(level - 1)}
            return Branch(lambda value: value % 2, cases, name=self.name("branch"))
        if kind == 8:
            return Fallback(self.row(level - 1), self.row(level - 1), name=self.name("fallback"))
        if kind == 9:
            return Pipeline(self.row(level - 1), name=self.name("pipeline"))
        alone, self.writes = self.writes, False  # two that run at once may not write one field
        collect: Any = self.chance.choice(("collect", "cancel"))
        if self.chance.random() < 0.5:
            fan: Any = Parallel(self.row(level - 1), self.row(level - 1), on_failure=collect, name=self.name("fan"))
        else:
            fan = self.step(listed) >> Map(self.row(level - 1), on_failure=collect, name=self.name("map"))
        self.writes = alone
        return fan >> self.step(summed)

    def row(self, level: int) -> Any:
        made = self.node(level)
        for _ in range(self.chance.randrange(3)):
            made = made >> self.node(level)
        return made


async def listed(value: int) -> list[int]:
    return [value, value + 1, value + 2]


async def summed(values: Any) -> int:
    given = values.values() if isinstance(values, dict) else values
    return sum(one if type(one) is int else 1 for one in given) % 17


def told(result: PipelineResult) -> object:
    """All that a run says of itself but for instants."""
    records = [(r.path, r.name, r.status, r.output, repr(r.error), r.attempts) for r in result.step_history]
    snapshot = result.snapshot()
    rows = [row.model_copy(update={"started_at": 0.0, "duration_s": 0.0}) for row in snapshot.journal]
    pauses = [(one.step_path, one.question) for one in result.pauses]
    error = shown(result.error) if result.error is not None else None
    output = result.output if result.status == "completed" else None
    return result.status, output, error, result.context, records, rows, pauses


async def both(seed: int, acting: str, *, context: bool, waits: bool) -> list[object]:
    """What the same pipeline says of itself, run in the two ways."""
    said = list[object]()
    for options in ({}, {"timeout_s": 600.0}):
        meddler, events = Meddler(waits=waits), list[object]()

        def watch(event: Event, events: list[object] = events) -> None:
            events.append((type(event).__name__, getattr(event, "step_path", "")))
            if isinstance(event, PreStepExecution) and 14 in event.inputs.values():
                raise AbortPipeline("before")
            if isinstance(event, PostStepExecution) and event.record.output == 15:
                raise AbortPipeline("after")

        pipeline = Pipeline(Maker(seed, options, writes=context).row(3), name="trial")
        acts: dict[str, Any] = {"hooks": [watch]} if acting != "nobody" else {}
        acts |= {"plugins": [meddler]} if acting == "plugins" else {}
        flujo = Flujo(pipeline, context_model=Notes if context else None, **acts)
        for hook, found in flujo.hooks.table.items():
            flujo.hooks.table[hook] = tuple(replace(one, required=True) for one in found)
        assert any(node.is_bare for node in flujo.plan.steps) == (not options)
        result = await flujo.run_async(seed % 17)
        known = [told(result)]
        for answer in range(3):
            assert (await flujo.replay_async(result)).divergence is None
            if result.status == "paused":
                target = Snapshot.model_validate_json(result.snapshot().model_dump_json()) if answer else result
                result = await flujo.resume_async(target, answer, pause=result.pauses[0])
                known.append(told(result))
        said.append((known, events, meddler.seen))
    return said


@pytest.mark.parametrize("acting", ["nobody", "observers", "plugins"])
@pytest.mark.parametrize("context", [False, True])
async def test_a_step_that_is_only_called_does_what_an_attempt_of_it_does(
    anyio_backend: str, acting: str, context: bool
) -> None:
    ends = Counter[str]()
    for seed in SEEDS:
        called, tried = await both(seed, acting, context=context, waits=anyio_backend == "asyncio")
        assert called == tried, f"seed {seed}"
        ends[called[0][-1][0]] += 1  # type: ignore[index]
    assert {"completed", "failed"} <= ends.keys(), ends
