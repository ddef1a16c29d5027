"""A pipeline as a step of another: its input, its output, its names, its limits, and its walls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import anyio
import pytest

from flujo.core import (
    Flujo,
    Pipeline,
    PipelineError,
    Resource,
    Resources,
    RunContext,
    Step,
    StepFailed,
    UsageLimitExceeded,
    UsageLimits,
    compile_plan,
    run_input,
    step,
)

pytestmark = pytest.mark.anyio


@step
async def double(value: int) -> int:
    return 2 * value


@step
async def negate(value: int) -> int:
    return -value


@step
async def text(value: int) -> str:
    return f"<{value}>"


@step
async def upper(word: str) -> str:
    return word.upper()


@step
async def fail(value: int) -> int:
    raise ValueError(f"no good: {value}")


async def add(a: int, b: int) -> int:
    return a + b


def sub(name: str = "sub", **options: Any) -> Pipeline:
    """Three times its input."""
    return Pipeline(double, Step(add, inputs={"a": double, "b": run_input()}), name=name, **options)


def problems_of(make: Any, **options: Any) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compile_plan(make(), **options)
    return list(caught.value.problems)


# --- data -------------------------------------------------------------------------------------------------------------


async def test_its_run_input_is_what_it_is_given_and_its_steps_stand_below_its_name() -> None:
    result = await Flujo(negate >> sub() >> text).run_async(5)
    assert result.output == "<-15>"
    assert [r.path for r in result.step_history] == ["negate", "sub/double", "sub/add", "text"]
    assert [r.name for r in result.step_history] == ["negate", "double", "add", "text"]


async def test_alone_in_a_pipeline_it_gets_the_run_input() -> None:
    assert (await Flujo(Pipeline(sub())).run_async(2)).output == 6
    assert (await Flujo(Pipeline(Pipeline(sub(), name="middle"), name="outer")).run_async(2)).output == 6


async def test_what_it_gives_is_its_one_end_or_several_by_name_or_what_output_says() -> None:
    several = Pipeline(double, negate, name="several")
    assert (await Flujo(Pipeline(several)).run_async(3)).output == {"double": 6, "negate": -3}
    named = Pipeline(double >> negate, output=double, name="named")
    assert (await Flujo(named >> text).run_async(3)).output == "<6>"
    reader = Step(add, inputs={"a": several.output.double, "b": several.output["negate"]})
    assert (await Flujo(Pipeline(several, reader)).run_async(3)).output == 3


async def test_another_step_may_read_it_by_itself_or_by_its_name() -> None:
    inner = sub()
    for source in (inner, inner.output, "sub"):
        reader = Step(add, inputs={"a": source, "b": run_input()})
        assert (await Flujo(Pipeline(inner, reader)).run_async(1)).output == 4


async def test_two_that_do_not_depend_on_each_other_run_at_the_same_time() -> None:
    one, other = anyio.Event(), anyio.Event()

    async def left(value: int) -> int:
        one.set()
        await other.wait()
        return value

    async def right(value: int) -> int:
        other.set()
        await one.wait()
        return value

    with anyio.fail_after(5):
        flow = Pipeline(Pipeline(Step(left), name="l"), Pipeline(Step(right), name="r"))
        assert (await Flujo(flow).run_async(1)).output == {"l": 1, "r": 1}


# --- names ------------------------------------------------------------------------------------------------------------


async def test_names_repeat_inside_and_outside() -> None:
    flow = double >> Pipeline(double, name="a") >> Pipeline(double, name="b")
    result = await Flujo(flow).run_async(1)
    assert [r.path for r in result.step_history] == ["double", "a/double", "b/double"]


async def test_without_a_name_they_are_numbered() -> None:
    result = await Flujo(Pipeline(double) >> Pipeline(negate) >> Pipeline(double)).run_async(1)
    assert result.output == -4
    assert [r.path for r in result.step_history] == ["pipeline/double", "pipeline-2/negate", "pipeline-3/double"]


def test_two_of_one_given_name_are_refused() -> None:
    [problem] = problems_of(lambda: sub("same") >> Pipeline(negate, name="same"))
    assert "'same'" in problem
    [problem] = problems_of(lambda: double >> Pipeline(negate, name="double"))
    assert "'double'" in problem


# --- faults, limits, resources ----------------------------------------------------------------------------------------


async def test_a_failure_inside_fails_the_run_at_its_own_place() -> None:
    result = await Flujo(double >> Pipeline(negate >> fail >> double, name="sub") >> text).run_async(2)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.step_path == "sub/fail"
    assert [(r.path, r.status) for r in result.step_history] == [
        ("double", "completed"), ("sub/negate", "completed"), ("sub/fail", "failed"),
    ]  # fmt: skip


def paid(name: str, cost: str = "0.1") -> Step:
    async def pay(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd=cost) as lease:
            lease.settle(cost_usd=cost)
        return value

    return Step(pay, name=name)


async def test_its_limits_hold_for_it_alone_and_stop_the_run() -> None:
    def row(first: str) -> Any:
        return paid(f"{first}0") >> paid(f"{first}1") >> paid(f"{first}2")

    small = Pipeline(row("in"), limits=UsageLimits("0.25"), name="small")
    result = await Flujo(row("before") >> small >> row("after")).run_async(1)
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert result.total_cost_usd == Decimal("0.5")
    assert result.step_history[-1].path == "small/in2"
    enough = Pipeline(row("in"), limits=UsageLimits("0.3"), name="enough")
    result = await Flujo(row("before") >> enough >> row("after")).run_async(1)
    assert (result.status, result.total_cost_usd) == ("completed", Decimal("0.9"))


async def test_the_limits_of_the_run_hold_inside_it_too() -> None:
    generous = Pipeline(paid("a", "0.4") >> paid("b", "0.4"), limits=UsageLimits(100), name="generous")
    result = await Flujo(generous, limits=UsageLimits("0.5")).run_async(1)
    assert (result.status, result.total_cost_usd) == ("stopped", Decimal("0.4"))
    result = await Flujo(double >> generous, limits=UsageLimits("0.5")).run_async(1)
    assert (result.status, result.total_cost_usd) == ("stopped", Decimal("0.4"))


async def test_its_steps_share_the_resources_of_the_run() -> None:
    lines: list[str] = []

    class Pool:
        pass

    @asynccontextmanager
    async def open_pool() -> AsyncIterator[Pool]:
        lines.append("open")
        yield Pool()
        lines.append("close")

    class Own(Resources):
        pool: Pool = Resource(open_pool)

    Own.__annotations__["pool"] = Pool
    seen = []

    async def use(value: int, pool: Pool) -> int:
        seen.append(pool)
        return value

    use.__annotations__["pool"] = Pool
    flow = Step(use) >> Pipeline(Step(use) >> Pipeline(Step(use), name="b"), name="a")
    result = await Flujo(flow, resources=Own()).run_async(1)
    assert (result.status, lines) == ("completed", ["open", "close"])
    assert len(seen) == 3
    assert len({id(pool) for pool in seen}) == 1


def test_a_missing_resource_deep_inside_is_refused_when_the_flujo_is_built() -> None:
    class Pool:
        pass

    async def use(value: int, pool: Pool) -> int:
        return value

    use.__annotations__["pool"] = Pool
    with pytest.raises(PipelineError, match="'pool'"):
        Flujo(Pipeline(Pipeline(double >> Step(use), name="b"), name="a"))


# --- walls ------------------------------------------------------------------------------------------------------------


def test_a_step_inside_cannot_be_read_from_outside_nor_the_other_way_round() -> None:
    inside = Step(double, name="inside")
    outer = Pipeline(inside, name="sub")
    [problem] = problems_of(lambda: Pipeline(outer, Step(negate, inputs={"value": inside})))
    assert "'inside'" in problem
    assert "'negate'" in problem
    outside = Step(double, name="outside")
    reader = Step(negate, inputs={"value": outside})
    [problem] = problems_of(lambda: Pipeline(outside, Pipeline(reader, name="sub")))
    assert "'outside'" in problem
    assert "negate" in problem


def test_what_it_takes_and_gives_must_fit_its_neighbours() -> None:
    [before] = problems_of(lambda: text >> Pipeline(double, name="sub"))
    for word in ("'text'", "str", "'sub'", "int"):
        assert word in before
    [after] = problems_of(lambda: Pipeline(double, name="sub") >> upper)
    for word in ("'sub'", "int", "'word'", "'upper'", "str"):
        assert word in after


def test_the_problems_of_all_levels_are_told_at_once_with_their_places() -> None:
    def build() -> Any:
        deep = Pipeline(double, Step(negate, inputs={"value": "nowhere"}), output=double, name="deep")
        middle = Pipeline(deep >> upper, name="middle")
        return Pipeline(middle, Step(text, inputs={"value": "lost"}))

    found = problems_of(build)
    text_ = "\n".join(found)
    assert len(found) == 3
    for words in ("unknown step 'nowhere'", "'word'", "unknown step 'lost'", "pipeline 'middle': in pipeline 'deep'"):
        assert words in text_


def test_an_empty_one_is_refused() -> None:
    assert "empty" in "\n".join(problems_of(lambda: double >> Pipeline(name="empty")))


def test_a_change_deep_inside_changes_the_fingerprint() -> None:
    def flow(version: int = 1, name: str = "sub") -> Any:
        return double >> Pipeline(Pipeline(Step(negate, version=version), name=name), name="a")

    prints = [compile_plan(f).fingerprint for f in (flow(), flow(), flow(2), flow(name="other"))]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_a_pipeline_can_be_part_of_several_others() -> None:
    shared = sub()
    assert Flujo(negate >> shared).run(1).output == -3
    assert Flujo(double >> shared).run(1).output == 6
    assert Flujo(shared).run(1).output == 3
