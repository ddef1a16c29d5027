"""What a step had spent when its process was killed counts when the run goes on: a limit holds over a crash."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flujo.core import (
    Flujo,
    MemoryStore,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    OnUsageWarning,
    Parallel,
    PauseForHumanInput,
    Price,
    PriceTable,
    RunContext,
    Step,
    UsageLimits,
)

pytestmark = pytest.mark.anyio

DOLLAR = Price(output_usd="0.01")
"""A call of 100 tokens costs one USD."""


async def answer(request: ModelRequest) -> ModelResponse:
    return ModelResponse(content="yes", usage=ModelUsage(input_tokens=0, output_tokens=100))


async def call(ctx: RunContext) -> str:
    request = ModelRequest(model="m", messages=(Message(role="user", content="?"),), max_tokens=100, min_tokens=100)
    return (await ctx.call_model(request, answer, price=DOLLAR)).content


class Machine:
    """A store, and what another process finds in it when this one is killed in the middle of a step."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.found = self.store
        self.kills = True

    async def kill(self) -> None:
        if self.kills:
            await anyio.wait_all_tasks_blocked()  # a kill at once would be before the write: that is not promised
            self.found = self.store.reopened()
            self.kills = False

    async def twice(self, value: int, ctx: RunContext) -> str:
        """Two calls, and the power goes after the first."""
        first = await call(ctx)
        await self.kill()
        return first + await call(ctx)

    async def once(self, value: int, ctx: RunContext) -> int:
        return len(await call(ctx))


async def recovered(machine: Machine, step: Step, limit: str | None = None) -> tuple[str, Decimal, int]:
    limits = UsageLimits(total_cost_usd_limit=limit)
    flujo = Flujo(step, store=machine.store)
    await flujo.run_async(1, run_id="r", limits=limits)
    (result,) = await Flujo(step, store=machine.found).recover_async()
    return result.status, result.total_cost_usd, result.usage.requests


async def test_a_call_before_the_kill_counts() -> None:
    machine = Machine()
    assert await recovered(machine, Step(machine.twice, name="twice")) == ("completed", Decimal(3), 3)


async def settles(ctx: RunContext) -> None:
    async with ctx.usage.reserve(cost_usd=3) as lease:
        lease.settle(cost_usd=1)


async def settles_nothing(ctx: RunContext) -> None:
    async with ctx.usage.reserve(cost_usd=1):
        pass


async def records(ctx: RunContext) -> None:
    ctx.usage.record(cost_usd=1)


async def records_no_request(ctx: RunContext) -> None:
    ctx.usage.record(cost_usd=1, requests=0)


def settles_in_a_thread(ctx: RunContext) -> None:
    with ctx.usage.reserve(cost_usd=3) as lease:
        lease.settle(cost_usd=1)


def records_in_a_thread(ctx: RunContext) -> None:
    ctx.usage.record(cost_usd=1)


BY_ITSELF: list[Callable[[RunContext], Any]] = [
    settles, settles_nothing, records, records_no_request, settles_in_a_thread, records_in_a_thread
]  # fmt: skip


@pytest.mark.parametrize("book", BY_ITSELF)
async def test_what_a_step_books_by_itself_before_the_kill_counts(book: Callable[[RunContext], Any]) -> None:
    machine = Machine()

    async def work(value: int, ctx: RunContext) -> int:
        for _ in range(2):
            await (book(ctx) if iscoroutinefunction(book) else anyio.to_thread.run_sync(book, ctx))
            await machine.kill()
        return value

    status, cost, requests = await recovered(machine, Step(work))
    assert (status, cost) == ("completed", Decimal(3))
    assert requests == (0 if book is records_no_request else 3)


async def test_a_call_that_was_released_counts_nothing() -> None:
    machine = Machine()

    async def work(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd=3) as lease:
            lease.release()
        await machine.kill()
        return value

    assert await recovered(machine, Step(work)) == ("completed", Decimal(0), 0)


async def test_a_limit_holds_over_the_kill() -> None:
    machine = Machine()
    status, cost, requests = await recovered(machine, Step(machine.twice, name="twice"), "2")
    assert (status, cost, requests) == ("stopped", Decimal(2), 2)  # one before, one after: no third


async def test_steps_that_had_ended_are_not_counted_twice() -> None:
    machine = Machine()
    step = Step(machine.once, name="once") >> Step(machine.twice, name="twice")
    assert await recovered(machine, step) == ("completed", Decimal(4), 4)


async def test_a_second_kill_counts_too() -> None:
    machine = Machine()
    step = Step(machine.twice, name="twice")
    await Flujo(step, store=machine.store).run_async(1, run_id="r")
    machine.store, machine.kills = machine.found, True
    await Flujo(step, store=machine.store).recover_async()
    (result,) = await Flujo(step, store=machine.found).recover_async()
    assert (result.status, result.total_cost_usd) == ("completed", Decimal(4))  # 1, 1 and 2


async def test_branches_that_were_cut_off_together_count_each() -> None:
    machine = Machine()
    pair = Parallel(Step(machine.once, name="a"), Step(machine.twice, name="b"), Step(machine.once, name="c"))
    assert await recovered(machine, pair) == ("completed", Decimal(5), 5)


async def test_a_replay_and_a_history_do_not_stumble_over_it() -> None:
    store = MemoryStore()
    machine = Machine()
    machine.kills = False
    flujo = Flujo(Step(machine.twice, name="twice"), store=store)
    result = await flujo.run_async(1, run_id="r")
    assert [one.path for one in result.step_history] == ["twice"]
    replay = await flujo.replay_async("r")
    assert replay.divergence is None
    assert replay.result is not None
    assert replay.result.total_cost_usd == 2


async def test_what_a_step_booked_after_the_call_of_another_counts_beside_it() -> None:
    machine, called = Machine(), anyio.Event()

    async def calls(value: int, ctx: RunContext) -> int:
        await call(ctx)
        called.set()
        await anyio.sleep(0.01)
        await machine.kill()
        return value

    async def books(value: int, ctx: RunContext) -> int:
        await called.wait()
        ctx.usage.record(cost_usd=1)
        return value

    assert (await recovered(machine, Parallel(Step(calls), Step(books))))[1] == 3  # calls, books, and calls once more


async def test_limits_of_a_step_hold_over_a_kill() -> None:
    machine = Machine()

    async def work(value: int, ctx: RunContext) -> int:
        for number in range(3):
            await call(ctx)
            if number == 1:
                await machine.kill()
        return value

    assert (await recovered(machine, Step(work, limits=UsageLimits(requests_limit=3))))[2] == 3


TABLE = {"acme": {"input_usd_per_mtok": "2.55", "output_usd_per_mtok": "10"}}


def table() -> PriceTable:
    words = {"format": "flujo-prices", "version": 1, "name": "acme-1", "models": TABLE}
    return PriceTable(json.dumps(words).encode())


async def test_the_prices_of_calls_before_a_kill_are_named() -> None:
    machine = Machine()

    async def paid(value: int, ctx: RunContext) -> int:
        await ctx.call_model(ModelRequest(model="acme", messages=(), max_tokens=5), answer)
        return value

    async def last(value: int) -> int:
        await machine.kill()
        return value

    pipeline = Step(paid) >> Step(last)
    await Flujo(pipeline, store=machine.store, plugins=[table()]).run_async(1)
    (result,) = await Flujo(pipeline, store=machine.found, plugins=[table()]).recover_async()
    assert result.total_cost_usd > 0
    assert table().sha256 in str(result.counts)


async def test_a_limit_warns_once_in_a_run_that_paused() -> None:
    told: list[str] = []

    async def pays(value: int, ctx: RunContext) -> int:
        await call(ctx)
        return value

    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    def watch(event: OnUsageWarning) -> None:
        told.append(event.limit)

    pipeline = Step(pays, name="first") >> Step(ask) >> Step(pays, name="second")
    flujo = Flujo(pipeline, limits=UsageLimits(requests_limit=10, warn_at=0.1), hooks=[watch])
    result = await flujo.resume_async(await flujo.run_async(1), 1)
    assert result.status == "completed"
    assert told == ["requests_limit"]


KILLED = """
import os, signal, sys
from flujo.core import Flujo, Step, RunContext
sys.path.insert(0, {here!r})
import test_spent_before_a_kill as trial

async def work(value: int, ctx: RunContext) -> str:
    first = await trial.call(ctx)
    if sys.argv[2] == "kill":
        import anyio
        await anyio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return first + await trial.call(ctx)

flujo = Flujo(Step(work), store="sqlite:///" + sys.argv[1], limits=trial.UsageLimits(total_cost_usd_limit=2))
if sys.argv[2] == "kill":
    flujo.run(1, run_id="r")
import anyio
(result,) = anyio.run(flujo.recover_async)
print(result.status, result.total_cost_usd)
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
def test_a_killed_process_spends_no_more_than_its_limit_with_the_next_one(tmp_path: Path, anyio_backend: str) -> None:
    script = tmp_path / "trial.py"
    script.write_text(KILLED.format(here=str(Path(__file__).parent)))
    words = [sys.executable, str(script), str(tmp_path / "runs.db")]
    assert subprocess.run([*words, "kill"], check=False, timeout=240).returncode == -signal.SIGKILL
    done = subprocess.run([*words, "recover"], check=True, capture_output=True, text=True, timeout=240)
    assert done.stdout.split() == ["stopped", "2.00"]
