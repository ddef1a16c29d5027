"""Defects 1 to 13 measured in the old `flujo` 0.x, each held against our engine. The numbers are those of the list.

14 to 16 are in `test_predecessor_streams.py`, 17 to 22 in `test_predecessor_defects_runs.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from flujo.core import (
    Fallback,
    Flujo,
    Loop,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    PipelineResult,
    RetryPolicy,
    RunContext,
    Snapshot,
    Step,
    UsageLimitExceeded,
    UsageLimits,
    step,
)

pytestmark = pytest.mark.anyio


def pays(name: str, usd: str, tokens: int = 0) -> Step:
    """A step that reserves, does its work and settles, and gives back what it was given."""

    async def work(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd=usd, tokens=tokens) as lease:
            lease.settle(cost_usd=usd, tokens=tokens)
        return value

    return Step(work, name=name)


@step(pauses=True)
async def ask(value: int) -> int:
    raise PauseForHumanInput("Which number?", schema=int)


def statuses(result: PipelineResult) -> dict[str, str]:
    return {record.path: record.status for record in result.step_history}


async def forever(value: int) -> int:
    await anyio.sleep_forever()
    return value


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["result", "snapshot", "json in another engine"])
async def test_01_the_budget_spans_a_pause(way: str) -> None:
    def build() -> Flujo:
        return Flujo(pays("first", "0.4") >> ask >> pays("second", "0.4"), limits=UsageLimits("0.5"))

    flujo = build()
    paused = await flujo.run_async(1)
    assert paused.status == "paused"
    assert paused.total_cost_usd == Decimal("0.4")
    target: PipelineResult | Snapshot = paused
    if way != "result":
        target = paused.snapshot()
    if way.startswith("json"):
        flujo, target = build(), Snapshot.model_validate_json(paused.snapshot().model_dump_json())
    result = await flujo.resume_async(target, 2)
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert result.error.limit == "total_cost_usd_limit"
    assert result.total_cost_usd == Decimal("0.4")
    assert result.usage.requests == 1


async def test_02_branches_of_080_and_010_fit_under_a_limit_of_1() -> None:
    result = await Flujo(Parallel(pays("a", "0.8"), pays("b", "0.1")), limits=UsageLimits("1.0")).run_async(7)
    assert result.output == {"a": 7, "b": 7}
    assert result.total_cost_usd == Decimal("0.9")


async def test_03_a_breach_in_one_branch_cancels_the_slow_one_beside_it_at_once() -> None:
    began = anyio.Event()

    async def slow(value: int) -> int:
        began.set()
        await anyio.sleep_forever()
        return value

    async def dear(value: int, ctx: RunContext) -> int:
        await began.wait()
        async with ctx.usage.reserve(cost_usd=2):
            return value

    with anyio.fail_after(5):  # the sibling never ends by itself
        result = await Flujo(Parallel(Step(dear), Step(slow)), limits=UsageLimits("1")).run_async(1)
    assert result.status == "stopped"
    assert statuses(result) == {"parallel/dear": "failed", "parallel/slow": "cancelled"}


async def test_04_a_breach_keeps_the_history_and_what_was_paid_for() -> None:
    flujo = Flujo(pays("one", "0.4") >> pays("two", "0.4") >> pays("three", "0.4"), limits=UsageLimits("1"))
    result = await flujo.run_async(5)
    assert result.status == "stopped"
    assert statuses(result) == {"one": "completed", "two": "completed", "three": "failed"}
    assert result.step_history[1].output == 5
    assert result.total_cost_usd == Decimal("0.8")
    with pytest.raises(UsageLimitExceeded):
        result.unwrap()


async def test_05_a_failure_in_one_branch_cancels_the_others_at_once() -> None:
    began = anyio.Event()

    async def slow(value: int) -> int:
        began.set()
        await anyio.sleep_forever()
        return value

    async def fails(value: int) -> int:
        await began.wait()
        raise ValueError("no good")

    with anyio.fail_after(5):
        result = await Flujo(Parallel(Step(slow), Step(fails))).run_async(1)
    assert result.status == "failed"
    assert statuses(result) == {"parallel/fails": "failed", "parallel/slow": "cancelled"}


async def test_06_the_cost_of_failed_attempts_counts() -> None:
    @step(retry=RetryPolicy(max_attempts=3, backoff_s=0))
    async def flaky(value: int, ctx: RunContext) -> int:
        ctx.usage.record(cost_usd="0.2", tokens=10)
        if ctx.attempt < 3:
            raise OSError("not yet")
        return value

    result = await Flujo(flaky).run_async(1)
    assert result.output == 1
    assert result.total_cost_usd == result.step_history[0].usage.cost_usd == Decimal("0.6")
    assert (result.usage.total_tokens, result.usage.requests) == (30, 3)


async def test_07_a_fallback_costs_what_both_used() -> None:
    calls: list[str] = []

    async def primary(value: int, ctx: RunContext) -> int:
        calls.append("primary")
        ctx.usage.record(cost_usd="0.2", tokens=100)
        raise OSError("overloaded")

    async def other(value: int, ctx: RunContext) -> int:
        calls.append("other")
        ctx.usage.record(cost_usd="0.3", tokens=200)
        return 10 * value

    result = await Flujo(Fallback(Step(primary), Step(other))).run_async(4)
    assert result.output == 40
    assert calls == ["primary", "other"]
    assert result.total_cost_usd == Decimal("0.5")
    assert result.usage.total_tokens == 300
    assert statuses(result) == {"fallback/primary": "failed", "fallback/other": "completed"}


async def test_08_a_cache_hit_costs_nothing_and_says_that_it_is_one() -> None:
    flujo = Flujo(pays("dear", "0.1", tokens=100).cache())
    first, second = await flujo.run_async(3), await flujo.run_async(3)
    assert (first.total_cost_usd, second.total_cost_usd) == (Decimal("0.1"), 0)
    assert (second.output, second.usage.total_tokens, second.usage.requests) == (3, 0, 0)
    assert [r.step_history[0].cached for r in (first, second)] == [False, True]


# --- cancels, pauses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    "combinator", [Step, lambda s: Parallel(s, Step(forever)), lambda s: Fallback(s, Step(forever))]
)
async def test_09_cancelling_the_task_raises_and_cancels_the_step(
    combinator: Callable[[Step], Any], anyio_backend: str
) -> None:
    began, ended = asyncio.Event(), []

    async def works(value: int) -> int:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(value)
            raise
        return value

    task = asyncio.ensure_future(Flujo(combinator(Step(works))).run_async(3))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [3]


class Draft(BaseModel):
    title: str
    words: int


@step
async def draft(title: str) -> Draft:
    return Draft(title=title, words=3)


@step(pauses=True)
async def approve(value: Draft) -> bool:
    raise PauseForHumanInput(f"Publish {value.title!r}?", schema=bool)


async def test_10_a_paused_run_survives_json() -> None:
    flujo = Flujo(draft >> approve)
    paused = await flujo.run_async("Audit logs")
    text = paused.snapshot().model_dump_json()
    result = await Flujo(draft >> approve).resume_async(Snapshot.model_validate_json(text), True)
    assert result.status == "completed"
    assert result.output is True
    assert result.run_id == paused.run_id


async def test_11_and_what_steps_gave_keeps_its_type() -> None:
    async def close(value: Draft, yes: bool) -> str:
        assert type(value) is Draft
        return f"{value.title}, {value.words} words: {yes}"

    first, then = Step(draft), Step(approve, inputs={"value": "draft"})
    pipeline = Pipeline(first, then, Step(close, inputs={"value": first, "yes": then}))
    paused = await Flujo(pipeline).run_async("Audit logs")
    target = Snapshot.model_validate_json(paused.snapshot().model_dump_json())
    result = await Flujo(pipeline).resume_async(target, True)
    assert result.output == "Audit logs, 3 words: True"
    assert {r.name: type(r.output) for r in result.step_history} == {"draft": Draft, "approve": bool, "close": str}


async def test_12_a_pause_inside_a_loop_goes_on_at_the_next_step_of_the_body() -> None:
    ran: list[str] = []

    def logged(name: str) -> Step:
        async def work(value: int) -> int:
            ran.append(f"{name} {value}")
            return value

        return Step(work, name=name)

    flujo = Flujo(Loop(logged("before") >> ask >> logged("after"), until=lambda value: value > 10))
    first = await flujo.run_async(0)
    second = await flujo.resume_async(first, 5)
    assert [first.status, second.status] == ["paused", "paused"]
    assert [second.pauses[0].step_path] == ["loop#2/ask"]
    result = await flujo.resume_async(second, 11)
    assert result.output == 11
    assert ran == ["before 0", "after 5", "before 5", "after 11"]


async def test_13_a_pause_inside_parallel_keeps_the_other_branches() -> None:
    ran: list[str] = []

    async def other(value: int) -> int:
        ran.append("other")
        return value + 1

    async def add(both: dict[str, int]) -> int:
        return both["ask"] + both["other"]

    flujo = Flujo(Parallel(ask, Step(other)) >> Step(add, name="sum"))
    paused = await flujo.run_async(1)
    assert paused.status == "paused"
    assert statuses(paused) == {"parallel/other": "completed", "parallel/ask": "paused"}
    result = await flujo.resume_async(paused, 40)
    assert (result.status, result.output) == ("completed", 42)
    assert ran == ["other"]
    assert statuses(result) == {"parallel/other": "completed", "parallel/ask": "completed", "sum": "completed"}
