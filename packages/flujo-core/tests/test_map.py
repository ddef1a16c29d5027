"""`Map`: a body for each item, at the same time, with the results in the order of the items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from stable_ids import shown

from flujo.core import (
    Flujo,
    FlujoError,
    InputError,
    Map,
    Parallel,
    Pipeline,
    PipelineError,
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
async def upper(word: str) -> str:
    return word.upper()


@step
async def count(value: int) -> list[int]:
    return list(range(value))


@step
async def total(values: list[int]) -> int:
    return sum(values)


@step
async def odd(value: int) -> int:
    if value % 2:
        raise ValueError(f"odd: {value}")
    return value


class Gauge:
    """A step that counts how many of it run at once; it gives way to the others often."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self.order: list[int] = []

    def step(self) -> Step:
        async def work(value: int) -> int:
            self.now += 1
            self.peak = max(self.peak, self.now)
            self.order.append(value)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            self.now -= 1
            return value

        return Step(work)


def problems_of(make: Any, **options: Any) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compile_plan(make(), **options)
    return list(caught.value.problems)


# --- items ------------------------------------------------------------------------------------------------------------


async def test_each_item_goes_through_the_body_and_has_a_path_of_its_own() -> None:
    result = await Flujo(count >> Map(double) >> total).run_async(4)
    assert result.output == 12
    mapped = {r.path: r.output for r in result.step_history if "map" in r.path}
    assert mapped == {f"map[{n}]/double": 2 * n for n in range(4)}


async def test_results_are_in_the_order_of_the_items_whoever_ends_first() -> None:
    ends = [anyio.Event() for _ in range(6)]

    async def backwards(value: int) -> int:
        if value < 5:
            await ends[value + 1].wait()
        ends[value].set()
        return value

    with anyio.fail_after(5):
        result = await Flujo(Map(Step(backwards))).run_async(list(range(6)))
    assert result.output == list(range(6))
    assert [r.path for r in result.step_history] == [f"map[{n}]/backwards" for n in (5, 4, 3, 2, 1, 0)]


async def test_items_run_at_the_same_time() -> None:
    inside, all_in = 0, anyio.Event()

    async def meet(value: int) -> int:
        nonlocal inside
        inside += 1
        if inside == 50:
            all_in.set()
        await all_in.wait()  # only passes while all are running
        return value

    with anyio.fail_after(5):
        assert (await Flujo(Map(Step(meet))).run_async([7] * 50)).output == [7] * 50


@pytest.mark.parametrize(("limit", "peak"), [(1, 1), (2, 2), (7, 7), (8, 8), (9, 8), (10_000, 8), (None, 8)])
async def test_no_more_items_run_at_once_than_the_limit_says(limit: int | None, peak: int) -> None:
    gauge = Gauge()
    result = await Flujo(Map(gauge.step(), limit=limit)).run_async(list(range(8)))
    assert result.output == list(range(8))
    assert gauge.peak == peak
    if limit == 1:
        assert gauge.order == list(range(8)), "one at a time is in order"


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("empty", [[], ()], ids=repr)
async def test_no_items_give_an_empty_list(empty: Any, limit: int | None) -> None:
    async def see(values: list[int]) -> int:
        return len(values)

    result = await Flujo(Map(double, limit=limit) >> Step(see)).run_async(empty)
    assert (result.status, result.output) == ("completed", 0)
    assert [r.name for r in result.step_history] == ["see"]
    assert (await Flujo(Map(double, limit=limit)).run_async(empty)).output == []


async def test_a_tuple_gives_a_list_and_items_may_be_equal_or_nothing() -> None:
    async def show(value: Any) -> str:
        return repr(value)

    result = await Flujo(Map(Step(show))).run_async((None, 1, 1, [], None))
    assert result.output == ["None", "1", "1", "[]", "None"]


async def test_ten_thousand_items_run() -> None:
    def same(value: int) -> int:
        return value

    numbers = list(range(10_000))
    assert (await Flujo(Map(Step(same, inline=True))).run_async(numbers)).output == numbers


# --- bodies -----------------------------------------------------------------------------------------------------------


async def test_run_input_in_a_pipeline_is_the_item_and_in_a_chain_the_input_of_the_run() -> None:
    async def pair(value: int, first: Any) -> tuple[int, Any]:
        return value, first

    graph = Pipeline(double, Step(pair, inputs={"value": double, "first": run_input()}), name="graph")
    result = await Flujo(count >> Map(graph)).run_async(3)
    assert result.output == [(0, 0), (2, 1), (4, 2)]
    chain = double >> Step(pair, inputs={"first": run_input()})
    assert (await Flujo(count >> Map(chain)).run_async(3)).output == [(0, 3), (2, 3), (4, 3)]


async def test_a_map_in_a_map_is_a_list_of_lists() -> None:
    result = await Flujo(Map(Map(double, name="inner"))).run_async([[1, 2], [], [3]])
    assert result.output == [[2, 4], [], [6]]
    assert sorted(r.path for r in result.step_history) == [
        "map[0]/inner[0]/double", "map[0]/inner[1]/double", "map[2]/inner[0]/double",
    ]  # fmt: skip


async def test_items_do_not_wait_for_each_other_between_the_steps_of_a_chain() -> None:
    done = anyio.Event()

    async def first(value: int) -> int:
        if value == 0:
            await done.wait()  # the other item is through its whole chain before
        return value

    async def second(value: int) -> int:
        done.set()
        return value

    with anyio.fail_after(5):
        assert (await Flujo(Map(Step(first) >> Step(second))).run_async([0, 1])).output == [0, 1]


async def test_a_step_has_a_key_of_its_own_for_each_item() -> None:
    keys = []

    async def note(value: int, ctx: RunContext) -> int:
        keys.append(ctx.idempotency_key)
        return value

    await Flujo(Map(Step(note))).run_async([5, 5, 5])
    assert len(set(keys)) == 3


# --- failures ---------------------------------------------------------------------------------------------------------


async def test_an_item_that_fails_cancels_the_others_and_fails_the_run() -> None:
    began = [anyio.Event(), anyio.Event(), anyio.Event()]

    async def work(value: int) -> int:
        if value == 1:
            await began[0].wait()
            await began[2].wait()
            raise ValueError("no good")
        began[value].set()
        await anyio.sleep_forever()
        return value

    with anyio.fail_after(5):
        result = await Flujo(Map(Step(work)) >> total).run_async([0, 1, 2])
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.step_path == "map[1]/work"
    assert sorted((r.path, r.status) for r in result.step_history) == [
        ("map[0]/work", "cancelled"), ("map[1]/work", "failed"), ("map[2]/work", "cancelled"),
    ]  # fmt: skip


async def test_items_that_wait_for_their_turn_never_start_after_a_failure() -> None:
    result = await Flujo(Map(odd, limit=1)).run_async([0, 1, 2, 3])
    assert result.status == "failed"
    assert [(r.path, r.status) for r in result.step_history] == [
        ("map[0]/odd", "completed"), ("map[1]/odd", "failed"),
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [None, 1, 2])
async def test_collect_gives_each_error_in_the_place_of_its_item(limit: int | None) -> None:
    result = await Flujo(Map(odd, on_failure="collect", limit=limit)).run_async([0, 1, 2, 3])
    assert result.status == "completed"
    output: Any = result.output
    assert output[::2] == [0, 2]
    assert [type(error) for error in output[1::2]] == [StepFailed, StepFailed]
    assert [error.step_path for error in output[1::2]] == ["map[1]/odd", "map[3]/odd"]


async def test_a_budget_for_three_items_makes_three() -> None:
    made = []

    async def paid(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.3") as lease:
            made.append(value)
            await anyio.lowlevel.checkpoint()
            lease.settle(cost_usd="0.3")
        return value

    for policy in ("cancel", "collect"):
        made.clear()
        result = await Flujo(Map(Step(paid), on_failure=policy), limits=UsageLimits(1)).run_async(list(range(20)))
        assert result.status == "stopped"
        assert isinstance(result.error, UsageLimitExceeded)
        assert len(made) <= 3
        assert result.usage.cost_usd <= 1
        assert result.usage.reserved_usd == 0


# --- no list ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, "abc", {"a": 1}, None, {1, 2}, iter([1])], ids=lambda v: type(v).__name__)
async def test_a_run_input_that_is_no_list_is_refused_before_anything_runs(value: Any) -> None:
    ran = []

    async def note(value: Any) -> Any:
        ran.append(value)
        return value

    with pytest.raises(InputError):
        await Flujo(Map(Step(note))).run_async(value)
    assert ran == []


@pytest.mark.parametrize("value", [3, "abc", b"abc", {"a": 1}, None, {1, 2}, range(2)], ids=lambda v: type(v).__name__)
async def test_what_turns_out_to_be_no_list_is_a_failure_that_says_so(value: Any) -> None:
    ran = []

    async def loose(start: int) -> Any:
        return value

    async def note(value: Any) -> Any:
        ran.append(value)
        return value

    result = await Flujo(Step(loose) >> Map(Step(note))).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert "list" in str(result.error)
    assert type(value).__name__ in str(result.error)
    assert ran == []


async def test_an_item_of_another_type_is_refused_with_the_run_input() -> None:
    with pytest.raises(InputError):
        await Flujo(Map(double)).run_async([1, "two", 3])


async def test_an_item_of_another_type_is_a_mismatch_that_names_both_types() -> None:
    """Between steps: exact type or isinstance. In a chain it is checked; an item goes into the body unchecked."""

    async def loose(start: int) -> Any:
        return [1, "two"]

    result = await Flujo(Step(loose) >> Map(upper)).run_async(1)
    assert result.status == "failed"
    assert "AttributeError" not in str(result.error)
    assert "int" in str(result.error)
    assert "str" in str(result.error)


@pytest.mark.parametrize(
    "output", [int, str, set[int], dict[str, int], bytes, list[int] | None, Sequence[int]], ids=str
)
def test_a_step_that_gives_no_list_cannot_be_mapped(output: Any) -> None:
    async def make() -> Any: ...

    make.__annotations__["return"] = output
    [problem] = problems_of(lambda: Step(make) >> Map(double))
    for word in ("'make'", "map", "list"):
        assert word in problem


@pytest.mark.parametrize("output", [list[str], tuple[str, ...], tuple[int, str], list[int | None]], ids=str)
def test_items_must_fit_the_body_and_both_types_are_named(output: Any) -> None:
    async def make() -> Any: ...

    make.__annotations__["return"] = output
    [problem] = problems_of(lambda: Step(make) >> Map(double))
    for word in ("'make'", str(output), "'map'", "list[int]"):
        assert word in problem


@pytest.mark.parametrize("output", [list[int], tuple[int, ...], tuple[int, int], list[bool], list, tuple, Any], ids=str)
def test_lists_and_tuples_of_what_the_body_takes_can_be_mapped(output: Any) -> None:
    async def make() -> Any: ...

    make.__annotations__["return"] = output
    compile_plan(Step(make) >> Map(double) >> total)


def test_what_it_gives_is_a_list_of_what_the_body_gives() -> None:
    async def words(values: list[str]) -> str:
        return "".join(values)

    [problem] = problems_of(lambda: Map(double) >> Step(words))
    for word in ("map", "list[int]", "'values'", "'words'", "list[str]"):
        assert word in problem
    [problem] = problems_of(lambda: Map(odd, on_failure="collect") >> total)
    assert FlujoError.__name__ in problem


@pytest.mark.parametrize(
    ("body", "options", "words"),
    [
        *((double, {"limit": n}, "limit") for n in (0, -1, True, 2.0, "2")),
        *((double, {"on_failure": w}, "on_failure") for w in ("ignore", None, 1)),
        *((body, {}, "") for body in (None, 3, [double], double.function)),
        (double, {"name": "a/b"}, "name"),
        (double, {"inputs": 3}, "input"),
    ],
    ids=shown,
)
def test_what_cannot_be_used_is_refused_before_anything_runs(body: Any, options: Any, words: str) -> None:
    with pytest.raises(PipelineError) as caught:
        Flujo(Map(body, **options))
    assert words in str(caught.value)


def test_every_problem_of_body_and_neighbours_is_told_at_once() -> None:
    def build() -> Any:
        body = Pipeline(double, Step(upper, inputs={"word": double}), Step(odd, inputs={"value": "nowhere"}), name="b")
        return upper >> Map(body) >> Parallel(double)

    found = "\n".join(problems_of(build))
    for words in ("'word'", "unknown step 'nowhere'", "'upper' gives str", "'parallel'"):
        assert words in found
