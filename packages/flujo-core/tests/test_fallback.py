"""`Fallback`: the next one is tried on a failure, and on nothing else; what it cost stays in the tally."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import anyio
import pytest
from stable_ids import shown

from flujo.core import (
    AbortPipeline,
    Allow,
    Branch,
    Deny,
    Fallback,
    Flujo,
    GuardDenied,
    GuardStep,
    Loop,
    Parallel,
    Pipeline,
    PipelineError,
    PostStepExecution,
    PreStepExecution,
    RetryPolicy,
    RunAborted,
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
async def upper(word: str) -> str:
    return word.upper()


@step
async def text(value: int) -> str:
    return f"<{value}>"


@step
async def fail(value: int) -> int:
    raise ValueError(f"no good: {value}")


def failing(name: str, calls: list[str] | None = None) -> Step:
    async def bad(value: int) -> int:
        if calls is not None:
            calls.append(name)
        raise ValueError(f"{name} failed")

    return Step(bad, name=name)


def paid(name: str, cost: str, *, good: bool) -> Step:
    async def pay(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd=cost) as lease:
            lease.settle(cost_usd=cost, input_tokens=100)
        if not good:
            raise OSError("the service is down")
        return value

    return Step(pay, name=name)


def problems_of(make: Any, **options: Any) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        compile_plan(make(), **options)
    return list(caught.value.problems)


# --- who is tried -----------------------------------------------------------------------------------------------------


async def test_the_first_that_succeeds_is_the_last_that_runs() -> None:
    calls: list[str] = []
    result = await Flujo(Fallback(double, failing("b", calls), failing("c", calls))).run_async(4)
    assert (result.output, calls) == (8, [])
    assert [(r.path, r.status) for r in result.step_history] == [("fallback/double", "completed")]


async def test_the_next_gets_the_same_input_when_one_fails() -> None:
    seen = []

    async def note(value: int) -> int:
        seen.append(value)
        return value

    result = await Flujo(double >> Fallback(failing("a"), failing("b"), Step(note)) >> negate).run_async(4)
    assert (result.status, result.output, result.error) == ("completed", -8, None)
    assert seen == [8]
    assert [(r.path, r.status) for r in result.step_history] == [
        ("double", "completed"), ("fallback/a", "failed"), ("fallback/b", "failed"), ("fallback/note", "completed"),
        ("negate", "completed"),
    ]  # fmt: skip


async def test_when_all_fail_the_last_failure_is_that_of_the_run() -> None:
    calls: list[str] = []
    result = await Flujo(Fallback(failing("a", calls), failing("b", calls), failing("c", calls)) >> double).run_async(4)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.step_path == "fallback/c"
    assert "c failed" in str(result.error)
    assert calls == ["a", "b", "c"]
    assert [r.status for r in result.step_history] == ["failed"] * 3


async def test_the_retries_of_one_come_before_the_next() -> None:
    calls: list[str] = []
    retried = Step(failing("a", calls), retry=RetryPolicy(max_attempts=3, backoff_s=0))
    result = await Flujo(Fallback(retried, double)).run_async(4)
    assert (result.output, calls) == (8, ["a", "a", "a"])
    assert [r.attempts for r in result.step_history] == [3, 1]


async def slow(value: int) -> int:
    await anyio.sleep_forever()
    return value


async def liar(value: int) -> int:
    return "text"  # type: ignore[return-value]


FAILURES: dict[str, Callable[[], Any]] = {
    "a timeout": lambda: Step(slow, timeout_s=0.01),
    "an output of another type": lambda: Step(liar),
    "a validator": lambda: Step(double, validators=(lambda output: "too even",)),
    "a loop that reaches its limit": lambda: Loop(double, until=lambda value: False, max_iterations=2),
    "no case": lambda: Branch(on=lambda value: "x", cases={"a": double}),
    "a fault of on": lambda: Branch(on=lambda value: [][0], cases={"a": double}),
    "a fault of when": lambda: Step(double, when=lambda value: [][0]),
    "a branch of several": lambda: Pipeline(
        Parallel(double, fail, name="par") >> Step(lambda both: 0, name="x"), name="p"
    ),
    "the middle of a chain": lambda: double >> fail >> text,
    "a fallback of which all failed": lambda: Fallback(failing("a"), failing("b"), name="inner"),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_every_kind_of_failure_leads_to_the_next(kind: str) -> None:
    result = await Flujo(Fallback(FAILURES[kind](), negate)).run_async(4)
    assert (result.status, result.output, result.error) == ("completed", -4, None)


# --- who is not -------------------------------------------------------------------------------------------------------


class Guard:
    @hookimpl
    def guard_step(self, payload: GuardStep) -> Any:
        return Deny("not this one") if payload.name == "double" else Allow()


async def test_a_denial_ends_the_run_and_the_next_is_not_tried() -> None:
    calls: list[str] = []
    result = await Flujo(Fallback(double, failing("b", calls)), plugins=[Guard()]).run_async(4)
    assert result.status == "aborted"
    assert isinstance(result.error, GuardDenied)
    assert calls == []


async def test_an_abort_ends_the_run_and_the_next_is_not_tried() -> None:
    calls: list[str] = []

    def before(event: PreStepExecution) -> None:
        raise AbortPipeline("enough")

    def afterwards(event: PostStepExecution) -> None:
        raise AbortPipeline("enough")

    for hook in (before, afterwards):
        result = await Flujo(Fallback(double, failing("b", calls)), hooks=[hook]).run_async(4)
        assert result.status == "aborted"
        assert isinstance(result.error, RunAborted)
        assert calls == []


async def test_a_breached_limit_of_the_run_stops_it_and_the_next_is_not_tried() -> None:
    calls: list[str] = []
    flow = Fallback(paid("a", "0.9", good=False), paid("b", "0.9", good=True), failing("c", calls))
    result = await Flujo(flow, limits=UsageLimits(1)).run_async(4)
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert calls == []
    assert result.total_cost_usd == Decimal("0.9")


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_a_cancelled_run_does_not_try_the_next(how: str) -> None:
    calls: list[str] = []
    began = anyio.Event()

    async def hangs(value: int) -> int:
        began.set()
        await anyio.sleep_forever()
        return value

    flujo = Flujo(Fallback(Step(hangs), failing("b", calls)))
    if how == "cancel":
        handle = flujo.start(1)
        await began.wait()
        handle.cancel("enough")
        result = await handle.wait()
    else:
        result = await flujo.run_async(1, deadline_s=0.02)
    assert result.status == "aborted"
    assert calls == []
    assert [(r.name, r.status) for r in result.step_history] == [("hangs", "cancelled")]


# --- what it costs ----------------------------------------------------------------------------------------------------


async def test_what_the_failed_one_cost_counts() -> None:
    flow = Fallback(paid("a", "0.2", good=False), paid("b", "0.3", good=True))
    result = await Flujo(flow, limits=UsageLimits(1)).run_async(4)
    assert result.output == 4
    assert result.total_cost_usd == Decimal("0.5")
    assert (result.usage.total_tokens, result.usage.requests) == (200, 2)
    assert [r.usage.cost_usd for r in result.step_history] == [Decimal("0.2"), Decimal("0.3")]


# --- alternatives of every kind ---------------------------------------------------------------------------------------


async def test_an_alternative_may_be_a_pipeline_a_chain_or_an_agent() -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    class Agent:
        name = "agent"

        async def run(self, value: int) -> int:
            raise OSError("away")

    sub = Pipeline(double, Step(add, inputs={"a": double, "b": run_input()}), name="sub")
    result = await Flujo(negate >> Fallback(Agent(), double >> fail, sub)).run_async(5)
    assert result.output == -15
    assert [r.path for r in result.step_history] == [
        "negate", "fallback/agent", "fallback/fail/double", "fallback/fail/fail",
        "fallback/sub/double", "fallback/sub/add",
    ]  # fmt: skip


async def test_fallbacks_of_one_pipeline_get_names_of_their_own() -> None:
    result = await Flujo(Fallback(failing("a"), double) >> Fallback(failing("a"), double)).run_async(1)
    assert result.output == 4
    assert [r.path for r in result.step_history] == [
        "fallback/a", "fallback/double", "fallback-2/a", "fallback-2/double",
    ]  # fmt: skip


# --- what cannot work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alternatives", "options", "words"),
    [
        ((), {}, "fallback"),
        ((double, Step(double)), {}, "'double'"),
        ((double, 3), {}, "int"),
        ((double, double.function), {}, "double"),
        ((double, negate), {"name": "a/b"}, "name"),
        ((double, negate), {"inputs": 3}, "input"),
    ],
    ids=shown,
)
def test_what_cannot_be_used_is_refused_before_anything_runs(alternatives: Any, options: Any, words: str) -> None:
    with pytest.raises(PipelineError) as caught:
        Flujo(Fallback(*alternatives, **options))
    assert words in str(caught.value).lower()


def test_an_alternative_that_does_not_fit_the_input_names_both_sides_and_both_types() -> None:
    [problem] = problems_of(lambda: double >> Fallback(negate, upper))
    for word in ("'fallback'", "int", "str"):
        assert word in problem


def test_what_any_alternative_gives_must_fit_the_step_after_it() -> None:
    [problem] = problems_of(lambda: Fallback(double, text) >> negate)
    for word in ("fallback", "str", "'value'", "'negate'", "int"):
        assert word in problem
    compile_plan(Fallback(double, text) >> Step(lambda value: value, name="any"))


def test_every_problem_of_every_alternative_is_told_at_once() -> None:
    def build() -> Any:
        bad = Pipeline(negate, Step(double, inputs={"value": "nowhere"}), output=negate, name="bad")
        return double >> Fallback(upper, bad, text) >> negate

    found = "\n".join(problems_of(build))
    for words in ("do not fit together", "unknown step 'nowhere'", "'negate'"):
        assert words in found
