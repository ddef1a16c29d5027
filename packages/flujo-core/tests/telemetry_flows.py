"""Runs of every kind under the real SDK, in a process of their own: what they tell goes to stdout as JSON.

The providers of a process can be set once, so this is a program: `telemetry_flows.py asyncio|trio spans|metrics|both`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flujo.core import (
    Branch,
    Budget,
    Deny,
    Flujo,
    GuardStep,
    Map,
    MemoryStore,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    Price,
    RetryPolicy,
    RunContext,
    Snapshot,
    Step,
    ToolCall,
    UsageLimits,
    hookimpl,
    step,
)

PRICE = Price("0.001", "0.002")
REQUEST = ModelRequest(model="acme:large", messages=(Message(role="user", content="PRIVATE"),), max_tokens=10)
exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()


def configure(what: str) -> None:
    if what != "metrics":
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
    if what != "spans":
        metrics.set_meter_provider(MeterProvider([reader]))


async def send(request: ModelRequest) -> ModelResponse:
    usage = ModelUsage(input_tokens=3, output_tokens=5)
    return ModelResponse(content="PRIVATE", usage=usage, model="large-2", finish_reason="stop")


def own_span(name: str) -> None:
    with trace.get_tracer("user").start_as_current_span(name):
        pass


@step
async def here(text: str) -> str:
    own_span("in here")
    await anyio.sleep(0.01)
    return text


@step
def there(text: str) -> str:
    own_span("in there")
    return text


@step
async def talk(ctx: RunContext, text: str) -> str:
    await ctx.call_model(REQUEST, send, price=PRICE)
    await ctx.call_tool(ToolCall(name="search"), lambda call: anyio.sleep(0))
    return text


failures = {"flaky": 1, "provider": 1}


@step(retry=RetryPolicy(max_attempts=2, backoff_s=0))
async def flaky(ctx: RunContext, text: str) -> str:
    async def maybe(request: ModelRequest) -> ModelResponse:
        failures["provider"] -= 1
        if failures["provider"] >= 0:
            raise TimeoutError("PRIVATE")
        return await send(request)

    await ctx.call_model(REQUEST, maybe, price=PRICE, retry=RetryPolicy(max_attempts=2, backoff_s=0))
    failures["flaky"] -= 1
    if failures["flaky"] >= 0:
        raise KeyError("PRIVATE")
    return text


@step(cache=True)
async def kept(text: str) -> str:
    return text


@step
async def greedy(ctx: RunContext, text: str) -> str:
    while True:
        await ctx.call_model(REQUEST, send, price=PRICE)


@step(pauses=True)
async def ask(text: str) -> str:
    raise PauseForHumanInput("PRIVATE", schema=str)


@step
async def shown(ctx: RunContext, text: str) -> str:
    seen["kept while it runs"] = (await store.load(ctx.run_id)).snapshot.trace
    seen["at hand"] = ctx.run.trace
    return text


class Guard:
    @hookimpl
    def guard_step(self, payload: GuardStep) -> Deny:
        return Deny("PRIVATE")


seen: dict[str, str | None] = {}
store = MemoryStore()


async def branches() -> None:
    async def plain(number: int) -> int:
        own_span(f"in item {number}")
        return number

    many = Pipeline(Parallel(here, there) >> Step(lambda found: [1, 2], name="list") >> Map(Step(plain, name="item")))
    with trace.get_tracer("user").start_as_current_span("request"):
        await Flujo(Pipeline(many, name="wide")).run_async("PRIVATE", actor="ann", tags={"ticket": "T1"})
        await Flujo(Pipeline(here, name="begun")).start("x").wait()


async def again() -> None:
    await Flujo(Pipeline(flaky, name="again")).run_async("x")


async def cached() -> None:
    flujo = Flujo(Pipeline(kept, name="cached"))
    for _ in range(2):
        await flujo.run_async("x")


async def breach() -> None:
    await Flujo(Pipeline(greedy, name="greedy"), limits=Budget(UsageLimits("0.08", warn_at=0.5))).run_async("x")


async def denied() -> None:
    await Flujo(Pipeline(talk, name="denied"), plugins=[Guard()]).run_async("x")


async def asked() -> None:
    two = Flujo(Pipeline(talk >> Parallel(Step(ask, name="one"), Step(ask, name="two")), name="asked"))
    first = await two.run_async("x", run_id="asked")
    text = first.snapshot().model_dump_json()  # as another process would be given it
    second = await two.resume_async(Snapshot.model_validate_json(text), "PRIVATE", pause=first.pauses[0].id)
    await two.resume_async(second, "PRIVATE")


async def waiting() -> None:
    await Flujo(Pipeline(Parallel(Step(ask, name="one"), Step(ask, name="two")), name="waiting")).run_async("x")


async def stored() -> None:
    flujo = Flujo(Pipeline(shown >> ask, name="stored"), store=store)
    await flujo.run_async("x", run_id="stored")
    await flujo.resume_async("stored", "PRIVATE")
    for _ in range(2):
        try:
            await flujo.run_async("x", run_id="stored")
        except Exception as error:
            seen["second"] = type(error).__name__


async def branching() -> None:
    await Flujo(Pipeline(Branch(lambda text: True, {True: talk}), name="branching")).run_async("x")


FLOWS: Sequence[Callable[[], Any]] = (branches, again, cached, breach, denied, asked, waiting, stored, branching)


async def main() -> None:
    for flow in FLOWS:
        await flow()


def sync() -> None:
    with trace.get_tracer("user").start_as_current_span("sync request"):
        Flujo(Pipeline(here, name="plain")).run("x")
        with Flujo(Pipeline(here, name="portal")) as flujo:
            flujo.run("x")


def span_data(span: ReadableSpan) -> dict[str, Any]:
    assert span.context is not None
    return {
        "name": span.name,
        "id": f"{span.context.span_id:016x}",
        "trace": f"{span.context.trace_id:032x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
        "links": [f"{link.context.span_id:016x}" for link in span.links],
        "attributes": dict(span.attributes or {}),
        "events": [{"name": event.name, **dict(event.attributes or {})} for event in span.events],
        "text": span.to_json(),
    }


def metric_data() -> dict[str, Any]:
    found: dict[str, Any] = {}
    data = reader.get_metrics_data()
    for metric in [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics:
        points = [
            {
                "labels": dict(point.attributes or {}),
                **(
                    {"count": point.count, "sum": point.sum, "bounds": list(point.explicit_bounds)}
                    if isinstance(point, HistogramDataPoint)
                    else {"value": point.value}
                ),
            }
            for point in metric.data.data_points
        ]
        found[metric.name] = {"unit": metric.unit, "meaning": metric.description, "points": points}
    return found


if __name__ == "__main__":
    configure(sys.argv[2])
    anyio.run(main, backend=sys.argv[1])
    sync()
    measured = {} if sys.argv[2] == "spans" else metric_data()
    spans = [span_data(span) for span in exporter.get_finished_spans()]
    json.dump({"spans": spans, "metrics": measured, **seen}, sys.stdout)
