"""The one way to a model or a tool, in a fixed order that no step, plugin or retry can leave.

transform request -> guard -> record intent -> reserve -> call -> settle -> transform response -> record -> observe
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from time import perf_counter

from . import payloads
from .check import no_json
from .context import MakeCall, RunContext, SendModel, SendTool
from .errors import NotSent, StepFailed, UsageLimitExceeded
from .foreign import T, attempt
from .gates import Passage
from .messages import ModelRequest, ModelResponse, ModelUsage, ToolCall, ToolResult
from .meter import Lease, Reservation
from .outcome import Begun, Called, Effect
from .retry import RetryPolicy
from .running import Act, Running
from .scrubbing import scrub
from .told import model_key, tool_key
from .usage import EXACT, Charge, Fit, Price, Room, Usage, least

_log = logging.getLogger("flujo.core")

TOKENS_PER_MESSAGE = 16
"""What providers add around a message, as an upper bound; content counts one token per UTF-8 byte at most."""


class Calls:
    """Model and tool calls of one run."""

    def __init__(self, run: Running) -> None:
        self.run = run
        self.numbers: Iterator[int] = count(1)
        self._beginning: set[tuple[tuple[int, int], str]] = set()

    # --- models -----------------------------------------------------------------------------------------------------

    async def recorded(self, ctx: RunContext, request: ModelRequest, make: MakeCall) -> ModelResponse:
        """See CallGate.recorded. Where the answer is known no call is made, so that nobody is asked about it."""
        self.check_open()
        key = model_key(request, ctx.attempt)
        known, answer = ctx.recall(key)
        if known:
            return ModelResponse.model_validate(answer)
        response = await make()
        await self.run.note_told(ctx, Called(response.model_dump(mode="json"), key))
        return response

    async def call_model(
        self, ctx: RunContext, request: ModelRequest, send: SendModel, retry: RetryPolicy | None, price: Price | None
    ) -> ModelResponse:
        """See RunContext.call_model."""
        run, path = self.run, ctx.step_path
        if run.hooks.of("transform_model_request"):
            left = ctx.usage.left
            given = payloads.TransformModelRequest(run.info, path, request, left.cost_usd, left.tokens)
            request = await run.transform(given, "transform_model_request", ModelRequest, ctx)
        price = run.setup.price_of(request.model) if price is None else price
        attempt = 1
        while True:
            try:
                return await self._attempt(ctx, request, send, price, attempt)
            except Exception as error:
                # A failed step is no fault of the provider: a transform's fault would only be paid for again.
                if retry is None or isinstance(error, StepFailed) or not retry.applies(error, attempt):
                    raise
                await run.back_off(retry, attempt, error, ctx)
                attempt += 1

    async def _attempt(
        self, ctx: RunContext, request: ModelRequest, send: SendModel, price: Price | None, attempt: int
    ) -> ModelResponse:
        run, path, request = self.run, ctx.step_path, self.apart(request)
        self.check_open()
        about = run.info, path, attempt
        await run.guard("guard_model_call", lambda: payloads.GuardModelCall(*about, self.apart(request)), ctx)
        if (denial := run.hooks.policy.denial(request)) is not None:
            await run.deny(denial, path, ctx)
        act = Act("model_call", path, ctx, attempt, f"call-{next(self.numbers)}")
        call = _ModelCall(run, ctx, request, send, price)
        try:
            await run.intend(act, self.apart(request))
            response = await call.make()
            if run.hooks.of("transform_model_response"):
                given = payloads.TransformModelResponse(run.info, path, self.apart(request), response)
                response = await run.transform(given, "transform_model_response", ModelResponse, ctx)
        except BaseException as error:  # a cancel too: each intent gets its result
            if isinstance(error, UsageLimitExceeded):
                run.stop(error, ctx)
            await run.conclude(act, error, None, call.reservation.used)
            if call.sent and isinstance(error, Exception):
                await self._observe_model_call(call, None, act)
            raise
        await run.conclude(act, None, self.apart(response), call.reservation.used)
        await self._observe_model_call(call, self.apart(response), act)
        return response

    def apart(self, value: T) -> T:
        """A copy, where somebody acts: what one hook is shown and changes, neither the call nor other hooks see."""
        return deepcopy(value) if self.run.hooks.table else value

    async def _observe_model_call(self, one: _ModelCall, response: ModelResponse | None, act: Act) -> None:
        facts = one.ctx.step_path, self.apart(one.request), response, one.reservation.used, perf_counter() - act.started
        await self.run.observe("on_model_call", partial(payloads.OnModelCall, self.run.info, *facts), one.ctx)
        await self.run.warn(one.ctx)

    # --- tools ------------------------------------------------------------------------------------------------------

    async def call_tool(self, ctx: RunContext, call: ToolCall, send: SendTool, effect: Effect) -> ToolResult:
        """See RunContext.call_tool."""
        run, path, call = self.run, ctx.step_path, self.apart(call)
        self.check_open()
        guarded = partial(payloads.GuardToolCall, run.info, path, ctx.attempt, self.apart(call))
        if (refusal := await run.guard("guard_tool_call", guarded, ctx)) is not None:
            return ToolResult(content=f"refused: {refusal.reason}", is_error=True, call_id=call.id)
        key = tool_key(call)
        known, recorded = ctx.recall(key)
        if known:  # this visit of the step made the call before, and runs again
            return ToolResult.model_validate(recorded).model_copy(update={"call_id": call.id})
        if key in run.state.begun.get(ctx.visit, ()):
            raise _unknown_end(path, call)
        act = Act("tool_call", path, ctx, ctx.attempt, f"call-{next(self.numbers)}")
        sent = False
        try:
            await run.intend(act, self.apart(call))
            self.check_open()  # the run may have been stopped while guards and recorders were asked
            if effect == "at_most_once":
                ctx.check_open()  # guards and recorders may have taken longer than the step
                await self._begin(ctx, call, key)
            sent = True
            with nullcontext() if run.watch is None else run.watch.tool(ctx, call.name):
                result = _tool_result(ctx, call, await send(call))
        except BaseException as error:  # a cancel too: each intent gets its result
            if isinstance(error, NotSent) and effect == "at_most_once":
                await run.note_told(ctx, Begun(key, call.name, is_over=True))
            await run.conclude(act, error, None, Usage())
            if sent and isinstance(error, Exception):
                await self._observe_tool_call(ctx, call, None, act)
            raise
        try:
            await run.note_told(ctx, Called(result.model_dump(mode="json"), key))
        finally:
            await run.conclude(act, None, self.apart(result), Usage())
        await self._observe_tool_call(ctx, call, self.apart(result), act)
        return result

    async def _begin(self, ctx: RunContext, call: ToolCall, key: str) -> None:
        """Have it kept that a call begins which may happen at most once; an equal one that is under way is refused."""
        mine = (ctx.visit, key)
        if mine in self._beginning or key in self.run.state.begun.get(ctx.visit, ()):
            raise _unknown_end(ctx.step_path, call)
        self._beginning.add(mine)
        try:
            await self.run.note_told(ctx, Begun(key, call.name))
        finally:
            self._beginning.discard(mine)
        self.check_open()

    async def _observe_tool_call(self, ctx: RunContext, call: ToolCall, result: ToolResult | None, act: Act) -> None:
        facts = (ctx.step_path, self.apart(call), result, perf_counter() - act.started)
        await self.run.observe("on_tool_call", partial(payloads.OnToolCall, self.run.info, *facts), ctx)

    def breached(self, ctx: RunContext, error: UsageLimitExceeded) -> None:
        """See CallGate.breached."""
        self.run.stop(error, ctx)

    def spent(self, ctx: RunContext, used: Usage, priced_by: str) -> None:
        """See CallGate.spent."""
        self.run.note_spent(ctx, used, priced_by)

    def check_open(self) -> None:
        """Refuse what is asked of a run that is being stopped: its verdict is raised."""
        if self.run.verdict is not None:
            raise self.run.verdict


@dataclass(slots=True)
class _ModelCall:
    """One attempt of a call to a model: made as small as what could be reserved for it, settled by what it used."""

    run: Running
    ctx: RunContext
    request: ModelRequest
    send: SendModel
    price: Price | None
    inputs: int = field(init=False)
    reservation: Reservation = field(init=False)
    sent: bool = False

    def __post_init__(self) -> None:
        self.inputs = input_bound(self.request)
        self.reservation = self.ctx.usage.reserve_fitting(fit_of(self.request, self.price or Price(), self.inputs))

    async def make(self) -> ModelResponse:
        """Reserve, send and settle."""
        watch = self.run.watch
        if watch is None:
            return await self._send()
        with watch.model(self.ctx, self.request) as piece:
            response = None
            try:
                return (response := await self._send())
            finally:
                watch.called(piece, response, self.reservation.used, sent=self.sent)

    async def _send(self) -> ModelResponse:
        check_price(self.ctx, self.request.model, self.price)
        limits = self.run.hooks.policy.named_limits
        while limits:
            async with self.reservation as lease, AsyncExitStack() as places:
                tokens = lease.charge.tokens  # no more than those sent: nothing bounds the answer
                passage = Passage(limits, [f"model:{self.request.model}"], tokens if tokens > self.inputs else None)
                try:
                    with lease.waiting():
                        await places.enter_async_context(passage)
                    if lease.waits:  # who holds the places needs what it holds: it comes after them
                        continue
                    return await self._sent(lease)
                finally:
                    if lease.waits:  # it never came to the call
                        lease.release()
                    passage.used = None if self.reservation.used.unmeasured else self.reservation.used.total_tokens
        async with self.reservation as lease:
            return await self._sent(lease)

    async def _sent(self, lease: Lease) -> ModelResponse:
        """Make the call, and settle."""
        if self.run.verdict is not None:  # the run was stopped while this call waited for its turn
            lease.release()
            raise self.run.verdict
        self.sent = True
        if self.price is not None and self.price.source:
            lease.priced_by = self.price.source
            self.run.info.count("priced_by", self.price.source)
        try:
            most = (self.price or Price()).max_output_tokens
            response: object = await self.send(clamped(self.request, lease.charge.tokens - self.inputs, most))
        except NotSent:
            self.sent = False
            lease.release()
            raise
        except BaseException:  # a cancel too: nobody knows what was used
            lease.close(in_full(lease, self.price))
            raise
        if not isinstance(response, ModelResponse):
            lease.close(in_full(lease, self.price))
            why = f"send for model {self.request.model!r} returned {type(response).__name__}, no ModelResponse"
            raise StepFailed(self.ctx.step_path, "ResponseMismatch", why)
        lease.close(really_used(lease, response.usage, self.price))
        return response


def in_full(lease: Lease, price: Price | None) -> Usage:
    """All that was reserved: nobody said what was used."""
    charge = lease.charge
    return Usage(0, charge.tokens, charge.requests, charge.cost_usd, unmeasured=1, unpriced=int(price is None))


def really_used(lease: Lease, usage: ModelUsage | None, price: Price | None) -> Usage:
    """What the provider says that was used, and what that costs; all that was reserved where it says nothing usable."""
    if usage is None:
        return in_full(lease, price)
    if price is None:
        lease.unbind()
    cost, tokens, held = usage.cost_usd, (usage.input_tokens, usage.output_tokens), price or Price()
    if not all(isinstance(one, int) and one >= 0 for one in tokens):  # it was made unchecked
        return in_full(lease, price)
    paid = usage.listed_usd.get(held.source, held.cost(*tokens)) if cost is None else cost
    if not attempt(lambda: 0 <= EXACT.plus(paid) < 10**40)[0]:
        return in_full(lease, price)
    return Usage(*tokens, 1, paid, unpriced=int(price is None and cost is None))


def _unknown_end(path: str, call: ToolCall) -> StepFailed:
    why = f"its call of tool {call.name!r} may happen at most once, began before, and nobody knows how it ended"
    return StepFailed(path, "NeedsReconcile", why, "Resume the run with retry=True: it asks what became of the call")


def check_price(ctx: RunContext, model: str, price: Price | None) -> None:
    """Refuse a model of unknown price under a money limit, or warn that it passes uncounted, as that limit says."""
    if price is None and ctx.usage.money_limited:
        limit, why = ctx.usage.limit_that_needs_prices, f"the price of model {scrub(repr(model))} is unknown"
        if limit is not None:
            do = "Install a price book, pass price= to call_model, or set on_unknown_price='warn' while money is left"
            raise UsageLimitExceeded("total_cost_usd_limit", f"{limit} USD", why, do)
        if not ctx.usage.spent.unpriced:  # once in an attempt of a step
            _log.warning("%s: its calls in run %s pass uncounted under a money limit", why, ctx.run_id)


def _tool_result(ctx: RunContext, call: ToolCall, answer: object) -> ToolResult:
    facts = {"content": answer} if not isinstance(answer, ToolResult) else dict(answer)
    made, _ = attempt(ToolResult.model_validate, {**facts, "call_id": call.id})
    if made is None or no_json(made.content) is not None:
        # nothing as the cause: pydantic's message shows the answer, which may be private
        why = f"tool {call.name!r} returned {type(answer).__name__} with something in it that is no JSON"
        raise StepFailed(ctx.step_path, "ToolResultMismatch", why)
    return made


def clamped(request: ModelRequest, room: int, most: int | None) -> ModelRequest:
    """The request with `max_tokens` no larger than what was reserved for output; 0 means nothing was bounded."""
    bound = most if request.max_tokens is None else request.max_tokens
    if room <= 0 or (bound is not None and bound <= room):
        return request
    return request.model_copy(update={"max_tokens": room})


def input_bound(request: ModelRequest) -> int:
    """Most input tokens that a request can count: one per UTF-8 byte, and a fixed number per message.

    JSON is counted as ASCII: what is outside of it is escaped, which is longer than its UTF-8.
    """
    size = request.unseen_tokens
    for message in request.messages:
        calls = [[call.name, call.arguments, call.id] for call in message.tool_calls]
        size += len(message.content.encode()) + len(message.tool_call_id.encode()) + TOKENS_PER_MESSAGE
        size += len(json.dumps(calls)) if calls else 0
    for tool in request.tools:
        size += len(json.dumps(tool.model_dump(mode="json"))) + TOKENS_PER_MESSAGE
    if request.output_schema is not None:
        size += len(json.dumps(request.output_schema))
    return size


def fit_of(request: ModelRequest, price: Price, inputs: int) -> Fit:
    """How much of a call fits into the room that is left: its output is shortened down to `min_tokens`."""
    wanted = price.max_output_tokens if request.max_tokens is None else request.max_tokens
    fewest = request.min_tokens if wanted is None else min(request.min_tokens, wanted)
    input_cost = price.worst(inputs, 0)

    def fit(room: Room) -> Charge | None:
        outputs = wanted
        if room.requests is not None and room.requests < 1:
            return None
        if room.tokens is not None:
            outputs = least(outputs, room.tokens - inputs)
        if room.cost_usd is not None and (input_cost or price.output_usd):
            left = EXACT.subtract(room.cost_usd, input_cost)
            if left < 0:
                return None
            if price.output_usd:
                outputs = least(outputs, int(EXACT.divide_int(left, price.output_usd)))
        if outputs is None:
            return Charge(input_cost, inputs, 1)
        return None if outputs < fewest else Charge(price.worst(inputs, outputs), inputs + outputs, 1)

    return fit
