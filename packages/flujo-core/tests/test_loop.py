"""`Loop`: what each iteration gets, when it ends, and what a limit, a fault or a cancel makes of it."""

from __future__ import annotations

import operator
from decimal import Decimal
from typing import Annotated, Any

import anyio
import pytest
from pydantic import BaseModel
from stable_ids import shown

from flujo.core import (
    Branch,
    Fallback,
    Flujo,
    FlujoError,
    Loop,
    LoopLimit,
    Parallel,
    Pipeline,
    PipelineError,
    RunContext,
    Snapshot,
    Step,
    StepFailed,
    Update,
    UsageLimitExceeded,
    UsageLimits,
    compile_plan,
    run_input,
    step,
)

pytestmark = pytest.mark.anyio


class Notes(BaseModel, frozen=True):
    count: int = 0
    log: Annotated[list[str], operator.add] = []


@step
async def plus(value: int) -> int:
    return value + 1


@step
async def double(value: int) -> int:
    return 2 * value


@step
async def text(value: int) -> str:
    return str(value)


@step
async def upper(word: str) -> str:
    return word.upper()


def at_least(bound: int) -> Any:
    return lambda value: value >= bound


def problems_of(make: Any, **options: Any) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compile_plan(make(), **options)
    return list(caught.value.problems)


# --- going round ------------------------------------------------------------------------------------------------------


async def test_each_iteration_gets_what_the_one_before_gave_until_it_is_enough() -> None:
    result = await Flujo(Loop(plus >> double, until=at_least(20))).run_async(1)
    assert result.output == 22
    assert [(r.path, r.output) for r in result.step_history] == [
        ("loop#1/plus", 2), ("loop#1/double", 4), ("loop#2/plus", 5), ("loop#2/double", 10),
        ("loop#3/plus", 11), ("loop#3/double", 22),
    ]  # fmt: skip


async def test_the_body_runs_once_even_where_it_was_enough_before() -> None:
    result = await Flujo(Loop(plus, until=at_least(0))).run_async(100)
    assert (result.output, len(result.step_history)) == (101, 1)


async def test_until_may_be_async() -> None:
    async def enough(value: int) -> bool:
        await anyio.lowlevel.checkpoint()
        return value == 3

    assert (await Flujo(Loop(plus, until=enough)).run_async(0)).output == 3


async def test_until_may_look_at_the_context_as_the_iteration_left_it() -> None:
    async def count(value: int, notes: Notes) -> Update[int]:
        return Update(value + 10, count=notes.count + 1, log=[f"{value}"])

    seen = []

    def enough(value: int, notes: Notes) -> bool:
        seen.append((value, notes.count))
        return notes.count == 3

    loop = Loop(Step(count, writes=("count", "log")), until=enough)
    result = await Flujo(loop, context_model=Notes).run_async(0)
    assert result.output == 30
    assert result.context == Notes(count=3, log=["0", "10", "20"])
    assert seen == [(10, 1), (20, 2), (30, 3)]


async def test_a_fixed_count_needs_no_until() -> None:
    result = await Flujo(Loop(plus, max_iterations=4, on_limit="return")).run_async(0)
    assert (result.status, result.output) == ("completed", 4)


@pytest.mark.parametrize("most", [1, 3])
async def test_the_limit_returns_the_last_output_where_it_is_told_to(most: int) -> None:
    result = await Flujo(Loop(plus, until=at_least(99), max_iterations=most, on_limit="return")).run_async(0)
    assert (result.status, result.output, len(result.step_history)) == ("completed", most, most)


@pytest.mark.parametrize(("options", "most"), [({}, 10), ({"max_iterations": 1}, 1), ({"max_iterations": 4}, 4)])
async def test_reaching_the_limit_is_a_failure_that_keeps_the_last_output(options: Any, most: int) -> None:
    result = await Flujo(Loop(plus, until=at_least(99), **options) >> double).run_async(0)
    assert result.status == "failed"
    assert isinstance(result.error, LoopLimit)
    assert isinstance(result.error, FlujoError)
    assert result.error.partial == most
    assert "'loop'" in str(result.error)
    assert str(most) in str(result.error)
    *done, last = result.step_history
    assert [record.output for record in done] == list(range(1, most + 1))
    assert (last.path, last.status, last.error) == ("loop", "failed", result.error)


@pytest.mark.parametrize("through", ["result", "json"])
async def test_a_loop_at_its_limit_is_asked_again_where_its_run_is_resumed(through: str) -> None:
    enough = [99]
    flujo = Flujo(Loop(plus, until=lambda value: value >= enough[0], max_iterations=3))
    failed = await flujo.run_async(0)
    target = failed if through == "result" else Snapshot.model_validate_json(failed.snapshot().model_dump_json())
    assert (await flujo.replay_async(target)).divergence is None
    enough[0] = 3
    done = await flujo.resume_async(target, retry=True)
    assert (done.output, [record.status for record in done.step_history]) == (3, ["completed"] * 3 + ["failed"])


async def test_enough_in_the_last_iteration_is_no_limit() -> None:
    result = await Flujo(Loop(plus, until=at_least(3), max_iterations=3)).run_async(0)
    assert (result.status, result.output) == ("completed", 3)


async def test_ten_thousand_iterations_run_without_recursion() -> None:
    def more(value: int) -> int:
        return value + 1

    loop = Loop(Step(more, inline=True), until=at_least(10_000), max_iterations=10_000)
    result = await Flujo(loop).run_async(0)
    assert (result.output, len(result.step_history)) == (10_000, 10_000)
    assert result.step_history[-1].path == "loop#10000/more"


# --- bodies -----------------------------------------------------------------------------------------------------------


async def test_run_input_in_a_pipeline_is_the_input_of_the_iteration_and_in_a_chain_that_of_the_run() -> None:
    async def add(value: int, first: int) -> int:
        return value + first

    graph = Pipeline(double, Step(add, inputs={"value": double, "first": run_input()}), name="graph")
    result = await Flujo(Loop(graph, max_iterations=3, on_limit="return")).run_async(1)
    assert result.output == 27, "each iteration gives three times what it got"
    chain = double >> Step(add, inputs={"first": run_input()})
    result = await Flujo(plus >> Loop(chain, max_iterations=3, on_limit="return")).run_async(1)
    assert result.output == 2 * (2 * (2 * 2 + 1) + 1) + 1


async def test_a_loop_in_a_loop_starts_afresh_each_time() -> None:
    inner = Loop(plus, max_iterations=2, on_limit="return", name="inner")
    result = await Flujo(Loop(inner, until=at_least(6), name="outer")).run_async(0)
    assert result.output == 6
    assert [r.path for r in result.step_history] == [
        f"outer#{o}/inner#{i}/plus" for o in (1, 2, 3) for i in (1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize("body", ["parallel", "loop", "fallback", "branch", "pipeline"])
async def test_a_body_that_begins_with_a_combinator_and_ends_with_a_step_is_run_each_time(body: str) -> None:
    begins = {
        "parallel": Parallel(plus, double),
        "loop": Loop(plus, None, 2, on_limit="return", name="inner"),
        "fallback": Fallback(plus, double),
        "branch": Branch(lambda value: 0, {0: plus}),
        "pipeline": Pipeline(plus, name="whole"),
    }[body]
    loop = Loop(begins >> Step(summed), None, 3, on_limit="return", name="outer")
    result = await Flujo(loop).run_async(1)
    wanted = 1
    for _ in range(3):
        wanted = {"parallel": 3 * wanted + 1, "loop": wanted + 2}.get(body, wanted + 1)
    assert (result.status, result.output) == ("completed", wanted)


async def summed(values: Any) -> int:
    return sum(values.values()) if isinstance(values, dict) else values


@pytest.mark.parametrize("enough", [True, False])
async def test_what_until_says_of_a_loop_that_was_closed_meanwhile_begins_nothing(enough: bool) -> None:
    """A sibling fails in the moment in which `until` has its answer: too late to cancel it."""
    answered, ran = anyio.Event(), list[str]()

    async def until(value: int) -> bool:
        await answered.wait()
        return enough

    async def body(value: int) -> int:
        ran.append("body")
        return value

    async def fails(value: int) -> int:
        await anyio.sleep(0.01)
        answered.set()
        raise ValueError("too bad")

    async def after(value: object) -> int:
        ran.append("after")
        return 0

    lost = Loop(Step(body), until, 3, name="lost") >> Step(after)
    result = await Flujo(Fallback(Parallel(lost, Step(fails)), plus)).run_async(1)
    assert (result.status, result.output, ran) == ("completed", 2, ["body"])
    replay = await Flujo(Fallback(Parallel(lost, Step(fails)), plus)).replay_async(result)
    assert replay.divergence is None


async def test_loops_of_one_pipeline_get_names_of_their_own() -> None:
    loops = [Loop(plus, max_iterations=1, on_limit="return") for _ in range(3)]
    result = await Flujo(loops[0] >> loops[1] >> loops[2]).run_async(0)
    assert [r.path for r in result.step_history] == ["loop#1/plus", "loop-2#1/plus", "loop-3#1/plus"]


async def test_a_step_has_a_key_of_its_own_in_each_iteration() -> None:
    keys = []

    async def note(value: int, ctx: RunContext) -> int:
        keys.append((ctx.step_path, ctx.idempotency_key))
        return value + 1

    await Flujo(Loop(Step(note), max_iterations=3, on_limit="return")).run_async(0)
    assert [path for path, _ in keys] == ["loop#1/note", "loop#2/note", "loop#3/note"]
    assert len({key for _, key in keys}) == 3


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_a_body_that_fails_fails_the_loop_whatever_until_would_say() -> None:
    async def fragile(value: int) -> int:
        if value == 2:
            raise ValueError("two is too much")
        return value + 1

    asked = []

    def enough(value: int) -> bool:
        asked.append(value)
        return False

    result = await Flujo(Loop(Step(fragile), until=enough) >> double).run_async(0)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert (result.error.step_path, result.error.error_type) == ("loop#3/fragile", "ValueError")
    assert asked == [1, 2]
    assert [r.status for r in result.step_history] == ["completed", "completed", "failed"]


@pytest.mark.parametrize("late", [False, True], ids=["at once", "after a wait"])
async def test_a_fault_of_until_fails_the_loop(late: bool) -> None:
    def until(value: int) -> bool:
        raise ZeroDivisionError(f"at {value}")

    async def until_late(value: int) -> bool:
        await anyio.lowlevel.checkpoint()
        return until(value)

    result = await Flujo(Loop(plus, until=until_late if late else until) >> double).run_async(0)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert (result.error.step_path, result.error.error_type) == ("loop", "ZeroDivisionError")
    assert isinstance(result.error.__cause__, ZeroDivisionError)
    assert [r.output for r in result.step_history if r.name == "plus"] == [1]


async def test_a_budget_ends_a_loop_before_the_iteration_that_does_not_fit() -> None:
    calls = []

    async def paid(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.1") as lease:
            calls.append(value)
            lease.settle(cost_usd="0.1")
        return value + 1

    result = await Flujo(Loop(Step(paid), until=at_least(9)), limits=UsageLimits("0.25")).run_async(0)
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert calls == [0, 1]
    assert result.total_cost_usd == Decimal("0.2")
    assert [r.status for r in result.step_history] == ["completed", "completed", "failed"]


# --- what cannot work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"until": None}, "on_limit"),
        ({"max_iterations": 3}, "on_limit"),
        ({"until": 3}, "until"),
        ({"until": "done"}, "until"),
        ({"until": lambda: True}, "until"),
        ({"until": lambda a, b, c: True}, "until"),
        *(({"until": bool, "max_iterations": n}, "max_iterations") for n in (0, -1, 10_001, True, 2.0, "3", None)),
        *(({"until": bool, "on_limit": word}, "on_limit") for word in ("stop", None, "FAIL", 1)),
        ({"until": bool, "name": "a/b"}, "name"),
        ({"until": bool, "name": 3}, "name"),
        ({"until": bool, "inputs": [double]}, "input"),
    ],
    ids=shown,
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_runs(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PipelineError) as caught:
        Flujo(Loop(plus, **options))
    assert words in str(caught.value)


@pytest.mark.parametrize("body", [None, 3, double.function, [double]], ids=lambda it: type(it).__name__)
def test_a_body_that_is_none_is_refused(body: Any) -> None:
    with pytest.raises(PipelineError):
        Flujo(Loop(body, until=bool))


def test_a_body_must_take_what_it_gives_and_both_ends_are_named_with_their_types() -> None:
    [problem] = problems_of(lambda: Loop(text, until=bool))
    for word in ("'loop'", "str", "int"):
        assert word in problem


def test_what_goes_into_a_loop_and_what_comes_out_must_fit_its_neighbours() -> None:
    [before] = problems_of(lambda: text >> Loop(plus, until=bool))
    for word in ("'text'", "str", "'loop'", "int"):
        assert word in before
    [after] = problems_of(lambda: Loop(plus, until=bool) >> upper)
    for word in ("loop", "int", "'word'", "'upper'", "str"):
        assert word in after


async def test_a_body_may_take_nothing_as_one_that_asks_until_something_has_happened() -> None:
    answers = [3, 2, 1]

    @step
    async def poll() -> int:
        return answers.pop()

    result = await Flujo(plus >> Loop(poll, until=at_least(2)) >> double).run_async(1)
    assert (result.output, answers) == (4, [3])


@pytest.mark.parametrize(("until", "value", "output"), [(bool, -1, 1), (range(5, 9).__contains__, 0, 5)])
async def test_until_may_be_a_function_of_python_itself(until: Any, value: int, output: int) -> None:
    assert (await Flujo(Loop(plus, until=until)).run_async(value)).output == output


def test_every_problem_of_loop_and_body_is_told_at_once() -> None:
    def build() -> Any:
        body = Pipeline(plus, plus, Step(double, inputs={"value": "nowhere"}), output=plus, name="body")
        return text >> Loop(body, until=bool) >> upper

    found = "\n".join(problems_of(build))
    for words in ("'plus'", "unknown step 'nowhere'", "'upper'"):
        assert words in found
