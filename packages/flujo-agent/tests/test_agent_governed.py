"""The seam: model requests and tool calls of an agent pass the run's transforms, guards, records and limits."""

from __future__ import annotations

import asyncio
import datetime as dt
from decimal import Decimal

import anyio
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent as PaiAgent
from pydantic_ai import messages as pai
from pydantic_ai.capabilities import ProcessEventStream, WebSearch
from pydantic_ai.exceptions import CallDeferred, ModelHTTPError, ModelRetry
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.tools import DeferredToolRequests, Tool
from pydantic_ai.tools import RunContext as PaiContext
from pydantic_ai.usage import UsageLimits as PaiLimits

from flujo.agent import agent, wrap
from flujo.core import (
    Allow,
    Budget,
    Deny,
    Flujo,
    GuardModelCall,
    GuardToolCall,
    Message,
    ModelRequest,
    ModelResponse,
    OnModelCall,
    OnToolCall,
    PipelineError,
    Policy,
    Price,
    RecordIntent,
    RecordResult,
    RetryPolicy,
    RunContext,
    Snapshot,
    TransformModelRequest,
    TransformModelResponse,
    UsageLimits,
    hookimpl,
    step,
)

FREE = Price()


class Recorder:
    """A plugin that listens to everything, and changes or denies what it is told to."""

    def __init__(self, *, request=None, response=None, deny_model="", deny_tool=None):
        self.request, self.response = request, response
        self.deny_model, self.deny_tool = deny_model, deny_tool
        self.moments: list[str] = []
        self.requests: list[ModelRequest] = []
        self.values: list[object] = []

    @hookimpl
    def transform_model_request(self, payload: TransformModelRequest) -> object:
        self.moments.append("transform request")
        return payload.value if self.request is None else self.request(payload.value)

    @hookimpl
    def guard_model_call(self, payload: GuardModelCall) -> Allow | Deny:
        self.moments.append("guard model")
        self.requests.append(payload.request)
        return Deny(self.deny_model) if self.deny_model else Allow()

    @hookimpl
    def guard_tool_call(self, payload: GuardToolCall) -> Allow | Deny:
        self.moments.append(f"guard {payload.call.name}")
        return self.deny_tool or Allow()

    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None:
        if payload.kind in ("model_call", "tool_call"):
            self.moments.append(f"intend {payload.kind}")

    @hookimpl
    def record_result(self, payload: RecordResult) -> None:
        if payload.kind in ("model_call", "tool_call"):
            self.moments.append(f"{payload.kind} {payload.status}")
            self.values.append(payload.value)

    @hookimpl
    def transform_model_response(self, payload: TransformModelResponse) -> object:
        self.moments.append("transform response")
        return payload.value if self.response is None else self.response(payload.value)

    @hookimpl
    def on_model_call(self, payload: OnModelCall) -> None:
        self.moments.append("on model")

    @hookimpl
    def on_tool_call(self, payload: OnToolCall) -> None:
        self.moments.append("on tool")


def texts(messages) -> list[str]:
    """All texts that a model was given, in order."""
    parts = [part for message in messages for part in message.parts]
    return [str(part.content) for part in parts if hasattr(part, "content")]


def says(*answers):
    """A model that gives these answers in order (a text, a tool call, an exception), and what it was given."""
    left, seen = list(answers), []

    def function(messages, info: AgentInfo):
        seen.append((list(messages), info))
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        part = pai.TextPart(answer) if isinstance(answer, str) else answer
        return pai.ModelResponse(parts=[part])

    return FunctionModel(function), seen


def call(tool, /, **arguments):
    return pai.ToolCallPart(tool, arguments, f"id-{tool}")


def find(word: str) -> str:
    """Look a word up."""
    return f"found {word}"


# --- the order, and what is refused -----------------------------------------------------------------------------------


def test_model_requests_and_tool_calls_pass_everything_in_the_fixed_order():
    model, _ = says(call("find", word="audit"), "done")
    plugin = Recorder()
    result = Flujo(agent(model, tools=[find]), plugins=[plugin]).run("look up audit")
    one_model_call = ["transform request", "guard model", "intend model_call"]
    one_model_call += ["transform response", "model_call completed", "on model"]
    one_tool_call = ["guard find", "intend tool_call", "tool_call completed", "on tool"]
    assert (result.status, result.output) == ("completed", "done")
    assert plugin.moments == [*one_model_call, *one_tool_call, *one_model_call]
    assert [message.role for message in plugin.requests[1].messages] == ["user", "assistant", "tool"]
    assert plugin.requests[0].tools[0].name == "find"


def test_a_denied_model_call_asks_no_model():
    model, seen = says("never")
    result = Flujo(agent(model), plugins=[Recorder(deny_model="not today")]).run("hello")
    assert (result.status, seen) == ("aborted", [])
    assert "not today" in str(result.error)


def test_a_denied_tool_call_ends_the_run_and_the_tool_does_not_run():
    ran = []
    model, seen = says(call("erase"), "never")

    def erase() -> str:
        ran.append(1)
        return "erased"

    result = Flujo(agent(model, tools=[erase]), plugins=[Recorder(deny_tool=Deny("no erasing"))]).run("go")
    assert (result.status, ran, len(seen)) == ("aborted", [], 1)


def test_a_refusal_to_the_model_is_what_the_model_reads():
    ran = []
    model, seen = says(call("erase"), "then not")

    def erase() -> str:
        ran.append(1)
        return "erased"

    plugin = Recorder(deny_tool=Deny("no erasing", to_model=True))
    result = Flujo(agent(model, tools=[erase]), plugins=[plugin]).run("go")
    assert (result.status, result.output, ran) == ("completed", "then not", [])
    assert any("no erasing" in text for text in texts(seen[1][0]))


def test_a_denial_that_a_fallback_could_swallow_still_ends_the_run():
    first, _ = says("never")
    second, seen = says("never")
    result = Flujo(agent(first, fallback=second), plugins=[Recorder(deny_model="no")]).run("hello")
    assert (result.status, seen) == ("aborted", [])


def searching():
    """An agent with a tool that runs at the provider, which answers with what that found."""
    seen = []

    def answer(messages, info):
        seen.append((messages, info))
        found = pai.NativeToolReturnPart("web_search", "sunny", tool_call_id="1")
        asked = pai.NativeToolCallPart("web_search", {"query": "weather"}, tool_call_id="1")
        return pai.ModelResponse(parts=[asked, found, pai.TextPart("It is sunny.")])

    model = FunctionModel(answer, profile={"supported_native_tools": frozenset({pai_web_search()})})
    return PaiAgent(model, capabilities=[WebSearch(local=False)], name="searching"), seen


def test_tools_of_the_provider_are_refused():
    asks, seen = searching()
    result = Flujo(wrap(asks)).run("hello")
    assert result.status == "aborted"
    assert "web_search" in str(result.error)
    assert seen == []


def test_tools_of_the_provider_may_be_used_where_the_policy_lets_them():
    asks, seen = searching()
    plugin = Recorder()
    result = Flujo(wrap(asks), policy=Policy(allow_provider_tools=True), plugins=[plugin]).run("hello")
    assert (result.output, len(seen)) == ("It is sunny.", 1)
    without = Recorder(request=lambda request: request.model_copy(update={"provider_tools": ()}))
    asks, seen = searching()
    Flujo(wrap(asks), plugins=[without]).run("hello")
    assert len(seen) == 1, "a transform took the tool away, so the policy has nothing against it"
    added = Recorder(request=lambda request: request.model_copy(update={"provider_tools": ("code",)}))
    result = Flujo(wrap(asks), policy=Policy(allow_provider_tools=True), plugins=[added]).run("hello")
    assert "a transform added them" in str(result.error)


def pai_web_search():
    from pydantic_ai.native_tools import WebSearchTool

    return WebSearchTool


# --- what transforms change -------------------------------------------------------------------------------------------


def replaced(request: ModelRequest) -> ModelRequest:
    """What a de-identifier does: other words in the same messages."""

    def clean(message: Message) -> Message:
        calls = tuple(
            c.model_copy(update={"arguments": {k: str(v).replace("Ada", "[NAME]") for k, v in c.arguments.items()}})
            for c in message.tool_calls
        )
        return message.model_copy(update={"content": message.content.replace("Ada", "[NAME]"), "tool_calls": calls})

    return request.model_copy(update={"messages": tuple(clean(message) for message in request.messages)})


def test_what_a_transform_changes_is_what_is_sent_on_every_surface():
    def age(name: str) -> str:
        return f"Ada is 36 ({name})"

    model, seen = says(call("age", name="Ada"), "Ada is 36")
    plugin = Recorder(request=replaced)
    asks = agent(model, instructions="Speak of Ada.", tools=[age])
    result = Flujo(asks, plugins=[plugin]).run("How old is Ada?")
    assert result.output == "Ada is 36"
    for messages, info in seen:
        assert "Ada" not in str(messages), messages
        assert info.instructions == "Speak of [NAME]."
    assert "[NAME] is 36 ([NAME])" not in texts(seen[0][0])
    assert seen[1][0][1].parts[0].args == {"name": "[NAME]"}


def test_a_transform_may_add_and_drop_messages():
    def shorten(request: ModelRequest) -> ModelRequest:
        kept = (
            Message(role="system", content="Be brief."),
            Message(role="user", content="Hi."),
            *request.messages[-1:],
        )
        return request.model_copy(update={"messages": kept, "temperature": 0.5, "max_tokens": 7})

    model, seen = says("ok")
    Flujo(agent(model, instructions="Be long."), plugins=[Recorder(request=shorten)]).run("hello")
    [(messages, info)] = seen
    assert texts(messages) == ["Be brief.", "Hi.", "hello"]
    assert not info.instructions
    assert (info.model_settings["temperature"], info.model_settings["max_tokens"]) == (0.5, 7)


def test_a_transform_may_take_tools_away_but_not_add_any():
    model, seen = says("ok")
    none = Recorder(request=lambda request: request.model_copy(update={"tools": ()}))
    assert Flujo(agent(model, tools=[find]), plugins=[none]).run("hello").status == "completed"
    assert seen[0][1].function_tools == []
    tool = {"name": "erase"}
    more = Recorder(request=lambda request: ModelRequest.model_validate({**request.model_dump(), "tools": [tool]}))
    result = Flujo(agent(says("never")[0], tools=[find]), plugins=[more]).run("hello")
    assert result.status == "failed"
    assert "erase" in str(result.error)


def test_what_a_transform_makes_of_the_answer_is_what_the_agent_gives():
    def shout(response: ModelResponse) -> ModelResponse:
        return response.model_copy(update={"content": response.content.upper()})

    assert Flujo(agent(says("quiet")[0]), plugins=[Recorder(response=shout)]).run("hello").output == "QUIET"


def test_a_transform_may_change_a_tool_call_before_it_is_run():
    def other(response: ModelResponse) -> ModelResponse:
        calls = tuple(c.model_copy(update={"arguments": {"word": "limit"}}) for c in response.tool_calls)
        return response.model_copy(update={"tool_calls": calls})

    model, seen = says(call("find", word="audit"), "done")
    Flujo(agent(model, tools=[find]), plugins=[Recorder(response=other)]).run("go")
    assert "found limit" in texts(seen[1][0])


def test_a_transform_may_choose_another_model_unless_the_price_was_given_for_this_one():
    cheap = Recorder(request=lambda request: request.model_copy(update={"model": "test"}))
    model, seen = says("never")
    result = Flujo(agent(model), plugins=[cheap]).run("hello")
    assert (result.output, seen) == ("success (no tool calls)", [])
    result = Flujo(agent(model, price=FREE), plugins=[cheap]).run("hello")
    assert (result.status, seen) == ("failed", [])


def test_media_are_refused_since_no_guard_could_see_them():
    def picture() -> pai.BinaryContent:
        return pai.BinaryContent(b"png", media_type="image/png")

    model, seen = says(call("picture"), "never")
    result = Flujo(agent(model, tools=[picture])).run("show me")
    assert (result.status, len(seen)) == ("failed", 1)
    assert "cannot be sent" in str(result.error)


# --- tools ------------------------------------------------------------------------------------------------------------


class Found(BaseModel):
    day: dt.date
    cost: Decimal


def test_what_a_tool_takes_and_gives_is_recorded_as_json_and_reaches_the_tool_and_the_model_as_it_is():
    given = []

    def look(day: dt.date) -> Found:
        given.append(day)
        return Found(day=day, cost=Decimal("0.10"))

    model, seen = says(call("look", day="2026-01-31"), "done")
    plugin = Recorder()
    Flujo(agent(model, tools=[look]), plugins=[plugin]).run("go")
    assert given == [dt.date(2026, 1, 31)]
    assert plugin.values[1].content == {"day": "2026-01-31", "cost": "0.10"}
    assert isinstance(seen[1][0][2].parts[0].content, Found)


def test_a_tool_finds_the_steps_context_in_its_deps():
    async def spend(ctx: PaiContext[RunContext], usd: str) -> str:
        async with ctx.deps.usage.reserve(cost_usd=usd) as lease:
            lease.settle(cost_usd=usd)
        return ctx.deps.run_id

    model, _ = says(call("spend", usd="0.25"), "done")
    result = Flujo(agent(model, tools=[spend], price=FREE), limits=UsageLimits(total_cost_usd_limit=1)).run("go")
    assert result.status == "completed"
    assert result.total_cost_usd == Decimal("0.25")


def test_a_tool_that_asks_for_another_try_gets_it_and_one_that_fails_fails_the_step():
    tries = []

    def moody() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ModelRetry("once more")
        return "well"

    assert Flujo(agent(says(call("moody"), call("moody"), "done")[0], tools=[moody])).run("go").output == "done"

    def broken() -> str:
        raise OSError("disk on fire")

    result = Flujo(agent(says(call("broken"), "never")[0], tools=[broken])).run("go")
    assert (result.status, result.error.error_type) == ("failed", "OSError")


def test_a_limit_that_a_tool_breaks_stops_the_run():
    async def spend(ctx: PaiContext[RunContext]) -> str:
        async with ctx.deps.usage.reserve(cost_usd=2):
            return "rich"

    model, seen = says(call("spend"), "never")
    result = Flujo(agent(model, tools=[spend], price=FREE), limits=UsageLimits(total_cost_usd_limit=1)).run("go")
    assert (result.status, len(seen)) == ("stopped", 1)


def paid(amount: int) -> str:
    """Pay an amount."""
    return f"paid {amount}"


def approvals(*answers):
    """Runs an agent whose tool needs an approval, and answers each of its questions; the last result, what it asked."""

    def made(*answers):
        model, seen = says(*answers)
        return Flujo(agent(model, tools=[Tool(paid, requires_approval=True)], name="payer")), seen

    async def main():
        questions, (flujo, seen) = [], made(call("paid", amount=5))
        result = await flujo.run_async("pay 5")
        for answer in answers:
            questions += [(pause.question, pause.payload) for pause in result.pauses]
            kept = Snapshot.model_validate_json(result.snapshot().model_dump_json())
            flujo, seen = made("done")
            result = await flujo.resume_async(kept, answer)
        return result, questions, texts(seen[-1][0])

    return asyncio.run(main())


def test_a_tool_that_needs_an_approval_pauses_the_run_and_runs_once_it_is_given():
    waiting, _, _ = approvals()
    assert waiting.status == "paused", waiting.error
    result, questions, told = approvals({"approved": True})
    assert (result.status, result.output) == ("completed", "done"), result.error
    assert questions == [("May agent 'payer' call the tool 'paid'?", {"tool": "paid", "arguments": {"amount": 5}})]
    assert "paid 5" in told
    assert result.usage.requests == 2  # the step runs again from its start, with the recorded answer of the model


def test_a_tool_that_a_human_denies_does_not_run_and_the_model_is_told():
    result, _, told = approvals({"approved": False, "reason": "too much"})
    assert (result.status, result.output) == ("completed", "done"), result.error
    assert "paid 5" not in told
    assert any("too much" in text for text in told)


def test_a_wrapped_agent_may_wait_for_a_tool_that_runs_elsewhere():
    def fetch(url: str) -> str:
        raise CallDeferred

    def made(*answers):
        model, seen = says(*answers)
        asks = PaiAgent(model, output_type=[str, DeferredToolRequests], tools=[fetch], name="fetcher")
        return Flujo(wrap(asks)), seen

    async def main():
        flujo, _ = made(call("fetch", url="x"))
        assert flujo.plan.nodes[0].output_type is str
        paused = await flujo.run_async("go")
        assert paused.pauses[0].payload == {"tool": "fetch", "arguments": {"url": "x"}}
        flujo, seen = made("done")
        return await flujo.resume_async(paused, {"page": "hello"}), seen

    result, seen = asyncio.run(main())
    assert (result.status, result.output) == ("completed", "done"), result.error
    assert any("hello" in text for text in texts(seen[-1][0]))


def test_after_a_pause_the_conversation_goes_on_with_the_signed_thoughts_of_the_recorded_answer():
    thought = pai.ThinkingPart("It is 5.", signature="signed", provider_name="acme")
    parts = [thought, call("paid", amount=5)]
    tools = [Tool(paid, requires_approval=True)]

    def flujo(*answers):
        seen = []

        def function(messages, info):
            seen.append(list(messages))
            return pai.ModelResponse(parts=answers[len(seen) - 1])

        return Flujo(agent(FunctionModel(function), tools=tools, name="payer")), seen

    async def main():
        first, _ = flujo(parts)
        paused = await first.run_async("pay 5")
        kept = Snapshot.model_validate_json(paused.snapshot().model_dump_json())
        second, seen = flujo([pai.TextPart("done")])
        return await second.resume_async(kept, {"approved": True}), seen

    result, (messages,) = asyncio.run(main())
    assert (result.output, result.usage.requests) == ("done", 2), result.error
    assert thought in messages[1].parts


def test_what_a_transform_masks_in_an_answer_is_nowhere_in_what_is_kept_of_it():
    thought = pai.ThinkingPart("It is 5.", signature="signed", provider_name="acme")
    words = pai.TextPart("I pay 4711 now.", provider_details={"mark": "x"})
    parts = [thought, words, call("paid", amount=5), pai.TextPart(" So be it.")]
    tools, recorded = [Tool(paid, requires_approval=True)], []

    class Mask:
        @hookimpl
        def transform_model_response(self, payload):
            return payload.value.model_copy(update={"content": payload.value.content.replace("4711", "****")})

        @hookimpl
        def record_result(self, payload):
            recorded.append(repr(payload.value))

    def flujo(answer):
        seen = []

        def function(messages, info):
            seen.append(list(messages))
            return pai.ModelResponse(parts=answer)

        model = agent(FunctionModel(function), tools=tools, name="payer")
        return Flujo(model, plugins=[Mask()]), seen

    async def main():
        first, _ = flujo(parts)
        paused = await first.run_async("pay 5")
        kept = paused.snapshot().model_dump_json()
        second, seen = flujo([pai.TextPart("done")])
        return await second.resume_async(Snapshot.model_validate_json(kept), {"approved": True}), kept, seen

    result, kept, (messages,) = asyncio.run(main())
    assert (result.output, result.usage.requests) == ("done", 2), result.error
    assert "signed" in kept
    assert "4711" not in kept + "".join(recorded)
    asked = [pai.TextPart("I pay **** now. So be it.", provider_details={"mark": "x"}), call("paid", amount=5)]
    assert messages[1].parts == [thought, *asked]


# --- limits -----------------------------------------------------------------------------------------------------------

A_CENT_A_CALL = Price(request_usd="0.01")


def test_100_parallel_agents_on_a_budget_for_5_calls_make_exactly_5():
    calls = []

    async def slow(messages, info):
        calls.append(1)
        await asyncio.sleep(0.01)
        return pai.ModelResponse(parts=[pai.TextPart("ok")])

    for limits in (UsageLimits(total_cost_usd_limit="0.05"), UsageLimits(requests_limit=5)):
        calls.clear()
        flujo = Flujo(agent(FunctionModel(slow), price=A_CENT_A_CALL), limits=Budget(limits))

        async def main(flujo=flujo):
            return await asyncio.gather(*(flujo.run_async("go") for _ in range(100)))

        statuses = [result.status for result in asyncio.run(main())]
        assert len(calls) == 5
        assert (statuses.count("completed"), statuses.count("stopped")) == (5, 95)


def test_tool_rounds_and_repairs_count_as_the_requests_they_are():
    model, seen = says(call("find", word="a"), call("find", word="b"), "never")
    result = Flujo(agent(model, tools=[find]), limits=UsageLimits(requests_limit=2)).run("go")
    assert (result.status, len(seen), result.usage.requests) == ("stopped", 2, 2)


def test_a_limit_of_pydantic_ai_stops_the_run_too():
    endless = FunctionModel(lambda messages, info: pai.ModelResponse(parts=[call("find", word="a")]))
    result = Flujo(agent(endless, tools=[find], max_requests=3)).run("go")
    assert (result.status, result.usage.requests) == ("stopped", 3)
    assert "request_limit" in str(result.error)


def test_counting_at_the_provider_is_refused_since_it_sends_what_no_guard_saw():
    counting = PaiAgent(TestModel(), name="counting")
    asks = wrap(counting)

    @step
    async def go(prompt: str, ctx: RunContext) -> str:
        limits = PaiLimits(count_tokens_before_request=True, input_tokens_limit=10)
        from flujo.agent.governed import CallOptions, Governed

        return (
            await counting.run(prompt, usage_limits=limits, capabilities=[Governed(lambda: ctx, CallOptions())])
        ).output

    result = Flujo(go).run("hello")
    assert result.status == "failed"
    assert "count_tokens_before_request" in str(result.error)
    assert Flujo(asks).run("hello").status == "completed"


def test_an_answer_without_usage_counts_its_whole_lease():
    class Silent(FunctionModel):
        async def request(self, messages, model_settings, model_request_parameters):
            return pai.ModelResponse(parts=[pai.TextPart("ok")])

    result = Flujo(
        agent(Silent(lambda m, i: None), max_tokens=50, price=FREE), limits=UsageLimits(total_tokens_limit=1000)
    ).run("hello")
    assert result.usage.unmeasured == 1
    assert result.usage.total_tokens > 50


# --- attempts ---------------------------------------------------------------------------------------------------------


def http(status: int) -> ModelHTTPError:
    return ModelHTTPError.for_category(_category(status), status_code=status, model_name="m")


def _category(status: int):
    from pydantic_ai import exceptions

    kinds = {429: "ModelRateLimitError", 401: "ModelAuthenticationError", 500: "ModelServerError"}
    return getattr(exceptions, kinds[status])


def test_a_failed_request_is_made_again_and_each_attempt_is_reserved_and_guarded():
    model, seen = says(http(500), http(429), "at last")
    plugin = Recorder()
    retry = RetryPolicy(max_attempts=3, backoff_s=0)
    result = Flujo(agent(model, retry=retry, price=A_CENT_A_CALL), plugins=[plugin]).run("go")
    assert (result.output, len(seen)) == ("at last", 3)
    assert plugin.moments.count("guard model") == 3
    assert result.usage.requests == 2  # the server that sent us away did nothing
    assert result.usage.unmeasured == 1  # of the one that failed nobody knows


@pytest.mark.parametrize(("status", "name"), [(500, "ModelFault"), (429, "ModelUnavailable"), (401, "ModelRejected")])
def test_faults_of_providers_are_errors_of_ours(status, name):
    result = Flujo(agent(says(http(status))[0])).run("go")
    assert (result.status, result.error.error_type) == ("failed", name)
    assert result.usage.requests == int(status == 500)


def test_a_rejected_request_is_not_made_again():
    model, seen = says(http(401), "never")
    result = Flujo(agent(model, retry=RetryPolicy(max_attempts=3, backoff_s=0))).run("go")
    assert (result.status, len(seen)) == ("failed", 1)


def test_a_fallback_model_is_asked_when_the_first_fails_and_both_are_counted():
    first, _ = says(http(500))
    second, seen = says("from the second")
    plugin = Recorder()
    result = Flujo(agent(first, fallback=[second], name="two"), plugins=[plugin]).run("go")
    assert (result.output, len(seen)) == ("from the second", 1)
    assert plugin.moments.count("guard model") == 2
    assert result.usage.requests == 2


def test_when_all_models_fail_the_error_names_each():
    result = Flujo(agent(says(http(500))[0], fallback=says(http(401))[0])).run("go")
    assert result.status == "failed"
    assert "ModelServerError" in str(result.error)
    assert "ModelAuthenticationError" in str(result.error)


def test_a_breach_is_no_reason_for_a_fallback():
    second, seen = says("never")
    limits = UsageLimits(requests_limit=1)
    result = Flujo(agent(says(http(500))[0], fallback=second), limits=limits).run("go")
    assert (result.status, seen) == ("stopped", [])


# --- wrap -------------------------------------------------------------------------------------------------------------


def test_a_wrapped_agent_keeps_its_dependencies_tools_and_types():
    class Answer(BaseModel):
        text: str

    wrapped = PaiAgent(TestModel(), deps_type=str, output_type=Answer, name="oracle")

    @wrapped.tool
    def secret(ctx: PaiContext[str]) -> str:
        return ctx.deps

    @step(inline=True)
    def told(answer: Answer) -> str:
        return answer.text

    plugin = Recorder()
    result = Flujo(wrap(wrapped, deps="xyzzy") >> told, plugins=[plugin]).run("go")
    assert result.status == "completed", result.error
    assert plugin.values[1].content == "xyzzy"
    assert [record.name for record in result.step_history] == ["oracle", "told"]
    with pytest.raises(PipelineError):
        Flujo(wrap(wrapped, deps="xyzzy") >> agent(TestModel(), name="a") >> wrap(wrapped) >> number)


@step
async def number(value: int) -> int:
    return value


def test_each_model_of_a_wrapped_fallback_is_governed_by_itself():
    first, _ = says(http(500))
    second, _ = says("second")
    plugin = Recorder()
    result = Flujo(wrap(PaiAgent(FallbackModel(first, second), name="both")), plugins=[plugin]).run("go")
    assert result.output == "second"
    assert plugin.moments.count("guard model") == 2
    assert (result.usage.requests, result.usage.unmeasured) == (2, 1)


def test_a_handler_of_events_sees_an_answer_only_after_it_was_settled():
    events = []

    async def handle(ctx, stream):
        async for event in stream:
            events.append(type(event).__name__)

    plugin = Recorder()
    watched = PaiAgent(
        TestModel(custom_output_text="one two"), capabilities=[ProcessEventStream(handle)], name="watched"
    )
    result = Flujo(wrap(watched), plugins=[plugin]).run("go")
    assert (result.output, plugin.moments.count("guard model")) == ("one two", 1)
    assert "PartStartEvent" in events


def test_an_output_function_gives_its_own_type():
    def count(words: list[str]) -> int:
        return len(words)

    assert wrap(PaiAgent(TestModel(), output_type=count, name="counts")).output_type is int
    assert wrap(PaiAgent(TestModel(), output_type=[int, str], name="either")).output_type == int | str


# --- event loops ------------------------------------------------------------------------------------------------------


def test_on_trio_an_agent_says_that_it_needs_asyncio():
    result = anyio.run(Flujo(agent(TestModel())).run_async, "hello", backend="trio")
    assert result.status == "failed"
    assert "asyncio" in str(result.error)


def test_one_agent_runs_on_many_event_loops_at_once(server):
    flujo = Flujo(agent("openai:tiny", base_url=server.base_url, max_tokens=5))

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(anyio.to_thread.run_sync, check)

    def check():
        assert flujo.run("hello").status == "completed"

    anyio.run(main)
