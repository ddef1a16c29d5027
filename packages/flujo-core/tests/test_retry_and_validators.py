"""Attempts of a step: how long it waits between them, what a service asks for, and what validators say to the next."""

from __future__ import annotations

import datetime
import email.utils
from decimal import Decimal
from typing import Any

import anyio
import httpx
import pytest
from pydantic import BaseModel
from stable_ids import shown

from flujo.core import (
    Allow,
    Deny,
    Flujo,
    GuardDenied,
    GuardStep,
    Loop,
    Map,
    OnRetry,
    PipelineError,
    RetryPolicy,
    RunContext,
    Step,
    StepFailed,
    StepTimeout,
    UsageLimitExceeded,
    UsageLimits,
    hookimpl,
    step,
)

pytestmark = pytest.mark.anyio


class Notes(BaseModel, frozen=True):
    least: int = 10


@step
async def double(value: int) -> int:
    return 2 * value


class Told:
    """Listens to retries."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.errors: list[str] = []

    def __call__(self, event: OnRetry) -> None:
        self.waits.append(event.delay_s)
        self.errors.append(event.error_type)


def flaky(*errors: Exception, **options: Any) -> Step:
    """Raises one error after the other, then succeeds."""

    async def work(value: int, ctx: RunContext) -> int:
        if ctx.attempt <= len(errors):
            raise errors[ctx.attempt - 1]
        return value

    return Step(work, **options)


def busy(retry_after: str | None, code: int = 429) -> httpx.HTTPStatusError:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    request = httpx.Request("GET", "http://localhost")
    return httpx.HTTPStatusError("busy", request=request, response=httpx.Response(code, headers=headers))


class Busy(Exception):
    def __init__(self, retry_after_s: Any) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("busy")


async def waits_of(*errors: Exception, **policy: Any) -> list[float]:
    told = Told()
    retry = RetryPolicy(**{"max_attempts": len(errors) + 1, "jitter": 0, **policy})
    result = await Flujo(flaky(*errors, retry=retry), hooks=[told]).run_async(1)
    assert result.status == "completed", result.error
    return told.waits


# --- how long ---------------------------------------------------------------------------------------------------------


async def test_waits_grow_by_the_factor_up_to_the_longest() -> None:
    errors = [OSError("x")] * 4
    waits = await waits_of(*errors, backoff_s=0.01, factor=2, max_backoff_s=0.03)
    assert waits == pytest.approx([0.01, 0.02, 0.03, 0.03])


async def test_jitter_shortens_waits_and_differs_between_attempts() -> None:
    waits = await waits_of(*[OSError("x")] * 10, backoff_s=0.01, factor=1, jitter=0.5)
    assert all(0.005 <= wait <= 0.01 for wait in waits)
    assert len(set(waits)) > 1


async def test_the_wait_that_was_told_is_really_waited() -> None:
    told = Told()
    retry = RetryPolicy(max_attempts=2, backoff_s=0.05, jitter=0)
    started = anyio.current_time()
    await Flujo(flaky(OSError("x"), retry=retry), hooks=[told]).run_async(1)
    assert anyio.current_time() - started >= 0.05
    assert told.waits == [0.05]


async def test_items_wait_for_their_own_attempts_only() -> None:
    ends = []

    async def work(value: int, ctx: RunContext) -> int:
        if value == 0 and ctx.attempt == 1:
            raise OSError("x")
        ends.append(value)
        return value

    retry = RetryPolicy(max_attempts=2, backoff_s=0.05, jitter=0)
    await Flujo(Map(Step(work, retry=retry))).run_async([0, 1, 2])
    assert ends[-1] == 0


# --- what the service asks for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 503])
async def test_retry_after_in_seconds_is_waited(code: int) -> None:
    [wait] = await waits_of(busy("1", code), backoff_s=0.001)
    assert wait == pytest.approx(1, abs=0.01)


async def test_retry_after_as_a_date_is_waited() -> None:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    [wait] = await waits_of(busy(email.utils.format_datetime(at, usegmt=True)), backoff_s=0.001)
    assert 0.5 <= wait <= 2.1, "a date has whole seconds"


async def test_an_error_may_say_itself_how_long() -> None:
    assert await waits_of(Busy(0.03), Busy(0), backoff_s=0.001) == pytest.approx([0.03, 0.002])


async def test_retry_after_is_the_least_and_a_longer_wait_of_the_policy_stays() -> None:
    assert await waits_of(Busy(0.001), backoff_s=0.02) == pytest.approx([0.02])


@pytest.mark.parametrize("text", ["soon", "", "-5", "nan", "1e999", "inf", "Wed, 99 Foo 2026 00:00:00 GMT", None])
async def test_a_retry_after_that_says_nothing_is_passed_over(text: str | None) -> None:
    assert await waits_of(busy(text), backoff_s=0.002) == pytest.approx([0.002])


async def test_a_date_in_the_past_is_no_wait_of_its_own() -> None:
    assert await waits_of(busy("Wed, 21 Oct 2015 07:28:00 GMT"), backoff_s=0.002) == pytest.approx([0.002])


@pytest.mark.parametrize("value", ["soon", None, -1, float("nan"), float("inf"), [1], object()], ids=shown)
async def test_an_attribute_that_says_nothing_is_passed_over(value: Any) -> None:
    assert await waits_of(Busy(value), backoff_s=0.002) == pytest.approx([0.002])


async def test_an_odd_response_does_not_hide_the_error() -> None:
    class Odd(Exception):
        response: Any = None

    for response in (None, 3, object(), type("R", (), {"headers": None})(), type("R", (), {"headers": 3})()):
        error = Odd("odd")
        error.response = response
        assert await waits_of(error, backoff_s=0.002) == pytest.approx([0.002])


async def test_a_wait_beyond_the_deadline_of_the_run_is_not_waited() -> None:
    step_ = flaky(Busy(3600), retry=RetryPolicy(max_attempts=2, max_backoff_s=7200))
    with anyio.fail_after(5):
        result = await Flujo(step_).run_async(1, deadline_s=0.05)
    assert result.status == "failed", "it is not even begun"
    assert isinstance(result.error.__cause__ if result.error else None, Busy)


# --- which errors -----------------------------------------------------------------------------------------------------


async def test_decisions_are_never_tried_again() -> None:
    class Guard:
        @hookimpl
        def guard_step(self, payload: GuardStep) -> Any:
            calls.append(payload.attempt)
            return Deny("no") if payload.attempt == 1 else Allow()

    calls: list[int] = []
    retry = RetryPolicy(max_attempts=3, backoff_s=0)
    result = await Flujo(Step(double, retry=retry), plugins=[Guard()]).run_async(1)
    assert (result.status, type(result.error), calls) == ("aborted", GuardDenied, [1])

    async def greedy(value: int, ctx: RunContext) -> int:
        calls.append(ctx.attempt)
        async with ctx.usage.reserve(cost_usd=2):
            return value

    calls.clear()
    result = await Flujo(Step(greedy, retry=retry), limits=UsageLimits(1)).run_async(1)
    assert (result.status, type(result.error), calls) == ("stopped", UsageLimitExceeded, [1])


async def test_each_attempt_has_its_own_time() -> None:
    calls = []

    async def slow(value: int, ctx: RunContext) -> int:
        calls.append(ctx.attempt)
        if ctx.attempt < 3:
            await anyio.sleep_forever()
        return value

    told = Told()
    retry = RetryPolicy(max_attempts=3, backoff_s=0, retry_on=(StepTimeout, TimeoutError))
    result = await Flujo(Step(slow, timeout_s=0.02, retry=retry), hooks=[told]).run_async(1)
    assert (result.output, calls, told.errors) == (1, [1, 2, 3], ["StepTimeout"] * 2)


@pytest.mark.parametrize("kind", [TimeoutError, OSError, StepTimeout, StepFailed])
async def test_an_attempt_whose_time_was_up_ended_with_a_timeout_error(kind: type[Exception]) -> None:
    seen: list[int] = []

    @step(timeout_s=0.05, retry=RetryPolicy(max_attempts=2, backoff_s=0, retry_on=(kind,)))
    async def slow_at_first(value: int, ctx: RunContext) -> int:
        seen.append(ctx.attempt)
        if ctx.attempt == 1:
            await anyio.sleep(60)
        return value

    result = await Flujo(slow_at_first).run_async(7)
    assert result.output == 7
    assert seen == [1, 2]


async def test_what_failed_attempts_cost_counts() -> None:
    async def paid(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.2") as lease:
            lease.settle(cost_usd="0.2")
        raise OSError("down")

    retry = RetryPolicy(max_attempts=3, backoff_s=0)
    result = await Flujo(Step(paid, retry=retry), limits=UsageLimits(1)).run_async(1)
    assert (result.status, result.total_cost_usd, result.usage.requests) == ("failed", Decimal("0.6"), 3)
    assert result.step_history[0].usage.cost_usd == Decimal("0.6")


# --- validators -------------------------------------------------------------------------------------------------------


def growing(seen: list[tuple[str, ...]], **options: Any) -> Step:
    """Gives 1 at the first attempt, 2 at the second, and notes the feedback of each."""

    async def write(value: int, ctx: RunContext) -> int:
        seen.append(ctx.feedback)
        return ctx.attempt

    return Step(write, **options)


async def later(output: int) -> str | None:
    await anyio.lowlevel.checkpoint()
    return None if output >= 3 else f"{output} is too small, later"


def at_least_three(output: int) -> str | None:
    return None if output >= 3 else f"{output} is too small"


def truth(output: int) -> bool:
    return output >= 3


def with_context(output: int, notes: Notes) -> str | None:
    return None if output >= notes.least else f"{output} is below {notes.least}"


@pytest.mark.parametrize(
    ("check", "texts"),
    [
        (at_least_three, ["1 is too small", "2 is too small"]),
        (later, ["1 is too small, later", "2 is too small, later"]),
        (with_context, ["1 is below 3", "2 is below 3"]),
    ],
)
async def test_the_feedback_of_a_validator_reaches_the_next_attempt(check: Any, texts: list[str]) -> None:
    seen: list[tuple[str, ...]] = []
    told = Told()
    writer = growing(seen, validators=(check,), retry=RetryPolicy(max_attempts=3, backoff_s=0))
    result = await Flujo(writer, hooks=[told], context_model=Notes).run_async(1, context=Notes(least=3))
    assert (result.status, result.output) == ("completed", 3)
    assert seen[:2] == [(), (texts[0],)]
    assert texts[1] in seen[2]
    assert len(told.errors) == 2
    assert result.step_history[0].attempts == 3


async def test_a_no_without_words_is_a_bad_output_too() -> None:
    seen: list[tuple[str, ...]] = []
    retry = RetryPolicy(max_attempts=3, backoff_s=0)
    result = await Flujo(growing(seen, validators=(truth,), retry=retry)).run_async(1)
    assert result.output == 3
    assert len(seen) == 3
    assert seen[0] == ()
    assert all(feedback and all(feedback) for feedback in seen[1:])


async def test_the_feedback_of_all_validators_is_given_in_their_order() -> None:
    seen: list[tuple[str, ...]] = []
    checks = (at_least_three, lambda output: None, lambda output: output > 1 or "one is odd", later)
    retry = RetryPolicy(max_attempts=3, backoff_s=0)
    result = await Flujo(growing(seen, validators=checks, retry=retry)).run_async(1)
    assert result.output == 3
    assert seen[1] == ("1 is too small", "one is odd", "1 is too small, later")


async def test_the_last_bad_output_is_a_failure_with_the_feedback_in_its_text() -> None:
    seen: list[tuple[str, ...]] = []
    for retry, most in ((None, 1), (RetryPolicy(max_attempts=2, backoff_s=0), 2)):
        result = await Flujo(growing(seen, validators=(at_least_three,), retry=retry) >> double).run_async(1)
        assert result.status == "failed"
        assert isinstance(result.error, StepFailed)
        assert (result.error.error_type, result.error.step_path) == ("ValidationFailed", "write")
        assert f"{most} is too small" in str(result.error)
        assert [(r.name, r.status, r.attempts) for r in result.step_history] == [("write", "failed", most)]


@pytest.mark.parametrize("late", [False, True], ids=["at once", "after a wait"])
async def test_a_fault_of_a_validator_is_a_failure_of_the_step(late: bool) -> None:
    def check(output: int) -> None:
        raise ZeroDivisionError(f"cannot judge {output}")

    async def check_late(output: int) -> None:
        await anyio.lowlevel.checkpoint()
        check(output)

    result = await Flujo(Step(double, validators=(check_late if late else check,))).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)
    assert result.error.step_path == "double"
    assert "ZeroDivisionError" in str(result.error)
    assert "cannot judge 2" in str(result.error)


@pytest.mark.parametrize("answer", [0, 1, [], ["bad"], 3.5, object()], ids=lambda it: type(it).__name__)
async def test_an_answer_that_is_none_of_the_answers_is_not_taken_for_a_yes(answer: Any) -> None:
    result = await Flujo(Step(double, validators=(lambda output: answer,))).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)


@pytest.mark.parametrize("answer", [None, True])
async def test_nothing_and_true_are_a_yes(answer: Any) -> None:
    assert (await Flujo(Step(double, validators=(lambda output: answer,))).run_async(1)).output == 2


async def test_feedback_does_not_reach_another_visit_of_the_step() -> None:
    seen: list[tuple[str, ...]] = []
    retry = RetryPolicy(max_attempts=2, backoff_s=0)
    checked = growing(seen, validators=(lambda output: output == 2 or "not yet",), retry=retry)
    result = await Flujo(Loop(checked, max_iterations=2, on_limit="return")).run_async(1)
    assert result.status == "completed"
    assert seen == [(), ("not yet",), (), ("not yet",)]


@pytest.mark.parametrize(
    "validators", [3, "check", (3,), ("check",), (lambda: None,), (lambda a, b, c: None,)], ids=shown
)
def test_what_cannot_check_is_refused(validators: Any) -> None:
    with pytest.raises(PipelineError, match="validator"):
        Flujo(Step(double, validators=validators))
