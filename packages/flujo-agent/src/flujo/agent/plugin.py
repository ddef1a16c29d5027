"""The plugin `flujo-agent`: it brings a price book. Nothing of it acts in a run, so it need not be named."""

from __future__ import annotations

from flujo.core import PriceBook, hookimpl

from .prices import GenaiPriceBook

flujo_api = "1.0"

_BOOK = GenaiPriceBook()


@hookimpl
def register_price_books() -> list[PriceBook]:
    """The price list of genai-prices."""
    return [_BOOK]
