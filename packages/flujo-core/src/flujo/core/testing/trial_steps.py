"""Steps with which a backend is tried. They can be imported on a worker, and leave marks in a file rather than in
memory, so that a backend that runs steps in other processes of this machine can be tried with them, too.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import anyio
from pydantic import BaseModel

from flujo.core import Resource, Resources, Update, step

PATIENCE_S = 2.0
"""How long a step goes on that should have been ended or let go on: nothing here lasts for ever."""

TAG: ContextVar[str] = ContextVar("flujo_trial_tag", default="unset")


def mark(folder: str, word: str) -> None:
    """Leave a mark."""
    with Path(folder, "marks").open("a", encoding="utf-8") as file:
        file.write(f"{word}\n")


def marks(folder: str) -> list[str]:
    """The marks that were left, in order."""
    file = Path(folder, "marks")
    return file.read_text(encoding="utf-8").split() if file.exists() else []


@dataclass(frozen=True)
class Place:
    """The folder for marks, as a resource; it is plain data, so that it can travel."""

    folder: str


class Held:
    """A resource of step scope."""


@asynccontextmanager
async def hold(place: Place) -> AsyncIterator[Held]:
    """Mark when the resource is opened and closed."""
    mark(place.folder, "opened")
    try:
        yield Held()
    finally:
        mark(place.folder, "closed")


class TrialResources(Resources):
    """Resources of the trial."""

    place: Place
    held: Held = Resource(hold, scope="step")


class Notes(BaseModel, frozen=True):
    """The context of the trial."""

    note: str = ""


class Fatal(BaseException):
    """An end that is no Exception and no cancel, as a worker that dies may raise."""


# --- steps, async and sync --------------------------------------------------------------------------------------------


@step
async def double(number: int) -> int:
    """Give an output."""
    await anyio.sleep(0)
    return 2 * number


@step
def double_in_thread(number: int) -> int:
    """Give an output."""
    return 2 * number


@step
async def fail(text: str) -> int:
    """Fail."""
    await anyio.sleep(0)
    raise ValueError(text)


@step
def fail_in_thread(text: str) -> int:
    """Fail."""
    raise ValueError(text)


@step
async def fail_marked(folder: str) -> int:
    """Fail, and leave a mark for each time it is called."""
    mark(folder, "called")
    raise ValueError("to be tried again by the engine, if at all")


@step(writes=("note",))
async def note(text: str) -> Update[int]:
    """Change the context."""
    await anyio.sleep(0)
    return Update(len(text), note=text)


@step(writes=("note",))
def note_in_thread(text: str) -> Update[int]:
    """Change the context."""
    return Update(len(text), note=text)


@step
async def exit_program(code: int) -> int:
    """End the program, which a step cannot."""
    raise SystemExit(code)


@step
async def die(text: str) -> int:
    """End with what is neither an Exception nor a cancel."""
    raise Fatal(text)


@step
async def read_tag(_: str) -> str:
    """Read a context variable."""
    return TAG.get()


@step
def read_tag_in_thread(_: str) -> str:
    """Read a context variable."""
    return TAG.get()


@step
async def keep_tag(number: int) -> list[str]:
    """Set a context variable and read it later, beside others that do the same; every fifth fails."""
    TAG.set(str(number))
    for _ in range(5):
        await anyio.sleep(0.001)
    if number % 5 == 4:
        raise ValueError(str(number))
    return [str(number), TAG.get()]


@step
def keep_tag_in_thread(number: int) -> list[str]:
    """As keep_tag."""
    TAG.set(str(number))
    time.sleep(0.005)
    if number % 5 == 4:
        raise ValueError(str(number))
    return [str(number), TAG.get()]


@step
async def large_text(size: int) -> str:
    """Give a large text."""
    return "0123456789abcdé\n" * (size // 16)


@step
async def large_list(size: int) -> list[list[int]]:
    """Give a large, nested list."""
    return [[number, -number] for number in range(size)]


@step
async def sleep_marked(folder: str) -> str:
    """Wait for its end."""
    return await _beat(folder)


@step
async def sleep_holding(folder: str, held: Held) -> str:
    """Wait for its end, with a resource."""
    return await _beat(folder)


async def _beat(folder: str) -> str:
    """Leave marks for as long as it runs: what was killed with its process cannot say that it ended."""
    mark(folder, "started")
    end = anyio.current_time() + PATIENCE_S
    while anyio.current_time() < end:
        mark(folder, "beat")
        await anyio.sleep(0.01)
    return "slept through"


@step
def wait_in_thread(folder: str) -> str:
    """Wait for a mark that only a running event loop leaves."""
    return _wait_for_go(folder)


@step
def wait_holding_in_thread(folder: str, held: Held) -> str:
    """Wait for a mark, with a resource."""
    return _wait_for_go(folder)


def _wait_for_go(folder: str) -> str:
    mark(folder, "started")
    end, said = time.monotonic() + PATIENCE_S, "gave up"
    while time.monotonic() < end:
        if "go" in marks(folder):
            said = "went on"
            break
        time.sleep(0.005)
    mark(folder, "ended")
    return said
