"""Steps that the tests run on a worker: it imports this file from its own folder."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import anyio
from pydantic import BaseModel, SecretStr

from flujo.core import PauseForHumanInput, Resources, RunContext, Secret, step


class Digest(BaseModel):
    """A validated result."""

    text: str
    rounds: int
    digest: str


@step
async def shout(text: str) -> str:
    return text.upper() + "!"


@step
def plain(text: str) -> int:
    return len(text)


@step
async def twice(text: str) -> str:
    return text * 2


@step
async def hashed(text: str) -> Digest:
    """Real work: at least 100 ms of hashing, answering differently per input."""
    digest, rounds, end = text.encode(), 0, time.perf_counter() + 0.1
    while time.perf_counter() < end:
        digest, rounds = hashlib.sha256(digest).digest(), rounds + 1
    return Digest(text=text, rounds=rounds, digest=hashlib.sha256(text.encode()).hexdigest())


@step
async def metered(text: str, ctx: RunContext) -> Digest:
    """One that may spend, so that something is reserved for it."""
    return await hashed.function(text)


@step
async def marks(path: str) -> str:
    """Leave a line in a file, so that a test can count how often it ran."""
    with Path(path).open("a") as file:
        file.write("ran\n")
    return path


@step
async def slow_marks(path: str) -> str:
    """Leave a line, and end 1.5 s later, but not before there is a file `.go` beside it."""
    with Path(path).open("a") as file:
        file.write("ran\n")
    await anyio.sleep(1.5)
    while not Path(path).with_suffix(".go").exists():
        await anyio.sleep(0.02)
    return path


Way = Literal["exit", "segv", "kill", "sleep", "raise", "ok", "hush"]


@step
async def dies(way: Way) -> str:
    """End the process, in one of several ways."""
    if way == "exit":
        os._exit(3)
    if way in ("segv", "kill"):
        os.kill(os.getpid(), signal.SIGSEGV if way == "segv" else signal.SIGKILL)
    if way == "sleep":
        time.sleep(30)
    if way == "raise":
        raise ValueError("no such customer")
    return f"{way} {os.getpid()}"


@step
async def dies_metered(way: Way, ctx: RunContext) -> str:
    """One that may have spent something."""
    return await dies.function(way)


Interrupted = Literal["no", "itself", "task", "exit of a task", "stopped loop"]


@step
async def interrupted(way: Interrupted) -> str:
    """Raise, or have a task of its own raise, what ends an event loop."""

    async def raising(error: BaseException) -> None:
        raise error

    if way == "itself":
        raise KeyboardInterrupt
    if way == "task":
        await asyncio.create_task(raising(KeyboardInterrupt()))
    if way == "exit of a task":
        await asyncio.create_task(raising(SystemExit(3)))
    if way == "stopped loop":
        asyncio.get_running_loop().stop()
        await anyio.sleep(0.01)
    return way


@step
async def grows(size: int) -> str:
    return "x" * size


@step
async def says_report(text: str) -> str:
    """Say what looks like AWS's own line."""
    sys.stdout.write("REPORT RequestId: x\tDuration: 1 ms\tBilled Duration: 0 ms\tMemory Size: 1 MB\t")
    sys.stdout.write("Max Memory Used: 1 MB\n")
    return text


class Notes(BaseModel, frozen=True):
    """A context."""

    note: str = ""


@step(reads=("note",))
async def counts_note(text: str, notes: Notes) -> int:
    return len(notes.note)


@step
async def asks(text: str) -> str:
    raise PauseForHumanInput(f"Is {text} right?", schema=str)


@step
async def meets_model(text: str, ctx: RunContext) -> str:
    """Use money of the run, at its worst case."""
    async with ctx.usage.reserve(cost_usd="0.10") as lease:
        lease.settle(cost_usd="0.10")
    return text


class Keys(Resources):
    """Known by name only."""

    pepper: SecretStr = Secret("PEPPER")


@step
async def peppered(text: str, pepper: SecretStr) -> str:
    return hashlib.sha256((text + pepper.get_secret_value()).encode()).hexdigest()


async def spells(text: str) -> AsyncIterator[str]:
    """A stream."""
    for letter in text:
        yield f"{letter}@{os.getpid()} "


@step
async def collects(text: str, ctx: RunContext) -> str:
    """A stream, whole."""
    pieces = []
    async for piece in spells(text):
        await ctx.emit(piece)
        pieces.append(piece)
    return "".join(pieces)
