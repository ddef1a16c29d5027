"""What models cost, from the price list of genai-prices: offline, lazy, and the list can be named by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from flujo.core import Price

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices
    from pydantic_ai.usage import RequestUsage

__all__ = ["GenaiPriceBook", "PriceData", "TieredPrice"]

ZERO = Decimal(0)

STANDARD = frozenset({"auto", "default", "standard", "standard_only"})
"""Service tiers and speeds at which a provider's standard price holds, or which are what it does anyway."""

_NO_TEXT = ("audio", "image", "video")
_TIERS = ("service_tier", "speed")
_DAY_S = 86_400


Tiers = tuple[tuple[int, Decimal, Decimal], ...]
"""Input tokens from which a rate holds, USD per input token, USD per output token; in rising order."""

Rates = list[tuple[int, Decimal]]
"""Input tokens from which a rate holds, and the rate; in rising order."""


@dataclass(frozen=True, slots=True)
class TieredPrice(Price):
    """A price that is higher for long inputs, or for tokens of some kinds; a request pays the rates of its tier.

    `input_usd` is that of the dearest tier, and `output_usd` the most that any token can cost that comes out.

    Attributes:
        tiers: What plain tokens cost.
        dearest: What any token of text can cost, such as one that is written to the provider's cache: by this a call
            is reserved.
    """

    tiers: Tiers = ()
    dearest: Tiers = ()

    def cost(self, input_tokens: int, output_tokens: int) -> Decimal:
        """USD for one request of so many plain tokens."""
        _, sent, received = max(tier for tier in self.tiers if tier[0] <= input_tokens)
        return Price(sent, received, self.request_usd).cost(input_tokens, output_tokens)

    def worst(self, input_tokens: int, output_tokens: int) -> Decimal:
        """Most USD for one request of at most so many tokens, of whatever kind."""
        rates = [tier for tier in (*self.tiers, *self.dearest) if tier[0] <= input_tokens]
        sent, received = max(rate[1] for rate in rates), max(rate[2] for rate in rates)
        return Price(sent, received, self.request_usd).cost(input_tokens, output_tokens)


@dataclass(frozen=True, slots=True)
class PriceData:
    """Which price list was used.

    Attributes:
        source: Distribution and version it came with.
        sha256: Digest of the file that holds the list, in hex.
    """

    source: str
    sha256: str


class GenaiPriceBook:
    """A price book made of the price list that genai-prices ships. Nothing is fetched.

    Prices are of a provider's standard service tier, for text. A call is reserved as if each token were of the dearest
    kind: written to the provider's cache, where that costs more, or thought. Where a price depends on the time of day,
    the highest counts; see `listed_usd` for what is settled.
    """

    def __init__(self) -> None:
        self._known: dict[str, Price | None] = {}
        self._day = 0

    def price(self, model: str) -> Price | None:
        """What `model` (`provider:name`, or a name alone) costs; None when the list does not say.

        The first call loads the list (about half a second); after that a model is looked up once a day (UTC), since
        the list has prices that begin on a day to come.
        """
        today = int(time() // _DAY_S)
        if today != self._day:
            self._known, self._day = {}, today
        if model not in self._known:
            info = _find(model)
            price = None if info is None else _price_of(info)
            self._known[model] = None if price is None else replace(price, source=_source())
        return self._known[model]

    @property
    def data(self) -> PriceData:
        """The list in use, for a record of what a run was priced by."""
        return _data()


@cache
def _data() -> PriceData:
    spec = find_spec("genai_prices.data")
    assert spec is not None
    assert spec.origin is not None
    digest = hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
    return PriceData(f"genai-prices {version('genai-prices')}", digest)


def _source() -> str:
    return f"{_data().source} sha256:{_data().sha256}"


def listed_usd(model: str, usage: RequestUsage, details: Mapping[str, object]) -> dict[str, Decimal]:
    """What a call cost by the list, where that is not the standard price of its tokens: it was cached, or dearer.

    Args:
        model: As for `GenaiPriceBook.price`.
        usage: What the provider reported.
        details: What else it reported; of it counts by which service tier and at which speed it answered.
    """
    tier = {name: said for name in _TIERS if isinstance(said := details.get(name), str) and said not in STANDARD}
    if not (tier or usage.cache_read_tokens or usage.cache_write_tokens):
        return {}
    info = _find(model)
    if info is None:
        return {}
    try:
        cost = info.get_prices(datetime.now(UTC), tier or None).calc_price(usage)["total_price"]
    except ValueError:  # more of it was cached than there was, say: the standard price is no less
        return {}
    return {_source(): cost}


def _find(model: str) -> ModelInfo | None:
    from genai_prices.data_snapshot import get_snapshot  # here: the list takes 0.5 s to load

    provider, colon, name = model.partition(":")
    try:
        return get_snapshot().find_provider_model(name if colon else model, None, provider if colon else None, None)[1]
    except LookupError:
        return None


def _price_of(info: ModelInfo) -> Price | None:
    """The dearest of the prices that can hold from now on, or None where tokens are not what is paid for."""
    prices = [_tiered(price) for price in _in_force(info)]
    known = [price for price in prices if price is not None]
    if len(known) < len(prices):
        return None
    price = max(known, key=lambda price: (price.output_usd, price.input_usd))
    dearest = tuple({tier: None for other in known for tier in other.dearest})
    most, per_request = max(tier[2] for tier in dearest), max(other.request_usd for other in known)
    if len(dearest) == 1 and dearest == price.tiers:
        return Price(price.input_usd, most, per_request)
    return replace(price, output_usd=most, request_usd=per_request, dearest=dearest)


def _in_force(info: ModelInfo) -> Iterator[ModelPrice]:
    """The price of this moment, and those of other times of the day."""
    from genai_prices.types import ModelPrice, TimeOfDateConstraint  # here: only when a price is asked for

    yield info.get_prices(datetime.now(UTC))
    for conditional in [] if isinstance(info.prices, ModelPrice) else info.prices:
        if isinstance(conditional.constraint, TimeOfDateConstraint):
            yield conditional.prices


def _tiered(price: ModelPrice) -> TieredPrice | None:
    sent = _tiers(getattr(price, "input_mtok", None))
    received = _tiers(getattr(price, "output_mtok", None))
    if sent is None or received is None:
        return None
    requests: Decimal | TieredPrices | None = getattr(price, "requests_kcount", None)
    per_request = ZERO if requests is None else max(usd for _, usd in _tiers(requests, 1000) or ())
    tiers = _joined([sent], [received])
    dearest = _joined(_kinds(price, ("input_", "cache_")), _kinds(price, ("output_",)))
    most = max(tier[1] for tier in tiers), max(tier[2] for tier in tiers)
    return TieredPrice(*most, per_request, tiers=tiers, dearest=dearest)


def _kinds(price: ModelPrice, ways: tuple[str, ...]) -> list[Rates]:
    """The rates of all kinds of tokens that go in, which is text, or that come out, of which nobody knows."""
    names = [name for name in vars(price) if name.startswith(ways) and name.endswith("_mtok")]
    texts = [name for name in names if name.startswith("output_") or not any(kind in name for kind in _NO_TEXT)]
    return [rates for name in texts if (rates := _tiers(getattr(price, name))) is not None]


def _joined(sent: list[Rates], received: list[Rates]) -> Tiers:
    """The dearest rates, from each number of input tokens on at which one changes."""
    starts = sorted({start for rates in (*sent, *received) for start, _ in rates})
    return tuple(
        (start, max(_at(rates, start) for rates in sent), max(_at(rates, start) for rates in received))
        for start in starts
    )


def _tiers(price: Decimal | TieredPrices | None, per: int = 1_000_000) -> Rates | None:
    """Pairs of the input tokens from which a rate holds and the rate in USD per unit."""
    if price is None:
        return None
    if isinstance(price, Decimal):
        return [(0, price / per)]
    return [(0, price.base / per), *((tier.start + 1, tier.price / per) for tier in price.tiers)]


def _at(tiers: Sequence[tuple[int, Decimal]], start: int) -> Decimal:
    return max(tier for tier in tiers if tier[0] <= start)[1]
