"""Defects 17 to 22 measured in the old `flujo` 0.x; see `test_predecessor_defects.py`."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated

import anyio
import pytest
from pydantic import BaseModel, ConfigDict

from flujo.core import (
    AbortPipeline,
    Fallback,
    Flujo,
    Loop,
    Message,
    ModelRequest,
    ModelResponse,
    Parallel,
    PipelineError,
    PipelineResult,
    PostStepExecution,
    Resource,
    Resources,
    RetryPolicy,
    RunContext,
    Step,
    StepFailed,
    StepTimeout,
    Update,
    UsageLimitExceeded,
    UsageLimits,
)
from flujo.core.testing import ScriptedModel

pytestmark = pytest.mark.anyio


def pays(name: str, usd: str, tokens: int = 0) -> Step:
    """A step that reserves, does its work and settles, and gives back what it was given."""

    async def work(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd=usd, tokens=tokens) as lease:
            lease.settle(cost_usd=usd, tokens=tokens)
        return value

    return Step(work, name=name)


def statuses(result: PipelineResult) -> dict[str, str]:
    return {record.path: record.status for record in result.step_history}


async def forever(value: int) -> int:
    await anyio.sleep_forever()
    return value


# --- failures, time, context, resources -------------------------------------------------------------------------------


async def test_17_an_abort_after_a_step_keeps_the_step_and_its_cost() -> None:
    def stop(event: PostStepExecution) -> None:
        raise AbortPipeline("that will do")

    result = await Flujo(pays("one", "0.3") >> pays("two", "0.3"), hooks=[stop]).run_async(1)
    assert result.status == "aborted"
    assert statuses(result) == {"one": "completed"}
    assert result.total_cost_usd == Decimal("0.3")


async def test_18_a_timeout_cancels_the_step() -> None:
    cancelled: list[int] = []

    async def slow(value: int) -> int:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled.append(value)
            raise
        return value

    with anyio.fail_after(5):
        result = await Flujo(Loop(Step(slow, timeout_s=0.02), until=lambda value: True)).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepTimeout)
    assert cancelled == [1]


async def test_19_an_exception_is_tried_again_and_then_is_a_failed_record() -> None:
    class Broken:
        name = "broken"
        calls = 0

        async def run(self, value: int) -> int:
            self.calls += 1
            raise OSError("overloaded")

    agent = Broken()
    result = await Flujo(Step(agent, retry=RetryPolicy(max_attempts=3, backoff_s=0))).run_async(1)
    assert agent.calls == 3
    assert result.status == "failed"
    assert [(r.status, r.attempts) for r in result.step_history] == [("failed", 3)]
    assert isinstance(result.error, StepFailed)
    assert isinstance(result.error.__cause__, OSError)


class Counts(BaseModel):
    model_config = ConfigDict(frozen=True)
    k: int = 0
    notes: Annotated[list[str], operator.add] = []


def writes(name: str, field: str, value: object) -> Step:
    async def work(given: int) -> Update[int]:
        return Update(given, **{field: value})

    return Step(work, name=name, writes=(field,))


async def test_20_two_branches_that_write_one_field_are_refused_unless_it_has_a_reducer() -> None:
    with pytest.raises(PipelineError) as refused:
        Flujo(Parallel(writes("left", "k", 1), writes("right", "k", 2)), context_model=Counts)
    assert "left" in str(refused.value)
    assert "right" in str(refused.value)
    assert "'k'" in str(refused.value)
    merged = await Flujo(
        Parallel(writes("left", "notes", ["l"]), writes("right", "notes", ["r"])), context_model=Counts
    ).run_async(1)
    assert merged.context == Counts(notes=["l", "r"])


class Mine(Resources):
    db: dict[str, int] = Resource(dict)


def test_21_a_missing_resource_fails_when_the_flujo_is_built() -> None:
    async def reads(value: int, everything: Mine) -> int:
        return value

    nested = Loop(Fallback(Step(reads), Step(forever)), until=lambda value: True)
    with pytest.raises(PipelineError, match="Mine") as refused:
        Flujo(nested)
    assert "reads" in str(refused.value)
    assert Flujo(nested, resources=Mine()).run(3).output == 3


def call_a_model(send: Callable[[ModelRequest], Awaitable[object]]) -> Step:
    async def asks(text: str, ctx: RunContext) -> str:
        request = ModelRequest(model="nobody:knows-1", messages=(Message(role="user", content=text),), max_tokens=10)
        return (await ctx.call_model(request, send)).content  # type: ignore[arg-type]

    return Step(asks)


async def test_22_an_unknown_cost_shows_and_is_refused_under_a_money_limit() -> None:
    with ScriptedModel("yes", ModelResponse(content="no usage told")) as model:
        told = await Flujo(call_a_model(model)).run_async("x")
        assert (told.status, told.usage.unpriced, told.usage.unmeasured) == ("completed", 1, 0)
        silent = await Flujo(call_a_model(model)).run_async("x")
        assert silent.usage.unmeasured == 1
        refused = await Flujo(call_a_model(model), limits=UsageLimits("1")).run_async("x")
    assert refused.status == "stopped"
    assert isinstance(refused.error, UsageLimitExceeded)
    assert len(model.calls) == 2  # the third was refused before the model was asked
