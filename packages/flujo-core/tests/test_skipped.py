"""`when=`: a step that may be left out, what takes its place, and which types must allow it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from pydantic import BaseModel
from stable_ids import shown

from flujo.core import (
    Flujo,
    Map,
    Parallel,
    Pipeline,
    PipelineError,
    PreStepExecution,
    RetryPolicy,
    Step,
    StepFailed,
    Update,
    compile_plan,
    run_input,
    step,
)

pytestmark = pytest.mark.anyio


class Notes(BaseModel, frozen=True):
    mode: str = "fast"
    count: int = 0


@step
async def double(value: int) -> int:
    return 2 * value


@step
async def negate(value: int) -> int:
    return -value


@step
async def text(value: int) -> str:
    return f"<{value}>"


def large(value: int) -> bool:
    return value > 9


def problems_of(make: Any, **options: Any) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compile_plan(make(), **options)
    return list(caught.value.problems)


# --- in a chain -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "output", "status"), [(10, -20, "completed"), (9, -9, "skipped")])
async def test_a_step_that_is_left_out_passes_its_input_on(value: int, output: int, status: str) -> None:
    ran = []

    async def note(value: int) -> int:
        ran.append(value)
        return 2 * value

    result = await Flujo(Step(note, when=large) >> negate).run_async(value)
    assert (result.status, result.output) == ("completed", output)
    assert [(r.name, r.status) for r in result.step_history] == [("note", status), ("negate", "completed")]
    assert ran == ([value] if status == "completed" else [])


async def test_several_in_a_row_pass_the_same_value_on() -> None:
    never = [Step(double, name=f"s{n}", when=lambda value: False) for n in range(3)]
    result = await Flujo(double >> never[0] >> never[1] >> never[2] >> negate).run_async(1)
    assert result.output == -2
    assert [r.status for r in result.step_history] == ["completed", *["skipped"] * 3, "completed"]


async def test_a_record_of_a_skipped_step_says_that_nothing_was_done() -> None:
    told = []

    def before(event: PreStepExecution) -> None:
        told.append(event.name)

    result = await Flujo(Step(double, when=large) >> negate, hooks=[before]).run_async(1)
    record = result.step_history[0]
    assert (record.status, record.error, record.usage.requests) == ("skipped", None, 0)
    assert told == ["negate"]


async def test_when_may_be_async_and_may_look_at_the_context() -> None:
    async def slowly(value: int, notes: Notes) -> bool:
        await anyio.lowlevel.checkpoint()
        return notes.mode == "slow"

    flujo = Flujo(Step(double, when=slowly) >> negate, context_model=Notes)
    assert (await flujo.run_async(3)).output == -3
    assert (await flujo.run_async(3, context=Notes(mode="slow"))).output == -6


async def test_when_sees_the_context_as_the_steps_before_left_it() -> None:
    async def count(value: int, notes: Notes) -> Update[int]:
        return Update(value, count=notes.count + 1)

    first = Step(count, writes="count")
    second = Step(count, name="again", writes="count", when=lambda value, notes: notes.count == 0)
    result = await Flujo(first >> second, context_model=Notes).run_async(1)
    assert result.context == Notes(count=1)
    assert [r.status for r in result.step_history] == ["completed", "skipped"]


@pytest.mark.parametrize("late", [False, True], ids=["at once", "after a wait"])
async def test_a_fault_of_when_is_a_failure_of_its_step_which_does_not_run(late: bool) -> None:
    ran = []

    async def note(value: int) -> int:
        ran.append(value)
        return value

    def when(value: int) -> bool:
        raise KeyError(f"lost {value}")

    async def when_late(value: int) -> bool:
        await anyio.lowlevel.checkpoint()
        return when(value)

    result = await Flujo(double >> Step(note, when=when_late if late else when)).run_async(3)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert (result.error.step_path, result.error.error_type) == ("note", "KeyError")
    assert isinstance(result.error.__cause__, KeyError)
    assert ran == []


# --- on declared edges ------------------------------------------------------------------------------------------------


async def test_a_declared_edge_gets_none() -> None:
    maybe = Step(double, name="maybe", when=large)

    async def read(a: int | None, b: int) -> tuple[int | None, int]:
        return a, b

    flujo = Flujo(Pipeline(maybe, Step(read, inputs={"a": maybe, "b": run_input()})))
    assert (await flujo.run_async(10)).output == (20, 10)
    assert (await flujo.run_async(1)).output == (None, 1)


def test_the_type_of_a_declared_edge_must_allow_none() -> None:
    maybe = Step(double, name="maybe", when=large)
    [problem] = problems_of(lambda: Pipeline(maybe, Step(text, inputs={"value": maybe})))
    for word in ("'maybe'", "None", "'value'", "'text'", "int"):
        assert word in problem
    [problem] = problems_of(lambda: Pipeline(maybe, Step(text, inputs={"value": maybe.output})))
    assert "None" in problem


def test_what_a_skipped_step_passes_on_must_fit_the_next_too() -> None:
    shout = Step(lambda word: word.upper(), name="any")
    maybe = Step(text, name="maybe", when=large)

    @step
    async def upper(word: str) -> str:
        return word.upper()

    [problem] = problems_of(lambda: double >> maybe >> upper)
    for word in ("'maybe'", "int", "'word'", "'upper'", "str"):
        assert word in problem
    compile_plan(double >> maybe >> shout)


# --- several inputs ---------------------------------------------------------------------------------------------------


async def test_when_gets_the_one_input_or_a_dict_of_several() -> None:
    seen: list[object] = []

    def when(value: object) -> bool:
        seen.append(value)
        return True

    async def add(a: int | None, b: int) -> int:
        return (a or 0) + b

    one = Step(double, when=when)
    both = Step(add, inputs={"a": one, "b": run_input()}, when=when)
    result = await Flujo(Pipeline(one, both)).run_async(3)
    assert result.output == 9
    assert seen == [3, {"a": 6, "b": 3}]


# --- inside others ----------------------------------------------------------------------------------------------------


async def test_each_item_is_skipped_by_itself() -> None:
    result = await Flujo(Map(Step(double, when=large) >> negate)).run_async([1, 10, 2, 20])
    assert result.output == [-1, -20, -2, -40]
    status = {r.path: r.status for r in result.step_history if r.name == "double"}
    assert [status[f"map[{n}]/double"] for n in range(4)] == ["skipped", "completed"] * 2


async def test_a_skipped_branch_does_not_hold_up_the_others() -> None:
    maybe = Pipeline(Step(double, when=large) >> negate, name="maybe")
    result = await Flujo(Parallel(maybe, text)).run_async(1)
    assert result.output == {"maybe": -1, "text": "<1>"}


async def test_a_skipped_step_is_not_retried_and_not_validated() -> None:
    asked = []

    def check(output: int) -> str:
        asked.append(output)
        return "never good"

    careful = Step(double, when=large, validators=(check,), retry=RetryPolicy(max_attempts=3, backoff_s=0))
    result = await Flujo(careful >> negate).run_async(1)
    assert (result.output, asked) == (-1, [])


# --- what cannot work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [True, "large", 3, lambda: True, lambda a, b, c: True], ids=shown)
def test_what_cannot_be_asked_is_refused(when: Any) -> None:
    with pytest.raises(PipelineError, match="when"):
        Flujo(Step(double, when=when))
