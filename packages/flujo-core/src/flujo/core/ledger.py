"""The governor's ledger: use is reserved before it happens, so `spent + reserved <= limit` holds at every instant.

A ledger has a parent: a step's limits stand under the run's, the run's under a shared `Budget`. An amount is reserved
in the whole line at once. What does not fit waits, first come first served, for open leases to settle; it is refused at
once only when it could not fit even if every open lease were given back, or when only waiters could give back.

Work inside a lease (`async with ctx.usage.reserve(...)` around another) is nested: the lease around it cannot settle
before it. Nested demands may overtake the queue, and only they can make waiting vain: see `Ledger._deadlocked`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import reduce
from threading import Event as ThreadEvent
from threading import Lock
from typing import Any

from .errors import FlujoError, UsageLimitExceeded
from .grants import ENCLOSING, FULL, STUCK, Governor, Grant, Queue, Waiter
from .once import once
from .usage import EXACT, ZERO, Charge, Fit, Room, Standing, Usage, UsageLimits, lowest
from .wakeup import LoopEvent

__all__ = ["ENCLOSING", "Fit", "Grant", "Ledger", "Room"]


_NO_LIMITS = UsageLimits()
_minus, _plus, _tuple = EXACT.subtract, EXACT.add, tuple.__new__  # looked up once: they are asked for each lease

_MAKES_QUEUE = Lock()


class Ledger:
    """Reservations and spending under one set of limits. Any thread may use it.

    Args:
        limits: The limits; None is unlimited.
        parent: The ledger above, whose limits hold too.
        governor: Whom to ask beyond the ledgers; that of the parent holds.
    """

    is_shared: bool = False  # by several runs

    def __init__(
        self, limits: UsageLimits | None = None, parent: Ledger | None = None, governor: Governor | None = None
    ) -> None:
        self.limits: UsageLimits = limits or _NO_LIMITS
        self.parent: Ledger | None = parent
        self.governor: Governor | None = governor if parent is None else parent.governor
        self.spent: Usage = Usage()
        self.breach: UsageLimitExceeded | None = None  # of a run, once a call used more than it had reserved
        self._most = (self.limits.cost, self.limits.total_tokens_limit, self.limits.requests_limit)
        self._warned: frozenset[str] = frozenset()
        self._held_tokens = 0  # the USD that are held stand in spent.reserved_usd
        self._held_requests = 0
        self._shared: Queue | None = None

    @once  # not made with the ledger: it would hold itself, and a run could only be freed by the collector
    def _line(self) -> tuple[Ledger, ...]:
        """It and those above it."""
        return (self,) if self.parent is None else (self, *self.parent._line)

    @once
    def _limited(self) -> tuple[Ledger, ...]:
        """Those of the line that have limits."""
        return tuple(ledger for ledger in self._line if not ledger.limits.unlimited)

    @once
    def account(self) -> Ledger:
        """That of the whole run: the highest that no other run shares."""
        return self if self.parent is None or self.parent.is_shared else self.parent.account

    @once
    def _queue(self) -> Queue:
        """That of the whole tree; most runs never reserve anything, and never make one."""
        root = self._line[-1]
        with _MAKES_QUEUE:
            self._shared = root._shared = root._shared or Queue(root)
        return self._shared

    @property
    def reserved(self) -> Charge:
        """What open reservations hold at this moment."""
        return Charge(self.spent.reserved_usd, self._held_tokens, self._held_requests)

    @property
    def line_limits(self) -> list[UsageLimits]:
        """The limits that hold here: its own and those above it."""
        return [ledger.limits for ledger in self._limited]

    @property
    def limit_that_needs_prices(self) -> Decimal | None:
        """The money limit that lets no call of unknown price pass: one that says so, or of which nothing is left."""
        spent = ((one.limits.cost, one.limits.on_unknown_price, one.spent.cost_usd) for one in self._limited)
        return next((cost for cost, way, paid in spent if cost is not None and (way == "refuse" or paid >= cost)), None)

    @property
    def tightest(self) -> UsageLimits | None:
        """The limits that hold here as one, of each the lowest; None where there are none."""
        return lowest(self.line_limits)

    def room(self) -> Room:
        """What may be reserved now, under every limit of the line."""
        with self._queue.lock:
            return self._room()

    def take(self, fit: Fit, owner: object) -> Grant | None:
        """Reserve what `fit` takes if that is possible now and nobody's turn is before; None when it has to wait.

        Raises:
            UsageLimitExceeded: It cannot fit, whatever open leases give back.
        """
        queue = self._shared or self._queue
        with queue.lock:
            if type(fit) is Charge and not queue.blocked and (grant := self._hold(fit, owner, queue)) is not None:
                return grant  # the usual case, in half the time
            if self.account.breach is not None:
                raise self.account.breach
            room = self._room()
            charge = fit(room)
            if charge is not None:
                is_free = not queue.blocked or queue.blocked.isdisjoint(self._line) or room.spares(charge)
                return self._hold(charge, owner, queue) if is_free or queue.around() else None
            if fit(self._room(leases=False)) is None:
                raise self._tightest(fit, FULL)
            if self._deadlocked(fit, queue.around()):
                raise self._tightest(fit, STUCK)
            return None

    @property
    def is_pressed(self) -> bool:
        """Whether demands wait that only the settling of open leases can serve, some perhaps for places held here."""
        return bool(self._queue.inside)

    async def wait(self, fit: Fit, owner: object, yields: bool = False) -> Grant:
        """Reserve what `fit` takes, in turn, once open leases left room for it; where it `yields`, last of the nested.

        Raises:
            UsageLimitExceeded: It turned out that it cannot fit.
        """
        event = LoopEvent()
        with self._queued(Waiter(self, fit, owner, event, yields)) as waiter:
            await event.wait()
        return waiter.answer()

    def wait_in_thread(self, fit: Fit, owner: object) -> Grant:
        """As `wait`, for a thread without an event loop: it blocks until it is served, refused or evicted."""
        event = ThreadEvent()
        with self._queued(Waiter(self, fit, owner, event)) as waiter:
            event.wait()
        return waiter.answer()

    def evict(self, owner: object, why: Callable[[], FlujoError]) -> None:
        """Refuse all that `owner` still waits for, with what `why` gives."""
        with self._queue.lock:
            gone = [one for one in (*self._queue.inside, *self._queue.waiters) if one.owner is owner]
            for waiter in gone:
                waiter.refusal = why()
                self._queue.remove(waiter)
            woken = gone + self._queue.pump() if gone else []
        _wake(woken)

    def close(self, grant: Grant, used: Usage, tally: Usage | None = None) -> bool:
        """Give a reservation back and book what was really used, also into `tally`; wakes those who wait.

        Returns:
            Whether it was still open; a second close does nothing.
        """
        queue = self._shared or self._queue
        with queue.lock:
            if queue.open.pop(grant, grant) is not None:
                return False
            cost, tokens, requests = grant.charge
            if used.input_tokens + used.output_tokens > tokens or used.cost_usd > cost or used.requests > requests:
                self._overshoot(grant, used)
            at: Ledger | None = self
            while at is not None:
                spent = at.spent
                if cost:
                    spent.reserved_usd = ZERO if spent.reserved_usd is cost else _minus(spent.reserved_usd, cost)
                at._held_tokens -= tokens
                at._held_requests -= requests
                spent.add(used)
                at = at.parent
            if tally is not None:
                tally.add(used)
            woken = queue.pump() if queue.waiters or queue.inside else None
        if woken:
            _wake(woken)
        return True

    def book(self, used: Usage, tally: Usage | None = None) -> None:
        """Count use that could not be reserved, also into `tally`."""
        with self._queue.lock:
            for total in (*(ledger.spent for ledger in self._line), *(() if tally is None else (tally,))):
                total.add(used)
            woken = self._queue.pump()
        _wake(woken)

    def exceeded(self) -> UsageLimitExceeded | None:
        """The error for a limit of the line that was broken, or that a call of the run showed to be none."""
        with self._queue.lock:
            broken = next((line for _, _, line in self._lines() if line.spent > line.limit), None)
            return self.account.breach if broken is None else broken.refusal("more was used than the limit allows")

    def warnings(self) -> list[tuple[str, float]]:
        """The limits of which the share `warn_at` is used, each reported once per ledger, equal ones together."""
        found = []
        with self._queue.lock:
            for ledger, _, line in self._lines():
                if not line.limit or line.name in ledger._warned:
                    continue
                share = float(EXACT.divide(line.spent, line.limit))
                if share >= ledger.limits.warn_at:
                    ledger._warned |= {line.name}
                    found.append((line.name, share))
        return list(dict.fromkeys(found))

    # --- under the lock ---------------------------------------------------------------------------------------------

    def _lines(self) -> Iterator[tuple[Ledger, int, Standing]]:
        """How each limit stands that holds here, with its ledger and the number of Room's part."""
        for ledger in self._limited:
            limits, spent = ledger.limits, ledger.spent
            stand: tuple[tuple[Decimal | int | None, str, str, Decimal | int, int | Decimal], ...] = (
                (limits.cost, "total_cost_usd_limit", "USD", spent.cost_usd, spent.reserved_usd),
                (limits.total_tokens_limit, "total_tokens_limit", "tokens", spent.total_tokens, ledger._held_tokens),
                (limits.requests_limit, "requests_limit", "requests", spent.requests, ledger._held_requests),
            )
            for part, (limit, name, unit, used, held) in enumerate(stand):
                if limit is not None:
                    yield ledger, part, Standing(limit, name, unit, used, held)

    def _admits(self, charge: Charge) -> bool:
        """Hold it here and in those above where it fits now in each of them; else in none."""
        cost, tokens, requests = charge
        usd, most, times = self._most
        spent, all_tokens, all_requests = self.spent, self._held_tokens + tokens, self._held_requests + requests
        held = _plus(spent.reserved_usd, cost) if spent.reserved_usd else cost  # sums of Decimal are what takes long
        if (
            (usd is not None and cost and _plus(spent.cost_usd, held) > usd)
            or (most is not None and tokens and spent.input_tokens + spent.output_tokens + all_tokens > most)
            or (times is not None and requests and spent.requests + all_requests > times)
            or self.breach is not None
            or (self.parent is not None and not self.parent._admits(charge))
        ):
            return False
        spent.reserved_usd, self._held_tokens, self._held_requests = held, all_tokens, all_requests
        return True

    def _room(self, *, leases: bool = True) -> Room:
        """What is left under every limit of the line; without `leases`, if all of them were given back."""
        rooms = [ledger._own_room(leases) for ledger in self._limited]
        return reduce(Room.within, rooms) if rooms else Room()

    def _own_room(self, leases: bool) -> Room:
        spent, (cost, tokens, requests) = self.spent, self._most
        if cost is not None:
            cost = _minus(cost, spent.cost_usd)
            if leases and spent.reserved_usd:
                cost = _minus(cost, spent.reserved_usd)
        if tokens is not None:
            tokens -= spent.input_tokens + spent.output_tokens + (self._held_tokens if leases else 0)
        if requests is not None:
            requests -= spent.requests + (self._held_requests if leases else 0)
        return _tuple(Room, (cost, tokens, requests))  # as `Room(...)`, in half the time

    def _hold(self, charge: Charge, owner: object, queue: Queue) -> Grant | None:
        if not self._admits(charge):
            return None
        grant = Grant(charge, self, owner)
        queue.open[grant] = None
        return grant

    def _overshoot(self, grant: Grant, used: Usage) -> None:
        """A call used more than it had reserved: a limit of that would not hold for the next, so its run ends."""
        took = used.cost_usd if grant.is_priced else ZERO, used.total_tokens, used.requests
        for _, part, line in self._lines():
            more = EXACT.subtract(took[part], grant.charge[part])
            if more > 0:
                if part == 0:
                    used.overshoot_usd = max(used.overshoot_usd, more)
                if not self.account.is_shared:
                    self.account.breach = self.account.breach or line.overshot(more)

    @contextmanager
    def _queued(self, waiter: Waiter) -> Iterator[Waiter]:
        """Have it wait its turn as long as the block does."""
        with self._queue.lock:
            self._queue.add(waiter)
            woken = self._queue.pump()
            held = list(self._queue.open) if waiter in self._queue.inside else []
        _wake(woken)
        for grant in held:
            grant.recall()  # its work may wait for a place that this one has
        try:
            yield waiter
        except BaseException:  # a cancel or Ctrl-C: what was granted meanwhile must not stay reserved
            with self._queue.lock:
                woken = self._queue.pump() if self._queue.remove(waiter) else []
            _wake(woken)
            if waiter.grant is not None:
                self.close(waiter.grant, Usage())
            raise

    def _blocking(self, fit: Fit) -> list[Ledger]:
        """The ledgers of the line in which the demand does not fit now."""
        return [ledger for ledger in self._limited if fit(ledger._own_room(True)) is None]

    def _deadlocked(self, fit: Fit, enclosing: tuple[Grant, ...]) -> bool:
        """Whether nothing can free room for the demand: what is open is held around demands that wait themselves.

        That is so where everything open in one ledger is held by those who wait for that ledger, or everything open
        anywhere by those who wait at all. A lease around other work, as a slow tool, is not stuck: it ends some time.
        """
        queue = self._queue
        demands = [(waiter.ledger, waiter.fit, waiter.enclosing) for waiter in queue.inside]
        if enclosing:
            demands.append((self, fit, enclosing))
        if not demands:
            return False
        if queue.open.keys() <= {grant for _, _, held in demands for grant in held}:
            return True
        for ledger in self._blocking(fit):
            stuck = {g for line, wish, held in demands if ledger in line._blocking(wish) for g in held}
            if {grant for grant in queue.open if ledger in grant.ledger._line} <= stuck:
                return True
        return False

    def _tightest(self, fit: Fit, why: str) -> UsageLimitExceeded:
        """The refusal, naming the first limit without which the demand would fit."""
        for ledger, part, line in self._lines():
            alone: list[Any] = [None, None, None]
            alone[part] = ledger._own_room(True)[part]
            if fit(Room(*alone)) is None:
                return line.refusal(why)
        raise AssertionError("a demand that fits into every limit was refused")


def _wake(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        if waiter.event.set() is False and waiter.grant is not None:  # its event loop was closed: nobody takes it
            waiter.ledger.close(waiter.grant, Usage())
