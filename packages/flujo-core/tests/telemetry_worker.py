"""A run whose steps are done by another process, each of the two with its own exporter: `telemetry_worker.py URL`.

The same file is the worker: `telemetry_worker.py URL worker` reads a task from stdin. A backend that leaves the machine
sends what it is given by its own means; what matters here is that `request.trace` is plain text that goes along.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import anyio.to_thread
from opentelemetry import metrics, propagate, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from flujo.core import Flujo, Pipeline, StepExecutionRequest, StepOutcome, Success, step


class ProcessBackend:
    """Does each attempt in a process of its own."""

    def __init__(self, url: str) -> None:
        self.command = [sys.executable, __file__, url, "worker"]

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        task = json.dumps({"arguments": dict(request.arguments), "trace": request.trace}).encode()
        done = await anyio.to_thread.run_sync(
            partial(subprocess.run, self.command, input=task, capture_output=True, check=True)
        )
        return StepOutcome(Success(json.loads(done.stdout)))


@step
async def double(number: int) -> int:
    return number * 2


def configure(url: str, service: str) -> tuple[TracerProvider, MeterProvider]:
    resource = Resource.create({"service.name": service})
    spans = TracerProvider(resource=resource)
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces")))
    trace.set_tracer_provider(spans)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{url}/v1/metrics"))
    measured = MeterProvider([reader], resource=resource)
    metrics.set_meter_provider(measured)
    return spans, measured


def work() -> None:
    task = json.load(sys.stdin)
    with trace.get_tracer("worker").start_as_current_span("work", propagate.extract(task["trace"])):
        print(task["arguments"]["number"] * 2)  # noqa: T201 - its answer


if __name__ == "__main__":
    providers = configure(sys.argv[1], "worker" if sys.argv[2:] else "engine")
    if sys.argv[2:]:
        work()
    else:
        flujo = Flujo(Pipeline(double, name="far"), backend=ProcessBackend(sys.argv[1]))
        assert flujo.run(4).output == 8
    for provider in providers:
        provider.shutdown()
