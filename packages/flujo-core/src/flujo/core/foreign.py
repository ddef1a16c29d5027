"""Calls into code that is not ours, where any exception is an answer: plugins, factories, reducers.

The one place that catches whatever such code raises, so that no caller needs a broad `except` of its own. A cancel
from outside is never caught: it is no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import ParamSpec, TypeVar, cast

from .scrubbing import secrets_in, without

P = ParamSpec("P")
T = TypeVar("T")


def attempt(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, None] | tuple[None, Exception]:
    """Call `function` and return its value, or the exception it raised."""
    try:
        return function(*args, **kwargs), None
    except BaseException as error:  # foreign code may raise anything; the caller says what that means
        if fault_of(error) is None:
            raise
        return None, cast("Exception", fault_of(error))  # in no variable: this frame stands in its traceback


async def attempt_async(awaitable: Awaitable[T]) -> tuple[T, None] | tuple[None, Exception]:
    """Await code that is not ours, and return its value, or the exception it raised.

    An exit is told as an exception too, and so is a cancel that nobody asked for; one from outside is raised.
    """
    try:
        return await awaitable, None
    except BaseException as error:  # as above
        if fault_of(error) is None:
            raise
        return None, cast("Exception", fault_of(error))  # in no variable: this frame stands in its traceback


def fault_of(error: BaseException) -> Exception | None:
    """An exception of foreign code as an answer; None of what must go on up, as a cancel from outside."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, SystemExit):  # a step or plugin that wants to end the program has only failed
        return RuntimeError(f"it called sys.exit({error.code!r})")
    if type(error).__module__ == "pyo3_runtime":  # a panic of Rust code, which many libraries have inside: no exit
        return RuntimeError(f"it panicked: {attempt(str, error)[0]}")
    if isinstance(error, BaseExceptionGroup):  # of a task group, which is a fault where all in it are
        faults = [fault_of(one) for one in error.exceptions]
        return None if None in faults else ExceptionGroup(error.message, [one for one in faults if one is not None])
    if isinstance(error, asyncio.CancelledError):
        task, _ = attempt(asyncio.current_task)
        if task is None or not task.cancelling():
            # Nobody cancelled us: it awaited something that was cancelled, and that is a failure like others.
            return RuntimeError(f"what it waited for was cancelled {error}".rstrip())
    return None


def text_of(error: BaseException, knows: Iterable[object] = ()) -> str:
    """The text of a foreign exception, without the secrets among what its code was given; it may fail to have one."""
    text, fault = attempt(str, error)
    if text is None:
        return f"its text cannot be read ({type(fault).__name__})"
    if isinstance(error, BaseExceptionGroup):  # which does not say what is in it
        text += "".join(f"; {type(one).__name__}: {text_of(one)}" for one in error.exceptions[:3])
    return without(attempt(secrets_in, knows)[0] or (), text)
