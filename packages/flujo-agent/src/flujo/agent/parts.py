"""What recipes are put together from: steps that play a role, and every problem told at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flujo.core import PipelineError, Step, UsageLimits

from .agents import ModelAgent
from .models import is_model
from .spec import AgentOptions, check_names

__all__ = ["Players", "own", "whole"]


class Players:
    """Makes the steps of a recipe's roles, and remembers what is wrong with any of them.

    Attributes:
        problems: All of it, one sentence each.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._told: set[str] = set()

    def step(self, role: str, player: object, make: Callable[[Any], ModelAgent[Any]]) -> Step:
        """The step called `role`; `make` makes the agent where a model plays it."""
        try:
            if isinstance(player, str) or player is None or is_model(player):
                player = make(player)
            if isinstance(player, ModelAgent):
                return Step(player, name=role, reads=player.reads)
            return Step(player, name=role)
        except PipelineError as error:
            # several roles of one model have the same problem
            self.problems += [f"{role}: {problem}" for problem in error.problems if problem not in self._told]
            self._told.update(error.problems)
            return Step(_nothing, name=role)

    def check(self, what: str, limits: object, options: AgentOptions) -> None:
        """Raise PipelineError when anything is wrong, and TypeError for an option that no agent has."""
        check_names(options)
        if not isinstance(limits, (UsageLimits, type(None))):
            self.problems.append("limits= is a UsageLimits(...)")
        if self.problems:
            raise PipelineError(f"{what} cannot be built", self.problems)


async def _nothing() -> None:
    """Stands for a role that cannot be played, until all problems are known."""


def own(function: Callable[..., object], takes: dict[str, object], gives: object, **options: Any) -> Step:
    """A step of a recipe's own, whose types are known only when the recipe is built."""
    function.__annotations__ = {**takes, "return": gives}
    return Step(function, **options)


def whole(problems: list[str], least: int, **numbers: object) -> None:
    """Note each of these numbers that is not a whole one of `least` or more."""
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            problems.append(f"{name}={value!r} must be a whole number of {least} or more")
