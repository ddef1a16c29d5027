"""Corners of combinators: inputs by name, questions that hang or exit, waits that are cut short, many runs at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

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
    RunAborted,
    Step,
    StepFailed,
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


async def total(parts: dict[str, int]) -> int:
    return sum(parts.values())


FLOWS: dict[str, Callable[..., Any]] = {
    "branch": lambda body, **options: Branch(on=lambda value: 1, cases={1: body}, **options),
    "loop": lambda body, **options: Loop(body, max_iterations=1, on_limit="return", **options),
    "fallback": lambda body, **options: Fallback(body, Step(body, name="other"), **options),
}


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FLOWS)
async def test_the_input_of_a_combinator_may_be_declared_as_one_or_as_several_by_name(kind: str) -> None:
    flow = FLOWS[kind](Step(double, name="d"), inputs=negate)
    assert (await Flujo(Pipeline(double, negate, flow, output=flow)).run_async(3)).output == -6
    if kind != "loop":  # a loop must take what it gives
        flow = FLOWS[kind](Step(total), inputs={"a": double, "b": negate, "c": run_input()})
        assert (await Flujo(Pipeline(double, negate, flow)).run_async(3)).output == 6


async def test_a_parallel_and_a_map_take_declared_inputs_too() -> None:
    par = Parallel(Step(total), inputs={"a": double, "b": run_input()})
    assert (await Flujo(Pipeline(double, par)).run_async(3)).output == {"total": 9}

    async def twins(value: int) -> dict[str, list[int]]:
        return {"items": [value, value]}

    source = Step(twins)
    each = Map(double, inputs=source.output["items"])
    assert (await Flujo(Pipeline(source, each)).run_async(3)).output == [6, 6]


@pytest.mark.parametrize("kind", FLOWS)
def test_an_unknown_source_of_a_combinator_is_named(kind: str) -> None:
    with pytest.raises(PipelineError, match=r"'doubel'.*did you mean 'double'"):
        Flujo(Pipeline(double, FLOWS[kind](negate, inputs="doubel")))


def test_combinators_that_wait_for_each_other_are_a_circle() -> None:
    one = Loop(double, max_iterations=1, on_limit="return", name="one", inputs="two")
    two = Fallback(double, negate, name="two", inputs=one)
    with pytest.raises(PipelineError, match="circle"):
        Flujo(Pipeline(one, two))


async def test_one_combinator_may_stand_in_two_pipelines_at_once() -> None:
    shared = Loop(double, max_iterations=2, on_limit="return", name="shared")
    flow = Parallel(Pipeline(shared >> negate, name="a"), Pipeline(negate >> shared, name="b"))
    result = await Flujo(flow).run_async(1)
    assert result.output == {"a": -4, "b": -4}
    assert len({r.path for r in result.step_history}) == 6


# --- questions --------------------------------------------------------------------------------------------------------


def asking(kind: str, question: Any) -> Any:
    if kind == "on":
        return Branch(on=question, cases={True: negate})
    if kind == "until":
        return Loop(negate, until=question)
    if kind == "when":
        return Step(negate, when=question)
    return Step(negate, validators=(question,))


QUESTIONS = ["on", "until", "when", "validators"]


@pytest.mark.parametrize("kind", QUESTIONS)
async def test_a_question_that_exits_has_failed_and_ends_nothing_else(kind: str) -> None:
    def leave(value: int) -> bool:
        sys.exit(3)

    result = await Flujo(double >> asking(kind, leave)).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert "sys.exit(3)" in str(result.error)


@pytest.mark.parametrize("how", ["deadline", "cancel", "outside"])
@pytest.mark.parametrize("kind", QUESTIONS)
async def test_a_question_that_hangs_is_ended_with_its_run(kind: str, how: str) -> None:
    asked, ended = anyio.Event(), []

    async def hang(value: int) -> bool:
        asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(value)
        return True

    flujo = Flujo(double >> asking(kind, hang))
    with anyio.fail_after(5):
        if how == "deadline":
            result = await flujo.run_async(1, deadline_s=0.05)
        elif how == "cancel":
            handle = flujo.start(1)
            await asked.wait()
            handle.cancel()
            result = await handle.wait()
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(flujo.run_async, 1)
                await asked.wait()
                group.cancel_scope.cancel()
    assert len(ended) == 1
    if how != "outside":
        assert result.status == "aborted"
        assert isinstance(result.error, RunAborted)


@pytest.mark.parametrize("kind", QUESTIONS)
async def test_a_failure_beside_it_cancels_a_question_that_hangs(kind: str) -> None:
    asked = anyio.Event()

    async def hang(value: int) -> bool:
        asked.set()
        await anyio.sleep_forever()
        return True

    async def bad(value: int) -> int:
        await asked.wait()
        raise ValueError("no good")

    with anyio.fail_after(5):
        result = await Flujo(Parallel(Pipeline(asking(kind, hang), name="slow"), Step(bad))).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.step_path == "parallel/bad"


@pytest.mark.parametrize("kind", QUESTIONS)
async def test_a_plain_function_that_makes_a_coroutine_is_awaited(kind: str) -> None:
    async def yes(value: int) -> bool:
        await anyio.lowlevel.checkpoint()
        return True

    result = await Flujo(double >> asking(kind, lambda value: yes(value))).run_async(1)
    assert (result.status, result.output) == ("completed", -2)


# --- waits ------------------------------------------------------------------------------------------------------------


async def test_a_failure_beside_it_cuts_a_wait_between_attempts_short() -> None:
    failed = anyio.Event()

    async def flaky(value: int) -> int:
        failed.set()
        raise OSError("down")

    async def bad(value: int) -> int:
        await failed.wait()
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        raise ValueError("no good")

    retry = RetryPolicy(max_attempts=2, backoff_s=3600, max_backoff_s=3600, jitter=0)
    with anyio.fail_after(5):
        result = await Flujo(Parallel(Step(flaky, retry=retry), Step(bad))).run_async(1)
    assert {r.name: (r.status, r.attempts) for r in result.step_history} == {
        "flaky": ("cancelled", 1),
        "bad": ("failed", 1),
    }


async def test_sync_steps_in_a_map_run_in_threads_at_the_same_time_up_to_the_limit() -> None:
    barrier = threading.Barrier(4, timeout=5)

    def meet(value: int) -> int:
        barrier.wait()  # only passes while three others are in it
        return value

    assert (await Flujo(Map(Step(meet), limit=4)).run_async(list(range(12)))).output == list(range(12))


# --- many runs --------------------------------------------------------------------------------------------------------


async def test_many_runs_of_one_nested_flujo_do_not_mix() -> None:
    async def odd(value: int) -> int:
        await anyio.lowlevel.checkpoint()
        if value % 2:
            raise ValueError("odd")
        return value

    grow = Loop(double, until=lambda value: value >= 50 or value == 0, name="grow")
    body = Fallback(Step(odd) >> grow, negate)
    flujo = Flujo(
        Map(body, limit=2) >> Parallel(Step(lambda v: sum(v), name="sum"), Step(lambda v: len(v), name="len"))
    )
    outputs: dict[int, object] = {}

    def expected(value: int) -> int:
        if value % 2:
            return -value
        while True:
            value *= 2
            if value >= 50 or value == 0:
                return value

    async def one(start: int) -> None:
        outputs[start] = (await flujo.run_async(list(range(start, start + 5)))).output

    async with anyio.create_task_group() as group:
        for start in range(60):
            group.start_soon(one, start)
    for start, output in outputs.items():
        assert output == {"sum": sum(map(expected, range(start, start + 5))), "len": 5}


class Fickle:
    """Has its label when it is looked at for the first time only."""

    def __init__(self) -> None:
        self.looks = 0

    @property
    def label(self) -> int:
        self.looks += 1
        if self.looks > 1:
            raise ValueError("no label any more")
        return 1


@pytest.mark.parametrize("kind", ["step", "retried", "asked when", "branch", "loop", "parallel", "sub-pipeline"])
async def test_a_part_of_an_output_that_raises_when_it_is_taken_is_a_failure(kind: str) -> None:
    async def make(value: int):  # type: ignore[no-untyped-def]
        return Fickle()

    made = Step(make)
    label: Any = made.output.label
    retry = RetryPolicy(max_attempts=2, backoff_s=0)
    node: Any = {
        "step": lambda: Step(double, inputs={"value": label}),
        "retried": lambda: Step(double, inputs={"value": label}, retry=retry),
        "asked when": lambda: Step(double, inputs={"value": label}, when=lambda value: True),
        "branch": lambda: Branch(on=lambda value: 1, cases={1: double}, inputs=label),
        "loop": lambda: Loop(double, until=lambda value: True, inputs=label),
        "parallel": lambda: Parallel(double, negate, inputs=label),
        "sub-pipeline": lambda: Pipeline(double, name="inner", inputs=label),
    }[kind]()
    result = await Flujo(Pipeline(made, node)).run_async(3)
    assert result.status == "failed"
    assert "no label any more" in str(result.error)
    assert result.error.step_path == node.name  # type: ignore[union-attr]
    assert result.step_history[0].status == "completed"


class Array:
    """As arrays of numpy are: neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


@pytest.mark.parametrize("awaited", [True, False])
@pytest.mark.parametrize("kind", ["until", "when"])
async def test_an_answer_that_is_neither_true_nor_false_is_a_failure_that_names_the_question(
    kind: str, awaited: bool
) -> None:
    good = [True]

    async def later(value: int) -> object:
        return True if good[0] else Array()

    def now(value: int) -> object:
        return True if good[0] else Array()

    asked = later if awaited else now
    node = Loop(double, until=asked) if kind == "until" else Step(double, when=asked)
    flujo = Flujo(node)
    fine = await flujo.run_async(3)
    good[0] = False
    result = await flujo.run_async(3)
    assert (fine.output, result.status) == (6, "failed")
    assert f"Mend `{kind}=` of {node.name!r}" in str(result.error)
    divergence = (await flujo.replay_async(fine)).divergence
    assert (divergence is None) == (kind == "when")  # a replay asks no step whether it is wanted
