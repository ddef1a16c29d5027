"""The rules for a `Governor`."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import current_token

from flujo.core import Charge, Governor, Usage, UsageLimitExceeded, UsageLimits

from .verdict import Broken, demand

PATIENCE_S = 5.0
"""Seconds after which what should happen soon is held not to happen."""

SHORT_S = 0.05
"""How long a demand is watched that has to wait."""


def usd(amount: object) -> Charge:
    """A demand for so much money."""
    return Charge(Decimal(str(amount)), 0, 1)


def spent(amount: object) -> Usage:
    """Use of so much money."""
    return Usage(cost_usd=Decimal(str(amount)), requests=1)


class GovernorTrial:
    """What makes governors under test, each with limits of its own."""

    def __init__(self, make: Callable[[UsageLimits], Governor]) -> None:
        self._make = make

    def of(self, usd: object = None, **limits: Any) -> Governor:
        """A fresh governor."""
        return self._make(UsageLimits(None if usd is None else str(usd), **limits))


async def at_once(governor: Governor, charge: Charge, why: str) -> Any:
    """Reserve what fits, and see that it does not wait or is refused."""
    lease: Any = None
    with anyio.move_on_after(PATIENCE_S) as limit:
        try:
            lease = await governor.reserve(charge)
        except UsageLimitExceeded as error:
            raise Broken(f"{charge} is refused: {why}") from error
    demand(not limit.cancelled_caught, f"{charge} waits: {why}")
    return lease


async def refused(governor: Governor, charge: Charge, why: str) -> None:
    """See that a demand is refused, and soon."""
    with anyio.move_on_after(PATIENCE_S) as limit:
        try:
            await governor.reserve(charge)
        except UsageLimitExceeded:
            return
    demand(not limit.cancelled_caught, f"{charge} waits, for nothing: {why}")
    raise Broken(f"{charge} is admitted: {why}")


async def waits(governor: Governor, charge: Charge, why: str) -> None:
    """See that a demand waits; it is cancelled then."""
    with anyio.move_on_after(SHORT_S) as limit:
        try:
            await governor.reserve(charge)
        except UsageLimitExceeded as error:
            raise Broken(f"{charge} is refused, and could have waited: {why}") from error
    demand(limit.cancelled_caught, f"{charge} is admitted: {why}")


async def exactly_the_limit_fits(trial: GovernorTrial) -> None:
    """What is reserved may be all of a limit, in each of its parts, and no more."""
    for limits, charge in (
        ({"usd": "1"}, usd("1")),
        ({"total_tokens_limit": 10}, Charge(Decimal(0), 10, 1)),
        ({"requests_limit": 1}, Charge(Decimal(0), 0, 1)),
    ):
        governor = trial.of(**limits)
        lease = await at_once(governor, charge, "it is all of the limit")
        await waits(governor, charge, "all of the limit is held")
        governor.settle(lease, Usage(charge.tokens, 0, 1, charge.cost_usd))
        await refused(governor, charge, "all of the limit is spent")


async def none_is_unlimited(trial: GovernorTrial) -> None:
    """Where there is no limit everything is admitted."""
    governor = trial.of()
    for _ in range(3):
        await at_once(governor, Charge(Decimal(10) ** 9, 10**12, 10**6), "nothing is limited")


async def zero_admits_what_is_free(trial: GovernorTrial) -> None:
    """A limit of 0 lets only pass what costs nothing; one that is used up, too."""
    governor = trial.of("0")
    await at_once(governor, Charge(), "it is free")
    await refused(governor, usd("0.000001"), "the limit is 0")
    used_up = trial.of("1")
    used_up.book(spent("1"))
    await at_once(used_up, Charge(Decimal(0), 5, 1), "it is free")


async def what_never_fits_is_refused(trial: GovernorTrial) -> None:
    """A demand above the limit, or above what is left of it, is refused and not left to wait."""
    governor = trial.of("1")
    await refused(governor, usd("1.01"), "it is more than the limit")
    lease = await at_once(governor, usd("0.6"), "the limit is free")
    governor.settle(lease, spent("0.6"))
    await refused(governor, usd("0.41"), "it is more than what is left")
    await at_once(governor, usd("0.4"), "it is all that is left")


async def settling_gives_the_rest_back(trial: GovernorTrial) -> None:
    """What was held and not used can be reserved again, at once by who waits for it."""
    governor = trial.of("1")
    lease = await at_once(governor, usd("0.9"), "the limit is free")
    got: list[Any] = []

    async def other() -> None:
        got.append(await governor.reserve(usd("0.8")))

    with anyio.move_on_after(PATIENCE_S) as limit:
        async with anyio.create_task_group() as group:
            group.start_soon(other)
            await anyio.sleep(SHORT_S)
            demand(not got, "0.8 is admitted beside 0.9 under a limit of 1")
            governor.settle(lease, spent("0.1"))
    demand(not limit.cancelled_caught and got != [], "who waited is not woken when a lease is settled")


async def a_lease_settles_once(trial: GovernorTrial) -> None:
    """A second settle does nothing; a lease of which nothing was used gives all back."""
    governor = trial.of("1")
    lease = await at_once(governor, usd("0.5"), "the limit is free")
    governor.settle(lease, spent("0.5"))
    governor.settle(lease, spent("0.5"))
    governor.settle(lease, Usage())
    again = await at_once(governor, usd("0.5"), "half was spent, once")
    governor.settle(again, Usage())
    governor.settle(again, Usage())
    await at_once(governor, usd("0.5"), "nothing was used of what was given back")
    await waits(governor, usd("0.1"), "half is spent and half is held")


async def first_come_first_served(trial: GovernorTrial) -> None:
    """A small demand does not overtake a large one that came before it."""
    governor = trial.of("10")
    lease = await at_once(governor, usd("6"), "the limit is free")
    order: list[str] = []

    async def want(name: str, amount: int) -> None:
        held = await governor.reserve(usd(amount))
        order.append(name)
        await anyio.sleep(0)
        governor.settle(held, Usage())

    with anyio.move_on_after(PATIENCE_S) as limit:
        async with anyio.create_task_group() as group:
            for name, amount in (("large", 9), ("small", 2), ("second", 9)):
                group.start_soon(want, name, amount)
                await anyio.sleep(SHORT_S / 5)
            demand(not order, f"{order} overtook a demand that came before")
            governor.settle(lease, Usage())
    demand(not limit.cancelled_caught, f"only {order} of three were served in the end")
    demand(order == ["large", "small", "second"], f"they were served in the order {order}")


async def waiting_in_vain_ends(trial: GovernorTrial) -> None:
    """Who waits is refused once it turns out that it cannot fit any more."""
    governor = trial.of("10")
    lease = await at_once(governor, usd("6"), "the limit is free")
    refusals: list[str] = []

    async def want() -> None:
        try:
            await governor.reserve(usd(5))
        except UsageLimitExceeded as error:
            refusals.append(error.limit)

    with anyio.move_on_after(PATIENCE_S) as limit:
        async with anyio.create_task_group() as group:
            group.start_soon(want)
            await anyio.sleep(SHORT_S)
            governor.settle(lease, spent("6"))
    demand(not limit.cancelled_caught, "5 still wait when 6 of 10 are spent")
    demand(refusals == ["total_cost_usd_limit"], f"5 are not refused by that limit when 6 of 10 are spent: {refusals}")


async def more_than_reserved_is_counted(trial: GovernorTrial) -> None:
    """Use beyond the lease counts, and so does use that was never reserved."""
    governor = trial.of("1")
    lease = await at_once(governor, usd("0.5"), "the limit is free")
    governor.settle(lease, spent("0.8"))
    await refused(governor, usd("0.3"), "0.8 were used")
    governor.book(spent("0.9"))
    await refused(governor, usd("0.01"), "more than the limit is spent")


async def tokens_and_requests_count_as_money_does(trial: GovernorTrial) -> None:
    """Of tokens and requests, too, what was not used is given back, and what was booked counts."""
    for limits, charge, used in (
        ({"total_tokens_limit": 10}, Charge(Decimal(0), 4, 1), Usage(1, 2, 1)),
        ({"requests_limit": 10}, Charge(Decimal(0), 0, 4), Usage(requests=3)),
    ):
        governor = trial.of(**limits)
        for _ in range(2):
            governor.settle(await at_once(governor, charge, "at most 3 of 10 are used"), used)
        governor.settle(await at_once(governor, charge, "6 of 10 are used"), Usage())
        governor.book(used)
        await refused(governor, charge, "9 of 10 are used")


async def sums_are_exact(trial: GovernorTrial) -> None:
    """A thousand times a tenth is a hundred, as no float says; so are calls that cost far less than a cent."""
    for limit, each in (("100", "0.1"), ("0.0007", "0.0000007")):
        governor = trial.of(limit)
        for _ in range(1000):
            governor.settle(await at_once(governor, usd(each), "less than the limit is spent"), spent(each))
        await refused(governor, Charge(Decimal("1e-9"), 0, 1), f"1000 times {each}, all of the limit, is spent")


async def limits_are_told(trial: GovernorTrial) -> None:
    """`limits` are those that it was made with: a call is fitted to them before it asks."""
    for limits in (UsageLimits("0.50", 1000, 7), UsageLimits()):
        governor = trial.of(
            limits.cost, total_tokens_limit=limits.total_tokens_limit, requests_limit=limits.requests_limit
        )
        told: Any = getattr(governor, "limits", None)
        demand(isinstance(told, UsageLimits), f"its limits are a {type(told).__name__}, no UsageLimits")
        same = (told.cost, told.total_tokens_limit, told.requests_limit)
        made = (limits.cost, limits.total_tokens_limit, limits.requests_limit)
        demand(same == made, f"it was made with {limits}, and says {told}")


async def a_cancel_leaves_nothing_held(trial: GovernorTrial) -> None:
    """Whoever is cancelled, while it waits or just as it is served, holds nothing and stands in nobody's way."""
    governor = trial.of("5")
    for turns in range(8):
        for waits in (False, True):
            await _cancelled_after(governor, turns, waits=waits)
            why = f"who was to reserve was cancelled {turns} turns of the loop later"
            governor.settle(await at_once(governor, usd(5), why), Usage())
    chance = random.Random(7)

    async def work() -> None:
        with anyio.move_on_after(chance.random() * 0.004):
            lease = await governor.reserve(usd(chance.choice((1, 2, 5))))
            try:
                await anyio.sleep(chance.random() * 0.002)
            finally:
                governor.settle(lease, Usage())

    with anyio.move_on_after(2 * PATIENCE_S) as limit:
        async with anyio.create_task_group() as group:
            for _ in range(150):
                group.start_soon(work)
    demand(not limit.cancelled_caught, "demands hang after others were cancelled")
    await at_once(governor, usd(5), "all who held anything gave it back or were cancelled")


async def _cancelled_after(governor: Governor, turns: int, *, waits: bool) -> None:
    """Cancel a demand some turns of the event loop after it began, or after what it waited for was given back."""
    held = await governor.reserve(usd(5)) if waits else None
    scope = anyio.CancelScope()

    async def work() -> None:
        with scope:
            governor.settle(await governor.reserve(usd(5)), Usage())

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        if held is not None:
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            governor.settle(held, Usage())
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        scope.cancel()


class _Held:
    """How much is held at a time, as the callers see it."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def add(self, amount: int) -> None:
        """Note that more, or less, is held."""
        with self._lock:
            self.now += amount
            self.most = max(self.most, self.now)

    async def use(self, governor: Governor, rounds: int) -> None:
        """Reserve and settle, again and again."""
        for _ in range(rounds):
            lease = await governor.reserve(usd(1))
            self.add(1)
            await anyio.sleep(0)
            self.add(-1)
            governor.settle(lease, Usage(requests=1))


async def tasks_hold_no_more_than_the_limit(trial: GovernorTrial) -> None:
    """A hundred tasks at once: what is held is never above the limit, and all have their turn."""
    governor, held = trial.of("5"), _Held()
    with anyio.move_on_after(3 * PATIENCE_S) as limit:
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(held.use, governor, 3)
    demand(held.most <= 5, f"{held.most} are held under a limit of 5")
    demand(not limit.cancelled_caught, "not all demands were served though all gave back what they held")


async def threads_hold_no_more_than_the_limit(trial: GovernorTrial) -> None:
    """The same over threads, each with an event loop of its own."""
    governor, held = trial.of("2"), _Held()
    kind = "asyncio" if isinstance(current_token().native_token, asyncio.AbstractEventLoop) else "trio"
    faults: list[str] = []

    def thread() -> None:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(kind))
            try:
                portal.call(_limited, held, governor)
            except BaseException as error:  # whatever ends a thread is a fault of what it uses
                faults.append(repr(error))

    def all_of_them() -> None:
        threads = [threading.Thread(target=thread, daemon=True) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(3 * PATIENCE_S)

    await anyio.to_thread.run_sync(all_of_them)
    demand(not faults, f"it fails in threads: {faults[:1]}")
    demand(held.most <= 2, f"{held.most} are held under a limit of 2")


async def _limited(held: _Held, governor: Governor) -> None:
    with anyio.fail_after(2 * PATIENCE_S):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(held.use, governor, 10)


GovernorRule = Callable[[GovernorTrial], Any]

GOVERNOR_RULES: tuple[GovernorRule, ...] = (
    exactly_the_limit_fits,
    none_is_unlimited,
    zero_admits_what_is_free,
    what_never_fits_is_refused,
    settling_gives_the_rest_back,
    a_lease_settles_once,
    first_come_first_served,
    waiting_in_vain_ends,
    more_than_reserved_is_counted,
    tokens_and_requests_count_as_money_does,
    sums_are_exact,
    limits_are_told,
    a_cancel_leaves_nothing_held,
    tasks_hold_no_more_than_the_limit,
    threads_hold_no_more_than_the_limit,
)
