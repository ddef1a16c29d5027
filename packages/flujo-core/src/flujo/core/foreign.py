"""Calls into code that is not ours, where any exception is an answer: plugins, factories, reducers.

The one place that catches whatever such code raises, so that no caller needs a broad `except` of its own. A cancel
from outside is never caught: it is no answer.
"""

from __future__ import annotations

import asyncio
import threading
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
            check_cut(error)
            raise
        return None, cast("Exception", fault_of(error))  # in no variable: this frame stands in its traceback


def fault_of(error: BaseException) -> Exception | None:
    """An exception of foreign code as an answer; None of what must go on up, as a cancel from outside."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, SystemExit):  # a step or plugin that wants to end the program has only failed
        return RuntimeError(f"it called sys.exit({error.code!r})")
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is not threading.main_thread():
        return RuntimeError("it raised KeyboardInterrupt")  # a Ctrl-C comes to the main thread only
    if type(error).__module__ == "pyo3_runtime":  # a panic of Rust code, which many libraries have inside: no exit
        return RuntimeError(f"it panicked: {attempt(str, error)[0]}")
    if isinstance(error, BaseExceptionGroup):  # of a task group, which is a fault where all in it are
        faults = [fault_of(one) for one in _leaves(error)]
        return None if None in faults else ExceptionGroup(f"{error.args[0]}", [*filter(None, faults)])
    if isinstance(error, asyncio.CancelledError):
        task, _ = attempt(asyncio.current_task)
        if task is None or not task.cancelling():
            # Nobody cancelled us: it awaited something that was cancelled, and that is a failure like others.
            return RuntimeError(f"what it waited for was cancelled {error}".rstrip())
    return None


def check_cut(error: BaseException) -> None:
    """Raise the cancel that is in a group, alone: a scope would let the faults beside it through."""
    if isinstance(error, BaseExceptionGroup):
        cuts = [one for one in _leaves(error) if fault_of(one) is None]
        if not any(isinstance(one, KeyboardInterrupt) for one in cuts):
            raise cuts[0] from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """What is in a group and in those in it, each once, however deep and often; its class may be the user's."""
    found: dict[int, BaseException] = {id(group): group}
    for one in (todo := [group]):  # grows on the way
        for part in BaseExceptionGroup.exceptions.__get__(one):
            if found.setdefault(id(part), part) is part and isinstance(part, BaseExceptionGroup):
                todo.append(part)
    return [one for one in found.values() if not isinstance(one, BaseExceptionGroup)]


def text_of(error: BaseException, knows: Iterable[object] = ()) -> str:
    """The text of a foreign exception, without the secrets among what its code was given; it may fail to have one."""
    text, fault = attempt(str, error)
    if text is None:
        return f"its text cannot be read ({type(fault).__name__})"
    if isinstance(error, BaseExceptionGroup):  # which does not say what is in it
        text += "".join(f"; {type(one).__name__}: {text_of(one)}" for one in _leaves(error)[:3])
    return without(attempt(secrets_in, knows)[0] or (), text)
