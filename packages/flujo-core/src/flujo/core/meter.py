"""`ctx.usage`: how a step reserves, settles and records what it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import anyio.from_thread
from anyio.lowlevel import current_token

from .errors import ConfigurationError, FlujoError, LoopRunning, RunAborted, UsageLimitExceeded
from .grants import ENCLOSING, Governor, Grant
from .ledger import Ledger
from .usage import ZERO, Charge, Fit, Money, Room, Usage, count, money
from .wakeup import call_in, loop_is_running

__all__ = ["Lease", "Meter", "Reservation"]


class Lease:
    """An amount that is held for a piece of work until it is settled.

    Attributes:
        charge: What is held, in USD, tokens and requests; less than was asked for where the demand was clamped.
        priced_by: Where its price came from, if that is known.
        waits: Whether the work it is for has yet to begin, so that a run that is stopped need not wait for it.
    """

    __slots__ = ("_grant", "_meter", "_used", "charge", "priced_by", "waits")

    def __init__(self, meter: Meter, grant: Grant) -> None:
        self._meter = meter
        self._grant: Grant | None = grant
        self.charge: Charge = grant.charge
        self._used: Usage | None = None
        self.priced_by: str = ""
        self.waits: bool = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what is waited for before the work begins; given up when the lease is needed back: `waits` stays."""
        assert self._grant is not None
        grant, self.waits = self._grant, True
        with anyio.CancelScope() as scope:
            grant.recall = partial(call_in, current_token().native_token, scope.cancel)
            if grant.ledger.is_pressed:  # at once, where it would have to wait: those came before it
                scope.cancel()
            try:
                yield
                self.waits = False
            finally:
                grant.recall = bool  # from here on nothing

    @property
    def used(self) -> Usage:
        """What was booked when it was settled; nothing before that."""
        return self._used or Usage()

    @property
    def open(self) -> bool:
        """Whether it is still to be settled."""
        return self._grant is not None

    def settle(self, *, cost_usd: Money = ZERO, tokens: int = 0, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Book what was really used and give the rest back. A second settle does nothing.

        Args:
            cost_usd: USD really spent.
            tokens: Tokens used, where their direction is not known; instead of the next two.
            input_tokens: Tokens sent.
            output_tokens: Tokens received.

        Raises:
            ConfigurationError: An amount cannot be used; the lease stays open.
        """
        self.close(_used(cost_usd, tokens, input_tokens, output_tokens, self.charge.requests))

    def settle_in_full(self) -> None:
        """Book the whole lease: nobody knows what was really used."""
        charge = self.charge
        self.close(Usage(output_tokens=charge.tokens, requests=charge.requests, cost_usd=charge.cost_usd, unmeasured=1))

    def release(self) -> None:
        """Give everything back: the work was never done."""
        self.close(Usage())

    def unbind(self) -> None:
        """Nobody knew the price: whatever it cost is no more than was reserved."""
        if self._grant is not None:
            self._grant.is_priced = False

    def close(self, used: Usage) -> None:
        """Book `used` and end the lease. A second close does nothing."""
        grant, self._grant = self._grant, None
        if grant is not None:
            self._meter.close(self, grant, used)


class Reservation:
    """`async with ctx.usage.reserve(...) as lease` (in a sync step: `with`). An unsettled lease counts in full."""

    __slots__ = ("_around", "_fit", "_lease", "_meter")

    def __init__(self, meter: Meter, fit: Fit) -> None:
        self._meter = meter
        self._fit = fit
        self._lease: Lease | None = None

    @property
    def used(self) -> Usage:
        """What was booked in the end; nothing before that, and where it was refused."""
        return Usage() if self._lease is None else self._lease.used

    async def __aenter__(self) -> Lease:
        meter, fit, yields = self._meter, self._fit, self._lease is not None and self._lease.waits
        return self._begin(meter.take(fit, yields) or await meter.wait(fit, yields))

    async def __aexit__(self, *_: object) -> None:
        self._end()

    def __enter__(self) -> Lease:
        return self._begin(self._meter.wait_in_thread(self._fit))

    def __exit__(self, *_: object) -> None:
        self._end()

    def _begin(self, grant: Grant) -> Lease:
        if self._lease is not None and self._lease.open:  # its first lease would be lost
            self._meter.give_back(grant)
            what, why = "a reservation cannot be entered", "it is open already"
            raise ConfigurationError(what, why, "Call ctx.usage.reserve(...) for each piece of work")
        self._lease = self._meter.open(grant)
        self._around: tuple[Grant, ...] = ENCLOSING.get()
        ENCLOSING.set(self._around + (grant,))  # noqa: RUF005  # in half the time
        return self._lease

    def _end(self) -> None:
        ENCLOSING.set(self._around)
        if self._lease is not None and self._lease._grant is not None:
            self._lease.settle_in_full()


OnBreach = Callable[[UsageLimitExceeded], None]
OnSpent = Callable[[Usage, str], None]


def _nothing(*_: object) -> None:
    """Nobody listens."""


class Meter:
    """The budget as one attempt of a step sees it.

    Attributes:
        spent: What this attempt used so far.
        breach: The refusal, once a limit refused something; it stops the run even where the step swallows it.
    """

    __slots__ = ("_ledger", "_on_breach", "_on_spent", "_open", "_over", "breach", "spent")

    def __init__(self, ledger: Ledger, on_breach: OnBreach = _nothing, on_spent: OnSpent = _nothing) -> None:
        self._ledger = ledger
        self._on_breach = on_breach
        self._on_spent = on_spent
        self._open: set[Lease] = set()
        self.spent: Usage = Usage()
        self.breach: UsageLimitExceeded | None = None
        self._over: Callable[[], FlujoError] | None = None

    @property
    def holds_lease(self) -> bool:
        """Whether a lease of this attempt is open: such a call may finish when the run is stopped by a limit."""
        return any(not lease.waits for lease in self._open)

    @property
    def left(self) -> Room:
        """What may still be reserved: `cost_usd`, `tokens`, `requests`, each None where there is no limit."""
        return self._ledger.room()

    @property
    def money_limited(self) -> bool:
        """Whether a money limit holds, so that a price must be known."""
        return any(limits.cost is not None for limits in self._ledger.line_limits)

    @property
    def limit_that_needs_prices(self) -> Money | None:
        """The money limit of the line, in USD, under which a call of unknown price is refused; None without one.

        That is one which says so, or of which nothing is left: it admits free work only, and who knows what this costs?
        """
        return self._ledger.limit_that_needs_prices

    def reserve(self, *, cost_usd: Money = ZERO, tokens: int = 0, requests: int = 1) -> Reservation:
        """Hold the worst case of a piece of metered work until it is settled.

        What does not fit waits for open leases, first come first served. Work that can be made smaller, as a model's
        answer can, is reserved by `ctx.call_model`, or by `reserve_fitting`.

        Args:
            cost_usd: Most USD the work can cost.
            tokens: Most tokens it can use.
            requests: Calls it makes.

        Raises:
            UsageLimitExceeded: On entering, when it can never fit.
        """
        worst = money(cost_usd, "cost_usd"), count(tokens, "tokens"), count(requests, "requests")
        return Reservation(self, tuple.__new__(Charge, worst))  # as `Charge(...)`, in half the time

    def reserve_fitting(self, fit: Fit) -> Reservation:
        """Hold what `fit` takes of the room that is left; `fit` runs under the ledger's lock, so it must not wait.

        What takes more than there is does not fit.
        """
        return Reservation(self, lambda room: took if (took := fit(room)) is None or room.holds(took) else None)

    def record(
        self, *, cost_usd: Money = 0, tokens: int = 0, input_tokens: int = 0, output_tokens: int = 0, requests: int = 1
    ) -> None:
        """Book use that could not be reserved; a limit it breaks stops the run after this step."""
        used = _used(cost_usd, tokens, input_tokens, output_tokens, count(requests, "requests"))
        self._ledger.book(used, self.spent)
        self._on_spent(used, "")
        if self._ledger.governor is not None:
            self._ledger.governor.book(used)

    def exceeded(self) -> UsageLimitExceeded | None:
        """The error for a limit that more was used of than it allows, if there is one."""
        return self._ledger.exceeded()

    def warnings(self) -> list[tuple[str, float]]:
        """Limits of which the share `warn_at` is used by now, each once."""
        return self._ledger.warnings()

    # --- leases -----------------------------------------------------------------------------------------------------

    def take(self, fit: Fit, yields: bool = False) -> Grant | None:
        """Reserve what `fit` takes, if that needs no waiting; else None, and `wait` gives it."""
        try:
            if self._over is not None:
                raise self._over()
            return None if yields or self._ledger.governor is not None else self._ledger.take(fit, self)
        except UsageLimitExceeded as error:
            self._stop(error)
            raise

    async def wait(self, fit: Fit, yields: bool = False) -> Grant:
        """Reserve what `take` could not: in turn, where it `yields` after all nested ones, and as the governor says."""
        ledger, governor = self._ledger, self._ledger.governor
        try:
            grant = None if yields or governor is None else ledger.take(fit, self)
            grant = grant or await ledger.wait(fit, self, yields)
            return grant if governor is None else await self._asked(grant, governor)
        except UsageLimitExceeded as error:
            self._stop(error)
            raise

    def wait_in_thread(self, fit: Fit) -> Grant:
        """As `take` and `wait`, for a thread without an event loop.

        Raises:
            LoopRunning: An event loop runs in this thread; to wait would block it.
        """
        if loop_is_running():
            raise LoopRunning("`with ctx.usage.reserve(...)`", "async with ctx.usage.reserve(...)")
        try:
            if self._over is not None:
                raise self._over()
            grant = self._ledger.take(fit, self) or self._ledger.wait_in_thread(fit, self)
            governor = self._ledger.governor
            return grant if governor is None else anyio.from_thread.run(self._asked, grant, governor)
        except UsageLimitExceeded as error:
            self._stop(error)
            raise

    async def _asked(self, grant: Grant, governor: Governor) -> Grant:
        """Have a reservation admitted beyond the ledgers, too."""
        try:
            grant.above = await governor.reserve(grant.charge)
        except BaseException:  # a refusal, a fault or a cancel: nothing stays reserved
            self.give_back(grant)
            raise
        return grant

    def open(self, grant: Grant) -> Lease:
        """Make a lease of what was reserved, unless the attempt ended meanwhile."""
        lease = Lease(self, grant)
        self._open.add(lease)
        if self._over is not None:
            lease.release()
            raise self._over()
        return lease

    def close(self, lease: Lease, grant: Grant, used: Usage) -> None:
        """End a lease of this meter with what was used."""
        self._open.discard(lease)
        if self._ledger.close(grant, used, self.spent):
            lease._used = used
            self._on_spent(used, lease.priced_by)
            if (breach := self._ledger.account.breach) is not None:
                self._stop(breach)
        if grant.above is not None:
            self._settle_above(grant, used)

    def give_back(self, grant: Grant) -> None:
        """Close a reservation of which nothing was used."""
        self._ledger.close(grant, Usage())
        self._settle_above(grant, Usage())

    def _settle_above(self, grant: Grant, used: Usage) -> None:
        """Last of all: the governor is not ours and may fail, which must not undo what is counted here."""
        if grant.above is not None and self._ledger.governor is not None:
            self._ledger.governor.settle(grant.above, used)

    def refuse(self, error: FlujoError) -> None:
        """From now on reserve nothing: what waits and what comes is refused with `error`. Open leases stay."""
        self._end(lambda: error)

    def settle_open(self) -> None:
        """End the attempt: book in full what is still open, and let an abandoned thread reserve nothing any more."""
        why = "this attempt of the step is over, nothing can be reserved for it"
        self._end(lambda: RunAborted(why, "the governor"))
        for lease in list(self._open):
            lease.settle_in_full()

    def _end(self, why: Callable[[], FlujoError]) -> None:
        """`why` is called where something is refused: to scrub the text of an error costs more than all else here."""
        self._over = self._over or why
        self._ledger.evict(self, self._over)

    def _stop(self, error: UsageLimitExceeded) -> None:
        self.breach = self.breach or error
        self.refuse(error)
        if loop_is_running():  # a thread cannot stop the run, which is told when the attempt ends
            self._on_breach(error)


def _used(cost_usd: Money, tokens: int, input_tokens: int, output_tokens: int, requests: int) -> Usage:
    if tokens != 0 and (input_tokens or output_tokens):
        why = "tokens are those whose direction is not known, so they would count twice"
        raise ConfigurationError(f"tokens={tokens!r} cannot be used", why, "Give input_tokens and output_tokens only")
    received = count(output_tokens, "output_tokens") + count(tokens, "tokens")
    return Usage(count(input_tokens, "input_tokens"), received, requests, money(cost_usd, "cost_usd"))
