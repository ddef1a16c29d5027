"""Validators: plain functions that say what is wrong with an output."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

Problem = str | None
"""What is wrong, in words that the model is shown; None where nothing is."""

Validator = Callable[[T], Problem | Awaitable[Problem]]
"""Looks at an output; async or not. A ValueError or AssertionError that it raises is a problem too."""


async def problems_of(output: T, validators: Iterable[Validator[T]]) -> list[str]:
    """Ask every validator, and return what they found wrong.

    Raises:
        TypeError: A validator answered with something else than a text or None.
    """
    return [problem for validator in validators if (problem := await _asked(output, validator))]


async def _asked(output: T, validator: Validator[T]) -> Problem:
    try:
        answer = validator(output)
        problem = await answer if inspect.isawaitable(answer) else answer
    except (ValueError, AssertionError) as error:
        return str(error) or f"{name_of(validator)} does not hold ({type(error).__name__})"
    if problem is None or isinstance(problem, str):
        return problem
    raise TypeError(f"validator {name_of(validator)!r} returned {type(problem).__name__}, not a text or None")


def name_of(function: object) -> str:
    """A function's name, for people."""
    return str(getattr(function, "__name__", type(function).__name__))


def not_callable(functions: Sequence[object], word: str) -> list[str]:
    """A sentence for each of them that cannot be called."""
    return [f"{word} {function!r} is no function" for function in functions if not callable(function)]
