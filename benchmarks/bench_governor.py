"""What it costs to hold a limit: reserve and settle, alone, in a line of ledgers, and with many waiting.

Times are CPU time. What to read is `extra_info`: microseconds per reserve-and-settle, beside a bare `async with` and a
bare await of the same run, since a machine's speed drifts. Run it with `nox -s bench -- -k governor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from decimal import Decimal
from time import process_time

import pytest
from benchmarks.chain import no_op
from pytest_benchmark.fixture import BenchmarkFixture

from flujo.core import (
    Budget,
    Flujo,
    Ledger,
    Message,
    Meter,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    Price,
    RunContext,
    Step,
    Usage,
    UsageLimits,
)
from flujo.core.usage import Charge

MANY = 1000
COST = Decimal("0.001")
LIMITS = UsageLimits("1000000", 10**12, 10**9)
CHARGE = Charge(COST, 100, 1)
USED = Usage(40, 50, 1, COST)


def ledger_of(depth: int) -> Ledger:
    ledger: Ledger = Budget(LIMITS if depth else UsageLimits())
    for _ in range(depth - 1):
        ledger = Ledger(LIMITS, ledger)
    return ledger


async def per_item_us(work: Callable[[], Awaitable[object]], items: int, rounds: int = 5) -> float:
    """CPU microseconds per item, best round: noise only ever adds time."""
    best = float("inf")
    for _ in range(rounds):
        started = process_time()
        await work()
        best = min(best, process_time() - started)
    return best / items * 1e6


@pytest.mark.parametrize("depth", [0, 1, 2, 3], ids=["unlimited", "run", "run+budget", "step+run+budget"])
@pytest.mark.benchmark(timer=process_time)
def test_ledger(benchmark: BenchmarkFixture, depth: int) -> None:
    """The atomic part alone: take and close."""
    ledger = ledger_of(depth)

    def thousand() -> None:
        for _ in range(MANY):
            grant = ledger.take(CHARGE, None)
            assert grant is not None
            ledger.close(grant, USED)

    benchmark(thousand)
    benchmark.extra_info["us_per_pair"] = benchmark.stats.stats.min / MANY * 1e6


@pytest.mark.parametrize("depth", [0, 1, 2, 3], ids=["unlimited", "run", "run+budget", "step+run+budget"])
@pytest.mark.benchmark(timer=process_time)
def test_reserve_and_settle(benchmark: BenchmarkFixture, depth: int) -> None:
    """`async with ctx.usage.reserve(...) as lease: lease.settle(...)`, beside an `async with` that does nothing."""
    meter = Meter(ledger_of(depth))

    async def thousand() -> None:
        for _ in range(MANY):
            async with meter.reserve(cost_usd=COST, tokens=100) as lease:
                lease.settle(cost_usd=COST, tokens=90)

    async def bare() -> None:
        for _ in range(MANY):
            async with nullcontext():
                pass

    with asyncio.Runner() as runner:
        benchmark(lambda: runner.run(thousand()))
        ours, theirs = runner.run(per_item_us(thousand, MANY)), runner.run(per_item_us(bare, MANY))
    benchmark.extra_info.update(us_per_pair=ours, bare_us=theirs, ratio=ours / theirs)


@pytest.mark.benchmark(timer=process_time)
def test_model_call(benchmark: BenchmarkFixture) -> None:
    """A whole `ctx.call_model` without plugins under a money limit, beside a bare await of what it sends."""
    request = ModelRequest(model="m", messages=(Message(role="user", content="x" * 400),), max_tokens=100)
    response = ModelResponse(usage=ModelUsage(input_tokens=100, output_tokens=50))
    price = Price(Decimal("0.000001"), Decimal("0.000004"))
    found: dict[str, float] = {}

    async def send(_: ModelRequest) -> ModelResponse:
        return response

    async def talk(ctx: RunContext, value: int) -> int:
        async def hundred() -> None:
            for _ in range(100):
                await ctx.call_model(request, send, price=price)

        async def bare() -> None:
            for _ in range(100):
                await send(request)

        found.update(us=await per_item_us(hundred, 100), bare_us=await per_item_us(bare, 100))
        return await no_op(value)

    flujo = Flujo(Step(talk), limits=UsageLimits("1000000"))
    with asyncio.Runner() as runner:
        benchmark.pedantic(lambda: runner.run(flujo.run_async(1)).unwrap(), rounds=3)
    benchmark.extra_info.update(us_per_call=found["us"], bare_us=found["bare_us"])


async def queue_us(waiting: int) -> float:
    """CPU microseconds per task where `waiting` of them share room for five."""
    meter = Meter(Ledger(UsageLimits("5")))

    async def work() -> None:
        async with meter.reserve(cost_usd=1) as lease:
            await asyncio.sleep(0)
            lease.settle()

    async def all_of_them() -> None:
        await asyncio.gather(*(work() for _ in range(waiting)))

    return await per_item_us(all_of_them, waiting, rounds=3)


def test_a_settle_costs_the_same_however_many_wait() -> None:
    """A queue of ten times the length costs no more per task, but for noise."""
    short, long = asyncio.run(queue_us(300)), asyncio.run(queue_us(3000))
    print(f"\nwaiting in turn: {short:.1f} us per task with 300 waiting, {long:.1f} us with 3000")
    assert long < 2.5 * short
