"""`ctx.stream_model`: the fixed order of a call while the answer is read; what is booked, and that limits hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from decimal import Decimal

import anyio
import pytest

from flujo.core import (
    UNCHANGED,
    Allow,
    Budget,
    Chunk,
    Deny,
    Flujo,
    GuardModelCall,
    Message,
    ModelChunk,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    NamedLimit,
    NotSent,
    OnModelCall,
    Policy,
    Price,
    RecordIntent,
    RecordResult,
    RetryPolicy,
    RunContext,
    Stage,
    StepFailed,
    StreamStep,
    ToolCall,
    TransformChunk,
    TransformModelRequest,
    TransformModelResponse,
    TransformStepOutput,
    UsageLimitExceeded,
    UsageLimits,
    UsageUpdate,
    hookimpl,
    modelstream,
    step,
)
from flujo.core.calls import input_bound

pytestmark = pytest.mark.anyio

PRICE = Price(Decimal("0.001"), Decimal("0.01"))
Send = Callable[[ModelRequest], AsyncIterator[ModelChunk | str]]


def asked(text: str = "hi", **more) -> ModelRequest:
    return ModelRequest(model="m", messages=(Message(role="user", content=text),), **more)


class Model:
    """A model in this process that gives pieces, and knows whether it was closed."""

    def __init__(self, *pieces: ModelChunk | str, endless: bool = False, usage: ModelUsage | None = None) -> None:
        self.pieces = pieces
        self.endless = endless
        self.usage = usage
        self.given = 0
        self.closed = 0
        self.requests: list[ModelRequest] = []

    async def send(self, request: ModelRequest) -> AsyncIterator[ModelChunk | str]:
        self.requests.append(request)
        try:
            for piece in self.pieces:
                self.given += 1
                yield piece
            while self.endless:
                self.given += 1
                yield "x"
            if self.usage is not None:
                yield ModelChunk(usage=self.usage, finish_reason="stop", model="m-1")
        finally:
            self.closed += 1


def talking(send: Send, request: ModelRequest | None = None, **options) -> StreamStep:
    async def talk(topic: str, ctx: RunContext) -> AsyncIterator[str]:
        async with ctx.stream_model(request or asked(topic), send, **options) as stream:
            async for text in stream.text():
                yield text

    return StreamStep((Stage.of("talk", talk),), name="talk")


async def read(flujo: Flujo, given: str = "hi") -> tuple[list[object], list[str]]:
    async with flujo.stream_async(given) as stream:
        items = [item async for item in stream]
    return items, [item.value for item in items if isinstance(item, Chunk)]


async def test_an_answer_is_read_as_it_comes_and_booked_as_the_provider_says():
    model = Model("Hel", "lo", usage=ModelUsage(input_tokens=3, output_tokens=2))
    items, texts = await read(Flujo(talking(model.send, price=PRICE), limits=UsageLimits(total_tokens_limit=100)))
    result = items[-1].result
    assert texts == ["Hel", "lo"]
    assert (result.status, result.output) == ("completed", "Hello")
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.requests) == (3, 2, 1)
    assert result.total_cost_usd == Decimal("0.023")
    assert result.usage.unmeasured == 0
    assert [item.usage.total_tokens for item in items if isinstance(item, UsageUpdate)] == [5]
    assert model.closed == 1
    assert model.requests[0].max_tokens == 100 - (2 + 16)  # clamped by what the limit leaves


async def test_the_whole_response_is_there_at_the_end():
    call = ToolCall(name="look", arguments={"at": 1})
    model = Model("a", ModelChunk(tool_calls=(call,)), usage=ModelUsage(output_tokens=1))
    seen: list[object] = []

    @step
    async def ask(topic: str, ctx: RunContext) -> str:
        async with ctx.stream_model(asked(), model.send) as stream:
            seen.extend([chunk async for chunk in stream])
        assert stream.response is not None
        return stream.response.model_dump_json()

    result = await Flujo(ask).run_async("x")
    whole = ModelResponse(
        content="a", tool_calls=(call,), usage=ModelUsage(output_tokens=1), model="m-1", finish_reason="stop"
    )
    assert result.output == whole.model_dump_json()
    assert seen == [ModelChunk("a"), ModelChunk("", 0, (call,), whole.usage, "stop", "m-1")]


async def test_orchestration_check_14_a_budget_reached_mid_stream_closes_the_provider_within_one_chunk():
    model = Model(endless=True)  # it does not heed max_tokens
    flujo = Flujo(talking(model.send, asked("hi"), price=PRICE), limits=UsageLimits(total_tokens_limit=18 + 10))
    items, texts = await read(flujo)
    result = items[-1].result
    assert model.requests[0].max_tokens == 10
    assert texts == ["x"] * 10
    assert (model.given, model.closed) == (11, 1)
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert result.error.limit == "total_tokens_limit"
    assert result.error.partial == "x" * 10
    assert result.usage.total_tokens == 28  # nobody said what was used: all that was reserved
    assert result.usage.unmeasured == 1
    assert result.usage.overshoot_usd == 0


async def test_check_8_what_is_not_shown_counts_too():
    closed = []

    async def send(request: ModelRequest) -> AsyncIterator[ModelChunk]:
        try:
            while True:
                yield ModelChunk(hidden=1)
        finally:
            closed.append(1)

    flujo = Flujo(talking(send, asked("hi"), price=PRICE), limits=UsageLimits(total_tokens_limit=18 + 10))
    with anyio.fail_after(30):
        items, texts = await read(flujo)
    assert (texts, closed) == ([], [1])
    assert (items[-1].result.status, items[-1].result.error.limit) == ("stopped", "total_tokens_limit")


async def test_a_piece_that_is_none_is_told_as_what_it_is():
    async def send(request: ModelRequest) -> AsyncIterator[object]:
        yield 17

    items, _ = await read(Flujo(talking(send, asked("hi"))))
    assert "send for model 'm' gave int, no ModelChunk" in str(items[-1].result.error)


async def test_check_18_a_tool_call_comes_whole_when_the_whole_answer_was_transformed():
    class Mask:
        @hookimpl
        def transform_model_response(self, payload: TransformModelResponse) -> object:
            calls = [call.model_copy(update={"arguments": {"to": "[EMAIL]"}}) for call in payload.value.tool_calls]
            return payload.value.model_copy(update={"tool_calls": tuple(calls)})

        @hookimpl
        def transform_chunk(self, payload: TransformChunk) -> object:
            return UNCHANGED

    call = ToolCall(name="send", arguments={"to": "jane@example.org"})
    model, seen = Model("a ", ModelChunk(tool_calls=(call,)), "b"), list[ModelChunk]()

    async def stops(text: str, ctx: RunContext) -> str:
        async with ctx.stream_model(asked(text), model.send) as stream:
            seen.extend([piece async for piece in stream])
        return text

    await Flujo(step(stops), plugins=[Mask()]).run_async("hi")
    assert [piece.content for piece in seen] == ["a ", "b", ""]
    assert [dict(made.arguments) for piece in seen for made in piece.tool_calls] == [{"to": "[EMAIL]"}]


async def test_check_8_what_the_provider_reported_until_the_limit_is_booked():
    async def send(request: ModelRequest) -> AsyncIterator[ModelChunk]:
        for number in range(1000):
            yield ModelChunk("x", usage=ModelUsage(input_tokens=4, output_tokens=number + 1))

    limits = UsageLimits(total_cost_usd_limit="0.118")
    items, texts = await read(Flujo(talking(send, asked("hi"), price=PRICE), limits=limits))
    result = items[-1].result
    assert texts == ["x"] * 10
    assert (result.status, result.error.limit) == ("stopped", "total_cost_usd_limit")
    assert (result.usage.input_tokens, result.usage.output_tokens) == (4, 11)
    assert result.total_cost_usd == Decimal("0.114")
    assert result.error.partial == "x" * 10


async def test_streams_that_share_a_budget_never_pass_it():
    model = Model(endless=True)
    budget = Budget(UsageLimits(total_tokens_limit=200))
    flujo = Flujo(talking(model.send, asked("hi", max_tokens=20), price=PRICE), limits=budget)

    async def one() -> None:
        await read(flujo)

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(one)
    assert budget.spent.total_tokens <= 200
    assert model.given <= 200


@pytest.mark.parametrize("reported", [True, False])
async def test_a_reader_that_leaves_settles_by_what_came_and_closes_the_provider(reported):
    usage = ModelUsage(input_tokens=2, output_tokens=1)
    model = Model(ModelChunk("a", usage=usage) if reported else "a", endless=True)
    flujo = Flujo(talking(model.send, asked(max_tokens=50), price=PRICE), limits=UsageLimits(total_tokens_limit=100))
    async with flujo.stream_async("hi") as stream:
        async for _ in stream.text():
            break
        assert model.closed == 0
    assert model.closed == 1
    used = stream.result.usage
    assert (used.total_tokens, used.unmeasured) == ((3, 0) if reported else (68, 1))
    assert stream.result.error.partial == "a"


async def test_a_step_that_times_out_mid_stream_settles_and_closes():
    async def send(request: ModelRequest) -> AsyncIterator[str]:
        try:
            yield "a"
            await anyio.sleep(60)
        finally:
            closed.append(1)

    closed: list[int] = []

    async def talk(topic: str, ctx: RunContext) -> AsyncIterator[str]:
        async with ctx.stream_model(asked(max_tokens=10), send, price=PRICE) as stream:
            async for text in stream.text():
                yield text

    flujo = Flujo(
        StreamStep((Stage.of("talk", talk),), name="talk", timeout_s=0.05), limits=UsageLimits(total_tokens_limit=100)
    )
    items, texts = await read(flujo)
    assert texts == ["a"]
    assert closed == [1]
    assert items[-1].result.status == "failed"
    assert items[-1].result.usage.total_tokens == 28


class Order:
    """A plugin that writes down the order of what it is asked."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def transform_model_request(self, payload: TransformModelRequest) -> object:
        self.seen.append("transform request")
        return UNCHANGED

    @hookimpl
    def guard_model_call(self, payload: GuardModelCall) -> Allow:
        self.seen.append("guard")
        return Allow()

    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None:
        if payload.kind == "model_call":
            self.seen.append("intent")

    @hookimpl
    def transform_chunk(self, payload: TransformChunk) -> object:
        if payload.surface == "model":
            self.seen.append("last" if payload.is_last else "chunk")
        return UNCHANGED

    @hookimpl
    def transform_model_response(self, payload: TransformModelResponse) -> object:
        self.seen.append("transform response")
        return UNCHANGED

    @hookimpl
    def record_result(self, payload: RecordResult) -> None:
        if payload.kind == "model_call":
            self.seen.append(f"result {payload.status} {payload.value.content!r}")

    @hookimpl
    def on_model_call(self, payload: OnModelCall) -> None:
        self.seen.append("observe")


async def test_the_order_is_fixed_and_a_stream_has_one_record():
    order = Order()
    model = Model("a", "b", usage=ModelUsage(output_tokens=2))
    await read(Flujo(talking(model.send), plugins=[order]))
    assert order.seen == [
        *("transform request", "guard", "intent", "chunk", "chunk", "last", "transform response"),
        *("result completed 'ab'", "observe"),
    ]


async def test_a_reader_that_left_has_its_record_too():
    order = Order()
    async with Flujo(talking(Model(endless=True).send), plugins=[order]).stream_async("hi") as stream:
        async for _ in stream.text():
            break
    assert order.seen[-2:] == ["result cancelled 'x'", "observe"]


async def test_a_guard_that_denies_stops_before_anything_is_sent():
    class No:
        @hookimpl
        def guard_model_call(self, payload: GuardModelCall) -> Deny:
            return Deny("not today")

    model = Model("a")
    items, texts = await read(Flujo(talking(model.send), plugins=[No()]))
    assert (texts, model.requests) == ([], [])
    assert items[-1].result.status == "aborted"
    assert items[-1].result.error.reason == "not today"


class Holding:
    """Holds text back until the next space, as a redaction does."""

    def __init__(self, surface: str = "model") -> None:
        self.surface = surface

    @hookimpl
    def transform_chunk(self, payload: TransformChunk) -> object:
        if payload.surface != self.surface or not isinstance(payload.value, str):
            return UNCHANGED
        text = str(payload.state.get("held", "")) + payload.value
        cut = len(text) if payload.is_last else text.rfind(" ") + 1
        payload.state["held"] = text[cut:]
        return text[:cut].replace("secret", "[...]")

    @hookimpl
    def transform_step_output(self, payload: TransformStepOutput) -> object:
        return UNCHANGED


@pytest.mark.parametrize("surface", ["model", "step"])
async def test_a_transform_may_hold_back_what_comes_in_pieces(surface):
    model = Model("my sec", "ret", " is", " ok", usage=ModelUsage(output_tokens=4))
    items, texts = await read(Flujo(talking(model.send), plugins=[Holding(surface)]))
    assert texts == ["my ", "[...] ", "is ", "ok"]
    assert items[-1].result.output == "my [...] is ok"


async def test_what_is_held_back_comes_before_an_error():
    async def send(request: ModelRequest) -> AsyncIterator[str]:
        yield "my sec"
        yield "ret"
        raise OSError("gone")

    items, texts = await read(Flujo(talking(send), plugins=[Holding()]))
    assert texts == ["my ", "[...]"]
    assert items[-1].result.error.error_type == "OSError"


async def test_a_transform_of_whole_answers_makes_the_stream_come_whole():
    class Whole:
        @hookimpl
        def transform_model_response(self, payload: TransformModelResponse) -> object:
            return payload.value.model_copy(update={"content": payload.value.content.replace("secret", "[...]")})

    model = Model("my sec", "ret", usage=ModelUsage(output_tokens=2))
    _, texts = await read(Flujo(talking(model.send), plugins=[Whole()]))
    assert texts == ["my [...]"]


async def test_no_record_tells_what_a_transform_of_whole_answers_never_saw():
    told: list[object] = []

    class Whole:
        @hookimpl
        def transform_model_response(self, payload: TransformModelResponse) -> object:
            return payload.value.model_copy(update={"content": "[...]"})

        @hookimpl
        def record_result(self, payload: RecordResult) -> None:
            if payload.kind == "model_call":
                told.append(payload.value)

    async def send(request: ModelRequest) -> AsyncIterator[str]:
        yield "secret"
        raise OSError("gone")

    items, _ = await read(Flujo(talking(send), plugins=[Whole()]))
    assert items[-1].result.status == "failed"
    assert told == [None]


async def test_who_leaves_at_the_last_piece_has_read_it_all():
    order, model = Order(), Model("a", usage=ModelUsage(output_tokens=1))

    async def stops(text: str, ctx: RunContext) -> str:
        async with ctx.stream_model(asked(text), model.send) as stream:
            async for piece in stream:
                if piece.finish_reason:
                    break
        assert stream.response is not None
        return stream.response.content

    result = await Flujo(step(stops), plugins=[order]).run_async("hi")
    assert result.output == "a"
    assert order.seen[-2:] == ["result completed 'a'", "observe"]


async def test_what_a_piece_costs_does_not_grow_with_the_request(monkeypatch):
    sized: list[int] = []
    monkeypatch.setattr(modelstream, "input_bound", lambda request: sized.append(1) or input_bound(request))
    many = []
    for number in (5, 50):
        model, sized[:] = Model(*("x" * number), usage=ModelUsage(output_tokens=number)), []
        limits = UsageLimits(total_tokens_limit=500)
        await read(Flujo(talking(model.send, asked("hi", max_tokens=60), price=PRICE), limits=limits))
        many.append(len(sized))
    assert many[0] == many[1] > 0


async def test_a_transform_of_whole_outputs_makes_a_step_come_whole():
    class Whole:
        @hookimpl
        def transform_step_output(self, payload: TransformStepOutput) -> object:
            return str(payload.value).replace("secret", "[...]")

    flujo = Flujo(talking(Model("my sec", "ret").send), plugins=[Whole()])
    _, texts = await read(flujo)
    assert texts == ["my [...]"]
    async with flujo.stream_async("hi") as stream:
        assert [text async for text in stream.text()] == ["my [...]"]


@pytest.mark.parametrize("end", ["failed", "stopped", "aborted"])
async def test_no_error_tells_what_a_transform_of_whole_outputs_never_saw(end):
    class Whole:
        @hookimpl
        def transform_step_output(self, payload: TransformStepOutput) -> object:
            return "[...]"

    async def talk(text: str, ctx: RunContext) -> AsyncIterator[str]:
        async with ctx.stream_model(asked(text), Model("secret", endless=end == "stopped").send, price=PRICE) as stream:
            async for piece in stream.text():
                yield piece
        if end == "failed":
            raise OSError("gone")
        begun.set()
        await anyio.sleep(60)

    begun = anyio.Event()
    limits = UsageLimits(total_tokens_limit=100)
    flujo = Flujo(StreamStep((Stage.of("talk", talk),), name="talk"), limits=limits, plugins=[Whole()])
    async with flujo.stream_async("hi") as stream:
        if end == "aborted":
            await begun.wait()
        else:
            items = [item async for item in stream]
            assert not any(isinstance(item, Chunk) for item in items)
    assert stream.result.status == end
    assert stream.result.error.partial is None


async def test_a_failed_attempt_before_the_first_piece_is_made_again():
    tries = []

    async def send(request: ModelRequest) -> AsyncIterator[str]:
        tries.append(1)
        if len(tries) < 3:
            raise NotSent("no connection")
        yield "ok"

    retry = RetryPolicy(max_attempts=3, backoff_s=0)
    items, texts = await read(Flujo(talking(send, retry=retry, price=PRICE)))
    assert (texts, len(tries)) == (["ok"], 3)
    assert items[-1].result.usage.requests == 1


async def test_a_failure_after_the_first_piece_is_the_steps():
    async def send(request: ModelRequest) -> AsyncIterator[str]:
        yield "half"
        raise OSError("gone")

    items, texts = await read(Flujo(talking(send, retry=RetryPolicy(max_attempts=3, backoff_s=0))))
    assert texts == ["half"]
    assert isinstance(items[-1].result.error, StepFailed)
    assert items[-1].result.error.partial == "half"
    assert items[-1].result.usage.unmeasured == 1


async def test_a_named_limit_holds_for_streams():
    inside, most = [0], [0]

    async def send(request: ModelRequest) -> AsyncIterator[str]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        try:
            for _ in range(3):
                await anyio.sleep(0.001)
                yield "a"
        finally:
            inside[0] -= 1

    policy = Policy(named_limits={"model:stream-test": NamedLimit(concurrency=2)})
    request = ModelRequest(model="stream-test", messages=(Message(role="user", content="hi"),))
    flujo = Flujo(talking(send, request), policy=policy)

    async def one() -> None:
        _, texts = await read(flujo)
        assert texts == ["a"] * 3

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one)
    assert most == [2]


async def test_a_stream_without_its_block_says_so():
    @step
    async def wrong(topic: str, ctx: RunContext) -> str:
        async for _ in ctx.stream_model(asked(), Model("a").send):
            pass
        return topic

    result = await Flujo(wrong).run_async("x")
    assert result.error.error_type == "TypeError"
    assert "async with" in str(result.error)
