"""A process that runs pipelines of every kind for as long as it lives, and shows their metrics to Prometheus.

`observed_app.py PORT`. Each flow is one that a dashboard has a panel for.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import anyio
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

from flujo.core import (
    Deny,
    Flujo,
    GuardStep,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    PauseForHumanInput,
    Pipeline,
    Price,
    RetryPolicy,
    RunContext,
    Step,
    ToolCall,
    UsageLimits,
    hookimpl,
    step,
)

PRICE = Price("0.001", "0.002")


async def send(request: ModelRequest) -> ModelResponse:
    await anyio.sleep(0.01)
    return ModelResponse(content="ok", usage=ModelUsage(input_tokens=30, output_tokens=50), model="large-2")


async def broken(request: ModelRequest) -> ModelResponse:
    raise ConnectionError("the provider is away")


async def ask_model(ctx: RunContext, sender: Callable[[ModelRequest], Awaitable[ModelResponse]]) -> str:
    request = ModelRequest(model="acme:large", messages=(Message(role="user", content="x"),), max_tokens=100)
    return (await ctx.call_model(request, sender, price=PRICE)).content


@step
async def write(ctx: RunContext, text: str) -> str:
    await ctx.call_tool(ToolCall(name="search"), lambda call: anyio.sleep(0.01))
    return await ask_model(ctx, send)


@step(retry=RetryPolicy(max_attempts=2, backoff_s=0))
async def flaky(ctx: RunContext, text: str) -> str:
    return await ask_model(ctx, broken)


@step
async def greedy(ctx: RunContext, text: str) -> str:
    while True:
        await ask_model(ctx, send)


@step(cache=True)
async def kept(text: str) -> str:
    return text


@step(pauses=True)
async def approve(text: str) -> bool:
    raise PauseForHumanInput("May it go out?", schema=bool)


class Guard:
    @hookimpl
    def guard_step(self, payload: GuardStep) -> Deny:
        return Deny("not here")


async def rounds() -> None:
    report = Flujo(Pipeline(kept >> write, name="report"))
    failing = Flujo(Pipeline(flaky, name="failing"))
    limited = Flujo(Pipeline(greedy, name="limited"), limits=UsageLimits("0.5"))
    denied = Flujo(Pipeline(Step(send, name="send"), name="denied"), plugins=[Guard()])
    asked = Flujo(Pipeline(approve, name="asked"))
    request = ModelRequest(model="m", messages=())
    while True:
        for flujo, given in ((report, "x"), (failing, "x"), (limited, "x"), (denied, request)):
            await flujo.run_async(given)
        waits = await asked.run_async("x")
        await asked.run_async("never answered")
        await asked.resume_async(waits, True)
        await anyio.sleep(0.1)


if __name__ == "__main__":
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
    start_http_server(int(sys.argv[1]), addr="127.0.0.1")
    anyio.run(rounds)
