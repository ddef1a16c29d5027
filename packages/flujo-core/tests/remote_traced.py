"""A program: one run whose step runs under a worker in another context, with spans kept in memory; it prints them."""

from __future__ import annotations

import contextvars
import sys

import anyio
import anyio.to_thread
import remote_pipeline as flows
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flujo.core import Capabilities, Flujo, StepExecutionRequest, StepOutcome, Worker


async def work(task: str) -> str:
    async with Worker() as worker:
        return await worker.execute(task)


class Elsewhere:
    """Nothing but JSON passes: the worker has an event loop and context variables of its own."""

    capabilities = Capabilities(remote=True)

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        task, context = request.task().model_dump_json(), contextvars.Context()
        return request.outcome(await anyio.to_thread.run_sync(context.run, anyio.run, work, task))


if __name__ == "__main__":
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    Flujo(flows.ask_model, backend=Elsewhere()).run("x").unwrap()
    names = {span.context.span_id: span.name for span in spans.get_finished_spans()}
    for span in spans.get_finished_spans():
        above = names[span.parent.span_id] if span.parent else "-"
        sys.stdout.write(f"{span.context.trace_id}|{span.name}|<|{above}\n")
