"""The one way to a model or a tool, in a fixed order that no step, plugin or retry can leave.

transform request -> guard -> record intent -> reserve -> call -> settle -> transform response -> record -> observe
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_FLOOR
from functools import partial
from time import perf_counter

import anyio

from . import telemetry
from .context import RunContext, SendModel, SendTool
from .errors import GuardDenied, NotSent, StepFailed, UsageLimitExceeded
from .ledger import Fit, Room
from .messages import ModelRequest, ModelResponse, ToolCall, ToolResult
from .meter import Lease, Reservation
from .payloads import (
    Deny,
    Event,
    GuardModelCall,
    GuardToolCall,
    OnModelCall,
    OnRetry,
    OnToolCall,
    RecordIntent,
    RecordKind,
    RecordResult,
    TransformModelRequest,
    TransformModelResponse,
)
from .retry import RetryPolicy
from .running import Running
from .usage import EXACT, ZERO, Charge, Price, Usage

__all__ = ["Calls"]

TOKENS_PER_MESSAGE = 16
"""What providers add around a message, as an upper bound; content counts one token per UTF-8 byte at most."""


class Calls:
    """Model and tool calls of one run."""

    def __init__(self, run: Running) -> None:
        self.run = run
        self._number = 0

    # --- models -----------------------------------------------------------------------------------------------------

    async def call_model(
        self, ctx: RunContext, request: ModelRequest, send: SendModel, retry: RetryPolicy | None, price: Price | None
    ) -> ModelResponse:
        """See RunContext.call_model."""
        request = await self._transformed_request(ctx, request)
        if price is None:
            price = self.run.setup.price_of(request.model)
        attempt = 1
        while True:
            try:
                response = await self._attempt(ctx, request, send, price, attempt)
                break
            except Exception as error:
                if retry is None or not retry.applies(error, attempt):
                    raise
                delay = retry.delay_s(attempt, random.random())
                name = type(error).__name__
                await self.run.observe(
                    "on_retry", partial(OnRetry, self.run.info, ctx.step_path, attempt, name, delay), ctx
                )
                await anyio.sleep(delay)
                attempt += 1
        return response

    async def _transformed_request(self, ctx: RunContext, request: ModelRequest) -> ModelRequest:
        if not self.run.hooks.of("transform_model_request"):
            return request
        left = ctx.usage.left
        payload = TransformModelRequest(self.run.info, ctx.step_path, request, left.cost_usd, left.tokens)
        problem = await self.run.hooks.transform(
            payload, "transform_model_request", self.run.values, _must_be(ModelRequest)
        )
        if problem is not None:
            raise StepFailed(ctx.step_path, "TransformFault", problem)
        return payload.value

    async def _attempt(
        self, ctx: RunContext, request: ModelRequest, send: SendModel, price: Price | None, attempt: int
    ) -> ModelResponse:
        await self._guard(
            ctx, "guard_model_call", lambda: GuardModelCall(self.run.info, ctx.step_path, attempt, request)
        )
        record = _Record(self.run, ctx, "model_call", attempt, self._record_id())
        await record.intend(request)
        price_or_free, inputs = price or Price(), input_bound(request)
        reservation = ctx.usage.reserve_fitting(fit_of(request, price_or_free, inputs))
        started = perf_counter()
        try:
            with telemetry.model_span(self.run.tracer, request, ctx.step_path) as span:
                if price is None and ctx.usage.refuses_unknown_price:
                    raise _unpriced(request.model)
                response = await _send(reservation, request, send, price, inputs)
                telemetry.mark_usage(span, reservation.used)
                telemetry.mark_response(span, response)
            response = await self._transformed_response(ctx, request, response)
        except BaseException as error:  # a cancel too: each intent gets its result
            if isinstance(error, UsageLimitExceeded):
                self.run.stop(error, ctx)
            await record.end(error, None, reservation.used, perf_counter() - started)
            raise
        duration = perf_counter() - started
        await record.end(None, response, reservation.used, duration)
        payload = partial(OnModelCall, self.run.info, ctx.step_path, request, response, reservation.used, duration)
        await self.run.observe("on_model_call", payload, ctx)
        return response

    async def _transformed_response(
        self, ctx: RunContext, request: ModelRequest, response: ModelResponse
    ) -> ModelResponse:
        if not self.run.hooks.of("transform_model_response"):
            return response
        payload = TransformModelResponse(self.run.info, ctx.step_path, request, response)
        problem = await self.run.hooks.transform(
            payload, "transform_model_response", self.run.values, _must_be(ModelResponse)
        )
        if problem is not None:
            raise StepFailed(ctx.step_path, "TransformFault", problem)
        return payload.value

    # --- tools ------------------------------------------------------------------------------------------------------

    async def call_tool(self, ctx: RunContext, call: ToolCall, send: SendTool) -> ToolResult:
        """See RunContext.call_tool."""
        refusal = await self._guard(
            ctx, "guard_tool_call", partial(GuardToolCall, self.run.info, ctx.step_path, ctx.attempt, call)
        )
        if refusal is not None:
            return ToolResult(content=f"refused: {refusal.reason}", is_error=True, call_id=call.id)
        record = _Record(self.run, ctx, "tool_call", ctx.attempt, self._record_id())
        await record.intend(call)
        started = perf_counter()
        try:
            name = {telemetry.OPERATION: "execute_tool", telemetry.TOOL_NAME: call.name}
            with telemetry.span(self.run.tracer, f"execute_tool {call.name}", name):
                answer = await send(call)
            result = answer if isinstance(answer, ToolResult) else ToolResult.model_validate(
                {"content": answer, "call_id": call.id}
            )  # fmt: skip
        except BaseException as error:  # a cancel too: each intent gets its result
            await record.end(error, None, Usage(), perf_counter() - started)
            raise
        await record.end(None, result, Usage(), perf_counter() - started)
        payload = partial(OnToolCall, self.run.info, ctx.step_path, call, result, perf_counter() - started)
        await self.run.observe("on_tool_call", payload, ctx)
        return result

    # --- both -------------------------------------------------------------------------------------------------------

    def _record_id(self) -> str:
        self._number += 1
        return f"call-{self._number}"

    async def _guard(self, ctx: RunContext, hook: str, payload: Callable[[], Event]) -> Deny | None:
        """Raise on a denial; returns a refusal that is meant for the model."""
        run = self.run
        if run.verdict is not None:
            raise run.verdict
        if not run.hooks.of(hook):
            return None
        denial = await run.hooks.guard(payload(), hook, run.values)
        if isinstance(denial, GuardDenied):
            await run.deny(ctx.step_path, denial, ctx)
            return None
        return denial


@dataclass(slots=True)
class _Record:
    """The intent and the result of one call, which belong together."""

    run: Running
    ctx: RunContext
    kind: RecordKind
    attempt: int
    record_id: str

    async def intend(self, subject: object) -> None:
        run, path = self.run, self.ctx.step_path
        if not run.hooks.of("record_intent"):
            return
        intent = RecordIntent(run.info, self.kind, self.record_id, path, self.attempt, subject)
        failed = await run.hooks.record(intent, "record_intent", run.values)
        if failed is not None:
            denial = GuardDenied(failed, "record_intent", "the intent could not be recorded")
            await run.deny(path, denial, self.ctx)

    async def end(self, error: BaseException | None, value: object, used: Usage, duration_s: float) -> None:
        run = self.run
        if not run.hooks.of("record_result"):
            return
        result = RecordResult(
            run.info, self.kind, self.record_id, self.ctx.step_path, self.attempt, _status(error), value,
            "" if error is None else type(error).__name__, used, duration_s,
        )  # fmt: skip
        with anyio.CancelScope(shield=error is not None):
            failed = await run.hooks.record(result, "record_result", run.values)
        if failed is not None:
            denial = GuardDenied(failed, "record_result", "the result could not be recorded")
            run.stop(denial, self.ctx)


def _status(error: BaseException | None) -> str:
    if error is None:
        return "completed"
    if isinstance(error, UsageLimitExceeded):
        return "stopped"
    return "failed" if isinstance(error, Exception) else "cancelled"


async def _send(
    reservation: Reservation, request: ModelRequest, send: SendModel, price: Price | None, inputs: int
) -> ModelResponse:
    """Make the call as small as what could be reserved for it, and settle by what was used."""
    async with reservation as lease:
        try:
            response = await send(_clamped(request, lease.charge.tokens - inputs))
        except NotSent:
            lease.release()
            raise
        _settle(lease, response, price)
    return response


def _unpriced(model: str) -> UsageLimitExceeded:
    return UsageLimitExceeded(
        "total_cost_usd_limit",
        "USD",
        f"the price of model {model!r} is unknown",
        "Install a price book, pass price= to call_model, or set on_unknown_price='warn'",
    )


def _settle(lease: Lease, response: ModelResponse, price: Price | None) -> None:
    usage, charge = response.usage, lease.charge
    if usage is None:
        used = Usage(output_tokens=charge.tokens, requests=1, cost_usd=charge.cost_usd, unmeasured=1)
    else:
        known = (price or Price()).cost(usage.input_tokens, usage.output_tokens)
        cost = known if usage.cost_usd is None else usage.cost_usd
        used = Usage(usage.input_tokens, usage.output_tokens, 1, cost)
        used.overshoot_usd = max(ZERO, EXACT.subtract(cost, charge.cost_usd))
    used.unpriced = int(price is None and (usage is None or usage.cost_usd is None))
    lease.close(used)


def _clamped(request: ModelRequest, room: int) -> ModelRequest:
    """The request with `max_tokens` no larger than what was reserved for output; 0 means nothing was bounded."""
    if room <= 0 or (request.max_tokens is not None and request.max_tokens <= room):
        return request
    return request.model_copy(update={"max_tokens": room})


def input_bound(request: ModelRequest) -> int:
    """Most input tokens that a request can count: one per UTF-8 byte, and a fixed number per message."""
    size = 0
    for message in request.messages:
        calls = [[call.name, call.arguments] for call in message.tool_calls]
        size += len(message.content.encode()) + TOKENS_PER_MESSAGE + (len(json.dumps(calls)) if calls else 0)
    if request.tools:
        size += sum(len(tool.model_dump_json()) + TOKENS_PER_MESSAGE for tool in request.tools)
    if request.output_schema is not None:
        size += len(json.dumps(request.output_schema))
    return size


def fit_of(request: ModelRequest, price: Price, inputs: int) -> Fit:
    """How much of a call fits into the room that is left: its output is shortened down to `min_tokens`."""

    def fit(room: Room) -> Charge | None:
        outputs = request.max_tokens
        if room.requests is not None and room.requests < 1:
            return None
        if room.tokens is not None:
            outputs = room.tokens - inputs if outputs is None else min(outputs, room.tokens - inputs)
        cost = price.cost(inputs, 0)
        if room.cost_usd is not None and (cost or price.output_usd):
            left = EXACT.subtract(room.cost_usd, cost)
            if left < 0:
                return None
            if price.output_usd:
                affordable = int((left / price.output_usd).to_integral_value(rounding=ROUND_FLOOR))
                outputs = affordable if outputs is None else min(outputs, affordable)
        if outputs is None:
            return Charge(cost, inputs, 1)
        if outputs < min(request.min_tokens, request.max_tokens or request.min_tokens):
            return None
        return Charge(price.cost(inputs, outputs), inputs + outputs, 1)

    return fit


def _must_be(cls: type) -> Callable[[object], str | None]:
    return lambda value: None if isinstance(value, cls) else f"{type(value).__name__} is no {cls.__name__}"
