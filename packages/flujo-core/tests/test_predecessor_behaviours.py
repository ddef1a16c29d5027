"""Behaviours 1 to 23 that the old `flujo` 0.x was tested for: limits, parallel branches, context.

The numbers are those of the list in our notes; 24 to 45 are in `test_predecessor_behaviours_flows.py`. Where ours is
meant to differ, the docstring says how; docs/how-to/move-from-flujo-0.md has the same differences as a table.
"""

from __future__ import annotations

import operator
from decimal import Decimal
from typing import Annotated, Any

import anyio
import pytest
from pydantic import BaseModel, ConfigDict

from flujo.core import (
    Branch,
    Fallback,
    Flujo,
    FlujoError,
    Loop,
    Map,
    Parallel,
    Pipeline,
    PipelineError,
    PipelineResult,
    RunContext,
    Step,
    StepFailed,
    Update,
    UsageLimitExceeded,
    UsageLimits,
    run_input,
)

pytestmark = pytest.mark.anyio


def reserves(name: str, usd: str, tokens: int = 0, calls: list[str] | None = None) -> Step:
    """A step that reserves what it costs before it works, as agents do."""

    async def work(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd=usd, tokens=tokens) as lease:
            if calls is not None:
                calls.append(name)
            await anyio.sleep(0.001)
            lease.settle(cost_usd=usd, tokens=tokens)
        return value

    return Step(work, name=name)


def books(name: str, usd: str, tokens: int = 0) -> Step:
    """A step that tells what it cost only afterwards, as all steps of the old package did."""

    async def work(value: int, ctx: RunContext) -> int:
        ctx.usage.record(cost_usd=usd, tokens=tokens)
        return value

    return Step(work, name=name)


async def forever(value: int) -> int:
    await anyio.sleep_forever()
    return value


async def breaks(value: int, ctx: RunContext) -> int:
    ctx.usage.record(cost_usd="0.1", tokens=5)
    raise ValueError("no good")


def ends(result: PipelineResult) -> list[tuple[str, str]]:
    return [(record.path, record.status) for record in result.step_history]


def limit_of(result: PipelineResult) -> str:
    """The limit that stopped the run."""
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    return result.error.limit


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_01_a_cost_limit_stops_the_run_and_the_result_keeps_both_steps() -> None:
    """Differs: what is reserved is refused before it is spent; only what is told afterwards can pass the limit."""
    after = await Flujo(
        books("a", "0.1") >> books("b", "0.1") >> books("c", "0.1"), limits=UsageLimits("0.15")
    ).run_async(1)
    assert limit_of(after) == "total_cost_usd_limit"
    assert ends(after) == [("a", "completed"), ("b", "completed")]
    assert after.total_cost_usd == Decimal("0.2")
    before = await Flujo(reserves("a", "0.1") >> reserves("b", "0.1"), limits=UsageLimits("0.15")).run_async(1)
    assert limit_of(before) == "total_cost_usd_limit"
    assert ends(before) == [("a", "completed"), ("b", "failed")]
    assert before.total_cost_usd == Decimal("0.1")


async def test_02_a_token_limit_stops_the_run() -> None:
    flujo = Flujo(reserves("a", "0", 60) >> reserves("b", "0", 60), limits=UsageLimits(total_tokens_limit=100))
    result = await flujo.run_async(1)
    assert limit_of(result) == "total_tokens_limit"
    assert result.usage.total_tokens == 60


@pytest.mark.parametrize("kind", [reserves, books])
async def test_03_a_run_that_is_exactly_at_its_limit_completes_and_free_work_goes_on(kind: Any) -> None:
    async def free(value: int) -> int:
        return value + 1

    limits = UsageLimits("0.2", total_tokens_limit=20)
    result = await Flujo(kind("a", "0.1", 10) >> kind("b", "0.1", 10) >> Step(free), limits=limits).run_async(1)
    assert (result.status, result.output) == ("completed", 2)
    assert result.total_cost_usd == Decimal("0.2")


async def test_04_without_limits_nothing_is_refused() -> None:
    result = await Flujo(reserves("a", "1000000", 10**9) >> books("b", "1000000")).run_async(1)
    assert (result.status, result.total_cost_usd) == ("completed", 2_000_000)


async def test_05_a_limit_of_zero_lets_only_free_work_pass() -> None:
    """Differs: the old package let the first step that costs run to its end; ours refuses it before it spends."""
    calls: list[str] = []

    async def free(value: int) -> int:
        calls.append("free")
        return value

    result = await Flujo(Step(free) >> reserves("dear", "0.1", 0, calls), limits=UsageLimits(0)).run_async(1)
    assert limit_of(result) == "total_cost_usd_limit"
    assert calls == ["free"]
    assert result.total_cost_usd == 0
    assert (await Flujo(Step(free), limits=UsageLimits(0)).run_async(1)).status == "completed"


async def test_06_a_limit_reached_in_the_middle_of_a_loop_keeps_the_iterations() -> None:
    """Differs: each visit of a step is a record of its own, and the third iteration is refused instead of paid for."""
    loop = Loop(reserves("dear", "0.1"), until=lambda value: False, max_iterations=9)
    result = await Flujo(loop, limits=UsageLimits("0.25")).run_async(1)
    assert limit_of(result) == "total_cost_usd_limit"
    assert ends(result) == [("loop#1/dear", "completed"), ("loop#2/dear", "completed"), ("loop#3/dear", "failed")]
    assert result.total_cost_usd == Decimal("0.2")


@pytest.mark.parametrize("first", [True, False])
async def test_07_a_limit_holds_in_parallel_whichever_branch_exceeds_it(first: bool) -> None:
    branches = [books("dear", "2"), books("cheap", "0.1")]
    result = await Flujo(Parallel(*(branches if first else branches[::-1])), limits=UsageLimits("1")).run_async(1)
    assert limit_of(result) == "total_cost_usd_limit"
    assert result.total_cost_usd in (Decimal(2), Decimal("2.1"))  # the cheap one may have been first
    assert ("parallel/dear", "completed") in ends(result)


async def test_08_a_limit_holds_in_a_loop_that_contains_a_parallel() -> None:
    async def join(both: dict[str, int]) -> int:
        return both["a"] + both["b"]

    body = Parallel(reserves("a", "0.1"), reserves("b", "0.1")) >> Step(join)
    result = await Flujo(Loop(body, until=lambda value: False), limits=UsageLimits("0.5")).run_async(1)
    assert limit_of(result) == "total_cost_usd_limit"
    assert Decimal("0.4") <= result.total_cost_usd <= Decimal("0.5")
    assert ("loop#2/join", "completed") in ends(result)
    assert ("loop#3/join", "completed") not in ends(result)


async def test_09_every_step_sees_what_the_ones_before_have_spent() -> None:
    left: list[object] = []

    async def looks(value: int, ctx: RunContext) -> int:
        left.append(ctx.usage.left.cost_usd)
        ctx.usage.record(cost_usd="0.25")
        return value

    await Flujo(Loop(Step(looks), until=None, max_iterations=3, on_limit="return"), limits=UsageLimits(1)).run_async(1)
    assert left == [Decimal(1), Decimal("0.75"), Decimal("0.50")]


@pytest.mark.parametrize("limits", [UsageLimits("1"), UsageLimits(total_tokens_limit=100)], ids=["cost", "tokens"])
async def test_10_a_breach_cancels_the_siblings_even_one_that_fails_while_it_is_cancelled(limits: UsageLimits) -> None:
    began = {"bad_loser": anyio.Event(), "slow": anyio.Event()}

    async def bad_loser(value: int) -> int:
        try:
            began["bad_loser"].set()
            await anyio.sleep_forever()
        finally:
            raise ValueError("and it does not even end well")

    async def slow(value: int) -> int:
        began["slow"].set()
        await anyio.sleep_forever()
        return value

    async def dear(value: int, ctx: RunContext) -> int:
        for event in began.values():
            await event.wait()
        async with ctx.usage.reserve(cost_usd=2, tokens=200):
            return value

    with anyio.fail_after(5):
        result = await Flujo(Parallel(Step(dear), Step(bad_loser), Step(slow)), limits=limits).run_async(1)
    assert limit_of(result) in ("total_cost_usd_limit", "total_tokens_limit")
    told = dict(ends(result))
    assert told["parallel/dear"] == "failed"
    assert told["parallel/slow"] == "cancelled"
    assert told["parallel/bad_loser"] in ("failed", "cancelled")


@pytest.mark.parametrize("shape", [Parallel, Map])
async def test_11_12_a_hundred_at_once_never_spend_more_than_the_limit(shape: Any) -> None:
    held, most, calls = [0], [0], [0]

    async def calls_a_model(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.01") as lease:
            calls[0] += 1
            held[0] += 1
            most[0] = max(most[0], held[0])
            await anyio.sleep(0.001 * (value % 3))
            held[0] -= 1
            lease.settle(cost_usd="0.01")
        return value

    fan = (
        Map(Step(calls_a_model)) if shape is Map else Parallel(*(Step(calls_a_model, name=f"s{n}") for n in range(100)))
    )
    result = await Flujo(fan, limits=UsageLimits("0.05")).run_async(list(range(100)) if shape is Map else 3)
    assert limit_of(result) == "total_cost_usd_limit"
    assert calls[0] <= 5
    assert most[0] <= 5
    assert result.total_cost_usd <= Decimal("0.05")
    assert result.usage.reserved_usd == 0


async def test_13_what_does_not_fit_is_refused_before_the_agent_is_called() -> None:
    calls: list[str] = []
    result = await Flujo(reserves("dear", "2", 0, calls), limits=UsageLimits("1")).run_async(1)
    assert limit_of(result) == "total_cost_usd_limit"
    assert calls == []
    assert result.total_cost_usd == 0


async def test_14_a_branch_passes_the_limit_on_to_what_is_nested_in_it() -> None:
    calls: list[str] = []
    fan = Parallel(*(reserves(f"s{n}", "0.4", 0, calls) for n in range(5)))
    routed = Branch(on=lambda value: value > 0, cases={True: Pipeline(fan, name="deep")}, otherwise=Step(forever))
    result = await Flujo(routed, limits=UsageLimits("1")).run_async(1)
    assert limit_of(result) == "total_cost_usd_limit"
    assert len(calls) == 2
    assert result.total_cost_usd <= Decimal("0.8")


# --- parallel and context ---------------------------------------------------------------------------------------------


def deep_merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    both = {key: deep_merge(old[key], new[key]) for key in old.keys() & new.keys() if isinstance(new[key], dict)}
    return {**old, **new, **both}


class Known(BaseModel):
    model_config = ConfigDict(frozen=True)
    seen: Annotated[tuple[str, ...], operator.add] = ()
    tags: Annotated[frozenset[str], operator.or_] = frozenset()
    table: Annotated[dict[str, Any], deep_merge] = {}
    plain: int = 0


def notes(name: str, wait_s: float = 0, **changes: object) -> Step:
    async def work(value: object, known: Known) -> Update[int]:
        await anyio.sleep(wait_s)
        return Update(len(known.seen), **changes)

    return Step(work, name=name, writes=tuple(changes))


async def test_15_a_branch_does_not_see_what_the_others_write_until_they_are_joined() -> None:
    one, two = notes("one", seen=("one",)), notes("two", 0.01, seen=("two",))
    flujo = Flujo(notes("first", seen=("first",)) >> Parallel(one, two) >> notes("last", seen=()), context_model=Known)
    result = await flujo.run_async(1)
    assert {r.name: r.output for r in result.step_history} == {"first": 0, "one": 1, "two": 1, "last": 3}


async def test_16_what_branches_wrote_is_merged_in_declared_order_not_in_the_order_they_ended() -> None:
    """Differs: without a reducer two writers are refused when compiled, instead of one of them winning in silence."""
    result = await Flujo(
        Parallel(notes("slow", 0.02, seen=("slow",)), notes("fast", seen=("fast",))), context_model=Known
    ).run_async(1)
    assert [r.name for r in result.step_history] == ["fast", "slow"]
    assert result.context.seen == ("slow", "fast")  # type: ignore[attr-defined]
    with pytest.raises(PipelineError, match="plain"):
        Flujo(Parallel(notes("a", plain=1), notes("b", plain=2)), context_model=Known)
    with pytest.raises(PipelineError, match="plain"):
        Flujo(Map(notes("each", plain=1)), context_model=Known)


async def test_17_the_cost_of_a_failed_branch_counts() -> None:
    result = await Flujo(Parallel(Step(breaks), books("fine", "0.2"), on_failure="collect")).run_async(1)
    assert result.total_cost_usd == Decimal("0.3")
    assert result.usage.total_tokens == 5


async def test_18_one_failure_or_all_may_be_collected() -> None:
    """Differs: the value of a failed branch is its error, not left out."""
    one = await Flujo(Parallel(Step(breaks), books("fine", "0"), on_failure="collect")).run_async(3)
    output: Any = one.output
    assert one.status == "completed"
    assert output["fine"] == 3
    assert isinstance(output["breaks"], StepFailed)
    every = await Flujo(Map(Step(breaks), on_failure="collect")).run_async([1, 2])
    errors: Any = every.output
    assert [type(error) for error in errors] == [StepFailed, StepFailed]


async def test_19_a_breached_limit_is_never_collected_and_starts_no_fallback() -> None:
    calls: list[str] = []
    dear = reserves("dear", "2", 0, calls)
    for shape in (Parallel(dear, books("b", "0"), on_failure="collect"), Fallback(dear, books("b", "0"))):
        result = await Flujo(shape, limits=UsageLimits("1")).run_async(1)
        assert limit_of(result) == "total_cost_usd_limit"
        assert not [1 for path, _ in ends(result) if path == "fallback/b"]
    assert calls == []


async def test_20_21_how_values_of_a_field_are_merged_is_the_fields_reducer() -> None:
    """Differs: no merge strategies; a field says how it is merged, and any function of two values will do."""
    left = notes("left", table={"a": {"x": 1}, "n": 1})
    right = notes("right", table={"a": {"y": 2}}, tags=frozenset({"r"}))
    result = await Flujo(Parallel(left, right), context_model=Known).run_async(1, context=Known(table={"a": {"z": 0}}))
    assert result.context == Known(table={"a": {"x": 1, "y": 2, "z": 0}, "n": 1}, tags=frozenset({"r"}))


async def test_22_the_step_after_a_parallel_takes_keys_values_union_or_concatenation() -> None:
    """Differs: no `reduce=`; the next step does what it likes with the dict by name, in declared order."""

    async def few(value: int) -> list[int]:
        await anyio.sleep(0.01)
        return [value, value]

    async def other(value: int) -> list[int]:
        return [10 * value]

    fan = Parallel(Step(few), Step(other))

    async def reduce(outputs: dict[str, list[int]]) -> tuple[list[str], set[int], list[int]]:
        return (
            list(outputs),
            set().union(*outputs.values()),
            [number for numbers in outputs.values() for number in numbers],
        )

    result = await Flujo(fan >> Step(reduce)).run_async(1)
    assert result.output == (["few", "other"], {1, 10}, [1, 1, 10])
    part = Step(lambda numbers: numbers[0], name="part", inline=True, inputs={"numbers": fan.output.other})
    assert (await Flujo(Pipeline(fan, part)).run_async(4)).output == 40


async def test_23_reads_names_the_fields_a_step_needs_and_an_unknown_one_is_refused() -> None:
    """Differs: nothing is hidden in this process (`reads` is what travels to a worker); unknown names are an error."""

    async def looks(value: int, known: Known) -> int:
        return known.plain

    reading = Step(looks, reads=("plain",), inputs={"value": run_input()})
    assert (await Flujo(Pipeline(reading), context_model=Known).run_async(1, context=Known(plain=7))).output == 7
    with pytest.raises(FlujoError, match="nope"):
        Flujo(Step(looks, reads=("nope",)), context_model=Known)
