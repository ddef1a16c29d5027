"""`ctx.usage`: how a step reserves, settles and records what it uses."""

from __future__ import annotations

from types import TracebackType

from anyio import from_thread

from .errors import UsageLimitExceeded
from .ledger import Fit, Grant, Ledger, Room
from .usage import EXACT, ZERO, Charge, Money, Usage, count, money

__all__ = ["Lease", "Meter", "Reservation"]


class Lease:
    """An amount that is held for a piece of work until it is settled.

    Attributes:
        charge: What is held, in USD, tokens and requests; less than was asked for where the demand was clamped.
        used: What was booked when it was settled.
    """

    __slots__ = ("_grant", "_meter", "charge", "used")

    def __init__(self, meter: Meter, grant: Grant) -> None:
        self._meter = meter
        self._grant: Grant | None = grant
        self.charge = grant.charge
        self.used = Usage()

    @property
    def open(self) -> bool:
        """Whether it is still to be settled."""
        return self._grant is not None

    def settle(
        self, *, cost_usd: Money = ZERO, tokens: int = 0, input_tokens: int = 0, output_tokens: int | None = None
    ) -> None:
        """Book what was really used and give the rest back. A second settle does nothing.

        Args:
            cost_usd: USD really spent.
            tokens: Tokens used, where their direction is not known.
            input_tokens: Tokens sent.
            output_tokens: Tokens received; None means all of `tokens`.
        """
        received = count(tokens, "tokens") if output_tokens is None else count(output_tokens, "output_tokens")
        used = Usage(
            input_tokens=count(input_tokens, "input_tokens"),
            output_tokens=received,
            requests=self.charge.requests,
            cost_usd=money(cost_usd, "cost_usd"),
        )
        used.overshoot_usd = max(ZERO, EXACT.subtract(used.cost_usd, self.charge.cost_usd))
        self.close(used)

    def settle_in_full(self) -> None:
        """Book the whole lease: nobody knows what was really used."""
        charge = self.charge
        self.close(Usage(output_tokens=charge.tokens, requests=charge.requests, cost_usd=charge.cost_usd, unmeasured=1))

    def release(self) -> None:
        """Give everything back: the work was never done."""
        self.close(Usage())

    def close(self, used: Usage) -> None:
        """Book `used` and end the lease. A second close does nothing."""
        grant, self._grant = self._grant, None
        if grant is not None:
            self.used = used
            self._meter.close(self, grant, used)


class Reservation:
    """`async with ctx.usage.reserve(...) as lease` (in a sync step: `with`). An unsettled lease counts in full."""

    __slots__ = ("_fit", "_lease", "_meter")

    def __init__(self, meter: Meter, fit: Fit) -> None:
        self._meter = meter
        self._fit = fit
        self._lease: Lease | None = None

    @property
    def used(self) -> Usage:
        """What was booked in the end; nothing before that, and where it was refused."""
        return Usage() if self._lease is None else self._lease.used

    async def __aenter__(self) -> Lease:
        self._lease = await self._meter.acquire(self._fit)
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def __enter__(self) -> Lease:
        return from_thread.run(self.__aenter__)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from_thread.run_sync(self._end)

    def _end(self) -> None:
        if self._lease is not None and self._lease.open:
            self._lease.settle_in_full()


class Meter:
    """The budget as one attempt of a step sees it.

    Attributes:
        spent: What this attempt used so far.
        breach: The refusal, once a limit refused something; it stops the run even where the step swallows it.
    """

    __slots__ = ("_ledger", "_open", "breach", "spent")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._open: set[Lease] = set()
        self.spent = Usage()
        self.breach: UsageLimitExceeded | None = None

    @property
    def holds_lease(self) -> bool:
        """Whether a lease of this attempt is open: such a call may finish when the run is stopped by a limit."""
        return bool(self._open)

    @property
    def left(self) -> Room:
        """What may still be reserved: `cost_usd`, `tokens`, `requests`, each None where there is no limit."""
        return self._ledger.room()

    @property
    def money_limited(self) -> bool:
        """Whether a money limit holds, so that a price must be known."""
        return self._ledger.money_limited

    @property
    def refuses_unknown_price(self) -> bool:
        """Whether a limit of the line refuses a call of unknown price."""
        return any(
            ledger.limits.cost is not None and ledger.limits.on_unknown_price == "refuse"
            for ledger in self._ledger.line()
        )

    def reserve(
        self,
        *,
        cost_usd: Money = ZERO,
        tokens: int = 0,
        requests: int = 1,
        least_cost_usd: Money | None = None,
        least_tokens: int | None = None,
    ) -> Reservation:
        """Hold the worst case of a piece of metered work until it is settled.

        Where the worst case does not fit but the least does, less is held (see `lease.charge`); otherwise it waits for
        open leases, first come first served.

        Args:
            cost_usd: Most USD the work can cost.
            tokens: Most tokens it can use.
            requests: Calls it makes.
            least_cost_usd: Least USD with which it is of use; the worst case when left out.
            least_tokens: Fewest tokens with which it is of use; the worst case when left out.

        Raises:
            UsageLimitExceeded: On entering, when it can never fit.
        """
        worst = Charge(money(cost_usd, "cost_usd"), count(tokens, "tokens"), count(requests, "requests"))
        least = Charge(
            worst.cost_usd if least_cost_usd is None else money(least_cost_usd, "least_cost_usd"),
            worst.tokens if least_tokens is None else count(least_tokens, "least_tokens"),
            worst.requests,
        )
        return self.reserve_fitting(lambda room: _shrink(worst, least, room))

    def reserve_fitting(self, fit: Fit) -> Reservation:
        """Hold what `fit` takes of the room that is left."""
        return Reservation(self, fit)

    def record(
        self, *, cost_usd: Money = ZERO, input_tokens: int = 0, output_tokens: int = 0, requests: int = 1
    ) -> None:
        """Book use that could not be reserved; a limit it breaks stops the run after this step."""
        used = Usage(
            input_tokens=count(input_tokens, "input_tokens"),
            output_tokens=count(output_tokens, "output_tokens"),
            requests=count(requests, "requests"),
            cost_usd=money(cost_usd, "cost_usd"),
        )
        self.spent.add(used)
        self._ledger.book(used)

    def exceeded(self) -> UsageLimitExceeded | None:
        """The error for a limit that more was used of than it allows, if there is one."""
        return self._ledger.exceeded()

    def warnings(self) -> list[tuple[str, float]]:
        """Limits of which the share `warn_at` is used by now, each once."""
        return self._ledger.warnings()

    async def acquire(self, fit: Fit) -> Lease:
        """Open a lease, waiting for room where that can help."""
        try:
            grant = self._ledger.take(fit, self)
            if grant is None:
                grant = await self._ledger.wait(fit, self)
        except UsageLimitExceeded as error:
            self.breach = error
            raise
        lease = Lease(self, grant)
        self._open.add(lease)
        return lease

    def settle_open(self) -> None:
        """Book in full what is still open when the attempt is over, as after an abandoned thread."""
        for lease in list(self._open):
            lease.settle_in_full()

    def close(self, lease: Lease, grant: Grant, used: Usage) -> None:
        """End a lease of this meter with what was used."""
        self._open.discard(lease)
        self.spent.add(used)
        self._ledger.close(grant, used)


def _shrink(worst: Charge, least: Charge, room: Room) -> Charge | None:
    """The worst case, or as much of it as fits; None when the least does not."""
    if room.holds(worst):
        return worst
    if not room.holds(least):
        return None
    cost = worst.cost_usd if room.cost_usd is None else min(worst.cost_usd, max(room.cost_usd, ZERO))
    tokens = worst.tokens if room.tokens is None else min(worst.tokens, max(room.tokens, 0))
    return Charge(cost, tokens, worst.requests)
