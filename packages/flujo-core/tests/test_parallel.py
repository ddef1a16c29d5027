"""`Parallel`: branches that run at the same time, how many at once, and what a failure in one does to the others."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from stable_ids import shown

from flujo.core import (
    Deny,
    Flujo,
    FlujoError,
    GuardDenied,
    GuardStep,
    Parallel,
    Pipeline,
    PipelineError,
    RunContext,
    Step,
    StepFailed,
    UsageLimitExceeded,
    UsageLimits,
    compile_plan,
    hookimpl,
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


class Gauge:
    """Steps that count how many of them run at once; each gives way to the others often."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self.order: list[str] = []

    def step(self, name: str) -> Step:
        async def work(value: int) -> str:
            self.now += 1
            self.peak = max(self.peak, self.now)
            self.order.append(name)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            self.now -= 1
            return name

        return Step(work, name=name)


def waiting(name: str, began: anyio.Event) -> Step:
    async def wait(value: int) -> int:
        began.set()
        await anyio.sleep_forever()
        return value

    return Step(wait, name=name)


def after(event: anyio.Event, name: str, error: Exception | None = None) -> Step:
    async def late(value: int) -> str:
        await event.wait()
        if error is not None:
            raise error
        return name

    return Step(late, name=name)


def problems_of(make: Any, **options: Any) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compile_plan(make(), **options)
    return list(caught.value.problems)


# --- side by side -----------------------------------------------------------------------------------------------------


async def test_each_branch_gets_the_same_input_and_gives_its_part_of_a_dict() -> None:
    result = await Flujo(double >> Parallel(negate, text)).run_async(4)
    assert result.output == {"negate": -8, "text": "<8>"}
    assert sorted(r.path for r in result.step_history) == ["double", "parallel/negate", "parallel/text"]


async def test_branches_run_at_the_same_time() -> None:
    one, other = anyio.Event(), anyio.Event()

    async def left(value: int) -> int:
        one.set()
        await other.wait()  # only passes while `right` is running too
        return value

    async def right(value: int) -> int:
        other.set()
        await one.wait()
        return value

    with anyio.fail_after(5):
        result = await Flujo(Parallel(Step(left), Step(right))).run_async(1)
    assert result.output == {"left": 1, "right": 1}


async def test_the_dict_is_in_declared_order_whoever_ends_first() -> None:
    first = anyio.Event()

    async def b(value: int) -> int:
        first.set()
        return value

    result = await Flujo(Parallel(after(first, "c"), after(first, "a"), Step(b))).run_async(1)
    assert list(result.unwrap().items()) == [("c", "c"), ("a", "a"), ("b", 1)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("limit", "peak"), [(1, 1), (2, 2), (3, 3), (5, 5), (6, 5), (1000, 5), (None, 5)])
async def test_no_more_branches_run_at_once_than_the_limit_says(limit: int | None, peak: int) -> None:
    gauge, names = Gauge(), [f"s{n}" for n in range(5)]
    result = await Flujo(Parallel(*map(gauge.step, names), limit=limit)).run_async(1)
    assert result.output == {name: name for name in names}
    assert gauge.peak == peak
    if limit == 1:
        assert gauge.order == names, "one at a time is in declared order"


async def test_a_limit_holds_for_each_run_by_itself_and_not_for_what_is_inside_a_branch() -> None:
    gauge = Gauge()
    inner = [Pipeline(gauge.step("x"), gauge.step("y"), name=f"p{n}") for n in range(3)]
    await Flujo(Parallel(*inner, limit=1)).run_async(1)
    assert gauge.peak == 2
    assert len(gauge.order) == 6


async def test_a_thousand_branches_run() -> None:
    result = await Flujo(Parallel(*(Step(double, name=f"s{n}") for n in range(1000)))).run_async(3)
    assert result.output == {f"s{n}": 6 for n in range(1000)}


# --- branches of every kind -------------------------------------------------------------------------------------------


async def test_a_branch_may_be_a_pipeline_whose_run_input_is_the_input_of_the_branch() -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    sub = Pipeline(double, Step(add, inputs={"a": double, "b": run_input()}), name="sub")
    result = await Flujo(negate >> Parallel(sub, double)).run_async(5)
    assert result.output == {"sub": -15, "double": -10}
    paths = sorted(r.path for r in result.step_history)
    assert paths == ["negate", "parallel/double", "parallel/sub/add", "parallel/sub/double"]


async def test_an_agent_is_a_branch_and_one_branch_alone_still_gives_a_dict() -> None:
    class Agent:
        name = "agent"

        async def run(self, value: int) -> int:
            return value + 1

    assert (await Flujo(Parallel(Agent())).run_async(1)).output == {"agent": 2}


async def test_a_parallel_in_a_parallel_is_a_dict_in_a_dict() -> None:
    inner = Parallel(double, negate, name="inner")
    result = await Flujo(Parallel(inner, double)).run_async(1)
    assert result.output == {"inner": {"double": 2, "negate": -1}, "double": 2}
    assert {"parallel/inner/double", "parallel/double"} <= {r.path for r in result.step_history}


async def test_a_part_of_its_output_is_an_input_of_others() -> None:
    par = Parallel(double, text)

    async def read(number: int, word: str, both: dict[str, Any]) -> tuple[int, str, int]:
        return number, word, len(both)

    reader = Step(read, inputs={"number": par.output.double, "word": par.output["text"], "both": par})
    assert (await Flujo(Pipeline(par, reader)).run_async(3)).output == (6, "<3>", 2)
    assert (await Flujo(Pipeline(par, output=par.output.text)).run_async(3)).output == "<3>"


# --- a failure in one -------------------------------------------------------------------------------------------------


async def test_a_failure_cancels_the_other_branches_and_fails_the_run() -> None:
    began, through = anyio.Event(), anyio.Event()

    async def quick(value: int) -> int:
        through.set()
        return value

    async def bad(value: int) -> int:
        await began.wait()
        await through.wait()
        raise ValueError("no good")

    branches = (waiting("slow", began), Step(bad), Step(quick))
    with anyio.fail_after(5):
        result = await Flujo(Parallel(*branches) >> Step(lambda value: value, name="never")).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.step_path == "parallel/bad"
    assert {r.name: r.status for r in result.step_history} == {
        "slow": "cancelled", "bad": "failed", "quick": "completed",
    }  # fmt: skip


async def test_branches_that_wait_for_their_turn_never_start_after_a_failure() -> None:
    gauge = Gauge()
    result = await Flujo(Parallel(gauge.step("a"), fail, gauge.step("b"), gauge.step("c"), limit=1)).run_async(1)
    assert result.status == "failed"
    assert gauge.order == ["a"]
    assert [(r.name, r.status) for r in result.step_history] == [("a", "completed"), ("fail", "failed")]


async def test_collect_lets_the_others_finish_and_gives_the_error_in_the_place_of_the_value() -> None:
    failed = anyio.Event()

    async def bad(value: int) -> int:
        failed.set()
        raise ValueError("no good")

    branches = (Step(bad), after(failed, "late"), double)
    result = await Flujo(Parallel(*branches, on_failure="collect")).run_async(2)
    assert result.status == "completed"
    output: Any = result.output
    assert list(output) == ["bad", "late", "double"]
    assert (output["late"], output["double"]) == ("late", 4)
    assert isinstance(output["bad"], StepFailed)
    assert (output["bad"].step_path, output["bad"].error_type) == ("parallel/bad", "ValueError")
    assert {r.name: r.status for r in result.step_history} == {
        "bad": "failed", "late": "completed", "double": "completed",
    }  # fmt: skip


@pytest.mark.parametrize("limit", [None, 1])
async def test_collect_of_nothing_but_failures_completes(limit: int | None) -> None:
    branches = [Step(fail, name=f"f{n}") for n in range(3)]
    result = await Flujo(Parallel(*branches, on_failure="collect", limit=limit)).run_async(2)
    output: Any = result.output
    assert list(output) == ["f0", "f1", "f2"]
    assert all(isinstance(error, FlujoError) for error in output.values())


async def test_collect_takes_the_failure_of_a_branch_as_a_whole() -> None:
    chain = Pipeline(double >> fail >> negate, name="chain")
    result = await Flujo(Parallel(chain, negate, on_failure="collect")).run_async(2)
    output: Any = result.output
    assert output["negate"] == -2
    assert output["chain"].step_path == "parallel/chain/fail"


class No:
    """Denies the step `double`."""

    @hookimpl
    def guard_step(self, payload: GuardStep) -> Any:
        from flujo.core import Allow

        return Deny("not this one") if payload.name == "double" else Allow()


async def test_a_denial_is_never_collected() -> None:
    began = anyio.Event()
    result = await Flujo(Parallel(waiting("slow", began), double, on_failure="collect"), plugins=[No()]).run_async(1)
    assert result.status == "aborted"
    assert isinstance(result.error, GuardDenied)
    assert {r.name: r.status for r in result.step_history}["double"] == "aborted"


async def test_a_breached_limit_of_the_run_is_never_collected() -> None:
    began = anyio.Event()

    async def greedy(value: int, ctx: RunContext) -> int:
        await began.wait()
        async with ctx.usage.reserve(cost_usd=2):
            return value

    flow = Parallel(waiting("slow", began), Step(greedy), on_failure="collect")
    with anyio.fail_after(5):
        result = await Flujo(flow, limits=UsageLimits(1)).run_async(1)
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert {r.name: r.status for r in result.step_history} == {"slow": "cancelled", "greedy": "failed"}


# --- what cannot work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("branches", "options", "words"),
    [
        ((), {}, "branch"),
        ((double, Step(double)), {}, "'double'"),
        ((double, Pipeline(negate, name="double")), {}, "'double'"),
        ((double, 3), {}, "int"),
        ((double, double.function), {}, "double"),
        *(((double, negate), {"limit": n}, "limit") for n in (0, -1, True, 2.0, "2")),
        *(((double, negate), {"on_failure": w}, "on_failure") for w in ("ignore", None, "CANCEL", 1)),
        ((double, negate), {"name": "a/b"}, "name"),
        ((double, negate), {"inputs": 3}, "input"),
    ],
    ids=shown,
)
def test_what_cannot_be_used_is_refused_before_anything_runs(branches: Any, options: Any, words: str) -> None:
    with pytest.raises(PipelineError) as caught:
        Flujo(Parallel(*branches, **options))
    assert words in str(caught.value)


def test_a_branch_that_does_not_fit_the_input_names_both_sides_and_both_types() -> None:
    [problem] = problems_of(lambda: double >> Parallel(negate, upper))
    for word in ("'parallel'", "int", "str"):
        assert word in problem


def test_branches_that_want_different_run_inputs_are_refused() -> None:
    [problem] = problems_of(lambda: Parallel(negate, upper))
    for word in ("'parallel'", "int", "str"):
        assert word in problem


def test_it_gives_a_dict_and_what_follows_must_take_one() -> None:
    [problem] = problems_of(lambda: Parallel(double, negate) >> text)
    for word in ("'parallel'", "'value'", "'text'", "int"):
        assert word in problem


def test_a_part_that_is_not_there_or_of_another_type_is_named() -> None:
    par = Parallel(double, negate)
    [problem] = problems_of(lambda: Pipeline(par, Step(text, inputs={"value": par.output.doubel})))
    assert "doubel" in problem
    assert "double" in problem
    [problem] = problems_of(lambda: Pipeline(par, Step(upper, inputs={"word": par.output.double})))
    for word in ("double", "int", "'word'", "'upper'", "str"):
        assert word in problem


def test_what_may_be_an_error_is_not_taken_for_a_value() -> None:
    par = Parallel(double, negate, on_failure="collect")
    [problem] = problems_of(lambda: Pipeline(par, Step(text, inputs={"value": par.output.double})))
    for word in ("FlujoError", "'value'", "'text'", "int"):
        assert word in problem


def test_every_problem_of_every_branch_is_told_at_once() -> None:
    def build() -> Any:
        bad = Pipeline(negate, Step(double, inputs={"value": "nowhere"}), name="bad")
        return double >> Parallel(upper, bad, Step(text, name="text") >> negate, limit=2) >> text

    found = "\n".join(problems_of(build))
    for words in ("do not fit together", "unknown step 'nowhere'", "'text' gives str", "input 'value' of step 'text'"):
        assert words in found
