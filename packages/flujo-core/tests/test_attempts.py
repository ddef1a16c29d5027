"""What one attempt leaves to the next, to observers and to the cache."""

from __future__ import annotations

import threading
from decimal import Decimal

import anyio
import pytest

from flujo.core import (
    AbortPipeline,
    Fallback,
    Flujo,
    ModelRequest,
    ModelResponse,
    OnRetry,
    Parallel,
    Price,
    RetryPolicy,
    RunContext,
    Step,
    StepTimeout,
    WorkerLost,
    backends,
    step,
)
from flujo.core.testing import FaultInjector

pytestmark = pytest.mark.anyio

TWICE = RetryPolicy(max_attempts=2, backoff_s=0)


@step
async def upper(word: str) -> str:
    return word.upper()


async def test_feedback_is_that_of_the_attempt_before() -> None:
    seen = []

    async def write(value: int, ctx: RunContext) -> int:
        seen.append(ctx.feedback)
        return ctx.attempt

    check = (lambda output: output >= 3 or f"{output} is too small",)
    retry = RetryPolicy(max_attempts=3, backoff_s=0)
    assert (await Flujo(Step(write, validators=check, retry=retry)).run_async(1)).output == 3
    assert seen == [(), ("1 is too small",), ("2 is too small",)]


async def test_a_retry_after_a_validator_is_told_as_such() -> None:
    told = []

    def on_retry(event: OnRetry) -> None:
        told.append(event.error_type)

    async def write(value: int, ctx: RunContext) -> int:
        return ctx.attempt

    flow = Step(write, validators=(lambda output: output == 2,), retry=TWICE)
    assert (await Flujo(flow, hooks=[on_retry]).run_async(1)).output == 2
    assert told == ["ValidationFailed"]


async def test_a_no_without_words_names_its_check() -> None:
    seen = []

    async def write(value: int, ctx: RunContext) -> int:
        seen.append(ctx.feedback)
        return ctx.attempt

    def is_even(output: int) -> bool:
        return output % 2 == 0

    await Flujo(Step(write, validators=(is_even,), retry=TWICE)).run_async(1)
    assert "is_even" in seen[1][0]


async def test_an_output_that_a_validator_refused_is_not_kept() -> None:
    calls = []

    async def work(value: int) -> int:
        calls.append(value)
        return len(calls)

    flujo = Flujo(Step(work, cache=True, retry=TWICE, validators=(lambda output: output >= 2 or "too small",)))
    assert [(await flujo.run_async(1)).output for _ in range(2)] == [2, 2]
    assert len(calls) == 2


async def test_bytes_hit() -> None:
    calls = []

    async def size(data: bytes) -> int:
        calls.append(data)
        return len(data)

    flujo = Flujo(Step(size, cache=True))
    assert [(await flujo.run_async(b"\x00\xff")).output for _ in range(2)] == [2, 2]
    assert len(calls) == 1


async def test_an_error_that_cannot_be_asked_is_a_failure_like_others() -> None:
    class Odd(Exception):
        @property
        def retry_after_s(self) -> float:
            raise RuntimeError("do not look")

    async def work(value: int) -> int:
        raise Odd("odd")

    assert (await Flujo(Step(work, retry=TWICE)).run_async(1)).status == "failed"


@pytest.mark.parametrize("of_model", [False, True])
async def test_an_abort_in_on_retry_ends_the_run_without_waiting_for_the_retry(of_model: bool) -> None:
    slow = RetryPolicy(backoff_s=30, jitter=0)

    def stop(event: OnRetry) -> None:
        raise AbortPipeline("enough")

    async def send(request: ModelRequest) -> ModelResponse:
        raise OSError("down")

    @step(retry=None if of_model else slow)
    async def bad(value: int, ctx: RunContext) -> str:
        request = ModelRequest(model="m", messages=())
        return (await ctx.call_model(request, send, retry=slow if of_model else None, price=Price())).content

    with anyio.fail_after(5):
        result = await Flujo(bad, hooks=[stop]).run_async(1)
    assert (result.status, str(result.error)) == ("aborted", "run aborted by on_retry of plugin 'stop': enough")


async def test_abandoned_threads_that_hang_hold_up_no_other_step() -> None:
    go, limiter = threading.Event(), anyio.CapacityLimiter(2)
    all_threads = backends._limiter.set(limiter)

    def hang(value: int) -> int:
        go.wait(10)
        return value

    def work(value: int) -> int:
        return value + 1

    try:
        hung = 0
        while hung < 3:  # on a busy machine some get no thread in their time
            result = await Flujo(Step(hang, timeout_s=0.05)).run_async(1)
            assert isinstance(result.error, StepTimeout)
            hung += result.error.abandoned
        with anyio.fail_after(5):
            assert (await Flujo(Step(work)).run_async(1)).output == 2
        assert limiter.borrowed_tokens == 0
    finally:
        go.set()
        backends._limiter.reset(all_threads)


@step
async def pay(word: str, ctx: RunContext) -> str:
    ctx.usage.record(cost_usd="0.5")
    return word


@pytest.mark.parametrize("options", [{}, {"timeout_s": 60}, {"cache": True}], ids=str)
async def test_a_backend_that_raises_fails_the_step_and_what_was_paid_for_is_kept(options: dict[str, object]) -> None:
    broken = FaultInjector().raises(ConnectionError("gone"), at="after_step", step="upper", visit=None)
    result = await Flujo(pay >> Step(upper, **options), backend=broken).run_async("a")
    assert (result.status, result.total_cost_usd) == ("failed", Decimal("0.5"))
    assert isinstance(result.error, WorkerLost)
    assert "its backend raised ConnectionError: gone" in str(result.error)
    assert isinstance(result.error.__cause__, ConnectionError)
    assert [(record.path, record.status) for record in result.step_history] == [
        ("pay", "completed"),
        ("upper", "failed"),
    ]


async def test_a_backend_that_raises_is_caught_and_tried_again_as_a_failed_step_is() -> None:
    once = FaultInjector().raises(ConnectionError, at="before_step", step="upper")
    retry = RetryPolicy(max_attempts=2, backoff_s=0, retry_on=(ConnectionError,))
    tried = await Flujo(Step(upper, retry=retry), backend=once).run_async("a")
    assert (tried.output, tried.step_history[0].attempts) == ("A", 2)
    always = FaultInjector().raises(OSError, at="before_step", step="fallback/upper", visit=None)
    other = await Flujo(Fallback(upper, Step(upper, name="other")), backend=always).run_async("a")
    assert other.output == "A"
    beside = FaultInjector().raises(OSError, at="before_step", step="parallel/upper", visit=None)
    both = await Flujo(Parallel(upper, pay, on_failure="collect"), backend=beside).run_async("a")
    assert isinstance(both.output["upper"], WorkerLost)  # type: ignore[index]


async def test_nobody_knows_what_became_of_work_on_a_backend_that_raised() -> None:
    broken = FaultInjector().raises(OSError, at="after_step")
    flujo = Flujo(Step(upper, effect="at_most_once"), backend=broken)
    again = await flujo.resume_async(await flujo.run_async("a"), retry=True)
    assert again.status == "paused"
    assert "Did it happen" in again.pauses[0].question
