"""Scripted agents and models: each call needs an answer, each answer a call."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flujo.core import (
    Agent,
    ConfigurationError,
    Flujo,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    Pipeline,
    PipelineError,
    Price,
    RetryPolicy,
    RunContext,
    Step,
    StepFailed,
    UsageLimits,
    run_input,
    step,
)
from flujo.core.testing import ScriptedAgent, ScriptedModel

pytestmark = pytest.mark.anyio


# --- agents -----------------------------------------------------------------------------------------------------------


async def test_an_agent_gives_its_answers_in_order_and_notes_what_it_was_asked() -> None:
    agent = ScriptedAgent("one", "two", name="writer")
    assert isinstance(agent, Agent)
    result = await Flujo(agent >> Step(agent, name="again")).run_async("start")
    assert result.output == "two"
    assert [record.name for record in result.step_history] == ["writer", "again"]
    assert agent.calls == ["start", "one"]
    agent.assert_done()


async def test_a_call_beyond_the_script_fails_and_names_the_call() -> None:
    agent = ScriptedAgent("one", name="writer")
    assert await agent.run("first") == "one"
    result = await Flujo(agent).run_async("second")
    assert isinstance(result.error, StepFailed)
    text = "call 2 of agent 'writer', with 'second', is not in its script: 1 answers for such a call, all used"
    assert text in str(result.error)
    with pytest.raises(AssertionError, match="call 2 of agent 'writer'"):
        agent.assert_done()  # though the run made a result of it


async def test_unused_answers_fail_at_the_end() -> None:
    left = r"^agent 'agent' was not asked for 2 of its answers: 'two', 'three'$"
    with pytest.raises(AssertionError, match=left), ScriptedAgent("one", "two", "three") as agent:
        await agent.run("x")
    with pytest.raises(AssertionError, match=r"not asked for 7 of its answers: 0, 1, 2, 3, 4, \.\.\.$"):
        ScriptedAgent(*range(7)).assert_done()


async def test_an_error_of_the_test_is_not_hidden_by_unused_answers() -> None:
    with pytest.raises(ZeroDivisionError), ScriptedAgent("one"):
        raise ZeroDivisionError


async def test_an_exception_is_raised_and_a_function_is_asked() -> None:
    async def later(text: str) -> str:
        await anyio.sleep(0)
        return text[::-1]

    agent = ScriptedAgent(OSError("gone"), TimeoutError, str.upper, later)
    with pytest.raises(OSError, match="gone"):
        await agent.run("abc")
    with pytest.raises(TimeoutError):
        await agent.run("abc")
    assert [await agent.run("abc"), await agent.run("abc")] == ["ABC", "cba"]


async def test_a_retry_takes_the_next_answer() -> None:
    with ScriptedAgent(OSError("gone"), "there") as agent:
        retry = RetryPolicy(max_attempts=2, backoff_s=0)
        result = await Flujo(Step(agent, retry=retry)).run_async("x")
    assert result.output == "there"
    assert result.step_history[0].attempts == 2


async def test_answers_by_input() -> None:
    agent = ScriptedAgent("else").on("a", 1, 2).on(lambda text: text.startswith("a"), 3)
    assert [await agent.run(text) for text in ("a", "b", "abc", "a")] == [1, "else", 3, 2]
    agent.assert_done()
    with pytest.raises(AssertionError, match="call 5 of agent 'agent', with 'a', is not in its script: 3 answers"):
        await agent.run("a")


async def test_answers_by_input_must_be_used_too() -> None:
    with pytest.raises(AssertionError, match="not asked for 1 of its answers: 1"):
        ScriptedAgent().on("a", 1).assert_done()
    with pytest.raises(ConfigurationError, match=r"on\('a'\) of agent 'agent' cannot be used: it has no answers"):
        ScriptedAgent().on("a")


async def test_declared_types_are_what_the_engine_checks() -> None:
    @step
    async def count(number: int) -> int:
        return number + 1

    with pytest.raises(PipelineError, match="writer"):
        Flujo(ScriptedAgent("one", name="writer", output_type=str) >> count)
    agent = ScriptedAgent("one", output_type=int)
    assert (await Flujo(agent >> count).run_async("x")).status == "failed"
    with pytest.raises(PipelineError):
        Flujo(count >> ScriptedAgent(inputs={"text": str}))


async def test_several_inputs_are_seen_as_a_dict() -> None:
    agent = ScriptedAgent(inputs={"text": str, "words": int}).on({"text": "abc", "words": 3}, "done")

    @step
    async def length(text: str) -> int:
        return len(text)

    call = Step(agent, inputs={"text": run_input(), "words": length})
    assert (await Flujo(Pipeline(length, call)).run_async("abc")).output == "done"
    assert agent.calls == [{"text": "abc", "words": 3}]
    with pytest.raises(TypeError, match="words"):
        await agent.run("abc")


# --- models -----------------------------------------------------------------------------------------------------------


def ask(text: str = "how are you", **more: Any) -> ModelRequest:
    return ModelRequest(model="acme:m", messages=(Message(role="user", content=text),), **more)


def asking(model: ScriptedModel, **more: Any) -> Step:
    @step
    async def talk(text: str, ctx: RunContext) -> str:
        response = await ctx.call_model(ask(text, **more), model, price=Price("0.01", "0.1"))
        return response.content

    return talk


async def test_a_model_is_metered_by_one_token_per_word() -> None:
    with ScriptedModel("very well indeed") as model:
        result = await Flujo(asking(model)).run_async("how are you")
    assert (result.output, result.usage.input_tokens, result.usage.output_tokens) == ("very well indeed", 3, 3)
    assert str(result.total_cost_usd) == "0.33"
    assert model.calls == [ask()]


async def test_an_answer_is_no_longer_than_what_was_reserved_for_it() -> None:
    model = ScriptedModel("a b c d e", "a b c d e")
    result = await Flujo(asking(model), limits=UsageLimits(total_tokens_limit=29)).run_async("how are you")
    assert (result.output, result.usage.output_tokens) == ("a b", 2)
    assert model.calls[0].max_tokens == 2
    assert (await model(ask(max_tokens=5))).finish_reason == "stop"


async def test_usage_and_whole_responses_can_be_given() -> None:
    usage = ModelUsage(input_tokens=7, output_tokens=9)
    model = ScriptedModel("yes", ModelResponse(content="no"), lambda request: request.model, usage=usage)
    assert (await model(ask())).usage == usage
    assert await model(ask()) == ModelResponse(content="no")
    assert (await model(ask())).content == "acme:m"


async def test_a_model_is_as_strict_as_an_agent() -> None:
    model = (
        ScriptedModel(OSError("overloaded"), name="acme").on("ping", "pong").on(lambda r: r.max_tokens == 3, "three")
    )
    assert (await model(ask("ping"))).content == "pong"
    assert (await model(ask(max_tokens=3))).content == "three"
    with pytest.raises(OSError, match="overloaded"):
        await model(ask())
    with pytest.raises(AssertionError, match="call 4 of model 'acme', with 'how are you', is not in its script"):
        await model(ask())
    with pytest.raises(AssertionError, match="neither text nor ModelResponse: <class 'int'>"):
        await ScriptedModel(1)(ask())
    assert (await ScriptedModel("ok").on("x", "y")(ModelRequest(model="m", messages=()))).content == "ok"
