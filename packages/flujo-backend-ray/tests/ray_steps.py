"""Steps, resources and plugins of the tests; they are imported in the actors too."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from flujo.core import (
    Allow,
    Deny,
    GuardToolCall,
    Map,
    Message,
    ModelChunk,
    ModelRequest,
    ModelUsage,
    Price,
    Resource,
    Resources,
    RunContext,
    Stage,
    Step,
    StreamStep,
    ToolCall,
    ToolResult,
    TransformChunk,
    UsageLimits,
    Worker,
    hookimpl,
    step,
)


class Opened:
    """A live object; it knows how often one was opened in its process."""

    count = 0

    def __init__(self) -> None:
        Opened.count += 1


@asynccontextmanager
async def open_one() -> AsyncIterator[Opened]:
    yield Opened()


class AppResources(Resources):
    opened: Opened = Resource(open_one, scope="app")


@step
async def how_often(_: int, opened: Opened) -> list[int]:
    return [os.getpid(), opened.count]


@step
async def double(number: int) -> int:
    return 2 * number


@step(timeout_s=2)
async def hurried(number: int) -> list[object]:
    """Twice the number, where its cluster keeps its files, what others may do there, and how it knows who asks."""
    import ray  # heavy, and only where it runs

    folder = Path(ray._private.worker._global_node.get_session_dir_path()).parents[1]
    return [2 * number, str(folder), folder.stat().st_mode & 0o077, os.environ.get("RAY_AUTH_MODE")]


@step
async def sleeps(seconds: float) -> float:
    await anyio.sleep(seconds)
    return seconds


@step
async def dies_once(path: str) -> str:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("ran\n")
    os._exit(3)


@step
async def interrupts(number: int) -> int:
    if number == 1:
        raise KeyboardInterrupt
    return os.getpid()


@step(limits=UsageLimits(total_cost_usd_limit="0.10"))
async def cost_ten_cents(number: int, ctx: RunContext) -> int:
    async with ctx.usage.reserve(cost_usd="0.10") as lease:
        lease.settle(cost_usd="0.10")
    return number


@step
async def delete(folder: str, ctx: RunContext) -> str:
    async def send(call: ToolCall) -> ToolResult:
        Path(folder, "deleted").write_text("", encoding="utf-8")
        return ToolResult(content="gone")

    return str((await ctx.call_tool(ToolCall(name="delete"), send)).content)


class NoDeleting:
    """A guard, which an object is: it does not travel, so the actors make one of their own."""

    @hookimpl
    def guard_tool_call(self, payload: GuardToolCall) -> Allow | Deny:
        return Deny("nothing is deleted here") if payload.call.name == "delete" else Allow()


def worker() -> Worker:
    return Worker(plugins=[NoDeleting()], engine="ray")


doubled = Map(Step(double))
pipeline = doubled


def streamed(function: Callable[..., AsyncIterator[Any]], **options: Any) -> StreamStep:
    """A streaming step of a function of this module."""
    return StreamStep((Stage.of(function.__name__, function),), name=function.__name__, **options)


async def chunks(most: int) -> AsyncIterator[str]:
    for number in range(most):
        yield f"{number} "


async def held(folder: str) -> AsyncIterator[str]:
    """Gives many chunks, with a letter in a file for each that it made, and leaves word of its end."""
    try:
        for number in range(5000):
            with Path(folder, "made").open("a", encoding="utf-8") as file:
                file.write("x")
            yield f"{number} "
    finally:
        Path(folder, "closed").touch()


async def waits(folder: str) -> AsyncIterator[str]:
    """Gives its second chunk when its reader has seen the first."""
    yield "first "
    with anyio.fail_after(30):
        while not Path(folder, "seen").exists():
            await anyio.sleep(0.01)
    yield str(os.getpid())


async def hangs(folder: str) -> AsyncIterator[str]:
    try:
        yield "one "
        await anyio.sleep(600)
    finally:
        Path(folder, "closed").touch()


async def dies(text: str, ctx: RunContext) -> AsyncIterator[str]:
    yield text
    os._exit(3)


async def pays(most: int, ctx: RunContext) -> AsyncIterator[str]:
    for number in range(most):
        async with ctx.usage.reserve(cost_usd="0.10") as lease:
            lease.settle(cost_usd="0.10")
        yield f"{number} "


async def talks(text: str, ctx: RunContext) -> AsyncIterator[str]:
    async def send(request: ModelRequest) -> AsyncIterator[ModelChunk]:
        for word in str(request.messages[-1].content).split():
            yield ModelChunk(word + " ")
        yield ModelChunk(usage=ModelUsage(input_tokens=10, output_tokens=5))

    asked = ModelRequest(model="acme:small", messages=(Message(role="user", content=text),), max_tokens=5)
    async with ctx.stream_model(asked, send, price=Price(input_usd="0.001", output_usd="0.002")) as answer:
        async for piece in answer.text():
            yield piece


class Marks:
    """Marks chunks with where they were seen."""

    @hookimpl
    def transform_chunk(self, payload: TransformChunk) -> str:
        return "" if payload.is_last else f"<{payload.surface}:{payload.value}>"


def marking() -> Worker:
    return Worker(plugins=[Marks()], engine="ray")
