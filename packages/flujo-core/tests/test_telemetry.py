"""Spans, exported by the real SDK: names, attributes, nesting, and that they hold no private text.

The tracer provider of a process can be set once, so whole runs are traced in a process of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from flujo.core import Message, ModelRequest, signals, telemetry

PROGRAM = """
import json, sys
import anyio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from flujo.core import *

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
PRICE = Price("0.001", "0.002")
REQUEST = ModelRequest(model="acme:large", messages=(Message(role="user", content="PRIVATE"),), max_tokens=10)

async def send(request):
    usage = ModelUsage(input_tokens=3, output_tokens=5)
    return ModelResponse(content="PRIVATE", usage=usage, model="large-2", finish_reason="stop")

async def broken(request):
    raise OSError("PRIVATE")

async def tool(call):
    return "PRIVATE"

@step
async def talk(ctx: RunContext, text: str) -> str:
    await ctx.call_model(REQUEST, send, price=PRICE)
    return str((await ctx.call_tool(ToolCall(name="search", arguments={"q": "PRIVATE"}), tool)).content)

@step
async def fail(ctx: RunContext, text: str) -> str:
    await ctx.call_model(REQUEST, broken, price=PRICE)
    return text

@step
async def slow(ctx: RunContext, text: str) -> str:
    with anyio.move_on_after(0.01):
        await ctx.call_model(REQUEST, lambda request: anyio.sleep_forever(), price=PRICE)
    return text

@step
async def endless(ctx: RunContext, text: str) -> str:
    await ctx.call_model(REQUEST, send, price=PRICE)
    await anyio.sleep_forever()

@step
async def greedy(ctx: RunContext, text: str) -> str:
    while True:
        await ctx.call_model(REQUEST, send, price=PRICE)

@step(pauses=True)
async def ask(text: str) -> str:
    raise PauseForHumanInput("PRIVATE", schema=str)

async def main():
    found = {}
    for name, flow in (("good", talk), ("failed", fail), ("cancelled", slow), ("stopped", greedy), ("cut", endless)):
        exporter.clear()
        limits = UsageLimits("0.08") if name == "stopped" else UsageLimits("1")
        with anyio.move_on_after(0.1 if name == "cut" else 10):
            await Flujo(Pipeline(flow, name=name), limits=Budget(limits)).run_async("PRIVATE", run_id=name)
        found[name] = shown()
    again = Step(fail, name="again", retry=RetryPolicy(max_attempts=2, backoff_s=0))
    asks = Flujo(Pipeline(talk >> ask >> again, name="asked"))
    paused = await asks.run_async("PRIVATE", run_id="asked")
    exporter.clear()
    await asks.resume_async(paused, "PRIVATE")
    found["resumed"] = shown()
    json.dump(found, sys.stdout)

def shown():
    spans = exporter.get_finished_spans()
    ids = {span.context.span_id: span.name for span in spans}
    return [
        {"name": s.name, "parent": ids.get(s.parent.span_id) if s.parent else None, "kind": s.kind.name,
         "status": s.status.status_code.name, "attributes": dict(s.attributes),
         "text": s.to_json()} for s in spans]

anyio.run(main, backend=sys.argv[1])
"""


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def traced(request: pytest.FixtureRequest) -> dict[str, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, request.param], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return found


def by_name(spans: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {span["name"]: span for span in spans}


def test_a_run_is_a_tree_of_spans_with_the_standard_names(traced: dict[str, list[dict[str, Any]]]) -> None:
    spans = by_name(traced["good"])
    assert {name: span["parent"] for name, span in spans.items()} == {
        "invoke_workflow good": None,
        "step talk": "invoke_workflow good",
        "chat large": "step talk",
        "execute_tool search": "step talk",
    }
    chat = spans["chat large"]
    assert chat["kind"] == "CLIENT"
    assert chat["attributes"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.workflow.name": "good",
        "gen_ai.provider.name": "acme",
        "gen_ai.request.model": "large",
        "gen_ai.request.max_tokens": 10,
        "gen_ai.response.model": "large-2",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 5,
        "operation.cost": 0.013,
        "flujo.cost.usd": "0.013",
        "flujo.step.path": "talk",
    }
    assert spans["execute_tool search"]["attributes"] == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "flujo.step.path": "talk",
    }
    run = spans["invoke_workflow good"]["attributes"]
    assert run["gen_ai.operation.name"] == "invoke_workflow"
    assert run["gen_ai.workflow.name"] == "good"
    assert (run["flujo.run_id"], run["flujo.status"], run["governor_breached"]) == ("good", "completed", False)
    budget = {key: value for key, value in run.items() if key.startswith("flujo.budget")}
    assert {key: Decimal(value) for key, value in budget.items()} == {
        "flujo.budget.limit": 1,
        "flujo.budget.spent": Decimal("0.013"),
        "flujo.budget.reserved": 0,
        "flujo.budget.remaining": Decimal("0.987"),
    }


def test_a_failure_is_marked_by_its_type_with_what_it_cost(traced: dict[str, list[dict[str, Any]]]) -> None:
    spans = by_name(traced["failed"])
    assert [(span["status"], span["attributes"]["error.type"]) for span in spans.values()] == [
        ("ERROR", "OSError"),
        ("ERROR", "OSError"),
        ("ERROR", "OSError"),
    ]
    worst = (7 + 16) * Decimal("0.001") + 10 * Decimal("0.002")
    for span in spans.values():
        assert Decimal(span["attributes"]["flujo.cost.usd"]) == worst


def test_a_cancelled_call_is_marked_with_what_was_booked(traced: dict[str, list[dict[str, Any]]]) -> None:
    chat = by_name(traced["cancelled"])["chat large"]
    assert chat["status"] == "ERROR"
    assert chat["attributes"]["error.type"] in ("CancelledError", "Cancelled")
    assert Decimal(chat["attributes"]["flujo.cost.usd"]) > 0


def test_a_run_that_is_cancelled_from_outside_shows_what_it_cost(traced: dict[str, list[dict[str, Any]]]) -> None:
    run = by_name(traced["cut"])["invoke_workflow cut"]
    assert run["attributes"]["flujo.status"] == "aborted"
    assert Decimal(run["attributes"]["flujo.cost.usd"]) > 0


def test_the_limit_of_a_shared_budget_shows_on_the_runs_span(traced: dict[str, list[dict[str, Any]]]) -> None:
    attributes = by_name(traced["good"])["invoke_workflow good"]["attributes"]
    assert Decimal(attributes["flujo.budget.limit"]) == 1
    spent = Decimal(attributes["flujo.budget.spent"])
    assert Decimal(attributes["flujo.budget.remaining"]) == 1 - spent < 1


def test_the_span_of_a_resumed_run_counts_what_was_used_since(traced: dict[str, list[dict[str, Any]]]) -> None:
    attributes = by_name(traced["resumed"])["invoke_workflow asked"]["attributes"]
    each = (7 + 16) * Decimal("0.001") + 10 * Decimal("0.002")
    assert Decimal(attributes["flujo.cost.usd"]) == 2 * each
    assert Decimal(attributes["flujo.budget.spent"]) == 2 * each + Decimal("0.013")


def test_each_attempt_of_a_step_has_its_number(traced: dict[str, list[dict[str, Any]]]) -> None:
    tried = [span["attributes"] for span in traced["resumed"] if span["name"] == "step again"]
    assert [attributes["flujo.step.attempt"] for attributes in tried] == [1, 2]


def test_a_breach_of_a_limit_shows_on_the_runs_span(traced: dict[str, list[dict[str, Any]]]) -> None:
    run = by_name(traced["stopped"])["invoke_workflow stopped"]
    assert run["status"] == "ERROR"
    assert run["attributes"]["governor_breached"] is True
    assert run["attributes"]["flujo.status"] == "stopped"
    assert run["attributes"]["error.type"] == "UsageLimitExceeded"
    assert Decimal(run["attributes"]["flujo.budget.spent"]) <= Decimal("0.08")
    refused = [span for span in traced["stopped"] if span["attributes"].get("error.type") == "UsageLimitExceeded"]
    assert "chat large" in {span["name"] for span in refused}


def test_no_content_and_no_text_of_an_exception_is_on_any_span(traced: dict[str, list[dict[str, Any]]]) -> None:
    for spans in traced.values():
        for span in spans:
            assert "PRIVATE" not in span["text"]


# --- parts of it, with providers of their own ------------------------------------------------------------------------


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def watch(exporter: InMemorySpanExporter) -> telemetry.Watch:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return telemetry.Watch(provider, None)


def test_without_a_provider_nothing_watches_and_nothing_is_loaded_for_it() -> None:
    program = (
        "import sys; from flujo.core import *; from flujo.core import telemetry\n"
        "flujo = Flujo(Step(lambda x: x, name='same'))\n"
        "assert flujo.run(1).output == 1 and telemetry.current_watch() is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.metrics', 'opentelemetry.sdk'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_providers_of_the_api_itself_count_as_none() -> None:
    program = (
        "from opentelemetry import metrics, trace; from flujo.core import telemetry\n"
        "assert telemetry.current_watch() is None\n"
        "trace.set_tracer_provider(trace.NoOpTracerProvider())\n"
        "metrics.set_meter_provider(metrics.NoOpMeterProvider())\n"
        "print(telemetry.current_watch())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout == "None\n", done.stderr


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("openai:gpt-4o", "openai", "gpt-4o"),
        ("bedrock:anthropic.claude-v2:1", "bedrock", "anthropic.claude-v2:1"),
        ("embedded", None, "embedded"),
    ],
)
def test_the_provider_stands_before_the_first_colon(
    watch: telemetry.Watch, exporter: InMemorySpanExporter, model: str, provider: str | None, name: str
) -> None:
    ctx: Any = SimpleNamespace(step_path="s", run=SimpleNamespace(pipeline="p"))
    with watch.model(ctx, ModelRequest(model=model, messages=(Message(role="user", content="x"),))):
        pass
    (span,) = exporter.get_finished_spans()
    assert span.name == f"chat {name}"
    assert span.attributes is not None
    assert span.attributes.get(signals.PROVIDER) == provider
    assert signals.REQUEST_MAX_TOKENS not in span.attributes


def test_names_of_tools_become_no_labels_without_end(exporter: InMemorySpanExporter) -> None:
    """A model may make up a name with each call; the span has it all the same."""
    tracers, reader = TracerProvider(), InMemoryMetricReader()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    watch, ctx = telemetry.Watch(tracers, MeterProvider([reader])), SimpleNamespace(step_path="a")
    for number in range(1000):
        for name in ("search", f"made-up-{number}"):
            with watch.tool(ctx, name):  # type: ignore[arg-type]
                pass
    told = json.loads(reader.get_metrics_data().to_json())["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    points = [point for one in told for point in one["data"]["data_points"]]
    labels = {point["attributes"]["gen_ai.tool.name"]: point["count"] for point in points}
    assert len(labels) == 101
    assert (labels["search"], labels["made-up-0"], labels["_OTHER"]) == (1000, 1, 901)
    assert exporter.get_finished_spans()[-1].attributes["gen_ai.tool.name"] == "made-up-999"


def test_an_error_goes_on_up_and_leaves_its_type_only(watch: telemetry.Watch, exporter: InMemorySpanExporter) -> None:
    with pytest.raises(KeyError), telemetry.Piece(watch, "work", {}, signals.STEP_S):
        raise KeyError("private")
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "KeyError")
    assert span.events == ()


@pytest.mark.parametrize("before", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_what_is_no_trace_is_linked_to_nothing(
    watch: telemetry.Watch, exporter: InMemorySpanExporter, before: str
) -> None:
    with (
        telemetry.Piece(watch, "around", {}, signals.STEP_S),
        telemetry.Piece(watch, "work", {}, signals.RUN_S, before),
    ):
        pass
    assert exporter.get_finished_spans()[0].links == ()


def test_no_name_means_two_things() -> None:
    names = [value for name, value in vars(signals).items() if name.isupper() and isinstance(value, str)]
    names += [metric.name for metric in signals.METRICS]
    # What a run cost is an attribute of its span, and what all runs cost is a metric.
    assert [name for name in set(names) if names.count(name) > 1] == [signals.COST_USD]


NAMED = """
from opentelemetry import trace
from flujo.core import *

ids = []

@step
async def look(text: str) -> str:
    ids.append(trace.get_current_span().get_span_context().span_id)
    return text

Flujo(look).run("x").unwrap()
print(ids != [0])
"""


@pytest.mark.parametrize(("name", "is_traced"), [("sdk_tracer_provider", True), ("default_tracer_provider", False)])
def test_a_provider_that_the_environment_names_is_used(name: str, is_traced: bool) -> None:
    environment = {**os.environ, "OTEL_PYTHON_TRACER_PROVIDER": name}
    command = [sys.executable, "-c", NAMED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.split() == [str(is_traced)], done.stderr
