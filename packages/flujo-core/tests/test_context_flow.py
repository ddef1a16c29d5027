"""The context through combinators: who sees what, in which order changes are folded, and which writes are refused."""

from __future__ import annotations

import operator
from typing import Annotated, Any

import anyio
import pytest
from pydantic import BaseModel

from flujo.core import (
    Branch,
    Fallback,
    Flujo,
    Loop,
    Map,
    Parallel,
    Pipeline,
    PipelineError,
    RetryPolicy,
    Step,
    Update,
    compile_plan,
    run_input,
    step,
)

pytestmark = pytest.mark.anyio


class Notes(BaseModel, frozen=True):
    log: Annotated[list[str], operator.add] = []
    text: Annotated[str, operator.add] = ""
    note: str = ""
    count: int = 0


def logger(name: str, *, wait: anyio.Event | None = None, done: anyio.Event | None = None) -> Step:
    """Writes its name to the log, after `wait` and before `done`."""

    async def write(value: Any) -> Update[Any]:
        if wait is not None:
            await wait.wait()
        if done is not None:
            done.set()
        return Update(value, log=[name], text=name)

    return Step(write, name=name, writes=("log", "text"))


def noter(name: str) -> Step:
    async def write(value: Any) -> Update[Any]:
        return Update(value, note=name)

    return Step(write, name=name, writes="note")


@step
async def look(value: Any, notes: Notes) -> Notes:
    return notes


@step
async def fail(value: Any) -> Any:
    raise ValueError("no good")


def problems_of(make: Any) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compile_plan(make(), context_model=Notes)
    return list(caught.value.problems)


# --- merges -----------------------------------------------------------------------------------------------------------


async def test_branches_are_merged_in_declared_order_whoever_ends_first() -> None:
    c, b = anyio.Event(), anyio.Event()
    flow = Parallel(logger("a", wait=b), logger("b", wait=c, done=b), logger("c", done=c)) >> look
    result = await Flujo(flow, context_model=Notes).run_async(1)
    assert result.output == Notes(log=["a", "b", "c"], text="abc")
    assert result.context == result.output
    assert [r.name for r in result.step_history] == ["c", "b", "a", "look"]


async def test_items_are_merged_in_their_order_whoever_ends_first() -> None:
    ends = [anyio.Event() for _ in range(5)]

    async def write(value: int) -> Update[int]:
        if value < 4:
            await ends[value + 1].wait()
        ends[value].set()
        return Update(value, text=str(value))

    flow = Map(Step(write, writes="text")) >> look
    with anyio.fail_after(5):
        result = await Flujo(flow, context_model=Notes).run_async(list(range(5)))
    assert result.context == Notes(text="01234")


async def test_a_fold_starts_from_what_was_there_and_each_branch_folds_its_own_in_order() -> None:
    left = Pipeline(logger("l1") >> logger("l2"), name="left")
    right = Pipeline(logger("r1") >> logger("r2"), name="right")
    flow = logger("0") >> Parallel(left, right) >> logger("9") >> look
    result = await Flujo(flow, context_model=Notes).run_async(1, context=Notes(text="."))
    assert result.context == Notes(log=["0", "l1", "l2", "r1", "r2", "9"], text=".0l1l2r1r29")


async def test_nested_fan_outs_are_merged_inside_out() -> None:
    inner = Map(logger("m"), name="inner")
    flow = Parallel(Pipeline(inner >> logger("a"), name="x"), Pipeline(logger("b"), name="y"))
    result = await Flujo(flow, context_model=Notes).run_async([1, 2])
    assert result.context == Notes(log=["m", "m", "a", "b"], text="mmab")


async def test_branches_may_write_different_fields() -> None:
    async def count(value: int) -> Update[int]:
        return Update(value, count=7)

    result = await Flujo(Parallel(noter("n"), Step(count, writes="count")), context_model=Notes).run_async(1)
    assert result.context == Notes(note="n", count=7)


# --- who sees what ----------------------------------------------------------------------------------------------------


async def test_a_branch_sees_the_context_of_the_fan_out_and_its_own_changes_only() -> None:
    written = anyio.Event()

    async def late(value: int, notes: Notes) -> Notes:
        await written.wait()
        return notes

    async def own(value: int, notes: Notes) -> Notes:
        written.set()
        return notes

    writer = Pipeline(logger("w") >> Step(own), name="writer")
    flow = logger("0") >> Parallel(writer, Step(late))
    with anyio.fail_after(5):
        result = await Flujo(flow, context_model=Notes).run_async(1)
    output: Any = result.output
    assert output["writer"].log == ["0", "w"]
    assert output["late"].log == ["0"]


async def test_each_item_starts_from_the_context_at_the_fan_out() -> None:
    async def count(value: int, notes: Notes) -> Update[int]:
        return Update(len(notes.log), log=[f"{value}"])

    flow = logger("x") >> Map(Step(count, writes="log") >> Step(count, name="more", writes="log"), limit=1)
    result = await Flujo(flow, context_model=Notes).run_async([7, 8, 9])
    assert result.output == [2, 2, 2], "what was there, and what this item wrote itself"
    assert isinstance(result.context, Notes)
    assert result.context.log == ["x", "7", "1", "8", "1", "9", "1"]


async def test_each_iteration_sees_what_those_before_wrote() -> None:
    async def count(value: int, notes: Notes) -> Update[int]:
        return Update(value, count=notes.count + 1)

    loop = Loop(Step(count, writes="count"), max_iterations=5, on_limit="return")
    assert (await Flujo(loop >> look, context_model=Notes).run_async(1)).context == Notes(count=5)


async def test_on_until_and_when_see_the_context() -> None:
    branch = Branch(on=lambda value, notes: notes.note, cases={"a": logger("A"), "b": logger("B")})
    result = await Flujo(noter("b") >> branch, context_model=Notes).run_async(1)
    assert result.context == Notes(note="b", log=["B"], text="B")


async def test_a_callback_cannot_change_the_context() -> None:
    def on(value: int, notes: Notes) -> str:
        notes.note = "changed"  # type: ignore[misc]
        return "a"

    result = await Flujo(Branch(on=on, cases={"a": look}), context_model=Notes).run_async(1)
    assert result.status == "failed"
    assert result.context == Notes()


# --- what a failure drops ---------------------------------------------------------------------------------------------


async def test_changes_of_an_alternative_that_failed_are_dropped() -> None:
    bad = Pipeline(logger("bad") >> fail, name="bad")
    good = Pipeline(logger("good") >> look, name="good")
    result = await Flujo(logger("0") >> Fallback(bad, good), context_model=Notes).run_async(1)
    assert result.output == Notes(log=["0", "good"], text="0good")
    assert result.context == result.output


@pytest.mark.parametrize("kind", ["parallel", "map"])
async def test_changes_of_a_body_that_failed_are_dropped_where_failures_are_collected(kind: str) -> None:
    async def write(value: int) -> Update[int]:
        return Update(value, log=[str(value)])

    async def odd(value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value

    body = Step(write, writes="log") >> Step(odd)
    if kind == "map":
        result = await Flujo(Map(body, on_failure="collect"), context_model=Notes).run_async([0, 1, 2, 3])
        assert result.context == Notes(log=["0", "2"])
    else:
        bad = Pipeline(logger("bad") >> fail, name="x")
        flow = Parallel(bad, logger("good"), on_failure="collect")
        assert (await Flujo(flow, context_model=Notes).run_async(1)).context == Notes(log=["good"], text="good")


async def test_changes_of_an_attempt_that_failed_are_dropped() -> None:
    calls = []

    async def flaky(value: int) -> Update[int]:
        calls.append(value)
        return Update(value, text="x")

    def check(value: int) -> str | None:
        return "again" if len(calls) < 3 else None

    retry = RetryPolicy(max_attempts=3, backoff_s=0)
    flow = Step(flaky, writes="text", retry=retry, validators=(check,))
    result = await Flujo(flow, context_model=Notes).run_async(1)
    assert (len(calls), result.context) == (3, Notes(text="x"))


async def test_a_fault_of_a_reducer_at_the_join_is_a_failed_run() -> None:
    def refuse(old: int, new: int) -> int:
        raise ZeroDivisionError("cannot fold")

    class Odd(BaseModel, frozen=True):
        total: Annotated[int, refuse] = 0

    async def write(value: int) -> Update[int]:
        return Update(value, total=1)

    flow = Parallel(Step(write, name="a", writes="total"), Step(write, name="b", writes="total"))
    result = await Flujo(flow, context_model=Odd).run_async(1)
    assert result.status == "failed"
    assert "cannot fold" in str(result.error)
    assert (await Flujo(Map(Step(write, writes="total")), context_model=Odd).run_async([1, 2])).status == "failed"


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("sees", [True, False])
async def test_a_fault_of_a_reducer_where_a_step_is_asked_when_is_its_failure(wanted: bool, sees: bool) -> None:
    def refuse(old: int, new: int) -> int:
        raise ZeroDivisionError("cannot fold")

    class Odd(BaseModel, frozen=True):
        total: Annotated[int, refuse] = 0

    async def write(value: int) -> Update[int]:
        return Update(value, total=1)

    async def plus(value: int) -> int:
        return value + 1

    when: Any = (lambda value, context: wanted) if sees else (lambda value: wanted)
    flow = Step(write, writes="total") >> Step(plus, when=when)
    result = await Flujo(flow, context_model=Odd).run_async(1)
    assert [(record.path, record.status) for record in result.step_history] == [
        ("write", "completed"),
        ("plus", "failed"),
    ]
    assert "cannot fold" in str(result.error)
    tried = Flujo(Fallback(flow, Step(plus, name="other")), context_model=Odd)
    assert (await tried.run_async(1)).output == 2


# --- writes that are refused ------------------------------------------------------------------------------------------


def dag(one: Any, other: Any) -> Any:
    return Pipeline(one, other)


SIDE_BY_SIDE: dict[str, Any] = {
    "graph": dag,
    "parallel": Parallel,
    "limited": lambda one, other: Parallel(one, other, limit=1),
    "deep": lambda one, other: Parallel(
        Pipeline(Loop(one, max_iterations=1, on_limit="return"), name="x"), Fallback(Pipeline(other, name="y"), look)
    ),
    "beside a map": lambda one, other: Parallel(one, Map(Pipeline(other, name="y")), name="p"),
    "in one of the cases": lambda one, other: Parallel(one, Branch(on=bool, cases={True: look, False: other})),
}

NAMED = {
    "deep": ("'x'", "'fallback'"),
    "beside a map": ("'first'", "'map'"),
    "in one of the cases": ("'first'", "'branch'"),
}


@pytest.mark.parametrize("kind", SIDE_BY_SIDE)
def test_two_that_may_run_at_once_and_write_one_field_are_refused_with_both_names(kind: str) -> None:
    found = problems_of(lambda: SIDE_BY_SIDE[kind](noter("first"), noter("second")))
    text = "\n".join(found)
    for word in ("'note'", *NAMED.get(kind, ("'first'", "'second'"))):
        assert word in text
    compile_plan(SIDE_BY_SIDE[kind](logger("first"), logger("second")), context_model=Notes)


def test_items_of_a_map_write_at_the_same_time_as_each_other() -> None:
    for body in (noter("writer"), Pipeline(look >> noter("writer"), name="deep")):
        [problem] = problems_of(lambda body=body: Map(body))  # type: ignore[misc]
        for word in ("'note'", "'map'"):
            assert word in problem
    compile_plan(Map(logger("writer")), context_model=Notes)


ONE_AFTER_THE_OTHER: dict[str, Any] = {
    "chain": lambda one, other: one >> other,
    "cases": lambda one, other: Branch(on=lambda value: value, cases={1: one}, otherwise=other),
    "alternatives": Fallback,
    "loop": lambda one, other: Loop(one >> other, max_iterations=2, on_limit="return"),
    "after a parallel": lambda one, other: Parallel(one, look) >> other,
    "before a map": lambda one, other: one >> Parallel(other, look),
    "edge": lambda one, other: Pipeline(one, Step(other, inputs={"value": one})),
    "edge across sub-pipelines": lambda one, other: Pipeline(one, name="x") >> Pipeline(other, name="y"),
    "branches of which one only reads": lambda one, other: one >> Parallel(look, Pipeline(other, name="y")),
}


@pytest.mark.parametrize("kind", ONE_AFTER_THE_OTHER)
async def test_two_that_never_run_at_once_may_write_one_field(kind: str) -> None:
    flow = ONE_AFTER_THE_OTHER[kind](noter("first"), noter("second"))
    result = await Flujo(flow, context_model=Notes).run_async(1)
    assert result.status == "completed"
    last = "first" if kind in ("cases", "alternatives") else "second"
    assert result.context == Notes(note=last)


def test_all_conflicts_are_told_at_once() -> None:
    async def both(value: Any) -> Update[Any]:
        return Update(value, note="x", count=1)

    pair = [Step(both, name=name, writes=("note", "count")) for name in ("first", "second")]
    text = "\n".join(problems_of(lambda: Parallel(*pair) >> Parallel(noter("third"), noter("fourth"))))
    for word in ("'note'", "'count'", "first", "second", "third", "fourth"):
        assert word in text


async def test_a_graph_inside_merges_at_its_joins_too() -> None:
    start, left, right = logger("s"), logger("l"), logger("r")
    one, other = Step(left, inputs={"value": start}), Step(right, inputs={"value": start})

    async def join(a: Any, b: Any, first: Any, notes: Notes) -> str:
        return notes.text

    end = Step(join, inputs={"a": one, "b": other, "first": run_input()})
    flow = Map(Pipeline(start, one, other, end, name="graph"))
    result = await Flujo(flow, context_model=Notes).run_async([1, 2])
    assert result.output == ["slr", "slr"]
    assert result.context == Notes(log=["s", "l", "r"] * 2, text="slrslr")
