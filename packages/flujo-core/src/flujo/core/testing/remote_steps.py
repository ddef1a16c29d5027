"""Steps with which a remote backend is tried; like all trial steps they can be imported on a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import BaseModel, SecretStr

from flujo.core import PauseForHumanInput, Resource, Resources, RunContext, Secret, ToolCall, ToolResult, step

from .trial_steps import Place, mark, marks

SECRET = "FLUJO_TRIAL_SECRET"
"""Name of the secret that the trial's resources hold."""


class Known(BaseModel, frozen=True):
    """A context of which a step reads one field."""

    shown: str = ""
    hidden: str = ""


class Client:
    """A live object, which cannot travel."""

    def __init__(self) -> None:
        self.process: int = os.getpid()


@asynccontextmanager
async def connect(place: Place) -> AsyncIterator[Client]:
    """Open it, and leave marks."""
    mark(place.folder, "connected")
    try:
        yield Client()
    finally:
        mark(place.folder, "disconnected")


class RemoteResources(Resources):
    """Resources of the trial."""

    place: Place
    client: Client = Resource(connect, scope="run")
    password: SecretStr = Secret(SECRET)


@step
async def process_id(_: int) -> int:
    """Say where it runs."""
    return os.getpid()


@step
async def use_client(_: int, client: Client) -> list[int]:
    """Say where it runs, and where its resource was opened."""
    return [os.getpid(), client.process]


@step
async def length_of_password(_: int, password: SecretStr) -> int:
    """Say how long the secret is that the worker found."""
    return len(password.get_secret_value())


@step(reads=("shown",))
async def read_context(_: int, context: Known) -> list[str]:
    """Say which fields of the context are there."""
    return [name for name in Known.model_fields if hasattr(context, name)]


@step
async def identify(_: int, ctx: RunContext) -> list[str]:
    """Say which attempt it is."""
    return [ctx.run_id, ctx.step_path, ctx.idempotency_key, str(ctx.attempt)]


@step
async def spend(cents: int, ctx: RunContext) -> str:
    """Use some of the budget."""
    async with ctx.usage.reserve(cost_usd=f"0.{cents:02}", tokens=10) as lease:
        lease.settle(cost_usd=f"0.{cents:02}", input_tokens=4, output_tokens=3)
    return "spent"


@step
async def look_up(word: str, ctx: RunContext) -> str:
    """Call a tool."""

    async def send(call: ToolCall) -> ToolResult:
        return ToolResult(content=word.upper())

    result = await ctx.call_tool(ToolCall(name="dictionary", arguments={"word": word}), send)
    return str(result.content)


@step
async def ask_human(question: str) -> bool:
    """Pause."""
    raise PauseForHumanInput(question, bool)


@step
async def lose_connection(text: str) -> int:
    """Fail with a class that `retry_on` can name."""
    raise ConnectionResetError(text)


@step
async def die_once(folder: str, ctx: RunContext) -> str:
    """Take the worker's process away at the first attempt; leave the key as a mark each time."""
    mark(folder, ctx.idempotency_key)
    if len(marks(folder)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@step
async def die_always(_: int, ctx: RunContext) -> str:
    """Take the worker's process away in the middle of work that costs."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "unreachable"


@step
def touch(folder: str) -> str:
    """Leave a file."""
    Path(folder, "touched").write_text("", encoding="utf-8")
    return "touched"
