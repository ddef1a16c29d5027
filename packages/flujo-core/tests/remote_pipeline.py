"""Steps, plugins and models of the tests of remote steps: what a worker process can import."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import anyio
from pydantic import BaseModel, SecretStr

from flujo.core import (
    AbortPipeline,
    Allow,
    Deny,
    FlujoError,
    GuardModelCall,
    GuardStep,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    PipelineMutation,
    Price,
    Resources,
    RunContext,
    ToolCall,
    ToolResult,
    TransformModelRequest,
    TransformModelResponse,
    Update,
    hookimpl,
    step,
)


class Facts(BaseModel, frozen=True):
    """A context with a field that no step here reads."""

    subject: str = "flows"
    count: int = 0
    private: str = "not for workers"


class Pair(BaseModel, frozen=True):
    left: int
    right: int


class Holding(Resources):
    """Resources of which one is a secret that somebody gave by hand."""

    key: SecretStr


@step
async def add(pair: Pair) -> int:
    return pair.left + pair.right


@step
async def give(number: int) -> int:
    return number


@step
async def where(_: int) -> int:
    return os.getpid()


@step(reads=("subject",), writes=("count",))
async def count_letters(_: str, context: Facts) -> Update[int]:
    return Update(len(context.subject), count=len(context.subject))


@step
async def reads_nothing(_: str, context: Facts) -> str:
    return context.subject


@step
async def with_key(_: int, key: SecretStr) -> int:
    return len(key.get_secret_value())


@step
async def ask_model(text: str, ctx: RunContext) -> str:
    async def send(request: ModelRequest) -> ModelResponse:
        usage = ModelUsage(input_tokens=10, output_tokens=5)
        return ModelResponse(content=f"{request.messages[0].content}@{os.getpid()}", usage=usage)

    request = ModelRequest(model="acme:small", messages=(Message(role="user", content=text),), max_tokens=5)
    return (await ctx.call_model(request, send, price=Price(input_usd="0.001", output_usd="0.002"))).content


@step
async def bills_more(text: str, ctx: RunContext) -> str:
    async def send(_: ModelRequest) -> ModelResponse:
        return ModelResponse(content="paid", usage=ModelUsage(input_tokens=1000, output_tokens=5))

    request = ModelRequest(model="acme:small", messages=(Message(role="user", content=text),), max_tokens=5)
    return (await ctx.call_model(request, send, price=Price(input_usd="0.001", output_usd="0.002"))).content


@step
async def swallow(_: int, ctx: RunContext) -> int:
    """Goes on, whatever it is refused."""

    async def send(request: ModelRequest) -> ModelResponse:
        return ModelResponse(usage=ModelUsage(), content="y")

    with suppress(FlujoError):
        async with ctx.usage.reserve(cost_usd="0.75") as lease:
            lease.settle()
    with suppress(FlujoError):
        request = ModelRequest(model="acme:small", messages=(Message(role="user", content="x"),))
        await ctx.call_model(request, send, price=Price())
    return 1


@step
async def confirm(text: str, ctx: RunContext) -> str:
    answer = await ctx.ask(f"{text}?", bool)
    return f"{text}: {answer}"


@step
async def pay(_: int, ctx: RunContext) -> str:
    async def send(call: ToolCall) -> ToolResult:
        return ToolResult(content="paid")

    return str((await ctx.call_tool(ToolCall(name="pay"), send, effect="at_most_once")).content)


@step
async def sleeps(seconds: int) -> int:
    await anyio.sleep(seconds)
    return seconds


@step
async def anything(value: Any) -> Any:
    return value


class Mask:
    """A plugin that acts in calls of models."""

    @hookimpl
    def transform_model_request(self, payload: TransformModelRequest) -> ModelRequest:
        payload.run.count("masked", "texts")
        masked = tuple(one.model_copy(update={"content": "***"}) for one in payload.value.messages)
        return payload.value.model_copy(update={"messages": masked})

    @hookimpl
    def guard_model_call(self, payload: GuardModelCall) -> Allow | Deny:
        return Allow() if payload.request.messages[0].content == "***" else Deny("it was not masked")


class Quit:
    """A plugin that ends the run in calls of models."""

    @hookimpl
    def transform_model_response(self, payload: TransformModelResponse) -> ModelResponse:
        raise AbortPipeline("enough")


class Forbid:
    """A plugin that denies steps, on the worker only."""

    def __init__(self, process: int = 0) -> None:
        self.process = process

    @hookimpl
    def guard_step(self, payload: GuardStep) -> Allow | Deny:
        return Allow() if os.getpid() == self.process else Deny("not in this process")


def plugins() -> list[object]:
    return [Mask(), Forbid(), Quit()]


@step
async def mutates(value: int) -> PipelineMutation[int]:
    """Wants to leave out what comes after it."""
    return PipelineMutation(value, remove=["give"])
