"""The plugin `flujo-agent`: it brings a price book and a command. Nothing of it acts in a run: it need not be named."""

from __future__ import annotations

from collections.abc import Sequence

from flujo.core import Command, PriceBook, hookimpl

from .prices import GenaiPriceBook

flujo_api = "1.0"

_BOOK = GenaiPriceBook()


@hookimpl
def register_price_books() -> list[PriceBook]:
    """The price list of genai-prices."""
    return [_BOOK]


@hookimpl
def register_commands() -> Sequence[Command]:
    """`flujo eval ...`."""
    return [
        Command("eval", "Score a pipeline on a dataset, and compare with a saved run.", "flujo.agent.evalcli:eval_")
    ]
