"""The plugin `flujo-agent`: a price book, commands and recipes. Nothing of it acts in a run: it need not be named."""

from __future__ import annotations

from collections.abc import Sequence

from flujo.core import Command, PriceBook, hookimpl

from .offered import RECIPES, Recipe
from .prices import GenaiPriceBook

flujo_api = "1.0"

_BOOK = GenaiPriceBook()


@hookimpl
def register_price_books() -> list[PriceBook]:
    """The price list of genai-prices."""
    return [_BOOK]


@hookimpl
def register_commands() -> Sequence[Command]:
    """`flujo eval`, `flujo solve` and `flujo chat`."""
    talk = "Talk with a model, under limits; goes on later where a store keeps it."
    made = "Let a recipe solve a task: made, checked, made again, under limits."
    return [
        Command("eval", "Score a pipeline on a dataset, and compare with a saved run.", "flujo.agent.evalcli:eval_"),
        Command("solve", made, "flujo.agent.solvecli:solve"),
        Command("chat", talk, "flujo.agent.chatcli:chat"),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    """What `flujo solve --recipe` knows."""
    return RECIPES
