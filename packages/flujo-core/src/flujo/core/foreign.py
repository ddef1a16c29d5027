"""Calls into code that is not ours, where any exception is an answer: plugins, factories, reducers.

The one place that catches whatever such code raises, so that no caller needs a broad `except` of its own. A cancel
is never caught: it is no answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def attempt(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, None] | tuple[None, Exception]:
    """Call `function` and return its value, or the exception it raised."""
    try:
        return function(*args, **kwargs), None
    except Exception as error:  # foreign code may raise anything; the caller says what that means
        return None, error


async def attempt_async(awaitable: Awaitable[T]) -> tuple[T, None] | tuple[None, Exception]:
    """Await and return the value, or the exception that was raised."""
    try:
        return await awaitable, None
    except Exception as error:  # as above
        return None, error
