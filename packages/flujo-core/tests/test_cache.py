"""`cache=True`: a hit runs nothing, costs nothing and says so; what must tell two calls apart does."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from flujo.core import (
    Flujo,
    Loop,
    Map,
    OnCacheHit,
    Parallel,
    Pipeline,
    RunContext,
    Step,
    Update,
    UsageLimits,
    run_input,
    step,
)

pytestmark = pytest.mark.anyio


class Question(BaseModel):
    text: str
    tags: list[str] = []


@dataclass
class Point:
    x: int
    y: int


class Notes(BaseModel, frozen=True):
    mode: str = "fast"
    other: str = ""
    log: Annotated[list[str], operator.add] = []


class Counted:
    """A step of which each call is paid and noted."""

    def __init__(self, work: Callable[[Any], Any] = lambda value: value) -> None:
        self.calls: list[Any] = []
        self.work = work

    async def __call__(self, value: Any, ctx: RunContext) -> Any:
        self.calls.append(value)
        async with ctx.usage.reserve(cost_usd="0.1", tokens=10) as lease:
            lease.settle(cost_usd="0.1", tokens=10)
        return self.work(value)

    def step(self, **options: Any) -> Step:
        return Step(self, **{"name": "paid", "cache": True, **options})


# --- hits -------------------------------------------------------------------------------------------------------------


async def test_a_hit_runs_nothing_costs_nothing_and_says_so() -> None:
    counted, hits = Counted(lambda value: value * 2), []

    def on_hit(event: OnCacheHit) -> None:
        hits.append(event.step_path)

    flujo = Flujo(counted.step(), hooks=[on_hit])
    first, second = await flujo.run_async(21), await flujo.run_async(21)
    assert (first.output, second.output) == (42, 42)
    assert counted.calls == [21]
    assert [r.step_history[0].cached for r in (first, second)] == [False, True]
    assert [r.total_cost_usd for r in (first, second)] == [Decimal("0.1"), 0]
    record = second.step_history[0]
    assert (record.status, record.output) == ("completed", 42)
    assert (record.usage.cost_usd, record.usage.total_tokens, record.usage.requests) == (0, 0, 0)
    assert (second.usage.total_tokens, second.usage.requests) == (0, 0)
    assert hits == ["paid"]


async def test_a_hit_passes_where_nothing_may_be_spent() -> None:
    counted = Counted()
    flujo = Flujo(counted.step())
    assert (await flujo.run_async(1)).status == "completed"
    assert (await flujo.run_async(1, limits=UsageLimits(0, 0, 0))).status == "completed"
    assert (await flujo.run_async(2, limits=UsageLimits(0, 0, 0))).status == "stopped"


async def test_the_word_cache_makes_a_step_of_a_step() -> None:
    counted = Counted()
    plain = Step(counted, name="paid")
    flujo = Flujo(plain.cache())
    assert [(await flujo.run_async(n)).output for n in (1, 1, 2)] == [1, 1, 2]
    assert counted.calls == [1, 2]
    flujo = Flujo(plain)
    assert [(await flujo.run_async(n)).output for n in (3, 3)] == [3, 3]
    assert counted.calls == [1, 2, 3, 3], "the step it was made of is as it was"

    @step(cache=True)
    async def marked(value: int) -> int:
        counted.calls.append("marked")
        return value

    flujo = Flujo(marked)
    await flujo.run_async(1)
    await flujo.run_async(1)
    assert counted.calls[4:] == ["marked"]


async def test_iterations_and_items_hit_what_the_run_itself_has_made() -> None:
    counted = Counted(lambda value: value % 2)
    result = await Flujo(Loop(counted.step(), max_iterations=5, on_limit="return")).run_async(3)
    assert result.output == 1
    assert counted.calls == [3, 1]
    assert [r.cached for r in result.step_history] == [False, False, True, True, True]
    counted = Counted()
    result = await Flujo(Map(counted.step(), limit=1)).run_async([1, 2, 1, 2, 1])
    assert result.output == [1, 2, 1, 2, 1]
    assert counted.calls == [1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: 1, lambda: "a", lambda: None, lambda: [1, [2]], lambda: {"b": 1, "a": [2]}, lambda: Decimal("1.10"),
        lambda: Question(text="a", tags=["b"]), lambda: Point(1, 2), lambda: (1, "a"), lambda: b"abc",
    ],
    ids=lambda make: repr(make()),
)  # fmt: skip
async def test_equal_inputs_of_any_kind_hit(make: Callable[[], Any]) -> None:
    counted = Counted(lambda value: "done")
    flujo = Flujo(counted.step())
    assert [(await flujo.run_async(make())).output for _ in range(2)] == ["done"] * 2
    assert len(counted.calls) == 1


# --- misses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2), (1, True), (0, False), (1, 1.0), (1, "1"), (None, "None"), ("a", b"a"), ([1], (1,)), ([1, 2], [2, 1]),
        ("", None), ([], {}), ([["a"], []], [[], ["a"]]), ({"a": 1}, {"a": "1"}), (Decimal("1"), 1),
        (Question(text="a"), {"text": "a", "tags": []}), (Question(text="a"), Question(text="a", tags=["b"])),
        (Point(1, 2), Point(2, 1)), ("a\0b", "a"), (0.1, 0.1 + 1e-12), (10**30, 10**30 + 1),
    ],
    ids=repr,
)  # fmt: skip
async def test_inputs_that_differ_in_value_or_type_do_not_hit(one: Any, other: Any) -> None:
    counted = Counted(repr)
    flujo = Flujo(counted.step())
    assert (await flujo.run_async(one)).output == repr(one)
    result = await flujo.run_async(other)
    assert (result.output, result.step_history[0].cached) == (repr(other), False)


async def test_an_input_that_cannot_be_told_apart_never_hits_falsely_and_breaks_nothing() -> None:
    class Opaque:
        def __init__(self, number: int) -> None:
            self.number = number

    async def make(value: int) -> Any:
        return Opaque(value)

    flujo = Flujo(Step(make) >> Counted(lambda thing: thing.number).step())
    for number in (1, 2):
        result = await flujo.run_async(number)
        assert result.status == "failed" or result.output == number
        if result.status == "failed":
            assert "Opaque" in str(result.error)


async def test_every_input_counts_and_by_its_name() -> None:
    calls = []

    async def subtract(a: int, b: int) -> int:
        calls.append((a, b))
        return a - b

    flujo = Flujo(Step(subtract, cache=True, inputs={"a": run_input()["a"], "b": run_input()["b"]}))
    values = [(1, 2), (2, 1), (1, 2), (1, 1)]
    assert [(await flujo.run_async({"a": a, "b": b})).output for a, b in values] == [-1, 1, -1, 0]
    assert calls == [(1, 2), (2, 1), (1, 1)]


async def test_another_flujo_another_step_and_another_version_have_entries_of_their_own() -> None:
    counted = Counted()
    for _ in range(2):
        await Flujo(counted.step()).run_async(1)
    assert len(counted.calls) == 2, "each Flujo keeps its own"
    counted = Counted()
    flow = Pipeline(counted.step(name="a"), counted.step(name="b", version=2), counted.step(name="c"))
    result = await Flujo(flow).run_async(1)
    assert not any(r.cached for r in result.step_history)


async def test_declared_context_counts_and_other_context_does_not() -> None:
    calls = []

    async def look(value: int, notes: Notes) -> str:
        calls.append(notes.mode)
        return f"{value} {notes.mode}"

    flujo = Flujo(Step(look, cache=True, reads=("mode",)), context_model=Notes)
    modes = [Notes(mode="fast"), Notes(mode="slow"), Notes(mode="fast", other="x"), Notes(mode="slow", log=["y"])]
    outputs = [(await flujo.run_async(1, context=notes)).output for notes in modes]
    assert outputs == ["1 fast", "1 slow", "1 fast", "1 slow"]
    assert calls == ["fast", "slow"]


async def test_a_failure_is_not_kept() -> None:
    calls = []

    async def flaky(value: int) -> int:
        calls.append(value)
        if len(calls) in (1, 2):
            raise OSError("down")
        return value

    flujo = Flujo(Step(flaky, cache=True))
    assert [(await flujo.run_async(1)).status for _ in range(4)] == ["failed", "failed", "completed", "completed"]
    assert len(calls) == 3


# --- what a hit brings back -------------------------------------------------------------------------------------------


async def test_a_hit_changes_the_context_as_the_step_did() -> None:
    calls = []

    async def write(value: int) -> Update[int]:
        calls.append(value)
        return Update(value + 1, log=[f"wrote {value}"])

    flujo = Flujo(Step(write, cache=True, writes="log"), context_model=Notes)
    results = [await flujo.run_async(1, context=Notes(log=[word])) for word in ("a", "b")]
    assert [r.output for r in results] == [2, 2]
    assert [r.context.log for r in results] == [["a", "wrote 1"], ["b", "wrote 1"]]  # type: ignore[attr-defined]
    assert calls == [1]


async def test_a_value_and_its_type_come_back() -> None:
    counted = Counted(lambda value: Question(text=value, tags=["x"]))

    async def ask(question: Question) -> str:
        return f"{type(question).__name__} {question.text} {question.tags}"

    flujo = Flujo(counted.step() >> Step(ask))
    assert [(await flujo.run_async("a")).output for _ in range(2)] == ["Question a ['x']"] * 2
    assert len(counted.calls) == 1


async def test_who_changes_what_he_got_does_not_change_what_is_kept() -> None:
    counted = Counted(lambda value: [value])

    async def spoil(items: list[int]) -> int:
        items.append(99)
        return len(items)

    flujo = Flujo(counted.step() >> Step(spoil))
    assert [(await flujo.run_async(1)).output for _ in range(3)] == [2, 2, 2]


async def test_nothing_is_a_value_that_is_kept() -> None:
    counted = Counted(lambda value: None)
    flujo = Flujo(counted.step())
    assert [(await flujo.run_async(1)).output for _ in range(2)] == [None, None]
    assert len(counted.calls) == 1


async def test_the_same_step_in_two_places_gives_right_values_in_both() -> None:
    counted = Counted(lambda value: value + 1)
    shared = counted.step()
    flujo = Flujo(Parallel(Pipeline(shared, name="a"), Pipeline(shared, name="b")))
    for _ in range(2):
        assert (await flujo.run_async(1)).output == {"a": 2, "b": 2}
    assert len(counted.calls) <= 2
