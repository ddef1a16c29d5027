"""Spans by the OpenTelemetry API. Names follow the GenAI semantic conventions; all of them stand in this file.

Without a configured tracer provider no span work is done at all. Message content is never put on a span.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import NoOpTracer, ProxyTracer, ProxyTracerProvider, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from .ledger import Ledger
from .messages import ModelRequest, ModelResponse
from .usage import Usage

# https://github.com/open-telemetry/semantic-conventions-genai (development status)
OPERATION = "gen_ai.operation.name"
WORKFLOW = "gen_ai.workflow.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
TOOL_NAME = "gen_ai.tool.name"
ERROR_TYPE = "error.type"
# There is no standard for cost yet; `operation.cost` is what pydantic-ai and Logfire read.
COST = "operation.cost"
RUN_ID = "flujo.run_id"
STEP_PATH = "flujo.step.path"
ATTEMPT = "flujo.step.attempt"
STATUS = "flujo.status"
COST_USD = "flujo.cost.usd"
BUDGET_LIMIT = "flujo.budget.limit"
BUDGET_RESERVED = "flujo.budget.reserved"
BUDGET_SPENT = "flujo.budget.spent"
BUDGET_REMAINING = "flujo.budget.remaining"
BREACHED = "governor_breached"


_PROVIDER = ProxyTracerProvider()
"""Gives tracers of the provider that is set, once one is. `get_tracer_provider` reads the environment each time."""


def load_provider() -> None:
    """Make the provider that the environment names, if it names one; no run looks there again."""
    trace.get_tracer_provider()


def current_tracer() -> Tracer | None:
    """The tracer to use, or None where no provider is configured; ask once per run."""
    tracer = _PROVIDER.get_tracer("flujo.core")
    # Mostly it is the first, and to ask an abstract class whether something is of it costs as much as all else here.
    return None if type(tracer) is ProxyTracer or isinstance(tracer, NoOpTracer) else tracer


@contextmanager
def span(
    tracer: Tracer | None, name: str, attributes: Mapping[str, AttributeValue], kind: SpanKind = SpanKind.INTERNAL
) -> Iterator[Span | None]:
    """A current span, or nothing without a tracer. Exceptions are not recorded: their texts may hold private data."""
    if tracer is None:
        yield None
        return
    with tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:  # noted and passed on, whatever it is
            mark_error(current, type(error).__name__)
            raise


@contextmanager
def model_span(tracer: Tracer | None, request: ModelRequest, step_path: str) -> Iterator[Span | None]:
    """A `chat {model}` span; what stands before the first colon of the model's name is its provider."""
    provider, _, model = request.model.partition(":") if ":" in request.model else ("", "", request.model)
    attributes: dict[str, AttributeValue] = {OPERATION: "chat", REQUEST_MODEL: model, STEP_PATH: step_path}
    if provider:
        attributes[PROVIDER] = provider
    if request.max_tokens is not None:
        attributes[REQUEST_MAX_TOKENS] = request.max_tokens
    with span(tracer, f"chat {model}", attributes, SpanKind.CLIENT) as current:
        yield current


def mark_error(current: Span | None, error_type: str) -> None:
    """Note that the span's work failed, by the type of the error only."""
    if current is not None:
        current.set_attribute(ERROR_TYPE, error_type)
        current.set_status(Status(StatusCode.ERROR, error_type))


def mark_usage(current: Span | None, usage: Usage) -> None:
    """Note tokens and cost."""
    if current is not None:
        tokens = {INPUT_TOKENS: usage.input_tokens, OUTPUT_TOKENS: usage.output_tokens}
        current.set_attributes({**tokens, COST: float(usage.cost_usd), COST_USD: str(usage.cost_usd)})


def mark_response(current: Span | None, response: ModelResponse) -> None:
    """Note which model answered and why it stopped."""
    if current is not None:
        if response.model:
            current.set_attribute(RESPONSE_MODEL, response.model)
        if response.finish_reason:
            current.set_attribute(FINISH_REASONS, [response.finish_reason])


def mark_budget(current: Span | None, ledger: Ledger, status: str) -> None:
    """Note how a run ended and how its budget stands."""
    if current is None:
        return
    held = {BUDGET_SPENT: str(ledger.spent.cost_usd), BUDGET_RESERVED: str(ledger.reserved.cost_usd)}
    current.set_attributes({STATUS: status, BREACHED: status == "stopped", **held})
    limits = ledger.tightest
    if limits is not None and limits.cost is not None:
        current.set_attributes({BUDGET_LIMIT: str(limits.cost), BUDGET_REMAINING: str(ledger.room().cost_usd)})
