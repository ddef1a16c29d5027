"""Broken telemetry, and words that belong in none: whole runs, each with providers of its own process."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flujo.core import signals, telemetry

KEY = "sk-abcdefghijklmnopqrstuvwx"
BASIC = "dXNlcjpwYXNzd29yZA=="

TELEMETRY = """
import sys
from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from flujo.core import *

what, broken = sys.argv[1], "nothing yet"
kept = InMemorySpanExporter()

class Broken(SpanProcessor):
    def on_start(self, span, parent_context=None):
        self.fail("start", span)
    def on_end(self, span):
        self.fail("end", span)
    def fail(self, when, span):
        if what == when and span.name.startswith(broken):
            raise OSError("telemetry is down")

class Instrument:
    def add(self, *args, **options):
        raise OSError("telemetry is down")
    record = add

class Meter:
    def __getattr__(self, name):
        return lambda *args, **options: Instrument()

class Down(trace.TracerProvider):
    def get_tracer(self, *args, **options):
        raise OSError("telemetry is down")

class Meters(MeterProvider):
    def get_meter(self, *args, **options):
        return Meter()

if what == "meter":
    metrics.set_meter_provider(Meters())
elif what == "provider":
    trace.set_tracer_provider(Down())
else:
    tracers = TracerProvider()
    tracers.add_span_processor(Broken() if what != "tags" else SimpleSpanProcessor(kept))
    trace.set_tracer_provider(tracers)

async def send(request):
    return ModelResponse(content="yes", usage=ModelUsage(input_tokens=1, output_tokens=1))

async def tool(call):
    return 1

async def work(value: int, ctx: RunContext) -> int:
    request = ModelRequest(model="m", messages=(Message(role="user", content="?"),), max_tokens=5)
    await ctx.call_model(request, send, price=Price(request_usd="1"))
    await ctx.call_tool(ToolCall(name="t"), tool)
    if value == 2:
        raise LookupError("of the user")
    return value

tags = {"password": "hunter2hunter2", "authorization": "Basic dXNlcjpwYXNzd29yZA=="}
tags["of sk-abcdefghijklmnopqrstuvwx"] = "x"
for broken in ("invoke", "step", "chat", "execute", ""):
    for value in (1, 2):
        result = Flujo(Step(work, name="work")).run(value, tags=tags)
        print(result.status, result.total_cost_usd, result.error)
    if what == "tags":
        print([dict(span.attributes) for span in kept.get_finished_spans()])
        break
"""


def traced(tmp_path: Path, what: str) -> tuple[str, str]:
    script = tmp_path / "traced.py"
    script.write_text(TELEMETRY)
    command = [sys.executable, str(script), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    return done.stdout, done.stderr


@pytest.mark.parametrize("what", ["meter", "start", "end", "provider"])
def test_telemetry_that_is_broken_changes_no_run_and_is_said_once(tmp_path: Path, what: str) -> None:
    """What was paid for is in the result, not lost; and an exception is the user's own."""
    told, complaint = traced(tmp_path, what)
    assert told == "completed 1 None\nfailed 1 step 'work' failed: LookupError: of the user\n" * 5
    assert complaint == "telemetry failed, runs go on: OSError: telemetry is down\n"


def test_a_tag_that_says_it_is_a_password_is_in_no_span(tmp_path: Path) -> None:
    told, _ = traced(tmp_path, "tags")
    assert told.startswith("completed 1 None")
    assert "flujo.tag.of [SECRET]" in told
    for secret in ("hunter2", BASIC, KEY):
        assert secret not in told


def test_spans_within_one_that_could_not_begin_stand_where_it_would_have(exporter: InMemorySpanExporter) -> None:
    class Breaks(SpanProcessor):
        def on_start(self, span: Span, parent_context: object = None) -> None:
            if span.name == "step broken":
                raise OSError

    provider = TracerProvider()
    provider.add_span_processor(Breaks())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    part = partial(telemetry.Piece, telemetry.Watch(provider, None))
    run, step, chat = signals.RUN_S, signals.STEP_S, signals.CALL_S
    with suppress(KeyError), part("run", {}, run), part("step broken", {}, step), part("chat", {}, chat):
        raise KeyError
    inner, outer = exporter.get_finished_spans()
    assert (inner.name, outer.name, inner.parent) == ("chat", "run", outer.context)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()
