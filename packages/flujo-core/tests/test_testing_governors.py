"""The rules for governors: core's own keeps them, faulty ones are found, and a run asks one that it is given."""

from __future__ import annotations

import random
import threading
from collections import Counter
from decimal import Decimal
from typing import Any

import anyio
import pytest

from flujo.core import (
    Budget,
    Charge,
    ConfigurationError,
    Flujo,
    Governor,
    Map,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    Price,
    RunContext,
    Step,
    Usage,
    UsageLimitExceeded,
    UsageLimits,
)
from flujo.core.testing import NotConforming, assert_conforms, governor_rules
from flujo.core.testing.governor_rules import GOVERNOR_RULES

EVERY = tuple(rule.__name__ for rule in GOVERNOR_RULES)


def test_a_budget_is_a_governor_and_keeps_every_rule() -> None:
    assert isinstance(Budget(), Governor)
    assert assert_conforms(Budget) == EVERY
    assert assert_conforms(lambda limits: Budget(limits), Governor, loops=["trio"]) == EVERY


class Quota(Governor):
    """A governor that somebody else may write: a Budget inside, so that one fault at a time can be planted."""

    def __init__(self, limits: UsageLimits) -> None:
        self.inner = Budget(limits)
        self.settled: set[int] = set()

    @property
    def limits(self) -> UsageLimits:
        return self.inner.limits

    async def reserve(self, worst: Charge) -> Any:
        return await self.inner.reserve(worst)

    def settle(self, lease: Any, used: Usage) -> None:
        self.inner.settle(lease, used)

    def book(self, used: Usage) -> None:
        self.inner.book(used)


def test_a_governor_of_somebody_else_may_keep_them_too() -> None:
    assert assert_conforms(Quota) == EVERY


class CountsNoReservation(Quota):
    async def reserve(self, worst: Charge) -> Any:
        self.inner.settle(await self.inner.reserve(worst), Usage())
        return worst

    def settle(self, lease: Any, used: Usage) -> None:
        if id(lease) not in self.settled:
            self.settled.add(id(lease))
            self.inner.book(used)


class RefusesInsteadOfWaiting(Quota):
    async def reserve(self, worst: Charge) -> Any:
        grant = self.inner.take(lambda room: worst if room.holds(worst) else None, self)
        if grant is None:
            raise UsageLimitExceeded("total_cost_usd_limit", "x", "no room")
        return grant


class WaitsForEver(Quota):
    async def reserve(self, worst: Charge) -> Any:
        try:
            return await self.inner.reserve(worst)
        except UsageLimitExceeded:
            await anyio.sleep_forever()


class SettlesTwice(Quota):
    def settle(self, lease: Any, used: Usage) -> None:
        if self.inner.close(lease, used):
            return
        self.inner.book(used)


class ForgetsTheRest(Quota):
    def settle(self, lease: Any, used: Usage) -> None:
        self.inner.settle(lease, Usage(cost_usd=max(lease.charge.cost_usd, used.cost_usd), requests=1))


class IgnoresOvershoot(Quota):
    def settle(self, lease: Any, used: Usage) -> None:
        least = min(used.cost_usd, lease.charge.cost_usd)
        self.inner.settle(lease, Usage(used.input_tokens, 0, used.requests, least))


class LosesWhatIsBooked(Quota):
    def book(self, used: Usage) -> None:
        pass


class BooksOnlyMoney(Quota):
    def book(self, used: Usage) -> None:
        self.inner.book(Usage(cost_usd=used.cost_usd))


class GivesNoTokensBack(Quota):
    def settle(self, lease: Any, used: Usage) -> None:
        self.inner.settle(lease, Usage(0, lease.charge.tokens, used.requests, used.cost_usd))


class KeepsWhatACancelledOneWasGiven(Quota):
    async def reserve(self, worst: Charge) -> Any:
        grant = await self.inner.reserve(worst)
        await anyio.sleep(0)  # a cancel here loses it
        return grant


class Own(Quota):
    """A ledger of its own: polls for room, so that nobody waits in turn."""

    def __init__(self, limits: UsageLimits) -> None:
        super().__init__(limits)
        self.spent: Any = Decimal(0)
        self.held: Any = Decimal(0)
        self.lock = threading.Lock()

    def limit(self) -> Any:
        return self.inner.limits.cost

    async def reserve(self, worst: Charge) -> Any:
        cost = self.number(worst.cost_usd)
        while True:
            with self.lock:
                limit = self.limit()
                if limit is None or not cost or self.spent + self.held + cost <= limit:
                    self.held += cost
                    return [cost]
                if self.spent + cost > limit:
                    raise UsageLimitExceeded("total_cost_usd_limit", str(limit), "it does not fit")
            await anyio.sleep(0.001)

    def number(self, amount: Decimal) -> Any:
        return amount

    def settle(self, lease: Any, used: Usage) -> None:
        with self.lock:
            if lease:
                self.held -= lease.pop()
                self.spent += self.number(used.cost_usd)

    def book(self, used: Usage) -> None:
        self.spent += self.number(used.cost_usd)


class CountsFloats(Own):
    def number(self, amount: Decimal) -> Any:
        return float(amount)

    def limit(self) -> Any:
        return None if self.inner.limits.cost is None else float(self.inner.limits.cost)


class LooksAndThenTakes(Own):
    async def reserve(self, worst: Charge) -> Any:
        cost = worst.cost_usd
        while True:
            limit = self.limit()
            if limit is None or not cost or self.spent + self.held + cost <= limit:
                await anyio.sleep(0)  # as for a server: meanwhile others look too
                self.held += cost
                return [cost]
            if self.spent + cost > limit:
                raise UsageLimitExceeded("total_cost_usd_limit", str(limit), "it does not fit")
            await anyio.sleep(0.001)


class CountsCents(Quota):
    def settle(self, lease: Any, used: Usage) -> None:
        self.inner.settle(lease, Usage(cost_usd=round(used.cost_usd, 2), requests=used.requests))


class TellsNoLimits(Quota):
    @property
    def limits(self) -> UsageLimits:
        return UsageLimits()


FAULTY = [
    (CountsCents, "sums_are_exact"),
    (TellsNoLimits, "limits_are_told"),
    (CountsNoReservation, "tasks_hold_no_more_than_the_limit"),
    (RefusesInsteadOfWaiting, "settling_gives_the_rest_back"),
    (WaitsForEver, "what_never_fits_is_refused"),
    (SettlesTwice, "a_lease_settles_once"),
    (ForgetsTheRest, "settling_gives_the_rest_back"),
    (IgnoresOvershoot, "more_than_reserved_is_counted"),
    (LosesWhatIsBooked, "more_than_reserved_is_counted"),
    (BooksOnlyMoney, "tokens_and_requests_count_as_money_does"),
    (GivesNoTokensBack, "tokens_and_requests_count_as_money_does"),
    (KeepsWhatACancelledOneWasGiven, "a_cancel_leaves_nothing_held"),
    (Own, "first_come_first_served"),
    (CountsFloats, "sums_are_exact"),
    (LooksAndThenTakes, "tasks_hold_no_more_than_the_limit"),
]


@pytest.mark.parametrize(("faulty", "rule"), FAULTY, ids=[kind.__name__ for kind, _ in FAULTY])
def test_each_faulty_governor_is_found_by_the_rule_for_its_fault(
    faulty: Any, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(governor_rules, "PATIENCE_S", 0.3)
    with pytest.raises(NotConforming) as caught:
        assert_conforms(faulty, loops=["asyncio"])
    assert rule in caught.value.broken, caught.value


def test_every_fault_that_was_planted_is_told_apart() -> None:
    assert max(Counter(rule for _, rule in FAULTY).values()) <= 2


# --- a governor of a run ----------------------------------------------------------------------------------------------

ANY = pytest.mark.anyio


def asks(price: str = "1") -> Step:
    async def ask(value: int, ctx: RunContext) -> int:
        async def send(request: ModelRequest) -> ModelResponse:
            await anyio.sleep(random.random() / 500)
            return ModelResponse(content="x", usage=ModelUsage(output_tokens=1, cost_usd=Decimal(price)))

        request = ModelRequest(model="m", messages=(Message(role="user", content="hi"),))
        await ctx.call_model(request, send, price=Price(request_usd=Decimal(price)))
        return value

    return Step(ask)


@ANY
async def test_runs_of_several_flujos_reserve_from_the_governor_they_are_given() -> None:
    quota = Quota(UsageLimits("7"))
    flujos = [Flujo(Map(asks(), on_failure="collect"), limits=quota) for _ in range(3)]
    results = {}

    async def run(number: int) -> None:
        results[number] = await flujos[number].run_async(list(range(5)))

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(run, number)
    assert sum(result.total_cost_usd for result in results.values()) == 7
    assert (quota.inner.spent.cost_usd, quota.inner.spent.reserved_usd) == (7, 0)
    assert "stopped" in {result.status for result in results.values()}


@ANY
async def test_all_ways_of_using_reach_the_governor_and_give_back_what_was_not_used() -> None:
    quota = Quota(UsageLimits("10"))

    async def free_and_failed(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd=3) as lease:
            lease.release()
        async with ctx.usage.reserve(cost_usd=3):
            pass  # unsettled: it counts in full
        ctx.usage.record(cost_usd=1)
        return value

    def in_a_thread(value: int, ctx: RunContext) -> int:
        with ctx.usage.reserve(cost_usd=2) as lease:
            lease.settle(cost_usd="0.5")
        return value

    result = await Flujo(Step(free_and_failed) >> Step(in_a_thread), limits=quota).run_async(1)
    assert result.status == "completed", result.error
    assert quota.inner.spent.cost_usd == result.total_cost_usd == Decimal("4.5")
    assert quota.inner.spent.reserved_usd == 0


@ANY
@pytest.mark.parametrize(
    "fault", [UsageLimitExceeded("total_cost_usd_limit", "7 USD", "the fleet spent it"), OSError("down")]
)
async def test_a_governor_that_refuses_or_fails_lets_nothing_through_and_holds_nothing(fault: Exception) -> None:
    class Refuses(Quota):
        async def reserve(self, worst: Charge) -> Any:
            raise fault

    step = asks()
    result = await Flujo(step, limits=Refuses(UsageLimits("7"))).run_async(1)
    assert result.status == ("stopped" if isinstance(fault, UsageLimitExceeded) else "failed")
    assert (result.total_cost_usd, result.usage.reserved_usd) == (0, 0)
    assert str(fault) in str(result.error)


@ANY
async def test_an_own_limit_holds_beside_a_governor_and_a_price_must_be_known() -> None:
    quota = Quota(UsageLimits("100"))
    result = await Flujo(asks(), limits=quota).run_async(1, limits=UsageLimits("0.5"))
    assert (result.status, quota.inner.spent.cost_usd) == ("stopped", 0)

    async def unpriced(value: int, ctx: RunContext) -> int:
        await ctx.call_model(ModelRequest(model="m", messages=()), lambda request: None)  # type: ignore[arg-type, return-value]
        return value

    result = await Flujo(Step(unpriced), limits=quota).run_async(1)
    assert "price of model 'm' is unknown" in str(result.error)
    with pytest.raises(ConfigurationError, match="or a Governor"):
        Flujo(asks(), limits="7")  # type: ignore[arg-type]


@ANY
async def test_a_call_is_counted_though_the_governor_fails_to_settle_it() -> None:
    class Down(Quota):
        def settle(self, lease: Any, used: Usage) -> None:
            raise ConnectionError("quota is down")

    result = await Flujo(asks(), limits=Down(UsageLimits(requests_limit=9))).run_async(1)
    assert result.status == "failed"
    assert (result.usage.requests, result.total_cost_usd, result.usage.reserved_usd) == (1, 1, 0)
