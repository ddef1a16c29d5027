"""Recipes by name: what this package offers to `flujo solve`, and how another package offers its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

from flujo.core import ConfigurationError, Pipeline, Plugins

from .agents import agent
from .conversing import Conversation
from .looping import AgenticLoop
from .recipes import generate_review_validate
from .solving import Default
from .spec import AgentOptions

if TYPE_CHECKING:
    from pydantic_ai.models import Model

__all__ = ["RECIPES", "Recipe", "recipe_called"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe as a plugin offers it: its `register_recipes()`, marked with `@hookimpl`, gives a list of them.

    Attributes:
        name: What it is called by, e.g. in `flujo solve --recipe NAME`.
        help: One line of what it does.
        make: Makes the pipeline of a model: `make(model, instructions="...", **options)`; the options are those of
            `agent`.
    """

    name: str
    help: str
    make: Callable[..., Pipeline]


def _reviewed(model: str | Model, *, instructions: str = "", **options: Unpack[AgentOptions]) -> Pipeline:
    task = instructions or "Do what you are asked."
    review = "It does all of what the task asks, is right, and says nothing that was not asked for."
    return generate_review_validate(model, task=task, review=review, **options)


def _looped(model: str | Model, *, instructions: str = "", **options: Unpack[AgentOptions]) -> Pipeline:
    worker = agent(
        model, instructions="Do what you are asked, and nothing else.", output_type=str, name="worker", **options
    )
    about = {"worker": "thinks, writes and computes; it knows only what you tell it"}
    return AgenticLoop(model, {"worker": worker}, about=about, instructions=instructions, **options)


RECIPES = (
    Recipe("default", "A checklist, an answer, its validation and what to do better, until it is good.", Default),
    Recipe("loop", "A planner that lets an agent work, asks you, and finishes.", _looped),
    Recipe("review", "An answer, reviewed and revised.", _reviewed),
    Recipe("conversation", "An agent and a human in turn: `flujo chat`.", Conversation),
)
"""The recipes of this package."""


def recipe_called(name: str) -> Recipe:
    """The recipe of a name, of any installed and allowed plugin.

    Raises:
        ConfigurationError: No plugin offers it.
        PluginError: A plugin failed to load, or offers something else.
    """
    offered = {recipe.name: recipe for _, recipe in reversed(Plugins().registered("register_recipes", Recipe))}
    if name in offered:
        return offered[name]
    raise ConfigurationError(f"there is no recipe {name!r}", f"there are: {', '.join(sorted(offered))}")
