"""The governor's ledger: use is reserved before it happens, so `spent + reserved <= limit` holds at every instant.

A ledger has a parent: a step's limits stand under the run's, the run's under a shared `Budget`. An amount is reserved
in the whole line at once. What does not fit waits, first come first served, for open leases to settle; it is refused at
once only when it could not fit even if every open lease were given back, or when nobody but waiters could give back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from threading import Lock

import anyio
from anyio.lowlevel import current_token

from .errors import UsageLimitExceeded
from .usage import EXACT, Charge, Usage, UsageLimits

__all__ = ["Budget", "Fit", "Grant", "Ledger", "Room"]


@dataclass(frozen=True, slots=True)
class Room:
    """What may still be reserved: None is unlimited."""

    cost_usd: Decimal | None = None
    tokens: int | None = None
    requests: int | None = None

    def holds(self, charge: Charge) -> bool:
        """Whether `charge` fits; a part of it that is zero always fits."""
        return (
            (self.cost_usd is None or not charge.cost_usd or charge.cost_usd <= self.cost_usd)
            and (self.tokens is None or not charge.tokens or charge.tokens <= self.tokens)
            and (self.requests is None or not charge.requests or charge.requests <= self.requests)
        )

    def within(self, other: Room) -> Room:
        """The smaller of both in every part."""
        cost = self.cost_usd if other.cost_usd is None else other.cost_usd
        if self.cost_usd is not None and cost is not None:
            cost = min(cost, self.cost_usd)
        return Room(cost, _least(self.tokens, other.tokens), _least(self.requests, other.requests))


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


_NOTHING = Charge()

Fit = Callable[[Room], Charge | None]
"""Says what of a demand is taken where this much room is left; None when not even the least of it fits."""


@dataclass(slots=True, eq=False)
class Grant:
    """An open reservation: the charge it holds in every ledger of the line, and who holds it."""

    charge: Charge
    owner: object


class _Waiter:
    """A demand that did not fit yet. Woken from whatever thread frees room."""

    __slots__ = ("event", "fit", "grant", "ledger", "loop", "owner", "refusal")

    def __init__(self, ledger: Ledger, fit: Fit, owner: object) -> None:
        self.ledger = ledger
        self.fit = fit
        self.owner = owner
        self.event = anyio.Event()
        self.loop = current_token().native_token
        self.grant: Grant | None = None
        self.refusal: UsageLimitExceeded | None = None

    def wake(self) -> None:
        if isinstance(self.loop, asyncio.AbstractEventLoop):
            self.loop.call_soon_threadsafe(self.event.set)
        else:  # trio's token; anyio gives both behind one object but offers no call that does not block
            self.loop.run_sync_soon(self.event.set)  # type: ignore[attr-defined]


class _Queue:
    """What a whole line of ledgers shares: the lock and the waiters."""

    __slots__ = ("lock", "waiters")

    def __init__(self) -> None:
        self.lock = Lock()
        self.waiters: list[_Waiter] = []


class Ledger:
    """Reservations and spending under one set of limits.

    Args:
        limits: The limits; None is unlimited.
        parent: The ledger above, whose limits hold too.
    """

    def __init__(self, limits: UsageLimits | None = None, parent: Ledger | None = None) -> None:
        self.limits = limits or UsageLimits()
        self.parent = parent
        self.spent = Usage()
        self.warned: set[str] = set()
        self._open: set[Grant] = set()
        self._queue: _Queue = parent._queue if parent is not None else _Queue()
        self._held = Charge()

    def line(self) -> Iterator[Ledger]:
        """This ledger and all above it."""
        ledger: Ledger | None = self
        while ledger is not None:
            yield ledger
            ledger = ledger.parent

    @property
    def reserved(self) -> Charge:
        """What open reservations hold at this moment."""
        return self._held

    @property
    def money_limited(self) -> bool:
        """Whether a money limit holds anywhere in the line."""
        return any(ledger.limits.cost is not None for ledger in self.line())

    def room(self) -> Room:
        """What may be reserved now, under every limit of the line."""
        room = self._own_room(reserved=True)
        if self.parent is not None:
            room = room.within(self.parent.room())
        return room

    def take(self, fit: Fit, owner: object) -> Grant | None:
        """Reserve what `fit` takes if that is possible now and nobody waits; None when it has to wait.

        Raises:
            UsageLimitExceeded: It cannot fit, whatever open leases give back.
        """
        with self._queue.lock:
            if not self._queue.waiters:
                charge = fit(self.room())
                if charge is not None:
                    return self._open_grant(charge, owner)
            refusal = self._hopeless(fit, owner)
        if refusal is not None:
            raise refusal
        return None

    async def wait(self, fit: Fit, owner: object) -> Grant:
        """Reserve what `fit` takes, in turn, once open leases left room for it.

        Raises:
            UsageLimitExceeded: It turned out that it cannot fit.
        """
        waiter = _Waiter(self, fit, owner)
        with self._queue.lock:
            self._queue.waiters.append(waiter)
            woken = self._pump()
        _wake(woken)
        try:
            await waiter.event.wait()
        except BaseException:  # a cancel: what was granted meanwhile must not stay reserved
            self._leave(waiter)
            raise
        if waiter.refusal is not None:
            raise waiter.refusal
        assert waiter.grant is not None
        return waiter.grant

    def close(self, grant: Grant, used: Usage) -> None:
        """Give a reservation back and book what was really used; wakes those who wait. A second close does nothing."""
        with self._queue.lock:
            if grant not in self._open:
                return
            for ledger in self.line():
                ledger._release(grant)
                ledger.spent.add(used)
            woken = self._pump() if self._queue.waiters else []
        _wake(woken)

    def book(self, used: Usage) -> None:
        """Count use that could not be reserved."""
        with self._queue.lock:
            for ledger in self.line():
                ledger.spent.add(used)
            woken = self._pump() if self._queue.waiters else []
        _wake(woken)

    def exceeded(self) -> UsageLimitExceeded | None:
        """The error for a limit of the line that more was spent than it allows, if there is one."""
        for ledger in self.line():
            room = ledger._own_room(reserved=False)
            for name, left in (
                ("total_cost_usd_limit", room.cost_usd),
                ("total_tokens_limit", room.tokens),
                ("requests_limit", room.requests),
            ):
                if left is not None and left < 0:
                    return ledger._refusal(name, "more was used than the limit allows")
        return None

    def warnings(self) -> list[tuple[str, float]]:
        """The limits of which the share `warn_at` is used, each reported once per ledger."""
        found = []
        for ledger in self.line():
            for name, used, limit in (
                ("total_cost_usd_limit", ledger.spent.cost_usd, ledger.limits.cost),
                ("total_tokens_limit", ledger.spent.total_tokens, ledger.limits.total_tokens_limit),
                ("requests_limit", ledger.spent.requests, ledger.limits.requests_limit),
            ):
                if limit and name not in ledger.warned and float(used / limit) >= ledger.limits.warn_at:
                    ledger.warned.add(name)
                    found.append((name, float(used / limit)))
        return found

    # --- under the lock ---------------------------------------------------------------------------------------------

    def _own_room(self, *, reserved: bool) -> Room:
        limits, spent = self.limits, self.spent
        held = self._held if reserved else _NOTHING
        cost = tokens = requests = None
        if limits.cost is not None:
            cost = EXACT.subtract(limits.cost, EXACT.add(spent.cost_usd, held.cost_usd))
        if limits.total_tokens_limit is not None:
            tokens = limits.total_tokens_limit - spent.total_tokens - held.tokens
        if limits.requests_limit is not None:
            requests = limits.requests_limit - spent.requests - held.requests
        return Room(cost, tokens, requests)

    def _room_without_leases(self) -> Room:
        room = self._own_room(reserved=False)
        return room if self.parent is None else room.within(self.parent._room_without_leases())

    def _open_grant(self, charge: Charge, owner: object) -> Grant:
        grant = Grant(charge, owner)
        for ledger in self.line():
            ledger._hold(charge, +1)
            ledger._open.add(grant)
        return grant

    def _release(self, grant: Grant) -> None:
        self._hold(grant.charge, -1)
        self._open.discard(grant)

    def _hold(self, charge: Charge, sign: int) -> None:
        held = self._held
        cost = EXACT.add(held.cost_usd, charge.cost_usd if sign > 0 else -charge.cost_usd)
        self._held = Charge(cost, held.tokens + sign * charge.tokens, held.requests + sign * charge.requests)
        self.spent.reserved_usd = cost

    def _hopeless(self, fit: Fit, owner: object) -> UsageLimitExceeded | None:
        """The refusal, when waiting cannot help."""
        if fit(self._room_without_leases()) is None:
            return self._tightest(fit, "what is asked for does not fit into what is left")
        holders = {id(grant.owner) for ledger in self.line() for grant in ledger._open}
        stuck = {id(waiter.owner) for waiter in self._queue.waiters} | {id(owner)}
        if holders and holders <= stuck:
            return self._tightest(fit, "all that is reserved is held by steps that wait for more themselves")
        return None

    def _tightest(self, fit: Fit, why: str) -> UsageLimitExceeded:
        """The refusal, naming the first limit without which the demand would fit."""
        for ledger in self.line():
            limits, room = ledger.limits, ledger._own_room(reserved=True)
            for name, alone in (
                ("total_cost_usd_limit", Room(cost_usd=room.cost_usd)),
                ("total_tokens_limit", Room(tokens=room.tokens)),
                ("requests_limit", Room(requests=room.requests)),
            ):
                limited = limits.cost if name == "total_cost_usd_limit" else getattr(limits, name)
                if limited is not None and fit(alone) is None:
                    return ledger._refusal(name, why)
        return self._refusal("usage limits", why)

    def _refusal(self, name: str, why: str) -> UsageLimitExceeded:
        spent, held = self.spent, self.reserved
        value, used, reserved = {
            "total_cost_usd_limit": (f"{self.limits.cost} USD", f"{spent.cost_usd} USD", f"{held.cost_usd} USD"),
            "total_tokens_limit": (
                f"{self.limits.total_tokens_limit} tokens",
                str(spent.total_tokens),
                str(held.tokens),
            ),
            "requests_limit": (f"{self.limits.requests_limit} requests", str(spent.requests), str(held.requests)),
        }.get(name, ("0", "-", "-"))
        return UsageLimitExceeded(name, value, f"{why} (spent {used}, reserved {reserved})")

    def _pump(self) -> list[_Waiter]:
        """Serve waiters in order; returns those to wake. One that must go on waiting holds back all in its line."""
        done: list[_Waiter] = []
        blocked: set[int] = set()
        for waiter in list(self._queue.waiters):
            line = [id(ledger) for ledger in waiter.ledger.line()]
            if not blocked.isdisjoint(line):
                continue
            charge = waiter.fit(waiter.ledger.room())
            if charge is not None:
                waiter.grant = waiter.ledger._open_grant(charge, waiter.owner)
            else:
                waiter.refusal = waiter.ledger._hopeless(waiter.fit, waiter.owner)
            if waiter.grant is None and waiter.refusal is None:
                blocked.add(line[0])
                blocked.update(id(x) for x in waiter.ledger.line() if waiter.fit(x._own_room(reserved=True)) is None)
                continue
            self._queue.waiters.remove(waiter)
            done.append(waiter)
        return done

    def _leave(self, waiter: _Waiter) -> None:
        with self._queue.lock:
            if waiter in self._queue.waiters:
                self._queue.waiters.remove(waiter)
            woken = self._pump()
        _wake(woken)
        if waiter.grant is not None:
            waiter.ledger.close(waiter.grant, Usage())


def _wake(waiters: list[_Waiter]) -> None:
    for waiter in waiters:
        waiter.wake()


class Budget(Ledger):
    """One ledger shared by every run that is given it: `Flujo(..., limits=Budget(UsageLimits(...)))`.

    Runs in several threads and event loops may share it.
    """

    def __init__(self, limits: UsageLimits, parent: Budget | None = None) -> None:
        super().__init__(limits, parent)
