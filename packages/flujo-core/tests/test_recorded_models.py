"""`ctx.call_model(..., record=True)`: an answer that was paid for is given again where the step runs again."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import pytest

from flujo.core import (
    Flujo,
    MemoryStore,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    Price,
    RetryPolicy,
    RunContext,
    Snapshot,
    Step,
    ToolCall,
    TransformModelResponse,
    hookimpl,
)

pytestmark = pytest.mark.anyio

Effect = Literal["idempotent", "at_most_once"]

A_DOLLAR = Price(request_usd="1")


class Model:
    """Answers with the number of the call, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, request: ModelRequest) -> ModelResponse:
        self.asked.append(request.messages[-1].content)
        usage = ModelUsage(input_tokens=1, output_tokens=1)
        return ModelResponse(content=f"{len(self.asked)}", usage=usage, details={"signed": "x"})

    async def ask(self, ctx: RunContext, text: str, *, record: bool = True) -> ModelResponse:
        request = ModelRequest(model="m", messages=(Message(role="user", content=text),))
        return await ctx.call_model(request, self, price=A_DOLLAR, record=record)


def again(result: Any) -> Snapshot:
    return Snapshot.model_validate_json(result.snapshot().model_dump_json())


async def test_after_a_pause_the_recorded_answers_are_given_again_and_nothing_is_paid_twice() -> None:
    model, got = Model(), []

    async def work(text: str, ctx: RunContext) -> str:
        first, second = await model.ask(ctx, text), await model.ask(ctx, text)
        got.append((first.content, second.content, first.details))
        said = await ctx.ask("go on?", bool)
        last = await model.ask(ctx, f"{text}: {said}")
        return first.content + second.content + last.content

    flujo = Flujo(Step(work))
    paused = await flujo.run_async("a")
    assert (paused.status, model.asked) == ("paused", ["a", "a"])
    result = await Flujo(Step(work)).resume_async(again(paused), True)
    assert (result.output, model.asked) == ("123", ["a", "a", "a: True"])
    assert got == [("1", "2", {"signed": "x"})] * 2
    assert (result.usage.requests, result.total_cost_usd) == (3, 3)


async def test_without_record_the_model_is_asked_again() -> None:
    model = Model()

    async def work(text: str, ctx: RunContext) -> str:
        answer = await model.ask(ctx, text, record=False)
        await ctx.ask("go on?", bool)
        return answer.content

    flujo = Flujo(Step(work))
    result = await flujo.resume_async(await flujo.run_async("a"), True)
    assert (result.output, result.total_cost_usd) == ("2", 2)


async def test_another_request_gets_no_recorded_answer() -> None:
    model, texts = Model(), iter(["first", "second"])

    async def work(text: str, ctx: RunContext) -> str:
        answer = await model.ask(ctx, next(texts))
        await ctx.ask("go on?", bool)
        return answer.content

    flujo = Flujo(Step(work))
    result = await flujo.resume_async(await flujo.run_async("a"), True)
    assert (result.output, model.asked) == ("2", ["first", "second"])


async def test_a_process_that_went_away_leaves_its_answers_to_the_one_that_goes_on() -> None:
    store, model, found = MemoryStore(), Model(), []

    async def work(text: str, ctx: RunContext) -> str:
        answer = await model.ask(ctx, text)
        if not found:
            await anyio.wait_all_tasks_blocked()
            found.append(store.reopened())
        return answer.content

    await Flujo(Step(work), store=store).run_async("a", run_id="r")
    (result,) = await Flujo(Step(work), store=found[0]).recover_async()
    assert (result.output, model.asked, result.total_cost_usd) == ("1", ["a"], 1)


async def test_a_step_that_failed_asks_anew_also_where_it_asked_a_human_in_between() -> None:
    model, said = Model(), []

    async def work(text: str, ctx: RunContext) -> str:
        answer = await model.ask(ctx, text)
        said.append(await ctx.ask("is it good?", bool, payload=answer.content))
        if answer.content == "1":
            raise ValueError("not this one")
        return answer.content

    flujo = Flujo(Step(work, retry=RetryPolicy(max_attempts=2, backoff_s=0)))
    paused = await flujo.resume_async(again(await flujo.run_async("a")), False)
    assert (paused.status, paused.pauses[0].payload) == ("paused", "2")
    result = await flujo.resume_async(again(paused), True)
    # it goes on in the attempt that asked, with what the model answered in that
    assert (result.output, said, model.asked) == ("2", [False, True], ["a", "a"])


async def test_what_is_recorded_is_what_transforms_left() -> None:
    class Upper:
        @hookimpl
        def transform_model_response(self, payload: TransformModelResponse) -> ModelResponse:
            return payload.value.model_copy(update={"content": f"<{payload.value.content}>"})

    model = Model()

    async def work(text: str, ctx: RunContext) -> str:
        answer = await model.ask(ctx, text)
        await ctx.ask("go on?", bool)
        return answer.content

    flujo = Flujo(Step(work), plugins=[Upper()])
    result = await flujo.resume_async(again(await flujo.run_async("a")), True)
    assert (result.output, model.asked) == ("<1>", ["a"])


async def test_a_failed_run_that_is_tried_again_asks_the_model_anew() -> None:
    model = Model()

    async def work(text: str, ctx: RunContext) -> str:
        answer = await model.ask(ctx, text)
        if answer.content == "1":
            raise ValueError("not this one")
        return answer.content

    failed = await Flujo(Step(work)).run_async("a")
    assert failed.status == "failed"
    result = await Flujo(Step(work)).resume_async(again(failed), retry=True)
    assert (result.output, model.asked) == ("2", ["a", "a"])


@pytest.mark.parametrize("effect", ["idempotent", "at_most_once"])
async def test_what_tools_did_before_a_kill_is_known_beside_calls_to_models(effect: Effect) -> None:
    """An agent's way: a model, a tool, a model, a tool, and the power goes in the last of them."""
    store, model, found, done = MemoryStore(), Model(), [], []

    async def pay(call: ToolCall) -> str:
        done.append(call.arguments["to"])
        if call.arguments["to"] == "2" and not found:
            await anyio.wait_all_tasks_blocked()
            found.append(store.reopened())
        return "paid"

    async def work(text: str, ctx: RunContext) -> str:
        for turn in ("a", "b"):
            answer = await model.ask(ctx, turn)
            await ctx.call_tool(ToolCall(name="pay", arguments={"to": answer.content}), pay, effect=effect)
        return "done"

    await Flujo(Step(work), store=store).run_async("a", run_id="r")
    (result,) = await Flujo(Step(work), store=found[0]).recover_async()
    assert (model.asked, result.total_cost_usd) == (["a", "b"], 2)
    if effect == "idempotent":
        assert (result.status, done) == ("completed", ["1", "2", "2"])
    else:
        assert (result.status, done) == ("paused", ["1", "2"])
        assert "pay" in result.pauses[0].question
