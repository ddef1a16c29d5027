"""`ctx.call_model` and `ctx.call_tool`: the fixed order, what is booked, and that no limit is ever passed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import anyio
import pytest

from flujo.core import (
    UNCHANGED,
    Allow,
    Budget,
    Deny,
    Event,
    Flujo,
    GuardDenied,
    GuardModelCall,
    GuardToolCall,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    NotSent,
    OnGovernorBreach,
    OnModelCall,
    OnRetry,
    OnToolCall,
    OnUsageWarning,
    Pipeline,
    PipelineResult,
    Price,
    RecordIntent,
    RecordResult,
    RetryPolicy,
    RunContext,
    Step,
    StepFailed,
    ToolCall,
    ToolDefinition,
    ToolResult,
    TransformModelRequest,
    TransformModelResponse,
    Usage,
    UsageLimitExceeded,
    UsageLimits,
    hookimpl,
    run_input,
    step,
)
from flujo.core.calls import input_bound

pytestmark = pytest.mark.anyio

PRICE = Price(Decimal("0.001"), Decimal("0.01"))
SendModel = Callable[[ModelRequest], Awaitable[ModelResponse]]


def ask(text: str = "12345678", **more: Any) -> ModelRequest:
    """A request whose input counts 24 tokens at most: 8 bytes and 16 for the message."""
    return ModelRequest(model="acme:m", messages=(Message(role="user", content=text),), **more)


class Provider:
    """Answers with what it is told, counts and bills by itself, and knows nothing of the governor."""

    def __init__(self, *answers: ModelUsage | BaseException | None, delay_s: float = 0.0) -> None:
        self.answers = list(answers)
        self.delay_s = delay_s
        self.requests: list[ModelRequest] = []

    async def send(self, request: ModelRequest) -> ModelResponse:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else ModelUsage(input_tokens=24, output_tokens=10)
        await anyio.sleep(self.delay_s)
        if isinstance(answer, BaseException):
            raise answer
        return ModelResponse(content="answer", usage=answer)


def talker(
    provider: Provider, request: ModelRequest | None = None, *, times: int = 1, name: str = "talk", **more: Any
) -> Step:
    """A step that calls the provider's model."""
    more.setdefault("price", PRICE)

    async def talk(ctx: RunContext, value: int) -> int:
        for _ in range(times):
            await ctx.call_model(request or ask(max_tokens=10), provider.send, **more)
        return value

    return Step(talk, name=name, inputs={"value": run_input()})


async def run(
    provider: Provider, request: ModelRequest | None = None, limits: Any = None, **more: Any
) -> PipelineResult:
    return await Flujo(talker(provider, request, **more), limits=limits).run_async(1)


def cost(inputs: int, outputs: int) -> Decimal:
    return PRICE.cost(inputs, outputs)


# --- order ----------------------------------------------------------------------------------------------------------


class Watcher:
    """Implements every hook around calls, and notes the order."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.seen: list[str] = []
        self.records: list[RecordIntent | RecordResult] = []

    @hookimpl
    def transform_model_request(self, payload: TransformModelRequest) -> ModelRequest:
        self.seen.append(f"request {payload.tokens_left}")
        text = payload.value.messages[0].content + self.name
        return payload.value.model_copy(update={"messages": (Message(role="user", content=text),)})

    @hookimpl
    def guard_model_call(self, payload: GuardModelCall) -> Allow:
        self.seen.append(f"guard {payload.attempt} {payload.request.messages[0].content}")
        return Allow()

    @hookimpl
    def guard_tool_call(self, payload: GuardToolCall) -> Allow:
        self.seen.append(f"guard tool {payload.call.name}")
        return Allow()

    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None:
        if payload.kind in ("model_call", "tool_call"):
            self.seen.append("intent")
            self.records.append(payload)

    @hookimpl
    def transform_model_response(self, payload: TransformModelResponse) -> object:
        self.seen.append("response")
        return (
            payload.value.model_copy(update={"content": payload.value.content + self.name}) if self.name else UNCHANGED
        )

    @hookimpl
    def record_result(self, payload: RecordResult) -> None:
        if payload.kind in ("model_call", "tool_call"):
            self.seen.append(f"result {payload.status}")
            self.records.append(payload)

    @hookimpl
    def on_model_call(self, payload: OnModelCall) -> None:
        self.seen.append(f"observe {payload.response.content if payload.response else None}")

    @hookimpl
    def on_tool_call(self, payload: OnToolCall) -> None:
        self.seen.append(f"observe {payload.result.content if payload.result else None}")

    @hookimpl
    def on_retry(self, payload: OnRetry) -> None:
        self.seen.append(f"retry {payload.attempt} {payload.error_type}")


async def test_a_model_call_goes_through_its_stations_in_the_fixed_order() -> None:
    watcher, provider = Watcher("+"), Provider(ModelUsage(input_tokens=18, output_tokens=10), delay_s=0.001)

    @step
    async def talk(ctx: RunContext, value: int) -> str:
        async def send(request: ModelRequest) -> ModelResponse:
            watcher.seen.append(f"call {request.messages[0].content} {ctx.usage.holds_lease}")
            return await provider.send(request)

        response = await ctx.call_model(ask("q", max_tokens=10), send, price=PRICE)
        watcher.seen.append(f"got {ctx.usage.holds_lease}")
        return response.content

    result = await Flujo(talk, plugins=[watcher], limits=UsageLimits(None, 500)).run_async(1)
    assert result.output == "answer+"
    assert watcher.seen == [
        "request 500", "guard 1 q+", "intent", "call q+ True", "response", "result completed", "observe answer+",
        "got False",
    ]  # fmt: skip


async def test_each_transform_sees_what_the_one_before_made() -> None:
    provider = Provider()

    def adding(digit: str, **order: bool) -> object:
        class Adding:
            @hookimpl(**order)
            def transform_model_request(self, payload: TransformModelRequest) -> ModelRequest:
                text = payload.value.messages[0].content + digit
                return payload.value.model_copy(update={"messages": (Message(role="user", content=text),)})

        return Adding()

    plugins = [adding("3", trylast=True), adding("2"), adding("1", tryfirst=True)]
    await Flujo(talker(provider, ask("q")), plugins=plugins).run_async(1)
    assert provider.requests[0].messages[0].content == "q123"


async def test_every_retry_is_guarded_recorded_and_reserved_by_itself() -> None:
    watcher = Watcher()
    provider = Provider(OSError("one"), TimeoutError("two"))
    flow = talker(provider, retry=RetryPolicy(max_attempts=3, backoff_s=0))
    result = await Flujo(flow, plugins=[watcher], limits=UsageLimits("1")).run_async(1)
    assert result.status == "completed"
    failed = ["guard {} 12345678", "intent", "result failed", "observe None"]
    assert watcher.seen == [
        "request None",
        *[line.format(1) for line in failed], "retry 1 OSError",
        *[line.format(2) for line in failed], "retry 2 TimeoutError",
        "guard 3 12345678", "intent", "response", "result completed", "observe answer",
    ]  # fmt: skip
    assert result.usage.requests == 3
    assert result.usage.unmeasured == 2
    assert result.total_cost_usd == 2 * cost(24, 10) + cost(24, 10)


async def test_retries_stop_at_the_limit_since_failed_attempts_may_have_been_billed() -> None:
    provider = Provider(*[OSError()] * 9)
    result = await run(provider, limits=UsageLimits(2 * cost(24, 10)), retry=RetryPolicy(max_attempts=9, backoff_s=0))
    assert result.status == "stopped"
    assert len(provider.requests) == 2


async def test_a_transforms_fault_fails_the_step_and_is_not_paid_for_again() -> None:
    class Broken:
        @hookimpl
        def transform_model_response(self, payload: TransformModelResponse) -> object:
            return "no response"

    provider = Provider()
    flow = talker(provider, retry=RetryPolicy(max_attempts=5, backoff_s=0))
    result = await Flujo(flow, plugins=[Broken()]).run_async(1)
    assert result.status == "failed"
    assert "does not fit" in str(result.error)
    assert len(provider.requests) == 1
    assert result.total_cost_usd == cost(24, 10)


async def test_a_send_that_gives_no_response_is_named() -> None:
    @step
    async def talk(ctx: RunContext, value: int) -> int:
        async def send(request: ModelRequest) -> Any:
            return "text"

        await ctx.call_model(ask(max_tokens=10), send, price=PRICE)
        return value

    result = await Flujo(talk).run_async(1)
    assert "send for model 'acme:m' returned str, no ModelResponse" in str(result.error)
    assert result.usage.unmeasured == 1


# --- what is booked -------------------------------------------------------------------------------------------------


async def test_a_call_is_booked_by_what_the_provider_reports() -> None:
    result = await run(Provider(ModelUsage(input_tokens=5, output_tokens=2)), limits=UsageLimits("1", 100, 2))
    assert result.usage == Usage(5, 2, 1, cost(5, 2), reserved_usd=result.usage.reserved_usd)
    assert result.usage.reserved_usd == 0


async def test_what_the_provider_bills_itself_counts() -> None:
    billed = ModelUsage(input_tokens=5, output_tokens=2, cost_usd=Decimal("0.005"))
    assert (await run(Provider(billed), limits=UsageLimits("1"))).total_cost_usd == Decimal("0.005")
    unpriced = await run(Provider(billed), limits=UsageLimits("1", on_unknown_price="warn"), price=None)
    assert (unpriced.total_cost_usd, unpriced.usage.unpriced) == (Decimal("0.005"), 0)


async def test_a_call_without_reported_usage_counts_its_whole_lease_and_is_counted() -> None:
    result = await run(Provider(None), limits=UsageLimits("1"))
    assert result.usage.unmeasured == 1
    assert (result.usage.total_tokens, result.total_cost_usd) == (34, cost(24, 10))


async def test_a_request_that_never_left_is_not_booked_and_may_be_sent_again() -> None:
    watcher = Watcher()
    provider = Provider(NotSent("m", "no route"))
    flow = talker(provider, retry=RetryPolicy(max_attempts=2, backoff_s=0))
    result = await Flujo(flow, plugins=[watcher], limits=UsageLimits(None, None, 1)).run_async(1)
    assert result.status == "completed", result.error
    assert (len(provider.requests), result.usage.requests) == (2, 1)
    assert watcher.seen.count("observe None") == 0, "nothing was called"


async def test_a_cancelled_call_counts_in_full() -> None:
    @step
    async def talk(ctx: RunContext, value: int) -> int:
        with anyio.move_on_after(0.01):
            await ctx.call_model(ask(max_tokens=10), Provider(delay_s=5).send, price=PRICE)
        return value

    result = await Flujo(talk, limits=UsageLimits("1")).run_async(1)
    assert result.status == "completed"
    assert (result.usage.unmeasured, result.total_cost_usd) == (1, cost(24, 10))
    assert result.usage.reserved_usd == 0


async def test_a_bill_above_the_lease_is_an_overshoot_and_nothing_is_called_after_it() -> None:
    limits = UsageLimits(cost(24, 10) * 2)
    provider = Provider(ModelUsage(input_tokens=24, output_tokens=40))
    result = await run(provider, limits=limits, times=3)
    assert result.status == "stopped"
    assert len(provider.requests) == 1
    assert result.usage.overshoot_usd == cost(0, 30)
    assert result.total_cost_usd == cost(24, 40)


async def test_without_a_money_limit_nothing_is_bounded_so_nothing_overshoots() -> None:
    for limits in (None, UsageLimits(None, None, 5)):
        result = await run(Provider(ModelUsage(input_tokens=5, output_tokens=900)), ask(), limits=limits)
        assert result.status == "completed"
        assert result.usage.overshoot_usd == 0
        assert result.total_cost_usd == cost(5, 900)


# --- prices ---------------------------------------------------------------------------------------------------------


async def test_an_unknown_price_is_refused_under_a_money_limit_before_the_call() -> None:
    provider, watcher = Provider(), Watcher()
    flow = talker(provider, price=None, retry=RetryPolicy(max_attempts=3, backoff_s=0))
    result = await Flujo(flow, limits=UsageLimits("1"), plugins=[watcher]).run_async(1)
    assert result.status == "stopped"
    assert provider.requests == []
    assert str(result.error) == (
        "total_cost_usd_limit of 1 USD reached: the price of model 'acme:m' is unknown. "
        "Install a price book, pass price= to call_model, or set on_unknown_price='warn' while money is left"
    )
    assert watcher.seen == ["request None", "guard 1 12345678", "intent", "result stopped"]


@pytest.mark.parametrize("limits", [None, UsageLimits(None, 1000), UsageLimits("1", on_unknown_price="warn")])
async def test_an_unknown_price_passes_without_a_money_limit_or_when_told_so_and_is_counted(limits: Any) -> None:
    result = await run(Provider(None, OSError()), limits=limits, price=None, times=2)
    assert result.status == "failed"
    assert result.usage.unpriced == 2, "a failed call counts too"
    assert result.total_cost_usd == 0


async def test_one_strict_limit_in_the_line_is_enough_to_refuse_an_unknown_price() -> None:
    provider = Provider()
    flujo = Flujo(talker(provider, price=None), limits=Budget(UsageLimits("5")))
    result = await flujo.run_async(1, limits=UsageLimits("1", on_unknown_price="warn"))
    assert result.status == "stopped"
    assert "total_cost_usd_limit of 5 USD" in str(result.error)


async def test_a_limit_of_zero_lets_only_free_models_pass() -> None:
    free, paid = Provider(), Provider()
    flow = Pipeline(talker(free, ask(), price=Price(), name="free"))
    assert (await Flujo(flow, limits=UsageLimits(0)).run_async(1)).status == "completed"
    result = await run(paid, limits=UsageLimits(0))
    assert (result.status, paid.requests) == ("stopped", [])


# --- clamping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "wanted", "sent"),
    [
        (UsageLimits(None, 30), 10, 6),
        (UsageLimits(None, 30), None, 6),
        (UsageLimits(None, 1000), 10, 10),
        (UsageLimits("0.064"), 10, 4),
        (UsageLimits("0.0649"), None, 4),
        (UsageLimits("0.064", 26), 10, 2),
        (UsageLimits(None, None, 1), None, None),
        (None, None, None),
    ],
)
async def test_the_answer_is_made_as_short_as_the_limits_demand(
    limits: Any, wanted: int | None, sent: int | None
) -> None:
    provider = Provider(ModelUsage(input_tokens=24, output_tokens=1))
    result = await run(provider, ask(max_tokens=wanted), limits=limits)
    assert result.status == "completed", result.error
    assert provider.requests[0].max_tokens == sent


@pytest.mark.parametrize(
    ("limits", "request_"),
    [
        (UsageLimits(None, 24), ask()),
        (UsageLimits(None, 28), ask(max_tokens=10, min_tokens=5)),
        (UsageLimits("0.024"), ask()),
        (UsageLimits("0.023"), ask()),
    ],
)
async def test_an_answer_too_short_to_be_of_use_is_refused_instead(limits: Any, request_: ModelRequest) -> None:
    provider = Provider()
    assert (await run(provider, request_, limits=limits)).status == "stopped"
    assert provider.requests == []


@pytest.mark.parametrize("price", [Price(Decimal("0.001")), Price(request_usd=Decimal("0.024"))])
async def test_a_model_whose_answers_are_free_is_still_held_to_the_limit(price: Price) -> None:
    provider = Provider(*[ModelUsage(input_tokens=24, output_tokens=999)] * 9)
    result = await run(provider, ask(), limits=UsageLimits("0.05"), price=price, times=3)
    assert (result.status, len(provider.requests)) == ("stopped", 2)
    assert result.total_cost_usd == Decimal("0.048")


async def test_a_wish_below_the_least_is_granted_as_it_is() -> None:
    provider = Provider(ModelUsage(input_tokens=1, output_tokens=2))
    assert (await run(provider, ask(max_tokens=2, min_tokens=9), limits=UsageLimits(None, 26))).status == "completed"
    assert provider.requests[0].max_tokens == 2


async def test_a_models_own_longest_answer_is_reserved_instead_of_all_that_is_left() -> None:
    price = Price(PRICE.input_usd, PRICE.output_usd, max_output_tokens=20)
    left: list[int | None] = []

    @step
    async def talk(ctx: RunContext, value: int) -> int:
        async def send(request: ModelRequest) -> ModelResponse:
            left.append(ctx.usage.left.tokens)
            assert request.max_tokens is None, "the model cannot answer with more anyway"
            return ModelResponse(usage=ModelUsage(input_tokens=24, output_tokens=20))

        await ctx.call_model(ask(), send, price=price)
        return value

    result = await Flujo(talk, limits=UsageLimits("9", 1000)).run_async(1)
    assert result.output == 1
    assert left == [1000 - 24 - 20]


def test_the_bound_of_the_input_counts_bytes_of_everything_that_is_sent() -> None:
    wide = "äöü漢字🙂"
    assert input_bound(ask(wide)) == len(wide.encode()) + 16
    called = Message(role="assistant", tool_calls=(ToolCall(name=wide, arguments={"a": wide}, id="i" * 40),))
    answered = Message(role="tool", content=wide, tool_call_id="i" * 40)
    tool = ToolDefinition(name="t", description=wide * 50, parameters={"type": "object"})
    request = ModelRequest(model="m", messages=(called, answered), tools=(tool,), output_schema={"title": wide})
    assert (
        input_bound(request)
        >= len(request.model_dump_json(include={"messages", "tools", "output_schema"}).encode()) // 2
    )
    for smaller in ({"tools": ()}, {"output_schema": None}, {"messages": (called,)}):
        assert input_bound(request.model_copy(update=smaller)) < input_bound(request)
    without = request.model_copy(update={"tools": ()})
    assert input_bound(request) - input_bound(without) > len((wide * 50).encode())


async def test_exactly_at_the_limit_no_further_call_is_made() -> None:
    for limits in (UsageLimits(3 * cost(24, 10)), UsageLimits(None, 3 * 34), UsageLimits(None, None, 3)):
        provider = Provider()
        result = await run(provider, limits=limits, times=4)
        assert (len(provider.requests), result.status) == (3, "stopped")
        within = await run(Provider(), limits=limits, times=3)
        assert within.status == "completed", "to be at a limit is not to break it"


# --- a breach -------------------------------------------------------------------------------------------------------


async def test_on_a_breach_who_holds_no_lease_is_cancelled_at_once_and_who_holds_one_finishes() -> None:
    instants: dict[str, float] = {}
    slow = Provider(ModelUsage(input_tokens=24, output_tokens=10), delay_s=0.1)

    async def idle(value: int) -> int:
        try:
            await anyio.sleep(20)
        finally:
            instants["idle"] = anyio.current_time()
        return value

    async def greedy(ctx: RunContext, value: int) -> int:
        await anyio.sleep(0.02)
        instants["breach"] = anyio.current_time()
        await ctx.call_model(ask(max_tokens=10, min_tokens=10), slow.send, price=PRICE)
        return value

    flow = Pipeline(
        talker(slow, name="paid"),
        Step(idle, inputs={"value": run_input()}),
        Step(greedy, inputs={"value": run_input()}, limits=UsageLimits(None, 20)),
    )
    started: list[float] = [anyio.current_time()]
    result = await Flujo(flow, limits=UsageLimits("10")).run_async(7)
    assert anyio.current_time() - started[0] < 5
    assert instants["idle"] - instants["breach"] < 0.05
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert {record.name: record.status for record in result.step_history} == {
        "paid": "completed",
        "idle": "cancelled",
        "greedy": "failed",
    }
    paid = next(record for record in result.step_history if record.name == "paid")
    assert (paid.output, paid.usage.cost_usd) == (7, cost(24, 10))
    assert result.total_cost_usd == cost(24, 10)


async def test_a_call_that_waits_for_room_when_the_run_is_stopped_is_not_sent() -> None:
    provider = Provider(*[ModelUsage(input_tokens=1, output_tokens=1)] * 9, delay_s=0.05)

    async def two(ctx: RunContext, value: int) -> int:
        async def call() -> None:
            await ctx.call_model(ask(max_tokens=10, min_tokens=10), provider.send, price=PRICE)

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await anyio.sleep(0.01)
            group.start_soon(call)
        return value

    async def breach(ctx: RunContext, value: int) -> int:
        await anyio.sleep(0.025)
        async with ctx.usage.reserve(cost_usd=5):
            return value

    steps = [Step(two, inputs={"value": run_input()}), Step(breach, inputs={"value": run_input()})]
    result = await Flujo(Pipeline(*steps), limits=UsageLimits(cost(24, 10))).run_async(1)
    assert result.status == "stopped"
    assert len(provider.requests) == 1


async def test_a_call_that_waits_beside_a_breach_in_its_own_step_is_not_sent() -> None:
    provider = Provider(*[ModelUsage(input_tokens=1, output_tokens=1)] * 9, delay_s=0.03)

    @step
    async def both(ctx: RunContext, value: int) -> int:
        async def call() -> None:
            try:
                await ctx.call_model(ask(max_tokens=10, min_tokens=10), provider.send, price=PRICE)
            except UsageLimitExceeded:
                return

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await anyio.sleep(0.01)
            group.start_soon(call)
            await anyio.sleep(0.01)
            try:
                await ctx.usage.reserve(cost_usd=99).__aenter__()
            except UsageLimitExceeded:
                return value
        return value

    result = await Flujo(both, limits=UsageLimits(cost(24, 10))).run_async(1)
    assert result.status == "stopped"
    assert len(provider.requests) == 1
    assert result.total_cost_usd == cost(1, 1), "the call under way finishes and is kept"


@pytest.mark.parametrize("swallow", [True, False])
async def test_warnings_and_breaches_are_told_once(swallow: bool) -> None:
    told: list[str] = []

    def warned(event: OnUsageWarning) -> None:
        told.append(f"{event.limit} {event.share:.2f}")

    def breached(event: OnGovernorBreach) -> None:
        told.append(f"breach {event.error.limit} in {event.step_path}")

    provider = Provider()

    async def talk(ctx: RunContext, value: int) -> int:
        for _ in range(8):
            try:
                await ctx.call_model(ask(max_tokens=10), provider.send, price=PRICE)
            except UsageLimitExceeded:
                if not swallow:
                    raise
        return value

    flow = Step(talk) >> Step(talker(provider, name="after"), inputs=None)
    result = await Flujo(flow, limits=UsageLimits("0.5"), hooks=[warned, breached]).run_async(1)
    assert result.status == "stopped"
    assert told == ["total_cost_usd_limit 0.99", "breach total_cost_usd_limit in talk"]
    assert len(provider.requests) == 4, "the fifth is refused, or made too short; nothing comes after it"
    assert [record.name for record in result.step_history] == ["talk"]


async def test_a_step_that_swallows_a_denial_still_ends_the_run() -> None:
    class Strict:
        @hookimpl
        def guard_model_call(self, payload: GuardModelCall) -> Deny:
            return Deny("not today")

    provider = Provider()

    @step
    async def stubborn(ctx: RunContext, value: int) -> int:
        for _ in range(3):
            try:
                await ctx.call_model(ask(), provider.send, retry=RetryPolicy(max_attempts=3, backoff_s=0))
            except GuardDenied:
                continue
        return value

    result = await Flujo(stubborn >> Step(talker(provider, name="after"), inputs=None), plugins=[Strict()]).run_async(1)
    assert result.status == "aborted"
    assert isinstance(result.error, GuardDenied)
    assert provider.requests == []
    assert [(record.name, record.status) for record in result.step_history] == [("stubborn", "aborted")]


# --- tools ----------------------------------------------------------------------------------------------------------


def user_of(tool: Callable[[ToolCall], Awaitable[object]]) -> Step:
    async def use(ctx: RunContext, value: int) -> ToolResult:
        return await ctx.call_tool(ToolCall(name="search", arguments={"q": value}, id="t1"), tool)

    return Step(use)


async def test_a_tool_call_goes_through_its_stations_in_the_fixed_order() -> None:
    watcher = Watcher()

    async def tool(call: ToolCall) -> object:
        watcher.seen.append("call")
        return {"found": call.arguments["q"]}

    result = await Flujo(user_of(tool), plugins=[watcher]).run_async(3)
    assert result.output == ToolResult(content={"found": 3}, call_id="t1")
    assert watcher.seen == ["guard tool search", "intent", "call", "result completed", "observe {'found': 3}"]


async def test_a_tool_denied_to_the_model_gives_a_typed_refusal_and_the_run_goes_on() -> None:
    class Shy:
        @hookimpl
        def guard_tool_call(self, payload: GuardToolCall) -> Deny:
            return Deny("no searching", to_model=True)

    async def tool(call: ToolCall) -> object:
        raise AssertionError("it was denied")

    result = await Flujo(user_of(tool), plugins=[Shy(), watcher := Watcher()]).run_async(3)
    assert result.output == ToolResult(content="refused: no searching", is_error=True, call_id="t1")
    assert watcher.records == []

    class Hard:
        @hookimpl
        def guard_tool_call(self, payload: GuardToolCall) -> Deny:
            return Deny("never")

    denied = await Flujo(user_of(tool), plugins=[Shy(), Hard()]).run_async(3)
    assert (denied.status, str(denied.error)) == ("aborted", "guard_tool_call of plugin 'Hard' denied: never")


async def test_a_tool_that_fails_is_recorded_and_observed() -> None:
    async def tool(call: ToolCall) -> object:
        raise OSError("PRIVATE")

    result = await Flujo(user_of(tool), plugins=[watcher := Watcher()]).run_async(3)
    assert result.status == "failed"
    assert watcher.seen == ["guard tool search", "intent", "result failed", "observe None"]


async def test_a_tools_answer_that_is_no_json_is_named_by_its_type_and_never_shown() -> None:
    async def tool(call: ToolCall) -> object:
        return {"PRIVATE": object()}

    result = await Flujo(user_of(tool)).run_async(3)
    assert isinstance(result.error, StepFailed)
    assert "tool 'search' returned dict with something in it that is no JSON" in str(result.error)
    assert "PRIVATE" not in str(result.error)


# --- records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "stopped"])
async def test_each_intent_has_one_result_however_the_call_ends(end: str) -> None:
    watcher = Watcher()

    async def send(request: ModelRequest) -> ModelResponse:
        if end == "failed":
            raise OSError("broken")
        await anyio.sleep(20 if end == "cancelled" else 0)
        return ModelResponse(usage=ModelUsage(input_tokens=1, output_tokens=1))

    async def tool(call: ToolCall) -> object:
        await send(ask())
        return "found"

    @step
    async def talk(ctx: RunContext, value: int) -> int:
        request = ask(max_tokens=10, min_tokens=99 if end == "stopped" else 1)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: ctx.call_tool(ToolCall(name="search"), tool),
            lambda: ctx.call_model(request, send, price=PRICE),
        ]
        for call in calls:
            with anyio.move_on_after(0.01):
                try:
                    await call()
                except OSError:
                    continue
        return value

    limits = UsageLimits(None, 30 if end == "stopped" else 1000)
    result = await Flujo(talk, plugins=[watcher], limits=limits).run_async(1)
    assert result.status == ("stopped" if end == "stopped" else "completed")
    ids = [(type(record).__name__, record.kind, record.record_id) for record in watcher.records]
    tool_id, model_id = ids[0][2], ids[2][2]
    assert tool_id != model_id
    assert ids == [
        ("RecordIntent", "tool_call", tool_id),
        ("RecordResult", "tool_call", tool_id),
        ("RecordIntent", "model_call", model_id),
        ("RecordResult", "model_call", model_id),
    ]
    record = watcher.records[3]
    assert isinstance(record, RecordResult)
    assert record.status == end
    errors = {"completed": "", "failed": "OSError", "stopped": "UsageLimitExceeded", "cancelled": record.error_type}
    assert record.error_type == errors[end]
    booked = {"completed": Decimal("0.011"), "stopped": Decimal(0)}.get(end, cost(24, 10))
    assert record.usage.cost_usd == booked == result.total_cost_usd


async def test_a_cancel_while_the_result_is_being_written_does_not_lose_it() -> None:
    class Slow:
        written = 0

        @hookimpl
        async def record_result(self, payload: RecordResult) -> None:
            await anyio.sleep(0.05)
            self.written += payload.kind == "model_call"

    @step
    async def talk(ctx: RunContext, value: int) -> int:
        with anyio.move_on_after(0.02):
            await ctx.call_model(ask(max_tokens=1), Provider().send, price=PRICE)
        return value

    result = await Flujo(talk, plugins=[slow := Slow()]).run_async(1)
    assert result.status == "completed"
    assert slow.written == 1


# --- many at once ---------------------------------------------------------------------------------------------------


class Bank(Provider):
    """A provider that bills at random, never more than it was allowed, and keeps its own books."""

    def __init__(self, seed: int, limit: Decimal) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.limit = limit
        self.out = Decimal(0)
        self.peak = Decimal(0)

    async def send(self, request: ModelRequest) -> ModelResponse:
        inputs, most = input_bound(request), request.max_tokens
        assert most is not None, "under a money limit each call must be bounded"
        worst = cost(inputs, most)
        self.out += worst
        self.peak = max(self.peak, self.out)
        self.requests.append(request)
        billed = worst  # an answer that is lost on the way may be billed in full
        try:
            await anyio.sleep(self.chance.random() / 400)
            luck = self.chance.random()
            if luck < 0.1:
                raise OSError("the line broke")
            if luck < 0.2:
                return ModelResponse()
            usage = ModelUsage(input_tokens=self.chance.randint(1, inputs), output_tokens=self.chance.randint(0, most))
            billed = cost(usage.input_tokens, usage.output_tokens)
            return ModelResponse(usage=usage)
        finally:
            self.out += billed - worst


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(n, marks=pytest.mark.soak) for n in range(6, 100))])
async def test_a_hundred_branches_never_bill_more_than_the_limit(seed: int) -> None:
    limit = Decimal("3")
    bank, budget = Bank(seed, limit), Budget(UsageLimits(limit))
    chance = random.Random(seed)

    def branch(number: int) -> Step:
        request = ask("x" * chance.randint(1, 60), max_tokens=chance.choice([None, 5, 20, 50]) if number % 9 else 15)
        pause, patience, swallow = chance.random() / 200, chance.choice([0.001, 1, 1, 1]), chance.random() < 0.5

        async def talk(ctx: RunContext, value: int) -> int:
            await anyio.sleep(pause)
            with anyio.move_on_after(patience):
                try:
                    await ctx.call_model(
                        request, bank.send, price=PRICE, retry=RetryPolicy(max_attempts=2, backoff_s=0)
                    )
                except (OSError, UsageLimitExceeded):
                    if not swallow:
                        raise
            return value

        return Step(talk, name=f"b{number}", inputs={"value": run_input()})

    flujo = Flujo(Pipeline(*[branch(number) for number in range(100)]), limits=budget)
    results = [await flujo.run_async(1) for _ in range(3)]
    assert bank.peak <= limit
    assert bank.out <= budget.spent.cost_usd <= limit
    assert bank.requests
    assert budget.reserved.cost_usd == 0
    assert sum(result.total_cost_usd for result in results) == budget.spent.cost_usd
    for result in results:
        assert sum(record.usage.cost_usd for record in result.step_history) == result.total_cost_usd


async def test_a_hundred_branches_with_a_budget_for_five_calls_make_five() -> None:
    provider = Provider(delay_s=0.002)
    request = ask(max_tokens=10, min_tokens=10)
    flow = Pipeline(*[talker(provider, request, name=f"b{number}") for number in range(100)])
    result = await Flujo(flow, limits=UsageLimits(5 * cost(24, 10))).run_async(1)
    assert result.status == "stopped"
    assert len(provider.requests) == 5
    assert result.total_cost_usd == 5 * cost(24, 10)
    assert [record.status for record in result.step_history].count("completed") == 5, "what was paid for is kept"


@pytest.mark.parametrize(("enough", "made"), [(True, 100), (False, 5)])
async def test_a_hundred_calls_in_a_task_group_of_one_step_wait_for_each_other(enough: bool, made: int) -> None:
    report = ModelUsage(input_tokens=1, output_tokens=0) if enough else ModelUsage(input_tokens=24, output_tokens=10)
    provider = Provider(*[report] * 100, delay_s=0.001)

    @step
    async def fan(ctx: RunContext, value: int) -> int:
        async def call() -> None:
            await ctx.call_model(ask(max_tokens=10, min_tokens=10), provider.send, price=PRICE)

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(call)
        return value

    limits = UsageLimits(cost(24, 10) * (6 if enough else 5))
    with anyio.fail_after(20):
        result = await Flujo(fan, limits=limits).run_async(1)
    assert result.status == ("completed" if enough else "stopped"), result.error
    assert len(provider.requests) == made
    limit = limits.cost
    assert limit is not None
    assert result.total_cost_usd <= limit


async def test_a_call_inside_the_leases_of_its_own_step_does_not_hang() -> None:
    @step
    async def wrap(ctx: RunContext, value: int) -> int:
        async with ctx.usage.reserve(tokens=90) as lease:
            await ctx.call_model(ask(max_tokens=10), Provider().send, price=PRICE)
            lease.release()
        return value

    with anyio.fail_after(5):
        refused = await Flujo(wrap, limits=UsageLimits(None, 100)).run_async(1)
        served = await Flujo(wrap, limits=UsageLimits(None, 130)).run_async(1)
    assert (refused.status, served.status) == ("stopped", "completed")


async def test_all_that_happens_in_a_stopped_run_is_told_in_order_with_its_end_last() -> None:
    seen: list[str] = []

    def note(event: Event) -> None:
        seen.append(type(event).__name__)

    await Flujo(talker(Provider(), times=3), limits=UsageLimits(None, None, 2), hooks=[note]).run_async(1)
    assert seen == [
        "OnRunStart", "PreStepExecution", "OnModelCall", "OnModelCall", "OnUsageWarning", "OnGovernorBreach",
        "OnStepFailure", "OnRunEnd",
    ]  # fmt: skip


class _Redacts:
    """A recorder that blanks what it writes down, in the object that it was handed."""

    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None:
        if isinstance(payload.subject, ToolCall):
            payload.subject.arguments["account"] = "***"


class _Looks:
    def __init__(self) -> None:
        self.seen: list[object] = []

    @hookimpl
    def guard_tool_call(self, payload: GuardToolCall) -> Allow:
        self.seen.append(dict(payload.call.arguments))
        return Allow()


async def test_a_recorder_cannot_change_the_tool_call_that_guards_allowed() -> None:
    """Recorders run after all guards allowed; only transforms change anything, and before the guards."""
    guard, sent = _Looks(), list[object]()

    async def send(call: ToolCall) -> str:
        sent.append(dict(call.arguments))
        return "paid"

    async def pay(value: int, ctx: RunContext) -> int:
        await ctx.call_tool(ToolCall(name="pay", arguments={"account": "DE1"}), send)
        return value

    await Flujo(Step(pay), plugins=[guard, _Redacts()]).run_async(1)
    assert sent == guard.seen == [{"account": "DE1"}]
