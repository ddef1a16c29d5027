"""A pipeline with each combinator, and a run of it that waits for two humans: its snapshot has every part there is."""

from __future__ import annotations

import operator
from typing import Annotated, Any

from pydantic import BaseModel

from flujo.core import (
    Branch,
    Fallback,
    Flujo,
    Loop,
    Map,
    Parallel,
    PipelineResult,
    RunContext,
    Step,
    ToolCall,
    ToolResult,
    Update,
    UsageLimits,
)


class Memory(BaseModel, frozen=True):
    log: Annotated[list[int], operator.add] = []
    last: int = 0


async def add(value: int) -> int:
    return value + 1


async def write(value: int, memory: Memory) -> Update[int]:
    return Update(value + memory.last, log=[value], last=value)


async def fail(value: int) -> int:
    raise ValueError("no good")


async def ask_twice(value: int, ctx: RunContext) -> int:
    return await ctx.ask("the first?", schema=int) + await ctx.ask("the second?", schema=int)


async def ask_after_a_tool(value: int, ctx: RunContext) -> int:
    async def send(call: ToolCall) -> ToolResult:
        return ToolResult(content=value)

    told = await ctx.call_tool(ToolCall(name="tool", arguments={"value": value}), send)
    return await ctx.ask(f"{told.content}?", schema=int)


async def count(value: dict[str, Any]) -> list[int]:
    return list(range(len(value)))


def build() -> Flujo:
    """The pipeline."""
    wrote = Step(write, writes=("log", "last"), reads=("log", "last")) >> Step(add, name="added")
    branches = (
        Step(ask_twice),
        Step(ask_after_a_tool),
        Loop(wrote, lambda value: value > 3, 3, "return", name="loop"),
        Fallback(Step(fail), Step(add, name="instead"), name="fallback"),
        Step(fail, name="collected"),
    )
    fan = Parallel(*branches, on_failure="collect", name="fan")
    cases: dict[Any, Any] = {True: Step(count)}
    branch = Branch(lambda value: len(value) > 1, cases, Step(count, name="few"), name="branch")
    items = Map(Step(add, name="item", when=lambda value: value > 1), name="map")
    limited = Step(add, name="limited", limits=UsageLimits(total_tokens_limit=50))
    return Flujo(Step(add, name="first") >> limited >> fan >> branch >> items, context_model=Memory)


async def paused() -> PipelineResult:
    """A run of it that waits for two humans, after one of them has answered already."""
    flujo, facts = build(), {"actor": "ann", "tags": {"a": "b"}}
    result = await flujo.run_async(1, limits=UsageLimits(total_tokens_limit=1000), **facts)  # type: ignore[arg-type]
    first = next(pause for pause in result.pauses if pause.question == "the first?")
    return await flujo.resume_async(result, 4, pause=first)
