"""Who looks at a call of a model or a tool gets a copy: what it changes in that reaches neither the call nor others."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.core import (
    UNCHANGED,
    Allow,
    Flujo,
    Message,
    ModelRequest,
    ModelResponse,
    Price,
    RunContext,
    Step,
    ToolCall,
    ToolDefinition,
    ToolResult,
    hookimpl,
)

pytestmark = pytest.mark.anyio

SPOILT = "spoilt"


def spoil(value: Any) -> None:
    """Change all that can be changed in some JSON."""
    if isinstance(value, dict):
        for one in value.values():
            spoil(one)
        value[SPOILT] = True
    if isinstance(value, list):
        value.append(SPOILT)


def spoil_all(*shown: object) -> None:
    for value in shown:
        if isinstance(value, ModelRequest):
            spoil(value.output_schema)
            for tool in value.tools:
                spoil(tool.parameters)
            for message in value.messages:
                spoil_all(*message.tool_calls)
        elif isinstance(value, ModelResponse):
            spoil_all(*value.tool_calls)
        elif isinstance(value, ToolCall):
            spoil(value.arguments)
        elif isinstance(value, ToolResult):
            spoil(value.content)


class Spoiler:
    """Changes what it is shown: at once, or, as `kept`, when the call is on its way."""

    def __init__(self, moment: str, later: bool) -> None:
        self.moment, self.later, self.shown, self.kept = moment, later, list[str](), list[object]()

    def look(self, moment: str, *shown: object) -> None:
        self.shown += [repr(value) for value in shown if value is not None]
        if self.moment == moment and self.later:
            self.kept += shown
        elif self.moment == moment:
            spoil_all(*shown)

    @hookimpl
    def guard_model_call(self, payload: Any) -> Allow:
        self.look("guard", payload.request)
        return Allow()

    @hookimpl
    def guard_tool_call(self, payload: Any) -> Allow:
        self.look("guard", payload.call)
        return Allow()

    @hookimpl
    def record_intent(self, payload: Any) -> None:
        self.look("intent", payload.subject)

    @hookimpl
    def transform_model_response(self, payload: Any) -> object:
        self.look("response", payload.request)
        return UNCHANGED

    @hookimpl
    def record_result(self, payload: Any) -> None:
        if payload.kind != "step":
            self.look("result", payload.value)

    @hookimpl
    def on_model_call(self, payload: Any) -> None:
        self.look("observed", payload.request, payload.response)

    @hookimpl
    def on_tool_call(self, payload: Any) -> None:
        self.look("observed", payload.call, payload.result)


class Watcher(Spoiler):
    """Looks only; it comes after the other."""


def request() -> ModelRequest:
    return ModelRequest(
        model="m",
        messages=(
            Message(role="user", content="hi"),
            Message(role="assistant", tool_calls=(ToolCall(name="look", arguments={"at": {"deep": [1]}}),)),
        ),
        tools=(ToolDefinition(name="look", parameters={"type": "object", "properties": {}}),),
        output_schema={"type": "object", "required": []},
    )


MOMENTS = ["guard", "intent", "response", "result", "observed"]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_what_somebody_changes_in_what_it_is_shown_reaches_no_call(moment: str, later: bool) -> None:
    spoiler, watcher, sent, given = Spoiler(moment, later), Watcher("", False), list[str](), list[str]()

    async def send(final: Any) -> Any:
        spoil_all(*spoiler.kept)
        sent.append(repr(final))
        if isinstance(final, ToolCall):
            return {"found": [1]}
        return ModelResponse(tool_calls=(ToolCall(name="look", arguments={"at": []}),))

    async def work(value: int, ctx: RunContext) -> int:
        asked, call = request(), ToolCall(name="look", arguments={"at": {"deep": [1]}})
        answers = [await ctx.call_model(asked, send, price=Price()), await ctx.call_tool(call, send)]
        spoil_all(*spoiler.kept)
        given.extend(repr(value) for value in (asked, call, *answers))
        return value

    assert (await Flujo(Step(work), plugins=[spoiler, watcher]).run_async(1)).status == "completed"
    assert len(sent) == 2
    assert len(spoiler.shown) == len(watcher.shown) >= 10
    assert SPOILT not in "".join([*sent, *given])
    if later:
        assert len(spoiler.kept) >= 2 or moment == "response"


async def test_what_a_step_changes_in_its_request_reaches_no_call_that_was_guarded() -> None:
    asked, call, sent = request(), ToolCall(name="look", arguments={"at": []}), list[str]()

    class Slow:
        @hookimpl
        def record_intent(self, payload: Any) -> None:
            # as another task of the step could, while somebody is asked
            spoil_all({"model_call": asked, "tool_call": call}.get(payload.kind))

    async def send(final: Any) -> Any:
        sent.append(repr(final))
        return ModelResponse() if isinstance(final, ModelRequest) else None

    async def work(value: int, ctx: RunContext) -> int:
        await ctx.call_model(asked, send, price=Price())
        await ctx.call_tool(call, send)
        return value

    assert (await Flujo(Step(work), plugins=[Slow()]).run_async(1)).status == "completed"
    assert len(sent) == 2
    assert SPOILT not in "".join(sent)


def test_a_copy_shares_what_nobody_can_change() -> None:
    plain, asked = Message(role="user", content="hi"), request()
    assert plain.model_copy(deep=True) is plain
    copied = asked.model_copy(deep=True)
    assert copied == asked
    assert copied.messages[0] is asked.messages[0]
    assert copied.messages[1].tool_calls[0].arguments is not asked.messages[1].tool_calls[0].arguments
    assert copied.output_schema is not asked.output_schema
