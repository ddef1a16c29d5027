"""What work costs: amounts, limits and tallies. Money is `Decimal` USD inside, never a float."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from decimal import Context, Decimal, InvalidOperation
from typing import Literal

from .errors import ConfigurationError

__all__ = ["Charge", "Money", "Price", "Usage", "UsageLimits", "money"]

Money = Decimal | int | str | float
"""What is accepted as an amount of USD; a float counts by its repr, so `0.1` means one tenth exactly."""

ZERO = Decimal(0)

# An own context: sums of money must not depend on what the user's program set for its own decimals.
EXACT = Context(prec=34)


def money(value: Money, name: str = "amount") -> Decimal:
    """Read an amount of USD.

    Args:
        value: The amount; a float counts by its repr.
        name: How the amount is called in an error.

    Raises:
        ConfigurationError: It is no number, negative, NaN or infinite.
    """
    try:
        if isinstance(value, bool):
            raise InvalidOperation
        amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except (InvalidOperation, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{name}={value!r} cannot be used", "it is no amount of money", "Write it as '0.50' or Decimal"
        ) from error
    if not amount.is_finite() or amount < 0:
        why = "an amount must be finite and not negative"
        raise ConfigurationError(f"{name}={value!r} cannot be used", why, "Give 0 or more; None means unlimited")
    return amount


def count(value: int, name: str) -> int:
    """Read a number of tokens or requests; raises ConfigurationError unless it is a whole number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        why = "it must be a whole number of 0 or more"
        raise ConfigurationError(f"{name}={value!r} cannot be used", why, "None means unlimited")
    return value


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in USD per token. `Price()` is free: a model that runs in process.

    Attributes:
        input_usd: USD per input token.
        output_usd: USD per output token.
        request_usd: USD per request, on top.
    """

    input_usd: Decimal = ZERO
    output_usd: Decimal = ZERO
    request_usd: Decimal = ZERO

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, money(getattr(self, item.name), item.name))

    def cost(self, input_tokens: int, output_tokens: int) -> Decimal:
        """USD for one request of so many tokens."""
        return self.request_usd + self.input_usd * input_tokens + self.output_usd * output_tokens


@dataclass(frozen=True, slots=True)
class Charge:
    """An amount of use: USD, tokens and requests together."""

    cost_usd: Decimal = ZERO
    tokens: int = 0
    requests: int = 0

    @property
    def free(self) -> bool:
        """Whether it costs nothing at all."""
        return not (self.cost_usd or self.tokens or self.requests)


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
        """Count `other` in."""
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.requests += other.requests
        self.cost_usd = EXACT.add(self.cost_usd, other.cost_usd)
        self.unmeasured += other.unmeasured
        self.unpriced += other.unpriced
        self.overshoot_usd = EXACT.add(self.overshoot_usd, other.overshoot_usd)


@dataclass(frozen=True, slots=True)
class UsageLimits:
    """Hard limits on what may be used. `None` is unlimited; `0` lets only free work pass.

    Attributes:
        total_cost_usd_limit: Most USD, as Decimal, int, str or float (by its repr).
        total_tokens_limit: Most tokens, input and output together.
        requests_limit: Most calls to models and other metered services.
        warn_at: Share of a limit, 0 to 1, at which `on_usage_warning` is called once.
        on_unknown_price: What a money limit does with a model whose price is unknown: `refuse` the call, or `warn`
            and let it pass uncounted (it shows in `usage.unpriced`).
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
            value = getattr(self, name)
            if value is not None:
                count(value, name)
        if not (isinstance(self.warn_at, (int, float)) and math.isfinite(self.warn_at) and 0 <= self.warn_at <= 1):
            raise ConfigurationError(f"warn_at={self.warn_at!r} cannot be used", "it is a share between 0 and 1")
        if self.on_unknown_price not in ("refuse", "warn"):
            what = f"on_unknown_price={self.on_unknown_price!r} cannot be used"
            raise ConfigurationError(what, "it is neither 'refuse' nor 'warn'")

    @property
    def unlimited(self) -> bool:
        """Whether nothing is limited."""
        return self.cost is None and self.total_tokens_limit is None and self.requests_limit is None
