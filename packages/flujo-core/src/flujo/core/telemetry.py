"""What is told of runs by the OpenTelemetry API: spans, their events, and metrics. Their names stand in `signals`.

Without a configured provider nothing is done at all. Values, messages and texts of errors are never told.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from decimal import Decimal
from functools import lru_cache
from itertools import count
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Link, ProxyTracer, ProxyTracerProvider, SpanKind, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from . import payloads, signals
from .context import RunContext
from .errors import StepFailed, UsageLimitExceeded
from .foreign import P, T, attempt, text_of
from .logs import shown_as
from .messages import ModelRequest, ModelResponse
from .scrubbing import cleaned, scrub
from .signals import Metric
from .usage import Usage

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

    from .run import Run

Facts = Mapping[str, AttributeValue | Decimal | None]

_log, _faults = logging.getLogger("flujo.core"), count()
_W3C = TraceContextTextMapPropagator()


_PROVIDER = ProxyTracerProvider()
"""Gives tracers of the provider that is set, once one is. `get_tracer_provider` reads the environment each time."""


def _safely(function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T | None:
    """Call what users configured: that it is broken changes no run, and is said once in a process."""
    value, fault = attempt(function, *args, **options)
    if fault is not None and next(_faults) == 0:
        # What logs go to may be as broken.
        attempt(_log.warning, "telemetry failed, runs go on: %s", scrub(f"{type(fault).__name__}: {text_of(fault)}"))
    return value


def current_watch() -> Watch | None:
    """What tells of runs in this process; None where nothing is configured. Ask once per run."""
    # A meter provider is set by the API's own module: where nobody has loaded that there is none, and to load it costs
    # more than the rest of the API together.
    metrics = sys.modules.get("opentelemetry.metrics")
    unset = type(_safely(_PROVIDER.get_tracer, "flujo.core")) is ProxyTracer
    tracers = None if unset else _real(_safely(trace.get_tracer_provider))
    meters = None if metrics is None else _real(_safely(metrics.get_meter_provider))
    return None if tracers is None and meters is None else _safely(_watch, tracers, meters)


def _real(provider: Any) -> Any | None:
    """A provider, unless it is one of the API's own, which do nothing."""
    return None if type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics")) else provider


def carrier() -> dict[str, str]:
    """The W3C trace context of the current span, for work that is done elsewhere or later."""
    carried: dict[str, str] = {}
    _safely(_W3C.inject, carried)
    return carried


def _links(before: str | None) -> list[Link] | None:
    span = trace.get_current_span(_W3C.extract({"traceparent": before or ""}, Context())).get_span_context()
    return [Link(span)] if span.is_valid else None


def _told(facts: Facts) -> dict[str, AttributeValue]:
    """What is known of some facts, without secrets."""
    return {k: cleaned(str(v)) if isinstance(v, (str, Decimal)) else v for k, v in facts.items() if v is not None}


class Piece:
    """A piece of work that is watched: in a span that is the current one meanwhile, and by its time.

    Attributes:
        facts: What is known of it.
        is_timed: Whether its time counts: that of what was refused before it began does not.
    """

    __slots__ = ("_span", "_started", "_time", "_token", "_watch", "facts", "is_timed")

    def __init__(self, watch: Watch, name: str, facts: Facts, time: Metric, before: str | None = None) -> None:
        self._watch, self._time, self._started = watch, time, perf_counter()
        self.facts: dict[str, AttributeValue] = _told(facts)
        self.is_timed: bool = True
        kind = SpanKind.CLIENT if time is signals.CALL_S else SpanKind.INTERNAL
        links = None if before is None else _links(before)
        span = _safely(watch.tracer.start_span, cleaned(name), None, kind, self.facts, links)
        # What is within one that could not begin stands where this one would have stood.
        self._span = span or trace.NonRecordingSpan(trace.get_current_span().get_span_context())

    def __enter__(self) -> Self:
        self._token = attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        detach(self._token)
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """End one that was, or was never, the current span."""
        self.fail(error)
        _safely(self._span.end)
        if self.is_timed:
            self._watch.count(self._time, perf_counter() - self._started, self.facts)

    def note(self, facts: Facts) -> None:
        """Note more of it."""
        if told := _told(facts):
            self.facts |= told
            _safely(self._span.set_attributes, told)

    def fail(self, error: BaseException | None) -> None:
        """Note that it failed, if it did: by the type of the error only, since a text may hold private data."""
        if error is not None:
            name = error.error_type if isinstance(error, StepFailed) else type(error).__name__
            self.note({signals.ERROR_TYPE: name, signals.BREACHED: isinstance(error, UsageLimitExceeded)})
            _safely(self._span.set_status, StatusCode.ERROR, name)

    def use(self, usage: Usage) -> None:
        """Note tokens and cost."""
        tokens = {signals.INPUT_TOKENS: usage.input_tokens, signals.OUTPUT_TOKENS: usage.output_tokens}
        self.note({**tokens, signals.COST: float(usage.cost_usd), signals.COST_USD: usage.cost_usd})


class Watch:
    """Tells of runs by the providers of this process.

    Args:
        tracers: Where spans go; None makes none.
        meters: Where metrics go; None makes none.
    """

    def __init__(self, tracers: TracerProvider | None, meters: MeterProvider | None) -> None:
        self.tracer: Tracer = (tracers or trace.NoOpTracerProvider()).get_tracer("flujo.core")
        self._tools: set[str] = set()
        self._record: dict[Metric, Callable[[float, Facts], None]] = {}
        meter: Any = None if meters is None else meters.get_meter("flujo.core")
        for metric in () if meter is None else signals.METRICS:
            bounds = {} if metric.buckets is None else {"explicit_bucket_boundaries_advisory": metric.buckets}
            made = getattr(meter, f"create_{metric.kind}")(metric.name, metric.unit, metric.meaning, **bounds)
            self._record[metric] = made.add if metric.buckets is None else made.record

    def count(self, metric: Metric, number: float, facts: Facts) -> None:
        """Count something, by those of the facts that are labels of the metric."""
        if metric in self._record:
            _safely(self._record[metric], number, {name: facts[name] for name in metric.labels if name in facts})

    async def run(self, run: Run, work: Awaitable[T]) -> T:
        """Do the work of a run, from where it is claimed to where its end is kept."""
        info, before, waited = run.info, copy(run.spent), len(run.state.pauses)
        words: dict[str, AttributeValue | None] = {
            signals.OPERATION: "invoke_workflow", signals.WORKFLOW: info.pipeline, signals.RUN_ID: info.run_id,
            signals.FINGERPRINT: info.fingerprint, signals.ACTOR: info.actor, signals.TENANT: info.tenant,
            **{f"{signals.TAG}{cleaned(name)}": str(shown_as(name, word)) for name, word in info.tags.items()},
        }  # fmt: skip
        with Piece(self, f"invoke_workflow {info.pipeline}", words, signals.RUN_S, info.trace) as piece:
            info.trace = carrier().get("traceparent", info.trace)
            try:
                return await work
            except Exception:  # it did not come to run: another has it, or its store does not answer
                piece.is_timed = False
                raise
            finally:
                if piece.is_timed:
                    self._end(piece, run, run.spent.since(before), waited)

    def _end(self, piece: Piece, run: Run, used: Usage, waited: int) -> None:
        ledger, limits = run.ledger, run.ledger.tightest
        piece.fail(run.verdict)
        piece.use(used)
        piece.note({signals.STATUS: run.status, signals.BREACHED: run.status == "stopped"})
        piece.note({signals.BUDGET_SPENT: ledger.spent.cost_usd, signals.BUDGET_RESERVED: ledger.reserved.cost_usd})
        limit = None if limits is None else limits.cost
        piece.note({signals.BUDGET_LIMIT: limit, signals.BUDGET_REMAINING: ledger.room().cost_usd})
        self.count(signals.RUNS, 1, piece.facts)
        self.count(signals.RUN_COST, float(used.cost_usd), piece.facts)
        self.count(signals.OPEN, (len(run.state.pauses) if run.status == "paused" else 0) - waited, piece.facts)

    def step(self, ctx: RunContext, name: str) -> Piece:
        """Watch an attempt of a step."""
        facts: Facts = {
            signals.WORKFLOW: ctx.run.pipeline, signals.RUN_ID: ctx.run_id, signals.STEP: name,
            signals.STEP_PATH: ctx.step_path, signals.ATTEMPT: ctx.attempt,
        }  # fmt: skip
        return Piece(self, f"step {name}", facts, signals.STEP_S)

    def tool(self, ctx: RunContext, name: str) -> Piece:
        """Watch a call of a tool."""
        facts = {signals.OPERATION: "execute_tool", signals.TOOL: name, signals.STEP_PATH: ctx.step_path}
        piece = Piece(self, f"execute_tool {name}", facts, signals.TOOL_S)
        if len(self._tools) < 100:  # a model may make up names without end: only so many become labels
            self._tools.add(name)
        piece.facts |= {} if name in self._tools else {signals.TOOL: "_OTHER"}
        return piece

    def model(self, ctx: RunContext, request: ModelRequest) -> Piece:
        """Watch a call of a model; what stands before the first colon of its name is its provider."""
        provider, _, model = request.model.partition(":") if ":" in request.model else (None, "", request.model)
        facts: Facts = {
            signals.OPERATION: "chat", signals.PROVIDER: provider, signals.REQUEST_MODEL: model,
            signals.REQUEST_MAX_TOKENS: request.max_tokens, signals.STEP_PATH: ctx.step_path,
            signals.WORKFLOW: ctx.run.pipeline,
        }  # fmt: skip
        return Piece(self, f"chat {model}", facts, signals.CALL_S)

    def called(self, piece: Piece, response: ModelResponse | None, usage: Usage, *, sent: bool) -> None:
        """Note how a call of a model ended; one that was not sent is none."""
        piece.use(usage)
        if response is not None:
            reasons = [cleaned(response.finish_reason)] if response.finish_reason else None
            piece.note({signals.RESPONSE_MODEL: response.model or None, signals.FINISH_REASONS: reasons})
        piece.is_timed = sent
        if sent:
            self.count(signals.CALL_COST, float(usage.cost_usd), piece.facts)
        if sent and not usage.unmeasured:
            for kind, number in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                self.count(signals.TOKENS, number, {**piece.facts, signals.TOKEN_TYPE: kind})

    def tell(self, event: payloads.Event) -> None:
        """Tell of a moment that observers are told of too."""
        metric, at = _MOMENTS.get(type(event), (None, {}))
        if metric is not None:
            told = _told({name: attrgetter(place)(event) for name, place in {**_WHERE, **at}.items()})
            _safely(trace.get_current_span().add_event, metric.name, told)
            self.count(metric, 1, told)


_watch = lru_cache(4)(Watch)

_WHERE, _IN_STEP = {signals.WORKFLOW: "run.pipeline"}, {signals.STEP_PATH: "step_path"}
_RETRIED = {signals.ATTEMPT: "attempt", signals.ERROR_TYPE: "error_type", signals.RETRY_DELAY: "delay_s"}
_DENIED = {signals.PLUGIN: "denial.plugin", signals.HOOK: "denial.hook"}
_MOMENTS: Mapping[type[payloads.Event], tuple[Metric, Mapping[str, str]]] = {
    payloads.OnRetry: (signals.RETRY, {**_IN_STEP, **_RETRIED}),
    payloads.OnCacheHit: (signals.CACHED, _IN_STEP),
    payloads.OnGovernorBreach: (signals.BREACH, {**_IN_STEP, signals.LIMIT: "error.limit"}),
    payloads.OnUsageWarning: (signals.WARNING, {signals.LIMIT: "limit", signals.LIMIT_SHARE: "share"}),
    payloads.OnGuardDenied: (signals.DENIAL, {**_IN_STEP, **_DENIED}),
    payloads.OnHumanDecision: (signals.DECISION, {**_IN_STEP, signals.PAUSE_ID: "pause.id"}),
}
"""What is counted of a moment, and where in its payload the facts of that stand."""
