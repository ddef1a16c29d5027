"""Streaming steps with which a backend is tried that hands over chunks; they can be imported on a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from pydantic import BaseModel

from flujo.core import RunContext, Stage, StreamStep

from .trial_steps import PATIENCE_S, mark, marks

MOST = 10_000
"""Chunks of a stream that should have been ended long before."""


class Row(BaseModel, frozen=True):
    """A chunk with a type of its own."""

    number: int


async def rows(most: int) -> AsyncIterator[Row]:
    """Give so many."""
    for number in range(most):
        yield Row(number=number)


async def until_seen(folder: str) -> AsyncIterator[str]:
    """Give the second chunk when the reader has left word that it has the first."""
    yield "first"
    with anyio.move_on_after(PATIENCE_S) as late:
        while "seen" not in marks(folder):
            await anyio.sleep(0.005)
    yield "late" if late.cancelled_caught else "second"


async def on_and_on(folder: str) -> AsyncIterator[int]:
    """Mark each chunk that is made, and the end."""
    try:
        for number in range(MOST):
            mark(folder, "made")
            yield number
    finally:
        mark(folder, "closed")


async def break_off(text: str) -> AsyncIterator[str]:
    """Fail after a chunk."""
    yield text
    raise ValueError("the line went dead")


async def die_between(text: str, ctx: RunContext) -> AsyncIterator[str]:
    """Take the worker's process away after a chunk, in the middle of work that costs."""
    yield text
    os.kill(os.getpid(), signal.SIGKILL)


def stream_of(function: Callable[..., AsyncIterator[Any]], **options: Any) -> StreamStep:
    """A step of one of these."""
    return StreamStep((Stage.of(function.__name__, function),), name=function.__name__, **options)
