"""A call that used more than it had reserved: whatever room is left, its run ends, and everything paid for is kept."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import anyio
import pytest

from flujo.core import (
    Budget,
    Fallback,
    Flujo,
    Message,
    ModelChunk,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    OnGovernorBreach,
    Parallel,
    PipelineResult,
    Price,
    RetryPolicy,
    RunContext,
    Step,
    UsageLimitExceeded,
    UsageLimits,
)

pytestmark = pytest.mark.anyio

PRICE = Price(Decimal("0.001"), Decimal("0.01"))
FAR = UsageLimits("1000", 10**6, 1000)
"""Limits that nothing here comes near."""
HELD = PRICE.cost(24, 10)
"""What `ask()` reserves: 24 tokens of input at most, 10 of output."""


def ask() -> ModelRequest:
    return ModelRequest(model="acme:m", messages=(Message(role="user", content="12345678"),), max_tokens=10)


@dataclass
class Provider:
    """Bills what it wants."""

    usage: ModelUsage | None
    price: Price | None = PRICE
    made: int = 0
    told: list[UsageLimitExceeded] = field(default_factory=list)

    async def send(self, request: ModelRequest) -> ModelResponse:
        self.made += 1
        return ModelResponse(content="paid", usage=self.usage)

    async def talk(self, ctx: RunContext, value: object) -> str:
        return (await ctx.call_model(ask(), self.send, price=self.price)).content

    async def give(self, request: ModelRequest) -> AsyncIterator[ModelChunk]:
        self.made += 1
        yield ModelChunk("pa")
        yield ModelChunk("id", usage=self.usage)

    async def stream(self, ctx: RunContext, value: object) -> str:
        async with ctx.stream_model(ask(), self.give, price=self.price) as stream:
            return "".join([text async for text in stream.text()])

    def breached(self, event: OnGovernorBreach) -> None:
        self.told.append(event.error)

    async def run(self, flow: Any, limits: Any, **more: Any) -> PipelineResult:
        return await Flujo(flow, limits=limits, hooks=[self.breached]).run_async(1, **more)


def too_much() -> Provider:
    return Provider(ModelUsage(input_tokens=25, output_tokens=10))


def stopped(result: PipelineResult) -> UsageLimitExceeded:
    assert (result.status, result.usage.reserved_usd) == ("stopped", 0)
    assert isinstance(result.error, UsageLimitExceeded)
    return result.error


async def free(value: object) -> object:
    return value


@pytest.mark.parametrize("way", ["talk", "stream"])
@pytest.mark.parametrize(
    ("limits", "limit", "more"),
    [
        (UsageLimits("1000"), "total_cost_usd_limit", "0.001 USD"),
        (UsageLimits(None, 10**6), "total_tokens_limit", "1 tokens"),
        (FAR, "total_cost_usd_limit", "0.001 USD"),
    ],
)
async def test_it_is_recorded_told_once_and_the_last(way: str, limits: UsageLimits, limit: str, more: str) -> None:
    provider = too_much()
    flow = Step(getattr(provider, way), name="a") >> Step(free, name="b") >> Step(provider.talk, name="c")
    result = await provider.run(flow, limits)
    error = stopped(result)
    assert (provider.made, [one.limit for one in provider.told]) == (1, [limit])
    assert error is provider.told[0]
    assert f"{limit} of " in error.what
    assert "cannot be held" in error.what, "it was not reached"
    assert f"a call used {more} more than it had reserved" in error.why
    assert "tier" in error.why
    assert "tokenizer" in error.why
    assert "price=" in error.do
    assert [(record.name, record.output) for record in result.step_history] == [("a", "paid")], "no free step either"
    assert result.total_cost_usd == PRICE.cost(25, 10)
    assert result.usage.overshoot_usd == (Decimal("0.001") if limits.cost else 0)


@pytest.mark.parametrize(
    ("usage", "price", "limits"),
    [
        (ModelUsage(input_tokens=24, output_tokens=10), PRICE, FAR),
        (ModelUsage(input_tokens=24, output_tokens=10, cost_usd=HELD), PRICE, FAR),
        (None, PRICE, FAR),
        (ModelUsage(output_tokens=500), PRICE, None),
        (ModelUsage(output_tokens=500), PRICE, UsageLimits(None, None, 9)),
        (ModelUsage(output_tokens=10, cost_usd=Decimal(500)), PRICE, UsageLimits(None, 10**6)),
        (ModelUsage(input_tokens=1, output_tokens=100), Price(Decimal("0.001"), Decimal("0.0001")), UsageLimits("9")),
        (ModelUsage(output_tokens=10, cost_usd=Decimal(5)), None, UsageLimits("11", on_unknown_price="warn")),
    ],
    ids=["exactly", "exactly billed", "unmeasured", "no limit", "requests", "no USD", "no tokens", "unknown price"],
)
async def test_what_was_reserved_and_what_no_limit_holds_stops_nothing(
    usage: ModelUsage | None, price: Price | None, limits: UsageLimits | None
) -> None:
    provider = Provider(usage, price)
    result = await provider.run(Step(provider.talk, name="a") >> Step(provider.talk, name="b"), limits)
    assert (result.status, provider.made, provider.told) == ("completed", 2, []), result.error
    assert result.usage.overshoot_usd == 0


async def test_the_smallest_amount_is_one() -> None:
    provider = Provider(ModelUsage(output_tokens=1, cost_usd=HELD + Decimal("1e-25")))
    result = await provider.run(Step(provider.talk), FAR)
    stopped(result)
    assert result.usage.overshoot_usd == Decimal("1e-25")


@pytest.mark.parametrize("where", ["step", "budget"])
async def test_a_limit_anywhere_in_the_line_counts(where: str) -> None:
    provider = too_much()
    step = Step(provider.talk, limits=UsageLimits("5") if where == "step" else None)
    limits: Any = Budget(UsageLimits("5")) if where == "budget" else UsageLimits(None, None, 100)
    error = stopped(await provider.run(step >> Step(free), limits))
    assert (error.limit, error.value, len(provider.told)) == ("total_cost_usd_limit", "5 USD", 1)


async def test_neither_a_retry_nor_a_fallback_nor_the_step_itself_goes_on() -> None:
    provider, refused = too_much(), list[str]()

    async def twice(ctx: RunContext, value: int) -> str:
        await provider.talk(ctx, value)
        try:
            return await provider.talk(ctx, value)
        except UsageLimitExceeded as error:
            refused.append(error.what)
            raise OSError from error

    flow = Fallback(Step(twice, retry=RetryPolicy(max_attempts=3, backoff_s=0)), Step(provider.talk, name="other"))
    error = stopped(await provider.run(flow, FAR))
    assert (provider.made, refused, len(provider.told)) == (1, [error.what], 1)


async def test_the_other_branches_are_cancelled_or_settled_and_who_waits_is_refused() -> None:
    provider, began, ended = too_much(), anyio.Event(), list[str]()

    async def holds(ctx: RunContext, value: int) -> str:
        async def slow(request: ModelRequest) -> ModelResponse:
            await anyio.sleep(0.1)
            return ModelResponse(content="slow", usage=ModelUsage(output_tokens=1))

        return (await ctx.call_model(ask(), slow, price=PRICE)).content

    async def waits(ctx: RunContext, value: int) -> str:
        await began.wait()
        try:
            async with ctx.usage.reserve(cost_usd=HELD * 9):
                raise AssertionError("nothing is let in")
        finally:
            ended.append("waits")

    async def works(ctx: RunContext, value: int) -> str:
        try:
            await anyio.sleep(60)
        finally:
            ended.append("works")
        return ""

    async def overshoots(ctx: RunContext, value: int) -> str:
        async def send(request: ModelRequest) -> ModelResponse:
            began.set()
            await anyio.sleep(0.02)
            return await provider.send(request)

        return (await ctx.call_model(ask(), send, price=PRICE)).content

    with anyio.fail_after(30):
        flow = Parallel(Step(holds), Step(waits), Step(works), Step(overshoots))
        result = await provider.run(flow, UsageLimits(HELD * 10))
    assert "cannot be held" in stopped(result).what
    assert sorted(ended) == ["waits", "works"]
    kept = {record.name: record.output for record in result.step_history if record.status == "completed"}
    assert kept == {"holds": "slow", "overshoots": "paid"}
    assert result.usage.requests == 2


async def test_of_runs_that_share_a_budget_only_the_one_that_overshot_ends() -> None:
    budget, honest, other = Budget(UsageLimits("5")), Provider(ModelUsage(output_tokens=1)), too_much()
    is_over = anyio.Event()

    async def waits(ctx: RunContext, value: int) -> int:
        await honest.talk(ctx, value)
        await is_over.wait()
        return value

    flow = Step(waits) >> Step(honest.talk)
    results: list[PipelineResult] = []

    async def run_it() -> None:
        results.append(await honest.run(flow, budget))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(run_it)
            stopped(await other.run(Step(other.talk), budget))
            is_over.set()
    assert (results[0].status, honest.made, honest.told) == ("completed", 2, [])
    assert budget.spent.overshoot_usd == Decimal("0.001")
    assert budget.spent.cost_usd == PRICE.cost(25, 10) + 2 * PRICE.cost(0, 1)


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("over", [{"cost_usd": "0.6"}, {"cost_usd": "0.1", "tokens": 6}])
async def test_a_reservation_of_a_steps_own_is_held_to_the_same(threaded: bool, over: dict[str, Any]) -> None:
    provider = too_much()

    def settle(ctx: RunContext, value: int) -> str:
        with ctx.usage.reserve(cost_usd="0.5", tokens=5) as lease:
            lease.settle(**over)
        with pytest.raises(UsageLimitExceeded), ctx.usage.reserve(cost_usd="0.1"):
            pass
        return "paid"

    async def settle_async(ctx: RunContext, value: int) -> str:
        async with ctx.usage.reserve(cost_usd="0.5", tokens=5) as lease:
            lease.settle(**over)
        with pytest.raises(UsageLimitExceeded):
            async with ctx.usage.reserve(cost_usd="0.1"):
                pass
        return "paid"

    result = await provider.run(Step(settle if threaded else settle_async, name="own") >> Step(provider.talk), FAR)
    stopped(result)
    assert (provider.made, result.step_history[0].output, len(provider.told)) == (0, "paid", 1)


async def test_what_a_thread_overshot_stops_calls_beside_it_at_once() -> None:
    provider, over = too_much(), anyio.Event()

    def thread(ctx: RunContext, value: int) -> str:
        with ctx.usage.reserve(cost_usd="0.5") as lease:
            lease.settle(cost_usd="0.6")
        anyio.from_thread.run_sync(over.set)
        time.sleep(0.05)  # its attempt has not ended, and the run is not told yet
        return "paid"

    async def beside(ctx: RunContext, value: int) -> str:
        await over.wait()
        return await provider.talk(ctx, value)

    with anyio.fail_after(30):
        result = await provider.run(Parallel(Step(thread), Step(beside)), FAR)
    stopped(result)
    assert (provider.made, len(provider.told)) == (0, 1)


async def test_a_run_that_is_resumed_goes_on_from_there() -> None:
    provider = too_much()
    flujo = Flujo(Step(provider.talk, name="a") >> Step(free, name="b"), limits=UsageLimits("5"))
    first = await flujo.run_async(1)
    stopped(first)
    again = await flujo.resume_async(first.snapshot(), limits=UsageLimits("10"))
    assert (again.status, again.output, provider.made) == ("completed", "paid", 1), again.error
    assert (again.total_cost_usd, again.usage.overshoot_usd) == (PRICE.cost(25, 10), Decimal("0.001"))


# --- a report that cannot be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["talk", "stream"])
@pytest.mark.parametrize(
    "wrong", [{"input_tokens": -100}, {"output_tokens": 10**9 * -1}, {"cost_usd": Decimal("NaN")}, {"cost_usd": -1}]
)
async def test_a_report_that_nobody_checked_gives_no_room_back(way: str, wrong: Any) -> None:
    provider = Provider(ModelUsage(input_tokens=1, output_tokens=1).model_copy(update=wrong))  # which checks nothing
    budget = Budget(UsageLimits("1000"))
    result = await provider.run(Step(getattr(provider, way), name="a"), budget)
    assert result.status == "completed"
    assert (result.total_cost_usd, result.usage.unmeasured, budget.reserved.cost_usd) == (HELD, 1, 0)
