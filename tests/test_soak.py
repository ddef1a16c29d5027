"""Heavy counts, run by ``nox -s soak``: long chains, many runs, many runs on one budget."""

import asyncio
import gc
import tracemalloc
from decimal import Decimal
from functools import reduce
from operator import rshift

import pytest
from benchmarks import chain

from flujo.core import Budget, Flujo, RunContext, Step, UsageLimits, step

pytestmark = pytest.mark.soak


async def add_one(value: int) -> int:
    return value + 1


def chain_of(length: int) -> Flujo:
    return Flujo(reduce(rshift, [Step(add_one, name=f"s{index}") for index in range(length)]))


@pytest.mark.alone
def test_chain_of_5000_steps_gives_its_result_and_costs_no_more_per_step_than_one_of_500() -> None:
    assert chain_of(5_000).run(0).output == 5_000
    short, long = (min(chain.measure(length, rounds=5).engine_us for _ in range(2)) for length in (500, 5_000))
    assert long < 1.5 * short, f"{long:.2f} us/step at 5,000 steps, {short:.2f} at 500"


def test_20000_runs_of_one_flujo_keep_no_memory() -> None:
    flujo = chain_of(3)

    async def runs(count: int) -> int:
        for _ in range(count):
            assert (await flujo.run_async(1)).output == 4
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def both() -> tuple[int, int]:
        return await runs(1_000), await runs(20_000)

    tracemalloc.start()
    try:
        before, after = asyncio.run(both())
    finally:
        tracemalloc.stop()
    assert after - before < 100_000, f"{after - before} bytes more after 20,000 runs"


def test_2000_concurrent_runs_on_one_budget_spend_exactly_what_fits() -> None:
    limit = Decimal("1.00")
    budget = Budget(UsageLimits(total_cost_usd_limit=limit))
    seen: list[Decimal] = []

    @step
    async def pay(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd=Decimal("0.003")) as lease:
            seen.append(ctx.usage.spent.cost_usd + ctx.usage.spent.reserved_usd)
            await asyncio.sleep(0)
            lease.settle(cost_usd=Decimal("0.002"))
        return value

    async def all_at_once() -> list[str]:
        flujo = Flujo(pay, limits=budget)
        return [result.status for result in await asyncio.gather(*(flujo.run_async(i) for i in range(2_000)))]

    statuses = asyncio.run(all_at_once())
    assert max(seen) <= limit
    # 0.002 each, and 0.003 has to fit before the last one: 499 leave 0.002, into which no call fits.
    assert statuses.count("completed") == 499
    assert statuses.count("stopped") == 2_000 - 499
