"""What work costs: amounts, limits and tallies. Money is `Decimal` USD inside, never a float."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from functools import reduce
from typing import Any, Literal, NamedTuple

from .errors import ConfigurationError, UsageLimitExceeded

Money = Decimal | int | str | float
"""What is accepted as an amount of USD; a float counts by its repr, so `0.1` means one tenth exactly."""

ZERO, _INFINITE = Decimal(0), Decimal("Infinity")

# An own context: sums of money must not depend on what the user's program set for its own decimals. With the amounts
# that `money` lets in, 160 digits are never used up, so nothing is ever rounded.
EXACT = Context(prec=160)
_plus = EXACT.add

# Up to 40 digits, of them up to 39 decimals; anything else is inexact or overflows, and so raises.
_AMOUNT = Context(prec=40, Emin=0, Emax=39, traps=[Inexact, Overflow, InvalidOperation])
_HOW = "Give 0 or more as Decimal, int, str ('0.50') or float; a limit may be None, which means unlimited"


def money(value: Money, name: str = "amount") -> Decimal:
    """Read an amount of USD.

    Args:
        value: The amount; a float counts by its repr.
        name: How the amount is called in an error.

    Raises:
        ConfigurationError: It is no number, negative, NaN, infinite, or has more digits than sums can hold.
    """
    what = "it is no amount of money"
    try:
        if type(value) is Decimal:  # as most are
            amount = value
        elif isinstance(value, bool) or not isinstance(value, (Decimal, int, str, float)):
            raise InvalidOperation
        else:  # float's own repr: subclasses, as numpy's, have one that is no number
            amount = Decimal(float.__repr__(value) if isinstance(value, float) else value)
        what = "an amount must be finite and not negative"
        if not ZERO <= amount < _INFINITE:  # nor is NaN between them
            raise InvalidOperation
        what = "an amount has at most 40 digits, and of them at most 39 decimals, so that sums stay exact"
        return _AMOUNT.plus(amount)
    except (InvalidOperation, Inexact, ValueError) as error:
        raise ConfigurationError(f"{name}={value!r} cannot be used", what, _HOW) from error


def count(value: int, name: str) -> int:
    """Read a number of tokens or requests; raises ConfigurationError unless it is a whole number of 0 or more."""
    if (type(value) is not int and (isinstance(value, bool) or not isinstance(value, int))) or value < 0:
        why, do = "it must be a whole number of 0 or more", "Give an int; a limit may be None, which means unlimited"
        raise ConfigurationError(f"{name}={value!r} cannot be used", why, do)
    return value


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in USD per token. `Price()` is free: a model that runs in process.

    Attributes:
        input_usd: USD per input token.
        output_usd: USD per output token.
        request_usd: USD per request, on top.
        max_output_tokens: Most tokens the model can answer with, where that is known. Under a limit, a request without
            `max_tokens` reserves that much instead of all that is left, and so does not hold up those beside it.
        source: Which price list says so, with its digest; runs count their calls by it as `priced_by`.
    """

    input_usd: Decimal = ZERO
    output_usd: Decimal = ZERO
    request_usd: Decimal = ZERO
    max_output_tokens: int | None = None
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name in ("input_usd", "output_usd", "request_usd"):
            object.__setattr__(self, name, money(getattr(self, name), name))
        if self.max_output_tokens is not None and count(self.max_output_tokens, "max_output_tokens") < 1:
            what = f"max_output_tokens={self.max_output_tokens!r} cannot be used"
            raise ConfigurationError(what, "a model answers with 1 token or more", "None means unknown")

    def cost(self, input_tokens: int, output_tokens: int) -> Decimal:
        """USD for one request of so many tokens."""
        sent = EXACT.multiply(self.input_usd, input_tokens)
        received = EXACT.multiply(self.output_usd, output_tokens)
        return EXACT.add(self.request_usd, EXACT.add(sent, received))

    def worst(self, input_tokens: int, output_tokens: int) -> Decimal:
        """Most USD that one request of at most so many tokens can cost, which is what is reserved for it.

        A book that knows dearer rates than those of plain tokens, as for what is written to a cache, makes a Price with
        another `worst`; `output_usd` is the dearest rate of output then.
        """
        return self.cost(input_tokens, output_tokens)


class Charge(NamedTuple):
    """An amount of use: USD, tokens and requests together."""

    cost_usd: Decimal = ZERO
    tokens: int = 0
    requests: int = 0

    def __call__(self, room: Room) -> Charge | None:
        """It is a Fit that takes all of it or nothing."""
        return self if room.holds(self) else None


class Room(NamedTuple):
    """What may still be reserved: None is unlimited."""

    cost_usd: Decimal | None = None
    tokens: int | None = None
    requests: int | None = None

    def holds(self, charge: Charge) -> bool:
        """Whether `charge` fits; a part of it that is zero always fits."""
        cost, tokens, requests = self
        usd, some, times = charge
        return (
            (cost is None or usd <= cost or not usd)
            and (tokens is None or some <= tokens or not some)
            and (requests is None or times <= requests or not times)
        )

    def within(self, other: Room) -> Room:
        """The smaller of both in every part."""
        return Room(*map(least, self, other))  # type: ignore[arg-type]  # like parts of both

    def spares(self, charge: Charge) -> bool:
        """Whether `charge` takes nothing of what is limited here."""
        return Room(*(None if part is None else type(part)(0) for part in self)).holds(charge)  # type: ignore[arg-type]


def least(one: int | None, other: int | None) -> int | None:
    """The lower of two limits; None is none."""
    return other if one is None else one if other is None else min(one, other)


Fit = Callable[[Room], Charge | None] | Charge
"""Says what of a demand is taken where this much room is left; None when not even the least of it fits."""


class Standing(NamedTuple):
    """How one limit stands."""

    limit: Decimal | int
    name: str
    unit: str
    spent: Decimal | int
    held: Decimal | int

    def refusal(self, why: str, do: str = "", how: str = "reached") -> UsageLimitExceeded:
        """The error for work that this limit does not let through."""
        why = f"{why} (spent {Decimal(self.spent):f}, reserved {Decimal(self.held):f})"
        return UsageLimitExceeded(self.name, f"{self.limit} {self.unit}", why, do, how)

    def overshot(self, more: Decimal) -> UsageLimitExceeded:
        """The error for a call that used so much more than it had reserved."""
        why = f"a call used {more:f} {self.unit} more than it had reserved: {_MAY_BE}"
        return self.refusal(why, _BOUND_IT, "cannot be held")


_MAY_BE = "a dearer price tier, a tokenizer or chat template that counts more, or a fault of the provider"
_BOUND_IT = "Bound the call by what it really costs (price=, or a larger reservation), then resume the run"


@dataclass(slots=True)
class Usage:
    """What was used: a tally that only grows.

    Attributes:
        input_tokens: Tokens sent to models.
        output_tokens: Tokens received from models; tokens reported without a direction count here.
        requests: Calls that were made, failed ones included.
        cost_usd: USD spent.
        reserved_usd: USD held by leases that are open at this moment.
        unmeasured: Calls whose provider reported no usage; they count their whole lease.
        unpriced: Calls to a model of unknown price.
        overshoot_usd: USD that calls billed beyond what they had reserved.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    cost_usd: Decimal = ZERO
    reserved_usd: Decimal = ZERO
    unmeasured: int = 0
    unpriced: int = 0
    overshoot_usd: Decimal = ZERO

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def add(self, other: Usage) -> None:
        """Count `other` in, but for what it has reserved at this moment."""
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.requests += other.requests
        self.unmeasured += other.unmeasured
        self.unpriced += other.unpriced
        if other.cost_usd:
            self.cost_usd = _plus(self.cost_usd, other.cost_usd)
        if other.overshoot_usd:
            self.overshoot_usd = _plus(self.overshoot_usd, other.overshoot_usd)

    def since(self, before: Usage) -> Usage:
        """What was counted in since it stood at `before`."""
        parts = ((getattr(self, name), getattr(before, name)) for name in Usage.__slots__)
        less: Any = (EXACT.subtract(now, then) if isinstance(now, Decimal) else now - then for now, then in parts)
        return replace(Usage(*less), reserved_usd=ZERO)


@dataclass(frozen=True, slots=True)
class UsageLimits:
    """Hard limits on what may be used. `None` is unlimited; `0` lets only free work pass.

    Attributes:
        total_cost_usd_limit: Most USD, as Decimal, int, str or float (by its repr).
        total_tokens_limit: Most tokens, input and output together.
        requests_limit: Most calls to models and other metered services.
        warn_at: Share of a limit, 0 to 1, at which `on_usage_warning` is called once.
        on_unknown_price: What a money limit does with a model whose price is unknown: `refuse` the call, or `warn`
            and let it pass uncounted, as long as something is left (it shows in `usage.unpriced`).
    """

    total_cost_usd_limit: Money | None = None
    total_tokens_limit: int | None = None
    requests_limit: int | None = None
    warn_at: float = 0.8
    on_unknown_price: Literal["refuse", "warn"] = "refuse"
    cost: Decimal | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.total_cost_usd_limit is not None:
            amount = money(self.total_cost_usd_limit, "total_cost_usd_limit")
            object.__setattr__(self, "total_cost_usd_limit", amount)
            object.__setattr__(self, "cost", amount)
        for name in ("total_tokens_limit", "requests_limit"):
            if (value := getattr(self, name)) is not None:
                count(value, name)
        share = self.warn_at
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:  # NaN is not between
            do = "Give for instance 0.8; 1 warns when a limit is used up"
            raise ConfigurationError(f"warn_at={share!r} cannot be used", "it is a share between 0 and 1", do)
        if self.on_unknown_price not in ("refuse", "warn"):
            what = f"on_unknown_price={self.on_unknown_price!r} cannot be used"
            raise ConfigurationError(what, "it is neither 'refuse' nor 'warn'", "Write 'refuse' or 'warn'")

    @property
    def unlimited(self) -> bool:
        """Whether nothing is limited."""
        return self.cost is None and self.total_tokens_limit is None and self.requests_limit is None


def lowest(limits: Iterable[UsageLimits]) -> UsageLimits | None:
    """Several limits as one, of each the lowest; None where there are none."""
    them = list(limits)
    if not them:
        return None
    rooms = (Room(one.cost, one.total_tokens_limit, one.requests_limit) for one in them)
    strict, share = any(one.on_unknown_price == "refuse" for one in them), min(one.warn_at for one in them)
    return UsageLimits(*reduce(Room.within, rooms), share, "refuse" if strict else "warn")
