"""Corners of governance: answers of any kind, aborts from every hook, calls that come after the run was stopped."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import anyio
import pytest

from flujo.core import (
    UNCHANGED,
    AbortPipeline,
    Allow,
    Deny,
    Fallback,
    Flujo,
    GuardDenied,
    GuardModelCall,
    GuardToolCall,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    OnRunEnd,
    OnUsageWarning,
    Parallel,
    PluginError,
    Plugins,
    PostStepExecution,
    Price,
    RetryPolicy,
    RunAborted,
    RunContext,
    Step,
    ToolCall,
    TransformModelRequest,
    TransformModelResponse,
    TransformStepOutput,
    UsageLimits,
    hookimpl,
)
from flujo.core.plugins import HOOK_NAMES

pytestmark = pytest.mark.anyio

KEY = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"


def ask(model: str = "acme:small", **options: Any) -> ModelRequest:
    return ModelRequest(model=model, messages=(Message(role="user", content="x"),), **options)


async def same(value: int) -> int:
    return value


def plugin(hook: str, answer: Callable[[], object], way: str = "sync") -> object:
    """A plugin with one hook that gives, or raises, what `answer` does."""

    def sync(self: object, payload: object) -> object:
        return answer()

    async def later(self: object, payload: object) -> object:
        await anyio.sleep(0)
        return answer()

    function = later if way == "async" else sync
    function.__name__ = hook
    return type("Odd", (), {hook: hookimpl(thread=way == "thread")(function)})()


# --- answers of any kind ----------------------------------------------------------------------------------------------


class NoClass:
    """As an unbound proxy: it raises where it is asked for its class."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("unbound")


class NoText:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def reports(calls: list[str]) -> dict[str, Step]:
    """A step for each kind of guard, that does what it guards, tries again, and notes what it did."""

    async def send(request: ModelRequest) -> ModelResponse:
        calls.append("model")
        return ModelResponse(usage=ModelUsage())

    async def pieces(request: ModelRequest) -> AsyncIterator[str]:
        calls.append("stream")
        yield "a"

    async def tool(call: ToolCall) -> str:
        calls.append("tool")
        return "b"

    async def work(value: int) -> int:
        calls.append("step")
        return value

    async def model(value: int, ctx: RunContext) -> int:
        await ctx.call_model(ask(), send, price=Price(), retry=RetryPolicy(max_attempts=2, backoff_s=0))
        return value

    async def stream(value: int, ctx: RunContext) -> int:
        async with ctx.stream_model(ask(), pieces, price=Price()) as answer:
            async for _ in answer:
                pass
        return value

    async def use(value: int, ctx: RunContext) -> int:
        await ctx.call_tool(ToolCall(name="t"), tool)
        return value

    again = RetryPolicy(max_attempts=2, backoff_s=0)
    return {one.__name__: Step(one, retry=again) for one in (work, model, stream, use)}


@pytest.mark.parametrize("way", ["sync", "async", "thread"])
@pytest.mark.parametrize("answer", [NoClass, lambda: Deny(NoText()), lambda: Deny.__new__(Deny)])  # type: ignore[arg-type]
@pytest.mark.parametrize(
    ("hook", "step"),
    [("guard_run", "work"), ("guard_step", "work"), ("guard_model_call", "model"), ("guard_model_call", "stream"),
     ("guard_tool_call", "use")],
)  # fmt: skip
async def test_an_answer_that_cannot_even_be_looked_at_denies(
    hook: str, step: str, answer: Callable[[], object], way: str
) -> None:
    calls: list[str] = []
    flow = Fallback(reports(calls)[step], Step(same))  # a denial is never caught, nor tried again
    result = await Flujo(flow, plugins=[plugin(hook, answer, way)]).run_async(1)
    assert (result.status, type(result.error), calls) == ("aborted", GuardDenied, [])
    assert isinstance(result.error, GuardDenied)
    assert result.error.plugin == "Odd"
    assert result.error.reason in result.snapshot().model_dump_json() or hook == "guard_run"


# What a library written in Rust raises, by pyo3, when it panics: no Exception, and of a class that cannot be imported.
Panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})


@pytest.mark.parametrize("way", ["sync", "async", "thread"])
async def test_a_guard_whose_library_panics_denies(way: str) -> None:
    calls: list[str] = []

    def panic() -> object:
        raise Panic("index out of bounds")

    result = await Flujo(reports(calls)["model"], plugins=[plugin("guard_model_call", panic, way)]).run_async(1)
    assert (result.status, type(result.error), calls) == ("aborted", GuardDenied, [])


async def test_a_step_whose_library_panics_has_failed_with_what_was_paid_for_kept() -> None:
    async def work(value: int, ctx: RunContext) -> int:
        ctx.usage.record(cost_usd=1)
        raise Panic("index out of bounds")

    result = await Flujo(Fallback(Step(work), Step(same))).run_async(1)
    assert (result.status, result.total_cost_usd, result.output) == ("completed", 1, 1)
    assert "it panicked: index out of bounds" in str(result.step_history[0].error)


async def test_a_panic_in_a_task_group_is_a_failure_too_and_the_error_says_what_was_in_the_group() -> None:
    async def panic(error: BaseException) -> None:
        raise error

    async def work(value: int) -> int:
        async with anyio.create_task_group() as group, anyio.create_task_group() as inner:
            group.start_soon(panic, ValueError(f"no {KEY}"))
            inner.start_soon(panic, Panic("index out of bounds"))
        return value

    result = await Flujo(Step(work)).run_async(1)
    assert result.status == "failed"
    assert "it panicked: index out of bounds" in str(result.error)
    assert "ValueError: no [SECRET]" in str(result.error)


async def test_a_group_with_an_interrupt_in_it_goes_on_up() -> None:
    async def work(value: int) -> int:
        raise BaseExceptionGroup("both", [ValueError(), KeyboardInterrupt()])

    with pytest.raises(BaseExceptionGroup) as caught:
        await Flujo(Step(work)).run_async(1)
    assert caught.group_contains(KeyboardInterrupt)


async def test_a_transform_cannot_put_a_value_past_the_check() -> None:
    class Sly:
        @hookimpl
        def transform_step_output(self, payload: TransformStepOutput) -> object:
            payload.value = "no number"
            return UNCHANGED

    assert (await Flujo(Step(same), plugins=[Sly()]).run_async(1)).output == 1


@pytest.mark.parametrize("step", ["model", "stream"])
@pytest.mark.parametrize(
    "wrong", [{"max_tokens": -5}, {"model": None}, {"messages": [3]}, {"messages": (Message.model_construct(role=7),)}]
)
async def test_a_request_that_a_transform_copied_is_checked_as_one_that_it_made(step: str, wrong: Any) -> None:
    class Sly:
        @hookimpl
        def transform_model_request(self, payload: TransformModelRequest) -> object:
            return payload.value.model_copy(update=wrong)  # which pydantic does not check

    calls: list[str] = []
    result = await Flujo(reports(calls)[step], plugins=[Sly()], limits=UsageLimits(total_tokens_limit=99)).run_async(1)
    assert (result.status, calls) == ("failed", [])
    assert "TransformFault: transform_model_request of plugin 'Sly' gave a value that does not fit" in str(result.error)


class OfAProvider(ModelResponse):
    """A provider's own kind of answer."""

    more: tuple[float, ...] = ()


async def test_what_a_transform_copied_stays_what_it_is() -> None:
    class Shouts:
        @hookimpl
        def transform_model_response(self, payload: TransformModelResponse) -> object:
            return payload.value.model_copy(update={"content": "LOUD"})

        @hookimpl
        def transform_step_output(self, payload: TransformStepOutput) -> object:
            return payload.value.model_copy(update={"content": f"{payload.value.content}!"})

    async def send(request: ModelRequest) -> OfAProvider:
        return OfAProvider(content="x", more=(0.1,))

    async def say(value: int, ctx: RunContext) -> Any:
        return await ctx.call_model(ask(), send)

    result = await Flujo(Step(say), plugins=[Shouts()]).run_async(1)
    assert result.unwrap() == OfAProvider(content="LOUD!", more=(0.1,))
    assert type(result.output) is OfAProvider


@pytest.mark.parametrize("wrong", [float("nan"), 1.5, -1, True - 3])
@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
async def test_a_report_that_is_no_number_of_tokens_counts_as_none(name: str, wrong: Any) -> None:
    async def send(request: ModelRequest) -> ModelResponse:
        good = ModelUsage(input_tokens=1, output_tokens=1)
        return ModelResponse(content="x", usage=good.model_copy(update={name: wrong}))

    async def say(value: int, ctx: RunContext) -> str:
        return str((await ctx.call_model(ask(max_tokens=50), send)).content)

    result = await Flujo(Step(say), limits=UsageLimits(total_tokens_limit=500)).run_async(1)
    assert (result.status, result.usage.unmeasured) == ("completed", 1)
    assert result.usage.total_tokens > 50


@pytest.mark.parametrize("wrong", ["text", 3])
def test_what_cannot_be_called_is_no_observer(wrong: Any) -> None:
    with pytest.raises(PluginError, match="not annotated with an observed payload"):
        Flujo(Step(same), hooks=[wrong])


# --- AbortPipeline ----------------------------------------------------------------------------------------------------

CALLED = [hook for hook in HOOK_NAMES if hook.startswith(("transform_", "record_"))] + [
    "on_run_start", "pre_step_execution", "post_step_execution", "on_model_call", "on_tool_call", "on_run_end",
]  # fmt: skip


async def everything(value: int, ctx: RunContext) -> int:
    """Makes a call of each kind, and swallows whatever it is told."""
    steps = reports([])
    for name in ("model", "stream", "use"):
        with suppress(Exception):
            await steps[name].function(value, ctx)
    return value


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("hook", CALLED)
async def test_an_abort_from_any_hook_ends_the_run_and_keeps_what_was_finished(hook: str, way: str) -> None:
    def stop() -> object:
        raise AbortPipeline("enough of it")

    late = Step(same, name="late")
    flow = Step(same, name="first") >> Fallback(Step(everything), late) >> Step(same, name="last")
    result = await Flujo(flow, plugins=[plugin(hook, stop, way)]).run_async(1)
    assert (result.status, type(result.error)) == ("aborted", RunAborted)
    assert isinstance(result.error, RunAborted)
    assert (result.error.reason, result.error.by) == ("enough of it", f"{hook} of plugin 'Odd'")
    assert result.counts.get("plugin_faults") is None, "who aborts has not failed"
    if hook != "on_run_end":
        assert {"last", "late"}.isdisjoint(record.name for record in result.step_history)
    if "model" in hook or "tool" in hook or hook == "transform_chunk":
        assert [record.output for record in result.step_history] == [1, 1]


@pytest.mark.parametrize("hook", ["guard_run", "guard_step", "guard_model_call", "guard_tool_call"])
async def test_a_guard_that_aborts_denies_for_its_reason(hook: str) -> None:
    def stop() -> object:
        raise AbortPipeline("enough of it")

    result = await Flujo(Step(everything), plugins=[plugin(hook, stop)]).run_async(1)
    assert (result.status, str(result.error)) == ("aborted", f"{hook} of plugin 'Odd' denied: enough of it")


async def test_an_abort_by_a_transform_of_an_output_keeps_the_cost_and_not_what_no_transform_left() -> None:
    async def paid(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.25") as lease:
            lease.settle(cost_usd="0.25")
        return value

    def stop() -> object:
        raise AbortPipeline("enough")

    result = await Flujo(Step(paid), plugins=[plugin("transform_step_output", stop)]).run_async(1)
    [record] = result.step_history
    assert (result.status, record.status, record.output) == ("aborted", "aborted", None)
    assert record.usage.cost_usd == result.total_cost_usd == Decimal("0.25")


async def test_an_abort_at_the_end_keeps_every_step() -> None:
    def late(event: OnRunEnd) -> None:
        raise AbortPipeline("late")

    result = await Flujo(Step(same), hooks=[late]).run_async(1)
    assert (result.status, [record.output for record in result.step_history]) == ("aborted", [1])


# --- nothing new once the run is stopped ------------------------------------------------------------------------------


async def test_a_call_whose_guard_was_still_asked_when_the_run_was_denied_is_not_made() -> None:
    asked, made = anyio.Event(), list[str]()

    class Slow:
        @hookimpl
        async def guard_tool_call(self, payload: GuardToolCall) -> Allow | Deny:
            return await self.answer(payload.call.name)

        @hookimpl
        async def guard_model_call(self, payload: GuardModelCall) -> Allow | Deny:
            return await self.answer(payload.request.model)

        async def answer(self, name: str) -> Allow | Deny:
            if name == "bad":
                asked.set()
                return Deny("no")
            await asked.wait()
            await anyio.sleep(0.01)
            return Allow()

    async def tool(call: ToolCall) -> None:
        made.append(call.name)

    async def send(request: ModelRequest) -> ModelResponse:
        made.append(request.model)
        return ModelResponse()

    async def work(value: int, ctx: RunContext) -> int:
        async def quietly(call: Callable[[], Any]) -> None:
            with suppress(GuardDenied):
                await call()

        async with anyio.create_task_group() as group:
            group.start_soon(quietly, lambda: ctx.call_tool(ToolCall(name="good"), tool))
            group.start_soon(quietly, lambda: ctx.call_model(ask("good"), send, price=Price()))
            group.start_soon(quietly, lambda: ctx.call_tool(ToolCall(name="bad"), tool))
        return value

    result = await Flujo(Step(work), plugins=[Slow()]).run_async(1)
    assert (result.status, made) == ("aborted", [])


async def test_who_may_finish_a_paid_call_begins_no_tool_after_the_breach() -> None:
    breached, made = anyio.Event(), list[str]()

    class Slow:
        @hookimpl
        async def guard_tool_call(self, payload: GuardToolCall) -> Allow:
            await breached.wait()
            await anyio.sleep(0.01)
            return Allow()

    async def tool(call: ToolCall) -> None:
        made.append(call.name)

    async def holds(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd="0.40"):
            await ctx.call_tool(ToolCall(name="late"), tool)
        return value

    async def breaks(value: int, ctx: RunContext) -> int:
        await anyio.sleep(0.01)
        try:
            async with ctx.usage.reserve(cost_usd="5"):
                return value
        finally:
            breached.set()

    both = Parallel(Step(holds), Step(breaks))
    result = await Flujo(both, limits=UsageLimits("1"), plugins=[Slow()]).run_async(1)
    assert (result.status, made) == ("stopped", [])
    assert result.total_cost_usd == Decimal("0.40")


# --- warnings, in time ------------------------------------------------------------------------------------------------


async def answers(request: ModelRequest) -> ModelResponse:
    return ModelResponse(usage=ModelUsage(output_tokens=10))


@pytest.mark.parametrize("streamed", [False, True])
async def test_one_step_of_many_calls_is_warned_before_its_limit_is_reached(streamed: bool) -> None:
    told: list[float] = []
    price = Price(output_usd=Decimal("0.01"))

    def warned(event: OnUsageWarning) -> None:
        told.append(event.share)
        raise AbortPipeline("that is enough")

    async def many(value: int, ctx: RunContext) -> int:
        async def pieces(request: ModelRequest) -> AsyncIterator[Any]:
            yield (await answers(request)).content or "x"

        for _ in range(10):
            if not streamed:
                await ctx.call_model(ask(max_tokens=10), answers, price=price)
                continue
            async with ctx.stream_model(ask(max_tokens=10), pieces, price=price) as stream:
                async for _ in stream.text():
                    pass
        return value

    result = await Flujo(Step(many), limits=UsageLimits("1"), hooks=[warned]).run_async(1)
    assert (result.status, told, result.total_cost_usd) == ("aborted", [0.8], Decimal("0.80"))


async def test_a_model_without_a_price_that_may_pass_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(value: int, ctx: RunContext) -> int:
        for _ in range(3):
            await ctx.call_model(ask(KEY), answers)
        return value

    limits = UsageLimits("1", on_unknown_price="warn")
    with caplog.at_level(logging.WARNING, "flujo.core"):
        result = await Flujo(Step(talk), limits=limits, plugins=Plugins(allowed=[])).run_async(1)
    assert (result.status, result.usage.unpriced) == ("completed", 3)
    assert [record.getMessage() for record in caplog.records] == [
        f"the price of model '[SECRET]' is unknown: its calls in run {result.run_id} pass uncounted under a money limit"
    ]


@pytest.mark.parametrize("limit", [0, 1])
async def test_a_limit_of_which_nothing_is_left_lets_no_call_of_unknown_price_pass(limit: int) -> None:
    sent: list[str] = []

    async def answer(request: ModelRequest) -> ModelResponse:
        sent.append(request.model)
        return await answers(request)

    async def talk(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd=limit) as lease:
            lease.settle(cost_usd=limit)
        await ctx.call_model(ask("acme:m"), answer)
        return value

    limits = UsageLimits(limit, on_unknown_price="warn")
    result = await Flujo(Step(talk), limits=limits, plugins=Plugins(allowed=[])).run_async(1)
    assert (result.status, result.usage.unpriced, sent) == ("stopped", 0, [])
    assert f"total_cost_usd_limit of {limit} USD reached: the price of model 'acme:m' is unknown" in str(result.error)


# --- words about a run ------------------------------------------------------------------------------------------------


async def test_secrets_among_the_words_of_a_run_are_in_no_journal() -> None:
    seen: list[str] = []

    def note(event: PostStepExecution) -> None:
        event.run.count(KEY, KEY)
        seen.append(repr(event.run))

    words: dict[str, Any] = {"actor": KEY, "tenant": f"t {KEY}", "tags": {KEY: KEY, "password": "xyzzy", "id": "7"}}
    result = await Flujo(Step(same), hooks=[note]).run_async(1, **words)
    snapshot = result.snapshot()
    assert (snapshot.actor, snapshot.tenant) == ("[SECRET]", "t [SECRET]")
    assert snapshot.tags == {"[SECRET]": "[SECRET]", "password": "[SECRET]", "id": "7"}
    assert result.counts == {"[SECRET]": {"[SECRET]": 1}}
    assert KEY not in snapshot.model_dump_json() + repr(result) + "".join(seen)
    assert "xyzzy" not in snapshot.model_dump_json()
