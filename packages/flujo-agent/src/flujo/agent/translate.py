"""pydantic-ai's messages as flujo.core's, and back.

Each text that goes to a model is one message of the core request, and its place is remembered: so what a transform
changes is changed in the original, which keeps signatures, ids and other facts that only the provider understands.
What core's messages cannot show (images, files, a provider's own tool calls) is refused: no guard would see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue
from pydantic_ai import messages as pai
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition as PaiTool

from flujo.core import ConfigurationError, Message, ModelRequest, ModelResponse, ModelUsage, ToolCall, ToolDefinition

from .prices import listed_usd

INSTRUCTIONS = -1
"""Stands for the list of instructions where others have the number of a message."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message of the core request comes from.

    Attributes:
        message: Number of pydantic-ai's message, or INSTRUCTIONS.
        part: Number of the part with its text; None where there is none.
        item: Number of the text within a prompt of several.
        calls: Numbers of the parts with its tool calls.
    """

    message: int
    part: int | None
    item: int | None = None
    calls: tuple[int, ...] = ()


TOKENS_OF_TOOLS = 1024
"""More than Anthropic adds to a request with tools, or with a schema for the answer: some hundred tokens of its own."""

Written = list[tuple[Message, Place]]

_OF_PROVIDER = (pai.NativeToolCallPart, pai.NativeToolReturnPart)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request of pydantic-ai and its counterpart."""

    messages: list[pai.ModelMessage]
    params: ModelRequestParameters
    request: ModelRequest
    places: tuple[Place, ...]


# --- to core ----------------------------------------------------------------------------------------------------------


def outgoing(
    model: str, messages: list[pai.ModelMessage], settings: ModelSettings, params: ModelRequestParameters
) -> Outgoing:
    """The core request for what pydantic-ai is about to send to `model`.

    Raises:
        ConfigurationError: There is something in it that core's messages cannot show.
    """
    written: Written = [
        (Message(role="system", content=part.content), Place(INSTRUCTIONS, number))
        for number, part in enumerate(_instructions(messages, params))
    ]
    for number, message in enumerate(messages):
        if isinstance(message, pai.ModelRequest):
            written += _of_request(number, message.parts)
        else:
            written += _of_response(number, message.parts, provider=bool(params.native_tools))
    request = ModelRequest(
        model=model,
        messages=tuple(message for message, _ in written),
        max_tokens=settings.get("max_tokens"),
        temperature=settings.get("temperature"),
        tools=tuple(_tool(tool) for tool in (*params.declared_function_tools, *params.output_tools)),
        output_schema=None if params.output_object is None else params.output_object.json_schema,
        provider_tools=tuple(tool.kind for tool in params.native_tools),
        unseen_tokens=_unseen_tokens(model, messages, params),
    )
    return Outgoing(messages, params, request, tuple(place for _, place in written))


def _unseen_tokens(model: str, messages: Sequence[pai.ModelMessage], params: ModelRequestParameters) -> int:
    """Input tokens that count beside the texts: what Claude is told of tools, and thoughts that go back sealed."""
    parts = [part for message in messages if isinstance(message, pai.ModelResponse) for part in message.parts]
    sealed = sum(len(part.signature or "") for part in parts if isinstance(part, pai.ThinkingPart))
    told = params.declared_function_tools or params.output_tools or params.native_tools or params.output_object
    return sealed + (TOKENS_OF_TOOLS if told and "claude" in model else 0)


def _instructions(messages: Sequence[pai.ModelMessage], params: ModelRequestParameters) -> list[pai.InstructionPart]:
    if params.instruction_parts is not None:
        return params.instruction_parts
    given = [m.instructions for m in messages if isinstance(m, pai.ModelRequest) and m.instructions]
    return [pai.InstructionPart(content=given[-1])] if given else []


def _of_request(number: int, parts: Sequence[pai.ModelRequestPart]) -> Iterator[tuple[Message, Place]]:
    for index, part in enumerate(parts):
        place = Place(number, index)
        if isinstance(part, pai.SystemPromptPart):
            yield Message(role="system", content=part.content), place
        elif isinstance(part, pai.UserPromptPart):
            yield from _of_prompt(part.content, place)
        elif isinstance(part, pai.ToolReturnPart) and not part.files:
            yield Message(role="tool", content=part.model_response_str(), tool_call_id=part.tool_call_id), place
        elif isinstance(part, pai.RetryFeedbackPart):
            yield Message(role="user", content=part.model_response()), place
        else:
            raise _unseen(part.part_kind)


def _of_prompt(content: str | Sequence[pai.UserContent], place: Place) -> Iterator[tuple[Message, Place]]:
    if isinstance(content, str):
        yield Message(role="user", content=content), place
        return
    for item, piece in enumerate(content):
        if isinstance(piece, (str, pai.TextContent)):
            text = piece if isinstance(piece, str) else piece.content
            yield Message(role="user", content=text), replace(place, item=item)
        elif not isinstance(piece, pai.CachePoint):  # a mark for the provider's cache, without content
            raise _unseen(piece.kind)


def _of_response(number: int, parts: Sequence[pai.ModelResponsePart], *, provider: bool) -> Written:
    """An assistant message for each text; the last of them carries the tool calls.

    What tools at the provider were asked and said is passed over where there are any: it stays at the provider.
    """
    written: Written = []
    calls: list[ToolCall] = []
    numbers: list[int] = []
    for index, part in enumerate(parts):
        if isinstance(part, (pai.TextPart, pai.ThinkingPart)):
            written.append((Message(role="assistant", content=part.content), Place(number, index)))
        elif isinstance(part, pai.ToolCallPart):
            calls.append(_call(part))
            numbers.append(index)
        elif not (provider and isinstance(part, _OF_PROVIDER)):
            raise _unseen(part.part_kind)
    if calls:
        message, place = written.pop() if written else (Message(role="assistant"), Place(number, None))
        message = message.model_copy(update={"tool_calls": tuple(calls)})
        written.append((message, replace(place, calls=tuple(numbers))))
    return written


def _call(part: pai.ToolCallPart) -> ToolCall:
    return ToolCall(name=part.tool_name, arguments=part.args_as_dict(), id=part.tool_call_id)


def _tool(tool: PaiTool) -> ToolDefinition:
    return ToolDefinition(name=tool.name, description=tool.description or "", parameters=tool.parameters_json_schema)


def _unseen(kind: str) -> ConfigurationError:
    what = f"a message part of kind {kind!r} cannot be sent"
    why = "Flujo's messages carry text and tool calls only, so no guard, transform or limit would see it"
    return ConfigurationError(what, why, "Give the model text, or let a tool turn it into text")


# --- back from core ---------------------------------------------------------------------------------------------------


def changed(sent: Outgoing, final: ModelRequest) -> tuple[list[pai.ModelMessage], ModelRequestParameters]:
    """What to send when transforms made `final` of the request."""
    messages, params = sent.messages, sent.params
    before = sent.request
    if final.messages is not before.messages and final.messages != before.messages:
        if _same_shape(before.messages, final.messages):
            messages, params = _patched(sent, final)
        else:
            messages, params = _plain(final.messages), replace(params, instruction_parts=[])
    if final.tools != before.tools:
        params = _with_tools(params, final.tools)
    if final.provider_tools != before.provider_tools:
        params = _with_provider_tools(params, final.provider_tools)
    if final.output_schema != before.output_schema and params.output_object is not None:
        params = replace(params, output_object=replace(params.output_object, json_schema=final.output_schema or {}))
    return messages, params


def _same_shape(before: Sequence[Message], after: Sequence[Message]) -> bool:
    def shape(message: Message) -> tuple[str, str, list[str]]:
        return message.role, message.tool_call_id, [call.id for call in message.tool_calls]

    return [shape(message) for message in before] == [shape(message) for message in after]


def _patched(sent: Outgoing, final: ModelRequest) -> tuple[list[pai.ModelMessage], ModelRequestParameters]:
    messages = list(sent.messages)
    instructions = list(_instructions(messages, sent.params))
    for old, new, place in zip(sent.request.messages, final.messages, sent.places, strict=True):
        if new == old:
            continue
        if place.message == INSTRUCTIONS:
            assert place.part is not None
            instructions[place.part] = replace(instructions[place.part], content=new.content)
            continue
        message = messages[place.message]
        if isinstance(message, pai.ModelRequest):
            messages[place.message] = _patched_request(message, place, new.content)
        else:
            messages[place.message] = _patched_response(message, place, new)
    if instructions != _instructions(sent.messages, sent.params):
        text = pai.InstructionPart.join(instructions)  # which requests hold too
        messages = [_instructed(message, text) for message in messages]
    return messages, replace(sent.params, instruction_parts=instructions)


def _instructed(message: pai.ModelMessage, text: str | None) -> pai.ModelMessage:
    if isinstance(message, pai.ModelRequest) and message.instructions is not None:
        return replace(message, instructions=text)
    return message


def _patched_request(message: pai.ModelRequest, place: Place, text: str) -> pai.ModelRequest:
    parts = list(message.parts)
    assert place.part is not None
    part = parts[place.part]
    if isinstance(part, pai.UserPromptPart) and place.item is not None:
        pieces = list(part.content)
        piece = pieces[place.item]
        pieces[place.item] = replace(piece, content=text) if isinstance(piece, pai.TextContent) else text
        parts[place.part] = replace(part, content=pieces)
    elif isinstance(part, pai.RetryFeedbackPart):
        parts[place.part] = pai.UserPromptPart(text)
    elif isinstance(part, pai.ToolReturnPart):
        parts[place.part] = _with_content(part, text)
    elif isinstance(part, (pai.SystemPromptPart, pai.UserPromptPart)):
        parts[place.part] = replace(part, content=text)
    return replace(message, parts=parts)


def _with_content(part: pai.ToolReturnPart, text: str) -> pai.ToolReturnPart:
    return replace(part, content=text)


def _patched_response(message: pai.ModelResponse, place: Place, new: Message) -> pai.ModelResponse:
    parts = list(message.parts)
    if place.part is not None:
        part = parts[place.part]
        if isinstance(part, pai.TextPart):
            parts[place.part] = replace(part, content=new.content)
        elif isinstance(part, pai.ThinkingPart) and part.content != new.content:
            # its signature is over the text: with another text the provider would refuse it
            parts[place.part] = replace(part, content=new.content, signature=None)
    for number, call in zip(place.calls, new.tool_calls, strict=True):
        old = parts[number]
        assert isinstance(old, pai.ToolCallPart)
        parts[number] = _revised_call(old, call)
    return replace(message, parts=parts)


def _plain(messages: Sequence[Message]) -> list[pai.ModelMessage]:
    """Messages made anew, where a transform added some or took some away."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    made: list[pai.ModelMessage] = []
    for message in messages:
        if message.role == "assistant":
            made.append(
                pai.ModelResponse(parts=[*_text(message.content), *(_call_part(c) for c in message.tool_calls)])
            )
            continue
        part: pai.ModelRequestPart
        if message.role == "system":
            part = pai.SystemPromptPart(message.content)
        elif message.role == "user":
            part = pai.UserPromptPart(message.content)
        else:
            part = pai.ToolReturnPart(names.get(message.tool_call_id, ""), message.content, message.tool_call_id)
        if made and isinstance(made[-1], pai.ModelRequest):
            made[-1] = replace(made[-1], parts=[*made[-1].parts, part])
        else:
            made.append(pai.ModelRequest(parts=[part]))
    return made


def _text(content: str) -> list[pai.TextPart]:
    return [pai.TextPart(content)] if content else []


def _call_part(call: ToolCall) -> pai.ToolCallPart:
    return pai.ToolCallPart(call.name, dict(call.arguments), call.id)


def _with_tools(params: ModelRequestParameters, tools: Sequence[ToolDefinition]) -> ModelRequestParameters:
    wanted = {tool.name: tool for tool in tools}
    unknown = set(wanted) - {tool.name for tool in (*params.function_tools, *params.output_tools)}
    if unknown:
        what = f"tools {sorted(unknown)!r} cannot be offered to the model"
        raise ConfigurationError(what, "a transform added them, and the agent could not run them")

    def kept(offered: Sequence[PaiTool]) -> list[PaiTool]:
        return [_redefined(tool, wanted[tool.name]) for tool in offered if tool.name in wanted]

    return replace(params, function_tools=kept(params.function_tools), output_tools=kept(params.output_tools))


def _with_provider_tools(params: ModelRequestParameters, kinds: Sequence[str]) -> ModelRequestParameters:
    unknown = set(kinds) - {tool.kind for tool in params.native_tools}
    if unknown:
        what = f"tools at the provider {sorted(unknown)!r} cannot be offered to the model"
        raise ConfigurationError(what, "a transform added them, and the agent does not know their settings")
    return replace(params, native_tools=[tool for tool in params.native_tools if tool.kind in kinds])


def _redefined(tool: PaiTool, wanted: ToolDefinition) -> PaiTool:
    if _tool(tool) == wanted:
        return tool
    schema: dict[str, JsonValue] = dict(wanted.parameters)
    return replace(tool, description=wanted.description or None, parameters_json_schema=schema)


# --- answers ----------------------------------------------------------------------------------------------------------


def incoming(response: pai.ModelResponse) -> ModelResponse:
    """A model's answer for core. Its usage is None where the provider reported none."""
    return ModelResponse(
        content="".join(part.content for part in response.parts if isinstance(part, pai.TextPart)),
        tool_calls=tuple(_call(part) for part in response.parts if isinstance(part, pai.ToolCallPart)),
        usage=_usage(response),
        model=response.model_name or "",
        finish_reason=response.finish_reason or "",
    )


def _usage(response: pai.ModelResponse) -> ModelUsage | None:
    usage = response.usage
    if not (usage.input_tokens or usage.output_tokens):
        return None
    return ModelUsage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost_usd=usage.cost)


def priced(answer: ModelResponse, response: pai.ModelResponse, model: str) -> ModelResponse:
    """The answer for core with what the price list knows of its cost beside that of its tokens."""
    if answer.usage is None:
        return answer
    listed = listed_usd(model, response.usage, response.provider_details or {})
    if not listed:
        return answer
    return answer.model_copy(update={"usage": answer.usage.model_copy(update={"listed_usd": listed})})


def revised(
    kept: pai.ModelResponse, before: ModelResponse, after: ModelResponse, *, provider: bool = False
) -> pai.ModelResponse:
    """The answer as transforms left it; with parts of tools at the provider only where there were any.

    Raises:
        ConfigurationError: It holds what core's messages cannot show.
    """
    parts: list[pai.ModelResponsePart] = []
    allowed = (pai.TextPart, pai.ThinkingPart, pai.ToolCallPart, *(_OF_PROVIDER if provider else ()))
    for part in kept.parts:
        if not isinstance(part, allowed):
            raise _unseen(part.part_kind)
        parts.append(part)
    if after is before or (after.content == before.content and after.tool_calls == before.tool_calls):
        return kept
    calls = {part.tool_call_id: part for part in parts if isinstance(part, pai.ToolCallPart)}
    if after.content != before.content:
        # which of several texts it belongs to is not known: the new one stands for all
        parts = [part for part in parts if not isinstance(part, pai.TextPart)]
        parts += _text(after.content)
    if after.tool_calls != before.tool_calls:
        parts = [part for part in parts if not isinstance(part, pai.ToolCallPart)]
        parts += [_revised_call(calls.get(call.id), call) for call in after.tool_calls]
    else:  # the calls stay last
        parts.sort(key=lambda part: isinstance(part, pai.ToolCallPart))
    return replace(kept, parts=parts)


def _revised_call(part: pai.ToolCallPart | None, call: ToolCall) -> pai.ToolCallPart:
    if part is None:
        return _call_part(call)
    return part if _call(part) == call else replace(part, tool_name=call.name, args=dict(call.arguments))
