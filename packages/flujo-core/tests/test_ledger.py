"""The ledger: `spent + reserved <= limit` at every instant, in turn, across tasks, threads and event loops."""

from __future__ import annotations

import asyncio
import decimal
import random
from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal
from fractions import Fraction
from threading import Lock, Thread
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.core import Budget, Ledger, RunAborted, Usage, UsageLimitExceeded, UsageLimits
from flujo.core.ledger import Grant
from flujo.core.meter import Meter
from flujo.core.usage import Charge, Fit, Room
from flujo.core.wakeup import LoopEvent

pytestmark = pytest.mark.anyio

FREE = Usage()


def usd(amount: object) -> Fit:
    return Charge(Decimal(str(amount)), 0, 0)


def used(amount: object) -> Usage:
    return Usage(cost_usd=Decimal(str(amount)))


async def hold(ledger: Ledger, amount: object, owner: object = None) -> Grant:
    return ledger.take(usd(amount), owner) or await ledger.wait(usd(amount), owner)


async def settled(condition: Callable[[], bool]) -> None:
    """Wait until other tasks have come to where the test wants them."""
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.001)


def waiting(ledger: Ledger) -> int:
    return len(ledger._queue.waiters) + len(ledger._queue.inside)


# --- what fits ------------------------------------------------------------------------------------------------------


def test_a_reservation_is_held_until_it_is_closed_and_then_what_was_used_is_booked() -> None:
    ledger = Ledger(UsageLimits("1", 100, 3))
    charge = Charge(Decimal("0.4"), 60, 1)
    grant = ledger.take(lambda room: charge, None)
    assert grant is not None
    assert ledger.reserved == charge
    assert ledger.spent.reserved_usd == Decimal("0.4")
    assert ledger.room() == Room(Decimal("0.6"), 40, 2)
    assert ledger.close(grant, Usage(10, 20, 1, Decimal("0.1")))
    assert ledger.reserved == Charge()
    assert ledger.room() == Room(Decimal("0.9"), 70, 2)


def test_a_second_close_does_nothing() -> None:
    ledger = Ledger(UsageLimits("1"))
    grant = ledger.take(usd("0.4"), None)
    assert grant is not None
    assert ledger.close(grant, used("0.3"))
    assert not ledger.close(grant, used("0.3"))
    assert ledger.spent.cost_usd == Decimal("0.3")
    assert ledger.reserved == Charge()


@pytest.mark.parametrize("limits", [UsageLimits("0.3"), UsageLimits(None, 3), UsageLimits(None, None, 3)])
def test_exactly_at_the_limit_nothing_more_is_let_in(limits: UsageLimits) -> None:
    ledger = Ledger(limits)
    one = Charge(Decimal("0.1"), 1, 1)
    fit: Fit = lambda room: one if room.holds(one) else None  # noqa: E731
    for _ in range(3):
        grant = ledger.take(fit, None)
        assert grant is not None
        ledger.close(grant, Usage(0, 1, 1, Decimal("0.1")))
    assert ledger.exceeded() is None
    with pytest.raises(UsageLimitExceeded):
        ledger.take(fit, None)


@pytest.mark.parametrize(
    ("limits", "name", "text"),
    [
        (UsageLimits("0.50"), "total_cost_usd_limit", "total_cost_usd_limit of 0.50 USD reached"),
        (UsageLimits(None, 9), "total_tokens_limit", "total_tokens_limit of 9 tokens reached"),
        (UsageLimits(None, None, 0), "requests_limit", "requests_limit of 0 requests reached"),
        (UsageLimits("9", 9, 9), "total_tokens_limit", "(spent 0, reserved 0)"),
    ],
)
def test_a_refusal_names_the_limit_how_it_stands_and_the_next_act(limits: UsageLimits, name: str, text: str) -> None:
    charge = Charge(Decimal(1), 10, 1)
    with pytest.raises(UsageLimitExceeded) as caught:
        Ledger(limits).take(lambda room: charge if room.holds(charge) else None, None)
    assert caught.value.limit == name
    assert text in str(caught.value)
    assert caught.value.do


def test_a_limit_of_zero_lets_only_free_work_pass_and_none_lets_everything_pass() -> None:
    nothing, free = Ledger(UsageLimits(0, 0)), Charge(Decimal(0), 0, 1)
    assert nothing.take(lambda room: free if room.holds(free) else None, None) is not None
    with pytest.raises(UsageLimitExceeded):
        nothing.take(usd("1e-39"), None)
    assert Ledger().take(usd("1e39"), None) is not None
    assert Ledger().room() == Room()


def test_every_limit_of_the_line_holds() -> None:
    budget = Budget(UsageLimits("1"))
    run = Ledger(UsageLimits("0.5"), budget)
    step = Ledger(UsageLimits(None, 10), run)
    assert step.room() == Room(Decimal("0.5"), 10, None)
    other = Ledger(None, budget).take(usd("0.8"), None)
    assert step.room().cost_usd == Decimal("0.2")
    grant = step.take(usd("0.2"), None)
    assert other is not None
    assert grant is not None
    assert [ledger.reserved.cost_usd for ledger in (step, run, budget)] == [Decimal("0.2"), Decimal("0.2"), Decimal(1)]
    step.close(grant, used("0.1"))
    assert [ledger.spent.cost_usd for ledger in (step, run, budget)] == [Decimal("0.1")] * 3


def test_a_program_that_rounds_its_own_decimals_does_not_touch_ours() -> None:
    ledger = Ledger(UsageLimits("1000000.000001"))
    with decimal.localcontext() as context:
        context.prec = 2
        grants = [ledger.take(usd("123.456789"), None) for _ in range(10)]
        room = ledger.room().cost_usd
        for grant in grants:
            assert grant is not None
            ledger.close(grant, used("12.3456789"))
    assert room == Decimal("1000000.000001") - Decimal("1234.56789")
    assert ledger.reserved.cost_usd == 0
    assert ledger.spent.cost_usd == Decimal("123.456789")


async def test_an_overshoot_is_recorded_and_nothing_is_let_in_after_it() -> None:
    ledger = Ledger(UsageLimits("1"))
    grant = await hold(ledger, "0.5")
    refused: list[str] = []

    async def wait() -> None:
        with pytest.raises(UsageLimitExceeded) as caught:
            await hold(ledger, "0.6")
        refused.append(caught.value.limit)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await settled(lambda: waiting(ledger) == 1)
        ledger.close(grant, used("1.25"))
    assert refused == ["total_cost_usd_limit"]
    assert "more was used than the limit allows (spent 1.25" in str(ledger.exceeded())
    with pytest.raises(UsageLimitExceeded):
        ledger.take(usd("0.000001"), None)


def test_what_could_not_be_reserved_can_still_be_booked() -> None:
    ledger = Ledger(UsageLimits("1", 10, 5))
    tally = Usage()
    ledger.book(Usage(5, 6, 1), tally)
    assert tally == ledger.spent == Usage(5, 6, 1)
    breach = ledger.exceeded()
    assert breach is not None
    assert breach.limit == "total_tokens_limit"


def test_each_limit_warns_once_at_its_share() -> None:
    ledger = Ledger(UsageLimits("0.3", 10, 0, warn_at=0.8), Budget(UsageLimits(None, 100, warn_at=0.1)))
    ledger.book(Usage(0, 7, 0, Decimal("0.23")))
    assert ledger.warnings() == []
    ledger.book(Usage(0, 3, 0, Decimal("0.01")))
    # 0.24 / 0.3 is 0.8 in decimals and a little less in floats
    assert ledger.warnings() == [
        ("total_cost_usd_limit", 0.8),
        ("total_tokens_limit", 1.0),
        ("total_tokens_limit", 0.1),
    ]
    assert ledger.warnings() == []


# --- waiting --------------------------------------------------------------------------------------------------------


async def test_waiters_are_served_first_come_first_served_and_a_large_one_is_not_starved() -> None:
    ledger = Ledger(UsageLimits("10"))
    first, second = await hold(ledger, 6), await hold(ledger, 4)
    served: list[str] = []

    async def wait(name: str, amount: int) -> None:
        grant = await hold(ledger, amount)
        served.append(name)
        await anyio.sleep(0.001)
        ledger.close(grant, FREE)

    async with anyio.create_task_group() as group:
        for name, amount in (("large", 9), ("small", 4), ("free of charge", 0), ("third", 8)):
            group.start_soon(wait, name, amount)
            await settled(lambda: waiting(ledger) + len(served) >= 1)
            await anyio.sleep(0.002)
        ledger.close(second, FREE)
        await anyio.sleep(0.005)
        assert served == ["free of charge"], "what fits must not pass one that came before, unless it takes nothing"
        ledger.close(first, FREE)
    assert served == ["free of charge", "large", "small", "third"]
    assert ledger.reserved == Charge()


async def test_a_step_at_its_own_limit_does_not_hold_up_its_siblings() -> None:
    run = Ledger(UsageLimits("10"))
    narrow, wide = Ledger(UsageLimits("1"), run), Ledger(UsageLimits("5"), run)
    held = await hold(narrow, 1)
    async with anyio.create_task_group() as group:
        group.start_soon(hold, narrow, 1)
        await settled(lambda: waiting(run) == 1)
        assert wide.take(usd(5), None) is not None
        assert run.take(usd(1), None) is not None
        ledger_line_is_blocked = narrow.take(usd("0.5"), None)
        assert ledger_line_is_blocked is None
        narrow.close(held, FREE)


async def test_a_cancelled_waiter_leaves_nothing_behind_and_lets_the_next_one_pass() -> None:
    ledger = Ledger(UsageLimits("10"))
    held = await hold(ledger, 6)
    served = anyio.Event()

    async def small() -> None:
        ledger.close(await hold(ledger, 4), FREE)
        served.set()

    async with anyio.create_task_group() as group:
        with anyio.move_on_after(0.02):
            group.start_soon(cancel_after_it_waits, ledger, group, small)
            await hold(ledger, 9)
        with anyio.fail_after(5):
            await served.wait()
    assert waiting(ledger) == 0
    assert ledger.reserved.cost_usd == 6
    ledger.close(held, FREE)


async def cancel_after_it_waits(
    ledger: Ledger, group: anyio.abc.TaskGroup, then: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    await settled(lambda: waiting(ledger) == 1)
    group.start_soon(then)


async def test_a_cancel_in_the_instant_of_the_grant_gives_it_back() -> None:
    ledger = Ledger(UsageLimits("10"))
    for _ in range(20):
        held = await hold(ledger, 10)
        async with anyio.create_task_group() as group:
            group.start_soon(hold, ledger, 10)
            await settled(lambda: waiting(ledger) == 1)
            ledger.close(held, FREE)  # grants it, and the waiter is told by the loop only later
            assert ledger.reserved.cost_usd == 10
            group.cancel_scope.cancel()
        assert ledger.reserved == Charge()
        assert waiting(ledger) == 0


async def test_those_who_can_never_fit_are_refused_as_soon_as_that_is_clear() -> None:
    ledger = Ledger(UsageLimits("10"))
    held = await hold(ledger, 6)
    outcomes: list[str] = []

    async def wait(amount: int) -> None:
        try:
            ledger.close(await hold(ledger, amount), FREE)
            outcomes.append(f"{amount} served")
        except UsageLimitExceeded:
            outcomes.append(f"{amount} refused")

    async with anyio.create_task_group() as group:
        for amount in (9, 8, 5):
            group.start_soon(wait, amount)
            await anyio.sleep(0.005)
        ledger.close(held, used(5))
    assert sorted(outcomes) == ["5 served", "8 refused", "9 refused"]


async def test_evicting_an_owner_refuses_what_it_waits_for_and_serves_the_others() -> None:
    ledger = Ledger(UsageLimits("10"))
    held = await hold(ledger, 6)
    outcomes: list[str] = []

    async def wait(owner: str, amount: int) -> None:
        try:
            ledger.close(await hold(ledger, amount, owner), FREE)
            outcomes.append(f"{owner} served")
        except RunAborted as error:
            outcomes.append(f"{owner} {error.reason}")

    async with anyio.create_task_group() as group:
        group.start_soon(wait, "first", 9)
        await settled(lambda: waiting(ledger) == 1)
        group.start_soon(wait, "second", 4)
        await settled(lambda: waiting(ledger) == 2)
        ledger.evict("nobody", lambda: RunAborted("never"))
        ledger.evict("first", lambda: RunAborted("over"))
    assert sorted(outcomes) == ["first over", "second served"]
    assert ledger.reserved.cost_usd == 6
    ledger.close(held, FREE)


async def test_an_event_whose_loop_is_gone_can_still_be_set() -> None:
    async def make() -> LoopEvent:
        return LoopEvent()

    for backend in ("asyncio", "trio"):
        event = await anyio.to_thread.run_sync(lambda name=backend: anyio.run(make, backend=name))  # type: ignore[misc]
        event.set()
        assert not event._event.is_set(), "the loop that would have set it is gone"


# --- nested work ----------------------------------------------------------------------------------------------------


async def test_waiting_for_ones_own_lease_is_refused_not_endless() -> None:
    meter = Meter(Ledger(UsageLimits("10")))
    with anyio.fail_after(5), pytest.raises(UsageLimitExceeded, match="waits for more itself"):
        async with meter.reserve(cost_usd=6), meter.reserve(cost_usd=6):
            raise AssertionError("it cannot have got there")
    assert meter.breach is not None


async def test_waiting_in_a_child_task_for_the_lease_around_it_is_refused() -> None:
    meter = Meter(Ledger(UsageLimits("10")))
    refused: list[UsageLimitExceeded] = []

    async def child() -> None:
        try:
            async with meter.reserve(cost_usd=3):
                await anyio.sleep(0.01)
        except UsageLimitExceeded as error:
            refused.append(error)

    with anyio.fail_after(5):
        async with meter.reserve(cost_usd=8), anyio.create_task_group() as group:
            group.start_soon(child)
            group.start_soon(child)
    assert len(refused) == 2


async def test_steps_that_each_hold_what_the_other_waits_for_do_not_hang() -> None:
    run = Ledger(UsageLimits("10"))
    outcomes: list[str] = []

    async def strand(name: str) -> None:
        meter = Meter(run)
        try:
            async with meter.reserve(cost_usd=5):
                await anyio.sleep(0.01)
                async with meter.reserve(cost_usd=5):
                    outcomes.append(f"{name} served")
        except UsageLimitExceeded:
            outcomes.append(f"{name} refused")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(strand, "a")
            group.start_soon(strand, "b")
    assert sorted(outcome.split()[1] for outcome in outcomes) in (["refused", "refused"], ["refused", "served"])


async def test_a_deadlock_within_a_steps_own_limit_is_found_while_others_are_busy() -> None:
    run = Ledger(UsageLimits("100"))
    busy = await hold(run, 10)
    meter = Meter(Ledger(UsageLimits("10"), run))
    with anyio.fail_after(5), pytest.raises(UsageLimitExceeded, match="of 10 USD"):
        async with meter.reserve(cost_usd=6), meter.reserve(cost_usd=6):
            raise AssertionError("it cannot have got there")
    run.close(busy, FREE)


async def test_nested_work_overtakes_the_queue_since_the_lease_around_it_holds_the_queue_up() -> None:
    ledger = Ledger(UsageLimits("10"))
    meter, other = Meter(ledger), Meter(ledger)
    served: list[str] = []

    async def large() -> None:
        await settled(lambda: ledger.reserved.cost_usd > 0)
        async with other.reserve(cost_usd=9):
            served.append("large")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(large)
            async with meter.reserve(cost_usd=6) as around:
                await settled(lambda: waiting(ledger) == 1)
                async with meter.reserve(cost_usd=3) as inside:
                    served.append("nested")
                    inside.release()
                around.release()
    assert served == ["nested", "large"]


async def test_a_nested_waiter_is_served_before_anyone_is_called_deadlocked() -> None:
    ledger = Ledger(UsageLimits("10"))
    outer, other = Meter(ledger), Meter(ledger)
    third = await hold(ledger, 4)
    served: list[str] = []

    async def large() -> None:
        await settled(lambda: ledger.reserved.cost_usd == 10)
        async with other.reserve(cost_usd=10):
            served.append("large")

    async def give_back() -> None:
        await settled(lambda: waiting(ledger) == 2)
        ledger.close(third, FREE)  # now only `outer` is open, and its own nested work fits

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(large)
            group.start_soon(give_back)
            async with outer.reserve(cost_usd=6) as around:
                await settled(lambda: waiting(ledger) == 1)
                async with outer.reserve(cost_usd=2) as inside:
                    served.append("nested")
                    inside.release()
                around.release()
    assert served == ["nested", "large"]


async def test_work_after_the_settle_of_the_lease_around_it_takes_its_turn() -> None:
    ledger = Ledger(UsageLimits("10"))
    meter, held = Meter(ledger), await hold(ledger, 6)
    served: list[str] = []

    async def large() -> None:
        grant = await hold(ledger, 9)
        served.append("large")
        ledger.close(grant, FREE)

    async def give_back() -> None:
        await settled(lambda: waiting(ledger) == 2)
        ledger.close(held, FREE)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(large)
            group.start_soon(give_back)
            async with meter.reserve(cost_usd=1) as around:
                await settled(lambda: waiting(ledger) == 1)
                around.release()
                async with meter.reserve(cost_usd=2):
                    served.append("late")
    assert served == ["large", "late"]


async def test_many_calls_of_one_step_wait_for_each_other_without_being_called_a_deadlock() -> None:
    meter = Meter(Ledger(UsageLimits("5")))
    peak, now, done = 0, 0, 0

    async def call() -> None:
        nonlocal peak, now, done
        async with meter.reserve(cost_usd=1) as lease:
            now += 1
            peak = max(peak, now)
            await anyio.sleep(0.001)
            now -= 1
            lease.settle(cost_usd="0.05")
            done += 1

    async with anyio.create_task_group() as group:
        for _ in range(80):
            group.start_soon(call)
    assert done == 80
    assert peak == 5 or meter.spent.cost_usd == Decimal("4.00")
    assert peak <= 5


# --- threads and loops ----------------------------------------------------------------------------------------------


class Witness:
    """Counts by itself what is under way and what was billed, and never trusts the ledger."""

    def __init__(self, limit: Decimal) -> None:
        self.limit = limit
        self.lock = Lock()
        self.out = Decimal(0)
        self.peak = Decimal(0)

    def change(self, amount: Decimal) -> None:
        with self.lock:
            self.out += amount
            self.peak = max(self.peak, self.out)


def strands(budget: Budget, witness: Witness, seed: int, meters: list[Meter]) -> Callable[[], Awaitable[None]]:
    async def one(chance: random.Random, meter: Meter) -> None:
        worst = Decimal(chance.randint(1, 300)) / 1000
        actual = worst * Decimal(chance.randint(0, 100)) / 100
        try:
            with anyio.move_on_after(chance.choice([0.001, 1, 1, 1])):
                async with meter.reserve(cost_usd=worst) as lease:
                    witness.change(worst)
                    lost = worst
                    try:
                        await anyio.sleep(chance.random() / 500)
                        if chance.random() < 0.1:
                            raise OSError("the line broke")
                        lost = actual
                    finally:
                        witness.change(lost - worst)
                        if lost is actual:
                            lease.settle(cost_usd=actual)
        except (UsageLimitExceeded, OSError):
            return

    async def main() -> None:
        meter = Meter(Ledger(UsageLimits("0.9"), budget))
        meters.append(meter)
        async with anyio.create_task_group() as group:
            for number in range(25):
                group.start_soon(one, random.Random(seed * 1000 + number), meter)

    return main


@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(n, marks=pytest.mark.soak) for n in range(5, 100))])
def test_threads_and_loops_that_share_a_budget_never_pass_its_limit(seed: int) -> None:
    limit = Decimal("1.5")
    budget, witness, meters = Budget(UsageLimits(limit)), Witness(limit), list[Meter]()

    def blocking() -> None:
        chance, meter = random.Random(seed), Meter(budget)
        meters.append(meter)
        for _ in range(20):
            worst = Decimal(chance.randint(1, 100)) / 1000
            try:
                with meter.reserve(cost_usd=worst) as lease:
                    witness.change(worst)
                    actual = worst / 4
                    witness.change(actual - worst)
                    lease.settle(cost_usd=actual)
            except UsageLimitExceeded:
                return

    loops = [
        Thread(target=anyio.run, args=(strands(budget, witness, 10 * seed + n, meters),), kwargs={"backend": backend})
        for n, backend in enumerate(("asyncio", "trio", "asyncio"))
    ]
    threads = [*loops, Thread(target=blocking), Thread(target=blocking)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert witness.peak <= limit
    assert budget.reserved == Charge()
    assert waiting(budget) == 0
    assert budget.spent.cost_usd == sum(meter.spent.cost_usd for meter in meters) == witness.out
    assert budget.spent.cost_usd > Decimal("0.2"), "the test must have done some work"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 100), st.integers(0, 6)),
        min_size=1,
        max_size=60,
    )
)
def test_no_order_of_takes_and_closes_breaks_the_invariant(acts: list[tuple[int, int, int, int]]) -> None:
    run = Ledger(UsageLimits("1"))
    ledgers = [run, Ledger(UsageLimits("0.5"), run), Ledger(UsageLimits("0.7"), Ledger(UsageLimits("0.8"), run))]
    opened: list[tuple[Ledger, Grant]] = []
    for which, amount, share, close in acts:
        ledger = ledgers[which]
        worst = Decimal(amount) / 100
        try:
            grant = ledger.take(usd(worst), None)
        except UsageLimitExceeded:
            grant = None
        if grant is not None:
            opened.append((ledger, grant))
        if opened and close < len(opened):
            owner, closing = opened.pop(close)
            owner.close(closing, used(closing.charge.cost_usd * share / 100))
        for each in (*ledgers, ledgers[2].parent):
            assert each is not None
            limit = each.limits.cost
            assert limit is not None
            assert each.spent.cost_usd + each.reserved.cost_usd <= limit
            assert each.exceeded() is None
    for owner, closing in opened:
        owner.close(closing, FREE)
    assert all(ledger.reserved.cost_usd == 0 for ledger in ledgers)


USD = st.sampled_from([Decimal(text) for text in ("0", "0.1", "0.2", "1", "1e-39", "9.9e-38", "9e39")])
LIMIT = st.none() | st.integers(0, 4)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.none() | USD, LIMIT, LIMIT), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), USD, st.integers(0, 2), st.integers(0, 2), st.integers(0, 9)), max_size=30),
)
def test_a_charge_is_let_in_where_its_room_holds_it_to_the_last_digit(limits: list[Any], acts: list[Any]) -> None:
    line: list[Ledger] = []
    for limit in limits:
        line.append(Ledger(UsageLimits(*limit), line[-1] if line else None))
    opened: list[tuple[Ledger, Grant]] = []
    for which, cost, tokens, requests, close in acts:
        ledger, charge = line[which % len(line)], Charge(cost, tokens, requests)
        fits = ledger.room().holds(charge)
        try:
            grant = ledger.take(charge, None)
        except UsageLimitExceeded:
            grant = None
        assert (grant is not None) is fits
        if grant is not None:
            opened.append((ledger, grant))
        if close < len(opened):
            owner, closing = opened.pop(close)
            owner.close(closing, Usage(closing.charge.tokens, 0, closing.charge.requests, closing.charge.cost_usd))
        held = [[Fraction(part) for part in grant.charge] for _, grant in opened]
        assert [*line[0].reserved] == [sum(parts) for parts in zip([0, 0, 0], *held, strict=True)]


@pytest.mark.filterwarnings("ignore")  # a loop that is closed with work in it
def test_what_is_granted_to_a_loop_that_was_closed_is_given_to_the_next() -> None:
    budget, kept, gone = Budget(UsageLimits("1")), list[object](), asyncio.new_event_loop()

    async def wait() -> None:
        kept.append(asyncio.ensure_future(budget.wait(usd("0.5"), budget)))
        await asyncio.sleep(0)

    held = budget.take(usd("0.8"), budget)
    assert held is not None
    gone.run_until_complete(wait())
    gone.close()
    budget.close(held, FREE)
    assert budget.spent.reserved_usd == 0
    assert budget.take(usd("1"), budget) is not None
