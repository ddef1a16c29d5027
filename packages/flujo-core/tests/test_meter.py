"""`ctx.usage`: leases of one attempt, in tasks and in threads, and what is booked when they end in whatever way."""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flujo.core import (
    Budget,
    ConfigurationError,
    Flujo,
    Ledger,
    LoopRunning,
    Pipeline,
    RunAborted,
    RunContext,
    Step,
    StepTimeout,
    Usage,
    UsageLimitExceeded,
    UsageLimits,
    run_input,
    step,
)
from flujo.core.ledger import ENCLOSING, Grant
from flujo.core.meter import Lease, Meter
from flujo.core.usage import Charge, Room

pytestmark = pytest.mark.anyio


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(UsageLimits("10", 1000, 20))


def held(ledger: Ledger, amount: int, owner: object = None) -> Grant:
    """What somebody else holds, outside of this task's leases."""
    grant = ledger.take(lambda _: Charge(Decimal(amount), 0, 1), owner)
    assert grant is not None
    return grant


async def test_a_settled_lease_books_what_was_used_and_gives_the_rest_back(ledger: Ledger) -> None:
    meter = Meter(ledger)
    async with meter.reserve(cost_usd="0.5", tokens=100) as lease:
        assert lease.charge == Charge(Decimal("0.5"), 100, 1)
        assert meter.holds_lease
        assert meter.left == Room(Decimal("9.5"), 900, 19)
        lease.settle(cost_usd=0.2, input_tokens=10, output_tokens=20)
        assert not lease.open
    assert not meter.holds_lease
    assert meter.spent == Usage(10, 20, 1, Decimal("0.2"))
    assert lease.used == meter.spent
    assert meter.left == Room(Decimal("9.8"), 970, 19)


async def test_a_lease_that_is_not_settled_counts_in_full_also_after_an_error_or_a_cancel(ledger: Ledger) -> None:
    meter = Meter(ledger)
    async with meter.reserve(cost_usd=1, tokens=10):
        pass
    with pytest.raises(OSError, match="broken"):
        async with meter.reserve(cost_usd=1, tokens=10):
            raise OSError("broken")
    with anyio.move_on_after(0.01):
        async with meter.reserve(cost_usd=1, tokens=10):
            await anyio.sleep_forever()
    assert ledger.spent == Usage(0, 30, 3, Decimal(3), unmeasured=3, reserved_usd=Decimal(0))
    assert not meter.holds_lease


async def test_settling_twice_or_after_the_end_books_once(ledger: Ledger) -> None:
    meter = Meter(ledger)
    async with meter.reserve(cost_usd=1) as lease:
        lease.settle(cost_usd="0.25")
        lease.settle(cost_usd="0.75")
        lease.settle_in_full()
        lease.release()
    lease.settle(cost_usd=1)
    assert meter.spent == Usage(requests=1, cost_usd=Decimal("0.25"))
    assert ledger.spent.cost_usd == Decimal("0.25")


def test_two_threads_that_settle_one_lease_at_once_book_it_once() -> None:
    for _ in range(200):
        ledger = Ledger(UsageLimits("10"))
        meter = Meter(ledger)
        with meter.reserve(cost_usd=1) as lease:
            barrier = threading.Barrier(2)

            def settle(lease: Lease = lease, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                lease.settle(cost_usd="0.5")

            threads = [threading.Thread(target=settle) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert meter.spent.cost_usd == ledger.spent.cost_usd == lease.used.cost_usd == Decimal("0.5")


async def test_a_released_lease_books_nothing_not_even_a_request(ledger: Ledger) -> None:
    meter = Meter(ledger)
    async with meter.reserve(cost_usd=1, tokens=5) as lease:
        lease.release()
    assert ledger.spent == Usage(reserved_usd=Decimal(0))


async def test_what_is_billed_beyond_the_lease_is_recorded_as_overshoot(ledger: Ledger) -> None:
    meter = Meter(ledger)
    async with meter.reserve(cost_usd=9) as lease:
        lease.settle(cost_usd="10.5", tokens=3)
    assert meter.spent == Usage(0, 3, 1, Decimal("10.5"), overshoot_usd=Decimal("1.5"))
    breach = meter.exceeded()
    assert breach is not None
    with pytest.raises(UsageLimitExceeded):
        async with meter.reserve(cost_usd="0.01"):
            raise AssertionError("nothing may be let in")


async def test_what_takes_of_the_room_that_is_left_may_hold_less(ledger: Ledger) -> None:
    meter = Meter(ledger)

    def fit(room: Room) -> Charge | None:
        return Charge(min(Decimal(5), room.cost_usd or Decimal(0)), 50, 1)

    async with meter.reserve(cost_usd=9, tokens=900) as first:
        async with meter.reserve_fitting(fit) as second:
            assert second.charge == Charge(Decimal(1), 50, 1)
            second.release()
        first.release()


async def test_a_demand_that_takes_more_than_there_is_does_not_fit() -> None:
    async with Meter(Ledger(UsageLimits("1"))).reserve_fitting(lambda room: Charge(Decimal(1))) as lease:
        assert lease.charge.cost_usd == 1
    with pytest.raises(UsageLimitExceeded, match="total_cost_usd_limit"):
        async with Meter(Ledger(UsageLimits("1"))).reserve_fitting(lambda room: Charge(Decimal(2))):
            pytest.fail("it was let in")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"cost_usd": -1}, "cost_usd"),
        ({"cost_usd": float("nan")}, "cost_usd"),
        ({"tokens": 1.5}, "tokens"),
        ({"tokens": True}, "tokens"),
        ({"requests": -1}, "requests"),
    ],
)
def test_an_amount_that_cannot_be_used_is_named_before_anything_is_held(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}="):
        Meter(Ledger()).reserve(**arguments)


async def test_a_settle_with_a_wrong_amount_leaves_the_lease_open_so_it_counts_in_full(ledger: Ledger) -> None:
    meter = Meter(ledger)
    with pytest.raises(ConfigurationError, match=r"^tokens=5 .*count twice.*Give input_tokens and output_tokens only"):
        async with meter.reserve(cost_usd=1, tokens=9) as lease:
            lease.settle(tokens=5, input_tokens=3)
    assert meter.spent == Usage(0, 9, 1, Decimal(1), unmeasured=1)


@pytest.mark.parametrize("wrong", [False, 0.0, 1.5, -1, "3"])
@pytest.mark.parametrize("name", ["tokens", "input_tokens", "output_tokens"])
def test_what_was_used_is_whole_numbers(name: str, wrong: Any) -> None:
    meter = Meter(Ledger())
    with pytest.raises(ConfigurationError, match=f"^{name}="):
        meter.record(**{name: wrong})
    assert meter.spent == Usage()


async def test_record_books_at_once_and_a_broken_limit_shows(ledger: Ledger) -> None:
    meter = Meter(ledger)
    meter.record(cost_usd="0.1", input_tokens=1, output_tokens=2)
    meter.record(tokens=7, requests=0)
    assert meter.spent == Usage(1, 9, 1, Decimal("0.1"))
    assert meter.exceeded() is None
    meter.record(requests=20)
    breach = meter.exceeded()
    assert breach is not None
    assert breach.limit == "requests_limit"
    with pytest.raises(ConfigurationError, match=r"^requests=-1"):
        meter.record(requests=-1)


async def test_a_reservation_is_entered_once_at_a_time(ledger: Ledger) -> None:
    meter = Meter(ledger)
    reservation = meter.reserve(cost_usd=1)
    assert reservation.used == Usage()
    for _ in range(2):
        async with reservation as lease:
            lease.settle(cost_usd="0.1")
    async with reservation as lease:
        with pytest.raises(ConfigurationError, match="open already"):
            async with reservation:
                raise AssertionError("its first lease would be lost")
        lease.settle(cost_usd="0.1")
    assert ledger.reserved == Charge()
    assert meter.spent.cost_usd == Decimal("0.3")


async def test_when_the_attempt_is_over_open_leases_count_and_nothing_new_is_held(ledger: Ledger) -> None:
    meter = Meter(ledger)
    lease = meter.open(held(ledger, 2, meter))
    others = held(ledger, 4)
    outcomes: list[str] = []

    async def wait() -> None:
        with pytest.raises(RunAborted, match="attempt of the step is over"):
            async with meter.reserve(cost_usd=9):
                raise AssertionError("its attempt is over")
        outcomes.append("refused")

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(0.01)
        assert outcomes == []
        meter.settle_open()
    assert not lease.open
    lease.settle(cost_usd="0.1")
    assert meter.spent == Usage(requests=1, cost_usd=Decimal(2), unmeasured=1)
    ledger.close(others, Usage())
    await wait()
    assert outcomes == ["refused", "refused"]
    assert meter.breach is None, "the end of an attempt is no breach"
    assert ledger.reserved == Charge()


async def test_after_a_breach_an_attempt_reserves_nothing_more_not_even_what_would_fit(ledger: Ledger) -> None:
    meter = Meter(ledger)
    others, mine = held(ledger, 5), meter.open(held(ledger, 1, meter))
    caught: list[UsageLimitExceeded] = []

    async def wait() -> None:
        with pytest.raises(UsageLimitExceeded) as error:
            async with meter.reserve(cost_usd=6):
                raise AssertionError("the attempt has broken a limit")
        caught.append(error.value)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(0.01)
        with pytest.raises(UsageLimitExceeded) as breach:
            await meter.reserve(cost_usd=11).__aenter__()
    with pytest.raises(UsageLimitExceeded):
        await anyio.to_thread.run_sync(meter.reserve(cost_usd="0.01").__enter__)
    assert caught == [breach.value]
    assert meter.breach is breach.value
    mine.settle(cost_usd="0.5")
    ledger.close(others, Usage())
    assert ledger.spent.cost_usd == Decimal("0.5"), "what was open settles as ever"


async def test_what_was_granted_just_before_the_end_of_the_attempt_is_given_back(ledger: Ledger) -> None:
    meter = Meter(ledger)
    grant = held(ledger, 5, meter)
    meter.refuse(RunAborted("over"))
    with pytest.raises(RunAborted):
        meter.open(grant)
    assert ledger.reserved == Charge()
    assert ledger.spent.requests == 0


async def test_leases_leave_no_trace_in_the_task_when_they_are_over(ledger: Ledger) -> None:
    meter = Meter(ledger)
    for _ in range(3):
        async with meter.reserve(tokens=1):
            assert len(ENCLOSING.get()) == 1
            async with meter.reserve(tokens=1):
                assert len(ENCLOSING.get()) == 2
    assert ENCLOSING.get() == ()


async def test_with_on_an_event_loop_says_what_to_write(ledger: Ledger) -> None:
    with pytest.raises(LoopRunning, match="async with"), Meter(ledger).reserve(cost_usd=1):
        raise AssertionError("it would block the loop")


# --- in a run -------------------------------------------------------------------------------------------------------


async def test_sync_steps_reserve_in_their_threads_and_wait_for_each_other() -> None:
    peak, now, lock = 0, 0, threading.Lock()

    def work(ctx: RunContext, value: int) -> str:
        nonlocal peak, now
        with ctx.usage.reserve(cost_usd=1) as lease:
            with lock:
                now += 1
                peak = max(peak, now)
            time.sleep(0.005)
            with lock:
                now -= 1
            lease.settle(cost_usd="0.1")
        return threading.current_thread().name

    steps = [Step(work, name=f"s{n}", inputs={"value": run_input()}) for n in range(12)]
    result = await Flujo(Pipeline(*steps), limits=UsageLimits("3.5")).run_async(1)
    assert result.status == "completed", result.error
    assert 1 <= peak <= 3
    assert result.total_cost_usd == Decimal("1.2")
    assert threading.current_thread().name not in result.output.values()  # type: ignore[attr-defined]


async def test_a_sync_step_may_reserve_in_threads_of_its_own() -> None:
    @step
    def fan(ctx: RunContext, value: int) -> int:
        def call(number: int) -> int:
            with ctx.usage.reserve(cost_usd=1) as lease:
                time.sleep(0.002)
                lease.settle(cost_usd="0.05")
            return number

        with ThreadPoolExecutor(8) as pool:
            return sum(pool.map(lambda n: contextvars.Context().run(call, n), range(value)))

    result = await Flujo(fan, limits=UsageLimits("3")).run_async(20)
    assert result.output == 190
    assert result.total_cost_usd == 1


async def test_an_abandoned_thread_is_booked_in_full_and_holds_nothing_any_more() -> None:
    let_go, ended = threading.Event(), threading.Event()
    caught: list[str] = []

    @step(timeout_s=0.5)
    def slow(ctx: RunContext, value: int) -> int:
        try:
            with ctx.usage.reserve(cost_usd=2) as lease:
                let_go.wait(5)
                lease.settle(cost_usd="0.1")
            with ctx.usage.reserve(cost_usd=1):
                return value
        except RunAborted as error:
            caught.append(error.reason)
            return value
        finally:
            ended.set()

    budget = Budget(UsageLimits("10"))
    result = await Flujo(slow, limits=budget).run_async(1)
    assert isinstance(result.error, StepTimeout)
    assert result.error.abandoned
    assert result.usage == Usage(requests=1, cost_usd=Decimal(2), unmeasured=1, reserved_usd=Decimal(0))
    let_go.set()
    assert await anyio.to_thread.run_sync(ended.wait, 5)
    assert caught == ["this attempt of the step is over, nothing can be reserved for it"]
    assert budget.spent.cost_usd == result.step_history[0].usage.cost_usd == 2
    assert budget.reserved == Charge()


async def test_a_thread_that_waits_for_room_is_let_go_when_its_step_times_out() -> None:
    ended = threading.Event()
    budget = Budget(UsageLimits("10"))
    holder = held(budget, 9)

    @step(timeout_s=0.1)
    def waits(ctx: RunContext, value: int) -> int:
        try:
            with ctx.usage.reserve(cost_usd=5):
                return value
        finally:
            ended.set()

    result = await Flujo(waits, limits=budget).run_async(1)
    assert isinstance(result.error, StepTimeout)
    assert await anyio.to_thread.run_sync(ended.wait, 5), "the thread must not wait for ever"
    assert budget.reserved.cost_usd == 9
    budget.close(holder, Usage())


async def test_a_step_that_swallows_a_refused_reservation_still_ends_the_run() -> None:
    @step
    async def greedy(ctx: RunContext, value: int) -> int:
        async with ctx.usage.reserve(cost_usd=1) as lease:
            lease.settle(cost_usd=1)
        try:
            async with ctx.usage.reserve(cost_usd=1):
                return 0
        except UsageLimitExceeded:
            return value

    @step
    async def never(value: int) -> int:
        raise AssertionError("the run is stopped")

    result = await Flujo(greedy >> never, limits=UsageLimits("1.5")).run_async(7)
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert [(r.name, r.status, r.output, r.usage.cost_usd) for r in result.step_history] == [
        ("greedy", "completed", 7, Decimal(1))
    ]


@pytest.mark.parametrize("where", ["step", "pipeline", "flujo", "run", "budget"])
async def test_each_place_for_limits_holds(where: str) -> None:
    limits = UsageLimits("1")
    calls = 0

    async def work(ctx: RunContext, value: int) -> int:
        nonlocal calls
        for _ in range(5):
            async with ctx.usage.reserve(cost_usd="0.4") as lease:
                calls += 1
                lease.settle(cost_usd="0.4")
        return value

    one = Step(work, limits=limits if where == "step" else None)
    pipeline = Pipeline(one, limits=limits if where == "pipeline" else None)
    places: dict[str, UsageLimits | Budget] = {"flujo": limits, "budget": Budget(limits)}
    given = places.get(where, UsageLimits("100"))
    flujo = Flujo(pipeline, limits=given)
    result = await flujo.run_async(1, limits=limits if where == "run" else None)
    assert (result.status, calls, result.total_cost_usd) == ("stopped", 2, Decimal("0.8"))
    assert "total_cost_usd_limit of 1 USD" in str(result.error)
    again = await flujo.run_async(1, limits=limits if where == "run" else None)
    assert again.total_cost_usd == (Decimal(0) if where == "budget" else Decimal("0.8"))


async def test_runs_that_share_a_budget_are_held_by_it_together() -> None:
    @step
    async def work(ctx: RunContext, value: int) -> int:
        async with ctx.usage.reserve(cost_usd="0.3") as lease:
            await anyio.sleep(0.001)
            lease.settle(cost_usd="0.3")
        return value

    budget = Budget(UsageLimits("1"))
    flujo, statuses = Flujo(work, limits=budget), []

    async def run() -> None:
        statuses.append((await flujo.run_async(1)).status)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(run)
    assert sorted(statuses) == ["completed"] * 3 + ["stopped"] * 7
    assert budget.spent.cost_usd == Decimal("0.9")
