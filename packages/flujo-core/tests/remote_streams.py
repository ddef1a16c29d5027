"""Streaming steps and plugins of the tests of streams that run elsewhere: what a worker process can import."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from pydantic import BaseModel

from flujo.core import (
    Message,
    ModelChunk,
    ModelRequest,
    ModelUsage,
    Price,
    Resources,
    RunContext,
    TransformChunk,
    hookimpl,
    step,
)
from flujo.core.streamstep import Stage, StreamStep
from flujo.core.testing.trial_steps import mark


def stream(*functions: object, **options: object) -> StreamStep:
    """A streaming step of functions that stand in this module."""
    names = [getattr(function, "__name__", "") for function in functions]
    stages = tuple(Stage.of(name, function) for name, function in zip(names, functions, strict=True))  # type: ignore[arg-type]
    return StreamStep(stages, name=">>".join(names), **options)  # type: ignore[arg-type]


class Facts(BaseModel, frozen=True):
    """A context with a field that no step here reads."""

    subject: str = "flows"
    private: str = "not for workers"


class Tools(Resources):
    word: str


async def knows(_: str, context: Facts, word: str) -> AsyncIterator[str]:
    yield context.subject + " "
    yield word


class Row(BaseModel, frozen=True):
    number: int


async def rows(most: int) -> AsyncIterator[Row]:
    for number in range(most):
        yield Row(number=number)


async def words(text: str) -> AsyncIterator[str]:
    for word in text.split():
        yield word + " "


async def loud(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    async for chunk in chunks:
        yield chunk.upper()


async def where(_: str) -> AsyncIterator[int]:
    yield os.getpid()


async def held(folder: str) -> AsyncIterator[str]:
    """Gives chunks without an end, marks each that it makes, and its end."""
    try:
        for number in range(100_000):
            mark(folder, f"made-{number}")
            yield f"{number} "
    finally:
        mark(folder, "closed")


async def waits(folder: str) -> AsyncIterator[str]:
    """Gives its second chunk when its reader, who has the first, says so."""
    yield "first "
    with anyio.fail_after(20):
        while not Path(folder, "seen").exists():
            await anyio.sleep(0.01)
    yield "second"


async def hangs(folder: str) -> AsyncIterator[str]:
    try:
        yield "one "
        mark(folder, "hangs")
        await anyio.sleep(60)
    finally:
        mark(folder, "closed")


async def breaks(text: str) -> AsyncIterator[str]:
    yield text
    raise ValueError("it broke")


async def dies(text: str, ctx: RunContext) -> AsyncIterator[str]:
    yield text
    os._exit(3)


async def asks(text: str, ctx: RunContext) -> AsyncIterator[str]:
    yield f"{text}? "
    yield str(await ctx.ask("sure?", bool))


async def pays(most: int, ctx: RunContext) -> AsyncIterator[str]:
    """Pays ten cents for each chunk."""
    for number in range(most):
        async with ctx.usage.reserve(cost_usd="0.10") as lease:
            lease.settle(cost_usd="0.10")
        yield f"{number} "


async def pays_and_hangs(_: int, ctx: RunContext) -> AsyncIterator[str]:
    async with ctx.usage.reserve(cost_usd="0.10") as lease:
        lease.settle(cost_usd="0.10")
    yield "paid "
    await anyio.sleep(60)


async def talks(text: str, ctx: RunContext) -> AsyncIterator[str]:
    """Streams what a model says."""

    async def send(request: ModelRequest) -> AsyncIterator[ModelChunk]:
        for word in str(request.messages[-1].content).split():
            yield ModelChunk(word + " ")
        yield ModelChunk(usage=ModelUsage(input_tokens=10, output_tokens=5))

    asked = ModelRequest(model="acme:small", messages=(Message(role="user", content=text),), max_tokens=5)
    async with ctx.stream_model(asked, send, price=Price(input_usd="0.001", output_usd="0.002")) as answer:
        async for piece in answer.text():
            yield piece


async def unkept(_: int) -> AsyncIterator[object]:
    yield object()


class Talker:
    """An agent with `stream`."""

    name = "talker"

    async def stream(self, text: str) -> AsyncIterator[str]:
        yield text
        yield "!"


talker = Talker()


class Marks:
    """A plugin that marks every chunk that it sees, with its surface."""

    @hookimpl
    def transform_chunk(self, payload: TransformChunk) -> str:
        if payload.is_last:
            return ""
        payload.run.count("chunks", payload.surface)
        return f"<{payload.surface}:{payload.value}>"


def plugins() -> list[object]:
    return [Marks()]


def piped(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    return loud(chunks)


made = StreamStep((Stage.of("made(1)", lambda chunks: loud(chunks)),), name="made(1)")
"""A step that a function would make: nothing but this name leads to its generator."""


async def talks_not(text: str, ctx: RunContext) -> AsyncIterator[str]:
    """Could use something that is metered, and does not."""
    for word in text.split():
        yield word + " "


@step
async def step_of_one(number: int) -> int:
    return number
